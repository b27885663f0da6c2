//! The keeper: one small process per container, which carries its plan out.
//!
//! It is executed by a host it knows nothing about, with a socket as descriptor 3 and
//! nothing else to go by. It has no libc, no allocator and one thread, so that it starts in
//! microseconds, may fork at any time, and costs a few pages while it waits.
#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(clippy::result_large_err)] // There is no allocator a failure frame could be boxed in.
#![allow(clippy::large_enum_variant)] // For the same reason.

mod abi;
mod agent;
mod arch;
mod child;
mod cleanup;
mod copy;
mod descriptors;
mod device;
mod failure;
mod hook;
mod identity;
mod idle;
mod idmap;
mod interface;
mod keeper;
mod memory;
mod mount;
mod netlink;
mod path;
mod peer;
mod process;
mod procfs;
mod program;
mod request;
mod reset;
mod root;
mod settings;
mod socket;
mod system;
mod terminal;
mod text;
mod walk;

/// Called by the entry point, once, on an empty stack.
extern "C" fn main() -> ! {
    reset::inherited();
    keeper::serve()
}

/// A bug. The container's processes notice that their keeper is gone.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    system::exit(134)
}

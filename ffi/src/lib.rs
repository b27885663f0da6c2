//! The C ABI of Locule.
//!
//! Every function here converts its arguments, calls the crate `locule` and converts the
//! result; there is no logic. The C header `include/locule.h` is generated from these files,
//! one section a file, and their doc comments are written for its readers.
//!
//! What this crate must never do: unwind into its caller, keep a pointer it was given past
//! the call, write to the host's standard streams, or start a thread.

#![allow(non_camel_case_types)] // the names are C's
#![allow(clippy::missing_safety_doc)] // the header states the contract once, for all functions

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("Locule runs on 64-bit Linux; the layout of its C structs relies on it");

pub mod buf;
pub mod cancel;
pub mod container;
pub mod error;
pub mod event;
pub mod image;
pub mod image_opts;
pub mod options;
pub mod plugin;
pub mod plugin_call;
pub mod process;
pub mod runtime;
pub mod spec;
pub mod version;

mod argument;
mod entry;
mod handle;
mod images;
mod wasm;

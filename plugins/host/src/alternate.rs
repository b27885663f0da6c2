//! The calling thread's alternate signal stack, which is the host's. In the first call on a thread
//! the engine's crate puts one of its own there if there is none as large as it likes, for signal
//! handlers that it does not install here, and when the thread ends it takes away what it finds.

use std::cell::Cell;
use std::io;
use std::ptr;

/// More than it likes: 256 KiB.
const LARGE: usize = 512 << 10;

thread_local! {
    static PREPARED: Cell<bool> = const { Cell::new(false) };
}

/// Prepares this thread for calls. The engine's crate does its part while the thread has a large one
/// for a moment, which may be used like any other, and so changes nothing.
pub(crate) fn keep() -> io::Result<()> {
    if PREPARED.get() {
        return Ok(());
    }
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, of which nobody else knows.
    let memory = unsafe { libc::mmap(ptr::null_mut(), LARGE, access, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let large = libc::stack_t { ss_sp: memory, ss_flags: 0, ss_size: LARGE };
    let mut own = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: the structures live through the calls, and the mapping for as long as it is this
    // thread's signal stack. Nothing here is run on that, so it can be changed back.
    unsafe {
        if libc::sigaltstack(&raw const large, &raw mut own) != 0 {
            let error = io::Error::last_os_error();
            libc::munmap(memory, LARGE);
            return Err(error);
        }
        wasmtime::Engine::tls_eager_initialize();
        if libc::sigaltstack(&raw const own, ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::munmap(memory, LARGE);
    }
    PREPARED.set(true);
    Ok(())
}

//! How much stack the calling thread has left. Code without signal handlers must not come near its
//! end: the engine's own limit counts from where it begins, not from where the thread's stack ends.

use std::cell::Cell;

/// What the functions that a component calls need below it.
const BELOW: usize = 192 << 10;

thread_local! {
    /// Where this thread's stack ends; asking the system is slow in a process's first thread.
    static END: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Whether there is room for a component that may use this much; else how much there is.
pub(crate) fn has_room(bytes: usize) -> Result<(), usize> {
    let here = std::ptr::from_ref(&bytes).addr();
    let Some(end) = END.get().or_else(end_of_stack) else { return Ok(()) };
    END.set(Some(end));
    // A thread that runs on a stack of its own making is for its maker to judge.
    let Some(left) = here.checked_sub(end) else { return Ok(()) };
    if left >= bytes + BELOW { Ok(()) } else { Err(left) }
}

fn end_of_stack() -> Option<usize> {
    // SAFETY: the attributes are initialised by the first call, read, and destroyed.
    unsafe {
        let mut attributes = std::mem::zeroed::<libc::pthread_attr_t>();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) != 0 {
            return None;
        }
        let (mut address, mut size) = (std::ptr::null_mut(), 0);
        let failed = libc::pthread_attr_getstack(&attributes, &mut address, &mut size);
        libc::pthread_attr_destroy(&mut attributes);
        (failed == 0).then(|| address.addr())
    }
}

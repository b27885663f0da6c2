//! What locule_runtime_dispatch reports.

use std::ffi::{CString, c_char, c_int};
use std::ptr;

use locule::{Event, Exit};

use crate::argument::object;
use crate::entry::{fallible, infallible};
use crate::error::{c_string, locule_error};
use crate::handle;
use crate::options;
use crate::process::{locule_exit, locule_process};

/// A process has ended.
pub const LOCULE_EVENT_EXITED: u32 = 1;

/// Something that happened. Lives as long as the callback that gets it.
pub struct locule_event {
    kind: u32,
    container_id: CString,
    process: *mut locule_process,
    exit: Exit,
}

impl locule_event {
    /// `None` for an event that this version of the ABI has no kind for.
    pub(crate) fn new(event: Event) -> Option<locule_event> {
        match event {
            Event::Exited { container_id, process, exit } => Some(locule_event {
                kind: LOCULE_EVENT_EXITED,
                container_id: c_string(&container_id),
                process: handle::new(locule_process(process)),
                exit,
            }),
            _ => None,
        }
    }
}

impl Drop for locule_event {
    fn drop(&mut self) {
        // SAFETY: the reference from `new`; the callback had to take its own.
        unsafe { handle::release(self.process) };
    }
}

/// What happened, one of LOCULE_EVENT_*. 0 for NULL. A callback returns 0 for a kind that it
/// does not know: later versions may add some.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_event_kind(event: *const locule_event) -> u32 {
    // SAFETY: NULL or the event of a running callback, as the header asks.
    infallible(0, || unsafe { object(event, "event") }.map_or(0, |event| event.kind))
}

/// The id of the container. Borrowed from the event. NULL for NULL.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_event_container_id(event: *const locule_event) -> *const c_char {
    infallible(ptr::null(), || {
        // SAFETY: NULL or the event of a running callback, as the header asks.
        unsafe { object(event, "event") }.map_or(ptr::null(), |event| event.container_id.as_ptr())
    })
}

/// The process. Borrowed from the event: to keep it, take a reference with
/// locule_process_ref. The handle is another one than the host has from locule_container_exec
/// or locule_container_init; the container's id and the pid tell which process it is. NULL for
/// NULL.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_event_process(event: *const locule_event) -> *mut locule_process {
    infallible(ptr::null_mut(), || {
        // SAFETY: NULL or the event of a running callback, as the header asks.
        unsafe { object(event, "event") }.map_or(ptr::null_mut(), |event| event.process)
    })
}

/// Stores in *out how the process ended.
///
/// Only in the callback. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_event_exit(
    event: *const locule_event,
    out: *mut locule_exit,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let size = options::size_of_given(out, "out")?;
            let event = object(event, "event")?;
            options::write(out, size, &Some(event.exit).into());
            Ok(0)
        })
    }
}

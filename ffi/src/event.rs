//! What locule_runtime_dispatch reports.

use std::ffi::{CString, c_char, c_int};
use std::ptr;

use locule::cgroup::Trigger;
use locule::{Event, Exit};

use crate::argument::{invalid, object};
use crate::container::locule_watch_opts;
use crate::entry::{fallible, infallible};
use crate::error::{c_string, locule_error};
use crate::handle;
use crate::options;
use crate::process::{locule_exit, locule_process};

/// A process has ended.
pub const LOCULE_EVENT_EXITED: u32 = 1;
/// A container that is watched for it ran out of memory.
pub const LOCULE_EVENT_OOM: u32 = 2;
/// Processes of a container that is watched for it had to wait too long.
pub const LOCULE_EVENT_PRESSURE: u32 = 3;

/// Something that happened. Lives as long as the callback that gets it.
pub struct locule_event {
    kind: u32,
    container_id: CString,
    what: What,
}

/// What there is to ask about an event.
enum What {
    Exited(*mut locule_process, Exit),
    Oom(u64),
    Pressure(Trigger),
}

impl locule_event {
    /// `None` for an event that this version of the ABI has no kind for.
    pub(crate) fn new(event: Event) -> Option<locule_event> {
        match event {
            Event::Exited { container_id, process, exit } => Some(locule_event {
                kind: LOCULE_EVENT_EXITED,
                container_id: c_string(&container_id),
                what: What::Exited(handle::new(locule_process(process)), exit),
            }),
            Event::OutOfMemory { container_id, kills } => Some(locule_event {
                kind: LOCULE_EVENT_OOM,
                container_id: c_string(&container_id),
                what: What::Oom(kills),
            }),
            Event::Pressure { container_id, trigger } => Some(locule_event {
                kind: LOCULE_EVENT_PRESSURE,
                container_id: c_string(&container_id),
                what: What::Pressure(trigger),
            }),
            _ => None,
        }
    }
}

impl Drop for locule_event {
    fn drop(&mut self) {
        if let What::Exited(process, _) = self.what {
            // SAFETY: the reference from `new`; the callback had to take its own.
            unsafe { handle::release(process) };
        }
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
/// NULL, and for an event that is not LOCULE_EVENT_EXITED.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_event_process(event: *const locule_event) -> *mut locule_process {
    infallible(ptr::null_mut(), || {
        // SAFETY: NULL or the event of a running callback, as the header asks.
        let event = unsafe { object(event, "event") };
        match event.map(|event| &event.what) {
            Ok(What::Exited(process, _)) => *process,
            _ => ptr::null_mut(),
        }
    })
}

/// Stores in *out how the process ended.
///
/// Only in the callback. Does not block. Fails with LOCULE_E_INVALID, also for an event that is
/// not LOCULE_EVENT_EXITED. Since 0.1.
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
            let What::Exited(_, exit) = object(event, "event")?.what else {
                return Err(invalid("the event is not the end of a process"));
            };
            options::write(out, size, &Some(exit).into());
            Ok(0)
        })
    }
}

/// How many processes of the container the kernel has killed for want of memory by now. With
/// cgroup v1 the kernel reports that memory ran out before it kills. 0 for NULL, and for an event
/// that is not LOCULE_EVENT_OOM.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_event_oom_kills(event: *const locule_event) -> u64 {
    infallible(0, || {
        // SAFETY: NULL or the event of a running callback, as the header asks.
        match unsafe { object(event, "event") }.map(|event| &event.what) {
            Ok(What::Oom(kills)) => *kills,
            _ => 0,
        }
    })
}

/// Stores in *out what a LOCULE_EVENT_PRESSURE was watched for, as it was given to
/// locule_container_watch.
///
/// Only in the callback. Does not block. Fails with LOCULE_E_INVALID, also for another event.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_event_pressure(
    event: *const locule_event,
    out: *mut locule_watch_opts,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let size = options::size_of_given(out, "out")?;
            let What::Pressure(trigger) = &object(event, "event")?.what else {
                return Err(invalid("the event is not pressure"));
            };
            options::write(out, size, &trigger.into());
            Ok(0)
        })
    }
}

//! A process in a container: waiting, signals, its pipes and its terminal.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, IntoRawFd};

use locule::{Category, Error, Exit, Process, Result, Stage, TerminalSize};

use crate::argument::{invalid, object, poll_timeout};
use crate::cancel::{self, locule_cancel};
use crate::entry::{fallible, infallible};
use crate::error::{LOCULE_E_INVALID, locule_error};
use crate::handle;
use crate::options::{self, Versioned};

/// The process has not ended.
pub const LOCULE_EXIT_NONE: u32 = 0;
/// The process exited: see `code`.
pub const LOCULE_EXIT_CODE: u32 = 1;
/// A signal killed the process: see `signal` and `core_dumped`.
pub const LOCULE_EXIT_SIGNAL: u32 = 2;
/// The process is gone and nobody could collect its status: its keeper was killed, or it has
/// no keeper and is not the caller's child.
pub const LOCULE_EXIT_UNKNOWN: u32 = 3;

/// How a process ended.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_exit {
    /// sizeof(struct locule_exit), set by the caller.
    pub size: usize,
    /// One of LOCULE_EXIT_*.
    pub kind: u32,
    /// With LOCULE_EXIT_CODE: the exit code, 0 to 255. Else 0.
    pub code: i32,
    /// With LOCULE_EXIT_SIGNAL: the signal. Else 0.
    pub signal: i32,
    /// With LOCULE_EXIT_SIGNAL: 1 if it left a core dump. Else 0.
    pub core_dumped: u32,
}

// SAFETY: `repr(C)`, the size comes first, integers only, without padding (tests/abi/layout.rs).
unsafe impl Versioned for locule_exit {
    const NAME: &'static str = "locule_exit";
    const FIRST_SIZE: usize = 24;
}

impl From<Option<Exit>> for locule_exit {
    fn from(exit: Option<Exit>) -> Self {
        let mut filled = locule_exit {
            size: size_of::<locule_exit>(),
            kind: LOCULE_EXIT_NONE,
            code: 0,
            signal: 0,
            core_dumped: 0,
        };
        match exit {
            None => {}
            Some(Exit::Code(code)) => (filled.kind, filled.code) = (LOCULE_EXIT_CODE, code),
            Some(Exit::Signal { signal, core_dumped }) => {
                filled.kind = LOCULE_EXIT_SIGNAL;
                filled.signal = signal;
                filled.core_dumped = core_dumped.into();
            }
            Some(Exit::Unknown) => filled.kind = LOCULE_EXIT_UNKNOWN,
        }
        filled
    }
}

/// A process in a container.
pub struct locule_process(pub(crate) Process);

/// The process behind a handle.
///
/// # Safety
/// `process` is NULL or a live handle for the length of the call.
unsafe fn target<'a>(process: *const locule_process) -> Result<&'a Process> {
    // SAFETY: passed on to the caller.
    unsafe { object(process, "process") }.map(|process| &process.0)
}

/// The pid as the calling process sees it: above 0, also after the process has ended.
/// LOCULE_E_INVALID for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_process_pid(process: *const locule_process) -> c_int {
    infallible(LOCULE_E_INVALID, || {
        // SAFETY: NULL or a live handle, as the header asks.
        unsafe { target(process) }.map_or(LOCULE_E_INVALID, Process::pid)
    })
}

/// The descriptor to poll: readable from the moment on which the exit status is there, and it
/// stays so. Borrowed: it is closed with the process handle, and must only be polled.
/// LOCULE_E_INVALID for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_process_fd(process: *const locule_process) -> c_int {
    infallible(LOCULE_E_INVALID, || {
        // SAFETY: NULL or a live handle, as the header asks.
        unsafe { target(process) }.map_or(LOCULE_E_INVALID, |process| process.exit_fd().as_raw_fd())
    })
}

/// Waits until the process has ended. Returns 1 and fills *out, or returns 0 after
/// `timeout_ms` milliseconds (negative: no limit; 0: only looks). It may be called again, and
/// by several threads. `cancel` and `out` may be NULL.
///
/// Any thread. Blocks up to the timeout. Fails with LOCULE_E_INVALID, LOCULE_E_CANCELLED,
/// LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_process_wait(
    process: *mut locule_process,
    timeout_ms: c_int,
    cancel: *mut locule_cancel,
    out: *mut locule_exit,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let size = match out.is_null() {
                true => None,
                false => Some(options::size_of_given(out, "out")?),
            };
            let fill = |exit: Option<Exit>| {
                if let Some(size) = size {
                    options::write(out, size, &exit.into());
                }
            };
            fill(None);
            let exit = target(process)?.wait(poll_timeout(timeout_ms), cancel::optional(cancel))?;
            fill(exit);
            Ok(exit.is_some().into())
        })
    }
}

/// Sends the process a signal.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_STATE if it has ended,
/// LOCULE_E_PERMISSION. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_process_signal(
    process: *mut locule_process,
    signal: c_int,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe { fallible(err, || target(process)?.signal(signal).map(|()| 0)) }
}

/// Returns the host's end of the pipe to standard stream `number` (0 to 2), made with
/// LOCULE_STDIO_PIPE. The caller owns the descriptor and closes it; closing the end of stream
/// 0 is the end of the program's input. Each can be taken once.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, and with LOCULE_E_NOT_FOUND if the
/// stream is no pipe or its end has been taken. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_process_take_pipe(
    process: *mut locule_process,
    number: u32,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let process = target(process)?;
            if number > 2 {
                return Err(invalid(format!("`number` is {number}; standard streams are 0 to 2")));
            }
            let taken = process.take_pipe(number as usize);
            taken.map(IntoRawFd::into_raw_fd).ok_or_else(|| {
                let message = format!("stream {number} is no pipe, or its end has been taken");
                Error::new(Category::NotFound, Stage::Stdio, message)
            })
        })
    }
}

/// Returns the master of the process's terminal (`"terminal": true` in its JSON). The caller
/// owns the descriptor and closes it. It can be taken once.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, and with LOCULE_E_NOT_FOUND if
/// the process has no terminal or its master has been taken. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_process_take_terminal(
    process: *mut locule_process,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            target(process)?.take_terminal().map(IntoRawFd::into_raw_fd).ok_or_else(|| {
                let message = "the process has no terminal, or its master has been taken";
                Error::new(Category::NotFound, Stage::Stdio, message)
            })
        })
    }
}

/// Tells the process's terminal its size in characters, whether or not its master has been
/// taken.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_STATE, LOCULE_E_SYSTEM.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_process_resize(
    process: *mut locule_process,
    rows: u16,
    columns: u16,
    err: *mut *mut locule_error,
) -> c_int {
    let size = TerminalSize { rows, columns };
    // SAFETY: the caller's pointers are as the header asks.
    unsafe { fallible(err, || target(process)?.resize(size).map(|()| 0)) }
}

/// Takes another reference and returns the process. NULL gives NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_process_ref(process: *mut locule_process) -> *mut locule_process {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { handle::acquire(process) }
}

/// Gives a reference back; the last one frees the handle, its descriptor and pipe ends that
/// were not taken. The process itself goes on. NULL is ignored.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_process_unref(process: *mut locule_process) {
    // SAFETY: NULL or a reference that the caller owns, as the header asks.
    infallible((), || unsafe { handle::release(process) });
}

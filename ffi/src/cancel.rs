//! Tokens that stop waiting calls.

use std::ffi::c_int;
use std::os::fd::AsRawFd;
use std::ptr;

use locule::Cancel;

use crate::argument;
use crate::entry::{fallible, infallible};
use crate::error::{LOCULE_E_INVALID, locule_error};
use crate::handle;

/// A token that stops waiting calls.
pub struct locule_cancel(pub(crate) Cancel);

/// The token of a call, if it was given one.
///
/// # Safety
/// `cancel` is NULL or a live handle for the length of the call.
pub(crate) unsafe fn optional<'a>(cancel: *const locule_cancel) -> Option<&'a Cancel> {
    // SAFETY: passed on to the caller.
    unsafe { argument::optional(cancel) }.map(|cancel| &cancel.0)
}

/// Makes a token that has not been triggered, and stores it in *out; the caller owns that
/// reference. One token may be given to any number of calls.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_RESOURCE. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_cancel_new(
    out: *mut *mut locule_cancel,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            *out = handle::new(locule_cancel(Cancel::new()?));
            Ok(0)
        })
    }
}

/// Makes every call that was given this token, now or later, return LOCULE_E_CANCELLED. It
/// cannot be undone. NULL is ignored.
///
/// Any thread, but not a signal handler. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_cancel_trigger(cancel: *mut locule_cancel) {
    infallible((), || {
        // SAFETY: NULL or a live handle, as the header asks.
        if let Some(cancel) = unsafe { optional(cancel) } {
            cancel.cancel();
        }
    });
}

/// The token's descriptor: readable once it has been triggered. Borrowed: it is closed with
/// the token, and must only be polled. LOCULE_E_INVALID for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_cancel_fd(cancel: *const locule_cancel) -> c_int {
    infallible(LOCULE_E_INVALID, || {
        // SAFETY: NULL or a live handle, as the header asks.
        match unsafe { optional(cancel) } {
            Some(cancel) => cancel.as_fd().as_raw_fd(),
            None => LOCULE_E_INVALID,
        }
    })
}

/// Takes another reference and returns the token. NULL gives NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_cancel_ref(cancel: *mut locule_cancel) -> *mut locule_cancel {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { handle::acquire(cancel) }
}

/// Gives a reference back; the last one closes the token without triggering it. NULL is
/// ignored.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_cancel_unref(cancel: *mut locule_cancel) {
    // SAFETY: NULL or a reference that the caller owns, as the header asks.
    infallible((), || unsafe { handle::release(cancel) });
}

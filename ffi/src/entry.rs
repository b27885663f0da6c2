//! The one wrapper around every entry point: a `Result` becomes an `int` and an error object,
//! a panic becomes `LOCULE_E_BUG`. Nothing may leave this crate by unwinding.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use locule::{Category, Error, Result, Stage};

use crate::error::locule_error;
use crate::handle;

thread_local! {
    /// How many entry points this thread is inside of; callbacks may nest them.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// What the hook saw of the last panic, for the error object.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a fallible entry point. Always writes `*err`: NULL on success.
///
/// # Safety
/// `err` is NULL or points to writable memory for one pointer.
pub(crate) unsafe fn fallible(
    err: *mut *mut locule_error,
    body: impl FnOnce() -> Result<c_int>,
) -> c_int {
    let outcome = catch(body).unwrap_or_else(|message| {
        Err(Error::new(Category::Bug, Stage::Control, message)
            .hint("this is a defect in Locule; please report it with this text"))
    });
    let (code, error) = match outcome {
        Ok(value) => (value, None),
        Err(error) => (error.category() as c_int, Some(error)),
    };
    if !err.is_null() {
        // Building the object only copies strings, but nothing may unwind here either.
        let object = error
            .and_then(|error| catch(|| handle::new(locule_error::from(error))).ok())
            .unwrap_or(std::ptr::null_mut());
        // SAFETY: not NULL, and the caller of this function vouches for the rest.
        unsafe { err.write(object) };
    }
    code
}

/// Runs an entry point that cannot fail, such as a getter; after a panic it returns `fallback`.
pub(crate) fn infallible<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    catch(body).unwrap_or(fallback)
}

fn catch<T>(body: impl FnOnce() -> T) -> std::result::Result<T, String> {
    quiet_hook();
    DEPTH.set(DEPTH.get() + 1);
    // What `body` leaves half done lives behind the core's locks, which notice a panic.
    let result = panic::catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    result.map_err(|payload| {
        let seen = PANIC.with_borrow_mut(Option::take).unwrap_or_else(|| text_of(&*payload));
        // A payload's own drop may panic too, and must not unwind past this point.
        if let Err(again) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
        seen
    })
}

/// Keeps panics off the host's standard error. The hook belongs to this library's own copy of
/// the Rust standard library, so a host written in Rust keeps its own. It is silent only for
/// threads inside an entry point; where the copy is shared (the rlib, in tests) every other
/// thread gets the hook that was there before.
fn quiet_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // During thread exit the thread-locals may be gone; then nothing is recorded.
            if DEPTH.try_with(Cell::get).unwrap_or(1) == 0 {
                return previous(info);
            }
            let place = info.location().map(|at| format!(" ({at})")).unwrap_or_default();
            let message = format!("panic: {}{place}", text_of(info.payload()));
            let _ = PANIC.try_with(|seen| *seen.borrow_mut() = Some(message));
        }));
    });
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{locule_error_code, locule_error_message, locule_error_unref};
    use std::ffi::CStr;

    #[test]
    fn a_panic_becomes_a_bug_with_its_text() {
        let mut err = std::ptr::null_mut();
        // SAFETY: `err` is a local variable.
        let code = unsafe { fallible(&mut err, || panic!("the {} broke", "thing")) };
        assert_eq!(code, Category::Bug as c_int);
        // SAFETY: `err` was filled by the failed call and is released once.
        unsafe {
            assert_eq!(locule_error_code(err), code);
            let text = CStr::from_ptr(locule_error_message(err)).to_str().unwrap();
            assert!(text.contains("the thing broke") && text.contains("entry.rs"), "{text}");
            locule_error_unref(err);
        }
    }

    #[test]
    fn success_clears_the_error_pointer() {
        let mut err = std::ptr::NonNull::dangling().as_ptr();
        // SAFETY: `err` is a local variable.
        assert_eq!(unsafe { fallible(&mut err, || Ok(7)) }, 7);
        assert!(err.is_null());
    }
}

//! Bytes that Locule hands out.

use std::ffi::c_char;

use locule::Result;

use crate::{argument, entry};

/// Bytes made by Locule: JSON or text. The caller owns them and frees them with
/// locule_buf_free, never with free().
#[repr(C)]
#[derive(Debug)]
pub struct locule_buf {
    /// The bytes, followed by a NUL byte that `len` does not count. NULL if empty.
    pub data: *mut c_char,
    /// How many bytes there are. Not to be changed before locule_buf_free.
    pub len: usize,
}

impl locule_buf {
    pub(crate) const EMPTY: locule_buf = locule_buf { data: std::ptr::null_mut(), len: 0 };

    pub(crate) fn new(bytes: impl Into<Vec<u8>>) -> locule_buf {
        let mut bytes: Vec<u8> = bytes.into();
        let len = bytes.len();
        bytes.push(0);
        locule_buf { data: Box::into_raw(bytes.into_boxed_slice()).cast(), len }
    }
}

/// The place for a buffer, emptied.
///
/// # Safety
/// As for every function of [`argument`].
pub(crate) unsafe fn out<'a>(pointer: *mut locule_buf) -> Result<&'a mut locule_buf> {
    // SAFETY: passed on to the caller.
    unsafe { argument::out(pointer, locule_buf::EMPTY, "out") }
}

/// Frees what a buffer holds and empties it. NULL and an empty buffer are ignored.
///
/// Any thread, but one at a time for one buffer. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_buf_free(buf: *mut locule_buf) {
    // SAFETY: NULL, or the caller's buffer as a call of this library filled it.
    let Some(buf) = (unsafe { buf.as_mut() }) else { return };
    let taken = std::mem::replace(buf, locule_buf::EMPTY);
    if !taken.data.is_null() {
        let all = std::ptr::slice_from_raw_parts_mut(taken.data.cast::<u8>(), taken.len + 1);
        // SAFETY: made in `locule_buf::new` from a boxed slice one longer than `len`; it was
        // taken out of the struct, so it is freed once.
        entry::infallible((), || drop(unsafe { Box::from_raw(all) }));
    }
}

//! What C passes in, turned into Rust types: checked as far as C allows checking.
//!
//! All of these are unsafe for the same reason: that a pointer which is not NULL points to
//! what its C type says, for the length of the call, is the caller's promise in `locule.h`.

use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use locule::{Category, Error, Result, Stage};

/// More than anybody passes; a larger count is an uninitialised variable.
const MAX_ELEMENTS: usize = 1 << 16;

/// A refusal of an argument.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(Category::Invalid, Stage::Arguments, message)
}

/// A refusal of something this version does not know.
pub(crate) fn unsupported(message: impl Into<String>) -> Error {
    Error::new(Category::Unsupported, Stage::Arguments, message)
}

/// The object behind a handle.
pub(crate) unsafe fn object<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: NULL gives `None`; see the top of the file for the rest.
    unsafe { pointer.as_ref() }.ok_or_else(|| invalid(format!("`{name}` is NULL")))
}

/// The object behind a handle that may be NULL.
pub(crate) unsafe fn optional<'a, T>(pointer: *const T) -> Option<&'a T> {
    // SAFETY: see the top of the file.
    unsafe { pointer.as_ref() }
}

/// A place for a result. It is given its empty value at once, so that a failed call leaves
/// nothing behind that could be mistaken for one.
pub(crate) unsafe fn out<'a, T>(pointer: *mut T, empty: T, name: &str) -> Result<&'a mut T> {
    if pointer.is_null() {
        return Err(invalid(format!("`{name}` is NULL")));
    }
    // SAFETY: not NULL; writing first makes it initialised, so a reference to it is sound.
    unsafe {
        pointer.write(empty);
        Ok(&mut *pointer)
    }
}

/// A string that has to be UTF-8, such as an id.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: see the top of the file.
    unsafe { optional_text(pointer, name)? }.ok_or_else(|| invalid(format!("`{name}` is NULL")))
}

/// A string that has to be UTF-8, or `None` for NULL.
pub(crate) unsafe fn optional_text<'a>(
    pointer: *const c_char,
    name: &str,
) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL; that it ends in a NUL byte is the caller's promise.
    let string = unsafe { CStr::from_ptr(pointer) };
    string.to_str().map(Some).map_err(|_| invalid(format!("`{name}` is not UTF-8")))
}

/// A path, any bytes, or `None` for NULL.
pub(crate) unsafe fn optional_path<'a>(pointer: *const c_char) -> Option<&'a Path> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: as in `optional_text`.
    let bytes = unsafe { CStr::from_ptr(pointer) }.to_bytes();
    Some(Path::new(OsStr::from_bytes(bytes)))
}

/// An array of paths.
pub(crate) unsafe fn paths(
    array: *const *const c_char,
    count: usize,
    name: &str,
) -> Result<Vec<PathBuf>> {
    // SAFETY: see the top of the file.
    let array = unsafe { elements(array, count, name)? };
    let path = |(index, pointer): (usize, &*const c_char)| {
        // SAFETY: as above.
        let path = unsafe { optional_path(*pointer) };
        path.map(Path::to_owned).ok_or_else(|| invalid(format!("`{name}[{index}]` is NULL")))
    };
    array.iter().enumerate().map(path).collect()
}

/// Bytes with a length, or `None` for NULL.
pub(crate) unsafe fn optional_bytes<'a>(
    pointer: *const c_void,
    length: usize,
    name: &str,
) -> Result<Option<&'a [u8]>> {
    if pointer.is_null() {
        return match length {
            0 => Ok(None),
            _ => Err(invalid(format!("`{name}` is NULL but has the length {length}"))),
        };
    }
    if length > isize::MAX as usize {
        return Err(invalid(format!("`{name}` has the impossible length {length}")));
    }
    // SAFETY: not NULL, and no longer than an object can be.
    Ok(Some(unsafe { std::slice::from_raw_parts(pointer.cast(), length) }))
}

/// Bytes with a length.
pub(crate) unsafe fn bytes<'a>(
    pointer: *const c_void,
    length: usize,
    name: &str,
) -> Result<&'a [u8]> {
    // SAFETY: see the top of the file.
    unsafe { optional_bytes(pointer, length, name)? }
        .ok_or_else(|| invalid(format!("`{name}` is NULL")))
}

/// An array of strings that ends with NULL, or `None` for a NULL array.
pub(crate) unsafe fn optional_strings<'a>(
    array: *const *const c_char,
    name: &str,
) -> Result<Option<Vec<&'a str>>> {
    if array.is_null() {
        return Ok(None);
    }
    let mut strings = Vec::new();
    for index in 0.. {
        // SAFETY: every element up to the NULL one is readable, and a string or NULL.
        let element = unsafe { optional_text(*array.add(index), name)? };
        match element {
            Some(string) => strings.push(string),
            None => break,
        }
    }
    Ok(Some(strings))
}

/// A descriptor, which stays the caller's. One that is not open is refused here, because a
/// `BorrowedFd` has to be.
pub(crate) fn descriptor<'a>(fd: c_int, name: &str) -> Result<BorrowedFd<'a>> {
    // SAFETY: F_GETFD reads no memory; any number is allowed.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        let error = invalid(format!("`{name}`: {fd} is not an open descriptor"));
        return Err(error.with_errno(libc::EBADF));
    }
    // SAFETY: it is open, hence not -1, and the caller promises to keep it so during the call.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// An array with its number of elements.
pub(crate) unsafe fn elements<'a, T>(array: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if array.is_null() {
        return Err(invalid(format!("`{name}` is NULL but has {count} elements")));
    }
    if count > MAX_ELEMENTS {
        let message = format!("`{name}` has {count} elements; at most {MAX_ELEMENTS} can be");
        return Err(invalid(message));
    }
    // SAFETY: not NULL, and that it has `count` elements is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(array, count) })
}

/// An array of descriptors.
pub(crate) unsafe fn descriptors<'a>(
    array: *const c_int,
    count: usize,
    name: &str,
) -> Result<Vec<BorrowedFd<'a>>> {
    // SAFETY: passed on to the caller.
    unsafe { elements(array, count, name)? }.iter().map(|fd| descriptor(*fd, name)).collect()
}

/// A timeout as `poll` counts it: milliseconds, negative for none.
pub(crate) fn poll_timeout(milliseconds: c_int) -> Option<Duration> {
    u64::try_from(milliseconds).ok().map(Duration::from_millis)
}

/// A timeout of an option struct: milliseconds, 0 for the default.
pub(crate) fn option_timeout(milliseconds: u32) -> Option<Duration> {
    (milliseconds != 0).then(|| Duration::from_millis(milliseconds.into()))
}

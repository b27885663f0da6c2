//! What option structs have in common, and the choice for a standard stream.

use std::ffi::c_int;
use std::mem::MaybeUninit;

use locule::{Result, Stdio};

use crate::argument::{descriptor, invalid, unsupported};

/// /dev/null.
pub const LOCULE_STDIO_NULL: u32 = 0;
/// The stream of the same number of the calling process; /dev/null if it has none, that is, none
/// that a program it executes would have.
pub const LOCULE_STDIO_INHERIT: u32 = 1;
/// The descriptor in `fd`.
pub const LOCULE_STDIO_FD: u32 = 2;
/// A new pipe; the host takes its end with locule_process_take_pipe.
pub const LOCULE_STDIO_PIPE: u32 = 3;

/// A standard stream of a process. Ignored if the process has a terminal.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_stdio {
    /// One of LOCULE_STDIO_*.
    pub kind: u32,
    /// With LOCULE_STDIO_FD: the descriptor; borrowed for the call. Else 0.
    pub fd: c_int,
}

/// The standard streams of a process.
pub(crate) fn stdio<'a>(streams: &[locule_stdio; 3]) -> Result<[Stdio<'a>; 3]> {
    let mut converted = [Stdio::Null; 3];
    for (number, stream) in streams.iter().enumerate() {
        converted[number] = match stream.kind {
            LOCULE_STDIO_FD => Stdio::Fd(descriptor(stream.fd, &format!("stdio[{number}].fd"))?),
            // A descriptor without its kind would be dropped without a word.
            _ if stream.fd != 0 => {
                return Err(invalid(format!(
                    "`stdio[{number}].fd` is {}, but its kind is not LOCULE_STDIO_FD",
                    stream.fd
                )));
            }
            LOCULE_STDIO_NULL => Stdio::Null,
            LOCULE_STDIO_INHERIT => Stdio::Inherit,
            LOCULE_STDIO_PIPE => Stdio::Pipe,
            other => return Err(unsupported(format!("`stdio[{number}].kind` {other} is unknown"))),
        };
    }
    Ok(converted)
}

/// No struct will ever be this large; a larger size is an uninitialised variable.
const MAX_SIZE: usize = 4096;

/// A struct of the ABI whose first field is its size.
///
/// # Safety
/// The type is `repr(C)`, begins with a `usize` that holds the size, has no padding, and all
/// zeros are a value of it.
pub(crate) unsafe trait Versioned: Copy {
    /// The name in C.
    const NAME: &'static str;
    /// Its size in the first version that had it; a smaller one never existed.
    const FIRST_SIZE: usize;
}

/// The size that the caller has given a struct.
///
/// # Safety
/// `pointer` is NULL or points to a struct whose first field has been set.
pub(crate) unsafe fn size_of_given<T: Versioned>(pointer: *const T, name: &str) -> Result<usize> {
    if pointer.is_null() {
        return Err(invalid(format!("`{name}` is NULL")));
    }
    // SAFETY: not NULL; the trait says that a `usize` comes first.
    match unsafe { pointer.cast::<usize>().read() } {
        size if (T::FIRST_SIZE..=MAX_SIZE).contains(&size) => Ok(size),
        size => Err(invalid(format!(
            "`{name}.size` is {size}; it has to be sizeof(struct {})",
            T::NAME
        ))),
    }
}

/// Reads an option struct of any version: fields that an older one lacks are zero; fields that
/// only a newer one has must be.
///
/// # Safety
/// `pointer` is NULL or points to as many bytes as its first field says.
pub(crate) unsafe fn read<T: Versioned>(pointer: *const T, name: &str) -> Result<T> {
    // SAFETY: passed on to the caller.
    let given = unsafe { size_of_given(pointer, name)? };
    let known = given.min(size_of::<T>());
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are readable there and writable here. The result is initialised,
    // since zeros are a value of every field and C wrote the others.
    let value = unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast(), known);
        value.assume_init()
    };
    // SAFETY: from `known` to `given` the caller's struct goes on.
    let tail =
        unsafe { std::slice::from_raw_parts(pointer.cast::<u8>().add(known), given - known) };
    if tail.iter().any(|byte| *byte != 0) {
        return Err(unsupported(format!("`{name}` sets a field that is newer than this library"))
            .hint("the program was built for a later version of Locule: see locule_version"));
    }
    Ok(value)
}

/// Fills an output struct of any version: what this library does not know becomes zero, the
/// size stays.
///
/// # Safety
/// `pointer` is writable for `given` bytes, which is what [`size_of_given`] returned for it.
pub(crate) unsafe fn write<T: Versioned>(pointer: *mut T, given: usize, value: &T) {
    let start = size_of::<usize>();
    let known = given.min(size_of::<T>());
    let from = std::ptr::from_ref(value).cast::<u8>();
    let to = pointer.cast::<u8>();
    // SAFETY: both have `known` bytes, the caller's struct has `given`, and they do not overlap
    // as `value` is a reference to Rust's own memory.
    unsafe {
        std::ptr::copy_nonoverlapping(from.add(start), to.add(start), known - start);
        to.add(known).write_bytes(0, given - known);
    }
}

/// Refuses flags that this version does not know.
pub(crate) fn check_flags(flags: u64, known: u64, name: &str) -> Result<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(unsupported(format!("`{name}` has the unknown flags {unknown:#x}"))),
    }
}

/// Refuses a reserved field that is not 0.
pub(crate) fn check_reserved(value: u32, name: &str) -> Result<()> {
    match value {
        0 => Ok(()),
        _ => Err(unsupported(format!("`{name}` is reserved and has to be 0"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use locule::Category;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Sample {
        size: usize,
        first: u64,
        second: u64,
    }

    // SAFETY: `repr(C)`, three words, the first is the size.
    unsafe impl Versioned for Sample {
        const NAME: &'static str = "sample";
        const FIRST_SIZE: usize = 16;
    }

    fn read_words(words: &[u64]) -> Result<Sample> {
        // SAFETY: every test gives an array at least as long as its first word says.
        unsafe { read(words.as_ptr().cast::<Sample>(), "opts") }
    }

    #[test]
    fn a_field_that_an_older_struct_lacks_is_zero() {
        let sample = read_words(&[16, 5, 77]).unwrap();
        assert_eq!((sample.first, sample.second), (5, 0));
    }

    #[test]
    fn a_newer_struct_is_taken_if_what_is_new_is_zero() {
        assert_eq!(read_words(&[32, 5, 6, 0]).unwrap().second, 6);
        let refused = read_words(&[32, 5, 6, 1]).err().unwrap();
        assert_eq!(refused.category(), Category::Unsupported);
    }

    #[test]
    fn an_impossible_size_is_refused() {
        for size in [0, 8, 15, 4097, u64::MAX] {
            let refused = read_words(&[size, 0, 0]).err().unwrap();
            assert_eq!(refused.category(), Category::Invalid, "{size}");
        }
    }

    #[test]
    fn an_output_struct_is_filled_up_to_its_size_and_no_further() {
        let value = Sample { size: 0, first: 1, second: 2 };
        for (size, expected) in [(16, [16, 1, 9, 9]), (24, [24, 1, 2, 9]), (32, [32, 1, 2, 0])] {
            let mut words = [size as u64, 9, 9, 9];
            // SAFETY: the array is as long as the largest size.
            unsafe { write(words.as_mut_ptr().cast::<Sample>(), size, &value) };
            assert_eq!(words, expected);
        }
    }

    #[test]
    fn a_descriptor_without_its_kind_is_refused() {
        let null = locule_stdio { kind: LOCULE_STDIO_NULL, fd: 0 };
        assert!(stdio(&[null; 3]).is_ok());
        assert!(stdio(&[null, locule_stdio { kind: LOCULE_STDIO_PIPE, fd: 1 }, null]).is_err());
        assert!(stdio(&[null, locule_stdio { kind: 4, fd: 0 }, null]).is_err());
        assert!(stdio(&[null, locule_stdio { kind: LOCULE_STDIO_FD, fd: -1 }, null]).is_err());
    }
}

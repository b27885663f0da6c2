//! Extended attributes of open files, and of what cannot be opened.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// What has attributes.
#[derive(Clone, Copy)]
pub(super) enum Of<'a> {
    /// A file that is open for reading or writing.
    File(BorrowedFd<'a>),
    /// What has this name in a directory, be it a symbolic link.
    Name(BorrowedFd<'a>, &'a [u8]),
}

impl Of<'_> {
    /// There are no such calls relative to a directory before Linux 6.13.
    fn path(dir: BorrowedFd<'_>, name: &[u8]) -> Result<CString, Errno> {
        let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        CString::new(path).map_err(|_| Errno::EINVAL)
    }
}

pub(super) fn set(of: Of<'_>, name: &CStr, value: &[u8]) -> Result<(), Errno> {
    let (data, size) = (value.as_ptr().cast(), value.len());
    let result = match of {
        Of::File(fd) => {
            // SAFETY: the name ends with a zero byte, the value has `size` bytes, the descriptor is open.
            unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), data, size, 0) }
        }
        Of::Name(dir, file) => {
            let path = Of::path(dir, file)?;
            // SAFETY: path and name end with a zero byte, the value has `size` bytes.
            unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), data, size, 0) }
        }
    };
    Errno::result(result).map(drop)
}

/// The value; `None` if there is none.
pub(super) fn get(of: Of<'_>, name: &CStr) -> Result<Option<Vec<u8>>, Errno> {
    let value = grown(|data, size| match of {
        Of::File(fd) => {
            // SAFETY: the name ends with a zero byte, `data` has room for `size` bytes.
            Ok(unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), data.cast(), size) })
        }
        Of::Name(dir, file) => {
            let path = Of::path(dir, file)?;
            // SAFETY: path and name end with a zero byte, `data` has room for `size` bytes.
            Ok(unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), data.cast(), size) })
        }
    });
    match value {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names; none where the filesystem has no attributes.
pub(super) fn list(of: Of<'_>) -> Result<Vec<CString>, Errno> {
    let names = grown(|data, size| match of {
        Of::File(fd) => {
            // SAFETY: `data` has room for `size` bytes.
            Ok(unsafe { libc::flistxattr(fd.as_raw_fd(), data.cast(), size) })
        }
        Of::Name(dir, file) => {
            let path = Of::path(dir, file)?;
            // SAFETY: the path ends with a zero byte, `data` has room for `size` bytes.
            Ok(unsafe { libc::llistxattr(path.as_ptr(), data.cast(), size) })
        }
    });
    let names = match names {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        names => names?,
    };
    let parts = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(parts.filter_map(|name| CString::new(name).ok()).collect())
}

/// Removes an attribute of an open file, which need not be there.
pub(super) fn remove(fd: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    // SAFETY: the name ends with a zero byte, the descriptor is open.
    match Errno::result(unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) }) {
        Ok(_) | Err(Errno::ENODATA) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Calls until the result fits, without asking for its size where a little room does.
fn grown(call: impl Fn(*mut u8, usize) -> Result<isize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut small = [0; 256];
    match Errno::result(call(small.as_mut_ptr(), small.len())?) {
        Ok(size) => return Ok(small[..size as usize].to_vec()),
        Err(Errno::ERANGE) => {}
        Err(errno) => return Err(errno),
    }
    loop {
        let size = Errno::result(call(std::ptr::null_mut(), 0)?)? as usize;
        let mut data = vec![0; size];
        match Errno::result(call(data.as_mut_ptr(), size)?) {
            // With no room it would only say the size.
            Ok(now) if now as usize <= size => {
                data.truncate(now as usize);
                return Ok(data);
            }
            Ok(_) | Err(Errno::ERANGE) => {}
            Err(errno) => return Err(errno),
        }
    }
}

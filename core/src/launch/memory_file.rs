//! Sealed memory files: what is in one can be read and never changed, by nobody.

use std::ffi::CStr;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

/// Whether a memory file may be executed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Execution {
    Allowed,
    Forbidden,
}

/// A memory file with these bytes.
pub(crate) fn memory_file(name: &CStr, execution: Execution, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let since_6_3 = match execution {
        Execution::Allowed => libc::MFD_EXEC,
        Execution::Forbidden => libc::MFD_NOEXEC_SEAL,
    };
    let mut file = match create(name, flags | since_6_3) {
        // Before Linux 6.3 there is no such flag, and every memory file may be executed.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => create(name, flags)?,
        other => other?,
    };
    file.write_all(bytes)?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    if execution == Execution::Allowed {
        // Readable, or the process that executes it would not be dumpable, and nobody without
        // privilege could write the id maps of its children.
        file.set_permissions(Permissions::from_mode(0o555))?;
        const F_SEAL_EXEC: libc::c_int = 0x20; // since Linux 6.3
        if add_seals(&file, seals | F_SEAL_EXEC).is_ok() {
            return Ok(file.into());
        }
    }
    add_seals(&file, seals)?;
    Ok(file.into())
}

fn create(name: &CStr, flags: libc::c_uint) -> io::Result<File> {
    // SAFETY: the name is a C string; the result is checked.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { File::from_raw_fd(fd) })
}

fn add_seals(file: &File, seals: libc::c_int) -> io::Result<()> {
    // SAFETY: plain integers.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

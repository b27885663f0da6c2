//! Writing below /proc.
//!
//! What is mounted at /proc may be anything: an image can bring a symlink, a mount of the
//! container may lie over it (CVE-2019-16884, CVE-2025-52881). A procfs mounted here, that
//! no path leads to, cannot be tampered with; where the kernel does not let us mount one,
//! the existing /proc must prove to be one and is entered without symlinks and mounts.

use core::ffi::CStr;

use locule_plan::protocol::detail;

use crate::abi::*;
use crate::failure::{Error, Result};
use crate::path;
use crate::system::{self, Errno, Fd, Raw, Sys};
use crate::text::PathBuffer;

/// A procfs that shows the pid namespace of this process.
pub fn private() -> Result<Fd> {
    let mounted = || -> Sys<Fd> {
        let fs = system::fsopen(c"proc")?;
        system::fsconfig_create(fs.raw())?;
        system::fsmount(fs.raw(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)
    };
    match mounted() {
        Ok(proc) => genuine(proc),
        Err(_) => existing(),
    }
}

/// The procfs at /proc.
pub fn existing() -> Result<Fd> {
    genuine(system::openat(AT_FDCWD, c"/proc", O_PATH | O_DIRECTORY | O_NOFOLLOW, 0)?)
}

fn genuine(proc: Fd) -> Result<Fd> {
    check(proc.raw())?;
    Ok(proc)
}

/// Whether this is a procfs, from its root.
pub fn check(proc: Raw) -> Result {
    // The root of a procfs always has inode 1.
    if system::fstatfs(proc)?.magic() != PROC_SUPER_MAGIC || system::stat(proc)?.ino != 1 {
        return Err(Error::new(detail::NOT_GENUINE, Errno::EINVAL).about(b"/proc"));
    }
    Ok(())
}

/// Opens a file of `proc` itself, not of something mounted on it.
pub fn open(proc: Raw, path: &CStr, flags: i32, resolve: u64) -> Sys<Fd> {
    let resolve = resolve | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
    match system::openat2(proc, path, flags, 0, resolve) {
        // An outer sandbox hides the system call: the last component at least is checked.
        Err(Errno::ENOSYS) => system::openat(proc, path, flags | O_NOFOLLOW, 0),
        result => result,
    }
}

/// Writes `PID/name`.
pub fn write_of(proc: Raw, pid: i32, name: &[u8], value: &[u8]) -> Sys {
    let mut path = PathBuffer::<64>::new();
    path.push_number(pid as u64)?;
    path.push(b"/")?;
    path.push(name)?;
    let file = open(proc, path.as_cstr(), O_WRONLY, RESOLVE_NO_SYMLINKS)?;
    system::write(file.raw(), value).map(|_| ())
}

/// The user namespace of a process.
pub fn open_user_namespace(proc: Raw, pid: i32) -> Sys<Fd> {
    let mut path = PathBuffer::<64>::new();
    path.push_number(pid as u64)?;
    let process = open(proc, path.as_cstr(), O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS)?;
    // A magic link, which only a plain lookup follows.
    system::openat(process.raw(), c"ns/user", O_RDONLY, 0)
}

/// Opens a path as a process would find it, in its mounts, but with this one's power.
pub fn open_for(proc: Raw, pid: i32, path: &CStr) -> Sys<Fd> {
    let mut process = PathBuffer::<64>::new();
    process.push_number(pid as u64)?;
    let process = open(proc, process.as_cstr(), O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS)?;
    // A magic link, too.
    let root = system::openat(process.raw(), c"root", O_PATH | O_DIRECTORY, 0)?;
    path::open(root.raw(), path, 0)
}

/// Writes a file of this process. One that is not dumpable belongs to root, whom a user
/// namespace may not know, so it becomes dumpable for as long as opening takes.
pub fn write_own(proc: Raw, path: &CStr, value: &[u8]) -> Sys {
    let file = match open(proc, path, O_WRONLY, 0) {
        Err(Errno::EACCES) => {
            let _ = system::prctl(PR_SET_DUMPABLE, 1, 0);
            let file = open(proc, path, O_WRONLY, 0);
            let _ = system::prctl(PR_SET_DUMPABLE, 0, 0);
            file?
        }
        result => result?,
    };
    system::write(file.raw(), value).map(|_| ())
}

//! The options of the host's cgroup mount, kept while CRIU is at work: to deal with cgroups of
//! version 2 it mounts them, and what it leaves out is lost for every mount of them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use super::mounts;
use crate::cgroup::Location;

/// The options that are set again in the end, where they have changed.
pub(super) struct Kept(Option<(PathBuf, String)>);

impl Kept {
    pub(super) fn of(location: &Location) -> Kept {
        let point = location.unified().map(|place| place.mount_point.clone());
        Kept(point.and_then(|point| mounts::options_of(&point).map(|options| (point, options))))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some((point, options)) = &self.0 else { return };
        if mounts::options_of(point).is_some_and(|now| now != *options)
            && let Err(error) = reconfigure(point, options)
        {
            tracing::warn!(%error, ?point, options, "CRIU has changed the options of a mount");
        }
    }
}

fn reconfigure(point: &Path, options: &str) -> io::Result<()> {
    const FSPICK_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_SET_FLAG: libc::c_uint = 0;
    const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
    let path = CString::new(point.as_os_str().as_bytes())?;
    // SAFETY: the path is a string that lives through the call.
    let picked =
        unsafe { libc::syscall(libc::SYS_fspick, libc::AT_FDCWD, path.as_ptr(), FSPICK_CLOEXEC) };
    if picked < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let picked = unsafe { OwnedFd::from_raw_fd(picked as i32) };
    let configure = |command: libc::c_uint, key: *const libc::c_char| {
        let (fd, value) = (picked.as_raw_fd(), ptr::null::<u8>());
        // SAFETY: the key is null or a string that lives through the call; there is no value.
        match unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key, value, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    for option in options.split(',').filter(|option| !matches!(*option, "rw" | "ro")) {
        configure(FSCONFIG_SET_FLAG, CString::new(option)?.as_ptr())?;
    }
    configure(FSCONFIG_CMD_RECONFIGURE, ptr::null())
}

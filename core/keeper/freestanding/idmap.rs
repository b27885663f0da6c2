//! Mounts that map ids. The keeper makes them, because mapping takes power over the
//! filesystem, which a process in a user namespace has not; the process attaches them.

use core::ffi::CStr;

use locule_plan::protocol::detail;
use locule_plan::{Operation, mount as flag};

use crate::abi::*;
use crate::failure::{During, Error, Result};
use crate::mount;
use crate::procfs;
use crate::system::{self, Errno, Fd, Raw, Sys};

/// How the mounts to come map ids, and the propagation they get.
pub struct IdMap {
    users: Fd,
    propagation: u64,
}

impl IdMap {
    /// The map of the user namespace that process `pid` is in, or, unless they are empty, a
    /// user namespace with these maps.
    pub fn new(proc: Raw, pid: i32, uid: &CStr, gid: &CStr, propagation: u64) -> Result<IdMap> {
        let users = if uid.is_empty() {
            procfs::open_user_namespace(proc, pid)?
        } else {
            user_namespace(proc, uid, gid)?
        };
        Ok(IdMap { users, propagation })
    }

    /// The mount of a `Mount` or a `Bind`, attached nowhere.
    pub fn make(&self, operation: &Operation<'_>) -> Result<Fd> {
        let (made, flags) = mount::make(operation)?;
        // A clone of a mount of the host's is its peer, and what is mounted on the one would
        // be on the other.
        let peers = MountAttr { propagation: self.propagation & !MS_REC, ..MountAttr::default() };
        system::mount_setattr(made.raw(), AT_RECURSIVE, &peers).during(detail::ATTRIBUTES)?;
        let map = MountAttr {
            set: MOUNT_ATTR_IDMAP,
            userns: self.users.raw() as u64,
            ..MountAttr::default()
        };
        let recursive = if flags & flag::MAP_RECURSIVE != 0 { AT_RECURSIVE } else { 0 };
        system::mount_setattr(made.raw(), recursive, &map).during(detail::ID_MAP)?;
        Ok(made)
    }
}

/// A user namespace that nobody is in.
fn user_namespace(proc: Raw, uid: &CStr, gid: &CStr) -> Result<Fd> {
    let mut pidfd = -1;
    let flags = CLONE_NEWUSER | CLONE_PIDFD | SIGCHLD as u64;
    let pid = system::clone(flags, &mut pidfd).during(detail::CLONE)?;
    if pid == 0 {
        let _ = system::prctl(PR_SET_PDEATHSIG, SIGKILL as usize, 0);
        // Killed before long.
        loop {
            system::sleep(1000);
        }
    }
    let pidfd = Fd::new(pidfd).ok_or(Errno::EBADF)?;
    let mapped = (|| -> Sys<Fd> {
        procfs::write_of(proc, pid, b"gid_map", gid.to_bytes())?;
        procfs::write_of(proc, pid, b"uid_map", uid.to_bytes())?;
        procfs::open_user_namespace(proc, pid)
    })();
    let _ = system::pidfd_send_signal(pidfd.raw(), SIGKILL);
    let _ = system::waitid(pidfd.raw(), WEXITED);
    mapped.map_err(Error::from)
}

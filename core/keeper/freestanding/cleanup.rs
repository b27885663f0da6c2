//! Taking a container away when its host is gone: cgroups and the state directory.
//! Everything is best effort, and what is missing already is fine.

use core::ffi::CStr;

use crate::abi::*;
use crate::copy::entries;
use crate::failure::Result;
use crate::system::{self, Errno, Raw, Sys};
use crate::text::parse_number;

const DEPTH: u32 = 32;

fn directory(parent: Raw, name: &CStr) -> Sys<system::Fd> {
    system::openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0)
}

/// A mistake in a plan must not empty the host's root.
fn sane(path: &CStr) -> Sys {
    let path = path.to_bytes();
    if path.starts_with(b"/") && path.iter().any(|&byte| byte != b'/' && byte != b'.') {
        Ok(())
    } else {
        Err(Errno::EINVAL)
    }
}

/// Kills every process in a cgroup and below.
pub fn kill_cgroup(path: &CStr) -> Result {
    sane(path)?;
    let cgroup = match directory(AT_FDCWD, path) {
        Err(Errno::ENOENT) => return Ok(()),
        result => result?,
    };
    // Linux 5.14 does it at once, including what forks meanwhile.
    if let Ok(file) = system::openat(cgroup.raw(), c"cgroup.kill", O_WRONLY, 0)
        && system::write(file.raw(), b"1").is_ok()
    {
        return Ok(());
    }
    for _ in 0..50 {
        if kill_below(cgroup.raw(), DEPTH)? == 0 {
            return Ok(());
        }
        system::sleep(10);
    }
    Err(Errno::EBUSY.into())
}

/// Sends every process SIGKILL and says how many there were. What a version 1 freezer holds
/// dies only when it is thawed.
fn kill_below(cgroup: Raw, depth: u32) -> Sys<u32> {
    let mut count = 0;
    if let Ok(file) = system::openat(cgroup, c"cgroup.procs", O_RDONLY, 0) {
        let mut buffer = [0u8; 1024];
        let mut pid = 0u32;
        while let Ok(len @ 1..) = system::read(file.raw(), &mut buffer) {
            for &byte in &buffer[..len] {
                if let Some(digit) = parse_number(&[byte]) {
                    pid = pid.wrapping_mul(10).wrapping_add(digit);
                    continue;
                }
                // 0 is a process of another pid namespace; this one is not to be killed.
                if pid != 0 && pid as i32 != system::getpid() {
                    let _ = system::kill(pid as i32, SIGKILL);
                    count += 1;
                }
                pid = 0;
            }
        }
    }
    if let Ok(file) = system::openat(cgroup, c"freezer.state", O_WRONLY, 0) {
        let _ = system::write(file.raw(), b"THAWED");
    }
    if depth > 0 {
        entries(cgroup, &mut |name| {
            if let Ok(below) = directory(cgroup, name) {
                count += kill_below(below.raw(), depth - 1)?;
            }
            Ok(())
        })?;
    }
    Ok(count)
}

/// Removes a cgroup and those below it.
pub fn remove_cgroup(path: &CStr) -> Result {
    sane(path)?;
    // The processes are dead, but their cgroup stays busy until each has been reaped.
    for _ in 0..200 {
        if let Ok(cgroup) = directory(AT_FDCWD, path) {
            let _ = remove_below(cgroup.raw(), DEPTH, false);
        }
        match system::unlinkat(AT_FDCWD, path, AT_REMOVEDIR) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => system::sleep(10),
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::EBUSY.into())
}

/// Removes a resctrl group. Tasks that are still in it fall to the default group.
pub fn remove_resctrl_group(path: &CStr) -> Result {
    sane(path)?;
    match system::unlinkat(AT_FDCWD, path, AT_REMOVEDIR) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Takes the lock of the state directory and says whether it still is the one at `path`. Who
/// has the lock is cleaning up already, and may make a new container of the same name next.
pub fn may_clean(state: Raw, path: &CStr) -> bool {
    let identity = |stat: Statx| (stat.dev_major, stat.dev_minor, stat.ino);
    let locked = system::flock(state, LOCK_EX | LOCK_NB).is_ok();
    locked
        && match (system::stat(state), system::statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)) {
            (Ok(held), Ok(there)) => identity(held) == identity(there),
            _ => false,
        }
}

/// Removes a state directory with what is in it.
pub fn remove_state(path: &CStr) -> Result {
    sane(path)?;
    let state = match directory(AT_FDCWD, path) {
        Err(Errno::ENOENT) => return Ok(()),
        result => result?,
    };
    remove_below(state.raw(), DEPTH, true)?;
    Ok(system::unlinkat(AT_FDCWD, path, AT_REMOVEDIR)?)
}

/// Removes the directories below, and the files if asked. The files of a cgroup are part of
/// it and cannot be removed.
fn remove_below(parent: Raw, depth: u32, files: bool) -> Sys {
    entries(parent, &mut |name| match directory(parent, name) {
        Ok(below) => {
            if depth > 0 {
                let _ = remove_below(below.raw(), depth - 1, files);
            }
            let _ = system::unlinkat(parent, name, AT_REMOVEDIR);
            Ok(())
        }
        Err(_) => {
            if files {
                let _ = system::unlinkat(parent, name, 0);
            }
            Ok(())
        }
    })
}

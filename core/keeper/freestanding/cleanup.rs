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

/// Takes the lock of the state directory, which whoever makes or unmakes a container holds.
/// Fails if the directory is not at its path any more: then the container has been removed, and
/// there may be another one of that name.
pub fn lock(state: Raw, path: &CStr) -> Result<system::Fd> {
    // A lock belongs to an open file, and this descriptor is shared with the host.
    let own = directory(state, c".")?;
    let mut attempts = 0;
    while let Err(errno) = system::try_lock(own.raw()) {
        attempts += 1;
        if errno != Errno::EAGAIN && errno != Errno::EINTR || attempts > 1000 {
            return Err(errno.into());
        }
        system::sleep(10);
    }
    let here = system::stat(own.raw())?;
    let there = system::statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)?;
    let same = (here.ino, here.dev_major, here.dev_minor)
        == (there.ino, there.dev_major, there.dev_minor);
    if same { Ok(own) } else { Err(Errno::ENOENT.into()) }
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

/// Sends every process SIGKILL and says how many there were.
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

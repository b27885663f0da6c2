//! Copying a tree into a new tmpfs (`tmpcopyup`). Symlinks are copied, never followed.

use core::ffi::CStr;

use crate::abi::*;
use crate::failure::Result;
use crate::system::{self, Errno, Raw, Sys};
use crate::text::{PATH_MAX, PathBuffer};

/// Copies deeper than this are refused: each level takes a piece of the stack.
const DEPTH: u32 = 64;

/// Calls `visit` with the name of each entry of a directory, except `.` and `..`.
pub fn entries(directory: Raw, visit: &mut dyn FnMut(&CStr) -> Sys) -> Sys {
    let mut buffer = [0u8; 2048];
    loop {
        let len = system::getdents(directory, &mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..len];
        // Each record: inode, offset (8 bytes each), length (2), type (1), name.
        while let Some((head, _)) = rest.split_at_checked(19) {
            let record = usize::from(u16::from_le_bytes([head[16], head[17]])).max(19);
            let (entry, tail) = rest.split_at_checked(record).ok_or(Errno::EINVAL)?;
            let name = CStr::from_bytes_until_nul(&entry[19..]).map_err(|_| Errno::EINVAL)?;
            if name != c"." && name != c".." {
                visit(name)?;
            }
            rest = tail;
        }
    }
}

/// Copies what is in one directory into the other, and its owner. The mode of the other stays.
pub fn directory(from: Raw, to: Raw) -> Result {
    // `O_PATH` descriptors cannot be read.
    let from = system::openat(from, c".", O_RDONLY | O_DIRECTORY, 0)?;
    let to = system::openat(to, c".", O_RDONLY | O_DIRECTORY, 0)?;
    Ok(contents(from.raw(), to.raw(), DEPTH)?)
}

fn contents(from: Raw, to: Raw, depth: u32) -> Sys {
    owner(to, c"", &system::stat(from)?)?;
    if depth == 0 {
        return Err(Errno::ELOOP);
    }
    entries(from, &mut |name| entry(from, to, name, depth))
}

#[inline(never)]
fn entry(from: Raw, to: Raw, name: &CStr, depth: u32) -> Sys {
    let stat = system::statx(from, name, AT_SYMLINK_NOFOLLOW)?;
    let mode = u32::from(stat.mode);
    match stat.kind() {
        S_IFDIR => {
            system::mkdirat(to, name, 0o700)?;
            let flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
            let below = system::openat(from, name, flags, 0)?;
            let copy = system::openat(to, name, flags, 0)?;
            contents(below.raw(), copy.raw(), depth - 1)?;
            // After its entries: it may be one that its owner cannot write to.
            system::fchmod(copy.raw(), mode & 0o7777)
        }
        S_IFREG => {
            let source = system::openat(from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0)?;
            // It may have become a device meanwhile, which has no end.
            if system::stat(source.raw())?.kind() != S_IFREG {
                return Err(Errno::ELOOP);
            }
            let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
            let copy = system::openat(to, name, flags, 0o600)?;
            while system::sendfile(copy.raw(), source.raw(), 1 << 30)? != 0 {}
            owner(copy.raw(), c"", &stat)?;
            system::fchmod(copy.raw(), mode & 0o7777)
        }
        S_IFLNK => link(from, to, name, &stat),
        _ => {
            let (major, minor) = (stat.rdev_major, stat.rdev_minor);
            match system::mknodat(to, name, mode, device_number(major, minor)) {
                // A user namespace cannot create devices, and a tmpfs of its can do without.
                Err(Errno::EPERM) => Ok(()),
                Err(errno) => Err(errno),
                Ok(()) => owner(to, name, &stat),
            }
        }
    }
}

#[inline(never)]
fn link(from: Raw, to: Raw, name: &CStr, stat: &Statx) -> Sys {
    let mut target = PathBuffer::<PATH_MAX>::new();
    let len = system::readlinkat(from, name, target.space())?;
    target.set_len(len);
    system::symlinkat(target.as_cstr(), to, name)?;
    owner(to, name, stat)
}

/// Gives a copy its original's owner, as far as the user namespace knows that one.
pub fn owner(dir: Raw, name: &CStr, stat: &Statx) -> Sys {
    let flags = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH;
    match system::fchownat(dir, name, stat.uid, stat.gid, flags) {
        Err(Errno::EPERM | Errno::EINVAL) => Ok(()),
        result => result,
    }
}

/// A device number as `mknod` takes it.
pub fn device_number(major: u32, minor: u32) -> u64 {
    u64::from(minor & 0xff) | u64::from(major & 0xfff) << 8 | u64::from(minor & !0xff) << 12
}

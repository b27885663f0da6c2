//! Paths beneath a root whose content nobody trusts.
//!
//! Every lookup is one `openat2` from the root's descriptor (or what does the same without it,
//! in `walk.rs`), so a symlink can lead to other places in the root, never out of it, and what
//! was looked up is used by descriptor (CVE-2021-30465, CVE-2024-45310). Directories are created
//! relative to a descriptor of their parent that was found in this way.

use core::ffi::CStr;

use crate::abi::*;
use crate::system::{self, Errno, Fd, Raw, Sys};
use crate::text::{PATH_MAX, PathBuffer};
use crate::walk;

const CONFINED: u64 = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
/// As many symlinks as the kernel follows in one path.
const SYMLINKS: u32 = 40;

fn look_up(root: Raw, path: &CStr, flags: i32, resolve: u64) -> Sys<Fd> {
    match system::openat2(root, path, flags, 0, resolve) {
        Err(Errno::ENOSYS | Errno::EPERM) => walk::open(root, path, flags, resolve),
        result => result,
    }
}

/// What exists at `path` in `root`, as an `O_PATH` descriptor.
pub fn open(root: Raw, path: &CStr, flags: i32) -> Sys<Fd> {
    look_up(root, path, O_PATH | flags, CONFINED)
}

/// The same for reading or writing.
pub fn open_file(root: Raw, path: &CStr, flags: i32, extra: u64) -> Sys<Fd> {
    look_up(root, path, flags, CONFINED | extra)
}

/// What a missing last component becomes.
#[derive(Clone, Copy)]
pub enum Missing {
    Directory(u32),
    File,
}

/// Whether there may be symlinks on the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Links {
    Follow,
    Refuse,
}

/// What is at `path` in `root`, created with its parents if missing. The flag tells
/// whether it was there before.
#[inline(never)]
pub fn ensure(root: Raw, path: &CStr, missing: Missing, links: Links) -> Sys<(Fd, bool)> {
    let resolve = match links {
        Links::Follow => CONFINED,
        Links::Refuse => CONFINED | RESOLVE_NO_SYMLINKS,
    };
    match look_up(root, path, O_PATH, resolve) {
        Ok(fd) => return Ok((fd, true)),
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    let mut whole = PathBuffer::<PATH_MAX>::of(&[path.to_bytes()])?;
    create(root, &mut whole, missing, resolve).map(|fd| (fd, false))
}

/// Walks `whole`, creating what is missing. Each step looks the path up again from the root
/// as far as it has come, and creates the next name in what was found.
fn create(root: Raw, whole: &mut PathBuffer<PATH_MAX>, missing: Missing, resolve: u64) -> Sys<Fd> {
    let mut links = 0;
    let mut prefix = PathBuffer::<PATH_MAX>::new();
    let mut parent = look_up(root, c".", O_PATH | O_DIRECTORY, resolve)?;
    let mut at = 0;
    loop {
        let rest = whole.as_bytes().get(at..).unwrap_or(&[]);
        let skip = rest.iter().take_while(|&&byte| byte == b'/').count();
        let name_len = rest[skip..].iter().take_while(|&&byte| byte != b'/').count();
        let name = &rest[skip..skip + name_len];
        at += skip + name_len;
        if name.is_empty() {
            return Ok(parent);
        }
        let last = rest[skip + name_len..].iter().all(|&byte| byte == b'/');
        let parent_len = prefix.as_bytes().len();
        prefix.push(b"/")?;
        prefix.push(name)?;
        match look_up(root, prefix.as_cstr(), O_PATH, resolve) {
            Ok(fd) => {
                parent = fd;
                continue;
            }
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        let name = PathBuffer::<256>::of(&[name])?;
        let made = match missing {
            Missing::Directory(mode) if last => system::mkdirat(parent.raw(), name.as_cstr(), mode),
            Missing::File if last => {
                let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
                system::openat(parent.raw(), name.as_cstr(), flags, 0o644).map(drop)
            }
            _ => system::mkdirat(parent.raw(), name.as_cstr(), 0o755),
        };
        let taken = match made {
            Ok(()) => false,
            Err(Errno::EEXIST) => true,
            Err(errno) => return Err(errno),
        };
        match look_up(root, prefix.as_cstr(), O_PATH, resolve) {
            // Made here, or at the same moment by another container with the same root.
            Ok(fd) => parent = fd,
            // A symlink to something that is missing: that is what has to be created, and
            // its name is looked up from the root like every other.
            Err(Errno::ENOENT) if taken => {
                links += 1;
                if resolve & RESOLVE_NO_SYMLINKS != 0 || links > SYMLINKS {
                    return Err(Errno::ELOOP);
                }
                let mut target = PathBuffer::<PATH_MAX>::new();
                let len = system::readlinkat(parent.raw(), name.as_cstr(), target.space())?;
                target.set_len(len);
                target.push(&whole.as_bytes()[at..])?;
                prefix.truncate(parent_len);
                if target.as_bytes().first() == Some(&b'/') {
                    prefix.clear();
                    parent = look_up(root, c".", O_PATH | O_DIRECTORY, resolve)?;
                }
                whole.clear();
                whole.push(target.as_bytes())?;
                at = 0;
            }
            Err(errno) => return Err(errno),
        }
    }
}

/// The directory that the last new name went into: names come in runs.
pub struct Parent {
    path: &'static [u8],
    directory: Fd,
}

/// The directory `path` lies in, created if missing, and the last name. `known` is the one of
/// the name before, in the same root and with nothing mounted in between.
pub fn parent<'a>(
    root: Raw,
    path: &'static CStr,
    known: &'a mut Option<Parent>,
) -> Sys<(&'a Fd, &'static CStr)> {
    let bytes = path.to_bytes_with_nul();
    let text = path.to_bytes();
    if text.is_empty() || text.ends_with(b"/") || text.ends_with(b"/..") {
        return Err(Errno::EINVAL);
    }
    let cut = text.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let name = CStr::from_bytes_with_nul(&bytes[cut..]).map_err(|_| Errno::EINVAL)?;
    let found = match known.take() {
        Some(parent) if parent.path == &text[..cut] => parent,
        _ => {
            let above = PathBuffer::<PATH_MAX>::of(&[b"/", &text[..cut]])?;
            let missing = Missing::Directory(0o755);
            let directory = ensure(root, above.as_cstr(), missing, Links::Follow)?.0;
            Parent { path: &text[..cut], directory }
        }
    };
    Ok((&known.insert(found).directory, name))
}

//! `openat2` beneath a root, where a filter around us hides it: name by name, each opened by
//! its descriptor and without following, so that a symlink is seen before it is used.
//!
//! The way back up leads through the descriptors of the way down, never through `..` on disk,
//! which a directory that is moved meanwhile would turn into a way out.

use core::ffi::CStr;

use crate::abi::*;
use crate::system::{self, Errno, Fd, Raw, Sys};
use crate::text::{PATH_MAX, PathBuffer};

/// How deep a path may lead.
const DEPTH: usize = 64;
/// As many symlinks as the kernel follows in one path.
const SYMLINKS: u32 = 40;

/// What `openat2` with `RESOLVE_IN_ROOT` and `RESOLVE_NO_MAGICLINKS` opens; of the other
/// `RESOLVE_*` it knows `RESOLVE_NO_SYMLINKS`.
#[inline(never)]
pub fn open(root: Raw, path: &CStr, flags: i32, resolve: u64) -> Sys<Fd> {
    let mut rest = PathBuffer::<PATH_MAX>::of(&[path.to_bytes()])?;
    let mut way: [Option<Fd>; DEPTH] = [const { None }; DEPTH];
    let mut depth = 0;
    let mut links = 0;
    let mut at = 0;
    loop {
        let text = rest.as_bytes();
        at += text[at..].iter().take_while(|&&byte| byte == b'/').count();
        let len = text[at..].iter().take_while(|&&byte| byte != b'/').count();
        let name = PathBuffer::<256>::of(&[&text[at..at + len]])?;
        at += len;
        let here = match depth {
            0 => root,
            _ => way[depth - 1].as_ref().map_or(root, Fd::raw),
        };
        match name.as_bytes() {
            // The end: a directory, or there would have been no name after the one before it.
            b"" => return system::openat(here, c".", flags, 0),
            b"." => continue,
            b".." => {
                depth = depth.saturating_sub(1);
                way[depth] = None;
                continue;
            }
            _ => {}
        }
        let last = at == text.len();
        let found = system::openat(here, name.as_cstr(), O_PATH | O_NOFOLLOW, 0)?;
        let kind = system::stat(found.raw())?.kind();
        if kind == S_IFLNK && !(last && flags & O_NOFOLLOW != 0) {
            links += 1;
            // The links of a procfs lead wherever their process can see.
            let magic = system::fstatfs(found.raw())?.magic() == PROC_SUPER_MAGIC;
            if magic || links > SYMLINKS || resolve & RESOLVE_NO_SYMLINKS != 0 {
                return Err(Errno::ELOOP);
            }
            let mut target = PathBuffer::<PATH_MAX>::new();
            let len = system::readlinkat(found.raw(), c"", target.space())?;
            target.set_len(len);
            if target.as_bytes().first() == Some(&b'/') {
                way = [const { None }; DEPTH];
                depth = 0;
            }
            target.push(&rest.as_bytes()[at..])?;
            rest = target;
            at = 0;
            continue;
        }
        if last {
            // What became a symlink in between is refused.
            return match flags & O_PATH {
                0 => system::openat(here, name.as_cstr(), flags | O_NOFOLLOW, 0),
                _ if flags & O_DIRECTORY != 0 && kind != S_IFDIR => Err(Errno::ENOTDIR),
                _ => Ok(found),
            };
        }
        if kind != S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        *way.get_mut(depth).ok_or(Errno::ENAMETOOLONG)? = Some(found);
        depth += 1;
    }
}

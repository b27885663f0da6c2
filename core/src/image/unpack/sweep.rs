//! Removing trees, however deep they are, with two descriptors.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, futimens};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::stack::{Unpacker, mtime, open_anyway};
use super::{os, shown};
use crate::Result;
use crate::image::trees::{self, DIRECTORY};

/// What becomes of something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    /// For a directory: if anything of what is in it stays.
    Full,
    No,
}

/// A directory on the way down.
struct Frame {
    name: Vec<u8>,
    keep: Keep,
    stat: FileStat,
    changed: bool,
    /// Directories in it that are still to be looked at.
    rest: Vec<(Vec<u8>, Keep)>,
}

impl Unpacker<'_, '_> {
    /// Removes what has this name in the current directory, with all that is in it.
    pub(super) fn clear(&mut self, name: &[u8]) -> Result<()> {
        let fail = |errno| os(errno, format!("remove {}, to make place", shown(name)));
        self.touch();
        match unlinkat(self.dir(), name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => {}
            result => return result.map_err(fail),
        }
        match unlinkat(self.dir(), name, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
            result => return result.map_err(fail),
        }
        let (fd, _) = open(self.dir(), name, self.is_caller()).map_err(fail)?;
        self.sweep(fd, |_, _, _| Ok(Keep::No))?;
        unlinkat(self.dir(), name, UnlinkatFlags::RemoveDir).map_err(fail)
    }

    /// Removes what earlier layers have put into the current directory or, by name, into one in it.
    pub(super) fn remove_earlier(&mut self, name: Option<&[u8]>) -> Result<()> {
        let Some(made) = &self.made else { return Ok(()) };
        let fail = |errno| os(errno, "look for what earlier layers left");
        let keep = |_: &OwnedFd, inode, name: &[u8]| {
            Ok(if made.has(inode, name) { Keep::Yes } else { Keep::No })
        };
        match name {
            None => {
                let fd = openat(self.dir(), ".", DIRECTORY, Mode::empty()).map_err(fail)?;
                let changed = self.sweep(fd, keep)?;
                if changed {
                    self.touch();
                }
            }
            Some(name) => {
                let (fd, stat) = open(self.dir(), name, self.is_caller()).map_err(fail)?;
                let top = fd.try_clone().map_err(|_| os(Errno::EMFILE, "sweep a directory"))?;
                let changed = self.sweep(fd, keep)?;
                restore(&top, &stat, changed).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// Removes from the current directory of a layer, and from those in it, what is of no use once nothing of
    /// lower layers is seen there: marks, and what was copied up.
    pub(super) fn forget_lower(&mut self) -> Result<()> {
        let fail = |errno| os(errno, "look for marks");
        let fd = openat(self.dir(), ".", DIRECTORY, Mode::empty()).map_err(fail)?;
        if trees::is_opaque(fd.as_fd()).map_err(fail)? {
            return Ok(());
        }
        if self.sweep(fd, |dir, inode, name| self.own(dir, inode, name))? {
            self.touch();
        }
        Ok(())
    }

    /// Removes what was copied up to this name in the current directory, unless it is a directory with
    /// something of this layer in it.
    pub(super) fn remove_copied(&mut self, name: &[u8]) -> Result<()> {
        let fail = |errno| os(errno, format!("remove {}, which was copied up", shown(name)));
        let stat = match fstatat(self.dir(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // It went with what was around it, whose inode number is another directory's by now.
            Err(Errno::ENOENT) => return Ok(()),
            stat => stat.map_err(fail)?,
        };
        if trees::kind(&stat) != libc::S_IFDIR {
            return self.clear(name);
        }
        let (fd, stat) = open(self.dir(), name, self.is_caller()).map_err(fail)?;
        let top = fd.try_clone().map_err(|_| os(Errno::EMFILE, "sweep a directory"))?;
        let changed = self.sweep(fd, |dir, inode, name| self.own(dir, inode, name))?;
        match unlinkat(self.dir(), name, UnlinkatFlags::RemoveDir) {
            Ok(()) => self.touch(),
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                restore(&top, &stat, changed).map_err(fail)?;
            }
            Err(errno) => return Err(fail(errno)),
        }
        Ok(())
    }

    /// Whether something in a layer is an entry of it.
    fn own(&self, dir: &OwnedFd, inode: u64, name: &[u8]) -> Result<Keep, Errno> {
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let copied = !self.copied.is_empty() && self.copied.contains(&(inode, name.to_vec()));
        Ok(match (copied, trees::kind(&stat)) {
            (false, _) if trees::is_whiteout(&stat) => Keep::No,
            (false, _) => Keep::Yes,
            (true, libc::S_IFDIR) => Keep::Full,
            (true, _) => Keep::No,
        })
    }

    /// Removes what is in a directory, except what `keep` names by its directory, the inode of that, and its
    /// name; of such a directory the contents are swept as well. Says whether anything in it
    /// itself was removed.
    fn sweep(
        &self,
        top: OwnedFd,
        keep: impl Fn(&OwnedFd, u64, &[u8]) -> Result<Keep, Errno>,
    ) -> Result<bool> {
        let fail = |errno| os(errno, "remove what earlier layers left");
        let mut current = top;
        let stat = fstat(&current).map_err(fail)?;
        let frame =
            Frame { name: Vec::new(), keep: Keep::Yes, stat, changed: false, rest: Vec::new() };
        let mut frames = vec![self.read(&current, frame, &keep)?];
        loop {
            let count = frames.len();
            let frame = &mut frames[count - 1];
            if let Some((name, kept)) = frame.rest.pop() {
                self.guide.check()?;
                if kept == Keep::No {
                    match unlinkat(&current, &name[..], UnlinkatFlags::RemoveDir) {
                        Ok(()) => {
                            frame.changed = true;
                            continue;
                        }
                        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
                        Err(errno) => return Err(fail(errno)),
                    }
                }
                let (child, stat) = open(current.as_fd(), &name, self.is_caller()).map_err(fail)?;
                let frame = Frame { name, keep: kept, stat, changed: false, rest: Vec::new() };
                frames.push(self.read(&child, frame, &keep)?);
                current = child;
                continue;
            }
            let done = frames.pop().expect("it was looked at");
            let Some(above) = frames.last_mut() else { return Ok(done.changed) };
            let parent = openat(&current, "..", DIRECTORY, Mode::empty()).map_err(fail)?;
            if fstat(&parent).map_err(fail)?.st_ino != above.stat.st_ino {
                return Err(fail(Errno::ESTALE));
            }
            let removed = match done.keep {
                Keep::Yes => false,
                Keep::Full | Keep::No => {
                    match unlinkat(&parent, &done.name[..], UnlinkatFlags::RemoveDir) {
                        Err(Errno::ENOTEMPTY | Errno::EEXIST) if done.keep == Keep::Full => false,
                        result => result.map(|()| true).map_err(fail)?,
                    }
                }
            };
            if removed {
                above.changed = true;
            } else {
                restore(&current, &done.stat, done.changed).map_err(fail)?;
            }
            current = parent;
        }
    }

    /// Removes what is no directory, and lists what is one.
    fn read(
        &self,
        fd: &OwnedFd,
        mut frame: Frame,
        keep: impl Fn(&OwnedFd, u64, &[u8]) -> Result<Keep, Errno>,
    ) -> Result<Frame> {
        let fail = |errno| os(errno, "remove what earlier layers left");
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = Dir::openat(fd, ".", flags, Mode::empty()).map_err(fail)?;
        for entry in dir.iter() {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_bytes();
            self.guide.check()?;
            if matches!(name, b"." | b"..") {
                continue;
            }
            let kept = match frame.keep {
                Keep::No => Keep::No,
                _ => keep(fd, frame.stat.st_ino, name).map_err(fail)?,
            };
            let is_directory = match entry.file_type() {
                Some(kind) => kind == Type::Directory,
                None => {
                    let stat = fstatat(fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(fail)?;
                    trees::kind(&stat) == libc::S_IFDIR
                }
            };
            if is_directory {
                frame.rest.push((name.to_vec(), kept));
            } else if kept == Keep::No {
                unlinkat(fd, name, UnlinkatFlags::NoRemoveDir).map_err(fail)?;
                frame.changed = true;
            }
        }
        Ok(frame)
    }
}

/// Opens a directory so that things in it can be removed. What it was is in the result.
fn open(dir: BorrowedFd<'_>, name: &[u8], caller: bool) -> Result<(OwnedFd, FileStat), Errno> {
    let (fd, stat) = match openat(dir, name, DIRECTORY, Mode::empty()) {
        Err(Errno::EACCES) if caller => open_anyway(dir, name)?,
        fd => {
            let fd = fd?;
            let stat = fstat(&fd)?;
            (fd, stat)
        }
    };
    if caller && stat.st_mode & 0o700 != 0o700 {
        fchmod(&fd, Mode::from_bits_truncate(stat.st_mode & 0o7777 | 0o700))?;
    }
    Ok((fd, stat))
}

/// Gives a directory that stays its mode and, if something in it was removed, its time back.
fn restore(dir: &OwnedFd, stat: &FileStat, changed: bool) -> Result<(), Errno> {
    if fstat(dir)?.st_mode != stat.st_mode {
        fchmod(dir, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
    }
    if changed {
        futimens(dir, &mtime(stat), &mtime(stat))?;
    }
    Ok(())
}

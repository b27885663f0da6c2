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

/// A directory on the way down.
struct Frame {
    name: Vec<u8>,
    kept: bool,
    stat: FileStat,
    changed: bool,
    /// Directories in it that are still to be looked at, and whether they are kept.
    rest: Vec<(Vec<u8>, bool)>,
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
        self.sweep(fd, |_, _, _| Ok(false))?;
        unlinkat(self.dir(), name, UnlinkatFlags::RemoveDir).map_err(fail)
    }

    /// Removes what earlier layers have put into the current directory or, by name, into one in it.
    pub(super) fn remove_earlier(&mut self, name: Option<&[u8]>) -> Result<()> {
        let Some(made) = &self.made else { return Ok(()) };
        let fail = |errno| os(errno, "look for what earlier layers left");
        match name {
            None => {
                let fd = openat(self.dir(), ".", DIRECTORY, Mode::empty()).map_err(fail)?;
                let changed = self.sweep(fd, |_, inode, name| Ok(made.has(inode, name)))?;
                if changed {
                    self.touch();
                }
            }
            Some(name) => {
                let (fd, stat) = open(self.dir(), name, self.is_caller()).map_err(fail)?;
                let top = fd.try_clone().map_err(|_| os(Errno::EMFILE, "sweep a directory"))?;
                let changed = self.sweep(fd, |_, inode, name| Ok(made.has(inode, name)))?;
                restore(&top, &stat, changed).map_err(fail)?;
            }
        }
        Ok(())
    }

    /// Removes the marks of what is gone from the current directory and those in it: nothing is seen below
    /// them any more.
    pub(super) fn remove_marks(&mut self) -> Result<()> {
        let fail = |errno| os(errno, "look for marks");
        let fd = openat(self.dir(), ".", DIRECTORY, Mode::empty()).map_err(fail)?;
        if trees::is_opaque(fd.as_fd()).map_err(fail)? {
            return Ok(());
        }
        let changed = self.sweep(fd, |dir, _, name| {
            let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            Ok(!trees::is_whiteout(&stat))
        })?;
        if changed {
            self.touch();
        }
        Ok(())
    }

    /// Removes what is in a directory, except what `keep` names by its directory, the inode of that, and its
    /// name; of such a directory the contents are swept as well. Says whether anything in it
    /// itself was removed.
    fn sweep(
        &self,
        top: OwnedFd,
        keep: impl Fn(&OwnedFd, u64, &[u8]) -> Result<bool, Errno>,
    ) -> Result<bool> {
        let fail = |errno| os(errno, "remove what earlier layers left");
        let mut current = top;
        let stat = fstat(&current).map_err(fail)?;
        let frame = Frame { name: Vec::new(), kept: true, stat, changed: false, rest: Vec::new() };
        let mut frames = vec![read(&current, frame, &keep).map_err(fail)?];
        loop {
            let count = frames.len();
            let frame = &mut frames[count - 1];
            if let Some((name, kept)) = frame.rest.pop() {
                self.guide.check()?;
                if !kept {
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
                let frame = Frame { name, kept, stat, changed: false, rest: Vec::new() };
                frames.push(read(&child, frame, &keep).map_err(fail)?);
                current = child;
                continue;
            }
            let done = frames.pop().expect("it was looked at");
            let Some(above) = frames.last_mut() else { return Ok(done.changed) };
            let parent = openat(&current, "..", DIRECTORY, Mode::empty()).map_err(fail)?;
            if fstat(&parent).map_err(fail)?.st_ino != above.stat.st_ino {
                return Err(fail(Errno::ESTALE));
            }
            if done.kept {
                restore(&current, &done.stat, done.changed).map_err(fail)?;
            } else {
                unlinkat(&parent, &done.name[..], UnlinkatFlags::RemoveDir).map_err(fail)?;
                above.changed = true;
            }
            current = parent;
        }
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

/// Removes what is no directory, and lists what is one.
fn read(
    fd: &OwnedFd,
    mut frame: Frame,
    keep: impl Fn(&OwnedFd, u64, &[u8]) -> Result<bool, Errno>,
) -> Result<Frame, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = Dir::openat(fd, ".", flags, Mode::empty())?;
    for entry in dir.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let kept = frame.kept && keep(fd, frame.stat.st_ino, name)?;
        let is_directory = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            None => {
                let stat = fstatat(fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
                trees::kind(&stat) == libc::S_IFDIR
            }
        };
        if is_directory {
            frame.rest.push((name.to_vec(), kept));
        } else if !kept {
            unlinkat(fd, name, UnlinkatFlags::NoRemoveDir)?;
            frame.changed = true;
        }
    }
    Ok(frame)
}

//! Copying up from lower layers, as overlayfs does when something there gets a further name.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, mknodat,
    utimensat,
};
use nix::unistd::{Whence, fchown, fchownat, ftruncate, lseek, symlinkat};

use super::make::{owner_failed, time_failed};
use super::os;
use super::stack::{Missing, Unpacker, mtime};
use crate::image::trees::{self, Node};
use crate::image::xattr::Of;
use crate::{Category, Error, Result, Stage};

impl Unpacker<'_, '_> {
    /// Copies what only a lower layer has to the same place in this one.
    pub(super) fn copy_up(&mut self, node: &Node) -> Result<()> {
        self.count()?;
        self.copying = true;
        let entered = self.enter(&node.path.join(&b'/'), Missing::Make);
        self.copying = false;
        entered?;
        let (name, stat) = (&node.name[..], &node.stat);
        match trees::kind(stat) {
            libc::S_IFREG => self.copy_up_file(node)?,
            kind => {
                let (from, none) = (&node.dir, Mode::empty());
                if kind == libc::S_IFLNK {
                    let target =
                        readlinkat(from, name).map_err(|errno| os(errno, "read a link"))?;
                    self.fresh(name, |dir| symlinkat(target.as_bytes(), dir, name))?;
                } else {
                    let kind = SFlag::from_bits_truncate(kind);
                    self.fresh(name, |dir| mknodat(dir, name, kind, none, stat.st_rdev))?;
                }
                self.copy_up_metadata(node)?;
            }
        }
        let inode = self.inode();
        self.copied.insert((inode, node.name.clone()));
        Ok(())
    }

    fn copy_up_file(&mut self, node: &Node) -> Result<()> {
        let fail = |errno| os(errno, "copy it up from a lower layer");
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let from = openat(&node.dir, &node.name[..], flags, Mode::empty()).map_err(fail)?;
        let from = File::from(from);
        let to = self.new_file(&node.name)?;
        ftruncate(&to, node.stat.st_size).map_err(fail)?;
        let mut buffer = vec![0; 128 << 10];
        let mut at = 0;
        loop {
            // Holes stay holes.
            let data = match lseek(&from, at, Whence::SeekData) {
                Err(Errno::ENXIO) => break,
                data => data.map_err(fail)?,
            };
            at = lseek(&from, data, Whence::SeekHole).map_err(fail)?;
            self.copy_range(&from, &to, data as u64..at as u64, &mut buffer)?;
        }
        let stat = &node.stat;
        if !self.is_caller() {
            fchown(&to, Some(stat.st_uid.into()), Some(stat.st_gid.into()))
                .map_err(owner_failed)?;
        }
        fchmod(&to, mode(stat)).map_err(fail)?;
        self.copy_xattrs(Of::File(from.as_fd()), Of::File(to.as_fd()))?;
        futimens(&to, &mtime(stat), &mtime(stat)).map_err(time_failed)
    }

    fn copy_range(
        &mut self,
        from: &File,
        to: &File,
        mut range: std::ops::Range<u64>,
        buffer: &mut [u8],
    ) -> Result<()> {
        let fail = |error| Error::io(Stage::Image, &error, "copy it up from a lower layer");
        while range.start < range.end {
            self.guide.check()?;
            let room = (range.end - range.start).min(buffer.len() as u64) as usize;
            let count = from.read_at(&mut buffer[..room], range.start).map_err(fail)?;
            if count == 0 {
                break;
            }
            let limit = self.options.limits.bytes;
            let copied = self.options.copied.get() + count as u64;
            self.options.copied.set(copied);
            if copied > limit {
                let message = format!(
                    "more than {limit} bytes, the limit for all layers, would be copied up"
                );
                return Err(Error::new(Category::Resource, Stage::Image, message));
            }
            to.write_all_at(&buffer[..count], range.start).map_err(fail)?;
            range.start += count as u64;
        }
        Ok(())
    }

    fn copy_up_metadata(&self, node: &Node) -> Result<()> {
        let (name, stat, dir) = (&node.name[..], &node.stat, self.dir());
        if !self.is_caller() {
            let (uid, gid) = (stat.st_uid.into(), stat.st_gid.into());
            fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(owner_failed)?;
        }
        if trees::kind(stat) != libc::S_IFLNK {
            fchmodat(dir, name, mode(stat), FchmodatFlags::FollowSymlink)
                .map_err(|errno| os(errno, "set its mode"))?;
        }
        self.copy_xattrs(Of::Name(node.dir.as_fd(), name), Of::Name(dir, name))?;
        utimensat(dir, name, &mtime(stat), &mtime(stat), UtimensatFlags::NoFollowSymlink)
            .map_err(time_failed)
    }
}

fn mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}

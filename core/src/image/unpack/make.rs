//! Making what an entry is, in the directory that is worked in.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstatat, futimens, makedev,
    mknodat, utimensat,
};
use nix::unistd::{Whence, fchown, fchownat, ftruncate, linkat, lseek, symlinkat};

use super::archive::{Archive, Entry, Kind};
use super::stack::{Missing, Unpacker, Wanted};
use super::{Form, clean, os, shown, spec};
use crate::container::in_user_namespace;
use crate::image::trees::{self, Found};
use crate::image::xattr::Of;
use crate::{Category, Error, Result, Stage};

/// What the kernel has room for in a device's number: 12 and 20 bits. More would be cut off, and be
/// another device, or a whiteout.
const MAJORS: u64 = 1 << 12;
const MINORS: u64 = 1 << 20;

const NEW: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_CREAT)
    .union(OFlag::O_EXCL)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

impl Unpacker<'_, '_> {
    /// Makes an entry that is no whiteout.
    pub(super) fn add(
        &mut self,
        archive: &mut Archive<'_, '_>,
        entry: &Entry,
        parent: &[u8],
        name: &[u8],
    ) -> Result<()> {
        if entry.kind == Kind::Link {
            return self.link(entry, parent, name);
        }
        self.enter(parent, Missing::Make)?;
        match entry.kind {
            Kind::File => self.file(archive, entry, name),
            Kind::Directory => self.directory(entry, name),
            _ => self.special(entry, name),
        }
    }

    /// Gives the root what an entry says of it.
    pub(super) fn root(&mut self, entry: &Entry) -> Result<()> {
        self.enter(b"", Missing::Make)?;
        self.clear_xattrs()?;
        self.describe(entry)
    }

    fn directory(&mut self, entry: &Entry, name: &[u8]) -> Result<()> {
        let there = match fstatat(self.dir(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => None,
            stat => Some(stat.map_err(|errno| os(errno, "look for what is there"))?),
        };
        match there {
            None => self.make_directory(name)?,
            Some(stat) if trees::kind(&stat) == libc::S_IFDIR => {
                self.descend(name, Missing::Stop)?;
                self.clear_xattrs()?;
            }
            Some(_) => {
                self.clear(name)?;
                self.make_directory(name)?;
                // What was there hid a directory of lower layers.
                if self.options.form == Form::Layer {
                    self.mark_opaque()?;
                }
            }
        }
        self.describe(entry)
    }

    /// Gives the current directory the owner and attributes of an entry; mode and time it gets in the end.
    fn describe(&mut self, entry: &Entry) -> Result<()> {
        if let Some((uid, gid)) = self.options.ids.outside(entry.uid, entry.gid)? {
            fchown(self.dir(), Some(uid), Some(gid)).map_err(owner_failed)?;
        }
        self.set_xattrs(Of::File(self.dir()), &entry.xattrs)?;
        self.want(Wanted { mode: entry.mode, mtime: entry.mtime });
        Ok(())
    }

    fn file(&mut self, archive: &mut Archive<'_, '_>, entry: &Entry, name: &[u8]) -> Result<()> {
        let owner = self.options.ids.outside(entry.uid, entry.gid)?;
        let mut file = self.new_file(name)?;
        match &entry.sparse {
            None => copy(archive, &mut file, entry.size)?,
            Some(sparse) => {
                for part in sparse.parts.iter().filter(|part| part.length > 0) {
                    lseek(&file, part.offset as i64, Whence::SeekSet)
                        .map_err(|errno| os(errno, "leave a hole"))?;
                    copy(archive, &mut file, part.length)?;
                }
                ftruncate(&file, sparse.size as i64).map_err(|errno| os(errno, "set its size"))?;
            }
        }
        if let Some((uid, gid)) = owner {
            fchown(&file, Some(uid), Some(gid)).map_err(owner_failed)?;
        }
        // After the owner, whose change takes setuid and capabilities away.
        fchmod(&file, Mode::from_bits_truncate(entry.mode))
            .map_err(|errno| os(errno, "set its mode"))?;
        self.set_xattrs(Of::File(file.as_fd()), &entry.xattrs)?;
        futimens(&file, &entry.mtime, &entry.mtime).map_err(time_failed)
    }

    pub(super) fn new_file(&mut self, name: &[u8]) -> Result<File> {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        self.fresh(name, |dir| openat(dir, name, NEW, mode)).map(File::from)
    }

    /// Symbolic links, devices and named pipes.
    fn special(&mut self, entry: &Entry, name: &[u8]) -> Result<()> {
        let owner = self.options.ids.outside(entry.uid, entry.gid)?;
        let none = Mode::empty();
        match entry.kind {
            Kind::Symlink => {
                let fits = (1..4096).contains(&entry.link.len()) && !entry.link.contains(&0);
                if !fits {
                    return Err(spec("its target is empty, too long or has a zero byte"));
                }
                self.fresh(name, |dir| symlinkat(&entry.link[..], dir, name))?;
            }
            Kind::Fifo => self.fresh(name, |dir| mknodat(dir, name, SFlag::S_IFIFO, none, 0))?,
            _ => {
                let kind = match entry.kind {
                    Kind::Block => SFlag::S_IFBLK,
                    _ => SFlag::S_IFCHR,
                };
                let device = device(entry)?;
                let made = self.fresh(name, |dir| mknodat(dir, name, kind, none, device));
                match made {
                    Err(error)
                        if error.errno() == Some(libc::EPERM)
                            && (self.is_caller() || in_user_namespace()) =>
                    {
                        tracing::warn!(name = %shown(&entry.name), "a device is left out");
                        return Ok(());
                    }
                    made => made?,
                }
            }
        }
        let dir = self.dir();
        if let Some((uid, gid)) = owner {
            fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
                .map_err(owner_failed)?;
        }
        if entry.kind != Kind::Symlink {
            let mode = Mode::from_bits_truncate(entry.mode);
            fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink)
                .map_err(|errno| os(errno, "set its mode"))?;
        }
        if !entry.xattrs.is_empty() {
            self.set_xattrs(Of::Name(dir, name), &entry.xattrs)?;
        }
        let time = &entry.mtime;
        utimensat(dir, name, time, time, UtimensatFlags::NoFollowSymlink).map_err(time_failed)
    }

    /// Makes something by a call that fails if there is something already: that is removed then.
    pub(super) fn fresh<T>(
        &mut self,
        name: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> Result<T> {
        let made = match make(self.dir()) {
            Err(Errno::EEXIST) => {
                self.clear(name)?;
                make(self.dir())
            }
            made => made,
        };
        let made = made.map_err(|errno| os(errno, "make it"))?;
        self.touch();
        self.note(name);
        Ok(made)
    }

    /// A hard link. It has no metadata of its own, whatever its header says.
    fn link(&mut self, entry: &Entry, parent: &[u8], name: &[u8]) -> Result<()> {
        let shown = shown(&entry.link);
        let target = || format!("its target {shown}");
        let mut path = Vec::new();
        clean(&entry.link, &mut path).map_err(|error| error.context(target()))?;
        let node = match self.find(&path)? {
            Some(Found::Other(node)) if node.layer > 0 => {
                self.copy_up(&node)?;
                self.find(&path)?
            }
            node => node,
        };
        let node = match node {
            Some(Found::Other(node)) => node,
            Some(Found::Directory(_)) => {
                return Err(spec(format!("{} is a directory", target())));
            }
            None => return Err(spec(format!("{} is not there", target()))),
        };
        self.enter(parent, Missing::Make)?;
        let fail = |errno| match errno {
            // What it was linked to was in the directory that it replaces.
            Errno::ENOENT => spec(format!("{} is not there any more", target())),
            errno => os(errno, format!("link it to {shown}")),
        };
        let link =
            |dir: BorrowedFd<'_>| linkat(&node.dir, &node.name[..], dir, name, AtFlags::empty());
        match link(self.dir()) {
            Err(Errno::EEXIST) => {
                let there = fstatat(self.dir(), name, AtFlags::AT_SYMLINK_NOFOLLOW);
                let there = there.map_err(fail)?;
                let same = (node.stat.st_dev, node.stat.st_ino);
                if (there.st_dev, there.st_ino) != same {
                    self.clear(name)?;
                    link(self.dir()).map_err(fail)?;
                }
            }
            linked => linked.map_err(fail)?,
        }
        self.touch();
        self.note(name);
        Ok(())
    }

    fn find(&mut self, path: &[u8]) -> Result<Option<Found>> {
        // It needs descriptors itself.
        self.below = None;
        self.tree().find(path, false).map_err(|errno| match errno {
            Errno::ELOOP => spec(format!("its target is {}", trees::too_far())),
            errno => os(errno, "look for its target"),
        })
    }
}

fn copy(archive: &mut Archive<'_, '_>, file: &mut File, mut count: u64) -> Result<()> {
    while count > 0 {
        let bytes = archive.data()?;
        let step = count.min(bytes.len() as u64) as usize;
        if step == 0 {
            return Err(spec("it has less data than its headers say"));
        }
        file.write_all(&bytes[..step])
            .map_err(|error| Error::io(Stage::Image, &error, "write its data"))?;
        archive.used(step);
        count -= step as u64;
    }
    Ok(())
}

fn device(entry: &Entry) -> Result<libc::dev_t> {
    let (major, minor) = entry.device;
    let part = |part: i64, limit: u64| u64::try_from(part).ok().filter(|part| *part < limit);
    match (part(major, MAJORS), part(minor, MINORS)) {
        (Some(0), Some(0)) if entry.kind == Kind::Char => {
            Err(spec("the character device 0:0 is none, but overlayfs's mark for what is gone"))
        }
        (Some(major), Some(minor)) => Ok(makedev(major, minor)),
        _ => Err(spec(format!("there can be no device {major}:{minor}"))),
    }
}

pub(super) fn owner_failed(errno: Errno) -> Error {
    let error = os(errno, "set its owner");
    match error.category() {
        Category::Permission | Category::System => {
            error.hint("without the rights for this, unpack as the caller's")
        }
        _ => error,
    }
}

pub(super) fn time_failed(errno: Errno) -> Error {
    os(errno, "set its modification time")
}

//! A directory becomes a layer: the tar file of what an overlay's upper directory has changed, or of
//! a whole tree. The same bytes for the same tree.
//!
//! Everything is reached through descriptors of directories, never through a link. Nobody changes the tree
//! meanwhile; where somebody does, that is an error, and never a file of half of it.

mod entry;
mod owners;
#[cfg(test)]
mod tests;
mod xattr;

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor};
use tar::EntryType;

use self::entry::{BLOCK, Entry};
use self::owners::Owners;
use self::xattr::Xattrs;
use super::unpack::{EXTENSION, Ids, Limits, NAME, shown};
use super::xattr::Of;
use super::{Guide, Step, digest};
use crate::{Category, Error, Result, Stage};

/// What the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An overlay's upper directory, whose marks become whiteouts.
    Upper(Marks),
    /// A tree, of which everything goes in.
    Tree,
}

/// Which attributes are an overlay's own. The others it has copied like any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// `trusted.overlay.*`: it was mounted by root.
    Trusted,
    /// `user.overlay.*`: it was mounted in a user namespace.
    User,
}

/// What was packed.
pub(super) struct Packed {
    /// The latest modification time of an entry, in seconds since 1970; 0 without any.
    pub(super) latest: i64,
}

/// Writes an uncompressed tar file, of which the first entry is the directory itself: `./`. Sockets are left
/// out, and the holes of a file become zeros.
pub(super) fn pack(
    dir: &File,
    kind: Kind,
    ids: &Ids,
    out: &mut dyn Write,
    guide: &mut Guide<'_>,
) -> Result<Packed> {
    let mut packer = Packer {
        kind,
        owners: Owners(ids),
        out,
        guide,
        path: Vec::new(),
        links: HashMap::new(),
        latest: None,
        entries: 0,
        done: 0,
        headers: Vec::new(),
        buffer: vec![0; BUFFER],
    };
    packer.guide.report(Step::Pack, "", 0, 0)?;
    let root = openat(dir, c".", DIRECTORY, Mode::empty());
    let root = root.map_err(|errno| packer.failed(errno, "open"))?;
    let mut frames = vec![packer.directory(root)?];
    while let Some(frame) = frames.last_mut() {
        packer.path.truncate(frame.path);
        if let Some(name) = frame.rest.pop() {
            let dir = frame.dir.as_ref().expect("the last ones are open");
            packer.path.extend_from_slice(name.to_bytes());
            if let Some(below) = packer.entry(dir.as_fd(), &name)? {
                frames.push(below);
                if let Some(far) = frames.len().checked_sub(OPEN + 1) {
                    frames[far].dir = None;
                }
            }
            continue;
        }
        let below = frames.pop().and_then(|frame| frame.dir).expect("the last ones are open");
        if let Some(frame @ Frame { dir: None, .. }) = frames.last_mut() {
            packer.path.truncate(frame.path);
            frame.dir = Some(packer.up(below.as_fd(), frame.id)?);
        }
    }
    packer.write(&[0; 2 * BLOCK])?;
    packer.guide.finished(Step::Pack, "", packer.done)?;
    Ok(Packed { latest: packer.latest.unwrap_or(0) })
}

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// So many directories are open at once, however deep the tree is.
const OPEN: usize = 32;

/// A file is read in pieces of this size.
const BUFFER: usize = 256 << 10;

/// So many entries may go by without a look at whether to go on.
const ENTRIES: u64 = 64;

/// A directory that is being packed.
struct Frame {
    /// Closed while the work is far below.
    dir: Option<OwnedFd>,
    id: Id,
    /// Its entries to come, the next one last.
    rest: Vec<CString>,
    /// How much of the path is its own, with the slash behind it.
    path: usize,
}

/// A file system and a file in it.
type Id = (u64, u64);

/// A file with several names, of which some are still to come.
struct Link {
    first: Vec<u8>,
    left: libc::nlink_t,
}

struct Packer<'a, 'b> {
    kind: Kind,
    owners: Owners<'a>,
    out: &'a mut dyn Write,
    guide: &'a mut Guide<'b>,
    /// Of the entry at hand, as in the tar file.
    path: Vec<u8>,
    links: HashMap<Id, Link>,
    latest: Option<i64>,
    entries: u64,
    /// Bytes written.
    done: u64,
    headers: Vec<u8>,
    buffer: Vec<u8>,
}

impl Packer<'_, '_> {
    /// Packs what has this name in a directory; of a directory only itself.
    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<Frame>> {
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|errno| self.failed(errno, "look at"))?;
        let kind = match file_type(&stat) {
            SFlag::S_IFDIR => {
                let below = openat(dir, name, DIRECTORY, Mode::empty());
                let below = below.map_err(|errno| self.failed(errno, "open"))?;
                self.path.push(b'/');
                return self.directory(below).map(Some);
            }
            SFlag::S_IFREG => EntryType::Regular,
            SFlag::S_IFLNK => EntryType::Symlink,
            SFlag::S_IFCHR => EntryType::Char,
            SFlag::S_IFBLK => EntryType::Block,
            SFlag::S_IFIFO => EntryType::Fifo,
            SFlag::S_IFSOCK => {
                let path = String::from_utf8_lossy(&self.path);
                tracing::debug!(?path, "left a socket out of a layer");
                return Ok(None);
            }
            other => {
                let message = format!("{:?} is of the unknown type {other:?}", self.shown());
                return Err(Error::new(Category::Unsupported, Stage::Image, message));
            }
        };
        if let Some(first) = self.first_name(&stat) {
            self.header(EntryType::Link, &stat, &first, &[])?;
            return Ok(None);
        }
        match kind {
            EntryType::Regular => self.regular(dir, name, &stat)?,
            kind => {
                let xattrs = self.xattrs(Of::Name(dir, name.to_bytes()))?;
                let target = match kind {
                    EntryType::Symlink => {
                        let target = readlinkat(dir, name);
                        target.map_err(|errno| self.failed(errno, "read the link"))?.into_vec()
                    }
                    _ => Vec::new(),
                };
                self.header(kind, &stat, &target, &xattrs)?;
            }
        }
        Ok(None)
    }

    fn regular(&mut self, dir: BorrowedFd<'_>, name: &CStr, seen: &FileStat) -> Result<()> {
        // Without waiting for anything, should it be a fifo by now.
        let flags = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let file = openat(dir, name, flags, Mode::empty());
        let file = file.map_err(|errno| self.failed(errno, "open"))?;
        let stat = fstat(&file).map_err(|errno| self.failed(errno, "look at"))?;
        if id(&stat) != id(seen) || file_type(&stat) != SFlag::S_IFREG {
            return Err(self.changed("another file took its place"));
        }
        let size = stat.st_size as u64;
        let limit = Limits::default().bytes;
        if self.done.saturating_add(size) > limit {
            let message = format!(
                "{:?}: with its {size} bytes the layer would have more than the {limit} that can be \
                 unpacked again",
                self.shown()
            );
            return Err(Error::new(Category::Resource, Stage::Image, message));
        }
        let xattrs = self.xattrs(Of::File(file.as_fd()))?;
        self.header(EntryType::Regular, &stat, b"", &xattrs)?;
        let mut file = File::from(file);
        let mut left = size;
        while left > 0 {
            let room = left.min(BUFFER as u64) as usize;
            let count = match file.read(&mut self.buffer[..room]) {
                Ok(0) => return Err(self.changed("it became shorter")),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let what = format!("read {:?}", self.shown());
                    return Err(Error::io(Stage::Image, &error, what));
                }
            };
            put(self.out, &mut self.done, &self.buffer[..count])?;
            left -= count as u64;
            self.guide.report(Step::Pack, "", self.done, 0)?;
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        self.write(&[0; BLOCK][..padding as usize])
    }

    /// Packs a directory itself and the marks of what it hides, and lists the rest of it.
    fn directory(&mut self, dir: OwnedFd) -> Result<Frame> {
        let stat = fstat(&dir).map_err(|errno| self.failed(errno, "look at"))?;
        let mut xattrs = self.all_xattrs(Of::File(dir.as_fd()))?;
        let opaque = self.mark(&xattrs, "opaque").map(<[u8]>::to_vec);
        self.select(&mut xattrs)?;
        self.header(EntryType::Directory, &stat, b"", &xattrs)?;
        let mut names = self.names(&dir)?;
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if let Some((name, _)) = names.iter().find(|(name, _)| name.to_bytes().starts_with(b".wh."))
        {
            self.path.extend_from_slice(name.to_bytes());
            let message = format!("{:?}: its name would make a whiteout of it", self.shown());
            return Err(Error::new(Category::Spec, Stage::Image, message));
        }
        let path = self.path.len();
        if matches!(self.kind, Kind::Upper(_)) {
            if opaque.as_deref() == Some(b"y") {
                self.whiteout(b".wh..opq")?;
            }
            // The image-spec wants them before what is beside them.
            let attributes = opaque.as_deref() == Some(b"x");
            let mut left = Vec::with_capacity(names.len());
            for (name, kind) in names {
                self.path.truncate(path);
                self.path.extend_from_slice(name.to_bytes());
                let hides = self.hides(dir.as_fd(), &name, kind, attributes)?;
                self.path.truncate(path);
                match hides {
                    true => self.whiteout(name.to_bytes())?,
                    false => left.push((name, kind)),
                }
            }
            names = left;
        }
        let rest = names.into_iter().rev().map(|(name, _)| name).collect();
        Ok(Frame { dir: Some(dir), id: id(&stat), rest, path })
    }

    /// The value of one of the overlay's own attributes.
    fn mark<'x>(&self, xattrs: &'x Xattrs, name: &str) -> Option<&'x [u8]> {
        let prefix = match self.kind {
            Kind::Upper(Marks::Trusted) => "trusted.overlay.",
            Kind::Upper(Marks::User) => "user.overlay.",
            Kind::Tree => return None,
        };
        let whole = [prefix, name].concat().into_bytes();
        xattrs.iter().find(|(name, _)| *name == whole).map(|(_, value)| value.as_slice())
    }

    fn names(&self, dir: &OwnedFd) -> Result<Vec<(CString, Option<Type>)>> {
        let mut names = Vec::new();
        let failed = |errno| self.failed(errno, "list");
        // Opened anew, for a position of its own.
        let mut dir = Dir::openat(dir, c".", DIRECTORY, Mode::empty()).map_err(failed)?;
        for entry in dir.iter() {
            let entry = entry.map_err(failed)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        Ok(names)
    }

    /// Whether this is overlayfs's mark that a name is gone: a device without a number, or, in directories
    /// that say so, since Linux 6.7, an attribute of an empty file.
    fn hides(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        kind: Option<Type>,
        attributes: bool,
    ) -> Result<bool> {
        match kind {
            None | Some(Type::CharacterDevice) => (),
            Some(Type::File) if attributes => (),
            Some(_) => return Ok(false),
        }
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|errno| self.failed(errno, "look at"))?;
        Ok(match file_type(&stat) {
            SFlag::S_IFCHR => stat.st_rdev == 0,
            SFlag::S_IFREG if attributes && stat.st_size == 0 => {
                let xattrs = self.all_xattrs(Of::Name(dir, name.to_bytes()))?;
                self.mark(&xattrs, "whiteout").is_some()
            }
            _ => false,
        })
    }

    /// Hides a name of the layers below. The mark's time and owner mean nothing; with the mark's own ones, the
    /// same changes would not give the same bytes.
    fn whiteout(&mut self, name: &[u8]) -> Result<()> {
        let path = [&self.path[..], b".wh.", name].concat();
        self.put_entry(&Entry { path: &path, ..Entry::default() })
    }

    fn header(
        &mut self,
        kind: EntryType,
        stat: &FileStat,
        link: &[u8],
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<()> {
        let ids = self.owners.uid(stat.st_uid).and_then(|uid| {
            let gid = self.owners.gid(stat.st_gid)?;
            Ok((uid, gid))
        });
        let (uid, gid) = ids.map_err(|error| self.wrong(error))?;
        let device = match kind {
            EntryType::Char | EntryType::Block => {
                (major(stat.st_rdev) as u32, minor(stat.st_rdev) as u32)
            }
            _ => (0, 0),
        };
        self.latest = self.latest.max(Some(stat.st_mtime));
        let path = std::mem::take(&mut self.path);
        let result = self.put_entry(&Entry {
            kind,
            path: if path.is_empty() { b"./" } else { &path },
            link,
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            size: if kind == EntryType::Regular { stat.st_size as u64 } else { 0 },
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            device,
            xattrs,
        });
        self.path = path;
        result
    }

    /// What would not be unpacked again is an error.
    fn put_entry(&mut self, entry: &Entry<'_>) -> Result<()> {
        if entry.path.len() > NAME {
            return Err(too_long(entry.path, "a path has", NAME));
        }
        self.entries += 1;
        if self.entries % ENTRIES == 0 {
            self.guide.report(Step::Pack, "", self.done, 0)?;
        }
        self.headers.clear();
        entry.write(&mut self.headers);
        // One header is the entry's own, one that of the extension.
        if self.headers.len() > EXTENSION + 2 * BLOCK {
            return Err(too_long(entry.path, "attributes have", EXTENSION));
        }
        put(self.out, &mut self.done, &self.headers)
    }

    /// Under which name a file was packed already.
    fn first_name(&mut self, stat: &FileStat) -> Option<Vec<u8>> {
        if stat.st_nlink < 2 {
            return None;
        }
        if let Some(link) = self.links.get_mut(&id(stat)) {
            link.left -= 1;
            return match link.left {
                0 => self.links.remove(&id(stat)).map(|link| link.first),
                _ => Some(link.first.clone()),
            };
        }
        let link = Link { first: self.path.clone(), left: stat.st_nlink - 1 };
        self.links.insert(id(stat), link);
        None
    }

    fn all_xattrs(&self, of: Of<'_>) -> Result<Xattrs> {
        let xattrs = xattr::read(of);
        let xattrs = xattrs.map_err(|errno| match errno {
            Errno::E2BIG => too_long(&self.path, "attributes have", EXTENSION),
            _ => self.failed(errno, "read the attributes of"),
        })?;
        if matches!(self.kind, Kind::Upper(_)) {
            for (name, what) in [
                ("redirect", "overlayfs has moved it rather than copied it"),
                ("metacopy", "overlayfs has copied its attributes alone"),
            ] {
                if self.mark(&xattrs, name).is_some() {
                    let message = format!("{:?}: {what}", self.shown());
                    let error = Error::new(Category::Unsupported, Stage::Image, message);
                    return Err(error.hint(
                        "mount the overlay with the options redirect_dir=off and metacopy=off",
                    ));
                }
            }
        }
        Ok(xattrs)
    }

    fn select(&self, xattrs: &mut Xattrs) -> Result<()> {
        xattr::select(xattrs, &self.owners).map_err(|error| self.wrong(error))
    }

    fn xattrs(&self, of: Of<'_>) -> Result<Xattrs> {
        let mut xattrs = self.all_xattrs(of)?;
        self.select(&mut xattrs)?;
        Ok(xattrs)
    }

    /// The directory above, which was closed.
    fn up(&self, below: BorrowedFd<'_>, expected: Id) -> Result<OwnedFd> {
        let dir = openat(below, c"..", DIRECTORY, Mode::empty());
        let dir = dir.map_err(|errno| self.failed(errno, "go back to"))?;
        let stat = fstat(&dir).map_err(|errno| self.failed(errno, "look at"))?;
        match id(&stat) == expected {
            true => Ok(dir),
            false => Err(self.changed("what was in it was moved")),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        put(self.out, &mut self.done, bytes)
    }

    /// The path for a message.
    fn shown(&self) -> String {
        match &self.path[..] {
            b"" => ".".into(),
            path => String::from_utf8_lossy(path).into_owned(),
        }
    }

    fn failed(&self, errno: Errno, what: &str) -> Error {
        Error::os(Stage::Image, errno as i32, format!("{what} {:?}", self.shown()))
    }

    fn wrong(&self, error: Error) -> Error {
        error.context(format!("{:?}", self.shown()))
    }

    fn changed(&self, what: &str) -> Error {
        let message = format!("{:?} changed while it was being read: {what}", self.shown());
        Error::new(Category::Busy, Stage::Image, message)
    }
}

fn too_long(path: &[u8], what: &str, limit: usize) -> Error {
    let message = format!("{}: in a layer, {what} no more than {limit} bytes", shown(path));
    Error::new(Category::Unsupported, Stage::Image, message)
}

fn put(out: &mut dyn Write, done: &mut u64, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(|error| digest::unwrap(error, || "write a layer".into()))?;
    *done += bytes.len() as u64;
    Ok(())
}

fn id(stat: &FileStat) -> Id {
    (stat.st_dev, stat.st_ino)
}

fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

//! Where the unpacking is: the open directories from the root to the one that is worked in. One component
//! after the other is opened in the one before it, and never through a link, so nothing leaves the root.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, fchmod, fchmodat, fstat, fstatat, futimens, mkdirat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::fchown;

use super::{Form, Ids, Options, os, shown, spec};
use crate::image::Guide;
use crate::image::trees::{self, Child, DIRECTORY, LINKS, Opened, Tree};
use crate::image::xattr;
use crate::{Category, Error, Result, Stage};

/// As many directories are kept open. Above them, `..` leads back.
const OPEN: usize = 32;

/// A directory's mode and time once nothing is put into it any more.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) mode: u32,
    pub(super) mtime: TimeSpec,
}

struct Level {
    name: Vec<u8>,
    /// The last one has it, and so have some before it.
    fd: Option<OwnedFd>,
    inode: u64,
    /// As it is on disk; `None` if that is unknown.
    mode: Option<u32>,
    /// Whether its mode and time have to be set.
    touched: bool,
}

/// What to do about a directory on the way that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    /// Make it if a lower layer has it, or where those are not known.
    Follow,
    Stop,
}

/// The names that this layer has made, where earlier layers have left others. Of a name and its
/// directory's inode only a hash is kept.
#[derive(Default)]
pub(super) struct Made {
    names: HashSet<u64>,
    hasher: RandomState,
}

impl Made {
    pub(super) fn has(&self, inode: u64, name: &[u8]) -> bool {
        self.names.contains(&self.hasher.hash_one((inode, name)))
    }

    fn add(&mut self, inode: u64, name: &[u8]) {
        self.names.insert(self.hasher.hash_one((inode, name)));
    }
}

pub(super) struct Unpacker<'a, 'g> {
    pub(super) options: &'a Options<'a>,
    pub(super) guide: &'a Guide<'g>,
    /// Never empty; the root is the first.
    levels: Vec<Level>,
    device: u64,
    /// The path by which the last level was entered if links were on it.
    linked: Option<Vec<u8>>,
    /// What lower layers have of the last level, if that is known.
    pub(super) below: Option<Opened>,
    pub(super) wanted: HashMap<u64, Wanted>,
    /// `None` if there is nothing of earlier layers.
    pub(super) made: Option<Made>,
    /// What was copied up from lower layers and is no entry of this one: directory and name.
    pub(super) copied: BTreeSet<(u64, Vec<u8>)>,
    /// Whether directories are being made for that.
    pub(super) copying: bool,
    /// Whether the layer hides the lower ones altogether.
    pub(super) hides_all: bool,
    entries: u64,
}

impl<'a, 'g> Unpacker<'a, 'g> {
    pub(super) fn new(
        dir: &File,
        options: &'a Options<'a>,
        guide: &'a Guide<'g>,
    ) -> Result<Unpacker<'a, 'g>> {
        let fail = |errno| os(errno, "open the directory to unpack to");
        let fd = openat(dir, ".", DIRECTORY, Mode::empty()).map_err(fail)?;
        let stat = fstat(&fd).map_err(fail)?;
        let made = options.form == Form::Tree && !is_empty(&fd).map_err(fail)?;
        let mut unpacker = Unpacker {
            options,
            guide,
            levels: Vec::new(),
            device: stat.st_dev,
            linked: None,
            below: None,
            wanted: HashMap::new(),
            made: made.then(Made::default),
            copied: BTreeSet::new(),
            copying: false,
            hides_all: false,
            entries: 0,
        };
        unpacker.push(fd, b"", &stat, None).map_err(fail)?;
        if let (Form::Layer, Some(lower)) = (options.form, options.lower.first()) {
            let lower = openat(lower, ".", DIRECTORY, Mode::empty()).map_err(fail)?;
            unpacker.be_like(&lower)?;
        }
        Ok(unpacker)
    }

    /// Gives all directories their modes and times.
    pub(super) fn finish(mut self) -> Result<()> {
        self.go_up_to(1)?;
        if self.hides_all {
            self.hide_lower_roots()?;
        }
        let root = self.levels.pop().expect("the root is there until the end");
        self.settle(&root)
    }

    /// Counts an entry, or a directory that no entry names.
    pub(super) fn count(&mut self) -> Result<()> {
        self.entries += 1;
        let limit = self.options.limits.entries;
        if self.entries > limit {
            let message = format!("the layer has more than {limit} entries, the limit");
            return Err(Error::new(Category::Resource, Stage::Image, message));
        }
        Ok(())
    }

    fn level(&self) -> &Level {
        self.levels.last().expect("the root is there until the end")
    }

    fn level_mut(&mut self) -> &mut Level {
        self.levels.last_mut().expect("the root is there until the end")
    }

    /// The directory that is worked in.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.level().fd.as_ref().expect("the last one is open").as_fd()
    }

    pub(super) fn inode(&self) -> u64 {
        self.level().inode
    }

    /// To be called when something in the directory changes.
    pub(super) fn touch(&mut self) {
        self.level_mut().touched = true;
    }

    /// What the directory is to be like in the end. Its mode may have been changed meanwhile.
    pub(super) fn want(&mut self, wanted: Wanted) {
        let level = self.level_mut();
        level.touched = true;
        level.mode = None;
        let inode = level.inode;
        self.wanted.insert(inode, wanted);
    }

    /// Notes that this layer has made something of this name.
    pub(super) fn note(&mut self, name: &[u8]) {
        let inode = self.inode();
        if !self.copied.is_empty() && !self.copying {
            self.copied.remove(&(inode, name.to_vec()));
        }
        if let Some(made) = &mut self.made {
            made.add(inode, name);
        }
    }

    /// Whether another user's rights would be needed for what the mode of an own directory forbids.
    pub(super) fn is_caller(&self) -> bool {
        *self.options.ids == Ids::Caller
    }

    /// Goes to the directory of this clean path, following links within the root. `false` if it is
    /// not there and `missing` says to leave it so.
    pub(super) fn enter(&mut self, path: &[u8], missing: Missing) -> Result<bool> {
        if self.linked.as_deref() == Some(path) {
            return Ok(true);
        }
        self.linked = None;
        let mut rest = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
        // The levels are real directories by their real names, so what is the same needs no look.
        let mut same = 1;
        while same < self.levels.len() && rest.peek() == Some(&&self.levels[same].name[..]) {
            same += 1;
            rest.next();
        }
        self.go_up_to(same)?;
        while let Some(name) = rest.next() {
            match self.descend(name, missing)? {
                Step::Entered => {}
                Step::Missing => return Ok(false),
                Step::Link(target) => {
                    let rest: Vec<&[u8]> = rest.collect();
                    let entered = self.follow(target, &rest, missing)?;
                    if entered {
                        self.linked = Some(path.to_vec());
                    }
                    return Ok(entered);
                }
            }
        }
        Ok(true)
    }

    /// Goes where a link in the current directory leads, and on from there.
    fn follow(&mut self, target: Vec<u8>, rest: &[&[u8]], missing: Missing) -> Result<bool> {
        let mut rest: Vec<Vec<u8>> = rest.iter().rev().map(|part| part.to_vec()).collect();
        let mut link = Some(target);
        let mut links = 0;
        loop {
            if let Some(target) = link.take() {
                links += 1;
                if links > LINKS {
                    return Err(spec(format!("its directory is behind more than {LINKS} links")));
                }
                if target.starts_with(b"/") {
                    self.go_up_to(1)?;
                }
                rest.extend(target.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec));
            }
            match rest.pop().as_deref() {
                None => return Ok(true),
                Some(b"" | b".") => {}
                Some(b"..") => self.go_up_to((self.levels.len() - 1).max(1))?,
                Some(name) => match self.descend(name, missing)? {
                    Step::Entered => {}
                    Step::Missing => return Ok(false),
                    Step::Link(target) => link = Some(target),
                },
            }
        }
    }

    /// Goes to a directory in the current one.
    pub(super) fn descend(&mut self, name: &[u8], missing: Missing) -> Result<Step> {
        let fail = |errno| os(errno, format!("open the directory {}", shown(name)));
        match openat(self.dir(), name, DIRECTORY, Mode::empty()) {
            Ok(fd) => {
                let stat = fstat(&fd).map_err(fail)?;
                self.push(fd, name, &stat, None).map_err(fail)?;
                Ok(Step::Entered)
            }
            Err(Errno::ENOENT) => self.descend_below(name, missing),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let stat = fstatat(self.dir(), name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(fail)?;
                if trees::kind(&stat) == libc::S_IFLNK {
                    return Ok(Step::Link(readlinkat(self.dir(), name).map_err(fail)?.into_vec()));
                }
                if self.options.form == Form::Layer && trees::is_whiteout(&stat) {
                    if missing != Missing::Make {
                        return Ok(Step::Missing);
                    }
                    self.clear(name)?;
                    self.make_parent(name, None)?;
                    self.mark_opaque()?;
                    return Ok(Step::Entered);
                }
                not_a_directory(name, missing)
            }
            Err(Errno::EACCES) if self.is_caller() => {
                let (fd, stat) = open_anyway(self.dir(), name).map_err(fail)?;
                let mode = stat.st_mode & 0o7777;
                self.push(fd, name, &stat, Some(mode | 0o700)).map_err(fail)?;
                Ok(Step::Entered)
            }
            Err(errno) => Err(fail(errno)),
        }
    }

    /// What is not in this layer may be in a lower one.
    fn descend_below(&mut self, name: &[u8], missing: Missing) -> Result<Step> {
        self.guide.check()?;
        let lower = self.options.form == Form::Layer && !self.options.lower.is_empty();
        let child = if lower { self.child_below(name)? } else { None };
        match child {
            Some(Child::Other(at, stat)) if trees::kind(&stat) == libc::S_IFLNK => {
                let target = readlinkat(&self.below()?[at].1, name)
                    .map_err(|errno| os(errno, "read a link of a lower layer"))?;
                Ok(Step::Link(target.into_vec()))
            }
            Some(Child::Other(..)) => not_a_directory(name, missing),
            _ if missing == Missing::Stop => Ok(Step::Missing),
            None if lower && missing == Missing::Follow => Ok(Step::Missing),
            Some(Child::Directory(layers)) => {
                self.make_parent(name, layers.first().map(|(_, fd)| fd))?;
                self.below = Some(layers);
                Ok(Step::Entered)
            }
            None => {
                self.make_parent(name, None)?;
                self.below = Some(Opened::new());
                Ok(Step::Entered)
            }
        }
    }

    /// What lower layers have of this name in the current directory.
    pub(super) fn child_below(&mut self, name: &[u8]) -> Result<Option<Child>> {
        trees::child(self.below()?, name).map_err(|errno| os(errno, "look into lower layers"))
    }

    /// What lower layers have of the current directory.
    fn below(&mut self) -> Result<&Opened> {
        let below = match self.below.take() {
            Some(below) => below,
            None => {
                let below = self.tree().below(&self.real_path());
                below.map_err(|errno| os(errno, "look into lower layers"))?
            }
        };
        Ok(self.below.insert(below))
    }

    /// Makes a directory that no entry of this layer has named yet, and goes there.
    fn make_parent(&mut self, name: &[u8], like: Option<&OwnedFd>) -> Result<()> {
        self.count()?;
        if self.copying {
            let inode = self.inode();
            self.copied.insert((inode, name.to_vec()));
        }
        self.make_directory(name)?;
        match like {
            Some(like) => self.be_like(like),
            None => {
                // Without an id for root it stays the caller's.
                if let Ok(Some((uid, gid))) = self.options.ids.outside(0, 0) {
                    fchown(self.dir(), Some(uid), Some(gid))
                        .map_err(|errno| os(errno, "set the owner of its directory"))?;
                }
                self.want(Wanted { mode: 0o755, mtime: TimeSpec::new(0, 0) });
                Ok(())
            }
        }
    }

    /// Makes a new directory, accessible only for the caller until something else is wanted, and goes there.
    pub(super) fn make_directory(&mut self, name: &[u8]) -> Result<()> {
        let fail = |errno| os(errno, format!("make the directory {}", shown(name)));
        mkdirat(self.dir(), name, Mode::S_IRWXU).map_err(fail)?;
        self.touch();
        let fd = match openat(self.dir(), name, DIRECTORY, Mode::empty()) {
            // The umask may be a strange one.
            Err(Errno::EACCES) => open_anyway(self.dir(), name).map(|(fd, _)| fd),
            fd => fd,
        };
        let fd = fd.map_err(fail)?;
        let stat = fstat(&fd).map_err(fail)?;
        self.push(fd, name, &stat, None).map_err(fail)
    }

    /// Makes the current directory like one of a lower layer.
    fn be_like(&mut self, other: &OwnedFd) -> Result<()> {
        let fail = |errno| os(errno, "copy up a directory");
        let stat = fstat(other).map_err(fail)?;
        if !self.is_caller() {
            let (uid, gid) = (stat.st_uid.into(), stat.st_gid.into());
            fchown(self.dir(), Some(uid), Some(gid)).map_err(fail)?;
        }
        self.copy_xattrs(xattr::Of::File(other.as_fd()), xattr::Of::File(self.dir()))?;
        self.want(Wanted { mode: stat.st_mode & 0o7777, mtime: mtime(&stat) });
        Ok(())
    }

    /// Goes to an open directory in the current one, `mode` being what its mode was changed to.
    fn push(
        &mut self,
        fd: OwnedFd,
        name: &[u8],
        stat: &FileStat,
        mode: Option<u32>,
    ) -> Result<(), Errno> {
        if stat.st_dev != self.device {
            return Err(Errno::EXDEV);
        }
        let before = stat.st_mode & 0o7777;
        let mut now = mode.unwrap_or(before);
        if self.is_caller() && now & 0o700 != 0o700 {
            now |= 0o700;
            fchmod(&fd, Mode::from_bits_truncate(now))?;
        }
        if !self.levels.is_empty() {
            self.note(name);
        }
        let wanted = Wanted { mode: before, mtime: mtime(stat) };
        self.wanted.entry(stat.st_ino).or_insert(wanted);
        if let Some(far) = self.levels.len().checked_sub(OPEN).filter(|far| *far > 0) {
            self.levels[far].fd = None;
        }
        let (name, inode, touched) = (name.to_vec(), stat.st_ino, now != before);
        self.below = None;
        self.levels.push(Level { name, fd: Some(fd), inode, mode: Some(now), touched });
        Ok(())
    }

    fn go_up_to(&mut self, count: usize) -> Result<()> {
        while self.levels.len() > count {
            let level = self.levels.pop().expect("there are more than `count`");
            self.below = None;
            let parent = self.level_mut();
            if parent.fd.is_none() {
                let found = level.fd.as_ref().ok_or(Errno::EBADF).and_then(|fd| {
                    let parent = openat(fd, "..", DIRECTORY, Mode::empty())?;
                    Ok((fstat(&parent)?.st_ino, parent))
                });
                match found {
                    Ok((inode, fd)) if inode == parent.inode => parent.fd = Some(fd),
                    found => {
                        let errno = found.err().unwrap_or(Errno::ESTALE);
                        return Err(os(errno, format!("go up from {}", shown(&level.name))));
                    }
                }
            }
            self.settle(&level)?;
        }
        Ok(())
    }

    /// Gives a directory its mode and time, which what was put into it has changed.
    fn settle(&self, level: &Level) -> Result<()> {
        let (Some(fd), Some(wanted), true) =
            (&level.fd, self.wanted.get(&level.inode), level.touched)
        else {
            return Ok(());
        };
        let set = || {
            if level.mode != Some(wanted.mode) {
                fchmod(fd, Mode::from_bits_truncate(wanted.mode))?;
            }
            futimens(fd, &wanted.mtime, &wanted.mtime)
        };
        set().map_err(|errno| {
            os(errno, format!("set mode and time of the directory {}", shown(&level.name)))
        })
    }

    /// The current directory's path and a slash, unless it is the root.
    pub(super) fn real_path(&self) -> Vec<u8> {
        let mut path = Vec::new();
        for level in &self.levels[1..] {
            path.extend_from_slice(&level.name);
            path.push(b'/');
        }
        path
    }

    /// The tree as it is with what is unpacked by now.
    pub(super) fn tree(&self) -> Tree<'_> {
        let root = self.levels[0].fd.as_ref().expect("the root stays open").as_fd();
        let lower = match self.options.form {
            Form::Tree => &[],
            Form::Layer => self.options.lower,
        };
        Tree::new(std::iter::once(root).chain(lower.iter().map(File::as_fd)))
    }
}

pub(super) enum Step {
    Entered,
    Missing,
    /// It is a symbolic link to this.
    Link(Vec<u8>),
}

/// In what is no directory nothing can be made, and nothing is to be removed.
fn not_a_directory(name: &[u8], missing: Missing) -> Result<Step> {
    match missing {
        Missing::Make => Err(spec(format!("{} on the way to it is no directory", shown(name)))),
        Missing::Follow | Missing::Stop => Ok(Step::Missing),
    }
}

pub(super) fn mtime(stat: &FileStat) -> TimeSpec {
    TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec)
}

/// Opens a directory whose mode keeps its owner, the caller, from reading it: changes that. What it was is
/// in the result.
pub(super) fn open_anyway(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(OwnedFd, FileStat), Errno> {
    let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if trees::kind(&stat) != libc::S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777 | 0o700);
    fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink)?;
    Ok((openat(dir, name, DIRECTORY, Mode::empty())?, stat))
}

fn is_empty(dir: &OwnedFd) -> Result<bool, Errno> {
    let mut dir = Dir::openat(dir, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    for entry in dir.iter() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

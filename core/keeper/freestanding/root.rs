//! The container's root: where it comes from, and how it becomes `/`.

use core::ffi::CStr;

use locule_plan::protocol::detail;
use locule_plan::{List, MAX_LAYERS, Operation, root as kind};

use crate::abi::*;
use crate::child::Child;
use crate::copy;
use crate::failure::{During, Error, Result};
use crate::mount::propagate;
use crate::socket::descriptor_path;
use crate::system::{self, Errno, Fd, Raw, Sys};
use crate::text::{PATH_MAX, PathBuffer};

/// Changes the propagation of all mounts the process sees.
pub fn propagation(child: &mut Child, flags: u64) -> Result {
    system::mount(c"", c"/", c"", flags, c"")?;
    child.isolated = flags & MS_REC != 0 && flags & (MS_PRIVATE | MS_SLAVE) != 0;
    Ok(())
}

/// Makes `path` the root.
pub fn directory(child: &mut Child, path: &CStr, how: u32) -> Result {
    let place = system::openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0)?;
    isolate(child, &place)?;
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE as u32 | AT_EMPTY_PATH as u32;
    let tree = system::open_tree(place.raw(), c"", flags)?;
    system::move_mount(tree.raw(), place.raw()).during(detail::ATTACH)?;
    child.move_root = how == kind::MOVE;
    child.set_root(tree);
    Ok(())
}

/// Makes the mount that holds `place` private, so that what is mounted there is not
/// mounted in the host's namespace as well, and `pivot_root`, which refuses shared
/// parents, works.
fn isolate(child: &Child, place: &Fd) -> Result {
    if child.isolated {
        return Ok(());
    }
    let mut at = system::duplicate(place.raw(), 3)?;
    // Only the root of a mount can be changed: go up until one is found.
    for _ in 0..PATH_MAX / 2 {
        match propagate(at.raw(), MS_PRIVATE) {
            Err(Errno::EINVAL) => at = system::openat(at.raw(), c"..", O_PATH | O_DIRECTORY, 0)?,
            result => return Ok(result?),
        }
    }
    Err(Errno::ELOOP.into())
}

/// The numbers of an overlay's sources (see [`Operation::sources`]).
const SCRATCH: u32 = 0;
const CHANGES: u32 = 1;
const LOWER: u32 = 2;
const BELOW: u32 = 3;

/// Opens a source, a directory. The flag tells whether its path can be used.
fn source(child: &Child, path: &CStr, number: u32) -> Sys<(Fd, bool)> {
    match system::openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0) {
        Err(Errno::EACCES) => {
            child.ask_for_source(number).map(|found| (found, false)).ok_or(Errno::EACCES)
        }
        result => result.map(|found| (found, true)),
    }
}

/// Mounts a tmpfs over `scratch`, for the changes and for the place of the root.
fn scratch(child: &mut Child, path: &CStr) -> Result<Fd> {
    let (place, _) = source(child, path, SCRATCH).map_err(|errno| about(errno, path))?;
    isolate(child, &place)?;
    let fs = system::fsopen(c"tmpfs")?;
    system::fsconfig_string(fs.raw(), c"mode", c"0755")?;
    system::fsconfig_create(fs.raw())?;
    let mount = system::fsmount(fs.raw(), MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID)?;
    system::move_mount(mount.raw(), place.raw()).during(detail::ATTACH)?;
    for name in [c"upper", c"work", c"root"] {
        system::mkdirat(mount.raw(), name, 0o755)?;
    }
    Ok(mount)
}

fn about(errno: Errno, path: &CStr) -> Error {
    Error::from(errno).about(path.to_bytes())
}

/// Makes an overlay of directories the root.
pub fn overlay(child: &mut Child, operation: &Operation<'_>) -> Result {
    let Operation::OverlayRoot { lower, below, changes, scratch: path } = *operation else {
        return Ok(());
    };
    let mut name = PathBuffer::new();
    let (top, lower) = layer(child, lower, LOWER, &mut name)?;
    let scratch = scratch(child, path)?;
    let keeping;
    let base = if changes.is_empty() {
        take_after(scratch.raw(), c"upper", top.raw())?;
        scratch.raw()
    } else {
        keeping = kept(child, changes, top.raw())?;
        keeping.raw()
    };
    let place = system::openat(scratch.raw(), c"root", O_PATH | O_DIRECTORY, 0)?;
    let (top, upper, work) = (top.raw(), c"upper", c"work");
    let layers = Layers { child, top, lower, below, base, upper, work, changes };
    let merged = match layers.mount(place.raw())? {
        Some(merged) => {
            system::move_mount(merged.raw(), place.raw()).during(detail::ATTACH)?;
            merged
        }
        None => system::openat(scratch.raw(), c"root", O_PATH | O_DIRECTORY, 0)?,
    };
    // Where it cannot make what it needs, the kernel mounts it like this.
    if !changes.is_empty() && system::fstatfs(merged.raw())?.0[10] & MS_RDONLY != 0 {
        return Err(unkept(changes)(Errno::EROFS));
    }
    child.set_root(merged);
    Ok(())
}

/// Opens a layer. With it comes what the kernel is to know it by: options have a syntax of their
/// own and a length limit, so a path that would meet either goes by its descriptor.
fn layer<'a>(
    child: &Child,
    path: &'a CStr,
    number: u32,
    by_descriptor: &'a mut PathBuffer<32>,
) -> Result<(Fd, &'a CStr)> {
    let opened = source(child, path, number).during(detail::SOURCE);
    let (fd, reached) = opened.map_err(|error| error.about(path.to_bytes()))?;
    let plain = |byte: &u8| !matches!(byte, b':' | b'\\' | b',');
    let name = if reached && path.count_bytes() < 250 && path.to_bytes().iter().all(plain) {
        path
    } else {
        descriptor_path(fd.raw(), by_descriptor)?
    };
    Ok((fd, name))
}

/// The directory that keeps the changes, with all that an overlay needs in it.
fn kept(child: &Child, path: &CStr, top: Raw) -> Result<Fd> {
    let (directory, _) = source(child, path, CHANGES).map_err(unkept(path))?;
    for name in [c"upper", c"work"] {
        match system::mkdirat(directory.raw(), name, 0o755) {
            Ok(()) if name == c"upper" => take_after(directory.raw(), name, top)?,
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(unkept(path)(errno)),
        }
        let flags = O_PATH | O_DIRECTORY | O_NOFOLLOW;
        system::openat(directory.raw(), name, flags, 0).map_err(unkept(path))?;
    }
    Ok(directory)
}

fn unkept(path: &CStr) -> impl Fn(Errno) -> Error {
    |errno| Error::new(detail::CHANGES, errno).about(path.to_bytes())
}

/// Makes an empty tmpfs the root, whose names are filled by [`overlay_entry`].
pub fn overlay_by_entry(child: &mut Child, scratch_path: &CStr) -> Result {
    let scratch = scratch(child, scratch_path)?;
    // Only this directory of the tmpfs becomes the root: the layers beside it stay hidden.
    let flags = OPEN_TREE_CLONE;
    let tree = system::open_tree(scratch.raw(), c"root", flags)?;
    let place = system::openat(scratch.raw(), c"root", O_PATH | O_DIRECTORY, 0)?;
    system::move_mount(tree.raw(), place.raw()).during(detail::ATTACH)?;
    child.scratch = Some(scratch);
    child.set_root(tree);
    Ok(())
}

/// Overlays `name` of the host's root in the new one.
pub fn overlay_entry(child: &mut Child, name: &CStr) -> Result {
    let text = name.to_bytes();
    let text = text.strip_prefix(b"/").unwrap_or(text);
    if text.is_empty() || text.contains(&b'/') || text == b"." || text == b".." {
        return Err(Errno::EINVAL.into());
    }
    let lower = PathBuffer::<300>::of(&[b"/", text])?;
    let name = PathBuffer::<256>::of(&[text])?;
    let upper = PathBuffer::<300>::of(&[b"upper/", text])?;
    let work = PathBuffer::<300>::of(&[b"work/", text])?;
    let root = child.root()?;
    let Some(scratch) = child.scratch.as_ref().map(Fd::raw) else {
        return Err(Error::new(detail::WRONG_STATE, Errno::EINVAL));
    };
    let lower_fd =
        system::openat(AT_FDCWD, lower.as_cstr(), O_PATH | O_NOFOLLOW, 0).during(detail::SOURCE)?;
    if !system::stat(lower_fd.raw())?.is_directory() {
        let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW;
        drop(system::openat(root, name.as_cstr(), flags, 0o644)?);
        return bind_readonly(root, name.as_cstr(), lower_fd.raw());
    }
    for (dir, path) in [(root, name.as_cstr()), (scratch, upper.as_cstr())] {
        system::mkdirat(dir, path, 0o755)?;
        take_after(dir, path, lower_fd.raw())?;
    }
    system::mkdirat(scratch, work.as_cstr(), 0o755)?;
    let layers = Layers {
        child,
        top: lower_fd.raw(),
        lower: lower.as_cstr(),
        below: List::EMPTY,
        base: scratch,
        upper: upper.as_cstr(),
        work: work.as_cstr(),
        changes: c"",
    };
    let Ok(Some(merged)) = layers.mount(-1) else {
        // Mounts below it are locked, so the kernel will not look beneath them for a
        // layer: the tree is shown as it is, but cannot be changed.
        return bind_readonly(root, name.as_cstr(), lower_fd.raw());
    };
    let place = system::openat(root, name.as_cstr(), O_PATH | O_DIRECTORY | O_NOFOLLOW, 0)?;
    system::move_mount(merged.raw(), place.raw()).during(detail::ATTACH)
}

fn bind_readonly(root: Raw, name: &CStr, source: Raw) -> Result {
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE as u32 | AT_EMPTY_PATH as u32;
    let tree = system::open_tree(source, c"", flags).during(detail::SOURCE)?;
    let attributes = MountAttr { set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    system::mount_setattr(tree.raw(), AT_RECURSIVE, &attributes).during(detail::ATTRIBUTES)?;
    let place = system::openat(root, name, O_PATH | O_NOFOLLOW, 0)?;
    system::move_mount(tree.raw(), place.raw()).during(detail::ATTACH)
}

/// Gives the directory `name` mode and owner of `original`: an overlay shows those of its
/// upper layer.
fn take_after(dir: Raw, name: &CStr, original: Raw) -> Result {
    let stat = system::stat(original)?;
    copy::owner(dir, name, &stat)?;
    system::fchmodat(dir, name, u32::from(stat.mode) & 0o7777)?;
    Ok(())
}

/// What an overlay is made of.
struct Layers<'a> {
    child: &'a Child,
    /// The topmost of the lower layers, and what the kernel is to know it by.
    top: Raw,
    lower: &'a CStr,
    below: List<'a>,
    /// The directory with the two that take the changes.
    base: Raw,
    upper: &'a CStr,
    work: &'a CStr,
    /// The path of that directory if it is to keep them.
    changes: &'a CStr,
}

/// What makes kept changes a layer on any other machine: no references to the layers below.
const KEPT: [(&CStr, &CStr); 3] =
    [(c"index", c"off"), (c"metacopy", c"off"), (c"redirect_dir", c"nofollow")];

impl Layers<'_> {
    /// The overlay, attached nowhere; or already at `place`, where the kernel cannot do the other
    /// with so many layers.
    fn mount(&self, place: Raw) -> Result<Option<Fd>> {
        // In a user namespace the overlay may not keep its notes in trusted attributes.
        let upper = system::openat(self.base, self.upper, O_RDONLY | O_DIRECTORY, 0)
            .map_err(|errno| self.refused(errno))?;
        let probed = system::fremovexattr(upper.raw(), c"trusted.overlay.locule");
        let untrusted = probed == Err(Errno::EPERM);
        drop(upper);
        let mut made = self.attempt(place, untrusted);
        if made.is_err() && untrusted {
            made = self.attempt(place, false);
        }
        system::chdir(c"/")?;
        made
    }

    fn attempt(&self, place: Raw, user_attributes: bool) -> Result<Option<Fd>> {
        // Relative names keep the layers' paths short and free of special characters.
        system::fchdir(self.base)?;
        let fs = system::fsopen(c"overlay")?;
        system::fsconfig_string(fs.raw(), c"source", c"overlay")?;
        if self.below.is_empty() {
            system::fsconfig_string(fs.raw(), c"lowerdir", self.lower)?;
        } else if !self.add_each(fs.raw())? {
            self.mount_at_once(place, user_attributes)?;
            return Ok(None);
        }
        system::fsconfig_string(fs.raw(), c"upperdir", self.upper)
            .map_err(|errno| self.refused(errno))?;
        system::fsconfig_string(fs.raw(), c"workdir", self.work)
            .map_err(|errno| self.refused(errno))?;
        if self.keeps() {
            for (key, value) in KEPT {
                system::fsconfig_string(fs.raw(), key, value)?;
            }
        }
        if user_attributes {
            system::fsconfig_flag(fs.raw(), c"userxattr")?;
        }
        system::fsconfig_create(fs.raw()).map_err(|errno| self.refused(errno))?;
        Ok(Some(system::fsmount(fs.raw(), 0)?))
    }

    /// Adds one lower layer after the other, as the kernel lets one do since Linux 6.7; else tells
    /// that it does not.
    fn add_each(&self, fs: Raw) -> Result<bool> {
        const KEY: &CStr = c"lowerdir+";
        // Before Linux 6.5 an overlay takes any option, and does not mount if one is wrong.
        if system::fsconfig_flag(fs, KEY).is_ok() {
            return Ok(false);
        }
        match system::fsconfig_string(fs, KEY, self.lower) {
            Err(Errno::EINVAL) => return Ok(false),
            result => result.during(detail::SOURCE)?,
        }
        for (path, number) in self.below.iter().zip(BELOW..) {
            let mut name = PathBuffer::new();
            let (_open, name) = layer(self.child, path, number, &mut name)?;
            system::fsconfig_string(fs, KEY, name)
                .map_err(|errno| Error::new(detail::SOURCE, errno).about(path.to_bytes()))?;
        }
        Ok(true)
    }

    /// `mount(2)` with all layers in one option. It has no more than a page for them, so they go by
    /// the shortest names there are, those of descriptors in the directory of these.
    #[inline(never)]
    fn mount_at_once(&self, place: Raw, user_attributes: bool) -> Result {
        let mut open = [const { None }; MAX_LAYERS];
        let mut data = PathBuffer::<PATH_MAX>::of(&[b"lowerdir="])?;
        data.push_number(self.top as u64)?;
        let mut free = open.iter_mut();
        for (path, number) in self.below.iter().zip(BELOW..) {
            let mut name = PathBuffer::new();
            let (fd, _) = layer(self.child, path, number, &mut name)?;
            data.push(b":")?;
            data.push_number(fd.raw() as u64)?;
            *free.next().ok_or(Errno::E2BIG)? = Some(fd);
        }
        let upper = system::openat(self.base, self.upper, O_PATH | O_DIRECTORY, 0)?;
        let work = system::openat(self.base, self.work, O_PATH | O_DIRECTORY, 0)?;
        for (option, fd) in [(c",upperdir=", &upper), (c",workdir=", &work)] {
            data.push(option.to_bytes())?;
            data.push_number(fd.raw() as u64)?;
        }
        if self.keeps() {
            for (key, value) in KEPT {
                for part in [c",", key, c"=", value] {
                    data.push(part.to_bytes())?;
                }
            }
        }
        if user_attributes {
            data.push(b",userxattr")?;
        }
        let mut target = PathBuffer::<16>::new();
        target.push_number(place as u64)?;
        system::chdir(c"/proc/self/fd").map_err(|errno| about(errno, c"/proc/self/fd"))?;
        system::mount(c"overlay", target.as_cstr(), c"overlay", 0, data.as_cstr())
            .map_err(|errno| self.refused(errno))
    }

    fn keeps(&self) -> bool {
        !self.changes.is_empty()
    }

    /// What the kernel does not like is most likely where the changes go.
    fn refused(&self, errno: Errno) -> Error {
        if self.keeps() { unkept(self.changes)(errno) } else { errno.into() }
    }
}

/// Unmounts the root, and what is mounted in it.
pub fn drop_root(child: &mut Child) -> Result {
    system::fchdir(child.root()?)?;
    system::umount(c".", MNT_DETACH)?;
    system::chdir(c"/")?;
    child.forget_root();
    Ok(())
}

/// Makes the root `/` and drops the old one.
pub fn pivot(child: &mut Child) -> Result {
    let root = child.root()?;
    if child.move_root {
        let slash = system::openat(AT_FDCWD, c"/", O_PATH | O_DIRECTORY, 0)?;
        system::fchdir(root)?;
        system::move_mount(root, slash.raw()).during(detail::ATTACH)?;
        system::chroot(c".")?;
    } else {
        let old = system::openat(AT_FDCWD, c"/", O_PATH | O_DIRECTORY, 0)?;
        system::fchdir(root)?;
        // Old and new in the same place: the old root ends up on top of the new one, and
        // no directory in the image has to hold it (see pivot_root(2)).
        system::pivot_root(c".", c".")?;
        if !child.isolated {
            // Unmounting must not reach the host's mounts.
            propagate(old.raw(), MS_SLAVE | MS_REC).during(detail::ATTRIBUTES)?;
        }
        system::fchdir(old.raw())?;
        system::umount(c".", MNT_DETACH)?;
    }
    system::chdir(c"/")?;
    child.forget_host();
    Ok(())
}

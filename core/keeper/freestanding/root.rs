//! The container's root: where it comes from, and how it becomes `/`.

use core::ffi::CStr;

use locule_plan::protocol::detail;
use locule_plan::root as kind;

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

/// Mounts the tmpfs that takes an overlay's changes over `scratch`.
fn scratch(child: &mut Child, path: &CStr) -> Result<Fd> {
    let place = system::openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0)
        .map_err(|errno| about(errno, path))?;
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

/// Makes an overlay of the directory `lower` the root.
pub fn overlay(child: &mut Child, lower: &CStr, scratch_path: &CStr) -> Result {
    let lower_fd =
        system::openat(AT_FDCWD, lower, O_PATH | O_DIRECTORY, 0).during(detail::SOURCE)?;
    let scratch = scratch(child, scratch_path)?;
    take_after(scratch.raw(), c"upper", lower_fd.raw())?;
    let merged = overlay_mount(scratch.raw(), lower, lower_fd.raw(), c"upper", c"work")?;
    let place = system::openat(scratch.raw(), c"root", O_PATH | O_DIRECTORY, 0)?;
    system::move_mount(merged.raw(), place.raw()).during(detail::ATTACH)?;
    child.set_root(merged);
    Ok(())
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
    let mounted =
        overlay_mount(scratch, lower.as_cstr(), lower_fd.raw(), upper.as_cstr(), work.as_cstr());
    let Ok(merged) = mounted else {
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

/// An overlay of `lower` with the layers `upper` and `work` in the tmpfs `scratch`.
fn overlay_mount(
    scratch: Raw,
    lower: &CStr,
    lower_fd: Raw,
    upper: &CStr,
    work: &CStr,
) -> Result<Fd> {
    // The option has its own syntax and a length limit; a path that would meet either goes
    // by its descriptor.
    let mut by_descriptor = PathBuffer::new();
    let plain = |byte: &u8| !matches!(byte, b':' | b'\\' | b',');
    let lower = if lower.count_bytes() < 250 && lower.to_bytes().iter().all(plain) {
        lower
    } else {
        descriptor_path(lower_fd, &mut by_descriptor)?
    };
    // In a user namespace the overlay may not keep its notes in trusted attributes.
    let upper_fd = system::openat(scratch, upper, O_RDONLY | O_DIRECTORY, 0)?;
    let untrusted =
        system::fsetxattr(upper_fd.raw(), c"trusted.overlay.locule", b"1") == Err(Errno::EPERM);
    drop(upper_fd);

    // Relative names keep the layers' paths short and free of special characters.
    system::fchdir(scratch)?;
    let attempt = |user_attributes: bool| -> Sys<Fd> {
        let fs = system::fsopen(c"overlay")?;
        system::fsconfig_string(fs.raw(), c"source", c"overlay")?;
        system::fsconfig_string(fs.raw(), c"lowerdir", lower)?;
        system::fsconfig_string(fs.raw(), c"upperdir", upper)?;
        system::fsconfig_string(fs.raw(), c"workdir", work)?;
        if user_attributes {
            system::fsconfig_flag(fs.raw(), c"userxattr")?;
        }
        system::fsconfig_create(fs.raw())?;
        system::fsmount(fs.raw(), 0)
    };
    let mut made = attempt(untrusted);
    if made.is_err() && untrusted {
        made = attempt(false);
    }
    system::chdir(c"/")?;
    Ok(made?)
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

//! Device nodes in the root, and what is hidden or write-protected there.

use core::ffi::CStr;

use locule_plan::Operation;
use locule_plan::protocol::detail;

use crate::abi::*;
use crate::child::Child;
use crate::copy::device_number;
use crate::failure::{During, Error, Result};
use crate::mount::change_attributes;
use crate::path::{self, Links, Missing};
use crate::system::{self, Errno, Fd, Raw};

/// The umask is 0 while the root is being set up, so a new node has just the mode asked for.
pub fn make(child: &mut Child, operation: &Operation<'static>) -> Result {
    let Operation::MakeDevice { path, mode, major, minor, uid, gid } = *operation else {
        return Ok(());
    };
    let root = child.root()?;
    let (directory, name) = path::parent(root, path, &mut child.parent).during(detail::TARGET)?;
    let kind = mode & S_IFMT;
    let number = if kind == S_IFIFO { 0 } else { device_number(major, minor) };
    let made = system::mknodat(directory.raw(), name, mode, number);
    let same = |stat: &Statx| {
        stat.kind() == kind
            && (kind == S_IFIFO || (stat.rdev_major, stat.rdev_minor) == (major, minor))
    };
    match made {
        Ok(()) if (uid, gid) == (0, 0) => Ok(()),
        Ok(()) => {
            // What the name means now is looked at, not believed: the change of owner must
            // never hit anything but the new node.
            let node = system::openat(directory.raw(), name, O_PATH | O_NOFOLLOW, 0)?;
            if !same(&system::stat(node.raw())?) {
                return Err(Error::new(detail::MISMATCH, Errno::EEXIST));
            }
            Ok(system::fchownat(node.raw(), c"", uid, gid, AT_EMPTY_PATH)?)
        }
        Err(Errno::EEXIST) => {
            let node = system::openat(directory.raw(), name, O_PATH | O_NOFOLLOW, 0)?;
            if same(&system::stat(node.raw())?) {
                return Ok(());
            }
            Err(Error::new(detail::MISMATCH, Errno::EEXIST))
        }
        // A user namespace cannot make devices: show the host's, if it is the right one.
        Err(Errno::EPERM) if kind != S_IFIFO => {
            let tree = match system::open_tree(AT_FDCWD, path, OPEN_TREE_CLONE) {
                Err(Errno::ENOENT) => return Err(Errno::EPERM.into()),
                tree => tree.during(detail::SOURCE)?,
            };
            if !same(&system::stat(tree.raw())?) {
                return Err(Error::new(detail::MISMATCH, Errno::ENODEV));
            }
            let place =
                path::ensure(root, path, Missing::File, Links::Follow).during(detail::TARGET)?.0;
            system::move_mount(tree.raw(), place.raw()).during(detail::ATTACH)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a path that may be missing.
///
/// Below `/proc` and `/sys` it is looked up in what has been mounted there, not in the root: of a
/// root that is shared with another container this one can rename the directory `proc` with all
/// that is mounted on it, and a mask that finds nothing is left out.
fn open_if_there(child: &mut Child, path: &CStr) -> Result<Option<Fd>> {
    let bytes = path.to_bytes_with_nul();
    let start = bytes.iter().take_while(|&&byte| byte == b'/').count();
    let len = bytes[start..].iter().take_while(|&&byte| byte != b'/' && byte != 0).count();
    let (name, below) = bytes[start..].split_at(len);
    let up = below.split(|&byte| byte == b'/' || byte == 0).any(|part| part == b"..");
    let (from, path) = match child.mounted_at(name).filter(|_| !up) {
        Some(mount) => (mount, CStr::from_bytes_with_nul(below).map_err(|_| Errno::EINVAL)?),
        None => (child.root()?, path),
    };
    match path::open(from, if path.is_empty() { c"." } else { path }, 0) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(Error::new(detail::TARGET, errno)),
    }
}

/// Makes a path read-only by a bind of itself.
pub fn write_protect(child: &mut Child, path: &CStr) -> Result {
    let Some(place) = open_if_there(child, path)? else { return Ok(()) };
    let flags = OPEN_TREE_CLONE | AT_RECURSIVE as u32 | AT_EMPTY_PATH as u32;
    let tree = system::open_tree(place.raw(), c"", flags)?;
    let attributes = MountAttr { set: MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    match system::mount_setattr(tree.raw(), 0, &attributes) {
        Ok(()) => system::move_mount(tree.raw(), place.raw()).during(detail::ATTACH),
        Err(Errno::ENOSYS) => {
            system::move_mount(tree.raw(), place.raw()).during(detail::ATTACH)?;
            change_attributes(tree.raw(), MOUNT_ATTR_RDONLY, 0).during(detail::ATTRIBUTES)
        }
        Err(errno) => Err(Error::new(detail::ATTRIBUTES, errno)),
    }
}

/// Hides a path. The first mask of a kind is kept, to be cloned for the others.
pub fn mask(child: &mut Child, path: &CStr) -> Result {
    let Some(place) = open_if_there(child, path)? else { return Ok(()) };
    let directory = system::stat(place.raw())?.is_directory();
    let known = if directory { &child.empty } else { &child.null };
    if let Some(known) = known {
        let flags = OPEN_TREE_CLONE | AT_EMPTY_PATH as u32;
        let cover = system::open_tree(known.raw(), c"", flags)?;
        return system::move_mount(cover.raw(), place.raw()).during(detail::ATTACH);
    }
    let cover = if directory { empty_directory()? } else { null_device()? };
    system::move_mount(cover.raw(), place.raw()).during(detail::ATTACH)?;
    if directory {
        child.empty = Some(cover);
    } else {
        // Through a writable mount root could change the mode and the owner of the host's device.
        let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC;
        change_attributes(cover.raw(), attributes, 0).during(detail::ATTRIBUTES)?;
        child.null = Some(cover);
    }
    Ok(())
}

/// All masked directories show one read-only tmpfs.
fn empty_directory() -> Result<Fd> {
    let fs = system::fsopen(c"tmpfs")?;
    system::fsconfig_string(fs.raw(), c"mode", c"0555")?;
    system::fsconfig_string(fs.raw(), c"nr_inodes", c"1")?;
    system::fsconfig_flag(fs.raw(), c"ro")?;
    system::fsconfig_create(fs.raw())?;
    let attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    Ok(system::fsmount(fs.raw(), attributes)?)
}

/// The host's null device, which has to prove that it is one (CVE-2025-31133).
fn null_device() -> Result<Fd> {
    let flags = OPEN_TREE_CLONE | AT_SYMLINK_NOFOLLOW as u32;
    let null = system::open_tree(AT_FDCWD, c"/dev/null", flags)?;
    if !system::stat(null.raw())?.is_device(1, 3) {
        return Err(Error::new(detail::NOT_GENUINE, Errno::ENODEV).about(b"/dev/null"));
    }
    Ok(null)
}

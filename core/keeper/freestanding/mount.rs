//! Mounts into the root: new filesystems, binds, and attributes of what is mounted.
//!
//! A mount is finished while nobody can see it, then attached to a descriptor of its
//! target. The target's path is looked up once, in the root.

use core::ffi::CStr;

use locule_plan::protocol::detail;
use locule_plan::{List, Operation, mount as flag};

use crate::abi::*;
use crate::child::Child;
use crate::copy;
use crate::failure::{During, Error, Result};
use crate::path::{self, Links, Missing};
use crate::procfs;
use crate::socket::descriptor_path;
use crate::system::{self, Errno, Fd, Raw, Sys};
use crate::text::{PATH_MAX, PathBuffer};

/// Attributes that a mount of an older user namespace keeps.
const LOCKABLE: u64 =
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// The attributes of a mount as an operation lists them.
struct Wanted {
    set: u64,
    clear: u64,
    recursive_set: u64,
    recursive_clear: u64,
}

impl Wanted {
    /// Those of a single mount: what is asked for the tree is asked for it.
    fn of_one(&self) -> u64 {
        (self.set & !self.recursive_clear) | self.recursive_set
    }
}

/// What a `Mount` or a `Bind` mounts, attached nowhere, and the operation's flags.
pub fn make(operation: &Operation<'_>) -> Result<(Fd, u32)> {
    match *operation {
        Operation::Mount {
            fstype, source, options, set, clear, recursive_set, recursive_clear, flags, ..
        } => {
            let wanted = Wanted { set, clear, recursive_set, recursive_clear };
            Ok((new_filesystem(fstype, source, options, None, wanted.of_one())?, flags))
        }
        Operation::Bind { source, set, clear, recursive_set, recursive_clear, flags, .. } => {
            let wanted = Wanted { set, clear, recursive_set, recursive_clear };
            let tree = clone_tree(AT_FDCWD, source, flags)?;
            bind_attributes(&wanted, flags, |wanted| apply(tree.raw(), wanted))
                .during(detail::ATTRIBUTES)?;
            Ok((tree, flags))
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

/// Attaches a mount that the keeper has made.
pub fn attach_prepared(
    child: &mut Child,
    target: &CStr,
    propagation: u64,
    flags: u32,
) -> Result {
    let made = child.next_prepared()?;
    let is_file = !system::stat(made.raw())?.is_directory();
    let (place, existed) = open_target(child, target, flags, is_file)?;
    refuse_hidden_proc(place.raw(), target)?;
    refuse_forged_proc(made.raw(), target)?;
    if existed {
        take_over(place.raw(), made.raw(), flags)?;
    }
    attach(child, made, place.raw(), target, propagation)
        .map_err(|error| explain_attach(error, place.raw(), is_file))
}

pub fn mount(child: &mut Child, operation: &Operation<'_>) -> Result {
    let Operation::Mount {
        fstype,
        source,
        target,
        options,
        set,
        clear,
        recursive_set,
        recursive_clear,
        propagation,
        flags,
    } = *operation
    else {
        return Ok(());
    };
    let (place, existed) = open_target(child, target, flags, false)?;
    refuse_hidden_proc(place.raw(), target)?;
    // A new filesystem has no attribute that could be cleared.
    let attributes = Wanted { set, clear, recursive_set, recursive_clear }.of_one();
    let mode = match system::stat(place.raw()) {
        Ok(stat) if existed && flags & flag::TARGET_MODE != 0 => Some(u32::from(stat.mode)),
        _ => None,
    };
    let made = match new_filesystem(fstype, source, options, mode, attributes) {
        Ok(mount) => mount,
        Err(error) if error.errno == Errno::EPERM.0 && flags & flag::FALL_BACK_TO_BIND != 0 => {
            let host = host_mount(fstype).ok_or(error)?;
            let tree = system::open_tree(AT_FDCWD, host, OPEN_TREE_CLONE | AT_RECURSIVE as u32)
                .during(detail::SOURCE)?;
            // The host's own attributes may be locked, so nothing is cleared. And whatever was
            // asked for: the host's cgroups, which come along, may be this user's to write to
            // (CVE-2023-25809).
            let attributes = attributes | MOUNT_ATTR_RDONLY;
            set_attributes(tree.raw(), AT_RECURSIVE, attributes, 0).during(detail::ATTRIBUTES)?;
            tree
        }
        // The new calls are hidden from us, or an option is too long for them.
        Err(error)
            if error.detail == detail::PLAIN && error.errno == Errno::ENOSYS.0
                || error.detail == detail::OPTION && options.iter().any(is_long) =>
        {
            old_mount(place.raw(), fstype, source, options, attributes)?;
            let mount = path::open(child.root()?, target, 0).during(detail::TARGET)?;
            if existed {
                take_over(place.raw(), mount.raw(), flags)?;
            }
            propagate(mount.raw(), propagation).during(detail::ATTRIBUTES)?;
            settle(child, mount, target);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if existed {
        take_over(place.raw(), made.raw(), flags)?;
    }
    attach(child, made, place.raw(), target, propagation)
}

pub fn bind(child: &mut Child, operation: &Operation<'_>) -> Result {
    let Operation::Bind {
        source,
        target,
        set,
        clear,
        recursive_set,
        recursive_clear,
        propagation,
        flags,
    } = *operation
    else {
        return Ok(());
    };
    let tree = match clone_tree(AT_FDCWD, source, flags) {
        Err(error) if error.errno == Errno::EACCES.0 => match child.ask_for_source(0) {
            Some(found) => clone_tree(found.raw(), c"", flags)?,
            None => return Err(error),
        },
        result => result?,
    };
    let is_file = !system::stat(tree.raw())?.is_directory();
    let place = open_target(child, target, flags, is_file)?.0;
    refuse_hidden_proc(place.raw(), target)?;
    refuse_forged_proc(tree.raw(), target)?;
    let wanted = Wanted { set, clear, recursive_set, recursive_clear };
    match bind_attributes(&wanted, flags, |wanted| apply(tree.raw(), wanted)) {
        // Linux 5.10 and 5.11 can change only a mount that is in place, and not a tree.
        Err(Errno::ENOSYS)
            if flags & flag::RECURSIVE == 0 || recursive_set | recursive_clear == 0 =>
        {
            let mount = tree.raw();
            system::move_mount(mount, place.raw()).during(detail::ATTACH)?;
            bind_attributes(&wanted, flags, |wanted| remount(mount, wanted.set, wanted.clear))
                .during(detail::ATTRIBUTES)?;
            remount(mount, recursive_set, recursive_clear).during(detail::ATTRIBUTES)?;
            propagate(mount, propagation).during(detail::ATTRIBUTES)?;
            settle(child, tree, target);
            Ok(())
        }
        Err(errno) => Err(Error::new(detail::ATTRIBUTES, errno)),
        Ok(()) => attach(child, tree, place.raw(), target, propagation)
            .map_err(|error| explain_attach(error, place.raw(), is_file)),
    }
}

/// The mount at `source`, from `directory`, or what of it is below there.
fn clone_tree(directory: Raw, source: &CStr, flags: u32) -> Result<Fd> {
    let recursive = if flags & flag::RECURSIVE != 0 { AT_RECURSIVE as u32 } else { 0 };
    let empty = if source.is_empty() { AT_EMPTY_PATH as u32 } else { 0 };
    system::open_tree(directory, source, OPEN_TREE_CLONE | recursive | empty)
        .map_err(|errno| Error::new(detail::SOURCE, errno).about(source.to_bytes()))
}

/// Gives a new filesystem what it is to have of the directory that it hides.
fn take_over(place: Raw, made: Raw, flags: u32) -> Result {
    if flags & flag::COPY_UP != 0 {
        copy::directory(place, made)?;
    }
    if flags & flag::TARGET_MODE != 0 {
        let mode = u32::from(system::stat(place)?.mode);
        system::fchmodat(made, c".", mode & 0o7777)?;
    }
    Ok(())
}

/// The kernel says "invalid argument" or less where a file was to hide a directory.
fn explain_attach(error: Error, place: Raw, file: bool) -> Error {
    match system::stat(place) {
        Ok(stat) if error.detail == detail::ATTACH && stat.is_directory() == file => {
            Error::new(detail::MISMATCH, if file { Errno::EISDIR } else { Errno::ENOTDIR })
        }
        _ => error,
    }
}

/// Opens what a mount goes on, creating it if missing.
fn open_target(child: &mut Child, target: &CStr, flags: u32, file: bool) -> Result<(Fd, bool)> {
    let root = child.root()?;
    let strict = flags & flag::STRICT_TARGET != 0;
    let missing = if file { Missing::File } else { Missing::Directory(0o755) };
    let links = if strict { Links::Refuse } else { Links::Follow };
    let found = path::ensure(root, target, missing, links);
    if strict {
        // A symlink or a file where /proc belongs is an image that tries something
        // (CVE-2019-19921, CVE-2023-27561).
        let directory = match &found {
            Err(errno) => *errno != Errno::ELOOP && *errno != Errno::ENOTDIR,
            Ok((place, _)) => system::stat(place.raw())?.is_directory(),
        };
        if !directory {
            return Err(Error::new(detail::MISMATCH, Errno::ENOTDIR));
        }
    }
    found.during(detail::TARGET)
}

fn trim(path: &[u8]) -> &[u8] {
    let start = path.iter().take_while(|&&byte| byte == b'/').count();
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(start, |last| last + 1);
    &path[start..end]
}

fn is_proc(place: Raw) -> Sys<bool> {
    Ok(system::fstatfs(place)?.magic() == PROC_SUPER_MAGIC)
}

/// The configuration's own mounts on /proc have been checked by their names; a name that gets
/// there by a symlink of the image has not (CVE-2019-16884).
fn refuse_hidden_proc(place: Raw, target: &CStr) -> Result {
    let named = trim(target.to_bytes()).split(|&byte| byte == b'/').next() == Some(b"proc");
    if !named && is_proc(place)? {
        return Err(Error::new(detail::MISMATCH, Errno::EINVAL));
    }
    Ok(())
}

/// What is mounted at /proc is a procfs, all of it (CVE-2019-16884).
fn refuse_forged_proc(mount: Raw, target: &CStr) -> Result {
    if trim(target.to_bytes()) == b"proc" { procfs::check(mount) } else { Ok(()) }
}

/// A new filesystem, mounted nowhere yet. `mode` is that of its root, for a tmpfs.
fn new_filesystem(
    fstype: &CStr,
    source: &CStr,
    options: List<'_>,
    mode: Option<u32>,
    attributes: u64,
) -> Result<Fd> {
    let fs = system::fsopen(fstype).map_err(|errno| {
        let error = Error::from(errno);
        if errno == Errno::ENODEV { error.about(fstype.to_bytes()) } else { error }
    })?;
    if !source.is_empty() {
        system::fsconfig_string(fs.raw(), c"source", source)
            .map_err(|errno| Error::new(detail::SOURCE, errno).about(source.to_bytes()))?;
    }
    if let Some(mode) = mode {
        let mut text = PathBuffer::<8>::new();
        text.push_octal(mode & 0o7777)?;
        system::fsconfig_string(fs.raw(), c"mode", text.as_cstr())?;
    }
    set_options(fs.raw(), options)?;
    system::fsconfig_create(fs.raw()).map_err(|errno| explain(fs.raw(), errno))?;
    system::fsmount(fs.raw(), attributes).during(detail::ATTRIBUTES)
}

fn set_options(fs: Raw, options: List<'_>) -> Result {
    for option in options.iter() {
        set_option(fs, option)
            .map_err(|errno| Error::new(detail::OPTION, errno).about(option.to_bytes()))?;
    }
    Ok(())
}

/// One option, `key=value` or `flag`.
pub fn set_option(fs: Raw, option: &CStr) -> Sys {
    let bytes = option.to_bytes();
    let Some(equals) = bytes.iter().position(|&byte| byte == b'=') else {
        return system::fsconfig_flag(fs, option);
    };
    let key = PathBuffer::<256>::of(&[&bytes[..equals]])?;
    let value = &option.to_bytes_with_nul()[equals + 1..];
    let value = CStr::from_bytes_with_nul(value).map_err(|_| Errno::EINVAL)?;
    system::fsconfig_string(fs, key.as_cstr(), value)
}

/// The kernel may have left a sentence about what it did not like.
fn explain(fs: Raw, errno: Errno) -> Error {
    let mut line = [0; 200];
    match system::read(fs, &mut line) {
        // "e tmpfs: Bad value for 'size'": the letter is the severity.
        Ok(len) if len > 2 && line[0] == b'e' => {
            Error::from(errno).about(line[2..len].trim_ascii())
        }
        _ => errno.into(),
    }
}

fn is_long(option: &CStr) -> bool {
    option.count_bytes() >= 255
}

/// `mount(2)`, by the descriptor of the target.
fn old_mount(
    place: Raw,
    fstype: &CStr,
    source: &CStr,
    options: List<'_>,
    attributes: u64,
) -> Result {
    let mut data = PathBuffer::<PATH_MAX>::new();
    let mut flags = 0;
    let mut push = |option: &[u8]| -> Sys {
        if !data.as_bytes().is_empty() {
            data.push(b",")?;
        }
        data.push(option)
    };
    for option in options.iter() {
        match option.to_bytes() {
            b"ro" => flags |= MS_RDONLY,
            b"rw" => {}
            other => push(other)
                .map_err(|errno| Error::new(detail::OPTION, errno).about(other))?,
        }
    }
    let mut target = PathBuffer::new();
    let target = descriptor_path(place, &mut target)?;
    Ok(system::mount(source, target, fstype, flags | old_flags(attributes), data.as_cstr())?)
}

fn host_mount(fstype: &CStr) -> Option<&'static CStr> {
    Some(match fstype.to_bytes() {
        b"sysfs" => c"/sys",
        b"proc" => c"/proc",
        b"mqueue" => c"/dev/mqueue",
        b"cgroup2" | b"cgroup" => c"/sys/fs/cgroup",
        _ => return None,
    })
}

/// Attaches a finished mount. A mount over the root itself is the root from then on.
fn attach(child: &mut Child, mount: Fd, place: Raw, target: &CStr, propagation: u64) -> Result {
    system::move_mount(mount.raw(), place).during(detail::ATTACH)?;
    // In place, because a propagation type is about peers, which a detached mount has none.
    propagate(mount.raw(), propagation).during(detail::ATTRIBUTES)?;
    settle(child, mount, target);
    Ok(())
}

/// What an attached mount means for the steps to come.
fn settle(child: &mut Child, mount: Fd, target: &CStr) {
    if target.to_bytes().iter().all(|&byte| byte == b'/' || byte == b'.') {
        child.set_root(mount);
    } else {
        child.remember(trim(target.to_bytes()), mount);
    }
}

fn apply(mount: Raw, wanted: &Wanted) -> Sys {
    // What is asked for the tree is asked for its top as well.
    set_attributes(mount, 0, wanted.set, wanted.clear)?;
    set_attributes(mount, AT_RECURSIVE, wanted.recursive_set, wanted.recursive_clear)
}

/// Has `change` give a bind its attributes. What nobody has asked to be cleared may be locked by a
/// user namespace, all but `nosymfollow`.
fn bind_attributes(
    wanted: &Wanted,
    flags: u32,
    change: impl Fn(&Wanted) -> Sys,
) -> Sys {
    let others = if flags & flag::ONLY_THESE == 0 { 0 } else { LOCKABLE | MOUNT_ATTR_NOSYMFOLLOW };
    let others = others & !(wanted.set | wanted.recursive_set);
    match change(&Wanted { clear: wanted.clear | others, ..*wanted }) {
        Err(Errno::EPERM) if others & LOCKABLE != 0 => {
            let others = others & MOUNT_ATTR_NOSYMFOLLOW;
            change(&Wanted { clear: wanted.clear | others, ..*wanted })
        }
        result => result,
    }
}

fn set_attributes(mount: Raw, flags: i32, set: u64, clear: u64) -> Sys {
    if set | clear == 0 {
        return Ok(());
    }
    // The access time modes are one field, not bits: to set one, clear the field.
    let clear = if set & MOUNT_ATTR_ATIME != 0 { clear | MOUNT_ATTR_ATIME } else { clear };
    system::mount_setattr(mount, flags, &MountAttr { set, clear, ..MountAttr::default() })
}

/// Sets attributes of an attached mount on any kernel.
pub fn change_attributes(mount: Raw, set: u64, clear: u64) -> Sys {
    match set_attributes(mount, 0, set, clear) {
        Err(Errno::ENOSYS) => remount(mount, set, clear),
        result => result,
    }
}

/// Sets the propagation of an attached mount; `propagation` is `MS_*` bits or 0.
pub fn propagate(mount: Raw, propagation: u64) -> Sys {
    if propagation == 0 {
        return Ok(());
    }
    let flags = if propagation & MS_REC != 0 { AT_RECURSIVE } else { 0 };
    let attributes = MountAttr { propagation: propagation & !MS_REC, ..MountAttr::default() };
    match system::mount_setattr(mount, flags, &attributes) {
        Err(Errno::ENOSYS) => {
            let mut path = PathBuffer::new();
            system::mount(c"", descriptor_path(mount, &mut path)?, c"", propagation, c"")
        }
        result => result,
    }
}

/// What `mount_setattr` does, for kernels before 5.12: all flags are given anew, so those
/// that are there are kept.
fn remount(mount: Raw, set: u64, clear: u64) -> Sys {
    if set | clear == 0 {
        return Ok(());
    }
    // The flags of statfs: the low bits are those of mount(2), a few others differ.
    let now = system::fstatfs(mount)?.0[10];
    let mut current = now & 0xf;
    for (here, there) in [
        (0x400, MOUNT_ATTR_NOATIME),
        (0x800, MOUNT_ATTR_NODIRATIME),
        (0x2000, MOUNT_ATTR_NOSYMFOLLOW),
    ] {
        if now & here != 0 {
            current |= there;
        }
    }
    let relative = now & 0x1000 != 0;
    if !relative && current & MOUNT_ATTR_NOATIME == 0 {
        current |= MOUNT_ATTR_STRICTATIME;
    }
    let clear = if set & MOUNT_ATTR_ATIME != 0 { clear | MOUNT_ATTR_ATIME } else { clear };
    let flags = MS_REMOUNT | MS_BIND | old_flags((current & !clear) | set);
    let mut path = PathBuffer::new();
    system::mount(c"", descriptor_path(mount, &mut path)?, c"", flags, c"")
}

fn old_flags(attributes: u64) -> u64 {
    let mut flags = attributes & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
    flags |= match attributes & MOUNT_ATTR_ATIME {
        MOUNT_ATTR_NOATIME => MS_NOATIME,
        MOUNT_ATTR_STRICTATIME => MS_STRICTATIME,
        _ => MS_RELATIME,
    };
    for (new, old) in
        [(MOUNT_ATTR_NODIRATIME, MS_NODIRATIME), (MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW)]
    {
        if attributes & new != 0 {
            flags |= old;
        }
    }
    flags
}

/// Changes what is mounted at a path in the root.
pub fn change(child: &mut Child, operation: &Operation<'_>) -> Result {
    let Operation::Remount {
        path,
        options,
        set,
        clear,
        recursive_set,
        recursive_clear,
        propagation,
    } = *operation
    else {
        return Ok(());
    };
    let mount = path::open(child.root()?, path, 0).during(detail::TARGET)?;
    let mount = mount.raw();
    if !options.is_empty() {
        let fs = system::fspick(mount)?;
        set_options(fs.raw(), options)?;
        system::fsconfig_reconfigure(fs.raw()).map_err(|errno| explain(fs.raw(), errno))?;
    }
    match apply(mount, &Wanted { set, clear, recursive_set, recursive_clear }) {
        Err(Errno::ENOSYS) if recursive_set | recursive_clear == 0 => remount(mount, set, clear),
        result => result,
    }
    .during(detail::ATTRIBUTES)?;
    propagate(mount, propagation).during(detail::ATTRIBUTES)
}

//! What the container finds below its root: mounts, devices, links, protected paths.

use std::collections::HashSet;
use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

use locule_plan::protocol::MAX_PREPARED_MOUNTS;
use locule_plan::{List, Operation, OwnedList, Stream, mount};

use super::{Writer, c_path, c_string, unsupported};
use crate::cgroup::{Location, Mode, View};
use crate::spec::mount_options::{self, MountOptions};
use crate::spec::{oci, vocabulary};
use crate::{Category, Error, Result, Stage};

/// Device nodes every container has (config-linux.md, "Default Devices").
const DEFAULT_DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Links every container has (runtime-linux.md, "Dev symbolic links").
const DEFAULT_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
const SAFE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;

/// Where the mounts of a spec go and what they refer to.
pub(super) struct Place<'a> {
    pub spec: &'a oci::Spec,
    pub bundle: &'a Path,
    /// The root on the host.
    pub root: &'a Path,
    pub location: &'a Location,
    pub cgroup_mode: Mode,
    pub new_cgroup_namespace: bool,
    pub in_user_namespace: bool,
    /// The propagation (`MS_*`) that mounts have in the container unless they say so.
    pub propagation: u64,
    /// Whether the keeper may map the ids of mounts.
    pub privileged: bool,
    /// The SELinux label of new filesystems.
    pub label: Option<&'a str>,
}

impl Place<'_> {
    /// Where in the root a mount goes. Some name it as the host sees it, below the root's own path.
    fn target(&self, destination: &Path) -> PathBuf {
        let plain = absolute(destination);
        match plain.strip_prefix(self.root) {
            Ok(below) if self.root != Path::new("/") => Path::new("/").join(below),
            _ => plain,
        }
    }
}

/// A mount that becomes read-only when all that is to be in it has been made: its pointer and where
/// it is.
pub(super) type LateReadOnly = (String, PathBuf);

/// Mounts in their order, then devices and links. What is left for the caller to make read-only is
/// `/dev`, once it has the console.
pub(super) fn populate(out: &mut Writer, place: &Place<'_>) -> Result<Vec<LateReadOnly>> {
    let mounts = place.spec.mounts().as_deref().unwrap_or_default();
    let mut late_read_only: Vec<LateReadOnly> = Vec::new();
    let mut host_devices = false;
    let mut maps = IdMaps::default();
    for (index, mount) in mounts.iter().enumerate() {
        let pointer = format!("/mounts/{index}");
        let target = place.target(mount.destination());
        let options = mount.options().as_deref().unwrap_or_default();
        let is_bind = options.iter().any(|option| option == "bind" || option == "rbind");
        let mut options = mount_options::parse(options, is_bind).map_err(|error| {
            let within = error.pointer().unwrap_or_default().to_owned();
            error.at(format!("{pointer}{within}"))
        })?;
        let fstype = mount.typ().as_deref().unwrap_or_default();
        if changes_existing(&options, fstype) {
            remount(out, &target, &options, &pointer)?;
            continue;
        }
        // What this mount hides is out of reach afterwards: its path means something else then.
        let (hidden, rest): (Vec<_>, Vec<_>) =
            late_read_only.into_iter().partition(|(_, earlier)| earlier.starts_with(&target));
        late_read_only = rest;
        for late in hidden {
            read_only(out, &late)?;
        }
        if target == Path::new("/dev") {
            host_devices = is_bind;
        }
        if !is_bind && (target == Path::new("/dev") || fstype == "tmpfs") {
            // Device nodes, and the targets of later mounts, are still to be made there.
            let read_only = options.set & !options.recursive_clear | options.recursive_set;
            if read_only & RDONLY != 0 {
                late_read_only.push((pointer.clone(), target.clone()));
            }
            options.set &= !RDONLY;
            options.recursive_set &= !RDONLY;
            options.options.retain(|option| option != "ro");
        }
        maps.before(out, mount, &options, place, &pointer)?;
        let at = Spot { target: &target, options: &options, place, pointer: &pointer };
        if is_bind {
            bind_mount(out, mount, &at, &maps)?;
        } else if fstype == "cgroup" || fstype == "cgroup2" {
            if maps.current {
                return Err(unsupported(&pointer, "a cgroup mount with mapped ids"));
            }
            cgroup_mount(out, fstype, &at)?;
        } else {
            new_mount(out, mount, fstype, &at, &maps)?;
        }
    }
    if !host_devices {
        devices(out, place)?;
    }
    let (late, now): (Vec<_>, Vec<_>) =
        late_read_only.into_iter().partition(|(_, target)| target == Path::new("/dev"));
    for late in now {
        read_only(out, &late)?;
    }
    Ok(late)
}

/// One mount of the configuration.
struct Spot<'a> {
    target: &'a Path,
    options: &'a MountOptions,
    place: &'a Place<'a>,
    pointer: &'a str,
}

/// Whether this is about a mount that is there: `remount`, or nothing but a propagation.
fn changes_existing(options: &MountOptions, fstype: &str) -> bool {
    options.remount || !options.bind && fstype.is_empty() && options.propagation != 0
}

fn remount(out: &mut Writer, target: &Path, options: &MountOptions, pointer: &str) -> Result<()> {
    out.child(
        pointer,
        &Operation::Remount {
            path: &c_path(target, pointer)?,
            options: texts(&options.options, pointer)?.as_list(),
            set: options.set,
            clear: options.clear,
            recursive_set: options.recursive_set,
            recursive_clear: options.recursive_clear,
            propagation: options.propagation,
        },
    );
    Ok(())
}

pub(super) fn read_only(out: &mut Writer, (pointer, target): &LateReadOnly) -> Result<()> {
    let options = MountOptions { set: RDONLY, ..MountOptions::default() };
    remount(out, target, &options, pointer)
}

/// The id maps of the keeper, as far as the plan has come.
#[derive(Default)]
struct IdMaps {
    known: Option<[String; 2]>,
    /// Whether the mount at hand maps ids.
    current: bool,
    count: usize,
}

impl IdMaps {
    /// Has the keeper ready for a mount.
    fn before(
        &mut self,
        out: &mut Writer,
        mount: &oci::Mount,
        options: &MountOptions,
        place: &Place<'_>,
        pointer: &str,
    ) -> Result<()> {
        let maps = [mount.uid_mappings(), mount.gid_mappings()];
        let maps = maps.map(|map| id_map_lines(map.as_deref().unwrap_or_default()));
        self.current = options.idmap || !maps[0].is_empty();
        if !self.current {
            return Ok(());
        }
        if !place.privileged {
            return Err(unsupported(pointer, "a mount with mapped ids")
                .hint("mapping ids takes CAP_SYS_ADMIN over the filesystem: start as root"));
        }
        self.count += 1;
        if self.count > MAX_PREPARED_MOUNTS {
            let what = format!("having more than {MAX_PREPARED_MOUNTS} mounts with mapped ids");
            return Err(unsupported(pointer, &what));
        }
        if self.known.as_ref() == Some(&maps) {
            return Ok(());
        }
        let [uid, gid] = self.known.insert(maps);
        out.push(
            Stream::Parent,
            pointer,
            &Operation::IdMap {
                uid: &c_string(uid.as_str(), pointer)?,
                gid: &c_string(gid.as_str(), pointer)?,
                propagation: place.propagation,
            },
        );
        Ok(())
    }

    /// Puts the mount into the plan: the process makes and attaches it, or the keeper makes it.
    fn mount(&self, out: &mut Writer, pointer: &str, operation: &Operation<'_>) {
        let (Operation::Mount { target, propagation, flags, .. }
        | Operation::Bind { target, propagation, flags, .. }) = *operation
        else {
            return;
        };
        if !self.current {
            return out.child(pointer, operation);
        }
        out.push(Stream::Parent, pointer, operation);
        out.child(pointer, &Operation::Attach { target, propagation, flags });
    }
}

/// Mappings as the kernel takes them.
pub(super) fn id_map_lines(map: &[oci::LinuxIdMapping]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.container_id(), m.host_id(), m.size())).collect()
}

/// Read-only and masked paths, and the root itself: the last changes to the tree.
pub(super) fn protect(out: &mut Writer, spec: &oci::Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let read_only = linux.and_then(|linux| linux.readonly_paths().as_ref());
    for (index, path) in read_only.into_iter().flatten().enumerate() {
        let pointer = format!("/linux/readonlyPaths/{index}");
        let path = absolute(Path::new(path));
        if path == Path::new("/") {
            // A mount upon the root would not be seen: nobody's root would be in it.
            out.child(&pointer, &Operation::ReadonlyRoot {});
            continue;
        }
        let path = c_path(&path, &pointer)?;
        out.child(&pointer, &Operation::ReadonlyPath { path: &path });
    }
    let masked = linux.and_then(|linux| linux.masked_paths().as_ref());
    let mut seen = HashSet::new();
    for (index, path) in masked.into_iter().flatten().enumerate() {
        let path = absolute(Path::new(path));
        if !seen.insert(path.clone()) {
            continue;
        }
        let pointer = format!("/linux/maskedPaths/{index}");
        let path = c_path(&path, &pointer)?;
        out.child(&pointer, &Operation::MaskPath { path: &path });
    }
    if spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)) {
        out.child("/root/readonly", &Operation::ReadonlyRoot {});
    }
    Ok(())
}

/// A relative destination counts from `/` (config.md, "Mounts"). Without `.` and `..`, so that
/// what lies below `/proc` is known by its name.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}

fn bind_mount(
    out: &mut Writer,
    mount: &oci::Mount,
    &Spot { target, options, place, pointer }: &Spot<'_>,
    maps: &IdMaps,
) -> Result<()> {
    let source = mount.source().as_ref().ok_or_else(|| {
        Error::new(Category::Spec, Stage::Compile, "a bind mount needs a source")
            .at(format!("{pointer}/source"))
    })?;
    let mut flags = 0;
    if options.recursive_bind {
        flags |= mount::RECURSIVE;
    }
    if options.recursive_idmap {
        flags |= mount::MAP_RECURSIVE;
    }
    if options.only_these {
        flags |= mount::ONLY_THESE;
    }
    maps.mount(
        out,
        pointer,
        &Operation::Bind {
            source: &c_path(&place.bundle.join(source), pointer)?,
            target: &c_path(target, pointer)?,
            set: options.set,
            clear: options.clear,
            recursive_set: options.recursive_set,
            recursive_clear: options.recursive_clear,
            propagation: options.propagation,
            flags,
        },
    );
    Ok(())
}

fn new_mount(
    out: &mut Writer,
    mount: &oci::Mount,
    fstype: &str,
    &Spot { target, options, place, pointer }: &Spot<'_>,
    maps: &IdMaps,
) -> Result<()> {
    if fstype.is_empty() || fstype == "none" {
        return Err(Error::new(Category::Spec, Stage::Compile, "a mount needs a type, or bind")
            .at(format!("{pointer}/type")));
    }
    let mut flags = 0;
    if matches!(fstype, "proc" | "sysfs") {
        flags |= mount::STRICT_TARGET;
    }
    if fstype == "sysfs" && place.in_user_namespace {
        // Without a network namespace of the user namespace's own there is no sysfs.
        flags |= mount::FALL_BACK_TO_BIND | mount::RECURSIVE;
    }
    if options.copy_up {
        flags |= mount::COPY_UP;
    }
    if fstype == "tmpfs" && !options.options.iter().any(|option| option.starts_with("mode=")) {
        flags |= mount::TARGET_MODE;
    }
    let mut data = options.options.clone();
    // The kernel labels these itself, each file by what it stands for.
    let labelled = !matches!(fstype, "proc" | "sysfs" | "mqueue");
    if let Some(label) = place.label.filter(|_| labelled) {
        data.push(format!("context={label}"));
    }
    let source = mount.source().as_ref().map_or(Path::new(fstype), |path| path.as_path());
    maps.mount(
        out,
        pointer,
        &Operation::Mount {
            fstype: &c_string(fstype, pointer)?,
            source: &c_path(source, pointer)?,
            target: &c_path(target, pointer)?,
            options: texts(&data, pointer)?.as_list(),
            set: options.set,
            clear: options.clear,
            recursive_set: options.recursive_set,
            recursive_clear: options.recursive_clear,
            propagation: options.propagation,
            flags,
        },
    );
    Ok(())
}

fn texts(texts: &[String], pointer: &str) -> Result<OwnedList> {
    let texts = texts.iter().map(|text| c_string(text.as_str(), pointer));
    Ok(texts.collect::<Result<Vec<_>>>()?.into_iter().collect())
}

/// Leaves those hierarchies that a mount of this type shows.
fn keep_shown(views: &mut Vec<View>, fstype: &str) {
    // Version 2 was asked for by its name: then the other hierarchies of a hybrid are not.
    if fstype == "cgroup2" && views.iter().any(|view| view.unified) {
        views.retain(|view| view.unified);
    }
}

/// What is bound where a container without a cgroup namespace mounts its cgroups: the names below
/// the mount's target, and the directories on the host.
pub(crate) fn bound_cgroups(location: &Location, fstype: &str) -> Vec<(PathBuf, PathBuf)> {
    let mut views = location.views();
    keep_shown(&mut views, fstype);
    let alone = matches!(views.as_slice(), [View { unified: true, .. }]);
    let name = |view: &View| if alone { PathBuf::new() } else { PathBuf::from(&view.name) };
    views.into_iter().map(|view| (name(&view), view.source)).collect()
}

/// The container's view of its cgroups. With a cgroup namespace of its own the hierarchies are
/// mounted anew, so that their roots are the container's cgroups; else these are bound.
fn cgroup_mount(out: &mut Writer, fstype: &str, at: &Spot<'_>) -> Result<()> {
    let &Spot { target, options, place, pointer } = at;
    let mut views = place.location.views();
    if views.is_empty() && place.cgroup_mode == Mode::V2 && place.new_cgroup_namespace {
        // Without a cgroup of its own the container still sees the root of its namespace.
        views.push(View {
            controllers: Vec::new(),
            unified: true,
            name: String::new(),
            source: PathBuf::new(),
            options: String::new(),
            links: Vec::new(),
        });
    }
    keep_shown(&mut views, fstype);
    if let [only @ View { unified: true, .. }] = views.as_slice() {
        return one_view(out, only, at);
    }
    let tmpfs: OwnedList = [c"mode=755", c"size=64k"].into_iter().collect();
    out.child(
        pointer,
        &Operation::Mount {
            fstype: c"tmpfs",
            source: c"tmpfs",
            target: &c_path(target, pointer)?,
            options: tmpfs.as_list(),
            set: SAFE,
            clear: 0,
            recursive_set: 0,
            recursive_clear: 0,
            propagation: options.propagation,
            flags: 0,
        },
    );
    for view in &views {
        one_view(out, view, &Spot { target: &target.join(&view.name), ..*at })?;
        for link in &view.links {
            out.child(
                pointer,
                &Operation::Symlink {
                    path: &c_path(&target.join(link), pointer)?,
                    target: &c_string(view.name.as_str(), pointer)?,
                },
            );
        }
    }
    if options.set & RDONLY != 0 {
        read_only(out, &(pointer.to_owned(), target.to_owned()))?;
    }
    Ok(())
}

fn one_view(
    out: &mut Writer,
    view: &View,
    &Spot { target, options, place, pointer }: &Spot<'_>,
) -> Result<()> {
    let target = c_path(target, pointer)?;
    let (set, clear) = (options.set, options.clear);
    if !place.new_cgroup_namespace {
        out.child(
            pointer,
            &Operation::Bind {
                source: &c_path(&view.source, pointer)?,
                target: &target,
                set,
                clear,
                recursive_set: 0,
                recursive_clear: 0,
                propagation: options.propagation,
                flags: 0,
            },
        );
        return Ok(());
    }
    let data: Vec<CString> = view
        .options
        .split(',')
        .filter(|option| !option.is_empty())
        .map(|option| c_string(option, pointer))
        .collect::<Result<_>>()?;
    let data: OwnedList = data.into_iter().collect();
    out.child(
        pointer,
        &Operation::Mount {
            fstype: if view.unified { c"cgroup2" } else { c"cgroup" },
            source: c"cgroup",
            target: &target,
            options: if view.unified { List::EMPTY } else { data.as_list() },
            // As everybody mounts them, whatever the options for the whole say.
            set: if view.unified { set } else { set | SAFE & !clear },
            clear,
            recursive_set: 0,
            recursive_clear: 0,
            propagation: options.propagation,
            flags: 0,
        },
    );
    Ok(())
}

fn devices(out: &mut Writer, place: &Place<'_>) -> Result<()> {
    let linux = place.spec.linux().as_ref();
    let own = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    for (path, major, minor) in DEFAULT_DEVICES {
        // A configuration that lists one of these decides its mode and owner.
        if own.iter().any(|device| device.path() == Path::new(path)) {
            continue;
        }
        let mode = libc::S_IFCHR | 0o666;
        let path = c_string(path, "")?;
        out.child("", &Operation::MakeDevice { path: &path, mode, major, minor, uid: 0, gid: 0 });
    }
    for (index, device) in own.iter().enumerate() {
        if device.path() == Path::new("/dev/ptmx") && (device.major(), device.minor()) == (5, 2) {
            // It is that of the container's own terminals: one of the links below.
            continue;
        }
        let pointer = format!("/linux/devices/{index}");
        let path = c_path(device.path(), &pointer)?;
        let kind = vocabulary::device_file_type(device.typ()).ok_or_else(|| {
            Error::new(
                Category::Spec,
                Stage::Compile,
                "a device to make needs the type c, b, u or p",
            )
            .at(format!("{pointer}/type"))
        })?;
        let number = |value: i64, field: &str| {
            u32::try_from(value).map_err(|_| {
                let message = format!("{field} {value} is out of range");
                Error::new(Category::Spec, Stage::Compile, message).at(format!("{pointer}/{field}"))
            })
        };
        let fifo = kind == libc::S_IFIFO;
        out.child(
            &pointer,
            &Operation::MakeDevice {
                path: &path,
                mode: kind | (device.file_mode().unwrap_or(0o666) & 0o7777),
                major: if fifo { 0 } else { number(device.major(), "major")? },
                minor: if fifo { 0 } else { number(device.minor(), "minor")? },
                uid: device.uid().unwrap_or(0),
                gid: device.gid().unwrap_or(0),
            },
        );
    }
    for (path, target) in DEFAULT_LINKS {
        let (path, target) = (c_string(path, "")?, c_string(target, "")?);
        out.child("", &Operation::Symlink { path: &path, target: &target });
    }
    Ok(())
}

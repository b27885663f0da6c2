//! Mounts of a container that come from the host. A checkpoint keeps their places only, and names
//! for them, which are the places again; a restore says what each name stands for now.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::criu::text_of;
use super::messages::ExternalMount;
use crate::cgroup::Location;
use crate::compile::{absolute, bind_source, bound_cgroups};
use crate::spec::oci;
use crate::{Error, Result, Stage};

/// What masked files show, by this name in every image.
const NULL: &str = "/dev/null";
/// Filesystems of which CRIU makes another instance that shows the same.
const REMADE: [&str; 6] = ["proc", "sysfs", "mqueue", "devpts", "cgroup", "cgroup2"];

/// A line of `/proc/PID/mountinfo`.
#[derive(Debug, PartialEq)]
struct Mount {
    device: String,
    root: PathBuf,
    point: PathBuf,
    kind: String,
    /// What it has in common with other mounts of the filesystem.
    options: String,
}

/// The options of the filesystem that the host has mounted there.
pub(super) fn options_of(point: &Path) -> Option<String> {
    let mounts = read("self").ok()?;
    mounts.into_iter().rfind(|mount| mount.point == point).map(|mount| mount.options)
}

/// The mounts of the container whose first process this is.
pub(super) fn of_container(pid: i32, spec: &oci::Spec) -> Result<Vec<ExternalMount>> {
    let host = read("self")?;
    let mounts = read(&pid.to_string())?;
    let root = open_root(Path::new(&format!("/proc/{pid}/root")))?;
    let binds: Vec<(PathBuf, bool)> = spec
        .mounts()
        .iter()
        .flatten()
        .filter_map(|mount| {
            let (_, recursive) = bind_source(mount)?;
            Some((resolve(&root, &absolute(mount.destination())), recursive))
        })
        .collect();
    let external = external(&mounts, &host, &binds, has_cgroup_namespace(spec));
    external.into_iter().map(|mount| named(&mount.point, name_of(mount))).collect()
}

fn name_of(mount: &Mount) -> &Path {
    let is_null = mount.kind == "devtmpfs" && mount.root == Path::new("/null");
    if is_null { Path::new(NULL) } else { &mount.point }
}

/// Those that are bound by the configuration, and whatever else the host has, too.
fn external<'a>(
    mounts: &'a [Mount],
    host: &[Mount],
    binds: &[(PathBuf, bool)],
    own_cgroups: bool,
) -> Vec<&'a Mount> {
    // The last one at `/` is what is seen there.
    let root = mounts.iter().rfind(|mount| mount.point == Path::new("/"));
    let of_host = |mount: &Mount| {
        let within =
            |root: &Mount| mount.device == root.device && mount.root.starts_with(&root.root);
        host.iter().any(|other| other.device == mount.device) && !root.is_some_and(within)
    };
    mounts
        .iter()
        .filter(|mount| {
            if mount.point == Path::new("/") {
                return false;
            }
            let bound = binds.iter().any(|(point, _)| *point == mount.point);
            let below = binds.iter().any(|(point, recursive)| {
                *recursive && mount.point != *point && mount.point.starts_with(point)
            });
            // Bound, too, where the container has no cgroup namespace of its own.
            let remade = REMADE.contains(&mount.kind.as_str())
                && (own_cgroups || !mount.kind.starts_with("cgroup"));
            bound || of_host(mount) && (below || !remade)
        })
        .collect()
}

/// Where the mounts of a container come from that is to be restored in `root`.
pub(super) fn sources(
    root: &Path,
    bundle: &Path,
    spec: &oci::Spec,
    location: &Location,
) -> Result<Vec<ExternalMount>> {
    let host = read("self")?;
    let root = open_root(root)?;
    let mut named_so = vec![named(Path::new(NULL), Path::new(NULL))?];
    for mount in spec.mounts().iter().flatten() {
        let target = resolve(&root, &absolute(mount.destination()));
        if let Some((source, recursive)) = bind_source(mount) {
            let source = fs::canonicalize(bundle.join(source)).map_err(|error| {
                Error::io(Stage::Checkpoint, &error, format!("find the mount source {source:?}"))
            })?;
            named_so.push(named(&target, &source)?);
            let below = host.iter().filter_map(|other| other.point.strip_prefix(&source).ok());
            for rest in below.filter(|rest| recursive && !rest.as_os_str().is_empty()) {
                named_so.push(named(&target.join(rest), &source.join(rest))?);
            }
        } else if let Some(kind @ ("cgroup" | "cgroup2")) = mount.typ().as_deref()
            && !has_cgroup_namespace(spec)
        {
            for (name, source) in bound_cgroups(location, kind) {
                named_so.push(named(&target.join(name), &source)?);
            }
        }
    }
    let devices = spec.linux().as_ref().and_then(|linux| linux.devices().as_ref());
    for device in devices.into_iter().flatten() {
        named_so.push(named(device.path(), device.path())?);
    }
    Ok(named_so)
}

fn has_cgroup_namespace(spec: &oci::Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let mut kinds = namespaces.into_iter().flatten().map(oci::LinuxNamespace::typ);
    kinds.any(|kind| kind == oci::LinuxNamespaceType::Cgroup)
}

fn named(key: &Path, value: &Path) -> Result<ExternalMount> {
    Ok(ExternalMount { key: text_of(key)?, value: text_of(value)? })
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    nix::fcntl::open(
        path,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        nix::sys::stat::Mode::empty(),
    )
    .map_err(|errno| Error::os(Stage::Checkpoint, errno as i32, format!("open {path:?}")))
}

/// `path` as it is without symbolic links, which are followed in `root` only. What is missing stays
/// as it is.
fn resolve(root: &OwnedFd, path: &Path) -> PathBuf {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let link = |fd: &OwnedFd| fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let Ok(top) = link(root) else { return path.to_owned() };
    for known in path.ancestors() {
        let Ok(found) = openat2(root.as_fd(), known, how) else { continue };
        let Ok(real) = link(&found) else { break };
        let Ok(inside) = real.strip_prefix(&top) else { break };
        let rest = path.strip_prefix(known).unwrap_or(Path::new(""));
        return Path::new("/").join(inside).join(rest).components().as_path().to_owned();
    }
    path.to_owned()
}

fn read(process: &str) -> Result<Vec<Mount>> {
    let path = format!("/proc/{process}/mountinfo");
    let text = fs::read(&path)
        .map_err(|error| Error::io(Stage::Checkpoint, &error, format!("read {path}")))?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// `36 35 98:0 /root /point options [tag...] - type source superoptions`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|&byte| byte == b' ');
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let device = text(words.nth(2)?);
    let (root, point) = (unescaped(words.next()?), unescaped(words.next()?));
    let mut words = words.skip_while(|word| *word != b"-").skip(1);
    let kind = text(words.next()?);
    Some(Mount { device, root, point, kind, options: text(words.nth(1)?) })
}

/// Octal escapes stand for what separates words and lines.
fn unescaped(word: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(word.len());
    let mut at = 0;
    while let Some(&byte) = word.get(at) {
        let code = word.get(at + 1..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code.filter(|_| byte == b'\\') {
            Some(code) => {
                path.push(code);
                at += 4;
            }
            None => {
                path.push(byte);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(lines: &[&str]) -> Vec<Mount> {
        lines.iter().filter_map(|line| parse(line.as_bytes())).collect()
    }

    #[test]
    fn what_comes_from_the_host_is_external_and_what_is_made_anew_is_not() {
        let host = mounts(&[
            "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
            "2 1 0:5 / /dev rw - devtmpfs dev rw",
            "3 1 0:20 / /sys rw - sysfs sysfs rw",
            "4 1 8:2 / /data\\040disk rw - ext4 /dev/sda2 rw",
            "5 1 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup rw",
        ]);
        let container = mounts(&[
            "10 9 8:1 /bundle/rootfs / rw - ext4 /dev/sda1 rw",
            "11 10 0:40 / /proc rw - proc proc rw",
            "12 11 0:40 /sys /proc/sys ro - proc proc rw",
            "13 11 0:5 /null /proc/kcore ro - devtmpfs dev rw",
            "14 10 0:20 / /sys ro - sysfs sysfs rw",
            "15 14 0:30 /group /sys/fs/cgroup ro - cgroup2 cgroup rw",
            "16 10 8:2 / /data rw - ext4 /dev/sda2 rw",
            "17 10 8:1 /etc/hosts /etc/hosts rw - ext4 /dev/sda1 rw",
            "18 10 8:1 /bundle/rootfs/opt /opt ro - ext4 /dev/sda1 rw",
            "19 10 0:41 / /tmp rw shared:1 - tmpfs tmpfs rw",
        ]);
        let points: Vec<_> = external(&container, &host, &[], true)
            .into_iter()
            .map(|mount| (mount.point.to_str().unwrap(), name_of(mount).to_str().unwrap()))
            .collect();
        let wanted =
            [("/proc/kcore", "/dev/null"), ("/data", "/data"), ("/etc/hosts", "/etc/hosts")];
        assert_eq!(points, wanted);
        // Without a cgroup namespace the cgroups are bound.
        assert_eq!(external(&container, &host, &[], false).len(), wanted.len() + 1);
    }

    #[test]
    fn what_the_configuration_binds_is_external_whatever_it_is() {
        let host =
            mounts(&["3 1 0:20 / /sys rw - sysfs sysfs rw", "4 3 0:21 / /sys/x rw - x x rw"]);
        let container = mounts(&[
            "10 9 8:1 / / rw - ext4 /dev/sda1 rw",
            "14 10 0:20 / /sys ro - sysfs sysfs rw",
            "15 14 0:21 / /sys/x ro - x x rw",
        ]);
        let binds = [(PathBuf::from("/sys"), true)];
        assert_eq!(external(&container, &host, &binds, true).len(), 2);
    }

    #[test]
    fn links_are_followed_within_the_root() {
        let top = std::env::temp_dir().join(format!("locule-resolve-{}", std::process::id()));
        fs::create_dir_all(top.join("real/conf")).unwrap();
        std::os::unix::fs::symlink("/real/conf", top.join("conf")).unwrap();
        let root = open_root(&top).unwrap();
        assert_eq!(resolve(&root, Path::new("/conf")), Path::new("/real/conf"));
        assert_eq!(resolve(&root, Path::new("/conf/new/file")), Path::new("/real/conf/new/file"));
        assert_eq!(resolve(&root, Path::new("/none")), Path::new("/none"));
        fs::remove_dir_all(&top).unwrap();
    }
}

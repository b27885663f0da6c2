//! Which cgroup hierarchies this machine has, and where the calling process is in them.
//!
//! Only reads. Parsing is separate from reading, so that it can be tested without a machine.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::devices::Cache;
use crate::error::{Error, Result, Stage};

/// How the machine has its cgroups mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// None at all, or none that this process can see.
    None,
    /// Version 1 hierarchies only.
    V1,
    /// Version 1 hierarchies, and the unified one beside them.
    Hybrid,
    /// The unified hierarchy only.
    V2,
}

/// One mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// The controllers attached to it, or `name=x` for a named version 1 hierarchy.
    pub controllers: Vec<String>,
    /// Whether this is the unified (version 2) hierarchy.
    pub unified: bool,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The calling process's cgroup, relative to `mount_point`; empty for the mount's root.
    pub own: PathBuf,
    /// Whether the caller may make cgroups beside its own (and move processes there).
    pub parent_writable: bool,
}

/// The hierarchies of this machine, as found once by [`Hierarchies::discover`]. Plain facts,
/// cheap to clone. Clones share the device program that was loaded last, so one value should
/// serve all containers of a runtime.
#[derive(Debug, Clone)]
pub struct Hierarchies {
    mode: Mode,
    all: Arc<[Hierarchy]>,
    programs: Arc<Cache>,
}

impl Hierarchies {
    /// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`. Does not block and changes nothing.
    ///
    /// # Errors
    /// When procfs cannot be read. A machine without cgroups is no error: see [`Mode::None`].
    pub fn discover() -> Result<Hierarchies> {
        let read = |path: &str| {
            fs::read(path)
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .map_err(|error| Error::io(Stage::Cgroup, &error, format!("read {path}")))
        };
        let mut all = parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        for hierarchy in &mut all {
            let own = hierarchy.mount_point.join(&hierarchy.own);
            if hierarchy.unified {
                let listed = fs::read_to_string(hierarchy.mount_point.join("cgroup.controllers"));
                hierarchy.controllers = words(&listed.unwrap_or_default());
            }
            if let (false, Some(parent)) = (hierarchy.own.as_os_str().is_empty(), own.parent()) {
                // Entering a cgroup needs write access to the common ancestor's cgroup.procs.
                hierarchy.parent_writable =
                    writable(parent) && writable(&parent.join("cgroup.procs"));
            }
        }
        Ok(Hierarchies::from_list(all))
    }

    /// No cgroups: what a runtime that must not touch them works with.
    pub fn none() -> Hierarchies {
        Hierarchies::from_list(Vec::new())
    }

    /// From facts gathered elsewhere, such as by a test.
    pub fn from_list(all: Vec<Hierarchy>) -> Hierarchies {
        let unified = all.iter().any(|hierarchy| hierarchy.unified);
        let old = all.iter().any(|hierarchy| !hierarchy.unified);
        let mode = match (old, unified) {
            (false, false) => Mode::None,
            (true, false) => Mode::V1,
            (true, true) => Mode::Hybrid,
            (false, true) => Mode::V2,
        };
        Hierarchies { mode, all: all.into(), programs: Arc::default() }
    }

    /// How they are mounted.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    pub(super) fn programs(&self) -> &Cache {
        &self.programs
    }

    /// Every hierarchy, in the order of the mount table.
    pub fn all(&self) -> &[Hierarchy] {
        &self.all
    }
}

fn writable(path: &Path) -> bool {
    faccessat(AT_FDCWD, path, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok()
}

pub(super) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

struct Mount<'a> {
    id: &'a str,
    parent: &'a str,
    root: PathBuf,
    point: PathBuf,
    fs_type: &'a str,
    super_options: &'a str,
}

/// The hierarchies in a mount table, with the own cgroup from `/proc/self/cgroup` filled in.
pub(super) fn parse(mountinfo: &str, own: &str) -> Vec<Hierarchy> {
    let mounts: Vec<Mount> = mountinfo.lines().filter_map(parse_mount).collect();
    // A mount hides what was mounted on the same directory, and all that is mounted below that.
    let covered: HashMap<&str, &str> = {
        let points: HashMap<&str, &Path> =
            mounts.iter().map(|mount| (mount.id, mount.point.as_path())).collect();
        mounts
            .iter()
            .filter(|mount| points.get(mount.parent) == Some(&mount.point.as_path()))
            .map(|mount| (mount.parent, mount.id))
            .collect()
    };
    let visible = |mount: &Mount| {
        !covered.contains_key(mount.id)
            && covered.get(mount.parent).is_none_or(|cover| *cover == mount.id)
    };

    let mut found: Vec<(Hierarchy, PathBuf)> = Vec::new();
    for mount in mounts.iter().filter(|mount| visible(mount)) {
        let (unified, controllers) = match mount.fs_type {
            "cgroup2" => (true, Vec::new()),
            "cgroup" => (false, v1_controllers(mount.super_options, own)),
            _ => continue,
        };
        let same = |(other, _): &(Hierarchy, PathBuf)| {
            other.unified == unified && other.controllers == controllers
        };
        // A hierarchy may be mounted twice: the mount that shows more of it wins, else the first.
        if let Some(index) = found.iter().position(same) {
            if found[index].1.components().count() <= mount.root.components().count() {
                continue;
            }
            found.remove(index);
        }
        let own = own_path(own, unified, &controllers);
        let hierarchy = Hierarchy {
            controllers,
            unified,
            mount_point: mount.point.clone(),
            own: own.strip_prefix(&mount.root).map(Path::to_owned).unwrap_or_default(),
            parent_writable: false,
        };
        found.push((hierarchy, mount.root.clone()));
    }
    found.into_iter().map(|(hierarchy, _)| hierarchy).collect()
}

fn parse_mount(line: &str) -> Option<Mount<'_>> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ');
    let (id, parent, _device) = (head.next()?, head.next()?, head.next()?);
    let (root, point) = (unescape(head.next()?), unescape(head.next()?));
    if !root.is_absolute() || !point.is_absolute() {
        return None;
    }
    let mut tail = tail.split(' ');
    let (fs_type, _source, super_options) = (tail.next()?, tail.next()?, tail.next()?);
    Some(Mount { id, parent, root, point, fs_type, super_options })
}

/// Mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// The controllers among a version 1 mount's options: those that `/proc/self/cgroup` names too.
fn v1_controllers(options: &str, own: &str) -> Vec<String> {
    let known = |option: &str| {
        own.lines()
            .filter_map(|line| line.split(':').nth(1))
            .any(|names| names.split(',').any(|name| name == option))
    };
    options.split(',').filter(|option| known(option)).map(str::to_owned).collect()
}

/// The path on the line `id:controllers:path` that belongs to the hierarchy.
fn own_path<'a>(own: &'a str, unified: bool, controllers: &[String]) -> &'a Path {
    own.lines()
        .filter_map(|line| {
            let (id, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            let matches = match unified {
                true => id == "0" && names.is_empty(),
                false => names.split(',').any(|name| controllers.iter().any(|c| c == name)),
            };
            matches.then_some(Path::new(path))
        })
        .next()
        .unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
23 1 8:1 / / rw - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn a_hybrid_machine_has_one_entry_for_each_hierarchy() {
        let own = "4:memory:/jobs/a\n3:cpu,cpuacct:/\n1:name=systemd:/s.slice\n0::/u\n";
        let all = parse(HYBRID, own);
        let brief: Vec<_> = all
            .iter()
            .map(|h| (h.controllers.join(","), h.unified, h.own.to_str().unwrap()))
            .collect();
        assert_eq!(
            brief,
            [
                ("cpu,cpuacct".to_owned(), false, ""),
                ("memory".to_owned(), false, "jobs/a"),
                ("name=systemd".to_owned(), false, "s.slice"),
                (String::new(), true, "u"),
            ]
        );
        assert_eq!(Hierarchies::from_list(all).mode(), Mode::Hybrid);
    }

    #[test]
    fn a_mount_hides_what_lies_under_it() {
        let table = format!("{HYBRID}50 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        let all = parse(&table, "0::/\n");
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].mount_point, Path::new("/sys/fs/cgroup"));
        assert_eq!(Hierarchies::from_list(all).mode(), Mode::V2);
    }

    #[test]
    fn inside_a_container_the_own_path_is_relative_to_the_mounted_root() {
        let table = "31 1 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(parse(table, "0::/docker/abc/job\n")[0].own, Path::new("job"));
        assert_eq!(parse(table, "0::/elsewhere\n")[0].own, Path::new(""));
    }

    #[test]
    fn of_two_mounts_of_one_hierarchy_the_wider_one_is_used() {
        let table = "31 1 0:28 /a/b /mnt/part rw - cgroup2 c rw\n32 1 0:28 / /mnt/all\\040x rw - cgroup2 c rw\n";
        let all = parse(table, "0::/a\n");
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].mount_point, Path::new("/mnt/all x"));
    }

    #[test]
    fn a_machine_without_cgroups_is_no_error() {
        assert_eq!(Hierarchies::from_list(parse("", "")).mode(), Mode::None);
        assert_eq!(Hierarchies::none().mode(), Mode::None);
    }
}

//! What reads the kernel's texts and writes limits, for the fuzz targets.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use super::limits::{self, Writer};
use super::location::{Location, Place};
use super::{Hierarchies, Stats, devices, hierarchy, stats};
use crate::error::Result;

/// What `/proc/self/mountinfo` and `/proc/self/cgroup` say.
pub fn hierarchies(mountinfo: &str, own: &str) -> Hierarchies {
    Hierarchies::from_list(hierarchy::parse(mountinfo, own))
}

/// A directory of plain files in place of a container's cgroup.
fn location(directory: &Path, unified: bool) -> Location {
    let mut controllers = vec!["memory", "cpu", "cpuset", "pids", "hugetlb", "rdma"];
    controllers.extend(match unified {
        true => vec!["io"],
        false => vec!["blkio", "cpuacct", "devices", "net_cls", "net_prio"],
    });
    Location {
        places: vec![Place {
            controllers: controllers.into_iter().map(str::to_owned).collect(),
            unified,
            mount_point: directory.parent().map(Path::to_owned).unwrap_or_default(),
            path: directory.file_name().map(PathBuf::from).unwrap_or_default(),
            existed: false,
        }],
        unit: None,
    }
}

/// Reads the usage.
pub fn usage(directory: &Path, unified: bool) -> Result<Stats> {
    stats::read(&location(directory, unified))
}

/// Writes limits, as an update does if `is_update`, which takes them back where it fails.
pub fn limit(
    directory: &Path,
    unified: bool,
    resources: &LinuxResources,
    is_update: bool,
) -> Result<()> {
    limits::check(resources)?;
    let location = location(directory, unified);
    let mut writer = match is_update {
        true => Writer::for_update(&location, Vec::new(), false),
        false => Writer::for_create(&location, &[], Vec::new()),
    };
    let done = limits::apply(resources, &mut writer);
    if done.is_err() && is_update {
        writer.undo();
    }
    done
}

/// Puts device rules in force: in version 1 into files of the directory, in version 2 as far as
/// the program for the kernel.
pub fn allow_devices(
    directory: &Path,
    unified: bool,
    resources: &LinuxResources,
    fresh: bool,
) -> Result<()> {
    let rules = devices::rules(Some(resources))?;
    if unified {
        devices::assemble(&rules);
        return Ok(());
    }
    devices::apply(&location(directory, unified), &rules, fresh, &devices::Cache::default())
}

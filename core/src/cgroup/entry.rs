//! The ways into a container's cgroups.

use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use super::location::Location;
use crate::error::{Error, Result, Stage};

/// A descriptor through which a process gets into one hierarchy. Close-on-exec.
#[derive(Debug)]
pub enum Entry {
    /// The version 2 directory, for `CLONE_INTO_CGROUP` (Linux 5.7).
    IntoV2(OwnedFd),
    /// The `cgroup.procs` file of a version 1 hierarchy, open for writing.
    Procs(OwnedFd),
}

pub(super) fn all(location: &Location) -> Result<Vec<Entry>> {
    location
        .places
        .iter()
        .map(|place| {
            let mut path = place.directory();
            let mut options = OpenOptions::new();
            if place.unified {
                options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
            } else {
                path.push("cgroup.procs");
                options.write(true);
            }
            let opened = options.open(&path);
            let fd: OwnedFd = opened
                .map_err(|error| Error::io(Stage::Cgroup, &error, format!("open {path:?}")))?
                .into();
            Ok(if place.unified { Entry::IntoV2(fd) } else { Entry::Procs(fd) })
        })
        .collect()
}

//! Handing a version 2 cgroup to the container's user.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::chown;

use super::location::Location;
use crate::error::{Error, Result, Stage};

/// What kernels before 4.15, which have no list, let a user have.
const FALLBACK: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

pub(super) fn delegate(location: &Location, uid: u32) -> Result<()> {
    let Some(place) = location.unified().filter(|_| location.is_pure_v2()) else { return Ok(()) };
    let directory = place.directory();
    let failed = |path: &std::path::Path, error| {
        Error::io(Stage::Cgroup, &error, format!("give {path:?} to user {uid}"))
    };
    chown(&directory, Some(uid), None).map_err(|error| failed(&directory, error))?;
    let list = fs::read_to_string("/sys/kernel/cgroup/delegate");
    for name in list.as_deref().unwrap_or(FALLBACK).lines() {
        let path = directory.join(name);
        match chown(&path, Some(uid), None) {
            // The list has files of controllers that are off.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => done.map_err(|error| failed(&path, error))?,
        }
    }
    Ok(())
}

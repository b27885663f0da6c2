//! `linux.resources` (runtime-spec, config-linux, "Control groups") written to cgroup files.
//!
//! One file here for each controller. A limit is either written or refused with the pointer of
//! its field; nothing is dropped silently. Absent fields stay as they are. Where the spec's Go
//! types cannot tell "absent" from 0, engines send 0 for "absent", and 0 is taken so; the pids
//! limit and the CPU burst are the two where 0 means something.

mod convert;
mod cpu;
mod hugepages;
mod io;
mod memory;
mod network;
mod pids;
mod rdma;
mod unified;

use std::io as std_io;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

pub(super) use self::convert::{cpu_weight, io_weight};
use super::create::Refusals;
use super::file;
use super::location::{Location, Place};
use crate::error::{Category, Error, Result, Stage};

/// Checks what can be checked without a cgroup: values out of range, fields that contradict
/// each other, names that are no names.
pub(super) fn check(resources: &LinuxResources) -> Result<()> {
    hugepages::check(resources)?;
    io::check(resources)?;
    rdma::check(resources)?;
    unified::check(resources)
}

/// The controllers that the resources need, by their version 2 names.
pub(super) fn controllers(resources: &LinuxResources) -> Vec<String> {
    let cpu = resources.cpu().as_ref();
    let mut needed: Vec<String> = [
        ("memory", resources.memory().is_some()),
        ("cpu", cpu.is_some()),
        ("cpuset", cpu.is_some_and(|cpu| cpu.cpus().is_some() || cpu.mems().is_some())),
        ("pids", resources.pids().is_some()),
        ("io", resources.block_io().is_some()),
        ("hugetlb", resources.hugepage_limits().as_ref().is_some_and(|list| !list.is_empty())),
        ("rdma", resources.rdma().as_ref().is_some_and(|map| !map.is_empty())),
    ]
    .into_iter()
    .filter(|(_, is_needed)| *is_needed)
    .map(|(name, _)| name.to_owned())
    .collect();
    needed.extend(unified::controllers(resources));
    needed
}

/// Writes every limit that is given.
pub(super) fn apply(resources: &LinuxResources, writer: &mut Writer<'_>) -> Result<()> {
    if let Some(memory) = resources.memory() {
        memory::apply(memory, writer)?;
    }
    if let Some(cpu) = resources.cpu() {
        cpu::apply(cpu, writer)?;
    }
    if let Some(limit) = resources.pids() {
        pids::apply(limit, writer)?;
    }
    if let Some(block_io) = resources.block_io() {
        io::apply(block_io, writer)?;
    }
    if let Some(limits) = resources.hugepage_limits() {
        hugepages::apply(limits, writer)?;
    }
    if let Some(limits) = resources.rdma() {
        rdma::apply(limits, writer)?;
    }
    if let Some(network) = resources.network() {
        network::apply(network, writer)?;
    }
    // Last: raw values win over what was converted.
    match resources.unified() {
        Some(values) => unified::apply(values, writer),
        None => Ok(()),
    }
}

/// Writes limits into one container's cgroups.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    location: &'a Location,
    /// Places that a rootless caller could not have.
    denied: &'a [Place],
    refusals: Refusals,
    /// Without any cgroup, the caller's lack of privilege is the likely reason.
    rootless: bool,
    /// What the files held before, newest last; kept for an update only.
    journal: Option<Vec<(PathBuf, String, String)>>,
}

impl<'a> Writer<'a> {
    /// For a new cgroup, which goes away as a whole if a limit fails.
    pub(super) fn for_create(
        location: &'a Location,
        denied: &'a [Place],
        refusals: Refusals,
    ) -> Self {
        Writer { location, denied, refusals, rootless: false, journal: None }
    }

    /// For one in use, where [`Writer::undo`] brings back the values before.
    pub(super) fn for_update(location: &'a Location, refusals: Refusals, rootless: bool) -> Self {
        Writer { location, denied: &[], refusals, rootless, journal: Some(Vec::new()) }
    }

    /// Whether the cgroup is in use, so that fields not given have values that must stay.
    fn is_update(&self) -> bool {
        self.journal.is_some()
    }

    /// The place of the controller, which goes by another name in version 1 now and then.
    fn place(&self, v2: &str, v1: &str, pointer: &str) -> Result<&'a Place> {
        let named = |place: &&Place| {
            let name = if place.unified { v2 } else { v1 };
            place.controllers.iter().any(|controller| controller == name)
        };
        if let Some(place) = self.location.places.iter().find(named) {
            return Ok(place);
        }
        let denied = |message: String| {
            Error::new(Category::Permission, Stage::Cgroup, message).hint(super::DELEGATION)
        };
        Err(match self.denied.iter().find(named) {
            Some(place) => {
                denied(format!("this user may not make the cgroup {:?}", place.directory()))
            }
            None if self.rootless && self.location.is_empty() => {
                denied("the container has no cgroup".to_owned())
            }
            None if self.location.is_empty() => {
                unsupported("the container has no cgroup".to_owned())
                    .hint("the runtime was opened without cgroups, or this machine has none")
            }
            None => unsupported(format!(
                "invalid configuration: no cgroup hierarchy here has the {v2} controller"
            )),
        }
        .at(pointer))
    }

    /// Writes one value.
    fn put(&mut self, place: &Place, name: &str, value: &str, pointer: &str) -> Result<()> {
        self.try_put(place, name, value)
            .map_err(|error| self.failed(place, name, value, pointer, &error))
    }

    /// Writes one value where another file may do as well.
    fn try_put(&mut self, place: &Place, name: &str, value: &str) -> std_io::Result<()> {
        let directory = place.directory();
        if let Some(journal) = &mut self.journal {
            // Files with a line for each device have no single value to go back to.
            match file::get(&directory, name) {
                Ok(before) if before.trim_end().lines().count() == 1 => {
                    journal.push((
                        directory.clone(),
                        name.to_owned(),
                        before.trim_end().to_owned(),
                    ));
                }
                _ => {}
            }
        }
        file::put(&directory, name, value)
    }

    /// The error of a write that failed.
    fn failed(
        &self,
        place: &Place,
        name: &str,
        value: &str,
        pointer: &str,
        error: &std_io::Error,
    ) -> Error {
        let directory = place.directory();
        if error.kind() != std_io::ErrorKind::NotFound || !directory.exists() {
            let failed = file::failed_to_write(&directory, name, value, error).at(pointer);
            return match error.raw_os_error() {
                // The kernel does not take the value, whoever writes it.
                Some(libc::EINVAL | libc::ERANGE) => failed.with_category(Category::Spec),
                _ => failed,
            };
        }
        // The file is missing: a controller that is off, or a kernel without the feature.
        let attempt = format!("write {value:?} to {name}");
        let controller = name.split('.').next().unwrap_or_default();
        match self.refusals.iter().find(|(refused, _)| refused == controller) {
            Some((_, refusal)) if place.unified => refusal.clone().context(attempt),
            _ => unsupported(format!("{attempt}: this kernel or cgroup has no such file"))
                .with_errno(libc::ENOENT),
        }
        .at(pointer)
    }

    /// Reads a value that a limit depends on.
    fn get(&self, place: &Place, name: &str, pointer: &str) -> Result<String> {
        match file::get(&place.directory(), name) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) => Err(file::failed_to_read(&place.directory(), name, &error).at(pointer)),
        }
    }

    /// Brings the values back that [`Writer::for_update`] kept. Best effort: a limit may be
    /// below today's usage.
    pub(super) fn undo(self) {
        for (directory, name, value) in self.journal.into_iter().flatten().rev() {
            if let Err(error) = file::put(&directory, &name, &value) {
                tracing::warn!(?directory, name, value, %error, "cannot bring a limit back");
            }
        }
    }
}

fn unsupported(message: String) -> Error {
    Error::new(Category::Unsupported, Stage::Cgroup, message)
}

fn wrong(message: impl Into<String>, pointer: impl Into<String>) -> Error {
    Error::new(Category::Spec, Stage::Cgroup, message).at(pointer)
}

/// -1 (any negative number) is "no limit".
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

/// Some, unless it is the 0 that stands for "absent".
pub(super) fn given<T: PartialEq + Default>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

#[cfg(test)]
mod tests;

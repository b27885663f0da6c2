//! Groups of the resctrl filesystem: which share of caches and memory bandwidth a container's
//! processes get, and whose use is counted (runtime-spec, config-linux.md, "IntelRdt").
//!
//! Nothing here is touched unless a configuration has `linux.intelRdt`.

mod schema;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::oci::LinuxIntelRdt;
use crate::{Category, Error, Result, Stage};

const POINTER: &str = "/linux/intelRdt";

/// Where a container is in the resctrl filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// The control group.
    directory: PathBuf,
    /// Whether the control group goes with the container. One with a name of its own stays.
    ours: bool,
    /// The monitoring group, which goes with the container.
    monitor: Option<PathBuf>,
}

impl Group {
    /// The group that a configuration asks for, in the filesystem that is mounted at `root`.
    /// Looks at nothing.
    pub(crate) fn of(rdt: &LinuxIntelRdt, id: &str, root: Option<&Path>) -> Result<Group> {
        let root = root.ok_or_else(|| {
            Error::new(Category::Unsupported, Stage::Compile, "no resctrl filesystem is mounted")
                .at(POINTER)
                .hint(
                    "it takes a processor with cache or memory bandwidth allocation, and: \
                     mount -t resctrl resctrl /sys/fs/resctrl",
                )
        })?;
        let name = rdt.clos_id().as_deref();
        let directory = match name {
            Some("/") => root.to_owned(),
            Some(name) => root.join(name),
            None => root.join(id),
        };
        let monitored = rdt.enable_monitoring().unwrap_or(false);
        let monitor = monitored.then(|| directory.join("mon_groups").join(id));
        Ok(Group { directory, ours: name.is_none(), monitor })
    }

    /// The files that a process writes itself into, in this order.
    pub(crate) fn tasks(&self) -> Vec<PathBuf> {
        // The kernel lets a task into a monitoring group only from the control group above.
        [Some(&self.directory), self.monitor.as_ref()]
            .into_iter()
            .flatten()
            .map(|directory| directory.join("tasks"))
            .collect()
    }

    /// What goes with the container, in the order in which it can be removed.
    pub(crate) fn removable(&self) -> impl Iterator<Item = &Path> {
        let own = self.ours.then_some(&self.directory);
        self.monitor.iter().chain(own).map(PathBuf::as_path)
    }

    /// Refuses what is somebody else's already, before anything is remembered as this
    /// container's.
    pub(crate) fn check_free(&self) -> Result<()> {
        for directory in self.removable() {
            if directory.exists() {
                let message = format!("the resctrl group {directory:?} exists already");
                return Err(Error::new(Category::Busy, Stage::Settings, message)
                    .with_errno(libc::EEXIST)
                    .at(POINTER));
            }
        }
        Ok(())
    }

    /// Makes the groups and writes the schemata, or checks them where the group was there.
    pub(crate) fn make(&self, rdt: &LinuxIntelRdt) -> Result<Made> {
        let mut made = Made(Vec::new());
        let lines = schema::lines(rdt);
        let found = match self.directory.is_dir() {
            true => Some(read(&self.directory.join("schemata"))?),
            false => None,
        };
        if found.is_none() {
            if lines.is_empty() && !self.ours {
                let message = format!("there is no resctrl group {:?}", self.directory);
                return Err(Error::new(Category::NotFound, Stage::Settings, message)
                    .at(format!("{POINTER}/closID"))
                    .hint("without a schema the group has to be there before"));
            }
            made.directory(&self.directory)?;
        }
        for line in lines {
            match &found {
                Some(found) if line.must_match => line.check(found)?,
                _ => self.write(&line)?,
            }
        }
        if let Some(monitor) = &self.monitor {
            made.directory(monitor)
                .map_err(|error| error.at(format!("{POINTER}/enableMonitoring")))?;
        }
        Ok(made)
    }

    fn write(&self, line: &schema::Line<'_>) -> Result<()> {
        let file = self.directory.join("schemata");
        let written = fs::OpenOptions::new()
            .write(true)
            .open(&file)
            .and_then(|mut file| file.write_all(format!("{}\n", line.text).as_bytes()));
        written.map_err(|error| {
            failed(&error, format!("write {:?} to {file:?}{}", line.text, self.explanation()))
                .at(line.pointer.clone())
        })
    }

    /// What the kernel has to say about its last refusal.
    fn explanation(&self) -> String {
        let root = match self.directory.join("info").is_dir() {
            true => Some(self.directory.as_path()),
            false => self.directory.parent(),
        };
        let text = root.and_then(|root| fs::read_to_string(root.join("info/last_cmd_status")).ok());
        match text.as_deref().map(str::trim) {
            None | Some("" | "ok") => String::new(),
            Some(text) => format!(" ({text})"),
        }
    }

    /// Removes what goes with the container. What is gone already is fine.
    pub(crate) fn remove(&self) -> Result<()> {
        for directory in self.removable() {
            match fs::remove_dir(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&error, format!("remove the resctrl group {directory:?}")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The directories made so far. Dropped without [`Made::keep`], it removes them again.
#[derive(Debug)]
pub(crate) struct Made(Vec<PathBuf>);

impl Made {
    pub(crate) fn keep(mut self) {
        self.0.clear();
    }

    fn directory(&mut self, path: &Path) -> Result<()> {
        fs::create_dir(path).map_err(|error| {
            // The processor has a fixed number of them.
            let full = error.raw_os_error() == Some(libc::ENOSPC);
            let error = failed(&error, format!("make the resctrl group {path:?}"));
            if full { error.hint("the processor has no room for another group") } else { error }
        })?;
        self.0.push(path.to_owned());
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            if let Err(error) = fs::remove_dir(directory) {
                tracing::warn!(%error, ?directory, "a failed creation left a resctrl group");
            }
        }
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|error| failed(&error, format!("read {file:?}")))
}

fn failed(error: &io::Error, what: String) -> Error {
    Error::io(Stage::Settings, error, what).at(POINTER)
}

/// Where the filesystem is mounted, by the text of `/proc/self/mountinfo`.
pub(crate) fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ');
        let whole = fields.nth(3) == Some("/");
        let at = fields.next()?;
        let wanted = whole && filesystem.starts_with("resctrl ");
        wanted.then(|| PathBuf::from(at.replace("\\040", " ")))
    })
}

#[cfg(test)]
mod tests;

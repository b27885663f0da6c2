//! Cgroups: v1, v2 and hybrid behind one type.
//!
//! [`Hierarchies`] are facts about the machine, a [`Location`] says where one container's
//! directories are, and a [`Cgroup`] is those directories. Nothing here moves the calling process,
//! starts a thread or keeps state of its own; every descriptor is close-on-exec; every type may
//! be used from several threads at once.

mod create;
mod devices;
mod entry;
mod file;
mod freeze;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod hierarchy;
mod limits;
mod location;
mod ownership;
mod pids;
mod remove;
mod signal;
mod stats;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;

pub use entry::Entry;
pub use hierarchy::{Hierarchies, Hierarchy, Mode};
pub use location::{Location, Place, View};
pub use stats::{
    BlockIo, BlockIoEntry, Cpu, CpuUsage, HugePages, Memory, MemoryUsage, Pids, Pressure,
    PressureLevel, Stats, Throttling,
};

use crate::error::Result;

/// What helps an ordinary user who may not make cgroups.
const DELEGATION: &str = "an ordinary user needs a delegated cgroup v2: start the host with \
     `systemd-run --user --scope -p Delegate=yes`, or leave the limits out";

/// How a cgroup is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The caller is not root, or root of a user namespace only. Directories it may not make are
    /// left out as long as no limit needs them, and device rules are left to the mounts.
    pub rootless: bool,
}

/// The cgroups of one container. Dropping it does nothing to them.
#[derive(Debug, Clone)]
pub struct Cgroup {
    location: Location,
    notes: Vec<String>,
    /// The groups above that were made for it.
    above: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the directories and puts all limits and device rules in force, or leaves everything
    /// as it was. [`Cgroup::location`] then is what the state file should keep: it has the
    /// directories that were really made. Blocks for as long as the kernel takes.
    ///
    /// Without `resources` the device rules of the spec's default devices apply.
    ///
    /// # Errors
    /// [`Busy`](crate::Category::Busy) when the cgroup exists with processes in it or frozen,
    /// [`Spec`](crate::Category::Spec) for a value that is wrong,
    /// [`Unsupported`](crate::Category::Unsupported) for a limit that these hierarchies lack,
    /// [`Permission`](crate::Category::Permission) for one that this user may not set, all with
    /// the pointer of the field (runtime-spec, config-linux, "Control groups").
    pub fn create(
        hierarchies: &Hierarchies,
        location: Location,
        resources: Option<&LinuxResources>,
        options: Options,
    ) -> Result<Cgroup> {
        let rules = devices::rules(resources)?;
        if let Some(resources) = resources {
            limits::check(resources)?;
        }
        let made = create::directories(hierarchies, location, options.rootless)?;
        let refusals = enable(&made.location, resources)?;
        if let Some(resources) = resources {
            let mut writer = limits::Writer::for_create(&made.location, &made.denied, refusals);
            limits::apply(resources, &mut writer)?;
        }
        if !options.rootless {
            devices::apply(&made.location, &rules, true, hierarchies.programs())?;
        }
        let notes = made.denied.iter().map(|place| {
            let note = format!("no cgroup {:?}: not permitted", place.directory());
            tracing::debug!("{note}");
            note
        });
        let notes = notes.collect();
        let above = made.made.keep(&made.location);
        Ok(Cgroup { location: made.location, notes, above })
    }

    /// The cgroups of a container made earlier, perhaps by another process. Looks at no file;
    /// directories that are gone count as empty.
    ///
    /// # Errors
    /// When the location cannot be one that [`Hierarchies::locate`] has computed.
    pub fn open(location: Location) -> Result<Cgroup> {
        location.check()?;
        Ok(Cgroup { location, notes: Vec::new(), above: Vec::new() })
    }

    /// Where the directories are.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// What [`Cgroup::create`] did not do, for want of permission, that nobody asked for.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Descriptors through which a process gets into every hierarchy.
    ///
    /// # Errors
    /// When a directory is gone or may not be written to.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        entry::all(&self.location)
    }

    /// Changes limits. Fields that are absent stay as they are, the other half of a pair (quota
    /// and period, memory and swap) included. Device rules change only if `devices` is there.
    /// On failure the limits that were already written go back.
    ///
    /// # Errors
    /// As [`Cgroup::create`]; [`Busy`](crate::Category::Busy) when `checkBeforeUpdate` is set and
    /// more memory is in use than the new limit.
    pub fn update(&self, resources: &LinuxResources, options: Options) -> Result<()> {
        limits::check(resources)?;
        let rules = match resources.devices() {
            Some(_) if !options.rootless => Some(devices::rules(Some(resources))?),
            _ => None,
        };
        let refusals = enable(&self.location, Some(resources))?;
        let mut writer = limits::Writer::for_update(&self.location, refusals, options.rootless);
        let done = limits::apply(resources, &mut writer).and_then(|()| match &rules {
            Some(rules) => devices::apply(&self.location, rules, false, &devices::Cache::default()),
            None => Ok(()),
        });
        if done.is_err() {
            writer.undo();
        }
        done
    }

    /// Gives the version 2 directory to `uid`, so that the container can make cgroups below it:
    /// the directory itself and the files the kernel lists for that, not the limits
    /// (runtime-spec, config-linux, "Cgroup ownership"). Does nothing without version 2.
    ///
    /// # Errors
    /// When the owner cannot be changed.
    pub fn delegate(&self, uid: u32) -> Result<()> {
        ownership::delegate(&self.location, uid)
    }

    /// Freezes every process, and returns once all are frozen; thaws them again if that does not
    /// happen within `patience`.
    ///
    /// # Errors
    /// [`Timeout`](crate::Category::Timeout), or [`Unsupported`](crate::Category::Unsupported)
    /// without a cgroup that can freeze.
    pub fn freeze(&self, patience: Duration) -> Result<()> {
        freeze::freeze(&self.location, Instant::now() + patience)
    }

    /// Thaws every process, whoever froze them. Does not wait.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        freeze::thaw(&self.location)
    }

    /// Whether the container is frozen, or about to be.
    ///
    /// # Errors
    /// When the state cannot be read. A cgroup that is gone is not frozen.
    pub fn is_frozen(&self) -> Result<bool> {
        freeze::is_frozen(&self.location)
    }

    /// The pids of every process in the container, sub-cgroups included, in ascending order and
    /// as this process sees them.
    ///
    /// # Errors
    /// When they cannot be read. A cgroup that is gone has none.
    pub fn pids(&self) -> Result<Vec<i32>> {
        signal::list(&self.location)
    }

    /// Sends a signal to every process, sub-cgroups included. With `SIGKILL` it is one step
    /// that no process can escape by forking (Linux 5.14). Does not wait for them to end.
    ///
    /// # Errors
    /// When the processes cannot be listed or may not be signalled.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        signal::all(&self.location, signal)
    }

    /// Kills every process and returns once none is left.
    ///
    /// # Errors
    /// [`Timeout`](crate::Category::Timeout) when some survive for longer than `patience`.
    pub fn kill(&self, patience: Duration) -> Result<()> {
        signal::kill_until_empty(&self.location, Instant::now() + patience)
    }

    /// Removes the container's directories and those below them. Directories above them stay,
    /// also `/locule`: it costs nothing, and the next container starts faster for it. A directory
    /// that was there before the container stays as well. May be called again; waits up to half
    /// a second for processes that are exiting.
    ///
    /// # Errors
    /// When processes are still in there.
    pub fn remove(&self) -> Result<()> {
        // All of them, whatever becomes of one.
        let results: Vec<Result<()>> = self.location.places.iter().map(remove::place).collect();
        results.into_iter().collect()
    }

    /// As [`Cgroup::remove`], for a creation that fails: the groups above that it has made go, too,
    /// if nobody else uses them by now.
    ///
    /// # Errors
    /// When processes are still in there.
    pub fn undo(&self) -> Result<()> {
        self.remove()?;
        for directory in self.above.iter().rev() {
            let _ = std::fs::remove_dir(directory);
        }
        Ok(())
    }

    /// Resource usage.
    ///
    /// # Errors
    /// When the cgroups are gone.
    pub fn stats(&self) -> Result<Stats> {
        stats::read(&self.location)
    }

    /// How many processes the kernel has killed here for want of memory; 0 where it cannot be told.
    ///
    /// # Errors
    /// When the count cannot be read. A cgroup that is gone has none.
    pub fn oom_kills(&self) -> Result<u64> {
        stats::oom_kills(&self.location)
    }
}

/// Enables version 2 controllers: all of them where that is the only hierarchy, for the sake of
/// [`Cgroup::stats`], else those that the resources name.
fn enable(location: &Location, resources: Option<&LinuxResources>) -> Result<create::Refusals> {
    let Some(place) = location.unified() else { return Ok(Vec::new()) };
    let mut wanted = place.controllers.clone();
    if !location.is_pure_v2() {
        let needed = resources.map(limits::controllers).unwrap_or_default();
        wanted.retain(|controller| needed.contains(controller));
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    create::enable_controllers(place, &wanted)
}

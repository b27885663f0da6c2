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
mod systemd;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;

pub use entry::Entry;
pub use hierarchy::{Hierarchies, Hierarchy, Mode};
pub use location::{Location, Place, SubCgroup, View};
pub use stats::{
    BlockIo, BlockIoEntry, Cpu, CpuUsage, HugePages, Memory, MemoryUsage, Pids, Pressure,
    PressureLevel, Stats, Throttling,
};
pub(crate) use systemd::{ANNOTATIONS, Purpose, Systemd};
pub use systemd::{Unit, Whose};
pub(crate) use watch::{Happening, Watcher};
pub use watch::{Resource, Trigger, Watch};

use crate::error::{Category, Error, Result, Stage};
use crate::launch::Deadline;

/// What helps an ordinary user who may not make cgroups.
const DELEGATION: &str = "an ordinary user needs a delegated cgroup v2: start the host with \
     `systemd-run --user --scope -p Delegate=yes`, or leave the limits out";

/// Who makes the cgroups of a runtime's containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Manager {
    /// Locule itself, with directories in every hierarchy.
    #[default]
    Cgroupfs,
    /// systemd, with a scope for each container: that of the machine for root, the user's own
    /// for an ordinary user. Needs cgroup v2 alone.
    Systemd,
    /// Nobody: containers stay in the cgroups of the process that creates them.
    None,
}

/// How long systemd may take for what nobody is waiting for.
const SYSTEMD_PATIENCE: Duration = Duration::from_secs(30);

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

    /// The same by way of systemd: starts the unit that the location has, with the occupant in it,
    /// or leaves everything as it was.
    pub(crate) fn create_in_unit(
        systemd: &Systemd,
        hierarchies: &Hierarchies,
        location: Location,
        purpose: &Purpose<'_>,
        resources: Option<&LinuxResources>,
        options: Options,
        deadline: Deadline<'_>,
    ) -> Result<Cgroup> {
        location.check()?;
        let Some(unit) = location.unit.clone() else {
            return Err(Error::new(Category::Bug, Stage::Cgroup, "the location has no unit"));
        };
        let rules = devices::rules(resources)?;
        let resources = resources.map(without_zero_pids);
        // The occupant counts as well, so one process is a limit only when it has left.
        let meanwhile = resources.clone().map(with_room_for_two);
        if let Some(resources) = &meanwhile {
            limits::check(resources)?;
        }
        systemd.start(&unit, purpose, meanwhile.as_ref(), deadline)?;
        let started = Started(Some(Cgroup { location, notes: Vec::new(), above: Vec::new() }));
        let location = started.location();
        let has_occupant = |place: &Place| {
            pids::below(&place.directory()).is_ok_and(|pids| pids.contains(&purpose.occupant))
        };
        if !location.places.iter().all(has_occupant) {
            let message = format!(
                "systemd started the unit {}, but its cgroup is not at {:?}",
                unit.name,
                location.directories().next().unwrap_or_default()
            );
            return Err(Error::new(Category::Unsupported, Stage::Cgroup, message)
                .hint("this process may see another cgroup tree, or other pids, than systemd"));
        }
        if let Some(resources) = &meanwhile {
            let refusals = systemd::refusals(location, &unit)?;
            let mut writer = limits::Writer::for_create(location, &[], refusals);
            limits::apply(resources, &mut writer)?;
        }
        if !options.rootless {
            devices::apply(location, &rules, true, hierarchies.programs())?;
        }
        Ok(started.keep())
    }

    /// Makes it possible for the keeper with this pid to start processes in the cgroup.
    pub(crate) fn bring_near(
        &self,
        hierarchies: &Hierarchies,
        keeper: i32,
        deadline: Deadline<'_>,
    ) -> Result<()> {
        let (Some(unit), Some(place)) = (&self.location.unit, self.location.unified()) else {
            return Ok(());
        };
        if create::may_enter(hierarchies, place) {
            return Ok(());
        }
        unit.bring_near(keeper, deadline)
    }

    /// Puts a limit in force that had to wait until the unit's occupant had left.
    pub(crate) fn vacated(&self, resources: Option<&LinuxResources>) -> Result<()> {
        let Some(pids) = resources.and_then(|resources| *resources.pids()) else { return Ok(()) };
        if self.location.unit.is_none() || !(0..=1).contains(&pids.limit()) {
            return Ok(());
        }
        let mut only_pids = LinuxResources::default();
        only_pids.set_pids(Some(pids));
        self.update(&only_pids, Options { rootless: true })
    }

    /// Whether what is at the location is the container's. A unit of that name may be another's,
    /// started after this container's had gone away by itself.
    pub(crate) fn belongs_to(&self, id: &str) -> bool {
        let Some(unit) = &self.location.unit else { return true };
        let patience = Deadline::within(Some(SYSTEMD_PATIENCE), None);
        unit.belongs_to(id, patience).unwrap_or_else(|error| {
            tracing::warn!(%error, unit = unit.name, "cannot ask systemd whose unit it is");
            true
        })
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
        let without_zero;
        let resources = match &self.location.unit {
            Some(_) => {
                without_zero = without_zero_pids(resources);
                &without_zero
            }
            None => resources,
        };
        limits::check(resources)?;
        let rules = match resources.devices() {
            Some(_) if !options.rootless => Some(devices::rules(Some(resources))?),
            _ => None,
        };
        let refusals = match &self.location.unit {
            Some(unit) => systemd::refusals(&self.location, unit)?,
            None => enable(&self.location, Some(resources))?,
        };
        let mut writer = limits::Writer::for_update(&self.location, refusals, options.rootless);
        let done = limits::apply(resources, &mut writer).and_then(|()| match &rules {
            Some(rules) => devices::apply(&self.location, rules, false, &devices::Cache::default()),
            None => Ok(()),
        });
        // Last, as it cannot be taken back, and from what the files say now.
        let done = done.and_then(|()| self.tell_systemd(resources));
        if done.is_err() {
            writer.undo();
        }
        done
    }

    fn tell_systemd(&self, resources: &LinuxResources) -> Result<()> {
        let Some(unit) = &self.location.unit else { return Ok(()) };
        let directory = self.location.unified().map(Place::directory).unwrap_or_default();
        let now = |name: &str| Some(file::get(&directory, name).ok()?.trim().to_owned());
        unit.update(resources, &now, Deadline::within(Some(SYSTEMD_PATIENCE), None))
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
        if let Some(unit) = &self.location.unit {
            // A systemd that cannot be reached still notices that a scope is empty.
            if let Err(error) = unit.stop(Deadline::within(Some(SYSTEMD_PATIENCE), None)) {
                tracing::warn!(%error, "a unit was not stopped");
            }
        }
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

    /// Asks the kernel to tell when something happens.
    pub(crate) fn watch(&self, watch: Watch) -> Result<Watcher> {
        Watcher::set(&self.location, watch)
    }

    /// How many processes the kernel has killed here for want of memory; 0 where it cannot be told.
    ///
    /// # Errors
    /// When the count cannot be read. A cgroup that is gone has none.
    pub fn oom_kills(&self) -> Result<u64> {
        stats::oom_kills(&self.location)
    }
}

/// A unit that was started; stopped again unless it is kept.
struct Started(Option<Cgroup>);

impl Started {
    fn location(&self) -> &Location {
        self.0.as_ref().expect("there until it is kept").location()
    }

    fn keep(mut self) -> Cgroup {
        self.0.take().expect("there until it is kept")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some(cgroup) = &self.0 else { return };
        let _ = cgroup.kill(SYSTEMD_PATIENCE);
        if let Err(error) = cgroup.remove() {
            tracing::warn!(%error, "a failed creation left a unit");
        }
    }
}

/// systemd has no limit of 0 processes. With 1 no process may fork either.
fn without_zero_pids(resources: &LinuxResources) -> LinuxResources {
    at_least(resources.clone(), 1)
}

fn with_room_for_two(resources: LinuxResources) -> LinuxResources {
    at_least(resources, 2)
}

fn at_least(mut resources: LinuxResources, least: i64) -> LinuxResources {
    if let Some(mut pids) = resources.pids().filter(|pids| (0..least).contains(&pids.limit())) {
        pids.set_limit(least);
        resources.set_pids(Some(pids));
    }
    resources
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

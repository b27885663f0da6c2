//! Making a container's directories: all of them or none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::file;
use super::freeze;
use super::hierarchy::{Hierarchies, words};
use super::location::{Location, Place};
use super::pids;
use super::remove;
use crate::error::{Category, Error, Result, Stage};

/// The directories made so far. Dropped without [`Made::keep`], it removes them again.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    /// Gives the ones that are above those of `location`.
    pub(super) fn keep(mut self, location: &Location) -> Vec<PathBuf> {
        let mut made = std::mem::take(&mut self.0);
        made.retain(|path| !location.places.iter().any(|place| place.directory() == *path));
        made
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            // A parent that another container uses by now stays: rmdir sees to that.
            let _ = fs::remove_dir(directory);
        }
    }
}

/// What making the directories came to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The directories that there are now.
    pub(super) location: Location,
    /// The ones that a rootless caller may not make.
    pub(super) denied: Vec<Place>,
    pub(super) made: Made,
}

/// Makes the directory of every place, with all controllers of its hierarchy.
pub(super) fn directories(
    hierarchies: &Hierarchies,
    location: Location,
    rootless: bool,
) -> Result<Outcome> {
    location.check()?;
    let mut outcome =
        Outcome { location: Location::default(), denied: Vec::new(), made: Made::default() };
    for mut place in location.places {
        let directory = place.directory();
        if rootless && place.unified && !may_enter(hierarchies, &place) {
            outcome.denied.push(place);
            continue;
        }
        match make(&directory, &mut outcome.made.0) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                refuse_used(&directory, &place)?;
                if place.is_ours() {
                    // What a creation left that was killed half way, with limits of its own.
                    remove::place(&place)?;
                    make(&directory, &mut outcome.made.0)
                        .map_err(|error| failed_to_make(&directory, &error))?;
                } else {
                    place.existed = true;
                }
            }
            Err(error) if rootless && is_denial(&error) => {
                outcome.denied.push(place);
                continue;
            }
            Err(error) => return Err(failed_to_make(&directory, &error)),
        }
        if !place.unified && place.controllers.iter().any(|controller| controller == "cpuset") {
            fill_cpuset(&place.mount_point, &directory)?;
        }
        outcome.location.places.push(place);
    }
    Ok(outcome)
}

fn failed_to_make(directory: &Path, error: &io::Error) -> Error {
    Error::io(Stage::Cgroup, error, format!("make the cgroup {directory:?}"))
}

fn is_denial(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
}

/// Whether the caller may start processes in the place: version 2 wants write access to
/// `cgroup.procs` of the common ancestor of where they come from and where they go.
pub(super) fn may_enter(hierarchies: &Hierarchies, place: &Place) -> bool {
    let own = hierarchies.all().iter().find(|h| h.unified).map(|h| h.own.as_path());
    let common: PathBuf = place
        .path
        .components()
        .zip(own.unwrap_or(Path::new("")).components())
        .take_while(|(a, b)| a == b)
        .map(|(component, _)| component)
        .collect();
    let procs = place.mount_point.join(common).join("cgroup.procs");
    faccessat(AT_FDCWD, &procs, AccessFlags::W_OK, AtFlags::AT_EACCESS).is_ok()
}

/// `mkdir`, parents included. Retried when a parent vanishes in between, because a failed
/// creation elsewhere removes the parents it made.
fn make(directory: &Path, made: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut attempts = 0;
    loop {
        match fs::create_dir(directory) {
            Ok(()) => {
                made.push(directory.to_owned());
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < 16 => {
                attempts += 1;
                let Some(parent) = directory.parent() else { return Err(error) };
                match make(parent, made) {
                    Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
                    _ => {}
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// A cgroup with processes in it belongs to somebody else, and one that is frozen would hang
/// the container's first process (runtime-spec, config-linux: "MAY refuse").
fn refuse_used(directory: &Path, place: &Place) -> Result<()> {
    let refuse = |message: String| {
        Err(Error::new(Category::Busy, Stage::Cgroup, message)
            .context(format!("cgroup {directory:?}"))
            .at("/linux/cgroupsPath"))
    };
    match pids::below(directory)?.len() {
        0 => {}
        count => {
            return refuse(format!("container's cgroup is not empty: {count} process(es) found"));
        }
    }
    if freeze::place_is_frozen(place)? {
        return refuse("container's cgroup unexpectedly frozen".to_owned());
    }
    Ok(())
}

/// Controllers that could not be enabled, each with the reason.
pub(super) type Refusals = Vec<(String, Error)>;

/// Enables the controllers for the place, in every cgroup above it that lacks them. A refusal is
/// no error yet: it matters only to a limit that needs the controller.
pub(super) fn enable_controllers(place: &Place, wanted: &[String]) -> Result<Refusals> {
    let directory = place.directory();
    let has = words(&file::read(&directory, "cgroup.controllers")?);
    if wanted.iter().all(|controller| has.contains(controller)) {
        return Ok(Vec::new());
    }
    let mut refusals: Refusals = Vec::new();
    let mut above: Vec<&Path> = directory
        .ancestors()
        .skip(1)
        .take_while(|path| path.starts_with(&place.mount_point))
        .collect();
    above.reverse();
    for ancestor in above {
        let enabled = words(&file::read(ancestor, "cgroup.subtree_control")?);
        let missing: Vec<&String> = wanted.iter().filter(|name| !enabled.contains(name)).collect();
        if missing.is_empty() {
            continue;
        }
        let all: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
        let threaded = would_become_threaded(ancestor)?;
        let enable = |change: &str| match threaded {
            true => Err(io::Error::from_raw_os_error(libc::EBUSY)),
            false => file::put(ancestor, "cgroup.subtree_control", change),
        };
        if enable(&all.join(" ")).is_ok() {
            continue;
        }
        // One controller that cannot be enabled (cpu with real-time processes) fails the
        // others in the same write.
        for (name, change) in missing.into_iter().zip(&all) {
            if let Err(error) = enable(change) {
                if !refusals.iter().any(|(refused, _)| refused == name) {
                    refusals.push((name.clone(), enabling_failed(ancestor, change, &error)));
                }
            }
        }
    }
    Ok(refusals)
}

/// Whether the cgroup has processes of its own. The kernel would enable some controllers all the
/// same, by making it the root of threaded cgroups, and then nothing can enter those below it.
/// Only the root of the machine may have both.
fn would_become_threaded(directory: &Path) -> Result<bool> {
    Ok(directory.join("cgroup.type").exists()
        && !file::read(directory, "cgroup.procs")?.trim().is_empty())
}

fn enabling_failed(ancestor: &Path, change: &str, error: &io::Error) -> Error {
    let refused = file::failed_to_write(ancestor, "cgroup.subtree_control", change, error);
    match error.raw_os_error() {
        Some(libc::EBUSY) => refused.hint(
            "a cgroup with processes in it cannot give controllers to its children: \
             move the host process into a child of its cgroup (systemd: DelegateSubgroup=), \
             or give an absolute cgroupsPath elsewhere",
        ),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => refused.hint(super::DELEGATION),
        _ => refused,
    }
}

/// A version 1 cpuset starts without processors, and nothing can enter it then: takes over the
/// parent's, from the top down.
fn fill_cpuset(mount_point: &Path, directory: &Path) -> Result<()> {
    let filled =
        |file: &str| -> Result<bool> { Ok(!file::read(directory, file)?.trim().is_empty()) };
    if directory == mount_point || filled("cpuset.mems")? && filled("cpuset.cpus")? {
        return Ok(());
    }
    let Some(parent) = directory.parent() else { return Ok(()) };
    fill_cpuset(mount_point, parent)?;
    for name in ["cpuset.cpus", "cpuset.mems"] {
        if !filled(name)? {
            file::write(directory, name, file::read(parent, name)?.trim())?;
        }
    }
    if parent.file_name().is_some_and(|name| name == super::location::PARENT) {
        // The kernel then does the same for the containers to come.
        let _ = file::put(parent, "cgroup.clone_children", "1");
    }
    Ok(())
}

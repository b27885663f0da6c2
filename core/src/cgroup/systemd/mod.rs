//! Cgroups as units of systemd: a transient scope for each container, in a slice.
//!
//! systemd owns the cgroups of a machine that it runs; what others make there it may take over
//! or undo. So it is asked for a scope that is delegated, and told the limits for which it has
//! properties; everything else happens in the cgroup's files, as without it. A scope goes away
//! by itself when its last process is gone, which is what cleans up after a host that was killed.

mod annotation;
mod bus;
mod name;
mod property;
mod wire;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use once_cell::sync::OnceCell;
use serde::{Deserialize, Serialize};

pub(crate) use self::annotation::PREFIX as ANNOTATIONS;
pub use self::bus::Whose;
use self::bus::{Connection, Failure};
use self::property::Properties;
use super::create::Refusals;
use super::file;
use super::hierarchy::{Hierarchies, Mode, words};
use super::location::{Location, Place};
use crate::error::{Category, Error, Result, Stage};
use crate::launch::Deadline;

const POINTER: &str = "/linux/cgroupsPath";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// The unit whose cgroup a container has. Goes into the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, such as `locule-web.scope`.
    pub name: String,
    /// The slice that it is in, such as `system.slice`.
    pub slice: String,
    /// Whose systemd has it.
    pub manager: Whose,
}

/// The systemd that a runtime works with. Asked about itself when it is first needed, and once.
#[derive(Debug)]
pub(crate) struct Systemd {
    manager: Whose,
    facts: OnceCell<Facts>,
}

/// What systemd says of itself.
#[derive(Debug, Clone)]
struct Facts {
    version: u32,
    /// The cgroup below which its units are.
    cgroup: PathBuf,
}

/// What a new unit is for.
pub(crate) struct Purpose<'a> {
    /// The container.
    pub(crate) id: &'a str,
    /// A process to begin with, as a scope cannot be empty: it is moved there, and has to leave
    /// when the container's own is there.
    pub(crate) occupant: i32,
    /// The container's annotations, as far as they are to be followed.
    pub(crate) annotations: Option<&'a HashMap<String, String>>,
}

impl Systemd {
    pub(crate) fn new(manager: Whose) -> Systemd {
        Systemd { manager, facts: OnceCell::new() }
    }

    fn facts(&self, deadline: Deadline<'_>) -> Result<&Facts> {
        self.facts.get_or_try_init(|| {
            let mut connection = Connection::open(self.manager, deadline)?;
            let cgroup = of_manager(&mut connection, "ControlGroup")?;
            Ok(Facts {
                version: version(&of_manager(&mut connection, "Version")?),
                cgroup: cgroup.trim_start_matches('/').into(),
            })
        })
    }

    /// Decides which unit a container has, and where that has its cgroup.
    ///
    /// # Errors
    /// [`Category::Spec`] when `cgroups_path` is not of the form `slice:prefix:name`;
    /// [`Category::Unsupported`] without systemd, or without cgroup v2 alone.
    pub(crate) fn locate(
        &self,
        hierarchies: &Hierarchies,
        cgroups_path: Option<&Path>,
        id: &str,
        deadline: Deadline<'_>,
    ) -> Result<Location> {
        let (slice, name) = name::of(cgroups_path, id, self.manager == Whose::User)?;
        let unsupported = |message| Error::new(Category::Unsupported, Stage::Cgroup, message);
        if hierarchies.mode() != Mode::V2 {
            return Err(unsupported("the systemd cgroup manager needs cgroup v2 alone")
                .hint("open the runtime with the cgroupfs manager, which does with version 1"));
        }
        let facts = self.facts(deadline)?;
        let path = facts.cgroup.join(name::directory_of_slice(&slice)?).join(&name);
        let places = hierarchies.all().iter().map(|hierarchy| Place {
            controllers: hierarchy.controllers.clone(),
            unified: true,
            mount_point: hierarchy.mount_point.clone(),
            path: path.clone(),
            existed: false,
        });
        let unit = Unit { name, slice, manager: self.manager };
        Ok(Location { places: places.collect(), unit: Some(unit) })
    }

    /// Starts the unit with all limits that systemd has properties for.
    pub(super) fn start(
        &self,
        unit: &Unit,
        purpose: &Purpose<'_>,
        resources: Option<&LinuxResources>,
        deadline: Deadline<'_>,
    ) -> Result<()> {
        let mut properties = scope(unit, description(purpose.id), purpose.occupant);
        properties.set("Delegate", true);
        for name in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
            properties.set(name, true);
        }
        if let Some(resources) = resources {
            let version = self.facts(deadline)?.version;
            property::add(&mut properties, resources, version, &|_| None);
        }
        if let Some(annotations) = purpose.annotations {
            annotation::add(&mut properties, annotations)?;
        }
        let mut connection = Connection::open(unit.manager, deadline)?;
        start(&mut connection, &unit.name, &properties)
            .map_err(|error| blame_annotation(error, purpose.annotations))
    }
}

impl Unit {
    /// Gives a keeper a unit beside the container's. An ordinary user may start processes in a
    /// cgroup only from within the part of the tree that is theirs, and what a login session
    /// runs is not there.
    pub(super) fn bring_near(&self, pid: i32, deadline: Deadline<'_>) -> Result<()> {
        let stem = self.name.strip_suffix(".scope").unwrap_or(&self.name);
        let name = format!("{stem:.200}-keeper-{pid}.scope");
        let properties = scope(self, format!("Locule keeper of {}", self.name), pid);
        let mut connection = Connection::open(self.manager, deadline)?;
        start(&mut connection, &name, &properties)
    }

    /// Tells systemd of changed limits. `now` reads a file of the cgroup, where they are in force.
    pub(super) fn update(
        &self,
        resources: &LinuxResources,
        now: &dyn Fn(&str) -> Option<String>,
        deadline: Deadline<'_>,
    ) -> Result<()> {
        let mut connection = Connection::open(self.manager, deadline)?;
        let version = version(&of_manager(&mut connection, "Version")?);
        let mut properties = Properties::default();
        property::add(&mut properties, resources, version, now);
        if properties.is_empty() {
            return Ok(());
        }
        // For as long as the unit lives, which is what `true` means.
        let body = (self.name.as_str(), true, properties.list());
        connection
            .manager("SetUnitProperties", &body)
            .map(drop)
            .map_err(|failure| failure.into_error(&format!("change the unit {}", self.name)))
    }

    /// Whether the unit is there, and this container's: one of that name may be another's.
    pub(super) fn belongs_to(&self, id: &str, deadline: Deadline<'_>) -> Result<bool> {
        let mut connection = Connection::open(self.manager, deadline)?;
        let path = name::object_path(&self.name);
        connection
            .property(&path, "org.freedesktop.systemd1.Unit", "Description")
            .map(|found| found == description(id))
            .map_err(|failure| failure.into_error(&format!("ask about the unit {}", self.name)))
    }

    /// Stops the unit, whose processes are dead, and has systemd forget it. One that is gone
    /// already is fine.
    pub(super) fn stop(&self, deadline: Deadline<'_>) -> Result<()> {
        let mut connection = Connection::open(self.manager, deadline)?;
        let attempt = format!("stop the unit {}", self.name);
        match job(&mut connection, "StopUnit", &(self.name.as_str(), "replace")) {
            // Its result tells nothing: with or without one, no process is left to wait for.
            Ok(_) => {}
            Err(failure) if failure.is(NO_SUCH_UNIT) => return Ok(()),
            Err(failure) => return Err(failure.into_error(&attempt)),
        }
        match connection.manager("ResetFailedUnit", &self.name.as_str()) {
            Err(failure) if !failure.is(NO_SUCH_UNIT) => Err(failure.into_error(&attempt)),
            _ => Ok(()),
        }
    }
}

/// The controllers that systemd has not given to the unit, each with the reason why a limit that
/// needs it cannot be set.
pub(super) fn refusals(location: &Location, unit: &Unit) -> Result<Refusals> {
    let Some(place) = location.unified() else { return Ok(Vec::new()) };
    let given = words(&file::read(&place.directory(), "cgroup.controllers")?);
    let missing = place.controllers.iter().filter(|controller| !given.contains(controller));
    let refuse = |controller: &String| {
        let message = format!("systemd gives the {controller} controller to no unit in this place");
        let error = Error::new(Category::Unsupported, Stage::Cgroup, message);
        let error = match unit.manager {
            Whose::System => error,
            Whose::User => error.hint(
                "have root give it to users: `systemctl edit user@.service` with the lines \
                 [Service] and Delegate=cpu cpuset io memory pids",
            ),
        };
        (controller.clone(), error)
    };
    Ok(missing.map(refuse).collect())
}

/// A property of systemd itself.
fn of_manager(connection: &mut Connection<'_>, name: &str) -> Result<String> {
    connection
        .property("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", name)
        .map_err(|failure| failure.into_error("ask systemd about itself"))
}

fn description(id: &str) -> String {
    format!("Locule container {id}")
}

/// What every scope of ours is: it has one process, no order among other units, and does not
/// stay when it has failed.
fn scope(unit: &Unit, description: String, occupant: i32) -> Properties {
    let mut properties = Properties::default();
    properties.set("Description", description);
    properties.set("Slice", unit.slice.clone());
    properties.set("PIDs", vec![occupant as u32]);
    properties.set("CollectMode", "inactive-or-failed");
    properties.set("DefaultDependencies", false);
    properties
}

fn start(connection: &mut Connection<'_>, name: &str, properties: &Properties) -> Result<()> {
    let attempt = format!("start the unit {name}");
    let none: Vec<(&str, Vec<(&str, zvariant::Value<'_>)>)> = Vec::new();
    let body = (name, "fail", properties.list(), none);
    let mut result = job(connection, "StartTransientUnit", &body);
    if result.as_ref().is_err_and(|failure| failure.is(UNIT_EXISTS)) {
        // One that has failed, and was not made by us, stays until it is told to go.
        let _ = connection.manager("ResetFailedUnit", &name);
        result = job(connection, "StartTransientUnit", &body);
    }
    match result {
        Ok(result) if result == "done" => Ok(()),
        Ok(result) => Err(Error::new(
            Category::System,
            Stage::Cgroup,
            format!("{attempt}: systemd's job ended as {result:?}"),
        )
        .hint(format!("see `systemctl status {name}` and systemd's journal"))),
        Err(failure) if failure.is(UNIT_EXISTS) => {
            let message = format!("{attempt}: there is a unit of that name already");
            Err(Error::new(Category::Busy, Stage::Cgroup, message).at(POINTER))
        }
        Err(failure) => Err(failure.into_error(&attempt).at(POINTER)),
    }
}

/// Has systemd do something, and waits for the result.
fn job<B: Serialize + zvariant::Type>(
    connection: &mut Connection<'_>,
    method: &str,
    body: &B,
) -> Result<String, Failure> {
    let answer = connection.manager(method, body)?;
    let path: zvariant::ObjectPath<'_> = answer.body().map_err(bus::unreadable)?;
    connection.job_result(path.as_str()).map_err(Failure::Broken)
}

/// Says which annotation is wrong if systemd does not take a property. It names one that it does
/// not know, but not one whose value has the wrong type.
fn blame_annotation(error: Error, annotations: Option<&HashMap<String, String>>) -> Error {
    let ours = |key: &'_ String| key.strip_prefix(ANNOTATIONS).map(str::to_owned);
    let names: Vec<String> =
        annotations.into_iter().flat_map(HashMap::keys).filter_map(ours).collect();
    if error.category() != Category::Spec || names.is_empty() {
        return error;
    }
    let message = error.to_string();
    let named = |name: &&String| message.split(|c: char| !c.is_alphanumeric()).any(|w| w == *name);
    match (names.iter().find(named), names.as_slice()) {
        (Some(name), _) => error.at(annotation::pointer(name)),
        (None, [name]) => error.at(annotation::pointer(name)),
        (None, _) => error.at("/annotations"),
    }
}

/// The number in `252.39-1~deb12u2`, `v244-rc1` or `systemd 239`; 0 if there is none.
fn version(text: &str) -> u32 {
    let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number() {
        assert_eq!(version("252.39-1~deb12u2"), 252);
        assert_eq!(version("v244-rc1"), 244);
        assert_eq!(version("systemd 239"), 239);
        assert_eq!(version("unknown"), 0);
    }

    #[test]
    fn a_property_that_systemd_does_not_take_is_blamed_on_the_annotation_that_set_it() {
        let annotations = [("org.systemd.property.Foo".to_owned(), "1".to_owned())].into();
        let refused = |message: &str| {
            let error = Error::new(Category::Spec, Stage::Cgroup, message).at(POINTER);
            blame_annotation(error, Some(&annotations)).pointer().unwrap().to_owned()
        };
        let said = "Cannot set property Foo, or unknown property.";
        assert_eq!(refused(said), "/annotations/org.systemd.property.Foo");
        assert_eq!(refused("wrong type"), "/annotations/org.systemd.property.Foo");
    }

    #[test]
    fn a_container_is_in_the_cgroup_of_its_scope_below_the_managers() {
        let systemd = Systemd {
            manager: Whose::User,
            facts: OnceCell::with_value(Facts { version: 252, cgroup: "u/user@7.service".into() }),
        };
        let hierarchy = |unified| super::super::Hierarchy {
            controllers: vec!["cpu".into()],
            unified,
            mount_point: "/sys/fs/cgroup".into(),
            own: PathBuf::new(),
            parent_writable: false,
        };
        let deadline = Deadline::within(None, None);
        let locate = |path: &str, unified| {
            let hierarchies = Hierarchies::from_list(vec![hierarchy(unified)]);
            systemd.locate(&hierarchies, Some(Path::new(path)), "box", deadline)
        };
        let location = locate("a-b.slice:p:n", true).unwrap();
        assert_eq!(
            location.places()[0].directory(),
            Path::new("/sys/fs/cgroup/u/user@7.service/a.slice/a-b.slice/p-n.scope")
        );
        assert_eq!(location.unit().unwrap().name, "p-n.scope");
        assert_eq!(locate("", true).unwrap().unit().unwrap().slice, "user.slice");
        assert_eq!(locate("", false).unwrap_err().category(), Category::Unsupported);
    }
}

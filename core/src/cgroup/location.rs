//! Where one container's cgroups are: the directory in every hierarchy in use.
//!
//! Pure: computed from [`Hierarchies`] and the spec's `cgroupsPath`, and kept in the
//! container's state file, so that any process can find the cgroups again.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::hierarchy::Hierarchies;
use super::systemd::Unit;
use crate::error::{Category, Error, Result, Stage};

/// The directory below which containers without an absolute `cgroupsPath` live.
pub(super) const PARENT: &str = "locule";

/// The container's directory in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The controllers of the hierarchy, or `name=x`.
    pub controllers: Vec<String>,
    /// Whether it is the unified (version 2) hierarchy.
    pub unified: bool,
    /// Where the hierarchy is mounted on the host.
    pub mount_point: PathBuf,
    /// The container's directory, relative to `mount_point`. Never empty, never with `..`.
    pub path: PathBuf,
    /// The directory was there before the container, so removing the container leaves it.
    #[serde(default)]
    pub existed: bool,
}

impl Place {
    /// The container's directory as an absolute path.
    pub fn directory(&self) -> PathBuf {
        self.mount_point.join(&self.path)
    }

    /// Whether the place is below `locule`, where nobody else makes cgroups.
    pub(super) fn is_ours(&self) -> bool {
        self.path.parent().is_some_and(|parent| parent.iter().any(|name| name == PARENT))
    }
}

/// The container's directories in all hierarchies in use. Goes into the state file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    pub(super) places: Vec<Place>,
    /// The unit whose cgroup this is, where systemd made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<Unit>,
}

/// A cgroup below the container's, for a process that is to run there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubCgroup {
    /// In the hierarchies of these controllers; in all if there are none.
    pub controllers: Vec<String>,
    /// The directory, relative to the container's. It has to be there.
    pub path: PathBuf,
}

/// What a container that mounts `cgroup` sees of one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The hierarchy's controllers, or `name=x`.
    pub controllers: Vec<String>,
    /// Whether it is the unified (version 2) hierarchy: type `cgroup2`, no options.
    pub unified: bool,
    /// Its directory under the container's `/sys/fs/cgroup`, such as `cpu,cpuacct`. Not used
    /// where the unified hierarchy is the only one: that is mounted on `/sys/fs/cgroup` itself.
    pub name: String,
    /// The container's cgroup on the host, the source of a bind where there is no cgroup namespace.
    pub source: PathBuf,
    /// Data for `mount(2)` of type `cgroup`; empty for the unified hierarchy.
    pub options: String,
    /// Names beside `name` that link to it, such as `cpu`.
    pub links: Vec<String>,
}

impl Location {
    /// Whether there is no cgroup at all.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The container's directory in every hierarchy.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The same, but below in some of the hierarchies.
    ///
    /// # Errors
    /// [`Invalid`](Category::Invalid) for a path that leads out, or a controller that nobody has.
    pub(crate) fn below(&self, subs: &[SubCgroup]) -> Result<Location> {
        let invalid = |message| Err(Error::new(Category::Invalid, Stage::Arguments, message));
        let mut below = self.clone();
        for sub in subs {
            let path = sub.path.strip_prefix("/").unwrap_or(&sub.path);
            if path
                .components()
                .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
            {
                return invalid(format!("bad sub cgroup path: {:?}", sub.path));
            }
            let whole = sub.controllers.is_empty();
            for controller in &sub.controllers {
                if !below.places.iter().any(|place| place.controllers.contains(controller)) {
                    return invalid(format!("unknown controller {controller} in a sub cgroup"));
                }
            }
            for (place, own) in below.places.iter_mut().zip(&self.places) {
                if whole || place.controllers.iter().any(|one| sub.controllers.contains(one)) {
                    place.path = own.path.join(path);
                }
            }
        }
        Ok(below)
    }

    /// The unit whose cgroup this is, if systemd makes and removes it.
    pub fn unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// The absolute directories, the order in which they are made.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.places.iter().map(Place::directory)
    }

    /// Whether the unified hierarchy is the only one in use.
    pub fn is_pure_v2(&self) -> bool {
        !self.places.is_empty() && self.places.iter().all(|place| place.unified)
    }

    /// The directory in the unified hierarchy.
    pub fn unified(&self) -> Option<&Place> {
        self.places.iter().find(|place| place.unified)
    }

    /// The directory that has the controller, be it version 1 or 2.
    pub fn controller(&self, name: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.controllers.iter().any(|c| c == name))
    }

    /// What a `cgroup` mount in the container is made of, one entry for each hierarchy.
    pub fn views(&self) -> Vec<View> {
        self.places.iter().map(view).collect()
    }

    /// Refuses what this module never writes: a state file is not to be trusted with `rmdir`.
    pub(super) fn check(&self) -> Result<()> {
        for place in &self.places {
            if !place.mount_point.is_absolute() || normal(&place.path).is_none() {
                return Err(Error::new(
                    Category::Invalid,
                    Stage::Cgroup,
                    format!("the cgroup {:?} is not one of a container", place.directory()),
                ));
            }
        }
        Ok(())
    }
}

fn view(place: &Place) -> View {
    let name = match place.mount_point.file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => place.controllers.join(","),
    };
    let options = match (place.unified, place.controllers.join(",")) {
        (true, _) => String::new(),
        (false, list) if list.starts_with("name=") => format!("none,{list}"),
        (false, list) => list,
    };
    let links = match place.unified {
        true => Vec::new(),
        false => {
            place.controllers.iter().filter(|c| **c != name && !c.contains('=')).cloned().collect()
        }
    };
    View {
        controllers: place.controllers.clone(),
        unified: place.unified,
        source: place.directory(),
        name,
        options,
        links,
    }
}

/// The path without `/` and `.`, or nothing if it has `..` or nothing is left.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (!plain.as_os_str().is_empty()).then_some(plain)
}

/// Whether it has the form `slice:prefix:name`, which means a unit, and no directory.
fn is_of_systemd(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    !text.contains(&b'/') && text.iter().filter(|byte| **byte == b':').count() == 2
}

impl Hierarchies {
    /// Decides where a container's cgroups go. Pure: looks at no file.
    ///
    /// An absolute `cgroups_path` counts from the root of each hierarchy as mounted. A relative
    /// one counts from `/locule`, and an absent one means the id there; so the same value always
    /// means the same place. For a rootless caller, `locule` is below the parent of its
    /// own cgroup where it may write there (processes in a cgroup keep its children from having
    /// controllers, so the caller's own is second best), else below its own cgroup.
    ///
    /// # Errors
    /// [`Category::Spec`] when the path has `..` or names the root itself
    /// (runtime-spec, config-linux, `cgroupsPath`); [`Category::Unsupported`] when it is one for
    /// systemd.
    pub fn locate(
        &self,
        cgroups_path: Option<&Path>,
        id: &str,
        rootless: bool,
    ) -> Result<Location> {
        let asked = cgroups_path.filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = asked.filter(|path| is_of_systemd(path)) {
            return Err(Error::new(
                Category::Unsupported,
                Stage::Cgroup,
                format!(
                    "cgroupsPath {path:?} is for the systemd cgroup manager, and this runtime was \
                     opened with the cgroupfs one"
                ),
            )
            .at("/linux/cgroupsPath")
            .hint(
                "open the runtime with the systemd manager, or give a path such as \"/my/web\"",
            ));
        }
        let refuse = |path: &Path| {
            Error::new(
                Category::Spec,
                Stage::Cgroup,
                format!("cgroupsPath {path:?} leaves its hierarchy or names its root"),
            )
            .at("/linux/cgroupsPath")
        };
        let (absolute, path) = match asked {
            Some(path) => (path.is_absolute(), normal(path).ok_or_else(|| refuse(path))?),
            None => (false, normal(Path::new(id)).ok_or_else(|| refuse(Path::new(id)))?),
        };
        let places = self.all().iter().map(|hierarchy| {
            let base = match (absolute, rootless) {
                (true, _) => PathBuf::new(),
                (false, false) => PathBuf::from(PARENT),
                (false, true) => match hierarchy.own.parent() {
                    Some(parent) if hierarchy.parent_writable => parent.join(PARENT),
                    _ => hierarchy.own.join(PARENT),
                },
            };
            Place {
                controllers: hierarchy.controllers.clone(),
                unified: hierarchy.unified,
                mount_point: hierarchy.mount_point.clone(),
                path: base.join(&path),
                existed: false,
            }
        });
        Ok(Location { places: places.collect(), unit: None })
    }
}

#[cfg(test)]
mod tests {
    use super::super::hierarchy::Hierarchy;
    use super::*;

    fn hierarchy(controllers: &[&str], unified: bool, point: &str, own: &str) -> Hierarchy {
        Hierarchy {
            controllers: controllers.iter().map(|c| (*c).to_owned()).collect(),
            unified,
            mount_point: point.into(),
            own: own.into(),
            parent_writable: false,
        }
    }

    fn v2(own: &str, parent_writable: bool) -> Hierarchies {
        let mut one = hierarchy(&["memory"], true, "/sys/fs/cgroup", own);
        one.parent_writable = parent_writable;
        Hierarchies::from_list(vec![one])
    }

    fn located(hierarchies: &Hierarchies, path: Option<&str>, rootless: bool) -> PathBuf {
        let location = hierarchies.locate(path.map(Path::new), "web", rootless).unwrap();
        location.directories().next().unwrap()
    }

    #[test]
    fn an_absolute_path_counts_from_the_mount_root() {
        assert_eq!(
            located(&v2("u", false), Some("/kube/pod1/./c"), false),
            Path::new("/sys/fs/cgroup/kube/pod1/c")
        );
        assert_eq!(located(&v2("u", false), Some("/x"), true), Path::new("/sys/fs/cgroup/x"));
    }

    #[test]
    fn roots_other_containers_live_below_locule() {
        assert_eq!(located(&v2("u", false), None, false), Path::new("/sys/fs/cgroup/locule/web"));
        assert_eq!(
            located(&v2("u", false), Some("a/b"), false),
            Path::new("/sys/fs/cgroup/locule/a/b")
        );
        assert_eq!(
            located(&v2("u", false), Some(""), false),
            Path::new("/sys/fs/cgroup/locule/web")
        );
    }

    #[test]
    fn a_users_containers_live_beside_its_own_cgroup_where_it_may_write() {
        assert_eq!(
            located(&v2("user/app/host", true), None, true),
            Path::new("/sys/fs/cgroup/user/app/locule/web")
        );
        assert_eq!(
            located(&v2("user/app/host", false), None, true),
            Path::new("/sys/fs/cgroup/user/app/host/locule/web")
        );
    }

    #[test]
    fn a_path_that_escapes_is_refused() {
        for path in ["/a/../../b", "..", "/", ".", "a/../b"] {
            let error = v2("", false).locate(Some(Path::new(path)), "web", false).unwrap_err();
            assert_eq!(error.category(), Category::Spec, "{path}");
            assert_eq!(error.pointer(), Some("/linux/cgroupsPath"));
        }
    }

    #[test]
    fn a_unit_of_systemd_is_not_taken_for_a_directory() {
        let locate = |path: &str| v2("", false).locate(Some(Path::new(path)), "web", false);
        let error = locate("system.slice:docker:abc").unwrap_err();
        assert_eq!(error.category(), Category::Unsupported);
        assert_eq!(error.pointer(), Some("/linux/cgroupsPath"));
        assert!(locate("/pods/a:b:c").is_ok() && locate("a:b").is_ok());
    }

    #[test]
    fn comounted_controllers_are_one_view_with_links() {
        let all = Hierarchies::from_list(vec![
            hierarchy(&["cpu", "cpuacct"], false, "/sys/fs/cgroup/cpu,cpuacct", ""),
            hierarchy(&["memory"], false, "/sys/fs/cgroup/memory", ""),
            hierarchy(&["name=systemd"], false, "/sys/fs/cgroup/systemd", ""),
            hierarchy(&[], true, "/sys/fs/cgroup/unified", ""),
        ]);
        let views = all.locate(None, "web", false).unwrap().views();
        let brief: Vec<_> = views
            .iter()
            .map(|view| (view.name.as_str(), view.options.as_str(), view.links.join(" ")))
            .collect();
        assert_eq!(
            brief,
            [
                ("cpu,cpuacct", "cpu,cpuacct", "cpu cpuacct".to_owned()),
                ("memory", "memory", String::new()),
                ("systemd", "none,name=systemd", String::new()),
                ("unified", "", String::new()),
            ]
        );
        assert_eq!(views[1].source, Path::new("/sys/fs/cgroup/memory/locule/web"));
    }

    #[test]
    fn a_location_survives_the_state_file_and_a_forged_one_is_refused() {
        let location = v2("", false).locate(None, "web", false).unwrap();
        let text = serde_json::to_string(&location).unwrap();
        assert_eq!(serde_json::from_str::<Location>(&text).unwrap(), location);
        assert!(location.check().is_ok());
        let forged: Location =
            serde_json::from_str(&text.replace("locule/web", "a/../..")).unwrap();
        assert!(forged.check().is_err());
    }
}

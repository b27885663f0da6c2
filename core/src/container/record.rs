//! What the state directory remembers of a container, and the state document made from it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::pidfd::Identity;
use crate::Category;
use crate::cgroup::Location;
use crate::plugin::Change;
use crate::resctrl::Group;
use crate::spec::{self, oci};

/// The status of a container (runtime-spec, runtime.md; `Paused` is runc's fifth).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Being set up.
    Creating,
    /// Waiting for start.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Its first process is dead.
    Stopped,
}

impl Status {
    /// The name in the state document.
    pub fn name(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// The state of a container.
#[derive(Debug, Clone)]
pub struct State {
    /// The container's id.
    pub id: String,
    /// Its status.
    pub status: Status,
    /// Pid of the first process as the host sees it; 0 when stopped.
    pub pid: i32,
    /// The bundle directory, absolute.
    pub bundle: PathBuf,
    /// The whole state document as JSON, with runc's additions `rootfs`, `created` (RFC 3339,
    /// nanoseconds, UTC) and `owner` (empty for root); and with `changes` if plugins have made
    /// some, an array of what [`Change`] describes.
    pub document: Value,
}

/// `state.json`: written when the container is begun, so that whoever comes after a crash knows
/// what to clean up.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Format of this file.
    pub version: u32,
    pub id: String,
    /// JSON is UTF-8: of a path that is not, the state document has a likeness.
    #[serde(serialize_with = "lossy")]
    pub bundle: PathBuf,
    /// When it was created: RFC 3339.
    pub created: String,
    /// Effective user id of the creator.
    pub owner: u32,
    /// The process that created it.
    pub host: Identity,
    /// Whether it outlives that process.
    pub detached: bool,
    /// Whether a keeper stays with it.
    pub keeper: bool,
    /// The first process; absent until the container is created. On a line of its own.
    #[serde(skip)]
    pub init: Option<Identity>,
    pub cgroup: Location,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<Group>,
    /// The directory that keeps the changes to the root: whoever opens the container has to find it,
    /// so it is not a likeness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<OsString>,
    /// The file in an image store by which the container's layers are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<OsString>,
    /// The configuration as it was given: later changes to config.json do not matter.
    pub config: Box<RawValue>,
}

fn lossy<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

impl Record {
    pub(super) const VERSION: u32 = 2;

    /// Reads the file; or why not. The version comes first: another one may have other fields.
    pub(super) fn read(json: &[u8]) -> Result<Record, (Category, String)> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let damaged = |e: serde_json::Error| (Category::System, format!("is damaged: {e}"));
        let mut versions = serde_json::Deserializer::from_slice(json).into_iter::<Version>();
        let Version { version } = match versions.next() {
            Some(version) => version.map_err(damaged)?,
            None => return Err((Category::System, "is empty".to_owned())),
        };
        // The configuration has line breaks of its own, so only a parser knows where it ends.
        let (json, init) = json.split_at(versions.byte_offset());
        if version != Record::VERSION {
            let why = format!("was written by another version of Locule, in format {version}");
            return Err((Category::Unsupported, why));
        }
        let mut record: Record = serde_json::from_slice(json).map_err(damaged)?;
        if !init.trim_ascii().is_empty() {
            record.init = Some(serde_json::from_slice(init).map_err(damaged)?);
        }
        Ok(record)
    }

    pub(super) fn state(&self, spec: &oci::Spec, status: Status, changes: &[Change]) -> State {
        let pid = match (status, self.init) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(init)) => init.pid,
        };
        let mut document = Map::new();
        document.insert("ociVersion".into(), json!(spec::OCI_VERSION));
        document.insert("id".into(), json!(self.id));
        document.insert("pid".into(), json!(pid));
        document.insert("status".into(), json!(status.name()));
        document.insert("bundle".into(), json!(self.bundle.to_string_lossy()));
        if let Some(root) = spec.root() {
            let rootfs = self.bundle.join(root.path());
            document.insert("rootfs".into(), json!(rootfs.to_string_lossy()));
        }
        document.insert("created".into(), json!(self.created));
        if let Some(annotations) = spec.annotations().as_ref().filter(|map| !map.is_empty()) {
            let sorted: BTreeMap<_, _> = annotations.iter().collect();
            document.insert("annotations".into(), json!(sorted));
        }
        let owner = if self.owner == 0 { String::new() } else { self.owner.to_string() };
        document.insert("owner".into(), json!(owner));
        if !changes.is_empty() {
            document.insert("changes".into(), json!(changes));
        }
        State {
            id: self.id.clone(),
            status,
            pid,
            bundle: self.bundle.clone(),
            document: document.into(),
        }
    }
}

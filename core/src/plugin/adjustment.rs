//! What a plugin can ask for, and what that means in a configuration.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::place::{Known, Place, at, capability, path, plain};
use crate::spec::oci;

/// A change that a plugin asks for. As JSON its name is in `adjust`:
/// `{"adjust": "set-env", "name": "HOME", "value": "/root"}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "adjust",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
#[non_exhaustive]
pub enum Adjustment {
    /// Sets an annotation.
    SetAnnotation {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Removes an annotation.
    RemoveAnnotation {
        /// Its key.
        key: String,
    },
    /// Sets a variable of the program's environment.
    SetEnv {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Removes a variable from the program's environment.
    RemoveEnv {
        /// Its name.
        name: String,
    },
    /// Adds a mount after those that are there, or replaces what is at this destination.
    SetMount(Mount),
    /// Removes the mounts at a destination.
    RemoveMount {
        /// The destination.
        destination: String,
    },
    /// Adds a device node, or replaces the one at this path, and allows its use.
    SetDevice(Device),
    /// Removes a device node. The rule that allows the use of its number stays.
    RemoveDevice {
        /// Its path in the container.
        path: String,
    },
    /// Sets a limit by its place in `linux.resources`, such as `memory/limit`.
    SetResource {
        /// The place.
        name: String,
        /// The value, in decimal where it is a number.
        value: String,
    },
    /// Sets a file of the container's cgroup of version 2.
    SetUnified {
        /// The file's name, such as `memory.high`.
        file: String,
        /// What to write.
        value: String,
    },
    /// Sets a resource limit of the program.
    SetRlimit {
        /// Its name, such as `RLIMIT_NOFILE`.
        kind: String,
        /// In decimal, or `unlimited`.
        soft: String,
        /// In decimal, or `unlimited`.
        hard: String,
    },
    /// Removes a resource limit: the program gets the caller's.
    RemoveRlimit {
        /// Its name.
        kind: String,
    },
    /// Sets what is run.
    SetArgs {
        /// The program and its arguments.
        args: Vec<String>,
    },
    /// Sets the directory in which it is run.
    SetCwd {
        /// An absolute path in the container.
        path: String,
    },
    /// Sets as whom it is run.
    SetUser {
        /// User id in the container.
        uid: u32,
        /// Group id in the container.
        gid: u32,
        /// Further group ids.
        #[serde(default)]
        additional_gids: Vec<u32>,
    },
    /// Sets how early the kernel kills it when memory is short, -1000 to 1000.
    SetOomScoreAdj {
        /// The value.
        value: i32,
    },
    /// Gives the container a namespace of a kind.
    SetNamespace {
        /// `network`, `pid`, ...
        kind: String,
        /// That at this path; a new one if `None`.
        #[serde(default)]
        path: Option<String>,
    },
    /// Leaves the container in the caller's namespace of a kind.
    RemoveNamespace {
        /// `network`, `pid`, ...
        kind: String,
    },
    /// Takes a capability out of every set.
    DropCapability {
        /// `CAP_...`
        name: String,
    },
    /// Puts a capability into the bounding, the effective and the permitted set.
    AddCapability {
        /// `CAP_...`
        name: String,
    },
    /// Says whether the program may gain privileges by executing others.
    SetNoNewPrivileges {
        /// Whether it may not.
        value: bool,
    },
    /// Sets the seccomp profile.
    SetSeccomp {
        /// JSON, as in `linux.seccomp`.
        profile: String,
    },
    /// Sets the AppArmor profile.
    SetApparmorProfile {
        /// Its name.
        name: String,
    },
    /// Sets the SELinux label of the program.
    SetSelinuxLabel {
        /// The label.
        label: String,
    },
    /// Hides a path.
    MaskPath {
        /// An absolute path in the container.
        path: String,
    },
    /// Makes a path read-only.
    WriteProtectPath {
        /// An absolute path in the container.
        path: String,
    },
    /// Says whether the root filesystem is read-only.
    SetRootReadOnly {
        /// Whether it is.
        value: bool,
    },
    /// Adds a hook after those that are there.
    AddHook {
        /// `createRuntime`, ...
        kind: String,
        /// The hook.
        hook: Hook,
    },
    /// Merges a JSON merge patch (RFC 7396) into the configuration.
    Merge {
        /// The patch, JSON.
        patch: String,
    },
}

/// As in the configuration's `mounts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Where it is in the container, absolute.
    pub destination: String,
    /// `bind`, or a type of filesystem.
    pub kind: String,
    /// A path on the host, or what the filesystem takes as its source.
    pub source: String,
    /// Options of `mount(8)`.
    #[serde(default)]
    pub options: Vec<String>,
}

/// A device node, and what the container may do with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Where it is in the container, absolute.
    pub path: String,
    /// `c`, `b`, `u` or `p`.
    pub kind: String,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions of the node; 0o666 if `None`.
    #[serde(default)]
    pub mode: Option<u32>,
    /// Owner in the container.
    #[serde(default)]
    pub uid: u32,
    /// Group in the container.
    #[serde(default)]
    pub gid: u32,
    /// Any of `r`, `w` and `m`.
    pub access: String,
}

/// A program that is run at a point of a container's life, on the host with its privileges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// The program, an absolute path.
    pub path: String,
    /// Its arguments, its name first.
    #[serde(default)]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds; `None` for as long as it takes.
    #[serde(default)]
    pub timeout: Option<u32>,
}

/// A place, and what is to be there.
pub(super) type Edit = (Place, Option<Value>);

impl Adjustment {
    /// Its name, as in its JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Adjustment::SetAnnotation { .. } => "set-annotation",
            Adjustment::RemoveAnnotation { .. } => "remove-annotation",
            Adjustment::SetEnv { .. } => "set-env",
            Adjustment::RemoveEnv { .. } => "remove-env",
            Adjustment::SetMount(_) => "set-mount",
            Adjustment::RemoveMount { .. } => "remove-mount",
            Adjustment::SetDevice(_) => "set-device",
            Adjustment::RemoveDevice { .. } => "remove-device",
            Adjustment::SetResource { .. } => "set-resource",
            Adjustment::SetUnified { .. } => "set-unified",
            Adjustment::SetRlimit { .. } => "set-rlimit",
            Adjustment::RemoveRlimit { .. } => "remove-rlimit",
            Adjustment::SetArgs { .. } => "set-args",
            Adjustment::SetCwd { .. } => "set-cwd",
            Adjustment::SetUser { .. } => "set-user",
            Adjustment::SetOomScoreAdj { .. } => "set-oom-score-adj",
            Adjustment::SetNamespace { .. } => "set-namespace",
            Adjustment::RemoveNamespace { .. } => "remove-namespace",
            Adjustment::DropCapability { .. } => "drop-capability",
            Adjustment::AddCapability { .. } => "add-capability",
            Adjustment::SetNoNewPrivileges { .. } => "set-no-new-privileges",
            Adjustment::SetSeccomp { .. } => "set-seccomp",
            Adjustment::SetApparmorProfile { .. } => "set-apparmor-profile",
            Adjustment::SetSelinuxLabel { .. } => "set-selinux-label",
            Adjustment::MaskPath { .. } => "mask-path",
            Adjustment::WriteProtectPath { .. } => "write-protect-path",
            Adjustment::SetRootReadOnly { .. } => "set-root-read-only",
            Adjustment::AddHook { .. } => "add-hook",
            Adjustment::Merge { .. } => "merge",
        }
    }

    /// What it means in this configuration; or what is wrong with it. What only the configuration
    /// as a whole can tell is checked when all plugins are done.
    pub(super) fn edits(&self, document: &Value) -> Result<Vec<Edit>, String> {
        Ok(match self {
            Adjustment::SetAnnotation { key, value } => {
                check_text("value", value)?;
                vec![(annotation(key)?, Some(json!(value)))]
            }
            Adjustment::RemoveAnnotation { key } => vec![(annotation(key)?, None)],
            Adjustment::SetEnv { name, value } => {
                check_text("value", value)?;
                vec![(variable(name)?, Some(json!(format!("{name}={value}"))))]
            }
            Adjustment::RemoveEnv { name } => vec![(variable(name)?, None)],
            Adjustment::SetMount(mount) => {
                let place = mount_at(&mount.destination)?;
                check_text("kind", &mount.kind)?;
                check_text("source", &mount.source)?;
                check_texts("options", &mount.options)?;
                let mut value = json!({ "destination": plain(&mount.destination) });
                if !mount.kind.is_empty() {
                    value["type"] = json!(mount.kind);
                }
                if !mount.source.is_empty() {
                    value["source"] = json!(mount.source);
                }
                value["options"] = json!(mount.options);
                vec![(place, Some(value))]
            }
            Adjustment::RemoveMount { destination } => vec![(mount_at(destination)?, None)],
            Adjustment::SetDevice(device) => device.edits(document)?,
            Adjustment::RemoveDevice { path } => vec![(device_at(path)?, None)],
            Adjustment::SetResource { name, value } => resource(name, value)?,
            Adjustment::SetUnified { file, value } => {
                check_word("file", file)?;
                check_text("value", value)?;
                let mut place = path("/linux/resources/unified");
                place.push(file.clone());
                vec![(Place::Member(place), Some(json!(value)))]
            }
            Adjustment::SetRlimit { kind, soft, hard } => {
                let place = rlimit_of(kind)?;
                let (soft, hard) = (rlimit("soft", soft)?, rlimit("hard", hard)?);
                if soft > hard {
                    return Err(format!("`soft` {soft} is above `hard` {hard}"));
                }
                vec![(place, Some(json!({ "type": kind, "hard": hard, "soft": soft })))]
            }
            Adjustment::RemoveRlimit { kind } => vec![(rlimit_of(kind)?, None)],
            Adjustment::SetArgs { args } => {
                if args.first().is_none_or(String::is_empty) {
                    return Err("`args` names no program".to_owned());
                }
                check_texts("args", args)?;
                vec![member("/process/args", json!(args))]
            }
            Adjustment::SetCwd { path } => {
                check_absolute("path", path)?;
                vec![member("/process/cwd", json!(path))]
            }
            Adjustment::SetUser { uid, gid, additional_gids } => {
                let groups = Place::Member(path("/process/user/additionalGids"));
                let additional =
                    Some(json!(additional_gids)).filter(|_| !additional_gids.is_empty());
                vec![
                    member("/process/user/uid", json!(uid)),
                    member("/process/user/gid", json!(gid)),
                    (groups, additional),
                ]
            }
            Adjustment::SetOomScoreAdj { value } => {
                if !(-1000..=1000).contains(value) {
                    return Err(format!("`value` {value} is not between -1000 and 1000"));
                }
                vec![member("/process/oomScoreAdj", json!(value))]
            }
            Adjustment::SetNamespace { kind, path } => {
                let mut value = json!({ "type": kind });
                if let Some(path) = path {
                    check_absolute("path", path)?;
                    value["path"] = json!(path);
                }
                vec![(namespace(kind)?, Some(value))]
            }
            Adjustment::RemoveNamespace { kind } => vec![(namespace(kind)?, None)],
            Adjustment::DropCapability { name } => {
                let sets = ["bounding", "effective", "permitted", "inheritable", "ambient"];
                in_sets(&sets, name, false)?
            }
            Adjustment::AddCapability { name } => {
                in_sets(&["bounding", "effective", "permitted"], name, true)?
            }
            Adjustment::SetNoNewPrivileges { value } => {
                vec![member("/process/noNewPrivileges", json!(value))]
            }
            Adjustment::SetSeccomp { profile } => {
                vec![member("/linux/seccomp", object("profile", profile)?)]
            }
            Adjustment::SetApparmorProfile { name } => {
                check_text("name", name)?;
                vec![member("/process/apparmorProfile", json!(name))]
            }
            Adjustment::SetSelinuxLabel { label } => {
                check_text("label", label)?;
                vec![member("/process/selinuxLabel", json!(label))]
            }
            Adjustment::MaskPath { path } => vec![path_in("/linux/maskedPaths", path)?],
            Adjustment::WriteProtectPath { path } => vec![path_in("/linux/readonlyPaths", path)?],
            Adjustment::SetRootReadOnly { value } => vec![member("/root/readonly", json!(value))],
            Adjustment::AddHook { kind, hook } => vec![hook.edit(kind)?],
            Adjustment::Merge { patch } => {
                let patch = object("patch", patch)?;
                let mut edits = Vec::new();
                merge(&mut Vec::new(), document, &patch, &mut edits);
                edits
            }
        })
    }
}

impl Device {
    fn edits(&self, document: &Value) -> Result<Vec<Edit>, String> {
        let place = device_at(&self.path)?;
        if !["c", "b", "u", "p"].contains(&self.kind.as_str()) {
            return Err(format!("`kind` {:?} is none of c, b, u and p", self.kind));
        }
        if self.access.is_empty() || !self.access.chars().all(|it| "rwm".contains(it)) {
            return Err(format!("`access` {:?} is not made of r, w and m", self.access));
        }
        let mode = self.mode.unwrap_or(0o666);
        if mode > 0o7777 {
            return Err(format!("`mode` {mode:#o} is more than 0o7777"));
        }
        let mut node = json!({ "path": plain(&self.path), "type": self.kind });
        if self.kind != "p" {
            node["major"] = json!(self.major);
            node["minor"] = json!(self.minor);
        }
        node["fileMode"] = json!(mode);
        node["uid"] = json!(self.uid);
        node["gid"] = json!(self.gid);
        let mut edits = vec![(place, Some(node))];
        if self.kind != "p" {
            let rule = json!({
                "allow": true,
                "type": if self.kind == "b" { "b" } else { "c" },
                "major": self.major,
                "minor": self.minor,
                "access": self.access,
            });
            let list = path("/linux/resources/devices");
            let rules = at(document, &list).and_then(Value::as_array);
            // What a later rule may have taken back is allowed once more.
            let mut last = rules.into_iter().flatten().rev().take_while(|it| it["allow"] == true);
            if !last.any(|it| *it == rule) {
                edits.push((Place::Added { list }, Some(rule)));
            }
        }
        Ok(edits)
    }
}

impl Hook {
    fn edit(&self, kind: &str) -> Result<Edit, String> {
        const KINDS: [&str; 6] = [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ];
        if !KINDS.contains(&kind) {
            return Err(format!("`kind` {kind:?} is none of {}", KINDS.join(", ")));
        }
        check_absolute("hook.path", &self.path)?;
        check_texts("hook.args", &self.args)?;
        check_texts("hook.env", &self.env)?;
        let mut hook = json!({ "path": self.path, "args": self.args, "env": self.env });
        match self.timeout {
            Some(0) => return Err("`hook.timeout` is 0".to_owned()),
            Some(timeout) => hook["timeout"] = json!(timeout),
            None => {}
        }
        Ok((Place::Added { list: vec!["hooks".to_owned(), kind.to_owned()] }, Some(hook)))
    }
}

fn member(pointer: &str, value: Value) -> Edit {
    (Place::Member(path(pointer)), Some(value))
}

fn annotation(key: &str) -> Result<Place, String> {
    check_word("key", key)?;
    Ok(Place::Member(vec!["annotations".to_owned(), key.to_owned()]))
}

fn variable(name: &str) -> Result<Place, String> {
    check_word("name", name)?;
    if name.contains('=') {
        return Err(format!("`name` {name:?} contains ="));
    }
    Ok(entry("/process/env", Known::Variable, name))
}

fn mount_at(destination: &str) -> Result<Place, String> {
    check_absolute("destination", destination)?;
    Ok(entry("/mounts", Known::PathMember("destination"), &plain(destination)))
}

fn device_at(at: &str) -> Result<Place, String> {
    check_absolute("path", at)?;
    Ok(entry("/linux/devices", Known::PathMember("path"), &plain(at)))
}

fn rlimit_of(kind: &str) -> Result<Place, String> {
    if kind.parse::<oci::PosixRlimitType>().is_err() {
        return Err(format!("`kind` {kind:?} is no resource limit, such as RLIMIT_NOFILE"));
    }
    Ok(entry("/process/rlimits", Known::Member("type"), kind))
}

fn namespace(kind: &str) -> Result<Place, String> {
    const KINDS: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];
    if !KINDS.contains(&kind) {
        return Err(format!("`kind` {kind:?} is none of {}", KINDS.join(", ")));
    }
    Ok(entry("/linux/namespaces", Known::Member("type"), kind))
}

fn in_sets(sets: &[&str], name: &str, there: bool) -> Result<Vec<Edit>, String> {
    let name = capability(name).ok_or_else(|| format!("`name` {name:?} is no capability"))?;
    let edit = |set: &&str| {
        let list = format!("/process/capabilities/{set}");
        (entry(&list, Known::Capability, name), there.then(|| json!(name)))
    };
    Ok(sets.iter().map(edit).collect())
}

fn path_in(list: &str, path: &str) -> Result<Edit, String> {
    check_absolute("path", path)?;
    let path = plain(path);
    Ok((entry(list, Known::Path, &path), Some(json!(path))))
}

fn entry(list: &str, known: Known, key: &str) -> Place {
    Place::Entry { list: path(list), known, key: key.to_owned() }
}

/// The limits that are single values, and whether they are numbers, flags or text.
fn resource(name: &str, value: &str) -> Result<Vec<Edit>, String> {
    let value = match name {
        "memory/limit"
        | "memory/reservation"
        | "memory/swap"
        | "memory/kernel"
        | "memory/kernelTCP"
        | "cpu/quota"
        | "cpu/realtimeRuntime"
        | "cpu/idle"
        | "pids/limit" => {
            json!(number::<i64>("value", value)?)
        }
        "memory/swappiness" | "cpu/shares" | "cpu/period" | "cpu/burst" | "cpu/realtimePeriod" => {
            json!(number::<u64>("value", value)?)
        }
        "blockIO/weight" | "blockIO/leafWeight" => json!(number::<u16>("value", value)?),
        "memory/disableOOMKiller" | "memory/useHierarchy" | "memory/checkBeforeUpdate" => {
            let known = value.parse::<bool>();
            json!(known.map_err(|_| format!("`value` {value:?} is neither true nor false"))?)
        }
        "cpu/cpus" | "cpu/mems" => {
            check_text("value", value)?;
            json!(value)
        }
        _ => {
            return Err(format!(
                "`name` {name:?} is no limit in linux.resources of a single value"
            ));
        }
    };
    Ok(vec![member(&format!("/linux/resources/{name}"), value)])
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{name}` {text:?} is no number that fits"))
}

fn rlimit(name: &str, text: &str) -> Result<u64, String> {
    match text {
        "unlimited" => Ok(u64::MAX),
        _ => number(name, text),
    }
}

fn object(name: &str, json: &str) -> Result<Value, String> {
    match serde_json::from_str(json) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(format!("`{name}` is not a JSON object")),
        Err(error) => Err(format!("`{name}` is not JSON: {error}")),
    }
}

/// The members that a merge patch changes, each for itself: so each has its owner.
fn merge(place: &mut Vec<String>, document: &Value, patch: &Value, edits: &mut Vec<Edit>) {
    let Some(members) = patch.as_object() else { return };
    for (name, value) in members {
        place.push(name.clone());
        let now = at(document, place).filter(|now| !now.is_null());
        match value {
            Value::Null => edits.push((Place::Member(place.clone()), None)),
            Value::Object(_) => {
                let object = (Place::Member(place.clone()), Some(json!({})));
                let known = edits.len();
                if now.is_some_and(|now| !now.is_object()) {
                    edits.push(object.clone());
                }
                merge(place, document, value, edits);
                // Where nothing is, an object comes with its first member, and only that is owned.
                if now.is_none() && edits[known..].iter().all(|(_, after)| after.is_none()) {
                    edits.push(object);
                }
            }
            value => edits.push((Place::Member(place.clone()), Some(value.clone()))),
        }
        place.pop();
    }
}

fn check_text(name: &str, text: &str) -> Result<(), String> {
    match text.contains('\0') {
        true => Err(format!("`{name}` contains a NUL byte")),
        false => Ok(()),
    }
}

fn check_texts(name: &str, texts: &[String]) -> Result<(), String> {
    texts.iter().try_for_each(|text| check_text(name, text))
}

fn check_word(name: &str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("`{name}` is empty"));
    }
    check_text(name, text)
}

fn check_absolute(name: &str, path: &str) -> Result<(), String> {
    check_text(name, path)?;
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(format!("`{name}` {path:?} is not absolute")),
    }
}

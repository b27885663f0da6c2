//! The features document: what this build can do, for engines that ask before they use it.
//!
//! It tells the truth about the program, not about the machine: a kernel may still refuse.
//! `null`, or absent, means "not told"; an empty list means "none".

use serde_json::{Map, Value, json};

use super::mount_options;
use super::vocabulary;
use crate::seccomp;

/// What the other parts of the program can do. Everything that is not set is told as missing.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The greatest capability number the program hands out; `None` for all it has a name for.
    pub last_capability: Option<u32>,
    /// Namespaces it can create and join, by the specification's names.
    pub namespaces: Vec<&'static str>,
    /// Hooks it runs, by the specification's names.
    pub hooks: Vec<&'static str>,
    /// Which cgroup modes it can use.
    pub cgroup: Cgroup,
    /// Seccomp, with what [`seccomp`] can compile.
    pub seccomp: bool,
    /// AppArmor profiles.
    pub apparmor: bool,
    /// SELinux labels.
    pub selinux: bool,
    /// Mounts with mapped ids.
    pub idmapped_mounts: bool,
    /// `linux.intelRdt`.
    pub intel_rdt: bool,
    /// `linux.memoryPolicy`.
    pub memory_policy: bool,
    /// `linux.netDevices`.
    pub net_devices: bool,
    /// Facts that have no place of their own, such as versions, under reverse-domain keys.
    pub annotations: Vec<(String, String)>,
    /// Keys of annotations in `config.json` that change what is done, so that an engine must
    /// not let users set them; a trailing dot stands for all that begin so.
    pub unsafe_annotations: Vec<&'static str>,
}

/// Modes of cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Version 1, and hybrid.
    pub v1: bool,
    /// Version 2.
    pub v2: bool,
    /// Through systemd.
    pub systemd: bool,
    /// Through a user's systemd.
    pub systemd_user: bool,
    /// The rdma controller.
    pub rdma: bool,
}

/// The features document of runtime-spec 1.3 (features.md and features-linux.md).
pub fn features(facts: &Facts) -> Value {
    let mut document = Map::new();
    document.insert("ociVersionMin".into(), json!("1.0.0"));
    document.insert("ociVersionMax".into(), json!(super::OCI_VERSION));
    document.insert("hooks".into(), json!(facts.hooks));
    document.insert("mountOptions".into(), json!(mount_options::ALL.as_slice()));
    document.insert("linux".into(), linux(facts));
    if !facts.annotations.is_empty() {
        let annotations: Map<String, Value> =
            facts.annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        document.insert("annotations".into(), annotations.into());
    }
    if !facts.unsafe_annotations.is_empty() {
        let keys = json!(facts.unsafe_annotations);
        document.insert("potentiallyUnsafeConfigAnnotations".into(), keys);
    }
    Value::Object(document)
}

fn linux(facts: &Facts) -> Value {
    let last = facts.last_capability.map_or(usize::MAX, |last| last as usize);
    let capabilities: Vec<&str> = vocabulary::CAPABILITIES
        .iter()
        .take(last.saturating_add(1))
        .map(|(name, _)| *name)
        .collect();
    json!({
        "namespaces": facts.namespaces,
        "capabilities": capabilities,
        "cgroup": {
            "v1": facts.cgroup.v1,
            "v2": facts.cgroup.v2,
            "systemd": facts.cgroup.systemd,
            "systemdUser": facts.cgroup.systemd_user,
            "rdma": facts.cgroup.rdma,
        },
        "seccomp": seccomp_features(facts.seccomp),
        "apparmor": { "enabled": facts.apparmor },
        "selinux": { "enabled": facts.selinux },
        "memoryPolicy": memory_policy(facts.memory_policy),
        "intelRdt": {
            "enabled": facts.intel_rdt,
            "schemata": facts.intel_rdt,
            "monitoring": facts.intel_rdt,
        },
        "mountExtensions": { "idmap": { "enabled": facts.idmapped_mounts } },
        "netDevices": { "enabled": facts.net_devices },
    })
}

fn seccomp_features(enabled: bool) -> Value {
    if !enabled {
        return json!({ "enabled": false });
    }
    // The names are those of oci-spec's types, which serialise as the specification spells them.
    json!({
        "enabled": true,
        "actions": seccomp::ACTIONS,
        "operators": seccomp::OPERATORS,
        "archs": seccomp::architectures(),
        "knownFlags": [
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ],
        "supportedFlags": seccomp::FLAGS,
    })
}

fn memory_policy(enabled: bool) -> Value {
    if !enabled {
        return json!({ "modes": [], "flags": [] });
    }
    json!({
        "modes": vocabulary::MEMORY_POLICY_MODES.map(|mode| mode.0),
        "flags": vocabulary::MEMORY_POLICY_FLAGS.map(|flag| flag.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_claimed_that_the_facts_do_not_tell() {
        let document = features(&Facts::default());
        let linux = &document["linux"];
        assert_eq!(linux["namespaces"], json!([]));
        assert_eq!(linux["seccomp"], json!({ "enabled": false }));
        for pointer in [
            "/cgroup/v1",
            "/cgroup/systemd",
            "/apparmor/enabled",
            "/intelRdt/enabled",
            "/mountExtensions/idmap/enabled",
            "/netDevices/enabled",
        ] {
            assert_eq!(linux.pointer(pointer), Some(&json!(false)), "{pointer}");
        }
        assert!(document.get("annotations").is_none());
    }

    #[test]
    fn what_the_facts_tell_is_in_the_document() {
        let document = features(&Facts {
            last_capability: Some(1),
            namespaces: vec!["user"],
            hooks: vec!["poststop"],
            seccomp: true,
            unsafe_annotations: vec!["org.systemd.property."],
            ..Facts::default()
        });
        assert_eq!(document["ociVersionMax"], "1.3.0");
        assert_eq!(document["hooks"], json!(["poststop"]));
        assert_eq!(document["linux"]["capabilities"], json!(["CAP_CHOWN", "CAP_DAC_OVERRIDE"]));
        let options = document["mountOptions"].as_array().unwrap();
        assert!(options.contains(&json!("rro")) && options.contains(&json!("ridmap")));
        let seccomp = &document["linux"]["seccomp"];
        assert!(seccomp["actions"].as_array().unwrap().contains(&json!("SCMP_ACT_KILL_PROCESS")));
        assert_eq!(seccomp["actions"].as_array().unwrap().len(), 9);
        assert!(seccomp["operators"].as_array().unwrap().contains(&json!("SCMP_CMP_MASKED_EQ")));
        assert!(!seccomp["archs"].as_array().unwrap().is_empty());
        assert_eq!(
            document["potentiallyUnsafeConfigAnnotations"],
            json!(["org.systemd.property."])
        );
    }

    #[test]
    fn the_document_is_one_that_readers_of_the_specification_understand() {
        let facts = Facts { seccomp: true, memory_policy: true, ..Facts::default() };
        serde_json::from_value::<super::super::oci::Features>(features(&facts)).unwrap();
    }
}

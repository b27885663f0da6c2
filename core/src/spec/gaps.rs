//! What stands between documents as engines write them and the types of crate `oci-spec`:
//! the one place for its gaps. Each function changes a document so that the types fit.

use super::document::Node;
use super::vocabulary;

/// Prepares a whole `config.json`.
pub(super) fn fill_spec(spec: &mut Node) {
    // Sections of other platforms, and of virtual machines, are none of our business, right or
    // wrong; and two members
    // that oci-spec reads at the top have never been in the specification.
    spec.remove(|key, _| {
        matches!(key, "windows" | "solaris" | "zos" | "vm" | "uidMappings" | "gidMappings")
    });
    remove_empty(spec, &["hostname", "domainname"]);
    if let Some(process) = spec.get_mut("process") {
        fill_process(process);
    }
    if let Some(linux) = spec.get_mut("linux") {
        remove_empty(linux, &["cgroupsPath", "rootfsPropagation", "mountLabel"]);
        each(linux.get_mut("namespaces"), |namespace| remove_empty(namespace, &["path"]));
        if let Some(policy) = linux.get_mut("memoryPolicy") {
            remove_empty(policy, &["nodes"]);
        }
        if let Some(seccomp) = linux.get_mut("seccomp") {
            remove_empty(seccomp, &["listenerPath", "listenerMetadata"]);
        }
        if let Some(resources) = linux.get_mut("resources") {
            fill_resources(resources);
        }
    }
}

/// Prepares a `process` object, wherever it stands.
pub(super) fn fill_process(process: &mut Node) {
    remove_empty(process, &["apparmorProfile", "selinuxLabel"]);
    // The schema does not require `user`; root is what every runtime takes then.
    process.insert_missing("user", Node::Object(Vec::new()));
    // Required, but oci-spec has a default: an empty class is refused.
    if let Some(priority) = process.get_mut("ioPriority") {
        priority.insert_missing("class", Node::Text("".into()));
    }
    if let Some(affinity) = process.get_mut("execCPUAffinity") {
        remove_empty(affinity, &["initial", "final"]);
    }
    if let Some(capabilities) = process.get_mut("capabilities") {
        for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
            if let Some(Node::List(names)) = capabilities.get_mut(set) {
                names.retain(|name| known_capability(set, name));
            }
        }
    }
    if let Some(scheduler) = process.get_mut("scheduler") {
        each(scheduler.get_mut("flags"), |flag| {
            let renamed =
                vocabulary::SCHEDULER_FLAG_NAMES.iter().find(|(name, _)| flag.text() == Some(name));
            if let Some((_, of_oci_spec)) = renamed {
                *flag = Node::Text((*of_oci_spec).into());
            }
        });
    }
}

/// Prepares a `resources` object, wherever it stands.
pub(super) fn fill_resources(resources: &mut Node) {
    if let Some(cpu) = resources.get_mut("cpu") {
        remove_empty(cpu, &["cpus", "mems"]);
    }
    // Without a number there is no limit; oci-spec would read 0, which is one.
    let is_no_limit = |pids: &Node| matches!(pids, Node::Object(_)) && pids.get("limit").is_none();
    resources.remove(|key, value| key == "pids" && is_no_limit(value));
    // Go has no absent string, and containerd writes an empty type for "any".
    each(resources.get_mut("devices"), |rule| remove_empty(rule, &["type"]));
    // The specification's number is unsigned and oci-spec's is not. Both greatest ones are more
    // than there can be, so they limit nothing.
    each(resources.get_mut("hugepageLimits"), |limit| {
        if let Some(Node::Unsigned(bytes)) = limit.get_mut("limit") {
            *bytes = (*bytes).min(i64::MAX as u64);
        }
    });
}

/// A capability newer than this library, or misspelt, is the one wrong value that the
/// specification wants ignored: a container has it neither way.
fn known_capability(set: &str, name: &Node) -> bool {
    let Some(text) = name.text() else { return true };
    let known = vocabulary::capability(text).is_some();
    if !known {
        tracing::warn!(capability = text, set, "ignoring an unknown capability");
    }
    known
}

/// Drops members that are empty strings: programs in Go cannot tell those from absent ones.
fn remove_empty(object: &mut Node, names: &[&str]) {
    object.remove(|key, value| value.text() == Some("") && names.contains(&key));
}

fn each<'a>(list: Option<&mut Node<'a>>, change: impl FnMut(&mut Node<'a>)) {
    if let Some(Node::List(items)) = list {
        items.iter_mut().for_each(change);
    }
}

//! `linux.resources.unified`: raw version 2 files.

use std::collections::HashMap;

use oci_spec::runtime::LinuxResources;

use super::{Writer, unsupported, wrong};
use crate::error::Result;

/// Files that do something instead of limiting something. `cgroup.procs` would even move the
/// host process.
const ACTIONS: [&str; 6] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.freeze",
    "cgroup.type",
    "cgroup.subtree_control",
];

fn pointer(key: &str) -> String {
    format!("/linux/resources/unified/{}", key.replace('~', "~0").replace('/', "~1"))
}

pub(super) fn check(resources: &LinuxResources) -> Result<()> {
    for key in resources.unified().iter().flat_map(HashMap::keys) {
        let named = key.split_once('.').is_some_and(|(controller, _)| !controller.is_empty());
        if !named || key.contains(['/', '\0']) {
            return Err(wrong(format!("{key:?} is not the name of a cgroup file"), pointer(key)));
        }
        if ACTIONS.contains(&key.as_str()) {
            return Err(wrong(format!("{key} is no resource limit"), pointer(key)));
        }
    }
    Ok(())
}

pub(super) fn controllers(resources: &LinuxResources) -> impl Iterator<Item = String> {
    let keys = resources.unified().iter().flat_map(HashMap::keys);
    keys.filter_map(|key| key.split_once('.')).map(|(controller, _)| controller.to_owned())
}

pub(super) fn apply(values: &HashMap<String, String>, writer: &mut Writer<'_>) -> Result<()> {
    let mut values: Vec<_> = values.iter().collect();
    values.sort();
    for (key, value) in values {
        let pointer = pointer(key);
        let controller = key.split('.').next().unwrap_or_default();
        let place = match (controller, writer.location.unified()) {
            ("cgroup", Some(place)) => place,
            (_, None) if !writer.location.is_empty() => {
                let message = "invalid configuration: unified is about cgroups of version 2";
                return Err(unsupported(message.to_owned()).at(pointer));
            }
            // Beside version 1 the controller may sit there, out of reach of `unified`.
            _ => writer.place(controller, "", &pointer)?,
        };
        debug_assert!(place.unified);
        if value.contains('\n') {
            for line in value.lines().filter(|line| !line.is_empty()) {
                writer.put(place, key, line, &pointer)?;
            }
        } else {
            writer.put(place, key, value, &pointer)?;
        }
    }
    Ok(())
}

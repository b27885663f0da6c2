//! Rules for `linux`, but for its `resources` and `seccomp`.

use std::collections::HashSet;

use super::{Namespaces, is_absolute, member, refuse, resources, seccomp};
use crate::error::Result;
use crate::spec::oci::{
    Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxMemoryPolicy, LinuxNamespaceType,
    MemoryPolicyFlagType, MemoryPolicyModeType, Spec,
};
use crate::spec::vocabulary::{self, MOST_NODES, numbers_of};

pub(super) fn check(spec: &Spec, linux: &Linux, namespaces: Namespaces) -> Result<()> {
    check_namespaces(namespaces)?;
    check_user_namespace(linux, namespaces)?;
    check_time_offsets(linux, namespaces)?;
    check_sysctl(spec, linux, namespaces)?;
    check_paths(linux, namespaces)?;
    check_devices(linux)?;
    check_net_devices(linux, namespaces)?;
    if let Some(name) = linux.rootfs_propagation() {
        if vocabulary::propagation(name).is_none() {
            return Err(refuse(
                "/linux/rootfsPropagation",
                format!("rootfsPropagation {name:?} is none of shared, slave, private, unbindable"),
            ));
        }
    }
    if let Some(personality) = linux.personality() {
        if let Some(flag) = personality.flags().iter().flatten().next() {
            return Err(refuse(
                "/linux/personality/flags/0",
                format!("personality flag {flag:?}: no flags are defined"),
            ));
        }
    }
    if let Some(policy) = linux.memory_policy() {
        check_memory_policy(policy)?;
    }
    check_intel_rdt(linux)?;
    if let Some(resources) = linux.resources() {
        resources::check(resources, "/linux/resources")?;
    }
    if let Some(profile) = linux.seccomp() {
        seccomp::check(profile)?;
    }
    Ok(())
}

fn check_namespaces(namespaces: Namespaces) -> Result<()> {
    let mut seen = HashSet::new();
    for (index, namespace) in namespaces.0.iter().enumerate() {
        let name = vocabulary::namespace_name(namespace.typ());
        if !seen.insert(name) {
            return Err(refuse(
                format!("/linux/namespaces/{index}/type"),
                format!("namespace {name:?} is listed twice"),
            ));
        }
        if let Some(path) = namespace.path().as_ref().filter(|path| !is_absolute(path)) {
            return Err(refuse(
                format!("/linux/namespaces/{index}/path"),
                format!("the path {path:?} of the {name} namespace is not absolute"),
            ));
        }
    }
    Ok(())
}

fn check_user_namespace(linux: &Linux, namespaces: Namespaces) -> Result<()> {
    for (name, map) in
        [("uidMappings", linux.uid_mappings()), ("gidMappings", linux.gid_mappings())]
    {
        let pointer = format!("/linux/{name}");
        let map = map.as_deref().unwrap_or_default();
        if !map.is_empty() && !namespaces.has(LinuxNamespaceType::User) {
            return Err(refuse(pointer, format!("{name} needs a user namespace")));
        }
        // A joined namespace has its mappings already.
        if map.is_empty() && namespaces.creates(LinuxNamespaceType::User) {
            return Err(refuse(pointer, format!("a new user namespace needs {name}")));
        }
        check_id_map(map, &pointer)?;
    }
    Ok(())
}

/// What the kernel asks of a map: at most 340 lines, no empty one, no id past the last, and no
/// id of either side in two lines.
pub(super) fn check_id_map(map: &[LinuxIdMapping], at: &str) -> Result<()> {
    if map.len() > 340 {
        return Err(refuse(at, format!("{} mappings are more than the kernel's 340", map.len())));
    }
    for (index, line) in map.iter().enumerate() {
        let pointer = || format!("{at}/{index}");
        if line.size() == 0 {
            return Err(refuse(format!("{at}/{index}/size"), "a mapping of size 0 maps nothing"));
        }
        for (name, first) in [("containerID", line.container_id()), ("hostID", line.host_id())] {
            if first.checked_add(line.size()).is_none() {
                return Err(refuse(
                    pointer(),
                    format!("{} ids from {name} {first} go past the last id", line.size()),
                ));
            }
        }
        let overlap = |a: u32, b: &LinuxIdMapping, first: u32| {
            a < first + b.size() && first < a + line.size()
        };
        for earlier in &map[..index] {
            if overlap(line.container_id(), earlier, earlier.container_id())
                || overlap(line.host_id(), earlier, earlier.host_id())
            {
                return Err(refuse(pointer(), "the mapping overlaps with one before it"));
            }
        }
    }
    Ok(())
}

fn check_time_offsets(linux: &Linux, namespaces: Namespaces) -> Result<()> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else {
        return Ok(());
    };
    if !namespaces.creates(LinuxNamespaceType::Time) {
        return Err(refuse(
            "/linux/timeOffsets",
            "timeOffsets needs a new time namespace: those of a namespace in use are fixed",
        ));
    }
    for (clock, offset) in offsets {
        let pointer = member("/linux/timeOffsets", clock);
        if clock != "boottime" && clock != "monotonic" {
            return Err(refuse(pointer, format!("clock {clock:?} has no offset")));
        }
        if let Some(value) = offset.nanosecs().filter(|value| *value >= 1_000_000_000) {
            return Err(refuse(
                format!("{pointer}/nanosecs"),
                format!("{value} nanoseconds are a second or more"),
            ));
        }
    }
    Ok(())
}

fn check_sysctl(spec: &Spec, linux: &Linux, namespaces: Namespaces) -> Result<()> {
    let mut names: Vec<_> = linux.sysctl().iter().flatten().map(|(name, _)| name).collect();
    names.sort(); // the map has no order, and which one is refused should not change
    let mut seen = HashSet::new();
    for name in names {
        let refused =
            |why: &str| refuse(member("/linux/sysctl", name), format!("sysctl {name:?} {why}"));
        let Some(path) = vocabulary::sysctl_path(name) else {
            return Err(refused("is not a well-formed name"));
        };
        let Some(namespace) = vocabulary::sysctl_namespace(&path) else {
            return Err(refused("is not in a namespace: it would change the host"));
        };
        if !namespaces.has(namespace) {
            let kind = vocabulary::namespace_name(namespace);
            return Err(refused(&format!("would change the host: it needs a {kind} namespace")));
        }
        if !seen.insert(path.clone()) {
            return Err(refused("is set twice, once with dots and once with slashes"));
        }
        if path == "kernel/hostname" && spec.hostname().is_some() {
            return Err(refused("contradicts the field hostname"));
        }
        if path == "kernel/domainname" && spec.domainname().is_some() {
            return Err(refused("contradicts the field domainname"));
        }
    }
    Ok(())
}

fn check_paths(linux: &Linux, namespaces: Namespaces) -> Result<()> {
    for (name, paths) in
        [("maskedPaths", linux.masked_paths()), ("readonlyPaths", linux.readonly_paths())]
    {
        for (index, path) in paths.iter().flatten().enumerate() {
            let pointer = format!("/linux/{name}/{index}");
            if !namespaces.has(LinuxNamespaceType::Mount) {
                return Err(refuse(pointer, format!("{name} needs a mount namespace")));
            }
            if !path.starts_with('/') {
                return Err(refuse(pointer, format!("{path:?} in {name} is not absolute")));
            }
        }
    }
    Ok(())
}

fn check_devices(linux: &Linux) -> Result<()> {
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        check_device(device, &format!("/linux/devices/{index}"))?;
    }
    Ok(())
}

fn check_device(device: &LinuxDevice, at: &str) -> Result<()> {
    if !is_absolute(device.path()) {
        return Err(refuse(
            format!("{at}/path"),
            format!("the device's path {:?} is not absolute", device.path()),
        ));
    }
    match device.typ() {
        LinuxDeviceType::A => {
            return Err(refuse(format!("{at}/type"), "a device node cannot have the type \"a\""));
        }
        LinuxDeviceType::P => {}
        // The kernel has 12 bits for the major number and 20 for the minor one.
        _ => {
            for (name, value, limit) in
                [("major", device.major(), 1 << 12), ("minor", device.minor(), 1 << 20)]
            {
                if !(0..limit).contains(&value) {
                    return Err(refuse(
                        format!("{at}/{name}"),
                        format!("{name} number {value} of {:?} is out of range", device.path()),
                    ));
                }
            }
        }
    }
    for (name, id) in [("uid", device.uid()), ("gid", device.gid())] {
        if id == Some(u32::MAX) {
            return Err(refuse(
                format!("{at}/{name}"),
                format!("{name} {} is no valid id", u32::MAX),
            ));
        }
    }
    Ok(())
}

fn check_net_devices(linux: &Linux, namespaces: Namespaces) -> Result<()> {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else {
        return Ok(());
    };
    if !namespaces.has(LinuxNamespaceType::Network) {
        return Err(refuse("/linux/netDevices", "netDevices needs a network namespace"));
    }
    let mut devices: Vec<_> = devices.iter().collect();
    devices.sort_by_key(|(host, _)| *host); // the same one is refused every time
    let mut names = HashSet::new();
    for (host, device) in devices {
        let pointer = member("/linux/netDevices", host);
        if !is_interface_name(host) {
            return Err(refuse(pointer, format!("{host:?} is not the name of an interface")));
        }
        let name = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host);
        if !is_interface_name(&name.replacen("%d", "0", 1)) {
            let message = format!("{name:?} is not the name of an interface");
            return Err(refuse(format!("{pointer}/name"), message));
        }
        if !name.contains("%d") && !names.insert(name) {
            let message = format!("two interfaces would be named {name:?}");
            return Err(refuse(format!("{pointer}/name"), message));
        }
    }
    Ok(())
}

/// What `dev_valid_name` in the kernel allows, without the template character.
pub(super) fn is_interface_name(name: &str) -> bool {
    (1..16).contains(&name.len())
        && name != "."
        && name != ".."
        && !name
            .chars()
            .any(|c| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control())
}

fn check_memory_policy(policy: &LinuxMemoryPolicy) -> Result<()> {
    use MemoryPolicyFlagType::*;
    use MemoryPolicyModeType::*;
    let mode = policy.mode();
    let refuse = |field: &str, why: String| {
        Err(refuse(format!("/linux/memoryPolicy/{field}"), format!("invalid memory policy {why}")))
    };
    let ranges = match policy.nodes().as_deref().map(|nodes| (nodes, numbers_of(nodes))) {
        None => Vec::new(),
        Some((_, Some(ranges))) if ranges.iter().all(|range| *range.end() < MOST_NODES) => ranges,
        Some((nodes, _)) => {
            let why =
                format!("nodes {nodes:?}: not a list such as 0-1,3 of nodes below {MOST_NODES}");
            return refuse("nodes", why);
        }
    };
    let count: usize = ranges.into_iter().map(Iterator::count).sum();
    match mode {
        MpolDefault | MpolLocal if count > 0 => {
            let why =
                format!("nodes: {mode} as memory policy mode requires 0 nodes but got {count}");
            return refuse("nodes", why);
        }
        // An empty set with MPOL_PREFERRED is the kernel's old way to say MPOL_LOCAL.
        MpolDefault | MpolLocal | MpolPreferred => {}
        _ if count == 0 => {
            let why = format!("nodes: {mode} as memory policy mode requires at least one node");
            return refuse("nodes", why);
        }
        _ => {}
    }
    let flags = policy.flags().as_deref().unwrap_or_default();
    if flags.contains(&MpolFStaticNodes) && flags.contains(&MpolFRelativeNodes) {
        let why = "flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other";
        return refuse("flags", why.into());
    }
    if flags.contains(&MpolFNumaBalancing) && !matches!(mode, MpolBind | MpolPreferredMany) {
        let why = format!(
            "flags: MPOL_F_NUMA_BALANCING needs MPOL_BIND or MPOL_PREFERRED_MANY, not {mode}"
        );
        return refuse("flags", why);
    }
    Ok(())
}

/// Names that no control group of resctrl can have.
const KERNELS_OWN: [&str; 6] = ["", ".", "..", "info", "mon_groups", "mon_data"];

fn check_intel_rdt(linux: &Linux) -> Result<()> {
    let Some(rdt) = linux.intel_rdt() else { return Ok(()) };
    if let Some(schema) = rdt.mem_bw_schema() {
        if !schema.starts_with("MB:") || schema.contains('\n') {
            return Err(refuse(
                "/linux/intelRdt/memBwSchema",
                format!("{schema:?} is not one line that begins with \"MB:\""),
            ));
        }
    }
    for (index, line) in rdt.schemata().iter().flatten().enumerate() {
        if line.contains('\n') || !line.contains(':') {
            return Err(refuse(
                format!("/linux/intelRdt/schemata/{index}"),
                format!("{line:?} is not one line of a schemata file, such as \"L3:0=7f\""),
            ));
        }
    }
    let Some(id) = rdt.clos_id().as_deref() else { return Ok(()) };
    // "/" alone stands for the root group; anything else is the name of one directory.
    if id != "/" && (KERNELS_OWN.contains(&id) || id.contains(['/', '\n'])) {
        return Err(refuse(
            "/linux/intelRdt/closID",
            format!("closID {id:?} is not the name of a directory"),
        ));
    }
    Ok(())
}

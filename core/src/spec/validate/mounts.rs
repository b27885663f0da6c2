//! Rules for `mounts`.

use std::path::{Component, Path, PathBuf};

use super::{Namespaces, linux, refuse};
use crate::error::Result;
use crate::spec::mount_options;
use crate::spec::oci::{LinuxNamespaceType, Mount, Spec};

pub(super) fn check(spec: &Spec, namespaces: Namespaces) -> Result<()> {
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        check_one(mount, &format!("/mounts/{index}"), namespaces)?;
    }
    Ok(())
}

fn check_one(mount: &Mount, at: &str, namespaces: Namespaces) -> Result<()> {
    let destination = mount.destination();
    if destination.as_os_str().is_empty() {
        return Err(refuse(format!("{at}/destination"), "the mount's destination is empty"));
    }
    // A relative destination is deprecated, not wrong: it counts from the root.
    let words = mount.options().as_deref().unwrap_or_default();
    let options = mount_options::sort(words, false).map_err(|index| {
        refuse(format!("{at}/options/{index}"), mount_options::refusal(&words[index]))
    })?;
    check_proc(mount, at, options.bind)?;
    let no_source = mount.source().as_ref().is_none_or(|source| source.as_os_str().is_empty());
    if options.bind && !options.remount && no_source {
        return Err(refuse(
            format!("{at}/source"),
            format!("the bind mount at {destination:?} has no source"),
        ));
    }
    let no_type = mount.typ().as_deref().is_none_or(str::is_empty);
    if !options.bind && !options.remount && options.propagation == 0 && no_type {
        return Err(refuse(
            format!("{at}/type"),
            format!("the mount at {destination:?} has no type and is no bind mount"),
        ));
    }
    check_id_mappings(mount, at, options.idmap, namespaces)
}

fn check_id_mappings(mount: &Mount, at: &str, idmap: bool, namespaces: Namespaces) -> Result<()> {
    let uids = mount.uid_mappings().as_deref().unwrap_or_default();
    let gids = mount.gid_mappings().as_deref().unwrap_or_default();
    for (name, other, missing) in [
        ("uidMappings", "gidMappings", gids.is_empty()),
        ("gidMappings", "uidMappings", uids.is_empty()),
    ] {
        if missing && uids.len() + gids.len() > 0 {
            return Err(refuse(
                format!("{at}/{other}"),
                format!("the mount has {name} but no {other}: both or neither"),
            ));
        }
    }
    linux::check_id_map(uids, &format!("{at}/uidMappings"))?;
    linux::check_id_map(gids, &format!("{at}/gidMappings"))?;
    if idmap && uids.is_empty() && !namespaces.has(LinuxNamespaceType::User) {
        return Err(refuse(
            format!("{at}/options"),
            "idmap without uidMappings and gidMappings takes those of the container, \
             which has no user namespace",
        ));
    }
    Ok(())
}

/// What may be mounted below `/proc`: files that tell a container about its own share of the
/// machine (lxcfs), and two settings.
const BELOW_PROC: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// What lies over `/proc` decides what a process's labels and settings really are
/// (CVE-2019-16884), and images can ask engines for mounts.
fn check_proc(mount: &Mount, at: &str, bind: bool) -> Result<()> {
    let destination = mount.destination();
    let mut plain = PathBuf::new();
    for component in destination.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    let Ok(below) = plain.strip_prefix("proc") else { return Ok(()) };
    let allowed = match below.as_os_str().is_empty() {
        // Of a bind the source decides: it has to be procfs.
        true => bind || mount.typ().as_deref() == Some("proc") || options_only(mount),
        false => BELOW_PROC.iter().any(|name| below == Path::new(name)),
    };
    if allowed {
        return Ok(());
    }
    let message = format!("{destination:?} must not be mounted over: it is a part of /proc");
    Err(refuse(format!("{at}/destination"), message))
}

/// Whether nothing is mounted, and what is there only changed.
fn options_only(mount: &Mount) -> bool {
    mount.options().iter().flatten().any(|option| option == "remount")
}

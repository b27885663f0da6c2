//! Rules for `mounts`.

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

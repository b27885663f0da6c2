//! An image's configuration becomes a runtime configuration (image-spec, conversion.md).
//!
//! What it asks of the machine is the image's files and the current directory.

mod annotations;
mod overrides;
mod program;
mod signal;
#[cfg(test)]
mod tests;
mod user;
mod volumes;

use std::path::PathBuf;

use oci_spec::image::{Arch, Config, ImageConfiguration, Os};
use serde_json::Value;

pub use overrides::{ImageMount, Overrides};
pub(super) use signal::number as signal_number;

use super::patch::merge;
use super::unpack::{IdRange, Ids};
use crate::spec::oci::{BoxBuilder, LinuxIdMapping, LinuxIdMappingBuilder};
use crate::spec::{Network, Template, to_json};
use crate::{Category, Error, Result, Stage};
use user::User;

/// What the conversion stands on beside the two configurations.
pub(super) struct Facts<'a> {
    /// The topmost unpacked layer, for `root.path`.
    pub(super) root: PathBuf,
    /// Reads a file of the image, such as `etc/passwd`.
    pub(super) read: &'a dyn Fn(&str) -> Result<Option<Vec<u8>>>,
    /// The caller's ids if the container needs a user namespace for want of privilege.
    pub(super) rootless: Option<(u32, u32)>,
    /// Whose the unpacked files are: what is `Mapped` becomes the user namespace's mappings.
    pub(super) ids: &'a Ids,
    /// The manifest's digest, for an annotation.
    pub(super) digest: &'a str,
}

/// The text of a config.json. It passes the checks of [`spec`](crate::spec) unless the caller's patch
/// prevents that.
pub(super) fn convert(
    config: &ImageConfiguration,
    overrides: &Overrides,
    facts: &Facts<'_>,
) -> Result<Vec<u8>> {
    check_platform(config)?;
    check_numbers(overrides)?;
    let nothing = Config::default();
    let image = config.config().as_ref().unwrap_or(&nothing);

    let user = user::find(image, overrides, facts.read)?;
    let env = program::env(image, overrides, &user.home)?;
    let mut template = Template::new(facts.root.clone(), program::args(image, overrides)?);
    template.cwd = program::cwd(image, overrides)?;
    if let Some(hostname) = &overrides.hostname {
        template.hostname = hostname.clone();
    }
    template.readonly = overrides.readonly;
    if overrides.host_network {
        template.network = Network::Host;
    }
    template.memory = overrides.memory;
    template.cpus = overrides.cpus;
    template.pids = overrides.pids;
    template.terminal = overrides.terminal;
    template.env = env.entries;
    template.mounts = volumes::binds(&overrides.mounts)?;
    take_user(&mut template, user, facts)?;

    let mut spec = template.spec();
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    volumes::arrange(&mut mounts, image, overrides)?;
    spec.set_mounts(Some(mounts));
    if let Some(process) = spec.process_mut() {
        let size = overrides.terminal_size.filter(|_| overrides.terminal);
        process.set_console_size(size.and_then(|(rows, columns)| {
            BoxBuilder::default().height(rows).width(columns).build().ok()
        }));
        // The template's defaults are not to bring back what the caller takes away.
        if let Some(entries) = process.env_mut() {
            entries.retain(|entry| !env.removed.contains(program::name_of(entry)));
        }
    }

    let annotations = annotations::all(config, overrides, facts.digest)?;
    let mut document: Value = serde_json::from_slice(&to_json(&spec)?).map_err(not_json)?;
    document["annotations"] = serde_json::to_value(annotations).map_err(not_json)?;
    if let Some(patch) = &overrides.patch {
        if !patch.is_object() {
            return Err(invalid("`patch` is no JSON object".to_owned()));
        }
        merge(&mut document, patch);
    }
    serde_json::to_vec(&document).map_err(not_json)
}

/// Wrong arguments.
fn invalid(message: String) -> Error {
    Error::new(Category::Invalid, Stage::Image, message)
}

/// A wrong image.
fn wrong_image(message: String) -> Error {
    Error::new(Category::Spec, Stage::Image, message)
}

fn not_json(error: serde_json::Error) -> Error {
    let message = format!("write the configuration as JSON: {error}");
    Error::new(Category::Bug, Stage::Image, message)
}

/// The kernel executes no other system's programs. A foreign architecture's it may, with an emulator
/// (binfmt_misc).
fn check_platform(config: &ImageConfiguration) -> Result<()> {
    let (os, architecture) = (config.os(), config.architecture());
    let (own_os, own_architecture) = (Os::Linux, Arch::default());
    if *os != own_os {
        let message = format!(
            "the image is for {os}/{architecture}, and this machine is {own_os}/{own_architecture}"
        );
        return Err(Error::new(Category::Unsupported, Stage::Image, message)
            .hint("choose another one of the image's platforms, if it has several"));
    }
    if *architecture != own_architecture {
        tracing::warn!(
            "the image is for the architecture {architecture}, and this machine is \
             {own_architecture}: its programs run only with an emulator"
        );
    }
    Ok(())
}

fn check_numbers(overrides: &Overrides) -> Result<()> {
    if overrides.memory == Some(0) {
        return Err(invalid("`memory` is 0".to_owned()));
    }
    if let Some(cpus) = overrides.cpus.filter(|cpus| !cpus.is_finite() || *cpus <= 0.0) {
        return Err(invalid(format!("`cpus` {cpus} is no number above 0")));
    }
    if let Some(pids) = overrides.pids.filter(|pids| *pids <= 0) {
        return Err(invalid(format!("`pids` {pids} is no number above 0")));
    }
    Ok(())
}

/// Who the process is, and in which user namespace.
fn take_user(template: &mut Template, user: User, facts: &Facts<'_>) -> Result<()> {
    template.user = (user.uid, user.gid);
    template.additional_gids = user.groups;
    let Ids::Mapped { uids, gids } = facts.ids else {
        template.rootless = facts.rootless;
        return Ok(());
    };
    for (kind, id, ranges) in [("user", user.uid, uids), ("group", user.gid, gids)] {
        if !ranges.iter().any(|range| range.has(id)) {
            let message = format!("the {kind} {id} of the process is in none of the id ranges");
            return Err(invalid(message).hint("map more ids, or choose another `user`"));
        }
    }
    template.uid_mappings = uids.iter().map(mapping).collect();
    template.gid_mappings = gids.iter().map(mapping).collect();
    let is_single = |ranges: &[IdRange]| matches!(ranges, [range] if range.count == 1);
    if facts.rootless.is_some() && is_single(uids) && is_single(gids) {
        // Such a map needs no privilege, at the price of `setgroups`.
        template.additional_gids.clear();
    }
    template.additional_gids.retain(|gid| {
        let mapped = gids.iter().any(|range| range.has(*gid));
        if !mapped {
            tracing::warn!("the group {gid} is in none of the id ranges, and is left out");
        }
        mapped
    });
    Ok(())
}

impl IdRange {
    fn has(&self, id: u32) -> bool {
        id.checked_sub(self.inside).is_some_and(|offset| offset < self.count)
    }
}

fn mapping(range: &IdRange) -> LinuxIdMapping {
    let mapping = LinuxIdMappingBuilder::default().container_id(range.inside);
    let mapping = mapping.host_id(range.outside).size(range.count).build();
    mapping.expect("every field is given")
}

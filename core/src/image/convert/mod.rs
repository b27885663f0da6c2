//! An image's configuration becomes a runtime configuration (image-spec, conversion.md).

use std::path::PathBuf;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use super::unpack::Ids;
use crate::Result;

/// A bind into the container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ImageMount {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// Whether it is read-only.
    #[serde(default)]
    pub readonly: bool,
}

/// What a caller wants other than the image has it. As JSON, with the same names in camel case, it
/// is what the C ABI takes.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Overrides {
    /// In place of the image's Cmd.
    pub args: Option<Vec<String>>,
    /// In place of the image's Entrypoint; empty for none. With it the image's Cmd does not count, as
    /// with Docker.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=VALUE` beside the image's, before which it comes; `NAME` alone takes one away.
    pub env: Vec<String>,
    /// Leave the image's environment out.
    pub clear_env: bool,
    /// The working directory.
    pub cwd: Option<PathBuf>,
    /// `USER`, `USER:GROUP`, names or numbers.
    pub user: Option<String>,
    /// The hostname. Default: `locule`.
    pub hostname: Option<String>,
    /// Whether the root is read-only.
    pub readonly: bool,
    /// Whether the container has the host's network instead of none.
    pub host_network: bool,
    /// The most memory, in bytes.
    pub memory: Option<u64>,
    /// The most processor time, in processors.
    pub cpus: Option<f64>,
    /// The most processes and threads.
    pub pids: Option<i64>,
    /// Further binds.
    pub mounts: Vec<ImageMount>,
    /// Whether the program gets a terminal.
    pub terminal: bool,
    /// Its size: rows and columns.
    pub terminal_size: Option<(u16, u16)>,
    /// Annotations beside those that the image's labels become.
    pub annotations: std::collections::BTreeMap<String, String>,
    /// A name or number of a signal, for the annotation that says how to stop it.
    pub stop_signal: Option<String>,
    /// JSON merge patch (RFC 7396) for the resulting config.json, after all else.
    pub patch: Option<serde_json::Value>,
}

/// What the conversion stands on beside the two configurations.
pub(super) struct Facts<'a> {
    /// The topmost unpacked layer, for `root.path`.
    pub(super) root: PathBuf,
    /// Reads a file of the image.
    pub(super) read: &'a dyn Fn(&str) -> Result<Option<Vec<u8>>>,
    /// The caller's ids if the container needs a user namespace for want of privilege.
    pub(super) rootless: Option<(u32, u32)>,
    /// Whose the unpacked files are: what is `Mapped` becomes the user namespace's mappings.
    pub(super) ids: &'a Ids,
    /// The manifest's digest, for an annotation.
    pub(super) digest: &'a str,
}

/// The text of a config.json.
pub(super) fn convert(
    _config: &ImageConfiguration,
    _overrides: &Overrides,
    _facts: &Facts<'_>,
) -> Result<Vec<u8>> {
    todo!()
}

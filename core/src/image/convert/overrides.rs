//! What a caller wants other than the image has it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::invalid;
use crate::Result;
use crate::image::unpack::{IdRange, Ids};
use crate::spec::wanted;

/// A bind into the container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ImageMount {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// Whether it is read-only.
    #[serde(default, deserialize_with = "or_default")]
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
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Leave the image's environment out.
    #[serde(deserialize_with = "or_default")]
    pub clear_env: bool,
    /// The working directory.
    pub cwd: Option<PathBuf>,
    /// `USER`, `USER:GROUP`, names or numbers.
    pub user: Option<String>,
    /// The hostname. Default: `locule`.
    pub hostname: Option<String>,
    /// Whether the root is read-only. The image's volumes and `/tmp` are in memory then.
    #[serde(deserialize_with = "or_default")]
    pub readonly: bool,
    /// Whether the root is an overlay of the image's layers; if not, it is a copy of the image's own files, which
    /// is made with the container and removed with it. Default: an overlay, where the kernel has it.
    pub overlay: Option<bool>,
    /// Whether the container has the host's network instead of none.
    #[serde(deserialize_with = "or_default")]
    pub host_network: bool,
    /// The most memory, in bytes.
    pub memory: Option<u64>,
    /// The most processor time, in processors.
    pub cpus: Option<f64>,
    /// The most processes and threads.
    pub pids: Option<i64>,
    /// Further binds.
    #[serde(deserialize_with = "or_default")]
    pub mounts: Vec<ImageMount>,
    /// Whether the program gets a terminal.
    #[serde(deserialize_with = "or_default")]
    pub terminal: bool,
    /// Its size: rows and columns.
    pub terminal_size: Option<(u16, u16)>,
    /// Annotations beside those that the image's labels become.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// A name or number of a signal, for the annotation that says how to stop it.
    pub stop_signal: Option<String>,
    /// The user namespace that the container is to have, as in config.json: users. The image is unpacked
    /// for it. Both or none.
    #[serde(deserialize_with = "or_default")]
    pub uid_mappings: Vec<IdRange>,
    /// Groups.
    #[serde(deserialize_with = "or_default")]
    pub gid_mappings: Vec<IdRange>,
    /// JSON merge patch (RFC 7396) for the resulting config.json, after all else.
    pub patch: Option<Value>,
}

impl Overrides {
    /// Whose the files are to be, if the caller says so.
    pub(in crate::image) fn ids(&self) -> Result<Option<Ids>> {
        let (uids, gids) = (self.uid_mappings.clone(), self.gid_mappings.clone());
        match (uids.is_empty(), gids.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => Ok(Some(Ids::Mapped { uids, gids })),
            _ => Err(invalid("`uidMappings` and `gidMappings` go together".to_owned())),
        }
    }

    /// Reads them from JSON: an object, of which every member may be missing or `null`.
    ///
    /// # Errors
    ///
    /// `Invalid`, with the name of the member that is unknown or has a wrong type.
    pub fn from_json(json: &[u8]) -> Result<Overrides> {
        let error = match serde_json::from_slice(json) {
            // serde reads a list, too, as the members in their order.
            Ok(overrides) if json.trim_ascii_start().starts_with(b"{") => return Ok(overrides),
            Ok(_) => return Err(invalid("the overrides are no JSON object".to_owned())),
            Err(error) => error,
        };
        let members = serde_json::from_slice::<Map<String, Value>>(json).unwrap_or_default();
        Err(match members.into_iter().find_map(wrong) {
            Some((name, why)) => invalid(format!("`{name}`: {why}")),
            None => invalid(format!("the overrides: {error}")),
        })
    }
}

/// What is wrong with a member: serde's words name those only that are unknown.
fn wrong((name, value): (String, Value)) -> Option<(String, String)> {
    let alone = Map::from_iter([(name.clone(), value)]);
    let error = serde_json::from_value::<Overrides>(alone.into()).err()?;
    let why = error.to_string();
    // Of types it knows Rust's.
    Some(match why.rsplit_once(", expected ") {
        Some((found, expected)) => (name, format!("{found}, expected {}", wanted(expected))),
        None => (name, why),
    })
}

/// `null` is what a list that is not there becomes in some languages.
fn or_default<'de, D, T>(from: D) -> std::result::Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

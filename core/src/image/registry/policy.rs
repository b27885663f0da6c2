//! `registries.json`: mirrors, certificates, and which registries may be used.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::file;
use crate::{Category, Error, Result, Stage};

const DEFAULT: &str = "/etc/locule/registries.json";

/// The file, with what stands there of a registry.
#[derive(Debug, Default)]
pub(super) struct Policy {
    path: PathBuf,
    /// By [`place`].
    registries: BTreeMap<String, Rules>,
    default: Otherwise,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Document {
    registries: BTreeMap<String, Rules>,
    default: Otherwise,
}

/// What holds for a registry.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Rules {
    /// `HOST[:PORT][/PATH]`, with `http://` or without; asked in this order before the registry.
    pub(super) mirrors: Vec<String>,
    /// A file with certificates to trust beside the system's.
    pub(super) ca: Option<PathBuf>,
    /// Whether it is spoken to without TLS.
    pub(super) plain_http: bool,
    /// Whether it must not be used.
    blocked: bool,
}

/// What holds for the registries that are not named.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Otherwise {
    blocked: bool,
}

impl Policy {
    pub(super) fn read(path: Option<&Path>) -> Result<Policy> {
        const WHAT: &str = "the file of registries";
        let bytes = match path {
            Some(path) => Some(file::read(path, WHAT)?),
            None => file::read_if_there(Path::new(DEFAULT), WHAT)?,
        };
        let path = path.unwrap_or(Path::new(DEFAULT)).to_owned();
        let document = match bytes {
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| file::wrong(&path, error))?
            }
            None => Document::default(),
        };
        let mut policy = Policy { path, default: document.default, ..Policy::default() };
        let mut names: HashMap<String, String> = HashMap::new();
        for (name, rules) in document.registries {
            let place = place(&name);
            if let Some(other) = names.insert(place.clone(), name.clone()) {
                let what = format!("{other:?} and {name:?} are the same registry");
                return Err(policy.wrong(what));
            }
            policy.registries.insert(place, rules);
        }
        Ok(policy)
    }

    fn get(&self, registry: &str) -> Option<&Rules> {
        let place = place(registry);
        // One that is spoken to without TLS is at another port if none is named.
        let plain = || {
            let rules = self.registries.get(place.strip_suffix(":80")?)?;
            rules.plain_http.then_some(rules)
        };
        self.registries.get(&place).or_else(plain)
    }

    /// What holds for a registry; an error if it must not be used.
    pub(super) fn of(&self, registry: &str) -> Result<Option<&Rules>> {
        let rules = self.get(registry);
        if rules.map_or(self.default.blocked, |rules| rules.blocked) {
            let path = self.path.display();
            let message = format!("the registry {registry} is blocked by {path}");
            return Err(Error::new(Category::Permission, Stage::Image, message));
        }
        Ok(rules)
    }

    /// What holds for the place of a mirror, which is allowed by being named as one.
    pub(super) fn of_mirror(&self, host: &str) -> Option<&Rules> {
        self.get(host)
    }

    pub(super) fn wrong(&self, what: impl std::fmt::Display) -> Error {
        file::wrong(&self.path, what)
    }
}

/// A registry's address in one of the ways in which it can be written: in lower case, without the port that HTTPS has,
/// and Docker's by its name.
fn place(registry: &str) -> String {
    let registry = registry.to_ascii_lowercase();
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port))
            if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            (host, port.trim_start_matches('0'))
        }
        _ => (registry.as_str(), "443"),
    };
    let host = match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    if port == "443" { host.to_owned() } else { format!("{host}:{port}") }
}

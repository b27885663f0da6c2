//! How plugins are configured: a JSON document for each, and a folder of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locule::plugin::{Call, Fault, Guard, OnFailure, Plugin, Registration, Stage, rules};
use locule::{Category, Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{invalid, linker};

/// How code is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// As machine code where this process may have memory that is written and then executed, else
    /// interpreted.
    #[default]
    Auto,
    /// As machine code.
    Native,
    /// Interpreted by Pulley, 20 to 40 times slower, for processes that must not make memory
    /// executable.
    Pulley,
}

/// What the engine can do with: less is too little for any component.
const STACK: std::ops::RangeInclusive<usize> = 64 << 10..=2 << 20;

/// What one call of a plugin may use. What is over a limit ends the call as a failure that names
/// the limit. Loading has the same limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// How much is computed: about one unit an instruction or a byte copied. The same call needs
    /// the same on every machine. Default: 500 million, which take about a second.
    pub fuel: u64,
    /// Milliseconds. While such a plugin is called there is a thread beside it, which looks at the
    /// clock every 10 ms. Default: none; the limit on computing bounds the time, too.
    pub wall_milliseconds: Option<u64>,
    /// Bytes of all its memories together. Default: 64 MiB.
    pub memory_bytes: usize,
    /// Core instances it consists of. Default: 128.
    pub instances: usize,
    /// Tables. Default: 64.
    pub tables: usize,
    /// Elements of a table. Default: 100,000.
    pub table_elements: usize,
    /// Bytes of the calling thread's stack, 64 KiB to 2 MiB. Default: 512 KiB.
    pub stack_bytes: usize,
    /// Adjustments. Default: 1,000.
    pub adjustments: u32,
    /// Bytes of a text that it gives: an argument, a message. Default: 1 MiB.
    pub text_bytes: usize,
    /// Bytes of a text that it asks for, such as the whole configuration. Default: 4 MiB.
    pub input_bytes: usize,
    /// Bytes for the log; what is more is left out. Default: 64 KiB.
    pub log_bytes: usize,
    /// Keys in its store. Default: 64.
    pub keys: u32,
    /// Bytes of a value in its store. Default: 64 KiB.
    pub value_bytes: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            fuel: 500_000_000,
            wall_milliseconds: None,
            memory_bytes: 64 << 20,
            instances: 128,
            tables: 64,
            table_elements: 100_000,
            stack_bytes: 512 << 10,
            adjustments: 1000,
            text_bytes: 1 << 20,
            input_bytes: 4 << 20,
            log_bytes: 64 << 10,
            keys: 64,
            value_bytes: 64 << 10,
        }
    }
}

/// The configuration of a plugin.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    /// Its name: letters, digits and `_.-`.
    pub name: String,
    /// The component: a file, or `oci:` and the path of an OCI image layout, perhaps with `:` and a
    /// tag.
    pub path: String,
    /// `sha256:` and the digest of the component in hexadecimal: nothing else is loaded.
    #[serde(default)]
    pub digest: Option<String>,
    /// The powers it is granted: names of interfaces, such as `adjust-env`.
    #[serde(default)]
    pub powers: Vec<String>,
    /// What it gets to see of `config`: any JSON.
    #[serde(default)]
    pub config: Value,
    /// Lower ones are called first; of equal ones the names decide.
    #[serde(default)]
    pub priority: i32,
    /// `fail`, `skip` or `disable`.
    #[serde(default)]
    on_failure: Option<String>,
    /// The same for single stages, by their names.
    #[serde(default)]
    on_failure_at: BTreeMap<String, String>,
    /// Whether it may change what plugins before it have changed.
    #[serde(default, rename = "override")]
    pub may_override: bool,
    /// Whether no container is created without it.
    #[serde(default)]
    pub required: bool,
    /// What a call may use.
    #[serde(default)]
    pub limits: Limits,
    /// Keeps the component's memory from call to call: faster, and what one call leaves there the
    /// next one sees.
    #[serde(default)]
    pub keep_alive: bool,
    /// How its code is run.
    #[serde(default)]
    pub engine: Engine,
    /// Where compiled components are kept. Default: `/var/cache/locule/plugins` for root, else
    /// `$XDG_CACHE_HOME/locule/plugins` or `~/.cache/locule/plugins`; an empty one is no cache.
    #[serde(default)]
    pub cache: Option<PathBuf>,
    /// Where relative paths begin.
    #[serde(skip)]
    pub(crate) base: PathBuf,
}

impl Configuration {
    /// Reads and checks a document.
    pub fn parse(json: &[u8], base: &Path) -> Result<Configuration> {
        let mut read: Configuration = document("the plugin's configuration", json)?;
        read.base = base.to_owned();
        read.check().map_err(|error| error.context(format!("plugin {:?}", read.name)))?;
        read.powers.sort();
        read.powers.dedup();
        Ok(read)
    }

    fn check(&self) -> Result<()> {
        for (index, power) in self.powers.iter().enumerate() {
            if !linker::POWERS.contains(&power.as_str()) {
                let message = format!("{power:?} is no power");
                return Err(invalid(message)
                    .at(format!("/powers/{index}"))
                    .hint(format!("there are {}", linker::POWERS.join(", "))));
            }
        }
        if let Some(policy) = &self.on_failure {
            policy_of(policy).map_err(|error| error.at("/onFailure"))?;
        }
        for (stage, policy) in &self.on_failure_at {
            let at = |error: Error| error.at(format!("/onFailureAt/{stage}"));
            if Stage::named(stage).is_none() {
                return Err(at(invalid(format!("{stage:?} is no stage"))));
            }
            policy_of(policy).map_err(at)?;
        }
        let limits = &self.limits;
        let positive = [
            ("fuel", limits.fuel > 0),
            ("wallMilliseconds", limits.wall_milliseconds != Some(0)),
            ("stackBytes", STACK.contains(&limits.stack_bytes)),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, fits)| !fits) {
            let message = format!("the limit {name} is out of range");
            return Err(invalid(message).at(format!("/limits/{name}")));
        }
        Ok(())
    }

    /// How it is to be called, with no plugin as yet.
    pub(crate) fn registration(&self) -> Registration {
        let policy = |name: &String| policy_of(name).unwrap_or_default();
        let at = |(stage, name): (&String, &String)| Some((Stage::named(stage)?, policy(name)));
        Registration {
            priority: self.priority,
            on_failure: self.on_failure.as_ref().map(policy).unwrap_or_default(),
            on_failure_at: self.on_failure_at.iter().filter_map(at).collect(),
            may_override: self.may_override,
            required: self.required,
            ..Registration::new(self.name.clone(), Arc::new(Nothing))
        }
    }
}

/// What stands in a registration until the plugin is loaded.
struct Nothing;

impl Plugin for Nothing {
    fn stages(&self) -> &[Stage] {
        &[]
    }

    fn handle(&self, _: &mut Call) -> Result<(), Fault> {
        Ok(())
    }
}

fn policy_of(name: &str) -> Result<OnFailure> {
    OnFailure::named(name)
        .ok_or_else(|| invalid(format!("{name:?} is none of fail, skip and disable")))
}

/// The plugins that a folder configures.
#[derive(Debug, Default)]
pub struct Folder {
    /// The plugins.
    pub registrations: Vec<Registration>,
    /// Names of those without which no container is created.
    pub required: Vec<String>,
    /// What no plugin may do.
    pub guard: Guard,
}

const RULES: &str = "rules.json";

/// The folder of programs that have none of their own: `/etc/locule/plugins` for root, else
/// `$XDG_CONFIG_HOME/locule/plugins` or `~/.config/locule/plugins`. It need not exist.
pub fn default_folder() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some("/etc/locule/plugins".into());
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let config = set("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(set("HOME")?).join(".config")))?;
    Some(config.join("locule/plugins"))
}

/// Loads a folder: a `NAME.json` for each plugin, with or without its `name`, and perhaps
/// `rules.json`, for which see [`rules`]. Other files are ignored. Whoever can write there decides
/// what becomes of containers, so it has to belong to root or to this user, and must not be writable
/// by others; and so with each file.
///
/// # Errors
/// As [`load`](crate::load()), with the file's name. A folder that is not there is an error, too.
pub fn load_folder(path: &Path) -> Result<Folder> {
    let mut folder = Folder::default();
    for file in files(path)? {
        let mut load = || -> Result<()> {
            let json = crate::source::read_configuration(&file)?;
            if file.file_name().is_some_and(|name| name == RULES) {
                (folder.required, folder.guard) = rules(&json)?;
                return Ok(());
            }
            folder.registrations.push(configuration_in(&file, &json)?.load()?);
            Ok(())
        };
        load().map_err(|error| error.context(format!("{file:?}")))?;
    }
    Ok(folder)
}

/// Reads a configuration in a file, whose name it has if it says no other.
///
/// # Errors
/// As [`Configuration::parse`], with the file's name.
pub fn read_configuration(file: &Path) -> Result<Configuration> {
    let read = || configuration_in(file, &crate::source::read_configuration(file)?);
    read().map_err(|error| error.context(format!("{file:?}")))
}

fn configuration_in(file: &Path, json: &[u8]) -> Result<Configuration> {
    let mut value: Value = document("the plugin's configuration", json)?;
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if let Some(members) = value.as_object_mut() {
        members.entry("name").or_insert_with(|| stem.into());
    }
    let base = file.parent().unwrap_or(Path::new("/"));
    Configuration::parse(value.to_string().as_bytes(), base)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    crate::source::check_folder(folder)?;
    let failed = |error: std::io::Error| {
        Error::io(locule::Stage::Plugin, &error, format!("read the folder {folder:?}"))
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if !hidden && path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn document<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|error| invalid(format!("{what}: {error}")).with_category(Category::Invalid))
}

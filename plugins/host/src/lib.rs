//! Wasm plugins for Locule: components of the package `locule:plugin` (`plugins/wit`), in a sandbox
//! inside this process.
//!
//! ```no_run
//! # fn main() -> locule::Result<()> {
//! use locule::plugin::{Guard, Plugins};
//!
//! let json = br#"{"name": "policy", "path": "policy.wasm", "powers": ["adjust-security"]}"#;
//! let policy = locule_plugins::load(json, "/etc/locule/plugins".as_ref())?;
//! let plugins = Plugins::new(vec![policy], Vec::new(), Guard::default())?;
//! let runtime = locule::Runtime::new(locule::RuntimeOptions { plugins, ..Default::default() })?;
//! # Ok(())
//! # }
//! ```
//!
//! A component has no power but those that it was granted by name: no file, no clock, no network.
//! What it imports beyond that keeps it from being loaded. It has limits on computing, memory and
//! what it may say, and its failure is an error that names the limit.
//!
//! This process is left as it is: no signal handler, no thread, hardly any address space. Only a
//! plugin with a limit on time has, while it is being called, one thread beside it.
//!
//! `configuration.rs` says how a plugin is configured, `source.rs` where its file comes from,
//! `cache.rs` where compiled ones are kept, `guest.rs` what a component can call, `plugin.rs` how it
//! is called.

mod alternate;
mod bindings;
mod cache;
mod configuration;
mod directory;
mod engine;
mod guest;
mod inspect;
mod kv;
mod linker;
mod plugin;
mod session;
mod source;
mod stack;
mod ticker;

pub use configuration::{
    Configuration, Engine, Folder, Limits, default_folder, load_folder, read_configuration,
};
pub use inspect::inspect;
pub use locule::plugin::rules;
pub use plugin::WasmPlugin;
pub use session::{Outcome, Recording, Scene, Session};

use std::path::Path;
use std::sync::Arc;

use locule::plugin::Registration;
use locule::{Category, Error, Result, Stage};

/// Loads a plugin as its configuration says: a JSON document ([`Configuration`]), in which relative
/// paths begin at `base`. Compiles it if it is not in the cache, which takes milliseconds for a
/// small component and seconds for one that brings an interpreter along.
///
/// # Errors
/// [`Category::Invalid`] for a configuration that is wrong, with the field; [`Category::NotFound`]
/// for a file that is not there; [`Category::Plugin`] for one that is no such component, that has
/// another digest, that wants powers it is not granted, or that does not accept its configuration.
pub fn load(json: &[u8], base: &Path) -> Result<Registration> {
    let configuration = Configuration::parse(json, base)?;
    configuration.load()
}

impl Configuration {
    /// Loads the plugin.
    pub fn load(self) -> Result<Registration> {
        let name = self.name.clone();
        let settings = self.registration();
        let plugin =
            WasmPlugin::new(self).map_err(|error| error.context(format!("plugin {name:?}")))?;
        Ok(Registration { plugin: Arc::new(plugin), ..settings })
    }
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(Category::Plugin, Stage::Plugin, message)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Category::Invalid, Stage::Plugin, message)
}

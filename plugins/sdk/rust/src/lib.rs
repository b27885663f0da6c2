//! Write plugins for the Locule container runtime in Rust.
//!
//! A plugin is a WebAssembly component. It says which stages of containers' lives it wants to see;
//! at each it may look at the container, change it or refuse it:
//!
//! ```
//! use locule_plugin::{Container, Failure, Plugin, Stage, env};
//!
//! struct Team;
//!
//! impl Plugin for Team {
//!     fn configure() -> Result<Vec<Stage>, Failure> {
//!         Ok(vec![Stage::Create])
//!     }
//!
//!     fn handle(_: Stage, container: &Container) -> Result<(), Failure> {
//!         let team = container.annotation("team").ok_or("the annotation `team` is missing")?;
//!         env::set("TEAM", team)?;
//!         Ok(())
//!     }
//! }
//!
//! locule_plugin::export!(Team);
//! ```
//!
//! # Powers
//!
//! Each module of functions here is an interface of the host. [`config`], [`event`] and [`log`] are
//! everybody's; the others are powers, which the operator grants to a plugin by name. A component
//! imports those interfaces alone whose functions the plugin calls, so what it can do can be read
//! from the file.
//!
//! Adjustments are allowed at the stages `create`, `exec` and `update`. They take effect when all
//! plugins have agreed to the stage; until then [`spec_view`] shows what would come of them. An
//! adjustment that is not taken is a [`Refusal`], which `?` turns into a [`Failure`].
//!
//! # Limits
//!
//! A component has no files, no network, no clock and no random numbers: `std` has its collections,
//! strings and formatting, and what asks the system fails. The host limits the time and the memory of
//! each call. A panic ends the call, and counts as a failure without a message.

#[doc(hidden)]
pub mod bindings;
mod export;
mod failure;
pub mod log;
mod stage;

use bindings::plugin::locule::plugin as host;

#[doc(hidden)]
pub use export::Exported;
pub use export::{Plugin, Validator};
pub use stage::Stage;

#[doc(inline)]
pub use bindings::judge::exports::locule::plugin::validator::Change;
#[doc(inline)]
pub use host::types::{Container, Failure, Refusal};

pub use host::{config, event};

/// The power `adjust-annotations`: annotations of the container.
pub use host::adjust_annotations as annotations;
/// The power `adjust-devices`: device nodes, and who may use them.
pub use host::adjust_devices as devices;
/// The power `adjust-env`.
pub use host::adjust_env as env;
/// The power `adjust-hooks`.
pub use host::adjust_hooks as hooks;
/// The power `adjust-mounts`: file systems, and parts of the host's.
pub use host::adjust_mounts as mounts;
/// The power `adjust-namespaces`: what the container shares with whom.
pub use host::adjust_namespaces as namespaces;
/// The power `adjust-process`.
pub use host::adjust_process as process;
/// The power `adjust-raw`.
pub use host::adjust_raw as raw;
/// The power `adjust-resources`.
pub use host::adjust_resources as resources;
/// The power `adjust-rlimits`.
pub use host::adjust_rlimits as rlimits;
/// The power `adjust-security`.
pub use host::adjust_security as security;
/// The power `kv`.
pub use host::kv;
/// The power `spec-view`.
pub use host::spec_view;

impl Container {
    /// The value of an annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

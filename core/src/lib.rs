//! Locule: a container runtime that lives inside another program.
//!
//! ```no_run
//! # fn main() -> locule::Result<()> {
//! use locule::{CreateOptions, Runtime, RuntimeOptions, Source};
//!
//! let runtime = Runtime::new(RuntimeOptions::default())?;
//! let container = runtime.create(CreateOptions::new(Source::bundle("/var/lib/bundles/web")))?;
//! container.start(None)?;
//! let exit = container.init().wait(None, None)?;
//! container.delete(true)?;
//! # Ok(())
//! # }
//! ```
//!
//! Every type here may be shared between threads. No call changes the process it runs in:
//! the work is done by a *keeper*, a tiny process of its own for each container.

pub mod cgroup;
mod compile;
mod container;
mod error;
#[cfg(feature = "images")]
pub mod image;
mod launch;
pub mod plugin;
mod resctrl;
pub mod seccomp;
pub mod spec;

/// What is inside, for the targets in `tests/fuzz`. Behind a feature, and no part of the API.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::cgroup::fuzzing::*;
    pub use crate::compile::fuzzing::*;
    pub use crate::container::fuzzing::*;
    #[cfg(feature = "images")]
    pub use crate::image::fuzzing::*;
}

pub use compile::{HostFacts, IdMappers, Plan, RootEntry};
pub use container::{
    Cancel, CheckpointOptions, Container, CreateOptions, CriuOptions, Event, ExecOptions, Exit,
    ManageCgroups, NetworkLock, OnHostExit, Parentage, Process, RestoreOptions, Rootfs, Runtime,
    RuntimeOptions, Source, State, Status, Stdio, TerminalSize, rootless_ids,
};
pub use error::{Category, Error, Result, Stage};

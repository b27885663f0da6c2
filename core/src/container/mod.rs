//! Containers and their processes: handles, state directory, transitions, events.

mod cancel;
mod checkpoint;
mod configuration;
mod create;
mod events;
mod exec;
mod facts;
mod failure;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handle;
mod joined;
mod late_hooks;
mod layers;
mod options;
#[cfg(feature = "images")]
mod origin;
mod pidfd;
mod process;
mod record;
mod runtime;
mod stages;
mod state_dir;
mod stdio;

pub use cancel::Cancel;
pub use checkpoint::{CheckpointOptions, CriuOptions, ManageCgroups, NetworkLock, RestoreOptions};
pub use events::Event;
pub use facts::rootless_ids;
#[cfg(feature = "images")]
pub(crate) use facts::{has_overlay, id_mappers, in_user_namespace};
pub use handle::Container;
pub use options::{
    CreateOptions, ExecOptions, OnHostExit, Parentage, Rootfs, RuntimeOptions, Source, Stdio,
    TerminalSize,
};
#[cfg(feature = "images")]
pub(crate) use origin::has_usage;
pub use process::{Exit, Process};
pub use record::{State, Status};
pub use runtime::Runtime;

/// What the keys of annotations begin with that have the runtime do something: users and images must
/// not set them.
pub(crate) const UNSAFE_ANNOTATIONS: [&str; 3] =
    [crate::cgroup::ANNOTATIONS, create::KEEP_GROUPS, checkpoint::ANNOTATION];

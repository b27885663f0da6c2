//! The stages of a container's life, whose names the interface passes as text.

use std::fmt;

macro_rules! stages {
    ($($(#[$doc:meta])* $stage:ident = $name:literal,)*) => {
        /// What happens to a container.
        ///
        /// A plugin is called at those stages alone that [`configure`](crate::Plugin::configure) has
        /// returned. At `Create`, `Start`, `Exec`, `Update`, `Pause` and `Resume` a failure keeps it
        /// from happening; at the others it is told to the host's log.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Stage {
            $($(#[$doc])* $stage,)*
        }

        impl Stage {
            /// Its name in the interface, such as `create`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$stage => $name,)*
                }
            }

            pub(crate) fn of_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$stage),)*
                    _ => None,
                }
            }
        }
    };
}

stages! {
    /// It is about to be created, or somebody asks what that would do; adjustments change its
    /// configuration. It is not sure that the container comes to be: take hold of things for it at
    /// [`Created`](Stage::Created).
    Create = "create",
    /// It is created, and its program does not run yet.
    Created = "created",
    /// Its program is about to be started.
    Start = "start",
    /// Its program runs.
    Started = "started",
    /// Another process is about to be run in it; adjustments change that process.
    Exec = "exec",
    /// Its limits are about to be changed; adjustments change the limits.
    Update = "update",
    /// It is about to be frozen.
    Pause = "pause",
    /// It is about to be thawed.
    Resume = "resume",
    /// It is about to be sent a signal.
    Kill = "kill",
    /// Its first process has ended.
    Stopped = "stopped",
    /// It has been removed.
    Delete = "delete",
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

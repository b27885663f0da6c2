//! Plugins: what sees, changes or refuses a container at points of its life.
//!
//! A plugin is anything that implements [`Plugin`]: a type of the host's own, or a Wasm component
//! that the crate `locule-plugins` has loaded. Those of a runtime form a chain,
//! [`Plugins`], which is where all the rules are: in which order they are called, who owns which
//! change, what becomes of a failure. Nothing here makes a system call but the log of changes,
//! `log.rs`.
//!
//! [`Adjustment`] is what a plugin can ask for, [`Call`] how it asks; `place.rs` knows where in a
//! configuration that is, `ledger.rs` who has changed what.

mod adjustment;
mod call;
mod chain;
mod guard;
mod ledger;
pub(crate) mod log;
mod place;
mod rules;
mod said;
#[cfg(test)]
mod tests;

pub use adjustment::{Adjustment, Device, Hook, Mount};
pub use call::Call;
pub use chain::{OnFailure, Plugins, Registration};
pub use guard::Guard;
pub use ledger::{Change, Refusal};
pub use rules::rules;
pub use said::{Level, Said};

pub(crate) use call::Subject;
pub(crate) use chain::Adjusted;

/// A point in a container's life at which plugins are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// It is about to be created, or somebody asks what that would do: its configuration may be
    /// changed. Whoever has to take hold of something for it does so at [`Stage::Created`], which
    /// [`Stage::Delete`] follows: of a creation that fails after this nobody is told.
    Create,
    /// It has been created, and its program does not run yet.
    Created,
    /// Its program is about to be started.
    Start,
    /// Its program runs.
    Started,
    /// Another process is about to be run in it: that process may be changed.
    Exec,
    /// Its limits are about to be changed: the new ones may be changed.
    Update,
    /// It is about to be frozen.
    Pause,
    /// It is about to be thawed.
    Resume,
    /// It is about to be sent a signal, which can't be refused.
    Kill,
    /// Its first process has ended. Told once, by the runtime that notices it first.
    Stopped,
    /// It has been removed. One that dies with its host is removed by its keeper, and nobody is
    /// told.
    Delete,
}

impl Stage {
    /// All stages, in the order of a life.
    pub const ALL: [Stage; 11] = [
        Stage::Create,
        Stage::Created,
        Stage::Start,
        Stage::Started,
        Stage::Exec,
        Stage::Update,
        Stage::Pause,
        Stage::Resume,
        Stage::Kill,
        Stage::Stopped,
        Stage::Delete,
    ];

    /// Its name, as plugins know it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Create => "create",
            Stage::Created => "created",
            Stage::Start => "start",
            Stage::Started => "started",
            Stage::Exec => "exec",
            Stage::Update => "update",
            Stage::Pause => "pause",
            Stage::Resume => "resume",
            Stage::Kill => "kill",
            Stage::Stopped => "stopped",
            Stage::Delete => "delete",
        }
    }

    /// The stage of this name.
    pub fn named(name: &str) -> Option<Stage> {
        Stage::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// Whether a plugin can keep it from happening. Where it cannot, what goes wrong is told to the
    /// log: no plugin is in the way of a container's end.
    pub fn can_be_refused(self) -> bool {
        use Stage::*;
        matches!(self, Create | Start | Exec | Update | Pause | Resume)
    }

    /// The part of the configuration that may be changed, as a JSON pointer; `None` where nothing
    /// may be.
    pub fn adjustable(self) -> Option<&'static str> {
        match self {
            Stage::Create => Some(""),
            Stage::Exec => Some("/process"),
            Stage::Update => Some("/linux/resources"),
            _ => None,
        }
    }
}

/// Why a plugin did not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It has refused, which always counts.
    Refused {
        /// A number of the plugin's own; 0 if it has none.
        code: u32,
        /// What is wrong, for people.
        message: String,
    },
    /// It has failed itself: what that means is up to [`OnFailure`].
    Failed {
        /// What happened, for people. It names the limit if one was hit.
        message: String,
    },
}

impl Fault {
    /// A refusal without a number.
    pub fn refused(message: impl Into<String>) -> Fault {
        Fault::Refused { code: 0, message: message.into() }
    }

    /// A failure.
    pub fn failed(message: impl Into<String>) -> Fault {
        Fault::Failed { message: message.into() }
    }
}

/// What is called at stages of containers' lives.
///
/// Calls come on the thread that creates, starts or ends the container or notices that it has ended,
/// for several containers at a time if the host does that on several threads. They must return:
/// what they wait for, the caller waits for. A plugin must not create, start or delete a container
/// whose stage it is handling.
pub trait Plugin: Send + Sync {
    /// Where it wants to be called.
    fn stages(&self) -> &[Stage];

    /// A stage of a container. By an error it refuses, or says that it has failed.
    fn handle(&self, call: &mut Call) -> Result<(), Fault>;

    /// Whether it wants to see what all plugins together have made of a configuration.
    fn validates(&self) -> bool {
        false
    }

    /// A last look, after the adjustments of [`Stage::Create`]: what it refuses is not created,
    /// and nothing of it has happened. Adjustments are not allowed.
    fn validate(&self, call: &mut Call, changes: &[Change]) -> Result<(), Fault> {
        let _ = (call, changes);
        Ok(())
    }
}

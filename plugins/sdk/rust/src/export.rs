//! From the traits that authors implement to the exports that the host calls.

use std::marker::PhantomData;

use crate::bindings::judge::exports::locule::plugin::validator;
use crate::bindings::plugin::exports::locule::plugin::lifecycle;
use crate::{Change, Container, Failure, Stage};

/// A plugin that takes part in the lives of containers. [`export!`](crate::export) makes a type that
/// implements this the plugin of its crate.
///
/// There is no `self`: unless the operator wants otherwise each call finds fresh memory, so what is
/// to be remembered belongs into [`kv`](crate::kv).
pub trait Plugin {
    /// Says which stages the plugin is to be called for. This is called once, when the plugin is
    /// loaded: the moment to look at the configuration. A failure keeps the plugin from being loaded.
    fn configure() -> Result<Vec<Stage>, Failure>;

    /// A container is at a stage. A failure refuses it, where that can be.
    fn handle(stage: Stage, container: &Container) -> Result<(), Failure>;
}

/// A plugin that judges what all plugins together have made of a container's configuration.
/// [`export_validator!`](crate::export_validator) makes a type that implements this the judge of its
/// crate. A judge adjusts nothing: the host does not load one that imports an adjustment.
pub trait Validator {
    /// A last look, after the adjustments of `create`. [`spec_view`](crate::spec_view) shows what has
    /// come of them. A failure refuses the container, and nothing has changed.
    fn validate(container: &Container, changes: &[Change]) -> Result<(), Failure>;
}

/// Makes a [`Plugin`] the plugin of this crate.
///
/// ```
/// use locule_plugin::{Container, Failure, Plugin, Stage};
///
/// struct Idle;
///
/// impl Plugin for Idle {
///     fn configure() -> Result<Vec<Stage>, Failure> {
///         Ok(vec![])
///     }
///
///     fn handle(_: Stage, _: &Container) -> Result<(), Failure> {
///         Ok(())
///     }
/// }
///
/// locule_plugin::export!(Idle);
/// ```
#[macro_export]
macro_rules! export {
    ($plugin:ty) => {
        const _: () = {
            type Lifecycle = $crate::Exported<$plugin>;
            $crate::bindings::plugin::export_lifecycle!(
                Lifecycle with_types_in $crate::bindings::plugin
            );
        };
    };
}

/// Makes a [`Validator`] the judge of this crate. It may stand beside [`export!`](crate::export), if
/// the plugin adjusts nothing.
///
/// ```
/// use locule_plugin::{Change, Container, Failure, Validator};
///
/// struct NoHooks;
///
/// impl Validator for NoHooks {
///     fn validate(_: &Container, changes: &[Change]) -> Result<(), Failure> {
///         match changes.iter().find(|change| change.pointer.starts_with("/hooks")) {
///             Some(change) => Err(format!("{} has added a hook", change.plugin).into()),
///             None => Ok(()),
///         }
///     }
/// }
///
/// locule_plugin::export_validator!(NoHooks);
/// ```
#[macro_export]
macro_rules! export_validator {
    ($validator:ty) => {
        const _: () = {
            type Judge = $crate::Exported<$validator>;
            $crate::bindings::judge::export_validator!(
                Judge with_types_in $crate::bindings::judge
            );
        };
    };
}

/// What the macros export in the place of a plugin's type.
#[doc(hidden)]
pub struct Exported<P>(PhantomData<P>);

impl<P: Plugin> lifecycle::Guest for Exported<P> {
    fn configure() -> Result<lifecycle::Registration, Failure> {
        let stages = P::configure()?.into_iter().map(|stage| stage.name().into()).collect();
        Ok(lifecycle::Registration { stages })
    }

    fn handle(stage: String, container: Container) -> Result<(), Failure> {
        // The host calls for what was registered, and that has come from a `Stage`.
        let known = Stage::of_name(&stage)
            .ok_or_else(|| Failure::new(format!("called for the unknown stage {stage}")))?;
        P::handle(known, &container)
    }
}

impl<V: Validator> validator::Guest for Exported<V> {
    fn validate(container: Container, changes: Vec<Change>) -> Result<(), Failure> {
        V::validate(&container, &changes)
    }
}

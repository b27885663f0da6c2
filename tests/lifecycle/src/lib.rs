//! What the suites share: bundles, the two faces of the library behind one trait, the search
//! for leftovers.
//!
//! A case is a function that gets a [`Test`]. Each runs in a process of its own, once with
//! [`RustApi`] and once with [`CAbi`] as its [`Engine`], and must leave nothing behind.

pub mod bundle;
mod c_abi;
pub mod engine;
pub mod leftovers;
pub mod runner;
mod rust_api;
pub mod test;

/// What every file of cases uses.
pub mod prelude {
    pub use std::sync::Arc;
    pub use std::time::Duration;

    pub use locule::{Category, Exit, OnHostExit, Parentage, Rootfs, Stage};
    pub use serde_json::{Value, json};

    pub use crate::engine::{Container, Create, Engine, Exec, Failure, Process, Stream};
    pub use crate::runner::Case;
    pub use crate::test::*;
    pub use crate::{cases, leftovers};
}

/// Whether the runtimes are to have systemd make their cgroups: `LOCULE_CGROUPS=systemd`.
pub fn with_systemd() -> bool {
    std::env::var_os("LOCULE_CGROUPS").is_some_and(|choice| choice == "systemd")
}

pub use c_abi::{CAbi, generated_spec};
pub use engine::{Container, Create, Engine, Exec, Failure, Process, Stream, Token};
pub use rust_api::RustApi;
pub use test::Test;

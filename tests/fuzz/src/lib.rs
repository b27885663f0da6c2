//! Fuzz targets: functions that are given any bytes and must come back, whatever these are.
//!
//! A target panics if a promise is broken; the fuzzer, or the test that goes through the corpus,
//! sees that. What a target leaves alone it says.

use std::path::PathBuf;
use std::sync::LazyLock;

mod abi;
mod canary;
mod cgroup;
pub mod change;
mod config;
mod image;
mod keeper;
mod layer;
mod orphans;
mod plan;
mod process;
mod protocol;
mod rarely;
mod resources;
mod seccomp;
mod state;

/// One thing to be fed.
pub struct Target {
    /// Its name, which is that of its folder in `corpus` too.
    pub name: &'static str,
    /// What it reads.
    pub form: Form,
    /// What feeds it.
    pub run: fn(&[u8]),
}

/// What the bytes of an input mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// What they are.
    Bytes,
    /// A JSON document.
    Json,
    /// Calls and their arguments, made of them by `arbitrary`.
    Program,
}

/// All targets.
pub const TARGETS: [Target; 12] = [
    Target { name: "abi", form: Form::Program, run: abi::run },
    Target { name: "cgroup", form: Form::Bytes, run: cgroup::run },
    Target { name: "config", form: Form::Json, run: config::run },
    Target { name: "image", form: Form::Json, run: image::run },
    Target { name: "keeper", form: Form::Program, run: keeper::run },
    Target { name: "layer", form: Form::Program, run: layer::run },
    Target { name: "plan", form: Form::Bytes, run: plan::run },
    Target { name: "process", form: Form::Json, run: process::run },
    Target { name: "protocol", form: Form::Bytes, run: protocol::run },
    Target { name: "resources", form: Form::Json, run: resources::run },
    Target { name: "seccomp", form: Form::Json, run: seccomp::run },
    Target { name: "state", form: Form::Json, run: state::run },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Whether targets tell what an input means and what comes of it: for one that has been found.
fn is_shown() -> bool {
    static SHOWN: LazyLock<bool> = LazyLock::new(|| std::env::var_os("LOCULE_FUZZ_SHOW").is_some());
    *SHOWN
}

/// A directory of this process.
fn scratch() -> PathBuf {
    std::env::temp_dir().join(format!("locule-fuzz-{}", std::process::id()))
}

/// Removes what targets have left in [`scratch`].
pub fn clean_up() {
    let _ = std::fs::remove_dir_all(scratch());
}

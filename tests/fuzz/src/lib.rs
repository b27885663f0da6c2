//! Fuzz targets: functions that are given any bytes and must come back, whatever these are.
//!
//! A target panics if a promise is broken; the fuzzer, or the test that goes through the corpus,
//! sees that. What a target leaves alone it says.

use std::path::PathBuf;
use std::sync::LazyLock;

mod abi;
mod cgroup;
mod config;
pub mod json;
mod keeper;
mod orphans;
mod plan;
mod process;
mod protocol;
mod resources;
mod seccomp;
mod state;

/// One thing to be fed.
pub struct Target {
    /// Its name, which is that of its folder in `corpus` too.
    pub name: &'static str,
    /// What it reads is JSON.
    pub is_json: bool,
    /// What feeds it.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 10] = [
    Target { name: "abi", is_json: false, run: abi::run },
    Target { name: "cgroup", is_json: false, run: cgroup::run },
    Target { name: "config", is_json: true, run: config::run },
    Target { name: "keeper", is_json: false, run: keeper::run },
    Target { name: "plan", is_json: false, run: plan::run },
    Target { name: "process", is_json: true, run: process::run },
    Target { name: "protocol", is_json: false, run: protocol::run },
    Target { name: "resources", is_json: true, run: resources::run },
    Target { name: "seccomp", is_json: true, run: seccomp::run },
    Target { name: "state", is_json: true, run: state::run },
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

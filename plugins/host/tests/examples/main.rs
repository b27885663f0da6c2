//! The example plugins, built from source and called for real containers: what they change is seen
//! from inside, and what they refuse has not happened.
//!
//! `cargo test -p locule-plugins --test examples [-- FILTER...]`. What `plugins/build.sh` cannot
//! build for want of a toolchain is skipped, unless `CI` is `true`: then the toolchain is installed.
//! `count` is tested with `LOCULE_PYTHON_PLUGIN=1` alone, for its toolchain is large.

mod count;
mod inject;
mod policy;
mod recorded;
mod scene;
mod stamp;
mod together;

use std::path::Path;
use std::process::{Command, ExitCode};

use locule_lifecycle::runner::{self, Case, Face};

/// Cases, and the examples that they need.
const SUITES: &[(&str, &[Case], &[&str])] = &[
    ("policy", policy::CASES, &["policy"]),
    ("stamp", stamp::CASES, &["stamp"]),
    ("inject", inject::CASES, &["inject"]),
    ("together", together::CASES, &["policy", "stamp", "inject"]),
    ("recorded", recorded::CASES, &["policy", "stamp", "inject"]),
    ("count", count::CASES, &["count"]),
];

fn main() -> ExitCode {
    // A process for a case finds everything built, and the list of the cases needs nothing.
    let builds =
        !std::env::args().skip(1).any(|it| it == "--case" || it == "--guard" || it == "--list");
    let mut suites = Vec::new();
    for &(name, cases, examples) in SUITES {
        let built = examples.iter().filter(|_| builds).try_for_each(|example| build(example));
        match built {
            Ok(()) => suites.push((name, cases)),
            Err(Missing::Toolchain(what)) => println!("skipped: {what}: {name}"),
            Err(Missing::Example(why)) => {
                println!("FAILED   {name}: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    runner::main(&[Face::Rust], &suites, &[])
}

enum Missing {
    /// It could not be tried.
    Toolchain(String),
    /// It should be there.
    Example(String),
}

fn build(example: &str) -> Result<(), Missing> {
    let is_set = |name: &str, value: &str| std::env::var_os(name).is_some_and(|it| it == value);
    if example == "count" && !is_set("LOCULE_PYTHON_PLUGIN", "1") {
        return Err(Missing::Toolchain("LOCULE_PYTHON_PLUGIN=1".to_owned()));
    }
    let strict = is_set("CI", "true");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build.sh");
    let mut command = Command::new(script);
    let output = command.args(strict.then_some("--install-toolchains")).arg(example).output();
    let output = output.map_err(|error| Missing::Example(format!("plugins/build.sh: {error}")))?;
    if output.status.success() {
        // Compiles it once, and not within the time that a case has.
        let loaded = scene::load(&scene::configured(example, serde_json::json!({})));
        return loaded.map(drop).map_err(|error| Missing::Example(format!("{example}: {error}")));
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    match said.lines().find(|line| line.starts_with("plugins/build.sh: cannot build")) {
        Some(line) if !strict => Err(Missing::Toolchain(line.to_owned())),
        _ => Err(Missing::Example(said)),
    }
}

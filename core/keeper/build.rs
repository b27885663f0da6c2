//! Compiles the keeper: a program without libc, for the target the library is built for.
//!
//! Cargo cannot make one package's executable an input of another on stable, and a
//! freestanding program needs no crates, so plain `rustc` is called twice: for the plan
//! crate without its encoder, and for the keeper itself.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let variable = |name| env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let plan_sources = here.join("../plan/src");
    let keeper_sources = here.join("freestanding");
    watch(&plan_sources);
    watch(&keeper_sources);

    let compiler = || {
        let mut command = Command::new(variable("RUSTC"));
        command.args(["--edition", "2024", "--target", &variable("TARGET")]);
        command.args(["-C", "panic=abort", "-C", "opt-level=z", "-C", "codegen-units=1"]);
        // The program is loaded at a fixed address: it has nothing to relocate, so it can
        // start without a dynamic loader and its data pages stay untouched.
        command.args(["-C", "relocation-model=static", "-C", "force-unwind-tables=no"]);
        command
    };

    let plan = out.join("liblocule_plan.rlib");
    let mut command = compiler();
    command.args(["--crate-name", "locule_plan", "--crate-type", "rlib", "--cap-lints", "allow"]);
    command.args(["--cfg", "freestanding"]);
    command.arg("-o").arg(&plan).arg(plan_sources.join("lib.rs"));
    run(command);

    let mut command = compiler();
    command.args(["--crate-name", "locule_keeper", "--crate-type", "bin"]);
    command.args(["-C", "lto", "-C", "strip=symbols"]);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.arg("-C").arg(format!("linker={linker}"));
    }
    for argument in [
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none,-z,noexecstack,-z,norelro,--gc-sections,--no-eh-frame-hdr",
    ] {
        command.arg("-C").arg(format!("link-arg={argument}"));
    }
    let layout = keeper_sources.join("keeper.ld");
    command.arg("-C").arg(format!("link-arg=-Wl,-T,{}", layout.display()));
    command.arg("--extern").arg(format!("locule_plan={}", plan.display()));
    command.arg("-o").arg(out.join("locule-keeper")).arg(keeper_sources.join("main.rs"));
    run(command);
}

fn watch(folder: &Path) {
    println!("cargo::rerun-if-changed={}", folder.display());
}

fn run(mut command: Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{command:?} failed: {status}"),
        Err(error) => panic!("{command:?} did not run: {error}"),
    }
}

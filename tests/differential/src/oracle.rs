//! The oracle: runc, newer than distributions have it, built from its Go module.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Not simply the newest: the table of explained differences is about this one.
const VERSION: &str = "v1.5.2";

pub struct Oracle {
    pub program: PathBuf,
    /// As it calls itself.
    pub version: String,
}

/// Builds it unless that has been done; or says what is missing.
pub fn find(cache: &Path) -> Result<Oracle, String> {
    let program = cache.join(format!("runc-{VERSION}"));
    if !program.exists() {
        build(cache, &program).map_err(|why| format!("runc {VERSION}: {why}"))?;
    }
    let text = run(Command::new(&program).arg("--version"))?;
    Ok(Oracle { program, version: text.lines().next().unwrap_or_default().to_owned() })
}

fn build(cache: &Path, to: &Path) -> Result<(), String> {
    // Outside of any module, so that no go.mod has a say.
    let module = format!("github.com/opencontainers/runc@{VERSION}");
    let mut download = Command::new("go");
    download.args(["mod", "download", "-json", &module]).current_dir(cache).env("GOWORK", "off");
    let answer: serde_json::Value = serde_json::from_str(&run(&mut download)?)
        .map_err(|error| format!("go mod download: {error}"))?;
    let downloaded = answer["Dir"].as_str().ok_or("go mod download names no directory")?;
    // What is downloaded is read-only, and a build may want to write.
    let source = cache.join("runc-source");
    let _ = fs::remove_dir_all(&source);
    run(Command::new("cp").args(["-r", "--no-preserve=mode", downloaded]).arg(&source))?;
    let mut build = Command::new("go");
    let flags = ["-trimpath", "-mod=readonly", "-p=2", "-tags", "seccomp,urfave_cli_no_docs"];
    build.arg("build").args(flags).arg("-o").arg(to).arg(".");
    let built = run(build.current_dir(&source).env("GOWORK", "off"));
    let _ = fs::remove_dir_all(&source);
    built.map(drop)
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

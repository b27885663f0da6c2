//! The plugins of this program's containers, from a folder of configurations; and the tool for
//! those who write them, which is a program of its own.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use locule::Category;
use locule::plugin::Plugins;
use locule_plugins::{Folder, default_folder, load_folder};

use crate::arguments::Global;
use crate::failure::Failure;

/// Brings the compiler along that this program does without.
const TOOL: &str = "locule-plugin";

/// The plugins of the folder; none if there is no folder and nobody has named one.
pub fn load(global: &Global) -> Result<Plugins, Failure> {
    let folder = match &global.plugins {
        Some(folder) if folder.as_os_str().is_empty() => return Ok(Plugins::default()),
        Some(folder) => folder.clone(),
        None => {
            let Some(folder) = default_folder() else { return Ok(Plugins::default()) };
            match folder.try_exists() {
                Ok(true) => folder,
                // One that can't be looked at may well have rules in it; but not if this user may
                // not: then `HOME` is another's.
                Err(error) if error.kind() != ErrorKind::PermissionDenied => {
                    return Err(Failure::of(format!("{}: {error}", folder.display())));
                }
                _ => return Ok(Plugins::default()),
            }
        }
    };
    let Folder { registrations, required, guard } = match load_folder(&folder) {
        // Not in the cache: the tool puts them there.
        Err(error) if error.category() == Category::Unsupported => {
            compile(&folder, error)?;
            load_folder(&folder)?
        }
        loaded => loaded?,
    };
    Ok(Plugins::new(registrations, required, guard)?)
}

fn compile(folder: &Path, missing: locule::Error) -> Result<(), Failure> {
    let Some(tool) = tool() else { return Err(missing.into()) };
    let mut command = Command::new(&tool);
    let command = command.arg("check").arg("--plugins").arg(folder);
    // What it says is said again if it was of no use.
    let ran = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match ran {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::of(format!("{}: {error}", tool.display()))),
    }
}

/// Becomes the tool. The verbs that look at a folder look at this program's.
pub fn become_tool(global: &Global, words: &[String]) -> Failure {
    let Some(tool) = tool() else {
        return Failure::of(format!("{TOOL} is not installed beside this program"));
    };
    let mut command = Command::new(&tool);
    command.args(words);
    let looks = words.first().is_some_and(|verb| verb == "check" || verb == "list");
    if let Some(folder) = global.plugins.as_ref().filter(|_| looks) {
        command.arg("--plugins").arg(folder);
    }
    let error = command.exec();
    Failure::of(format!("{}: {error}", tool.display()))
}

/// Where it is built, or installed.
fn tool() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let beside = own.parent()?;
    let places = [beside.join(TOOL), beside.join("../libexec/locule").join(TOOL)];
    places.into_iter().find(|place| place.is_file())
}

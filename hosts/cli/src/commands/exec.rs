//! `exec`.

use std::process::ExitCode;

use clap::ArgMatches;
use locule::cgroup::SubCgroup;
use locule::{Container, ExecOptions, Parentage, Stage, Stdio};
use serde_json::{Value, json};

use super::{Done, open, rest};
use crate::arguments::{Global, path, text, texts};
use crate::failure::{Failure, of_program};
use crate::foreground::{self, Signals};
use crate::log;
use crate::streams::{self, Announce};

/// What tells callers that it is this program that failed, and not the one in the container.
const FAILED: u8 = 255;

pub fn exec(global: &Global, own: &ArgMatches) -> Done {
    begin(global, own).map_err(|failure| failure.with_code(FAILED))
}

fn begin(global: &Global, own: &ArgMatches) -> Done {
    let (id, args) = rest(own, "exec")?;
    let container = open(global, &id)?;
    let process = document(own, &container, args)?;
    let detach = own.get_flag("detach");
    let announce = Announce::read(own);
    announce.check(process["terminal"] == true, detach)?;
    let passed = streams::preserved(own, 0)?;
    let json = process.to_string();
    let mut options = ExecOptions::new(json.as_bytes());
    options.stdio = [Stdio::Inherit; 3];
    options.pass_fds = &passed;
    // As in `run`.
    options.raw_output = !detach;
    options.parentage = if detach { Parentage::Orphan } else { Parentage::Keeper };
    let cgroups: Vec<_> = texts(own, "cgroup").map(below).collect();
    options.cgroups = &cgroups;
    options.ignore_paused = own.get_flag("ignore-paused");
    let signals = if detach { None } else { Some(Signals::hold()?) };
    log::setting_up();
    let process = container.exec(options).map_err(|error| {
        let into_cgroup = error.stage() == Stage::Cgroup && !cgroups.is_empty();
        let failure = match into_cgroup {
            true => Failure::from(error).context("error adding pid to cgroups"),
            false => of_program(error),
        };
        failure.context("exec failed: unable to start container process")
    })?;
    log::set_up("setns_init: about to exec");
    announce.announce(&process).inspect_err(|_| {
        let _ = process.signal(libc::SIGKILL);
    })?;
    match signals {
        Some(signals) => foreground::attend(&process, &signals),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// `[CONTROLLER,...:]PATH`
fn below(text: &str) -> SubCgroup {
    let (controllers, path) = text.split_once(':').unwrap_or(("", text));
    let controllers = controllers.split(',').filter(|name| !name.is_empty());
    SubCgroup { controllers: controllers.map(str::to_owned).collect(), path: path.into() }
}

/// The `process` object: from a file, or the container's own with what the options change.
fn document(own: &ArgMatches, container: &Container, args: Vec<String>) -> Result<Value, Failure> {
    if let Some(file) = path(own, "process") {
        let json = std::fs::read(&file)
            .map_err(|error| Failure::of(format!("{}: {error}", file.display())))?;
        return serde_json::from_slice(&json)
            .map_err(|error| Failure::of(format!("{}: {error}", file.display())));
    }
    if args.is_empty() {
        return Err(Failure::of("process args cannot be empty"));
    }
    let mut process = serde_json::to_value(container.spec().process())
        .map_err(|error| Failure::of(error.to_string()))?;
    if !process.is_object() {
        process = json!({ "cwd": "/" });
    }
    process["args"] = json!(args);
    process["terminal"] = json!(own.get_flag("tty"));
    if let Some(cwd) = text(own, "cwd").filter(|cwd| !cwd.is_empty()) {
        process["cwd"] = json!(cwd);
    }
    for variable in texts(own, "env") {
        push(&mut process["env"], variable);
    }
    if let Some(user) = text(own, "user").filter(|user| !user.is_empty()) {
        let (uid, gid) = user.split_once(':').map_or((user, None), |(uid, gid)| (uid, Some(gid)));
        process["user"]["uid"] = json!(id_of(uid, user)?);
        if let Some(gid) = gid {
            process["user"]["gid"] = json!(id_of(gid, user)?);
        }
        process["user"].as_object_mut().map(|user| user.remove("username"));
    }
    for gid in texts(own, "additional-gids") {
        push(&mut process["user"]["additionalGids"], id_of(gid, gid)?);
    }
    // Ambient ones have to be inheritable, so the container says whether there are to be any.
    let ambient = process["capabilities"]["inheritable"].is_array().then_some("ambient");
    for capability in texts(own, "cap") {
        for set in ["bounding", "effective", "permitted"].into_iter().chain(ambient) {
            push(&mut process["capabilities"][set], capability);
        }
    }
    if own.get_flag("no-new-privs") {
        process["noNewPrivileges"] = json!(true);
    }
    for (option, member) in [("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")] {
        if let Some(label) = text(own, option).filter(|label| !label.is_empty()) {
            process[member] = json!(label);
        }
    }
    Ok(process)
}

fn push(list: &mut Value, value: impl Into<Value>) {
    match list {
        Value::Array(values) => values.push(value.into()),
        other => *other = json!([value.into()]),
    }
}

/// Read whole or refused: half a number would be another user (CVE-2016-3697, CVE-2026-30892).
pub fn id_of(text: &str, whole: &str) -> Result<u32, Failure> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>().ok().filter(|id| digits && *id != u32::MAX) {
        Some(id) => Ok(id),
        None => Err(Failure::of(format!("invalid user or group {whole:?}: ids are numbers"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_number_and_nothing_else() {
        assert_eq!(id_of("0", "0").ok(), Some(0));
        assert_eq!(id_of("1000", "1000").ok(), Some(1000));
        for wrong in ["", "n", "-1", "+1", "1 ", "1x", "0x10", "4294967295", "4294967296"] {
            assert!(id_of(wrong, wrong).is_err(), "{wrong:?}");
        }
    }
}

//! Credential helpers: programs `docker-credential-NAME`, which a keeper runs, because this process does not
//! fork.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use locule_plan::protocol::{Failure, Reply, Request, RequestKind, detail};
use locule_plan::{Builder, Operation, OwnedList, Stream};
use nix::fcntl::OFlag;
use serde_json::Value;

use super::complaint::printable;
use super::credentials::Login;
use super::file;
use super::socket::Patience;
use crate::launch::{
    Channel, Deadline, Execution, Images, Message, Relation, memory_file, reap_if_ended, request,
};
use crate::{Category, Error, Result, Stage};

/// How long a helper may take; it may ask the user.
const PATIENCE: Duration = Duration::from_secs(60);

/// What its users' programs say of a registry that they know nothing about.
const UNKNOWN: &str = "credentials not found in native keychain";

/// Asks the helper that `config` names about a registry.
pub(super) fn ask(
    config: &Path,
    name: &str,
    server: &str,
    patience: &Patience,
) -> Result<Option<Login>> {
    let usual = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || !name.chars().all(usual) {
        return Err(file::wrong(config, format!("{name:?} is no name of a credential helper")));
    }
    let program = format!("docker-credential-{name}");
    let (said, failed) = run(&program, server, patience).map_err(|error| {
        error.context(format!("run {program}, which {} names", config.display()))
    })?;
    if let Some(failure) = failed {
        let text = String::from_utf8_lossy(&said);
        if text.trim().eq_ignore_ascii_case(UNKNOWN) {
            return Ok(None);
        }
        return Err(complain(&program, config, &failure));
    }
    let wrong = |what: &str| {
        let message = format!("{program}, which {} names, {what}", config.display());
        Error::new(Category::System, Stage::Image, message)
    };
    let answer: Value =
        serde_json::from_slice(&said).map_err(|_| wrong("gives something that is not JSON"))?;
    let text = |field: &str| answer.get(field).and_then(Value::as_str);
    match (text("Username"), text("Secret")) {
        (Some(user), Some(secret)) => Ok(Some(Login::new(user, secret))),
        _ => Err(wrong("gives no Username and Secret")),
    }
}

/// Gives its output, and how it failed.
fn run(program: &str, server: &str, patience: &Patience) -> Result<(Vec<u8>, Option<Failure>)> {
    let io = |error: std::io::Error, what: &str| Error::io(Stage::Image, &error, what);
    let os = |errno: nix::errno::Errno, what: &str| Error::os(Stage::Image, errno as i32, what);
    // What it says goes through memory only. A pipe, which bounds it.
    let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let (here, there) = nix::unistd::pipe2(flags).map_err(|errno| os(errno, "create a pipe"))?;
    let own = std::fs::read_link("/proc/self").map_err(|error| io(error, "read /proc/self"))?;
    let output = format!("/proc/{}/fd/{}", own.display(), there.as_raw_fd());
    let plan = plan(program, server, &output);
    let plan = memory_file(c"locule-plan", Execution::Forbidden, &plan)
        .map_err(|error| io(error, "put the plan in a memory file: memfd_create"))?;

    let (channel, keeper) = Channel::pair().map_err(|error| io(error, "create a socket pair"))?;
    let images = Images::new(None, std::env::temp_dir());
    let spawned = images.spawn(keeper.as_fd(), Relation::Silent, 0)?;
    drop(keeper);
    let failed = patience.deadline(PATIENCE + Duration::from_secs(5), |deadline| -> Result<_> {
        let hooks = Request { kind: RequestKind::Hooks, flags: 0 };
        let replies = request(&channel, hooks, &[plan.as_raw_fd()], deadline, Stage::Image)?;
        let mut failed = None;
        loop {
            match replies.next(deadline, Stage::Image)? {
                Message::Reply(Reply::Failed(failure), _)
                | Message::Bare(Reply::Failed(failure)) => {
                    failed = Some(failure);
                }
                Message::Reply(Reply::Done, _) | Message::Bare(Reply::Done) => return Ok(failed),
                Message::End => {
                    return Err(Error::new(Category::Keeper, Stage::Image, "the keeper is gone"));
                }
                Message::Reply(..) | Message::Bare(_) => {}
            }
        }
    });
    // One that still waits for its helper kills it now, and leaves.
    drop(channel);
    if let Some(adopted) = &spawned.adopted {
        let _ = Deadline::within(Some(Duration::from_secs(1)), None)
            .wait(adopted.as_fd(), Stage::Image);
        reap_if_ended(adopted);
    }
    let failed = failed?;
    drop(there);
    let mut said = Vec::new();
    match File::from(here).read_to_end(&mut said) {
        // Somebody whom the helper has left behind has it still.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        other => drop(other.map_err(|error| io(error, "read a pipe"))?),
    }
    Ok((said, failed))
}

/// A hook may write to nothing but its standard error; so a shell opens the pipe.
fn plan(program: &str, server: &str, output: &str) -> Vec<u8> {
    let text = |text: &OsStr| CString::new(text.as_bytes()).unwrap_or_default();
    let args = ["sh", "-c", "exec \"$0\" get >\"$1\"", program, output];
    let args: OwnedList = args.iter().map(|arg| text(OsStr::new(arg))).collect();
    let env: OwnedList = std::env::vars_os()
        .filter_map(|(name, value)| {
            let mut entry = name.into_vec();
            entry.push(b'=');
            entry.extend(value.into_vec());
            CString::new(entry).ok()
        })
        .collect();
    let mut builder = Builder::default();
    builder.push(
        Stream::Poststart,
        "",
        &Operation::Hook {
            path: c"/bin/sh",
            args: args.as_list(),
            env: env.as_list(),
            timeout: PATIENCE.as_millis() as u64,
            state_head: &text(OsStr::new(server)),
            state_tail: c"",
        },
    );
    builder.finish(0)
}

fn complain(program: &str, config: &Path, failure: &Failure) -> Error {
    let subject = failure.subject.as_bytes();
    let said = subject.iter().position(|byte| *byte == 0).map_or(&[][..], |end| &subject[end..]);
    let said = printable(&String::from_utf8_lossy(said), 200);
    let named = format!("{program}, which {} names,", config.display());
    let message = match failure.detail {
        detail::TIMEOUT => {
            let message = format!("{named} took more than {} seconds", PATIENCE.as_secs());
            return Error::new(Category::Timeout, Stage::Image, message);
        }
        detail::EXIT_STATUS if said.is_empty() => format!("{named} failed"),
        detail::EXIT_STATUS => format!("{named} failed: {said}"),
        _ => return Error::os(Stage::Image, failure.errno, format!("{named} could not be run")),
    };
    Error::new(Category::Permission, Stage::Image, message)
        .hint("credentials can be given in the call, or in a file of their own")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::Folder;
    use super::*;

    /// The path to a helper's program instead of its name.
    fn output_of(script: &str) -> Result<(Vec<u8>, Option<Failure>)> {
        let folder = Folder::new("helper");
        let program = folder.0.join("helper");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        run(program.to_str().unwrap(), "r.example", &Patience::default())
    }

    #[test]
    fn a_helper_gets_the_registry_and_its_output_comes_back() {
        let script = r#"read -r server; echo "$1 $server $HOME"; echo noise >&2"#;
        let (said, failed) = output_of(script).unwrap();
        let home = std::env::var("HOME").unwrap_or_default();
        assert_eq!(String::from_utf8_lossy(&said), format!("get r.example {home}\n"));
        assert!(failed.is_none());
    }

    #[test]
    fn a_helper_that_fails_says_why() {
        let (said, failed) = output_of("echo out; echo 'no bus' >&2; exit 3").unwrap();
        assert_eq!(said, b"out\n");
        let error = complain("p", Path::new("/x"), &failed.unwrap());
        assert_eq!(error.to_string(), "p, which /x names, failed: no bus");

        let error = ask(Path::new("/x"), "not-there", "r", &Patience::default()).unwrap_err();
        assert!(error.to_string().contains("docker-credential-not-there"), "{error}");
        let error = ask(Path::new("/x"), "../../evil", "r", &Patience::default()).unwrap_err();
        assert_eq!(error.category(), Category::Spec);
    }
}

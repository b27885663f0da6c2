//! `create` and `run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ArgMatches;
use locule::{Container, CreateOptions, OnHostExit, Parentage, Source, Stdio};

use super::{Done, id, runtime};
use crate::arguments::{Global, path};
use crate::failure::{Failure, of_program};
use crate::foreground::{self, Signals};
use crate::streams::{self, Announce};

pub fn create(program: &str, global: &Global, own: &ArgMatches) -> Done {
    make(global, own, Parentage::Orphan, OnHostExit::Detach, true)
        .map_err(|failure| failure.context(format!("{program} create failed")))?;
    Ok(ExitCode::SUCCESS)
}

pub fn run(program: &str, global: &Global, own: &ArgMatches) -> Done {
    let failed = |failure: Failure| failure.context(format!("{program} run failed"));
    let (detach, keep) = (own.get_flag("detach"), own.get_flag("keep"));
    if detach {
        let container = make(global, own, Parentage::Orphan, OnHostExit::Detach, true);
        let container = container.map_err(failed)?;
        container.start(None).map_err(|error| {
            let _ = container.delete(true);
            failed(error.into())
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let signals = Signals::hold()?;
    let end = if keep { OnHostExit::Detach } else { OnHostExit::Kill };
    let container = make(global, own, Parentage::Keeper, end, false).map_err(failed)?;
    let ended = match container.start(None) {
        Ok(()) => foreground::attend(container.init(), &signals),
        Err(error) => Err(of_program(error).plain()),
    };
    if !keep {
        container.delete(true)?;
    }
    ended
}

fn make(
    global: &Global,
    own: &ArgMatches,
    parentage: Parentage,
    on_host_exit: OnHostExit,
    detached: bool,
) -> Result<Container, Failure> {
    for refused in ["no-pivot", "no-new-keyring"] {
        if own.get_flag(refused) {
            tracing::warn!("--{refused} has no effect");
        }
    }
    let (json, base) = configuration(own)?;
    let announce = Announce::read(own);
    let terminal = locule::spec::parse(&json)?
        .process()
        .as_ref()
        .is_some_and(|process| process.terminal().unwrap_or(false));
    announce.check(terminal, detached)?;
    let passed = streams::preserved(own)?;
    let mut options = CreateOptions::new(Source::Spec { json: &json, base: Some(base) });
    options.id = Some(id(own));
    options.stdio = [Stdio::Inherit; 3];
    // This program's own terminal adds what a line needs at its end, or nobody wants it.
    options.raw_output = !detached;
    options.parentage = parentage;
    options.on_host_exit = on_host_exit;
    options.pass_fds = &passed;
    let container = runtime(global)?
        .create(options)
        .map_err(|error| Failure::from(error).context("unable to start container process"))?;
    announce.announce(container.init()).inspect_err(|_| {
        let _ = container.delete(true);
    })?;
    Ok(container)
}

/// The text of the configuration and the bundle.
pub fn configuration(own: &ArgMatches) -> Result<(Vec<u8>, PathBuf), Failure> {
    let bundle = path(own, "bundle").unwrap_or_else(|| PathBuf::from("."));
    let bundle = std::fs::canonicalize(&bundle)
        .map_err(|error| Failure::of(format!("bundle {}: {error}", bundle.display())))?;
    let file = path(own, "config").unwrap_or_else(|| bundle.join("config.json"));
    Ok((read(&file)?, bundle))
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::of(format!("JSON specification file {} not found", file.display()))
        }
        _ => Failure::of(format!("{}: {error}", file.display())),
    })
}

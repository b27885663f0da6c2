//! `create`, `start` and `run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ArgMatches;
use locule::{
    Category, Container, CreateOptions, OnHostExit, Parentage, Rootfs, Runtime, Source, Stdio,
};
use serde::Deserialize;

use super::{Done, id, remove, runtime, template};
use crate::arguments::{Global, path};
use crate::failure::{Failure, of_program};
use crate::foreground::{self, Signals};
use crate::log;
use crate::notify::{self, Place};
use crate::streams::{self, Announce};

pub fn create(program: &str, global: &Global, own: &ArgMatches) -> Done {
    let runtime = runtime(global)?;
    let place = Place::of(&runtime, id(own));
    configured(own)
        .and_then(|given| {
            make(&runtime, own, &given, &place, Parentage::Orphan, OnHostExit::Detach)
        })
        .map_err(|failure| failure.context(format!("{program} create failed")))?;
    Ok(ExitCode::SUCCESS)
}

pub fn run(program: &str, global: &Global, own: &ArgMatches) -> Done {
    let failed = |failure: Failure| failure.context(format!("{program} run failed"));
    let (detach, keep) = (own.get_flag("detach"), own.get_flag("keep"));
    let given = match template::fill(own)? {
        Some(filled) => Given { json: filled.json, base: None, rootfs: filled.rootfs },
        None => configured(own).map_err(failed)?,
    };
    let runtime = runtime(global)?;
    let place = Place::of(&runtime, id(own));
    if detach {
        let container = make(&runtime, own, &given, &place, Parentage::Orphan, OnHostExit::Detach);
        let container = container.map_err(failed)?;
        start_and_tell(&container, &place).map_err(|failure| {
            let _ = container.delete(true);
            place.remove();
            failed(failure)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let signals = Signals::hold()?;
    let end = if keep { OnHostExit::Detach } else { OnHostExit::Kill };
    let container = make(&runtime, own, &given, &place, Parentage::Keeper, end).map_err(failed)?;
    let ended = start_and_attend(&container, &place, &signals);
    if !keep {
        remove(&container)?;
        place.remove();
    }
    ended
}

/// Starts a container; returns when its program has ended.
fn start_and_attend(container: &Container, place: &Place, signals: &Signals) -> Done {
    let notify = place.listen()?;
    container.start(None).map_err(|error| of_program(error).plain())?;
    if let Some(notify) = notify {
        let pid = container.init().pid();
        // It ends with this program, which ends with the container.
        std::thread::spawn(move || notify.forever(pid));
    }
    foreground::attend(container.init(), signals)
}

pub fn start(global: &Global, own: &ArgMatches) -> Done {
    let runtime = runtime(global)?;
    start_and_tell(&runtime.open(id(own))?, &Place::of(&runtime, id(own)))?;
    Ok(ExitCode::SUCCESS)
}

/// Starts a container; returns when whoever wants to be told has heard that it is ready.
fn start_and_tell(container: &Container, place: &Place) -> Result<(), Failure> {
    let notify = place.listen()?;
    container.start(None)?;
    if let Some(notify) = notify {
        notify.until_ready(container.init());
    }
    Ok(())
}

/// What container to make.
struct Given {
    json: Vec<u8>,
    base: Option<PathBuf>,
    rootfs: Rootfs,
}

/// As the bundle says.
fn configured(own: &ArgMatches) -> Result<Given, Failure> {
    if id(own).is_empty() {
        return Err(Failure::of("a container id is missing"));
    }
    let (json, bundle) = configuration(own)?;
    Ok(Given { json, base: Some(bundle), rootfs: Rootfs::Direct })
}

fn make(
    runtime: &Runtime,
    own: &ArgMatches,
    given: &Given,
    place: &Place,
    parentage: Parentage,
    on_host_exit: OnHostExit,
) -> Result<Container, Failure> {
    // Who attends to a container has a keeper for it.
    let detached = parentage == Parentage::Orphan;
    for refused in ["no-pivot", "no-new-keyring"] {
        if own.get_flag(refused) {
            tracing::warn!("--{refused} has no effect");
        }
    }
    let announce = Announce::read(own);
    announce.check(wants_terminal(&given.json), detached)?;
    let activated = activated();
    let passed = streams::preserved(own, activated)?;
    let changed = changed_by_manager(&given.json, place, activated)?;
    let json = changed.as_deref().unwrap_or(&given.json);
    let source = Source::Spec { json, base: given.base.clone() };
    let mut options = CreateOptions::new(source);
    options.id = Some(id(own)).filter(|id| !id.is_empty());
    options.rootfs = given.rootfs;
    options.stdio = [Stdio::Inherit; 3];
    // This program's own terminal adds what a line needs at its end, or nobody wants it.
    options.raw_output = !detached;
    options.parentage = parentage;
    options.on_host_exit = on_host_exit;
    options.pass_fds = &passed;
    log::setting_up();
    let container = runtime.create(options).map_err(|error| {
        // That of a container which is there already is not this one's to remove.
        if error.category() != Category::Exists {
            place.remove();
        }
        Failure::from(error).context("unable to start container process")
    })?;
    log::set_up("init: closing the pipe to signal completion");
    announce.announce(container.init()).inspect_err(|_| {
        let _ = container.delete(true);
        place.remove();
    })?;
    Ok(container)
}

/// Whether a configuration has a terminal. What is wrong with it is said when all of it is read.
fn wants_terminal(json: &[u8]) -> bool {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Process {
        terminal: bool,
    }
    #[derive(Deserialize)]
    struct Configuration {
        process: Process,
    }
    serde_json::from_slice(json).is_ok_and(|config: Configuration| config.process.terminal)
}

/// How many descriptors a service manager hands on to the program, from 3 on (sd_listen_fds(3)).
fn activated() -> usize {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let meant = number("LISTEN_PID") == Some(std::process::id() as usize);
    number("LISTEN_FDS").filter(|_| meant).unwrap_or(0)
}

/// The configuration with what a service manager around this program has for the container; `None`
/// if there is none.
fn changed_by_manager(
    json: &[u8],
    place: &Place,
    activated: usize,
) -> Result<Option<Vec<u8>>, Failure> {
    if activated == 0 && std::env::var_os(notify::VARIABLE).is_none() {
        return Ok(None);
    }
    let mut config =
        serde_json::from_slice(json).map_err(|error| Failure::of(error.to_string()))?;
    let mut changed = place.prepare(&mut config)?;
    if activated > 0 {
        changed = true;
        for variable in [format!("LISTEN_FDS={activated}"), "LISTEN_PID=1".to_owned()] {
            notify::append(&mut config["process"]["env"], variable.into());
        }
    }
    Ok(changed.then(|| config.to_string().into_bytes()))
}

/// The text of the configuration and the bundle.
pub fn configuration(own: &ArgMatches) -> Result<(Vec<u8>, PathBuf), Failure> {
    let bundle = path(own, "bundle").unwrap_or_else(|| PathBuf::from("."));
    let bundle = std::fs::canonicalize(&bundle)
        .map_err(|error| Failure::of(format!("bundle {}: {error}", bundle.display())))?;
    let file = path(own, "config").unwrap_or_else(|| bundle.join("config.json"));
    Ok((read(&file)?, bundle))
}

/// The text of a configuration.
pub fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::of(format!("JSON specification file {} not found", file.display()))
        }
        _ => Failure::of(format!("{}: {error}", file.display())),
    })
}

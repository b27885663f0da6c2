//! `create`, `start` and `run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ArgMatches;
use locule::image::{Image, ImageMount, Overrides};
use locule::{
    Category, Container, CreateOptions, OnHostExit, Parentage, Rootfs, Runtime, Source, Stdio,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::image::run::wanted;
use super::{Done, id, remove, runtime, template};
use crate::arguments::{Global, path};
use crate::failure::{Failure, of_program};
use crate::foreground::{self, Signals};
use crate::interrupt::{self, Interrupt};
use crate::log;
use crate::notify::Place;
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
    let failed =
        |failure: Failure| interrupt::of_signal(failure.context(format!("{program} run failed")));
    let (detach, keep) = (own.get_flag("detach"), own.get_flag("keep"));
    let given = if let Some(filled) = template::fill(own)? {
        let origin = Origin::Text { json: filled.json, base: None };
        Given { origin, rootfs: filled.rootfs, changes: None }
    } else if let Some(wanted) = wanted(own).map_err(interrupt::of_signal)? {
        let origin = Origin::Image(wanted.image, Box::new(wanted.overrides));
        Given { origin, rootfs: Rootfs::Direct, changes: wanted.changes }
    } else {
        configured(own).map_err(failed)?
    };
    let runtime = runtime(global)?;
    let place = Place::of(&runtime, id(own));
    // Unpacking an image may take long: a signal is for the program only when there is one.
    let caught = given.origin.is_image().then(Interrupt::catch).transpose()?;
    if detach {
        let container = make(&runtime, own, &given, &place, Parentage::Orphan, OnHostExit::Detach);
        let container = container.map_err(failed)?;
        drop(caught);
        start_and_tell(&container, &place).map_err(|failure| {
            let _ = container.delete(true);
            place.remove();
            failed(failure)
        })?;
        return Ok(ExitCode::SUCCESS);
    }
    let held = if caught.is_none() { Some(Signals::hold()?) } else { None };
    let end = if keep { OnHostExit::Detach } else { OnHostExit::Kill };
    let container = make(&runtime, own, &given, &place, Parentage::Keeper, end).map_err(failed)?;
    let signals = held.map_or_else(Signals::hold, Ok)?;
    drop(caught);
    interrupt::check().inspect_err(|_| {
        let _ = container.delete(true);
        place.remove();
    })?;
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
    origin: Origin,
    rootfs: Rootfs,
    /// Where its changes to the root are kept.
    changes: Option<PathBuf>,
}

/// Where its configuration comes from.
enum Origin {
    Text { json: Vec<u8>, base: Option<PathBuf> },
    Image(Image, Box<Overrides>),
}

impl Origin {
    fn is_image(&self) -> bool {
        matches!(self, Origin::Image(..))
    }

    /// Whether it has a terminal. What is wrong with it is said when all of it is read.
    fn wants_terminal(&self) -> bool {
        match self {
            Origin::Text { json, .. } => wants_terminal(json),
            Origin::Image(_, overrides) => {
                let patch = overrides.patch.as_ref();
                let patched = patch.and_then(|patch| patch["process"]["terminal"].as_bool());
                patched.unwrap_or(overrides.terminal)
            }
        }
    }
}

/// As the bundle says.
fn configured(own: &ArgMatches) -> Result<Given, Failure> {
    if id(own).is_empty() {
        return Err(Failure::of("a container id is missing"));
    }
    let (json, bundle) = configuration(own)?;
    let origin = Origin::Text { json, base: Some(bundle) };
    Ok(Given { origin, rootfs: Rootfs::Direct, changes: None })
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
    announce.check(given.origin.wants_terminal(), detached)?;
    let activated = activated();
    let passed = streams::preserved(own, activated)?;
    let managed = Managed::of(place, activated)?;
    let changed;
    let source = match &given.origin {
        Origin::Text { json, base } => {
            changed = managed.in_text(json).inspect_err(|_| place.remove())?;
            let json = changed.as_deref().unwrap_or(json);
            Source::Spec { json, base: base.clone() }
        }
        Origin::Image(image, overrides) => {
            let mut overrides = overrides.clone();
            managed.in_overrides(&mut overrides);
            Source::Image { image, overrides }
        }
    };
    let mut options = CreateOptions::new(source);
    options.id = Some(id(own)).filter(|id| !id.is_empty());
    options.rootfs = given.rootfs;
    options.changes = given.changes.as_deref();
    options.cancel = Interrupt::cancel();
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

/// What a service manager around this program has for the container.
struct Managed<'a> {
    variables: Vec<String>,
    /// Where its socket is, and where it is to be.
    mount: Option<(&'a Path, &'static str)>,
}

impl<'a> Managed<'a> {
    fn of(place: &'a Place, activated: usize) -> Result<Managed<'a>, Failure> {
        let inside = place.prepare()?;
        let mount = inside.as_ref().map(|inside| (inside.source, inside.target));
        let mut variables: Vec<_> = inside.into_iter().map(|inside| inside.variable).collect();
        if activated > 0 {
            variables.push(format!("LISTEN_FDS={activated}"));
            variables.push("LISTEN_PID=1".to_owned());
        }
        Ok(Managed { variables, mount })
    }

    /// The configuration with it; `None` if there is nothing.
    fn in_text(self, json: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        if self.variables.is_empty() {
            return Ok(None);
        }
        let mut config: Value =
            serde_json::from_slice(json).map_err(|error| Failure::of(error.to_string()))?;
        if let Some((source, target)) = self.mount {
            let mount = json!({
                "destination": target,
                "type": "bind",
                "source": source,
                "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
            });
            append(&mut config["mounts"], mount);
        }
        for variable in self.variables {
            append(&mut config["process"]["env"], variable.into());
        }
        Ok(Some(config.to_string().into_bytes()))
    }

    fn in_overrides(self, overrides: &mut Overrides) {
        overrides.env.extend(self.variables);
        overrides.mounts.extend(self.mount.map(|(source, target)| {
            let (source, target) = (source.to_owned(), target.into());
            ImageMount { source, target, readonly: true }
        }));
    }
}

/// Adds to a list that may not be there.
fn append(list: &mut Value, entry: Value) {
    match list {
        Value::Array(entries) => entries.push(entry),
        other => *other = json!([entry]),
    }
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

//! The handle to a container: start, signal, freeze, state, delete, and opening it again.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use locule_plan::protocol::{Gate, Phase, Reply, Request, RequestKind, shutdown, watch};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::configuration::Configuration;
use super::create::{self, Keeper, Parts, keeper_gone};
use super::exec;
use super::failure::error_of;
use super::pidfd::{Identity, check_signal, send_signal};
use super::process::{self, Exit, ExitSource, Process};
use super::record::{Record, State, Status};
use super::stages::{self, Ending};
use super::state_dir::{StateDir, not_found};
use super::{Cancel, ExecOptions, Runtime, late_hooks};
use crate::cgroup::{self, Cgroup, Stats, Watch, Watcher};
use crate::compile::About;
use crate::launch::{Channel, Deadline, Message, poll_readable, request};
use crate::plugin;
use crate::resctrl::Group;
use crate::spec::{self, oci};
use crate::{Category, Error, Result, Stage};

/// How long a call waits for what should take no time: another call that has the container
/// for itself, freezing, a killed process to be gone.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A handle to a container. Cloning gives another one; dropping them does nothing to the
/// container. Thread-safe: a call that waits never blocks another one.
#[derive(Debug, Clone)]
pub struct Container(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) runtime: Runtime,
    record: Record,
    pub(super) configuration: Arc<Configuration>,
    pub(super) dir: StateDir,
    pub(super) cgroup: Cgroup,
    /// The keeper, if one stays with the container and was alive when the handle was made.
    pub(super) keeper: Option<Keeper>,
    pub(super) init: Process,
    watchers: Mutex<Vec<Arc<Watcher>>>,
}

impl Shared {
    pub(super) fn resctrl(&self) -> Option<&Group> {
        self.record.resctrl.as_ref()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("id", &self.record.id).finish_non_exhaustive()
    }
}

/// The handle to a container that has just been created.
pub(super) fn created(
    runtime: &Runtime,
    record: Record,
    configuration: Arc<Configuration>,
    parts: Parts,
    init: Process,
) -> Container {
    let runtime = runtime.clone();
    let Parts { dir, cgroup, keeper } = parts;
    let keeper = record.keeper.then_some(keeper);
    Container(Arc::new(Shared {
        runtime,
        record,
        configuration,
        dir,
        cgroup,
        keeper,
        init,
        watchers: Mutex::default(),
    }))
}

impl Container {
    pub(super) fn open(runtime: &Runtime, id: &str) -> Result<Container> {
        super::state_dir::check_id(id)
            .and_then(|()| Self::reopen(runtime, id))
            .map_err(|error| error.of_container(id))
    }

    fn reopen(runtime: &Runtime, id: &str) -> Result<Container> {
        reclaim(runtime, id)?;
        let dir = runtime.state_dir_of(id)?;
        let Some(record) = dir.read()?.filter(|record| record.init.is_some()) else {
            return Err(Error::new(Category::Busy, Stage::State, "the container is being created"));
        };
        // Not checked again: it was when the container was made.
        let spec = spec::parse(record.config.get().as_bytes())?;
        let configuration = Arc::new(Configuration::new(record.config.clone(), spec));
        let cgroup = Cgroup::open(record.cgroup.clone())?;
        let keeper = match record.keeper {
            true => {
                let deadline = Deadline::within(Some(PATIENCE), None);
                connect(&dir, "control", &deadline, Stage::Control)
                    .map_err(|error| error.of_container(id))?
                    .map(Keeper::found)
            }
            false => None,
        };
        let ending = Ending::of(runtime, id, &record.bundle, &configuration, &dir)?;
        let init = reopen_init(&record, keeper.as_ref(), ending)?;
        runtime.0.events.watch(&init)?;
        let runtime = runtime.clone();
        Ok(Container(Arc::new(Shared {
            runtime,
            record,
            configuration,
            dir,
            cgroup,
            keeper,
            init,
            watchers: Mutex::default(),
        })))
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.0.record.id
    }

    /// As documents for others name it.
    pub(super) fn about(&self) -> About<'_> {
        let record = &self.0.record;
        About { id: &record.id, bundle: &record.bundle, spec: &self.0.configuration.spec }
    }

    /// The configuration that it was created with.
    pub fn spec(&self) -> &spec::Spec {
        &self.0.configuration.spec
    }

    /// The directory that keeps its changes to the root, if it was created with
    /// [one](super::CreateOptions::changes).
    pub fn changes(&self) -> Option<&Path> {
        self.0.record.changes.as_deref().map(Path::new)
    }

    /// Its first process.
    pub fn init(&self) -> &Process {
        &self.0.init
    }

    /// Lets the program run; returns once it has been executed. Blocks for as long as
    /// `startContainer` and `poststart` hooks take. Only in status `created`.
    pub fn start(&self, cancel: Option<&Cancel>) -> Result<()> {
        let deadline = Deadline::within(Some(create::PATIENCE), cancel);
        deadline.check().map_err(|error| error.of_container(self.id()))?;
        self.check_exists()?;
        // What is frozen does not answer.
        if self.0.cgroup.is_frozen()? {
            let message = "cannot start a paused container";
            return Err(Error::new(Category::State, Stage::Start, message).of_container(self.id()));
        }
        self.ask_to_start().map_err(|error| error.of_container(self.id()))?;
        let started = match &self.0.keeper {
            Some(keeper) => start_through_keeper(keeper, &deadline),
            None => self.start_at_gate(&deadline),
        };
        started.map_err(|error| {
            let error = match error.category() {
                Category::State => self.start_refused(error),
                _ if error.step().is_some() => {
                    // It is on its way out; who asks for its state now shall see it stopped.
                    let _ = self.0.init.wait(Some(Duration::from_secs(1)), None);
                    error
                }
                _ => error,
            };
            error.of_container(self.id())
        })?;
        self.after(plugin::Stage::Started);
        Ok(())
    }

    fn ask_to_start(&self) -> Result<()> {
        if !self.0.runtime.0.plugins.wants(plugin::Stage::Start) {
            return Ok(());
        }
        // What cannot be started is no business of theirs.
        match self.status()? {
            Status::Created => self.before(plugin::Stage::Start),
            status => {
                let message = format!("cannot start a container that is {}", status.name());
                Err(self.start_refused(Error::new(Category::State, Stage::Start, message)))
            }
        }
    }

    /// Says in which state the container is that cannot be started.
    fn start_refused(&self, error: Error) -> Error {
        let message = match self.status() {
            Ok(Status::Stopped) => "cannot start a container that has stopped",
            Ok(Status::Running | Status::Paused) => "cannot start an already running container",
            _ => return error,
        };
        Error::new(Category::State, Stage::Start, message)
    }

    fn start_at_gate(&self, deadline: &Deadline<'_>) -> Result<()> {
        open_gate(&self.0.dir, deadline, Stage::Start)?;
        let _ = std::fs::remove_file(self.0.dir.path.join("gate"));
        self.poststart(deadline)
    }

    /// Runs the hooks that no keeper runs. One that fails ends the container.
    fn poststart(&self, deadline: &Deadline<'_>) -> Result<()> {
        let pid = self.0.init.pid();
        late_hooks::poststart(&self.0.runtime, &self.about(), pid, deadline).inspect_err(|_| {
            let _ = self.0.init.signal(libc::SIGKILL);
        })
    }

    /// Runs another process in the container; returns once its program has been executed. The
    /// container must be created or running.
    pub fn exec(&self, options: ExecOptions<'_>) -> Result<Process> {
        exec::exec(self, &options).map_err(|error| error.of_container(self.id()))
    }

    /// Sends a signal to the first process, or with `all` to every process of the container.
    pub fn signal(&self, signal: i32, all: bool) -> Result<()> {
        check_signal(signal).map_err(|error| error.of_container(self.id()))?;
        // A pid namespace dies with its first process; without one only the cgroup knows who
        // belongs to the container.
        let takes_all_along = signal == libc::SIGKILL && self.has_pid_namespace();
        if all && !takes_all_along {
            // Without one nobody knows who the others are.
            self.need_cgroups()?;
        }
        let stopped = self.0.init.wait(Some(Duration::ZERO), None)?.is_some();
        let whole = all || (signal == libc::SIGKILL && !self.has_pid_namespace());
        if whole && !self.0.cgroup.location().is_empty() {
            // What is left of a container without a pid namespace is still reached when its
            // first process is dead.
            if !stopped || !self.pids()?.is_empty() {
                self.before_signal(signal, all);
                let sent = self.0.cgroup.signal_all(signal);
                return sent.map_err(|error| error.of_container(self.id()));
            }
        }
        if !stopped {
            self.before_signal(signal, all);
        }
        self.0.init.signal(signal).map_err(|error| match error.category() {
            Category::State => error.context("container not running"),
            _ => error,
        })
    }

    fn has_pid_namespace(&self) -> bool {
        let linux = self.0.configuration.spec.linux().as_ref();
        let namespaces = linux.and_then(|linux| linux.namespaces().as_ref());
        namespaces.into_iter().flatten().any(|namespace| {
            namespace.typ() == oci::LinuxNamespaceType::Pid && namespace.path().is_none()
        })
    }

    /// Freezes every process of a created or running container.
    pub fn pause(&self) -> Result<()> {
        self.need_running("pause")?;
        self.need_cgroups()?;
        self.before(plugin::Stage::Pause).map_err(|error| error.of_container(self.id()))?;
        self.0.cgroup.freeze(PATIENCE).map_err(|error| error.of_container(self.id()))
    }

    /// Thaws what [`Container::pause`] froze.
    pub fn resume(&self) -> Result<()> {
        self.check_exists()?;
        if self.status()? != Status::Paused {
            return Err(Error::new(Category::State, Stage::Control, "container is not paused")
                .of_container(self.id()));
        }
        self.before(plugin::Stage::Resume).map_err(|error| error.of_container(self.id()))?;
        self.0.cgroup.thaw().map_err(|error| error.of_container(self.id()))
    }

    /// Changes resource limits: JSON of the specification's `linux.resources`. What is absent
    /// stays as it is. The container must not have stopped.
    pub fn update(&self, resources: &[u8]) -> Result<()> {
        self.apply(resources).map_err(|error| error.of_container(self.id()))
    }

    fn apply(&self, resources: &[u8]) -> Result<()> {
        let mut parsed = spec::parse_resources(resources)?;
        spec::validate_resources(&parsed)?;
        self.check_exists()?;
        if self.status()? == Status::Stopped {
            let message = "cannot update a container that is stopped";
            return Err(Error::new(Category::State, Stage::Control, message));
        }
        let adjusted = self.before_update(resources)?;
        if let Some(adjusted) = &adjusted {
            parsed = adjusted.read(|json| {
                let resources = spec::parse_resources(json)?;
                spec::validate_resources(&resources)?;
                Ok(resources)
            })?;
        }
        let options = cgroup::Options { rootless: self.0.runtime.0.facts.is_rootless() };
        self.0.cgroup.update(&parsed, options).map_err(|error| {
            // The document is the object, not the config.json that it could be part of.
            let pointer = error.pointer().and_then(|at| at.strip_prefix("/linux/resources"));
            match pointer.map(str::to_owned) {
                Some(pointer) => error.at(pointer),
                None => error,
            }
        })?;
        self.record_changes(adjusted);
        Ok(())
    }

    /// Resource usage.
    pub fn stats(&self) -> Result<Stats> {
        self.need_cgroups()?;
        self.0.cgroup.stats().map_err(|error| error.of_container(self.id()))
    }

    /// The pids of every process of the container, as this process sees them.
    pub fn pids(&self) -> Result<Vec<i32>> {
        self.need_cgroups()?;
        self.0.cgroup.pids().map_err(|error| error.of_container(self.id()))
    }

    /// From now on [`Runtime::dispatch`] tells when this happens, until the container is gone or
    /// the last clone of this handle is dropped. What is watched for already is not told twice.
    /// Does not block.
    ///
    /// # Errors
    /// [`Unsupported`](Category::Unsupported) where the kernel or the container's cgroups cannot
    /// tell, [`Invalid`](Category::Invalid) for a trigger that makes no sense.
    pub fn watch(&self, watch: Watch) -> Result<()> {
        self.check_exists()?;
        self.need_cgroups()?;
        let mut watchers = self.0.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.iter().any(|watcher| watcher.watch() == watch) {
            return Ok(());
        }
        let begin = || {
            let watcher = Arc::new(self.0.cgroup.watch(watch)?);
            self.0.runtime.0.events.watch_container(self.id(), &watcher)?;
            Ok(watcher)
        };
        watchers.push(begin().map_err(|error: Error| error.of_container(self.id()))?);
        Ok(())
    }

    /// The state now. A deleted container is not found.
    pub fn state(&self) -> Result<State> {
        self.check_exists()?;
        let status = self.status()?;
        let changes = plugin::log::read(&self.0.dir.path)?;
        Ok(self.0.record.state(&self.0.configuration.spec, status, &changes))
    }

    /// Deletes a container that has stopped or was never started; with `force` one that runs,
    /// too: it is killed. Afterwards nothing of it is left and its id is free.
    pub fn delete(&self, force: bool) -> Result<()> {
        self.remove(force).map_err(|error| error.of_container(self.id()))
    }

    fn remove(&self, force: bool) -> Result<()> {
        let id = self.id();
        let _lock = self.0.dir.lock(PATIENCE).map_err(|error| match error.category() {
            Category::NotFound => not_found(id),
            _ => error,
        })?;
        if !force {
            let status = self.status()?;
            if !matches!(status, Status::Stopped | Status::Created) {
                return Err(Error::new(
                    Category::State,
                    Stage::Delete,
                    format!("cannot delete container {id} that is not stopped: {}", status.name()),
                ));
            }
        }
        if let Some(pidfd) = &self.0.init.0.pidfd {
            let sent = send_signal(pidfd, libc::SIGKILL);
            if sent.is_err_and(|error| error.raw_os_error() != Some(libc::ESRCH)) {
                // A filter hides the call, from the keeper as well: it would wait in vain.
                let _ = self.0.cgroup.signal_all(libc::SIGKILL);
            }
        }
        if let Some(keeper) = &self.0.keeper {
            keeper.dismiss(0);
        } else {
            // Nobody else waits for it here, so see it dead before its cgroup is removed.
            let _ = self.0.init.wait(Some(PATIENCE), None);
        }
        if let Some(ending) = &self.0.init.0.ending
            && let Ok(Some(exit)) = self.0.init.wait(Some(Duration::ZERO), None)
        {
            // That it has ended comes before that it is gone.
            ending.have_told(exit, PATIENCE);
        }
        clean(id, &self.0.cgroup, self.0.resctrl(), &self.0.dir)?;
        release(self.0.record.usage.as_deref());
        late_hooks::poststop(&self.0.runtime, &self.about());
        self.after(plugin::Stage::Delete);
        Ok(())
    }

    fn need_cgroups(&self) -> Result<()> {
        if !self.0.cgroup.location().is_empty() {
            return Ok(());
        }
        let message = "the container has no cgroup to ask";
        Err(Error::new(Category::Unsupported, Stage::Cgroup, message)
            .hint("the runtime was opened without cgroups, or they could not be made without privilege")
            .of_container(self.id()))
    }

    pub(super) fn check_exists(&self) -> Result<()> {
        if self.0.dir.is_at_its_path() { Ok(()) } else { Err(not_found(self.id())) }
    }

    fn need_running(&self, verb: &str) -> Result<()> {
        self.check_exists()?;
        let status = self.status()?;
        if matches!(status, Status::Running | Status::Created) {
            return Ok(());
        }
        let message = format!("cannot {verb} a container that is {}", status.name());
        Err(Error::new(Category::State, Stage::Control, message).of_container(self.id()))
    }

    pub(super) fn status(&self) -> Result<Status> {
        if self.0.init.wait(Some(Duration::ZERO), None)?.is_some() {
            return Ok(Status::Stopped);
        }
        let phase = match &self.0.keeper {
            Some(keeper) => match ask_phase(keeper)? {
                Some(phase) => phase,
                // Nobody to ask: the first process was told to die with its keeper, but a
                // setuid program is exempt from that, and a keeper can be out of descriptors.
                None => match &self.0.init.0.pidfd {
                    Some(pidfd) if !gone_within(pidfd, Duration::from_secs(1))? => Phase::Running,
                    _ => Phase::Stopped,
                },
            },
            None => match Channel::connect(&self.0.dir, "gate") {
                Ok(_) => Phase::Created,
                // Frozen, it lets callers wait until no more can.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Phase::Created,
                Err(error) => match lack_of_means(&error, "gate") {
                    Some(error) => return Err(error),
                    None => Phase::Running,
                },
            },
        };
        Ok(match phase {
            Phase::Creating => Status::Creating,
            Phase::Stopped => Status::Stopped,
            Phase::Created | Phase::Running if self.0.cgroup.is_frozen()? => Status::Paused,
            Phase::Created => Status::Created,
            Phase::Running => Status::Running,
        })
    }
}

/// A connection to a socket in the state directory; `None` if nobody listens there.
fn connect(
    dir: &StateDir,
    name: &str,
    deadline: &Deadline<'_>,
    stage: Stage,
) -> Result<Option<Channel>> {
    match Channel::connect_within(dir, name, deadline, stage)? {
        Ok(channel) => Ok(Some(channel)),
        Err(error) => lack_of_means(&error, name).map_or(Ok(None), Err),
    }
}

/// That this process lacks the means to find out whether somebody listens says nothing about
/// that.
fn lack_of_means(error: &std::io::Error, name: &str) -> Option<Error> {
    let error = Error::io(Stage::Control, error, format!("connect to {name}"));
    (error.category() == Category::Resource).then_some(error)
}

fn unexpected(answer: &Reply, stage: Stage) -> Error {
    Error::new(Category::Keeper, stage, format!("unexpected answer: {answer:?}"))
}

/// Lets a process run its program that waits for that without a keeper; returns once it does.
pub(super) fn open_gate(dir: &StateDir, deadline: &Deadline<'_>, stage: Stage) -> Result<()> {
    let gate = connect(dir, "gate", deadline, stage)?;
    let gate = gate.ok_or_else(|| {
        Error::new(Category::State, stage, "nothing waits at the gate")
            .with_errno(libc::ECONNREFUSED)
    })?;
    gate.send(&[Gate::Open as u8], &[])
        .map_err(|error| Error::io(stage, &error, "open the gate"))?;
    match gate.next(deadline, stage)? {
        Message::End => Ok(()),
        Message::Reply(Reply::Failed(failure), _) => Err(error_of(&failure)),
        Message::Reply(other, _) | Message::Bare(other) => Err(unexpected(&other, stage)),
    }
}

fn start_through_keeper(keeper: &Keeper, deadline: &Deadline<'_>) -> Result<()> {
    let start = Request { kind: RequestKind::Start, flags: 0 };
    let replies = request(&keeper.channel, start, &[], deadline, Stage::Start)?;
    match replies.next(deadline, Stage::Start)? {
        // The process is known here. So nothing is amiss if there is no number left for its
        // descriptor; to say otherwise would be wrong: the program runs.
        Message::Reply(Reply::Started { .. }, _) | Message::Bare(Reply::Started { .. }) => Ok(()),
        Message::Reply(Reply::Failed(failure), _) => Err(error_of(&failure)),
        Message::End => Err(keeper_gone(Stage::Start)),
        Message::Reply(other, _) | Message::Bare(other) => Err(unexpected(&other, Stage::Start)),
    }
}

/// Asks the keeper; `None` if it does not serve this connection any more.
fn ask_phase(keeper: &Keeper) -> Result<Option<Phase>> {
    let deadline = Deadline::within(Some(PATIENCE), None);
    let state = Request { kind: RequestKind::Watch, flags: watch::STATE_ONLY };
    let replies = match request(&keeper.channel, state, &[], &deadline, Stage::Control) {
        Err(error) if error.category() == Category::Keeper => return Ok(None),
        other => other?,
    };
    match replies.next(&deadline, Stage::Control)? {
        Message::Reply(Reply::State { phase, .. }, _)
        | Message::Bare(Reply::State { phase, .. }) => Ok(Some(phase)),
        Message::Reply(Reply::Failed(failure), _) => Err(error_of(&failure)),
        _ => Ok(None),
    }
}

fn gone_within(pidfd: &impl AsFd, patience: Duration) -> Result<bool> {
    let until = std::time::Instant::now() + patience;
    poll_readable(pidfd.as_fd(), Some(until), None, Stage::Control)
}

/// The first process of a container that was created elsewhere.
fn reopen_init(
    record: &Record,
    keeper: Option<&Keeper>,
    ending: Option<Ending>,
) -> Result<Process> {
    let (source, pidfd, pid);
    let watching = keeper.map(|keeper| {
        let watch = Request { kind: RequestKind::Watch, flags: 0 };
        let deadline = Deadline::within(Some(PATIENCE), None);
        let replies = request(&keeper.channel, watch, &[], &deadline, Stage::Control)?;
        match replies.next(&deadline, Stage::Control)? {
            Message::Reply(Reply::State { pid, .. }, pidfd) => Ok((replies, pid, pidfd)),
            Message::Bare(_) => Err(Error::os(Stage::Control, libc::EMFILE, "get a descriptor")),
            Message::Reply(Reply::Failed(failure), _) => Err(error_of(&failure)),
            _ => Err(keeper_gone(Stage::Control)),
        }
    });
    match watching {
        Some(Ok((replies, its_pid, its_pidfd))) => {
            (source, pidfd, pid) = (ExitSource::Keeper(replies), its_pidfd, its_pid);
        }
        Some(Err(error)) if error.category() != Category::Keeper => return Err(error),
        _ => {
            pidfd = record.init.map_or(Ok(None), Identity::open)?;
            pid = record.init.map_or(0, |init| init.pid);
            source = if pidfd.is_some() { ExitSource::Pidfd } else { ExitSource::Gone(ready()?) };
        }
    }
    Ok(Process(Arc::new(process::Inner {
        container_id: record.id.clone(),
        pid,
        pidfd,
        source,
        exit: Default::default(),
        pipes: Default::default(),
        terminal: None,
        terminal_taken: false.into(),
        _companion: None,
        ending,
    })))
}

/// A descriptor that is always readable.
fn ready() -> Result<std::os::fd::OwnedFd> {
    let event = EventFd::from_value_and_flags(1, EfdFlags::EFD_CLOEXEC)
        .map_err(|errno| Error::os(Stage::Control, errno as i32, "eventfd"))?;
    event
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Error::io(Stage::Control, &error, "duplicate a descriptor"))
}

/// Removes what is left once every process is dead or dying.
fn clean(id: &str, cgroup: &Cgroup, resctrl: Option<&Group>, dir: &StateDir) -> Result<()> {
    if cgroup.belongs_to(id) {
        cgroup.kill(PATIENCE)?;
        cgroup.remove()?;
    }
    resctrl.map_or(Ok(()), Group::remove)?;
    dir.remove()
}

/// Has an image's layers kept for this container no longer. Those whose containers end in other ways are
/// found by the store.
fn release(usage: Option<&OsStr>) {
    let Some(usage) = usage.map(Path::new) else { return };
    #[cfg(feature = "images")]
    crate::image::release(usage);
    #[cfg(not(feature = "images"))]
    let _ = std::fs::remove_file(usage);
}

/// Cleans up what a crash has left under this id: a creation that its host did not live to
/// finish, or a container that was to die with its host when the keeper did not live to see to
/// it. Whether the id is free now.
pub(super) fn reclaim(runtime: &Runtime, id: &str) -> Result<bool> {
    let dir = match runtime.state_dir_of(id) {
        Ok(dir) => dir,
        Err(error) if error.category() == Category::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    // The usual case costs no lock: a record of a container whose host lives.
    let mut patience = Duration::ZERO;
    if let Ok(Some(record)) = dir.read() {
        let host_lives = record.host.is_alive()?;
        if record.init.is_some() && (record.detached || host_lives) {
            return Ok(false);
        }
        if !host_lives {
            // Who has the lock is doing the same, perhaps the keeper.
            patience = PATIENCE;
        }
    }
    let _lock = match dir.lock(patience) {
        Ok(lock) => lock,
        Err(error) if error.category() == Category::Busy => return Ok(false),
        Err(error) if error.category() == Category::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    let Some(record) = dir.read()? else {
        // Its host died before there was anything but the directory.
        dir.remove()?;
        return Ok(true);
    };
    if record.init.is_some() && (record.detached || record.host.is_alive()?) {
        return Ok(false);
    }
    // The lock is free, so the creator is dead, or the host of a finished one is. A keeper that
    // lives is doing the same at this moment, or, if it was to be detached, waits for requests.
    if let Ok(control) = Channel::connect(&dir, "control") {
        let flags = if record.init.is_none() { shutdown::UNDO } else { 0 };
        Keeper::found(control).dismiss(flags);
    }
    if let Some(pidfd) = record.init.map_or(Ok(None), Identity::open)? {
        let _ = send_signal(&pidfd, libc::SIGKILL);
    }
    let was_created = record.init.is_some();
    let configuration = spec::parse(record.config.get().as_bytes())
        .map(|spec| Arc::new(Configuration::new(record.config, spec)));
    if was_created
        && let Ok(configuration) = &configuration
        && let Some(ending) = Ending::of(runtime, id, &record.bundle, configuration, &dir)?
    {
        ending.tell(Exit::Unknown);
    }
    clean(id, &Cgroup::open(record.cgroup)?, record.resctrl.as_ref(), &dir)?;
    release(record.usage.as_deref());
    if let Ok(configuration) = configuration {
        let about = About { spec: &configuration.spec, id, bundle: &record.bundle };
        late_hooks::poststop(runtime, &about);
        if was_created {
            stages::reclaimed(runtime, id, &record.bundle, &configuration);
        }
    }
    Ok(true)
}

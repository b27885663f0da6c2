//! Running another process in a container.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use locule_plan::protocol::{self, Request, RequestKind, WITHDRAW};

use super::create::{
    Created, Keeper, Opened, PATIENCE, await_creation, keeps_groups, open_tasks, plan_file, raw_of,
};
use super::handle::{Container, open_gate};
use super::pidfd::send_signal;
use super::process::{self, ExitSource, Process};
use super::state_dir::{StateDir, make_directory};
use super::stdio::Streams;
use super::{ExecOptions, Parentage, Status};
use crate::cgroup::{Cgroup, Entry};
use crate::compile::{ExecInput, Plan, Slot, compile_exec};
use crate::launch::{Channel, Deadline, Relation, request};
use crate::spec::{self, oci};
use crate::{Category, Error, Result, Stage};

/// A keeper for one process of a container that has none of its own: it leaves with the last
/// handle to the process, and is told so.
#[derive(Debug)]
pub(super) struct OwnKeeper {
    keeper: Keeper,
    dir: StateDir,
}

impl OwnKeeper {
    fn spawn(
        container: &Container,
        relation: Relation,
        deadline: &Deadline<'_>,
    ) -> Result<OwnKeeper> {
        let runtime = &container.0.runtime;
        let (keeper, _) = Keeper::spawn(runtime, relation)?;
        if container.0.cgroup.location().unit().is_some() {
            container.0.cgroup.bring_near(&runtime.0.facts.cgroups, keeper.pid, *deadline)?;
        }
        // Named after a descriptor that is open as long as the keeper lives, so nobody else in
        // this process has the same name; other processes differ in the pid.
        let name = format!("exec-{}-{}", std::process::id(), keeper.channel.as_fd().as_raw_fd());
        let path = container.0.dir.path.join(&name);
        make_directory(&path)
            .map_err(|error| Error::io(Stage::State, &error, format!("create {path:?}")))?;
        Ok(OwnKeeper { keeper, dir: StateDir::open(&container.0.dir.path, &name)? })
    }
}

impl Drop for OwnKeeper {
    fn drop(&mut self) {
        self.keeper.dismiss(0);
        let _ = self.dir.remove();
    }
}

pub(super) fn exec(container: &Container, options: &ExecOptions<'_>) -> Result<Process> {
    begin(container, options).map_err(|error| {
        // What the kernel says of namespaces whose first process is dying; the one has another
        // meaning, too, and the other has none. On a busy machine dying takes its time.
        let patience = match error.errno() {
            Some(libc::ENOMEM) => Duration::from_millis(200),
            Some(libc::ESRCH) => Duration::from_secs(5),
            _ => return error,
        };
        match container.init().wait(Some(patience), None) {
            Ok(Some(_)) => not_running(Status::Stopped.name()),
            _ => error,
        }
    })
}

fn begin(container: &Container, options: &ExecOptions<'_>) -> Result<Process> {
    container.check_exists()?;
    let deadline = Deadline::within(Some(options.timeout.unwrap_or(PATIENCE)), options.cancel);
    deadline.check()?;
    let shared = &*container.0;
    let spec = &shared.configuration.spec;
    let mut process = complete(spec, options.process)?;

    let Some(init) = shared.init.0.pidfd.as_ref() else { return Err(not_running("stopped")) };
    if !options.ignore_paused && shared.cgroup.is_frozen()? {
        return Err(not_running(Status::Paused.name()));
    }
    if shared.init.wait(Some(Duration::ZERO), None)?.is_some() {
        return Err(not_running(Status::Stopped.name()));
    }

    let orphan = match options.parentage {
        Parentage::Keeper => false,
        Parentage::Orphan => true,
        Parentage::Child => {
            let message = "an executed process cannot be a child of the caller";
            return Err(Error::new(Category::Invalid, Stage::Arguments, message));
        }
    };
    let adjusted = container.before_exec(&process)?;
    if let Some(adjusted) = &adjusted {
        process = adjusted.read(|json| {
            let process = spec::parse_process(json)?;
            spec::validate_process_in(&process, spec)?;
            Ok(process)
        })?;
    }
    let mut streams = Streams::open(&options.stdio)?;
    let location = shared.cgroup.location().below(options.cgroups)?;
    let entries = Cgroup::open(location.clone())?.entries()?;
    let tasks = open_tasks(shared.resctrl())?;
    let facts = &shared.runtime.0.facts;
    let plan = compile_exec(&ExecInput {
        container: container.about(),
        init: shared.init.pid(),
        process: &process,
        facts,
        location: &location,
        resctrl: shared.resctrl(),
        descriptors: streams.descriptors(options.pass_fds.len(), options.raw_output),
        keep_groups: keeps_groups(&shared.runtime, spec),
        gate: orphan || shared.keeper.is_none(),
        seccomp: &|profile| shared.runtime.0.seccomp.get(profile),
        takes_listener: options.seccomp_listener.is_some(),
    })?;
    let opened = Opened::open(&plan, |slot| match slot {
        Slot::Stdio(number) => streams.raw(*number),
        Slot::Pass(index) => raw_of(options.pass_fds, *index),
        Slot::CgroupEntry(index) => entries.get(*index).map(|entry| match entry {
            Entry::IntoV2(fd) | Entry::Procs(fd) => fd.as_raw_fd(),
        }),
        Slot::Listener => options.seccomp_listener.map(|socket| socket.as_raw_fd()),
        Slot::ResctrlTasks(index) => tasks.get(*index).map(AsRawFd::as_raw_fd),
        Slot::Init => Some(init.as_raw_fd()),
        Slot::Namespace { .. } => None,
    })?;

    let (started, terminal, source, companion) = match &shared.keeper {
        _ if orphan => {
            let (started, terminal) = as_orphan(container, &plan, &opened, &deadline)?;
            (started, terminal, ExitSource::Pidfd, None)
        }
        Some(keeper) => {
            let replies = through_keeper(&keeper.channel, &plan, &opened, &deadline)?;
            let (started, terminal) = await_creation(&replies, &deadline, Stage::Exec)
                .inspect_err(|_| withdraw(&replies))?;
            (started, terminal, ExitSource::Keeper(replies), None)
        }
        None => {
            let (own, terminal, replies) =
                through_own_keeper(container, &plan, &opened, &deadline)?;
            // Created on one channel, started on another; the exit comes on the first.
            let start = Request { kind: RequestKind::Start, flags: 0 };
            let answers = request(&own.keeper.channel, start, &[], &deadline, Stage::Start)?;
            let (started, _) = await_creation(&answers, &deadline, Stage::Exec)?;
            (started, terminal, ExitSource::Keeper(replies), Some(own))
        }
    };

    let process = Process(Arc::new(process::Inner {
        container_id: container.id().to_owned(),
        pid: started.pid,
        pidfd: Some(started.pidfd),
        source,
        exit: Default::default(),
        pipes: std::mem::take(&mut streams.ours).into(),
        terminal,
        terminal_taken: false.into(),
        _companion: companion,
        ending: None,
    }));
    if let Err(error) = shared.runtime.0.events.watch(&process) {
        let _ = process.signal(libc::SIGKILL);
        return Err(error);
    }
    container.record_changes(adjusted);
    Ok(process)
}

/// The program may run already, or will in a moment, and the caller is told that it does not.
fn withdraw(replies: &Channel) {
    let _ = replies.send(&[WITHDRAW], &[]);
}

fn through_keeper(
    keeper: &Channel,
    plan: &Plan,
    opened: &Opened,
    deadline: &Deadline<'_>,
) -> Result<Channel> {
    let plan = plan_file(plan)?;
    let mut fds = vec![plan.as_raw_fd()];
    fds.extend_from_slice(&opened.raw);
    let exec = Request { kind: RequestKind::Exec, flags: 0 };
    request(keeper, exec, &fds, deadline, Stage::Spawn)
}

fn through_own_keeper(
    container: &Container,
    plan: &Plan,
    opened: &Opened,
    deadline: &Deadline<'_>,
) -> Result<(OwnKeeper, Option<OwnedFd>, Channel)> {
    let own = OwnKeeper::spawn(container, Relation::Silent, deadline)?;
    let replies = own.keeper.create(&container.0.runtime, 0, plan, &own.dir, opened)?;
    let (_, terminal) = await_creation(&replies, deadline, Stage::Spawn)?;
    Ok((own, terminal, replies))
}

/// By a keeper that leaves before the program runs, as that of a container without one does.
fn as_orphan(
    container: &Container,
    plan: &Plan,
    opened: &Opened,
    deadline: &Deadline<'_>,
) -> Result<(Created, Option<OwnedFd>)> {
    let own = OwnKeeper::spawn(container, Relation::Leaving, deadline)?;
    let flags = protocol::create::ORPHAN | protocol::create::DETACHED;
    let replies = own.keeper.create(&container.0.runtime, flags, plan, &own.dir, opened)?;
    let created = await_creation(&replies, deadline, Stage::Exec)?;
    own.keeper.see_off();
    open_gate(&own.dir, deadline, Stage::Exec).inspect_err(|_| {
        let _ = send_signal(&created.0.pidfd, libc::SIGKILL);
    })?;
    Ok(created)
}

fn not_running(status: &str) -> Error {
    let message = format!("cannot exec in a {status} container");
    Error::new(Category::State, Stage::Exec, message)
}

/// The process to run: what the caller says, and for the rest what the container's own
/// process has.
fn complete(spec: &oci::Spec, json: &[u8]) -> Result<oci::Process> {
    let process = match spec.process() {
        Some(own) => spec::parse_process_over(json, own)?,
        None => spec::parse_process(json)?,
    };
    spec::validate_process_in(&process, spec)?;
    Ok(process)
}

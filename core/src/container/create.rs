//! Making a container: all or nothing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use locule_plan::protocol::{self, Reply, Request, RequestKind};

use super::failure::{blame_memory, error_of};
use super::handle::{self, Container};
use super::joined;
use super::layers::{self, Layers};
#[cfg(feature = "images")]
use super::origin::Origin;
use super::pidfd::{Identity, pidfd_open, send_signal};
use super::process::{self, ExitSource, Process};
use super::record::Record;
use super::stages::{self, Ending};
use super::state_dir::{StateDir, check_id};
use super::stdio::Streams;
use super::{CreateOptions, OnHostExit, Parentage, Runtime, late_hooks};
use crate::cgroup::{self, Cgroup, Entry, Location, Purpose};
use crate::compile::{
    About, ContainerInput, Plan, Slot, cgroup_owner, compile_container, denies_setgroups,
};
use crate::launch::{
    Channel, Deadline, Execution, Message, Relation, memory_file, reap, reap_if_ended, request,
};
use crate::plugin;
use crate::resctrl::{self, Group};
use crate::spec::{oci, vocabulary};
use crate::{Category, Error, Result, Stage};

/// How long a creation or a start may take when the caller does not say.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn locate(
    runtime: &Runtime,
    spec: &oci::Spec,
    id: &str,
    deadline: Deadline<'_>,
) -> Result<Location> {
    let facts = &runtime.0.facts;
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    match &runtime.0.systemd {
        Some(systemd) => systemd.locate(&facts.cgroups, path, id, deadline),
        None => facts.cgroups.locate(path, id, facts.is_rootless()),
    }
}

/// The resctrl groups that the configuration asks for. The machine is looked at only then.
pub(super) fn resctrl_group(spec: &oci::Spec, id: &str) -> Result<Option<Group>> {
    let Some(rdt) = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) else {
        return Ok(None);
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|error| {
        Error::io(Stage::Settings, &error, "read /proc/self/mountinfo".to_owned())
    })?;
    Group::of(rdt, id, resctrl::mount_point(&mounts).as_deref()).map(Some)
}

#[allow(clippy::too_many_arguments, reason = "all that a creation knows by then")]
fn compile(
    runtime: &Runtime,
    spec: &oci::Spec,
    bundle: &Path,
    options: &CreateOptions<'_>,
    id: &str,
    location: &Location,
    resctrl: Option<&Group>,
    streams: &Streams,
    layers: &Layers,
) -> Result<Plan> {
    compile_container(&ContainerInput {
        spec,
        id,
        bundle,
        state_dir: &runtime.0.state_dir.join(id),
        rootfs: options.rootfs,
        lower: &layers.lower,
        changes: layers.changes.as_deref(),
        facts: &runtime.0.facts,
        location,
        resctrl,
        descriptors: streams.descriptors(options.pass_fds.len(), options.raw_output),
        seccomp: &|profile| runtime.0.seccomp.get(profile),
        takes_listener: options.seccomp_listener.is_some(),
        keep_groups: keeps_groups(runtime, spec),
    })
}

/// The annotation by which podman hands on the caller's supplementary groups, though the container
/// has no ids for them: files that only these may use stay in reach.
pub(super) const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Whether the container's processes keep the groups they are born with.
pub(super) fn keeps_groups(runtime: &Runtime, spec: &oci::Spec) -> bool {
    let asked = || {
        let value = spec.annotations().as_ref().and_then(|all| all.get(KEEP_GROUPS));
        let given = spec.process().as_ref().and_then(|own| own.user().additional_gids().as_ref());
        value.is_some_and(|value| value == "1") && given.is_none_or(Vec::is_empty)
    };
    denies_setgroups(spec, &runtime.0.facts) || runtime.0.follow_annotations && asked()
}

/// A child of this process has no other parent that could have an agent beside it.
fn check_parentage(options: &CreateOptions<'_>, spec: &oci::Spec) -> Result<()> {
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let mut rules = seccomp.into_iter().flat_map(|profile| profile.syscalls().iter().flatten());
    let notifies = rules.any(|rule| rule.action() == oci::LinuxSeccompAction::ScmpActNotify);
    if !notifies || options.parentage != Parentage::Child {
        return Ok(());
    }
    let message = "SCMP_ACT_NOTIFY needs a process that hands the listener over, which would be a \
                   child of the caller, too";
    Err(Error::new(Category::Unsupported, Stage::Arguments, message)
        .at("/linux/seccomp")
        .hint("choose another parentage than child"))
}

pub(super) fn explain(runtime: &Runtime, options: &CreateOptions<'_>) -> Result<Plan> {
    let id = options.id.unwrap_or("example");
    check_id(id)?;
    #[cfg(feature = "images")]
    if let Some(origin) = Origin::of(runtime, options, None)? {
        return explain_as(runtime, &origin.options(options), id);
    }
    explain_as(runtime, options, id)
}

fn explain_as(runtime: &Runtime, options: &CreateOptions<'_>, id: &str) -> Result<Plan> {
    let (configuration, bundle) = runtime.0.configurations.load(&options.source)?;
    let (configuration, changes) = stages::create(runtime, id, &bundle, configuration)?;
    let spec = &configuration.spec;
    joined::check(spec)?;
    let deadline = Deadline::within(Some(PATIENCE), None);
    let location = locate(runtime, spec, id, deadline)?;
    let resctrl = resctrl_group(spec, id)?;
    let streams = Streams::open(&options.stdio)?;
    let layers = Layers::of(options)?;
    let plan = compile(
        runtime,
        spec,
        &bundle,
        options,
        id,
        &location,
        resctrl.as_ref(),
        &streams,
        &layers,
    )?;
    Ok(Plan { changes, ..plan })
}

pub(super) fn create(runtime: &Runtime, options: &CreateOptions<'_>) -> Result<Container> {
    let invented;
    let id = match options.id {
        Some(id) => id,
        None => {
            invented = invent_id()?;
            &invented
        }
    };
    let made = check_id(id).and_then(|()| make(runtime, options, id));
    let container = made.map_err(|error| error.of_container(id))?;
    container.after(plugin::Stage::Created);
    Ok(container)
}

fn make(runtime: &Runtime, options: &CreateOptions<'_>, id: &str) -> Result<Container> {
    #[cfg(feature = "images")]
    if let Some(origin) = Origin::of(runtime, options, Some(id))? {
        let made = make_as(runtime, &origin.options(options), id, origin.usage())?;
        origin.keep();
        return Ok(made);
    }
    make_as(runtime, options, id, None)
}

fn make_as(
    runtime: &Runtime,
    options: &CreateOptions<'_>,
    id: &str,
    usage: Option<PathBuf>,
) -> Result<Container> {
    let patience = options.timeout.unwrap_or(PATIENCE);
    let deadline = Deadline::within(Some(patience), options.cancel);
    deadline.check()?;
    let layers = Layers::of(options)?;
    let (configuration, bundle) = runtime.0.configurations.load(&options.source)?;
    let (configuration, changes) = stages::create(runtime, id, &bundle, configuration)?;
    let spec = &configuration.spec;
    joined::check(spec)?;
    check_parentage(options, spec)?;
    let location = locate(runtime, spec, id, deadline)?;
    let resctrl = resctrl_group(spec, id)?;
    if let Some(group) = &resctrl {
        group.check_free()?;
    }
    let mut streams = Streams::open(&options.stdio)?;

    let (dir, _lock) = reserve(runtime, id)?;
    let mut begun = Begun::new(dir);
    // First of all, so that it gets ready while this thread does its part.
    let relation = match options.parentage {
        Parentage::Keeper => Relation::Silent,
        Parentage::Orphan => Relation::Leaving,
        Parentage::Child => Relation::Child,
    };
    let (keeper, leaving) = Keeper::spawn(runtime, relation)?;
    (begun.keeper, begun.leaving) = (Some(keeper), leaving);
    let keeper_stays = options.parentage == Parentage::Keeper;
    let mut record = Record {
        version: Record::VERSION,
        id: id.to_owned(),
        bundle: bundle.clone(),
        created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        owner: runtime.0.facts.euid,
        host: runtime.0.host,
        detached: !keeper_stays || options.on_host_exit == OnHostExit::Detach,
        keeper: keeper_stays,
        init: None,
        cgroup: location.clone(),
        resctrl: resctrl.clone(),
        changes: layers.changes.clone().map(PathBuf::into_os_string),
        usage: usage.map(PathBuf::into_os_string),
        config: configuration.json.clone(),
    };
    let mut record_file = begun.dir().write(&record)?;
    plugin::log::begin(&begun.dir().path, &changes)?;
    begun.changes = layers.make(spec, &runtime.0.facts)?;

    let cgroup = &begun.make_groups(runtime, spec, id, location, resctrl.as_ref(), deadline)?;
    let tasks = open_tasks(resctrl.as_ref())?;
    let entries = cgroup.entries()?;
    // Without privilege there may be fewer cgroups now than there were to be.
    if record.cgroup != *cgroup.location() {
        record.cgroup = cgroup.location().clone();
        record_file = begun.dir.as_ref().expect("made above").write(&record)?;
    }
    let plan = compile(
        runtime,
        spec,
        &bundle,
        options,
        id,
        cgroup.location(),
        resctrl.as_ref(),
        &streams,
        &layers,
    )?;

    let descriptors = Opened::open(&plan, |slot| match slot {
        Slot::Stdio(number) => streams.raw(*number),
        Slot::Pass(index) => options.pass_fds.get(*index).map(AsRawFd::as_raw_fd),
        Slot::CgroupEntry(index) => entries.get(*index).map(|entry| match entry {
            Entry::IntoV2(fd) | Entry::Procs(fd) => fd.as_raw_fd(),
        }),
        Slot::Listener => options.seccomp_listener.map(|socket| socket.as_raw_fd()),
        Slot::ResctrlTasks(index) => tasks.get(*index).map(AsRawFd::as_raw_fd),
        Slot::Namespace { .. } | Slot::Init => None,
    })?;
    let flags = match options.parentage {
        Parentage::Keeper => 0,
        Parentage::Orphan => protocol::create::ORPHAN,
        Parentage::Child => protocol::create::CHILD,
    } | if record.detached { protocol::create::DETACHED } else { 0 };
    let (Some(dir), Some(keeper)) = (&begun.dir, &begun.keeper) else { unreachable!("made above") };
    // From here on hooks may have run, which the last ones are to undo.
    begun.poststop = Some((runtime, About { spec, id, bundle: &bundle }));
    let replies = keeper.create(runtime, flags, &plan, dir, &descriptors)?;
    let (created, terminal) = await_creation(&replies, &deadline, Stage::Spawn)
        .map_err(|error| blame_memory(error, cgroup))?;
    if let Some(leaving) = begun.leaving.take() {
        reap(&leaving);
    }
    if !keeper_stays {
        keeper.see_off();
    }
    begun.vacate(spec)?;

    let init = Identity::of(created.pid).map_err(|error| {
        Error::io(Stage::State, &error, format!("read /proc/{}/stat", created.pid))
    })?;
    record_file.complete(init)?;
    record.init = Some(init);

    let process = Process(Arc::new(process::Inner {
        container_id: id.to_owned(),
        pid: created.pid,
        source: if keeper_stays { ExitSource::Keeper(replies) } else { ExitSource::Pidfd },
        pidfd: Some(created.pidfd),
        exit: Default::default(),
        pipes: std::mem::take(&mut streams.ours).into(),
        terminal,
        terminal_taken: false.into(),
        _companion: None,
        ending: Ending::of(runtime, id, &bundle, &configuration, begun.dir())?,
    }));
    runtime.0.events.watch(&process)?;
    let parts = begun.finish();
    Ok(handle::created(runtime, record, configuration, parts, process))
}

/// The files through which processes get into resctrl groups.
pub(super) fn open_tasks(group: Option<&Group>) -> Result<Vec<OwnedFd>> {
    let open = |path: PathBuf| {
        let file = std::fs::File::options().write(true).open(&path);
        file.map(OwnedFd::from)
            .map_err(|error| Error::io(Stage::Settings, &error, format!("open {path:?}")))
    };
    group.map_or_else(Vec::new, Group::tasks).into_iter().map(open).collect()
}

/// Takes the id. A directory of that name which a crash has left is cleaned up first.
pub(super) fn reserve(runtime: &Runtime, id: &str) -> Result<(StateDir, super::state_dir::Lock)> {
    for _ in 0..3 {
        if let Some(made) = StateDir::make(&runtime.0.state_dir, id)? {
            return Ok(made);
        }
        if !handle::reclaim(runtime, id)? {
            break;
        }
    }
    Err(Error::new(Category::Exists, Stage::State, format!("container {id:?} exists already"))
        .with_errno(libc::EEXIST))
}

/// What there is of a container that is being created. Dropped before it is finished, it is
/// taken back, in the order that lets each part go.
pub(super) struct Begun<'a> {
    dir: Option<StateDir>,
    cgroup: Option<Cgroup>,
    resctrl: Option<resctrl::Made>,
    changes: Option<layers::Made>,
    pub(super) keeper: Option<Keeper>,
    /// A keeper that is a child of this process, to be reaped.
    leaving: Option<OwnedFd>,
    occupant: Option<Occupant>,
    pub(super) poststop: Option<(&'a Runtime, About<'a>)>,
}

fn resources_of(spec: &oci::Spec) -> Option<&oci::LinuxResources> {
    spec.linux().as_ref().and_then(|linux| linux.resources().as_ref())
}

/// A process for systemd to begin the container's unit with: a keeper that is given nothing to
/// do. It leaves when this is dropped, and also when the host dies.
struct Occupant {
    keeper: Keeper,
    pidfd: OwnedFd,
}

impl Occupant {
    fn spawn(runtime: &Runtime) -> Result<Occupant> {
        let (keeper, _) = Keeper::spawn(runtime, Relation::Silent)?;
        // It waits for this process, so its pid is still its own.
        let pidfd = pidfd_open(keeper.pid)
            .map_err(|error| Error::io(Stage::Spawn, &error, "open the occupant of the unit"))?;
        Ok(Occupant { keeper, pidfd })
    }
}

impl Drop for Occupant {
    fn drop(&mut self) {
        let _ = send_signal(&self.pidfd, libc::SIGKILL);
        // So that nobody finds it in the container's cgroup.
        let deadline = Deadline::within(Some(Duration::from_secs(1)), None);
        let _ = deadline.wait(self.pidfd.as_fd(), Stage::Spawn);
    }
}

/// What a finished container consists of.
pub(super) struct Parts {
    pub(super) dir: StateDir,
    pub(super) cgroup: Cgroup,
    pub(super) keeper: Keeper,
}

impl Begun<'_> {
    pub(super) fn new(dir: StateDir) -> Self {
        Begun {
            dir: Some(dir),
            cgroup: None,
            resctrl: None,
            changes: None,
            keeper: None,
            leaving: None,
            occupant: None,
            poststop: None,
        }
    }

    pub(super) fn dir(&self) -> &StateDir {
        self.dir.as_ref().expect("there from the beginning to the end")
    }

    /// Makes the cgroups and resctrl groups, and lets the keeper get at them.
    pub(super) fn make_groups(
        &mut self,
        runtime: &Runtime,
        spec: &oci::Spec,
        id: &str,
        location: Location,
        resctrl: Option<&Group>,
        deadline: Deadline<'_>,
    ) -> Result<Cgroup> {
        let resources = resources_of(spec);
        let rootless = cgroup::Options { rootless: runtime.0.facts.is_rootless() };
        let hierarchies = &runtime.0.facts.cgroups;
        let cgroup = match &runtime.0.systemd {
            None => Cgroup::create(hierarchies, location, resources, rootless)?,
            Some(systemd) => {
                let occupant = self.occupant.insert(Occupant::spawn(runtime)?);
                let purpose = Purpose {
                    id,
                    occupant: occupant.keeper.pid,
                    annotations: match runtime.0.follow_annotations {
                        true => spec.annotations().as_ref(),
                        false => None,
                    },
                };
                let cgroup = Cgroup::create_in_unit(
                    systemd,
                    hierarchies,
                    location,
                    &purpose,
                    resources,
                    rootless,
                    deadline,
                )?;
                let cgroup = self.cgroup.insert(cgroup);
                let keeper = self.keeper.as_ref().map_or(0, |keeper| keeper.pid);
                cgroup.bring_near(hierarchies, keeper, deadline)?;
                cgroup.clone()
            }
        };
        let cgroup = self.cgroup.insert(cgroup);
        if let Some(owner) = cgroup_owner(spec).filter(|&owner| owner != runtime.0.facts.euid) {
            cgroup.delegate(owner)?;
        }
        let rdt = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
        if let (Some(group), Some(rdt)) = (resctrl, rdt) {
            self.resctrl = Some(group.make(rdt)?);
        }
        Ok(cgroup.clone())
    }

    /// Takes away what has kept the unit alive, once the container is in it.
    pub(super) fn vacate(&mut self, spec: &oci::Spec) -> Result<()> {
        match (self.occupant.take(), &self.cgroup) {
            (Some(_), Some(cgroup)) => cgroup.vacated(resources_of(spec)),
            _ => Ok(()),
        }
    }

    pub(super) fn finish(mut self) -> Parts {
        if let Some(made) = self.resctrl.take() {
            made.keep();
        }
        if let Some(made) = self.changes.take() {
            made.keep();
        }
        let parts = (self.dir.take(), self.cgroup.take(), self.keeper.take());
        self.poststop = None;
        let (Some(dir), Some(cgroup), Some(keeper)) = parts else {
            unreachable!("finished with every part made")
        };
        Parts { dir, cgroup, keeper }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.dismiss(protocol::shutdown::UNDO);
        }
        if let Some(leaving) = &self.leaving {
            // Without its socket it leaves even if it never understood a request.
            self.keeper = None;
            reap(leaving);
        }
        self.occupant = None;
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill(super::handle::PATIENCE);
            if let Err(error) = cgroup.undo() {
                tracing::warn!(%error, "a failed creation left a cgroup");
            }
        }
        // Before the directory that remembers it.
        self.resctrl = None;
        self.changes = None;
        if let Some(Err(error)) = self.dir.as_ref().map(StateDir::remove) {
            tracing::warn!(%error, "a failed creation left a state directory");
        }
        if let Some((runtime, about)) = &self.poststop {
            late_hooks::poststop(runtime, about);
        }
    }
}

/// The host's connection to a keeper; and the pidfd of one that is leaving, or has fallen to this
/// process, which has to collect it.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) channel: Channel,
    pub(super) adopted: Option<OwnedFd>,
    /// As this process sees it; 0 of a keeper that was spawned elsewhere.
    pub(super) pid: i32,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(adopted) = &self.adopted {
            reap_if_ended(adopted);
        }
    }
}

impl Keeper {
    /// One that was found by its socket.
    pub(super) fn found(channel: Channel) -> Keeper {
        Keeper { channel, adopted: None, pid: 0 }
    }

    /// Spawns one; in the `Child` relation with the pidfd by which to reap it.
    pub(super) fn spawn(
        runtime: &Runtime,
        relation: Relation,
    ) -> Result<(Keeper, Option<OwnedFd>)> {
        let (here, there) = Channel::pair()
            .map_err(|error| Error::io(Stage::Spawn, &error, "create a socket pair"))?;
        let shared = &runtime.0;
        let spawned = shared.images.spawn(there.as_fd(), relation, shared.capabilities)?;
        let keeper = Keeper { channel: here, adopted: spawned.adopted, pid: spawned.pid };
        Ok((keeper, spawned.child))
    }

    pub(super) fn create(
        &self,
        runtime: &Runtime,
        flags: u32,
        plan: &Plan,
        dir: &impl AsFd,
        opened: &Opened,
    ) -> Result<Channel> {
        let plan = plan_file(plan)?;
        let mut fds =
            vec![plan.as_raw_fd(), runtime.0.host_pidfd.as_raw_fd(), dir.as_fd().as_raw_fd()];
        fds.extend_from_slice(&opened.raw);
        let create = Request { kind: RequestKind::Create, flags };
        // The first thing it is sent, so there is room for it.
        let deadline = Deadline::within(Some(PATIENCE), None);
        request(&self.channel, create, &fds, &deadline, Stage::Spawn)
    }

    /// Makes it kill what it has and leave, and waits until all that is dead. `flags` are
    /// [`protocol::shutdown`] bits.
    pub(super) fn dismiss(&self, flags: u32) {
        let shutdown = Request { kind: RequestKind::Shutdown, flags };
        let deadline = Deadline::within(Some(Duration::from_secs(10)), None);
        let replies = request(&self.channel, shutdown, &[], &deadline, Stage::Delete);
        // Where no descriptor is left for an answer, the end of its socket is one. It may have
        // left already.
        let answer = match &replies {
            Ok(replies) => Some(replies),
            Err(_) if self.channel.send(&shutdown.encode(), &[]).is_ok() => Some(&self.channel),
            Err(_) => None,
        };
        if let Some(answer) = answer {
            while let Ok(Message::Reply(reply, _)) = answer.next(&deadline, Stage::Delete) {
                if reply == Reply::Done {
                    break;
                }
            }
        }
        self.see_off();
    }

    /// Waits until one that is leaving has left.
    pub(super) fn see_off(&self) {
        if let Some(adopted) = &self.adopted {
            let deadline = Deadline::within(Some(Duration::from_secs(1)), None);
            let _ = deadline.wait(adopted.as_fd(), Stage::Delete);
        }
    }
}

pub(super) fn keeper_gone(stage: Stage) -> Error {
    Error::new(Category::Keeper, stage, "the keeper is gone").with_errno(libc::EPIPE)
}

/// A created process, as the keeper announces it.
pub(super) struct Created {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
}

/// Reads replies up to the one that ends a creation or a start.
pub(super) fn await_creation(
    replies: &Channel,
    deadline: &Deadline<'_>,
    stage: Stage,
) -> Result<(Created, Option<OwnedFd>)> {
    let mut terminal = None;
    loop {
        match replies.next(deadline, stage)? {
            Message::Reply(Reply::Hello { version, .. }, _) => {
                let expected = locule_plan::VERSION;
                return Err(Error::new(
                    Category::Keeper,
                    stage,
                    format!("the keeper speaks protocol {version}, this library {expected}"),
                )
                .hint("install the keeper that came with this library"));
            }
            Message::Reply(Reply::Terminal, master) => terminal = master,
            Message::Reply(Reply::Created { pid } | Reply::Started { pid }, Some(pidfd)) => {
                return Ok((Created { pid, pidfd }, terminal));
            }
            Message::Bare(Reply::Failed(failure)) => return Err(error_of(&failure)),
            Message::Bare(_) => return Err(Error::os(stage, libc::EMFILE, "get a descriptor")),
            Message::Reply(Reply::Failed(failure), dead) => {
                // A first process that was to be this process's own child and is dead.
                if let Some(dead) = dead {
                    reap(&dead);
                }
                return Err(error_of(&failure));
            }
            Message::Reply(other, _) => {
                let message = format!("unexpected answer of the keeper: {other:?}");
                return Err(Error::new(Category::Keeper, stage, message));
            }
            Message::End => return Err(keeper_gone(stage)),
        }
    }
}

/// The descriptors of a plan's slots, in order.
pub(super) struct Opened {
    pub(super) raw: Vec<RawFd>,
    _owned: Vec<OwnedFd>,
}

impl Opened {
    /// `known` has those that are open already; namespaces are opened here.
    pub(super) fn open(plan: &Plan, known: impl Fn(&Slot) -> Option<RawFd>) -> Result<Opened> {
        // With a plan go its own, the answer's, the host's and the state directory's.
        const MOST: usize = protocol::MAX_DESCRIPTORS - 4;
        if plan.slots.len() > MOST {
            let message =
                format!("{} descriptors to pass on are more than {MOST}", plan.slots.len());
            return Err(Error::new(Category::Invalid, Stage::Arguments, message));
        }
        let mut opened = Opened { raw: Vec::with_capacity(plan.slots.len()), _owned: Vec::new() };
        for slot in &plan.slots {
            let raw = match (slot, known(slot)) {
                (_, Some(raw)) => raw,
                (Slot::Namespace { path, kind, pointer }, None) => {
                    let at = format!("{pointer}/path");
                    let fd = open_namespace(path, *kind).map_err(|error| error.at(at))?;
                    let raw = fd.as_raw_fd();
                    opened._owned.push(fd);
                    raw
                }
                (slot, None) => {
                    let message = format!("no descriptor for {slot}");
                    return Err(Error::new(Category::Bug, Stage::Spawn, message));
                }
            };
            opened.raw.push(raw);
        }
        Ok(opened)
    }
}

fn open_namespace(path: &Path, kind: u64) -> Result<OwnedFd> {
    let mut options = std::fs::File::options();
    // O_NONBLOCK: a FIFO at the path must not hang the host.
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|error| {
        Error::io(Stage::Namespaces, &error, format!("open the namespace {path:?}"))
    })?;
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703; // _IO(0xb7, 3)
    // SAFETY: the request takes no argument.
    let found = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
    if found as u64 != kind || found < 0 {
        let wanted = vocabulary::namespace_name_of(kind);
        let message = format!("{path:?} is not a {wanted} namespace");
        return Err(Error::new(Category::Spec, Stage::Namespaces, message));
    }
    Ok(file.into())
}

/// The plan in a sealed memory file, which the keeper maps.
pub(super) fn plan_file(plan: &Plan) -> Result<OwnedFd> {
    memory_file(c"locule-plan", Execution::Forbidden, &plan.bytes).map_err(|error| {
        Error::io(Stage::Spawn, &error, "put the plan in a memory file: memfd_create")
    })
}

fn invent_id() -> Result<String> {
    let mut random = [0u8; 8];
    // SAFETY: the buffer has the length given.
    let got = unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
    if got != random.len() as isize {
        let error = io::Error::last_os_error();
        return Err(Error::io(Stage::Arguments, &error, "getrandom"));
    }
    Ok(format!("locule-{:016x}", u64::from_ne_bytes(random)))
}

/// The caller's extra descriptors as the keeper gets them.
pub(super) fn raw_of(fds: &[BorrowedFd<'_>], index: usize) -> Option<RawFd> {
    fds.get(index).map(AsRawFd::as_raw_fd)
}

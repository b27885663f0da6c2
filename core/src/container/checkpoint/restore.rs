//! Restoring a container from a checkpoint: all or nothing, as a creation.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::configuration::Configuration;
use super::super::create::{Begun, Keeper, Opened, locate, open_tasks, resctrl_group, reserve};
use super::super::handle::{self, Container};
use super::super::pidfd::Identity;
use super::super::process::{self, ExitSource, Process};
use super::super::record::Record;
use super::super::stages::{self, Ending};
use super::super::state_dir::check_id;
use super::super::stdio::Streams;
use super::super::{Runtime, late_hooks};
use super::criu::{self, Criu, text_of};
use super::directories::Directories;
use super::messages::{CgroupRoot, Inherited, Kind, Options};
use super::superblock::Kept;
use super::{DESCRIPTORS, RestoreOptions, common, mounts, namespaces, need_root};
use crate::cgroup::Entry;
use crate::compile::{About, CriuInput, RestoreInput, Slot, compile_criu};
use crate::launch::{Deadline, Relation};
use crate::plugin;
use crate::spec;
use crate::{Error, Result, Stage};

const LOG: &str = "restore.log";
/// CRIU's own socket is 3.
const FIRST_PASSED: i32 = 4;

/// What CRIU has restored.
struct Init {
    identity: Identity,
    pidfd: OwnedFd,
}

pub(in super::super) fn restore(
    runtime: &Runtime,
    options: &RestoreOptions<'_>,
) -> Result<Container> {
    let id = options.id;
    let made = check_id(id).and_then(|()| make(runtime, options));
    let container = made.map_err(|error| error.of_container(id))?;
    container.after(plugin::Stage::Created);
    container.after(plugin::Stage::Started);
    Ok(container)
}

fn make(runtime: &Runtime, options: &RestoreOptions<'_>) -> Result<Container> {
    let id = options.id;
    let deadline = Deadline::within(options.criu.timeout, options.criu.cancel);
    deadline.check()?;
    need_root(runtime)?;
    let (configuration, bundle) = runtime.0.configurations.load(&options.source)?;
    let (configuration, changes) = stages::create(runtime, id, &bundle, configuration)?;
    let spec = &configuration.spec;
    let about = About { spec, id, bundle: &bundle };
    let root = spec.root().as_ref().map_or(Path::new("rootfs"), |root| root.path());
    let root = fs::canonicalize(bundle.join(root)).map_err(|error| {
        Error::io(Stage::Checkpoint, &error, format!("find the root {root:?}")).at("/root/path")
    })?;
    let directories = Directories::open(&options.criu, LOG)?;
    let pipes = read_descriptors(&options.criu.image_dir)?;
    let joining = namespaces::to_join(spec, FIRST_PASSED)?;
    let location = locate(runtime, spec, id, deadline)?;
    let resctrl = resctrl_group(spec, id)?;
    if let Some(group) = &resctrl {
        group.check_free()?;
    }
    let mut streams = Streams::open(&options.stdio)?;

    let (dir, _lock) = reserve(runtime, id)?;
    let mut begun = Begun::new(dir);
    begun.keeper = Some(Keeper::spawn(runtime, Relation::Leaving)?.0);
    let mut record = Record {
        version: Record::VERSION,
        id: id.to_owned(),
        bundle: bundle.clone(),
        created: humantime::format_rfc3339_nanos(SystemTime::now()).to_string(),
        owner: runtime.0.facts.euid,
        host: runtime.0.host,
        detached: true,
        keeper: false,
        init: None,
        cgroup: location.clone(),
        resctrl: resctrl.clone(),
        changes: None,
        usage: None,
        config: configuration.json.clone(),
    };
    begun.dir().write(&record)?;
    plugin::log::begin(&begun.dir().path, &changes)?;
    let cgroup = begun.make_groups(runtime, spec, id, location, resctrl.as_ref(), deadline)?;
    record.cgroup = cgroup.location().clone();

    let (here, there) = criu::sockets()?;
    let passed: Vec<BorrowedFd<'_>> =
        std::iter::once(there.as_fd()).chain(joining.descriptors.iter().map(AsFd::as_fd)).collect();
    let path = criu::search_path();
    let plan = compile_criu(&CriuInput {
        path: &path,
        descriptors: streams.descriptors(passed.len(), false),
        restore: Some(RestoreInput {
            spec,
            bundle: &bundle,
            location: cgroup.location(),
            resctrl: resctrl.as_ref(),
        }),
    })?;
    let entries = cgroup.entries()?;
    let tasks = open_tasks(resctrl.as_ref())?;
    let opened = Opened::open(&plan, |slot| match slot {
        Slot::Stdio(number) => streams.raw(*number),
        Slot::Pass(index) => passed.get(*index).map(AsRawFd::as_raw_fd),
        Slot::CgroupEntry(index) => entries.get(*index).map(|entry| match entry {
            Entry::IntoV2(fd) | Entry::Procs(fd) => fd.as_raw_fd(),
        }),
        Slot::ResctrlTasks(index) => tasks.get(*index).map(AsRawFd::as_raw_fd),
        Slot::Namespace { .. } | Slot::Init | Slot::Listener => None,
    })?;
    let kept = Kept::of(cgroup.location());
    let keeper = begun.keeper.as_ref().expect("spawned above");
    let criu = Criu::start(runtime, keeper, &plan, &opened, begun.dir(), here, &deadline)?;
    drop(there);
    let directories = directories.of_process(criu.pid)?;

    let mut inherited = joining.inherited;
    inherited
        .extend(pipes.into_iter().filter(|pipe| streams.raw(pipe.descriptor as usize).is_some()));
    let request = Options {
        evasive_devices: Some(true),
        rst_sibling: Some(true),
        root: Some(text_of(&root)?),
        tcp_close: options.tcp_close.then_some(true),
        lsm_profile: options.lsm_profile.map(str::to_owned),
        lsm_mount_context: options.lsm_mount_context.map(str::to_owned),
        external_mounts: mounts::sources(&root, &bundle, spec, cgroup.location())?,
        cgroup_roots: cgroups_of(criu.pid)?,
        joined_namespaces: joining.joined,
        inherited,
        ..common(runtime, &options.criu, &directories, spec, cgroup.location())
    };
    // From here on hooks may have run, which the last ones are to undo.
    begun.poststop = Some((runtime, about));
    let (mut init, mut terminal) = (None, None);
    criu.carry_out(
        Kind::Restore,
        request,
        directories.log(),
        &deadline,
        &mut |notification, descriptor| {
            let pid = notification.pid.unwrap_or_default();
            match notification.script.as_deref() {
                Some("setup-namespaces") => {
                    late_hooks::before_restored(runtime, &about, pid, &deadline)?
                }
                // It stands still as yet, so the pid is its own.
                Some("post-restore") => init = Some(pin(pid)?),
                Some("orphan-pts-master") => terminal = descriptor,
                _ => {}
            }
            Ok(())
        },
    )?;
    criu.finish(&deadline)?;
    drop(kept);
    let init: Init = init.ok_or_else(|| {
        Error::new(crate::Category::Bug, Stage::Checkpoint, "CRIU has not told what it restored")
    })?;
    begun.vacate(spec)?;

    let configuration = with_time_namespace(configuration.clone(), init.identity.pid)?;
    record.config = configuration.json.clone();
    begun.dir().write(&record)?.complete(init.identity)?;
    record.init = Some(init.identity);
    let process = Process(Arc::new(process::Inner {
        container_id: id.to_owned(),
        pid: init.identity.pid,
        source: ExitSource::Pidfd,
        pidfd: Some(init.pidfd),
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

fn pin(pid: i32) -> Result<Init> {
    let lost = |error: std::io::Error| {
        Error::io(Stage::Checkpoint, &error, format!("find the restored process {pid}"))
    };
    let pidfd = super::super::pidfd::pidfd_open(pid).map_err(lost)?;
    Ok(Init { identity: Identity::of(pid).map_err(lost)?, pidfd })
}

/// What were pipes among standard input, output and error: what the caller gives takes their place.
fn read_descriptors(images: &Path) -> Result<Vec<Inherited>> {
    let path = images.join(DESCRIPTORS);
    let text = fs::read(&path).map_err(|error| {
        let error = Error::io(Stage::Checkpoint, &error, format!("read {path:?}"));
        error.hint("is this the directory of a checkpoint, and not only of a pre-dump?")
    })?;
    let names: Vec<String> = serde_json::from_slice(&text).map_err(|error| {
        Error::new(crate::Category::Invalid, Stage::Checkpoint, format!("{path:?}: {error}"))
    })?;
    let pipes = names.into_iter().zip(0..3).filter(|(name, _)| name.starts_with("pipe:"));
    Ok(pipes.map(|(key, descriptor)| Inherited { key, descriptor }).collect())
}

/// The cgroups of CRIU, which it was started in, are the container's.
fn cgroups_of(pid: i32) -> Result<Vec<CgroupRoot>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path)
        .map_err(|error| Error::io(Stage::Checkpoint, &error, format!("read {path}")))?;
    let mut roots = Vec::new();
    for line in text.lines() {
        let mut words = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (words.next(), words.next()) else { continue };
        for controller in controllers.split(',') {
            let controller = Some(controller.to_owned());
            roots.push(CgroupRoot { controller, path: path.to_owned() });
        }
    }
    Ok(roots)
}

/// CRIU puts processes into a time namespace whose clocks go on from where they stood. Those that
/// are executed later have to find the same time, so the configuration gets that namespace, too.
fn with_time_namespace(configuration: Arc<Configuration>, pid: i32) -> Result<Arc<Configuration>> {
    let identity = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let theirs = identity(&format!("/proc/{pid}/ns/time"));
    if theirs.is_none() || theirs == identity("/proc/self/ns/time") {
        return Ok(configuration);
    }
    let bug = |error: serde_json::Error| {
        let message = format!("add a time namespace to the configuration: {error}");
        Error::new(crate::Category::Bug, Stage::Checkpoint, message)
    };
    let mut document: Value = serde_json::from_str(configuration.json.get()).map_err(bug)?;
    let namespaces = &mut document["linux"]["namespaces"];
    match namespaces.as_array_mut() {
        Some(known) if known.iter().any(|namespace| namespace["type"] == "time") => {
            return Ok(configuration);
        }
        Some(known) => known.push(json!({ "type": "time" })),
        None => *namespaces = json!([{ "type": "time" }]),
    }
    let json = RawValue::from_string(document.to_string()).map_err(bug)?;
    let spec = spec::parse(json.get().as_bytes())?;
    Ok(Arc::new(Configuration::new(json, spec)))
}

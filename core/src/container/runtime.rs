//! The runtime: where containers are kept, and what they share.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::configuration::Configurations;
use super::events::Events;
use super::facts::{effective_capabilities, whose_systemd};
use super::pidfd::Identity;
use super::state_dir::{StateDir, check_id, make_root};
use super::{
    Container, CreateOptions, Event, RestoreOptions, RuntimeOptions, State, UNSAFE_ANNOTATIONS,
    checkpoint, create,
};
use crate::cgroup::{Manager, Systemd};
use crate::compile::{HostFacts, Plan};
use crate::launch::{Images, host_pidfd};
use crate::plugin::Plugins;
use crate::{Category, Error, Result, Stage, seccomp, spec};

const CHECKPOINTS: &str = "org.opencontainers.runc.checkpoint.enabled";

/// The place where containers are kept, and what a program's containers share: a state
/// directory, the keeper's executable, compiled seccomp profiles. Cloning gives another handle
/// to the same runtime. Thread-safe. A process that was forked from this one must open its own.
#[derive(Clone)]
pub struct Runtime(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) state_dir: PathBuf,
    pub(super) images: Images,
    pub(super) facts: HostFacts,
    /// The systemd that makes the cgroups, if one is to.
    pub(super) systemd: Option<Systemd>,
    pub(super) follow_annotations: bool,
    pub(super) configurations: Configurations,
    pub(super) seccomp: seccomp::Cache,
    pub(super) host: Identity,
    pub(super) host_pidfd: OwnedFd,
    /// What a keeper must be given on the way because exec would drop it; 0 for root.
    pub(super) capabilities: u64,
    pub(super) events: Events,
    pub(super) plugins: Plugins,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("state_dir", &self.0.state_dir).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Opens the runtime, making its state directory if it is missing.
    pub fn new(options: RuntimeOptions) -> Result<Runtime> {
        let facts = HostFacts::gather(options.cgroup_manager)?;
        let own_choice = options.state_dir.is_some();
        let state_dir = match options.state_dir {
            Some(path) => std::path::absolute(&path).map_err(|error| {
                Error::io(Stage::Arguments, &error, format!("state directory {path:?}"))
            })?,
            None => default_state_dir(&facts),
        };
        make_root(&state_dir)?;
        check_owner(&state_dir, facts.euid, own_choice)?;
        let capabilities = if facts.euid == 0 { 0 } else { effective_capabilities()? };
        let host = Identity::of(std::process::id() as i32)
            .map_err(|error| Error::io(Stage::State, &error, "read /proc/self/stat"))?;
        Ok(Runtime(Arc::new(Shared {
            images: Images::new(options.keeper, state_dir.clone()),
            state_dir,
            systemd: (options.cgroup_manager == Manager::Systemd)
                .then(|| Systemd::new(whose_systemd(&facts))),
            follow_annotations: !options.ignore_annotations,
            facts,
            configurations: Configurations::default(),
            seccomp: seccomp::Cache::default(),
            host,
            host_pidfd: host_pidfd()?,
            capabilities,
            events: Events::new()?,
            plugins: options.plugins,
        })))
    }

    /// Creates a container: everything is set up and its program waits for
    /// [`Container::start`]. Blocks until then. If it fails, nothing is left behind.
    pub fn create(&self, options: CreateOptions<'_>) -> Result<Container> {
        self.check_process()?;
        create::create(self, &options)
    }

    /// Brings a container back from a checkpoint: it runs when this returns. Blocks. If it fails,
    /// nothing is left behind but CRIU's log.
    ///
    /// Needs root and the program `criu`.
    pub fn restore(&self, options: RestoreOptions<'_>) -> Result<Container> {
        self.check_process()?;
        checkpoint::restore(self, &options)
    }

    /// The container with this id, whichever process created it. One that was to die with
    /// its host, and whose host is dead, is cleaned up and does not exist.
    pub fn open(&self, id: &str) -> Result<Container> {
        self.check_process()?;
        Container::open(self, id)
    }

    /// The state of every container, in the order of their ids. One whose files are damaged is left
    /// out, and a warning is logged.
    ///
    /// # Errors
    /// When the state directory cannot be read, or this process is short of descriptors.
    pub fn list(&self) -> Result<Vec<State>> {
        self.check_process()?;
        let entries = std::fs::read_dir(&self.0.state_dir).map_err(|error| {
            let message = format!("read the state directory {:?}", self.0.state_dir);
            Error::io(Stage::State, &error, message)
        })?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut ids: Vec<String> = names.filter(|name| check_id(name).is_ok()).collect();
        ids.sort();
        let mut states = Vec::with_capacity(ids.len());
        for id in ids {
            // One that is deleted or not yet created meanwhile is none.
            match self.open(&id).and_then(|container| container.state()) {
                Ok(state) => states.push(state),
                Err(error) if error.category() == Category::NotFound => {}
                Err(error) if error.category() == Category::Busy => {}
                // It would be missing for a reason of this process's.
                Err(error) if error.category() == Category::Resource => return Err(error),
                Err(error) => tracing::warn!(%id, %error, "skipped in the list of containers"),
            }
        }
        Ok(states)
    }

    /// What [`Runtime::create`] would do with these options, without doing any of it. Needs no
    /// privilege.
    pub fn explain(&self, options: &CreateOptions<'_>) -> Result<Plan> {
        create::explain(self, options)
    }

    /// The features document of this library on this machine (runtime-spec, features.md).
    pub fn features(&self) -> serde_json::Value {
        spec::features::features(&spec::features::Facts {
            last_capability: Some(self.0.facts.last_capability),
            namespaces: ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]
                .to_vec(),
            hooks: [
                "prestart",
                "createRuntime",
                "createContainer",
                "startContainer",
                "poststart",
                "poststop",
            ]
            .to_vec(),
            cgroup: spec::features::Cgroup {
                v1: true,
                v2: true,
                systemd: true,
                systemd_user: true,
                rdma: true,
            },
            unsafe_annotations: match self.0.follow_annotations {
                true => UNSAFE_ANNOTATIONS.to_vec(),
                false => Vec::new(),
            },
            seccomp: true,
            apparmor: true,
            selinux: true,
            idmapped_mounts: true,
            intel_rdt: true,
            memory_policy: true,
            net_devices: true,
            // Where runc's callers look whether `checkpoint` is a verb.
            annotations: vec![(CHECKPOINTS.to_owned(), "true".to_owned())],
        })
    }

    /// One descriptor for everything that was created or opened through this runtime: readable
    /// while [`Runtime::dispatch`] has an event to give. Only to be polled.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.0.events.as_fd()
    }

    /// Waits for events, and gives each to `callback` on this thread. Returns how many there
    /// were, 0 after `timeout`. An error of the callback stops the call and is returned.
    pub fn dispatch(
        &self,
        timeout: Option<Duration>,
        callback: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<usize> {
        self.0.events.dispatch(timeout, callback)
    }

    /// The plugins it was opened with.
    pub fn plugins(&self) -> &Plugins {
        &self.0.plugins
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.0.state_dir
    }

    /// A forked child has this runtime's descriptors, and its pidfd still means the parent.
    fn check_process(&self) -> Result<()> {
        if std::process::id() as i32 == self.0.host.pid {
            return Ok(());
        }
        Err(Error::new(
            Category::State,
            Stage::Arguments,
            "this runtime was opened by another process",
        )
        .hint("open a runtime after the fork, in the process that uses it"))
    }

    pub(super) fn state_dir_of(&self, id: &str) -> Result<StateDir> {
        StateDir::open(&self.0.state_dir, id)
    }
}

/// Whoever can write to the directory decides what is killed and removed in the name of its
/// containers. The default one may be in `/tmp`, where others could have made it first, also as
/// a link to what is this user's.
fn check_owner(state_dir: &Path, euid: u32, follow: bool) -> Result<()> {
    let look = if follow { std::fs::metadata } else { std::fs::symlink_metadata };
    let metadata = look(state_dir).map_err(|error| {
        Error::io(Stage::State, &error, format!("look at the state directory {state_dir:?}"))
    })?;
    let foreign = ![0, euid].contains(&metadata.uid());
    // With the sticky bit others can only add to it, and whose a container is gets checked.
    if foreign || metadata.mode() & 0o1002 == 0o002 {
        let what = if foreign { "belongs to another user" } else { "can be written to by others" };
        let message = format!("the state directory {state_dir:?} {what}");
        return Err(Error::new(Category::Permission, Stage::State, message)
            .hint("set XDG_RUNTIME_DIR, or give a state directory of your own"));
    }
    Ok(())
}

/// Root's is the machine's, and so it is for root of a user namespace that owns `/run`.
fn default_state_dir(facts: &HostFacts) -> PathBuf {
    let owns_run = || std::fs::metadata("/run").is_ok_and(|run| run.uid() == 0);
    if facts.euid == 0 && (!facts.in_user_namespace || owns_run()) {
        return PathBuf::from("/run/locule");
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty()) {
        Some(path) => Path::new(&path).join("locule"),
        None => PathBuf::from(format!("/tmp/locule-{}", facts.euid)),
    }
}

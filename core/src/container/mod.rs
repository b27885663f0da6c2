//! Containers and their processes: handles, state directory, transitions, events.

mod options;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

pub use options::{
    CreateOptions, ExecOptions, OnHostExit, Parentage, Rootfs, RuntimeOptions, Source, Stdio,
    TerminalSize,
};

use crate::{Plan, Result};

/// The place where containers are kept: a state directory and what its containers share.
/// Cloning gives another handle to the same runtime. Thread-safe.
#[derive(Debug, Clone)]
pub struct Runtime {}

impl Runtime {
    /// Opens the runtime, creating the state directory if missing.
    pub fn new(_options: RuntimeOptions) -> Result<Runtime> {
        todo!()
    }
    /// Creates a container: everything is set up and the program waits for [`Container::start`].
    pub fn create(&self, _options: CreateOptions<'_>) -> Result<Container> {
        todo!()
    }
    /// The container with this id, created by whichever process.
    pub fn open(&self, _id: &str) -> Result<Container> {
        todo!()
    }
    /// The state of every container, in the order of their ids.
    pub fn list(&self) -> Result<Vec<State>> {
        todo!()
    }
    /// What [`Runtime::create`] would do, without doing it. Needs no privilege.
    pub fn explain(&self, _options: &CreateOptions<'_>) -> Result<Plan> {
        todo!()
    }
    /// The features document of this library on this machine (runtime-spec, features.md).
    pub fn features(&self) -> serde_json::Value {
        todo!()
    }
    /// One descriptor for everything the runtime's handles in this process wait for: it is
    /// readable while [`Runtime::dispatch`] has an event to give.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        todo!()
    }
    /// Waits for events and gives each to `callback`, on this thread. Returns how many there
    /// were: 0 after `timeout`. An error of the callback stops and is returned.
    pub fn dispatch(
        &self,
        _timeout: Option<Duration>,
        _callback: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<usize> {
        todo!()
    }
    /// The state directory.
    pub fn state_dir(&self) -> &std::path::Path {
        todo!()
    }
}

/// A handle to a container. Dropping it does nothing to the container. Thread-safe: a call
/// that waits never blocks another one.
#[derive(Debug, Clone)]
pub struct Container {}

impl Container {
    /// The container's id.
    pub fn id(&self) -> &str {
        todo!()
    }
    /// Its first process.
    pub fn init(&self) -> &Process {
        todo!()
    }
    /// Lets the program run. Returns once it has been executed.
    pub fn start(&self, _cancel: Option<&Cancel>) -> Result<()> {
        todo!()
    }
    /// Runs another process in the container. Returns once its program has been executed.
    pub fn exec(&self, _options: ExecOptions<'_>) -> Result<Process> {
        todo!()
    }
    /// Sends a signal to the first process, or with `all` to every process.
    pub fn signal(&self, _signal: i32, _all: bool) -> Result<()> {
        todo!()
    }
    /// Freezes every process.
    pub fn pause(&self) -> Result<()> {
        todo!()
    }
    /// Thaws what [`Container::pause`] froze.
    pub fn resume(&self) -> Result<()> {
        todo!()
    }
    /// Changes the resource limits: JSON of the spec's `linux.resources`; absent fields stay.
    pub fn update(&self, _resources: &[u8]) -> Result<()> {
        todo!()
    }
    /// Resource usage.
    pub fn stats(&self) -> Result<crate::cgroup::Stats> {
        todo!()
    }
    /// The pids of every process in the container, as this process sees them.
    pub fn pids(&self) -> Result<Vec<i32>> {
        todo!()
    }
    /// The state now.
    pub fn state(&self) -> Result<State> {
        todo!()
    }
    /// Deletes a stopped (or never started) container; with `force` kills it first.
    pub fn delete(&self, _force: bool) -> Result<()> {
        todo!()
    }
}

/// A process in a container. Cloning gives another handle. Thread-safe.
#[derive(Debug, Clone)]
pub struct Process {}

impl Process {
    /// Its pid as this process sees it.
    pub fn pid(&self) -> i32 {
        todo!()
    }
    /// Readable from the moment on which the exit status is there; stays readable. Only to
    /// be polled, never read. Lives as long as the handle.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        todo!()
    }
    /// How it ended, or `None` after `timeout` (`None`: no limit; zero: look only).
    pub fn wait(
        &self,
        _timeout: Option<Duration>,
        _cancel: Option<&Cancel>,
    ) -> Result<Option<Exit>> {
        todo!()
    }
    /// Sends it a signal.
    pub fn signal(&self, _signal: i32) -> Result<()> {
        todo!()
    }
    /// The host's end of the pipe to standard stream `number` (0 to 2), once; `None` if that
    /// stream is no pipe or its end has been taken.
    pub fn take_pipe(&self, _number: usize) -> Option<OwnedFd> {
        todo!()
    }
    /// The master of the process's terminal, once; `None` if it has none.
    pub fn take_terminal(&self) -> Option<OwnedFd> {
        todo!()
    }
    /// Tells the process's terminal its size, whether or not the master has been taken.
    pub fn resize(&self, _size: TerminalSize) -> Result<()> {
        todo!()
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal killed it.
    Signal {
        /// The signal.
        signal: i32,
        /// Whether it left a core dump.
        core_dumped: bool,
    },
    /// It is gone, but nobody could collect its status (the keeper was killed, or the
    /// container has no keeper and this process is not its parent).
    Unknown,
}

/// The status of a container (runtime-spec, runtime.md; `Paused` is runc's fifth).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Being set up.
    Creating,
    /// Waiting for start.
    Created,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Its first process is dead.
    Stopped,
}

/// The state of a container.
#[derive(Debug, Clone)]
pub struct State {
    /// The container's id.
    pub id: String,
    /// Its status.
    pub status: Status,
    /// Pid of the first process as this process sees it; 0 when stopped.
    pub pid: i32,
    /// The bundle directory, absolute; empty if the container was made from a spec alone.
    pub bundle: std::path::PathBuf,
    /// The whole state document as JSON, with runc's additions (`rootfs`, `created`, `owner`).
    pub document: serde_json::Value,
}

/// Something that happened, from [`Runtime::dispatch`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A process created through this runtime handle has ended.
    Exited {
        /// The container's id.
        container_id: String,
        /// The process.
        process: Process,
        /// How it ended.
        exit: Exit,
    },
}

/// Stops waiting calls, from any thread. Cloning gives another handle. Once cancelled it
/// stays so.
#[derive(Debug, Clone)]
pub struct Cancel {}

impl Cancel {
    /// A token that has not been cancelled.
    pub fn new() -> Result<Cancel> {
        todo!()
    }
    /// Makes every call that was given this token return `Cancelled`.
    pub fn cancel(&self) {
        todo!()
    }
    /// Readable once cancelled.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        todo!()
    }
}

#[allow(unused)] // until the bodies are there
fn _uses(fd: OwnedFd) {
    let _ = fd.as_fd();
}

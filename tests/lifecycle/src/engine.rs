//! The library as a case sees it, whichever face it goes through.

use std::fmt;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use locule::cgroup::{Resource, Watch};
use locule::{Cancel, Category, Exit, OnHostExit, Parentage, Rootfs, Stage};
use serde_json::Value;

/// The result of a call.
pub type Result<T> = std::result::Result<T, Failure>;

/// All that an error says, equal for both faces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its category.
    pub category: Category,
    /// The number of its stage.
    pub stage: u32,
    /// The errno, 0 if there is none.
    pub errno: i32,
    /// The JSON pointer, empty if there is none.
    pub pointer: String,
    /// The text.
    pub message: String,
    /// What to do about it, empty if that is not known.
    pub hint: String,
    /// The container's id, empty if there is none.
    pub container_id: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "[{} in stage {}, errno {}, at {:?}] {}",
            self.category.name(),
            self.stage,
            self.errno,
            self.pointer,
            self.message
        )
    }
}

impl Failure {
    /// Asserts what kind of failure it is.
    #[track_caller]
    pub fn must_be(&self, category: Category, stage: Stage) -> &Self {
        assert_eq!(
            (self.category, self.stage),
            (category, stage as u32),
            "expected {} in {} ({}): {self}",
            category.name(),
            stage.name(),
            stage as u32
        );
        assert!(!self.message.is_empty(), "an error without a text");
        self
    }

    /// Asserts its errno.
    #[track_caller]
    pub fn with_errno(&self, errno: i32) -> &Self {
        assert_eq!(self.errno, errno, "{self}");
        self
    }

    /// Asserts its place in `config.json`.
    #[track_caller]
    pub fn at(&self, pointer: &str) -> &Self {
        assert_eq!(self.pointer, pointer, "{self}");
        self
    }

    /// Asserts that its text contains something.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        assert!(self.message.contains(text), "does not say {text:?}: {self}");
        self
    }
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// `/dev/null`.
    Null,
    /// This process's own.
    Inherit,
    /// A descriptor, which must stay open through the call.
    Fd(RawFd),
    /// A pipe.
    Pipe,
}

/// Stops waiting calls.
#[derive(Debug)]
pub enum Token {
    /// Through the Rust API.
    Rust(Cancel),
    /// Through the C ABI.
    C(crate::c_abi::CToken),
}

impl Token {
    /// Triggers it.
    pub fn cancel(&self) {
        match self {
            Token::Rust(cancel) => cancel.cancel(),
            Token::C(cancel) => cancel.trigger(),
        }
    }
}

/// How a container is created.
#[derive(Debug, Clone)]
pub struct Create<'a> {
    /// The id; invented if `None`.
    pub id: Option<String>,
    /// The bundle, or the base of `spec`.
    pub bundle: Option<PathBuf>,
    /// The text of `config.json`.
    pub spec: Option<Vec<u8>>,
    /// What becomes of changes to the root.
    pub rootfs: Rootfs,
    /// Layers beneath the root.
    pub lower: Vec<PathBuf>,
    /// A directory that keeps changes to the root.
    pub changes: Option<PathBuf>,
    /// Standard streams.
    pub stdio: [Stream; 3],
    /// The parent of the first process.
    pub parentage: Parentage,
    /// What happens when the host ends.
    pub on_host_exit: OnHostExit,
    /// Descriptors to become 3, 4, ...
    pub pass_fds: Vec<RawFd>,
    /// A socket over which the listener of the seccomp filter is to come.
    pub seccomp_listener: Option<RawFd>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Stops it.
    pub cancel: Option<&'a Token>,
}

impl Default for Create<'_> {
    fn default() -> Self {
        Create {
            id: None,
            bundle: None,
            spec: None,
            rootfs: Rootfs::Direct,
            lower: Vec::new(),
            changes: None,
            stdio: [Stream::Null; 3],
            parentage: Parentage::Keeper,
            on_host_exit: OnHostExit::Kill,
            pass_fds: Vec::new(),
            seccomp_listener: None,
            timeout: None,
            cancel: None,
        }
    }
}

/// How another process is run.
#[derive(Debug, Clone)]
pub struct Exec<'a> {
    /// The process document.
    pub process: Value,
    /// Standard streams.
    pub stdio: [Stream; 3],
    /// Descriptors to become 3, 4, ...
    pub pass_fds: Vec<RawFd>,
    /// A socket over which the listener of the seccomp filter is to come.
    pub seccomp_listener: Option<RawFd>,
    /// How long the start may take.
    pub timeout: Option<Duration>,
    /// Stops it.
    pub cancel: Option<&'a Token>,
}

impl Exec<'_> {
    /// The defaults for these arguments.
    pub fn of(args: &[&str]) -> Self {
        Exec {
            process: serde_json::json!({ "args": args }),
            stdio: [Stream::Null; 3],
            pass_fds: Vec::new(),
            seccomp_listener: None,
            timeout: None,
            cancel: None,
        }
    }
}

/// An end of a process, as dispatched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The container's id.
    pub container_id: String,
    /// The process's pid.
    pub pid: i32,
    /// How it ended.
    pub exit: Exit,
}

/// Something that was dispatched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened {
    /// A process has ended.
    Ended(Ended),
    /// A container, by its id, ran out of memory.
    OutOfMemory(String),
    /// The processes of a container, by its id, had to wait for this.
    Pressure(String, Resource),
}

/// A runtime.
pub trait Engine: Send + Sync {
    /// Creates a container.
    fn create(&self, options: &Create<'_>) -> Result<Arc<dyn Container>>;
    /// Opens a container by its id.
    fn open(&self, id: &str) -> Result<Arc<dyn Container>>;
    /// The state document of every container.
    fn list(&self) -> Result<Vec<Value>>;
    /// The descriptor for all events.
    fn event_fd(&self) -> RawFd;
    /// Waits for events.
    fn dispatch_all(&self, timeout: Duration) -> Result<Vec<Happened>>;
    /// Waits for ends of processes.
    fn dispatch(&self, timeout: Duration) -> Result<Vec<Ended>> {
        let ended = |happened| match happened {
            Happened::Ended(ended) => Some(ended),
            _ => None,
        };
        Ok(self.dispatch_all(timeout)?.into_iter().filter_map(ended).collect())
    }
    /// The plan as JSON.
    fn explain(&self, options: &Create<'_>) -> Result<String>;
    /// The features document.
    fn features(&self) -> Result<Value>;
    /// A new token.
    fn token(&self) -> Token;
}

/// A container.
pub trait Container: Send + Sync {
    /// Its id.
    fn id(&self) -> String;
    /// Its first process.
    fn init(&self) -> Arc<dyn Process>;
    /// Lets its program run.
    fn start(&self, cancel: Option<&Token>) -> Result<()>;
    /// Runs another process.
    fn exec(&self, options: &Exec<'_>) -> Result<Arc<dyn Process>>;
    /// Signals the first or all processes.
    fn signal(&self, signal: i32, all: bool) -> Result<()>;
    /// Freezes it.
    fn pause(&self) -> Result<()>;
    /// Thaws it.
    fn resume(&self) -> Result<()>;
    /// Changes limits.
    fn update(&self, resources: &Value) -> Result<()>;
    /// Has `dispatch_all` tell when this happens.
    fn watch(&self, watch: Watch) -> Result<()>;
    /// Resource usage.
    fn stats(&self) -> Result<Value>;
    /// Pids of all its processes.
    fn pids(&self) -> Result<Vec<i32>>;
    /// The state document.
    fn state(&self) -> Result<Value>;
    /// Deletes it.
    fn delete(&self, force: bool) -> Result<()>;

    /// The `status` of the state document.
    fn status(&self) -> String {
        let state = self.state().expect("the state");
        state["status"].as_str().unwrap_or_default().to_owned()
    }
}

/// A process.
pub trait Process: Send + Sync {
    /// Its pid.
    fn pid(&self) -> i32;
    /// Readable once it has ended.
    fn fd(&self) -> RawFd;
    /// How it ended.
    fn wait(&self, timeout: Option<Duration>, cancel: Option<&Token>) -> Result<Option<Exit>>;
    /// Signals it.
    fn signal(&self, signal: i32) -> Result<()>;
    /// The host's end of a pipe.
    fn take_pipe(&self, number: usize) -> Option<OwnedFd>;
    /// The master of its terminal.
    fn take_terminal(&self) -> Option<OwnedFd>;
    /// Sets its terminal's size.
    fn resize(&self, rows: u16, columns: u16) -> Result<()>;
}

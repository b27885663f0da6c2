//! The one error type: what failed, where in the start, and where in `config.json`.
//!
//! An [`Error`] is immutable and owns all it says; there is no "last error" anywhere.

use std::fmt;
use std::io;

/// What kind of failure it is. The numbers are the C ABI's return values and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Category {
    /// An argument of the call is wrong.
    Invalid = -4097,
    /// `config.json`, or another OCI document, is wrong.
    Spec = -4098,
    /// No such container, process or file.
    NotFound = -4099,
    /// The id is in use.
    Exists = -4100,
    /// The container is in a state that does not allow the call.
    State = -4101,
    /// The system refused for lack of privilege.
    Permission = -4102,
    /// The kernel, this machine or this version cannot do it.
    Unsupported = -4103,
    /// Something is in use that must not be.
    Busy = -4104,
    /// The deadline passed.
    Timeout = -4105,
    /// The call was cancelled.
    Cancelled = -4106,
    /// A resource ran out: memory, disk, descriptors, processes.
    Resource = -4107,
    /// A system call failed for another reason.
    System = -4108,
    /// The program could not be executed.
    Program = -4109,
    /// A hook failed.
    Hook = -4110,
    /// The keeper is gone or does not answer as it should.
    Keeper = -4111,
    /// A plugin refused or failed.
    Plugin = -4112,
    /// A callback of the host asked to stop.
    Callback = -4113,
    /// A defect in Locule.
    Bug = -4114,
}

impl Category {
    /// All categories.
    pub const ALL: [Category; 18] = [
        Category::Invalid,
        Category::Spec,
        Category::NotFound,
        Category::Exists,
        Category::State,
        Category::Permission,
        Category::Unsupported,
        Category::Busy,
        Category::Timeout,
        Category::Cancelled,
        Category::Resource,
        Category::System,
        Category::Program,
        Category::Hook,
        Category::Keeper,
        Category::Plugin,
        Category::Callback,
        Category::Bug,
    ];

    /// The category's name in lower case, such as `not-found`.
    pub fn name(self) -> &'static str {
        match self {
            Category::Invalid => "invalid",
            Category::Spec => "spec",
            Category::NotFound => "not-found",
            Category::Exists => "exists",
            Category::State => "state",
            Category::Permission => "permission",
            Category::Unsupported => "unsupported",
            Category::Busy => "busy",
            Category::Timeout => "timeout",
            Category::Cancelled => "cancelled",
            Category::Resource => "resource",
            Category::System => "system",
            Category::Program => "program",
            Category::Hook => "hook",
            Category::Keeper => "keeper",
            Category::Plugin => "plugin",
            Category::Callback => "callback",
            Category::Bug => "bug",
        }
    }

    /// The category that fits an errno where nothing more is known.
    pub fn of_errno(errno: i32) -> Category {
        match errno {
            libc::EPERM | libc::EACCES | libc::EROFS => Category::Permission,
            libc::ENOENT | libc::ESRCH => Category::NotFound,
            libc::EEXIST => Category::Exists,
            libc::ENOSYS | libc::EOPNOTSUPP | libc::ENODEV => Category::Unsupported,
            libc::EBUSY => Category::Busy,
            libc::ETIMEDOUT => Category::Timeout,
            libc::ENOMEM
            | libc::ENOSPC
            | libc::EDQUOT
            | libc::EMFILE
            | libc::ENFILE
            | libc::EAGAIN
            | libc::EUSERS => Category::Resource,
            _ => Category::System,
        }
    }
}

/// Where in a container's life the failure happened. The numbers are the C ABI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Stage {
    /// Checking the arguments of a call.
    Arguments = 1,
    /// Reading and checking `config.json`.
    Validate = 2,
    /// Compiling the plan.
    Compile = 3,
    /// The state directory.
    State = 4,
    /// Cgroups and resource limits.
    Cgroup = 5,
    /// Starting the keeper or the process.
    Spawn = 6,
    /// Creating or joining namespaces, mapping ids.
    Namespaces = 7,
    /// The root filesystem and `pivot_root`.
    Rootfs = 8,
    /// Mounts, masked and read-only paths.
    Mounts = 9,
    /// Device nodes.
    Devices = 10,
    /// Hostname, sysctl and other settings of the namespaces.
    Settings = 11,
    /// User, groups, capabilities, limits, labels of the process.
    Process = 12,
    /// The terminal and standard streams.
    Stdio = 13,
    /// The seccomp filter.
    Seccomp = 14,
    /// Hooks.
    Hook = 15,
    /// Finding and executing the program.
    Exec = 16,
    /// Opening the gate.
    Start = 17,
    /// Signals, freezing, waiting.
    Control = 18,
    /// Deleting the container.
    Delete = 19,
    /// Writing a checkpoint, and restoring a container from one.
    Checkpoint = 20,
    /// Plugins: loading them, and what they say.
    Plugin = 21,
    /// Images: reading, unpacking, keeping, writing and moving them.
    Image = 22,
}

impl Stage {
    /// The stage's name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Arguments => "arguments",
            Stage::Validate => "validate",
            Stage::Compile => "compile",
            Stage::State => "state",
            Stage::Cgroup => "cgroup",
            Stage::Spawn => "spawn",
            Stage::Namespaces => "namespaces",
            Stage::Rootfs => "rootfs",
            Stage::Mounts => "mounts",
            Stage::Devices => "devices",
            Stage::Settings => "settings",
            Stage::Process => "process",
            Stage::Stdio => "stdio",
            Stage::Seccomp => "seccomp",
            Stage::Hook => "hook",
            Stage::Exec => "exec",
            Stage::Start => "start",
            Stage::Control => "control",
            Stage::Delete => "delete",
            Stage::Checkpoint => "checkpoint",
            Stage::Plugin => "plugin",
            Stage::Image => "image",
        }
    }
}

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure.
#[derive(Debug, Clone)]
pub struct Error(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    category: Category,
    stage: Stage,
    errno: Option<i32>,
    pointer: Option<String>,
    container_id: Option<String>,
    step: Option<String>,
    messages: Vec<String>,
    hint: Option<String>,
}

impl Error {
    /// A failure with a message that begins in lower case and names what it is about.
    pub fn new(category: Category, stage: Stage, message: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            category,
            stage,
            errno: None,
            pointer: None,
            container_id: None,
            step: None,
            messages: vec![message.into()],
            hint: None,
        }))
    }

    /// A failed system call: the category follows from the errno.
    pub fn os(stage: Stage, errno: i32, message: impl Into<String>) -> Self {
        let mut error = Error::new(Category::of_errno(errno), stage, message);
        error.0.errno = Some(errno);
        error.0.hint = general_hint(errno).map(str::to_owned);
        error
    }

    /// A failed operation of the standard library.
    pub fn io(stage: Stage, source: &io::Error, message: impl Into<String>) -> Self {
        match source.raw_os_error() {
            Some(errno) => Error::os(stage, errno, message),
            None => Error::new(Category::System, stage, message).context_below(source.to_string()),
        }
    }

    /// Puts a wider message in front: `create "x"` before `mount "/proc"`.
    pub fn context(mut self, message: impl Into<String>) -> Self {
        self.0.messages.insert(0, message.into());
        self
    }

    fn context_below(mut self, message: String) -> Self {
        self.0.messages.push(message);
        self
    }

    /// Names the place in `config.json`.
    pub fn at(mut self, pointer: impl Into<String>) -> Self {
        self.0.pointer = Some(pointer.into());
        self
    }

    /// Adds the errno, leaving the category as it is.
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.0.errno = Some(errno);
        self
    }

    /// Replaces the category.
    pub fn with_category(mut self, category: Category) -> Self {
        self.0.category = category;
        self
    }

    /// Names the step of the plan that failed.
    pub fn in_step(mut self, step: impl Into<String>) -> Self {
        self.0.step = Some(step.into());
        self
    }

    /// Names the container, unless it is named already.
    pub fn of_container(mut self, id: &str) -> Self {
        self.0.container_id.get_or_insert_with(|| id.to_owned());
        self
    }

    /// Says what the reader can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The kind of failure.
    pub fn category(&self) -> Category {
        self.0.category
    }

    /// Where in the container's life it happened.
    pub fn stage(&self) -> Stage {
        self.0.stage
    }

    /// The errno, if a system call failed.
    pub fn errno(&self) -> Option<i32> {
        self.0.errno
    }

    /// The JSON pointer into `config.json`, if one field is to blame.
    pub fn pointer(&self) -> Option<&str> {
        self.0.pointer.as_deref()
    }

    /// The container's id, where there is one.
    pub fn container_id(&self) -> Option<&str> {
        self.0.container_id.as_deref()
    }

    /// The step of the plan that failed, where it was one.
    pub fn step(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// The messages from the widest to the narrowest.
    pub fn messages(&self) -> impl Iterator<Item = &str> {
        self.0.messages.iter().map(String::as_str)
    }

    /// What the reader can do about it, where that is known.
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.messages.join(": "))?;
        // Of these the message says all: "Connection timed out" would only mislead.
        let says_all = matches!(self.0.category, Category::Timeout | Category::Cancelled);
        if let Some(errno) = self.0.errno.filter(|_| !says_all) {
            write!(f, ": {}", words(errno))?;
        }
        if let Some(pointer) = &self.0.pointer {
            write!(f, " (at {pointer})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// An errno in words: those of the C library, where nix has others. Not taken from the C
/// library itself, whose words depend on the host's locale.
pub(crate) fn words(errno: i32) -> &'static str {
    match errno {
        libc::EBADF => "Bad file descriptor",
        libc::ELOOP => "Too many levels of symbolic links",
        libc::ERANGE => "Numerical result out of range",
        _ => nix::errno::Errno::from_raw(errno).desc(),
    }
}

/// What helps whatever was being done.
fn general_hint(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EMFILE => {
            "the limit on open descriptors of a process, RLIMIT_NOFILE, is reached: that of this \
             process, or that in process.rlimits"
        }
        libc::ENOMEM => {
            "the machine's memory ran out, or what process.rlimits or the cgroup allow is too \
             little to set the container up"
        }
        libc::ENOSYS => {
            "the kernel does not have this system call, or a seccomp filter around this process \
             hides it"
        }
        libc::ENFILE => "the machine's limit on open files, /proc/sys/fs/file-max, is reached",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_goes_from_wide_to_narrow_and_ends_with_the_place() {
        let error = Error::os(Stage::Mounts, libc::ENOENT, "open the source \"/nope\"")
            .context("mount \"/data\"")
            .at("/mounts/3");
        assert_eq!(
            error.to_string(),
            "mount \"/data\": open the source \"/nope\": No such file or directory (at /mounts/3)"
        );
        assert_eq!(error.category(), Category::NotFound);
    }

    #[test]
    fn a_timeout_does_not_speak_of_connections() {
        let error = Error::new(Category::Timeout, Stage::Spawn, "the deadline passed");
        assert_eq!(error.with_errno(libc::ETIMEDOUT).to_string(), "the deadline passed");
    }

    #[test]
    fn category_numbers_are_dense_and_never_change() {
        for (index, category) in Category::ALL.into_iter().enumerate() {
            assert_eq!(category as i32, -4097 - index as i32);
        }
    }
}

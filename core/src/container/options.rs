//! What a caller can choose when it opens a runtime, creates a container or runs a process.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Cancel;
use crate::cgroup::{Manager, SubCgroup};
use crate::plugin::Plugins;

/// How a [`Runtime`](crate::Runtime) is opened. The default suits most hosts.
#[derive(Debug, Clone, Default)]
pub struct RuntimeOptions {
    /// Where containers are kept. Default: `/run/locule` for root, else
    /// `$XDG_RUNTIME_DIR/locule`, else `/tmp/locule-UID`.
    pub state_dir: Option<PathBuf>,
    /// The keeper executable. Default: the embedded one, from a sealed memory file; where the
    /// machine does not let a memory file be executed, an installed one of the same build.
    pub keeper: Option<PathBuf>,
    /// Who makes the containers' cgroups.
    pub cgroup_manager: Manager,
    /// Leave annotations alone that change what is done. With the systemd manager
    /// `org.systemd.property.NAME` sets any property of the container's unit, and whoever may
    /// write annotations could do so (CVE-2024-3154).
    pub ignore_annotations: bool,
    /// What is called at stages of the containers' lives.
    pub plugins: Plugins,
}

/// Where a container's configuration comes from.
#[derive(Debug, Clone)]
pub enum Source<'a> {
    /// A bundle: a directory with `config.json`.
    Bundle(PathBuf),
    /// The text of a `config.json`; relative paths in it are taken from `base`.
    Spec {
        /// The JSON text.
        json: &'a [u8],
        /// The directory that stands for the bundle; the current directory if `None`.
        base: Option<PathBuf>,
    },
    /// An image. Its configuration becomes the container's, and its layers, which are unpacked if
    /// they are not yet, the read-only part of the container's root.
    #[cfg(feature = "images")]
    Image {
        /// The image, in its store.
        image: &'a crate::image::Image,
        /// What is to be other than the image has it.
        overrides: Box<crate::image::Overrides>,
    },
}

impl Source<'_> {
    /// A bundle directory.
    pub fn bundle(path: impl AsRef<Path>) -> Self {
        Source::Bundle(path.as_ref().to_owned())
    }
}

/// What becomes of changes to the root filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rootfs {
    /// `root.path` itself is the root, as the specification says.
    #[default]
    Direct,
    /// `root.path` is the read-only lower layer of a private overlay; changes vanish with the
    /// container, unless [`CreateOptions::changes`] keeps them. With `/` the container sees the
    /// host's own files.
    Overlay,
}

/// Who is the parent of the container's first process, and who learns its exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Parentage {
    /// A keeper, which stays as long as the container.
    #[default]
    Keeper,
    /// The nearest subreaper (or pid 1): the keeper leaves once the container is created.
    Orphan,
    /// This process: it gets SIGCHLD and may wait for it itself; the keeper leaves.
    Child,
}

/// What happens to the container when this process ends, however it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnHostExit {
    /// It is killed and everything of it is removed.
    #[default]
    Kill,
    /// It lives on, and can be opened by its id. Always so without a keeper.
    Detach,
}

/// A standard stream of a process. Ignored when the process has a terminal.
#[derive(Debug, Clone, Copy, Default)]
pub enum Stdio<'a> {
    /// `/dev/null`.
    #[default]
    Null,
    /// The stream of the same number of this process; `/dev/null` if it has none, that is, none
    /// that a program it executes would have.
    Inherit,
    /// This descriptor, which stays the caller's.
    Fd(BorrowedFd<'a>),
    /// A new pipe, whose other end is taken with [`Process::take_pipe`](crate::Process::take_pipe).
    Pipe,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}

/// How a container is created.
#[derive(Debug, Clone)]
pub struct CreateOptions<'a> {
    /// The id; one is invented if `None`. Letters, digits and `_+-.`, at most 1,024.
    pub id: Option<&'a str>,
    /// The configuration.
    pub source: Source<'a>,
    /// What becomes of changes to the root filesystem. With an image
    /// [`Overrides::overlay`](crate::image::Overrides::overlay) says it.
    pub rootfs: Rootfs,
    /// With [`Rootfs::Overlay`]: further read-only layers beneath `root.path`, the topmost first; at
    /// most 499. They are layers as overlayfs has them, where a character device 0, 0 hides what has
    /// its name further down.
    pub lower: &'a [PathBuf],
    /// With [`Rootfs::Overlay`]: a directory that takes the container's changes, in its `upper`, and
    /// keeps them when the container is deleted; a container that is created with it again finds
    /// them. Made if missing, as the container's root's own. It has to be on a filesystem that can
    /// take an overlay's changes, which an overlay cannot, and is for one container at a time: what
    /// two see that share it is undefined. `work` beside `upper` is overlayfs's own.
    pub changes: Option<&'a Path>,
    /// Standard input, output and error.
    pub stdio: [Stdio<'a>; 3],
    /// The parent of the first process.
    pub parentage: Parentage,
    /// What happens when this process ends.
    pub on_host_exit: OnHostExit,
    /// A terminal passes line ends on as the process writes them, without a carriage return before
    /// them (`ONLCR`): for who shows the output on a terminal that adds its own.
    pub raw_output: bool,
    /// Descriptors to pass on, to become 3, 4, ... in the program.
    pub pass_fds: &'a [BorrowedFd<'a>],
    /// A connected `AF_UNIX` socket over which the listener of the seccomp filter goes to the
    /// caller, instead of to `listenerPath`: as soon as the filter is installed, in one message
    /// with the *container process state* (runtime-spec, config-linux.md), for a profile with
    /// `SCMP_ACT_NOTIFY`. Its other end has to be served while this call and, for the first
    /// process, the start block: what they wait for may be the answer to a notification.
    pub seccomp_listener: Option<BorrowedFd<'a>>,
    /// How long creation may take. Default: 60 seconds.
    pub timeout: Option<Duration>,
    /// Stops the call.
    pub cancel: Option<&'a Cancel>,
}

impl<'a> CreateOptions<'a> {
    /// The defaults for this configuration.
    pub fn new(source: Source<'a>) -> Self {
        CreateOptions {
            id: None,
            source,
            rootfs: Rootfs::Direct,
            lower: &[],
            changes: None,
            stdio: [Stdio::Null; 3],
            parentage: Parentage::Keeper,
            on_host_exit: OnHostExit::Kill,
            raw_output: false,
            pass_fds: &[],
            seccomp_listener: None,
            timeout: None,
            cancel: None,
        }
    }
}

/// How another process is run in a container.
#[derive(Debug, Clone)]
pub struct ExecOptions<'a> {
    /// JSON of a `process` object as in `config.json`. Only `args` is required: `env`,
    /// `cwd`, `user`, `capabilities`, limits and the rest default to the container's own.
    pub process: &'a [u8],
    /// Standard input, output and error.
    pub stdio: [Stdio<'a>; 3],
    /// A terminal passes line ends on as the process writes them, without a carriage return before
    /// them (`ONLCR`): for who shows the output on a terminal that adds its own.
    pub raw_output: bool,
    /// Descriptors to pass on, to become 3, 4, ... in the program.
    pub pass_fds: &'a [BorrowedFd<'a>],
    /// A connected `AF_UNIX` socket over which the listener of the seccomp filter goes to the
    /// caller, instead of to `listenerPath`: as soon as the filter is installed, in one message
    /// with the *container process state* (runtime-spec, config-linux.md), for a profile with
    /// `SCMP_ACT_NOTIFY`. Its other end has to be served while this call blocks: what it waits for
    /// may be the answer to a notification.
    pub seccomp_listener: Option<BorrowedFd<'a>>,
    /// The parent of the process: the container's keeper, or one of its own where the container has
    /// none, and then it ends with the last handle to it; or, as an orphan, the nearest subreaper,
    /// which learns its exit status. It cannot be the caller's child.
    pub parentage: Parentage,
    /// Where to run below the container's cgroup; later ones count more.
    pub cgroups: &'a [SubCgroup],
    /// Do not refuse a paused container: the process begins when it is resumed, for which this
    /// call waits.
    pub ignore_paused: bool,
    /// How long the start may take. Default: 60 seconds.
    pub timeout: Option<Duration>,
    /// Stops the call.
    pub cancel: Option<&'a Cancel>,
}

impl<'a> ExecOptions<'a> {
    /// The defaults for this process document.
    pub fn new(process: &'a [u8]) -> Self {
        ExecOptions {
            process,
            stdio: [Stdio::Null; 3],
            raw_output: false,
            pass_fds: &[],
            seccomp_listener: None,
            parentage: Parentage::Keeper,
            cgroups: &[],
            ignore_paused: false,
            timeout: None,
            cancel: None,
        }
    }
}

//! What a caller can choose when it writes a checkpoint or restores a container from one.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::super::{Cancel, Source, Stdio};

/// What both need to know.
#[derive(Debug, Clone)]
pub struct CriuOptions<'a> {
    /// The directory with the images. [`Container::checkpoint`](crate::Container::checkpoint)
    /// makes it if it is missing.
    pub image_dir: PathBuf,
    /// Where CRIU works and puts its log; made if it is missing. Default: the directory with the
    /// images.
    pub work_dir: Option<PathBuf>,
    /// Save and restore open TCP connections.
    pub tcp_established: bool,
    /// There may be connected unix sockets whose other end is outside of the container.
    pub external_unix_sockets: bool,
    /// There may be sessions and terminals whose leader is outside of the container.
    pub shell_job: bool,
    /// Save and restore file locks.
    pub file_locks: bool,
    /// Hand pages over only when they are touched (userfaultfd).
    pub lazy_pages: bool,
    /// Free the memory images of what is in a later one, or has been restored.
    pub auto_dedup: bool,
    /// How CRIU deals with the container's cgroups.
    pub manage_cgroups: ManageCgroups,
    /// Leave out what is in the container's network namespace.
    pub empty_network: bool,
    /// What keeps packets out in between. Default: CRIU's.
    pub network_lock: Option<NetworkLock>,
    /// How long it may take. Default: as long as it takes.
    pub timeout: Option<Duration>,
    /// Stops the call.
    pub cancel: Option<&'a Cancel>,
}

impl CriuOptions<'_> {
    /// The defaults for images in this directory.
    pub fn new(image_dir: impl Into<PathBuf>) -> Self {
        CriuOptions {
            image_dir: image_dir.into(),
            work_dir: None,
            tcp_established: false,
            external_unix_sockets: false,
            shell_job: false,
            file_locks: false,
            lazy_pages: false,
            auto_dedup: false,
            manage_cgroups: ManageCgroups::Default,
            empty_network: false,
            network_lock: None,
            timeout: None,
            cancel: None,
        }
    }
}

/// How CRIU deals with cgroups. The container's own are made by the runtime in any case; what is
/// left are those that the container has made below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ManageCgroups {
    /// As CRIU does unless it is told, with cgroups of version 1 alone; else `Ignore`, because it
    /// would change the options of the host's cgroup mount.
    #[default]
    Default,
    /// Leave them alone.
    Ignore,
    /// Restore those that are missing, and their values.
    Soft,
    /// Restore all, and their values.
    Full,
    /// Restore all; none may be there.
    Strict,
}

/// What keeps packets out while a container with connections is not there to take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLock {
    /// `iptables-restore`.
    Iptables,
    /// libnftables.
    Nftables,
    /// Nothing.
    Skip,
}

/// How a checkpoint is written.
#[derive(Debug, Clone)]
pub struct CheckpointOptions<'a> {
    /// What both directions need to know.
    pub criu: CriuOptions<'a>,
    /// Images of an earlier pre-dump, relative to the directory with these: what has not changed
    /// since is not written again.
    pub parent: Option<PathBuf>,
    /// Write memory only, and let the container run: the real one is quicker then.
    pub pre_dump: bool,
    /// Let the container run on.
    pub leave_running: bool,
    /// Leave out connections that are being made.
    pub tcp_skip_in_flight: bool,
    /// Close open TCP connections.
    pub tcp_close: bool,
    /// Files that have been removed, but are open, may get a name for it.
    pub link_remap: bool,
    /// A page server for the memory: address and port.
    pub page_server: Option<(String, u16)>,
    /// With `lazy_pages`: gets one byte, 0, when pages can be asked for.
    pub status: Option<BorrowedFd<'a>>,
}

impl CheckpointOptions<'_> {
    /// The defaults for images in this directory.
    pub fn new(image_dir: impl Into<PathBuf>) -> Self {
        CheckpointOptions {
            criu: CriuOptions::new(image_dir),
            parent: None,
            pre_dump: false,
            leave_running: false,
            tcp_skip_in_flight: false,
            tcp_close: false,
            link_remap: false,
            page_server: None,
            status: None,
        }
    }
}

/// How a container is restored. Its keeper is none, and the parent of its first process the nearest
/// subreaper (or pid 1): so it outlives this process.
#[derive(Debug, Clone)]
pub struct RestoreOptions<'a> {
    /// The id. Free, and not necessarily the one it had.
    pub id: &'a str,
    /// The configuration that the container was created with; mounts may come from elsewhere.
    pub source: Source<'a>,
    /// What both directions need to know.
    pub criu: CriuOptions<'a>,
    /// What takes the place of the pipes that standard input, output and error were. A terminal is
    /// restored as one, and its master is the [`Process`](crate::Process)'s.
    pub stdio: [Stdio<'a>; 3],
    /// Close what were open TCP connections.
    pub tcp_close: bool,
    /// Another profile of a Linux security module: `apparmor:NAME` or `selinux:LABEL`.
    pub lsm_profile: Option<&'a str>,
    /// Another SELinux context of the mounts.
    pub lsm_mount_context: Option<&'a str>,
}

impl<'a> RestoreOptions<'a> {
    /// The defaults for these images.
    pub fn new(id: &'a str, source: Source<'a>, image_dir: impl Into<PathBuf>) -> Self {
        RestoreOptions {
            id,
            source,
            criu: CriuOptions::new(image_dir),
            stdio: [Stdio::Null; 3],
            tcp_close: false,
            lsm_profile: None,
            lsm_mount_context: None,
        }
    }
}

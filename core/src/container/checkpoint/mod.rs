//! Checkpoints: a container's processes as files, and back, by CRIU (criu.org).
//!
//! CRIU is a program. It is started by a keeper, as everything is, and spoken to over a socket; so
//! the host has neither a child nor a mount of it.

mod criu;
mod directories;
mod dump;
mod messages;
mod mounts;
mod namespaces;
mod options;
mod restore;
mod superblock;

pub use options::{CheckpointOptions, CriuOptions, ManageCgroups, NetworkLock, RestoreOptions};
pub(super) use restore::restore;

use directories::Directories;
use messages::{CgroupMode, LockMethod, Options};

use super::Runtime;
use crate::cgroup::Location;
use crate::spec::oci;
use crate::{Category, Error, Result, Stage};

/// The annotation that names a configuration file for CRIU. It can make CRIU run programs, so
/// whoever may write it can.
pub(super) const ANNOTATION: &str = "org.criu.config";
/// The file among the images that says what standard input, output and error were.
const DESCRIPTORS: &str = "descriptors.json";
/// Errors, warnings and what was done.
const LOG_LEVEL: i32 = 4;

fn need_root(runtime: &Runtime) -> Result<()> {
    if !runtime.0.facts.is_rootless() {
        return Ok(());
    }
    let message = "checkpoints need root: CRIU cannot look into processes of a user namespace from \
                   within";
    Err(Error::new(Category::Permission, Stage::Checkpoint, message).with_errno(libc::EPERM))
}

/// What CRIU is told in both directions.
fn common(
    runtime: &Runtime,
    options: &CriuOptions<'_>,
    directories: &Directories,
    spec: &oci::Spec,
    location: &Location,
) -> Options {
    let mode = match options.manage_cgroups {
        // To look at cgroups of version 2 it mounts them, without the options of the host's mount,
        // which loses them, `nsdelegate` among them.
        ManageCgroups::Default if location.unified().is_some() => CgroupMode::Ignore,
        ManageCgroups::Default => CgroupMode::Default,
        ManageCgroups::Ignore => CgroupMode::Ignore,
        ManageCgroups::Soft => CgroupMode::Soft,
        ManageCgroups::Full => CgroupMode::Full,
        ManageCgroups::Strict => CgroupMode::Strict,
    };
    let lock = options.network_lock.map(|method| match method {
        NetworkLock::Iptables => LockMethod::Iptables,
        NetworkLock::Nftables => LockMethod::Nftables,
        NetworkLock::Skip => LockMethod::Skip,
    });
    let (images_dir_fd, work_dir_fd) = directories.numbers();
    let log = directories.log().file_name().unwrap_or_default();
    Options {
        images_dir_fd,
        work_dir_fd,
        log_file: Some(log.to_string_lossy().into_owned()),
        log_level: Some(LOG_LEVEL),
        notify_scripts: Some(true),
        ext_unix_sk: Some(options.external_unix_sockets),
        tcp_established: Some(options.tcp_established),
        shell_job: Some(options.shell_job),
        file_locks: Some(options.file_locks),
        lazy_pages: Some(options.lazy_pages),
        auto_dedup: Some(options.auto_dedup),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(mode as i32),
        orphan_pts_master: Some(true),
        empty_ns: options.empty_network.then_some(libc::CLONE_NEWNET as u32),
        network_lock: lock.map(|method| method as i32),
        config_file: configuration_file(runtime, spec),
        ..Options::default()
    }
}

/// The file that the container's annotation names (none if that is empty), or the administrator's.
fn configuration_file(runtime: &Runtime, spec: &oci::Spec) -> Option<String> {
    let annotations = spec.annotations().as_ref().filter(|_| runtime.0.follow_annotations);
    match annotations.and_then(|annotations| annotations.get(ANNOTATION)) {
        Some(file) => Some(file.clone()).filter(|file| !file.is_empty()),
        None => criu::default_configuration(),
    }
}

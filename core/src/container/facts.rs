//! What the compiler must know about this machine and this process.

use std::fs;
#[cfg(feature = "images")]
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::cgroup::{Hierarchies, Manager, Whose};
use crate::compile::{HostFacts, IdMappers, RootEntry};
use crate::{Error, Result, Stage};

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

impl HostFacts {
    /// Looks at this process and this machine. Changes nothing.
    pub fn gather(manager: Manager) -> Result<HostFacts> {
        // SAFETY: these calls cannot fail.
        let (euid, egid) = unsafe { (libc::geteuid(), libc::getegid()) };
        let capabilities = effective_capabilities()?;
        let privileged = capabilities & (1 << CAP_SYS_ADMIN) != 0;
        let last_capability = fs::read_to_string("/proc/sys/kernel/cap_last_cap")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(40); // CAP_CHECKPOINT_RESTORE, the last one of Linux 5.10
        let in_user_namespace = in_user_namespace();
        let setgroups = fs::read_to_string("/proc/self/setgroups").unwrap_or_default();
        Ok(HostFacts {
            euid,
            egid,
            privileged,
            network_admin: capabilities & (1 << CAP_NET_ADMIN) != 0,
            in_user_namespace,
            setgroups_denied: privileged && setgroups.trim() == "deny",
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            last_capability,
            id_mappers: id_mappers(),
            root_entries: root_entries(),
            cgroups: match manager {
                Manager::None => Hierarchies::none(),
                _ => Hierarchies::discover()?,
            },
        })
    }
}

/// The lines of `/proc/self/uid_map`, each with its three numbers.
fn uid_map() -> Vec<Vec<u32>> {
    let text = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let numbers = |line: &str| line.split_whitespace().flat_map(str::parse).collect();
    text.lines().map(numbers).collect()
}

/// The machine's own maps every id to itself.
pub(crate) fn in_user_namespace() -> bool {
    let map = uid_map();
    !map.is_empty() && map != [[0, 0, u32::MAX]]
}

/// Whether a container can have an overlay. Nothing is mounted to find out; the kernel may load its module, as it
/// would then.
#[cfg(feature = "images")]
pub(crate) fn has_overlay(user_namespace: bool) -> bool {
    let release = nix::sys::utsname::uname();
    let release = release.map(|names| names.release().to_string_lossy().into_owned());
    let old = release.is_ok_and(|release| is_before((5, 11), &release));
    if old && (user_namespace || in_user_namespace()) {
        return false;
    }
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    // SAFETY: the name is a C string.
    let context =
        unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), FSOPEN_CLOEXEC) as i32 };
    if context < 0 {
        // Without privilege nobody may ask.
        return std::io::Error::last_os_error().raw_os_error() != Some(libc::ENODEV);
    }
    // SAFETY: it was opened just now.
    drop(unsafe { OwnedFd::from_raw_fd(context) });
    true
}

/// Whether this is the release of a kernel before that version.
#[cfg(feature = "images")]
fn is_before(version: (u32, u32), release: &str) -> bool {
    let mut numbers = release.split(|char: char| !char.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < version,
        _ => false,
    }
}

/// The systemd for this caller's containers: the machine's for whoever could be root there, also
/// in a container with a systemd of its own; else the user's.
pub(super) fn whose_systemd(facts: &HostFacts) -> Whose {
    let system = || fs::metadata("/run/systemd/private").is_ok_and(|socket| socket.uid() == 0);
    match facts.euid == 0 && (!facts.in_user_namespace || system()) {
        true => Whose::System,
        false => Whose::User,
    }
}

/// User and group of a caller that needs a user namespace for its containers, for
/// [`Template::rootless`](crate::spec::Template::rootless): an ordinary user, or root of a user
/// namespace that has no other id. `None` for root.
pub fn rootless_ids() -> Option<(u32, u32)> {
    // SAFETY: these two read no memory and cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let alone = matches!(uid_map().as_slice(), [line] if line.get(2) == Some(&1));
    (uid != 0 || alone).then_some((uid, gid))
}

/// The calling thread's effective capabilities.
pub(super) fn effective_capabilities() -> Result<u64> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let mut header = Header { version: 0x2008_0522, pid: 0 };
    let mut sets = [[0u32; 3]; 2]; // effective, permitted, inheritable
    // SAFETY: both structures have the layout that version 3 of the call expects.
    let rc = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut sets) };
    if rc != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Error::io(Stage::Arguments, &error, "capget"));
    }
    Ok(u64::from(sets[0][0]) | u64::from(sets[1][0]) << 32)
}

pub(crate) fn id_mappers() -> Option<IdMappers> {
    let find = |name: &str| {
        let candidates = ["/usr/bin", "/bin", "/usr/local/bin", "/run/wrappers/bin"];
        candidates.into_iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
    };
    Some(IdMappers { newuidmap: find("newuidmap")?, newgidmap: find("newgidmap")? })
}

fn root_entries() -> Vec<RootEntry> {
    let mut entries = Vec::new();
    for entry in fs::read_dir("/").into_iter().flatten().flatten() {
        let (Ok(kind), Ok(name)) = (entry.file_type(), entry.file_name().into_string()) else {
            continue;
        };
        if kind.is_dir() {
            entries.push(RootEntry { name, link: None });
        } else if kind.is_symlink() {
            entries.push(RootEntry { name, link: fs::read_link(entry.path()).ok() });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

#[cfg(all(test, feature = "images"))]
mod tests {
    use super::*;

    #[test]
    fn the_release_of_a_kernel_says_its_version() {
        for old in ["5.10.0-35-cloud-amd64", "5.10", "5.9.1", "4.18.0-553.el8_10.x86_64"] {
            assert!(is_before((5, 11), old), "{old}");
        }
        for new in ["5.11", "5.11.0-rc1", "6.1.0-18-amd64", "10.0.1", "", "unknown", "5"] {
            assert!(!is_before((5, 11), new), "{new}");
        }
    }
}

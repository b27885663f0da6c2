//! Spec and facts about the host in, plan out: pure, without privilege and system calls.
//!
//! The compiler holds all policy: which steps there are, in which order, by whom. The keeper
//! holds the mechanism. [`container`] compiles the creation of a container, [`exec`] another
//! process in it; [`process`] is what both share, [`filesystem`] the mounts, [`hooks`] the hooks.

mod container;
mod criu;
mod exec;
mod filesystem;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod hooks;
mod interfaces;
mod listener;
mod print;
mod process;
#[cfg(test)]
mod tests;

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locule_plan::{Builder, Operation, OwnedNumbers, Stream};

pub(crate) use container::{
    ContainerInput, cgroup_owner, compile_container, denies_setgroups, root_ids,
};
pub(crate) use criu::{CriuInput, RestoreInput, bind_source, compile_criu};
pub(crate) use exec::{ExecInput, compile_exec};
pub(crate) use filesystem::{absolute, bound_cgroups};
pub(crate) use hooks::{About, compile_before_restored, compile_poststart, compile_poststop};
pub(crate) use process::Descriptors;

use crate::cgroup::Hierarchies;
use crate::plugin::Change;
use crate::seccomp;
use crate::spec::{oci, vocabulary};
use crate::{Category, Error, Result, Stage};

/// What the compiler has to know about the machine and the caller.
#[derive(Debug, Clone)]
pub struct HostFacts {
    /// Effective user id.
    pub euid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Whether the caller has `CAP_SYS_ADMIN` in its user namespace.
    pub privileged: bool,
    /// Whether the caller has `CAP_NET_ADMIN` in its user namespace.
    pub network_admin: bool,
    /// Whether this is a user namespace below the machine's own: what is privileged here is
    /// not there, where the cgroups and the mounts come from.
    pub in_user_namespace: bool,
    /// Whether no process here may change its groups, nor in user namespaces below.
    pub setgroups_denied: bool,
    /// Whether SELinux is at work, so that labels mean something.
    pub selinux: bool,
    /// The kernel's last capability.
    pub last_capability: u32,
    /// The setuid helpers for id maps, where both are installed.
    pub id_mappers: Option<IdMappers>,
    /// What is in the host's `/`.
    pub root_entries: Vec<RootEntry>,
    /// The cgroup hierarchies.
    pub cgroups: Hierarchies,
}

impl HostFacts {
    /// Whether the caller is an ordinary user, or root of a user namespace only.
    pub(crate) fn is_rootless(&self) -> bool {
        !self.privileged || self.in_user_namespace
    }
}

/// `newuidmap` and `newgidmap`.
#[derive(Debug, Clone)]
pub struct IdMappers {
    /// Path of `newuidmap`.
    pub newuidmap: PathBuf,
    /// Path of `newgidmap`.
    pub newgidmap: PathBuf,
}

/// An entry of the host's `/`.
#[derive(Debug, Clone)]
pub struct RootEntry {
    /// Its name.
    pub name: String,
    /// Its target, if it is a symbolic link; else it is a directory.
    pub link: Option<PathBuf>,
}

/// A descriptor that must go with a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Standard stream of this number.
    Stdio(usize),
    /// The caller's extra descriptor of this index.
    Pass(usize),
    /// The namespace file at this path, which must be of this kind.
    Namespace { path: PathBuf, kind: u64, pointer: String },
    /// What [`crate::cgroup::Cgroup::entries`] has at this index.
    CgroupEntry(usize),
    /// The `tasks` file of this index in [`crate::resctrl::Group::tasks`].
    ResctrlTasks(usize),
    /// A pidfd of the container's first process.
    Init,
    /// The socket over which the caller wants the listener of the seccomp filter.
    Listener,
}

/// What happens when a container or a process starts, as data: an encoded plan and the
/// descriptors that belong to it.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) bytes: Vec<u8>,
    pub(crate) slots: Vec<Slot>,
    /// What plugins have changed in the configuration that it comes from.
    pub(crate) changes: Vec<Change>,
}

/// Compiles a seccomp profile; the compiler's only callback, so that programs are cached.
pub(crate) type SeccompCompiler<'a> =
    &'a dyn Fn(&oci::LinuxSeccomp) -> Result<Arc<seccomp::Program>>;

/// A plan in the making.
#[derive(Default)]
struct Writer {
    builder: Builder,
    slots: Vec<Slot>,
}

impl Writer {
    fn push(&mut self, stream: Stream, pointer: &str, operation: &Operation<'_>) {
        self.builder.push(stream, pointer, operation);
    }

    /// A step of the new process itself.
    fn child(&mut self, pointer: &str, operation: &Operation<'_>) {
        self.push(Stream::Child, pointer, operation);
    }

    fn slot(&mut self, slot: Slot) -> u32 {
        let index = self.slots.iter().position(|known| *known == slot).unwrap_or_else(|| {
            self.slots.push(slot);
            self.slots.len() - 1
        });
        index as u32
    }

    fn finish(self) -> Plan {
        let bytes = self.builder.finish(self.slots.len() as u32);
        Plan { bytes, slots: self.slots, changes: Vec::new() }
    }
}

/// Text of the configuration as the kernel takes it.
fn c_string(text: impl Into<Vec<u8>>, pointer: &str) -> Result<CString> {
    CString::new(text).map_err(|_| {
        Error::new(Category::Spec, Stage::Compile, "a text contains a NUL byte").at(pointer)
    })
}

fn c_path(path: &Path, pointer: &str) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    c_string(path.as_os_str().as_bytes(), pointer)
}

/// A list such as `0-3,7`, which has been validated, as a bit mask.
fn mask_of(list: &str) -> OwnedNumbers {
    let mut mask = Vec::new();
    for number in vocabulary::numbers_of(list).into_iter().flatten().flatten() {
        let (word, bit) = (number as usize / 32, number % 32);
        mask.resize(mask.len().max(word + 1), 0);
        mask[word] |= 1 << bit;
    }
    mask.into_iter().collect()
}

/// A field that the specification knows and this version does not carry out. Ignoring it
/// would run the container with less than it was promised.
fn unsupported(pointer: &str, what: &str) -> Error {
    Error::new(Category::Unsupported, Stage::Compile, format!("{what} is not supported"))
        .at(pointer)
}

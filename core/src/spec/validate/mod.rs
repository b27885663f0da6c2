//! The rules of the specification that types cannot express and that need no machine to check.
//!
//! One file for each part of `config.json`. A rule refuses with the pointer of the field and a
//! message that names the field and the value.

mod linux;
mod mounts;
mod process;
mod resources;
mod seccomp;

use std::path::Path;

use super::document::escape;
use super::oci::{Hook, LinuxNamespace, LinuxNamespaceType, Process, Spec};
use crate::error::{Category, Error, Result, Stage};

pub use resources::validate_resources;

/// Checks a spec that [`parse`](super::parse) has read. Pure; does not block.
///
/// What depends on the machine is not checked here: whether a path exists, whether the kernel
/// knows a feature, whether a joined namespace is another one than the host's.
pub fn validate(spec: &Spec) -> Result<()> {
    let Some(root) = spec.root() else {
        return Err(refuse("/root", "root is missing"));
    };
    if root.path().as_os_str().is_empty() {
        return Err(refuse("/root/path", "root.path is missing or empty"));
    }
    if let Some(process) = spec.process() {
        process::check(process, "/process")?;
    }
    let namespaces = Namespaces(namespaces_of(spec));
    if let Some(hostname) = spec.hostname() {
        check_host_name(hostname, "hostname", namespaces)?;
    }
    if let Some(domainname) = spec.domainname() {
        check_host_name(domainname, "domainname", namespaces)?;
    }
    check_annotations(spec)?;
    check_deadline_is_free(spec)?;
    mounts::check(spec, namespaces)?;
    check_hooks(spec)?;
    if let Some(linux) = spec.linux() {
        linux::check(spec, linux, namespaces)?;
    }
    match spec.process() {
        Some(process) => process::check_mapped(process, spec, "/process"),
        None => Ok(()),
    }
}

/// Checks a process document for `exec`. Pointers begin at the object.
pub fn validate_process(process: &Process) -> Result<()> {
    process::check(process, "")
}

/// As [`validate_process`], for a process in a container of this spec.
pub fn validate_process_in(process: &Process, spec: &Spec) -> Result<()> {
    process::check(process, "")?;
    process::check_mapped(process, spec, "")
}

/// The namespaces a spec lists.
#[derive(Clone, Copy)]
struct Namespaces<'a>(&'a [LinuxNamespace]);

impl Namespaces<'_> {
    /// Created or joined: not the host's as far as the document tells.
    fn has(self, kind: LinuxNamespaceType) -> bool {
        self.0.iter().any(|namespace| namespace.typ() == kind)
    }

    fn creates(self, kind: LinuxNamespaceType) -> bool {
        self.0.iter().any(|namespace| namespace.typ() == kind && namespace.path().is_none())
    }
}

fn namespaces_of(spec: &Spec) -> &[LinuxNamespace] {
    spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default()
}

fn refuse(pointer: impl Into<String>, message: impl Into<String>) -> Error {
    Error::new(Category::Spec, Stage::Validate, message).at(pointer)
}

fn is_absolute(path: &Path) -> bool {
    path.has_root()
}

/// The kernel's limit for both names is 64 bytes.
fn check_host_name(value: &str, field: &str, namespaces: Namespaces) -> Result<()> {
    let pointer = format!("/{field}");
    if !namespaces.has(LinuxNamespaceType::Uts) {
        return Err(refuse(
            pointer,
            format!("{field} {value:?} would change the host's: it needs a uts namespace"),
        ));
    }
    if value.len() > 64 {
        return Err(refuse(pointer, format!("{field} {value:?} is longer than 64 bytes")));
    }
    Ok(())
}

/// The kernel gives deadlines to processes only that may run on every processor.
fn check_deadline_is_free(spec: &Spec) -> Result<()> {
    let scheduler = spec.process().as_ref().and_then(|process| process.scheduler().as_ref());
    let deadline = scheduler.is_some_and(|scheduler| {
        *scheduler.policy() == oci_spec::runtime::LinuxSchedulerPolicy::SchedDeadline
    });
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let cpu = resources.and_then(|resources| resources.cpu().as_ref());
    if deadline && cpu.is_some_and(|cpu| cpu.cpus().is_some()) {
        return Err(refuse(
            "/process/scheduler",
            "process scheduler can't be used together with AllowedCPUs: \
             SCHED_DEADLINE needs every processor, and resources.cpu.cpus names some",
        ));
    }
    Ok(())
}

fn check_annotations(spec: &Spec) -> Result<()> {
    let empty_key = spec.annotations().as_ref().is_some_and(|all| all.contains_key(""));
    if empty_key {
        return Err(refuse("/annotations/", "an annotation has an empty key"));
    }
    Ok(())
}

fn check_hooks(spec: &Spec) -> Result<()> {
    let Some(hooks) = spec.hooks() else { return Ok(()) };
    #[allow(deprecated)] // prestart is deprecated, and Docker still uses it
    let prestart = hooks.prestart();
    for (kind, list) in [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ] {
        for (index, hook) in list.iter().flatten().enumerate() {
            check_hook(hook, &format!("/hooks/{kind}/{index}"))?;
        }
    }
    Ok(())
}

fn check_hook(hook: &Hook, at: &str) -> Result<()> {
    if !is_absolute(hook.path()) {
        return Err(refuse(
            format!("{at}/path"),
            format!("the hook's path {:?} is not absolute", hook.path()),
        ));
    }
    if let Some(seconds) = hook.timeout().filter(|seconds| *seconds <= 0) {
        return Err(refuse(
            format!("{at}/timeout"),
            format!("the hook's timeout {seconds} is not greater than zero"),
        ));
    }
    process::check_environment(hook.env().iter().flatten(), at)
}

/// The pointer of a member whose key comes from the document.
fn member(object: &str, key: &str) -> String {
    format!("{object}/{}", escape(key))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! From JSON text to typed documents, and back.

use serde_json::Value;

use super::document::Node;
use super::gaps;
use super::oci::{LinuxResources, Process, Spec};
use super::vocabulary;
use crate::error::{Category, Error, Result, Stage};

/// Reads a `config.json`. Unknown members are ignored; a member that is known and has a wrong
/// type or value is refused with its JSON pointer, and so is a key that appears twice.
///
/// `null` and absent mean the same, as does an empty string where an empty value makes no
/// sense. Unknown capability names are dropped with a warning. The rules beyond types are in
/// [`validate`](super::validate()). Pure; does not block.
pub fn parse(json: &[u8]) -> Result<Spec> {
    let mut document = object(json)?;
    check_version(document.get("ociVersion"))?;
    gaps::fill_spec(&mut document);
    document.decode().map_err(in_memory_policy)
}

/// Puts what of a memory policy is wrong in front: its words alone say little.
fn in_memory_policy(error: Error) -> Error {
    let member = error.pointer().and_then(|at| at.strip_prefix("/linux/memoryPolicy/"));
    let what = match member.and_then(|member| member.split('/').next()) {
        Some("mode") => "mode",
        Some("flags") => "flag",
        _ => return error,
    };
    error.context(format!("invalid memory policy {what}"))
}

/// Reads a complete `process` object, as engines hand it to `exec`. Pointers begin at the
/// object. `user` may be missing and is root then; `cwd` may not.
pub fn parse_process(json: &[u8]) -> Result<Process> {
    let mut document = object(json)?;
    gaps::fill_process(&mut document);
    document.decode()
}

/// An id that is left out would be root's, whoever the container's process is.
fn check_user_is_whole(user: &Node) -> Result<()> {
    let missing = ["uid", "gid"].into_iter().find(|id| user.get(id).is_none());
    // What is no object is refused in any case.
    let Some(id) = missing.filter(|_| matches!(user, Node::Object(_))) else { return Ok(()) };
    let message = format!("user.{id} is missing: a user is given as a whole, or not at all");
    Err(Error::new(Category::Spec, Stage::Validate, message).at(format!("/user/{id}")))
}

/// Reads a `process` object in which everything but `args` may be missing, and is then as in
/// `container`, the process the container was created with. The terminal is not inherited.
pub fn parse_process_over(json: &[u8], container: &Process) -> Result<Process> {
    let mut document = object(json)?;
    let has = |name: &str| document.get(name).is_some();
    let (user, env, cwd) = (has("user"), has("env"), has("cwd"));
    let (capabilities, rlimits) = (has("capabilities"), has("rlimits"));
    let whole = document.get("user").map_or(Ok(()), check_user_is_whole);
    document.insert_missing("cwd", Node::Text("/".into()));
    gaps::fill_process(&mut document);
    let mut process: Process = document.decode()?;
    whole?;

    if !user {
        process.set_user(container.user().clone());
    }
    if !env {
        process.set_env(container.env().clone());
    }
    if !cwd {
        process.set_cwd(container.cwd().clone());
    }
    if !capabilities {
        process.set_capabilities(container.capabilities().clone());
    }
    if !rlimits {
        process.set_rlimits(container.rlimits().clone());
    }
    if process.no_new_privileges().is_none() {
        process.set_no_new_privileges(container.no_new_privileges());
    }
    if process.apparmor_profile().is_none() {
        process.set_apparmor_profile(container.apparmor_profile().clone());
    }
    if process.selinux_label().is_none() {
        process.set_selinux_label(container.selinux_label().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(container.oom_score_adj());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*container.io_priority());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(container.scheduler().clone());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(container.exec_cpu_affinity().clone());
    }
    Ok(process)
}

/// Reads a `resources` object, as `update` takes it. Pointers begin at the object.
pub fn parse_resources(json: &[u8]) -> Result<LinuxResources> {
    let mut document = object(json)?;
    gaps::fill_resources(&mut document);
    document.decode()
}

/// Writes a spec as JSON that [`parse`] and other runtimes read.
///
/// # Errors
///
/// `Spec` if a path is not UTF-8, which JSON cannot carry; a spec that was parsed has none.
pub fn to_json(spec: &Spec) -> Result<Vec<u8>> {
    let process = spec.process().as_ref();
    let scheduler = process.and_then(|process| process.scheduler().as_ref());
    if scheduler.is_none_or(|scheduler| scheduler.flags().is_none()) {
        return serde_json::to_vec(spec).map_err(not_written);
    }
    let mut document = serde_json::to_value(spec).map_err(not_written)?;
    name_scheduler_flags(document.pointer_mut("/process/scheduler/flags"));
    serde_json::to_vec(&document).map_err(not_written)
}

/// A process as a document that [`parse_process`] reads.
pub(crate) fn process_to_json(process: &Process) -> Result<Value> {
    let mut document = serde_json::to_value(process).map_err(not_written)?;
    name_scheduler_flags(document.pointer_mut("/scheduler/flags"));
    Ok(document)
}

fn not_written(error: serde_json::Error) -> Error {
    Error::new(Category::Spec, Stage::Validate, format!("write the spec as JSON: {error}"))
}

/// oci-spec derives names that the specification does not have.
fn name_scheduler_flags(flags: Option<&mut Value>) {
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let renamed = vocabulary::SCHEDULER_FLAG_NAMES.iter().find(|(_, name)| flag == name);
        if let Some((of_specification, _)) = renamed {
            *flag = (*of_specification).into();
        }
    }
}

fn object(json: &[u8]) -> Result<Node<'_>> {
    match Node::read(json)? {
        node @ Node::Object(_) => Ok(node),
        _ => Err(Error::new(Category::Spec, Stage::Validate, "the document is not a JSON object")),
    }
}

/// The version must be SemVer with major 1: within a major, documents are compatible.
fn check_version(version: Option<&Node>) -> Result<()> {
    let Some(version) = version else {
        return Err(refuse("/ociVersion", "ociVersion is missing".into()));
    };
    let Some(text) = version.text() else {
        return Err(refuse("/ociVersion", "ociVersion is not a string".into()));
    };
    match major_version(text) {
        Some("1") => Ok(()),
        Some(_) => Err(refuse(
            "/ociVersion",
            format!("ociVersion {text:?} is not supported: only versions 1.x are"),
        )),
        None => {
            Err(refuse("/ociVersion", format!("ociVersion {text:?} is not a semantic version")))
        }
    }
}

/// The major number of a semantic version with three numbers and perhaps a suffix.
fn major_version(text: &str) -> Option<&str> {
    let (numbers, suffix) = match text.find(['-', '+']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let mut parts = numbers.split('.');
    let major = parts.next()?;
    let (minor, patch) = (parts.next()?, parts.next()?);
    let well_formed = parts.next().is_none()
        && [major, minor, patch].into_iter().all(is_number)
        && suffix.is_none_or(|suffix| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'+');
            !suffix.is_empty() && suffix.bytes().all(allowed)
        });
    well_formed.then_some(major)
}

fn refuse(pointer: &str, message: String) -> Error {
    Error::new(Category::Spec, Stage::Validate, message).at(pointer)
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;

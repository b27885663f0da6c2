//! Handing the listener of a seccomp filter to who answers for `SCMP_ACT_NOTIFY`.

use std::ffi::CString;

use locule_plan::{Operation, OwnedList, Stream};

use super::hooks::{About, state_around_pid};
use super::{Slot, Writer, c_path, c_string};
use crate::spec::{self, oci};
use crate::{Category, Error, Result, Stage};

/// Who gets the listener of a filter that has one, and what is said about the process.
pub(super) struct ListenerInput<'a> {
    pub container: About<'a>,
    /// The container's first process, if this is another one.
    pub init: Option<i32>,
    pub is_callers: bool,
}

pub(super) fn push(
    out: &mut Writer,
    stream: Stream,
    input: &ListenerInput<'_>,
    profile: &oci::LinuxSeccomp,
) -> Result<()> {
    let pointer = "/linux/seccomp/listenerPath";
    let path = match profile.listener_path() {
        _ if input.is_callers => CString::default(),
        Some(path) => c_path(path, pointer)?,
        None => {
            let message = "SCMP_ACT_NOTIFY needs listenerPath: nobody would answer";
            return Err(Error::new(Category::Spec, Stage::Compile, message)
                .at(pointer)
                .hint("or the caller takes the listener itself, with the option for it"));
        }
    };
    let slot = if input.is_callers { out.slot(Slot::Listener) } else { u32::MAX };
    let metadata = profile.listener_metadata().as_deref();
    let texts = state_around_pids(&input.container, metadata, input.init);
    let texts = texts.into_iter().map(|text| c_string(text, pointer));
    let state: OwnedList = texts.collect::<Result<Vec<_>>>()?.into_iter().collect();
    let operation = Operation::Listener { slot, path: &path, state: state.as_list() };
    out.push(stream, pointer, &operation);
    Ok(())
}

/// The *container process state*, cut where the pid of the process goes. A process that is not
/// the container's first one names that by its pid, `init`.
fn state_around_pids(
    container: &About<'_>,
    metadata: Option<&str>,
    init: Option<i32>,
) -> Vec<String> {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let status = if init.is_some() { "running" } else { "creating" };
    let (state, tail) = state_around_pid(container, status);
    let version = text(spec::OCI_VERSION);
    let head = format!("{{\"ociVersion\":{version},\"fds\":[\"seccompFd\"],\"pid\":");
    let metadata = metadata.map(|metadata| format!(",\"metadata\":{}", text(metadata)));
    let middle = format!("{},\"state\":{state}", metadata.unwrap_or_default());
    match init {
        Some(pid) => vec![head, format!("{middle}{pid}{tail}}}")],
        None => vec![head, middle, format!("{tail}}}")],
    }
}

//! Hooks: programs of the configuration's that are told the container's state.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::path::Path;

use locule_plan::{Operation, OwnedList, Stream};

use super::container::ContainerInput;
use super::{Plan, Writer, c_path, c_string};
use crate::Result;
use crate::spec::{self, oci};

/// What hooks, and others that are told its state, learn of a container.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub spec: &'a oci::Spec,
    pub id: &'a str,
    /// Absolute.
    pub bundle: &'a Path,
}

impl<'a> About<'a> {
    pub(super) fn of(input: &ContainerInput<'a>) -> About<'a> {
        About { spec: input.spec, id: input.id, bundle: input.bundle }
    }
}

/// The plan that runs the poststart hooks of a container that no keeper serves; `None` if there are
/// none. `pid` is the first process, as the keeper knows it that runs them.
pub(crate) fn compile_poststart(about: &About<'_>, pid: i32) -> Result<Option<Plan>> {
    let hooks = about.spec.hooks().as_ref().and_then(|hooks| hooks.poststart().as_ref());
    let Some(hooks) = any(hooks) else { return Ok(None) };
    let mut out = Writer::default();
    let (head, tail) = state_around_pid(about, "running");
    let state = (format!("{head}{pid}{tail}"), String::new());
    push_with(&mut out, Stream::Poststart, "poststart", hooks, &state, None)?;
    Ok(Some(out.finish()))
}

/// The plan that runs the hooks that are due once a restored container has its namespaces, those
/// that a creation runs in them from outside; `None` if there are none.
pub(crate) fn compile_before_restored(about: &About<'_>, pid: i32) -> Result<Option<Plan>> {
    let Some(hooks) = about.spec.hooks() else { return Ok(None) };
    #[allow(deprecated, reason = "engines still use it")]
    let lists = [("prestart", hooks.prestart()), ("createRuntime", hooks.create_runtime())];
    if lists.iter().all(|(_, list)| any(list.as_ref()).is_none()) {
        return Ok(None);
    }
    let mut out = Writer::default();
    let (head, tail) = state_around_pid(about, "creating");
    let state = (format!("{head}{pid}{tail}"), String::new());
    for (name, list) in lists {
        let hooks = any(list.as_ref()).unwrap_or_default();
        push_with(&mut out, Stream::Poststart, name, hooks, &state, None)?;
    }
    Ok(Some(out.finish()))
}

/// The plan that runs the poststop hooks; `None` if there are none.
pub(crate) fn compile_poststop(about: &About<'_>) -> Result<Option<Plan>> {
    if any(poststop(about.spec)).is_none() {
        return Ok(None);
    }
    let mut out = Writer::default();
    push_poststop(&mut out, Stream::Hooks, about)?;
    Ok(Some(out.finish()))
}

fn any(hooks: Option<&Vec<oci::Hook>>) -> Option<&[oci::Hook]> {
    hooks.map(Vec::as_slice).filter(|hooks| !hooks.is_empty())
}

fn poststop(spec: &oci::Spec) -> Option<&Vec<oci::Hook>> {
    spec.hooks().as_ref().and_then(|hooks| hooks.poststop().as_ref())
}

pub(super) fn push_poststop(out: &mut Writer, stream: Stream, about: &About<'_>) -> Result<()> {
    push(out, stream, "poststop", poststop(about.spec), about, "stopped")
}

pub(super) fn push(
    out: &mut Writer,
    stream: Stream,
    name: &str,
    hooks: Option<&Vec<oci::Hook>>,
    about: &About<'_>,
    status: &str,
) -> Result<()> {
    // Most containers have no hooks, and need no state documents for them.
    let Some(hooks) = any(hooks) else { return Ok(()) };
    push_with(out, stream, name, hooks, &state_around_pid(about, status), None)
}

/// The startContainer hooks, which without an environment of their own have the program's, `env`.
pub(super) fn push_start_container(
    out: &mut Writer,
    hooks: Option<&Vec<oci::Hook>>,
    about: &About<'_>,
    mut env: OwnedList,
) -> Result<()> {
    let Some(hooks) = any(hooks) else { return Ok(()) };
    let has_home =
        |entry: &CStr| entry.to_bytes().strip_prefix(b"HOME=").is_some_and(|home| !home.is_empty());
    if !env.as_list().iter().any(has_home) {
        env.push(c"HOME=");
    }
    let state = state_around_pid(about, "created");
    push_with(out, Stream::Start, "startContainer", hooks, &state, Some(&env))
}

fn push_with(
    out: &mut Writer,
    stream: Stream,
    name: &str,
    hooks: &[oci::Hook],
    (head, tail): &(String, String),
    default_env: Option<&OwnedList>,
) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        let pointer = format!("/hooks/{name}/{index}");
        let texts = |texts: &Option<Vec<String>>| -> Result<OwnedList> {
            let texts = texts.iter().flatten().map(|text| c_string(text.as_str(), &pointer));
            Ok(texts.collect::<Result<Vec<_>>>()?.into_iter().collect())
        };
        let path = c_path(hook.path(), &pointer)?;
        let mut args = texts(hook.args())?;
        if args.as_list().is_empty() {
            args.push(&path);
        }
        let own = texts(hook.env())?;
        let env = default_env.filter(|_| hook.env().is_none()).unwrap_or(&own);
        out.push(
            stream,
            &pointer,
            &Operation::Hook {
                path: &path,
                args: args.as_list(),
                env: env.as_list(),
                timeout: hook.timeout().map_or(0, |seconds| seconds.max(0) as u64 * 1000),
                state_head: &c_string(head.as_str(), &pointer)?,
                state_tail: &c_string(tail.as_str(), &pointer)?,
            },
        );
    }
    Ok(())
}

/// The state document, cut where the pid goes. One that has stopped has none.
pub(super) fn state_around_pid(about: &About<'_>, status: &str) -> (String, String) {
    let text = |value: &str| serde_json::Value::from(value).to_string();
    let mut head = format!(
        "{{\"ociVersion\":{},\"id\":{},\"status\":{}",
        text(spec::OCI_VERSION),
        text(about.id),
        text(status),
    );
    let mut tail = format!(",\"bundle\":{}", text(&about.bundle.to_string_lossy()));
    if let Some(annotations) = about.spec.annotations() {
        let annotations: BTreeMap<_, _> = annotations.iter().collect();
        let annotations = serde_json::to_string(&annotations).unwrap_or_default();
        tail.push_str(&format!(",\"annotations\":{annotations}"));
    }
    tail.push('}');
    if status == "stopped" {
        head.push_str(&tail);
        return (head, String::new());
    }
    head.push_str(",\"pid\":");
    (head, tail)
}

//! The state documents that go to hooks and to seccomp agents, cut where the keeper puts the pid.

use std::path::Path;

use crate::spec::{self, oci};

/// A container as such a document names it.
#[derive(Clone, Copy)]
pub(crate) struct Named<'a> {
    pub id: &'a str,
    /// Absolute.
    pub bundle: &'a Path,
    pub spec: &'a oci::Spec,
}

impl Named<'_> {
    /// The state, before and after the pid.
    pub(super) fn around_pid(&self, status: &str) -> (String, String) {
        let head = format!(
            "{{\"ociVersion\":{},\"id\":{},\"status\":{},\"pid\":",
            text(spec::OCI_VERSION),
            text(self.id),
            text(status),
        );
        let mut tail = format!(",\"bundle\":{}", text(&self.bundle.to_string_lossy()));
        if let Some(annotations) = self.spec.annotations() {
            let annotations: std::collections::BTreeMap<_, _> = annotations.iter().collect();
            let annotations = serde_json::to_string(&annotations).unwrap_or_default();
            tail.push_str(&format!(",\"annotations\":{annotations}"));
        }
        tail.push('}');
        (head, tail)
    }

    /// The *container process state* of a process with a seccomp listener, around its pid. In a
    /// container that runs, with a first process `init`, it is another process.
    pub(super) fn around_listener(&self, metadata: Option<&str>, init: Option<i32>) -> Vec<String> {
        let (state, tail) = self.around_pid(init.map_or("creating", |_| "running"));
        let head = format!(
            "{{\"ociVersion\":{},\"fds\":[\"seccompFd\"],\"pid\":",
            text(spec::OCI_VERSION)
        );
        let metadata = metadata
            .map_or_else(String::new, |metadata| format!(",\"metadata\":{}", text(metadata)));
        let middle = format!("{metadata},\"state\":{state}");
        match init {
            Some(pid) => vec![head, format!("{middle}{pid}{tail}}}")],
            None => vec![head, middle, format!("{tail}}}")],
        }
    }
}

fn text(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

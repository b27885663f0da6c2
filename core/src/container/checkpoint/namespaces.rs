//! Namespaces that a container has joined: a checkpoint leaves them out, a restore joins them again.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::criu::text_of;
use super::messages::{Inherited, JoinedNamespace};
use crate::spec::oci::{LinuxNamespaceType, Spec};
use crate::spec::vocabulary;
use crate::{Category, Error, Result, Stage};

/// Those that CRIU knows how to leave out, and their names in images; runc's, too.
const EXTERNAL: [(LinuxNamespaceType, &str, &str); 2] = [
    (LinuxNamespaceType::Network, "net", "extRootNetNS"),
    (LinuxNamespaceType::Pid, "pid", "extRootPidNS"),
];

/// What a restore does about them.
#[derive(Default)]
pub(super) struct Joining {
    pub(super) inherited: Vec<Inherited>,
    pub(super) joined: Vec<JoinedNamespace>,
    /// What `inherited` refers to, in this order, from a number on that the caller has named.
    pub(super) descriptors: Vec<OwnedFd>,
}

/// `--external` of a dump.
pub(super) fn external(spec: &Spec) -> Result<Vec<String>> {
    let mut external = Vec::new();
    for (pointer, kind, path) in joined(spec) {
        let Some((_, name, key)) = EXTERNAL.iter().find(|known| known.0 == kind) else { continue };
        let found = fs::metadata(path).map_err(|error| missing(&error, path, &pointer))?;
        external.push(format!("{name}[{}]:{key}", found.ino()));
    }
    Ok(external)
}

/// The same for a restore; CRIU gets the descriptors from number `first` on.
pub(super) fn to_join(spec: &Spec, first: i32) -> Result<Joining> {
    let mut joining = Joining::default();
    for (pointer, kind, path) in joined(spec) {
        if let Some((_, _, key)) = EXTERNAL.iter().find(|known| known.0 == kind) {
            let file = fs::File::open(path).map_err(|error| missing(&error, path, &pointer))?;
            let descriptor = first + joining.descriptors.len() as i32;
            joining.inherited.push(Inherited { key: (*key).to_owned(), descriptor });
            joining.descriptors.push(file.into());
            continue;
        }
        if kind == LinuxNamespaceType::Cgroup {
            let message = "a restored container cannot join a cgroup namespace";
            return Err(Error::new(Category::Unsupported, Stage::Checkpoint, message).at(pointer));
        }
        let name = match kind {
            LinuxNamespaceType::Mount => "mnt",
            other => vocabulary::namespace_name(other),
        };
        let joined = JoinedNamespace { kind: name.to_owned(), path: text_of(path)? };
        joining.joined.push(joined);
    }
    Ok(joining)
}

fn joined(spec: &Spec) -> impl Iterator<Item = (String, LinuxNamespaceType, &Path)> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().enumerate().filter_map(|(index, namespace)| {
        let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())?;
        Some((format!("/linux/namespaces/{index}/path"), namespace.typ(), path))
    })
}

fn missing(error: &std::io::Error, path: &Path, pointer: &str) -> Error {
    Error::io(Stage::Checkpoint, error, format!("open the namespace {path:?}")).at(pointer)
}

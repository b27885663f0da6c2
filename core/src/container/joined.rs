//! Namespaces that a configuration joins by path, and that turn out to be this process's own:
//! what it says about them would change the host. Only the machine can tell. A thread may have
//! left its process's namespaces, and the container would be started from those of the caller's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::spec::oci::{LinuxNamespaceType, Spec};
use crate::spec::vocabulary;
use crate::{Category, Error, Result, Stage};

/// Refuses what would change the host.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let kind = namespace.typ();
        let Some(path) = namespace.path().as_deref().filter(|path| is_own(kind, path)) else {
            continue;
        };
        if kind == LinuxNamespaceType::User {
            let pointer = format!("/linux/namespaces/{index}/path");
            return Err(refuse(pointer, format!("{path:?} is the user namespace of this process")));
        }
        if let Some((pointer, what)) = setting_of(spec, kind) {
            let name = vocabulary::namespace_name(kind);
            let why = format!("{what} would change the host: {path:?} is its {name} namespace");
            return Err(refuse(pointer, why));
        }
    }
    Ok(())
}

/// A field that changes something in the namespace: its pointer and its name.
fn setting_of(spec: &Spec, kind: LinuxNamespaceType) -> Option<(String, String)> {
    if kind == LinuxNamespaceType::Uts {
        for (name, value) in [("hostname", spec.hostname()), ("domainname", spec.domainname())] {
            if value.is_some() {
                return Some((format!("/{name}"), name.to_owned()));
            }
        }
    }
    let linux = spec.linux().as_ref()?;
    let devices = linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty());
    if kind == LinuxNamespaceType::Network && devices {
        return Some(("/linux/netDevices".to_owned(), "netDevices".to_owned()));
    }
    let sysctl = linux.sysctl().as_ref()?;
    let of_it = |name: &&String| {
        let path = vocabulary::sysctl_path(name);
        path.and_then(|path| vocabulary::sysctl_namespace(&path)) == Some(kind)
    };
    let name = sysctl.keys().filter(of_it).min()?;
    let pointer = format!("/linux/sysctl/{}", name.replace('~', "~0").replace('/', "~1"));
    Some((pointer, format!("sysctl {name:?}")))
}

fn is_own(kind: LinuxNamespaceType, path: &Path) -> bool {
    let file = match kind {
        LinuxNamespaceType::Mount => "mnt",
        LinuxNamespaceType::Network => "net",
        other => vocabulary::namespace_name(other),
    };
    // What cannot be looked at is told when it is opened.
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let own = identity(&Path::new("/proc/thread-self/ns").join(file));
    own.is_some() && identity(path) == own
}

fn refuse(pointer: String, message: String) -> Error {
    Error::new(Category::Spec, Stage::Validate, message).at(pointer)
}

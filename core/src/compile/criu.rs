//! The plan that runs CRIU: as `criu swrk 3`, with its socket as descriptor 3. For a restore it is
//! in the container's cgroups, and in a mount namespace of its own, in which the container's root is
//! a mount, as it wants to have it, without that the host has another one.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use locule_plan::{Operation, OwnedList, Stream, join, mount, root};

use super::container::{cgroup_entries, resctrl_entries};
use super::filesystem::absolute;
use super::process::{self, Descriptors};
use super::{Plan, Writer, c_path};
use crate::Result;
use crate::cgroup::Location;
use crate::resctrl::Group;
use crate::spec::oci;

pub(crate) struct CriuInput<'a> {
    /// Where to look for it, and for what it executes: a value of `PATH`.
    pub path: &'a Path,
    pub descriptors: Descriptors,
    pub restore: Option<RestoreInput<'a>>,
}

/// What there is to be made ready for a container that is to be restored.
pub(crate) struct RestoreInput<'a> {
    pub spec: &'a oci::Spec,
    pub bundle: &'a Path,
    pub location: &'a Location,
    pub resctrl: Option<&'a Group>,
}

pub(crate) fn compile_criu(input: &CriuInput<'_>) -> Result<Plan> {
    let mut out = Writer::default();
    let flags = if input.restore.is_some() { join::MOUNT } else { 0 };
    out.push(Stream::Launch, "", &Operation::NewNamespaces { flags });
    if let Some(restore) = &input.restore {
        cgroup_entries(&mut out, restore.location);
        resctrl_entries(&mut out, restore.resctrl);
        prepare_root(&mut out, restore)?;
    }
    process::streams(&mut out, None, "", &input.descriptors, false, false);
    let path = c_path(input.path, "")?;
    out.child("", &Operation::Program { name: c"criu", path: &path });
    let args: OwnedList = [c"criu", c"swrk", c"3"].into_iter().collect();
    let mut variable = CString::new("PATH=").unwrap_or_default().into_bytes();
    variable.extend_from_slice(path.as_bytes());
    let env: OwnedList = CString::new(variable).into_iter().collect();
    out.push(Stream::Start, "", &Operation::Exec { args: args.as_list(), env: env.as_list() });
    Ok(out.finish())
}

/// Creates what later mounts need to be mounted on, as a creation does, for images that are restored
/// on another copy of the root. It may be missing in what is bound, too, so that is bound for it.
fn prepare_root(out: &mut Writer, input: &RestoreInput<'_>) -> Result<()> {
    let flags = libc::MS_SLAVE | libc::MS_REC;
    out.child("", &Operation::Propagation { flags });
    let root = input.spec.root().as_ref().map_or(Path::new("rootfs"), |root| root.path());
    let path = c_path(&input.bundle.join(root), "/root/path")?;
    let root = Operation::Root { path: &path, kind: root::PIVOT };
    out.child("/root", &root);
    // What is on a new filesystem comes back with it.
    let mut new: Vec<PathBuf> = Vec::new();
    for (index, mount) in input.spec.mounts().iter().flatten().enumerate() {
        let pointer = format!("/mounts/{index}");
        let target = absolute(mount.destination());
        if new.iter().any(|place| target != *place && target.starts_with(place)) {
            continue;
        }
        let text = c_path(&target, &pointer)?;
        match bind_source(mount) {
            Some((source, recursive)) => {
                let source = c_path(&input.bundle.join(source), &pointer)?;
                out.child(
                    &pointer,
                    &Operation::Bind {
                        source: &source,
                        target: &text,
                        set: 0,
                        clear: 0,
                        recursive_set: 0,
                        recursive_clear: 0,
                        propagation: 0,
                        flags: if recursive { mount::RECURSIVE } else { 0 },
                    },
                );
            }
            None => {
                out.child(&pointer, &Operation::Directory { path: &text, mode: 0o755 });
                new.push(target);
            }
        }
    }
    // CRIU's root is one without these mounts, which it restores itself.
    out.child("/root", &Operation::DropRoot {});
    out.child("/root", &root);
    Ok(())
}

/// The source of a bind mount, and whether those below go with it.
pub(crate) fn bind_source(mount: &oci::Mount) -> Option<(&Path, bool)> {
    let options = mount.options().as_deref().unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option == name);
    let bound = has("bind") || has("rbind");
    let source = mount.source().as_deref().filter(|_| bound && !has("remount"))?;
    Some((source, has("rbind")))
}

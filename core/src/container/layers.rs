//! The layers of an overlaid root as the caller gives them, and the directory that keeps changes.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use locule_plan::MAX_LAYERS;

use super::{CreateOptions, Rootfs};
use crate::compile::{HostFacts, root_ids};
use crate::spec::oci;
use crate::{Category, Error, Result, Stage};

/// What the root is made of beside `root.path`, absolute.
pub(super) struct Layers {
    /// The layers beneath it, the topmost first.
    pub lower: Vec<PathBuf>,
    /// What keeps the changes.
    pub changes: Option<PathBuf>,
}

impl Layers {
    pub(super) fn of(options: &CreateOptions<'_>) -> Result<Layers> {
        let invalid = |message: String| Error::new(Category::Invalid, Stage::Arguments, message);
        if options.rootfs != Rootfs::Overlay {
            let given =
                [("lower", !options.lower.is_empty()), ("changes", options.changes.is_some())];
            if let Some((name, _)) = given.into_iter().find(|(_, given)| *given) {
                let message = format!("`{name}` is of a root that is an overlay, and this is none");
                return Err(invalid(message));
            }
        }
        if options.lower.len() >= MAX_LAYERS {
            let (given, most) = (options.lower.len(), MAX_LAYERS - 1);
            let message = format!("`lower` has {given} layers; at most {most} can be");
            return Err(invalid(message).with_errno(libc::E2BIG));
        }
        let absolute = |name: &str, path: &Path| {
            std::path::absolute(path)
                .map_err(|error| invalid(format!("`{name}` has the path {path:?}: {error}")))
        };
        let lower = options.lower.iter().map(|path| absolute("lower", path));
        Ok(Layers {
            lower: lower.collect::<Result<_>>()?,
            changes: options.changes.map(|path| absolute("changes", path)).transpose()?,
        })
    }

    /// Makes the directory for the changes if it is missing, as the container's root's.
    pub(super) fn make(&self, spec: &oci::Spec, facts: &HostFacts) -> Result<Option<Made>> {
        let Some(path) = &self.changes else { return Ok(None) };
        let fail = |error: io::Error| {
            let message = format!("make the directory for the changes to the root, {path:?}");
            Error::io(Stage::Rootfs, &error, message)
        };
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            result => result.map_err(fail)?,
        }
        let made = Made(path.clone());
        fs::set_permissions(path, PermissionsExt::from_mode(0o700)).map_err(fail)?;
        let own = [facts.euid, facts.egid];
        if let Some([uid, gid]) = root_ids(spec).filter(|ids| *ids != own) {
            chown(path, Some(uid), Some(gid)).map_err(|error| {
                let message = format!("give {path:?} to the container's root, {uid}:{gid}");
                Error::io(Stage::Rootfs, &error, message)
            })?;
        }
        Ok(Some(made))
    }
}

/// A directory for changes that has been made. Dropped before it is kept, it is removed.
pub(super) struct Made(PathBuf);

impl Made {
    pub(super) fn keep(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if self.0.as_os_str().is_empty() {
            return;
        }
        // The kernel's, which nobody but root may look into.
        let _ = fs::remove_dir(self.0.join("work/work"));
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = ?self.0, "a failed creation left a directory for changes");
        }
    }
}

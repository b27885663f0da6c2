//! An image becomes what a container is created from: layers below each other, and a configuration.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::inside::{self, Refused};
use super::layers::{self, Unpacked};
use super::manifest::Parts;
use super::store::{Making, Store, make_dir};
use super::transfer::Guide;
use super::unpack::{IdRange, Ids, Limits};
use super::{Overrides, convert, prune, subordinate, trees};
use crate::{Category, Error, Result, Stage, container};

/// The files from which a configuration is made, `/etc/passwd` and the like, are no larger.
const LARGEST_FILE: u64 = 1 << 20;

/// What a container is created from.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The text of config.json.
    pub(crate) json: Vec<u8>,
    /// The layers below the topmost, which is the configuration's root.
    pub(crate) lower: Vec<PathBuf>,
    /// Whether these are below an overlay. If not, the root is the container's own.
    pub(crate) overlay: bool,
    /// Keeps the layers, for as long as the container exists. Removed with it.
    pub(crate) usage: Option<Held>,
    /// Keeps everything until the container exists.
    _making: Making,
}

/// A container's file in `uses`, and the tree of this name in `layers` if it has one. Dropped before it is kept, both go.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) path: PathBuf,
    kept: bool,
}

impl Held {
    /// The container is there.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.kept {
            prune::release(&self.path);
        }
    }
}

/// Why layers are kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Usage {
    /// The container's state directory: with it the reason goes.
    container: OsString,
    /// Where that is to be looked for.
    view: View,
    pub(super) manifest: String,
    pub(super) layers: Vec<String>,
}

/// Who sees the same directories.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct View {
    /// Namespaces have their numbers until the machine restarts.
    boot: String,
    mounts: u64,
}

impl View {
    pub(super) fn own() -> View {
        View {
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            mounts: fs::metadata("/proc/self/ns/mnt").map_or(0, |found| found.ino()),
        }
    }
}

impl Usage {
    /// Whether the container that has this file is there, or may be: in another mount namespace, say, for as
    /// long as the machine runs.
    pub(super) fn is_needed(&self, path: &Path, view: &View) -> bool {
        let elsewhere = self.view.boot == view.boot && self.view.mounts != view.mounts;
        elsewhere || container::has_usage(Path::new(&self.container), path).unwrap_or(true)
    }
}

/// The image, and who asks.
pub(super) struct Asked<'a> {
    pub(super) store: &'a Store,
    pub(super) digest: &'a str,
    pub(super) parts: &'a Parts,
    pub(super) overrides: &'a Overrides,
    pub(super) rootless: Option<(u32, u32)>,
    /// The state directory that the container will have; none if it is only to be explained.
    pub(super) container: Option<&'a Path>,
}

impl Asked<'_> {
    fn overlay(&self) -> bool {
        let user_namespace = self.rootless.is_some() || !self.overrides.uid_mappings.is_empty();
        self.overrides.overlay.unwrap_or_else(|| container::has_overlay(user_namespace))
    }
}

/// Makes the layers that are missing, unless nothing can be made: then whoever needs them will say so.
pub(super) fn unpack(asked: &Asked<'_>, guide: &mut Guide<'_>) -> Result<()> {
    if asked.store.read_only || !asked.overlay() {
        return Ok(());
    }
    let _making = asked.store.making(guide)?;
    unpacked(asked, None, guide).map(drop)
}

/// The layers, or the tree of a container's own.
fn unpacked(
    asked: &Asked<'_>,
    tree: Option<&str>,
    guide: &mut Guide<'_>,
) -> Result<(Ids, Vec<Unpacked>)> {
    let Asked { store, parts, .. } = asked;
    let ids = ids(asked, tree, guide)?;
    let unpacked = match tree {
        Some(name) => vec![layers::own_tree(store, name, parts, &ids, guide)?],
        None => layers::unpacked(store, parts, &ids, &Limits::default(), guide)?,
    };
    Ok((ids, unpacked))
}

pub(super) fn prepare(asked: &Asked<'_>, guide: &mut Guide<'_>) -> Result<Prepared> {
    let Asked { store, parts, .. } = asked;
    let making = store.using(guide)?;
    let overlay = asked.overlay();
    if !overlay && store.read_only {
        let message = format!(
            "without an overlay a container's root is made in the image store, and {:?} was opened \
             read-only",
            store.path
        );
        return Err(Error::new(Category::State, Stage::Image, message).with_errno(libc::EROFS));
    }
    let usage = (!store.read_only).then(|| held(store));
    let tree = usage.as_ref().filter(|_| !overlay).map(Held::name);
    let (ids, mut unpacked) = unpacked(asked, tree, guide)?;
    if unpacked.is_empty() {
        unpacked.push(empty(store)?);
    }
    let opened = unpacked.iter().map(Unpacked::open).collect::<Result<Vec<File>>>()?;
    let facts = convert::Facts {
        root: unpacked[0].root.clone(),
        read: &|path| trees::read_file(&opened, path, LARGEST_FILE),
        rootless: asked.rootless,
        ids: &ids,
        digest: asked.digest,
    };
    let json = convert::convert(&parts.config, asked.overrides, &facts)?;
    if let (Some(container), Some(usage)) = (asked.container, &usage) {
        let reason = Usage {
            container: container.as_os_str().to_owned(),
            view: View::own(),
            manifest: asked.digest.to_owned(),
            layers: unpacked.iter().map(|layer| layer.key.clone()).collect(),
        };
        write(&usage.path, &reason)?;
    }
    let lower = unpacked.into_iter().skip(1).map(|layer| layer.root).collect();
    Ok(Prepared { json, lower, overlay, usage, _making: making })
}

/// Whose the layers are, or the tree is. What an ordinary user cannot make of them by itself is there then.
fn ids(asked: &Asked<'_>, tree: Option<&str>, guide: &mut Guide<'_>) -> Result<Ids> {
    let Asked { store, parts, digest, .. } = asked;
    let (ids, wanted) = match (asked.overrides.ids()?, asked.rootless) {
        (Some(ids), None) => return Ok(ids),
        (None, None) => return Ok(Ids::Same),
        (Some(ids), Some(own)) => {
            check_root(&ids, own)?;
            (ids, true)
        }
        (None, Some(own)) => match subordinate::ids(own) {
            Some(ids) => (ids, false),
            None => return Ok(Ids::Caller),
        },
    };
    let missing = match tree {
        Some(_) => layers::all(parts),
        None => layers::missing(store, parts, &ids),
    };
    if missing.is_empty() || wanted && (store.read_only || is_single(&ids)) {
        return Ok(ids);
    }
    if store.read_only {
        return Ok(Ids::Caller);
    }
    match inside::unpack(store, digest, &missing, tree, &ids, guide) {
        Err(Refused::Unable(error)) if !wanted => {
            tracing::warn!(%error, "unpacked without subordinate ids: the container has one user");
            Ok(Ids::Caller)
        }
        done => Ok(done.map(|()| ids)?),
    }
}

/// Layers are unpacked by the root of the user namespace, which has to be who the store belongs to.
fn check_root(ids: &Ids, (uid, gid): (u32, u32)) -> Result<()> {
    let Ids::Mapped { uids, gids } = ids else { return Ok(()) };
    for (field, ranges, own) in [("uidMappings", uids, uid), ("gidMappings", gids, gid)] {
        let root = ranges.iter().find(|range| range.inside == 0).map(|range| range.outside);
        if root != Some(own) {
            let message = format!("`{field}`: 0 is not mapped to the caller's own id, {own}");
            return Err(Error::new(Category::Invalid, Stage::Image, message)
                .hint("an ordinary user's images have that user as root"));
        }
    }
    Ok(())
}

/// Whether it is a mapping for which no further ids are needed.
fn is_single(ids: &Ids) -> bool {
    let single = |ranges: &[IdRange]| matches!(ranges, [range] if range.count == 1);
    matches!(ids, Ids::Mapped { uids, gids } if single(uids) && single(gids))
}

/// An image of no layers still has a root.
fn empty(store: &Store) -> Result<Unpacked> {
    let path = store.path.join("layers").join("empty");
    let failed = |error| Error::io(Stage::Image, &error, format!("make {path:?}"));
    let root = path.join("root");
    if store.read_only && !root.is_dir() {
        let message = format!(
            "there is no root for an image without layers in the image store {:?}, which was opened \
             read-only",
            store.path
        );
        return Err(Error::new(Category::NotFound, Stage::Image, message));
    }
    if !store.read_only {
        make_dir(&path, 0o755).and_then(|()| make_dir(&root, 0o755)).map_err(failed)?;
    }
    Ok(Unpacked { key: "empty".to_owned(), root })
}

fn held(store: &Store) -> Held {
    let name = store.draft("use");
    let path = store.path.join("uses").join(name.file_name().unwrap_or_default());
    Held { path, kept: false }
}

fn write(path: &Path, usage: &Usage) -> Result<()> {
    let text = serde_json::to_vec(usage)
        .map_err(|error| Error::new(Category::Bug, Stage::Image, error.to_string()))?;
    let written = (|| {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600).open(path)?.write_all(&text)
    })();
    written.map_err(|error: io::Error| Error::io(Stage::Image, &error, format!("write {path:?}")))
}

//! Takes out of a store what nothing needs any more.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use oci_spec::image::Digest;

use super::handle::{PruneOptions, Pruned};
use super::manifest::{self, Document};
use super::prepare::{Usage, View};
use super::removal::remove_tree;
use super::store::{self, Entry, Store, size_of};
use super::transfer::{Guide, Transfer};
use super::unpack::Ids;
use super::{StoreOptions, inside, layers, subordinate};
use crate::{Category, Error, Result, Stage, rootless_ids};

pub(super) fn prune(
    store: &Store,
    options: &PruneOptions,
    guide: &mut Guide<'_>,
) -> Result<Pruned> {
    guide.check()?;
    let _alone = store.alone(guide)?;
    let mut pruned = Pruned::default();
    let used = used(store)?;
    store.change_index(|entries| {
        let (kept, gone): (Vec<Entry>, Vec<Entry>) =
            std::mem::take(entries).into_iter().partition(|entry| {
                used.images.contains(&entry.digest) || !options.all && entry.name.is_some()
            });
        *entries = kept;
        for entry in gone {
            if !pruned.images.contains(&entry.digest) {
                pruned.images.push(entry.digest);
            }
        }
        Ok(())
    })?;
    let needed = needed(store, &used)?;
    for algorithm in ["sha256", "sha512"] {
        for (name, path) in listing(&store.path.join("blobs").join(algorithm))? {
            guide.check()?;
            if !needed.blobs.contains(&format!("{algorithm}:{name}")) {
                let size = size_of(&path);
                remove(&path)?;
                pruned.blobs += 1;
                pruned.bytes += size;
            }
        }
    }
    for (name, path) in listing(&store.path.join("layers"))? {
        if !used.layers.contains(&name) && !needed.layers.contains(&name) {
            // Its name goes first, so that what is there stays whole whatever ends this process.
            let draft = store.draft("layer");
            let moved = fs::rename(&path, &draft);
            moved.map_err(|error| Error::io(Stage::Image, &error, format!("remove {path:?}")))?;
            pruned.layers += 1;
        }
    }
    remove_drafts(store, "", guide)?;
    Ok(pruned)
}

/// Removes the drafts whose names begin so. One that cannot be removed is no reason to leave the others.
fn remove_drafts(store: &Store, prefix: &str, guide: &mut Guide<'_>) -> Result<()> {
    let mut before = Vec::new();
    loop {
        let mut drafts = listing(&store.path.join("drafts"))?;
        drafts.retain(|(name, _)| name.starts_with(prefix));
        let mut failed = Ok(());
        for (_, path) in &drafts {
            guide.check()?;
            let removed = match remove(path) {
                Err(error) if error.category() == Category::Permission => {
                    remove_inside(store, path, error, guide)
                }
                removed => removed,
            };
            failed = failed.and(removed);
        }
        // What could not be removed at once may have left parts of it beside it.
        if drafts.is_empty() || drafts == before {
            return failed;
        }
        before = drafts;
    }
}

/// Lets go of what a container had: of the layers that its file in `uses` has kept, and of a tree of its own. What
/// cannot be removed is left to the next prune.
pub(crate) fn release(usage: &Path) {
    let name = usage.file_name().and_then(|name| name.to_str());
    if let (Some(path), Some(name)) = (usage.parent().and_then(Path::parent), name) {
        let tree = path.join("layers").join(name);
        if fs::rename(tree, path.join("drafts").join(name)).is_ok() {
            let options = StoreOptions { path: Some(path.to_owned()), ..StoreOptions::default() };
            let guide = &mut Guide::new(Transfer::default());
            let removed = Store::open(options).and_then(|store| remove_drafts(&store, name, guide));
            if let Err(error) = removed {
                tracing::warn!(%error, "a container's own files are left for the next prune");
            }
        }
    }
    let _ = fs::remove_file(usage);
}

/// Removes files of ids that the caller has in a user namespace only.
fn remove_inside(store: &Store, path: &Path, refused: Error, guide: &mut Guide<'_>) -> Result<()> {
    let refused =
        refused.hint("it has files of ids that take root, or a user namespace that maps them");
    let Some(ids) = rootless_ids().and_then(subordinate::ids) else { return Err(refused) };
    inside::remove(store, &ids, path, guide).map_err(|error| match error {
        inside::Refused::Unable(error) => {
            tracing::debug!(%error, "no user namespace for what is to be removed");
            refused
        }
        inside::Refused::Failed(error) => error,
    })
}

/// Removes one draft, whose remover holds the lock outside.
pub(super) fn remove_draft(store: &Store, name: &str) -> Result<()> {
    remove(&store.path.join("drafts").join(store::plain(name)?))
}

struct Used {
    images: HashSet<String>,
    layers: HashSet<String>,
}

/// What containers have. Of one that is gone what it had is forgotten.
fn used(store: &Store) -> Result<Used> {
    let view = View::own();
    let mut used = Used { images: HashSet::new(), layers: HashSet::new() };
    for (_, path) in listing(&store.path.join("uses"))? {
        let usage = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Usage>(&bytes).ok(),
            // Removed with its container at this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io(Stage::Image, &error, format!("read {path:?}"))),
        };
        match usage {
            Some(usage) if usage.is_needed(&path, &view) => {
                used.images.insert(usage.manifest);
                used.layers.extend(usage.layers);
            }
            _ => remove(&path)?,
        }
    }
    Ok(used)
}

struct Needed {
    blobs: HashSet<String>,
    /// Folders in `layers`. Those for a mapping that one container asked for are needed by that alone.
    layers: HashSet<String>,
}

fn needed(store: &Store, used: &Used) -> Result<Needed> {
    let mut needed = Needed { blobs: HashSet::new(), layers: HashSet::new() };
    let own = rootless_ids().and_then(subordinate::ids);
    // An image that a container was made from may be in no index any more.
    let listed = store.entries()?.into_iter().map(|entry| entry.digest);
    for digest in listed.chain(used.images.iter().cloned()) {
        match add(store, &digest, own.as_ref(), &mut needed) {
            Ok(()) => {}
            // An image that is damaged needs nothing but itself.
            Err(error) if is_damage(error.category()) => {
                tracing::warn!(image = %digest, %error, "damaged");
            }
            Err(error) => return Err(error),
        }
        needed.blobs.insert(digest);
    }
    Ok(needed)
}

/// Whether it says something about the image, not about this moment, such as that there are too many
/// open files.
fn is_damage(category: Category) -> bool {
    matches!(category, Category::Spec | Category::NotFound | Category::Unsupported)
}

fn add(store: &Store, digest: &str, own: Option<&Ids>, needed: &mut Needed) -> Result<()> {
    let parsed: Digest = super::digest::parse(digest, "index.json")?;
    let bytes = store.document(&parsed, None)?;
    match manifest::document(&bytes, "", digest)? {
        Document::Index(index) => {
            needed.blobs.extend(index.manifests().iter().map(|blob| blob.digest().to_string()));
        }
        Document::Manifest(manifest) => {
            let blobs = manifest.layers().iter().chain([manifest.config()]);
            needed.blobs.extend(blobs.map(|blob| blob.digest().to_string()));
            let config = store.document(manifest.config().digest(), None)?;
            let parts = manifest::parts(*manifest, &config)?;
            for ids in [Some(&Ids::Same), Some(&Ids::Caller), own].into_iter().flatten() {
                needed.layers.extend(layers::keys(&parts, ids));
            }
        }
    }
    Ok(())
}

fn listing(dir: &Path) -> Result<Vec<(String, std::path::PathBuf)>> {
    let failed = |error| Error::io(Stage::Image, &error, format!("read {dir:?}"));
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        names.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    names.sort();
    Ok(names)
}

fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => remove_tree(path),
        _ => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(Stage::Image, &error, format!("remove {path:?}")))
        }
        _ => Ok(()),
    }
}

//! Takes out of a store what nothing needs any more.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use oci_spec::image::Digest;

use super::handle::{PruneOptions, Pruned};
use super::manifest::{self, Document};
use super::prepare::Usage;
use super::removal::remove_tree;
use super::store::{Entry, Store, size_of};
use super::{inside, subordinate};
use crate::{Category, Error, Result, Stage, rootless_ids};

pub(super) fn prune(store: &Store, options: &PruneOptions) -> Result<Pruned> {
    let _alone = store.alone()?;
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
            if !needed.blobs.contains(&format!("{algorithm}:{name}")) {
                let size = size_of(&path);
                remove(&path)?;
                pruned.blobs += 1;
                pruned.bytes += size;
            }
        }
    }
    for (name, path) in listing(&store.path.join("layers"))? {
        let chain_id = name.split('-').next().unwrap_or_default();
        if !used.layers.contains(&name) && !needed.chain_ids.contains(chain_id) {
            // Its name goes first, so that what is there stays whole whatever ends this process.
            let draft = store.draft("layer");
            let moved = fs::rename(&path, &draft);
            moved.map_err(|error| Error::io(Stage::Image, &error, format!("remove {path:?}")))?;
            pruned.layers += 1;
        }
    }
    // What cannot be removed at once may have left parts of it beside it.
    let mut before = Vec::new();
    loop {
        let drafts = listing(&store.path.join("drafts"))?;
        if drafts.is_empty() || drafts == before {
            break;
        }
        for (_, path) in &drafts {
            match remove(path) {
                Err(error) if error.category() == Category::Permission => {
                    remove_inside(store, path, error)?
                }
                removed => removed?,
            }
        }
        before = drafts;
    }
    Ok(pruned)
}

/// Removes files of ids that the caller has in a user namespace only.
fn remove_inside(store: &Store, path: &Path, refused: Error) -> Result<()> {
    let Some(ids) = rootless_ids().and_then(subordinate::ids) else { return Err(refused) };
    inside::remove(store, &ids, path).map_err(|error| match error {
        inside::Refused::Unable(error) => {
            tracing::debug!(%error, "no user namespace for what is to be removed");
            refused
        }
        inside::Refused::Failed(error) => error,
    })
}

/// Removes one draft, whose remover holds the lock outside.
pub(super) fn remove_draft(store: &Store, name: &str) -> Result<()> {
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return Err(Error::new(Category::Invalid, Stage::Image, format!("no draft: {name:?}")));
    }
    remove(&store.path.join("drafts").join(name))
}

struct Used {
    images: HashSet<String>,
    layers: HashSet<String>,
}

/// What containers have. Of one that is gone what it had is forgotten.
fn used(store: &Store) -> Result<Used> {
    let mut used = Used { images: HashSet::new(), layers: HashSet::new() };
    for (_, path) in listing(&store.path.join("uses"))? {
        let usage = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Usage>(&bytes).ok(),
            // Removed with its container at this moment.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io(Stage::Image, &error, format!("read {path:?}"))),
        };
        match usage {
            // What cannot be looked at may be there.
            Some(usage) if Path::new(&usage.container).try_exists().unwrap_or(true) => {
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
    chain_ids: HashSet<String>,
}

fn needed(store: &Store, used: &Used) -> Result<Needed> {
    let mut needed = Needed { blobs: HashSet::new(), chain_ids: HashSet::new() };
    // An image that a container was made from may be in no index any more.
    let listed = store.entries()?.into_iter().map(|entry| entry.digest);
    for digest in listed.chain(used.images.iter().cloned()) {
        match add(store, &digest, &mut needed) {
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

fn add(store: &Store, digest: &str, needed: &mut Needed) -> Result<()> {
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
            needed.chain_ids.extend(super::layers::chain_ids(&parts));
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

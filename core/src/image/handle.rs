//! The store and its images, as callers see them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::Digest;
use serde_json::{Value, json};

use super::fetch;
use super::layout::Layout;
use super::manifest::{self, Document, Parts};
use super::prepare::{self, Asked, Prepared};
#[cfg(feature = "registry")]
use super::repository::Repository;
use super::save::{self, Saved};
use super::store::{Entry, Store, plain};
use super::transfer::Guide;
use super::unpack::{IdRange, Ids, Limits};
use super::{
    Compression, Overrides, Transfer, digest, inside, layers, new, platform, prune, reference,
};
use crate::spec::oci;
use crate::{Category, Container, Error, Result, Stage, Status, rootless_ids};

/// The annotation in which a container's configuration names the image that it was made from.
pub(super) const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// How a store is opened.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Its directory. Default: `/var/lib/locule/images` for root, else `$XDG_DATA_HOME/locule/images`, else
    /// `~/.local/share/locule/images`.
    pub path: Option<PathBuf>,
    /// Change nothing: use what is there. Root may open another user's store so.
    pub read_only: bool,
    /// The command `locule`, which an ordinary user with subordinate ids needs to unpack images. Default: this program if
    /// that is its name, else the one in `/usr/local/bin`, `/usr/bin` or `$PATH`.
    pub command: Option<PathBuf>,
}

/// How an image is taken from a file or directory, or from a registry.
#[derive(Debug, Clone, Default)]
pub struct TakeOptions {
    /// Which image of several, by the name it has there; with one alone, or `pull`, unnecessary.
    pub from: Option<String>,
    /// The name it gets. Default: the one that it has there; it may have none.
    pub name: Option<String>,
    /// `os/architecture[/variant]`. Default: this machine's.
    pub platform: Option<String>,
}

/// How a new image is made.
#[derive(Debug, Clone, Default)]
pub struct NewOptions {
    /// Its name; it may have none.
    pub name: Option<String>,
    /// The compression of its new layer.
    pub compression: Compression,
    /// Changes to the image configuration's `config`, as a JSON merge patch (RFC 7396), such as
    /// `{"Cmd": ["sh"]}`.
    pub config: Option<serde_json::Value>,
    /// Who made it.
    pub author: Option<String>,
    /// A remark, for its history.
    pub comment: Option<String>,
    /// When it was made, in RFC 3339. Default: the latest modification time in its new layer, so that the
    /// same input gives the same image.
    pub created: Option<String>,
}

/// How an image is written to a file or directory.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions {
    /// The name it has there. Default: the one by which it was found in the store.
    pub name: Option<String>,
}

/// What [`ImageStore::prune`] removes.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// Images that no container uses, too, named or not.
    pub all: bool,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pruned {
    /// Digests of images.
    pub images: Vec<String>,
    /// Number of blobs.
    pub blobs: u64,
    /// Number of unpacked layers.
    pub layers: u64,
    /// Bytes that the blobs had.
    pub bytes: u64,
}

/// A folder of images and their unpacked layers. Any number of processes may use it at once.
/// Cloning gives another handle to the same one. Thread-safe.
#[derive(Debug, Clone)]
pub struct ImageStore(Arc<Store>);

/// An image in a store. Cloning gives another handle. Thread-safe. It goes on meaning the same
/// image when its names are given to another one.
#[derive(Debug, Clone)]
pub struct Image(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: ImageStore,
    names: Vec<String>,
    digest: Digest,
    /// Of the manifest.
    size: u64,
    media_type: String,
    descriptor: Value,
    parts: Parts,
}

impl ImageStore {
    /// Opens a store, making its directory if it is missing.
    ///
    /// # Errors
    /// `Permission` for a directory of another user, or one that others can write to.
    pub fn open(options: StoreOptions) -> Result<ImageStore> {
        Ok(ImageStore(Arc::new(Store::open(options)?)))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The image of this name (`alpine` is `docker.io/library/alpine:latest`), or with this digest, of which
    /// the first twelve hexadecimal digits do.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for what is neither.
    pub fn get(&self, name: &str) -> Result<Image> {
        let entries = self.0.entries()?;
        let digest = find(&entries, name)?;
        self.image(&entries, &digest)
    }

    /// All images, in the order of their names. One that is damaged is left out, with a warning.
    pub fn list(&self) -> Result<Vec<Image>> {
        let entries = self.0.entries()?;
        let mut digests: Vec<&str> = entries.iter().map(|entry| entry.digest.as_str()).collect();
        digests.sort_unstable();
        digests.dedup();
        let mut images = Vec::with_capacity(digests.len());
        for digest in digests {
            match self.image(&entries, digest) {
                Ok(image) => images.push(image),
                Err(error) => tracing::warn!(%digest, %error, "skipped in the list of images"),
            }
        }
        // Those without a name come last.
        images.sort_by(|a: &Image, b: &Image| {
            let key = |image: &Image| (image.names().is_empty(), image.names().first().cloned());
            key(a).cmp(&key(b))
        });
        Ok(images)
    }

    fn image(&self, entries: &[Entry], digest: &str) -> Result<Image> {
        let its = entries.iter().filter(|entry| entry.digest == digest);
        let mut names: Vec<String> = its.clone().filter_map(|entry| entry.name.clone()).collect();
        names.sort();
        let listed = its.clone().find_map(|entry| entry.descriptor["mediaType"].as_str());
        let digest = digest::parse(digest, "index.json")?;
        let bytes = self.0.document(&digest, None)?;
        let media_type = listed.unwrap_or(manifest::MANIFEST).to_owned();
        let what = format!("manifest {digest}");
        let Document::Manifest(manifest) = manifest::document(&bytes, &media_type, &what)? else {
            let message = format!("{what}: it is an index");
            return Err(Error::new(Category::Unsupported, Stage::Image, message)
                .hint("load or pull it into the store, which chooses by platform"));
        };
        let config = self.0.document(manifest.config().digest(), Some(manifest.config().size()))?;
        let parts = manifest::parts(*manifest, &config)?;
        Ok(Image(Arc::new(Shared {
            store: self.clone(),
            descriptor: fetch::descriptor(&media_type, &digest, bytes.len() as u64, &parts.config),
            names,
            size: bytes.len() as u64,
            media_type,
            digest,
            parts,
        })))
    }

    /// Takes an image from an OCI layout, a directory or a tar file, or from a docker-archive. Tar files
    /// may be compressed.
    ///
    /// # Errors
    /// `Spec` for what is wrong in it, naming the blob; `Invalid` if there are several images and none
    /// is chosen; `NotFound` if there is none such.
    pub fn load(
        &self,
        path: &Path,
        options: &TakeOptions,
        transfer: Transfer<'_>,
    ) -> Result<Image> {
        let guide = &mut Guide::new(transfer);
        let _making = self.0.making(guide)?;
        let mut layout = Layout::open(path, &self.0, guide)?;
        let context = |error: Error| error.context(format!("{path:?}"));
        let (found, there) = layout.choose(options.from.as_deref(), guide).map_err(context)?;
        let platform = options.platform.as_deref();
        let mut names = Vec::new();
        match &options.name {
            Some(name) => names.push(whole(name)?),
            // What is no name for Docker is none here.
            None => names.extend(there.iter().filter_map(|name| whole(name).ok())),
        }
        let descriptor =
            fetch::take(&self.0, &mut layout, found, platform, guide).map_err(context)?;
        self.enter(&descriptor, &names)
    }

    /// Fetches an image from a registry.
    ///
    /// # Errors
    /// `NotFound` if the registry has none such, `Permission` if it wants other credentials or is
    /// blocked, `Spec` for what is wrong with the image, naming the blob.
    #[cfg(feature = "registry")]
    pub fn pull(
        &self,
        reference: &str,
        options: &TakeOptions,
        registry: &super::RegistryOptions,
        transfer: Transfer<'_>,
    ) -> Result<Image> {
        let guide = &mut Guide::new(transfer);
        let reference = reference::parse(reference)?;
        let name = reference::whole(&reference);
        let names = [options.name.as_deref().map_or(Ok(name.clone()), whole)?];
        let context = |error: Error| error.context(format!("pull {name}"));
        let _making = self.0.making(guide)?;
        let mut source = Repository::new(&reference, registry).map_err(context)?;
        let found = source.find(guide).map_err(context)?;
        let platform = options.platform.as_deref();
        let descriptor =
            fetch::take(&self.0, &mut source, found, platform, guide).map_err(context)?;
        self.enter(&descriptor, &names)
    }

    /// Makes an image of one layer of a root filesystem, a directory or a tar file.
    pub fn import(
        &self,
        path: &Path,
        options: &NewOptions,
        transfer: Transfer<'_>,
    ) -> Result<Image> {
        let guide = &mut Guide::new(transfer);
        let names = options.name.as_deref().map(whole).transpose()?;
        let _making = self.0.making(guide)?;
        let descriptor = new::import(&self.0, path, options, guide)?;
        self.enter(&descriptor, names.as_slice())
    }

    /// Makes an image of the one that a stopped container was made from and what it has changed. The
    /// container must have been created with [`changes`](crate::CreateOptions::changes).
    ///
    /// # Errors
    /// `State` for a container that has not stopped, or whose changes were not kept; `NotFound` if the image
    /// that it was made from is not in this store.
    pub fn commit(
        &self,
        container: &Container,
        options: &NewOptions,
        transfer: Transfer<'_>,
    ) -> Result<Image> {
        let committed = self.commit_of(container, options, transfer);
        committed.map_err(|error| error.of_container(container.id()))
    }

    fn commit_of(
        &self,
        container: &Container,
        options: &NewOptions,
        transfer: Transfer<'_>,
    ) -> Result<Image> {
        let guide = &mut Guide::new(transfer);
        let state = |message: String| Error::new(Category::State, Stage::Image, message);
        let names = options.name.as_deref().map(whole).transpose()?;
        let Some(changes) = container.changes() else {
            return Err(state("the container's changes are not kept".to_owned())
                .hint("create it with a directory for its changes"));
        };
        let status = container.state()?.status;
        if status != Status::Stopped {
            let message = format!("the container is {}, and can still change", status.name());
            return Err(state(message).hint("stop it first"));
        }
        let spec = container.spec();
        let annotations = spec.annotations().as_ref();
        let Some(base) = annotations.and_then(|all| all.get(BASE_DIGEST)) else {
            let message =
                format!("the container was made from no image: it has no annotation {BASE_DIGEST}");
            return Err(state(message));
        };
        let _making = self.0.making(guide)?;
        // Its name may have gone meanwhile.
        let base = self.image(&[], base)?;
        let ids = ids_of(spec);
        let upper = changes.join("upper");
        let descriptor = new::commit(&self.0, &base.0.parts, &upper, &ids, options, guide)?;
        self.enter(&descriptor, names.as_slice())
    }

    fn enter(&self, descriptor: &Value, names: &[String]) -> Result<Image> {
        if names.is_empty() {
            self.0.enter(descriptor, None)?;
        }
        for name in names {
            self.0.enter(descriptor, Some(name))?;
        }
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        self.image(&self.0.entries()?, digest)
    }

    /// Whether a name is looked up as a digest, or the first twelve digits of one or more, if no image has it as its
    /// name.
    pub fn is_digest(name: &str) -> bool {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        hex.len() >= 12 && hex.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
    }

    /// Takes a name away, or with a digest an image with all its names. Its blobs and layers go with
    /// [`ImageStore::prune`], once no container needs them.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove(&self, name: &str) -> Result<()> {
        let _making = self.0.making_soon()?;
        self.0.change_index(|entries| {
            let whole = whole(name).ok();
            let named = |entry: &Entry| entry.name.is_some() && entry.name == whole;
            match entries.iter().position(named) {
                Some(index) => drop(entries.remove(index)),
                None => {
                    let digest = find(entries, name)?;
                    entries.retain(|entry| entry.digest != digest);
                }
            }
            Ok(())
        })
    }

    /// Removes images without a name, and what no image and no container needs. Waits, up to half a minute, for those who
    /// are making something. Tells no progress; of what is stopped the next one does the rest.
    ///
    /// # Errors
    /// `Busy` if they take longer.
    pub fn prune(&self, options: &PruneOptions, transfer: Transfer<'_>) -> Result<Pruned> {
        prune::prune(&self.0, options, &mut Guide::new(transfer))
    }

    /// How the command `locule` prints an error of what it does as root of a user namespace for the library outside,
    /// which is as follows.
    #[doc(hidden)]
    pub fn report(error: &Error) -> String {
        inside::report(error)
    }

    /// Makes the missing layers of an image, or the tree of this name for one container.
    #[doc(hidden)]
    pub fn unpack_inside(&self, digest: &str, ids: &str, tree: Option<&str>) -> Result<(), String> {
        let unpack = || {
            let guide = &mut Guide::new(Transfer::default());
            let _making = self.0.making(guide)?;
            let image = self.image(&[], digest)?;
            let (store, parts) = (&self.0, &image.0.parts);
            let (named, here) = inside::whose(ids)?;
            match tree {
                Some(name) => layers::own_tree(store, plain(name)?, parts, &here, guide).map(drop),
                None => {
                    let limits = Limits::default();
                    layers::unpacked_as(store, parts, (&named, &here), &limits, guide).map(drop)
                }
            }
        };
        unpack().map_err(|error: Error| inside::report(&error))
    }

    /// The same for a container's changes that become a layer: what is made is printed, too.
    #[doc(hidden)]
    pub fn pack_changes(
        &self,
        upper: &Path,
        compression: &str,
        ids: &str,
    ) -> Result<String, String> {
        new::pack_changes(&self.0, upper, compression, ids).map_err(|error| inside::report(&error))
    }

    /// The same for a draft that is to be removed.
    #[doc(hidden)]
    pub fn remove_draft(&self, name: &str) -> Result<(), String> {
        prune::remove_draft(&self.0, name).map_err(|error| inside::report(&error))
    }
}

impl Image {
    /// The store it is in.
    pub fn store(&self) -> &ImageStore {
        &self.0.store
    }

    /// The manifest's digest.
    pub fn digest(&self) -> &str {
        self.0.digest.as_ref()
    }

    /// Its names when it was looked up, whole: `docker.io/library/alpine:latest`.
    pub fn names(&self) -> &[String] {
        &self.0.names
    }

    /// Bytes of its manifest, configuration and layers, compressed as they are.
    pub fn size(&self) -> u64 {
        let manifest = &self.0.parts.manifest;
        let blobs = manifest.layers().iter().chain([manifest.config()]);
        blobs.map(|blob| blob.size()).fold(self.0.size, u64::saturating_add)
    }

    /// What it is, as JSON: `digest`, `names`, `size`, `mediaType`, `platform`, `created`, `layers`
    /// (`digest`, `size`, `mediaType`, `diffId`), `config` (the image configuration), `manifest`.
    pub fn inspect(&self) -> Result<Value> {
        let read = |digest: &Digest| {
            let bytes = self.0.store.0.document(digest, None)?;
            manifest::parse::<Value>(&bytes, digest.as_ref())
        };
        let parts = &self.0.parts;
        let layers = parts.manifest.layers().iter().zip(&parts.diff_ids).map(|(layer, diff_id)| {
            json!({
                "digest": layer.digest().to_string(),
                "size": layer.size(),
                "mediaType": layer.media_type().to_string(),
                "diffId": diff_id.to_string(),
            })
        });
        let mut summary = self.summary();
        summary["layers"] = layers.collect();
        summary["config"] = read(parts.manifest.config().digest())?;
        summary["manifest"] = read(&self.0.digest)?;
        Ok(summary)
    }

    /// The part of [`Image::inspect`] for which nothing has to be read: `digest`, `names`, `size`,
    /// `mediaType`, `platform`, `created`.
    pub fn summary(&self) -> Value {
        let config = &self.0.parts.config;
        let mut platform = format!("{}/{}", config.os(), config.architecture());
        if let Some(variant) = config.variant() {
            platform = format!("{platform}/{variant}");
        }
        json!({
            "digest": self.digest(),
            "names": self.names(),
            "size": self.size(),
            "mediaType": self.0.media_type,
            "platform": platform,
            "created": config.created(),
        })
    }

    /// Whether it is for a platform, `os/architecture[/variant]`, as if that had been asked for when it was taken.
    ///
    /// # Errors
    /// `NotFound` if it is for another one.
    pub fn check_platform(&self, platform: &str) -> Result<()> {
        let mut wanted = platform::wanted(Some(platform))?;
        let config = &self.0.parts.config;
        if config.variant().is_none() {
            // Only the index that it came from may have said more.
            wanted.set_variant(None);
        }
        platform::check(config, &wanted).map_err(|error| self.named(error))
    }

    /// Gives it a further name, taking that from the image that has it. The handle that is returned knows it.
    pub fn tag(&self, name: &str) -> Result<Image> {
        let _making = self.0.store.0.making_soon()?;
        if !self.0.store.0.has(&self.0.digest, Some(self.0.size)) {
            return Err(no_image(self.digest()));
        }
        self.0.store.enter(&self.0.descriptor, &[whole(name)?])
    }

    /// Writes it to a layout: a tar file if the path ends with `.tar`, else a directory, to whose
    /// images it is added.
    pub fn save(&self, path: &Path, options: &SaveOptions, transfer: Transfer<'_>) -> Result<()> {
        let guide = &mut Guide::new(transfer);
        let name = match &options.name {
            Some(name) => Some(whole(name)?),
            None => self.names().first().cloned(),
        };
        let store = &self.0.store.0;
        let _using = store.using(guide)?;
        let saved = Saved {
            store,
            descriptor: &self.0.descriptor,
            manifest: (&self.0.digest, self.0.size),
            parts: &self.0.parts,
            name: name.as_deref(),
        };
        match path.extension().is_some_and(|extension| extension == "tar") && !path.is_dir() {
            true => save::to_archive(&saved, path, guide),
            false => save::to_directory(&saved, path, guide),
        }
    }

    /// Sends it to a registry.
    ///
    /// # Errors
    /// `Permission` if the registry wants other credentials.
    #[cfg(feature = "registry")]
    pub fn push(
        &self,
        reference: &str,
        registry: &super::RegistryOptions,
        transfer: Transfer<'_>,
    ) -> Result<()> {
        let guide = &mut Guide::new(transfer);
        let reference = reference::parse(reference)?;
        let name = reference::whole(&reference);
        let store = &self.0.store.0;
        let _using = store.using(guide)?;
        let manifest = store.document(&self.0.digest, Some(self.0.size))?;
        Repository::new(&reference, registry)
            .and_then(|mut repository| {
                let (media_type, parts) = (&self.0.media_type, &self.0.parts);
                repository.push(store, media_type, &manifest, parts, guide)
            })
            .map_err(|error| error.context(format!("push {name}")))
    }

    /// Unpacks it to a new or empty directory, as a plain tree. What fails may leave a part of it.
    pub fn unpack(
        &self,
        dir: &Path,
        ids: &Ids,
        limits: &Limits,
        transfer: Transfer<'_>,
    ) -> Result<()> {
        let guide = &mut Guide::new(transfer);
        let store = &self.0.store.0;
        let _using = store.using(guide)?;
        layers::to_tree(store, &self.0.parts, dir, ids, limits, guide)
    }

    /// Unpacks into the store what a container with these overrides needs, so that its creation need not. Nothing
    /// is done if it is there, or if the container will have a copy instead of an overlay.
    ///
    /// # Errors
    /// `Spec` and `Resource` for what is wrong with a layer, naming it.
    pub fn prepare(&self, overrides: &Overrides, transfer: Transfer<'_>) -> Result<()> {
        let asked = self.asked(overrides, None);
        prepare::unpack(&asked, &mut Guide::new(transfer)).map_err(|error| self.named(error))
    }

    /// Gets everything ready for a container, which is to have this state directory.
    pub(crate) fn for_container(
        &self,
        overrides: &Overrides,
        container: Option<&Path>,
        transfer: Transfer<'_>,
    ) -> Result<Prepared> {
        let asked = self.asked(overrides, container);
        prepare::prepare(&asked, &mut Guide::new(transfer)).map_err(|error| self.named(error))
    }

    fn asked<'a>(&'a self, overrides: &'a Overrides, container: Option<&'a Path>) -> Asked<'a> {
        Asked {
            store: &self.0.store.0,
            digest: self.digest(),
            parts: &self.0.parts,
            overrides,
            rootless: rootless_ids(),
            container,
        }
    }

    fn named(&self, error: Error) -> Error {
        error.context(format!("image {}", self.label()))
    }

    /// What a commit makes of it and a directory of changes.
    #[cfg(feature = "fuzzing")]
    pub(super) fn commit_upper(&self, upper: &Path, options: &NewOptions) -> Result<Image> {
        let (store, guide) = (&self.0.store, &mut Guide::new(Transfer::default()));
        let descriptor = new::commit(&store.0, &self.0.parts, upper, &Ids::Same, options, guide)?;
        store.enter(&descriptor, &[])
    }

    fn label(&self) -> &str {
        self.names().first().map_or(self.digest(), String::as_str)
    }
}

/// The whole form of a name.
fn whole(name: &str) -> Result<String> {
    Ok(reference::whole(&reference::parse(name)?))
}

fn no_image(name: &str) -> Error {
    Error::new(Category::NotFound, Stage::Image, format!("there is no image {name:?} in the store"))
}

/// The digest of the image of a name or of a part of its digest.
fn find(entries: &[Entry], name: &str) -> Result<String> {
    let named = whole(name);
    let by_name =
        |entry: &&Entry| named.as_ref().is_ok_and(|name| entry.name.as_ref() == Some(name));
    if let Some(entry) = entries.iter().find(by_name) {
        return Ok(entry.digest.clone());
    }
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    if !ImageStore::is_digest(name) {
        named?;
        return Err(no_image(name));
    }
    let start = format!("sha256:{hex}");
    let mut digests: Vec<&str> = entries.iter().map(|entry| entry.digest.as_str()).collect();
    digests.retain(|digest| digest.starts_with(&start));
    digests.sort_unstable();
    digests.dedup();
    match digests[..] {
        [] => Err(no_image(name)),
        [digest] => Ok(digest.to_owned()),
        _ => {
            let message = format!("several images have digests that begin with {hex}");
            Err(Error::new(Category::Invalid, Stage::Image, message))
        }
    }
}

/// Whose files a container's changes are.
fn ids_of(spec: &oci::Spec) -> Ids {
    let linux = spec.linux().as_ref();
    let ranges = |mappings: Option<&Vec<oci::LinuxIdMapping>>| {
        let range = |mapping: &oci::LinuxIdMapping| IdRange {
            inside: mapping.container_id(),
            outside: mapping.host_id(),
            count: mapping.size(),
        };
        mappings.into_iter().flatten().map(range).collect::<Vec<_>>()
    };
    let uids = ranges(linux.and_then(|linux| linux.uid_mappings().as_ref()));
    let gids = ranges(linux.and_then(|linux| linux.gid_mappings().as_ref()));
    match (uids.as_slice(), gids.as_slice()) {
        ([], []) => Ids::Same,
        ([uid], [gid]) if uid.count == 1 && gid.count == 1 => Ids::Caller,
        _ => Ids::Mapped { uids, gids },
    }
}

//! The store and its images, as callers see them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::unpack::{Ids, Limits};
use super::{Compression, Transfer};
use crate::{Container, Result};

/// How a store is opened.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Its directory. Default: `/var/lib/locule/images` for root, else `$XDG_DATA_HOME/locule/images`, else
    /// `~/.local/share/locule/images`.
    pub path: Option<PathBuf>,
    /// Change nothing: use what is there. Such a store may be another user's.
    pub read_only: bool,
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
pub struct ImageStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {}

/// An image in a store. Cloning gives another handle. Thread-safe. It goes on meaning the same
/// image when its names are given to another one.
#[derive(Debug, Clone)]
pub struct Image(Arc<ImageShared>);

#[derive(Debug)]
struct ImageShared {}

#[allow(unused_variables)]
impl ImageStore {
    /// Opens a store, making its directory if it is missing.
    pub fn open(options: StoreOptions) -> Result<ImageStore> {
        todo!()
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        todo!()
    }

    /// The image of this name (`alpine` is `docker.io/library/alpine:latest`), or with this digest, of which
    /// the first twelve hexadecimal digits do.
    pub fn get(&self, name: &str) -> Result<Image> {
        todo!()
    }

    /// All images, in the order of their names.
    pub fn list(&self) -> Result<Vec<Image>> {
        todo!()
    }

    /// Takes an image from an OCI layout, a directory or a tar file, or from a docker-archive.
    pub fn load(
        &self,
        path: &Path,
        options: &TakeOptions,
        transfer: Transfer<'_>,
    ) -> Result<Image> {
        todo!()
    }

    /// Fetches an image from a registry.
    #[cfg(feature = "registry")]
    pub fn pull(
        &self,
        reference: &str,
        options: &TakeOptions,
        registry: &super::RegistryOptions,
        transfer: Transfer<'_>,
    ) -> Result<Image> {
        todo!()
    }

    /// Makes an image of one layer of a root filesystem, a directory or a tar file.
    pub fn import(
        &self,
        path: &Path,
        options: &NewOptions,
        transfer: Transfer<'_>,
    ) -> Result<Image> {
        todo!()
    }

    /// Makes an image of the one that a stopped container was made from and what it has changed. The
    /// container must have been created with [`changes`](crate::CreateOptions::changes).
    pub fn commit(
        &self,
        container: &Container,
        options: &NewOptions,
        transfer: Transfer<'_>,
    ) -> Result<Image> {
        todo!()
    }

    /// Takes a name away, or with a digest an image with all its names. What nothing else needs any more goes
    /// with [`ImageStore::prune`].
    pub fn remove(&self, name: &str) -> Result<()> {
        todo!()
    }

    /// Removes images without a name, and what no image and no container needs.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned> {
        todo!()
    }
}

#[allow(unused_variables)]
impl Image {
    /// The store it is in.
    pub fn store(&self) -> &ImageStore {
        todo!()
    }

    /// The manifest's digest.
    pub fn digest(&self) -> &str {
        todo!()
    }

    /// Its names when it was looked up, whole: `docker.io/library/alpine:latest`.
    pub fn names(&self) -> &[String] {
        todo!()
    }

    /// Bytes of its manifest, configuration and layers, compressed as they are.
    pub fn size(&self) -> u64 {
        todo!()
    }

    /// What it is, as JSON: `digest`, `names`, `size`, `mediaType`, `platform`, `created`, `layers`
    /// (`digest`, `size`, `mediaType`, `diffId`), `config` (the image configuration), `manifest`.
    pub fn inspect(&self) -> Result<serde_json::Value> {
        todo!()
    }

    /// Gives it a further name, taking that from the image that has it.
    pub fn tag(&self, name: &str) -> Result<Image> {
        todo!()
    }

    /// Writes it to a layout: a tar file if the path ends with `.tar`, else a directory, to whose
    /// images it is added.
    pub fn save(&self, path: &Path, options: &SaveOptions, transfer: Transfer<'_>) -> Result<()> {
        todo!()
    }

    /// Sends it to a registry.
    #[cfg(feature = "registry")]
    pub fn push(
        &self,
        reference: &str,
        registry: &super::RegistryOptions,
        transfer: Transfer<'_>,
    ) -> Result<()> {
        todo!()
    }

    /// Unpacks it to a new or empty directory, as a plain tree.
    pub fn unpack(
        &self,
        dir: &Path,
        ids: &Ids,
        limits: &Limits,
        transfer: Transfer<'_>,
    ) -> Result<()> {
        todo!()
    }
}

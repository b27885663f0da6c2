//! Images: what is read and what is refused, what is in a store and how it is written.

mod commits;
mod crashes;
mod debian;
mod generated;
mod hostile;
mod layouts;
mod refused;
mod registry;
mod schemas;
mod sharing;
mod skopeo;
mod umoci;

use std::path::Path;

use locule::image::{Image, ImageStore, StoreOptions, TakeOptions, Transfer};
use locule_images::{Layer, TarFile};

/// A store in a directory.
fn store(dir: &Path) -> ImageStore {
    let options = StoreOptions { path: Some(dir.join("store")), ..StoreOptions::default() };
    ImageStore::open(options).expect("a store")
}

fn load(store: &ImageStore, path: &Path) -> locule::Result<Image> {
    store.load(path, &TakeOptions::default(), Transfer::default())
}

/// Two layers, of which the second changes what the first has.
fn layers() -> Vec<Layer> {
    let lower = TarFile::new().dir("etc/", 0o755).file("etc/a", "one").file("etc/b", "two");
    let upper = TarFile::new().file("etc/.wh.a", "").file("etc/c", "three");
    vec![Layer::gzip(lower.finish()), Layer::zstd(upper.finish())]
}

/// A directory for one test.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

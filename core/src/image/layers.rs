//! Unpacked layers: each once in a store, for any number of images and containers.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::{self, File};
use std::hash::{Hash, Hasher as _};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, Digest};

use super::compress;
use super::digest::{Verified, sha256, unwrap, wrap};
use super::manifest::Parts;
use super::removal::remove_tree;
use super::store::{Making, Store, make_dir};
use super::transfer::{Guide, Step};
use super::unpack::{self, Form, Ids, Limits, Options};
use crate::{Category, Error, Result, Stage};

/// The chain ids of an image's layers (image-spec, config.md), the lowest first, in hexadecimal.
pub(super) fn chain_ids(parts: &Parts) -> Vec<String> {
    let mut chain_id: Option<Digest> = None;
    let chained = parts.diff_ids.iter().map(|diff_id| {
        let next = match &chain_id {
            None => diff_id.clone(),
            Some(below) => sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain_id.insert(next).digest().to_owned()
    });
    chained.collect()
}

/// The folders of an image's layers.
pub(super) fn keys(parts: &Parts, ids: &Ids) -> impl Iterator<Item = String> {
    chain_ids(parts).into_iter().map(|chain_id| key(&chain_id, ids))
}

/// The folder of a layer: by its chain id, because it may have links to files of layers below it, and
/// by whose its files are.
fn key(chain_id: &str, ids: &Ids) -> String {
    let name = chain_id;
    match ids {
        Ids::Same => name.to_owned(),
        Ids::Caller => format!("{name}-caller"),
        Ids::Mapped { .. } => {
            let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
            ids.hash(&mut hasher);
            format!("{name}-{:016x}", hasher.finish())
        }
    }
}

/// The chain ids of the layers that are unpacked, for whomever.
pub(super) fn unpacked_chains(store: &Store) -> Result<HashSet<String>> {
    let path = store.path.join("layers");
    let failed = |error| Error::io(Stage::Image, &error, format!("read {path:?}"));
    let chain_id = |entry: io::Result<fs::DirEntry>| {
        let name = entry?.file_name().to_string_lossy().into_owned();
        Ok(name.split('-').next().unwrap_or_default().to_owned())
    };
    fs::read_dir(&path).and_then(|entries| entries.map(chain_id).collect()).map_err(failed)
}

/// A hash that stays the same from build to build.
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// The unpacked layers of an image, the topmost first; those that are missing are made.
pub(super) fn unpacked(
    store: &Store,
    parts: &Parts,
    ids: &Ids,
    limits: &Limits,
    guide: &mut Guide<'_>,
) -> Result<Vec<Unpacked>> {
    unpacked_as(store, parts, (ids, ids), limits, guide)
}

/// As [`unpacked`], with the ids by which the layers are found, and those that they have here, which in a
/// user namespace are others.
pub(super) fn unpacked_as(
    store: &Store,
    parts: &Parts,
    (named, ids): (&Ids, &Ids),
    limits: &Limits,
    guide: &mut Guide<'_>,
) -> Result<Vec<Unpacked>> {
    let options = Options { form: Form::Layer, ids, limits, lower: &[], copied: &Cell::new(0) };
    let mut made: Vec<Unpacked> = Vec::new();
    let layers = parts.manifest.layers().iter().zip(&parts.diff_ids);
    for ((layer, diff_id), chain_id) in layers.zip(chain_ids(parts)) {
        let key = key(&chain_id, named);
        let path = store.path.join("layers").join(&key);
        if !path.is_dir() {
            make(store, &key, layer, diff_id, &made, &options, guide)?;
        }
        made.insert(0, Unpacked { root: path.join("root"), key });
    }
    Ok(made)
}

/// Digests and sizes of the layers that are not unpacked for these ids.
pub(super) fn missing(store: &Store, parts: &Parts, ids: &Ids) -> Vec<(String, u64)> {
    let is_missing = |key: String| !store.path.join("layers").join(key).is_dir();
    let layers = all(parts).into_iter().zip(keys(parts, ids));
    layers.filter_map(|(layer, key)| is_missing(key).then_some(layer)).collect()
}

/// Digests and sizes of the layers.
pub(super) fn all(parts: &Parts) -> Vec<(String, u64)> {
    let layers = parts.manifest.layers().iter();
    layers.map(|layer| (layer.digest().to_string(), layer.size())).collect()
}

/// An unpacked layer.
#[derive(Debug, Clone)]
pub(super) struct Unpacked {
    pub(super) key: String,
    pub(super) root: PathBuf,
}

impl Unpacked {
    pub(super) fn open(&self) -> Result<File> {
        open_dir(&self.root)
    }
}

pub(super) fn open_dir(path: &Path) -> Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = File::options().read(true).custom_flags(flags).open(path);
    opened.map_err(|error| Error::io(Stage::Image, &error, format!("open {path:?}")))
}

fn make(
    store: &Store,
    key: &str,
    layer: &Descriptor,
    diff_id: &Digest,
    below: &[Unpacked],
    options: &Options<'_>,
    guide: &mut Guide<'_>,
) -> Result<()> {
    if store.read_only {
        let message = format!(
            "layer {} is not unpacked in the image store {:?}, which was opened read-only",
            layer.digest(),
            store.path
        );
        return Err(Error::new(Category::NotFound, Stage::Image, message));
    }
    let _only: Making = store.only_maker(key, guide)?;
    let target = store.path.join("layers").join(key);
    if target.is_dir() {
        return Ok(());
    }
    let draft = Draft(store.draft("layer"));
    let failed = |error| Error::io(Stage::Image, &error, format!("make {:?}", draft.0));
    let root = draft.0.join("root");
    for (path, mode) in [(&draft.0, 0o700), (&root, 0o755)] {
        make_dir(path, mode).map_err(failed)?;
    }
    let own = |path| own(path, options.ids);
    own(&draft.0).and_then(|()| own(&root)).map_err(failed)?;
    let below = below.iter().map(Unpacked::open).collect::<Result<Vec<_>>>()?;
    let options = Options { lower: &below, ..*options };
    apply(store, layer, diff_id, &open_dir(&root)?, &options, guide)?;
    match fs::rename(&draft.0, &target) {
        Ok(()) => Ok(()),
        Err(_) if target.is_dir() => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The folders around a layer of mapped ids are for the container's own root to pass.
fn own(path: &Path, ids: &Ids) -> io::Result<()> {
    let Ids::Mapped { uids, gids } = ids else { return Ok(()) };
    let root = |ranges: &[unpack::IdRange]| {
        let range = ranges.iter().find(|range| range.inside == 0);
        range.map(|range| range.outside)
    };
    std::os::unix::fs::lchown(path, root(uids), root(gids))
}

/// The image's files as one tree of this name, which is made unless it is there.
pub(super) fn own_tree(
    store: &Store,
    name: &str,
    parts: &Parts,
    ids: &Ids,
    guide: &mut Guide<'_>,
) -> Result<Unpacked> {
    let path = store.path.join("layers").join(name);
    if !path.is_dir() {
        let draft = Draft(store.draft("tree"));
        let failed = |error| Error::io(Stage::Image, &error, format!("make {path:?}"));
        make_dir(&draft.0, 0o700).and_then(|()| own(&draft.0, ids)).map_err(failed)?;
        to_tree(store, parts, &draft.0.join("root"), ids, &Limits::default(), guide)?;
        fs::rename(&draft.0, &path).map_err(failed)?;
    }
    Ok(Unpacked { key: name.to_owned(), root: path.join("root") })
}

/// Something in `drafts`, which goes unless it gets its final name.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = remove_tree(&self.0);
    }
}

/// Unpacks one layer of the store, verified.
pub(super) fn apply(
    store: &Store,
    layer: &Descriptor,
    diff_id: &Digest,
    dir: &File,
    options: &Options<'_>,
    guide: &mut Guide<'_>,
) -> Result<()> {
    let named = |error: Error| error.context(format!("layer {}", layer.digest()));
    let name = layer.digest().to_string();
    guide.report(Step::Unpack, &name, 0, layer.size())?;
    let (done, quiet) = (Cell::new(0), guide.quiet());
    let blob = Stoppable { source: store.blob(layer.digest())?, guide: &quiet };
    let counted = Counted { source: blob, done: &done };
    let (_, plain) = compress::decoder(Box::new(io::BufReader::with_capacity(128 << 10, counted)))?;
    let plain = Verified::new(plain, diff_id.clone(), None)?;
    let mut source = Bounded { source: plain, limits: options.limits, packed: &done, plain: 0 };
    let mut watched = Watched {
        source: &mut source,
        packed: &done,
        told: 0,
        total: layer.size(),
        name: &name,
        guide,
    };
    unpack_all(&mut watched, dir, options, &quiet).map_err(named)?;
    guide.finished(Step::Unpack, &name, layer.size())
}

/// The unpacker has no progress to tell but through what it reads, so its guide is a quiet one.
fn unpack_all(
    source: &mut Watched<'_, '_, '_>,
    dir: &File,
    options: &Options<'_>,
    quiet: &Guide<'_>,
) -> Result<()> {
    unpack::apply(source, dir, options, quiet)?;
    io::copy(source, &mut io::sink())
        .map_err(|error| unwrap(error, || "read the layer to its end".to_owned()))
        .map(drop)
}

/// Lets the caller stop what reads without giving anything, as empty members do.
struct Stoppable<'a, 'g, R> {
    source: R,
    guide: &'a Guide<'g>,
}

impl<R: Read> Read for Stoppable<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.guide.check().map_err(wrap)?;
        self.source.read(buffer)
    }
}

/// Counts the compressed bytes.
pub(super) struct Counted<'a, R> {
    pub(super) source: R,
    pub(super) done: &'a Cell<u64>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.done.set(self.done.get() + count as u64);
        Ok(count)
    }
}

/// The most that what is compressed to so many bytes may be.
pub(super) fn most(packed: u64, limits: &Limits) -> u64 {
    const FREE: u64 = 64 << 20;
    packed.saturating_mul(limits.ratio).saturating_add(FREE)
}

/// Keeps a small file from becoming a huge one.
pub(super) struct Bounded<'a, R> {
    pub(super) source: R,
    pub(super) limits: &'a Limits,
    pub(super) packed: &'a Cell<u64>,
    pub(super) plain: u64,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.plain += count as u64;
        let most = most(self.packed.get(), self.limits);
        let (limit, what) = match self.plain {
            plain if plain > self.limits.bytes => (self.limits.bytes, "bytes"),
            plain if plain > most => (self.limits.ratio, "times what it is compressed"),
            _ => return Ok(count),
        };
        let message = format!("it unpacks to more than {limit} {what}");
        let error = Error::new(Category::Resource, Stage::Image, message);
        Err(wrap(error.hint("raise the limits if the image is to be trusted")))
    }
}

/// Reports, and lets the caller stop.
struct Watched<'a, 'b, 'g> {
    source: &'a mut dyn Read,
    packed: &'a Cell<u64>,
    told: u64,
    total: u64,
    name: &'a str,
    guide: &'b mut Guide<'g>,
}

impl Read for Watched<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        let done = self.packed.get();
        if done != self.told {
            self.told = done;
            self.guide.report(Step::Unpack, self.name, done, self.total).map_err(wrap)?;
        }
        Ok(count)
    }
}

/// Unpacks an image to an empty directory, as one tree.
pub(super) fn to_tree(
    store: &Store,
    parts: &Parts,
    dir: &Path,
    ids: &Ids,
    limits: &Limits,
    guide: &mut Guide<'_>,
) -> Result<()> {
    let failed = |error| Error::io(Stage::Image, &error, format!("unpack to {dir:?}"));
    make_dir(dir, 0o755).map_err(failed)?;
    if fs::read_dir(dir).map_err(failed)?.next().is_some() {
        let message = format!("{dir:?} is not empty");
        return Err(Error::new(Category::Exists, Stage::Image, message));
    }
    own(dir, ids).map_err(failed)?;
    let opened = File::options().read(true).custom_flags(libc::O_DIRECTORY).open(dir);
    let opened = opened.map_err(failed)?;
    let options = Options { form: Form::Tree, ids, limits, lower: &[], copied: &Cell::new(0) };
    for (layer, diff_id) in parts.manifest.layers().iter().zip(&parts.diff_ids) {
        apply(store, layer, diff_id, &opened, &options, guide)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::StoreOptions;
    use super::super::transfer::{Progress, Transfer};
    use super::*;
    use crate::Cancel;

    /// Unpacks a compressed layer while the call is being cancelled; it fails.
    fn cancelled(name: &str, blob: &[u8]) -> Error {
        let path = std::env::temp_dir().join(format!("locule-{name}-{}", std::process::id()));
        let options = StoreOptions { path: Some(path.clone()), ..StoreOptions::default() };
        let store = Store::open(options).unwrap();
        let digest = store.put(blob).unwrap();
        let layer = Descriptor::new("layer".into(), blob.len() as u64, digest);
        let cancel = Cancel::new().unwrap();
        let mut report = |_: &Progress<'_>| {
            cancel.cancel();
            Ok(())
        };
        let transfer =
            Transfer { progress: Some(&mut report), cancel: Some(&cancel), ..Transfer::default() };
        let (ids, limits) = (&Ids::Same, &Limits::default());
        let options = Options { form: Form::Layer, ids, limits, lower: &[], copied: &Cell::new(0) };
        let dir = open_dir(&path.join("drafts")).unwrap();
        let guide = &mut Guide::new(transfer);
        let error = apply(&store, &layer, &sha256(b""), &dir, &options, guide).unwrap_err();
        fs::remove_dir_all(path).unwrap();
        error
    }

    #[test]
    fn a_layer_that_gives_nothing_can_be_cancelled() {
        let empty = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut members = empty.finish().unwrap().repeat(20_000);
        members.write_all(b"damaged").unwrap();
        let error = cancelled("members", &members);
        assert_eq!(error.category(), Category::Cancelled, "{error}");
        // Frames to skip.
        let frame = [&b"\x50\x2a\x4d\x18\0\0\x10\0"[..], &[0; 1 << 20]].concat();
        let error = cancelled("frames", &[&frame.repeat(3)[..], b"damaged"].concat());
        assert_eq!(error.category(), Category::Cancelled, "{error}");
    }

    #[test]
    fn an_entry_that_was_read_already_can_be_cancelled() {
        /// Is cancelled while it gives all that there is.
        struct Last<'a>(&'a [u8], &'a Cancel);
        impl Read for Last<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.1.cancel();
                self.0.read(buffer)
            }
        }
        let path = std::env::temp_dir().join(format!("locule-entry-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let dir = open_dir(&path).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_data(&mut tar::Header::new_gnu(), "file", io::empty()).unwrap();
        let (tar, cancel) = (tar.into_inner().unwrap(), Cancel::new().unwrap());
        let mut guide = Guide::new(Transfer { cancel: Some(&cancel), ..Transfer::default() });
        let quiet = guide.quiet();
        let (ids, limits) = (&Ids::Caller, &Limits::default());
        let options = Options { form: Form::Layer, ids, limits, lower: &[], copied: &Cell::new(0) };
        let (mut source, packed) = (Last(&tar, &cancel), Cell::new(0));
        let mut watched = Watched {
            source: &mut source,
            packed: &packed,
            told: 0,
            total: 0,
            name: "",
            guide: &mut guide,
        };
        let error = unpack_all(&mut watched, &dir, &options, &quiet).unwrap_err();
        assert_eq!(error.category(), Category::Cancelled, "{error}");
        assert!(!path.join("file").exists());
        fs::remove_dir_all(path).unwrap();
    }
}

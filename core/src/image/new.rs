//! New images: of a tree or an archive of one, and of what a container has changed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use oci_spec::image::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::digest::{Hasher, unwrap};
use super::handle::NewOptions;
use super::inside::Refused;
use super::manifest::{MANIFEST, Parts};
use super::pack::{self, Kind, Marks};
use super::store::Store;
use super::transfer::{Arriving, Guide, Step, open_soon};
use super::unpack::{Ids, Limits};
use super::{Compression, compress, fetch, inside, layers, manifest, platform};
use crate::container::in_user_namespace;
use crate::{Category, Error, Result, Stage, rootless_ids};

/// A layer that has just been made.
#[derive(Serialize, Deserialize)]
struct Layer {
    digest: Digest,
    size: u64,
    diff_id: Digest,
    /// Its bytes before it was compressed.
    plain: u64,
    /// The latest modification time in it.
    latest: i64,
}

impl Layer {
    fn descriptor(&self, compression: Compression) -> Value {
        json!({
            "mediaType": compression.layer(),
            "digest": self.digest.to_string(),
            "size": self.size,
        })
    }
}

/// The descriptor of an image with one layer: the tree at `path`, a directory or a tar file.
pub(super) fn import(
    store: &Store,
    path: &Path,
    options: &NewOptions,
    guide: &mut Guide<'_>,
) -> Result<Value> {
    let failed = |error| Error::io(Stage::Image, &error, format!("open {path:?}"));
    let file = open_soon(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?.file_type();
    if !(kind.is_dir() || kind.is_file() || kind.is_fifo()) {
        let message = format!("{path:?} is no directory, no file and no pipe");
        return Err(Error::new(Category::Invalid, Stage::Image, message));
    }
    // SAFETY: reads no memory and cannot fail.
    let ids = if unsafe { libc::geteuid() } == 0 { Ids::Same } else { Ids::Caller };
    let layer = layer(store, options.compression, guide, &mut |out, guide| match kind.is_dir() {
        true => Ok(pack::pack(&file, Kind::Tree, &ids, out, guide)?.latest),
        false => copy(&file, out, guide),
    });
    let layer = layer.map_err(|error| error.context(format!("import {path:?}")))?;
    let platform = platform::wanted(None)?;
    let mut config = json!({
        "architecture": platform.architecture().to_string(),
        "os": platform.os().to_string(),
    });
    if let Some(variant) = platform.variant() {
        config["variant"] = variant.as_str().into();
    }
    config["config"] = json!({});
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [] });
    config["history"] = json!([]);
    finish(store, config, Vec::new(), &layer, "locule image import", options)
}

/// The descriptor of the image `base` with the changes in an overlay's upper directory as its
/// topmost layer.
pub(super) fn commit(
    store: &Store,
    base: &Parts,
    upper: &Path,
    ids: &Ids,
    options: &NewOptions,
    guide: &mut Guide<'_>,
) -> Result<Value> {
    let layer = match inside(store, upper, ids, options.compression, guide)? {
        Some(layer) => layer,
        None => changes(store, upper, ids, options.compression, guide)?,
    };
    let config = store.document(base.manifest.config().digest(), None)?;
    let config: Value = manifest::parse(&config, "the image's configuration")?;
    let layers = base.manifest.layers().iter().map(serde_json::to_value);
    let layers = layers.collect::<Result<Vec<_>, _>>();
    let layers =
        layers.map_err(|error| Error::new(Category::Bug, Stage::Image, error.to_string()))?;
    finish(store, config, layers, &layer, "locule image commit", options)
}

/// A layer of the changes in an overlay's upper directory.
fn changes(
    store: &Store,
    upper: &Path,
    ids: &Ids,
    compression: Compression,
    guide: &mut Guide<'_>,
) -> Result<Layer> {
    let upper = layers::open_dir(upper)?;
    let marks = match ids {
        Ids::Same if !in_user_namespace() => Marks::Trusted,
        _ => Marks::User,
    };
    layer(store, compression, guide, &mut |out, guide| {
        Ok(pack::pack(&upper, Kind::Upper(marks), ids, out, guide)?.latest)
    })
}

/// The same by the command `locule`, if that is needed to read files of an ordinary user's further ids.
fn inside(
    store: &Store,
    upper: &Path,
    ids: &Ids,
    compression: Compression,
    guide: &mut Guide<'_>,
) -> Result<Option<Layer>> {
    let Ids::Mapped { uids, gids } = ids else { return Ok(None) };
    if rootless_ids().is_none() {
        return Ok(None);
    }
    let name = NAMES.iter().find(|(known, _)| *known == compression).map_or("", |(_, name)| name);
    match inside::pack(store, upper, name, (uids, gids), guide) {
        Ok(text) => {
            let layer: Layer = manifest::parse(text.as_bytes(), "what the command `locule` says")?;
            guide.finished(Step::Pack, "", layer.plain)?;
            Ok(Some(layer))
        }
        // Perhaps no file is another's.
        Err(Refused::Unable(error)) => {
            tracing::debug!(%error, "no user namespace for what is to be packed");
            Ok(None)
        }
        Err(Refused::Failed(error)) => Err(error),
    }
}

const NAMES: [(Compression, &str); 3] =
    [(Compression::None, "none"), (Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")];

/// What `pack-changes` does: prints what is made.
pub(super) fn pack_changes(
    store: &Store,
    upper: &Path,
    compression: &str,
    whose: &str,
) -> Result<String> {
    let guide = &mut Guide::new(super::Transfer::default());
    let _making = store.making(guide)?;
    let (_, here) = inside::whose(whose)?;
    let compression = NAMES.iter().find(|(_, name)| *name == compression);
    let (compression, _) = compression.ok_or_else(|| {
        Error::new(Category::Invalid, Stage::Arguments, "a compression that is not known")
    })?;
    let layer = changes(store, upper, &here, *compression, guide)?;
    Ok(json!(layer).to_string())
}

/// Puts the new layer on top, and writes configuration and manifest.
fn finish(
    store: &Store,
    mut config: Value,
    mut layers: Vec<Value>,
    layer: &Layer,
    by: &str,
    options: &NewOptions,
) -> Result<Value> {
    let created = match &options.created {
        Some(created) => {
            let time = humantime::parse_rfc3339(created).map_err(|error| {
                let message = format!("created {created:?}: {error}");
                Error::new(Category::Invalid, Stage::Arguments, message)
                    .hint("expected a time such as 2026-01-31T12:00:00Z")
            })?;
            humantime::format_rfc3339_seconds(time).to_string()
        }
        None => {
            let since = Duration::from_secs(u64::try_from(layer.latest).unwrap_or(0));
            let time = UNIX_EPOCH.checked_add(since).filter(|time| {
                // What has four digits for the year.
                *time < UNIX_EPOCH + Duration::from_secs(253_402_300_800)
            });
            humantime::format_rfc3339_seconds(time.unwrap_or(UNIX_EPOCH)).to_string()
        }
    };
    config["created"] = created.as_str().into();
    if let Some(author) = &options.author {
        config["author"] = author.as_str().into();
    }
    if let Some(patch) = &options.config {
        if !patch.is_object() {
            let message = format!("config: expected an object, not {patch}");
            return Err(Error::new(Category::Invalid, Stage::Arguments, message));
        }
        let own = config.as_object_mut().map(|config| config.entry("config").or_insert(json!({})));
        super::patch::merge(own.expect("parsed as a configuration"), patch);
    }
    let mut history = json!({ "created": created, "created_by": by });
    if let Some(author) = &options.author {
        history["author"] = author.as_str().into();
    }
    if let Some(comment) = &options.comment {
        history["comment"] = comment.as_str().into();
    }
    push(&mut config, "/rootfs/diff_ids", layer.diff_id.to_string().into());
    if config["history"].is_null() {
        config["history"] = json!([]);
    }
    push(&mut config, "/history", history);
    layers.push(layer.descriptor(options.compression));
    let config = config.to_string().into_bytes();
    // What the changes made of it has to be a configuration still.
    let parsed: oci_spec::image::ImageConfiguration = manifest::parse(&config, "config")
        .map_err(|error| error.with_category(Category::Invalid))?;
    let config_digest = store.put(&config)?;
    let manifest = manifest::text(&config_digest, config.len(), layers);
    let digest = store.put(&manifest)?;
    Ok(fetch::descriptor(MANIFEST, &digest, manifest.len() as u64, &parsed))
}

fn push(config: &mut Value, pointer: &str, value: Value) {
    if let Some(list) = config.pointer_mut(pointer).and_then(Value::as_array_mut) {
        list.push(value);
    }
}

/// Makes a blob of what `write` writes.
fn layer(
    store: &Store,
    compression: Compression,
    guide: &mut Guide<'_>,
    write: &mut dyn FnMut(&mut dyn Write, &mut Guide<'_>) -> Result<i64>,
) -> Result<Layer> {
    let failed = |error| unwrap(error, || format!("write a layer to {:?}", store.path));
    let mut draft = store.begin_blob()?;
    guide.report(Step::Pack, "", 0, 0)?;
    let (latest, diff_id, plain) = {
        let out = compress::encoder(Box::new(&mut draft), compression)?;
        let mut plain = Hashed { out, hasher: Hasher::sha256(), size: 0 };
        let latest = write(&mut plain, guide)?;
        plain.out.finish().map_err(failed)?;
        guide.finished(Step::Pack, "", plain.size)?;
        (latest, plain.hasher.finish(), plain.size)
    };
    let size = draft.size();
    let limits = Limits::default();
    if plain > layers::most(size, &limits) {
        let message = format!(
            "the layer is more than {} times smaller by its compression, and would be taken for a trap",
            limits.ratio
        );
        return Err(Error::new(Category::Resource, Stage::Image, message)
            .hint("choose gzip, which makes less of empty files, or none"));
    }
    Ok(Layer { digest: draft.keep(None)?, size, diff_id, plain, latest })
}

/// Computes the digest of what goes through.
struct Hashed<'a> {
    out: Box<dyn compress::Encoder + 'a>,
    hasher: Hasher,
    size: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Copies a tar file, compressed or not, that may come through a pipe, and looks whether it is one.
fn copy(file: &File, out: &mut dyn Write, guide: &mut Guide<'_>) -> Result<i64> {
    let quiet = guide.quiet();
    let source = Arriving { file, guide: &quiet };
    let (_, plain) = compress::decoder(Box::new(source))?;
    let mut copied = Copied { source: plain, out, done: 0, guide };
    let mut latest = 0;
    let wrong = |error: io::Error| {
        let error = unwrap(error, || "it is no tar file".to_owned());
        match error.errno() {
            None if error.category() == Category::System => error.with_category(Category::Spec),
            _ => error,
        }
    };
    let mut archive = tar::Archive::new(&mut copied);
    let mut count = 0u64;
    for entry in archive.entries().map_err(wrong)?.raw(true) {
        let entry = entry.map_err(wrong)?;
        let time = entry.header().mtime().map_err(wrong)?;
        latest = latest.max(i64::try_from(time).unwrap_or(0));
        count += 1;
    }
    io::copy(&mut copied, &mut io::sink()).map_err(wrong)?;
    if count == 0 {
        let message = "it is no tar file, or an empty one";
        return Err(Error::new(Category::Spec, Stage::Image, message));
    }
    Ok(latest)
}

struct Copied<'a, 'g> {
    source: Box<dyn Read + 'a>,
    out: &'a mut dyn Write,
    done: u64,
    guide: &'a mut Guide<'g>,
}

impl Read for Copied<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.out.write_all(&buffer[..count])?;
        self.done += count as u64;
        self.guide.report(Step::Pack, "", self.done, 0).map_err(super::digest::wrap)?;
        Ok(count)
    }
}

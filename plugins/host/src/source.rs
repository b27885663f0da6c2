//! Where a component comes from: a file or an OCI image layout. What was read is checked in memory,
//! so that nothing can be put in its place afterwards.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use locule::{Category, Error, Result, Stage};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{failed, invalid};

/// Larger components are refused: compiling one would cost gigabytes.
const LARGEST: u64 = 64 << 20;
/// Larger documents of an image layout are none.
const LARGEST_DOCUMENT: u64 = 4 << 20;

/// A component's bytes.
pub(crate) struct Source {
    pub(crate) bytes: Vec<u8>,
    /// Their SHA-256, hexadecimal.
    pub(crate) digest: String,
}

impl Source {
    /// Reads what `reference` names; relative paths begin at `base`. With a digest nothing else is
    /// taken; without, only what root and this user alone can write to.
    pub(crate) fn read(reference: &str, base: &Path, digest: Option<&str>) -> Result<Source> {
        let files = match digest {
            Some(_) => Files::ANYBODYS,
            None => {
                Files::of_trusted("with a `digest` it may be anybody's: no other is loaded then")
            }
        };
        let source = Source::of(reference, base, files)?;
        if let Some(wanted) = digest {
            let wanted = hexadecimal(wanted).map_err(|error| error.at("/digest"))?;
            if *wanted != *source.digest {
                let digest = &source.digest;
                let message =
                    format!("{reference:?} has the digest sha256:{digest}, not the given one");
                return Err(failed(message).at("/digest"));
            }
        }
        Ok(source)
    }

    /// Reads what is only to be looked at.
    pub(crate) fn look(reference: &str) -> Result<Source> {
        Source::of(reference, Path::new(""), Files::ANYBODYS)
    }

    fn of(reference: &str, base: &Path, files: Files) -> Result<Source> {
        let bytes = match reference.strip_prefix("oci:") {
            Some(layout) => from_layout(layout, base, files)?,
            None => files.read(&base.join(reference), LARGEST)?,
        };
        if !bytes.starts_with(b"\0asm") {
            return Err(failed(format!("{reference:?} is no WebAssembly")));
        }
        Ok(Source { digest: sha256(&bytes), bytes })
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest without its algorithm.
fn hexadecimal(digest: &str) -> Result<&str> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| {
            hex.len() == 64 && hex.bytes().all(|byte| b"0123456789abcdef".contains(&byte))
        })
        .ok_or_else(|| {
            invalid(format!("{digest:?} is no digest"))
                .hint("give sha256: and 64 hexadecimal digits in lower case")
        })
}

/// How files are read: without waiting for what is none, and with a look at who can write to them.
#[derive(Clone, Copy)]
struct Files {
    /// A hint for who reads one that others can write to; `None` if they may.
    trusted: Option<&'static str>,
}

impl Files {
    const ANYBODYS: Files = Files { trusted: None };

    fn of_trusted(hint: &'static str) -> Files {
        Files { trusted: Some(hint) }
    }

    fn read(self, path: &Path, largest: u64) -> Result<Vec<u8>> {
        let error =
            |error: std::io::Error| Error::io(Stage::Plugin, &error, format!("read {path:?}"));
        let mut options = File::options();
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = options.read(true).custom_flags(flags).open(path).map_err(error)?;
        let metadata = file.metadata().map_err(error)?;
        if !metadata.is_file() {
            return Err(invalid(format!("{path:?} is not a regular file")));
        }
        if metadata.len() > largest {
            return Err(invalid(format!("{path:?} is larger than {} MiB", largest >> 20)));
        }
        if let Some(hint) = self.trusted {
            check_trusted(path, &metadata).map_err(|error| error.hint(hint))?;
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
        file.take(largest).read_to_end(&mut bytes).map_err(error)?;
        Ok(bytes)
    }
}

/// What there is to say of what says how plugins are called.
const WHY: &str = "whoever can write there decides what becomes of containers";

/// Reads a configuration, which nobody else may have written.
pub(crate) fn read_configuration(path: &Path) -> Result<Vec<u8>> {
    Files::of_trusted(WHY).read(path, LARGEST_DOCUMENT)
}

/// Looks whether a folder of configurations is nobody else's.
pub(crate) fn check_folder(path: &Path) -> Result<()> {
    let metadata = std::fs::metadata(path)
        .map_err(|error| Error::io(Stage::Plugin, &error, format!("look at {path:?}")))?;
    check_trusted(path, &metadata).map_err(|error| error.hint(WHY))
}

/// Whether only root and this user can write there.
fn check_trusted(path: &Path, metadata: &Metadata) -> Result<()> {
    let trusted = [0, nix::unistd::geteuid().as_raw()];
    let foreign = !trusted.contains(&metadata.uid());
    // A group of a user's number is that user's alone, by the way distributions give them out.
    let others = if trusted.contains(&metadata.gid()) { 0o002 } else { 0o022 };
    if !foreign && metadata.mode() & others == 0 {
        return Ok(());
    }
    let what = if foreign { "belongs to another user" } else { "can be written to by others" };
    Err(Error::new(Category::Permission, Stage::Plugin, format!("{path:?} {what}")))
}

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Descriptor>,
}

/// The path of a layout and the tag. A tag has no slash, and the last colon before one is the path's
/// own.
fn layout_of(reference: &str) -> (&str, Option<&str>) {
    match reference.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (reference, None),
    }
}

/// The layer `application/wasm` of an image (CNCF Wasm OCI artifact layout).
fn from_layout(reference: &str, base: &Path, files: Files) -> Result<Vec<u8>> {
    let (path, tag) = layout_of(reference);
    let layout = base.join(path);
    let path = layout.join("index.json");
    let index: Index = parse(&path, &files.read(&path, LARGEST_DOCUMENT)?)?;
    let is_it = |entry: &&Descriptor| {
        let name = entry.annotations.get("org.opencontainers.image.ref.name");
        tag.is_none() || name.map(String::as_str) == tag
    };
    let mut found = index.manifests.iter().filter(is_it);
    let manifest = match (found.next(), found.next()) {
        (Some(one), None) => one,
        (None, _) => {
            let tagged = tag.map(|tag| format!(" {tag:?}")).unwrap_or_default();
            return Err(failed(format!("{layout:?} has no image{tagged}")));
        }
        (Some(_), Some(_)) => {
            let message = format!("{layout:?} has several images: a tag has to say which");
            return Err(invalid(message));
        }
    };
    let (path, bytes) = blob(&layout, manifest, LARGEST_DOCUMENT)?;
    let manifest: Manifest = parse(&path, &bytes)?;
    let wasm = |layer: &&Descriptor| layer.media_type == "application/wasm";
    let layer = manifest
        .layers
        .iter()
        .find(wasm)
        .ok_or_else(|| failed(format!("{path:?} has no layer of the type application/wasm")))?;
    Ok(blob(&layout, layer, LARGEST)?.1)
}

fn parse<T: for<'a> Deserialize<'a>>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| failed(format!("{path:?}: {error}")))
}

/// A blob, which is what its descriptor says, whoever has written it.
fn blob(layout: &Path, descriptor: &Descriptor, largest: u64) -> Result<(PathBuf, Vec<u8>)> {
    let hex = hexadecimal(&descriptor.digest)?;
    let path = layout.join("blobs/sha256").join(hex);
    let bytes = Files::ANYBODYS.read(&path, largest)?;
    if bytes.len() as u64 != descriptor.size || sha256(&bytes) != hex {
        return Err(failed(format!("{path:?} is not what its digest says")));
    }
    Ok((path, bytes))
}

//! An image becomes what a container is created from: layers below each other, and a configuration.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::inside::{self, Refused};
use super::layers::{self, Unpacked};
use super::manifest::Parts;
use super::store::{Making, Store, make_dir};
use super::transfer::Guide;
use super::unpack::{IdRange, Ids, Limits};
use super::{Overrides, convert, subordinate, trees};
use crate::{Category, Error, Result, Stage};

/// The files from which a configuration is made, `/etc/passwd` and the like, are no larger.
const LARGEST_FILE: u64 = 1 << 20;

/// What a container is created from.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The text of config.json.
    pub(crate) json: Vec<u8>,
    /// The layers below the topmost, which is the configuration's root.
    pub(crate) lower: Vec<PathBuf>,
    /// Keeps the layers, for as long as the container exists. Removed with it.
    pub(crate) usage: Option<PathBuf>,
    /// Keeps everything until the container exists.
    _making: Making,
}

/// Why layers are kept.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Usage {
    /// The container's state directory: with it the reason goes.
    pub(super) container: OsString,
    pub(super) manifest: String,
    pub(super) layers: Vec<String>,
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

pub(super) fn prepare(asked: &Asked<'_>, guide: &mut Guide<'_>) -> Result<Prepared> {
    let Asked { store, parts, .. } = asked;
    let making = store.using(guide)?;
    let ids = ids(asked, guide)?;
    let limits = Limits::default();
    let mut unpacked = layers::unpacked(store, parts, &ids, &limits, guide)?;
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
    let usage = match asked.container {
        Some(container) if !store.read_only => {
            let usage = Usage {
                container: container.as_os_str().to_owned(),
                manifest: asked.digest.to_owned(),
                layers: unpacked.iter().map(|layer| layer.key.clone()).collect(),
            };
            Some(write(store, &usage)?)
        }
        _ => None,
    };
    let lower = unpacked.into_iter().skip(1).map(|layer| layer.root).collect();
    Ok(Prepared { json, lower, usage, _making: making })
}

/// Whose the layers are. Those that an ordinary user cannot make by itself are there then.
fn ids(asked: &Asked<'_>, guide: &mut Guide<'_>) -> Result<Ids> {
    let Asked { store, parts, digest, .. } = asked;
    let lacks = |ids: &Ids| !layers::missing(store, parts, ids).is_empty();
    let (ids, wanted) = match (asked.overrides.ids()?, asked.rootless) {
        (Some(ids), None) => return Ok(ids),
        (None, None) => return Ok(Ids::Same),
        (Some(ids), Some(_)) => (ids, true),
        (None, Some(own)) => match subordinate::ids(own) {
            Some(ids) => (ids, false),
            None => return Ok(Ids::Caller),
        },
    };
    if !lacks(&ids) || wanted && (store.read_only || is_single(&ids)) {
        return Ok(ids);
    }
    if store.read_only {
        return Ok(Ids::Caller);
    }
    match inside::unpack(store, digest, parts, &ids, guide) {
        Err(Refused::Unable(error)) if !wanted => {
            tracing::debug!(%error, "unpacked without subordinate ids");
            Ok(Ids::Caller)
        }
        done => Ok(done.map(|()| ids)?),
    }
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

fn write(store: &Store, usage: &Usage) -> Result<PathBuf> {
    let name = store.draft("use");
    let path = store.path.join("uses").join(name.file_name().unwrap_or_default());
    let text = serde_json::to_vec(usage)
        .map_err(|error| Error::new(Category::Bug, Stage::Image, error.to_string()))?;
    let written = (|| {
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600).open(&path)?.write_all(&text)
    })();
    written.map_err(|error: io::Error| {
        let _ = fs::remove_file(&path);
        Error::io(Stage::Image, &error, format!("write {path:?}"))
    })?;
    Ok(path)
}

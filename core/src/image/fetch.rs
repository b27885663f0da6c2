//! Takes an image out of wherever it is, blob by blob, each verified before it is in the store.

use std::io::{self, Read, Write};

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, Platform};
use serde_json::{Value, json};

use super::digest::{Hasher, sha256};
use super::manifest::{self, Document};
use super::store::{BlobDraft, LARGEST_DOCUMENT, Store};
use super::transfer::{Guide, Step};
use super::{digest, platform};
use crate::{Category, Error, Result, Stage};

/// Where images come from.
pub(super) trait Source {
    /// Reads a blob from a byte on. `None` if it is not there, or cannot be read from within.
    fn blob<'s>(
        &'s mut self,
        descriptor: &Descriptor,
        from: u64,
        guide: &mut Guide<'_>,
    ) -> Result<Option<Box<dyn Read + 's>>>;

    /// Reads a manifest or index.
    fn manifest(&mut self, descriptor: &Descriptor, guide: &mut Guide<'_>) -> Result<Vec<u8>> {
        self.document(descriptor, guide)
    }

    /// Reads the document with this digest, of a size that fits into memory.
    fn document(&mut self, descriptor: &Descriptor, guide: &mut Guide<'_>) -> Result<Vec<u8>> {
        let (digest, size) = (descriptor.digest().clone(), descriptor.size());
        if size > LARGEST_DOCUMENT {
            let message = format!("blob {digest}: {size} bytes are too many for a document");
            return Err(Error::new(Category::Spec, Stage::Image, message));
        }
        let Some(source) = self.blob(descriptor, 0, guide)? else {
            let message = format!("blob {digest}: it is not there");
            return Err(Error::new(Category::NotFound, Stage::Image, message));
        };
        let mut bytes = Vec::new();
        digest::Verified::new(source.take(size + 1), digest.clone(), Some(size))?
            .read_to_end(&mut bytes)
            .map_err(|error| digest::unwrap(error, || format!("read blob {digest}")))?;
        Ok(bytes)
    }
}

/// A manifest that has been found, and where.
pub(super) struct Found {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
}

/// Takes the image that `found` is or leads to. What it gives back is its descriptor, which no index has yet.
pub(super) fn take(
    store: &Store,
    source: &mut dyn Source,
    found: Found,
    choice: Option<&str>,
    guide: &mut Guide<'_>,
) -> Result<Value> {
    let wanted = platform::wanted(choice)?;
    // What an index says of an image counts, and without a choice an image alone is the one.
    let mut unsaid = choice.map(|_| &wanted);
    let mut found = found;
    // An index may lead to another one.
    for _ in 0..4 {
        let digest = sha256(&found.bytes);
        let what = format!("manifest {digest}");
        let index = match manifest::document(&found.bytes, &found.media_type, &what)? {
            Document::Index(index) => index,
            Document::Manifest(manifest) => {
                return take_manifest(store, source, &found, &digest, *manifest, unsaid, guide);
            }
        };
        let chosen = platform::choose(index.manifests(), &wanted)?;
        unsaid = unsaid.filter(|_| chosen.platform().is_none());
        found = Found {
            bytes: verified(source.manifest(chosen, guide)?, chosen)?,
            media_type: chosen.media_type().to_string(),
        };
    }
    let message = "indexes lead to indexes, more than four deep";
    Err(Error::new(Category::Spec, Stage::Image, message))
}

fn verified(bytes: Vec<u8>, descriptor: &Descriptor) -> Result<Vec<u8>> {
    let (digest, size) = (descriptor.digest().clone(), descriptor.size());
    let checked = io::copy(
        &mut digest::Verified::new(bytes.as_slice(), digest.clone(), Some(size))?,
        &mut io::sink(),
    );
    checked.map_err(|error| digest::unwrap(error, || format!("read blob {digest}")))?;
    Ok(bytes)
}

fn take_manifest(
    store: &Store,
    source: &mut dyn Source,
    found: &Found,
    digest: &Digest,
    manifest: oci_spec::image::ImageManifest,
    wanted: Option<&Platform>,
    guide: &mut Guide<'_>,
) -> Result<Value> {
    let what = format!("manifest {digest}");
    manifest::check_manifest(&manifest, &what)?;
    let (config_digest, size) = (manifest.config().digest(), manifest.config().size());
    let config = match store.document(config_digest, Some(size)) {
        Ok(config) => config,
        Err(_) => source.document(manifest.config(), guide)?,
    };
    let parts = manifest::parts(manifest, &config)?;
    if let Some(wanted) = wanted {
        platform::check(&parts.config, wanted)?;
    }
    for layer in parts.manifest.layers() {
        fetch(store, source, layer, guide)?;
    }
    let name = parts.manifest.config().digest().to_string();
    put(store, parts.manifest.config().digest(), &config)?;
    guide.finished(Step::Fetch, &name, config.len() as u64)?;
    put(store, digest, &found.bytes)?;
    let media_type = parts.manifest.media_type().as_ref().map_or_else(
        || match found.media_type.is_empty() {
            true => manifest::MANIFEST.to_owned(),
            false => found.media_type.clone(),
        },
        ToString::to_string,
    );
    Ok(descriptor(&media_type, digest, found.bytes.len() as u64, &parts.config))
}

/// Brings a blob into the store. Where the reading breaks off it goes on.
fn fetch(
    store: &Store,
    source: &mut dyn Source,
    descriptor: &Descriptor,
    guide: &mut Guide<'_>,
) -> Result<()> {
    let (digest, size) = (descriptor.digest(), descriptor.size());
    let name = digest.to_string();
    if store.has(digest, Some(size)) {
        return guide.finished(Step::Fetch, &name, size);
    }
    let mut draft = store.begin_blob_like(digest)?;
    guide.report(Step::Fetch, &name, 0, size)?;
    let (mut failures, mut restarts) = (0, 0);
    loop {
        let from = draft.size();
        let result = match source.blob(descriptor, from, guide)? {
            Some(reader) => copy(reader, &mut draft, &name, size, guide),
            // Where it breaks off each time, it never comes to an end.
            None if from > 0 && restarts < 3 => {
                restarts += 1;
                draft.restart(Hasher::like(digest)?)?;
                continue;
            }
            None if from > 0 => {
                let message = format!(
                    "blob {digest}: it breaks off again and again, the last time after {from} of \
                     {size} bytes"
                );
                return Err(Error::new(Category::System, Stage::Image, message));
            }
            None => {
                let message = format!("blob {digest}: it is not there");
                return Err(Error::new(Category::NotFound, Stage::Image, message));
            }
        };
        let error = match result {
            Ok(()) if draft.size() == size => break,
            // An end that a line makes is further on the next time.
            Ok(()) => {
                let message =
                    format!("blob {name}: it ends after {} of {size} bytes", draft.size());
                Error::new(Category::Spec, Stage::Image, message)
            }
            // What is wrong with the blob, the caller or this machine stays so.
            Err(error) if error.category() != Category::System => return Err(error),
            Err(error) => error,
        };
        failures = if draft.size() > from { 1 } else { failures + 1 };
        if failures > 3 {
            return Err(error);
        }
        tracing::debug!(blob = %name, at = draft.size(), %error, "interrupted, going on");
    }
    draft.keep(Some((digest, size)))?;
    guide.finished(Step::Fetch, &name, size)
}

/// Reads up to the end, wherever that is.
fn copy(
    mut source: Box<dyn Read + '_>,
    draft: &mut BlobDraft<'_>,
    name: &str,
    size: u64,
    guide: &mut Guide<'_>,
) -> Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(digest::unwrap(error, || format!("read blob {name}"))),
        };
        if draft.size() + count as u64 > size {
            let message = format!("blob {name}: it is longer than the {size} bytes it should have");
            return Err(Error::new(Category::Spec, Stage::Image, message));
        }
        draft.write_all(&buffer[..count]).map_err(|error| {
            let error = digest::unwrap(error, || format!("write blob {name}"));
            // Nothing that reading again would help.
            let helpless = error.category() == Category::System;
            if helpless { error.with_category(Category::Resource) } else { error }
        })?;
        guide.report(Step::Fetch, name, draft.size(), size)?;
    }
    Ok(())
}

fn put(store: &Store, digest: &Digest, bytes: &[u8]) -> Result<()> {
    let size = bytes.len() as u64;
    if store.has(digest, Some(size)) {
        return Ok(());
    }
    let mut draft = store.begin_blob_like(digest)?;
    draft
        .write_all(bytes)
        .map_err(|error| digest::unwrap(error, || format!("write blob {digest}")))?;
    draft.keep(Some((digest, size))).map(drop)
}

/// What the index says of an image.
pub(super) fn descriptor(
    media_type: &str,
    digest: &Digest,
    size: u64,
    config: &ImageConfiguration,
) -> Value {
    let mut platform = json!({
        "architecture": config.architecture().to_string(),
        "os": config.os().to_string(),
    });
    if let Some(variant) = config.variant() {
        platform["variant"] = variant.as_str().into();
    }
    json!({
        "mediaType": media_type,
        "digest": digest.to_string(),
        "size": size,
        "platform": platform,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::StoreOptions;
    use crate::image::transfer::Transfer;

    /// Gives this much each time, and nothing from within.
    struct Cut(&'static [u8], usize, usize);

    impl Source for Cut {
        fn blob<'s>(
            &'s mut self,
            _: &Descriptor,
            from: u64,
            _: &mut Guide<'_>,
        ) -> Result<Option<Box<dyn Read + 's>>> {
            struct Broken;
            impl Read for Broken {
                fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                    Err(io::ErrorKind::ConnectionReset.into())
                }
            }
            self.2 += 1;
            Ok((from == 0).then(|| Box::new(self.0[..self.1].chain(Broken)) as Box<dyn Read>))
        }
    }

    #[test]
    fn a_blob_that_breaks_off_each_time_is_given_up() {
        let dir = std::env::temp_dir().join(format!("locule-fetch-{}", std::process::id()));
        let store =
            Store::open(StoreOptions { path: Some(dir.clone()), ..StoreOptions::default() })
                .unwrap();
        let mut source = Cut(b"hello", 3, 0);
        let descriptor = Descriptor::new("text/plain".into(), 5, sha256(b"hello"));
        let guide = &mut Guide::new(Transfer::default());
        let error = fetch(&store, &mut source, &descriptor, guide).unwrap_err();
        assert!(error.to_string().contains("again and again"), "{error}");
        assert_eq!((error.category(), source.2), (Category::System, 8));
        assert_eq!(std::fs::read_dir(dir.join("drafts")).unwrap().count(), 0);
        std::fs::remove_dir_all(dir).unwrap();
    }
}

//! Takes an image out of wherever it is, blob by blob, each verified before it is in the store.

use std::io::{self, Read, Write};

use oci_spec::image::{Descriptor, Digest, ImageConfiguration, Platform};
use serde_json::{Value, json};

use super::digest::{Hasher, sha256};
use super::manifest::{self, Document};
use super::store::{BlobDraft, LARGEST_DOCUMENT, Store};
use super::transfer::{Guide, Step};
use super::{digest, layers, platform};
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

    /// Says that what was given of this blob is wrong, or never comes to an end. False if nobody else can be asked.
    fn pass_over(&mut self, _: &Descriptor) -> bool {
        false
    }

    /// Reads the document with this digest, of a size that fits into memory.
    fn document(&mut self, descriptor: &Descriptor, guide: &mut Guide<'_>) -> Result<Vec<u8>> {
        let (digest, size) = (descriptor.digest().clone(), descriptor.size());
        if size > LARGEST_DOCUMENT {
            let message = format!("blob {digest}: {size} bytes are too many for a document");
            return Err(Error::new(Category::Spec, Stage::Image, message));
        }
        let mut failures = 0;
        loop {
            let Some(source) = self.blob(descriptor, 0, guide)? else {
                let message = format!("blob {digest}: it is not there");
                return Err(Error::new(Category::NotFound, Stage::Image, message));
            };
            let mut bytes = Vec::new();
            let read = digest::Verified::new(source.take(size + 1), digest.clone(), Some(size))?
                .read_to_end(&mut bytes);
            let Err(error) = read else { return Ok(bytes) };
            let error = digest::unwrap(error, || format!("read blob {digest}"));
            failures += 1;
            if passes(&error) && failures <= RETRIES {
                continue;
            }
            if !is_its_own(&error) || !self.pass_over(descriptor) {
                return Err(error);
            }
            failures = 0;
        }
    }
}

/// How often something is tried again if nothing comes of it.
const RETRIES: u32 = 3;

/// Whether it may be gone the next time: a connection broke, or nothing came over it. Not if the call is over.
pub(super) fn passes(error: &Error) -> bool {
    match error.category() {
        Category::System => true,
        Category::Timeout => error.errno().is_some(),
        _ => false,
    }
}

/// Whether it is an error of who was asked: somebody else may do better.
fn is_its_own(error: &Error) -> bool {
    passes(error) || error.category() == Category::Spec
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
    let unpacked = layers::unpacked_chains(store)?;
    for (layer, chain_id) in parts.manifest.layers().iter().zip(layers::chain_ids(&parts)) {
        let (digest, size) = (layer.digest(), layer.size());
        // What was unpacked was right.
        let is_there = match unpacked.contains(&chain_id) {
            true => store.has(digest, Some(size)),
            false => is_whole(store, layer, guide)?,
        };
        match is_there {
            true => guide.finished(Step::Fetch, digest.as_ref(), size)?,
            false => fetch(store, source, layer, guide)?,
        }
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

/// Whether the store has a blob, with the right bytes.
fn is_whole(store: &Store, descriptor: &Descriptor, guide: &Guide<'_>) -> Result<bool> {
    let (digest, size) = (descriptor.digest(), descriptor.size());
    if !store.has(digest, Some(size)) {
        return Ok(false);
    }
    let mut source = digest::Verified::new(store.blob(digest)?, digest.clone(), Some(size))?;
    let mut buffer = vec![0; 128 << 10];
    loop {
        guide.check()?;
        match source.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::warn!(%error, "damaged in the store");
                return Ok(false);
            }
        }
    }
}

/// Brings a blob into the store, from the first who has it right.
fn fetch(
    store: &Store,
    source: &mut dyn Source,
    descriptor: &Descriptor,
    guide: &mut Guide<'_>,
) -> Result<()> {
    let (digest, size) = (descriptor.digest(), descriptor.size());
    let name = digest.to_string();
    loop {
        let mut draft = store.begin_blob_like(digest)?;
        let error = match fill(&mut draft, source, descriptor, guide)? {
            Ok(()) => match draft.keep(Some((digest, size))) {
                Ok(_) => return guide.finished(Step::Fetch, &name, size),
                Err(error) if error.category() == Category::Spec => error,
                Err(error) => return Err(error),
            },
            Err(error) => error,
        };
        if !source.pass_over(descriptor) {
            return Err(error);
        }
        tracing::warn!(blob = %name, %error, "it is asked for elsewhere");
    }
}

/// Reads a blob as one source has it, and goes on where that breaks off. The inner error is the source's own.
fn fill(
    draft: &mut BlobDraft<'_>,
    source: &mut dyn Source,
    descriptor: &Descriptor,
    guide: &mut Guide<'_>,
) -> Result<Result<()>> {
    let (digest, size) = (descriptor.digest(), descriptor.size());
    let name = digest.to_string();
    guide.report(Step::Fetch, &name, 0, size)?;
    let (mut failures, mut restarts) = (0, 0);
    loop {
        let from = draft.size();
        let ended = match source.blob(descriptor, from, guide)? {
            Some(reader) => copy(reader, draft, &name, size, guide)?,
            // Where it breaks off each time, it never comes to an end.
            None if from > 0 && restarts < RETRIES => {
                restarts += 1;
                draft.restart(Hasher::like(digest)?)?;
                continue;
            }
            None if from > 0 => {
                let message = format!(
                    "blob {digest}: it breaks off again and again, the last time after {from} of \
                     {size} bytes"
                );
                return Ok(Err(Error::new(Category::System, Stage::Image, message)));
            }
            None => {
                let message = format!("blob {digest}: it is not there");
                return Err(Error::new(Category::NotFound, Stage::Image, message));
            }
        };
        let error = match ended {
            Ok(()) if draft.size() == size => return Ok(Ok(())),
            // An end that a line makes is further on the next time.
            Ok(()) => {
                let message =
                    format!("blob {name}: it ends after {} of {size} bytes", draft.size());
                Error::new(Category::Spec, Stage::Image, message)
            }
            // What is wrong with the blob stays so.
            Err(error) if !passes(&error) => return Ok(Err(error)),
            // All of it is there, and its digest says whether it is right.
            Err(_) if draft.size() == size => return Ok(Ok(())),
            Err(error) => error,
        };
        failures = if draft.size() > from { 1 } else { failures + 1 };
        if failures > RETRIES {
            return Ok(Err(error));
        }
        tracing::debug!(blob = %name, at = draft.size(), %error, "interrupted, going on");
    }
}

/// Reads up to the end, wherever that is. The inner error is one of the reading.
fn copy(
    mut source: Box<dyn Read + '_>,
    draft: &mut BlobDraft<'_>,
    name: &str,
    size: u64,
    guide: &mut Guide<'_>,
) -> Result<Result<()>> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(Ok(())),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let error = digest::unwrap(error, || format!("read blob {name}"));
                return if is_its_own(&error) { Ok(Err(error)) } else { Err(error) };
            }
        };
        if draft.size() + count as u64 > size {
            let message = format!("blob {name}: it is longer than the {size} bytes it should have");
            return Ok(Err(Error::new(Category::Spec, Stage::Image, message)));
        }
        draft
            .write_all(&buffer[..count])
            .map_err(|error| digest::unwrap(error, || format!("write blob {name}")))?;
        guide.report(Step::Fetch, name, draft.size(), size)?;
    }
}

fn put(store: &Store, digest: &Digest, bytes: &[u8]) -> Result<()> {
    let size = bytes.len() as u64;
    // One that is damaged is written over.
    if store.document(digest, Some(size)).is_ok() {
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

    /// A store, and the blob `hello`.
    fn setup(name: &str) -> (Folder, Store, Descriptor) {
        let name = format!("locule-fetch-{}-{name}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        let options = StoreOptions { path: Some(folder.0.clone()), ..StoreOptions::default() };
        let store = Store::open(options).unwrap();
        (folder, store, Descriptor::new("text/plain".into(), 5, sha256(b"hello")))
    }

    struct Folder(std::path::PathBuf);

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_blob_that_breaks_off_each_time_is_given_up() {
        let (folder, store, descriptor) = setup("cut");
        let mut source = Cut(b"hello", 3, 0);
        let guide = &mut Guide::new(Transfer::default());
        let error = fetch(&store, &mut source, &descriptor, guide).unwrap_err();
        assert!(error.to_string().contains("again and again"), "{error}");
        assert_eq!((error.category(), source.2), (Category::System, 8));
        assert_eq!(std::fs::read_dir(folder.0.join("drafts")).unwrap().count(), 0);
    }

    /// What each source has, one after the other, and what comes after so many bytes each time.
    struct Copies<'a>(&'a [&'a [u8]], Option<(usize, fn() -> Error)>, Vec<u64>);

    impl Source for Copies<'_> {
        fn blob<'s>(
            &'s mut self,
            _: &Descriptor,
            from: u64,
            _: &mut Guide<'_>,
        ) -> Result<Option<Box<dyn Read + 's>>> {
            struct Failing(fn() -> Error);
            impl Read for Failing {
                fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                    Err(digest::wrap(self.0()))
                }
            }
            self.2.push(from);
            let Some(rest) = self.0[0].get(from as usize..) else { return Ok(None) };
            Ok(Some(match self.1 {
                Some((most, error)) => Box::new(rest[..most].chain(Failing(error))),
                None => Box::new(rest),
            }))
        }

        fn pass_over(&mut self, _: &Descriptor) -> bool {
            let others = self.0.len() > 1;
            if others {
                self.0 = &self.0[1..];
            }
            others
        }
    }

    #[test]
    fn silence_breaks_a_blob_off_and_the_end_of_the_call_ends_it() {
        fn silence() -> Error {
            Error::new(Category::Timeout, Stage::Image, "silent").with_errno(libc::ETIMEDOUT)
        }
        fn over() -> Error {
            Error::new(Category::Timeout, Stage::Image, "the deadline passed")
        }
        let (_folder, store, descriptor) = setup("silence");
        let guide = &mut Guide::new(Transfer::default());
        let mut late = Copies(&[b"hello", b"hello"], Some((1, over)), Vec::new());
        let error = fetch(&store, &mut late, &descriptor, guide).unwrap_err();
        assert_eq!((error.category(), late.2), (Category::Timeout, vec![0]));
        let mut vain = Copies(&[b"hello"], Some((0, silence)), Vec::new());
        let error = fetch(&store, &mut vain, &descriptor, guide).unwrap_err();
        assert_eq!((error.category(), vain.2.len()), (Category::Timeout, 4));
        let error = vain.document(&descriptor, guide).unwrap_err();
        assert_eq!(error.category(), Category::Timeout);
        // A byte each time will do.
        let mut slow = Copies(&[b"hello"], Some((1, silence)), Vec::new());
        fetch(&store, &mut slow, &descriptor, guide).unwrap();
        assert_eq!(slow.2, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_one_source_has_wrong_comes_from_the_next() {
        let (_folder, store, descriptor) = setup("copies");
        let guide = &mut Guide::new(Transfer::default());
        let copies: [&[u8]; 4] = [b"hellp", b"hello, too long", b"hel", b"hello"];
        let mut source = Copies(&copies, None, Vec::new());
        fetch(&store, &mut source, &descriptor, guide).unwrap();
        assert!(store.document(descriptor.digest(), Some(5)).is_ok());
        let mut source = Copies(&copies, None, Vec::new());
        assert_eq!(source.document(&descriptor, guide).unwrap(), b"hello");

        let other = Descriptor::new("text/plain".into(), 5, sha256(b"other"));
        let mut source = Copies(&copies, None, Vec::new());
        let error = fetch(&store, &mut source, &other, guide).unwrap_err();
        assert_eq!(error.category(), Category::Spec);
        assert_eq!(source.0.len(), 1);
    }

    /// A layout in memory.
    struct Memory(Vec<Vec<u8>>, Vec<String>);

    impl Source for Memory {
        fn blob<'s>(
            &'s mut self,
            descriptor: &Descriptor,
            _: u64,
            _: &mut Guide<'_>,
        ) -> Result<Option<Box<dyn Read + 's>>> {
            self.1.push(descriptor.digest().to_string());
            let found = self.0.iter().find(|blob| sha256(blob) == *descriptor.digest());
            Ok(found.map(|blob| Box::new(blob.as_slice()) as Box<dyn Read>))
        }
    }

    #[test]
    fn what_was_damaged_in_the_store_is_replaced() {
        let (_folder, store, _) = setup("damage");
        let layer = vec![0; 1024];
        let diff_id = sha256(&layer);
        let wanted = platform::wanted(None).unwrap();
        let config = json!({
            "architecture": wanted.architecture().to_string(),
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        });
        let config = config.to_string().into_bytes();
        let descriptor = json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": diff_id.to_string(),
            "size": layer.len(),
        });
        let manifest = manifest::text(&sha256(&config), config.len(), vec![descriptor]);
        let blobs = [manifest.clone(), config.clone(), layer.clone()];
        let mut source = Memory(blobs[1..].to_vec(), Vec::new());
        let guide = &mut Guide::new(Transfer::default());
        let mut take = |source: &mut Memory| {
            let found = Found { bytes: manifest.clone(), media_type: String::new() };
            take(&store, source, found, None, guide).unwrap();
            std::mem::take(&mut source.1).len()
        };
        assert_eq!(take(&mut source), 2);
        assert_eq!(take(&mut source), 0);
        for blob in &blobs {
            let path = store.blob_path(&sha256(blob));
            std::fs::write(&path, vec![1; blob.len()]).unwrap();
            take(&mut source);
            assert_eq!(std::fs::read(&path).unwrap(), *blob);
        }
        // An unpacked layer is not read again.
        std::fs::create_dir(store.path.join("layers").join(format!("{}-x", diff_id.digest())))
            .unwrap();
        std::fs::write(store.blob_path(&diff_id), vec![1; layer.len()]).unwrap();
        assert_eq!(take(&mut source), 0);
    }
}

//! An image is written to an OCI layout: a directory, or a tar file that `docker load` reads, too.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::image::Digest;
use serde_json::{Value, json};

use super::digest::{Verified, unwrap};
use super::manifest::Parts;
use super::store::{LOCK, REF_NAME, Store, index_document, make_dir};
use super::transfer::{Guide, Reported, Step};
use crate::{Category, Error, Result, Stage};

/// The image to write.
pub(super) struct Saved<'a> {
    pub(super) store: &'a Store,
    pub(super) descriptor: &'a Value,
    pub(super) manifest: (&'a Digest, u64),
    pub(super) parts: &'a Parts,
    pub(super) name: Option<&'a str>,
}

impl Saved<'_> {
    /// Every blob once: layers, configuration, manifest.
    fn blobs(&self) -> Vec<(&Digest, u64)> {
        let manifest = &self.parts.manifest;
        let layers = manifest.layers().iter().chain([manifest.config()]);
        let mut blobs: Vec<_> = layers.map(|blob| (blob.digest(), blob.size())).collect();
        blobs.push(self.manifest);
        let mut seen = std::collections::HashSet::new();
        blobs.retain(|(digest, _)| seen.insert(digest.to_string()));
        blobs
    }

    fn entry(&self) -> Value {
        let mut entry = self.descriptor.clone();
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("annotations");
        }
        if let Some(name) = self.name {
            entry["annotations"] = json!({ REF_NAME: name });
        }
        entry
    }

    fn open(&self, digest: &Digest, size: u64) -> Result<Verified<File>> {
        Verified::new(self.store.blob(digest)?, digest.clone(), Some(size))
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |error| unwrap(error, || format!("write {path:?}"))
}

/// Adds the image to a layout directory, which is made if it is missing. In place of one of the same name.
pub(super) fn to_directory(image: &Saved<'_>, dir: &Path, guide: &mut Guide<'_>) -> Result<()> {
    if dir.join(LOCK).exists() {
        let message = format!("{dir:?} is an image store: load the image there instead");
        return Err(Error::new(Category::Invalid, Stage::Image, message));
    }
    let exists = dir.join("oci-layout").is_file();
    let make = |path: &Path| make_dir(path, 0o755).map_err(failed(path));
    make(dir)?;
    if !exists {
        for entry in fs::read_dir(dir).map_err(failed(dir))? {
            let name = entry.map_err(failed(dir))?.file_name();
            // Another thread's beginning, or what one that was killed has left.
            let begun = ["blobs", "index.json", "oci-layout"]
                .iter()
                .any(|part| name.as_encoded_bytes().starts_with(part.as_bytes()));
            if !begun {
                let message = format!("{dir:?} is neither an image layout nor empty");
                return Err(Error::new(Category::Invalid, Stage::Image, message));
            }
        }
    }
    make(&dir.join("blobs"))?;
    for (digest, size) in image.blobs() {
        let folder = dir.join("blobs").join(digest.algorithm().as_ref());
        make(&folder)?;
        let path = folder.join(digest.digest());
        if fs::metadata(&path).is_ok_and(|there| there.is_file() && there.len() == size) {
            guide.finished(Step::Save, digest.as_ref(), size)?;
            continue;
        }
        whole(&path, &mut |file| {
            let blob = &mut image.open(digest, size)?;
            let mut source = reported(blob, digest, size, guide);
            let copied = io::copy(&mut source, file);
            copied.map(drop).map_err(|error| unwrap(error, || format!("write blob {digest}")))
        })?;
        guide.finished(Step::Save, digest.as_ref(), size)?;
    }
    let _lock = alone(dir, guide)?;
    let path = dir.join("index.json");
    let mut manifests = match fs::read(&path) {
        Ok(bytes) => {
            let index: Value = super::manifest::parse(&bytes, &format!("{path:?}"))?;
            index["manifests"].as_array().cloned().unwrap_or_default()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed(&path)(error)),
    };
    let new = image.entry();
    manifests.retain(|old| {
        old["annotations"][REF_NAME] != new["annotations"][REF_NAME]
            || new["annotations"][REF_NAME].is_null() && old["digest"] != new["digest"]
    });
    manifests.push(new);
    let text = index_document(manifests).to_string();
    whole(&path, &mut |file| file.write_all(text.as_bytes()).map_err(failed(&path)))?;
    let path = dir.join("oci-layout");
    whole(&path, &mut |file| file.write_all(LAYOUT.as_bytes()).map_err(failed(&path)))
}

/// Has one writer only of a layout's index, where the filesystem has locks.
fn alone(dir: &Path, guide: &Guide<'_>) -> Result<Option<Flock<File>>> {
    let mut file = File::open(dir).map_err(failed(dir))?;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
            Err(_) => return Ok(None),
        };
        guide.check()?;
        std::thread::sleep(Duration::from_millis(5));
    }
}

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// Writes an archive: the same bytes for the same image and name.
pub(super) fn to_archive(image: &Saved<'_>, path: &Path, guide: &mut Guide<'_>) -> Result<()> {
    whole(path, &mut |file| {
        let mut archive = tar::Builder::new(io::BufWriter::with_capacity(256 << 10, file));
        let mut folders = vec!["blobs".to_owned()];
        for (digest, _) in image.blobs() {
            folders.push(format!("blobs/{}", digest.algorithm()));
        }
        folders.dedup();
        for folder in folders {
            let mut header = header(0o755, 0);
            header.set_entry_type(tar::EntryType::Directory);
            archive
                .append_data(&mut header, format!("{folder}/"), io::empty())
                .map_err(failed(path))?;
        }
        let mut blobs = image.blobs();
        blobs.sort_by_key(|(digest, _)| digest.to_string());
        for (digest, size) in blobs {
            let blob = &mut image.open(digest, size)?;
            let mut source = reported(blob, digest, size, guide);
            archive
                .append_data(&mut header(0o644, size), blob_name(digest), &mut source)
                .map_err(failed(path))?;
            // To the end, where the digest is checked.
            io::copy(&mut source, &mut io::sink()).map_err(failed(path))?;
            guide.finished(Step::Save, digest.as_ref(), size)?;
        }
        let documents = [
            ("index.json", index_document(vec![image.entry()]).to_string()),
            ("manifest.json", docker(image).to_string()),
            ("oci-layout", LAYOUT.to_owned()),
        ];
        for (name, text) in documents {
            let mut header = header(0o644, text.len() as u64);
            archive.append_data(&mut header, name, text.as_bytes()).map_err(failed(path))?;
        }
        let mut file = archive.into_inner().map_err(failed(path))?;
        file.flush().map_err(failed(path))
    })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

/// What `docker load` looks for.
fn docker(image: &Saved<'_>) -> Value {
    let manifest = &image.parts.manifest;
    let layers: Vec<_> = manifest.layers().iter().map(|layer| blob_name(layer.digest())).collect();
    // A name with a digest is none that Docker would give an image.
    let names: Vec<_> = image.name.into_iter().filter(|name| !name.contains('@')).collect();
    json!([{ "Config": blob_name(manifest.config().digest()), "RepoTags": names, "Layers": layers }])
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Makes a file under another name first: it is there whole, or not at all.
fn whole(path: &Path, write: &mut dyn FnMut(&mut File) -> Result<()>) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Other threads may write the same file at this moment.
    name.push(format!(".{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let draft: PathBuf = path.with_file_name(name);
    let _ = fs::remove_file(&draft);
    let mut options = File::options();
    let file = options.write(true).create_new(true).mode(0o644).open(&draft);
    let mut file = file.map_err(failed(path))?;
    let mode = file.set_permissions(PermissionsExt::from_mode(0o644));
    let written = mode
        .map_err(failed(path))
        .and_then(|()| write(&mut file))
        .and_then(|()| file.sync_data().map_err(failed(path)))
        .and_then(|()| fs::rename(&draft, path).map_err(failed(path)));
    if written.is_err() {
        let _ = fs::remove_file(&draft);
    }
    written
}

/// In pieces of a size that is worth a report.
fn reported<'a, 'g>(
    blob: &'a mut Verified<File>,
    digest: &'a Digest,
    size: u64,
    guide: &'a mut Guide<'g>,
) -> BufReader<Reported<'a, 'g>> {
    BufReader::with_capacity(256 << 10, Reported::new(blob, Step::Save, digest, size, guide))
}

//! The store on disk: an OCI image layout, with unpacked layers beside it.
//!
//! ```text
//! oci-layout, index.json, blobs/   what the image-spec says; names are whole references
//! layers/KEY/root                  an unpacked layer, for overlayfs
//! uses/NAME                        what a container was made from, as long as it exists
//! drafts/                          what is being made
//! lock                             held shared by who makes something, alone by who removes
//! index.lock                       held by who changes index.json
//! ```
//!
//! What has its final name is whole: everything is made in `drafts` and renamed. A process that is
//! killed leaves drafts, which the next `prune` removes: it holds `lock` alone, so nobody is making any.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::image::Digest;
use serde_json::{Value, json};

use super::StoreOptions;
use super::digest::{Hasher, Verified, unwrap};
use super::transfer::Guide;
use crate::{Category, Error, Result, Stage};

/// The annotation under which an index has an image's name.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Manifests, indexes and configurations are read to memory.
pub(super) const LARGEST_DOCUMENT: u64 = 4 << 20;

/// Held by who makes something, or alone by who removes.
pub(super) const LOCK: &str = "lock";

/// How long prune and changes of the index wait for others.
const PATIENCE: Duration = Duration::from_secs(30);

/// The folder.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) path: PathBuf,
    pub(super) read_only: bool,
    /// The command `locule`, if the caller says where it is.
    pub(super) command: Option<PathBuf>,
}

/// Held by who makes something in the store: nothing is removed meanwhile.
#[derive(Debug)]
pub(super) struct Making(#[allow(dead_code, reason = "unlocks when dropped")] Option<Flock<File>>);

/// An image in the index.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) name: Option<String>,
    pub(super) descriptor: Value,
    pub(super) digest: String,
}

impl Store {
    pub(super) fn open(options: StoreOptions) -> Result<Store> {
        let StoreOptions { path, read_only, command } = options;
        let path = match path {
            Some(path) => std::path::absolute(&path).map_err(|error| {
                Error::io(Stage::Arguments, &error, format!("image store {path:?}"))
            })?,
            None => default_path()?,
        };
        let store = Store { path, read_only, command };
        if !read_only {
            store.make()?;
        }
        store.check_owner()?;
        if !store.path.join("oci-layout").is_file() {
            let message = format!("{:?} is no image store: it has no file oci-layout", store.path);
            return Err(Error::new(Category::NotFound, Stage::Image, message));
        }
        Ok(store)
    }

    /// Makes what is missing. Layers are reached through the store by containers' own users, so others
    /// may pass, but not look.
    fn make(&self) -> Result<()> {
        let failed = |error: io::Error| {
            let message = format!("make the image store {:?}", self.path);
            let refused = Error::io(Stage::Image, &error, message);
            match refused.errno() {
                Some(libc::ENOTDIR) => refused.with_category(Category::Invalid),
                _ => refused,
            }
        };
        let mut missing: Vec<&Path> = self.path.ancestors().skip(1).collect();
        missing.retain(|path| !path.exists());
        for path in missing.into_iter().rev() {
            make_dir(path, 0o755).map_err(failed)?;
        }
        make_dir(&self.path, 0o711).map_err(failed)?;
        // Before anything is made in what is another user's, who could have it made elsewhere.
        self.check_owner()?;
        let parts = [
            ("blobs", 0o700),
            ("blobs/sha256", 0o700),
            ("blobs/sha512", 0o700),
            ("layers", 0o711),
            ("uses", 0o700),
            ("drafts", 0o711),
        ];
        for (name, mode) in parts {
            make_dir(&self.path.join(name), mode).map_err(failed)?;
        }
        let texts = [
            ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })),
            ("index.json", index_document(Vec::new())),
        ];
        for (name, document) in texts {
            if !self.path.join(name).exists() {
                // Of several that make it, one wins, and no index that somebody has filled is lost.
                let draft = self.draft(name);
                fs::write(&draft, document.to_string()).map_err(failed)?;
                fs::set_permissions(&draft, PermissionsExt::from_mode(0o600)).map_err(failed)?;
                let linked = fs::hard_link(&draft, self.path.join(name));
                let _ = fs::remove_file(&draft);
                match linked {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(failed(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What is in it becomes containers' files, so it has to be this user's or root's.
    fn check_owner(&self) -> Result<()> {
        let metadata = fs::metadata(&self.path).map_err(|error| {
            Error::io(Stage::Image, &error, format!("open the image store {:?}", self.path))
        })?;
        // SAFETY: reads no memory and cannot fail.
        let euid = unsafe { libc::geteuid() };
        if !self.read_only && metadata.uid() != euid || metadata.mode() & 0o022 != 0 {
            let what = match metadata.mode() & 0o022 {
                0 => "belongs to another user",
                _ => "can be written to by others",
            };
            let message = format!("the image store {:?} {what}", self.path);
            return Err(Error::new(Category::Permission, Stage::Image, message).hint(
                "give a store of your own, or open this one read-only if others cannot write to it",
            ));
        }
        Ok(())
    }

    fn writable(&self) -> Result<()> {
        match self.read_only {
            false => Ok(()),
            true => {
                let message = format!("the image store {:?} was opened read-only", self.path);
                Err(Error::new(Category::State, Stage::Image, message).with_errno(libc::EROFS))
            }
        }
    }

    /// A path in `drafts` that nobody else uses.
    pub(super) fn draft(&self, what: &str) -> PathBuf {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut random = [0u8; 8];
        // Other pid namespaces have the same pids.
        // SAFETY: writes at most the length that it is given.
        unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), libc::GRND_NONBLOCK) };
        let random = u64::from_ne_bytes(random);
        let pid = std::process::id();
        self.path.join("drafts").join(format!("{what}.{pid}.{count}.{random:016x}"))
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.path.join(name);
        let mut options = File::options();
        options.read(true);
        if !self.read_only {
            options.write(true).create(true).truncate(false).mode(0o600);
        }
        options
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(|error| Error::io(Stage::Image, &error, format!("open {path:?}")))
    }

    fn lock(
        &self,
        name: &str,
        how: FlockArg,
        go_on: &dyn Fn() -> Result<()>,
    ) -> Result<Flock<File>> {
        let mut file = self.lock_file(name)?;
        loop {
            file = match Flock::lock(file, how) {
                Ok(lock) => return Ok(lock),
                Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => file,
                Err((_, errno)) => {
                    let message = format!("lock {:?}", self.path.join(name));
                    return Err(Error::os(Stage::Image, errno as i32, message));
                }
            };
            go_on()?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// To be held while something is made that nothing refers to yet.
    pub(super) fn making(&self, guide: &Guide<'_>) -> Result<Making> {
        self.writable()?;
        let check = || guide.check();
        Ok(Making(Some(self.lock(LOCK, FlockArg::LockSharedNonblock, &check)?)))
    }

    /// As [`Store::making`], or nothing in a store that is only read.
    pub(super) fn using(&self, guide: &Guide<'_>) -> Result<Making> {
        match self.read_only {
            true => Ok(Making(None)),
            false => self.making(guide),
        }
    }

    /// As [`Store::making`], for what is done at once.
    pub(super) fn making_soon(&self) -> Result<Making> {
        self.writable()?;
        let check = self.patience("something is being removed from it");
        Ok(Making(Some(self.lock(LOCK, FlockArg::LockSharedNonblock, &check)?)))
    }

    /// To be held while things are removed.
    pub(super) fn alone(&self, guide: &Guide<'_>) -> Result<Making> {
        self.writable()?;
        let patience = self.patience("others are making images or containers in it");
        let check = || guide.check().and_then(|()| patience());
        Ok(Making(Some(self.lock(LOCK, FlockArg::LockExclusiveNonblock, &check)?)))
    }

    /// Has one maker only of something, while the others wait.
    pub(super) fn only_maker(&self, of: &str, guide: &Guide<'_>) -> Result<Making> {
        let check = || guide.check();
        let name = format!("drafts/{of}.lock");
        Ok(Making(Some(self.lock(&name, FlockArg::LockExclusiveNonblock, &check)?)))
    }

    fn patience(&self, why: &'static str) -> impl Fn() -> Result<()> {
        let (begun, path) = (Instant::now(), self.path.clone());
        move || match begun.elapsed() < PATIENCE {
            true => Ok(()),
            false => {
                let message = format!("the image store {path:?} is in use: {why}");
                Err(Error::new(Category::Busy, Stage::Image, message))
            }
        }
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        // The digest was parsed: no part of it can lead elsewhere.
        self.path.join("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
    }

    /// Whether the blob is there. One of another size is none.
    pub(super) fn has(&self, digest: &Digest, size: Option<u64>) -> bool {
        fs::metadata(self.blob_path(digest))
            .is_ok_and(|found| found.is_file() && size.is_none_or(|size| size == found.len()))
    }

    /// A blob to read. Not verified.
    pub(super) fn blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        File::options().read(true).custom_flags(flags).open(path).map_err(|error| {
            let message = format!("read blob {digest} of the image store {:?}", self.path);
            let error = Error::io(Stage::Image, &error, message);
            match error.category() {
                Category::NotFound => error
                    .hint("the image was removed, or the store is damaged: pull or load it again"),
                _ => error,
            }
        })
    }

    /// A verified document.
    pub(super) fn document(&self, digest: &Digest, size: Option<u64>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.blob(digest)?;
        Verified::new(file.take(LARGEST_DOCUMENT + 1), digest.clone(), size)?
            .read_to_end(&mut bytes)
            .map_err(|error| unwrap(error, || format!("read blob {digest}")))?;
        Ok(bytes)
    }

    /// Adds a blob of bytes in memory.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let mut draft = self.begin_blob()?;
        draft
            .write_all(bytes)
            .map_err(|error| unwrap(error, || format!("write a blob to {:?}", self.path)))?;
        draft.keep(None)
    }

    pub(super) fn begin_blob(&self) -> Result<BlobDraft<'_>> {
        self.writable()?;
        let path = self.draft("blob");
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| {
            Error::io(
                Stage::Image,
                &error,
                format!("make a blob in the image store {:?}", self.path),
            )
        })?;
        Ok(BlobDraft { store: self, file, path, hasher: Hasher::sha256(), size: 0, kept: false })
    }

    /// As [`Store::begin_blob`], with the digest's own algorithm.
    pub(super) fn begin_blob_like(&self, digest: &Digest) -> Result<BlobDraft<'_>> {
        let mut draft = self.begin_blob()?;
        draft.hasher = Hasher::like(digest)?;
        Ok(draft)
    }

    /// The images of the index.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        let path = self.path.join("index.json");
        let bytes = fs::read(&path)
            .map_err(|error| Error::io(Stage::Image, &error, format!("read {path:?}")))?;
        let index: Value = serde_json::from_slice(&bytes).map_err(|error| {
            Error::new(Category::Spec, Stage::Image, format!("{path:?} is damaged: {error}"))
        })?;
        let manifests = index["manifests"].as_array().cloned().unwrap_or_default();
        Ok(manifests.into_iter().filter_map(entry_of).collect())
    }

    /// Changes the index: all or nothing, and nobody else at the same time.
    pub(super) fn change_index<T>(
        &self,
        change: impl FnOnce(&mut Vec<Entry>) -> Result<T>,
    ) -> Result<T> {
        self.writable()?;
        let check = self.patience("another process keeps its index locked");
        let _lock = self.lock("index.lock", FlockArg::LockExclusiveNonblock, &check)?;
        let mut entries = self.entries()?;
        let before = entries.clone();
        let result = change(&mut entries)?;
        if entries != before {
            let manifests = entries.into_iter().map(|entry| entry.descriptor).collect();
            let text = index_document(manifests).to_string();
            self.replace("index.json", text.as_bytes())?;
        }
        Ok(result)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let draft = self.draft(name);
        let written = (|| {
            let mut options = File::options();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&draft, self.path.join(name))
        })();
        written.map_err(|error| {
            let _ = fs::remove_file(&draft);
            Error::io(Stage::Image, &error, format!("write {:?}", self.path.join(name)))
        })
    }

    /// Gives an image that is in the store a name, which no other image has any more, or sees to it that it is in
    /// the index without one.
    pub(super) fn enter(&self, descriptor: &Value, name: Option<&str>) -> Result<()> {
        let mut descriptor = descriptor.clone();
        if let Some(name) = name {
            descriptor["annotations"] = json!({ REF_NAME: name });
        }
        let new = entry_of(descriptor).expect("a descriptor has a digest");
        self.change_index(|entries| {
            if name.is_none() {
                if !entries.iter().any(|entry| entry.digest == new.digest) {
                    entries.push(new);
                }
                return Ok(());
            }
            // Who loses its name stays, without one, until it is pruned.
            let losing = entries.iter().position(|entry| entry.name.as_deref() == name);
            if let Some(index) = losing {
                let old = entries.remove(index);
                let still = entries.iter().any(|entry| entry.digest == old.digest);
                if old.digest != new.digest && !still {
                    entries.push(nameless(old));
                }
            }
            entries.retain(|entry| entry.digest != new.digest || entry.name.is_some());
            entries.push(new);
            Ok(())
        })
    }
}

/// Makes a directory with this mode, whatever the umask is. One that is there is left as it is.
pub(super) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    // Whoever can write to its parent may have put something else there. It is not to be opened:
    // its owner may not be allowed to.
    let made = Path::new("/proc/self/fd");
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = File::options().read(true).custom_flags(flags).open(path)?;
    fs::set_permissions(made.join(opened.as_raw_fd().to_string()), PermissionsExt::from_mode(mode))
}

/// The entry without its name.
fn nameless(mut entry: Entry) -> Entry {
    entry.name = None;
    if let Some(descriptor) = entry.descriptor.as_object_mut() {
        descriptor.remove("annotations");
    }
    entry
}

fn entry_of(descriptor: Value) -> Option<Entry> {
    let digest = descriptor["digest"].as_str()?.to_owned();
    let name = descriptor["annotations"][REF_NAME].as_str().map(str::to_owned);
    Some(Entry { name, descriptor, digest })
}

pub(super) fn index_document(manifests: Vec<Value>) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    })
}

/// A blob that is being written. Dropped before it is kept, it is removed.
pub(super) struct BlobDraft<'a> {
    store: &'a Store,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
    kept: bool,
}

impl BlobDraft<'_> {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Forgets what was written.
    pub(super) fn restart(&mut self, hasher: Hasher) -> Result<()> {
        self.hasher = hasher;
        self.size = 0;
        let again = self.file.set_len(0).and_then(|()| io::Seek::rewind(&mut self.file));
        again.map_err(|error| {
            Error::io(Stage::Image, &error, format!("begin {:?} again", self.path))
        })
    }

    /// Gives the blob its name, if it is the one that was asked for.
    pub(super) fn keep(mut self, expected: Option<(&Digest, u64)>) -> Result<Digest> {
        let found = self.hasher.clone().finish();
        if let Some((digest, size)) = expected {
            let wrong = match (self.size == size, found == *digest) {
                (true, true) => None,
                (false, _) => Some(format!("it has {} bytes instead of {size}", self.size)),
                (true, false) => Some(format!("its bytes have the digest {found}")),
            };
            if let Some(wrong) = wrong {
                let message = format!("blob {digest}: {wrong}");
                return Err(Error::new(Category::Spec, Stage::Image, message));
            }
        }
        let target = self.store.blob_path(&found);
        self.file
            .sync_data()
            .and_then(|()| fs::rename(&self.path, target))
            .map_err(|error| Error::io(Stage::Image, &error, format!("keep blob {found}")))?;
        self.kept = true;
        Ok(found)
    }
}

impl Write for BlobDraft<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobDraft<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn default_path() -> Result<PathBuf> {
    // SAFETY: reads no memory and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        return Ok("/var/lib/locule/images".into());
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").or_else(|| Some(set("HOME")?.join(".local/share")));
    match data.filter(|path| path.is_absolute()) {
        Some(data) => Ok(data.join("locule/images")),
        None => Err(Error::new(
            Category::Invalid,
            Stage::Arguments,
            "no place for an image store: neither XDG_DATA_HOME nor HOME is set",
        )
        .hint("give the store's path")),
    }
}

/// The size of what is at a path, as far as it can be seen.
pub(super) fn size_of(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |found| found.len())
}

/// The name of something right in a folder.
pub(super) fn plain(name: &str) -> Result<&str> {
    if matches!(name, "" | "." | "..") || name.contains('/') {
        return Err(Error::new(Category::Invalid, Stage::Image, format!("no name: {name:?}")));
    }
    Ok(name)
}

//! Compiled components, kept from run to run.
//!
//! Compiled code is trusted: whoever could put a file here could run code in this process. So the
//! directory belongs to this user alone, and each file begins with a code over the rest, made with
//! a key that is this user's, too (HMAC-SHA-256). It is read whole, checked, and loaded from the
//! same bytes. What is not as it should be is compiled again. No failure here is anybody else's.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use sha2::Sha256;

const KEY: &str = "key";
const CODE: usize = 32;

/// A directory with compiled components.
pub(crate) struct Cache {
    directory: PathBuf,
    key: [u8; 32],
}

impl Cache {
    /// Opens it, making it if it is missing; or says why there is none.
    pub(crate) fn open(directory: &Path) -> Result<Cache, String> {
        let failed = |what: &str, error: std::io::Error| format!("{what} {directory:?}: {error}");
        crate::directory::make(directory).map_err(|it| failed("create", it))?;
        let metadata = std::fs::symlink_metadata(directory).map_err(|it| failed("look at", it))?;
        let own = nix::unistd::geteuid().as_raw();
        if !metadata.is_dir() || metadata.uid() != own || metadata.mode() & 0o077 != 0 {
            return Err(format!(
                "{directory:?} is not a directory of this user's alone (mode 0700)"
            ));
        }
        let key = read_key(directory).map_err(|it| failed("keep a key in", it))?;
        Ok(Cache { directory: directory.to_owned(), key })
    }

    /// The compiled component of this name, if it is there and is what was put there.
    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = read_own(&self.path(name)).ok()?;
        let code: [u8; CODE] = bytes.get(..CODE)?.try_into().ok()?;
        let verdict = self.code(name, &bytes[CODE..]).verify_slice(&code);
        if verdict.is_err() {
            tracing::warn!(%name, "a compiled plugin in the cache is not what was put there");
            return None;
        }
        bytes.drain(..CODE);
        Some(bytes)
    }

    /// Keeps a compiled component; whoever reads meanwhile finds the old file or the new one.
    #[cfg(feature = "compile")]
    pub(crate) fn put(&self, name: &str, compiled: &[u8]) {
        let temporary = self.path(&format!(".{}-{name}", std::process::id()));
        let write = || -> std::io::Result<()> {
            let mut options = File::options();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.custom_flags(libc::O_NOFOLLOW).open(&temporary)?;
            file.write_all(&self.code(name, compiled).finalize().into_bytes())?;
            file.write_all(compiled)?;
            std::fs::rename(&temporary, self.path(name))
        };
        if let Err(error) = write() {
            let _ = std::fs::remove_file(&temporary);
            tracing::warn!(%error, %name, "a compiled plugin could not be kept");
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The name belongs to what is vouched for: one file cannot be another's.
    fn code(&self, name: &str, compiled: &[u8]) -> Hmac<Sha256> {
        let mut code = Hmac::<Sha256>::new_from_slice(&self.key).expect("every length is allowed");
        code.update(&(name.len() as u64).to_le_bytes());
        code.update(name.as_bytes());
        code.update(compiled);
        code
    }
}

/// Where compiled components are kept by default.
pub(crate) fn default_directory() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some(PathBuf::from("/var/cache/locule/plugins"));
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = set("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(set("HOME")?).join(".cache")))?;
    Some(cache.join("locule/plugins"))
}

/// The key, which the first one makes.
fn read_key(directory: &Path) -> std::io::Result<[u8; 32]> {
    let path = directory.join(KEY);
    for _ in 0..100 {
        match read_own(&path) {
            Ok(bytes) => match bytes.try_into() {
                Ok(key) => return Ok(key),
                Err(_) => return Err(std::io::Error::other("the key is damaged")),
            },
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        let mut key = [0; 32];
        // SAFETY: the buffer is as long as is said.
        let got = unsafe { libc::getrandom(key.as_mut_ptr().cast(), key.len(), 0) };
        if got != key.len() as isize {
            return Err(std::io::Error::last_os_error());
        }
        // Linked when it is whole: of several that do this at a time, one wins.
        let temporary = directory.join(format!(".{}-{KEY}-{:016x}", std::process::id(), key[0]));
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&key)?;
        let linked = std::fs::hard_link(&temporary, &path);
        std::fs::remove_file(&temporary)?;
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Err(std::io::Error::other("the key comes and goes"))
}

/// Reads a regular file of this user's that nobody else can read or write.
fn read_own(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut options = File::options();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = options.read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let own = metadata.uid() == nix::unistd::geteuid().as_raw();
    if !metadata.is_file() || !own || metadata.mode() & 0o077 != 0 {
        return Err(std::io::Error::other("it is not a file of this user's alone"));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize + 1);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

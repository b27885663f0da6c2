//! A container's directory: `state.json`, `init`, the keeper's sockets, and the lock.
//!
//! Whoever creates, starts to delete or cleans up a container holds an exclusive `flock` on
//! its directory. The kernel drops the lock of a dead process, so a directory that nobody has
//! locked and that has no complete record was left by a crash.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;

use super::pidfd::Identity;
use super::record::Record;
use crate::{Category, Error, Result, Stage};

const RECORD: &str = "state.json";
/// The first process, once there is one. Its own file, because a rename over an existing one
/// makes journalling filesystems wait for the disk.
const INIT: &str = "init";

/// The directory of one container.
#[derive(Debug)]
pub(super) struct StateDir {
    pub(super) path: PathBuf,
    /// Not the descriptor that is locked: this one is shared with the keeper.
    dir: File,
}

/// `mkdir` with mode 0700 whatever the host's umask is, which is not to be changed.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o700))
}

/// The same, parents included. The directory may exist already.
pub(super) fn make_directories(path: &Path) -> io::Result<()> {
    match make_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directories(path.parent().ok_or(error)?)?;
            make_directories(path)
        }
        Err(_) if path.is_dir() => Ok(()),
        other => other,
    }
}

/// Held while the container is being made or unmade.
pub(super) struct Lock(#[allow(dead_code, reason = "unlocks when dropped")] Flock<File>);

/// Checks an id: what runc takes, so that a name is good for both.
pub(super) fn check_id(id: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id.len() > 1024 || id == "." || id == ".." || !id.bytes().all(fits) {
        return Err(Error::new(
            Category::Invalid,
            Stage::Arguments,
            format!("invalid container ID format: {id:?}"),
        )
        .hint("use letters, digits and _ + - . only"));
    }
    Ok(())
}

impl StateDir {
    /// Makes the directory of a new container and locks it. `None` if there is one already.
    pub(super) fn make(root: &Path, id: &str) -> Result<Option<(StateDir, Lock)>> {
        let path = root.join(id);
        loop {
            match make_directory(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                // Made, and taken for what a crash had left before it had its mode: see below.
                Err(error) if error.kind() == io::ErrorKind::NotFound && root.is_dir() => continue,
                Err(error) => {
                    let message = format!("create the state directory {path:?}");
                    return Err(Error::io(Stage::State, &error, message));
                }
                Ok(()) => {}
            }
            let made = Self::open(root, id).and_then(|dir| {
                let lock = dir.lock(Duration::from_secs(1))?;
                let taken = dir.read()?.is_some();
                Ok((!taken).then_some((dir, lock)))
            });
            match made {
                // None: between the steps this became the directory of another creator, who
                // was quicker to lock it.
                Ok(made) => return Ok(made),
                // Another call took it for what a crash had left, and removed it: the id is
                // free, unless that call makes it again first.
                Err(error) if error.category() == Category::NotFound => continue,
                Err(error) if error.category() == Category::Busy => return Ok(None),
                Err(error) => {
                    let _ = fs::remove_dir(&path);
                    return Err(error);
                }
            }
        }
    }

    /// Opens the directory of an existing container.
    pub(super) fn open(root: &Path, id: &str) -> Result<StateDir> {
        let path = root.join(id);
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW);
        match options.open(&path) {
            Ok(dir) => Ok(StateDir { path, dir }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(not_found(id)),
            Err(error) => {
                let message = format!("open the state directory {path:?}");
                Err(Error::io(Stage::State, &error, message))
            }
        }
    }

    /// Locks the directory, waiting for another holder as long as `patience`.
    pub(super) fn lock(&self, patience: Duration) -> Result<Lock> {
        let until = Instant::now() + patience;
        loop {
            // By the descriptor: the path may lead to another container's directory by now.
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let file = openat(&self.dir, ".", flags, Mode::empty());
            let file =
                file.map_err(|e| Error::os(Stage::State, e as i32, "open the state directory"))?;
            match Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock) {
                Ok(lock) => {
                    // The path may lead to a newer directory of the same name by now.
                    return if self.is_at_its_path() {
                        Ok(Lock(lock))
                    } else {
                        Err(Error::os(Stage::State, libc::ENOENT, "the container was deleted"))
                    };
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                    return Err(Error::new(
                        Category::Busy,
                        Stage::State,
                        "another call is creating or deleting the container",
                    )
                    .with_errno(libc::EWOULDBLOCK));
                }
                Err((_, errno)) => return Err(Error::os(Stage::State, errno as i32, "flock")),
            }
        }
    }

    /// Whether this still is the directory of that id: not deleted, not another container's.
    pub(super) fn is_at_its_path(&self) -> bool {
        let here = self.dir.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
        here.is_some() && fs::metadata(&self.path).map(|m| (m.dev(), m.ino())).ok() == here
    }

    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_vec(record).map_err(|error| {
            Error::new(Category::Bug, Stage::State, format!("encode the state: {error}"))
        })?;
        let fail = |error: io::Error| {
            Error::io(Stage::State, &error, format!("write {:?}", self.path.join(RECORD)))
        };
        let temporary = self.path.join("state.json.new");
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&temporary).map_err(fail)?;
        file.set_permissions(PermissionsExt::from_mode(0o600)).map_err(fail)?;
        file.write_all(&json).map_err(fail)?;
        fs::rename(&temporary, self.path.join(RECORD)).map_err(fail)
    }

    /// Completes the record.
    pub(super) fn write_init(&self, init: Identity) -> Result<()> {
        let path = self.path.join(INIT);
        let mut options = File::options();
        options.write(true).create_new(true).mode(0o600);
        let text = format!("{} {}\n", init.pid, init.start);
        // One short write: readers find all of it or nothing.
        let written = options.open(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| Error::io(Stage::State, &error, format!("write {path:?}")))
    }

    fn read_init(&self) -> Option<Identity> {
        let text = fs::read_to_string(self.path.join(INIT)).ok()?;
        let (pid, start) = text.strip_suffix('\n')?.split_once(' ')?;
        Some(Identity { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }

    /// The record; `None` if the container's creation did not come that far.
    pub(super) fn read(&self) -> Result<Option<Record>> {
        let path = self.path.join(RECORD);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(Stage::State, &error, format!("read {path:?}"))),
        };
        let mut record: Record = serde_json::from_slice(&json).map_err(|error| {
            Error::new(Category::System, Stage::State, format!("{path:?} is damaged: {error}"))
        })?;
        if record.version != Record::VERSION {
            return Err(Error::new(
                Category::Unsupported,
                Stage::State,
                format!("{path:?} was written by another version of Locule"),
            ));
        }
        record.init = self.read_init();
        Ok(Some(record))
    }

    /// Removes the directory and all in it.
    pub(super) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let message = format!("remove the state directory {:?}", self.path);
                Err(Error::io(Stage::State, &error, message))
            }
            _ => Ok(()),
        }
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

pub(super) fn not_found(id: &str) -> Error {
    Error::new(Category::NotFound, Stage::State, format!("container {id:?} does not exist"))
        .with_errno(libc::ENOENT)
        .of_container(id)
}

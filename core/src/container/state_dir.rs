//! A container's directory: `state.json`, the keeper's sockets, and the lock.
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

use locule_plan::protocol::{CONTROL_NAME, GATE_NAME};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::pidfd::Identity;
use super::record::Record;
use crate::{Category, Error, Result, Stage};

/// The record, and on a second line the first process, once there is one. Appended, because a
/// rename over an existing file makes journalling filesystems wait for the disk.
pub(super) const RECORD: &str = "state.json";

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

/// Makes the directory that containers are kept in, and its parents, where they are missing.
pub(super) fn make_root(path: &Path) -> Result<()> {
    make_directories(path).map_err(|error| {
        let failed =
            Error::io(Stage::State, &error, format!("create the state directory {path:?}"));
        match error.raw_os_error() {
            // No privilege would help: the path is none for a directory.
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG) => {
                failed.with_category(Category::Invalid)
            }
            _ => failed,
        }
    })
}

fn make_directories(path: &Path) -> io::Result<()> {
    match make_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_directories(path.parent().ok_or(error)?)?;
            make_directories(path)
        }
        Err(error) => match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => Ok(()),
            // Something else is there: a file, or a link to nowhere.
            Ok(_) => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
            Err(why) if error.kind() == io::ErrorKind::AlreadyExists => Err(why),
            Err(_) => Err(error),
        },
        Ok(()) => Ok(()),
    }
}

/// Held while the container is being made or unmade.
pub(super) struct Lock(#[allow(dead_code, reason = "unlocks when dropped")] Flock<File>);

/// Checks an id: what runc takes, so that a name is good for both.
pub(super) fn check_id(id: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let invalid = |what: &str| {
        let message = format!("invalid container ID format: {what}");
        Error::new(Category::Invalid, Stage::Arguments, message)
    };
    if id.len() > 1024 {
        return Err(invalid(&format!("{} bytes are more than 1024", id.len())));
    }
    if id.is_empty() || id == "." || id == ".." || !id.bytes().all(fits) {
        return Err(invalid(&format!("{id:?}")).hint("use letters, digits and _ + - . only"));
    }
    Ok(())
}

impl StateDir {
    /// Makes the directory of a new container and locks it. `None` if there is one already.
    pub(super) fn make(root: &Path, id: &str) -> Result<Option<(StateDir, Lock)>> {
        let path = root.join(id);
        loop {
            let failed = |error| {
                let message = format!("create the state directory {path:?}");
                Err(Error::io(Stage::State, &error, message))
            };
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => {
                    let message =
                        format!("the ID of {} bytes is longer than a file name", id.len());
                    return Err(Error::new(Category::Invalid, Stage::Arguments, message)
                        .with_errno(libc::ENAMETOOLONG));
                }
                Err(error) => return failed(error),
                Ok(()) => {}
            }
            match fs::set_permissions(&path, PermissionsExt::from_mode(0o700)) {
                // As below: it was taken for what a crash had left.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return failed(error),
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
        // A file or a link of that name is no container, and neither is what no name can be.
        let none = [libc::ENOENT, libc::ENOTDIR, libc::ENAMETOOLONG];
        match options.open(&path) {
            Ok(dir) => {
                let owner = dir.metadata().map(|metadata| metadata.uid()).map_err(|error| {
                    Error::io(Stage::State, &error, format!("look at {path:?}"))
                })?;
                // What another user has put there is no container of this one's.
                if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
                    let message = format!("the state directory {path:?} belongs to user {owner}");
                    return Err(
                        Error::new(Category::Permission, Stage::State, message).of_container(id)
                    );
                }
                Ok(StateDir { path, dir })
            }
            Err(error) if error.raw_os_error().is_some_and(|errno| none.contains(&errno)) => {
                Err(not_found(id))
            }
            Err(error) => {
                let message = format!("open the state directory {path:?}");
                Err(Error::io(Stage::State, &error, message))
            }
        }
    }

    /// Another handle to the same.
    pub(super) fn try_clone(&self) -> Result<StateDir> {
        let dir = self.dir.try_clone();
        let dir = dir.map_err(|error| {
            Error::io(Stage::State, &error, format!("duplicate a descriptor of {:?}", self.path))
        })?;
        Ok(StateDir { path: self.path.clone(), dir })
    }

    /// Locks the directory, waiting for another holder as long as `patience`.
    pub(super) fn lock(&self, patience: Duration) -> Result<Lock> {
        // By the descriptor: the path may lead to another container's directory by now.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, ".", flags, Mode::empty());
        let file =
            file.map_err(|e| Error::os(Stage::State, e as i32, "open the state directory"))?;
        match lock_within(File::from(file), FlockArg::LockExclusiveNonblock, patience) {
            // The path may lead to a newer directory of the same name by now.
            Ok(lock) if self.is_at_its_path() => Ok(Lock(lock)),
            Ok(_) => Err(Error::os(Stage::State, libc::ENOENT, "the container was deleted")),
            Err(Errno::EWOULDBLOCK) => Err(Error::new(
                Category::Busy,
                Stage::State,
                "another call is creating or deleting the container",
            )
            .with_errno(libc::EWOULDBLOCK)),
            Err(errno) => Err(Error::os(Stage::State, errno as i32, "flock")),
        }
    }

    /// Makes an empty file that was not there.
    pub(super) fn mark(&self, name: &str) -> nix::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        openat(&self.dir, name, flags, Mode::S_IRUSR).map(File::from)
    }

    /// What [`StateDir::mark`] has made.
    pub(super) fn marked(&self, name: &str) -> nix::Result<File> {
        openat(&self.dir, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
    }

    /// Whether this still is the directory of that id: not deleted, not another container's.
    pub(super) fn is_at_its_path(&self) -> bool {
        let here = self.dir.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
        here.is_some() && fs::metadata(&self.path).map(|m| (m.dev(), m.ino())).ok() == here
    }

    /// Writes the record; the file takes the first process later.
    pub(super) fn write(&self, record: &Record) -> Result<RecordFile> {
        let mut json = serde_json::to_vec(record).map_err(|error| {
            Error::new(Category::Bug, Stage::State, format!("encode the state: {error}"))
        })?;
        json.push(b'\n');
        let path = self.path.join(RECORD);
        let fail = |error: io::Error| failed_to_write(&path, &error);
        let temporary = self.path.join("state.json.new");
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&temporary).map_err(fail)?;
        file.set_permissions(PermissionsExt::from_mode(0o600)).map_err(fail)?;
        file.write_all(&json).map_err(fail)?;
        fs::rename(&temporary, &path).map_err(fail)?;
        Ok(RecordFile { file, path })
    }

    /// The record; `None` if the container's creation did not come that far.
    pub(super) fn read(&self) -> Result<Option<Record>> {
        let path = self.path.join(RECORD);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(Stage::State, &error, format!("read {path:?}"))),
        };
        Record::read(&json).map(Some).map_err(|(category, why)| {
            Error::new(category, Stage::State, format!("{path:?} {why}"))
                .hint("if no process of the container is left, remove its directory by hand")
        })
    }

    /// Removes the directory and all in it.
    pub(super) fn remove(&self) -> Result<()> {
        // What there nearly always is, and no more.
        let _ = unlinkat(&self.dir, RECORD, UnlinkatFlags::NoRemoveDir);
        for socket in [CONTROL_NAME, GATE_NAME] {
            let _ = unlinkat(&self.dir, socket, UnlinkatFlags::NoRemoveDir);
        }
        for attempt in 0.. {
            let removed = fs::remove_dir(&self.path).or_else(|error| match error.kind() {
                io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&self.path),
                _ => Err(error),
            });
            match removed {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                // A keeper that has not noticed yet that its host is dead makes its socket.
                Err(error) if error.raw_os_error() == Some(libc::ENOTEMPTY) && attempt < 100 => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => {
                    let message = format!("remove the state directory {:?}", self.path);
                    return Err(Error::io(Stage::State, &error, message));
                }
            }
        }
        Ok(())
    }
}

/// Locks a file, waiting for another holder as long as `patience`.
pub(super) fn lock_within(
    mut file: File,
    how: FlockArg,
    patience: Duration,
) -> nix::Result<Flock<File>> {
    let until = Instant::now() + patience;
    loop {
        match Flock::lock(file, how) {
            Ok(lock) => return Ok(lock),
            Err((same, Errno::EWOULDBLOCK)) if Instant::now() < until => file = same,
            Err((_, errno)) => return Err(errno),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An open record, to be completed.
pub(super) struct RecordFile {
    file: File,
    path: PathBuf,
}

impl RecordFile {
    /// Appends the first process.
    pub(super) fn complete(mut self, init: Identity) -> Result<()> {
        let line = format!("{{\"pid\":{},\"start\":{}}}\n", init.pid, init.start);
        // One short write: readers find all of it or nothing.
        self.file.write_all(line.as_bytes()).map_err(|error| failed_to_write(&self.path, &error))
    }
}

fn failed_to_write(path: &Path, error: &io::Error) -> Error {
    Error::io(Stage::State, error, format!("write {path:?}"))
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

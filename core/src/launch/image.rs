//! Where the keeper's executable comes from.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use once_cell::sync::OnceCell;

use super::memory_file::{Execution, memory_file};
use super::spawn::{Relation, spawn};
use crate::error::words;
use crate::{Category, Error, Result, Stage};

/// Where an installed keeper may be, for hosts that may not execute a memory file.
const INSTALLED: [&str; 2] =
    ["/usr/libexec/locule/locule-keeper", "/usr/local/libexec/locule/locule-keeper"];

/// The executable, opened once per runtime and shared by all its keepers.
pub(crate) struct Images {
    explicit: Option<PathBuf>,
    state_dir: PathBuf,
    chosen: OnceCell<OwnedFd>,
}

impl Images {
    pub(crate) fn new(explicit: Option<PathBuf>, state_dir: PathBuf) -> Self {
        Images { explicit, state_dir, chosen: OnceCell::new() }
    }

    /// Spawns a keeper from the first source that this machine lets us execute: the explicit
    /// path alone if there is one, else a sealed memory file (nobody, not even the container
    /// through `/proc/PID/exe`, can write to it: CVE-2019-5736), else an installed file that is
    /// identical to the embedded one, else an unnamed file in the state directory.
    pub(crate) fn spawn(
        &self,
        socket: BorrowedFd<'_>,
        relation: Relation,
        capabilities: u64,
    ) -> Result<Option<OwnedFd>> {
        if let Some(image) = self.chosen.get() {
            return spawn(image.as_fd(), socket, relation, capabilities)
                .map_err(|error| Error::io(Stage::Spawn, &error, "execute the keeper"));
        }
        type Source<'a> = (&'a str, &'a dyn Fn() -> io::Result<OwnedFd>);
        let in_memory = || memory_file(c"locule-keeper", Execution::Allowed, locule_keeper::IMAGE);
        let explicit = || File::open(self.explicit.as_ref().unwrap()).map(OwnedFd::from);
        let unnamed = || unnamed_file(&self.state_dir);
        let given = self.explicit.as_ref().map(|path| format!("{path:?}"));
        let sources: &[Source<'_>] = match &given {
            Some(path) => &[(path, &explicit)],
            None => &[
                ("a memory file", &in_memory),
                ("an installed file", &installed),
                ("an unnamed file in the state directory", &unnamed),
            ],
        };
        let mut causes = Vec::new();
        for (name, open) in sources {
            let tried = open().and_then(|image| {
                let keeper = spawn(image.as_fd(), socket, relation, capabilities)?;
                Ok((image, keeper))
            });
            match tried {
                Ok((image, keeper)) => {
                    let _ = self.chosen.set(image);
                    return Ok(keeper);
                }
                Err(error) => causes.push((name, error)),
            }
            // Want of descriptors, memory or processes would stop the others as well.
            if let Some((name, error)) = causes.last() {
                let failed =
                    Error::io(Stage::Spawn, error, format!("execute the keeper from {name}"));
                if failed.category() == Category::Resource {
                    return Err(failed);
                }
            }
        }
        Err(none_executes(causes))
    }
}

/// Why there is no keeper: the first cause, which the error then is about, comes last.
fn none_executes(mut causes: Vec<(&&str, io::Error)>) -> Error {
    causes.rotate_left(1);
    let Some((wanted, why)) = causes.pop() else { unreachable!("there is at least one source") };
    let others: String =
        causes.iter().map(|(name, error)| format!("{name}: {}; from ", cause(error))).collect();
    Error::io(Stage::Spawn, &why, format!("execute the keeper from {others}{wanted}"))
        .hint("give the path of an installed keeper, or let this host execute memory files")
}

fn cause(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |errno| words(errno).to_owned())
}

fn installed() -> io::Result<OwnedFd> {
    let mut last = io::Error::from_raw_os_error(libc::ENOENT);
    for path in INSTALLED {
        match std::fs::read(path) {
            Ok(bytes) if bytes == locule_keeper::IMAGE => return Ok(File::open(path)?.into()),
            Ok(_) => last = io::Error::other(format!("{path} is of another version")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unnamed_file(directory: &Path) -> io::Result<OwnedFd> {
    let mut options = File::options();
    options.write(true).mode(0o555).custom_flags(libc::O_TMPFILE);
    let mut file = options.open(directory)?;
    file.write_all(locule_keeper::IMAGE)?;
    file.set_permissions(PermissionsExt::from_mode(0o555))?; // the host's umask may say less
    // A file that is open for writing cannot be executed.
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map(OwnedFd::from)
}

/// A pidfd of this process, by which keepers notice its death. One is enough for all.
pub(crate) fn host_pidfd() -> Result<OwnedFd> {
    // SAFETY: plain integers; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Err(Error::io(Stage::Spawn, &error, "pidfd_open of this process"));
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

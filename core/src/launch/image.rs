//! Where the keeper's executable comes from.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use once_cell::sync::OnceCell;

use super::memory_file::{Execution, memory_file};
use super::spawn::{Relation, Spawned, StackPool, pidfd_of, spawn};
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
    stacks: StackPool,
}

impl Images {
    pub(crate) fn new(explicit: Option<PathBuf>, state_dir: PathBuf) -> Self {
        Images { explicit, state_dir, chosen: OnceCell::new(), stacks: StackPool::default() }
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
    ) -> Result<Spawned> {
        if let Some(image) = self.chosen.get() {
            return spawn(image.as_fd(), socket, relation, capabilities, &self.stacks)
                .map_err(|error| Error::io(Stage::Spawn, &error, "execute the keeper"));
        }
        type Source<'a> = (&'a str, &'a dyn Fn() -> io::Result<OwnedFd>);
        let in_memory = || memory_file(c"locule-keeper", Execution::Allowed, locule_keeper::IMAGE);
        let explicit = || open_given(self.explicit.as_ref().unwrap()).and_then(protected);
        let installed = || installed().and_then(protected);
        let unnamed = || {
            let file = unnamed_file(&self.state_dir)?;
            // The last resort: what could protect it otherwise has failed before.
            read_only(&file).or_else(|_| Ok(file.into()))
        };
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
                let keeper = patiently(|| {
                    spawn(image.as_fd(), socket, relation, capabilities, &self.stacks)
                })?;
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

/// Executes a file that this process has just written. Whatever process another thread created
/// meanwhile has it open for writing until it executes something itself, and as long as anybody
/// has, the file is "busy".
fn patiently<T>(mut execute: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..1000 {
        match execute() {
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
    execute()
}

/// O_NONBLOCK: a FIFO at the path must not hang the host.
fn open_given(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

fn installed() -> io::Result<File> {
    let mut last = io::Error::from_raw_os_error(libc::ENOENT);
    for path in INSTALLED {
        match std::fs::read(path) {
            Ok(bytes) if bytes == locule_keeper::IMAGE => return File::open(path),
            Ok(_) => last = io::Error::other(format!("{path} is of another version")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn unnamed_file(directory: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).mode(0o555).custom_flags(libc::O_TMPFILE);
    let mut file = options.open(directory)?;
    file.write_all(locule_keeper::IMAGE)?;
    file.set_permissions(PermissionsExt::from_mode(0o555))?; // the host's umask may say less
    // A file that is open for writing cannot be executed.
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The file in a form that no container can write to. One whose root is the owner of the file
/// gets hold of it by executing `/proc/self/exe`, as the interpreter of a script say
/// (CVE-2019-5736): through a read-only mount of its own, or else as a copy in memory.
fn protected(mut file: File) -> io::Result<OwnedFd> {
    if let Ok(mount) = read_only(&file) {
        return Ok(mount);
    }
    // SAFETY: cannot fail.
    let euid = unsafe { libc::geteuid() };
    if euid != 0 && file.metadata()?.uid() != euid {
        return Ok(file.into());
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    memory_file(c"locule-keeper", Execution::Allowed, &bytes)
}

/// The file through a mount that is read-only and nowhere attached. Needs `CAP_SYS_ADMIN`, and
/// Linux 5.12.
fn read_only(file: &File) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE as libc::c_int | libc::O_CLOEXEC | libc::AT_EMPTY_PATH;
    let empty = c"".as_ptr();
    // SAFETY: a C string and integers; the result is checked.
    let mount = unsafe { libc::syscall(libc::SYS_open_tree, file.as_raw_fd(), empty, flags) };
    if mount < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    let mount = unsafe { OwnedFd::from_raw_fd(mount as i32) };
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the structure lives through the call and has the size given.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            empty,
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(mount)
}

/// A pidfd of this process, by which keepers notice its death. One is enough for all.
pub(crate) fn host_pidfd() -> Result<OwnedFd> {
    pidfd_of(std::process::id() as i32)
        .map_err(|error| Error::io(Stage::Spawn, &error, "pidfd_open of this process"))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What a container can do with `/proc/PID/exe` of a process that executes it.
    fn write_to(image: &OwnedFd) -> io::Result<()> {
        let path = format!("/proc/self/fd/{}", image.as_raw_fd());
        let mut file = File::options().write(true).open(path)?;
        file.write_all(b"#!")
    }

    #[test]
    fn a_keeper_from_a_file_cannot_be_written_to() {
        let directory = std::env::temp_dir();
        let path = directory.join(format!("locule-image-{}", std::process::id()));
        std::fs::write(&path, locule_keeper::IMAGE).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let mut images = vec![protected(File::open(&path).unwrap()).unwrap()];
        // SAFETY: cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            images.push(read_only(&unnamed_file(&directory).unwrap()).unwrap());
        }
        std::fs::remove_file(&path).unwrap();
        for image in images {
            assert!(write_to(&image).is_err());
            let (here, there) = UnixStream::pair().unwrap();
            let pool = StackPool::default();
            spawn(image.as_fd(), there.as_fd(), Relation::Silent, 0, &pool).unwrap();
            drop(there);
            // It leaves when it finds the other end closed; until then its end is open.
            drop(here);
        }
    }
}

//! What is handed over by files and sockets: pids, terminals, descriptors.

use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use locule::Process;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::arguments::{path, text};
use crate::failure::Failure;

/// Where a new process is announced.
pub struct Announce {
    pub console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
}

impl Announce {
    pub fn read(matches: &ArgMatches) -> Announce {
        Announce {
            console_socket: path(matches, "console-socket"),
            pidfd_socket: path(matches, "pidfd-socket"),
            pid_file: path(matches, "pid-file"),
        }
    }

    /// Whether a terminal and the place it goes to fit together.
    pub fn check(&self, terminal: bool, detached: bool) -> Result<(), Failure> {
        match (&self.console_socket, terminal && detached) {
            (None, true) => Err(Failure::of(
                "cannot allocate tty if runc will detach without setting console socket",
            )),
            (Some(_), false) => Err(Failure::of(
                "cannot use console socket if runc will not detach or allocate tty",
            )),
            _ => Ok(()),
        }
    }

    /// Tells of the process. The pid file is the last: who waits for it finds all else done.
    pub fn announce(&self, process: &Process) -> Result<(), Failure> {
        if let Some(path) = &self.console_socket {
            let master = process
                .take_terminal()
                .ok_or_else(|| Failure::of("the process has no terminal to hand over"))?;
            send(path, &master, "console socket")?;
        }
        if let Some(path) = &self.pidfd_socket {
            send(path, &pidfd_of(process)?, "pidfd socket")?;
        }
        if let Some(path) = &self.pid_file {
            write_pid(path, process.pid())?;
        }
        Ok(())
    }
}

/// One message with a descriptor, to who listens at `path`.
fn send(path: &Path, descriptor: &OwnedFd, what: &str) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::of(format!("{what} {}: {error}", path.display()));
    let socket = UnixStream::connect(path).map_err(fail)?;
    let name = fs::read_link(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    let name = name.unwrap_or_else(|_| PathBuf::from(what)).to_string_lossy().into_owned();
    let rights = [descriptor.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&rights)];
    let text = [IoSlice::new(name.as_bytes())];
    sendmsg::<()>(socket.as_raw_fd(), &text, &control, MsgFlags::MSG_NOSIGNAL, None)
        .map_err(|errno| fail(errno.into()))?;
    Ok(())
}

fn pidfd_of(process: &Process) -> Result<OwnedFd, Failure> {
    use std::os::fd::FromRawFd;
    // SAFETY: integers.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, process.pid(), 0) };
    if raw < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// Whole or not at all: its readers do not wait for the end of a number.
fn write_pid(path: &Path, pid: i32) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::of(format!("pid file {}: {error}", path.display()));
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or_else(|| Failure::of("the pid file has no name"))?);
    let temporary = path.with_file_name(name);
    fs::write(&temporary, pid.to_string()).map_err(fail)?;
    fs::rename(&temporary, path).map_err(fail)
}

/// Descriptors 3 and up that are to be passed on: so many, and those that an option adds.
pub fn preserved(matches: &ArgMatches, first: usize) -> Result<Vec<BorrowedFd<'static>>, Failure> {
    let added = text(matches, "preserve-fds").unwrap_or("0");
    let count = added
        .parse()
        .ok()
        .and_then(|added: usize| RawFd::try_from(first.checked_add(added)?).ok())
        .filter(|count| *count < 4096)
        .ok_or_else(|| Failure::of(format!("invalid number of descriptors {added:?}")))?;
    (3..3 + count)
        .map(|raw| {
            // SAFETY: an integer.
            if unsafe { libc::fcntl(raw, libc::F_GETFD) } < 0 {
                return Err(Failure::of(format!("unable to stat preserved-fd {raw}")));
            }
            // SAFETY: it is open, and nothing in this program closes it.
            Ok(unsafe { BorrowedFd::borrow_raw(raw) })
        })
        .collect()
}

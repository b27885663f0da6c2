//! `NOTIFY_SOCKET` of systemd: the container's program gets a socket of its own, and what it says
//! there goes on to the one of whoever started this program, with the pid that is meant
//! (sd_notify(3)).

use std::fs;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use locule::{Process, Runtime};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::failure::Failure;

const VARIABLE: &str = "NOTIFY_SOCKET";
const NAME: &str = "notify.sock";
/// Where the container finds the socket.
const INSIDE: &str = "/run/notify";

/// What the program may say. The rest would be about processes and descriptors of its host's.
const PASSED_ON: [&str; 8] = [
    "READY",
    "RELOADING",
    "STOPPING",
    "STATUS",
    "ERRNO",
    "WATCHDOG",
    "EXTEND_TIMEOUT_USEC",
    "MONOTONIC_USEC",
];

/// The directory that a container's socket is in; empty for an id that can have none.
pub struct Place(PathBuf);

/// What a container needs to find it: a mount and a variable.
pub struct Inside<'a> {
    pub source: &'a Path,
    pub target: &'static str,
    pub variable: String,
}

impl Place {
    /// Beside the states, which are the library's own.
    pub fn of(runtime: &Runtime, id: &str) -> Place {
        if matches!(id, "" | "." | "..") || id.contains('/') {
            return Place(PathBuf::new());
        }
        let mut beside = runtime.state_dir().as_os_str().to_owned();
        beside.push(".notify");
        Place(Path::new(&beside).join(id))
    }

    /// Makes it, for a container that is to find it; `None` if nobody wants to be told.
    pub fn prepare(&self) -> Result<Option<Inside<'_>>, Failure> {
        if manager().is_none() || self.0.as_os_str().is_empty() {
            return Ok(None);
        }
        let failed = |error| Failure::of(format!("{}: {error}", self.0.display()));
        fs::create_dir_all(&self.0).map_err(failed)?;
        let variable = format!("{VARIABLE}={INSIDE}/{NAME}");
        Ok(Some(Inside { source: &self.0, target: INSIDE, variable }))
    }

    /// The socket, to be listened to before the program is started; `None` if there is none.
    pub fn listen(&self) -> Result<Option<Notify>, Failure> {
        let Some(manager) = manager().filter(|_| self.0.is_dir()) else { return Ok(None) };
        let path = self.0.join(NAME);
        let failed = |error| Failure::of(format!("{}: {error}", path.display()));
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(failed)?;
        Ok(Some(Notify { socket, manager }))
    }

    /// Removes it with what is in it.
    pub fn remove(&self) {
        if fs::remove_dir_all(&self.0).is_ok() {
            // The last one also its parent.
            let _ = self.0.parent().map(fs::remove_dir);
        }
    }
}

/// Who wants to be told.
fn manager() -> Option<SocketAddr> {
    let name = std::env::var(VARIABLE).ok()?;
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None => SocketAddr::from_pathname(name).ok(),
    }
}

pub struct Notify {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl Notify {
    /// Passes on what the program says, until it is ready or has ended.
    pub fn until_ready(&self, process: &Process) {
        let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        loop {
            let events = PollFlags::POLLIN;
            let mut waited =
                [PollFd::new(self.socket.as_fd(), events), PollFd::new(process.exit_fd(), events)];
            match poll(&mut waited, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => return,
                Ok(_) if ready(&waited[0]) => {
                    if self.pass_on(process.pid()) {
                        return;
                    }
                }
                Ok(_) => return,
            }
        }
    }

    /// Passes on all that the program ever says.
    pub fn forever(&self, pid: i32) {
        loop {
            self.pass_on(pid);
        }
    }

    /// One message; whether it says that the program is ready.
    fn pass_on(&self, pid: i32) -> bool {
        let mut buffer = [0; 4096];
        let Ok(length) = self.socket.recv(&mut buffer) else { return false };
        let (text, ready) = edited(&String::from_utf8_lossy(&buffer[..length]), pid);
        if !text.is_empty()
            && let Ok(socket) = UnixDatagram::unbound()
        {
            // Nobody may listen any more.
            let _ = socket.send_to_addr(text.as_bytes(), &self.manager);
        }
        ready
    }
}

/// What of a message is passed on, and whether it says that the program is ready.
fn edited(message: &str, pid: i32) -> (String, bool) {
    let known = |line: &&str| line.split_once('=').is_some_and(|(key, _)| PASSED_ON.contains(&key));
    let mut lines: Vec<_> = message.lines().filter(known).map(str::to_owned).collect();
    let ready = lines.iter().any(|line| line == "READY=1");
    if ready {
        lines.push(format!("MAINPID={pid}"));
    }
    (lines.join("\n"), ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_speaks_of_itself_only() {
        let (text, ready) = edited("READY=1\nSTATUS=up\nMAINPID=1\nFDSTORE=1", 42);
        assert_eq!((text.as_str(), ready), ("READY=1\nSTATUS=up\nMAINPID=42", true));
        assert_eq!(edited("MAINPID=1", 42), (String::new(), false));
    }
}

//! A process in a container: its exit, its streams, signals to it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use locule_plan::protocol::{self, Reply};

use super::pidfd::{check_signal, collect_child, exit_of_stranger, send_signal};
use super::stages::Ending;
use super::{Cancel, TerminalSize};
use crate::launch::{Channel, Message, poll_readable};
use crate::{Category, Error, Result, Stage};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal killed it.
    Signal {
        /// The signal.
        signal: i32,
        /// Whether it left a core dump.
        core_dumped: bool,
    },
    /// It is gone, but nobody could collect its status: the keeper was killed, or there is
    /// none and this process is not the parent.
    Unknown,
}

impl From<protocol::Exit> for Exit {
    fn from(exit: protocol::Exit) -> Exit {
        match exit.signal {
            0 => Exit::Code(exit.code),
            signal => Exit::Signal { signal, core_dumped: exit.core != 0 },
        }
    }
}

/// A process in a container. Cloning gives another handle to the same process; dropping a
/// handle does nothing to the process. Thread-safe: waiting blocks no other call.
#[derive(Debug, Clone)]
pub struct Process(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) container_id: String,
    pub(super) pid: i32,
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) source: ExitSource,
    pub(super) exit: OnceLock<Exit>,
    pub(super) pipes: Mutex<[Option<OwnedFd>; 3]>,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) terminal_taken: Mutex<bool>,
    /// What must live as long as the process is of interest, such as a keeper of its own.
    pub(super) _companion: Option<super::exec::OwnKeeper>,
    /// Who is told that it has ended, if it is a container's first.
    pub(super) ending: Option<Ending>,
}

/// From where the exit status comes.
#[derive(Debug)]
pub(super) enum ExitSource {
    /// From the keeper, which leaves it here.
    Keeper(Channel),
    /// From the kernel, by the process's pidfd: for a child of this process, and for one
    /// that is a child of neither.
    Pidfd,
    /// It was dead before this handle was made.
    Gone(OwnedFd),
}

impl Process {
    /// Its pid as this process sees it.
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// The id of its container.
    pub fn container_id(&self) -> &str {
        &self.0.container_id
    }

    /// Readable from the moment on which the exit status is there, and ever after. Only to be
    /// polled, never read. Valid as long as the handle.
    pub fn exit_fd(&self) -> BorrowedFd<'_> {
        match (&self.0.source, &self.0.pidfd) {
            (ExitSource::Keeper(channel), _) => channel.as_fd(),
            (ExitSource::Gone(ready), _) => ready.as_fd(),
            (ExitSource::Pidfd, Some(pidfd)) => pidfd.as_fd(),
            (ExitSource::Pidfd, None) => unreachable!("made with a pidfd"),
        }
    }

    /// How it ended; `None` if it still runs after `timeout` (`None` waits as long as it
    /// takes, zero only looks). Blocks.
    pub fn wait(&self, timeout: Option<Duration>, cancel: Option<&Cancel>) -> Result<Option<Exit>> {
        let at = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            if let Some(exit) = self.look()? {
                return Ok(Some(exit));
            }
            let ready = poll_readable(self.exit_fd(), at, cancel, Stage::Control)
                .map_err(|error| error.of_container(&self.0.container_id))?;
            if !ready {
                return Ok(None);
            }
        }
    }

    fn look(&self) -> Result<Option<Exit>> {
        if let Some(exit) = self.0.exit.get() {
            return Ok(Some(*exit));
        }
        let exit = match &self.0.source {
            ExitSource::Gone(_) => Some(Exit::Unknown),
            ExitSource::Keeper(channel) => match channel.peek() {
                Ok(None) => None,
                Ok(Some(Message::Reply(Reply::Exited(exit), _))) => Some(exit.into()),
                Ok(Some(_)) => Some(Exit::Unknown),
                Err(error) => {
                    return Err(Error::io(Stage::Control, &error, "receive from the keeper")
                        .of_container(&self.0.container_id));
                }
            },
            ExitSource::Pidfd => {
                let Some(pidfd) = &self.0.pidfd else { return Ok(Some(Exit::Unknown)) };
                if poll_readable(pidfd.as_fd(), Some(Instant::now()), None, Stage::Control)? {
                    Some(
                        collect_child(pidfd).unwrap_or_else(|| exit_of_stranger(pidfd, self.0.pid)),
                    )
                } else {
                    None
                }
            }
        };
        let Some(exit) = exit else { return Ok(None) };
        if self.0.exit.set(exit).is_ok()
            && let Some(ending) = &self.0.ending
        {
            ending.tell(exit);
        }
        // Another thread may have collected a child first: its finding counts.
        Ok(self.0.exit.get().copied())
    }

    /// Sends it a signal. One that has ended is a [`State`](Category::State) error.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let gone = || {
            Error::new(Category::State, Stage::Control, "process already finished")
                .with_errno(libc::ESRCH)
                .of_container(&self.0.container_id)
        };
        check_signal(signal).map_err(|error| error.of_container(&self.0.container_id))?;
        let Some(pidfd) = &self.0.pidfd else { return Err(gone()) };
        // The kernel would also take one for a process that nobody has collected yet.
        if self.look()?.is_some() {
            return Err(gone());
        }
        match send_signal(pidfd, signal) {
            Ok(()) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(gone()),
            Err(error) => Err(Error::io(Stage::Control, &error, "send a signal")
                .of_container(&self.0.container_id)),
        }
    }

    /// The host's end of the pipe that is standard stream `number` (0 to 2), once; `None` if
    /// the stream is no pipe or its end has been taken. What is not taken is closed with the
    /// last handle.
    pub fn take_pipe(&self, number: usize) -> Option<OwnedFd> {
        let mut pipes = self.0.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        pipes.get_mut(number)?.take()
    }

    /// The master of the process's terminal, once; `None` if it has none or it has been taken.
    pub fn take_terminal(&self) -> Option<OwnedFd> {
        let master = self.0.terminal.as_ref()?;
        let mut taken = self.0.terminal_taken.lock().unwrap_or_else(PoisonError::into_inner);
        if *taken {
            return None;
        }
        let copy = master.try_clone().ok()?;
        *taken = true;
        Some(copy)
    }

    /// Tells the process's terminal its size, whether or not the master has been taken.
    pub fn resize(&self, size: TerminalSize) -> Result<()> {
        let Some(master) = &self.0.terminal else {
            return Err(Error::new(Category::State, Stage::Stdio, "the process has no terminal")
                .of_container(&self.0.container_id));
        };
        let size =
            libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the structure lives through the call.
        if unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } != 0 {
            let error = std::io::Error::last_os_error();
            return Err(Error::io(Stage::Stdio, &error, "set the terminal's size")
                .of_container(&self.0.container_id));
        }
        Ok(())
    }
}

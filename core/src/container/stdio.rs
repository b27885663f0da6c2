//! The host's side of standard streams and passed descriptors.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::Stdio;
use crate::compile::Descriptors;
use crate::{Error, Result, Stage};

/// What goes to the container and what stays here.
pub(super) struct Streams {
    /// The container's end of each stream that is not the null device.
    theirs: [Option<Theirs>; 3],
    /// The host's end of each pipe.
    pub(super) ours: [Option<OwnedFd>; 3],
}

/// Whether a program that this process executes would have the descriptor. Where a host has
/// closed its standard streams their numbers are free, and may have been given to anything,
/// one of the library's own descriptors included; but all of those are close-on-exec.
fn is_inheritable(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads no memory; any number is allowed.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

enum Theirs {
    Borrowed(RawFd),
    Owned(OwnedFd),
}

impl Streams {
    /// Opens what the caller asked for. Descriptors that it gave are used until the process
    /// has been created, and stay its own.
    pub(super) fn open(stdio: &[Stdio<'_>; 3]) -> Result<Streams> {
        let mut streams = Streams { theirs: [None, None, None], ours: [None, None, None] };
        for (number, choice) in stdio.iter().enumerate() {
            streams.theirs[number] = match choice {
                Stdio::Null => None,
                Stdio::Inherit => {
                    is_inheritable(number as RawFd).then_some(Theirs::Borrowed(number as RawFd))
                }
                Stdio::Fd(fd) => Some(Theirs::Borrowed(fd.as_raw_fd())),
                Stdio::Pipe => {
                    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
                        .map_err(|errno| Error::os(Stage::Stdio, errno as i32, "pipe2"))?;
                    let (theirs, ours) = if number == 0 { (read, write) } else { (write, read) };
                    streams.ours[number] = Some(ours);
                    Some(Theirs::Owned(theirs))
                }
            };
        }
        Ok(streams)
    }

    pub(super) fn descriptors(&self, pass: usize, raw_output: bool) -> Descriptors {
        Descriptors { stdio: self.theirs.each_ref().map(Option::is_some), pass, raw_output }
    }

    pub(super) fn raw(&self, number: usize) -> Option<RawFd> {
        Some(match self.theirs.get(number)?.as_ref()? {
            Theirs::Borrowed(fd) => *fd,
            Theirs::Owned(fd) => fd.as_raw_fd(),
        })
    }
}

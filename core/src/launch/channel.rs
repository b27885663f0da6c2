//! Datagram sockets to keepers: messages with descriptors, deadlines on every wait.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use locule_plan::protocol::{MAX_DESCRIPTORS, Reply, Request};
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    connect, recvmsg, sendmsg, socket, socketpair,
};

use crate::{Cancel, Category, Error, Result, Stage};

/// One end of a `SOCK_SEQPACKET` connection.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// A datagram that came in.
#[allow(clippy::large_enum_variant, reason = "lives on the stack only, and not for long")]
pub(crate) enum Message {
    /// A reply, and the descriptor that came with it.
    Reply(Reply, Option<OwnedFd>),
    /// A reply whose descriptor is lost, because this process may have no more of them.
    Bare(Reply),
    /// The other side is gone.
    End,
}

impl Channel {
    /// A connected pair.
    pub(crate) fn pair() -> io::Result<(Channel, Channel)> {
        let (a, b) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Channel(a), Channel(b)))
    }

    /// Connects to socket `name` in the directory `dir`, however long its path is. One that
    /// has too many callers waiting already, because who should answer them is stopped or
    /// frozen, is `WouldBlock`.
    pub(crate) fn connect(dir: &impl AsFd, name: &str) -> io::Result<Channel> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        let path = format!("/proc/self/fd/{}/{name}", dir.as_fd().as_raw_fd());
        connect(fd.as_raw_fd(), &UnixAddr::new(Path::new(&path))?)?;
        Ok(Channel(fd))
    }

    /// The same with patience.
    pub(crate) fn connect_within(
        dir: &impl AsFd,
        name: &str,
        deadline: &Deadline<'_>,
        stage: Stage,
    ) -> Result<io::Result<Channel>> {
        loop {
            match Channel::connect(dir, name) {
                // Nothing can be polled for this.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    deadline.pause(Duration::from_millis(5), stage)?;
                }
                other => return Ok(other),
            }
        }
    }

    /// Sends one datagram with descriptors. Does not wait for room.
    pub(crate) fn send(&self, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
        if fds.len() > MAX_DESCRIPTORS {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        loop {
            let sent = sendmsg::<()>(
                self.0.as_raw_fd(),
                &[IoSlice::new(bytes)],
                control,
                MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
                None,
            );
            match sent {
                Err(nix::errno::Errno::EINTR) => {}
                other => return other.map(drop).map_err(io::Error::from),
            }
        }
    }

    fn receive(&self, flags: MsgFlags) -> io::Result<Message> {
        let mut bytes = [0u8; Reply::MAX_SIZE];
        let mut control = cmsg_space!([RawFd; 1]);
        let (length, fd, lost) = loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut control), flags) {
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::ECONNRESET) => return Ok(Message::End),
                Err(errno) => return Err(errno.into()),
                Ok(message) => {
                    let mut fd = None;
                    let parts = message.cmsgs(); // an error if the kernel left some out
                    let lost = parts.is_err();
                    for part in parts.into_iter().flatten() {
                        if let ControlMessageOwned::ScmRights(fds) = part {
                            for raw in fds {
                                // SAFETY: the kernel has just installed it for us.
                                fd = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                            }
                        }
                    }
                    break (message.bytes, fd, lost);
                }
            }
        };
        if length == 0 {
            return Ok(Message::End);
        }
        match Reply::decode(&bytes[..length]) {
            Some(reply) if lost => Ok(Message::Bare(reply)),
            Some(reply) => Ok(Message::Reply(reply, fd)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "not a keeper's reply")),
        }
    }

    /// The next message, which must come before the deadline.
    pub(crate) fn next(&self, deadline: &Deadline<'_>, stage: Stage) -> Result<Message> {
        loop {
            // Nearly always the message is still to come, so wait first.
            deadline.wait(self.as_fd(), stage)?;
            match self.receive(MsgFlags::MSG_DONTWAIT) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => {
                    return other.map_err(|e| Error::io(stage, &e, "receive from the keeper"));
                }
            }
        }
    }

    /// The next message if it is there already; it stays there.
    pub(crate) fn peek(&self) -> io::Result<Option<Message>> {
        match self.receive(MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends a request and returns the channel on which its replies come.
pub(crate) fn request(
    keeper: &Channel,
    request: Request,
    fds: &[RawFd],
    deadline: &Deadline<'_>,
    stage: Stage,
) -> Result<Channel> {
    let io = |error: io::Error| match error.raw_os_error() {
        Some(errno @ (libc::EPIPE | libc::ECONNRESET)) => {
            Error::new(Category::Keeper, stage, "the keeper is gone")
                .with_errno(errno)
                .hint("was it killed, or is it none that came with this library?")
        }
        _ => Error::io(stage, &error, "send to the keeper"),
    };
    let (here, there) = Channel::pair().map_err(io)?;
    let mut all = Vec::with_capacity(fds.len() + 1);
    all.push(there.0.as_raw_fd());
    all.extend_from_slice(fds);
    loop {
        match keeper.send(&request.encode(), &all) {
            Ok(()) => return Ok(here),
            // A keeper that is stopped reads nothing.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                deadline.wait_for_room(keeper.as_fd(), stage)?;
            }
            Err(error) => return Err(io(error)),
        }
    }
}

/// How long a call may wait, and what stops it.
#[derive(Clone, Copy)]
pub(crate) struct Deadline<'a> {
    at: Option<Instant>,
    cancel: Option<&'a Cancel>,
}

impl<'a> Deadline<'a> {
    /// Within `timeout` from now; `None` waits as long as it takes.
    pub(crate) fn within(timeout: Option<Duration>, cancel: Option<&'a Cancel>) -> Self {
        // A time too far to express is no limit.
        Deadline { at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)), cancel }
    }

    /// Refuses to begin what has been cancelled already.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(cancel) = self.cancel else { return Ok(()) };
        match poll_readable(cancel.as_fd(), Some(Instant::now()), None, Stage::Arguments)? {
            true => Err(cancelled(Stage::Arguments)),
            false => Ok(()),
        }
    }

    /// Waits until `fd` is readable (or hung up).
    pub(crate) fn wait(&self, fd: BorrowedFd<'_>, stage: Stage) -> Result<()> {
        self.wait_for(fd, libc::POLLIN, stage)
    }

    /// Waits until `fd` can be written to (or hung up).
    pub(crate) fn wait_for_room(&self, fd: BorrowedFd<'_>, stage: Stage) -> Result<()> {
        self.wait_for(fd, libc::POLLOUT, stage)
    }

    fn wait_for(&self, fd: BorrowedFd<'_>, events: libc::c_short, stage: Stage) -> Result<()> {
        if poll_for(fd.as_raw_fd(), events, self.at, self.cancel, stage)? {
            return Ok(());
        }
        Err(passed(stage))
    }

    /// Lets some time pass, if there is any left.
    pub(crate) fn pause(&self, time: Duration, stage: Stage) -> Result<()> {
        let now = Instant::now();
        if self.at.is_some_and(|at| at <= now) {
            return Err(passed(stage));
        }
        poll_for(-1, 0, Some(now + time), self.cancel, stage).map(drop)
    }
}

fn passed(stage: Stage) -> Error {
    Error::new(Category::Timeout, stage, "the deadline passed before the keeper had answered")
        .with_errno(libc::ETIMEDOUT)
        .hint("it may be waiting for a hook, or for a filesystem that does not answer")
}

/// Waits for `fd`; false if the time came first. A cancelled token is an error.
pub(crate) fn poll_readable(
    fd: BorrowedFd<'_>,
    at: Option<Instant>,
    cancel: Option<&Cancel>,
    stage: Stage,
) -> Result<bool> {
    poll_for(fd.as_raw_fd(), libc::POLLIN, at, cancel, stage)
}

/// Waits for `events` at `fd`, or with -1 for the time alone; false if the time came first. A
/// cancelled token is an error.
pub(crate) fn poll_for(
    fd: RawFd,
    events: libc::c_short,
    at: Option<Instant>,
    cancel: Option<&Cancel>,
    stage: Stage,
) -> Result<bool> {
    let entry = |fd: RawFd, events| libc::pollfd { fd, events, revents: 0 };
    let mut fds = [entry(fd, events), entry(-1, libc::POLLIN)];
    if let Some(cancel) = cancel {
        fds[1].fd = cancel.as_fd().as_raw_fd();
    }
    loop {
        let left = at.map(|at| at.saturating_duration_since(Instant::now()));
        let limit = left.map(|left| libc::timespec {
            tv_sec: left.as_secs().min(i32::MAX as u64) as libc::time_t,
            tv_nsec: left.subsec_nanos() as libc::c_long,
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the array and the time live through the call.
        let ready = unsafe { libc::ppoll(fds.as_mut_ptr(), 2, limit, std::ptr::null()) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(Error::io(stage, &error, "poll"));
        }
        if fds[1].revents != 0 {
            return Err(cancelled(stage));
        }
        return Ok(fds[0].revents != 0);
    }
}

fn cancelled(stage: Stage) -> Error {
    Error::new(Category::Cancelled, stage, "cancelled by the caller").with_errno(libc::ECANCELED)
}

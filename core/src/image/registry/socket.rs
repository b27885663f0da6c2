//! Sockets for the HTTP client. Every wait ends when the call is cancelled, when its deadline passes, or
//! when nothing has come for a minute. Names are resolved by the C library, on the calling thread.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, socket, sockopt,
};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::endpoint::is_loopback;
use crate::image::{Guide, digest};
use crate::launch::{Deadline, poll_for};
use crate::{Cancel, Category, Error, Result, Stage};

/// How long a registry may say nothing.
const IDLE: Duration = Duration::from_secs(60);

/// How long one address of several may take to answer.
const CONNECT: Duration = Duration::from_secs(15);

/// What stops the call that is being made, for all sockets of a client.
#[derive(Default)]
pub(super) struct Patience(Mutex<Limits>);

#[derive(Default, Clone)]
struct Limits {
    cancel: Option<Cancel>,
    deadline: Option<Instant>,
}

impl Patience {
    /// Begins a call.
    pub(super) fn begin(&self, guide: &Guide<'_>) -> Result<()> {
        let (cancel, deadline) = guide.limits();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Limits { cancel, deadline };
        guide.check()
    }

    fn limits(&self) -> Limits {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// False if `limit` passed first.
    fn wait(&self, fd: RawFd, events: libc::c_short, limit: Duration) -> Result<bool> {
        let Limits { cancel, deadline } = self.limits();
        let idle = Instant::now() + limit;
        let at = deadline.map_or(idle, |deadline| deadline.min(idle));
        if poll_for(fd, events, Some(at), cancel.as_ref(), Stage::Image)? {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::new(Category::Timeout, Stage::Image, "the deadline passed"));
        }
        Ok(false)
    }

    /// Lets some time pass.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        self.wait(-1, 0, time).map(drop)
    }

    /// Whether there is so much time.
    pub(super) fn allows(&self, time: Duration) -> bool {
        self.limits().deadline.is_none_or(|deadline| Instant::now() + time < deadline)
    }

    /// The same for what is not a socket of this kind, within `most`.
    pub(super) fn deadline<T>(&self, most: Duration, body: impl FnOnce(&Deadline<'_>) -> T) -> T {
        let Limits { cancel, deadline } = self.limits();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map_or(most, |left| left.min(most));
        body(&Deadline::within(Some(left), cancel.as_ref()))
    }
}

/// Makes the sockets.
pub(super) struct Sockets(pub(super) Arc<Patience>);

impl fmt::Debug for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sockets")
    }
}

impl<In: Transport> Connector<In> for Sockets {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        tunnel: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        if let Some(tunnel) = tunnel {
            return Ok(Some(Box::new(tunnel)));
        }
        let host = details.uri.host().unwrap_or_default();
        // Whoever answers for the name `localhost` must not lead anywhere else: such a registry may
        // be spoken to without TLS.
        let local = is_loopback(host);
        let addresses = details.addrs.iter().filter(|addr| !local || addr.ip().is_loopback());
        let mut last = Error::new(
            Category::NotFound,
            Stage::Image,
            format!("{host:?} has no address{}", if local { " on this machine" } else { "" }),
        );
        for address in addresses {
            match self.connect_to(*address) {
                Ok(stream) => {
                    let config = details.config;
                    let sizes = (config.input_buffer_size(), config.output_buffer_size());
                    return Ok(Some(Box::new(Socket {
                        stream,
                        buffers: LazyBuffers::new(sizes.0, sizes.1),
                        patience: self.0.clone(),
                        host: host.to_owned(),
                    })));
                }
                Err(error) if ends_all(&error) => return Err(digest::wrap(error).into()),
                Err(error) => last = error,
            }
        }
        Err(digest::wrap(last).into())
    }
}

/// Whether trying something else makes no sense.
pub(super) fn ends_all(error: &Error) -> bool {
    error.category() == Category::Cancelled
        || error.category() == Category::Timeout && error.errno().is_none()
}

impl Sockets {
    fn connect_to(&self, address: SocketAddr) -> Result<TcpStream> {
        let failed =
            |errno: Errno| Error::os(Stage::Image, errno as i32, format!("connect to {address}"));
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd: OwnedFd = socket(family, SockType::Stream, flags, None).map_err(failed)?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(address)) {
            // One that is interrupted goes on, too.
            Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => {}
            Err(errno) => return Err(failed(errno)),
        }
        if !self.0.wait(fd.as_raw_fd(), libc::POLLOUT, CONNECT)? {
            return Err(failed(Errno::ETIMEDOUT));
        }
        match getsockopt(&fd, sockopt::SocketError).map_err(failed)? {
            0 => {}
            errno => return Err(failed(Errno::from_raw(errno))),
        }
        let stream = TcpStream::from(fd);
        // It only makes it faster.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

struct Socket {
    stream: TcpStream,
    buffers: LazyBuffers,
    patience: Arc<Patience>,
    host: String,
}

impl Socket {
    fn wait(&self, events: libc::c_short, what: &str) -> Result<(), ureq::Error> {
        match self.patience.wait(self.stream.as_raw_fd(), events, IDLE) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let message = format!("{} {what} for {} seconds", self.host, IDLE.as_secs());
                let error = Error::new(Category::Timeout, Stage::Image, message);
                Err(digest::wrap(error.with_errno(libc::ETIMEDOUT)).into())
            }
            Err(error) => Err(digest::wrap(error).into()),
        }
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let mut done = 0;
        while done < amount {
            // Before each, so that a cancelled upload stops though there is room.
            self.wait(libc::POLLOUT, "took nothing")?;
            match self.stream.write(&self.buffers.output()[done..amount]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(count) => done += count,
                Err(error) if again(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        loop {
            self.wait(libc::POLLIN, "sent nothing")?;
            match self.stream.read(self.buffers.input_append_buf()) {
                Ok(count) => {
                    self.buffers.input_appended(count);
                    return Ok(count > 0);
                }
                Err(error) if again(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        // Anything that comes between two answers is wrong.
        matches!(self.stream.peek(&mut [0]), Err(error) if again(&error))
    }
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("host", &self.host).finish_non_exhaustive()
    }
}

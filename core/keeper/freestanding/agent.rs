//! Handing over the listener of a seccomp filter.
//!
//! Once the filter is installed, any further system call of the process may wait for an answer
//! of whoever has the listener: handing it over included. So somebody else does it, an agent
//! that no filter binds. It shares the process's table of descriptors, in which the kernel puts
//! the listener, and nothing else: it stays outside of the container, sees the process's end
//! through a pidfd, and leaves when its work is done.

use core::ffi::CStr;

use locule_plan::protocol::{Reply, detail};
use locule_plan::{Operation, Step, Stream};

use crate::abi::*;
use crate::failure::{During, Error, Result};
use crate::process::Order;
use crate::socket::{self, Descriptors};
use crate::system::{self, Errno, Fd, Raw, Sys};
use crate::text::{PATH_MAX, PathBuffer};

/// How long the receiver may take for each step, in seconds.
const PATIENCE: u64 = 10;

/// The three descriptors by which the process and its agent know each other. In the table that
/// they share, each is closed once, by the agent.
#[derive(Clone, Copy)]
pub struct Line {
    pub process: Raw,
    pub agent: Raw,
    pub pidfd: Raw,
}

/// What the process says before it installs its filter.
struct Word {
    /// The number that the listener will have.
    listener: Raw,
    gate: Raw,
    /// Where the caller wants the listener, if the plan names no path.
    socket: Raw,
}

/// The step that asks for a listener to be handed over, and its stream.
pub fn step_of(order: &Order<'_>) -> Option<(Stream, Step<'static>)> {
    [Stream::Child, Stream::Start].into_iter().find_map(|stream| {
        let mut steps = order.plan.stream(stream).flatten();
        let step = steps.find(|step| matches!(step.operation, Operation::Listener { .. }))?;
        Some((stream, step))
    })
}

impl Line {
    /// Opens one, out of the way of the program's descriptors.
    pub fn new(least: Raw) -> Sys<Line> {
        let (one, other) = system::socketpair()?;
        let process = system::duplicate(one.raw(), least)?.into_raw();
        let agent = system::duplicate(other.raw(), least)?.into_raw();
        // Kept free for the pidfd, whose number the process has to know from the beginning.
        let pidfd = system::duplicate(one.raw(), least)?.into_raw();
        Ok(Line { process, agent, pidfd })
    }

    pub fn numbers(&self) -> [Raw; 3] {
        [self.process, self.agent, self.pidfd]
    }

    /// The process announces its filter, and waits until the agent has reached the receiver.
    pub fn announce(&self, gate: Raw, socket: Raw) -> Result {
        // The lowest number that is free is the one the listener will get.
        let listener = system::duplicate(gate, 0)?.raw();
        let mut bytes = [0; 12];
        for (place, raw) in bytes.chunks_exact_mut(4).zip([listener, gate, socket]) {
            place.copy_from_slice(&raw.to_le_bytes());
        }
        socket::send(self.process, &bytes, None)?;
        let mut none = Descriptors::none();
        match socket::receive(self.process, &mut [0], &mut none, 0) {
            Ok(1) => Ok(()),
            // The agent has said over the gate why not, and kills this process.
            _ => loop {
                system::sleep(1000);
            },
        }
    }

    /// The agent's whole life.
    pub fn serve(&self, order: &Order<'_>, pid: i32) -> ! {
        system::set_name(c"locule-agent");
        let Some((stream, step)) = step_of(order) else { system::exit(1) };
        let word = self.wait();
        if let Err(error) = self.hand_over(&step.operation, pid, &word) {
            socket::reply(Some(word.gate), &Reply::Failed(error.frame(stream, &step)), None);
            let _ = system::pidfd_send_signal(self.pidfd, SIGKILL);
        }
        // The process may still have this table; its numbers are to be free again.
        for raw in [word.listener, word.socket].into_iter().chain(self.numbers()) {
            system::close(raw);
        }
        system::exit(0)
    }

    /// Waits for the announcement; leaves if the process dies.
    fn wait(&self) -> Word {
        loop {
            let mut entries = [PollFd::readable(self.agent), PollFd::readable(self.pidfd)];
            if system::poll(&mut entries, None).is_err() {
                continue;
            }
            let (mut bytes, mut none) = ([0; 12], Descriptors::none());
            if entries[0].revents != 0
                && socket::receive(self.agent, &mut bytes, &mut none, MSG_DONTWAIT) == Ok(12)
            {
                let number = |at: usize| {
                    Raw::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
                };
                return Word { listener: number(0), gate: number(4), socket: number(8) };
            }
            if entries[1].revents != 0 {
                system::exit(0);
            }
        }
    }

    fn hand_over(&self, operation: &Operation<'_>, pid: i32, word: &Word) -> Result {
        let Operation::Listener { path, state, .. } = *operation else { return Ok(()) };
        let mut number = PathBuffer::<16>::new();
        number.push_number(pid as u64)?;
        let length: usize = state.iter().map(|text| text.count_bytes() + 16).sum();
        let mut message = system::allocate::<u8>(length)?;
        let mut at = 0;
        for (index, text) in state.iter().enumerate() {
            for part in [if index > 0 { number.as_bytes() } else { b"" }, text.to_bytes()] {
                message[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
        }
        let connection = if path.is_empty() { None } else { Some(connect(path, self.agent)?) };
        let receiver = connection.as_ref().map_or(word.socket, Fd::raw);
        socket::send(self.agent, &[1], None)?;
        self.wait_for(word.listener);
        send_all(receiver, &message[..at], word.listener)
    }

    /// Waits until the filter is installed. If it cannot be, the process says so, and ends.
    fn wait_for(&self, listener: Raw) {
        let is_there = || system::fcntl(listener, F_GETFD, 0).is_ok();
        while !is_there() {
            let mut ended = [PollFd::readable(self.pidfd)];
            // Microseconds, as a rule.
            let pause = TimeSpec::from_microseconds(50);
            // A short program may have run to its end meanwhile.
            if system::poll(&mut ended, Some(pause)) == Ok(1) && !is_there() {
                system::exit(0);
            }
        }
    }
}

/// Connects to a listening socket by its path, which may be longer than an address.
fn connect(path: &CStr, least: Raw) -> Result<Fd> {
    let text = path.to_bytes();
    let slash = text.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    let mut directory = PathBuffer::<PATH_MAX>::new();
    directory.push(&text[..slash + 1])?;
    system::chdir(directory.as_cstr()).during(detail::CONNECT)?;
    let name = path.to_bytes_with_nul().get(slash + 1..).unwrap_or(b"\0");
    let mut address = SocketAddress { family: AF_UNIX as u16, path: [0; 108] };
    let place = address.path.get_mut(..name.len());
    place.ok_or(Errno::ENAMETOOLONG).during(detail::CONNECT)?.copy_from_slice(name);
    // Its number is the one that the listener is to have.
    let low = system::socket(AF_UNIX, SOCK_STREAM)?;
    let connection = system::duplicate(low.raw(), least)?;
    drop(low);
    system::set_send_timeout(connection.raw(), PATIENCE)?;
    system::connect(connection.raw(), &address, 2 + name.len()).during(detail::CONNECT)?;
    Ok(connection)
}

/// Sends the message, the descriptor with its first part.
fn send_all(receiver: Raw, message: &[u8], descriptor: Raw) -> Result {
    let mut descriptor = Some(descriptor);
    let mut rest = message;
    while !rest.is_empty() {
        match socket::send_some(receiver, rest, descriptor, 0) {
            Ok(sent) => {
                rest = &rest[sent.min(rest.len())..];
                descriptor = None;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(Error::new(detail::TIMEOUT, Errno(0))),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

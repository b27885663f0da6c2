//! Route netlink by hand: a request is put together, sent, and answered by the kernel before
//! anything else is asked. Only the kernel's word counts: who has power over a network
//! namespace can send to the sockets in it.

use crate::abi::*;
use crate::system::{self, Block, Errno, Fd, Raw, Sys};

/// Longer than any request here, and than any address that the kernel tells.
const MAX_REQUEST: usize = 1024;
/// As much as the kernel puts into one datagram of a dump.
const MAX_ANSWER: usize = 32 << 10;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// A message in the making: header, a fixed part, attributes.
pub struct Request {
    bytes: [u8; MAX_REQUEST],
    len: usize,
}

impl Request {
    /// Its flags are `flags` and those that every request has; `fixed` is its fixed part.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Request {
        let mut request = Request { bytes: [0; MAX_REQUEST], len: HEADER + fixed.len() };
        request.bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = flags | NLM_F_REQUEST | NLM_F_ACK;
        request.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        request.bytes[HEADER..request.len].copy_from_slice(fixed);
        request
    }

    /// Appends an attribute.
    pub fn attribute(&mut self, kind: u16, value: &[u8]) -> Sys {
        let len = 4 + value.len();
        let place = self.bytes.get_mut(self.len..self.len + aligned(len)).ok_or(Errno::E2BIG)?;
        place[..2].copy_from_slice(&(len as u16).to_ne_bytes());
        place[2..4].copy_from_slice(&kind.to_ne_bytes());
        place[4..len].copy_from_slice(value);
        self.len += aligned(len);
        Ok(())
    }
}

/// A message of the kernel's, with its header.
#[derive(Clone, Copy)]
pub struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    /// The first of several messages, and the bytes after it.
    fn first(bytes: &'a [u8]) -> Option<(Message<'a>, &'a [u8])> {
        let len = word_at(bytes, 0).ok()? as usize;
        let message = bytes.get(..len).filter(|message| message.len() >= HEADER)?;
        Some((Message(message), bytes.get(aligned(len)..).unwrap_or_default()))
    }

    /// All of several messages.
    pub fn all(mut bytes: &'a [u8]) -> impl Iterator<Item = Message<'a>> {
        core::iter::from_fn(move || {
            let (message, rest) = Message::first(bytes)?;
            bytes = rest;
            Some(message)
        })
    }

    fn kind(&self) -> u16 {
        half_at(self.0, 4).unwrap_or(0)
    }

    fn flags(&self) -> u16 {
        half_at(self.0, 6).unwrap_or(0)
    }

    fn sequence(&self) -> u32 {
        word_at(self.0, 8).unwrap_or(0)
    }

    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Its fixed part, of so many bytes.
    pub fn fixed<const N: usize>(&self) -> Sys<[u8; N]> {
        let fixed = self.0.get(HEADER..HEADER + N).and_then(|bytes| bytes.try_into().ok());
        fixed.ok_or(Errno::EINVAL)
    }

    /// The attributes after a fixed part of so many bytes.
    pub fn attributes(&self, fixed: usize) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0.get(HEADER + aligned(fixed)..).unwrap_or_default();
        core::iter::from_fn(move || {
            let len = half_at(rest, 0)? as usize;
            // The upper bits are flags.
            let kind = half_at(rest, 2)? & 0x3fff;
            let value = rest.get(4..len)?;
            rest = rest.get(aligned(len)..).unwrap_or_default();
            Some((kind, value))
        })
    }
}

/// Where what comes after so many bytes begins.
pub fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

fn half_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The number at this place.
pub fn word_at(bytes: &[u8], at: usize) -> Sys<u32> {
    let word = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    word.map(u32::from_ne_bytes).ok_or(Errno::EINVAL)
}

/// A socket in one network namespace, also when the process has left that.
pub struct Netlink {
    socket: Fd,
    sequence: u32,
    answer: Block<u8>,
}

impl Netlink {
    /// A socket in the namespace that the process is in.
    pub fn open() -> Sys<Netlink> {
        let socket = system::socket(AF_NETLINK, SOCK_RAW)?;
        Ok(Netlink { socket, sequence: 0, answer: system::allocate(MAX_ANSWER)? })
    }

    pub fn raw(&self) -> Raw {
        self.socket.raw()
    }

    /// Has the kernel carry a request out. What it tells before it is done goes to `each`.
    /// True if that may be incomplete, because something changed meanwhile.
    pub fn ask(
        &mut self,
        request: &mut Request,
        each: &mut dyn FnMut(Message<'_>) -> Sys,
    ) -> Sys<bool> {
        self.sequence += 1;
        request.bytes[..4].copy_from_slice(&(request.len as u32).to_ne_bytes());
        request.bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        system::write(self.raw(), &request.bytes[..request.len])?;
        let mut interrupted = false;
        loop {
            let len = self.receive()?;
            for message in Message::all(&self.answer[..len]) {
                // Of a request that was given up.
                if message.sequence() != self.sequence {
                    continue;
                }
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                match message.kind() {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match i32::from_ne_bytes(message.fixed()?) {
                            errno @ ..0 => Err(Errno(-errno)),
                            _ => Ok(interrupted),
                        };
                    }
                    _ => each(message)?,
                }
            }
        }
    }

    /// The same for a request that is answered with nothing but its success.
    pub fn tell(&mut self, request: &mut Request) -> Sys {
        self.ask(request, &mut |_| Ok(())).map(|_| ())
    }

    /// Receives a datagram of the kernel's.
    fn receive(&mut self) -> Sys<usize> {
        loop {
            let mut sender = NetlinkAddress::UNKNOWN;
            let mut slice = IoSlice { base: self.answer.as_mut_ptr(), len: self.answer.len() };
            let mut header = MessageHeader {
                name: (&raw mut sender).cast(),
                name_len: size_of::<NetlinkAddress>() as u32,
                slices: &raw mut slice,
                slice_count: 1,
                control: core::ptr::null_mut(),
                control_len: 0,
                flags: 0,
            };
            // SAFETY: every pointer is to a local or to `answer`, with its length.
            match unsafe { system::recvmsg(self.raw(), &mut header, 0) } {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
                Ok(_) if sender.port != 0 => {}
                Ok(_) if header.flags & MSG_TRUNC != 0 => return Err(Errno::E2BIG),
                Ok(len) => return Ok(len),
            }
        }
    }
}

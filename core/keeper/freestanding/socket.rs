//! Datagrams with descriptors: receiving requests, sending replies, and the one-byte words
//! of the gate. Neither blocks when it is sent, and a dead peer is nobody's error.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use locule_plan::protocol::{Gate, MAX_DESCRIPTORS, Reply};

use crate::abi::*;
use crate::system::{self, Errno, Fd, Raw, Sys};
use crate::text::PathBuffer;

const CONTROL_BYTES: usize = size_of::<ControlHeader>() + (MAX_DESCRIPTORS + 1) * 4;

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// The descriptors of a datagram; those nobody takes are closed.
pub struct Descriptors {
    raw: [Raw; MAX_DESCRIPTORS],
    len: usize,
}

impl Descriptors {
    pub const fn none() -> Self {
        Descriptors { raw: [-1; MAX_DESCRIPTORS], len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Takes over one of them.
    pub fn take(&mut self, index: usize) -> Option<Fd> {
        if index >= self.len {
            return None;
        }
        Fd::new(core::mem::replace(&mut self.raw[index], -1))
    }

    /// Those from `first` on, still owned here.
    pub fn rest(&self, first: usize) -> &[Raw] {
        self.raw.get(first..self.len).unwrap_or(&[])
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        for &raw in &self.raw[..self.len] {
            drop(Fd::new(raw));
        }
    }
}

/// Receives one datagram; 0 bytes mean that the other end is closed.
#[inline(never)]
pub fn receive(
    socket: Raw,
    buffer: &mut [u8],
    descriptors: &mut Descriptors,
    flags: i32,
) -> Sys<usize> {
    let mut control = MaybeUninit::<Control>::uninit();
    let mut slice = IoSlice { base: buffer.as_mut_ptr(), len: buffer.len() };
    let mut header = MessageHeader {
        name: core::ptr::null_mut(),
        name_len: 0,
        slices: &raw mut slice,
        slice_count: 1,
        control: control.as_mut_ptr().cast(),
        control_len: CONTROL_BYTES,
        flags: 0,
    };
    let len = loop {
        // SAFETY: every pointer is to a local, with its length.
        match unsafe { system::recvmsg(socket, &mut header, flags | MSG_CMSG_CLOEXEC) } {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    if header.control_len >= size_of::<ControlHeader>() {
        // SAFETY: the kernel has written at least a header at the aligned start.
        let head = unsafe { control.as_ptr().cast::<ControlHeader>().read() };
        if (head.level, head.kind) == (SOL_SOCKET, SCM_RIGHTS) {
            let count = head.len.min(CONTROL_BYTES).saturating_sub(size_of::<ControlHeader>()) / 4;
            for index in 0..count.min(MAX_DESCRIPTORS) {
                // SAFETY: `head.len` says that so many numbers follow the header.
                let raw = unsafe {
                    let first = control.as_ptr().cast::<u8>().add(size_of::<ControlHeader>());
                    first.cast::<Raw>().add(index).read()
                };
                descriptors.raw[descriptors.len] = raw;
                descriptors.len += 1;
            }
        }
    }
    // Some descriptors did not fit into our table: better none than a shifted list.
    if header.flags & MSG_CTRUNC != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(len)
}

/// Sends one datagram with at most one descriptor.
pub fn send(socket: Raw, bytes: &[u8], descriptor: Option<Raw>) -> Sys {
    send_some(socket, bytes, descriptor, MSG_DONTWAIT).map(|_| ())
}

/// Sends as much as there is room for, with at most one descriptor.
#[inline(never)]
pub fn send_some(
    socket: Raw,
    bytes: &[u8],
    descriptor: Option<Raw>,
    flags: i32,
) -> Sys<usize> {
    #[repr(C, align(8))]
    struct One {
        header: ControlHeader,
        raw: Raw,
        pad: u32,
    }
    let mut control = One {
        header: ControlHeader {
            len: size_of::<ControlHeader>() + 4,
            level: SOL_SOCKET,
            kind: SCM_RIGHTS,
        },
        raw: descriptor.unwrap_or(-1),
        pad: 0,
    };
    let mut slice = IoSlice { base: bytes.as_ptr().cast_mut(), len: bytes.len() };
    let header = MessageHeader {
        name: core::ptr::null_mut(),
        name_len: 0,
        slices: &raw mut slice,
        slice_count: 1,
        control: (&raw mut control).cast(),
        control_len: if descriptor.is_some() { size_of::<One>() } else { 0 },
        flags: 0,
    };
    // SAFETY: every pointer is to a local or to `bytes`, with its length; sending only reads.
    unsafe { system::sendmsg(socket, &header, MSG_NOSIGNAL | flags) }
}

/// Sends a reply, if there is anyone to send it to.
pub fn reply(socket: Option<Raw>, reply: &Reply, descriptor: Option<Raw>) {
    if let Some(socket) = socket {
        let _ = try_reply(socket, reply, descriptor);
    }
}

/// Sends a reply that somebody has to receive.
pub fn try_reply(socket: Raw, reply: &Reply, descriptor: Option<Raw>) -> Sys {
    let mut bytes = [0; Reply::MAX_SIZE];
    let len = reply.encode(&mut bytes);
    send(socket, &bytes[..len], descriptor)
}

/// Says a word over a gate.
pub fn say(gate: Raw, word: Gate, descriptor: Option<Raw>) -> Sys {
    send(gate, &[word as u8], descriptor)
}

/// A listening socket that only its owner can connect to, at `name` in `directory`.
///
/// The name is bound relative to the working directory, which is `/` again afterwards: a
/// socket address has room for 107 bytes, less than the path of a state directory may have.
pub fn listen(directory: Raw, name: &CStr) -> Sys<Fd> {
    let socket = system::socket(AF_UNIX, SOCK_SEQPACKET)?;
    let mut address = SocketAddress { family: AF_UNIX as u16, path: [0; 108] };
    let bytes = name.to_bytes_with_nul();
    address.path.get_mut(..bytes.len()).ok_or(Errno::ENAMETOOLONG)?.copy_from_slice(bytes);
    system::fchdir(directory)?;
    // The mode of the name comes from the umask, so there is no moment with a wider one.
    let mask = system::umask(0o177);
    let bound = system::bind(socket.raw(), &address, 2 + bytes.len());
    system::umask(mask);
    let _ = system::chdir(c"/");
    bound?;
    system::listen(socket.raw(), 64)?;
    Ok(socket)
}

/// `/proc/self/fd/N`, for the older system calls that know only paths.
pub fn descriptor_path(fd: Raw, out: &mut PathBuffer<32>) -> Sys<&CStr> {
    out.clear();
    out.push(b"/proc/self/fd/")?;
    out.push_number(fd as u64)?;
    Ok(out.as_cstr())
}

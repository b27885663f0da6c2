//! Moving network interfaces of the host's into the container's network namespace, and back
//! if there is no container in the end.
//!
//! All of it is done by the keeper, through one socket in each of the two namespaces. The one
//! inside keeps that namespace alive after its last process, so what is in there can return.

use core::ffi::CStr;

use locule_plan::protocol::{MAX_INTERFACES, detail};

use crate::abi::*;
use crate::failure::{During, Error, Result};
use crate::netlink::{Message, Netlink, Request, aligned, word_at};
use crate::system::{self, Block, Errno, Fd, Raw, Sys, Zeroable};
use crate::text::PathBuffer;

/// A name, with the NUL behind it.
const NAME: usize = 16;
/// Room for the addresses of an interface, of which none is touched that is not needed.
const ADDRESSES: usize = 256 << 10;

/// The interfaces that the creation of a container has moved.
pub struct Interfaces {
    between: Option<Between>,
    moved: [Option<Block<Moved>>; MAX_INTERFACES],
}

/// The two namespaces, each as a socket in it and as a descriptor of itself.
struct Between {
    host: Netlink,
    host_namespace: Fd,
    inside: Netlink,
    inside_namespace: Fd,
}

/// What an interface was on the host, and its index in the container.
#[derive(Clone, Copy)]
struct Moved {
    was: Link,
    index: u32,
    /// How much of `addresses` is used.
    len: usize,
    /// Messages of the kernel's, one after the other.
    addresses: [u8; ADDRESSES],
}

// SAFETY: only numbers.
unsafe impl Zeroable for Moved {}

#[derive(Clone, Copy)]
struct Link {
    index: u32,
    up: bool,
    /// The index of the bridge, or the like, that it belongs to; or 0.
    master: u32,
    name: [u8; NAME],
}

impl Link {
    fn name(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.name).unwrap_or(c"")
    }
}

impl Interfaces {
    pub const NONE: Interfaces =
        Interfaces { between: None, moved: [const { None }; MAX_INTERFACES] };

    /// Moves the interface `name` into the namespace that the socket `network` was made in.
    #[inline(never)] // What it needs of the stack is not to be taken for every request.
    pub fn move_in(&mut self, network: Option<&Fd>, name: &CStr, new_name: &CStr) -> Result {
        let between = match &mut self.between {
            Some(between) => between,
            None => {
                let missing = Error::new(detail::MISSING_DESCRIPTOR, Errno::EBADF);
                self.between.insert(Between::open(network.ok_or(missing)?.raw())?)
            }
        };
        let place = self.moved.iter_mut().find(|place| place.is_none()).ok_or(Errno::E2BIG)?;
        let found = find(&mut between.host, name).during(detail::SOURCE)?;
        let was = found.ok_or(Error::new(detail::SOURCE, Errno::ENODEV))?;
        let mut block: Block<Moved> = system::allocate(1)?;
        block[0].was = was;
        save_addresses(&mut between.host, &mut block[0]).during(detail::ADDRESSES)?;
        let wanted = if new_name.is_empty() { was.name() } else { new_name };
        let target = free_name(&mut between.inside, wanted)?;
        let result = between.take(&was, target.as_cstr());
        // The kernel moves first and renames then, so after an error it may be on either side.
        let called = match result {
            Ok(()) => target.as_cstr(),
            Err(errno) if between.still_has(&was) => return Err(errno.into()),
            Err(_) => was.name(),
        };
        let inside = find(&mut between.inside, called)?;
        block[0].index = inside.ok_or(Errno::ENODEV)?.index;
        let moved = &place.insert(block)[0];
        result?;
        let label = called == was.name();
        for address in moved.addresses().filter(is_lasting) {
            add_address(&mut between.inside, moved.index, address, label)
                .during(detail::ADDRESSES)?;
        }
        change(&mut between.inside, moved.index, true, &[]).during(detail::BRING_UP)
    }

    /// Leaves them where they are: from now on they are the container's.
    pub fn keep(&mut self) {
        // Else the memory for them stays untouched.
        if self.between.is_some() {
            *self = Interfaces::NONE;
        }
    }

    /// Makes them what they were, where they were. Nobody is there who could be told of one
    /// that does not go, and the others are to go all the same.
    pub fn put_back(&mut self) {
        if let Some(between) = &mut self.between {
            for moved in self.moved.iter().rev().flatten() {
                let _ = between.put_back(&moved[0]);
            }
        }
        self.keep();
    }
}

impl Moved {
    fn addresses(&self) -> impl Iterator<Item = Message<'_>> {
        Message::all(&self.addresses[..self.len])
    }
}

impl Between {
    /// `network` is a socket that the process has made in its network namespace.
    fn open(network: Raw) -> Result<Between> {
        let host = Netlink::open()?;
        let host_namespace = namespace_of(host.raw())?;
        let inside_namespace = namespace_of(network)?;
        system::setns(inside_namespace.raw(), CLONE_NEWNET)?;
        let inside = Netlink::open();
        if system::setns(host_namespace.raw(), CLONE_NEWNET).is_err() {
            // What is to be done on the host would be done in the wrong place.
            system::exit(1);
        }
        Ok(Between { host, host_namespace, inside: inside?, inside_namespace })
    }

    fn take(&mut self, link: &Link, name: &CStr) -> Sys {
        let namespace = self.inside_namespace.raw().to_ne_bytes();
        let name = name.to_bytes_with_nul();
        let attributes = [(IFLA_NET_NS_FD, &namespace[..]), (IFLA_IFNAME, name)];
        change(&mut self.host, link.index, false, &attributes)
    }

    /// Whether the interface has not left the host.
    fn still_has(&mut self, link: &Link) -> bool {
        let found = find(&mut self.host, link.name());
        found.is_ok_and(|found| found.is_some_and(|found| found.index == link.index))
    }

    fn put_back(&mut self, moved: &Moved) -> Sys {
        let was = &moved.was;
        let namespace = self.host_namespace.raw().to_ne_bytes();
        let name = was.name().to_bytes_with_nul();
        let attributes = [(IFLA_NET_NS_FD, &namespace[..]), (IFLA_IFNAME, name)];
        change(&mut self.inside, moved.index, false, &attributes)?;
        let index = find(&mut self.host, was.name())?.ok_or(Errno::ENODEV)?.index;
        for address in moved.addresses() {
            let _ = add_address(&mut self.host, index, address, true);
        }
        if was.master != 0 {
            let master = was.master.to_ne_bytes();
            let _ = change(&mut self.host, index, false, &[(IFLA_MASTER, &master[..])]);
        }
        if was.up { change(&mut self.host, index, true, &[]) } else { Ok(()) }
    }
}

/// A descriptor of the network namespace that a socket was made in.
fn namespace_of(socket: Raw) -> Sys<Fd> {
    Fd::new(system::ioctl_number(socket, SIOCGSKNS, 0)? as Raw).ok_or(Errno::EBADF)
}

/// The interface of this name.
fn find(netlink: &mut Netlink, name: &CStr) -> Sys<Option<Link>> {
    let mut request = Request::new(RTM_GETLINK, 0, &[0; LINK_HEADER]);
    request.attribute(IFLA_IFNAME, name.to_bytes_with_nul())?;
    request.attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes())?;
    let mut found = None;
    let asked = netlink.ask(&mut request, &mut |message| {
        let fixed: [u8; LINK_HEADER] = message.fixed()?;
        let mut link = Link {
            index: word_at(&fixed, 4)?,
            up: word_at(&fixed, 8)? & IFF_UP as u32 != 0,
            master: 0,
            name: [0; NAME],
        };
        for (kind, value) in message.attributes(LINK_HEADER) {
            match kind {
                IFLA_MASTER => link.master = word_at(value, 0)?,
                // Not always the name that was asked for: an interface may have several.
                IFLA_IFNAME => {
                    link.name.get_mut(..value.len()).ok_or(Errno::EINVAL)?.copy_from_slice(value);
                }
                _ => {}
            }
        }
        found = Some(link);
        Ok(())
    });
    match asked {
        Err(Errno::ENODEV) => Ok(None),
        asked => asked.map(|_| found),
    }
}

/// Brings an interface up if asked, and changes the attributes that are given.
fn change(netlink: &mut Netlink, index: u32, up: bool, attributes: &[(u16, &[u8])]) -> Sys {
    let mut fixed = [0; LINK_HEADER];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        let up = u32::from(IFF_UP as u16).to_ne_bytes();
        // The flags, and those of them that are to be changed.
        fixed[8..12].copy_from_slice(&up);
        fixed[12..16].copy_from_slice(&up);
    }
    let mut request = Request::new(RTM_SETLINK, 0, &fixed);
    for (kind, value) in attributes {
        request.attribute(*kind, value)?;
    }
    netlink.tell(&mut request)
}

/// Writes down all addresses of an interface: the kernel drops them when it is moved.
fn save_addresses(netlink: &mut Netlink, moved: &mut Moved) -> Sys {
    // If others come and go meanwhile some may be left out; but they may do so for ever.
    for _ in 0..8 {
        moved.len = 0;
        let mut request = Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_HEADER]);
        let interrupted = netlink.ask(&mut request, &mut |message| {
            let fixed: [u8; ADDRESS_HEADER] = message.fixed()?;
            if word_at(&fixed, 4)? != moved.was.index {
                return Ok(());
            }
            let bytes = message.as_bytes();
            let end = moved.len + aligned(bytes.len());
            let place = moved.addresses.get_mut(moved.len..end).ok_or(Errno::E2BIG)?;
            place[..bytes.len()].copy_from_slice(bytes);
            moved.len = end;
            Ok(())
        })?;
        if !interrupted {
            break;
        }
    }
    Ok(())
}

/// Whether an address goes with its interface: a permanent one of global scope.
fn is_lasting(address: &Message<'_>) -> bool {
    let fixed = address.fixed::<ADDRESS_HEADER>();
    fixed.is_ok_and(|[_, _, flags, scope, ..]| {
        flags & IFA_F_PERMANENT != 0 && scope == RT_SCOPE_UNIVERSE
    })
}

/// Gives an interface an address as it was told; the label of one of IPv4 begins with the
/// name of the interface.
fn add_address(netlink: &mut Netlink, index: u32, address: Message<'_>, label: bool) -> Sys {
    let mut fixed: [u8; ADDRESS_HEADER] = address.fixed()?;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut request = Request::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &fixed);
    for (kind, value) in address.attributes(ADDRESS_HEADER) {
        if label || kind != IFA_LABEL {
            request.attribute(kind, value)?;
        }
    }
    netlink.tell(&mut request)
}

/// The name that an interface gets: `wanted`, with a number in the place of a `%d`.
fn free_name(netlink: &mut Netlink, wanted: &CStr) -> Result<PathBuffer<NAME>> {
    let bytes = wanted.to_bytes();
    let Some(at) = bytes.windows(2).position(|two| two == b"%d") else {
        if find(netlink, wanted)?.is_some() {
            return Err(Error::new(detail::MISMATCH, Errno::EEXIST).about(bytes));
        }
        return Ok(PathBuffer::of(&[bytes])?);
    };
    let mut number = 0;
    loop {
        let mut name = PathBuffer::of(&[&bytes[..at]])?;
        name.push_number(number)?;
        name.push(&bytes[at + 2..])?;
        if find(netlink, name.as_cstr())?.is_none() {
            return Ok(name);
        }
        number += 1;
    }
}

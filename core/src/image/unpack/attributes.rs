//! Whose the files are, and their extended attributes.

use std::borrow::Cow;
use std::ffi::{CStr, CString};

use nix::errno::Errno;
use nix::unistd::{Gid, Uid};

use super::stack::Unpacker;
use super::{IdRange, Ids, os, shown, spec};
use crate::image::xattr::{self, Of};
use crate::{Category, Error, Result, Stage};

impl Ids {
    /// The owner on disk; `None` for the caller, who owns what it makes.
    pub(super) fn outside(&self, uid: i64, gid: i64) -> Result<Option<(Uid, Gid)>> {
        let mapped = |ranges: &[IdRange], id: i64, what: &str| {
            let none = || {
                let message = format!("the {what} id {id} is in no range of the mapping");
                Error::new(Category::Invalid, Stage::Image, message)
                    .hint("the mapping must have all ids that the image uses")
            };
            find(ranges, valid(id, what)?).ok_or_else(none)
        };
        Ok(match self {
            Ids::Caller => None,
            Ids::Same => Some((valid(uid, "user")?.into(), valid(gid, "group")?.into())),
            Ids::Mapped { uids, gids } => {
                Some((mapped(uids, uid, "user")?.into(), mapped(gids, gid, "group")?.into()))
            }
        })
    }
}

/// The highest number is none: the kernel would leave the owner as it is.
fn valid(id: i64, what: &str) -> Result<u32> {
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(spec(format!("there can be no {what} id {id}"))),
    }
}

fn find(ranges: &[IdRange], id: u32) -> Option<u32> {
    let range = ranges.iter().find(|range| {
        id.checked_sub(range.inside).is_some_and(|distance| distance < range.count)
    })?;
    range.outside.checked_add(id - range.inside).filter(|id| *id != u32::MAX)
}

impl Unpacker<'_, '_> {
    pub(super) fn set_xattrs(&self, of: Of<'_>, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        for (name, value) in xattrs {
            let Ok(name) = CString::new(&name[..]) else { continue };
            if is_ours(&name) {
                tracing::debug!(?name, "an attribute that steers the host is left out");
                continue;
            }
            match adapted(self.options.ids, &name, value) {
                Some(value) => set(of, &name, &value)?,
                None => tracing::warn!(?name, "an attribute cannot be expressed with these ids"),
            }
        }
        Ok(())
    }

    /// Copies the attributes of what a lower layer has.
    pub(super) fn copy_xattrs(&self, from: Of<'_>, to: Of<'_>) -> Result<()> {
        let fail = |errno| os(errno, "read the attributes in a lower layer");
        let names = match xattr::list(from) {
            // A directory that its owner may not read.
            Err(Errno::EBADF) => return Ok(()),
            names => names.map_err(fail)?,
        };
        for name in names.iter().filter(|name| !is_ours(name)) {
            if let Some(value) = xattr::get(from, name).map_err(fail)? {
                set(to, name, &value)?;
            }
        }
        Ok(())
    }

    /// Takes the attributes away that an earlier entry has given the current directory.
    pub(super) fn clear_xattrs(&self) -> Result<()> {
        let fail = |errno| os(errno, "remove its earlier attributes");
        for name in xattr::list(Of::File(self.dir())).map_err(fail)? {
            if is_ours(&name) {
                continue;
            }
            match xattr::remove(self.dir(), &name) {
                Err(errno) if may_fail(Of::File(self.dir()), &name, errno) => {}
                result => result.map_err(fail)?,
            }
        }
        Ok(())
    }
}

/// Attributes that are overlayfs's, which they would steer, or that only the host's policy may give.
fn is_ours(name: &CStr) -> bool {
    let name = name.to_bytes();
    name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"user.overlay.")
        || name == b"security.selinux"
}

fn set(of: Of<'_>, name: &CStr, value: &[u8]) -> Result<()> {
    match xattr::set(of, name, value) {
        Err(errno) if may_fail(of, name, errno) => {
            tracing::warn!(?name, %errno, "an attribute is left out");
            Ok(())
        }
        result => result
            .map_err(|errno| os(errno, format!("set the attribute {}", shown(name.to_bytes())))),
    }
}

/// What the filesystem does not know, what only root may set, and users' attributes of what is neither a
/// regular file nor a directory: the kernel gives them to no other (xattr(7)), and other programs leave them out.
fn may_fail(of: Of<'_>, name: &CStr, errno: Errno) -> bool {
    let name = name.to_bytes();
    match errno {
        Errno::EOPNOTSUPP => true,
        Errno::EPERM => {
            name.starts_with(b"security.")
                || name.starts_with(b"trusted.")
                || name.starts_with(b"user.") && matches!(of, Of::Name(..))
        }
        _ => false,
    }
}

/// The value as it has to be on disk where ids are mapped; `None` if that is not possible.
fn adapted<'v>(ids: &Ids, name: &CStr, value: &'v [u8]) -> Option<Cow<'v, [u8]>> {
    let Ids::Mapped { uids, gids } = ids else { return Some(Cow::Borrowed(value)) };
    match name.to_bytes() {
        b"security.capability" => capability(uids, value),
        b"system.posix_acl_access" | b"system.posix_acl_default" => acl(uids, gids, value),
        _ => Some(Cow::Borrowed(value)),
    }
}

/// Version 2 counts in the user namespace that the filesystem was mounted in alone, so in a container
/// with ids of its own it has to be version 3, which says whose root it is for
/// (`struct vfs_ns_cap_data`, Linux 4.14).
fn capability<'v>(uids: &[IdRange], value: &'v [u8]) -> Option<Cow<'v, [u8]>> {
    let version = value.first_chunk().map_or(0, |magic| u32::from_le_bytes(*magic) >> 24);
    let root = match (version, value.len()) {
        (2, 20) => 0,
        (3, 24) => u32::from_le_bytes(*value.last_chunk()?),
        _ => return Some(Cow::Borrowed(value)),
    };
    let mut mapped = value[..20].to_vec();
    mapped[3] = 3;
    mapped.extend_from_slice(&find(uids, root)?.to_le_bytes());
    Some(Cow::Owned(mapped))
}

/// Access control lists (`struct posix_acl_xattr_header` and `_entry`) name users and groups.
fn acl<'v>(uids: &[IdRange], gids: &[IdRange], value: &'v [u8]) -> Option<Cow<'v, [u8]>> {
    const USER: u16 = 2;
    const GROUP: u16 = 8;
    let mut mapped = value.to_vec();
    for entry in mapped.get_mut(4..)?.chunks_exact_mut(8) {
        let ranges = match u16::from_le_bytes([entry[0], entry[1]]) {
            USER => uids,
            GROUP => gids,
            _ => continue,
        };
        let id = u32::from_le_bytes(*entry.last_chunk()?);
        entry[4..].copy_from_slice(&find(ranges, id)?.to_le_bytes());
    }
    Some(Cow::Owned(mapped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(inside: u32, outside: u32, count: u32) -> IdRange {
        IdRange { inside, outside, count }
    }

    #[test]
    fn ids_are_shifted_and_what_is_outside_is_an_error() {
        let ids = Ids::Mapped {
            uids: vec![range(0, 100_000, 1000), range(1000, 5, 1)],
            gids: vec![range(0, u32::MAX - 1, 10)],
        };
        let pair = |uid, gid| {
            ids.outside(uid, gid).map(|pair| pair.map(|(uid, gid)| (uid.as_raw(), gid.as_raw())))
        };
        assert_eq!(pair(999, 0).unwrap(), Some((100_999, u32::MAX - 1)));
        assert_eq!(pair(1000, 0).unwrap(), Some((5, u32::MAX - 1)));
        for (uid, gid, says) in [(1001, 0, "user id 1001"), (0, 1, "group id 1"), (0, 10, "id 10")]
        {
            let error = pair(uid, gid).unwrap_err();
            assert_eq!(error.category(), Category::Invalid);
            assert!(error.to_string().contains(says), "{error}");
        }
        for id in [-1, i64::from(u32::MAX), 1 << 32, i64::MAX, i64::MIN] {
            assert_eq!(pair(id, 0).unwrap_err().category(), Category::Spec);
            assert_eq!(Ids::Same.outside(0, id).unwrap_err().category(), Category::Spec);
            assert_eq!(Ids::Caller.outside(id, id).unwrap(), None);
        }
    }

    #[test]
    fn capabilities_are_for_the_root_of_the_mapping() {
        let uids = [range(0, 100_000, 10)];
        let mut second = vec![1, 0, 0, 2];
        second.extend_from_slice(&[7; 16]);
        let mut third = second.clone();
        third[3] = 3;
        third.extend_from_slice(&100_000u32.to_le_bytes());
        assert_eq!(capability(&uids, &second).unwrap(), third);
        let mut other = third.clone();
        other[20..].copy_from_slice(&9u32.to_le_bytes());
        third[20..].copy_from_slice(&100_009u32.to_le_bytes());
        assert_eq!(capability(&uids, &other).unwrap(), third);
        other[20..].copy_from_slice(&10u32.to_le_bytes());
        assert_eq!(capability(&uids, &other), None);
        assert_eq!(capability(&uids, b"x").unwrap(), &b"x"[..]);
    }

    #[test]
    fn lists_of_rights_name_the_shifted_ids() {
        let (uids, gids) = ([range(0, 1000, 10)], [range(0, 2000, 10)]);
        let entry =
            |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[6, 0], &id.to_le_bytes()[..]].concat();
        let list = |user, group| {
            [vec![2, 0, 0, 0], entry(1, u32::MAX), entry(2, user), entry(8, group)].concat()
        };
        assert_eq!(acl(&uids, &gids, &list(3, 4)).unwrap(), list(1003, 2004));
        assert_eq!(acl(&uids, &gids, &list(10, 4)), None);
        assert_eq!(acl(&uids, &gids, b"x"), None);
    }
}

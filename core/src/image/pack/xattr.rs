//! Extended attributes of what is packed: reading them, and which of them belong into an image.

use nix::errno::Errno;

use super::owners::Owners;
use crate::image::unpack::EXTENSION;
use crate::image::xattr::{self, Of};
use crate::{Category, Error, Result, Stage};

/// Names and values, in the order of the names.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// All that the caller may see. `E2BIG` beyond what a layer holds, which could be gigabytes.
pub(super) fn read(of: Of<'_>) -> nix::Result<Xattrs> {
    let mut all = Xattrs::new();
    let mut size = 0;
    for name in xattr::list(of)? {
        let value = xattr::get(of, &name)?.ok_or(Errno::ENODATA)?;
        size += value.len();
        if size > EXTENSION {
            return Err(Errno::E2BIG);
        }
        all.push((name.into_bytes(), value));
    }
    all.sort();
    Ok(all)
}

/// Leaves what belongs into an image, with ids as they are there.
pub(super) fn select(xattrs: &mut Xattrs, owners: &Owners<'_>) -> Result<()> {
    xattrs.retain(|(name, _)| {
        let of_overlay =
            name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        // The others are the file system's own.
        let known = [&b"user."[..], b"trusted.", b"security.", b"system.posix_acl_"];
        !of_overlay
            && name != b"security.selinux"
            && known.iter().any(|prefix| name.starts_with(prefix))
    });
    for (name, value) in xattrs {
        // It would be read back as another name, and another value.
        if name.contains(&b'=') {
            let text = String::from_utf8_lossy(name);
            let message = format!("no tar file can hold the attribute {text:?}");
            return Err(Error::new(Category::Unsupported, Stage::Image, message));
        }
        match &name[..] {
            b"security.capability" => *value = capability(value, owners)?,
            b"system.posix_acl_access" | b"system.posix_acl_default" => acl(value, owners)?,
            _ => (),
        }
    }
    Ok(())
}

const CAPABILITY_2: u32 = 0x02000000;
const CAPABILITY_3: u32 = 0x03000000;

/// File capabilities, version 3 of which hold for those who are this user's children only: without that, if
/// it is root in the image.
fn capability(value: &[u8], owners: &Owners<'_>) -> Result<Vec<u8>> {
    const REVISION: u32 = 0xff000000;
    let word = |at: usize| {
        let bytes = value.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_le_bytes)
    };
    let (Some(magic), Some(root), 24) = (word(0), word(20), value.len()) else {
        return Ok(value.to_vec());
    };
    if magic & REVISION != CAPABILITY_3 || !owners.mapped() {
        return Ok(value.to_vec());
    }
    let mut value = value.to_vec();
    match owners.uid(root)? {
        0 => {
            value[..4].copy_from_slice(&(magic & !REVISION | CAPABILITY_2).to_le_bytes());
            value.truncate(20);
        }
        root => value[20..].copy_from_slice(&root.to_le_bytes()),
    }
    Ok(value)
}

/// Access control lists name users and groups by their ids.
fn acl(value: &mut [u8], owners: &Owners<'_>) -> Result<()> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    // The header is a version.
    let Some(entries) = value.get_mut(4..) else { return Ok(()) };
    for entry in entries.chunks_exact_mut(8) {
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let id = match u16::from_le_bytes([entry[0], entry[1]]) {
            USER => owners.uid(id)?,
            GROUP => owners.gid(id)?,
            _ => continue,
        };
        entry[4..].copy_from_slice(&id.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::unpack::{IdRange, Ids};
    use super::*;

    fn mapped() -> Ids {
        let range = |outside| vec![IdRange { inside: 0, outside, count: 1000 }];
        Ids::Mapped { uids: range(100_000), gids: range(200_000) }
    }

    fn selected(name: &str, value: &[u8], ids: &Ids) -> Result<Vec<u8>> {
        let mut xattrs = vec![(name.as_bytes().to_vec(), value.to_vec())];
        select(&mut xattrs, &Owners(ids))?;
        Ok(xattrs.pop().unwrap().1)
    }

    fn version_3(root: u32) -> Vec<u8> {
        let mut value = (CAPABILITY_3 | 1).to_le_bytes().to_vec();
        value.extend([7; 16]);
        value.extend(root.to_le_bytes());
        value
    }

    #[test]
    fn capabilities_of_the_images_root_are_everybodys() {
        let mut version_2 = (CAPABILITY_2 | 1).to_le_bytes().to_vec();
        version_2.extend([7; 16]);
        let name = "security.capability";
        assert_eq!(selected(name, &version_3(100_000), &mapped()).unwrap(), version_2);
        assert_eq!(selected(name, &version_3(100_005), &mapped()).unwrap(), version_3(5));
        assert_eq!(selected(name, &version_3(1000), &Ids::Caller).unwrap(), version_2);
        assert_eq!(selected(name, &version_3(1000), &Ids::Same).unwrap(), version_3(1000));
        assert_eq!(selected(name, &version_2, &mapped()).unwrap(), version_2);
        assert_eq!(selected(name, b"\0\0\0\x03", &mapped()).unwrap(), b"\0\0\0\x03");
        assert!(
            selected(name, &version_3(5), &mapped()).unwrap_err().to_string().contains("user 5")
        );
    }

    #[test]
    fn access_control_lists_name_ids_of_the_image() {
        let list = |user: u32, group: u32| {
            let mut value = 2u32.to_le_bytes().to_vec();
            for (tag, id) in [(1u16, u32::MAX), (2, user), (4, u32::MAX), (8, group)] {
                value.extend(tag.to_le_bytes());
                value.extend(6u16.to_le_bytes());
                value.extend(id.to_le_bytes());
            }
            value
        };
        let name = "system.posix_acl_access";
        assert_eq!(selected(name, &list(100_007, 200_008), &mapped()).unwrap(), list(7, 8));
        assert_eq!(selected(name, &list(7, 8), &Ids::Same).unwrap(), list(7, 8));
        assert!(
            selected(name, &list(100_007, 8), &mapped())
                .unwrap_err()
                .to_string()
                .contains("group 8")
        );
    }

    #[test]
    fn what_belongs_to_the_machine_stays_there() {
        let names = [
            "btrfs.compression",
            "security.ima",
            "security.selinux",
            "system.nfs4_acl",
            "trusted.overlay.origin",
            "trusted.overlays",
            "user.overlay.opaque",
            "user.x",
        ];
        let mut xattrs =
            names.iter().map(|name| (name.as_bytes().to_vec(), vec![])).collect::<Vec<_>>();
        select(&mut xattrs, &Owners(&Ids::Same)).unwrap();
        let left: Vec<&[u8]> = xattrs.iter().map(|(name, _)| &name[..]).collect();
        assert_eq!(left, [&b"security.ima"[..], b"trusted.overlays", b"user.x"]);
        assert!(
            selected("user.a=b", b"", &Ids::Same).unwrap_err().to_string().contains("user.a=b")
        );
    }
}

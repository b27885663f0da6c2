//! The ids that an ordinary user may use beside its own: `/etc/subuid` and `/etc/subgid`.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::unpack::{IdRange, Ids};
use crate::container::{id_mappers, in_user_namespace};

/// So many further ids are needed for an image to be sure to find its own: all that have 16 bits.
const ENOUGH: u32 = 65_535;

/// The caller's own ids as root's, and its subordinate ones as all others. `None`, with a remark for who
/// looks for it, if there are none, or if they could not be mapped.
pub(super) fn ids((uid, gid): (u32, u32)) -> Option<Ids> {
    match found(uid, gid) {
        Ok(ids) => Some(ids),
        Err(why) => {
            tracing::debug!(why, "no subordinate ids");
            None
        }
    }
}

fn found(uid: u32, gid: u32) -> Result<Ids, &'static str> {
    if uid == 0 || in_user_namespace() {
        return Err("root, or a user namespace");
    }
    let mappers = id_mappers().ok_or("newuidmap and newgidmap are not installed")?;
    // SAFETY: integers.
    if unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } != 0 {
        return Err("this process has no_new_privs, so that newuidmap would be in vain");
    }
    if ![&mappers.newuidmap, &mappers.newgidmap].into_iter().all(|path| is_privileged(path)) {
        return Err("newuidmap or newgidmap has no privilege");
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    // The helpers ask for the user's name, and go by the group it has there.
    let passwd = read("/etc/passwd");
    let (name, group) = user(&passwd, uid).ok_or("/etc/passwd does not have the user")?;
    if group != gid {
        return Err("the group is not the user's own");
    }
    let range = |path| range(&read(path), name, uid).ok_or(path);
    let (uids, gids) = (range("/etc/subuid")?, range("/etc/subgid")?);
    let all = |own, further| vec![IdRange { inside: 0, outside: own, count: 1 }, further];
    Ok(Ids::Mapped { uids: all(uid, uids), gids: all(gid, gids) })
}

/// Whether a program has more rights than who executes it.
fn is_privileged(program: &Path) -> bool {
    let mode = fs::metadata(program).map_or(0, |found| found.permissions().mode());
    let Ok(path) = CString::new(program.as_os_str().as_bytes()) else { return false };
    let name = c"security.capability".as_ptr();
    // SAFETY: C strings, and no room to write to.
    mode & 0o4000 != 0
        || unsafe { libc::getxattr(path.as_ptr(), name, std::ptr::null_mut(), 0) } > 0
}

/// Name and group of a user.
fn user(passwd: &str, uid: u32) -> Option<(&str, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let own: u32 = fields.nth(1)?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        (own == uid).then_some((name, group))
    })
}

/// The largest range of a user, by its name or its id, if it is large enough.
fn range(text: &str, name: &str, uid: u32) -> Option<IdRange> {
    let own = uid.to_string();
    let ranges = text.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let whose = fields.next()?;
        let outside: u32 = fields.next()?.parse().ok()?;
        let count: u32 = fields.next()?.parse().ok()?;
        outside.checked_add(count)?;
        let its = whose == name || whose == own;
        (its && count >= ENOUGH).then_some(IdRange { inside: 1, outside, count })
    });
    ranges.max_by_key(|range| range.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_range_is_found_by_name_or_id() {
        let text = "# ids\nother:100000:65536\nme:200000:65536\n 7:300000:70000 \nme:1:9\nme:x:y\n";
        let of = |name, uid| range(text, name, uid).map(|range| (range.outside, range.count));
        assert_eq!(of("me", 5), Some((200_000, 65_536)));
        assert_eq!(of("me", 7), Some((300_000, 70_000)));
        assert_eq!(of("he", 6), None);
        assert_eq!(range("me:4294967295:65536\nme:1:65534", "me", 5), None);
    }

    #[test]
    fn a_user_has_a_name_and_a_group() {
        let text = "root:x:0:0:root:/root:/bin/sh\nbroken\nme:x:7:8::/:/bin/sh\n";
        assert_eq!(user(text, 7), Some(("me", 8)));
        assert_eq!(user(text, 9), None);
    }
}

//! Who the process is: user, groups and capabilities.

use locule_plan::Numbers;

use crate::abi::*;
use crate::failure::Result;
use crate::system::{self, Errno};

/// Groups first, then gid, then uid: each step needs the privilege the next one gives up.
pub fn user(uid: u32, gid: u32, groups: Numbers<'_>, keep_groups: bool) -> Result {
    own_pipes(uid);
    system::prctl(PR_SET_KEEPCAPS, 1, 0)?;
    if !keep_groups {
        // An empty list drops the host's groups, which is as important as setting some.
        let mut list = system::allocate::<u32>(groups.len())?;
        for (place, group) in list.iter_mut().zip(groups.iter()) {
            *place = group;
        }
        system::setgroups(&list)?;
    }
    system::setresgid(gid)?;
    system::setresuid(uid)?;
    Ok(())
}

/// Lets the user open standard streams that are pipes anew, by `/dev/stdout` and the like. A file of
/// the host's keeps its owner.
fn own_pipes(uid: u32) {
    for stream in 0..3 {
        let is_foreign = |stat: Statx| stat.kind() == S_IFIFO && stat.uid != uid;
        if system::stat(stream).is_ok_and(is_foreign) {
            // Where that is forbidden, reading and writing still work.
            let _ = system::fchownat(stream, c"", uid, u32::MAX, AT_EMPTY_PATH);
        }
    }
}

/// Drops what is not in `mask` from the bounding set.
pub fn bounding(mask: u64) -> Result {
    for capability in 0..64 {
        if mask >> capability & 1 == 1 {
            continue;
        }
        match system::prctl(PR_CAPBSET_DROP, capability, 0) {
            Ok(_) => {}
            // Past the last one this kernel has.
            Err(Errno::EINVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

pub fn capabilities(effective: u64, permitted: u64, inheritable: u64, ambient: u64) -> Result {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |shift: u32| CapabilityData {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    system::capset(&header, &[half(0), half(32)])?;
    let _ = system::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0);
    for capability in (0..64).filter(|capability| ambient >> capability & 1 == 1) {
        let _ = system::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability);
    }
    Ok(())
}

/// Root in the user namespace, with all of its groups' privileges gone where allowed.
pub fn become_root() -> Result {
    system::setgid(0)?;
    system::setuid(0)?;
    Ok(())
}

//! The container's terminal. Nothing about it is looked up by a name the image could have
//! prepared without a check of what was found (CVE-2025-52565).

use locule_plan::{Operation, terminal};
use locule_plan::protocol::{Gate, detail};

use crate::abi::*;
use crate::child::Child;
use crate::failure::{During, Error, Result};
use crate::path::{self, Links, Missing};
use crate::socket;
use crate::system::{self, Errno, Fd};

pub fn open(child: &mut Child, operation: &Operation<'_>) -> Result {
    let Operation::Terminal { rows, columns, flags: wanted, uid } = *operation else {
        return Ok(());
    };
    let root = child.root()?;
    let master = path::open_file(root, c"/dev/pts/ptmx", O_RDWR | O_NOCTTY, RESOLVE_NO_SYMLINKS)
        .during(detail::SOURCE)?;
    let stat = system::stat(master.raw())?;
    let genuine = system::fstatfs(master.raw())?.magic() == DEVPTS_SUPER_MAGIC
        && stat.ino == 2
        && stat.is_device(5, 2);
    if !genuine {
        return Err(Error::new(detail::NOT_GENUINE, Errno::ENODEV).about(b"/dev/pts/ptmx"));
    }
    let mut unlocked = 0i32;
    system::ioctl(master.raw(), TIOCSPTLCK, &mut unlocked)?;
    // The other end comes from the master itself, not from a name below /dev/pts.
    let flags = (O_RDWR | O_NOCTTY | O_CLOEXEC) as usize;
    let peer = system::ioctl_number(master.raw(), TIOCGPTPEER, flags)?;
    let peer = Fd::new(peer as i32).ok_or(Errno::EBADF)?;
    if rows | columns != 0 {
        let mut size = [rows as u16, columns as u16, 0, 0];
        system::ioctl(master.raw(), TIOCSWINSZ, &mut size)?;
    }
    match system::fchownat(peer.raw(), c"", uid, u32::MAX, AT_EMPTY_PATH) {
        Ok(()) | Err(Errno::EPERM | Errno::EROFS | Errno::EINVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    if wanted & terminal::RAW_OUTPUT != 0 {
        let mut modes = [0u32; 16];
        system::ioctl(master.raw(), TCGETS, &mut modes)?;
        modes[1] &= !ONLCR;
        system::ioctl(master.raw(), TCSETS, &mut modes)?;
    }
    if wanted & terminal::CONSOLE != 0 {
        let tree = system::open_tree(peer.raw(), c"", OPEN_TREE_CLONE | AT_EMPTY_PATH as u32)?;
        let place = path::ensure(root, c"/dev/console", Missing::File, Links::Refuse)
            .during(detail::TARGET)?
            .0;
        system::move_mount(tree.raw(), place.raw()).during(detail::ATTACH)?;
    }
    // Only the leader of a session can have a controlling terminal; it may be one already.
    let _ = system::setsid();
    system::ioctl_number(peer.raw(), TIOCSCTTY, 0)?;
    for target in 0..3 {
        system::duplicate_to(peer.raw(), target, 0)?;
    }
    Ok(socket::say(child.gate(), Gate::Terminal, Some(master.raw()))?)
}

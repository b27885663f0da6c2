//! Who may ask the keeper for something.

use crate::abi::*;
use crate::system::{self, Errno, Raw, Sys};
use crate::text::PathBuffer;

/// Whether the process that made this connection may. The mode of the socket's name keeps
/// others out; this keeps out those who found another way to the name.
pub fn may_ask(connection: Raw) -> bool {
    is_user_of_host(connection).unwrap_or(false)
}

/// Root, or the keeper's own user, and in the keeper's own pid namespace: what a container sees
/// of the host's files, such as a bind of `/` or an overlay of it, may include the socket, and
/// who may talk to the keeper can have it run anything outside of the container.
fn is_user_of_host(connection: Raw) -> Sys<bool> {
    let peer = system::peer_credentials(connection)?;
    if peer.uid != 0 && peer.uid != system::geteuid() {
        return Ok(false);
    }
    // 0 is a process that is not below the keeper's namespace at all.
    if peer.pid == 0 || depth(peer.pid)? != depth(system::getpid())? {
        return Ok(false);
    }
    // It has kept its number to here, so it was the one that was looked at. Before Linux 6.5
    // this is not known.
    match system::peer_pidfd(connection) {
        Ok(pidfd) => Ok(system::pidfd_send_signal(pidfd.raw(), 0) != Err(Errno::ESRCH)),
        Err(Errno::ENOPROTOOPT) => Ok(true),
        Err(errno) => Err(errno),
    }
}

/// How many pid namespaces a process is in, counted from that of `/proc`.
fn depth(pid: i32) -> Sys<u32> {
    let mut path = PathBuffer::<32>::of(&[b"/proc/"])?;
    path.push_number(pid as u64)?;
    path.push(b"/status")?;
    let file = system::openat(AT_FDCWD, path.as_cstr(), O_RDONLY, 0)?;
    const NAME: &[u8] = b"NSpid:";
    let mut buffer = [0; 512];
    // How much of the name this line has begun with; all of it and more in the line looked for.
    let (mut matched, mut count) = (Some(0), 0);
    while let len @ 1.. = system::read(file.raw(), &mut buffer)? {
        for &byte in &buffer[..len] {
            matched = match (matched, byte) {
                (Some(at), b'\n') if at == NAME.len() => return Ok(count),
                (_, b'\n') => Some(0),
                (Some(at), _) if at == NAME.len() => {
                    count += u32::from(byte == b'\t');
                    Some(at)
                }
                (Some(at), byte) if byte == NAME[at] => Some(at + 1),
                _ => None,
            };
        }
    }
    Err(Errno::ENOENT)
}

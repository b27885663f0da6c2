//! A terminal's master goes over a socket, as runc's `--console-socket` has it.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Room for one descriptor, aligned for the header before it.
#[repr(C, align(8))]
struct Control([u8; 24]);

fn message(bytes: &mut [u8; 64], control: &mut Control, use_it: impl FnOnce(&mut libc::msghdr)) {
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    use_it(&mut header);
}

pub fn send(socket: &UnixStream, master: BorrowedFd<'_>) {
    message(&mut [0; 64], &mut Control([0; 24]), |header| {
        // SAFETY: the control buffer has room for one header and one descriptor.
        let sent = unsafe {
            let control = libc::CMSG_FIRSTHDR(header);
            (*control).cmsg_level = libc::SOL_SOCKET;
            (*control).cmsg_type = libc::SCM_RIGHTS;
            (*control).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(control).cast::<i32>().write_unaligned(master.as_raw_fd());
            libc::sendmsg(socket.as_raw_fd(), header, 0)
        };
        assert!(sent > 0, "send a terminal: {}", std::io::Error::last_os_error());
    });
}

pub fn receive(socket: &impl AsFd) -> Result<OwnedFd, String> {
    let mut master = Err("no terminal came over the console socket".to_owned());
    message(&mut [0; 64], &mut Control([0; 24]), |header| {
        // SAFETY: buffers and header live through the calls; a descriptor that came is ours.
        unsafe {
            let socket = socket.as_fd().as_raw_fd();
            if libc::recvmsg(socket, header, libc::MSG_CMSG_CLOEXEC) < 0 {
                return;
            }
            let control = libc::CMSG_FIRSTHDR(header);
            if !control.is_null() && (*control).cmsg_type == libc::SCM_RIGHTS {
                let fd = libc::CMSG_DATA(control).cast::<i32>().read_unaligned();
                master = Ok(OwnedFd::from_raw_fd(fd));
            }
        }
    });
    master
}

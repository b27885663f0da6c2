//! Processes by descriptor and by pid with start time; never by a bare pid.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::Exit;

/// A process that may be gone: a pid alone could be another process by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub pid: i32,
    /// Clock ticks after boot at which it started (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

impl Identity {
    pub(super) fn of(pid: i32) -> io::Result<Identity> {
        let mut stat = [0; 1024];
        let length = File::open(format!("/proc/{pid}/stat"))?.read(&mut stat)?;
        let stat = String::from_utf8_lossy(&stat[..length]);
        // The command name may hold anything, so count from its closing bracket.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        let start = fields.split(' ').nth(19).and_then(|field| field.parse().ok());
        let start = start.ok_or_else(|| io::Error::other("unreadable /proc/PID/stat"))?;
        Ok(Identity { pid, start })
    }

    /// A pidfd, if the process is still this one.
    pub(super) fn open(self) -> Option<OwnedFd> {
        let fd = pidfd_open(self.pid).ok()?;
        // Checked after the pidfd pins the process, so the pid cannot change hands between.
        (Identity::of(self.pid).ok()? == self).then_some(fd)
    }

    pub(super) fn is_alive(self) -> bool {
        self.open().is_some_and(|fd| !has_exited(&fd))
    }
}

fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn has_exited(pidfd: &OwnedFd) -> bool {
    let mut fds = [libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
    // SAFETY: the array lives through the call.
    unsafe { libc::poll(fds.as_mut_ptr(), 1, 0) > 0 }
}

/// Sends a signal; `ESRCH` when the process is gone.
pub(super) fn send_signal(pidfd: &impl AsFd, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null `siginfo` asks for that of kill(2).
    let rc = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, info, 0)
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The exit status of a process that is no child: the kernel remembers it for open pidfds
/// since Linux 6.15.
pub(super) fn exit_of_stranger(pidfd: &OwnedFd) -> Exit {
    #[repr(C)]
    #[derive(Default)]
    struct PidfdInfo {
        mask: u64,
        cgroupid: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    // _IOWR(0xFF, 11, struct pidfd_info)
    const PIDFD_GET_INFO: libc::c_ulong =
        3 << 30 | (size_of::<PidfdInfo>() as libc::c_ulong) << 16 | 0xff << 8 | 11;
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the structure has the size that is part of the request number.
    let rc = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    if rc != 0 || info.mask & PIDFD_INFO_EXIT == 0 {
        return Exit::Unknown;
    }
    match info.exit_code & 0x7f {
        0 => Exit::Code(info.exit_code >> 8 & 0xff),
        signal => Exit::Signal { signal, core_dumped: info.exit_code & 0x80 != 0 },
    }
}

/// Collects a child of this process, if it still is there to be collected.
pub(super) fn collect_child(pidfd: &OwnedFd) -> Option<Exit> {
    loop {
        // SAFETY: all zeroes is a valid `siginfo_t`.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` lives through the call.
        let rc = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                pidfd.as_raw_fd() as libc::id_t,
                &raw mut info,
                libc::WEXITED | libc::WNOHANG,
            )
        };
        if rc != 0 {
            if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return None;
        }
        // SAFETY: waitid has filled the fields of SIGCHLD, or left zeroes.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        return (pid != 0).then_some(match info.si_code {
            libc::CLD_EXITED => Exit::Code(status),
            code => Exit::Signal { signal: status, core_dumped: code == libc::CLD_DUMPED },
        });
    }
}

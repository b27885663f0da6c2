//! Processes by descriptor and by pid with start time; never by a bare pid.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::Exit;
use crate::{Category, Error, Result, Stage};

/// A process that may be gone: a pid alone could be another process by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub pid: i32,
    /// Clock ticks after boot at which it started (field 22 of `/proc/PID/stat`).
    pub start: u64,
}

/// `/proc/PID/stat`.
struct Stat(String);

impl Stat {
    fn read(pid: i32) -> io::Result<Stat> {
        let mut stat = [0; 1024];
        let length = File::open(format!("/proc/{pid}/stat"))?.read(&mut stat)?;
        let stat = String::from_utf8_lossy(&stat[..length]);
        // The command name may hold anything, so the fields count from its closing bracket.
        let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
        Ok(Stat(fields.trim_end().to_owned()))
    }

    /// A field by its number in proc_pid_stat(5), from 3 on.
    fn field<T: std::str::FromStr>(&self, number: usize) -> Option<T> {
        self.0.split(' ').nth(number - 3)?.parse().ok()
    }

    fn state(&self) -> Option<&str> {
        self.0.split(' ').next()
    }
}

impl Identity {
    pub(super) fn of(pid: i32) -> io::Result<Identity> {
        let start = Stat::read(pid)?.field(22);
        let start = start.ok_or_else(|| io::Error::other("unreadable /proc/PID/stat"))?;
        Ok(Identity { pid, start })
    }

    /// A pidfd, if the process is still this one.
    ///
    /// # Errors
    /// When this process lacks the means to find out, which says nothing about the other.
    pub(super) fn open(self) -> Result<Option<OwnedFd>> {
        let opened = pidfd_open(self.pid).and_then(|fd| {
            // Read after the pidfd pins the process, so the pid cannot change hands between.
            Ok((Identity::of(self.pid)? == self).then_some(fd))
        });
        let gone = [libc::ESRCH, libc::ENOENT, libc::EINVAL];
        match opened {
            Err(error) if error.raw_os_error().is_some_and(|errno| gone.contains(&errno)) => {
                Ok(None)
            }
            other => other.map_err(|error| {
                Error::io(Stage::Control, &error, format!("find out whether {} lives", self.pid))
            }),
        }
    }

    /// # Errors
    /// As [`Identity::open`].
    pub(super) fn is_alive(self) -> Result<bool> {
        Ok(self.open()?.is_some_and(|fd| !has_exited(&fd)))
    }
}

pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
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

/// Refuses a number that is no signal. 0 is none to be sent, and asks whether one could be.
pub(super) fn check_signal(signal: i32) -> Result<()> {
    if (0..=64).contains(&signal) {
        return Ok(());
    }
    let message = format!("no signal {signal}");
    Err(Error::new(Category::Invalid, Stage::Arguments, message).with_errno(libc::EINVAL))
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

/// The exit status of a dead process that is no child: from `/proc` until its parent has
/// collected it, which only shows it to who could trace the process; from the kernel's memory
/// of it, which open pidfds have since Linux 6.15, ever after.
pub(super) fn exit_of_stranger(pidfd: &OwnedFd, pid: i32) -> Exit {
    let status = status_of_zombie(pidfd, pid).or_else(|| status_of_collected(pidfd));
    let Some(status) = status else { return Exit::Unknown };
    match status & 0x7f {
        0 => Exit::Code(status >> 8 & 0xff),
        signal => Exit::Signal { signal, core_dumped: status & 0x80 != 0 },
    }
}

fn status_of_zombie(pidfd: &OwnedFd, pid: i32) -> Option<i32> {
    let stat = Stat::read(pid).ok()?;
    let status = stat.field(52)?;
    // Not collected even now, so what was read was its, not that of a new process of the same
    // pid. A status of 0 may only mean that we may not know it.
    let known = status != 0 || nix::unistd::geteuid().is_root();
    let still_there = send_signal(pidfd, 0).is_ok() && stat.state() == Some("Z");
    (known && still_there).then_some(status)
}

fn status_of_collected(pidfd: &OwnedFd) -> Option<i32> {
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
    (rc == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
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

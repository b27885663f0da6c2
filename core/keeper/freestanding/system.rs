//! System calls, one thin wrapper each, with descriptors that close themselves.
//!
//! Everything here is `Result`-shaped and does one thing; what a failure means is for the
//! callers to say.

use core::ffi::CStr;
use core::num::NonZeroI32;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi::*;
use crate::arch::{late, number as nr, syscall};

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

#[rustfmt::skip]
impl Errno {
    pub const EPERM: Errno = Errno(1);
    pub const ENOENT: Errno = Errno(2);
    pub const ESRCH: Errno = Errno(3);
    pub const EINTR: Errno = Errno(4);
    pub const E2BIG: Errno = Errno(7);
    pub const EBADF: Errno = Errno(9);
    pub const EAGAIN: Errno = Errno(11);
    pub const ENOMEM: Errno = Errno(12);
    pub const EACCES: Errno = Errno(13);
    pub const EBUSY: Errno = Errno(16);
    pub const EEXIST: Errno = Errno(17);
    pub const ENODEV: Errno = Errno(19);
    pub const ENOTDIR: Errno = Errno(20);
    pub const EISDIR: Errno = Errno(21);
    pub const EINVAL: Errno = Errno(22);
    pub const EMFILE: Errno = Errno(24);
    pub const EROFS: Errno = Errno(30);
    pub const ENAMETOOLONG: Errno = Errno(36);
    pub const ENOSYS: Errno = Errno(38);
    pub const ELOOP: Errno = Errno(40);
    pub const ENOPROTOOPT: Errno = Errno(92);
    pub const EOPNOTSUPP: Errno = Errno(95);
    pub const ECANCELED: Errno = Errno(125);
}

pub type Sys<T = ()> = Result<T, Errno>;

/// A descriptor number someone else owns.
pub type Raw = i32;

/// A descriptor, closed when dropped. All zeroes are `None` in an `Option<Fd>`, so tables
/// of them live in memory that is never touched.
#[repr(transparent)]
pub struct Fd(NonZeroI32);

impl Fd {
    /// Takes over a descriptor; `None` for a negative number.
    pub const fn new(raw: Raw) -> Option<Fd> {
        if raw < 0 {
            return None;
        }
        match NonZeroI32::new(!raw) {
            Some(inverted) => Some(Fd(inverted)),
            None => None,
        }
    }

    /// The number.
    pub const fn raw(&self) -> Raw {
        !self.0.get()
    }

    /// Gives the descriptor away without closing it.
    pub fn into_raw(self) -> Raw {
        let raw = self.raw();
        core::mem::forget(self);
        raw
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        close(self.raw());
    }
}

/// One argument of a system call.
trait Argument {
    fn word(self) -> usize;
}

macro_rules! numbers {
    ($($type:ty),*) => { $(impl Argument for $type {
        #[inline(always)]
        fn word(self) -> usize { self as usize }
    })* };
}
numbers!(i32, u32, u64, usize);

impl Argument for &CStr {
    fn word(self) -> usize {
        self.as_ptr() as usize
    }
}
impl<T> Argument for *const T {
    fn word(self) -> usize {
        self as usize
    }
}
impl<T> Argument for *mut T {
    fn word(self) -> usize {
        self as usize
    }
}

/// Makes a system call. It is only used in wrappers below, which pass plain numbers and
/// pointers into references they hold, with the lengths of those.
macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {{
        #[allow(unused_mut)] // A call without arguments leaves the array as it is.
        let mut words = [0usize; 6];
        let mut _at = 0;
        $( words[_at] = Argument::word($argument); _at += 1; )*
        // SAFETY: see the macro's description; each use says so by its signature.
        check($number, unsafe { syscall($number, words) })
    }};
}

#[inline]
fn check(number: usize, result: isize) -> Sys<usize> {
    if (-4095..0).contains(&result) { Err(refused(number, result)) } else { Ok(result as usize) }
}

/// The last system call that does not exist here: nobody could tell which it was from what was
/// being done.
static MISSING: AtomicU32 = AtomicU32::new(0);

#[cold]
#[inline(never)]
fn refused(number: usize, result: isize) -> Errno {
    let errno = Errno(-result as i32);
    if errno == Errno::ENOSYS {
        MISSING.store(number as u32, Ordering::Relaxed);
    }
    errno
}

/// An errno as a failure frame has it: with `ENOSYS` goes the number of the call.
pub fn with_call(errno: i32) -> i32 {
    if errno == Errno::ENOSYS.0 {
        errno | (MISSING.load(Ordering::Relaxed) << 16) as i32
    } else {
        errno
    }
}

fn descriptor(result: Sys<usize>) -> Sys<Fd> {
    Fd::new(result? as Raw).ok_or(Errno::EBADF)
}

fn done(result: Sys<usize>) -> Sys {
    result.map(|_| ())
}

// ---- Files ------------------------------------------------------------------------------------

pub fn read(fd: Raw, buffer: &mut [u8]) -> Sys<usize> {
    call!(nr::READ, fd, buffer.as_mut_ptr(), buffer.len())
}

pub fn write(fd: Raw, bytes: &[u8]) -> Sys<usize> {
    call!(nr::WRITE, fd, bytes.as_ptr(), bytes.len())
}

/// Writes everything; for regular files.
pub fn write_all(fd: Raw, mut bytes: &[u8]) -> Sys {
    while !bytes.is_empty() {
        let written = write(fd, bytes)?;
        bytes = bytes.get(written..).ok_or(Errno::EINVAL)?;
    }
    Ok(())
}

pub fn close(fd: Raw) {
    let _ = call!(nr::CLOSE, fd);
}

pub fn close_range(first: u32, last: u32, flags: u32) -> Sys {
    done(call!(late::CLOSE_RANGE, first, last, flags))
}

pub fn openat(dir: Raw, path: &CStr, flags: i32, mode: u32) -> Sys<Fd> {
    descriptor(call!(nr::OPENAT, dir, path, flags | O_CLOEXEC, mode))
}

pub fn openat2(dir: Raw, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Sys<Fd> {
    let how = OpenHow { flags: (flags | O_CLOEXEC) as u32 as u64, mode: mode.into(), resolve };
    // A concurrent rename anywhere makes the kernel give up rather than guess.
    for _ in 0..128 {
        match call!(late::OPENAT2, dir, path, &raw const how, size_of::<OpenHow>()) {
            Err(Errno::EAGAIN) => {}
            result => return descriptor(result),
        }
    }
    Err(Errno::EAGAIN)
}

pub fn mkdirat(dir: Raw, name: &CStr, mode: u32) -> Sys {
    done(call!(nr::MKDIRAT, dir, name, mode))
}

pub fn mknodat(dir: Raw, name: &CStr, mode: u32, device: u64) -> Sys {
    done(call!(nr::MKNODAT, dir, name, mode, device))
}

pub fn symlinkat(target: &CStr, dir: Raw, name: &CStr) -> Sys {
    done(call!(nr::SYMLINKAT, target, dir, name))
}

pub fn unlinkat(dir: Raw, name: &CStr, flags: i32) -> Sys {
    done(call!(nr::UNLINKAT, dir, name, flags))
}

pub fn readlinkat(dir: Raw, name: &CStr, buffer: &mut [u8]) -> Sys<usize> {
    call!(nr::READLINKAT, dir, name, buffer.as_mut_ptr(), buffer.len())
}

/// By the effective ids and capabilities, as what follows is decided; before Linux 5.8 and behind
/// filters that do not know it, by the real ones.
pub fn faccessat(dir: Raw, path: &CStr, mode: i32) -> Sys {
    match done(call!(late::FACCESSAT2, dir, path, mode, AT_EACCESS)) {
        Err(Errno::ENOSYS | Errno::EPERM) => done(call!(nr::FACCESSAT, dir, path, mode)),
        other => other,
    }
}

pub fn flock(fd: Raw, operation: i32) -> Sys {
    done(call!(nr::FLOCK, fd, operation))
}

pub fn fchmod(fd: Raw, mode: u32) -> Sys {
    done(call!(nr::FCHMOD, fd, mode))
}

pub fn fchmodat(dir: Raw, name: &CStr, mode: u32) -> Sys {
    done(call!(nr::FCHMODAT, dir, name, mode))
}

pub fn fchownat(dir: Raw, path: &CStr, uid: u32, gid: u32, flags: i32) -> Sys {
    done(call!(nr::FCHOWNAT, dir, path, uid, gid, flags))
}

pub fn statx(dir: Raw, path: &CStr, flags: i32) -> Sys<Statx> {
    let mut out = Statx::ZERO;
    call!(nr::STATX, dir, path, flags, STATX_BASIC_STATS, &raw mut out)?;
    Ok(out)
}

/// What a descriptor refers to.
pub fn stat(fd: Raw) -> Sys<Statx> {
    statx(fd, c"", AT_EMPTY_PATH)
}

pub fn fstatfs(fd: Raw) -> Sys<StatFs> {
    let mut out = StatFs([0; 15]);
    call!(nr::FSTATFS, fd, &raw mut out)?;
    Ok(out)
}

pub fn getdents(fd: Raw, buffer: &mut [u8]) -> Sys<usize> {
    call!(nr::GETDENTS64, fd, buffer.as_mut_ptr(), buffer.len())
}

pub fn sendfile(to: Raw, from: Raw, len: usize) -> Sys<usize> {
    call!(nr::SENDFILE, to, from, 0usize, len)
}

pub fn fremovexattr(fd: Raw, name: &CStr) -> Sys {
    done(call!(nr::FREMOVEXATTR, fd, name))
}

pub fn fcntl(fd: Raw, command: i32, argument: i32) -> Sys<i32> {
    call!(nr::FCNTL, fd, command, argument).map(|value| value as i32)
}

/// A copy of a descriptor with a number of at least `least`.
pub fn duplicate(fd: Raw, least: i32) -> Sys<Fd> {
    Fd::new(fcntl(fd, F_DUPFD_CLOEXEC, least)?).ok_or(Errno::EBADF)
}

/// Makes `fd` known as `target` too; that one survives exec.
pub fn duplicate_to(fd: Raw, target: Raw, flags: i32) -> Sys {
    if fd == target {
        return fcntl(fd, F_SETFD, if flags & O_CLOEXEC != 0 { 1 } else { 0 }).map(|_| ());
    }
    done(call!(nr::DUP3, fd, target, flags))
}

pub fn ioctl<T>(fd: Raw, request: usize, argument: &mut T) -> Sys<usize> {
    call!(nr::IOCTL, fd, request, &raw mut *argument)
}

pub fn ioctl_number(fd: Raw, request: usize, argument: usize) -> Sys<usize> {
    call!(nr::IOCTL, fd, request, argument)
}

/// Goes back to the start of a file.
pub fn rewind(fd: Raw) -> Sys {
    done(call!(nr::LSEEK, fd, 0, 0))
}

pub fn memfd(name: &CStr) -> Sys<Fd> {
    descriptor(call!(nr::MEMFD_CREATE, name, MFD_CLOEXEC | MFD_ALLOW_SEALING))
}

/// Gives a memfd a size that nobody can change.
pub fn bound(memfd: Raw, size: usize) -> Sys {
    done(call!(nr::FTRUNCATE, memfd, size))?;
    fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW).map(drop)
}

pub fn chdir(path: &CStr) -> Sys {
    done(call!(nr::CHDIR, path))
}

pub fn fchdir(fd: Raw) -> Sys {
    done(call!(nr::FCHDIR, fd))
}

pub fn chroot(path: &CStr) -> Sys {
    done(call!(nr::CHROOT, path))
}

pub fn getcwd(buffer: &mut [u8]) -> Sys<usize> {
    call!(nr::GETCWD, buffer.as_mut_ptr(), buffer.len())
}

pub fn umask(mask: u32) -> u32 {
    call!(nr::UMASK, mask).unwrap_or(0) as u32
}

// ---- Mounts -----------------------------------------------------------------------------------

pub fn open_tree(dir: Raw, path: &CStr, flags: u32) -> Sys<Fd> {
    descriptor(call!(late::OPEN_TREE, dir, path, flags | OPEN_TREE_CLOEXEC))
}

/// Attaches the mount `mount` at what `target` refers to.
pub fn move_mount(mount: Raw, target: Raw) -> Sys {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    done(call!(late::MOVE_MOUNT, mount, c"", target, c"", flags))
}

pub fn fsopen(fstype: &CStr) -> Sys<Fd> {
    descriptor(call!(late::FSOPEN, fstype, FSOPEN_CLOEXEC))
}

pub fn fsconfig_flag(fs: Raw, key: &CStr) -> Sys {
    done(call!(late::FSCONFIG, fs, FSCONFIG_SET_FLAG, key, 0, 0))
}

pub fn fsconfig_string(fs: Raw, key: &CStr, value: &CStr) -> Sys {
    done(call!(late::FSCONFIG, fs, FSCONFIG_SET_STRING, key, value, 0))
}

pub fn fsconfig_create(fs: Raw) -> Sys {
    done(call!(late::FSCONFIG, fs, FSCONFIG_CMD_CREATE, 0, 0, 0))
}

pub fn fsconfig_reconfigure(fs: Raw) -> Sys {
    done(call!(late::FSCONFIG, fs, FSCONFIG_CMD_RECONFIGURE, 0, 0, 0))
}

/// The filesystem that is mounted there, to be reconfigured.
pub fn fspick(mount: Raw) -> Sys<Fd> {
    descriptor(call!(late::FSPICK, mount, c"", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC))
}

pub fn fsmount(fs: Raw, attributes: u64) -> Sys<Fd> {
    descriptor(call!(late::FSMOUNT, fs, FSMOUNT_CLOEXEC, attributes))
}

pub fn mount_setattr(mount: Raw, flags: i32, attributes: &MountAttr) -> Sys {
    let size = size_of::<MountAttr>();
    let flags = flags | AT_EMPTY_PATH;
    done(call!(late::MOUNT_SETATTR, mount, c"", flags, &raw const *attributes, size))
}

/// `mount(2)`; empty strings for what does not matter.
pub fn mount(source: &CStr, target: &CStr, fstype: &CStr, flags: u64, data: &CStr) -> Sys {
    done(call!(nr::MOUNT, source, target, fstype, flags, data))
}

pub fn umount(path: &CStr, flags: i32) -> Sys {
    done(call!(nr::UMOUNT2, path, flags))
}

pub fn pivot_root(new: &CStr, old: &CStr) -> Sys {
    done(call!(nr::PIVOT_ROOT, new, old))
}

// ---- Sockets ----------------------------------------------------------------------------------

pub fn socket(domain: i32, kind: i32) -> Sys<Fd> {
    descriptor(call!(nr::SOCKET, domain, kind | SOCK_CLOEXEC, 0))
}

/// A connected pair of datagram-preserving sockets.
pub fn socketpair() -> Sys<(Fd, Fd)> {
    let mut pair = [-1i32; 2];
    call!(nr::SOCKETPAIR, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.as_mut_ptr())?;
    match (Fd::new(pair[0]), Fd::new(pair[1])) {
        (Some(one), Some(other)) => Ok((one, other)),
        _ => Err(Errno::EBADF),
    }
}

pub fn bind(socket: Raw, address: &SocketAddress, len: usize) -> Sys {
    done(call!(nr::BIND, socket, &raw const *address, len))
}

pub fn listen(socket: Raw, backlog: i32) -> Sys {
    done(call!(nr::LISTEN, socket, backlog))
}

pub fn connect(socket: Raw, address: &SocketAddress, len: usize) -> Sys {
    done(call!(nr::CONNECT, socket, &raw const *address, len))
}

/// How long connecting and sending may take.
pub fn set_send_timeout(socket: Raw, seconds: u64) -> Sys {
    let time = TimeSpec::from_milliseconds(seconds * 1000);
    let len = size_of::<TimeSpec>();
    done(call!(nr::SETSOCKOPT, socket, SOL_SOCKET, SO_SNDTIMEO, &raw const time, len))
}

pub fn accept(socket: Raw) -> Sys<Fd> {
    descriptor(call!(nr::ACCEPT4, socket, 0, 0, SOCK_CLOEXEC))
}

pub fn peer_credentials(socket: Raw) -> Sys<PeerCredentials> {
    let mut out = PeerCredentials { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut len = size_of::<PeerCredentials>() as u32;
    call!(nr::GETSOCKOPT, socket, SOL_SOCKET, SO_PEERCRED, &raw mut out, &raw mut len)?;
    Ok(out)
}

/// A pidfd of the process that made a connection.
pub fn peer_pidfd(socket: Raw) -> Sys<Fd> {
    let mut raw: Raw = -1;
    let mut len = size_of::<Raw>() as u32;
    call!(nr::GETSOCKOPT, socket, SOL_SOCKET, SO_PEERPIDFD, &raw mut raw, &raw mut len)?;
    Fd::new(raw).ok_or(Errno::EBADF)
}

/// Whether a descriptor is a socket of this type.
pub fn is_socket(fd: Raw, kind: i32) -> bool {
    let mut found = 0i32;
    let mut len = size_of::<i32>() as u32;
    let result = call!(nr::GETSOCKOPT, fd, SOL_SOCKET, SO_TYPE, &raw mut found, &raw mut len);
    result.is_ok() && found == kind
}

/// # Safety
/// The pointers in `message` must be valid for its lengths.
pub unsafe fn sendmsg(socket: Raw, message: &MessageHeader, flags: i32) -> Sys<usize> {
    call!(nr::SENDMSG, socket, &raw const *message, flags)
}

/// # Safety
/// The pointers in `message` must be valid for its lengths, and writable.
pub unsafe fn recvmsg(socket: Raw, message: &mut MessageHeader, flags: i32) -> Sys<usize> {
    call!(nr::RECVMSG, socket, &raw mut *message, flags)
}

pub fn poll(entries: &mut [PollFd], timeout: Option<TimeSpec>) -> Sys<usize> {
    let pointer = timeout.as_ref().map_or(core::ptr::null(), |timeout| &raw const *timeout);
    call!(nr::PPOLL, entries.as_mut_ptr(), entries.len(), pointer, 0, 8)
}

pub fn epoll_create() -> Sys<Fd> {
    descriptor(call!(nr::EPOLL_CREATE1, O_CLOEXEC))
}

pub fn epoll_add(epoll: Raw, fd: Raw, events: u32, data: u64) -> Sys {
    let event = EpollEvent { events, data };
    done(call!(nr::EPOLL_CTL, epoll, EPOLL_CTL_ADD, fd, &raw const event))
}

pub fn epoll_remove(epoll: Raw, fd: Raw) {
    let event = EpollEvent { events: 0, data: 0 };
    let _ = call!(nr::EPOLL_CTL, epoll, EPOLL_CTL_DEL, fd, &raw const event);
}

// ---- Processes --------------------------------------------------------------------------------

pub fn exit(code: i32) -> ! {
    loop {
        let _ = call!(nr::EXIT_GROUP, code);
    }
}

pub fn getpid() -> i32 {
    call!(nr::GETPID).unwrap_or(0) as i32
}

pub fn geteuid() -> u32 {
    call!(nr::GETEUID).unwrap_or(0) as u32
}

/// A process that shares nothing with this one; 0 in the new process.
///
/// Nothing is shared, so the child goes on with a copy of all memory, and no second thread
/// exists that could hold something the child would need.
pub fn clone3(arguments: &CloneArgs) -> Sys<i32> {
    let size = size_of::<CloneArgs>();
    call!(late::CLONE3, &raw const *arguments, size).map(|pid| pid as i32)
}

/// The older form; the pidfd is written to `pidfd` if the flags ask for one.
pub fn clone(flags: u64, pidfd: &mut i32) -> Sys<i32> {
    call!(nr::CLONE, flags, 0, &raw mut *pidfd, 0, 0).map(|pid| pid as i32)
}

pub fn execve(path: &CStr, args: *const *const u8, env: *const *const u8) -> Errno {
    match call!(nr::EXECVE, path, args, env) {
        Err(errno) => errno,
        Ok(_) => Errno::EINVAL,
    }
}

pub fn waitid(pidfd: Raw, options: i32) -> Sys<SigInfo> {
    let mut info = SigInfo::ZERO;
    loop {
        match call!(nr::WAITID, P_PIDFD, pidfd, &raw mut info, options | WALL, 0) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => return Ok(info),
        }
    }
}

pub fn pidfd_open(pid: i32) -> Sys<Fd> {
    descriptor(call!(late::PIDFD_OPEN, pid, 0))
}

pub fn pidfd_send_signal(pidfd: Raw, signal: i32) -> Sys {
    done(call!(late::PIDFD_SEND_SIGNAL, pidfd, signal, 0, 0))
}

pub fn kill(pid: i32, signal: i32) -> Sys {
    done(call!(nr::KILL, pid, signal))
}

pub fn setns(fd: Raw, kinds: u64) -> Sys {
    done(call!(nr::SETNS, fd, kinds))
}

pub fn unshare(flags: u64) -> Sys {
    done(call!(nr::UNSHARE, flags))
}

pub fn setsid() -> Sys {
    done(call!(nr::SETSID))
}

/// Makes the process the leader of a new process group.
pub fn setpgid() -> Sys {
    done(call!(nr::SETPGID, 0, 0))
}

pub fn prctl(option: i32, a: usize, b: usize) -> Sys<usize> {
    call!(nr::PRCTL, option, a, b, 0, 0)
}

pub fn set_name(name: &CStr) {
    let _ = prctl(PR_SET_NAME, name.as_ptr() as usize, 0);
}

pub fn prlimit(pid: i32, resource: u32, limit: &[u64; 2]) -> Sys {
    done(call!(nr::PRLIMIT64, pid, resource, limit.as_ptr(), 0))
}

/// The limit of this process.
pub fn limit(resource: u32) -> Sys<[u64; 2]> {
    let mut limit = [0; 2];
    call!(nr::PRLIMIT64, 0, resource, 0, limit.as_mut_ptr())?;
    Ok(limit)
}

pub fn setuid(uid: u32) -> Sys {
    done(call!(nr::SETUID, uid))
}

pub fn setgid(gid: u32) -> Sys {
    done(call!(nr::SETGID, gid))
}

pub fn setresuid(uid: u32) -> Sys {
    done(call!(nr::SETRESUID, uid, uid, uid))
}

pub fn setresgid(gid: u32) -> Sys {
    done(call!(nr::SETRESGID, gid, gid, gid))
}

pub fn setgroups(groups: &[u32]) -> Sys {
    done(call!(nr::SETGROUPS, groups.len(), groups.as_ptr()))
}

pub fn capset(header: &CapabilityHeader, data: &[CapabilityData; 2]) -> Sys {
    done(call!(nr::CAPSET, &raw const *header, data.as_ptr()))
}

pub fn default_action(signal: i32) {
    // All zero: default disposition, no flags, no restorer, empty mask.
    let action = [0u64; 4];
    let _ = call!(nr::RT_SIGACTION, signal, action.as_ptr(), 0, 8);
}

/// Has a signal end this process even where the kernel would spare it: the first of a pid namespace
/// gets no signal that it has no handler for. A program that is executed does not keep it.
pub fn end_by(signal: i32) {
    extern "C" fn end(signal: i32) {
        exit(128 + signal);
    }
    let end = end as *const () as u64;
    // The handler does not return, but the kernel wants to know where to.
    let action = [end, SA_RESTORER, end, 0];
    let _ = call!(nr::RT_SIGACTION, signal, action.as_ptr(), 0, 8);
}

pub fn unblock_signals() {
    let empty = 0u64;
    let _ = call!(nr::RT_SIGPROCMASK, SIG_SETMASK, &raw const empty, 0, 8);
}

pub fn set_affinity(mask: &[u8]) -> Sys {
    done(call!(nr::SCHED_SETAFFINITY, 0, mask.len(), mask.as_ptr()))
}

pub fn set_nice(nice: i32) -> Sys {
    done(call!(nr::SETPRIORITY, 0, 0, nice))
}

pub fn set_normal_scheduling() -> Sys {
    let priority = 0i32;
    done(call!(nr::SCHED_SETSCHEDULER, 0, 0, &raw const priority))
}

pub fn sched_setattr(attributes: &SchedAttr) -> Sys {
    done(call!(nr::SCHED_SETATTR, 0, &raw const *attributes, 0))
}

pub fn ioprio_set(value: u32) -> Sys {
    done(call!(nr::IOPRIO_SET, 1, 0, value))
}

pub fn default_memory_policy() {
    let _ = call!(nr::SET_MEMPOLICY, 0, 0, 0);
}

pub fn set_memory_policy(policy: u32, nodes: &[u8]) -> Sys {
    // The kernel reads one bit less than it is told.
    done(call!(nr::SET_MEMPOLICY, policy, nodes.as_ptr(), nodes.len() * 8 + 1))
}

pub fn personality(persona: u64) -> Sys {
    done(call!(nr::PERSONALITY, persona))
}

pub fn new_session_keyring() -> Sys {
    done(call!(nr::KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, 0usize))
}

pub fn seccomp(flags: u64, program: &SockFprog) -> Sys<usize> {
    call!(nr::SECCOMP, SECCOMP_SET_MODE_FILTER, flags, &raw const *program)
}

pub fn sethostname(name: &CStr) -> Sys {
    done(call!(nr::SETHOSTNAME, name, name.count_bytes()))
}

pub fn setdomainname(name: &CStr) -> Sys {
    done(call!(nr::SETDOMAINNAME, name, name.count_bytes()))
}

// ---- Memory and time --------------------------------------------------------------------------

/// The whole of a memory file, read-only, until it is given back. It has to be sealed: bytes
/// that vanish while they are read would kill this process.
pub fn map_file(fd: Raw, len: usize) -> Sys<&'static [u8]> {
    let sealed = F_SEAL_SHRINK | F_SEAL_WRITE;
    if fcntl(fd, F_GET_SEALS, 0)? & sealed != sealed {
        return Err(Errno::EPERM);
    }
    let address = call!(nr::MMAP, 0, len, PROT_READ, MAP_PRIVATE, fd, 0)?;
    // SAFETY: the kernel has just made this many readable bytes there, and the seals keep them.
    Ok(unsafe { core::slice::from_raw_parts(address as *const u8, len) })
}

/// Gives a mapping back.
///
/// # Safety
/// `bytes` comes from [`map_file`], and no reference to it is used afterwards.
pub unsafe fn unmap(bytes: &'static [u8]) {
    let _ = call!(nr::MUNMAP, bytes.as_ptr(), bytes.len());
}

/// Zeroed memory, given back when dropped.
pub struct Block<T: Zeroable + 'static>(&'static mut [T]);

/// Zeroed memory for `count` values.
pub fn allocate<T: Zeroable>(count: usize) -> Sys<Block<T>> {
    let len = count.checked_mul(size_of::<T>()).ok_or(Errno::ENOMEM)?.max(1);
    let protection = PROT_READ | PROT_WRITE;
    let address = call!(nr::MMAP, 0, len, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)?;
    // SAFETY: fresh, page-aligned, zeroed memory of that length, which nobody else has; all
    // zeroes are a valid `T`.
    Ok(Block(unsafe { core::slice::from_raw_parts_mut(address as *mut T, count) }))
}

impl<T: Zeroable> core::ops::Deref for Block<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.0
    }
}

impl<T: Zeroable> core::ops::DerefMut for Block<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.0
    }
}

impl<T: Zeroable> Drop for Block<T> {
    fn drop(&mut self) {
        let _ = call!(nr::MUNMAP, self.0.as_ptr(), size_of_val(&*self.0).max(1));
    }
}

/// Types for which all zeroes are a value.
///
/// # Safety
/// Exactly that.
pub unsafe trait Zeroable: Copy {}
// SAFETY: a plain number.
unsafe impl Zeroable for u8 {}
// SAFETY: a plain number.
unsafe impl Zeroable for u32 {}
// SAFETY: a null pointer is a pointer.
unsafe impl Zeroable for *const u8 {}

/// Milliseconds of a clock that never goes back.
pub fn now() -> u64 {
    let mut time = TimeSpec { seconds: 0, nanoseconds: 0 };
    let _ = call!(nr::CLOCK_GETTIME, CLOCK_MONOTONIC, &raw mut time);
    time.seconds as u64 * 1000 + time.nanoseconds as u64 / 1_000_000
}

pub fn sleep(milliseconds: u64) {
    let time = TimeSpec::from_milliseconds(milliseconds);
    let _ = call!(nr::NANOSLEEP, &raw const time, 0);
}

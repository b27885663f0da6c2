//! The kernel's structures and constants, as far as the keeper uses them. All of them are
//! the same on every 64-bit processor; what is not stands in `arch`.

pub use crate::arch::{O_DIRECTORY, O_NOFOLLOW};

pub const O_RDONLY: i32 = 0;
pub const O_WRONLY: i32 = 1;
pub const O_RDWR: i32 = 2;
pub const O_CREAT: i32 = 0o100;
pub const O_EXCL: i32 = 0o200;
pub const O_NOCTTY: i32 = 0o400;
pub const O_NONBLOCK: i32 = 0o4000;
pub const O_CLOEXEC: i32 = 0o2000000;
pub const O_PATH: i32 = 0o10000000;

pub const AT_FDCWD: i32 = -100;
pub const AT_SYMLINK_NOFOLLOW: i32 = 0x100;
pub const AT_REMOVEDIR: i32 = 0x200;
pub const AT_EMPTY_PATH: i32 = 0x1000;
pub const AT_EACCESS: i32 = 0x200;
pub const AT_RECURSIVE: i32 = 0x8000;

pub const RESOLVE_NO_XDEV: u64 = 1;
pub const RESOLVE_NO_MAGICLINKS: u64 = 2;
pub const RESOLVE_NO_SYMLINKS: u64 = 4;
pub const RESOLVE_IN_ROOT: u64 = 0x10;

pub const F_GETFD: i32 = 1;
pub const F_SETFD: i32 = 2;
pub const F_DUPFD_CLOEXEC: i32 = 1030;
pub const F_GET_SEALS: i32 = 1034;
pub const F_SEAL_SHRINK: i32 = 2;
pub const F_SEAL_WRITE: i32 = 8;
pub const F_ADD_SEALS: i32 = 1033;
pub const F_SEAL_GROW: i32 = 4;
pub const MFD_CLOEXEC: u32 = 1;
pub const MFD_ALLOW_SEALING: u32 = 2;
pub const X_OK: i32 = 1;
pub const CLOSE_RANGE_CLOEXEC: u32 = 4;

pub const S_IFMT: u32 = 0o170000;
pub const S_IFDIR: u32 = 0o040000;
pub const S_IFCHR: u32 = 0o020000;
pub const S_IFREG: u32 = 0o100000;
pub const S_IFIFO: u32 = 0o010000;
pub const S_IFLNK: u32 = 0o120000;

pub const STATX_BASIC_STATS: u32 = 0x7ff;

#[repr(C)]
pub struct Statx {
    pub mask: u32,
    pub blksize: u32,
    pub attributes: u64,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub mode: u16,
    spare0: u16,
    pub ino: u64,
    pub size: u64,
    pub blocks: u64,
    pub attributes_mask: u64,
    times: [u64; 8],
    pub rdev_major: u32,
    pub rdev_minor: u32,
    pub dev_major: u32,
    pub dev_minor: u32,
    spare: [u64; 14],
}

impl Statx {
    // SAFETY: only integers.
    pub const ZERO: Statx = unsafe { core::mem::zeroed() };

    /// The file type, one of `S_IF*`.
    pub fn kind(&self) -> u32 {
        u32::from(self.mode) & S_IFMT
    }

    pub fn is_directory(&self) -> bool {
        self.kind() == S_IFDIR
    }

    /// Whether it is this character device.
    pub fn is_device(&self, major: u32, minor: u32) -> bool {
        self.kind() == S_IFCHR && (self.rdev_major, self.rdev_minor) == (major, minor)
    }
}

/// `struct statfs`: the filesystem's magic is the first word, the mount's flags the eleventh.
#[repr(C)]
pub struct StatFs(pub [u64; 15]);

impl StatFs {
    pub fn magic(&self) -> u64 {
        self.0[0]
    }
}

pub const PROC_SUPER_MAGIC: u64 = 0x9fa0;
pub const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

#[repr(C)]
pub struct OpenHow {
    pub flags: u64,
    pub mode: u64,
    pub resolve: u64,
}

// ---- Mounts ---------------------------------------------------------------------------------

pub const OPEN_TREE_CLONE: u32 = 1;
pub const OPEN_TREE_CLOEXEC: u32 = O_CLOEXEC as u32;
pub const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
pub const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
pub const FSOPEN_CLOEXEC: u32 = 1;
pub const FSPICK_CLOEXEC: u32 = 1;
pub const FSPICK_EMPTY_PATH: u32 = 8;
pub const FSMOUNT_CLOEXEC: u32 = 1;
pub const FSCONFIG_SET_FLAG: u32 = 0;
pub const FSCONFIG_SET_STRING: u32 = 1;
pub const FSCONFIG_CMD_CREATE: u32 = 6;
pub const FSCONFIG_CMD_RECONFIGURE: u32 = 7;

pub const MOUNT_ATTR_RDONLY: u64 = 1;
pub const MOUNT_ATTR_NOSUID: u64 = 2;
pub const MOUNT_ATTR_NODEV: u64 = 4;
pub const MOUNT_ATTR_NOEXEC: u64 = 8;
pub const MOUNT_ATTR_ATIME: u64 = 0x70;
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;
pub const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;

#[repr(C)]
#[derive(Default)]
pub struct MountAttr {
    pub set: u64,
    pub clear: u64,
    pub propagation: u64,
    pub userns: u64,
}

pub const MS_RDONLY: u64 = 1;
pub const MS_NOSUID: u64 = 2;
pub const MS_NODEV: u64 = 4;
pub const MS_NOEXEC: u64 = 8;
pub const MS_REMOUNT: u64 = 0x20;
pub const MS_NOSYMFOLLOW: u64 = 0x100;
pub const MS_NOATIME: u64 = 0x400;
pub const MS_NODIRATIME: u64 = 0x800;
pub const MS_BIND: u64 = 0x1000;
pub const MS_REC: u64 = 0x4000;
pub const MS_PRIVATE: u64 = 1 << 18;
pub const MS_SLAVE: u64 = 1 << 19;
pub const MS_RELATIME: u64 = 1 << 21;
pub const MS_STRICTATIME: u64 = 1 << 24;
pub const MNT_DETACH: i32 = 2;

// ---- Sockets and events -----------------------------------------------------------------------

pub const AF_UNIX: i32 = 1;
pub const AF_INET: i32 = 2;
pub const AF_NETLINK: i32 = 16;
pub const SOCK_STREAM: i32 = 1;
pub const SOCK_DGRAM: i32 = 2;
pub const SOCK_SEQPACKET: i32 = 5;
pub const SOCK_CLOEXEC: i32 = O_CLOEXEC;
pub const SOL_SOCKET: i32 = 1;
pub const SO_TYPE: i32 = 3;
pub const SO_PEERCRED: i32 = 17;
pub const SO_SNDTIMEO: i32 = 21;
pub const SO_PEERPIDFD: i32 = 77;
pub const SCM_RIGHTS: i32 = 1;
pub const MSG_DONTWAIT: i32 = 0x40;
pub const MSG_NOSIGNAL: i32 = 0x4000;
pub const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
pub const MSG_CTRUNC: i32 = 8;
pub const MSG_TRUNC: i32 = 0x20;

#[repr(C)]
pub struct SocketAddress {
    pub family: u16,
    pub path: [u8; 108],
}

#[repr(C)]
pub struct PeerCredentials {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

#[repr(C)]
pub struct IoSlice {
    pub base: *mut u8,
    pub len: usize,
}

#[repr(C)]
pub struct MessageHeader {
    pub name: *mut u8,
    pub name_len: u32,
    pub slices: *mut IoSlice,
    pub slice_count: usize,
    pub control: *mut u8,
    pub control_len: usize,
    pub flags: i32,
}

#[repr(C)]
pub struct ControlHeader {
    pub len: usize,
    pub level: i32,
    pub kind: i32,
}

#[repr(C)]
pub struct PollFd {
    pub fd: i32,
    pub events: i16,
    pub revents: i16,
}

impl PollFd {
    /// Waits for something to read, or the end.
    pub const fn readable(fd: i32) -> PollFd {
        PollFd { fd, events: 1, revents: 0 }
    }

    /// Waits for the other end to be closed.
    pub const fn hangup(fd: i32) -> PollFd {
        PollFd { fd, events: 0x2000, revents: 0 }
    }
}

pub const POLLHUP: i16 = 0x10;

pub const RLIMIT_NOFILE: u32 = 7;

pub const EPOLL_CTL_ADD: i32 = 1;
pub const EPOLL_CTL_DEL: i32 = 2;
pub const EPOLLIN: u32 = 1;
pub const EPOLLRDHUP: u32 = 0x2000;

#[cfg_attr(target_arch = "x86_64", repr(C, packed))]
#[cfg_attr(not(target_arch = "x86_64"), repr(C))]
pub struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

// ---- Processes -------------------------------------------------------------------------------

pub const CLONE_FILES: u64 = 0x400;
pub const CLONE_PIDFD: u64 = 0x1000;
pub const CLONE_PARENT: u64 = 0x8000;
pub const CLONE_NEWUSER: u64 = 0x1000_0000;
pub const CLONE_NEWNS: u64 = 0x0002_0000;
pub const CLONE_NEWNET: u64 = 0x4000_0000;
pub const CLONE_NEWTIME: u64 = 0x80;
pub const CLONE_NEWCGROUP: u64 = 0x0200_0000;
pub const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
pub const SIGHUP: i32 = 1;
pub const SIGINT: i32 = 2;
pub const SIGQUIT: i32 = 3;
pub const SIGKILL: i32 = 9;
pub const SIGTERM: i32 = 15;
pub const SA_RESTORER: u64 = 0x0400_0000;
pub const LOCK_EX: i32 = 2;
pub const LOCK_NB: i32 = 4;
pub const SIGCHLD: i32 = 17;
pub const SIG_SETMASK: i32 = 2;

#[repr(C)]
#[derive(Default)]
pub struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

pub const P_PIDFD: i32 = 3;
pub const WNOHANG: i32 = 1;
pub const WEXITED: i32 = 4;
pub const WNOWAIT: i32 = 0x0100_0000;
pub const WALL: i32 = 0x4000_0000;
pub const CLD_EXITED: i32 = 1;
pub const CLD_DUMPED: i32 = 3;

#[repr(C)]
pub struct SigInfo {
    pub signal: i32,
    pub errno: i32,
    pub code: i32,
    pad: i32,
    pub pid: i32,
    pub uid: u32,
    pub status: i32,
    rest: [u32; 25],
}

impl SigInfo {
    // SAFETY: only integers.
    pub const ZERO: SigInfo = unsafe { core::mem::zeroed() };
}

pub const PR_SET_PDEATHSIG: i32 = 1;
pub const PR_SET_DUMPABLE: i32 = 4;
pub const PR_SET_KEEPCAPS: i32 = 8;
pub const PR_SET_NAME: i32 = 15;
pub const PR_CAPBSET_DROP: i32 = 24;
pub const PR_SET_TIMERSLACK: i32 = 29;
pub const PR_SET_NO_NEW_PRIVS: i32 = 38;
pub const PR_CAP_AMBIENT: i32 = 47;
pub const PR_CAP_AMBIENT_RAISE: usize = 2;
pub const PR_CAP_AMBIENT_CLEAR_ALL: usize = 4;
pub const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
pub const SECCOMP_SET_MODE_FILTER: i32 = 1;

#[repr(C)]
pub struct CapabilityHeader {
    pub version: u32,
    pub pid: i32,
}

pub const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct CapabilityData {
    pub effective: u32,
    pub permitted: u32,
    pub inheritable: u32,
}

#[repr(C)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

#[repr(C)]
pub struct SockFprog {
    pub len: u16,
    pub filter: *const u8,
}

// ---- Terminals and interfaces -------------------------------------------------------------------

pub const TCGETS: usize = 0x5401;
pub const TCSETS: usize = 0x5402;
/// Of the output modes, the second number of a `struct termios`.
pub const ONLCR: u32 = 0x4;
pub const TIOCSCTTY: usize = 0x540e;
pub const TIOCSWINSZ: usize = 0x5414;
pub const TIOCSPTLCK: usize = 0x4004_5431;
pub const TIOCGPTPEER: usize = 0x5441;
pub const SIOCGIFFLAGS: usize = 0x8913;
pub const SIOCSIFFLAGS: usize = 0x8914;
pub const SIOCGSKNS: usize = 0x894c;
pub const IFF_UP: i16 = 1;

#[repr(C)]
pub struct InterfaceRequest {
    pub name: [u8; 16],
    pub flags: i16,
    pub rest: [u8; 22],
}

pub const SOCK_RAW: i32 = 3;
pub const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_ACK: u16 = 4;
pub const NLM_F_DUMP_INTR: u16 = 0x10;
pub const NLM_F_REPLACE: u16 = 0x100;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_SETLINK: u16 = 19;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_GETADDR: u16 = 22;
pub const IFLA_IFNAME: u16 = 3;
pub const IFLA_MASTER: u16 = 10;
pub const IFLA_NET_NS_FD: u16 = 28;
pub const IFLA_EXT_MASK: u16 = 29;
pub const RTEXT_FILTER_SKIP_STATS: u32 = 8;
pub const IFA_LABEL: u16 = 3;
pub const IFA_F_PERMANENT: u8 = 0x80;
pub const RT_SCOPE_UNIVERSE: u8 = 0;

/// `struct sockaddr_nl`.
#[repr(C)]
pub struct NetlinkAddress {
    pub family: u16,
    pad: u16,
    pub port: u32,
    pub groups: u32,
}

impl NetlinkAddress {
    pub const UNKNOWN: NetlinkAddress =
        NetlinkAddress { family: 0, pad: 0, port: u32::MAX, groups: 0 };
}

/// The fixed parts of route messages, as bytes: `struct ifinfomsg` and `struct ifaddrmsg`.
pub const LINK_HEADER: usize = 16;
pub const ADDRESS_HEADER: usize = 8;

// ---- Memory and time -------------------------------------------------------------------------

pub const PROT_READ: i32 = 1;
pub const PROT_WRITE: i32 = 2;
pub const MAP_PRIVATE: i32 = 2;
pub const MAP_ANONYMOUS: i32 = 0x20;
pub const CLOCK_MONOTONIC: i32 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct TimeSpec {
    pub seconds: i64,
    pub nanoseconds: i64,
}

impl TimeSpec {
    pub const ZERO: TimeSpec = TimeSpec { seconds: 0, nanoseconds: 0 };

    pub const fn from_milliseconds(milliseconds: u64) -> TimeSpec {
        TimeSpec {
            seconds: (milliseconds / 1000) as i64,
            nanoseconds: (milliseconds % 1000 * 1_000_000) as i64,
        }
    }

    pub const fn from_microseconds(microseconds: u32) -> TimeSpec {
        TimeSpec { seconds: 0, nanoseconds: microseconds as i64 * 1000 }
    }
}

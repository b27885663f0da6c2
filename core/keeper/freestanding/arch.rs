//! What differs between processors: the entry point, the system call instruction, the
//! numbers of system calls and the few constants that are not the same everywhere.

#[cfg(target_arch = "x86_64")]
mod machine {
    // The kernel enters with the stack pointer at argc; the ABI wants it 16-byte aligned
    // at a call, and a zero frame pointer ends every backtrace.
    core::arch::global_asm!(
        ".globl _start",
        "_start:",
        "xor ebp, ebp",
        "and rsp, -16",
        "call {main}",
        "ud2",
        main = sym crate::main,
    );

    /// # Safety
    /// As for the system call itself: pointers must be valid for what it does with them.
    #[inline(always)]
    pub unsafe fn syscall(number: usize, arguments: [usize; 6]) -> isize {
        let result;
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the kernel keeps all registers but rax, rcx and r11; the memory it may
        // touch is the caller's promise.
        unsafe {
            core::arch::asm!(
                "syscall",
                inlateout("rax") number as isize => result,
                in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            );
        }
        result
    }

    /// The stack pointer.
    #[inline(always)]
    pub fn stack_pointer() -> usize {
        let pointer;
        // SAFETY: it only reads a register.
        unsafe { core::arch::asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack)) };
        pointer
    }

    pub mod number {
        pub const READ: usize = 0;
        pub const WRITE: usize = 1;
        pub const CLOSE: usize = 3;
        pub const LSEEK: usize = 8;
        pub const MMAP: usize = 9;
        pub const MUNMAP: usize = 11;
        pub const RT_SIGACTION: usize = 13;
        pub const RT_SIGPROCMASK: usize = 14;
        pub const IOCTL: usize = 16;
        pub const MADVISE: usize = 28;
        pub const NANOSLEEP: usize = 35;
        pub const GETPID: usize = 39;
        pub const SENDFILE: usize = 40;
        pub const SOCKET: usize = 41;
        pub const CONNECT: usize = 42;
        pub const SENDMSG: usize = 46;
        pub const RECVMSG: usize = 47;
        pub const BIND: usize = 49;
        pub const LISTEN: usize = 50;
        pub const SOCKETPAIR: usize = 53;
        pub const SETSOCKOPT: usize = 54;
        pub const GETSOCKOPT: usize = 55;
        pub const CLONE: usize = 56;
        pub const EXECVE: usize = 59;
        pub const KILL: usize = 62;
        pub const FCNTL: usize = 72;
        pub const GETCWD: usize = 79;
        pub const CHDIR: usize = 80;
        pub const FCHDIR: usize = 81;
        pub const FLOCK: usize = 73;
        pub const FCHMOD: usize = 91;
        pub const UMASK: usize = 95;
        pub const SETUID: usize = 105;
        pub const SETGID: usize = 106;
        pub const GETEUID: usize = 107;
        pub const SETPGID: usize = 109;
        pub const SETSID: usize = 112;
        pub const SETGROUPS: usize = 116;
        pub const SETRESUID: usize = 117;
        pub const SETRESGID: usize = 119;
        pub const CAPSET: usize = 126;
        pub const PERSONALITY: usize = 135;
        pub const FSTATFS: usize = 138;
        pub const SETPRIORITY: usize = 141;
        pub const SCHED_SETSCHEDULER: usize = 144;
        pub const PIVOT_ROOT: usize = 155;
        pub const PRCTL: usize = 157;
        pub const CHROOT: usize = 161;
        pub const MOUNT: usize = 165;
        pub const UMOUNT2: usize = 166;
        pub const SETHOSTNAME: usize = 170;
        pub const SETDOMAINNAME: usize = 171;
        pub const FREMOVEXATTR: usize = 199;
        pub const SCHED_SETAFFINITY: usize = 203;
        pub const GETDENTS64: usize = 217;
        pub const CLOCK_GETTIME: usize = 228;
        pub const EXIT_GROUP: usize = 231;
        pub const EPOLL_CTL: usize = 233;
        pub const SET_MEMPOLICY: usize = 238;
        pub const WAITID: usize = 247;
        pub const KEYCTL: usize = 250;
        pub const IOPRIO_SET: usize = 251;
        pub const OPENAT: usize = 257;
        pub const MKDIRAT: usize = 258;
        pub const MKNODAT: usize = 259;
        pub const FCHOWNAT: usize = 260;
        pub const UNLINKAT: usize = 263;
        pub const SYMLINKAT: usize = 266;
        pub const READLINKAT: usize = 267;
        pub const FCHMODAT: usize = 268;
        pub const FACCESSAT: usize = 269;
        pub const PPOLL: usize = 271;
        pub const UNSHARE: usize = 272;
        pub const EPOLL_PWAIT: usize = 281;
        pub const ACCEPT4: usize = 288;
        pub const EPOLL_CREATE1: usize = 291;
        pub const DUP3: usize = 292;
        pub const PRLIMIT64: usize = 302;
        pub const SETNS: usize = 308;
        pub const SCHED_SETATTR: usize = 314;
        pub const SECCOMP: usize = 317;
        pub const FTRUNCATE: usize = 77;
        pub const MEMFD_CREATE: usize = 319;
        pub const STATX: usize = 332;
    }

    pub const O_DIRECTORY: i32 = 0o200000;
    pub const O_NOFOLLOW: i32 = 0o400000;
}

#[cfg(target_arch = "aarch64")]
mod machine {
    // The kernel enters with an aligned stack; zero frame and link registers end every
    // backtrace.
    core::arch::global_asm!(
        ".globl _start",
        "_start:",
        "mov x29, xzr",
        "mov x30, xzr",
        "bl {main}",
        "brk #1",
        main = sym crate::main,
    );

    /// # Safety
    /// As for the system call itself: pointers must be valid for what it does with them.
    #[inline(always)]
    pub unsafe fn syscall(number: usize, arguments: [usize; 6]) -> isize {
        let result;
        let [a, b, c, d, e, f] = arguments;
        // SAFETY: the kernel keeps all registers but x0; the memory it may touch is the
        // caller's promise.
        unsafe {
            core::arch::asm!(
                "svc #0",
                in("x8") number,
                inlateout("x0") a as isize => result,
                in("x1") b, in("x2") c, in("x3") d, in("x4") e, in("x5") f,
                options(nostack),
            );
        }
        result
    }

    /// The stack pointer.
    #[inline(always)]
    pub fn stack_pointer() -> usize {
        let pointer;
        // SAFETY: it only reads a register.
        unsafe { core::arch::asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack)) };
        pointer
    }

    pub mod number {
        pub const FREMOVEXATTR: usize = 16;
        pub const GETCWD: usize = 17;
        pub const EPOLL_CREATE1: usize = 20;
        pub const EPOLL_CTL: usize = 21;
        pub const EPOLL_PWAIT: usize = 22;
        pub const DUP3: usize = 24;
        pub const FCNTL: usize = 25;
        pub const IOCTL: usize = 29;
        pub const IOPRIO_SET: usize = 30;
        pub const MKNODAT: usize = 33;
        pub const MKDIRAT: usize = 34;
        pub const UNLINKAT: usize = 35;
        pub const SYMLINKAT: usize = 36;
        pub const UMOUNT2: usize = 39;
        pub const MOUNT: usize = 40;
        pub const PIVOT_ROOT: usize = 41;
        pub const FSTATFS: usize = 44;
        pub const FACCESSAT: usize = 48;
        pub const CHDIR: usize = 49;
        pub const FCHDIR: usize = 50;
        pub const CHROOT: usize = 51;
        pub const FLOCK: usize = 32;
        pub const FCHMOD: usize = 52;
        pub const FCHMODAT: usize = 53;
        pub const FCHOWNAT: usize = 54;
        pub const OPENAT: usize = 56;
        pub const CLOSE: usize = 57;
        pub const GETDENTS64: usize = 61;
        pub const LSEEK: usize = 62;
        pub const READ: usize = 63;
        pub const WRITE: usize = 64;
        pub const SENDFILE: usize = 71;
        pub const PPOLL: usize = 73;
        pub const READLINKAT: usize = 78;
        pub const CAPSET: usize = 91;
        pub const PERSONALITY: usize = 92;
        pub const EXIT_GROUP: usize = 94;
        pub const WAITID: usize = 95;
        pub const UNSHARE: usize = 97;
        pub const NANOSLEEP: usize = 101;
        pub const CLOCK_GETTIME: usize = 113;
        pub const SCHED_SETSCHEDULER: usize = 119;
        pub const SCHED_SETAFFINITY: usize = 122;
        pub const KILL: usize = 129;
        pub const RT_SIGACTION: usize = 134;
        pub const RT_SIGPROCMASK: usize = 135;
        pub const SETPRIORITY: usize = 140;
        pub const SETGID: usize = 144;
        pub const SETUID: usize = 146;
        pub const SETRESUID: usize = 147;
        pub const SETRESGID: usize = 149;
        pub const SETPGID: usize = 154;
        pub const SETSID: usize = 157;
        pub const SETGROUPS: usize = 159;
        pub const SETHOSTNAME: usize = 161;
        pub const SETDOMAINNAME: usize = 162;
        pub const UMASK: usize = 166;
        pub const PRCTL: usize = 167;
        pub const GETPID: usize = 172;
        pub const GETEUID: usize = 175;
        pub const SOCKET: usize = 198;
        pub const SOCKETPAIR: usize = 199;
        pub const BIND: usize = 200;
        pub const LISTEN: usize = 201;
        pub const CONNECT: usize = 203;
        pub const SETSOCKOPT: usize = 208;
        pub const GETSOCKOPT: usize = 209;
        pub const SENDMSG: usize = 211;
        pub const RECVMSG: usize = 212;
        pub const MUNMAP: usize = 215;
        pub const KEYCTL: usize = 219;
        pub const CLONE: usize = 220;
        pub const EXECVE: usize = 221;
        pub const MMAP: usize = 222;
        pub const MADVISE: usize = 233;
        pub const SET_MEMPOLICY: usize = 237;
        pub const ACCEPT4: usize = 242;
        pub const PRLIMIT64: usize = 261;
        pub const SETNS: usize = 268;
        pub const SCHED_SETATTR: usize = 274;
        pub const SECCOMP: usize = 277;
        pub const FTRUNCATE: usize = 46;
        pub const MEMFD_CREATE: usize = 279;
        pub const STATX: usize = 291;
    }

    pub const O_DIRECTORY: i32 = 0o40000;
    pub const O_NOFOLLOW: i32 = 0o100000;
}

pub use machine::*;

/// System calls that came late enough to have the same number everywhere.
pub mod late {
    pub const PIDFD_SEND_SIGNAL: usize = 424;
    pub const OPEN_TREE: usize = 428;
    pub const MOVE_MOUNT: usize = 429;
    pub const FSOPEN: usize = 430;
    pub const FSCONFIG: usize = 431;
    pub const FSMOUNT: usize = 432;
    pub const FSPICK: usize = 433;
    pub const PIDFD_OPEN: usize = 434;
    pub const CLONE3: usize = 435;
    pub const CLOSE_RANGE: usize = 436;
    pub const OPENAT2: usize = 437;
    pub const FACCESSAT2: usize = 439;
    pub const MOUNT_SETATTR: usize = 442;
}

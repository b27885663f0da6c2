//! The profile a container gets when nobody chose one.
//!
//! What ordinary programs need is allowed, call by call. What would reach the host's kernel,
//! clock, devices or mounts is refused with EPERM, so that the program says something sensible.
//! Everything else, io_uring and whatever is newer than this list included, does not exist
//! (ENOSYS): C libraries and runtimes fall back on their own then.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

/// Allowed with any arguments.
const ALLOWED: &[&str] = &[
    // Files: names, contents, attributes.
    "access chdir chmod chown creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 \
     fchown fchownat getcwd lchown link linkat mkdir mkdirat mknod mknodat open openat \
     openat2 readlink readlinkat rename renameat renameat2 rmdir symlink symlinkat truncate \
     umask unlink unlinkat utime utimensat utimes futimesat name_to_handle_at",
    "fstat fstatfs lstat newfstatat stat statfs statx",
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr \
     listxattrat llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr \
     setxattrat",
    "close close_range copy_file_range dup dup2 dup3 fadvise64 fallocate fcntl fdatasync \
     flock fsync ftruncate getdents getdents64 ioctl lseek pipe pipe2 pread64 preadv preadv2 \
     pwrite64 pwritev pwritev2 read readahead readv sendfile splice sync sync_file_range \
     syncfs tee vmsplice write writev",
    // Waiting for files and timers.
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait \
     epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init \
     inotify_init1 inotify_rm_watch poll ppoll pselect6 select signalfd signalfd4 \
     timerfd_create timerfd_gettime timerfd_settime",
    // The older asynchronous I/O; its successor io_uring passes seccomp by and is left out.
    "io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit",
    // Memory.
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 \
     mlockall mmap mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free \
     pkey_mprotect process_madvise process_mrelease remap_file_pages",
    // Processes and threads. clone and unshare have conditions, below.
    "capget capset chroot execve execveat exit exit_group fork get_robust_list \
     get_thread_area getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage \
     getsid gettid ioprio_get ioprio_set pidfd_getfd pidfd_open prctl prlimit64 \
     restart_syscall rseq seccomp set_robust_list set_thread_area set_tid_address setpgid \
     setpriority setrlimit setsid sysinfo times uname vfork wait4 waitid",
    "sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr \
     sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr \
     sched_setparam sched_setscheduler sched_yield",
    // Debuggers work within the container: since Linux 4.8 a tracer cannot undo the filter.
    "process_vm_readv process_vm_writev ptrace",
    // A program may tie its own hands.
    "landlock_add_rule landlock_create_ruleset landlock_restrict_self",
    "getegid geteuid getgid getgroups getresgid getresuid getuid setfsgid setfsuid setgid \
     setgroups setregid setresgid setresuid setreuid setuid",
    // Signals, futexes, time. Setting a clock takes a capability, reading it does not.
    "kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo \
     rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack tgkill tkill",
    "futex futex_requeue futex_wait futex_waitv futex_wake",
    "adjtimex alarm clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer \
     gettimeofday nanosleep setitimer time timer_create timer_delete timer_getoverrun \
     timer_gettime timer_settime",
    // System V and POSIX message passing, which the ipc namespace confines.
    "mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget \
     msgrcv msgsnd semctl semget semop semtimedop shmat shmctl shmdt shmget",
    // Sockets. socket itself has a condition, below.
    "accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg \
     recvmsg sendmmsg sendmsg sendto setsockopt shutdown socketpair",
    "getrandom",
];

/// What x86 programs need besides.
const ALLOWED_ON_X86: &str = "arch_prctl modify_ldt";

/// By its name: that of libseccomp for "native" is none of the specification's, and other runtimes
/// would not take a configuration with it.
const NATIVE: Arch =
    if cfg!(target_arch = "aarch64") { Arch::ScmpArchAarch64 } else { Arch::ScmpArchX86_64 };

/// Refused with EPERM: they exist, and are not for containers.
const REFUSED: &[&str] = &[
    // Replace, restart or extend the kernel.
    "create_module delete_module finit_module init_module kexec_file_load kexec_load \
     query_module reboot",
    // Run programs in the kernel, or watch it: large surfaces with a long record of holes.
    "bpf lookup_dcookie perf_event_open userfaultfd",
    // Mounts and namespaces: the container has its own, and they stay as they are.
    "fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root setns \
     umount2",
    // Opens any file of a filesystem by number, past the root of the container (Shocker, 2014).
    "open_by_handle_at",
    // The keyrings are the whole machine's: no namespace holds them.
    "add_key keyctl request_key",
    // Settings of the whole machine.
    "acct clock_settime fanotify_init nfsservctl quotactl quotactl_fd setdomainname \
     sethostname settimeofday swapoff swapon syslog vhangup _sysctl",
    // Ports of the hardware.
    "ioperm iopl",
    // Where memory lies: it tells, and takes from, other tenants of the machine.
    "get_mempolicy kcmp mbind migrate_pages move_pages set_mempolicy",
    // Remains of old kernels.
    "uselib ustat sysfs",
];

/// `CLONE_NEW*` bits of clone(2); unshare(2) has `CLONE_NEWTIME` besides.
const NEW_NAMESPACES: [u64; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
const NEW_TIME_NAMESPACE: u64 = 0x80;

/// The first address family that is refused. Below are those that namespaces confine; from here
/// on come AF_ALG (kernel crypto, a string of holes), AF_VSOCK (a line out to the hypervisor,
/// past the network namespace), AF_XDP and other rarities.
const AF_ALG: u64 = 38;

/// The profile. The same for every container on an architecture, and only for that one: a 32-bit
/// program is killed. On x86 any program can make 32-bit calls, and `socketcall` among them has
/// its arguments in memory, out of the filter's sight: a way around the rule for sockets. Who
/// runs 32-bit programs brings a profile that lists their architecture.
pub fn default_profile() -> LinuxSeccomp {
    let mut rules: Vec<LinuxSyscall> = Vec::new();
    rules.extend(ALLOWED.iter().map(|names| allow(names, Vec::new())));
    if cfg!(target_arch = "x86_64") {
        rules.push(allow(ALLOWED_ON_X86, Vec::new()));
    }
    rules.extend(REFUSED.iter().map(|names| refuse(names, libc::EPERM, Vec::new())));
    rules.extend(namespaces("clone", &NEW_NAMESPACES));
    // clone3 has its flags in memory, where no filter can look. Without it libraries use clone.
    rules.push(refuse("clone3", libc::ENOSYS, Vec::new()));
    let with_time = [&NEW_NAMESPACES[..], &[NEW_TIME_NAMESPACE]].concat();
    rules.extend(namespaces("unshare", &with_time));
    rules.push(allow("socket", vec![compare(LinuxSeccompOperator::ScmpCmpLt, AF_ALG)]));
    // A domain with garbage in its upper half is above, too, and not a way around.
    let above = vec![compare(LinuxSeccompOperator::ScmpCmpGe, AF_ALG)];
    rules.push(refuse("socket", libc::EAFNOSUPPORT, above));
    // Linux, 32-bit, the version number 2.6, both, and the question which it is now: not those
    // that switch off address randomisation.
    for persona in [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        let is = vec![compare(LinuxSeccompOperator::ScmpCmpEq, persona)];
        rules.push(allow("personality", is));
    }

    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(libc::ENOSYS as u32)
        .architectures(vec![NATIVE])
        .syscalls(rules)
        .build()
        .expect("every field has a default")
}

/// Allows a call whose flags ask for none of these namespaces; the others are refused.
fn namespaces(name: &'static str, kinds: &[u64]) -> Vec<LinuxSyscall> {
    let any = kinds.iter().fold(0, |all, kind| all | kind);
    let mut rules = vec![allow(name, vec![masked(any, 0)])];
    rules.extend(kinds.iter().map(|kind| refuse(name, libc::EPERM, vec![masked(*kind, *kind)])));
    rules
}

fn allow(names: &str, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    LinuxSyscallBuilder::default()
        .names(owned(names))
        .action(LinuxSeccompAction::ScmpActAllow)
        .args(args)
        .build()
        .expect("every field has a default")
}

fn refuse(names: &str, errno: i32, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    LinuxSyscallBuilder::default()
        .names(owned(names))
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(errno as u32)
        .args(args)
        .build()
        .expect("every field has a default")
}

fn owned(names: &str) -> Vec<String> {
    names.split_whitespace().map(str::to_owned).collect()
}

/// A condition on the first argument.
fn compare(op: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .op(op)
        .value(value)
        .build()
        .expect("every field has a default")
}

fn masked(mask: u64, value: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(0_usize)
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .value(mask)
        .value_two(value)
        .build()
        .expect("every field has a default")
}

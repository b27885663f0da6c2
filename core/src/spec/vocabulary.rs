//! The words of the specification and the kernel's numbers for them. Tables only.

use std::ops::RangeInclusive;

use super::oci::{
    Capability, IOPriorityClass, LinuxDeviceType, LinuxNamespaceType, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType,
    PosixRlimitType,
};

/// The specification's names of scheduler flags, and what oci-spec 0.10 makes of them.
pub(super) const SCHEDULER_FLAG_NAMES: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Every capability by the kernel's number, which is the index here.
pub const CAPABILITIES: [(&str, Capability); 41] = [
    ("CAP_CHOWN", Capability::Chown),
    ("CAP_DAC_OVERRIDE", Capability::DacOverride),
    ("CAP_DAC_READ_SEARCH", Capability::DacReadSearch),
    ("CAP_FOWNER", Capability::Fowner),
    ("CAP_FSETID", Capability::Fsetid),
    ("CAP_KILL", Capability::Kill),
    ("CAP_SETGID", Capability::Setgid),
    ("CAP_SETUID", Capability::Setuid),
    ("CAP_SETPCAP", Capability::Setpcap),
    ("CAP_LINUX_IMMUTABLE", Capability::LinuxImmutable),
    ("CAP_NET_BIND_SERVICE", Capability::NetBindService),
    ("CAP_NET_BROADCAST", Capability::NetBroadcast),
    ("CAP_NET_ADMIN", Capability::NetAdmin),
    ("CAP_NET_RAW", Capability::NetRaw),
    ("CAP_IPC_LOCK", Capability::IpcLock),
    ("CAP_IPC_OWNER", Capability::IpcOwner),
    ("CAP_SYS_MODULE", Capability::SysModule),
    ("CAP_SYS_RAWIO", Capability::SysRawio),
    ("CAP_SYS_CHROOT", Capability::SysChroot),
    ("CAP_SYS_PTRACE", Capability::SysPtrace),
    ("CAP_SYS_PACCT", Capability::SysPacct),
    ("CAP_SYS_ADMIN", Capability::SysAdmin),
    ("CAP_SYS_BOOT", Capability::SysBoot),
    ("CAP_SYS_NICE", Capability::SysNice),
    ("CAP_SYS_RESOURCE", Capability::SysResource),
    ("CAP_SYS_TIME", Capability::SysTime),
    ("CAP_SYS_TTY_CONFIG", Capability::SysTtyConfig),
    ("CAP_MKNOD", Capability::Mknod),
    ("CAP_LEASE", Capability::Lease),
    ("CAP_AUDIT_WRITE", Capability::AuditWrite),
    ("CAP_AUDIT_CONTROL", Capability::AuditControl),
    ("CAP_SETFCAP", Capability::Setfcap),
    ("CAP_MAC_OVERRIDE", Capability::MacOverride),
    ("CAP_MAC_ADMIN", Capability::MacAdmin),
    ("CAP_SYSLOG", Capability::Syslog),
    ("CAP_WAKE_ALARM", Capability::WakeAlarm),
    ("CAP_BLOCK_SUSPEND", Capability::BlockSuspend),
    ("CAP_AUDIT_READ", Capability::AuditRead),
    ("CAP_PERFMON", Capability::Perfmon),
    ("CAP_BPF", Capability::Bpf),
    ("CAP_CHECKPOINT_RESTORE", Capability::CheckpointRestore),
];

/// The number of a capability by its name, in any case and with or without `CAP_`: engines
/// that take names from users have always passed both forms on.
pub fn capability(name: &str) -> Option<u32> {
    let bare = |name: &'static str| &name["CAP_".len()..];
    let wanted = match name.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
        _ => name,
    };
    CAPABILITIES
        .iter()
        .position(|(name, _)| bare(name).eq_ignore_ascii_case(wanted))
        .map(|number| number as u32)
}

/// The number of a capability.
pub fn capability_number(capability: Capability) -> u32 {
    CAPABILITIES
        .iter()
        .position(|(_, c)| *c == capability)
        .expect("the table holds every capability") as u32
}

/// A set of capabilities as the kernel's bit mask, without those the kernel does not know:
/// `last` is the content of `/proc/sys/kernel/cap_last_cap`.
pub fn capability_mask<'a>(set: impl IntoIterator<Item = &'a Capability>, last: u32) -> u64 {
    set.into_iter().fold(0, |mask, capability| {
        let number = capability_number(*capability);
        if number <= last { mask | 1 << number } else { mask }
    })
}

/// The names of the capabilities in a mask.
pub fn capability_names(mask: u64) -> impl Iterator<Item = &'static str> {
    let wanted = move |capability| mask >> capability_number(capability) & 1 == 1;
    CAPABILITIES.into_iter().filter(move |entry| wanted(entry.1)).map(|entry| entry.0)
}

/// `RLIMIT_*` of a limit, as on x86-64 and aarch64.
pub fn rlimit(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

/// `PER_*` of a personality.
pub fn persona(domain: LinuxPersonalityDomain) -> u64 {
    match domain {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }
}

/// `CLONE_NEW*` of a namespace.
pub fn namespace_flag(kind: LinuxNamespaceType) -> u64 {
    match kind {
        LinuxNamespaceType::Time => 0x0000_0080,
        LinuxNamespaceType::Mount => 0x0002_0000,
        LinuxNamespaceType::Cgroup => 0x0200_0000,
        LinuxNamespaceType::Uts => 0x0400_0000,
        LinuxNamespaceType::Ipc => 0x0800_0000,
        LinuxNamespaceType::User => 0x1000_0000,
        LinuxNamespaceType::Pid => 0x2000_0000,
        LinuxNamespaceType::Network => 0x4000_0000,
    }
}

/// The specification's name of the namespace with this `CLONE_NEW*`.
pub fn namespace_name_of(flag: u64) -> &'static str {
    use LinuxNamespaceType::*;
    [Time, Mount, Cgroup, Uts, Ipc, User, Pid, Network]
        .into_iter()
        .find(|kind| namespace_flag(*kind) == flag)
        .map_or("", namespace_name)
}

/// The specification's name of a namespace.
pub fn namespace_name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Time => "time",
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
    }
}

/// `S_IFCHR`, `S_IFBLK` or `S_IFIFO` of a device; `None` for `a`, which stands for no node.
pub fn device_file_type(kind: LinuxDeviceType) -> Option<u32> {
    match kind {
        LinuxDeviceType::C | LinuxDeviceType::U => Some(libc::S_IFCHR),
        LinuxDeviceType::B => Some(libc::S_IFBLK),
        LinuxDeviceType::P => Some(libc::S_IFIFO),
        LinuxDeviceType::A => None,
    }
}

/// `MS_*` bits of a propagation name, with `MS_REC` for the recursive ones.
pub fn propagation(name: &str) -> Option<u64> {
    let (name, recursive) = match name {
        "rprivate" | "rslave" | "rshared" | "runbindable" => (&name[1..], libc::MS_REC),
        _ => (name, 0),
    };
    let flag = match name {
        "private" => libc::MS_PRIVATE,
        "slave" => libc::MS_SLAVE,
        "shared" => libc::MS_SHARED,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some(flag | recursive)
}

/// `SCHED_*` of a scheduling policy.
pub fn scheduler_policy(policy: LinuxSchedulerPolicy) -> u32 {
    match policy {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    }
}

/// `SCHED_FLAG_*` of a scheduler flag.
pub fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

/// Every NUMA memory policy with its name and `MPOL_*` number.
pub const MEMORY_POLICY_MODES: [(&str, MemoryPolicyModeType, u32); 7] = [
    ("MPOL_DEFAULT", MemoryPolicyModeType::MpolDefault, 0),
    ("MPOL_PREFERRED", MemoryPolicyModeType::MpolPreferred, 1),
    ("MPOL_BIND", MemoryPolicyModeType::MpolBind, 2),
    ("MPOL_INTERLEAVE", MemoryPolicyModeType::MpolInterleave, 3),
    ("MPOL_LOCAL", MemoryPolicyModeType::MpolLocal, 4),
    ("MPOL_PREFERRED_MANY", MemoryPolicyModeType::MpolPreferredMany, 5),
    ("MPOL_WEIGHTED_INTERLEAVE", MemoryPolicyModeType::MpolWeightedInterleave, 6),
];

/// Every flag of a memory policy with its name and `MPOL_F_*` bit.
pub const MEMORY_POLICY_FLAGS: [(&str, MemoryPolicyFlagType, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", MemoryPolicyFlagType::MpolFNumaBalancing, 1 << 13),
    ("MPOL_F_RELATIVE_NODES", MemoryPolicyFlagType::MpolFRelativeNodes, 1 << 14),
    ("MPOL_F_STATIC_NODES", MemoryPolicyFlagType::MpolFStaticNodes, 1 << 15),
];

/// As many NUMA nodes as a kernel can be built for.
pub const MOST_NODES: u32 = 1024;

/// As many processors as a kernel can be built for.
pub const MOST_PROCESSORS: u32 = 8192;

/// The numbers of a list such as `0-3,7`, range by range, each in order; `None` if it is none.
pub fn numbers_of(list: &str) -> Option<Vec<RangeInclusive<u32>>> {
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let range = |range: &str| {
        let (first, last) = range.trim().split_once('-').unwrap_or((range.trim(), range.trim()));
        Some(number(first)?..=number(last)?).filter(|range| !range.is_empty())
    };
    list.split(',').map(range).collect()
}

/// The value `ioprio_set(2)` takes for a class and a level.
pub fn io_priority(class: IOPriorityClass, level: i64) -> u32 {
    let class = match class {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    class << 13 | (level as u32 & 7)
}

/// A sysctl's name as a path below `/proc/sys`, or `None` if it is not well-formed.
///
/// Whichever of `.` and `/` comes first separates; the other one is then part of a word and
/// stands for the first, as in `net.ipv4.conf.eth0/100.forwarding` for interface `eth0.100`.
pub fn sysctl_path(name: &str) -> Option<String> {
    let path = match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    };
    let well_formed = path.split('/').all(|word| {
        !word.is_empty() && word != "." && word != ".." && !word.contains(char::is_whitespace)
    });
    (well_formed && path.contains('/')).then_some(path)
}

/// The namespace a sysctl belongs to, by its path; `None` if it is the whole machine's.
pub fn sysctl_namespace(path: &str) -> Option<LinuxNamespaceType> {
    const IPC: [&str; 9] = [
        "kernel/auto_msgmni",
        "kernel/msgmax",
        "kernel/msgmnb",
        "kernel/msgmni",
        "kernel/sem",
        "kernel/shmall",
        "kernel/shmmax",
        "kernel/shmmni",
        "kernel/shm_rmid_forced",
    ];
    const IPC_NEXT: [&str; 3] = ["kernel/msg_next_id", "kernel/sem_next_id", "kernel/shm_next_id"];
    if path.starts_with("net/") {
        Some(LinuxNamespaceType::Network)
    } else if path.starts_with("fs/mqueue/") || IPC.contains(&path) || IPC_NEXT.contains(&path) {
        Some(LinuxNamespaceType::Ipc)
    } else if path == "kernel/hostname" || path == "kernel/domainname" {
        Some(LinuxNamespaceType::Uts)
    } else if path.starts_with("user/") {
        Some(LinuxNamespaceType::User)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_names_are_taken_in_any_case_and_with_or_without_the_prefix() {
        for name in ["CAP_SYS_ADMIN", "SYS_ADMIN", "cap_sys_admin", "Sys_Admin"] {
            assert_eq!(capability(name), Some(21), "{name}");
        }
        assert_eq!(capability("CAP_CHECKPOINT_RESTORE"), Some(40));
        for name in ["", "CAP_", "CAP_NOPE", "é", "CAP_CAP_KILL"] {
            assert_eq!(capability(name), None, "{name}");
        }
    }

    #[test]
    fn a_mask_leaves_out_what_the_kernel_does_not_know() {
        let set = [Capability::Chown, Capability::CheckpointRestore];
        assert_eq!(capability_mask(&set, 40), 1 | 1 << 40);
        assert_eq!(capability_mask(&set, 39), 1);
    }

    #[test]
    fn propagation_names_give_mount_flags() {
        assert_eq!(propagation("rslave"), Some(libc::MS_SLAVE | libc::MS_REC));
        assert_eq!(propagation("shared"), Some(libc::MS_SHARED));
        assert_eq!(propagation("rr"), None);
    }

    #[test]
    fn sysctl_names_are_read_in_both_styles() {
        let path = |name| sysctl_path(name);
        assert_eq!(path("net.ipv4.ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        assert_eq!(path("net/ipv4/ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        assert_eq!(
            path("net.ipv4.conf.eth0/100.forwarding").as_deref(),
            Some("net/ipv4/conf/eth0.100/forwarding")
        );
    }

    #[test]
    fn sysctl_names_that_leave_their_directory_are_not_well_formed() {
        for name in
            ["", "net", "/net/x", "net..x", "net/../kernel/x", "net.//.x", "net/x/", "net.a b"]
        {
            assert_eq!(sysctl_path(name), None, "{name}");
        }
    }
}

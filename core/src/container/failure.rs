//! What a keeper reports, as an error for the caller.

use libseccomp::ScmpSyscall;
use locule_plan::protocol::{Failure, Text, detail};
use locule_plan::{Operation, Stream};

use crate::cgroup::Cgroup;
use crate::{Category, Error, Stage};

/// The error that `failure` stands for.
pub(super) fn error_of(failure: &Failure) -> Error {
    let (failure, missing) = &split(failure);
    let name = Operation::name_of(failure.operation).unwrap_or("");
    let subject = String::from_utf8_lossy(failure.subject.as_bytes()).into_owned();
    let pointer = String::from_utf8_lossy(failure.pointer.as_bytes());
    let stage = match &*pointer {
        // A directory like others, but made for the process.
        "/process/cwd" | "/cwd" => Stage::Process,
        _ if failure.detail == detail::LISTEN => Stage::State,
        _ => stage_of(failure.stream, name),
    };
    let mut message = message(name, failure, &subject);
    let part = [detail::TARGET, detail::SOURCE, detail::OPTION, detail::ATTRIBUTES, detail::ATTACH];
    if matches!(name, "Mount" | "Bind" | "Attach") && part.contains(&failure.detail) {
        message = format!("error mounting: {message}");
    }
    if let Some(call) = missing {
        message = format!("{message}: {call}");
    }

    // Some details carry a wait status where the others have an errno.
    let has_errno = failure.errno > 0
        && !matches!(failure.detail, detail::DIED | detail::EXIT_STATUS | detail::NOT_IN_PATH);
    let mut error = if has_errno {
        Error::os(stage, failure.errno, message)
    } else {
        Error::new(Category::System, stage, message)
    };
    let category = match failure.detail {
        // Which directory that is the caller says, and no configuration.
        detail::CHANGES if matches!(failure.errno, libc::ENOTDIR | libc::ELOOP) => {
            Some(Category::Invalid)
        }
        detail::TIMEOUT => Some(Category::Timeout),
        detail::TOO_MANY => Some(Category::Resource),
        detail::WRONG_STATE => Some(Category::State),
        detail::MALFORMED_PLAN if failure.errno != libc::EINVAL => None,
        detail::MALFORMED_PLAN | detail::MISSING_DESCRIPTOR => Some(Category::Bug),
        detail::OPTION | detail::MISMATCH => Some(Category::Spec),
        detail::ID_MAP | detail::CHANGES if failure.errno == libc::EINVAL => {
            Some(Category::Unsupported)
        }
        _ if name == "Hook" => Some(Category::Hook),
        // Nothing but the ranges that it was given makes the helper fail.
        detail::EXIT_STATUS if name == "RunIdMapper" => Some(Category::Permission),
        _ if matches!(stage, Stage::Exec) => Some(Category::Program),
        _ if has_errno => of_value(name, failure.errno),
        _ => None,
    };
    if let Some(category) = category {
        error = error.with_category(category);
    }
    if failure.detail == detail::NOT_IN_PATH {
        error = error.with_errno(libc::ENOENT);
    }
    if !name.is_empty() {
        error = error.in_step(name);
    }
    if !pointer.is_empty() {
        error = error.at(whole(&pointer));
    }
    match hint(name, failure) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Takes the errno and the name of a system call that is missing apart.
fn split(failure: &Failure) -> (Failure, Option<String>) {
    let (errno, call) = (failure.errno & 0xffff, failure.errno >> 16);
    if errno != libc::ENOSYS || call == 0 {
        return (*failure, None);
    }
    let name = ScmpSyscall::from_raw_syscall(call).get_name();
    let name = name.unwrap_or_else(|_| format!("system call {call}"));
    (Failure { errno, ..*failure }, Some(name))
}

/// A process that died while it was set up may have been killed for want of memory.
pub(super) fn blame_memory(error: Error, cgroup: &Cgroup) -> Error {
    let died = error.category() == Category::System && error.errno().is_none();
    // What the keeper did for it was done for a dead one, whose files in procfs are root's, or gone.
    let missed = matches!(error.errno(), Some(libc::EACCES | libc::ESRCH | libc::ENOENT));
    if !(died || missed) || !cgroup.oom_kills().is_ok_and(|kills| kills > 0) {
        return error;
    }
    let message = "the kernel killed the process while it was set up: the container's memory \
                   limit is too small for that";
    Error::new(Category::Resource, Stage::Spawn, message)
        .with_errno(libc::ENOMEM)
        .at("/linux/resources/memory/limit")
}

/// The category of errnos by which the kernel refuses what the configuration says, whoever asks.
fn of_value(name: &str, errno: i32) -> Option<Category> {
    match (name, errno) {
        (_, libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG) => Some(Category::Spec),
        (
            "Sysctl" | "User" | "NewTimeNamespace" | "Scheduler" | "Affinity" | "IoPriority"
            | "ResourceLimit" | "MemoryPolicy",
            libc::EINVAL | libc::ERANGE,
        ) => Some(Category::Spec),
        ("MoveInterface", libc::ENODEV) => Some(Category::NotFound),
        ("MoveInterface", libc::EEXIST) => Some(Category::Spec),
        ("MoveInterface", libc::EINVAL) => Some(Category::Unsupported),
        // There is no devpts.
        ("Terminal", libc::ENOENT) => Some(Category::Spec),
        // No security module takes the label.
        ("SecurityLabel", libc::EINVAL) => Some(Category::Unsupported),
        _ => None,
    }
}

/// A pointer that was too long for the frame names what it is below: half a key would name
/// something else.
fn whole(pointer: &str) -> &str {
    match pointer.rfind('/') {
        Some(at) if pointer.len() >= Text::CAPACITY => &pointer[..at],
        _ => pointer,
    }
}

fn message(name: &str, failure: &Failure, subject: &str) -> String {
    // What a helper said stands behind its name.
    let (subject, said) = subject.split_once('\0').unwrap_or((subject, ""));
    let said = said.trim_end_matches('\0').trim();
    let about = if subject.is_empty() { String::new() } else { format!(" {subject:?}") };
    let ended = || {
        let status = failure.errno;
        match status & 0x7f {
            0 => format!("exited with status {}", status >> 8 & 0xff),
            signal => format!("was killed by signal {signal}{}", in_words(signal)),
        }
    };
    match failure.detail {
        detail::CLONE if name == "NewNamespaces" => {
            "create the process and its namespaces".to_owned()
        }
        detail::CLONE => format!("create the process: {}", what(name, &about)),
        detail::DIED if failure.errno == 0 => "the process died while it was set up".to_owned(),
        detail::DIED => format!("the process died while it was set up: it {}", ended()),
        detail::MALFORMED_PLAN => "the keeper cannot read the plan".to_owned(),
        detail::MISSING_DESCRIPTOR => {
            format!("{}: a descriptor of the plan is missing", what(name, &about))
        }
        detail::TARGET if matches!(name, "Mount" | "Bind" | "Attach" | "Remount") => {
            format!("open or create the mount target{about} in the root")
        }
        detail::SOURCE if name == "MoveInterface" => format!("find the network interface{about}"),
        detail::SOURCE if name == "OverlayRoot" => format!("open the layer{about}"),
        detail::SOURCE if name != "Terminal" => format!("open the mount source{about}"),
        detail::OPTION => format!("filesystem option{about} was refused"),
        detail::ATTRIBUTES => format!("set the mount attributes of{about}"),
        detail::ATTACH => format!("attach the mount at{about}"),
        detail::ID_MAP => format!("map the ids of the mount at{about}"),
        detail::MISMATCH if name == "MoveInterface" => {
            format!("the container's network namespace has an interface{about} already")
        }
        // What belongs there goes nowhere else.
        detail::MISMATCH if name == "Mount" && matches!(subject, "/proc" | "/sys") => {
            format!("{subject:?} must be mounted on ordinary directory")
        }
        detail::MISMATCH => format!("{}: something else is there", what(name, &about)),
        detail::CONNECT => format!("failed to connect with seccomp agent at{about}"),
        detail::EXIT_STATUS if said.is_empty() => format!("{} {}", what(name, &about), ended()),
        detail::EXIT_STATUS => format!("{} {}: {said}", what(name, &about), ended()),
        detail::TIMEOUT => format!("{} took longer than allowed", what(name, &about)),
        detail::TOO_MANY => "the keeper has no room for another process or watcher".to_owned(),
        detail::WRONG_STATE => "the container is in a state that does not allow it".to_owned(),
        detail::LISTEN => "make the keeper's socket in the state directory".to_owned(),
        detail::NOT_IN_PATH => format!("exec:{about}: executable file not found in $PATH"),
        detail::OUTSIDE_ROOT => {
            format!("the working directory{about} is outside of the container's root")
        }
        detail::ADDRESSES => format!("keep the addresses of the network interface{about}"),
        detail::BRING_UP => format!("bring up the network interface{about} in the container"),
        detail::CHANGES => format!("keep the changes to the root filesystem in{about}"),
        detail::NOT_GENUINE => format!("{}: it is not the genuine file", what(name, &about)),
        _ if matches!(name, "Program" | "Exec") => format!("exec:{about}"),
        _ => what(name, &about),
    }
}

/// Signals that say something about a program.
fn in_words(signal: i32) -> &'static str {
    match signal {
        libc::SIGABRT => ": aborted",
        libc::SIGBUS => ": bus error",
        libc::SIGFPE => ": floating point exception",
        libc::SIGILL => ": illegal instruction",
        libc::SIGKILL => ": killed",
        libc::SIGSEGV => ": segmentation fault",
        libc::SIGSYS => ": bad system call",
        _ => "",
    }
}

/// What a step does, in words.
fn what(name: &str, about: &str) -> String {
    let verb = match name {
        "" => "set up the process",
        "NewNamespaces" => "create the namespaces",
        "JoinForChild" | "JoinNamespace" => "join a namespace",
        "ThroughUserNamespace" | "JoinProcess" => "join the container's namespaces",
        "IntoCgroup" | "EnterCgroup" => "enter the cgroup",
        "EnterResctrlGroup" => "enter the resctrl group",
        "DenySetgroups" => "deny setgroups in the user namespace",
        "UidMap" => "write the user id map",
        "GidMap" => "write the group id map",
        "RunIdMapper" => "id map helper",
        "ResourceLimit" => "set the resource limit",
        "OomScoreAdj" => "set oom_score_adj",
        "Unshare" => "create the cgroup namespace",
        "NewTimeNamespace" => "create the time namespace",
        "BecomeRoot" => "become root of the user namespace",
        "LoopbackUp" => "bring the loopback interface up",
        "Propagation" | "RootPropagation" => "set the mount propagation",
        "Root" => "prepare the root filesystem",
        "OverlayRoot" | "OverlayRootByEntry" | "OverlayEntry" => "overlay the root filesystem",
        "Directory" => "create the directory",
        "Symlink" => "create the link",
        "Mount" | "Bind" => "error mounting",
        "MakeDevice" => "create the device",
        "ReadonlyPath" => "make read-only",
        "MaskPath" => "mask",
        "Attach" => "attach the mount",
        "IdMap" => "map the ids of mounts",
        "Remount" => "change the mount",
        "ReadonlyRoot" => "make the root read-only",
        "Pivot" => "pivot_root",
        "Terminal" => "open the terminal",
        "Descriptor" => "pass the descriptor",
        "Hostname" => "set the hostname",
        "Domainname" => "set the domain name",
        "Sysctl" => "set the sysctl",
        "NoNewPrivileges" => "set no_new_privs",
        "Seccomp" => "install the seccomp filter",
        "Listener" => "hand over the listener of the seccomp filter to",
        "BoundingCapabilities" | "Capabilities" => "set the capabilities",
        "User" => "change the user and groups",
        "WorkingDirectory" => "change to the working directory",
        "Hook" => "hook",
        "NewSession" => "begin a session",
        "NewKeyring" => "make a session keyring",
        "Gate" => "wait at the gate",
        "Umask" => "set the umask",
        "Personality" => "set the personality",
        "Scheduler" => "set the scheduler",
        "IoPriority" => "set the I/O priority",
        "MemoryPolicy" => "set the memory policy",
        "Affinity" => "set the processors to run on",
        "SecurityLabel" => "set the security label",
        "MoveInterface" => "move into the container the network interface",
        other => other,
    };
    format!("{verb}{about}")
}

fn stage_of(stream: u32, name: &str) -> Stage {
    match name {
        "IntoCgroup" | "EnterCgroup" | "KillCgroup" | "RemoveCgroup" => Stage::Cgroup,
        "NewNamespaces"
        | "JoinForChild"
        | "JoinNamespace"
        | "JoinProcess"
        | "Unshare"
        | "ThroughUserNamespace"
        | "NewTimeNamespace"
        | "BecomeRoot"
        | "DenySetgroups"
        | "UidMap"
        | "GidMap"
        | "RunIdMapper" => Stage::Namespaces,
        "Root" | "OverlayRoot" | "OverlayRootByEntry" | "OverlayEntry" | "Pivot"
        | "ReadonlyRoot" | "Propagation" | "RootPropagation" => Stage::Rootfs,
        "Directory" | "Symlink" | "IdMap" | "Mount" | "Bind" | "Attach" | "ReadonlyPath"
        | "MaskPath" | "Remount" => Stage::Mounts,
        "MakeDevice" => Stage::Devices,
        "Hostname" | "Domainname" | "Sysctl" | "LoopbackUp" | "EnterResctrlGroup"
        | "MoveInterface" => Stage::Settings,
        "Terminal" | "Descriptor" => Stage::Stdio,
        "Seccomp" | "Listener" => Stage::Seccomp,
        "Hook" => Stage::Hook,
        "Program" | "Exec" => Stage::Exec,
        "" => match Stream::from_number(stream) {
            Some(Stream::Start) => Stage::Start,
            _ => Stage::Spawn,
        },
        _ => Stage::Process,
    }
}

fn changes_hint(errno: i32) -> Option<&'static str> {
    match errno {
        libc::EINVAL | libc::EROFS | libc::EOPNOTSUPP => Some(
            "most likely its filesystem cannot take an overlay's changes: another overlay, a network \
             filesystem or one that is read-only cannot; the kernel's log has the reason",
        ),
        libc::EACCES | libc::EPERM => Some("the container's root has to be able to write there"),
        libc::EBUSY => Some("it is for one container at a time"),
        _ => None,
    }
}

fn hint(name: &str, failure: &Failure) -> Option<&'static str> {
    if failure.detail == detail::TARGET && failure.errno == libc::EACCES {
        return Some("the container's user has to be able to enter every directory of the root");
    }
    if failure.detail == detail::EXIT_STATUS && name == "Hook" && failure.errno == 127 << 8 {
        return Some(
            "127 stands for an interpreter that is missing, or a command that a shell has not found",
        );
    }
    if failure.detail == detail::CLONE && failure.errno == libc::EAGAIN {
        return Some(
            "a limit on processes is reached: RLIMIT_NPROC, the pids limit of a cgroup, \
             or /proc/sys/kernel/pid_max",
        );
    }
    if failure.detail == detail::ID_MAP && failure.errno == libc::EINVAL {
        return Some("the kernel cannot map ids on this filesystem, or the mount maps ids already");
    }
    if failure.detail == detail::CHANGES {
        return changes_hint(failure.errno);
    }
    match (name, failure.errno) {
        ("RunIdMapper", _) => Some(
            "/etc/subuid and /etc/subgid have to grant this user every id that is mapped \
             but its own",
        ),
        ("OverlayRoot", libc::EINVAL) => {
            Some("the kernel's log says which of the layers it does not take, and why")
        }
        ("OverlayRoot", libc::EPERM) => Some(
            "in a user namespace an overlay takes Linux 5.11: with an older kernel an image can be \
             unpacked to a directory, and that be the root",
        ),
        ("NewNamespaces", libc::EPERM) => Some(
            "creating namespaces needs root, or a user namespace in the configuration, and no \
             seccomp filter around this process that forbids it; see \
             /proc/sys/user/max_user_namespaces and the kernel's user namespace settings",
        ),
        ("NewNamespaces", libc::ENOSPC) => {
            Some("a limit in /proc/sys/user/max_*_namespaces is reached")
        }
        ("UidMap" | "GidMap", libc::EPERM) => {
            Some("an ordinary user may map only its own id, or what newuidmap allows it")
        }
        ("IntoCgroup" | "EnterCgroup", libc::EBUSY) => Some(
            "a cgroup v2 directory with controllers enabled for its children takes no processes",
        ),
        ("MakeDevice", libc::EPERM) => Some(
            "in a user namespace the container can only have devices that the host has at the \
             same path",
        ),
        ("Mount", libc::ENODEV) => {
            Some("the kernel does not have this filesystem: see /proc/filesystems")
        }
        ("Scheduler", libc::EPERM) => Some(
            "a real-time policy takes CAP_SYS_NICE, and on kernels that share real time out among \
             cgroups some for this one: linux.resources.cpu.realtimeRuntime",
        ),
        ("ResourceLimit", libc::EPERM) => Some(
            "raising a hard limit takes CAP_SYS_RESOURCE, and no process may have more \
             descriptors than /proc/sys/fs/nr_open",
        ),
        ("User", libc::EINVAL) => Some("the user namespace does not map this user or group"),
        ("SecurityLabel", libc::EINVAL) => {
            Some("this machine runs without the security module that the label is for")
        }
        ("MoveInterface", libc::EPERM) => Some(
            "it takes CAP_NET_ADMIN in the host's network namespace, which root of a user \
             namespace may not have",
        ),
        ("MoveInterface", libc::ENODEV) => {
            Some("ip link lists the interfaces that there are in this network namespace")
        }
        ("MoveInterface", libc::EEXIST) => Some(
            "give it another name, or a template such as \"eth%d\", for which the first number is \
             taken that is free",
        ),
        ("MoveInterface", libc::EINVAL) => Some(
            "some interfaces cannot leave their network namespace, such as lo; ip netns(8) has more",
        ),
        ("MemoryPolicy", libc::ENOSYS) => {
            Some("a memory policy takes a kernel with NUMA, CONFIG_NUMA; this one has none")
        }
        ("MemoryPolicy", libc::EINVAL) => Some(
            "/sys/devices/system/node/has_memory lists the nodes that there are, of which a \
             cgroup may allow fewer; not every kernel has every mode and flag",
        ),
        ("Listener", libc::ENOENT | libc::ECONNREFUSED) => {
            Some("the agent that answers for SCMP_ACT_NOTIFY has to listen already")
        }
        ("Seccomp", libc::EBUSY) => {
            Some("this process is itself below a filter with a listener: there can be one only")
        }
        ("Terminal", libc::ENOENT) => Some("a terminal needs a devpts mounted at /dev/pts"),
        ("SecurityLabel", libc::ENOENT) => Some("the profile has to be loaded first"),
        ("Program", libc::EACCES) => Some(
            "the file has to be executable for the container's user, on a mount without noexec",
        ),
        // The file itself has been found by then.
        ("Exec", libc::ENOENT | libc::EACCES) => Some(
            "the file is there, but not the interpreter that its first line names or that it \
             was linked for, or it cannot be executed",
        ),
        ("Exec", libc::ENOEXEC) => {
            Some("it is no program for this machine, nor a script that begins with #!")
        }
        ("Exec", libc::E2BIG) => {
            Some("the arguments and the environment are too long: see execve(2)")
        }
        (_, libc::EPERM) => Some(
            "it takes a capability that this process does not have, or a seccomp filter or a \
             security module around it refuses the call",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_that_was_cut_names_what_it_is_below() {
        assert_eq!(whole("/mounts/3"), "/mounts/3");
        let long = format!("/linux/sysctl/net.{}", "x".repeat(300));
        assert_eq!(whole(&long[..Text::CAPACITY]), "/linux/sysctl");
    }
}

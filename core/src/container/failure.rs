//! What a keeper reports, as an error for the caller.

use locule_plan::protocol::{Failure, detail};
use locule_plan::{Operation, Stream};

use crate::{Category, Error, Stage};

/// The error that `failure` stands for.
pub(super) fn error_of(failure: &Failure) -> Error {
    let name = Operation::name_of(failure.operation).unwrap_or("");
    let subject = String::from_utf8_lossy(failure.subject.as_bytes()).into_owned();
    let stage = stage_of(failure.stream, name);
    let message = message(name, failure, &subject);

    // Two details carry a wait status where the others have an errno.
    let has_errno = failure.errno > 0
        && !matches!(failure.detail, detail::DIED | detail::EXIT_STATUS | detail::NOT_IN_PATH);
    let mut error = if has_errno {
        Error::os(stage, failure.errno, message)
    } else {
        Error::new(Category::System, stage, message)
    };
    let category = match failure.detail {
        detail::TIMEOUT => Some(Category::Timeout),
        detail::TOO_MANY => Some(Category::Resource),
        detail::WRONG_STATE => Some(Category::State),
        detail::MALFORMED_PLAN | detail::MISSING_DESCRIPTOR => Some(Category::Bug),
        detail::OPTION | detail::MISMATCH => Some(Category::Spec),
        _ if name == "Hook" => Some(Category::Hook),
        _ if matches!(stage, Stage::Exec) => Some(Category::Program),
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
    let pointer = String::from_utf8_lossy(failure.pointer.as_bytes());
    if !pointer.is_empty() {
        error = error.at(pointer);
    }
    match hint(name, failure) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn message(name: &str, failure: &Failure, subject: &str) -> String {
    let about = if subject.is_empty() { String::new() } else { format!(" {subject:?}") };
    let ended = || {
        let status = failure.errno;
        match status & 0x7f {
            0 => format!("exited with status {}", status >> 8 & 0xff),
            signal => format!("was killed by signal {signal}"),
        }
    };
    match failure.detail {
        detail::CLONE => "create the process".to_owned(),
        detail::DIED => format!("the process died while it was set up: it {}", ended()),
        detail::MALFORMED_PLAN => "the keeper cannot read the plan".to_owned(),
        detail::MISSING_DESCRIPTOR => format!("{name}: a descriptor of the plan is missing"),
        detail::TARGET => format!("open or create the mount target{about} in the root"),
        detail::SOURCE => format!("open the mount source{about}"),
        detail::OPTION => format!("filesystem option{about} was refused"),
        detail::ATTRIBUTES => format!("set the mount attributes of{about}"),
        detail::ATTACH => format!("attach the mount at{about}"),
        detail::MISMATCH => format!("{name}: what exists at{about} is something else"),
        detail::EXIT_STATUS => format!("{} {}", what(name, &about), ended()),
        detail::TIMEOUT => format!("{} took longer than allowed", what(name, &about)),
        detail::TOO_MANY => "the keeper has no room for another process or watcher".to_owned(),
        detail::WRONG_STATE => "the container is in a state that does not allow it".to_owned(),
        detail::NOT_IN_PATH => format!("exec:{about}: executable file not found in $PATH"),
        detail::OUTSIDE_ROOT => {
            format!("the working directory{about} is outside of the container's root")
        }
        detail::NOT_GENUINE => format!("{name}:{about} is not the genuine file"),
        _ if matches!(name, "Program" | "Exec") => format!("exec:{about}"),
        _ => what(name, &about),
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
        "Mount" => "mount",
        "Bind" => "bind",
        "MakeDevice" => "create the device",
        "ReadonlyPath" => "make read-only",
        "MaskPath" => "mask",
        "MountAttributes" => "change the mount",
        "ReadonlyRoot" => "make the root read-only",
        "Pivot" => "pivot_root",
        "Terminal" => "open the terminal",
        "Descriptor" => "pass the descriptor",
        "Hostname" => "set the hostname",
        "Domainname" => "set the domain name",
        "Sysctl" => "set the sysctl",
        "NoNewPrivileges" => "set no_new_privs",
        "Seccomp" => "install the seccomp filter",
        "BoundingCapabilities" | "Capabilities" => "set the capabilities",
        "User" => "change the user and groups",
        "WorkingDirectory" => "change to the working directory",
        "Hook" => "hook",
        "SecurityLabel" => "set the security label",
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
        "Directory" | "Symlink" | "Mount" | "Bind" | "ReadonlyPath" | "MaskPath"
        | "MountAttributes" => Stage::Mounts,
        "MakeDevice" => Stage::Devices,
        "Hostname" | "Domainname" | "Sysctl" | "LoopbackUp" => Stage::Settings,
        "Terminal" | "Descriptor" => Stage::Stdio,
        "Seccomp" => Stage::Seccomp,
        "Hook" => Stage::Hook,
        "Program" | "Exec" => Stage::Exec,
        "" => match Stream::from_number(stream) {
            Some(Stream::Start) => Stage::Start,
            _ => Stage::Spawn,
        },
        _ => Stage::Process,
    }
}

fn hint(name: &str, failure: &Failure) -> Option<&'static str> {
    match (name, failure.errno) {
        ("NewNamespaces", libc::EPERM) => Some(
            "creating namespaces needs root, or a user namespace in the configuration; \
             see /proc/sys/user/max_user_namespaces and the kernel's user namespace settings",
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
        _ => None,
    }
}

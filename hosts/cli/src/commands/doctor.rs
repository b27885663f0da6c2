//! `doctor`: what this machine can do for containers, what is missing, and how to get it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::ArgMatches;
use locule::cgroup::{Manager, Mode};
use locule::image::{ImageStore, StoreOptions};
use locule::spec::Template;
use locule::{Category, CreateOptions, HostFacts, Rootfs, Source};
use nix::sys::utsname::uname;
use nix::unistd::{AccessFlags, access};
use serde_json::json;

use super::image::store_path;
use super::{Done, looking};
use crate::arguments::{Global, text};
use crate::failure::Failure;
use crate::output::{self, Style};
use crate::users;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// It is there.
    Good,
    /// Containers run without it, but not with everything.
    Missing,
    /// No container runs.
    Bad,
}

impl Finding {
    fn name(self) -> &'static str {
        match self {
            Finding::Good => "ok",
            Finding::Missing => "missing",
            Finding::Bad => "FAILED",
        }
    }
}

struct Check {
    about: &'static str,
    finding: Finding,
    found: String,
    /// What does not work without it, and how to get it; empty if it is there.
    advice: String,
}

fn good(about: &'static str, found: impl Into<String>) -> Check {
    Check { about, finding: Finding::Good, found: found.into(), advice: String::new() }
}

fn missing(about: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { about, finding: Finding::Missing, found: found.into(), advice: advice.into() }
}

pub fn doctor(global: &Global, own: &ArgMatches) -> Done {
    let facts = HostFacts::gather(Manager::Cgroupfs)?;
    let mut checks = vec![
        kernel(),
        privilege(&facts),
        user_namespaces(&facts),
        namespaces(),
        cgroups(&facts),
        systemd(),
        seccomp(),
        overlay(),
        mapped_mounts(),
        id_mappers(&facts),
        security_module(),
        criu(),
        limits(),
        resctrl(),
        state_directory(global),
        images(&facts),
    ];
    checks.push(container(global));
    let healthy = checks.iter().all(|check| check.finding != Finding::Bad);
    match text(own, "format") {
        Some("json") => {
            let checks = checks.iter().map(|check| {
                json!({
                    "check": check.about,
                    "result": check.finding.name().to_lowercase(),
                    "found": check.found,
                    "advice": check.advice,
                })
            });
            output::pretty(&checks.collect())?;
        }
        Some("text") => print(&checks)?,
        _ => return Err(Failure::of("invalid format option")),
    }
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(checks: &[Check]) -> std::io::Result<()> {
    let style = Style::of_output();
    let mut out = std::io::stdout().lock();
    for check in checks {
        let word = format!("{:8}", check.finding.name());
        let word = match check.finding {
            Finding::Good => style.good(&word),
            Finding::Missing => style.warning(&word),
            Finding::Bad => style.bad(&word),
        };
        writeln!(out, "{word} {:20} {}", check.about, check.found)?;
        if !check.advice.is_empty() {
            writeln!(out, "{:30}{}", "", check.advice)?;
        }
    }
    Ok(())
}

/// Major and minor number of the kernel's version.
fn version() -> (u32, u32) {
    let release = uname().map(|names| names.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}

fn kernel() -> Check {
    let (major, minor) = version();
    let found = format!("Linux {major}.{minor}");
    match (major, minor) {
        (..5, _) | (5, ..10) => Check {
            about: "kernel",
            finding: Finding::Bad,
            found,
            advice: "containers need Linux 5.10 or later".to_owned(),
        },
        (5, 10..14) => missing(
            "kernel",
            found,
            "recursive mount options take 5.12, killing a cgroup at once 5.14",
        ),
        _ => good("kernel", found),
    }
}

fn privilege(facts: &HostFacts) -> Check {
    match (facts.privileged, facts.in_user_namespace) {
        (true, false) => good("privilege", "root of this machine"),
        (true, true) => missing(
            "privilege",
            "root of a user namespace",
            "devices cannot be made, and cgroups only where they were given to this user",
        ),
        (false, _) => missing(
            "privilege",
            format!("user {}", facts.euid),
            "each container gets a user namespace; cgroups only where they were given to this user",
        ),
    }
}

fn user_namespaces(facts: &HostFacts) -> Check {
    let about = "user namespaces";
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let advice = if facts.privileged {
        "containers whose root is not the machine's cannot be made"
    } else {
        "an ordinary user cannot run containers"
    };
    if !Path::new("/proc/self/ns/user").exists() {
        return missing(about, "not in this kernel", format!("{advice}: CONFIG_USER_NS"));
    }
    if read("/proc/sys/user/max_user_namespaces").is_ok_and(|limit| limit == "0") {
        let how = format!("{advice}: sysctl user.max_user_namespaces=15000");
        return missing(about, "none may be made", how);
    }
    for (path, refusing) in [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ] {
        if !facts.privileged && read(path).is_ok_and(|value| value == refusing) {
            let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
            return missing(about, format!("{name} is {refusing}"), advice);
        }
    }
    good(about, "there")
}

fn namespaces() -> Check {
    let wanted = ["cgroup", "ipc", "mnt", "net", "pid", "time", "uts"];
    let absent: Vec<_> =
        wanted.into_iter().filter(|name| !Path::new("/proc/self/ns").join(name).exists()).collect();
    match absent.is_empty() {
        true => good("other namespaces", wanted.join(" ")),
        false => missing(
            "other namespaces",
            format!("not in this kernel: {}", absent.join(" ")),
            "containers that ask for these cannot be made",
        ),
    }
}

fn cgroups(facts: &HostFacts) -> Check {
    let all = facts.cgroups.all();
    let has = |name: &str| {
        all.iter().any(|hierarchy| hierarchy.controllers.iter().any(|one| one == name))
    };
    let mode = match facts.cgroups.mode() {
        Mode::V2 => "version 2",
        Mode::V1 => "version 1",
        Mode::Hybrid => "version 1, with version 2 beside it",
        Mode::None => {
            let advice = "no limits, no pause, no statistics: mount cgroup2 at /sys/fs/cgroup";
            return missing("cgroups", "none", advice);
        }
    };
    let absent: Vec<_> =
        ["cpu", "cpuset", "memory", "pids"].into_iter().filter(|name| !has(name)).collect();
    if absent.is_empty() {
        return good("cgroups", mode);
    }
    let absent = absent.join(" ");
    let advice = match facts.privileged {
        true => "limits on these cannot be set",
        false => {
            "limits on these cannot be set: systemd gives a user's session its controllers \
                  with Delegate=yes in user@.service"
        }
    };
    missing("cgroups", format!("{mode}, without {absent}"), advice)
}

fn systemd() -> Check {
    match Path::new("/run/systemd/system").exists() {
        true => good("systemd", "runs: --systemd-cgroup can be used"),
        false => missing("systemd", "does not run", "--systemd-cgroup cannot be used"),
    }
}

fn seccomp() -> Check {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.contains("user_notif") => good("seccomp", actions.trim().to_owned()),
        Ok(actions) => {
            missing("seccomp", actions.trim().to_owned(), "SCMP_ACT_NOTIFY cannot be used")
        }
        Err(_) => missing(
            "seccomp",
            "not in this kernel",
            "system calls cannot be filtered: CONFIG_SECCOMP_FILTER",
        ),
    }
}

fn overlay() -> Check {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match known.split_whitespace().any(|name| name == "overlay") {
        true => good("overlay filesystem", "there"),
        false => missing(
            "overlay filesystem",
            "not known to the kernel",
            "run --rootfs / needs it: modprobe overlay",
        ),
    }
}

fn mapped_mounts() -> Check {
    match version() >= (5, 12) {
        true => good("mounts with own ids", "there"),
        false => missing("mounts with own ids", "not in this kernel", "they take Linux 5.12"),
    }
}

fn id_mappers(facts: &HostFacts) -> Check {
    let about = "further ids";
    if facts.privileged {
        return good(about, "any, as root");
    }
    let advice = "a user's container has one user and one group: install newuidmap (package \
                  uidmap) and give this user a range in /etc/subuid and /etc/subgid";
    if facts.id_mappers.is_none() {
        return missing(about, "newuidmap and newgidmap are not installed", advice);
    }
    let uid = facts.euid.to_string();
    let name = users::name_of(facts.euid).unwrap_or_default();
    let granted = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.split(':').next().is_some_and(|who| who == uid || who == name))
    };
    for file in ["/etc/subuid", "/etc/subgid"] {
        if !granted(file) {
            return missing(about, format!("{file} has no range for this user"), advice);
        }
    }
    good(about, "by /etc/subuid and /etc/subgid")
}

fn security_module() -> Check {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    if enabled.is_ok_and(|text| text.trim() == "Y") {
        return good("security module", "AppArmor");
    }
    if Path::new("/sys/fs/selinux/enforce").exists() {
        return good("security module", "SELinux");
    }
    missing(
        "security module",
        "neither AppArmor nor SELinux",
        "apparmorProfile, selinuxLabel and mountLabel are refused",
    )
}

fn criu() -> Check {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|folder| folder.join("criu")).find(|file| file.is_file())
    });
    match found {
        Some(path) => good("checkpoints", path.display().to_string()),
        None => missing(
            "checkpoints",
            "criu is not in PATH",
            "checkpoint and restore need it: install the package criu",
        ),
    }
}

fn limits() -> Check {
    // SAFETY: integers.
    let rc = unsafe { libc::prctl(libc::PR_CAPBSET_READ, 24) };
    match rc == 1 && nix::unistd::geteuid().is_root() {
        true => good("resource limits", "can be raised"),
        false => missing(
            "resource limits",
            "cannot be raised, for want of CAP_SYS_RESOURCE",
            "process.rlimits above this process's own and negative oomScoreAdj are refused",
        ),
    }
}

fn resctrl() -> Check {
    match Path::new("/sys/fs/resctrl/schemata").exists() {
        true => good("cache allocation", "/sys/fs/resctrl"),
        false => missing(
            "cache allocation",
            "resctrl is not mounted",
            "linux.intelRdt is refused: mount -t resctrl resctrl /sys/fs/resctrl, on processors \
             that have it",
        ),
    }
}

fn state_directory(global: &Global) -> Check {
    let about = "state directory";
    match looking(global) {
        Ok(runtime) => good(about, runtime.state_dir().display().to_string()),
        Err(failure) => Check {
            about,
            finding: Finding::Bad,
            found: failure.to_string(),
            advice: "name another one with --root".to_owned(),
        },
    }
}

/// Where images are kept, and whether their layers can be shared there. Makes nothing.
fn images(facts: &HostFacts) -> Check {
    let about = "images";
    let path = store_path(None);
    let advice = "image and run --image need a directory: name one with --store or LOCULE_IMAGES";
    let store = match ImageStore::open(StoreOptions { path, read_only: true, command: None }) {
        Ok(store) => store,
        Err(error) if error.category() == Category::NotFound => {
            return good(about, "none yet");
        }
        Err(error) => return missing(about, error.to_string(), advice),
    };
    let found = store.path().display().to_string();
    if access(store.path(), AccessFlags::W_OK).is_err() {
        return missing(about, format!("{found} cannot be written to"), advice);
    }
    if !facts.privileged && version() < (5, 11) {
        let advice = "overlays of ordinary users take Linux 5.11: run --image needs root here";
        return missing(about, found, advice);
    }
    good(about, found)
}

/// Everything together.
fn container(global: &Global) -> Check {
    match try_container(global) {
        Ok(()) => good("a container", "ran"),
        Err(failure) => Check {
            about: "a container",
            finding: Finding::Bad,
            found: failure.to_string(),
            advice: String::new(),
        },
    }
}

fn try_container(global: &Global) -> Result<(), Failure> {
    let mut template = Template::new("/", ["true"]);
    template.rootless = locule::rootless_ids();
    let json = template.json()?;
    let mut options = CreateOptions::new(Source::Spec { json: &json, base: None });
    options.rootfs = Rootfs::Overlay;
    let container = looking(global)?.create(options)?;
    let ran = container.start(None).and_then(|()| container.init().wait(None, None));
    container.delete(true)?;
    match ran? {
        Some(locule::Exit::Code(0)) => Ok(()),
        other => Err(Failure::of(format!("it did not end well: {other:?}"))),
    }
}

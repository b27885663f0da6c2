//! What a container can reach, by its configuration: for the one who has to say whether it may run.

use std::path::Path;

use locule::spec::{Spec, oci, vocabulary};
use serde_json::{Value, json};

/// A subject and what there is to say of it.
pub struct Fact {
    pub about: &'static str,
    pub lines: Vec<String>,
}

/// Something that gives the container more than it may need.
pub struct Concern {
    pub text: String,
    /// The member of the configuration that it comes from.
    pub pointer: String,
}

#[derive(Default)]
pub struct Review {
    pub facts: Vec<Fact>,
    pub concerns: Vec<Concern>,
}

/// Capabilities that reach beyond a container without a user namespace, and what for.
const POWERS: [(&str, &str); 15] = [
    ("CAP_SYS_ADMIN", "mounts, namespaces and much else: as good as root of the host"),
    ("CAP_SYS_MODULE", "loads code into the kernel"),
    ("CAP_SYS_RAWIO", "reads and writes memory and devices directly"),
    ("CAP_SYS_PTRACE", "reads and changes other processes that it can see"),
    ("CAP_SYS_BOOT", "reboots the host"),
    ("CAP_SYS_TIME", "sets the host's clock"),
    (
        "CAP_DAC_READ_SEARCH",
        "opens any file of a filesystem by its handle, also outside of the root",
    ),
    ("CAP_BPF", "loads programs into the kernel"),
    ("CAP_PERFMON", "watches the whole host"),
    ("CAP_NET_ADMIN", "changes the network it is in"),
    ("CAP_SYSLOG", "reads the kernel's log and addresses"),
    ("CAP_MAC_ADMIN", "changes the security policy"),
    ("CAP_MAC_OVERRIDE", "ignores the security policy"),
    ("CAP_LINUX_IMMUTABLE", "changes files that are marked as unchangeable"),
    ("CAP_AUDIT_CONTROL", "switches auditing off"),
];

/// Paths of the host whose writers, or whose readers even, have the host.
const SENSITIVE: [&str; 14] = [
    "/",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib/modules",
    "/proc",
    "/root",
    "/run",
    "/sys",
    "/usr",
    "/var",
    "/var/lib",
    "/var/run",
];

/// What every container had better not see of `/proc` and `/sys`.
const HIDDEN: [&str; 5] =
    ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"];

/// The namespaces, what sharing the host's means, and whether that is a concern.
const NAMESPACES: [(&str, oci::LinuxNamespaceType, &str); 7] = [
    (
        "network",
        oci::LinuxNamespaceType::Network,
        "it has the host's network: every address, port and abstract socket",
    ),
    (
        "pid",
        oci::LinuxNamespaceType::Pid,
        "it sees the host's processes, and signals those of the same user",
    ),
    ("ipc", oci::LinuxNamespaceType::Ipc, "it shares memory segments and queues with the host"),
    ("uts", oci::LinuxNamespaceType::Uts, "it has the host's name"),
    ("cgroup", oci::LinuxNamespaceType::Cgroup, "it sees where on the host its cgroups are"),
    ("user", oci::LinuxNamespaceType::User, "its root is the host's root"),
    ("time", oci::LinuxNamespaceType::Time, ""),
];

impl Review {
    pub fn of(spec: &Spec, bundle: &Path) -> Review {
        let mut review = Review::default();
        review.program(spec);
        review.files(spec, bundle);
        review.namespaces(spec);
        review.privileges(spec);
        review.system_calls(spec);
        review.devices(spec);
        review.limits(spec);
        review.hooks(spec);
        review
    }

    pub fn to_json(&self) -> Value {
        let facts = self.facts.iter().map(|fact| (fact.about.to_owned(), json!(fact.lines)));
        let concerns = self
            .concerns
            .iter()
            .map(|concern| json!({ "text": concern.text, "pointer": concern.pointer }));
        json!({
            "reach": facts.collect::<serde_json::Map<_, _>>(),
            "concerns": concerns.collect::<Vec<_>>(),
        })
    }

    fn fact(&mut self, about: &'static str, lines: Vec<String>) {
        if !lines.is_empty() {
            self.facts.push(Fact { about, lines });
        }
    }

    fn concern(&mut self, pointer: impl Into<String>, text: impl Into<String>) {
        self.concerns.push(Concern { text: text.into(), pointer: pointer.into() });
    }

    fn program(&mut self, spec: &Spec) {
        let Some(process) = spec.process() else { return };
        let args = process.args().as_deref().unwrap_or_default();
        let user = process.user();
        let mut lines = vec![format!("{args:?} in {}", process.cwd().display())];
        lines.push(format!("as user {} and group {}", user.uid(), user.gid()));
        if let Some(groups) = user.additional_gids().as_ref().filter(|groups| !groups.is_empty()) {
            lines.push(format!("with the groups {groups:?}"));
        }
        self.fact("program", lines);
        if user.uid() == 0 && !has(spec, oci::LinuxNamespaceType::User) {
            self.concern("/process/user/uid", "the program runs as the host's root user");
        }
    }

    fn files(&mut self, spec: &Spec, bundle: &Path) {
        let mut lines = Vec::new();
        if let Some(root) = spec.root() {
            let read_only = root.readonly().unwrap_or(false);
            let path = bundle.join(root.path());
            lines.push(format!("{} as / ({})", path.display(), access(read_only)));
            if path == Path::new("/") {
                self.concern("/root/path", "the root is that of the host");
            }
        }
        for (index, mount) in spec.mounts().iter().flatten().enumerate() {
            let options = mount.options().as_deref().unwrap_or_default();
            let option = |name: &str| options.iter().any(|option| option == name);
            let target = mount.destination().display();
            let read_only = option("ro") || option("rro");
            let source = mount.source().as_deref().unwrap_or(Path::new(""));
            let pointer = format!("/mounts/{index}");
            if option("bind") || option("rbind") || mount.typ().as_deref() == Some("bind") {
                let source = bundle.join(source);
                lines.push(format!("{} as {target} ({})", source.display(), access(read_only)));
                let plain = source.to_string_lossy();
                let plain = plain.trim_end_matches('/');
                let socket = plain.ends_with(".sock");
                if SENSITIVE.contains(&if plain.is_empty() { "/" } else { plain }) {
                    let what = if read_only { "reads" } else { "changes" };
                    self.concern(&pointer, format!("it {what} {plain:?} of the host"));
                } else if socket {
                    let text = format!("it talks to whoever listens at {plain} on the host");
                    self.concern(&pointer, text);
                }
            } else if matches!(mount.typ().as_deref(), Some("sysfs" | "cgroup" | "cgroup2"))
                && !read_only
            {
                let own = has(spec, oci::LinuxNamespaceType::Cgroup)
                    && mount.typ().as_deref() != Some("sysfs");
                if !own {
                    self.concern(
                        &pointer,
                        format!("it can write to {target}, which is the host's"),
                    );
                }
            }
            if options.iter().any(|option| option.ends_with("shared")) {
                self.concern(
                    &pointer,
                    format!("what it mounts below {target} is seen by its peers"),
                );
            }
        }
        self.fact("files of the host", lines);

        let linux = spec.linux().as_ref();
        let masked = linux.and_then(|linux| linux.masked_paths().as_deref()).unwrap_or_default();
        let open: Vec<_> =
            HIDDEN.into_iter().filter(|path| !masked.iter().any(|masked| masked == path)).collect();
        if !open.is_empty() {
            self.concern("/linux/maskedPaths", format!("not hidden: {}", open.join(", ")));
        }
        let kept = linux.and_then(|linux| linux.readonly_paths().as_deref()).unwrap_or_default();
        if !kept.iter().any(|path| path == "/proc/sys") {
            let text = "not write-protected: /proc/sys, the kernel's settings";
            self.concern("/linux/readonlyPaths", text);
        }
        if linux.is_some_and(|linux| linux.sysctl().as_ref().is_some_and(|list| !list.is_empty())) {
            let mut names: Vec<_> = linux
                .iter()
                .filter_map(|linux| linux.sysctl().as_ref())
                .flat_map(|list| list.keys())
                .collect();
            names.sort();
            let names = names.into_iter().map(ToString::to_string).collect();
            self.fact("kernel settings of its own", names);
        }
    }

    fn namespaces(&mut self, spec: &Spec) {
        let linux = spec.linux().as_ref();
        let declared = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        let mut lines = Vec::new();
        for (name, kind, meaning) in NAMESPACES {
            let found = declared.iter().position(|entry| entry.typ() == kind);
            match found.map(|index| (index, declared[index].path())) {
                Some((_, None)) => lines.push(format!("{name}: its own")),
                Some((index, Some(path))) => {
                    lines.push(format!("{name}: that of {}", path.display()));
                    if path.starts_with("/proc/1/") {
                        self.concern(format!("/linux/namespaces/{index}"), meaning);
                    }
                }
                None => {
                    lines.push(format!("{name}: the host's"));
                    if !meaning.is_empty() {
                        self.concern("/linux/namespaces", meaning);
                    }
                }
            }
        }
        for (what, map) in [
            ("user", linux.and_then(|linux| linux.uid_mappings().as_ref())),
            ("group", linux.and_then(|linux| linux.gid_mappings().as_ref())),
        ] {
            for range in map.into_iter().flatten() {
                lines.push(format!(
                    "{what} ids {}-{} are {}-{} on the host",
                    range.container_id(),
                    last(range.container_id(), range.size()),
                    range.host_id(),
                    last(range.host_id(), range.size()),
                ));
            }
        }
        self.fact("namespaces", lines);
    }

    fn privileges(&mut self, spec: &Spec) {
        let Some(process) = spec.process() else { return };
        let own_users = has(spec, oci::LinuxNamespaceType::User);
        let set = |set: Option<&oci::Capabilities>| {
            let mask = set.map_or(0, |set| vocabulary::capability_mask(set, 63));
            vocabulary::capability_names(mask).collect::<Vec<_>>()
        };
        let capabilities = process.capabilities().as_ref();
        let bounding = set(capabilities.and_then(|all| all.bounding().as_ref()));
        let mut lines = vec![match bounding.is_empty() {
            true => "no capabilities".to_owned(),
            false => format!("at most {}", bounding.join(" ")),
        }];
        if !own_users {
            for (name, use_) in POWERS {
                if bounding.contains(&name) {
                    self.concern("/process/capabilities/bounding", format!("{name}: {use_}"));
                }
            }
        }
        let ambient = set(capabilities.and_then(|all| all.ambient().as_ref()));
        if !ambient.is_empty() {
            lines.push(format!("every program gets {}", ambient.join(" ")));
        }
        if process.no_new_privileges().unwrap_or(false) {
            lines.push("no program gains any by being set-uid".to_owned());
        } else {
            let text = "set-uid programs in the root raise its privileges";
            self.concern("/process/noNewPrivileges", text);
        }
        for (what, label) in [
            ("AppArmor profile", process.apparmor_profile().as_deref()),
            ("SELinux label", process.selinux_label().as_deref()),
        ] {
            if let Some(label) = label.filter(|label| !label.is_empty()) {
                lines.push(format!("{what} {label}"));
            }
        }
        if process.oom_score_adj().is_some_and(|score| score < 0) {
            let text = "when memory runs out, others are killed before it";
            self.concern("/process/oomScoreAdj", text);
        }
        self.fact("privileges", lines);
    }

    fn system_calls(&mut self, spec: &Spec) {
        let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let Some(profile) = profile else {
            self.fact("system calls", vec!["every one".to_owned()]);
            return self.concern("/linux/seccomp", "no system call is filtered");
        };
        let mut lines = vec![format!("otherwise {}", in_words(profile.default_action()))];
        for (action, verb) in [
            (oci::LinuxSeccompAction::ScmpActAllow, "allowed"),
            (oci::LinuxSeccompAction::ScmpActNotify, "answered by an agent"),
            (oci::LinuxSeccompAction::ScmpActLog, "allowed and logged"),
        ] {
            let rules = profile.syscalls().iter().flatten().filter(|rule| rule.action() == action);
            let (mut always, mut sometimes) = (0, 0);
            for rule in rules {
                match rule.args().as_ref().is_some_and(|args| !args.is_empty()) {
                    true => sometimes += rule.names().len(),
                    false => always += rule.names().len(),
                }
            }
            if always + sometimes > 0 {
                lines.insert(0, format!("{verb}: {always}, and {sometimes} by their arguments"));
            }
        }
        self.fact("system calls", lines);
        if profile.default_action() == oci::LinuxSeccompAction::ScmpActAllow {
            let text = "system calls that the profile does not know are allowed";
            self.concern("/linux/seccomp/defaultAction", text);
        }
    }

    fn devices(&mut self, spec: &Spec) {
        let linux = spec.linux().as_ref();
        let rules = linux
            .and_then(|linux| linux.resources().as_ref())
            .and_then(|resources| resources.devices().as_deref())
            .unwrap_or_default();
        let mut lines = vec!["null, zero, full, random, urandom, tty and terminals".to_owned()];
        let number = |number: Option<i64>| match number {
            Some(number) if number >= 0 => number.to_string(),
            _ => "any".to_owned(),
        };
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.allow()) {
            let kind = rule.typ().unwrap_or(oci::LinuxDeviceType::A);
            let access = rule.access().as_deref().filter(|text| !text.is_empty()).unwrap_or("rwm");
            let [major, minor] = [rule.major(), rule.minor()].map(number);
            lines.push(format!("{} {major}:{minor} {access}", kind.as_str()));
            let all = rule.major().is_none_or(|major| major < 0);
            let undone = rules[index + 1..].iter().any(|later| {
                !later.allow()
                    && later.major().is_none()
                    && later.typ().is_none_or(|typ| typ == oci::LinuxDeviceType::A)
            });
            if all && access != "m" && !undone {
                let pointer = format!("/linux/resources/devices/{index}");
                self.concern(pointer, "it may use every device, disks included");
            }
        }
        for device in linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten() {
            lines.push(format!("{} is made", device.path().display()));
        }
        self.fact("devices", lines);
    }

    fn limits(&mut self, spec: &Spec) {
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let memory = resources
            .and_then(|all| all.memory().as_ref())
            .and_then(|memory| memory.limit())
            .filter(|limit| *limit > 0);
        let pids = resources
            .and_then(|all| all.pids().as_ref())
            .map(|pids| pids.limit())
            .filter(|limit| *limit > 0);
        let cpu = resources.and_then(|all| all.cpu().as_ref()).and_then(|cpu| {
            Some((cpu.quota().filter(|quota| *quota > 0)?, cpu.period().unwrap_or(100_000)))
        });
        let mut lines = Vec::new();
        match memory {
            Some(bytes) => lines.push(format!("memory: {bytes} bytes")),
            None => self.concern("/linux/resources/memory/limit", "it may use all memory"),
        }
        match pids {
            Some(limit) => lines.push(format!("processes and threads: {limit}")),
            None => {
                self.concern("/linux/resources/pids/limit", "it may fill the host with processes")
            }
        }
        if let Some((quota, period)) = cpu {
            lines.push(format!("processor time: {quota} of every {period} microseconds"));
        }
        for limit in spec.process().iter().flat_map(|process| process.rlimits().iter().flatten()) {
            lines.push(format!("{}: {} (at most {})", limit.typ(), limit.soft(), limit.hard()));
        }
        self.fact("limits", lines);
    }

    fn hooks(&mut self, spec: &Spec) {
        let Ok(Value::Object(hooks)) = serde_json::to_value(spec.hooks()) else { return };
        let mut lines = Vec::new();
        for (kind, list) in &hooks {
            for (index, hook) in list.as_array().into_iter().flatten().enumerate() {
                let path = hook["path"].as_str().unwrap_or_default();
                let inside = kind == "startContainer";
                let place = if inside { "in the container" } else { "on the host" };
                lines.push(format!("{path} {place} ({kind})"));
                if !inside {
                    let text = format!("{path} runs on the host, with this program's privileges");
                    self.concern(format!("/hooks/{kind}/{index}"), text);
                }
            }
        }
        self.fact("hooks", lines);
    }
}

fn has(spec: &Spec, kind: oci::LinuxNamespaceType) -> bool {
    let linux = spec.linux().as_ref();
    let declared = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    declared.iter().any(|entry| entry.typ() == kind)
}

fn access(read_only: bool) -> &'static str {
    if read_only { "read-only" } else { "writable" }
}

fn last(first: u32, size: u32) -> u64 {
    u64::from(first) + u64::from(size).saturating_sub(1)
}

fn in_words(action: oci::LinuxSeccompAction) -> &'static str {
    use oci::LinuxSeccompAction::*;
    match action {
        ScmpActAllow => "allowed",
        ScmpActLog => "allowed and logged",
        ScmpActErrno => "refused",
        ScmpActNotify => "answered by an agent",
        ScmpActTrap => "ended by SIGSYS",
        ScmpActTrace => "shown to a tracer",
        _ => "killed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: Value) -> Review {
        let spec = locule::spec::parse(json.to_string().as_bytes()).expect("a configuration");
        Review::of(&spec, Path::new("/bundle"))
    }

    fn careful() -> Value {
        serde_json::from_slice(&locule::spec::Template::new("/images/x", ["sh"]).json().unwrap())
            .expect("JSON")
    }

    fn pointers(review: &Review) -> Vec<&str> {
        review.concerns.iter().map(|concern| concern.pointer.as_str()).collect()
    }

    #[test]
    fn what_is_asked_for_is_told() {
        let mut config = careful();
        config["mounts"].as_array_mut().unwrap().extend([
            json!({ "destination": "/h", "source": "/etc", "options": ["rbind", "ro"] }),
            json!({ "destination": "/s", "source": "/run/docker.sock", "options": ["bind"] }),
        ]);
        let before = pointers(&of(careful())).len();
        let review = of(config.clone());
        assert_eq!(review.concerns.len(), before + 2, "{:?}", pointers(&review));
        config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
        config["process"]["noNewPrivileges"] = json!(false);
        config["hooks"] = json!({ "prestart": [{ "path": "/bin/h" }] });
        config["linux"]["namespaces"] = json!([{ "type": "mount" }]);
        config["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
        let review = of(config);
        for wanted in [
            "/process/capabilities/bounding",
            "/process/noNewPrivileges",
            "/hooks/prestart/0",
            "/linux/namespaces",
            "/linux/resources/devices/0",
        ] {
            assert!(pointers(&review).contains(&wanted), "{wanted}: {:?}", pointers(&review));
        }
    }

    #[test]
    fn a_user_namespace_makes_capabilities_its_own() {
        let mut config = careful();
        config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let review = of(config);
        assert!(!pointers(&review).contains(&"/process/capabilities/bounding"));
        let lines: Vec<_> = review.facts.iter().flat_map(|fact| &fact.lines).collect();
        assert!(
            lines.iter().any(|line| *line == "user ids 0-65535 are 100000-165535 on the host"),
            "{lines:?}"
        );
    }
}

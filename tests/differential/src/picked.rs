//! Bundles that were thought of: what other programs ask for, whole lives, and refusals.

use serde_json::{Value, json};

use crate::bundle::{Bundle, CAPABILITIES, Step, plain};

pub fn all() -> Vec<Bundle> {
    [lives(), configurations(), refusals()].into_iter().flatten().collect()
}

fn with(name: &str, change: impl FnOnce(&mut Bundle)) -> Bundle {
    let mut bundle = Bundle::new(name, plain());
    change(&mut bundle);
    bundle
}

fn lives() -> Vec<Bundle> {
    let another =
        |process: Value| move |bundle: &mut Bundle| bundle.steps = vec![Step::Exec(process)];
    vec![
        with("a plain container", |_| {}),
        with("a keeper", |bundle| bundle.keeper = true),
        with("an exit code", |bundle| {
            bundle.config["process"]["args"] = json!(["/probe", "--exit", "42"]);
        }),
        with("an end by a signal", |bundle| {
            bundle.config["process"]["args"] = json!(["/bin/sh", "-c", "kill -SEGV $$; exit 9"]);
            bundle.config["linux"]["namespaces"]
                .as_array_mut()
                .expect("namespaces")
                .retain(|namespace| namespace["type"] != "pid");
        }),
        with("a signal", |bundle| bundle.steps = vec![Step::Kill(9)]),
        with("a signal that is ignored", |bundle| bundle.steps = vec![Step::Kill(10)]),
        with("a signal that does not exist", |bundle| bundle.steps = vec![Step::Kill(99)]),
        with("pause and resume", |bundle| bundle.steps = vec![Step::Pause, Step::Resume]),
        with("resume without a pause", |bundle| bundle.steps = vec![Step::Resume]),
        with("pause twice", |bundle| {
            bundle.steps = vec![Step::Pause, Step::Pause, Step::Resume];
        }),
        with("killed before it is started", |bundle| bundle.steps = vec![Step::KillBeforeStart]),
        with(
            "another process",
            another(json!({ "args": ["/probe", "--exit", "3"], "cwd": "/work" })),
        ),
        with(
            "another process with calls",
            another(json!({ "args": ["/probe", "--calls"], "cwd": "/", "env": ["A=1"],
                            "user": { "uid": 7, "gid": 8, "additionalGids": [9], "umask": 63 } })),
        ),
        with(
            "another process that does not exist",
            another(json!({ "args": ["/no"], "cwd": "/" })),
        ),
        with("updated", |bundle| {
            bundle.steps = vec![Step::Update(json!({ "memory": { "limit": 67_108_864 },
                "cpu": { "shares": 333, "quota": 40_000, "period": 100_000 }, "pids": { "limit": 44 } }))];
        }),
        with("a terminal", |bundle| {
            bundle.config["process"]["terminal"] = json!(true);
            bundle.config["process"]["consoleSize"] = json!({ "height": 33, "width": 99 });
        }),
        with("a recursive option of a new filesystem", |bundle| {
            let mount = json!({ "destination": "/mnt", "type": "tmpfs", "source": "recursive",
                                "options": ["rnodev", "rnosuid"] });
            bundle.config["mounts"].as_array_mut().expect("mounts").push(mount);
        }),
        with("contradicting options", |bundle| {
            let mount = json!({ "destination": "/mnt", "type": "tmpfs", "source": "contradiction",
                                "options": ["mode=755", "noatime", "relatime", "unbindable", "slave"] });
            bundle.config["mounts"].as_array_mut().expect("mounts").push(mount);
        }),
        with("a recursive propagation of the root", |bundle| {
            let mount = json!({ "destination": "/mnt", "type": "tmpfs", "source": "shared",
                                "options": ["mode=755", "shared"] });
            bundle.config["mounts"].as_array_mut().expect("mounts").push(mount);
            bundle.config["linux"]["rootfsPropagation"] = json!("rprivate");
        }),
        with("the default place of cgroups", |bundle| {
            bundle.config["linux"]["cgroupsPath"] = Value::Null;
            bundle.config["process"]["args"] = json!(["/bin/sh", "-c", "exit 4"]);
        }),
    ]
}

/// The configurations that other programs write when nothing is asked for.
fn configurations() -> Vec<Bundle> {
    let masked = json!([
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi"
    ]);
    let read_only =
        json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    let protect = |config: &mut Value| {
        config["linux"]["maskedPaths"] = masked.clone();
        config["linux"]["readonlyPaths"] = read_only.clone();
        config["linux"]["resources"] = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
    };
    let few = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let cgroup_mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup",
        "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] });
    vec![
        with("as runc spec", |bundle| {
            let config = &mut bundle.config;
            protect(config);
            config["process"]["terminal"] = json!(true);
            config["process"]["env"] = json!(["PATH=/usr/bin:/bin", "TERM=xterm"]);
            config["process"]["capabilities"] =
                json!({ "bounding": few, "effective": few, "permitted": few });
            config["process"]["rlimits"] =
                json!([{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }]);
            config["process"]["noNewPrivileges"] = json!(true);
            config["root"]["readonly"] = json!(true);
            config["hostname"] = json!("runc");
            push(&mut config["mounts"], cgroup_mount.clone());
            push(&mut config["linux"]["namespaces"], json!({ "type": "cgroup" }));
        }),
        with("as podman", |bundle| {
            let config = &mut bundle.config;
            protect(config);
            config["process"]["env"] =
                json!(["PATH=/usr/bin:/bin", "container=podman", "HOSTNAME=abc", "HOME=/root"]);
            config["process"]["rlimits"] = json!([
                { "type": "RLIMIT_NOFILE", "hard": 1_048_576, "soft": 1_048_576 },
                { "type": "RLIMIT_NPROC", "hard": 4_194_304, "soft": 4_194_304 }]);
            config["process"]["user"] = json!({ "uid": 0, "gid": 0, "umask": 18 });
            config["process"]["oomScoreAdj"] = json!(0);
            config["linux"]["sysctl"] = json!({ "net.ipv4.ping_group_range": "0 0" });
            config["linux"]["resources"]["pids"] = json!({ "limit": 2048 });
            push(&mut config["linux"]["namespaces"], json!({ "type": "cgroup" }));
            push(&mut config["mounts"], cgroup_mount.clone());
            for (file, place) in [
                ("host/file", "/etc/resolv.conf"),
                ("host/file", "/etc/hosts"),
                ("host/file", "/run/.containerenv"),
            ] {
                push(
                    &mut config["mounts"],
                    json!({ "destination": place, "type": "bind",
                    "source": file, "options": ["bind", "rprivate"] }),
                );
            }
        }),
        with("as docker", |bundle| {
            let config = &mut bundle.config;
            protect(config);
            config["process"]["oomScoreAdj"] = json!(0);
            config["process"]["capabilities"]["inheritable"] = json!([]);
            config["linux"]["resources"]["memory"] = json!({});
            config["linux"]["resources"]["cpu"] = json!({ "shares": 0 });
            config["linux"]["resources"]["pids"] = json!({ "limit": null });
            config["linux"]["resources"]["blockIO"] = json!({ "weight": 0 });
            config["hooks"] = json!({ "prestart": [{ "path": "/bin/busybox", "args": ["true"] }] });
            push(&mut config["mounts"], cgroup_mount.clone());
            for place in ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"] {
                push(
                    &mut config["mounts"],
                    json!({ "destination": place, "type": "bind",
                    "source": "host/file", "options": ["rbind", "rprivate"] }),
                );
            }
        }),
        with("as containerd", |bundle| {
            let config = &mut bundle.config;
            protect(config);
            config["process"]["capabilities"] = json!({ "bounding": CAPABILITIES,
                "effective": CAPABILITIES, "permitted": CAPABILITIES });
            config["process"]["noNewPrivileges"] = json!(true);
            config["process"]["rlimits"] =
                json!([{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }]);
            push(
                &mut config["mounts"],
                json!({ "destination": "/run", "type": "tmpfs",
                "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] }),
            );
        }),
        with("without privilege", |bundle| {
            without_privilege(bundle);
        }),
        with("without privilege, protected", |bundle| {
            without_privilege(bundle);
            protect(&mut bundle.config);
            bundle.config["linux"]["resources"] = Value::Null;
            bundle.config["root"]["readonly"] = json!(true);
            bundle.config["process"]["noNewPrivileges"] = json!(true);
        }),
    ]
}

/// An ordinary user, who is root in the container and nobody else.
fn without_privilege(bundle: &mut Bundle) {
    const USER: u32 = 4321;
    bundle.user = USER;
    let config = &mut bundle.config;
    config["linux"]["cgroupsPath"] = Value::Null;
    push(&mut config["linux"]["namespaces"], json!({ "type": "user" }));
    for ids in ["uidMappings", "gidMappings"] {
        config["linux"][ids] = json!([{ "containerID": 0, "hostID": USER, "size": 1 }]);
    }
    for mount in config["mounts"].as_array_mut().expect("mounts") {
        if let Some(options) = mount["options"].as_array_mut() {
            options.retain(|option| option != "gid=5");
        }
    }
}

fn push(list: &mut Value, value: Value) {
    list.as_array_mut().expect("a list").push(value);
}

/// What both must refuse.
fn refusals() -> Vec<Bundle> {
    vec![
        with("no such program", |bundle| {
            bundle.config["process"]["args"] = json!(["/nothing"]);
        }),
        with("a program that may not be executed", |bundle| {
            bundle.config["process"]["args"] = json!(["/not-executable"]);
        }),
        with("no arguments", |bundle| bundle.config["process"]["args"] = json!([])),
        with("no root", |bundle| bundle.config["root"]["path"] = json!("nowhere")),
        with("a relative working directory", |bundle| {
            bundle.config["process"]["cwd"] = json!("work")
        }),
        with("an unknown namespace", |bundle| {
            push(&mut bundle.config["linux"]["namespaces"], json!({ "type": "nonsense" }));
        }),
        with("a namespace twice", |bundle| {
            push(&mut bundle.config["linux"]["namespaces"], json!({ "type": "uts" }));
        }),
        with("a namespace that is none", |bundle| {
            bundle.config["linux"]["namespaces"][1]["path"] = json!("/etc/passwd");
        }),
        with("a hostname without a namespace for it", |bundle| {
            bundle.config["linux"]["namespaces"].as_array_mut().expect("a list").remove(3);
        }),
        with("a sysctl of the host", |bundle| {
            bundle.config["linux"]["sysctl"] = json!({ "vm.swappiness": "10" });
        }),
        with("a source that does not exist", |bundle| {
            push(
                &mut bundle.config["mounts"],
                json!({ "destination": "/mnt", "type": "bind",
                "source": "/does/not/exist", "options": ["bind"] }),
            );
        }),
        with("an unknown filesystem", |bundle| {
            push(
                &mut bundle.config["mounts"],
                json!({ "destination": "/mnt", "type": "nonsense", "source": "none" }),
            );
        }),
        with("an unknown limit", |bundle| {
            bundle.config["process"]["rlimits"] =
                json!([{ "type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1 }]);
        }),
        with("a soft limit above the hard one", |bundle| {
            bundle.config["process"]["rlimits"] =
                json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 10 }]);
        }),
        with("an unknown action of a filter", |bundle| {
            bundle.config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_NONSENSE" });
        }),
        with("an unknown propagation", |bundle| {
            bundle.config["linux"]["rootfsPropagation"] = json!("nonsense");
        }),
        with("an unknown personality", |bundle| {
            bundle.config["linux"]["personality"] = json!({ "domain": "NONSENSE" });
        }),
        with("a device of an unknown type", |bundle| {
            bundle.config["linux"]["devices"] =
                json!([{ "path": "/dev/x", "type": "x", "major": 1, "minor": 3 }]);
        }),
        with("a user namespace without mappings", |bundle| {
            push(&mut bundle.config["linux"]["namespaces"], json!({ "type": "user" }));
        }),
        with("a failing hook", |bundle| {
            bundle.config["hooks"] =
                json!({ "createRuntime": [{ "path": "/bin/busybox", "args": ["false"] }] });
        }),
        with("a hook that takes too long", |bundle| {
            bundle.config["hooks"] = json!({ "createRuntime": [
                { "path": "/bin/busybox", "args": ["sleep", "9"], "timeout": 1 }] });
        }),
        with("a cpu set that does not exist", |bundle| {
            bundle.config["linux"]["resources"] = json!({ "cpu": { "cpus": "900" } });
        }),
    ]
}

//! Makes up bundles: a plain one, changed in a few ways.

use locule::spec::mount_options;
use serde_json::{Value, json};

use crate::bundle::{Bundle, CAPABILITIES, Step, plain};
use crate::random::Random;

type Change = fn(&mut Bundle, &mut Random);

/// The ways to change a bundle, with a word for each.
const CHANGES: &[(&str, Change)] = &[
    ("a new filesystem", new_filesystem),
    ("a bind", bind),
    ("a mount", odd_mount),
    ("many mounts", many_mounts),
    ("copied up", copied_up),
    ("namespaces", namespaces),
    ("user namespace", user_namespace),
    ("time", time_namespace),
    ("user", user),
    ("capabilities", capabilities),
    ("limits", limits),
    ("seccomp", seccomp),
    ("memory", memory),
    ("cpu", cpu),
    ("pids", pids),
    ("device rules", device_rules),
    ("block", block),
    ("update", update),
    ("devices", devices),
    ("sysctls", sysctls),
    ("masks", masks),
    ("propagation", propagation),
    ("read-only root", read_only_root),
    ("terminal", terminal),
    ("process", process),
    ("schedule", schedule),
    ("personality", personality),
    ("directory", directory),
    ("environment", environment),
    ("names", names),
    ("annotations", annotations),
    ("hooks", hooks),
    ("another process", another_process),
    ("freezing", freezing),
    ("ending", ending),
    ("cgroup mount", cgroup_mount),
    ("cgroup path", cgroup_path),
];

/// The bundle of this number.
pub fn bundle(seed: u64, number: usize) -> Bundle {
    let mut random = Random(seed.wrapping_add((number as u64).wrapping_mul(0x1000_0000_01b3)));
    let mut bundle = Bundle::new("", plain());
    bundle.keeper = random.once_in(3);
    let mut words = Vec::new();
    // In turn, so that none is left out, with others of chance.
    let mut chosen = vec![number % CHANGES.len()];
    for _ in 0..random.below(4) {
        chosen.push(random.below(CHANGES.len()));
    }
    chosen.sort_unstable();
    chosen.dedup();
    for index in chosen {
        let (word, change) = CHANGES[index];
        change(&mut bundle, &mut random);
        words.push(word);
    }
    bundle.name = format!("{number}: {}", words.join(", "));
    bundle
}

fn push(list: &mut Value, value: Value) {
    match list {
        Value::Array(values) => values.push(value),
        other => *other = json!([value]),
    }
}

fn mount(bundle: &mut Bundle, mount: Value) {
    let destination = mount["destination"].clone();
    push(&mut bundle.config["mounts"], mount);
    look_at(bundle, destination);
}

/// Has the probe look at a path.
fn look_at(bundle: &mut Bundle, path: impl Into<Value>) {
    push(&mut bundle.config["process"]["args"], path.into());
}

const NEW_PLACES: &[&str] =
    &["/mnt", "/new", "/new/below/it", "/tmp", "/work", "/link/in", "/empty"];

/// Options that need more than a filesystem to try them on.
const SPECIAL: &[&str] =
    &["bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup", "mand", "nomand"];

/// The oracle only knows the recursive ones of bind mounts.
fn options(random: &mut Random, most: usize, recursive: bool) -> Vec<String> {
    let is_recursive = |word: &str| {
        word.starts_with('r')
            && !["ro", "rw", "relatime", "remount"].contains(&word)
            && !["shared", "slave", "private", "unbindable"].contains(&&word[1..])
    };
    let words: Vec<&str> = mount_options::ALL
        .into_iter()
        .filter(|word| !SPECIAL.contains(word) && (recursive || !is_recursive(word)))
        .collect();
    let mut chosen = random.some(&words, most);
    // Of several the last one counts; the oracle has its own ways.
    let is_time = |word: &str| word.ends_with("atime");
    let mut earlier = [false; 2];
    chosen.retain(|word| {
        let kinds = [is_propagation(word), is_time(word)];
        let again = (0..2).any(|kind| kinds[kind] && earlier[kind]);
        (0..2).for_each(|kind| earlier[kind] |= kinds[kind]);
        !again
    });
    chosen.into_iter().map(str::to_owned).collect()
}

fn is_propagation(word: &str) -> bool {
    ["shared", "slave", "private", "unbindable"].iter().any(|end| word.ends_with(end))
}

fn new_filesystem(bundle: &mut Bundle, random: &mut Random) {
    let mut options = options(random, 5, false);
    let data = ["size=1m", "size=64k", "mode=1777", "mode=700", "nr_inodes=100", "uid=7", "gid=8"];
    options.extend(random.some(&data, 3).into_iter().map(str::to_owned));
    let place = *random.of(NEW_PLACES);
    mount(
        bundle,
        json!({ "destination": place, "type": "tmpfs", "source": "new", "options": options }),
    );
}

fn bind(bundle: &mut Bundle, random: &mut Random) {
    let source =
        *random.of(&["host/tree", "host/tree", "host/plain", "host/file", "/mnt/bundle/host/tree"]);
    let file = source.ends_with("file");
    let place = match file {
        true => *random.of(&["/etc/bound", "/work/file", "/new-file", "/new/deep/file"]),
        false => *random.of(NEW_PLACES),
    };
    let mut options = options(random, 4, true);
    options.insert(random.below(options.len() + 1), random.of(&["bind", "rbind"]).to_string());
    let mut entry = json!({ "destination": place, "source": source, "options": options });
    if random.once_in(2) {
        entry["type"] = json!(random.of(&["bind", "none", ""]));
    }
    mount(bundle, entry);
}

fn odd_mount(bundle: &mut Bundle, random: &mut Random) {
    let entry = match random.below(9) {
        0 => json!({ "destination": "/new/proc", "type": "proc", "source": "proc",
                     "options": ["nosuid", "ro"] }),
        1 => json!({ "destination": "/proc", "type": "proc", "source": "proc",
                     "options": [random.of(&["hidepid=2", "hidepid=invisible", "subset=pid", "ro"])] }),
        2 => json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
                     "options": ["rw", "nosuid"] }),
        3 => json!({ "destination": "work/relative", "type": "tmpfs", "source": "tmpfs" }),
        4 => json!({ "destination": "/dev/extra", "type": "tmpfs", "source": "tmpfs",
                     "options": ["mode=711"] }),
        5 => json!({ "destination": "/work", "type": "bind", "source": "nothing/there",
                     "options": ["bind"] }),
        6 => json!({ "destination": "/work/file", "type": "tmpfs", "source": "tmpfs" }),
        7 => json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs",
                     "options": ["no-such-option=1"] }),
        _ => json!({ "destination": "/mnt", "type": "nosuchfs", "source": "none" }),
    };
    push(&mut bundle.config["mounts"], entry);
    look_at(bundle, "/work/relative");
}

fn many_mounts(bundle: &mut Bundle, random: &mut Random) {
    for number in 0..2 + random.below(6) {
        let place = *random.of(&["/mnt", "/mnt/a", "/mnt/a/b", "/mnt/c", "/work/deep", "/work"]);
        let entry = match random.below(4) {
            0 => json!({ "destination": place, "type": "tmpfs", "source": format!("t{number}") }),
            1 => json!({ "destination": place, "source": "host/tree", "options": ["rbind"] }),
            2 => json!({ "destination": place, "source": "host/plain", "options": ["bind", "ro"] }),
            _ => json!({ "destination": place, "type": "tmpfs", "source": "tmpfs",
                         "options": ["ro", "noexec"] }),
        };
        mount(bundle, entry);
    }
}

fn copied_up(bundle: &mut Bundle, random: &mut Random) {
    let mut options = vec!["tmpcopyup"];
    options.extend(random.some(&["ro", "noexec", "mode=700", "mode=1777", "size=1m", "nosuid"], 3));
    let place = *random.of(&["/copied", "/copied/directory", "/work", "/empty", "/new"]);
    mount(
        bundle,
        json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": options }),
    );
}

fn namespaces(bundle: &mut Bundle, random: &mut Random) {
    let list = bundle.config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    match random.below(4) {
        0 => list.push(json!({ "type": "cgroup" })),
        1 => {
            let kind = *random.of(&["network", "ipc", "uts", "pid"]);
            list.retain(|namespace| namespace["type"] != kind);
        }
        2 => {
            let (kind, file) = *random.of(&[("network", "net"), ("ipc", "ipc"), ("uts", "uts")]);
            list.retain(|namespace| namespace["type"] != kind);
            list.push(json!({ "type": kind, "path": format!("/proc/self/ns/{file}") }));
        }
        _ => {
            let again = list[random.below(list.len())].clone();
            list.push(again);
        }
    }
}

fn user_namespace(bundle: &mut Bundle, random: &mut Random) {
    let mapping = match random.below(4) {
        0 => json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]),
        1 => json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]),
        2 => json!([{ "containerID": 0, "hostID": 0, "size": 1 },
                    { "containerID": 1, "hostID": 100_000, "size": 5000 }]),
        _ => json!([{ "containerID": 0, "hostID": 100_000, "size": 1000 },
                    { "containerID": 1000, "hostID": 0, "size": 10 },
                    { "containerID": 2000, "hostID": 200_000, "size": 100 }]),
    };
    let linux = &mut bundle.config["linux"];
    push(&mut linux["namespaces"], json!({ "type": "user" }));
    linux["uidMappings"] = mapping.clone();
    linux["gidMappings"] = mapping;
}

fn time_namespace(bundle: &mut Bundle, random: &mut Random) {
    push(&mut bundle.config["linux"]["namespaces"], json!({ "type": "time" }));
    let offset =
        json!({ "secs": random.below(1_000_000), "nanosecs": random.below(1_000_000_000) });
    match random.below(3) {
        0 => bundle.config["linux"]["timeOffsets"] = json!({ "monotonic": offset }),
        1 => {
            bundle.config["linux"]["timeOffsets"] =
                json!({ "monotonic": offset, "boottime": { "secs": 5 } });
        }
        _ => {}
    }
}

fn user(bundle: &mut Bundle, random: &mut Random) {
    let mut user = json!({ "uid": random.of(&[0, 1, 1000, 12345]),
                           "gid": random.of(&[0, 5, 1000, 54321]) });
    if random.once_in(2) {
        let count = random.below(5);
        let groups: Vec<usize> = (0..count).map(|_| random.below(3000)).collect();
        user["additionalGids"] = json!(groups);
    }
    if random.once_in(2) {
        user["umask"] = json!(random.of(&[0, 0o22, 0o27, 0o77, 0o777]));
    }
    bundle.config["process"]["user"] = user;
    if random.once_in(4) {
        bundle.config["process"]["env"] = json!(["PATH=/bin"]);
    }
}

fn capabilities(bundle: &mut Bundle, random: &mut Random) {
    let process = &mut bundle.config["process"];
    if random.once_in(6) {
        process.as_object_mut().expect("an object").remove("capabilities");
        return;
    }
    let all = [
        CAPABILITIES,
        &[
            "CAP_SYS_ADMIN",
            "CAP_NET_ADMIN",
            "CAP_SYS_PTRACE",
            "CAP_BPF",
            "CAP_CHECKPOINT_RESTORE",
            "CAP_PERFMON",
            "CAP_SYS_NICE",
            "CAP_IPC_LOCK",
        ],
    ]
    .concat();
    let bounding = random.some(&all, all.len());
    let permitted = random.some(&bounding, bounding.len());
    let effective = random.some(&permitted, permitted.len());
    let inheritable = random.some(&bounding, 4);
    let both: Vec<_> =
        inheritable.iter().copied().filter(|name| permitted.contains(name)).collect();
    let ambient = random.some(&both, both.len());
    process["capabilities"] = json!({ "bounding": bounding, "permitted": permitted,
        "effective": effective, "inheritable": inheritable, "ambient": ambient });
    if random.once_in(4) {
        // The kernel forbids some of these.
        let set = *random.of(&["ambient", "effective", "permitted", "inheritable"]);
        process["capabilities"][set] = json!(random.some(&all, 3));
    }
    if random.once_in(8) {
        push(&mut process["capabilities"]["bounding"], json!("CAP_OF_NOBODY"));
    }
}

fn limits(bundle: &mut Bundle, random: &mut Random) {
    let kinds = [
        "AS",
        "CORE",
        "CPU",
        "DATA",
        "FSIZE",
        "LOCKS",
        "MEMLOCK",
        "MSGQUEUE",
        "NICE",
        "NOFILE",
        "NPROC",
        "RSS",
        "RTPRIO",
        "RTTIME",
        "SIGPENDING",
        "STACK",
    ];
    for kind in random.some(&kinds, 6) {
        let hard = match kind {
            "NICE" => random.below(40) as u64,
            "RTPRIO" => random.below(99) as u64,
            "AS" | "DATA" | "STACK" => 100_000_000 + random.below(1_000_000_000) as u64,
            "CPU" => 100 + random.below(100) as u64,
            _ => 4096 + random.below(10_000) as u64,
        };
        let soft = if random.once_in(2) { hard } else { hard - hard / 4 };
        push(
            &mut bundle.config["process"]["rlimits"],
            json!({ "type": format!("RLIMIT_{kind}"), "soft": soft, "hard": hard }),
        );
    }
}

/// What neither the probe needs to tell what it sees, nor a runtime on its way.
const DENIABLE: &[&str] = &[
    "mkdirat",
    "ptrace",
    "add_key",
    "request_key",
    "bpf",
    "perf_event_open",
    "swapon",
    "swapoff",
    "reboot",
    "init_module",
    "delete_module",
    "acct",
    "open_by_handle_at",
    "name_to_handle_at",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "syslog",
    "quotactl",
    "userfaultfd",
    "io_uring_setup",
    "chroot",
    "sethostname",
    "setdomainname",
    "kcmp",
    "process_vm_readv",
    "lookup_dcookie",
    "mbind",
    "set_mempolicy",
    "move_pages",
    "fanotify_init",
    "landlock_create_ruleset",
    "sched_setscheduler",
    "setxattr",
    "no_such_call",
];

/// What a runtime needs before it installs the filter, if that is the last it does.
const DENIABLE_AT_LAST: &[&str] = &[
    "fchmodat",
    "unshare",
    "mount",
    "umount2",
    "setns",
    "pivot_root",
    "setuid",
    "setgid",
    "setgroups",
    "keyctl",
    "fsopen",
    "open_tree",
    "pidfd_open",
    "memfd_create",
];

fn seccomp(bundle: &mut Bundle, random: &mut Random) {
    let mut calls = Vec::new();
    let at_last = random.once_in(2);
    bundle.config["process"]["noNewPrivileges"] = json!(at_last);
    let deniable = if at_last { [DENIABLE, DENIABLE_AT_LAST].concat() } else { DENIABLE.to_vec() };
    let actions = [
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_LOG",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_KILL_THREAD",
    ];
    for _ in 0..1 + random.below(4) {
        let mut names = random.some(&deniable, 8);
        names.push(*random.of(&deniable));
        let action = *random.of(&actions);
        let mut rule = json!({ "names": names, "action": action });
        if action.ends_with("ERRNO") && random.once_in(2) {
            rule["errnoRet"] = json!(random.of(&[1, 2, 13, 38, 95]));
        }
        calls.push(rule);
    }
    if random.once_in(2) {
        calls.push(json!({ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
            "args": [{ "index": 0, "value": random.of(&[2, 16, 40]),
                       "op": random.of(&["SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_GE", "SCMP_CMP_LT"]) }] }));
    }
    if random.once_in(3) {
        calls.push(json!({ "names": ["unshare"], "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 0, "value": 0x1000_0000, "valueTwo": 0x1000_0000,
                       "op": "SCMP_CMP_MASKED_EQ" }] }));
    }
    let mut profile = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls });
    if random.once_in(2) {
        profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    }
    if random.once_in(4) {
        profile["flags"] = json!([random.of(&[
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_TSYNC"
        ])]);
    }
    bundle.config["linux"]["seccomp"] = profile;
    // Without capabilities, which the oracle's process then has, most calls differ.
    if bundle.config["process"]["capabilities"].is_object() {
        look_at(bundle, "--calls");
    }
}

fn resources(bundle: &mut Bundle) -> &mut Value {
    &mut bundle.config["linux"]["resources"]
}

fn some_memory(random: &mut Random) -> Value {
    let limit = 32 * 1024 * 1024 + 4096 * random.below(4096);
    let mut memory = json!({ "limit": limit });
    if random.once_in(3) {
        memory["reservation"] = json!(limit / 2);
    }
    if random.once_in(3) {
        memory["swap"] = json!(*random.of(&[limit as i64, 2 * limit as i64, -1]));
    }
    if random.once_in(4) {
        memory["disableOOMKiller"] = json!(random.once_in(2));
    }
    if random.once_in(4) {
        memory["swappiness"] = json!(random.of(&[0, 60, 100]));
    }
    if random.once_in(5) {
        memory["limit"] = json!(-1);
        memory.as_object_mut().expect("an object").remove("swap");
    }
    if random.once_in(5) {
        memory[*random.of(&["kernel", "kernelTCP"])] = json!(64 * 1024 * 1024);
    }
    if random.once_in(6) {
        memory["checkBeforeUpdate"] = json!(true);
        memory["useHierarchy"] = json!(true);
    }
    memory
}

fn memory(bundle: &mut Bundle, random: &mut Random) {
    resources(bundle)["memory"] = some_memory(random);
}

fn some_cpu(random: &mut Random) -> Value {
    let mut cpu = json!({});
    if random.once_in(2) {
        cpu["shares"] = json!(random.of(&[2, 512, 1024, 4096, 262_144]));
    }
    if random.once_in(2) {
        cpu["period"] = json!(random.of(&[50_000, 100_000]));
    }
    if random.once_in(2) {
        cpu["quota"] = json!(random.of(&[20_000, 50_000, 150_000, -1]));
        if random.once_in(3) {
            cpu["burst"] = json!(10_000);
        }
    }
    if random.once_in(3) {
        cpu["cpus"] = json!(random.of(&["0", "1", "0-1", "0,1"]));
    }
    if random.once_in(4) {
        cpu["mems"] = json!("0");
    }
    if random.once_in(6) {
        cpu["idle"] = json!(random.of(&[0, 1]));
    }
    cpu
}

fn cpu(bundle: &mut Bundle, random: &mut Random) {
    resources(bundle)["cpu"] = some_cpu(random);
}

fn pids(bundle: &mut Bundle, random: &mut Random) {
    resources(bundle)["pids"] = json!({ "limit": random.of(&[-1, 64, 1000]) });
}

fn device_rules(bundle: &mut Bundle, random: &mut Random) {
    let mut rules = Vec::new();
    if !random.once_in(3) {
        rules.push(json!({ "allow": false, "access": "rwm" }));
    }
    for _ in 0..random.below(5) {
        let mut rule = json!({ "allow": !random.once_in(4), "type": random.of(&["c", "b", "a", "c"]),
                               "access": random.of(&["r", "w", "m", "rw", "rm", "rwm", "rwm"]) });
        if rule["type"] == "a" {
            rule["access"] = json!("rwm");
        } else {
            // Of one minor number under every major one the oracle makes nothing sensible.
            if !random.once_in(4) {
                rule["major"] = json!(random.of(&[1, 5, 7, 8, 10, 136]));
                if random.once_in(2) {
                    rule["minor"] = json!(random.of(&[0, 1, 3, 7, 229]));
                }
            }
        }
        rules.push(rule);
    }
    resources(bundle)["devices"] = json!(rules);
    push(&mut bundle.config["process"]["capabilities"]["bounding"], json!("CAP_MKNOD"));
}

fn block(bundle: &mut Bundle, random: &mut Random) {
    let mut block = json!({});
    if random.once_in(3) {
        block["weight"] = json!(random.of(&[10, 500, 1000]));
    }
    let rate = json!([{ "major": 254, "minor": 0, "rate": 1_000_000 + random.below(1_000_000) }]);
    for key in [
        "throttleReadBpsDevice",
        "throttleWriteBpsDevice",
        "throttleReadIOPSDevice",
        "throttleWriteIOPSDevice",
    ] {
        if random.once_in(2) {
            block[key] = rate.clone();
        }
    }
    resources(bundle)["blockIO"] = block;
}

fn update(bundle: &mut Bundle, random: &mut Random) {
    let mut changed = json!({});
    if random.once_in(2) {
        changed["memory"] = json!({ "limit": 128 * 1024 * 1024 });
    }
    if random.once_in(2) {
        changed["cpu"] = some_cpu(random);
    }
    if random.once_in(2) {
        changed["pids"] = json!({ "limit": 50 });
    }
    bundle.steps.push(Step::Update(changed));
}

fn devices(bundle: &mut Bundle, random: &mut Random) {
    for number in 0..1 + random.below(3) {
        let (kind, major, minor) =
            *random.of(&[("c", 10, 229), ("b", 7, 0), ("c", 1, 3), ("u", 1, 5), ("c", 1, 11)]);
        let path =
            *random.of(&["/dev/made-c", "/dev/made-b", "/dev/sub/made", "/dev/fuse", "/work/made"]);
        let path = if number == 0 { path.to_owned() } else { format!("{path}{number}") };
        let mut device = json!({ "path": path, "type": kind, "major": major, "minor": minor });
        if random.once_in(2) {
            device["fileMode"] = json!(random.of(&[0o600, 0o640, 0o666, 0o444]));
        }
        if random.once_in(2) {
            device["uid"] = json!(random.of(&[0, 1000]));
            device["gid"] = json!(random.of(&[0, 1000]));
        }
        push(&mut bundle.config["linux"]["devices"], device);
        look_at(bundle, path);
    }
    if random.once_in(6) {
        push(&mut bundle.config["linux"]["devices"], json!({ "path": "/dev/pipe", "type": "p" }));
    }
}

fn sysctls(bundle: &mut Bundle, random: &mut Random) {
    let known = [
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("net.ipv4.ping_group_range", "0 1000"),
        ("net.core.somaxconn", "512"),
        ("kernel.shmmax", "12345678"),
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.msgmax", "9000"),
        ("kernel.sem", "200 25600 32 120"),
        ("fs.mqueue.msg_max", "20"),
        ("kernel.domainname", "example"),
        ("net/ipv4/conf/all/rp_filter", "2"),
        ("kernel.hostname", "other"),
        ("kernel.pid_max", "4000"),
        ("net.no.such", "1"),
    ];
    // The last ones belong to no namespace, or do not exist.
    let most = 11 + random.below(4);
    for (name, value) in random.some(&known[..most], 5) {
        bundle.config["linux"]["sysctl"][name] = json!(value);
    }
}

fn masks(bundle: &mut Bundle, random: &mut Random) {
    let masked = [
        "/masked/file",
        "/masked/directory",
        "/proc/kcore",
        "/proc/keys",
        "/proc/acpi",
        "/proc/timer_list",
        "/sys/firmware",
        "/no/such/path",
        "/readonly/link",
        "/dev/null",
        "/proc/scsi",
        "/work",
    ];
    let readonly = [
        "/readonly/file",
        "/readonly/directory",
        "/proc/sys",
        "/proc/bus",
        "/proc/irq",
        "/proc/sysrq-trigger",
        "/sys",
        "/no/such/path",
        "/work",
        "/tmp",
        "/masked/file",
    ];
    let (masked, readonly) = (random.some(&masked, 7), random.some(&readonly, 7));
    for path in masked.iter().chain(&readonly) {
        look_at(bundle, *path);
    }
    bundle.config["linux"]["maskedPaths"] = json!(masked);
    bundle.config["linux"]["readonlyPaths"] = json!(readonly);
}

fn propagation(bundle: &mut Bundle, random: &mut Random) {
    let word = *random.of(&["shared", "slave", "private", "unbindable"]);
    // A recursive one undoes what a mount asks for: in one of the picked bundles.
    let mut options = bundle.config["mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|mount| mount["options"].as_array().into_iter().flatten())
        .filter_map(Value::as_str);
    let recursive = !options.any(is_propagation) && random.once_in(2);
    bundle.config["linux"]["rootfsPropagation"] =
        json!(format!("{}{word}", if recursive { "r" } else { "" }));
}

fn read_only_root(bundle: &mut Bundle, random: &mut Random) {
    bundle.config["root"]["readonly"] = json!(true);
    if random.once_in(3) {
        look_at(bundle, "/etc");
    }
}

fn terminal(bundle: &mut Bundle, random: &mut Random) {
    bundle.config["process"]["terminal"] = json!(true);
    if random.once_in(2) {
        bundle.config["process"]["consoleSize"] =
            json!({ "height": 1 + random.below(200), "width": 1 + random.below(200) });
    }
}

fn process(bundle: &mut Bundle, random: &mut Random) {
    let process = &mut bundle.config["process"];
    process["noNewPrivileges"] = json!(random.once_in(2));
    if random.once_in(2) {
        process["oomScoreAdj"] = json!(random.of(&[-1000, -500, 0, 100, 1000]));
    }
}

fn schedule(bundle: &mut Bundle, random: &mut Random) {
    let process = &mut bundle.config["process"];
    match random.below(5) {
        0 => {
            process["scheduler"] =
                json!({ "policy": "SCHED_OTHER", "nice": random.of(&[-5, 0, 10]) })
        }
        1 => process["scheduler"] = json!({ "policy": random.of(&["SCHED_BATCH", "SCHED_IDLE"]) }),
        2 => {
            process["scheduler"] = json!({ "policy": random.of(&["SCHED_FIFO", "SCHED_RR"]),
            "priority": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"] })
        }
        3 => {
            process["ioPriority"] = json!({ "class": random.of(&["IOPRIO_CLASS_BE",
            "IOPRIO_CLASS_IDLE", "IOPRIO_CLASS_RT"]), "priority": random.below(8) })
        }
        _ => {
            process["execCPUAffinity"] =
                json!({ "initial": "0", "final": random.of(&["0", "1", "0-1"]) })
        }
    }
}

fn personality(bundle: &mut Bundle, random: &mut Random) {
    bundle.config["linux"]["personality"] = json!({ "domain": random.of(&["LINUX", "LINUX32"]) });
}

fn directory(bundle: &mut Bundle, random: &mut Random) {
    bundle.config["process"]["cwd"] = json!(random.of(&[
        "/work",
        "/work/deep",
        "/link",
        "/not/there",
        "/tmp",
        "/etc/passwd",
        "/work/../tmp"
    ]));
}

fn environment(bundle: &mut Bundle, random: &mut Random) {
    let words = [
        "A=1",
        "A=2",
        "PATH=/usr/bin:/bin",
        "EMPTY=",
        "HOME=/somewhere",
        "WITH SPACE=a b",
        "QUOTE=\"'\\",
        "TERM=xterm",
        "UNICODE=\u{e9}\u{4e16}",
    ];
    bundle.config["process"]["env"] = json!(random.some(&words, 7));
    for word in random.some(&["plain word", "", "\u{fc}", "a\nb"], 3) {
        look_at(bundle, word);
    }
    if random.once_in(4) {
        bundle.config["process"]["args"][0] = json!("probe");
        bundle.config["process"]["env"] = json!(["PATH=/nowhere:/", "HOME=/"]);
    }
}

fn names(bundle: &mut Bundle, random: &mut Random) {
    bundle.config["domainname"] = json!(random.of(&["example.org", "a", ""]));
    bundle.config["hostname"] = json!(random.of(&["box", "a.b.c", ""]));
}

fn annotations(bundle: &mut Bundle, _: &mut Random) {
    bundle.config["annotations"] = json!({ "org.example.key": "value", "other": "" });
}

/// Writes about itself into a file that the host reads.
fn hook(stage: &str, number: usize, random: &mut Random) -> Value {
    let log = if stage == "startContainer" { "/hooks" } else { "/mnt/bundle/hooks" };
    let script = format!(
        "me='{stage} {number}'; \
         input=$(/bin/busybox tr -d '\\n\\t ' | /bin/busybox sed \
         's/\"pid\":[1-9][0-9]*/\"pid\":N/;s/\"created\":\"[^\"]*\"//'); \
         variables=$(/bin/busybox env | /bin/busybox sed '/^PWD=/d' | /bin/busybox sort | \
         /bin/busybox tr '\\n' ' '); \
         {{ echo \"$me arguments=$0 $*\"; echo \"$me directory=$PWD\"; \
         echo \"$me environment=$variables\"; echo \"$me state=$input\"; }} >>{log}"
    );
    let mut hook = json!({ "path": "/bin/busybox", "args": ["sh", "-c", script, "zero", "one"] });
    if random.once_in(2) {
        hook["env"] = json!(["KEY=value"]);
    }
    if random.once_in(3) {
        hook["timeout"] = json!(10);
    }
    hook
}

fn hooks(bundle: &mut Bundle, random: &mut Random) {
    let stages = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"];
    for stage in stages {
        for number in 0..random.below(3) {
            let hook = hook(stage, number, random);
            // Without one nobody is there to run it.
            bundle.keeper |= stage == "poststart";
            push(&mut bundle.config["hooks"][stage], hook);
        }
    }
    if random.once_in(4) {
        let stage = *random.of(&["prestart", "createRuntime", "createContainer", "startContainer"]);
        push(
            &mut bundle.config["hooks"][stage],
            json!({ "path": "/bin/busybox", "args": ["false"] }),
        );
    }
}

fn another_process(bundle: &mut Bundle, random: &mut Random) {
    let mut process = json!({ "args": ["/probe", "--exit", "7", "/work"], "cwd": "/work",
                              "env": ["PATH=/bin", "MINE=1"], "user": { "uid": 0, "gid": 0 } });
    if random.once_in(2) {
        process["user"] = json!({ "uid": 1000, "gid": 1000, "additionalGids": [5, 6] });
    }
    if random.once_in(2) {
        process["capabilities"] = json!({ "bounding": ["CAP_CHOWN", "CAP_KILL"],
            "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"] });
    }
    // With it the filter comes last, so that it does not hinder the oracle; and the container's is
    // kept, so that both gain what the file of the program gives.
    let container = &bundle.config;
    let kept = container["process"]["noNewPrivileges"] == true;
    if random.once_in(3) || kept || container["linux"]["seccomp"].is_object() {
        process["noNewPrivileges"] = json!(true);
    }
    if random.once_in(3) {
        process["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 99, "hard": 100 }]);
    }
    if random.once_in(3) {
        process["oomScoreAdj"] = json!(77);
    }
    if random.once_in(5) {
        process["args"] = json!(["/nothing"]);
    }
    bundle.steps.push(Step::Exec(process));
}

fn freezing(bundle: &mut Bundle, _: &mut Random) {
    bundle.steps.extend([Step::Pause, Step::Resume]);
}

fn ending(bundle: &mut Bundle, random: &mut Random) {
    match random.below(4) {
        0 => bundle.steps.push(Step::Kill(*random.of(&[1, 9, 15, 10]))),
        1 => bundle.steps.push(Step::KillBeforeStart),
        2 => {
            look_at(bundle, "--exit");
            look_at(bundle, random.below(256).to_string());
        }
        _ => {
            look_at(bundle, "--signal");
            look_at(bundle, random.of(&["6", "9", "15"]).to_string());
        }
    }
}

fn cgroup_mount(bundle: &mut Bundle, random: &mut Random) {
    mount(
        bundle,
        json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": random.some(&["nosuid", "noexec", "nodev", "relatime", "ro"], 5) }),
    );
    if random.once_in(2) {
        push(&mut bundle.config["linux"]["namespaces"], json!({ "type": "cgroup" }));
    }
}

fn cgroup_path(bundle: &mut Bundle, random: &mut Random) {
    bundle.config["linux"]["cgroupsPath"] =
        json!(random.of(&["/ID", "/ID-above/a/b/ID", "/ID-above//x/../ID"]));
}

//! Plans of whole configurations, compared with the texts in `snapshots/`. After a wanted
//! change `UPDATE=1 cargo test -p locule plans` writes them anew: read the difference.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::cgroup::{Hierarchies, Hierarchy, Location};
use crate::container::Rootfs;
use crate::resctrl::Group;
use crate::spec;

fn hierarchies() -> Hierarchies {
    Hierarchies::from_list(vec![Hierarchy {
        controllers: ["cpu", "memory", "pids"].map(str::to_owned).to_vec(),
        unified: true,
        mount_point: "/sys/fs/cgroup".into(),
        own: "/".into(),
        parent_writable: true,
    }])
}

fn root_facts() -> HostFacts {
    HostFacts {
        euid: 0,
        egid: 0,
        privileged: true,
        network_admin: true,
        in_user_namespace: false,
        setgroups_denied: false,
        selinux: false,
        last_capability: 40,
        id_mappers: None,
        root_entries: Vec::new(),
        cgroups: hierarchies(),
    }
}

fn user_facts() -> HostFacts {
    let entry = |name: &str, link: Option<&str>| RootEntry {
        name: name.to_owned(),
        link: link.map(PathBuf::from),
    };
    HostFacts {
        euid: 1000,
        egid: 100,
        privileged: false,
        network_admin: false,
        root_entries: vec![
            entry("bin", Some("usr/bin")),
            entry("etc", None),
            entry("proc", None),
            entry("tmp", None),
            entry("usr", None),
        ],
        cgroups: Hierarchies::none(),
        ..root_facts()
    }
}

fn program(_: &oci::LinuxSeccomp) -> Result<Arc<seccomp::Program>> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    Ok(Arc::new(seccomp::Program { bpf: vec![0; 16], flags }))
}

/// As where it is mounted at the usual place.
fn resctrl(spec: &spec::Spec) -> Option<Group> {
    let rdt = spec.linux().as_ref()?.intel_rdt().as_ref()?;
    Some(Group::of(rdt, "box", Some(Path::new("/sys/fs/resctrl"))).unwrap())
}

fn compile_with(config: &Value, facts: &HostFacts, rootfs: Rootfs) -> Result<Plan> {
    compile_on(config, facts, rootfs, &[], None)
}

fn compile_on(
    config: &Value,
    facts: &HostFacts,
    rootfs: Rootfs,
    lower: &[PathBuf],
    changes: Option<&Path>,
) -> Result<Plan> {
    let spec = spec::parse(config.to_string().as_bytes())?;
    spec::validate(&spec)?;
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let location: Location = facts.cgroups.locate(path, "box", facts.is_rootless())?;
    compile_container(&ContainerInput {
        spec: &spec,
        id: "box",
        bundle: Path::new("/bundle"),
        state_dir: Path::new("/run/locule/box"),
        rootfs,
        lower,
        changes,
        facts,
        location: &location,
        resctrl: resctrl(&spec).as_ref(),
        descriptors: Descriptors { stdio: [true; 3], pass: 1, raw_output: false },
        seccomp: &program,
        takes_listener: false,
        keep_groups: container::denies_setgroups(&spec, facts),
    })
}

fn check(name: &str, plan: &Plan) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/compile/snapshots")
        .join(format!("{name}.txt"));
    let text = plan.to_text();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} differs; see the head of this file", path.display());
}

fn full() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": false,
            "user": { "uid": 1000, "gid": 1000, "umask": 23, "additionalGids": [5, 6] },
            "args": ["server", "--port", "80"],
            "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
            "cwd": "/srv",
            "capabilities": {
                "bounding": ["CAP_NET_BIND_SERVICE", "CAP_KILL"],
                "effective": ["CAP_NET_BIND_SERVICE"],
                "permitted": ["CAP_NET_BIND_SERVICE"],
                "ambient": ["CAP_NET_BIND_SERVICE"],
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096 }],
            "noNewPrivileges": true,
            "oomScoreAdj": 100,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "box",
        "domainname": "example",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "strictatime", "mode=755", "size=65536k", "ro"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
              "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs",
              "options": ["nosuid", "noexec", "nodev", "ro"] },
            { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
              "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] },
            { "destination": "data", "type": "none", "source": "data",
              "options": ["rbind", "rw", "rslave", "noatime"] },
        ],
        "hooks": {
            "createRuntime": [{ "path": "/bin/network", "args": ["network", "up"], "timeout": 3 }],
            "startContainer": [{ "path": "/bin/inside" }],
        },
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                { "type": "cgroup" }, { "type": "network", "path": "/run/netns/blue" },
            ],
            "devices": [
                { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438 },
            ],
            "sysctl": { "net.ipv4.ip_unprivileged_port_start": "0" },
            "resources": { "pids": { "limit": 64 } },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "listenerPath": "/run/agent.sock",
                "listenerMetadata": "team blue",
                "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_NOTIFY" }],
            },
            "intelRdt": { "closID": "shared", "enableMonitoring": true },
            "rootfsPropagation": "slave",
            "memoryPolicy": { "mode": "MPOL_BIND", "nodes": "0-1,33",
                              "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"] },
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "netDevices": { "ens5": { "name": "eth0" }, "ens4": {}, "ens6": { "name": "data%d" } },
        },
        "annotations": { "org.example.team": "blue" },
    })
}

fn rootless() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/bin/sh"], "cwd": "/" },
        "root": { "path": "/" },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"] },
        ],
        "linux": {
            "namespaces": [{ "type": "pid" }, { "type": "mount" }, { "type": "user" }],
            "uidMappings": [{ "containerID": 0, "hostID": 1000, "size": 1 }],
            "gidMappings": [{ "containerID": 0, "hostID": 100, "size": 1 }],
        },
    })
}

#[test]
fn plans_of_a_container_with_everything() {
    check("everything", &compile_with(&full(), &root_facts(), Rootfs::Direct).unwrap());
}

#[test]
fn plans_of_an_ordinary_user_on_the_host_root() {
    check("rootless", &compile_with(&rootless(), &user_facts(), Rootfs::Overlay).unwrap());
}

#[test]
fn the_host_root_is_overlaid_by_entry_in_every_user_namespace_whoever_makes_it() {
    let facts = HostFacts { root_entries: user_facts().root_entries, ..root_facts() };
    let text = compile_with(&rootless(), &facts, Rootfs::Overlay).unwrap().to_text();
    assert!(text.contains("OverlayRootByEntry"), "{text}");
}

#[test]
fn plans_of_another_process_in_the_container() {
    let spec = spec::parse(full().to_string().as_bytes()).unwrap();
    let process = br#"{ "args": ["ls"], "user": { "uid": 0, "gid": 0 }, "terminal": true }"#;
    let process = spec::parse_process_over(process, spec.process().as_ref().unwrap()).unwrap();
    let facts = root_facts();
    let location = facts.cgroups.locate(None, "box", false).unwrap();
    let plan = compile_exec(&ExecInput {
        container: About { id: "box", bundle: Path::new("/bundle"), spec: &spec },
        init: 4711,
        process: &process,
        facts: &facts,
        location: &location,
        resctrl: resctrl(&spec).as_ref(),
        descriptors: Descriptors::default(),
        keep_groups: false,
        gate: false,
        seccomp: &program,
        takes_listener: true,
    });
    check("exec", &plan.unwrap());
}

#[test]
fn a_namespace_is_joined_before_a_new_user_namespace_takes_the_power_to() {
    let mut config = rootless();
    config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .push(json!({ "type": "network", "path": "/run/netns/blue" }));
    let text = compile_with(&config, &root_facts(), Rootfs::Direct).unwrap().to_text();
    let launch = text.split("parent:").next().unwrap();
    assert!(launch.contains("JoinNamespace"), "{text}");
}

#[test]
fn layers_and_the_directory_for_changes_go_with_the_overlay() {
    let lower = ["/layers/2,3".into(), "/layers/1".into()];
    let changes = Some(Path::new("/changes"));
    let compile = |config: &Value, facts: &HostFacts| {
        compile_on(config, facts, Rootfs::Overlay, &lower, changes)
    };
    let text = compile(&full(), &root_facts()).unwrap().to_text();
    let expected = "  OverlayRoot lower=\"/bundle/rootfs\" below=[\"/layers/2,3\", \"/layers/1\"] \
                    changes=\"/changes\" scratch=\"/run/locule/box\"  (/root/path)\n";
    assert!(text.contains(expected), "{text}");
    // Of the host's own root an ordinary user has many overlays.
    let mut config = rootless();
    config["root"]["path"] = json!("/");
    let error = compile(&config, &user_facts()).unwrap_err();
    assert_eq!((error.category(), error.pointer()), (Category::Unsupported, Some("/root/path")));
}

#[test]
fn the_containers_root_is_known_on_the_host() {
    let spec = |config: &Value| spec::parse(config.to_string().as_bytes()).unwrap();
    assert_eq!(root_ids(&spec(&full())), None);
    let mut config = rootless();
    assert_eq!(root_ids(&spec(&config)), Some([1000, 100]));
    config["linux"]["gidMappings"][0]["containerID"] = json!(1);
    assert_eq!(root_ids(&spec(&config)), None);
}

#[test]
fn plans_are_the_same_every_time() {
    let plan = || compile_with(&full(), &root_facts(), Rootfs::Direct).unwrap().bytes;
    assert_eq!(plan(), plan());
}

#[test]
fn maps_that_need_a_helper_are_refused_where_there_is_none() {
    let mut config = rootless();
    config["linux"]["uidMappings"][0]["size"] = json!(65536);
    let error = compile_with(&config, &user_facts(), Rootfs::Direct).unwrap_err();
    assert_eq!(error.pointer(), Some("/linux/uidMappings"));
    assert_eq!(error.category(), Category::Unsupported);
}

#[test]
fn network_devices_take_power_over_the_network_of_the_host() {
    for (privileged, network_admin) in [(false, false), (true, false), (false, true)] {
        let facts = HostFacts { privileged, network_admin, ..root_facts() };
        let mut config = rootless();
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({ "type": "network" }));
        config["linux"]["netDevices"] = json!({ "eth0": {} });
        if privileged {
            compile_with(&config, &root_facts(), Rootfs::Direct).unwrap();
        } else {
            config["linux"]["uidMappings"][0]["hostID"] = json!(0);
            config["linux"]["gidMappings"][0]["hostID"] = json!(0);
        }
        let error = compile_with(&config, &facts, Rootfs::Direct).unwrap_err();
        assert_eq!(error.category(), Category::Permission);
        assert_eq!(error.pointer(), Some("/linux/netDevices"));
        assert!(error.advice().unwrap().contains("CAP_NET_ADMIN"));
    }
}

#[test]
fn more_network_devices_than_the_keeper_moves_are_refused() {
    let mut config = full();
    config["linux"]["netDevices"] = (0..65).map(|n| (format!("ens{n}"), json!({}))).collect();
    let error = compile_with(&config, &root_facts(), Rootfs::Direct).unwrap_err();
    assert_eq!(error.category(), Category::Unsupported);
    assert_eq!(error.pointer(), Some("/linux/netDevices"));
}

#[test]
fn new_filesystems_have_the_mount_label() {
    let mut config = full();
    config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0:c1,c2");
    let error = compile_with(&config, &root_facts(), Rootfs::Direct).unwrap_err();
    assert_eq!(error.category(), Category::Unsupported);
    assert_eq!(error.pointer(), Some("/linux/mountLabel"));
    let facts = HostFacts { selinux: true, ..root_facts() };
    let text = compile_with(&config, &facts, Rootfs::Direct).unwrap().to_text();
    let labelled: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("context=system_u:object_r:container_file_t:s0:c1,c2"))
        .map(|line| line.split(' ').nth(3).unwrap())
        .collect();
    assert_eq!(labelled, ["fstype=\"tmpfs\"", "fstype=\"devpts\""], "{text}");
}

#[test]
fn a_filesystem_option_on_a_bind_mount_is_refused() {
    let mut config = full();
    config["mounts"][5]["options"] = json!(["bind", "size=5m"]);
    let error = compile_with(&config, &root_facts(), Rootfs::Direct).unwrap_err();
    assert_eq!(error.pointer(), Some("/mounts/5/options/1"));
}

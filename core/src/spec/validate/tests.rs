use super::*;
use crate::spec::{parse, parse_process, parse_resources};

const NAMESPACES: &str =
    r#"[{"type":"mount"},{"type":"uts"},{"type":"ipc"},{"type":"network"},{"type":"pid"}]"#;

#[track_caller]
fn pointer_of_refusal(json: &str) -> String {
    let spec = parse(json.as_bytes()).expect("the types must be right");
    let error = validate(&spec).expect_err(json);
    assert_eq!((error.category(), error.stage()), (Category::Spec, Stage::Validate));
    error.pointer().expect("a rule names its field").to_owned()
}

/// A spec with these members, and the usual namespaces.
fn spec(members: &str, linux: &str) -> String {
    let namespaces = if linux.contains("\"namespaces\"") {
        String::new()
    } else {
        format!(r#""namespaces":{NAMESPACES}"#)
    };
    let comma = if linux.is_empty() || namespaces.is_empty() { "" } else { "," };
    format!(
        r#"{{"ociVersion":"1.3.0","root":{{"path":"rootfs"}},
            "linux":{{{namespaces}{comma}{linux}}}{members}}}"#
    )
}

#[track_caller]
fn passes(json: &str) {
    let spec = parse(json.as_bytes()).expect("the types must be right");
    validate(&spec).unwrap_or_else(|error| panic!("{json}: {error}"));
}

#[track_caller]
fn process_refusal(members: &str) -> String {
    let json = format!(r#"{{"args":["true"],"cwd":"/",{members}}}"#);
    let process = parse_process(json.as_bytes()).expect("the types must be right");
    validate_process(&process).expect_err(members).pointer().unwrap().to_owned()
}

#[test]
fn a_root_is_required_and_a_process_is_not() {
    assert_eq!(pointer_of_refusal(r#"{"ociVersion":"1.0.0"}"#), "/root");
    assert_eq!(pointer_of_refusal(r#"{"ociVersion":"1.0.0","root":{}}"#), "/root/path");
    passes(r#"{"ociVersion":"1.0.0","root":{"path":"r"}}"#);
}

#[test]
fn a_process_has_arguments_and_an_absolute_directory() {
    for (process, pointer) in [
        (r#"{"cwd":"/"}"#, "/process/args"),
        (r#"{"cwd":"/","args":[]}"#, "/process/args"),
        (r#"{"cwd":"/","args":[""]}"#, "/process/args/0"),
        (r#"{"cwd":"tmp","args":["a"]}"#, "/process/cwd"),
        (r#"{"cwd":"","args":["a"]}"#, "/process/cwd"),
    ] {
        let json = spec(&format!(r#","process":{process}"#), "");
        assert_eq!(pointer_of_refusal(&json), pointer, "{process}");
    }
}

#[test]
fn wrong_settings_of_a_process_are_refused() {
    for (members, pointer) in [
        (r#""env":["A=1","B"]"#, "/env/1"),
        (r#""env":["=1"]"#, "/env/0"),
        (r#""user":{"uid":4294967295}"#, "/user/uid"),
        (r#""user":{"additionalGids":[4294967295]}"#, "/user/additionalGids/0"),
        (r#""user":{"umask":1024}"#, "/user/umask"),
        (r#""terminal":true,"consoleSize":{"height":65536,"width":1}"#, "/consoleSize/height"),
        (r#""rlimits":[{"type":"RLIMIT_CPU","soft":2,"hard":1}]"#, "/rlimits/0/soft"),
        (
            r#""rlimits":[{"type":"RLIMIT_CPU","soft":1,"hard":1},{"type":"RLIMIT_CPU","soft":1,"hard":1}]"#,
            "/rlimits/1/type",
        ),
        (r#""oomScoreAdj":1001"#, "/oomScoreAdj"),
        (r#""ioPriority":{"class":"IOPRIO_CLASS_RT","priority":8}"#, "/ioPriority/priority"),
        (r#""execCPUAffinity":{"final":"3-1"}"#, "/execCPUAffinity/final"),
        (r#""scheduler":{"policy":"SCHED_ISO"}"#, "/scheduler/policy"),
        (r#""scheduler":{"policy":"SCHED_OTHER","nice":20}"#, "/scheduler/nice"),
        (r#""scheduler":{"policy":"SCHED_OTHER","priority":1}"#, "/scheduler/priority"),
        (r#""scheduler":{"policy":"SCHED_FIFO"}"#, "/scheduler/priority"),
        (r#""scheduler":{"policy":"SCHED_BATCH","runtime":1}"#, "/scheduler/runtime"),
        (r#""scheduler":{"policy":"SCHED_DEADLINE","runtime":2,"deadline":1}"#, "/scheduler"),
    ] {
        assert_eq!(process_refusal(members), pointer, "{members}");
    }
}

#[test]
fn a_user_has_to_exist_in_a_new_user_namespace() {
    let with = |user: &str, namespaces: &str| {
        spec(
            &format!(r#","process":{{"args":["a"],"cwd":"/","user":{{{user}}}}}"#),
            &format!(
                r#""namespaces":[{namespaces}],"uidMappings":[{{"containerID":5,"hostID":0,"size":2}}],
                   "gidMappings":[{{"containerID":4294967290,"hostID":0,"size":5}}]"#
            ),
        )
    };
    let new = r#"{"type":"user"}"#;
    passes(&with(r#""uid":6,"gid":4294967294"#, new));
    for (user, pointer) in [
        (r#""uid":7,"gid":4294967290"#, "/process/user/uid"),
        (r#""uid":5,"gid":0"#, "/process/user/gid"),
        (
            r#""uid":5,"gid":4294967290,"additionalGids":[4294967290,1]"#,
            "/process/user/additionalGids/1",
        ),
    ] {
        assert_eq!(pointer_of_refusal(&with(user, new)), pointer, "{user}");
    }
    // What a namespace that is joined maps, nobody knows here.
    passes(&with(r#""uid":0,"gid":0"#, r#"{"type":"user","path":"/proc/1/ns/user"}"#));
}

#[test]
fn the_size_of_a_terminal_is_ignored_where_there_is_none() {
    let json = br#"{"args":["a"],"cwd":"/","consoleSize":{"height":70000,"width":1}}"#;
    validate_process(&parse_process(json).unwrap()).unwrap();
}

#[test]
fn host_names_need_a_uts_namespace() {
    let without = r#""namespaces":[{"type":"mount"}]"#;
    assert_eq!(pointer_of_refusal(&spec(r#","hostname":"a""#, without)), "/hostname");
    assert_eq!(pointer_of_refusal(&spec(r#","domainname":"a""#, without)), "/domainname");
    passes(&spec(r#","hostname":"a","domainname":"b""#, ""));
    let joined = r#""namespaces":[{"type":"uts","path":"/proc/1/ns/uts"}]"#;
    passes(&spec(r#","hostname":"a""#, joined));
    let long = format!(r#","hostname":"{}""#, "a".repeat(65));
    assert_eq!(pointer_of_refusal(&spec(&long, "")), "/hostname");
}

#[test]
fn wrong_hooks_are_refused() {
    for (hooks, pointer) in [
        (r#"{"prestart":[{"path":"a"}]}"#, "/hooks/prestart/0/path"),
        (r#"{"poststop":[{"path":"/a"},{"path":"/a","timeout":0}]}"#, "/hooks/poststop/1/timeout"),
        (r#"{"startContainer":[{"path":"/a","env":["A"]}]}"#, "/hooks/startContainer/0/env/0"),
    ] {
        let json = spec(&format!(r#","hooks":{hooks}"#), "");
        assert_eq!(pointer_of_refusal(&json), pointer);
    }
}

#[test]
fn an_annotation_needs_a_key() {
    assert_eq!(pointer_of_refusal(&spec(r#","annotations":{"":"x"}"#, "")), "/annotations/");
}

#[test]
fn wrong_mounts_are_refused() {
    for (mount, pointer) in [
        (r#"{"destination":"","type":"tmpfs"}"#, "/mounts/0/destination"),
        (r#"{"destination":"/a"}"#, "/mounts/0/type"),
        (r#"{"destination":"/a","options":["bind"]}"#, "/mounts/0/source"),
        (
            r#"{"destination":"/a","source":"/b","options":["rbind","size=1"]}"#,
            "/mounts/0/options/1",
        ),
        (
            r#"{"destination":"/a","source":"/b","options":["bind"],
                "uidMappings":[{"containerID":0,"hostID":1,"size":1}]}"#,
            "/mounts/0/gidMappings",
        ),
        (r#"{"destination":"/a","source":"/b","options":["bind","idmap"]}"#, "/mounts/0/options"),
    ] {
        let json = spec(&format!(r#","mounts":[{mount}]"#), "");
        assert_eq!(pointer_of_refusal(&json), pointer, "{mount}");
    }
    // The type does not make a bind mount; a relative destination counts from the root.
    passes(&spec(
        r#","mounts":[{"destination":"a","type":"bind","source":"/b","options":["rbind"]}]"#,
        "",
    ));
}

#[test]
fn wrong_linux_settings_are_refused() {
    for (linux, pointer) in [
        (r#""namespaces":[{"type":"pid"},{"type":"pid","path":"/p"}]"#, "/linux/namespaces/1/type"),
        (r#""namespaces":[{"type":"pid","path":"proc/1/ns/pid"}]"#, "/linux/namespaces/0/path"),
        (r#""uidMappings":[{"containerID":0,"hostID":1,"size":1}]"#, "/linux/uidMappings"),
        (r#""namespaces":[{"type":"user"}]"#, "/linux/uidMappings"),
        (
            r#""namespaces":[{"type":"user"}],"uidMappings":[{"containerID":0,"hostID":1,"size":0}]"#,
            "/linux/uidMappings/0/size",
        ),
        (
            r#""namespaces":[{"type":"user"}],"uidMappings":[{"containerID":0,"hostID":1,"size":9},
               {"containerID":5,"hostID":100,"size":9}]"#,
            "/linux/uidMappings/1",
        ),
        (
            r#""namespaces":[{"type":"user"}],
               "uidMappings":[{"containerID":4294967295,"hostID":1,"size":2}]"#,
            "/linux/uidMappings/0",
        ),
        (r#""timeOffsets":{"monotonic":{"secs":1}}"#, "/linux/timeOffsets"),
        (
            r#""namespaces":[{"type":"time"}],"timeOffsets":{"realtime":{"secs":1}}"#,
            "/linux/timeOffsets/realtime",
        ),
        (
            r#""namespaces":[{"type":"time"}],"timeOffsets":{"boottime":{"nanosecs":1000000000}}"#,
            "/linux/timeOffsets/boottime/nanosecs",
        ),
        (r#""namespaces":[{"type":"pid"}],"maskedPaths":["/a"]"#, "/linux/maskedPaths/0"),
        (r#""maskedPaths":["/a","b"]"#, "/linux/maskedPaths/1"),
        (r#""readonlyPaths":["b"]"#, "/linux/readonlyPaths/0"),
        (r#""devices":[{"path":"dev/x","type":"c","major":1,"minor":3}]"#, "/linux/devices/0/path"),
        (r#""devices":[{"path":"/dev/x","type":"a"}]"#, "/linux/devices/0/type"),
        (r#""devices":[{"path":"/dev/x","type":"b","major":4096}]"#, "/linux/devices/0/major"),
        (r#""devices":[{"path":"/dev/x","type":"b","minor":-1}]"#, "/linux/devices/0/minor"),
        (r#""rootfsPropagation":"none""#, "/linux/rootfsPropagation"),
        (r#""personality":{"domain":"LINUX","flags":["X"]}"#, "/linux/personality/flags/0"),
        (r#""memoryPolicy":{"mode":"MPOL_LOCAL","nodes":"0"}"#, "/linux/memoryPolicy/nodes"),
        (r#""memoryPolicy":{"mode":"MPOL_BIND"}"#, "/linux/memoryPolicy/nodes"),
        (r#""memoryPolicy":{"mode":"MPOL_BIND","nodes":"1024"}"#, "/linux/memoryPolicy/nodes"),
        (
            r#""memoryPolicy":{"mode":"MPOL_LOCAL","flags":["MPOL_F_NUMA_BALANCING"]}"#,
            "/linux/memoryPolicy/flags",
        ),
        (
            r#""memoryPolicy":{"mode":"MPOL_BIND","nodes":"0",
               "flags":["MPOL_F_STATIC_NODES","MPOL_F_RELATIVE_NODES"]}"#,
            "/linux/memoryPolicy/flags",
        ),
        (r#""intelRdt":{"closID":"a/b"}"#, "/linux/intelRdt/closID"),
        (r#""intelRdt":{"closID":"mon_groups"}"#, "/linux/intelRdt/closID"),
        (r#""intelRdt":{"memBwSchema":"0=10"}"#, "/linux/intelRdt/memBwSchema"),
        (r#""intelRdt":{"schemata":["L3:0=1","MB:0=1\nL3:0=1"]}"#, "/linux/intelRdt/schemata/1"),
        (r#""netDevices":{"a/b":{}}"#, "/linux/netDevices/a~1b"),
        (r#""netDevices":{"a:b":{}}"#, "/linux/netDevices/a:b"),
        (r#""netDevices":{"a b":{}}"#, "/linux/netDevices/a b"),
        (r#""netDevices":{"":{}}"#, "/linux/netDevices/"),
        (r#""netDevices":{"..":{}}"#, "/linux/netDevices/.."),
        (r#""netDevices":{"eth%d":{}}"#, "/linux/netDevices/eth%d"),
        (r#""netDevices":{"eth0":{"name":"a%db%d"}}"#, "/linux/netDevices/eth0/name"),
        (r#""netDevices":{"eth0":{"name":"a%s"}}"#, "/linux/netDevices/eth0/name"),
        (r#""netDevices":{"eth1":{"name":"eth0"},"eth0":{}}"#, "/linux/netDevices/eth1/name"),
        (r#""netDevices":{"eth0":{"name":"averylonginterface"}}"#, "/linux/netDevices/eth0/name"),
        (r#""namespaces":[{"type":"pid"}],"netDevices":{"eth0":{}}"#, "/linux/netDevices"),
    ] {
        assert_eq!(pointer_of_refusal(&spec("", linux)), pointer, "{linux}");
    }
}

#[test]
fn a_sysctl_must_be_of_a_namespace_of_the_container() {
    let refused = |name: &str| {
        let json = spec(r#","hostname":"a""#, &format!(r#""sysctl":{{"{name}":"1"}}"#));
        pointer_of_refusal(&json)
    };
    assert_eq!(refused("kernel.panic"), "/linux/sysctl/kernel.panic");
    assert_eq!(refused("net/../kernel/panic"), "/linux/sysctl/net~1..~1kernel~1panic");
    assert_eq!(refused("kernel.hostname"), "/linux/sysctl/kernel.hostname");
    assert_eq!(refused("user.max_net_namespaces"), "/linux/sysctl/user.max_net_namespaces");
    assert_eq!(refused("shmmax"), "/linux/sysctl/shmmax");
    let twice = r#""sysctl":{"net.core.somaxconn":"1","net/core/somaxconn":"2"}"#;
    assert_eq!(pointer_of_refusal(&spec("", twice)), "/linux/sysctl/net~1core~1somaxconn");
    for name in [
        "net.ipv4.ip_forward",
        "net/core/somaxconn",
        "kernel.shmmax",
        "fs.mqueue.msg_max",
        "kernel.domainname",
    ] {
        passes(&spec("", &format!(r#""sysctl":{{"{name}":"1"}}"#)));
    }
    let host_network = r#""namespaces":[{"type":"mount"}],"sysctl":{"net.core.somaxconn":"1"}"#;
    assert_eq!(pointer_of_refusal(&spec("", host_network)), "/linux/sysctl/net.core.somaxconn");
}

#[test]
fn wrong_resources_are_refused() {
    for (resources, pointer) in [
        (r#"{"memory":{"limit":-2}}"#, "/memory/limit"),
        (r#"{"memory":{"swap":5,"limit":-1}}"#, "/memory/swap"),
        (r#"{"memory":{"swap":5,"limit":6}}"#, "/memory/swap"),
        (r#"{"memory":{"swappiness":101}}"#, "/memory/swappiness"),
        (r#"{"cpu":{"idle":2}}"#, "/cpu/idle"),
        (r#"{"cpu":{"burst":2,"quota":1}}"#, "/cpu/burst"),
        (r#"{"cpu":{"cpus":"0-"}}"#, "/cpu/cpus"),
        (r#"{"cpu":{"mems":"1-0"}}"#, "/cpu/mems"),
        (r#"{"pids":{"limit":-2}}"#, "/pids/limit"),
        (r#"{"blockIO":{"weight":9}}"#, "/blockIO/weight"),
        (r#"{"blockIO":{"weightDevice":[{"weight":1001}]}}"#, "/blockIO/weightDevice/0"),
        (r#"{"hugepageLimits":[{"pageSize":"../2MB","limit":1}]}"#, "/hugepageLimits/0/pageSize"),
        (r#"{"hugepageLimits":[{"pageSize":"02MB","limit":1}]}"#, "/hugepageLimits/0/pageSize"),
        (r#"{"hugepageLimits":[{"pageSize":"MB","limit":1}]}"#, "/hugepageLimits/0/pageSize"),
        (
            r#"{"network":{"priorities":[{"name":"lo","priority":1},{"name":"a b","priority":1}]}}"#,
            "/network/priorities/1/name",
        ),
        (r#"{"devices":[{"allow":true,"type":"p"}]}"#, "/devices/0/type"),
        (r#"{"rdma":{"mlx5_1":{}}}"#, "/rdma/mlx5_1"),
        (r#"{"unified":{"../x":"1"}}"#, "/unified/..~1x"),
        (r#"{"devices":[{"allow":true,"access":"rx"}]}"#, "/devices/0/access"),
    ] {
        let parsed = parse_resources(resources.as_bytes()).unwrap();
        let error = validate_resources(&parsed).expect_err(resources);
        assert_eq!(error.pointer(), Some(pointer), "{resources}");
    }
    let zeros =
        br#"{"memory":{"swap":-1},"cpu":{"shares":0},"blockIO":{"weight":0},"pids":{"limit":0}}"#;
    validate_resources(&parse_resources(zeros).unwrap()).unwrap();
}

#[test]
fn swap_needs_a_limit_beside_it_unless_there_is_one_in_force() {
    let resources = r#"{"memory":{"swap":5}}"#;
    let json = spec("", &format!(r#""resources":{resources}"#));
    assert_eq!(pointer_of_refusal(&json), "/linux/resources/memory/swap");
    validate_resources(&parse_resources(resources.as_bytes()).unwrap()).unwrap();
}

#[test]
fn wrong_seccomp_profiles_are_refused() {
    for (members, pointer) in [
        (
            r#""defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1"#,
            "/linux/seccomp/defaultErrnoRet",
        ),
        (
            r#""defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000"#,
            "/linux/seccomp/defaultErrnoRet",
        ),
        (r#""defaultAction":"SCMP_ACT_NOTIFY""#, "/linux/seccomp/defaultAction"),
        (
            r#""defaultAction":"SCMP_ACT_ALLOW",
               "syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL","errnoRet":1}]"#,
            "/linux/seccomp/syscalls/0/errnoRet",
        ),
        (
            r#""defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[],"action":"SCMP_ACT_KILL"}]"#,
            "/linux/seccomp/syscalls/0/names",
        ),
        (
            r#""defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_KILL",
               "args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]"#,
            "/linux/seccomp/syscalls/0/args/0/index",
        ),
        (
            r#""defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x""#,
            "/linux/seccomp/listenerMetadata",
        ),
    ] {
        let json = spec("", &format!(r#""seccomp":{{{members}}}"#));
        assert_eq!(pointer_of_refusal(&json), pointer, "{members}");
    }
}

#[test]
fn messages_name_the_field_and_the_value() {
    let json = spec(r#","process":{"args":["a"],"cwd":"here"}"#, "");
    let error = validate(&parse(json.as_bytes()).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "cwd \"here\" is not an absolute path (at /process/cwd)");
}

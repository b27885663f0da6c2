//! Containers whose cgroups systemd makes: `LOCULE_CGROUPS=systemd`, as root and as an ordinary
//! user with a systemd of their own. All other cases can be run so, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use locule_lifecycle::{bundle, prelude::*, with_systemd};

use crate::parentage::{block_sigchld, take_sigchld};

pub const CASES: &[Case] = cases![
    a_container_is_a_scope_of_its_own_in_a_slice,
    limits_are_properties_of_the_unit_and_in_force,
    what_systemd_has_no_property_for_is_in_force_too,
    a_path_names_the_slice_and_the_scope,
    a_path_that_is_none_of_systemds_is_refused,
    a_unit_that_is_another_ones_is_refused_and_left_alone,
    an_annotation_sets_a_property_of_the_unit,
    a_wrong_annotation_is_refused_with_its_place,
    an_update_changes_unit_and_files_and_keeps_the_rest,
    an_update_that_fails_changes_neither_unit_nor_files,
    a_reload_of_systemd_takes_no_limit_away,
    one_process_is_a_limit_that_a_container_can_have,
    a_failed_creation_leaves_no_unit,
    a_container_that_has_ended_leaves_no_unit,
    a_unit_that_took_the_name_of_one_that_ended_is_left_alone,
    a_killed_host_leaves_no_unit,
    a_host_that_is_killed_while_it_creates_leaves_no_unit,
    a_killed_keeper_leaves_no_unit,
    a_container_without_a_keeper_is_a_scope_too,
    another_program_runs_in_the_scope,
    a_paused_container_is_deleted_with_its_unit,
    the_host_gets_no_thread_no_child_and_no_signal,
];

pub const HELPERS: &[Case] = cases![systemd_host];

fn is_root() -> bool {
    // SAFETY: cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn need_systemd(t: &Test) {
    if !with_systemd() {
        t.skip("systemd's cgroups (LOCULE_CGROUPS=systemd)");
    }
}

/// The usual configuration, also for an ordinary user.
fn spec(t: &Test, script: &str) -> Value {
    let mut spec = t.shell(script);
    if !is_root() {
        // SAFETY: these two cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        bundle::make_rootless(&mut spec, uid, gid);
    }
    spec["linux"].as_object_mut().unwrap().remove("cgroupsPath");
    spec
}

fn systemctl(args: &[&str]) -> String {
    let whose = if is_root() { "--system" } else { "--user" };
    let output = Command::new("systemctl").arg(whose).args(args).output().expect("systemctl");
    assert!(output.status.success(), "systemctl {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "-p", name, "--", unit])
}

fn unit_of(container: &dyn Container) -> String {
    format!("locule-{}.scope", container.id())
}

/// The cgroup that systemd says the unit has.
fn directory(unit: &str) -> PathBuf {
    let path = property(unit, "ControlGroup");
    assert!(!path.is_empty(), "{unit} has no cgroup");
    Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'))
}

fn file(unit: &str, name: &str) -> String {
    let path = directory(unit).join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}")).trim().to_owned()
}

/// Whether the unit's cgroup has the controller; says so if not.
fn lacks(unit: &str, controller: &str) -> bool {
    let has = file(unit, "cgroup.controllers").split(' ').any(|name| name == controller);
    if !has {
        println!("skipped in part: the {controller} controller for this user");
    }
    !has
}

fn a_container_is_a_scope_of_its_own_in_a_slice(t: &Test) {
    need_systemd(t);
    let container = t.start("a", &spec(t, "sleep 1000"));
    let unit = unit_of(&*container);
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert_eq!(property(&unit, "Slice"), if is_root() { "system.slice" } else { "user.slice" });
    assert_eq!(property(&unit, "Delegate"), "yes");
    assert_eq!(property(&unit, "CollectMode"), "inactive-or-failed");
    for name in ["CPUAccounting", "MemoryAccounting", "IOAccounting", "TasksAccounting"] {
        assert_eq!(property(&unit, name), "yes", "{name}");
    }
    let procs = file(&unit, "cgroup.procs");
    let mut pids: Vec<i32> = procs.lines().map(|pid| pid.parse().unwrap()).collect();
    pids.sort_unstable();
    assert_eq!(pids, container.pids().unwrap());
    assert!(pids.contains(&container.init().pid()));
    assert!(container.stats().unwrap()["pids"]["current"].as_u64().unwrap() >= 1);
    container.delete(true).expect("delete");
    assert_eq!(property(&unit, "LoadState"), "not-found");
}

fn limits_are_properties_of_the_unit_and_in_force(t: &Test) {
    need_systemd(t);
    let mut spec = spec(t, "sleep 1000");
    spec["linux"]["resources"] = json!({
        "memory": { "limit": 64 << 20, "reservation": 32 << 20, "swap": 96 << 20 },
        "cpu": { "shares": 512, "quota": 30000, "period": 200_000 },
        "pids": { "limit": 20 },
    });
    let container = t.start("a", &spec);
    let unit = unit_of(&*container);
    for (name, value) in [
        ("MemoryMax", "67108864"),
        ("MemoryLow", "33554432"),
        ("MemorySwapMax", "33554432"),
        ("CPUWeight", "59"),
        ("CPUQuotaPerSecUSec", "150ms"),
        ("CPUQuotaPeriodUSec", "200ms"),
        ("TasksMax", "20"),
    ] {
        assert_eq!(property(&unit, name), value, "{name}");
    }
    for (name, value) in [
        ("memory.max", "67108864"),
        ("memory.low", "33554432"),
        ("cpu.weight", "59"),
        ("cpu.max", "30000 200000"),
        ("pids.max", "20"),
    ] {
        assert_eq!(file(&unit, name), value, "{name}");
    }
    container.delete(true).expect("delete");
}

fn what_systemd_has_no_property_for_is_in_force_too(t: &Test) {
    need_systemd(t);
    let mut spec = spec(t, "sleep 1000");
    spec["linux"]["resources"] = json!({
        "cpu": { "quota": 50000, "period": 100_000, "burst": 20000 },
        "unified": { "memory.oom.group": "1", "memory.high": "50331648" },
    });
    let container = t.start("a", &spec);
    let unit = unit_of(&*container);
    assert_eq!(file(&unit, "cpu.max.burst"), "20000");
    assert_eq!(file(&unit, "memory.oom.group"), "1");
    assert_eq!(file(&unit, "memory.high"), "50331648");
    assert_eq!(property(&unit, "MemoryHigh"), "50331648");
    if !lacks(&unit, "cpuset") {
        container.update(&json!({ "cpu": { "cpus": "0", "mems": "0" } })).expect("update");
        assert_eq!(file(&unit, "cpuset.cpus"), "0");
        assert_eq!(property(&unit, "AllowedCPUs"), "0");
    }
    container.update(&json!({ "cpu": { "idle": 1 } })).expect("update");
    assert_eq!(file(&unit, "cpu.idle"), "1");
    container.delete(true).expect("delete");
}

fn a_path_names_the_slice_and_the_scope(t: &Test) {
    need_systemd(t);
    let mut spec = spec(t, "sleep 1000");
    spec["linux"]["cgroupsPath"] = json!(format!("lctest-deep.slice:pre:{}", t.id("n")));
    let container = t.start("a", &spec);
    let unit = format!("pre-{}.scope", t.id("n"));
    assert_eq!(property(&unit, "Slice"), "lctest-deep.slice");
    let path = directory(&unit);
    assert!(path.ends_with(format!("lctest.slice/lctest-deep.slice/{unit}")), "{path:?}");
    assert!(file(&unit, "cgroup.procs").contains(&container.init().pid().to_string()));
    container.delete(true).expect("delete");
    systemctl(&["stop", "lctest-deep.slice", "lctest.slice"]);
}

fn a_path_that_is_none_of_systemds_is_refused(t: &Test) {
    need_systemd(t);
    for path in ["/my/web", "web", "a.slice:p:", "a:p:n", "a.slice:p:n/m", "a.slice:p:b.slice"] {
        let mut spec = spec(t, "true");
        spec["linux"]["cgroupsPath"] = json!(path);
        let failure = t.refused(&t.options("a", &spec));
        failure.must_be(Category::Spec, Stage::Cgroup).at("/linux/cgroupsPath");
    }
}

/// Another one's scope, with this process's child in it.
fn foreign_scope(unit: &str) -> std::process::Child {
    let whose = if is_root() { "--system" } else { "--user" };
    let child = Command::new("systemd-run")
        .args([whose, "--scope", "--quiet", "--unit", unit, "sleep", "1000"])
        .spawn()
        .expect("systemd-run");
    eventually("the scope is there", || property(unit, "ActiveState") == "active");
    child
}

fn a_unit_that_is_another_ones_is_refused_and_left_alone(t: &Test) {
    need_systemd(t);
    let unit = format!("locule-{}.scope", t.id("a"));
    let mut other = foreign_scope(&unit);
    let failure = t.engine().create(&t.options("a", &spec(t, "true"))).err().expect("refused");
    failure.must_be(Category::Busy, Stage::Cgroup).at("/linux/cgroupsPath").says(&unit);
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert!(other.try_wait().unwrap().is_none(), "its process was killed");
    other.kill().unwrap();
    other.wait().unwrap();
    t.nothing_is_left();
}

fn an_annotation_sets_a_property_of_the_unit(t: &Test) {
    need_systemd(t);
    let mut spec = spec(t, "sleep 1000");
    spec["annotations"] = json!({
        "org.systemd.property.TimeoutStopSec": "uint64 7",
        "org.systemd.property.MemoryHigh": "uint64 50331648",
        "org.systemd.property.Documentation": "['https://example.org']",
        "org.example.other": "is not ours",
    });
    let container = t.start("a", &spec);
    let unit = unit_of(&*container);
    assert_eq!(property(&unit, "TimeoutStopUSec"), "7s");
    assert_eq!(file(&unit, "memory.high"), "50331648");
    assert_eq!(property(&unit, "Documentation"), "https://example.org");
    container.delete(true).expect("delete");
}

fn a_wrong_annotation_is_refused_with_its_place(t: &Test) {
    need_systemd(t);
    for (name, value) in [
        ("NoSuchThing", "uint64 5"),
        ("MemoryHigh", "'much'"),
        ("MemoryHigh", "much"),
        ("Slice", "'my.slice'"),
        ("PIDs", "[uint32 1]"),
        ("a", "true"),
    ] {
        let mut spec = spec(t, "true");
        let key = format!("org.systemd.property.{name}");
        spec["annotations"] = json!({ &key: value });
        let failure = t.refused(&t.options("a", &spec));
        assert_eq!(failure.category, Category::Spec, "{failure}");
        failure.at(&format!("/annotations/{key}"));
    }
}

fn an_update_changes_unit_and_files_and_keeps_the_rest(t: &Test) {
    need_systemd(t);
    let mut spec = spec(t, "sleep 1000");
    spec["linux"]["resources"] = json!({
        "memory": { "limit": 64 << 20, "swap": 96 << 20 },
        "cpu": { "quota": 20000, "period": 100_000 }, "pids": { "limit": 20 },
    });
    let container = t.start("a", &spec);
    let unit = unit_of(&*container);
    container.update(&json!({ "cpu": { "period": 50000 } })).expect("update the period");
    assert_eq!(file(&unit, "cpu.max"), "20000 50000");
    assert_eq!(property(&unit, "CPUQuotaPerSecUSec"), "400ms");
    assert_eq!(property(&unit, "CPUQuotaPeriodUSec"), "50ms");
    container.update(&json!({ "cpu": { "quota": 10000 } })).expect("update the quota");
    assert_eq!(file(&unit, "cpu.max"), "10000 50000");
    container
        .update(&json!({ "memory": { "limit": 32 << 20, "swap": 40 << 20 } }))
        .expect("memory");
    assert_eq!(property(&unit, "MemoryMax"), "33554432");
    assert_eq!(property(&unit, "MemorySwapMax"), "8388608");
    container.update(&json!({ "pids": { "limit": 0 } })).expect("update pids");
    assert_eq!(property(&unit, "TasksMax"), "1");
    assert_eq!(file(&unit, "pids.max"), "1");
    container.update(&json!({ "pids": { "limit": -1 } })).expect("update pids");
    assert_eq!(property(&unit, "TasksMax"), "infinity");
    assert_eq!(file(&unit, "memory.max"), "33554432");
    container.delete(true).expect("delete");
}

fn an_update_that_fails_changes_neither_unit_nor_files(t: &Test) {
    need_systemd(t);
    let mut spec = spec(t, "sleep 1000");
    spec["linux"]["resources"] = json!({ "pids": { "limit": 20 } });
    let container = t.start("a", &spec);
    let unit = unit_of(&*container);
    let wrong = json!({ "pids": { "limit": 30 }, "unified": { "memory.high": "much" } });
    refused(container.update(&wrong)).at("/unified/memory.high");
    assert_eq!(property(&unit, "TasksMax"), "20");
    assert_eq!(file(&unit, "pids.max"), "20");
    container.delete(true).expect("delete");
}

fn a_reload_of_systemd_takes_no_limit_away(t: &Test) {
    need_systemd(t);
    let mut spec = spec(t, "sleep 1000");
    spec["linux"]["resources"] = json!({
        "memory": { "limit": 64 << 20 }, "pids": { "limit": 20 },
        "cpu": { "quota": 30000, "period": 100_000, "shares": 512 },
        "devices": [{ "allow": false, "access": "rwm" }],
    });
    let container = t.start("a", &spec);
    let unit = unit_of(&*container);
    let all = || ["memory.max", "pids.max", "cpu.max", "cpu.weight"].map(|name| file(&unit, name));
    let before = all();
    systemctl(&["daemon-reload"]);
    // It writes what it knows when it has time for it.
    systemctl(&["set-property", "--runtime", &unit, "MemoryHigh=50331648"]);
    eventually("systemd has written", || file(&unit, "memory.high") == "50331648");
    assert_eq!(all(), before);
    if is_root() {
        let script = "mknod /tmp/kmsg c 1 11 && ! cat /tmp/kmsg >/dev/null && cat /dev/null";
        exec_shell(&*container, script);
    }
    container.delete(true).expect("delete");
}

fn one_process_is_a_limit_that_a_container_can_have(t: &Test) {
    need_systemd(t);
    for limit in [0, 1] {
        let mut spec = spec(t, "");
        spec["process"]["args"] = json!(["/bin/sleep", "1000"]);
        spec["linux"]["resources"] = json!({ "pids": { "limit": limit } });
        let container = t.start("a", &spec);
        let unit = unit_of(&*container);
        assert_eq!(property(&unit, "TasksMax"), "1");
        assert_eq!(file(&unit, "pids.max"), "1");
        container.delete(true).expect("delete");
    }
}

fn a_failed_creation_leaves_no_unit(t: &Test) {
    need_systemd(t);
    let mut wrong_root = spec(t, "true");
    wrong_root["root"]["path"] = json!("/nowhere");
    t.refused(&t.options("a", &wrong_root));
    let mut wrong_limit = spec(t, "true");
    wrong_limit["linux"]["resources"] = json!({ "unified": { "memory.high": "much" } });
    t.refused(&t.options("a", &wrong_limit)).at("/linux/resources/unified/memory.high");
    let mut no_hook = spec(t, "true");
    no_hook["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    t.refused(&t.options("a", &no_hook));
}

fn gone(unit: &str) {
    eventually("the unit is gone", || property(unit, "LoadState") == "not-found");
}

fn a_container_that_has_ended_leaves_no_unit(t: &Test) {
    need_systemd(t);
    let container = t.start("a", &spec(t, "exit 3"));
    assert_eq!(ended(&*container.init()), Exit::Code(3));
    gone(&unit_of(&*container));
    assert_eq!(container.status(), "stopped");
    container.delete(false).expect("delete");
}

fn a_unit_that_took_the_name_of_one_that_ended_is_left_alone(t: &Test) {
    need_systemd(t);
    let container = t.start("a", &spec(t, "exit 0"));
    ended(&*container.init());
    let unit = unit_of(&*container);
    gone(&unit);
    let mut other = foreign_scope(&unit);
    container.delete(true).expect("delete");
    assert_eq!(property(&unit, "ActiveState"), "active");
    assert!(other.try_wait().unwrap().is_none(), "its process was killed");
    other.kill().unwrap();
    other.wait().unwrap();
}

/// Creates container `a`, prints its pid, and waits.
fn systemd_host(t: &Test) {
    let mut spec = spec(t, "sleep 1000 & sleep 1000");
    if t.args.iter().any(|arg| arg == "hang") {
        let hook = json!({ "path": "/bin/sleep", "args": ["sleep", "1000"] });
        spec["hooks"] = json!({ "createRuntime": [hook] });
    }
    let container = t.create("a", &spec);
    if t.args.iter().any(|arg| arg == "start") {
        started(&*container);
    }
    tell(container.init().pid());
    listen();
}

fn a_killed_host_leaves_no_unit(t: &Test) {
    need_systemd(t);
    for how in ["create", "start"] {
        let mut host = t.helper("systemd_host", &[how]);
        let pid: i32 = host.line().parse().expect("a pid");
        let unit = format!("locule-{}.scope", t.id("a"));
        assert_eq!(property(&unit, "ActiveState"), "active");
        host.kill();
        eventually("the container is dead", || dead(pid));
        gone(&unit);
        t.nothing_is_left();
    }
}

fn a_host_that_is_killed_while_it_creates_leaves_no_unit(t: &Test) {
    need_systemd(t);
    let mut host = t.helper("systemd_host", &["hang"]);
    let unit = format!("locule-{}.scope", t.id("a"));
    // Two processes are in it then: what it began with, and the container's own.
    eventually("the creation has come to its hook", || {
        property(&unit, "ActiveState") == "active" && file(&unit, "pids.current") == "2"
    });
    host.kill();
    gone(&unit);
    t.nothing_is_left();
}

fn a_killed_keeper_leaves_no_unit(t: &Test) {
    need_systemd(t);
    let container = t.start("a", &spec(t, "sleep 1000"));
    let keeper = parent_of(container.init().pid());
    // SAFETY: plain integers.
    unsafe { libc::kill(keeper, libc::SIGKILL) };
    gone(&unit_of(&*container));
    container.delete(true).expect("delete");
}

fn a_container_without_a_keeper_is_a_scope_too(t: &Test) {
    need_systemd(t);
    for parentage in [Parentage::Orphan, Parentage::Child] {
        let mut options = t.options("a", &spec(t, "sleep 1000"));
        options.parentage = parentage;
        let container = t.create_with(&options);
        started(&*container);
        let unit = unit_of(&*container);
        assert!(file(&unit, "cgroup.procs").contains(&container.init().pid().to_string()));
        let out = exec_shell(&*container, "echo inside");
        assert_eq!(out, "inside");
        container.delete(true).expect("delete");
        gone(&unit);
    }
}

fn another_program_runs_in_the_scope(t: &Test) {
    need_systemd(t);
    let container = t.start("a", &spec(t, "sleep 1000"));
    let process = container.exec(&Exec::of(&["/bin/sleep", "1000"])).expect("exec");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", process.pid())).unwrap();
    assert!(cgroup.trim().ends_with(&unit_of(&*container)), "{cgroup}");
    container.delete(true).expect("delete");
}

fn a_paused_container_is_deleted_with_its_unit(t: &Test) {
    need_systemd(t);
    let container = t.start("a", &spec(t, "sleep 1000"));
    container.pause().expect("pause");
    assert_eq!(container.status(), "paused");
    container.delete(true).expect("delete");
    assert_eq!(property(&unit_of(&*container), "LoadState"), "not-found");
}

/// Asks nobody but the library: `systemctl` would be a child, too.
fn the_host_gets_no_thread_no_child_and_no_signal(t: &Test) {
    need_systemd(t);
    let threads = || fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    block_sigchld();
    let container = t.start("a", &spec(t, "sleep 1000"));
    container.update(&json!({ "pids": { "limit": 30 } })).expect("update");
    assert_eq!(leftovers::children(std::process::id() as i32), [0i32; 0]);
    container.delete(true).expect("delete");
    assert_eq!(threads(), before);
    assert_eq!(take_sigchld(Duration::ZERO), None);
    // SAFETY: nothing is stored.
    assert_eq!(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) }, -1);
}

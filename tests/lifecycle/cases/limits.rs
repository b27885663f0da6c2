//! Limits that hold: for root, and for an ordinary user with delegated cgroups.

use locule_lifecycle::bundle;
use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    who_takes_more_memory_than_the_limit_is_killed,
    a_memory_limit_that_is_too_small_to_start_with_is_named,
    no_more_processes_than_the_limit_come_to_be,
    a_processor_quota_slows_the_container_down,
    the_container_sees_its_limits,
];

/// A configuration with these limits, which an ordinary user can use as well. Ends the case where
/// there is no such controller, or none for this user.
fn limited(t: &Test, controller: &str, resources: Value, script: &str) -> Value {
    t.need_controller(controller);
    let mut spec = t.shell(script);
    spec["linux"]["resources"] = resources;
    // SAFETY: these cannot fail.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    if uid != 0 {
        bundle::make_rootless(&mut spec, uid, gid);
        match t.engine().create(&t.options("probe", &spec)) {
            Err(failure) if failure.category == Category::Permission => {
                t.skip(&format!("the cgroup controller {controller} for user {uid} ({failure})"))
            }
            Ok(container) => container.delete(true).expect("delete"),
            Err(_) => {}
        }
    }
    spec
}

fn who_takes_more_memory_than_the_limit_is_killed(t: &Test) {
    let limit = json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20 } });
    let greedy = "dd if=/dev/zero of=/dev/null bs=200M count=1; echo $?; sleep 1000";
    let spec = limited(t, "memory", limit, greedy);
    let create =
        Create { stdio: [Stream::Null, Stream::Pipe, Stream::Null], ..t.options("a", &spec) };
    let container = t.create_with(&create);
    started(&*container);
    assert_eq!(Lines::of(container.init().take_pipe(1)).next(), "137");
    assert_eq!(container.stats().expect("stats")["memory"]["oomKills"], 1);
    container.delete(true).expect("delete");
}

fn a_memory_limit_that_is_too_small_to_start_with_is_named(t: &Test) {
    // One page. What several are enough for differs between kernels.
    let limits = json!({ "memory": { "limit": 4096, "swap": 4096 } });
    let spec = limited(t, "memory", limits, "true");
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Resource, Stage::Spawn).at("/linux/resources/memory/limit");
    failure.says("too small");
}

fn no_more_processes_than_the_limit_come_to_be(t: &Test) {
    let script = "sleep 1000 & sleep 1000 & sleep 1000 & sleep 1000 & sleep 1000";
    let spec = limited(t, "pids", json!({ "pids": { "limit": 4 } }), script);
    let options =
        Create { stdio: [Stream::Null, Stream::Null, Stream::Pipe], ..t.options("a", &spec) };
    let container = t.create_with(&options);
    started(&*container);
    assert!(Lines::of(container.init().take_pipe(2)).next().contains("can't fork"));
    ended(&*container.init());
    container.delete(false).expect("delete");
    // Changed while it runs.
    let spec = limited(t, "pids", json!({ "pids": { "limit": 1 } }), "exec sleep 1000");
    let container = t.start("b", &spec);
    // Version 1 lets one process more in, but it cannot fork.
    let forks = || {
        let done = container.exec(&Exec::of(&["/bin/sh", "-c", "sleep 0; true"]));
        done.is_ok_and(|process| ended(&*process) == Exit::Code(0))
    };
    assert!(!forks());
    container.update(&json!({ "pids": { "limit": 5 } })).expect("update");
    assert!(forks());
    assert_eq!(container.stats().expect("stats")["pids"]["limit"], 5);
    container.delete(true).expect("delete");
}

fn a_processor_quota_slows_the_container_down(t: &Test) {
    let limit = json!({ "cpu": { "quota": 2000, "period": 20000 } });
    let container = t.start("a", &limited(t, "cpu", limit, "while :; do :; done"));
    eventually("it is held back", || {
        let stats = container.stats().expect("stats");
        stats["cpu"]["throttling"]["throttledPeriods"].as_u64().is_some_and(|periods| periods > 3)
    });
    container.delete(true).expect("delete");
}

/// With cgroup v2, through a `cgroup` mount of its own.
fn the_container_sees_its_limits(t: &Test) {
    let limits = json!({
        "memory": { "limit": 64 << 20 }, "pids": { "limit": 30 },
        "cpu": { "quota": 50000, "period": 100_000 }
    });
    let mut spec =
        limited(t, "memory", limits, "cd /sys/fs/cgroup && cat memory.max pids.max cpu.max");
    if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        t.skip("cgroup v2 with the controllers memory, pids and cpu");
    }
    let mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                        "options": ["ro", "nosuid", "noexec", "nodev"] });
    spec["mounts"].as_array_mut().unwrap().push(mount);
    assert_eq!(t.run(&spec).success(), "67108864\n30\n50000 100000");
}

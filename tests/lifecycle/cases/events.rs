//! What a container can be watched for besides the ends of its processes.

use std::time::Instant;

use locule::cgroup::{Resource, Trigger, Watch};
use locule_lifecycle::engine::Happened;
use locule_lifecycle::prelude::*;
use locule_lifecycle::with_systemd;

pub const CASES: &[Case] = cases![
    a_container_that_runs_out_of_memory_is_reported,
    what_is_watched_for_twice_is_told_once,
    an_end_is_told_beside_what_is_watched_for,
    nothing_is_told_of_a_container_that_is_not_watched,
    a_container_that_cannot_be_watched_is_an_error,
    a_trigger_that_makes_no_sense_is_refused,
    pressure_is_reported_where_the_kernel_counts_it,
];

/// Takes more memory than the container may have, and lives on when the kernel has killed the
/// one that took it.
const HUNGRY: &str = "tail -c 100000000 /dev/zero >/dev/null; sleep 1000";

fn limited(t: &Test, script: &str) -> Value {
    let mut spec = t.shell(script);
    spec["linux"]["resources"] = json!({ "memory": { "limit": 8 << 20, "swap": 8 << 20 } });
    spec
}

/// Dispatches until `found` has something, or for as long as something may take.
fn dispatch_until(t: &Test, found: impl Fn(&[Happened]) -> bool) -> Vec<Happened> {
    let until = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    while !found(&all) {
        assert!(Instant::now() < until, "only {all:?}");
        all.extend(t.engine().dispatch_all(Duration::from_secs(1)).expect("dispatch"));
    }
    all
}

fn a_container_that_runs_out_of_memory_is_reported(t: &Test) {
    t.need_root();
    t.need_controller("memory");
    let container = t.create("a", &limited(t, HUNGRY));
    container.watch(Watch::OutOfMemory).expect("watch");
    assert_eq!(t.engine().dispatch_all(Duration::ZERO).expect("dispatch"), []);
    started(&*container);
    let all = dispatch_until(t, |all| !all.is_empty());
    assert_eq!(all[0], Happened::OutOfMemory(container.id()));
    eventually("the kill is counted", || {
        container.stats().expect("stats")["memory"]["oomKills"].as_u64() >= Some(1)
    });
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
    // The end of the cgroup is none of its memory.
    let rest = t.engine().dispatch_all(Duration::from_millis(100)).expect("dispatch");
    assert!(!rest.iter().any(|h| *h == Happened::OutOfMemory(container.id())), "{rest:?}");
}

fn what_is_watched_for_twice_is_told_once(t: &Test) {
    t.need_root();
    t.need_controller("memory");
    let container = t.create("a", &limited(t, HUNGRY));
    container.watch(Watch::OutOfMemory).expect("watch");
    container.watch(Watch::OutOfMemory).expect("watch again");
    started(&*container);
    let all = dispatch_until(t, |all| !all.is_empty());
    assert_eq!(all, [Happened::OutOfMemory(container.id())]);
    eventually("the kill is counted", || {
        container.stats().expect("stats")["memory"]["oomKills"].as_u64() >= Some(1)
    });
    if is_pure_v2() {
        // Version 1 may tell again before the memory of the one it kills is free.
        let rest = t.engine().dispatch_all(Duration::from_millis(100)).expect("dispatch");
        assert_eq!(rest, []);
    }
    container.delete(true).expect("delete");
}

fn an_end_is_told_beside_what_is_watched_for(t: &Test) {
    t.need_root();
    t.need_controller("memory");
    let container = t.create("a", &limited(t, "tail -c 100000000 /dev/zero >/dev/null; exit 7"));
    container.watch(Watch::OutOfMemory).expect("watch");
    started(&*container);
    let all = dispatch_until(t, |all| all.iter().any(|h| matches!(h, Happened::Ended(_))));
    let (cause, end) = all.split_at(all.len() - 1);
    assert!(matches!(end, [Happened::Ended(_)]), "{all:?}");
    // With systemd the unit goes with its last process, perhaps before anybody can look.
    assert!(!cause.is_empty() || with_systemd(), "{all:?}");
    assert!(cause.iter().all(|it| *it == Happened::OutOfMemory(container.id())), "{all:?}");
    container.delete(false).expect("delete");
}

fn nothing_is_told_of_a_container_that_is_not_watched(t: &Test) {
    t.need_root();
    t.need_controller("memory");
    let container = t.start("a", &limited(t, HUNGRY));
    eventually("a process is killed", || {
        container.stats().expect("stats")["memory"]["oomKills"].as_u64() >= Some(1)
    });
    assert_eq!(t.engine().dispatch_all(Duration::from_millis(50)).expect("dispatch"), []);
    container.delete(true).expect("delete");
}

fn trigger(stall: u64, window: u64) -> Watch {
    let (stall, window) = (Duration::from_millis(stall), Duration::from_millis(window));
    Watch::Pressure(Trigger { resource: Resource::Cpu, full: false, stall, window })
}

fn a_container_that_cannot_be_watched_is_an_error(t: &Test) {
    let container = t.sleeper("a");
    t.need_cgroup(&*container);
    container.delete(true).expect("delete");
    for watch in [Watch::OutOfMemory, trigger(100, 1000)] {
        assert_eq!(refused(container.watch(watch)).category, Category::NotFound);
    }
}

/// Whether the unified hierarchy is the only one here.
fn is_pure_v2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

fn a_trigger_that_makes_no_sense_is_refused(t: &Test) {
    let container = t.sleeper("a");
    t.need_cgroup(&*container);
    for watch in [trigger(0, 1000), trigger(1001, 1000), trigger(100, 499), trigger(100, 10_001)] {
        let failure = refused(container.watch(watch));
        match is_pure_v2() {
            true => failure.must_be(Category::Invalid, Stage::Arguments),
            false => failure.must_be(Category::Unsupported, Stage::Cgroup),
        };
    }
    container.delete(true).expect("delete");
}

fn pressure_is_reported_where_the_kernel_counts_it(t: &Test) {
    t.need_root();
    if !is_pure_v2() || !std::path::Path::new("/proc/pressure/cpu").exists() {
        t.skip("pressure stall information and cgroup v2 alone");
    }
    // Two that want all of a processor of which there is a tenth.
    let mut spec = t.shell("while :; do :; done & while :; do :; done");
    spec["linux"]["resources"] = json!({ "cpu": { "quota": 10000, "period": 100_000 } });
    let container = t.create("a", &spec);
    container.watch(trigger(50, 1000)).expect("watch");
    started(&*container);
    let all = dispatch_until(t, |all| !all.is_empty());
    assert_eq!(all[0], Happened::Pressure(container.id(), Resource::Cpu));
    container.delete(true).expect("delete");
}

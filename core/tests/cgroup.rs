//! The cgroups of this machine, through the public API, as root. `v2` tests run this very
//! program again in a mount namespace of its own where the unified hierarchy is the only one.
//! Test cgroups live below `/locule-test-<pid>` and are removed.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use locule::Category;
use locule::cgroup::{Cgroup, Entry, Hierarchies, Location, Mode, Options};
use oci_spec::runtime::LinuxResources;

const PATIENCE: Duration = Duration::from_secs(10);

/// Why a test that needs root and cgroups cannot run, after saying so.
fn skip(what: &str) -> bool {
    println!("skipped: {what}");
    true
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a test on the machine's own hierarchies cannot run here.
fn cannot_run() -> bool {
    if !is_root() {
        return skip("root");
    }
    let Ok(hierarchies) = Hierarchies::discover() else { return skip("procfs") };
    if hierarchies.mode() == Mode::None {
        return skip("cgroups");
    }
    let place = Scratch::new();
    let made = Cgroup::create(
        &hierarchies,
        place.location(&hierarchies, "probe"),
        None,
        Options::default(),
    );
    match made {
        Ok(cgroup) => {
            cgroup.remove().unwrap();
            false
        }
        Err(error) => skip(&format!("writable cgroups ({error})")),
    }
}

/// Whether the hierarchies lack the controller, after saying so.
fn lacks(hierarchies: &Hierarchies, controller: &str) -> bool {
    let has = hierarchies.all().iter().any(|h| h.controllers.iter().any(|c| c == controller));
    !has && skip(&format!("the {controller} controller"))
}

/// A parent directory for one test, removed with what is empty below it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Scratch(PathBuf::from(format!("/locule-test-{}-{count}", std::process::id())))
    }

    fn location(&self, hierarchies: &Hierarchies, id: &str) -> Location {
        hierarchies.locate(Some(&self.0.join(id)), id, false).unwrap()
    }

    fn parents(&self) -> Vec<PathBuf> {
        let all = Hierarchies::discover().unwrap();
        let relative = self.0.strip_prefix("/").unwrap();
        all.all().iter().map(|h| h.mount_point.join(relative)).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Also after a test that failed half way.
        fn tree(directory: &Path) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    tree(&entry.path());
                }
            }
            let _ = fs::remove_dir(directory);
        }
        self.parents().iter().for_each(|parent| tree(parent));
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// A process in the cgroup that sleeps, with `children` more below it.
fn populate(cgroup: &Cgroup, script: &str) -> Child {
    let entries = cgroup.entries().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec only write(2) and openat(2) on owned descriptors.
    unsafe {
        command.pre_exec(move || {
            for entry in &entries {
                let into = |fd: &std::os::fd::OwnedFd| {
                    nix::unistd::write(fd, b"0").map(drop).map_err(std::io::Error::from)
                };
                match entry {
                    Entry::Procs(fd) => into(fd)?,
                    Entry::IntoV2(directory) => into(&nix::fcntl::openat(
                        directory,
                        "cgroup.procs",
                        nix::fcntl::OFlag::O_WRONLY,
                        nix::sys::stat::Mode::empty(),
                    )?)?,
                }
            }
            Ok(())
        });
    }
    command.spawn().unwrap()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn read(location: &Location, controller: &str, name: &str) -> String {
    let place = location.controller(controller).unwrap();
    fs::read_to_string(place.directory().join(name)).unwrap().trim().to_owned()
}

fn ticks(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_cgroup_is_made_in_every_hierarchy_and_removed_from_all() {
    if cannot_run() {
        return;
    }
    let before = fs::read_to_string("/proc/self/cgroup").unwrap();
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "a/b");
    let cgroup = Cgroup::create(&hierarchies, location.clone(), None, Options::default()).unwrap();
    assert_eq!(cgroup.location().places().len(), hierarchies.all().len());
    assert!(location.directories().all(|directory| directory.is_dir()));
    assert_eq!(cgroup.entries().unwrap().len(), hierarchies.all().len());
    assert!(cgroup.pids().unwrap().is_empty());
    cgroup.remove().unwrap();
    cgroup.remove().unwrap();
    assert!(location.directories().all(|directory| !directory.exists()));
    assert_eq!(fs::read_to_string("/proc/self/cgroup").unwrap(), before, "the host was moved");
}

#[test]
fn a_creation_that_fails_leaves_nothing_and_keeps_what_was_there() {
    if cannot_run() {
        return;
    }
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let parents = scratch.parents();
    fs::create_dir(&parents[0]).unwrap();
    let bad = resources(r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}"#);
    let location = scratch.location(&hierarchies, "x");
    let error = Cgroup::create(&hierarchies, location, Some(&bad), Options::default()).unwrap_err();
    assert_eq!(error.pointer(), Some("/linux/resources/hugepageLimits/0/limit"), "{error}");
    assert!(parents[0].is_dir());
    assert_eq!(
        fs::read_dir(&parents[0]).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count(),
        0
    );
    assert!(parents[1..].iter().all(|parent| !parent.exists()));
}

#[test]
fn a_cgroup_with_processes_or_a_frozen_one_is_refused() {
    if cannot_run() {
        return;
    }
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let create = || Cgroup::create(&hierarchies, location.clone(), None, Options::default());
    let first = create().unwrap();
    let mut child = populate(&first, "exec sleep 60");
    let error = create().unwrap_err();
    assert!(
        error.to_string().contains("container's cgroup is not empty: 1 process(es) found"),
        "{error}"
    );
    assert_eq!(error.category(), Category::Busy);
    first.kill(PATIENCE).unwrap();
    child.wait().unwrap();
    first.freeze(PATIENCE).unwrap();
    let error = create().unwrap_err();
    assert!(error.to_string().contains("container's cgroup unexpectedly frozen"), "{error}");
    first.thaw().unwrap();
    // What was there before a container stays after it.
    let second = create().unwrap();
    second.remove().unwrap();
    assert!(location.directories().all(|directory| directory.is_dir()));
    first.remove().unwrap();
}

#[test]
fn what_a_killed_creation_left_is_replaced_and_later_removed() {
    if cannot_run() {
        return;
    }
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "locule/x");
    for directory in location.directories() {
        fs::create_dir_all(directory.join("inner")).unwrap();
    }
    let cgroup = Cgroup::create(&hierarchies, location.clone(), None, Options::default()).unwrap();
    assert!(location.directories().all(|d| d.is_dir() && !d.join("inner").exists()));
    cgroup.remove().unwrap();
    assert!(location.directories().all(|directory| !directory.exists()));
}

#[test]
fn processes_enter_freeze_thaw_and_die_together() {
    if cannot_run() {
        return;
    }
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let cgroup = Cgroup::create(&hierarchies, location.clone(), None, Options::default()).unwrap();
    let mut child = populate(&cgroup, "sleep 60 & while :; do :; done");
    wait_for("both processes", || cgroup.pids().unwrap().len() == 2);
    let own = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).unwrap();
    let relative = location.places()[0].path.to_str().unwrap();
    let hierarchies_of_kernel = own.lines().filter(|line| line.ends_with(relative)).count();
    assert_eq!(hierarchies_of_kernel, hierarchies.all().len(), "{own}");

    cgroup.freeze(PATIENCE).unwrap();
    assert!(cgroup.is_frozen().unwrap());
    let time = || fs::read_to_string(format!("/proc/{}/sched", child.id())).unwrap_or_default();
    let (first, _) = (time(), std::thread::sleep(Duration::from_millis(30)));
    let runtime =
        |text: &str| text.lines().find(|l| l.contains("sum_exec_runtime")).map(str::to_owned);
    assert_eq!(runtime(&first), runtime(&time()), "it ran while frozen");
    cgroup.thaw().unwrap();
    assert!(!cgroup.is_frozen().unwrap());

    cgroup.signal_all(libc::SIGSTOP).unwrap();
    wait_for("SIGSTOP", || ticks(child.id()) == "T");
    // Killed while frozen, in a sub-cgroup as well.
    cgroup.freeze(PATIENCE).unwrap();
    cgroup.kill(PATIENCE).unwrap();
    child.wait().unwrap();
    cgroup.remove().unwrap();
    assert!(location.directories().all(|directory| !directory.exists()));
}

#[test]
fn cgroups_that_the_container_made_go_with_it() {
    if cannot_run() {
        return;
    }
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let cgroup = Cgroup::create(&hierarchies, location.clone(), None, Options::default()).unwrap();
    for directory in location.directories() {
        fs::create_dir_all(directory.join("inner/most")).unwrap();
    }
    let unified = location.unified().or_else(|| location.controller("freezer")).unwrap();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    fs::write(unified.directory().join("inner/most/cgroup.procs"), child.id().to_string()).unwrap();
    assert_eq!(cgroup.pids().unwrap(), [child.id() as i32]);
    let open = Cgroup::open(location.clone()).unwrap();
    open.signal_all(libc::SIGKILL).unwrap();
    // The process is a zombie until it is waited for, and the cgroup goes all the same.
    open.kill(PATIENCE).unwrap();
    open.remove().unwrap();
    assert!(location.directories().all(|directory| !directory.exists()));
    child.wait().unwrap();
}

#[test]
fn memory_and_swap_limits_grow_and_shrink_in_the_right_order() {
    let hierarchies = Hierarchies::discover().unwrap();
    if cannot_run() || lacks(&hierarchies, "memory") {
        return;
    }
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    if location.controller("memory").unwrap().unified {
        skip("memory in cgroup v1");
        return;
    }
    let start =
        resources(r#"{"memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432}}"#);
    let cgroup =
        Cgroup::create(&hierarchies, location.clone(), Some(&start), Options::default()).unwrap();
    let now = || {
        ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"]
            .map(|name| read(&location, "memory", name))
    };
    let update = |json: &str| cgroup.update(&resources(json), Options::default());
    assert_eq!(now(), ["67108864", "134217728"]);
    assert_eq!(read(&location, "memory", "memory.soft_limit_in_bytes"), "33554432");
    update(r#"{"memory": {"limit": 268435456, "swap": 536870912}}"#).unwrap();
    assert_eq!(now(), ["268435456", "536870912"]);
    update(r#"{"memory": {"limit": 33554432, "swap": 33554432}}"#).unwrap();
    assert_eq!(now(), ["33554432", "33554432"]);
    let error = update(r#"{"memory": {"limit": 67108864}}"#).unwrap_err();
    assert_eq!(error.pointer(), Some("/linux/resources/memory/limit"));
    assert!(error.to_string().contains(r#"write "67108864" to memory.limit_in_bytes"#), "{error}");
    assert_eq!(now(), ["33554432", "33554432"]);
    let error = update(r#"{"memory": {"limit": 67108864, "swap": 33554432}}"#).unwrap_err();
    assert_eq!(
        (error.category(), error.pointer()),
        (Category::Spec, Some("/linux/resources/memory/swap"))
    );
    update(r#"{"memory": {"limit": -1}}"#).unwrap();
    assert!(now()[1].parse::<u64>().unwrap() > 1 << 60);
    cgroup.remove().unwrap();
}

#[test]
fn an_update_that_fails_brings_the_earlier_limits_back() {
    let hierarchies = Hierarchies::discover().unwrap();
    if cannot_run() || lacks(&hierarchies, "memory") || lacks(&hierarchies, "pids") {
        return;
    }
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let start = resources(r#"{"pids": {"limit": 10}, "cpu": {"quota": 50000, "period": 100000}}"#);
    let cgroup =
        Cgroup::create(&hierarchies, location.clone(), Some(&start), Options::default()).unwrap();
    let bad = resources(
        r#"{"cpu": {"quota": 20000}, "pids": {"limit": 20}, "hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}"#,
    );
    let v2 = location.controller("cpu").unwrap().unified;
    let file = if v2 { "cpu.max" } else { "cpu.cfs_quota_us" };
    let is = |pids: &str, quota: &str| {
        assert_eq!(read(&location, "pids", "pids.max"), pids);
        let text = read(&location, "cpu", file);
        assert_eq!(text.split(' ').next(), Some(quota));
    };
    cgroup.update(&bad, Options::default()).unwrap_err();
    is("10", "50000");
    let good = resources(r#"{"cpu": {"period": 200000}, "pids": {"limit": 0}}"#);
    cgroup.update(&good, Options::default()).unwrap();
    is("1", "50000");
    cgroup.remove().unwrap();
}

#[test]
fn limits_of_the_other_v1_controllers_are_written() {
    let hierarchies = Hierarchies::discover().unwrap();
    if cannot_run() || ["cpu", "cpuset", "blkio"].iter().any(|name| lacks(&hierarchies, name)) {
        return;
    }
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let all = resources(
        r#"{"cpu": {"shares": 512, "quota": 40000, "burst": 20000, "cpus": "0", "mems": "0"}}"#,
    );
    let cgroup =
        Cgroup::create(&hierarchies, location.clone(), Some(&all), Options::default()).unwrap();
    assert_eq!(read(&location, "cpu", "cpu.shares"), "512");
    assert_eq!(read(&location, "cpu", "cpu.cfs_burst_us"), "20000");
    assert_eq!(read(&location, "cpuset", "cpuset.cpus"), "0");
    if location.controller("blkio").unwrap().directory().join("blkio.bfq.weight").exists() {
        let weight = resources(r#"{"blockIO": {"weight": 300}}"#);
        cgroup.update(&weight, Options::default()).unwrap();
        assert_eq!(read(&location, "blkio", "blkio.bfq.weight"), "300");
    } else {
        skip("the BFQ scheduler");
    }
    let idle = resources(r#"{"cpu": {"idle": 1}}"#);
    cgroup.update(&idle, Options::default()).unwrap();
    assert_eq!(read(&location, "cpu", "cpu.idle"), "1");
    if hierarchies.all().iter().any(|h| h.controllers.iter().any(|c| c == "net_cls")) {
        let network = resources(r#"{"network": {"classID": 1048577}}"#);
        cgroup.update(&network, Options::default()).unwrap();
        assert_eq!(read(&location, "net_cls", "net_cls.classid"), "1048577");
    }
    for (controller, json, pointer) in [
        ("net_cls", r#"{"network": {"classID": 5}}"#, "network/classID"),
        ("rdma", r#"{"rdma": {"mlx5_0": {"hcaHandles": 1}}}"#, "rdma/mlx5_0"),
        ("", r#"{"unified": {"memory.high": "1"}}"#, "unified/memory.high"),
        ("", r#"{"blockIO": {"leafWeight": 20}}"#, "blockIO/leafWeight"),
    ] {
        if hierarchies.all().iter().any(|h| h.controllers.iter().any(|c| c == controller)) {
            continue;
        }
        let error = cgroup.update(&resources(json), Options::default()).unwrap_err();
        assert_eq!(error.category(), Category::Unsupported, "{error}");
        assert_eq!(error.pointer(), Some(format!("/linux/resources/{pointer}").as_str()));
    }
    cgroup.remove().unwrap();
}

#[test]
fn limits_of_the_v2_controllers_are_written_and_updated() {
    let hierarchies = Hierarchies::discover().unwrap();
    let v2 = hierarchies.all().iter().find(|h| h.unified);
    let has = |name: &str| v2.is_some_and(|h| h.controllers.iter().any(|c| c == name));
    if cannot_run() {
        return;
    }
    if hierarchies.mode() != Mode::V2
        || !["cpu", "cpuset", "memory", "pids", "io"].into_iter().all(has)
    {
        skip("cgroup v2 with cpu, cpuset, memory, pids and io");
        return;
    }
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let all = resources(
        r#"{"memory": {"limit": 67108864, "swap": 134217728, "reservation": 4096},
            "cpu": {"shares": 1024, "quota": 40000, "period": 200000, "burst": 20000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 30}, "unified": {"memory.high": "50331648"}}"#,
    );
    let cgroup =
        Cgroup::create(&hierarchies, location.clone(), Some(&all), Options::default()).unwrap();
    let is = |name: &str, value: &str| {
        assert_eq!(read(&location, name.split('.').next().unwrap(), name), value, "{name}");
    };
    is("memory.max", "67108864");
    is("memory.swap.max", "67108864");
    is("memory.low", "4096");
    is("memory.high", "50331648");
    is("cpu.weight", "100");
    is("cpu.max", "40000 200000");
    is("cpu.max.burst", "20000");
    is("cpuset.cpus", "0");
    is("pids.max", "30");
    let update = |json: &str| cgroup.update(&resources(json), Options::default());
    update(r#"{"cpu": {"quota": 10000, "burst": 5000}, "pids": {"limit": -1}}"#).unwrap();
    is("cpu.max", "10000 200000");
    is("cpu.max.burst", "5000");
    is("pids.max", "max");
    update(r#"{"cpu": {"quota": 90000, "burst": 80000, "period": 100000}}"#).unwrap();
    is("cpu.max", "90000 100000");
    update(r#"{"cpu": {"period": 50000}}"#).unwrap();
    is("cpu.max", "90000 50000");
    update(r#"{"cpu": {"quota": -1, "burst": 0}, "memory": {"swap": 100663296}}"#).unwrap();
    is("cpu.max", "max 50000");
    is("memory.swap.max", "33554432");
    update(r#"{"cpu": {"idle": 1, "shares": 5}}"#).unwrap();
    is("cpu.idle", "1");
    let error =
        update(r#"{"memory": {"limit": 33554432, "swap": 33554432}, "cpu": {"cpus": "99999"}}"#)
            .unwrap_err();
    assert_eq!(error.pointer(), Some("/linux/resources/cpu/cpus"), "{error}");
    assert_eq!(error.category(), Category::Spec);
    is("memory.max", "67108864");
    is("memory.swap.max", "33554432");
    cgroup.delegate(USER).unwrap();
    let owner = |path: PathBuf| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    let directory = location.places()[0].directory();
    assert_eq!((owner(directory.clone()), owner(directory.join("cgroup.procs"))), (USER, USER));
    assert_eq!(owner(directory.join("memory.max")), 0);
    cgroup.remove().unwrap();
}

#[test]
fn a_cgroup_with_processes_is_not_made_to_share_its_controllers() {
    let hierarchies = Hierarchies::discover().unwrap();
    if cannot_run() {
        return;
    }
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "host/x");
    let Some(place) = location.controller("pids").filter(|place| place.unified) else {
        skip("cgroup v2 with the pids controller");
        return;
    };
    let above = scratch.location(&hierarchies, "host");
    let host = Cgroup::create(&hierarchies, above, None, Options::default()).unwrap();
    let mut inside = populate(&host, "exec sleep 60");
    let create = |resources: Option<&LinuxResources>| {
        Cgroup::create(&hierarchies, location.clone(), resources, Options::default())
    };
    let cgroup = create(None).unwrap();
    let read = |path: PathBuf| fs::read_to_string(path).unwrap().trim().to_owned();
    let parent = place.directory().parent().unwrap().to_owned();
    assert_eq!(read(parent.join("cgroup.subtree_control")), "");
    assert_eq!(read(place.directory().join("cgroup.type")), "domain");
    let mut child = populate(&cgroup, "exec sleep 60");
    assert_eq!(cgroup.pids().unwrap(), [child.id() as i32]);
    cgroup.kill(PATIENCE).unwrap();
    child.wait().unwrap();
    cgroup.remove().unwrap();
    let error = create(Some(&resources(r#"{"pids": {"limit": 5}}"#))).unwrap_err();
    assert_eq!(error.pointer(), Some("/linux/resources/pids/limit"), "{error}");
    assert!(error.advice().unwrap().contains("cgroup with processes"), "{error:?}");
    host.kill(PATIENCE).unwrap();
    inside.wait().unwrap();
    host.remove().unwrap();
}

#[test]
fn a_block_device_is_throttled() {
    let hierarchies = Hierarchies::discover().unwrap();
    let controller = if hierarchies.mode() == Mode::V2 { "io" } else { "blkio" };
    if cannot_run() || lacks(&hierarchies, controller) {
        return;
    }
    let disk = fs::read_dir("/sys/block").into_iter().flatten().flatten().find_map(|disk| {
        let is_virtual = disk.path().read_link().unwrap().iter().any(|name| name == "virtual");
        (!is_virtual).then(|| fs::read_to_string(disk.path().join("dev")).unwrap())
    });
    let Some(disk) = disk else {
        skip("a disk");
        return;
    };
    let disk = disk.trim();
    let (major, minor) = disk.split_once(':').unwrap();
    let limit = |name: &str, rate: u32| {
        resources(&format!(
            r#"{{"blockIO": {{"{name}": [{{"major": {major}, "minor": {minor}, "rate": {rate}}}]}}}}"#
        ))
    };
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let start = limit("throttleWriteBpsDevice", 1048576);
    let cgroup =
        Cgroup::create(&hierarchies, location.clone(), Some(&start), Options::default()).unwrap();
    cgroup.update(&limit("throttleReadIOPSDevice", 500), Options::default()).unwrap();
    if controller == "io" {
        let now = format!("{disk} rbps=max wbps=1048576 riops=500 wiops=max");
        assert_eq!(read(&location, "io", "io.max"), now);
    } else {
        let now = |file: &str| read(&location, "blkio", &format!("blkio.throttle.{file}_device"));
        assert_eq!(now("write_bps"), format!("{disk} 1048576"));
        assert_eq!(now("read_iops"), format!("{disk} 500"));
    }
    cgroup.remove().unwrap();
}

#[test]
fn only_the_allowed_devices_can_be_opened() {
    if cannot_run() {
        return;
    }
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let cgroup = Cgroup::create(&hierarchies, location, None, Options::default()).unwrap();
    let node = std::env::temp_dir().join(format!("locule-test-kmsg-{}", std::process::id()));
    let can = |what: &str| {
        let script = format!(
            "rm -f {0}; mknod {0} c 1 11 && : < /dev/null && : > /dev/null && {what}",
            node.display()
        );
        populate(&cgroup, &script).wait().unwrap().success()
    };
    let kmsg = format!(": < {}", node.display());
    assert!(can(":"), "the default devices and mknod");
    assert!(!can(&kmsg), "a device that is not allowed");
    let rules = |json: &str| cgroup.update(&resources(json), Options::default()).unwrap();
    rules(
        r#"{"devices": [{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]}"#,
    );
    assert!(can(&kmsg), "a device that was allowed");
    rules("{}");
    assert!(can(&kmsg), "an update without devices changes no device");
    rules(r#"{"devices": [{"allow": false}]}"#);
    assert!(!can(&kmsg), "a device that was taken away");
    rules(r#"{"devices": [{"allow": true}]}"#);
    assert!(can(&kmsg), "everything allowed");
    rules(r#"{"devices": []}"#);
    assert!(!can(&kmsg), "back to the default");
    assert!(can(":"));
    let _ = fs::remove_file(&node);
    cgroup.remove().unwrap();
}

#[test]
fn usage_is_reported() {
    if cannot_run() {
        return;
    }
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let cgroup = Cgroup::create(&hierarchies, location.clone(), None, Options::default()).unwrap();
    let mut child = populate(&cgroup, "while :; do :; done");
    wait_for("processor time", || cgroup.stats().unwrap().cpu.usage.total > 10_000_000);
    let stats = cgroup.stats().unwrap();
    if location.controller("pids").is_some() {
        assert_eq!(stats.pids.current, 1);
    }
    if location.controller("memory").is_some() {
        assert!(stats.memory.usage.usage > 0 && !stats.memory.raw.is_empty());
    }
    cgroup.kill(PATIENCE).unwrap();
    child.wait().unwrap();
    cgroup.remove().unwrap();
    assert_eq!(cgroup.stats().unwrap_err().category(), Category::NotFound);
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
}

#[test]
fn a_process_killed_for_want_of_memory_is_counted() {
    let hierarchies = Hierarchies::discover().unwrap();
    if cannot_run() || lacks(&hierarchies, "memory") {
        return;
    }
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let limit = resources(r#"{"memory": {"limit": 16777216, "swap": 16777216}}"#);
    let cgroup = Cgroup::create(&hierarchies, location, Some(&limit), Options::default()).unwrap();
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
    let mut child = populate(&cgroup, "exec dd if=/dev/zero of=/dev/null bs=100M count=1");
    assert!(!child.wait().unwrap().success());
    assert!(cgroup.oom_kills().unwrap() >= 1);
    cgroup.remove().unwrap();
}

#[test]
fn creations_and_failures_side_by_side_do_not_trip_each_other() {
    if cannot_run() {
        return;
    }
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let bad = resources(r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}"#);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (hierarchies, scratch, bad) = (&hierarchies, &scratch, &bad);
            scope.spawn(move || {
                for round in 0..10 {
                    let location = scratch.location(hierarchies, &format!("p/{thread}-{round}"));
                    let limits = (thread % 2 == 0).then_some(bad);
                    let made = Cgroup::create(hierarchies, location, limits, Options::default());
                    match limits {
                        Some(_) => drop(made.unwrap_err()),
                        None => made.unwrap().remove().unwrap(),
                    }
                }
            });
        }
    });
}

#[test]
fn a_process_can_be_cloned_into_the_unified_hierarchy() {
    let hierarchies = Hierarchies::discover().unwrap();
    if cannot_run() {
        return;
    }
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "x");
    let cgroup = Cgroup::create(&hierarchies, location, None, Options::default()).unwrap();
    let entries = cgroup.entries().unwrap();
    let into = entries.iter().find_map(|entry| match entry {
        Entry::IntoV2(fd) => Some(std::os::fd::AsRawFd::as_raw_fd(fd)),
        Entry::Procs(_) => None,
    });
    let Some(fd) = into else {
        skip("cgroup v2");
        cgroup.remove().unwrap();
        return;
    };
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size,
    // tls, set_tid, set_tid_size, cgroup.
    let mut arguments =
        [CLONE_INTO_CGROUP, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0, 0, 0, fd as u64];
    // SAFETY: without CLONE_VM the child has its own memory, and only calls pause(2).
    let pid = unsafe {
        let size = std::mem::size_of_val(&arguments);
        match libc::syscall(libc::SYS_clone3, arguments.as_mut_ptr(), size) {
            0 => loop {
                libc::pause();
            },
            pid => pid as i32,
        }
    };
    assert!(pid > 0, "{}", std::io::Error::last_os_error());
    assert_eq!(cgroup.pids().unwrap(), [pid]);
    cgroup.kill(PATIENCE).unwrap();
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
    cgroup.remove().unwrap();
}

const USER: u32 = 65534;

/// Runs one of the ignored tests below as an ordinary user, in the cgroup directory if given.
fn as_user(test: &str, cgroup: Option<&Path>) {
    let procs = cgroup.map(|directory| fs::File::create(directory.join("cgroup.procs")).unwrap());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    // SAFETY: between fork and exec only write(2), setgroups(2), setgid(2) and setuid(2).
    unsafe {
        command.pre_exec(move || {
            if let Some(procs) = &procs {
                nix::unistd::write(procs, b"0")?;
            }
            nix::unistd::setgroups(&[])?;
            nix::unistd::setgid(USER.into())?;
            nix::unistd::setuid(USER.into())?;
            Ok(())
        });
    }
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            skip(&format!("a test program that user {USER} may execute ({error})"));
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn a_user_without_delegation_gets_no_cgroup_unless_a_limit_needs_one() {
    if !cannot_run() {
        as_user("undelegated_user", None);
    }
}

#[test]
#[ignore = "runs as another user, from the test above"]
fn undelegated_user() {
    let hierarchies = Hierarchies::discover().unwrap();
    let location = hierarchies.locate(None, "x", true).unwrap();
    let create = |resources: Option<&LinuxResources>| {
        Cgroup::create(&hierarchies, location.clone(), resources, Options { rootless: true })
    };
    let cgroup = create(None).unwrap();
    assert!(cgroup.location().is_empty());
    assert_eq!(cgroup.notes().len(), hierarchies.all().len());
    assert!(cgroup.entries().unwrap().is_empty() && cgroup.pids().unwrap().is_empty());
    cgroup.remove().unwrap();
    let limits = resources(r#"{"pids": {"limit": 5}}"#);
    if hierarchies.all().iter().any(|h| h.controllers.iter().any(|c| c == "pids")) {
        let error = create(Some(&limits)).unwrap_err();
        assert_eq!(error.category(), Category::Permission, "{error}");
        assert_eq!(error.pointer(), Some("/linux/resources/pids/limit"));
        assert!(error.advice().unwrap().contains("Delegate"));
    }
    let options = Options { rootless: true };
    let error = cgroup.update(&limits, options).unwrap_err();
    assert_eq!(error.category(), Category::Permission, "{error}");
}

#[test]
fn a_user_with_delegation_gets_a_cgroup_beside_its_own() {
    if cannot_run() {
        return;
    }
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let location = scratch.location(&hierarchies, "host");
    let Some(unified) = location.unified() else {
        skip("cgroup v2");
        return;
    };
    let own = unified.directory();
    fs::create_dir_all(&own).unwrap();
    let parent = own.parent().unwrap();
    for path in
        [parent.to_owned(), parent.join("cgroup.procs"), parent.join("cgroup.subtree_control")]
    {
        std::os::unix::fs::chown(path, Some(USER), Some(USER)).unwrap();
    }
    as_user("delegated_user", Some(&own));
    // The `locule` directory of the user stays, as it does below the root.
    assert!(
        fs::read_dir(parent.join("locule")).unwrap().all(|entry| entry.unwrap().path().is_file())
    );
}

#[test]
#[ignore = "runs as another user, from the test above"]
fn delegated_user() {
    let hierarchies = Hierarchies::discover().unwrap();
    let location = hierarchies.locate(None, "x", true).unwrap();
    let options = Options { rootless: true };
    let cgroup = Cgroup::create(&hierarchies, location, None, options).unwrap();
    let unified = cgroup.location().unified().expect("the unified hierarchy").directory();
    assert!(unified.ends_with("locule/x") && !unified.to_str().unwrap().contains("/host/"));
    assert_eq!(cgroup.location().places().len(), 1);
    let mut child = populate(&cgroup, "exec sleep 60");
    assert_eq!(cgroup.pids().unwrap(), [child.id() as i32]);
    cgroup.freeze(PATIENCE).unwrap();
    cgroup.kill(PATIENCE).unwrap();
    child.wait().unwrap();
    cgroup.remove().unwrap();
    assert!(!unified.exists());
}

/// Runs this program again where `script` has arranged the hierarchies for it alone.
fn again_after(script: &str) {
    const NESTED: &str = "LOCULE_TEST_NESTED";
    if std::env::var_os(NESTED).is_some() {
        return;
    }
    if !is_root() || Hierarchies::discover().unwrap().mode() != Mode::Hybrid {
        skip("root on a hybrid machine");
        return;
    }
    let script = format!("mount --make-rprivate / && {script} && exec \"$0\" --nocapture");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(NESTED, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    if !text.contains("running ") {
        skip(&format!("a mount namespace ({})", String::from_utf8_lossy(&output.stderr).trim()));
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_same_holds_where_the_unified_hierarchy_is_the_only_one() {
    again_after("umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup");
}

#[test]
fn the_same_holds_where_there_is_no_unified_hierarchy() {
    again_after("umount /sys/fs/cgroup/unified");
}

/// Prints what making and removing costs: `cargo test --release -p locule --test cgroup -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_create_and_remove() {
    if cannot_run() {
        return;
    }
    let hierarchies = Hierarchies::discover().unwrap();
    let scratch = Scratch::new();
    let limits = match hierarchies.mode() {
        Mode::V2 if !hierarchies.all()[0].controllers.iter().any(|c| c == "pids") => None,
        _ => Some(resources(r#"{"memory": {"limit": 67108864}, "pids": {"limit": 100}}"#)),
    };
    for rootless in [true, false] {
        let (mut made, mut entered, mut removed) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..200 {
            let location = scratch.location(&hierarchies, &format!("c{round}"));
            let start = Instant::now();
            let cgroup =
                Cgroup::create(&hierarchies, location, limits.as_ref(), Options { rootless })
                    .unwrap();
            made.push(start.elapsed());
            let start = Instant::now();
            let entries = cgroup.entries().unwrap();
            entered.push(start.elapsed());
            drop(entries);
            let start = Instant::now();
            cgroup.remove().unwrap();
            removed.push(start.elapsed());
        }
        for (what, times) in [("create", made), ("entries", entered), ("remove", removed)] {
            let mut times = times;
            times.sort();
            println!(
                "{:?} device rules {}: {what} median {:?} best {:?}",
                hierarchies.mode(),
                !rootless,
                times[100],
                times[0]
            );
        }
    }
}

//! The kernel's texts: the mount table, `/proc/self/cgroup`, and the files of a cgroup.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard};

use locule::fuzzing::{hierarchies, usage};

/// The input is cut at each NUL: the mount table, the own cgroups, then files by name and text.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\0');
    let (mounts, own) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let found = hierarchies(mounts, own);
    for hierarchy in found.all() {
        assert!(!hierarchy.own.is_absolute(), "{hierarchy:?} leaves its mount");
    }
    for (path, rootless) in [(None, false), (None, true), (Some(own), false)] {
        let Ok(location) = found.locate(path.map(str::as_ref), "box", rootless) else { continue };
        location.views();
        for place in location.places() {
            assert!(!place.path.as_os_str().is_empty(), "the root itself");
        }
    }

    let rest: Vec<&str> = parts.collect();
    for unified in [true, false] {
        let fake = Fake::shared(unified);
        fake.reset();
        for pair in rest.chunks_exact(2) {
            let (Some(name), content) = (fake.known(pair[0]), pair[1]) else { continue };
            fs::write(fake.directory.join(name), content).expect("a file of our own");
        }
        usage(&fake.directory, unified).expect("files that say nothing count as nothing");
    }
}

/// A directory of plain files in place of a cgroup, and another file beside it.
pub struct Fake {
    pub directory: PathBuf,
    files: BTreeMap<&'static str, &'static str>,
    canary: PathBuf,
}

const CANARY: &str = "nobody writes here";

impl Fake {
    /// One for each version, for one user at a time.
    pub fn shared(unified: bool) -> MutexGuard<'static, Fake> {
        static V1: LazyLock<Mutex<Fake>> = LazyLock::new(|| Mutex::new(Fake::new("v1", &FILES_V1)));
        static V2: LazyLock<Mutex<Fake>> = LazyLock::new(|| Mutex::new(Fake::new("v2", &FILES_V2)));
        let fake: &Mutex<Fake> = if unified { &V2 } else { &V1 };
        fake.lock().expect("no target goes on after a panic")
    }

    fn new(name: &str, files: &[(&'static str, &'static str)]) -> Fake {
        let base = crate::scratch().join(name);
        let fake = Fake {
            directory: base.join("cgroup"),
            files: files.iter().copied().collect(),
            canary: base.join("canary"),
        };
        fs::create_dir_all(&fake.directory).expect("a directory in /dev/shm or /tmp");
        fs::write(&fake.canary, CANARY).expect("a file in it");
        fake
    }

    /// As it is at first.
    pub fn reset(&self) {
        for entry in fs::read_dir(&self.directory).expect("it is ours").flatten() {
            let name = entry.file_name();
            if !name.to_str().is_some_and(|name| self.files.contains_key(name)) {
                fs::remove_file(entry.path()).expect("nothing but files is made in there");
            }
        }
        for (name, content) in &self.files {
            fs::write(self.directory.join(name), content).expect("a file of our own");
        }
    }

    fn known(&self, name: &str) -> Option<&'static str> {
        self.files.get_key_value(name).map(|(name, _)| *name)
    }

    /// Nothing but the files in the directory may have changed.
    pub fn check(&self) {
        assert_eq!(fs::read_to_string(&self.canary).ok().as_deref(), Some(CANARY));
        let beside = fs::read_dir(self.directory.parent().expect("it is below another"));
        assert_eq!(beside.expect("it is ours").count(), 2, "something was made beside it");
        for entry in fs::read_dir(&self.directory).expect("it is ours").flatten() {
            let name = entry.file_name();
            let known = name.to_str().is_some_and(|name| self.files.contains_key(name));
            assert!(known, "{name:?} was made");
        }
    }
}

const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

#[rustfmt::skip] // a table
const FILES_V2: [(&str, &str); 47] = [
    ("cgroup.procs", ""), ("cgroup.controllers", "cpu io memory pids"),
    ("cgroup.subtree_control", ""), ("cgroup.freeze", "0"), ("cgroup.kill", ""),
    ("cgroup.events", "populated 0\nfrozen 0\n"), ("cgroup.max.depth", "max"),
    ("cpu.weight", "100"), ("cpu.weight.nice", "0"), ("cpu.max", "max 100000"), ("cpu.max.burst", "0"),
    ("cpu.idle", "0"), ("cpu.uclamp.min", "0.00"),
    ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"),
    ("cpu.pressure", PRESSURE),
    ("cpuset.cpus", ""), ("cpuset.mems", ""), ("cpuset.cpus.partition", "member"),
    ("memory.max", "max"), ("memory.min", "0"), ("memory.low", "0"), ("memory.high", "max"),
    ("memory.current", "4096"), ("memory.peak", "8192"),
    ("memory.swap.max", "max"), ("memory.swap.high", "max"), ("memory.swap.current", "0"),
    ("memory.swap.peak", "0"), ("memory.swap.events", "high 0\nmax 0\nfail 0\n"),
    ("memory.oom.group", "0"), ("memory.stat", "anon 1\nfile 2\n"),
    ("memory.events", "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n"), ("memory.pressure", PRESSURE),
    ("pids.max", "max"), ("pids.current", "1"),
    ("io.max", ""), ("io.weight", "default 100"), ("io.bfq.weight", "default 100"),
    ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"), ("io.pressure", PRESSURE),
    ("hugetlb.2MB.max", "max"), ("hugetlb.2MB.rsvd.max", "max"), ("hugetlb.2MB.current", "0"),
    ("hugetlb.2MB.events", "max 0\n"),
    ("rdma.max", ""), ("rdma.current", ""), ("misc.max", ""),
];

#[rustfmt::skip] // a table
const FILES_V1: [(&str, &str); 53] = [
    ("cgroup.procs", ""), ("tasks", ""), ("notify_on_release", "0"),
    ("cpu.shares", "1024"), ("cpu.cfs_quota_us", "-1"), ("cpu.cfs_period_us", "100000"),
    ("cpu.cfs_burst_us", "0"), ("cpu.rt_runtime_us", "0"), ("cpu.rt_period_us", "1000000"),
    ("cpu.idle", "0"), ("cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"),
    ("cpuacct.usage", "5"), ("cpuacct.stat", "user 1\nsystem 2\n"), ("cpuacct.usage_percpu", "1 2 3"),
    ("cpuset.cpus", "0"), ("cpuset.mems", "0"),
    ("memory.limit_in_bytes", "9223372036854771712"), ("memory.soft_limit_in_bytes", "9223372036854771712"),
    ("memory.memsw.limit_in_bytes", "9223372036854771712"), ("memory.kmem.limit_in_bytes", "0"),
    ("memory.kmem.tcp.limit_in_bytes", "0"), ("memory.usage_in_bytes", "4096"),
    ("memory.max_usage_in_bytes", "8192"), ("memory.failcnt", "0"), ("memory.memsw.usage_in_bytes", "0"),
    ("memory.memsw.max_usage_in_bytes", "0"), ("memory.memsw.failcnt", "0"), ("memory.swappiness", "60"),
    ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"), ("memory.use_hierarchy", "1"),
    ("memory.stat", "cache 1\nrss 2\n"),
    ("pids.max", "max"), ("pids.current", "1"),
    ("blkio.weight", "500"), ("blkio.leaf_weight", "500"), ("blkio.weight_device", ""),
    ("blkio.leaf_weight_device", ""), ("blkio.bfq.weight", "500"), ("blkio.bfq.weight_device", ""),
    ("blkio.throttle.read_bps_device", ""), ("blkio.throttle.write_bps_device", ""),
    ("blkio.throttle.read_iops_device", ""), ("blkio.throttle.write_iops_device", ""),
    ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
    ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\n"),
    ("hugetlb.2MB.limit_in_bytes", "0"), ("hugetlb.2MB.rsvd.limit_in_bytes", "0"),
    ("hugetlb.2MB.usage_in_bytes", "0"),
    ("net_cls.classid", "0"), ("net_prio.ifpriomap", "lo 0\n"),
    ("devices.allow", ""), ("devices.deny", ""), ("devices.list", "c 1:3 rwm\nb *:* m\n"),
];

//! The limits of version 2, written into plain files: this machine has few of its controllers.

use std::fs;

use super::*;

/// A directory with the given files that stands for a version 2 cgroup.
struct Fake(Location);

impl Fake {
    fn new(name: &str, files: &[(&str, &str)]) -> Fake {
        let directory = std::env::temp_dir();
        let path = PathBuf::from(format!("locule-limits-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(directory.join(&path));
        fs::create_dir(directory.join(&path)).unwrap();
        for (file, content) in files {
            fs::write(directory.join(&path).join(file), content).unwrap();
        }
        let controllers = ["memory", "cpu", "cpuset", "pids", "io", "hugetlb", "rdma"];
        Fake(Location {
            unit: None,
            places: vec![Place {
                controllers: controllers.map(str::to_owned).to_vec(),
                unified: true,
                mount_point: directory,
                path,
                existed: false,
            }],
        })
    }

    fn create(&self, json: &str) -> Result<()> {
        let resources = serde_json::from_str(json).unwrap();
        check(&resources)?;
        apply(&resources, &mut Writer::for_create(&self.0, &[], Vec::new()))
    }

    fn update(&self, json: &str) -> Result<()> {
        let resources = serde_json::from_str(json).unwrap();
        check(&resources)?;
        let mut writer = Writer::for_update(&self.0, Vec::new(), false);
        let done = apply(&resources, &mut writer);
        if done.is_err() {
            writer.undo();
        }
        done
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.places[0].directory().join(file)).unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.places[0].directory());
    }
}

#[track_caller]
fn refused(result: Result<()>, category: Category, pointer: &str) -> String {
    let error = result.unwrap_err();
    assert_eq!((error.category(), error.pointer()), (category, Some(pointer)), "{error}");
    error.to_string()
}

const MEMORY: [(&str, &str); 4] = [
    ("memory.max", "max"),
    ("memory.swap.max", "max"),
    ("memory.low", "0"),
    ("memory.current", "5000"),
];

#[test]
fn swap_is_what_exceeds_the_memory_limit() {
    let fake = Fake::new("swap", &MEMORY);
    fake.create(r#"{"memory": {"limit": 1000, "swap": 1500, "reservation": 10}}"#).unwrap();
    assert_eq!(fake.read("memory.max"), "1000");
    assert_eq!(fake.read("memory.swap.max"), "500");
    assert_eq!(fake.read("memory.low"), "10");
    // An update without the limit takes the one in force.
    fake.update(r#"{"memory": {"swap": 3000}}"#).unwrap();
    assert_eq!(fake.read("memory.swap.max"), "2000");
    fake.update(r#"{"memory": {"limit": -1}}"#).unwrap();
    assert_eq!(
        (fake.read("memory.max"), fake.read("memory.swap.max")),
        ("max".into(), "max".into())
    );
}

#[test]
fn swap_without_or_below_the_limit_is_refused() {
    let fake = Fake::new("noswap", &MEMORY);
    let swap = "/linux/resources/memory/swap";
    refused(fake.create(r#"{"memory": {"swap": 1500}}"#), Category::Spec, swap);
    refused(fake.create(r#"{"memory": {"limit": 2000, "swap": 1500}}"#), Category::Spec, swap);
}

#[test]
fn a_limit_below_the_usage_is_refused_where_the_spec_asks_for_the_check() {
    let fake = Fake::new("check", &MEMORY);
    let limit = "/linux/resources/memory/limit";
    let json = r#"{"memory": {"limit": 4999, "checkBeforeUpdate": true}}"#;
    refused(fake.update(json), Category::Busy, limit);
    assert_eq!(fake.read("memory.max"), "max");
    fake.update(r#"{"memory": {"limit": 5000, "checkBeforeUpdate": true}}"#).unwrap();
}

#[test]
fn what_only_version_1_has_is_refused_and_undone() {
    let fake = Fake::new("v1only", &MEMORY);
    for (json, pointer) in [
        (r#"{"memory": {"limit": 7, "swappiness": 60}}"#, "memory/swappiness"),
        (r#"{"memory": {"limit": 7, "disableOOMKiller": true}}"#, "memory/disableOOMKiller"),
        (r#"{"network": {"classID": 1}}"#, "network/classID"),
        (
            r#"{"network": {"priorities": [{"name": "eth0", "priority": 1}]}}"#,
            "network/priorities/0",
        ),
        (r#"{"cpu": {"realtimeRuntime": 100}}"#, "cpu/realtimeRuntime"),
        (r#"{"blockIO": {"leafWeight": 100}}"#, "blockIO/leafWeight"),
    ] {
        refused(fake.update(json), Category::Unsupported, &format!("/linux/resources/{pointer}"));
        assert_eq!(fake.read("memory.max"), "max");
    }
    // What engines send without meaning anything.
    fake.update(
        r#"{"memory": {"disableOOMKiller": false}, "network": {}, "blockIO": {"weight": 0}}"#,
    )
    .unwrap();
}

#[test]
fn quota_and_period_keep_each_other() {
    let fake = Fake::new(
        "cpu",
        &[("cpu.max", "max 100000"), ("cpu.weight", "100"), ("cpu.max.burst", "0")],
    );
    fake.create(r#"{"cpu": {"shares": 2048, "quota": 5000, "period": 20000, "burst": 4000}}"#)
        .unwrap();
    assert_eq!(fake.read("cpu.max"), "5000 20000");
    assert_eq!(fake.read("cpu.max.burst"), "4000");
    fake.update(r#"{"cpu": {"period": 40000}}"#).unwrap();
    assert_eq!(fake.read("cpu.max"), "5000 40000");
    // One number alone is the quota to the kernel.
    fake.update(r#"{"cpu": {"quota": -1}}"#).unwrap();
    assert_eq!(fake.read("cpu.max"), "max");
    refused(
        fake.update(r#"{"cpu": {"quota": 5000, "burst": 6000}}"#),
        Category::Spec,
        "/linux/resources/cpu/burst",
    );
}

#[test]
fn an_idle_group_gets_no_weight() {
    let fake = Fake::new("idle", &[("cpu.idle", "0"), ("cpu.weight", "100")]);
    fake.create(r#"{"cpu": {"idle": 1, "shares": 2}}"#).unwrap();
    assert_eq!((fake.read("cpu.idle"), fake.read("cpu.weight")), ("1".into(), "100".into()));
}

#[test]
fn block_io_uses_the_file_that_there_is() {
    let fake = Fake::new("io", &[("io.weight", ""), ("io.max", "")]);
    fake.create(r#"{"blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 99}]}}"#)
        .unwrap();
    assert_eq!((fake.read("io.weight"), fake.read("io.max")), ("1".into(), "8:0 rbps=99".into()));
    fake.update(
        r#"{"blockIO": {"throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}]}}"#,
    )
    .unwrap();
    assert_eq!(fake.read("io.max"), "8:0 wiops=max");
    let bfq = Fake::new("bfq", &[("io.bfq.weight", ""), ("io.weight", "")]);
    bfq.create(r#"{"blockIO": {"weightDevice": [{"major": 8, "minor": 16, "weight": 500}]}}"#)
        .unwrap();
    assert_eq!((bfq.read("io.bfq.weight"), bfq.read("io.weight")), ("8:16 500".into(), "".into()));
    refused(
        bfq.update(r#"{"blockIO": {"weight": 9}}"#),
        Category::Spec,
        "/linux/resources/blockIO/weight",
    );
}

#[test]
fn no_processes_is_a_limit_and_minus_one_is_none() {
    let fake = Fake::new("pids", &[("pids.max", "max")]);
    fake.create(r#"{"pids": {"limit": 0}}"#).unwrap();
    assert_eq!(fake.read("pids.max"), "1");
    fake.update(r#"{"pids": {"limit": -1}}"#).unwrap();
    assert_eq!(fake.read("pids.max"), "max");
}

#[test]
fn huge_pages_are_limited_with_their_reservations_and_by_real_sizes_only() {
    let fake = Fake::new("huge", &[("hugetlb.2MB.max", ""), ("hugetlb.2MB.rsvd.max", "")]);
    fake.create(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#).unwrap();
    assert_eq!(fake.read("hugetlb.2MB.rsvd.max"), "4194304");
    for size in ["../../x", "2MB/../x", "", "MB", "02MB", "2mb", "2MB.rsvd"] {
        let json = format!(r#"{{"hugepageLimits": [{{"pageSize": "{size}", "limit": 1}}]}}"#);
        refused(fake.create(&json), Category::Spec, "/linux/resources/hugepageLimits/0/pageSize");
    }
    let text = refused(
        fake.create(r#"{"hugepageLimits": [{"pageSize": "1GB", "limit": 1}]}"#),
        Category::Unsupported,
        "/linux/resources/hugepageLimits/0/limit",
    );
    assert!(text.contains(r#"write "1" to hugetlb.1GB.max"#), "{text}");
}

#[test]
fn unified_writes_any_file_line_by_line_but_no_action_and_no_path() {
    let fake =
        Fake::new("unified", &[("memory.high", ""), ("io.max", ""), ("cgroup.max.depth", "")]);
    fake.create(
        r#"{"unified": {"memory.high": "9", "io.max": "8:0 a\n8:1 b\n", "cgroup.max.depth": "3"}}"#,
    )
    .unwrap();
    assert_eq!(fake.read("memory.high"), "9");
    assert_eq!(fake.read("io.max"), "8:1 b");
    for key in ["cgroup.procs", "cgroup.kill", "../memory.max", "procs", "", ".x"] {
        let pointer = format!("/linux/resources/unified/{}", key.replace('/', "~1"));
        refused(
            fake.create(&format!(r#"{{"unified": {{"{key}": "0"}}}}"#)),
            Category::Spec,
            &pointer,
        );
    }
    for key in ["memory.nosuch", "misc.max"] {
        let pointer = format!("/linux/resources/unified/{key}");
        refused(
            fake.create(&format!(r#"{{"unified": {{"{key}": "0"}}}}"#)),
            Category::Unsupported,
            &pointer,
        );
    }
}

#[test]
fn rdma_limits_need_one_of_their_two_numbers() {
    let fake = Fake::new("rdma", &[("rdma.max", "")]);
    fake.create(r#"{"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}}}"#).unwrap();
    assert_eq!(fake.read("rdma.max"), "mlx5_1 hca_handle=3 hca_object=10000");
    refused(
        fake.create(r#"{"rdma": {"mlx5_1": {}}}"#),
        Category::Spec,
        "/linux/resources/rdma/mlx5_1",
    );
}

#[test]
fn a_limit_in_a_denied_hierarchy_names_the_first_field_and_the_way_out() {
    let fake = Fake::new("denied", &[]);
    let denied = fake.0.places.clone();
    let nowhere = Location::default();
    let resources =
        serde_json::from_str(r#"{"memory": {"limit": 5}, "pids": {"limit": 5}}"#).unwrap();
    let error =
        apply(&resources, &mut Writer::for_create(&nowhere, &denied, Vec::new())).unwrap_err();
    assert_eq!(error.category(), Category::Permission);
    assert_eq!(error.pointer(), Some("/linux/resources/memory/limit"));
    assert!(error.advice().unwrap().contains("Delegate"));
}

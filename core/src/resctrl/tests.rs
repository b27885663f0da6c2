//! The decisions, on directories that imitate the filesystem: the kernel fills a new group with
//! files, here a group that is new has none, so nothing can be written there.

use serde_json::{Value, json};

use super::*;

fn rdt(value: Value) -> LinuxIntelRdt {
    serde_json::from_value(value).unwrap()
}

/// A directory that looks like a mounted resctrl, with the group `known`.
struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Tree {
        let root =
            std::env::temp_dir().join(format!("locule-resctrl-{}-{name}", std::process::id()));
        for group in ["", "known"] {
            let directory = root.join(group);
            fs::create_dir_all(directory.join("mon_groups")).unwrap();
            fs::write(directory.join("schemata"), "    MB:0=100;1= 70\n    L3:0=7ff;1=00f\n")
                .unwrap();
        }
        fs::create_dir(root.join("info")).unwrap();
        fs::write(root.join("info/last_cmd_status"), "ok\n").unwrap();
        Tree(root)
    }

    fn make(&self, value: Value) -> Result<(Group, Made)> {
        let rdt = rdt(value);
        let group = Group::of(&rdt, "box", Some(&self.0))?;
        group.check_free()?;
        let made = group.make(&rdt)?;
        Ok((group, made))
    }

    fn entries(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const EMPTY: [&str; 4] = ["info", "known", "mon_groups", "schemata"];

#[test]
fn without_a_mounted_filesystem_it_is_refused() {
    let error = Group::of(&rdt(json!({})), "box", None).unwrap_err();
    assert_eq!((error.category(), error.pointer()), (Category::Unsupported, Some(POINTER)));
}

#[test]
fn a_group_without_a_name_has_the_containers_and_goes_with_it() {
    let tree = Tree::new("own");
    let (group, made) = tree.make(json!({})).unwrap();
    assert!(tree.0.join("box").is_dir());
    assert_eq!(group.tasks(), [tree.0.join("box/tasks")]);
    made.keep();
    group.remove().unwrap();
    assert_eq!(tree.entries(), EMPTY);
    group.remove().unwrap();
    // Another container's, or anybody's, is not taken over.
    fs::create_dir(tree.0.join("box")).unwrap();
    let error = tree.make(json!({})).unwrap_err();
    assert_eq!((error.category(), error.pointer()), (Category::Busy, Some(POINTER)));
    assert!(tree.0.join("box").is_dir());
}

#[test]
fn a_creation_that_fails_takes_its_groups_back() {
    let tree = Tree::new("failed");
    drop(tree.make(json!({ "enableMonitoring": true, "closID": "known" })).unwrap());
    assert!(!tree.0.join("known/mon_groups/box").exists());
    // The kernel would have made the file to write to.
    let error = tree.make(json!({ "l3CacheSchema": "L3:0=f" })).unwrap_err();
    assert_eq!(error.pointer(), Some("/linux/intelRdt/l3CacheSchema"));
    assert_eq!(tree.entries(), EMPTY);
}

#[test]
fn a_named_group_is_joined_and_stays() {
    let tree = Tree::new("named");
    let (group, made) = tree.make(json!({ "closID": "known" })).unwrap();
    assert_eq!(group.tasks(), [tree.0.join("known/tasks")]);
    made.keep();
    group.remove().unwrap();
    assert_eq!(tree.entries(), EMPTY);
    let (group, _made) = tree.make(json!({ "closID": "/" })).unwrap();
    assert_eq!(group.tasks(), [tree.0.join("tasks")]);
    group.remove().unwrap();
    assert_eq!(tree.entries(), EMPTY);
    let error = tree.make(json!({ "closID": "unknown" })).unwrap_err();
    assert_eq!(error.category(), Category::NotFound);
    assert_eq!(error.pointer(), Some("/linux/intelRdt/closID"));
}

#[test]
fn a_named_group_that_is_there_must_have_the_schemas() {
    let tree = Tree::new("matching");
    for (name, value) in [
        ("l3CacheSchema", "L3:0=7ff;1=f"),
        ("l3CacheSchema", "L3:1=0x0F"),
        ("memBwSchema", "MB:0=100;1=70"),
    ] {
        tree.make(json!({ "closID": "known", name: value })).unwrap();
    }
    for (name, value) in [
        ("l3CacheSchema", "L3:0=7fe;1=f"),
        ("l3CacheSchema", "L3:0=7ff;2=f"),
        ("l3CacheSchema", "L2:0=f"),
        ("memBwSchema", "MB:0=10"),
    ] {
        let error = tree.make(json!({ "closID": "known", name: value })).unwrap_err();
        assert_eq!(error.category(), Category::Exists, "{value}");
        assert_eq!(error.pointer(), Some(&*format!("/linux/intelRdt/{name}")));
    }
    assert!(fs::read_to_string(tree.0.join("known/schemata")).unwrap().starts_with("    MB"));
}

#[test]
fn schemata_are_written_last_and_in_order() {
    let all = rdt(json!({
        "closID": "a", "memBwSchema": "MB:0=50", "l3CacheSchema": "L3:0=f",
        "schemata": ["L2:0=1", "L3:0=3"],
    }));
    let lines = schema::lines(&all);
    let lines: Vec<_> = lines.iter().map(|line| (line.text, line.must_match)).collect();
    assert_eq!(lines, [("L3:0=f", true), ("MB:0=50", true), ("L2:0=1", false), ("L3:0=3", false)]);
    // Also where the group was there.
    let tree = Tree::new("schemata");
    tree.make(json!({ "closID": "known", "schemata": ["L3:0=3"] })).unwrap();
    let text = fs::read_to_string(tree.0.join("known/schemata")).unwrap();
    assert!(text.starts_with("L3:0=3\n"), "{text}");
}

#[test]
fn a_monitoring_group_goes_with_the_container() {
    let tree = Tree::new("monitor");
    let (group, made) = tree.make(json!({ "closID": "known", "enableMonitoring": true })).unwrap();
    let monitor = tree.0.join("known/mon_groups/box");
    assert!(monitor.is_dir());
    // A task comes into it by way of the control group.
    assert_eq!(group.tasks(), [tree.0.join("known/tasks"), monitor.join("tasks")]);
    made.keep();
    group.remove().unwrap();
    assert!(!monitor.exists());
}

#[test]
fn the_mount_is_found() {
    let line = |root: &str, kind: &str| {
        format!("30 24 0:26 {root} /sys/fs/resctrl rw,relatime shared:9 - {kind} {kind} rw")
    };
    assert_eq!(mount_point(&line("/", "resctrl")), Some("/sys/fs/resctrl".into()));
    // Of a part of it nobody could know what is above.
    assert_eq!(mount_point(&line("/a", "resctrl")), None);
    assert_eq!(mount_point(&line("/", "sysfs")), None);
    assert_eq!(mount_point("nonsense"), None);
}

//! Namespaces of another container, joined by their paths.

use std::path::Path;

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    a_container_can_join_each_kind_of_namespace,
    a_container_can_join_a_user_namespace,
    a_container_can_join_all_but_the_mounts_of_a_pod,
    message_queues_belong_to_the_containers_root,
    a_writable_cgroup_belongs_to_the_containers_root,
    controllers_are_shown_without_programs_and_devices,
    of_a_hybrid_version_2_alone_can_be_shown,
];

/// Lets the configuration join this namespace of the container.
fn join(spec: &mut Value, kind: &str, file: &str, container: &dyn Container) {
    let path = format!("/proc/{}/ns/{file}", container.init().pid());
    let list = spec["linux"]["namespaces"].as_array_mut().expect("namespaces");
    list.retain(|namespace| namespace["type"] != kind);
    list.push(json!({ "type": kind, "path": path }));
    if kind == "uts" {
        spec.as_object_mut().unwrap().remove("hostname");
    }
}

const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

fn namespace(container: &dyn Container, file: &str) -> String {
    let link = std::fs::read_link(format!("/proc/{}/ns/{file}", container.init().pid()));
    link.expect("a namespace").to_str().unwrap().to_owned()
}

fn a_container_can_join_each_kind_of_namespace(t: &Test) {
    t.need_root();
    let mut spec = t.spec(&["/bin/sleep", "1000"]);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
    let other = t.start("other", &spec);
    for (kind, file) in KINDS {
        let mut spec = t.shell(&format!("readlink /proc/self/ns/{file}"));
        join(&mut spec, kind, file, &*other);
        assert_eq!(t.run(&spec).success(), namespace(&*other, file), "{kind}");
    }
    other.delete(true).expect("delete");
}

/// A container with a user namespace of which root is not the host's.
fn pod(t: &Test) -> Arc<dyn Container> {
    let mut spec = t.spec(&["/bin/sleep", "1000"]);
    let linux = &mut spec["linux"];
    let list = linux["namespaces"].as_array_mut().unwrap();
    list.extend([json!({ "type": "user" }), json!({ "type": "time" })]);
    linux["uidMappings"] = json!([{ "containerID": 0, "hostID": 300000, "size": 1000 }]);
    linux["gidMappings"] = json!([{ "containerID": 0, "hostID": 300000, "size": 1000 }]);
    t.start("pod", &spec)
}

fn message_queues_belong_to_the_containers_root(t: &Test) {
    t.need_root();
    let pod = pod(t);
    let owner = "stat -c %u /dev/mqueue";
    assert_eq!(exec_shell(&*pod, owner), "0");
    // Queues of its own in a user namespace that is joined.
    let mut spec = t.shell(owner);
    join(&mut spec, "user", "user", &*pod);
    assert_eq!(t.run(&spec).success(), "0");
    pod.delete(true).expect("delete");
}

fn a_container_can_join_a_user_namespace(t: &Test) {
    t.need_root();
    let pod = pod(t);
    let mut spec = t.shell(
        "readlink /proc/self/ns/user; id -u; ulimit -n; ip addr show lo | grep -o LOOPBACK,UP",
    );
    spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 88 }]);
    join(&mut spec, "user", "user", &*pod);
    let expected = format!("{}\n0\n77\nLOOPBACK,UP", namespace(&*pod, "user"));
    assert_eq!(t.run(&spec).success(), expected);
    let mut spec = t.spec(&["/bin/sleep", "1000"]);
    join(&mut spec, "user", "user", &*pod);
    let container = t.start("a", &spec);
    assert_eq!(exec_shell(&*container, "readlink /proc/self/ns/user"), namespace(&*pod, "user"));
    container.delete(true).expect("delete");
    pod.delete(true).expect("delete");
}

fn a_container_can_join_all_but_the_mounts_of_a_pod(t: &Test) {
    t.need_root();
    let pod = pod(t);
    let mut spec = t.shell(
        "for kind in user pid net ipc uts cgroup time; do
        test $(readlink /proc/self/ns/$kind) = $(readlink /proc/1/ns/$kind) || echo $kind; done
        test $(readlink /proc/self/ns/mnt) = $(readlink /proc/1/ns/mnt) || echo mnt",
    );
    for (kind, file) in KINDS.into_iter().chain([("user", "user")]) {
        join(&mut spec, kind, file, &*pod);
    }
    assert_eq!(t.run(&spec).success(), "mnt");
    pod.delete(true).expect("delete");
}

/// Makes this a machine with cgroup v2 alone, for this process, unless it is one.
fn only_cgroup_v2(t: &Test) {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return;
    }
    let none = std::ptr::null();
    let (cgroup, kind) = (c"/sys/fs/cgroup".as_ptr(), c"cgroup2".as_ptr());
    // SAFETY: C strings and integers; this process has one thread.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast())
                == 0
            && libc::mount(kind, cgroup, kind, 0, none.cast()) == 0
    };
    if !mounted {
        t.skip("cgroup v2");
    }
}

fn a_writable_cgroup_belongs_to_the_containers_root(t: &Test) {
    t.need_root();
    only_cgroup_v2(t);
    let made = "mkdir /sys/fs/cgroup/below && echo made";
    let spec = |options: &[&str]| {
        let mut spec = t.shell(&format!("{made}; test -d /sys/fs/cgroup/below || echo none"));
        let linux = &mut spec["linux"];
        linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        for map in ["uidMappings", "gidMappings"] {
            linux[map] = json!([{ "containerID": 0, "hostID": 300000, "size": 1000 }]);
        }
        let mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup",
                            "source": "cgroup", "options": options });
        spec["mounts"].as_array_mut().unwrap().push(mount);
        spec
    };
    assert_eq!(t.run(&spec(&["rw"])).success(), "made");
    assert_eq!(t.run(&spec(&["ro"])).success(), "none");
    // Every controller can be handed on, and no limit of the container itself can be changed.
    let mut hand_on = spec(&["rw"]);
    hand_on["process"]["args"][2] = json!(
        "cd /sys/fs/cgroup && mkdir own && echo 1 > own/cgroup.procs && echo $$ > own/cgroup.procs
        for name in $(cat cgroup.controllers); do
            echo +$name > cgroup.subtree_control || echo no $name
        done
        for limit in *.max; do (echo max > $limit) 2> /dev/null && echo changed $limit; done; true"
    );
    assert_eq!(t.run(&hand_on).success(), "");
}

/// Where the container sees its cgroups, and with which options these are mounted.
fn cgroup_mounts(t: &Test, kind: &str) -> Vec<(String, String)> {
    let mut spec = t.shell("cut -d ' ' -f 5,6 /proc/self/mountinfo");
    let mount = json!({ "destination": "/sys/fs/cgroup", "type": kind, "source": "cgroup",
                        "options": ["ro"] });
    spec["mounts"].as_array_mut().unwrap().push(mount);
    let text = t.run(&spec).success();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let own = lines.filter(|(place, _)| place.starts_with("/sys/fs/cgroup"));
    own.map(|(place, options)| (place.to_owned(), options.to_owned())).collect()
}

fn controllers_are_shown_without_programs_and_devices(t: &Test) {
    t.need_root();
    if !Path::new("/sys/fs/cgroup/memory").exists() {
        t.skip("cgroup version 1");
    }
    let mounts = cgroup_mounts(t, "cgroup");
    let memory = mounts.iter().find(|(place, _)| place == "/sys/fs/cgroup/memory");
    assert_eq!(memory.expect("a mount").1, "ro,nosuid,nodev,noexec,relatime");
}

fn of_a_hybrid_version_2_alone_can_be_shown(t: &Test) {
    t.need_root();
    if !Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        t.skip("root on a hybrid machine");
    }
    let mounts = cgroup_mounts(t, "cgroup2");
    assert_eq!(mounts, [("/sys/fs/cgroup".to_owned(), "ro,relatime".to_owned())]);
}

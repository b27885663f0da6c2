//! Containers of those who are not root, or only in a user namespace.

use std::os::unix::fs::chown;
use std::process::Command;

use locule_lifecycle::prelude::*;
use locule_lifecycle::{bundle, runner};

pub const CASES: &[Case] = cases![
    an_ordinary_user_runs_containers,
    an_ordinary_user_with_subordinate_ids_has_them_in_the_container,
    an_ordinary_user_with_a_delegated_cgroup_can_use_it,
    an_ordinary_user_can_overlay_a_root,
    that_user_namespaces_are_forbidden_is_said,
    root_of_a_user_namespace_runs_containers,
    a_signal_for_all_is_refused_where_nobody_knows_them,
];

pub const HELPERS: &[Case] = cases![
    user,
    subordinate,
    delegated,
    delegated_to_root,
    overlaying,
    forbidden,
    nested,
    cgroupless
];

/// Somebody whom this machine does not know.
const USER: u32 = 54321;

/// Runs a helper as this user, with a state directory of its own.
pub fn as_user(t: &Test, helper: &str, through: &[&str]) {
    t.need_root();
    std::fs::create_dir_all(&t.state_dir).expect("mkdir");
    chown(&t.state_dir, Some(USER), Some(USER)).expect("chown");
    let prefix = ["--reuid=54321", "--regid=54321", "--clear-groups"];
    let allowed = Command::new("setpriv").args(prefix).args(["unshare", "-Ur", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        t.skip("setpriv, unshare, and user namespaces for ordinary users");
    }
    // Where the user may execute it.
    let program = t.dir.join("program");
    std::fs::copy("/proc/self/exe", &program).expect("copy");
    let mut command = Command::new("setpriv");
    command.args(prefix).args(through).arg(program).args(["--case", t.face.name(), helper]);
    Helper::start(command).finish();
    std::fs::remove_dir(&t.state_dir).expect("an empty state directory");
}

pub fn user_spec(t: &Test, script: &str) -> Value {
    let mut spec = t.shell(script);
    bundle::make_rootless(&mut spec, USER, USER);
    spec
}

fn user(t: &Test) {
    let spec = user_spec(t, "id -u; cat /proc/self/uid_map | tr -s ' '");
    assert_eq!(t.run(&spec).success(), "0\n 0 54321 1");
    let container = t.start("a", &user_spec(t, "sleep 1000"));
    assert_eq!(exec_shell(&*container, "id -u"), "0");
    // Another handle knows only from the state directory which cgroups could be made.
    let opened = t.engine().open(&t.id("a")).expect("open");
    assert_eq!(exec_shell(&*opened, "id -u"), "0");
    container.delete(true).expect("delete");
    let mut spec = user_spec(t, "true");
    let mount = json!({ "destination": "/mnt", "source": t.dir, "options": ["bind", "idmap"] });
    spec["mounts"].as_array_mut().unwrap().push(mount);
    let failure = t.refused(&t.options("b", &spec));
    failure.must_be(Category::Unsupported, Stage::Compile).at("/mounts/7");
}

fn an_ordinary_user_runs_containers(t: &Test) {
    as_user(t, "user", &[]);
}

/// From here on this process has mounts of its own.
pub fn own_mounts() {
    // SAFETY: C strings and integers; this process has one thread.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        let (private, none) = (libc::MS_REC | libc::MS_PRIVATE, std::ptr::null());
        assert_eq!(libc::mount(none, c"/".as_ptr(), none, private, none.cast()), 0);
        // A place for files that are mounted elsewhere.
        let tmpfs = c"tmpfs".as_ptr();
        assert_eq!(libc::mount(tmpfs, c"/mnt".as_ptr(), tmpfs, 0, none.cast()), 0);
    }
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {args:?}");
}

fn subordinate(t: &Test) {
    let mut spec = user_spec(
        t,
        "tr -s ' ' </proc/self/uid_map; id; touch /tmp/a /tmp/b; \
                                 chown 5:6 /tmp/a; stat -c '%u %g' /tmp/a",
    );
    for (map, own) in [("uidMappings", USER), ("gidMappings", USER)] {
        spec["linux"][map] = json!([
            { "containerID": 0, "hostID": own, "size": 1 },
            { "containerID": 1, "hostID": 400_000, "size": 1000 },
        ]);
    }
    spec["process"]["user"] = json!({ "uid": 0, "gid": 0, "additionalGids": [7] });
    let expected = " 0 54321 1\n 1 400000 1000\nuid=0(root) gid=0(root) groups=7\n5 6";
    assert_eq!(t.run(&spec).success().replace("groups=0(root),7", "groups=7"), expected);
    // Someone else's ids.
    spec["linux"]["uidMappings"][1]["hostID"] = json!(500_000);
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Permission, Stage::Namespaces).at("/linux/uidMappings");
    assert!(failure.hint.contains("/etc/subuid"), "{}", failure.hint);
}

fn an_ordinary_user_with_subordinate_ids_has_them_in_the_container(t: &Test) {
    t.need_root();
    if !std::path::Path::new("/usr/bin/newuidmap").exists() {
        t.skip("newuidmap (package uidmap)");
    }
    own_mounts();
    let passwd = std::fs::read_to_string("/etc/passwd").expect("passwd");
    let range = format!("{USER}:400000:1000\n");
    for (file, text) in [
        ("passwd", format!("{passwd}somebody:x:{USER}:{USER}::/:/bin/sh\n")),
        ("subuid", range.clone()),
        ("subgid", range),
    ] {
        let copy = format!("/mnt/{file}");
        std::fs::write(&copy, text).expect("write");
        let target = format!("/etc/{file}");
        // A machine that has no such file cannot be given one for this case alone.
        if !std::path::Path::new(&target).exists() {
            t.skip(&target);
        }
        run("mount", &["--bind", &copy, &target]);
    }
    as_user(t, "subordinate", &[]);
}

fn delegated(t: &Test) {
    let container = t.start("a", &user_spec(t, "sleep 1000 & sleep 1000"));
    assert!(!container.pids().expect("pids").is_empty());
    container.pause().expect("pause");
    assert_eq!(container.status(), "paused");
    container.resume().expect("resume");
    container.signal(libc::SIGTERM, true).expect("signal");
    container.delete(true).expect("delete");
    let mut spec = user_spec(t, "true");
    spec["linux"]["resources"] = json!({ "memory": { "limit": 1 << 26 } });
    let failure = t.refused(&t.options("b", &spec));
    failure.at("/linux/resources/memory/limit");
    let listed = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").expect("read");
    if listed.contains("memory") {
        // This process is in the user's only cgroup.
        failure.must_be(Category::Busy, Stage::Cgroup);
        assert!(failure.hint.contains("a cgroup with processes"), "{}", failure.hint);
    } else {
        failure.must_be(Category::Unsupported, Stage::Cgroup);
    }
}

/// Root of a user namespace has no more than the user outside.
fn delegated_to_root(t: &Test) {
    let container = t.sleeper("a");
    container.pause().expect("pause");
    container.resume().expect("resume");
    container.delete(true).expect("delete");
}

fn an_ordinary_user_with_a_delegated_cgroup_can_use_it(t: &Test) {
    t.need_root();
    own_mounts();
    let none = std::ptr::null();
    // SAFETY: C strings and integers.
    let mounted = unsafe {
        let root = c"/sys/fs/cgroup".as_ptr();
        libc::umount2(root, libc::MNT_DETACH) == 0
            && libc::mount(c"cgroup2".as_ptr(), root, c"cgroup2".as_ptr(), 0, none) == 0
    };
    if !mounted {
        t.skip("cgroup v2");
    }
    /// Removed whatever happens.
    struct Delegated(String);
    impl Drop for Delegated {
        fn drop(&mut self) {
            let _ = std::fs::write("/sys/fs/cgroup/cgroup.procs", "0");
            let removed = || {
                // What all containers of the user share stays.
                let _ = std::fs::remove_dir(format!("{}/locule", self.0));
                std::fs::remove_dir(&self.0).is_ok()
            };
            // The user's last keeper may still be at its end.
            if std::thread::panicking() {
                removed();
            } else {
                eventually("the user leaves no cgroup", removed);
            }
        }
    }
    let directory = format!("/sys/fs/cgroup/locule-delegated-{}", std::process::id());
    std::fs::create_dir(&directory).expect("mkdir");
    let delegated = Delegated(directory.clone());
    for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        let path = format!("{directory}/{file}");
        chown(&path, Some(USER), Some(USER)).expect("chown");
    }
    std::fs::write(format!("{directory}/cgroup.procs"), "0").expect("enter the cgroup");
    as_user(t, "delegated", &[]);
    as_user(t, "delegated_to_root", &["unshare", "-Ur"]);
    drop(delegated);
}

fn overlaying(t: &Test) {
    let options = |spec: &Value| Create { rootfs: Rootfs::Overlay, ..t.options("run", spec) };
    // The files are another user's, the root is the container's own.
    let mut spec = user_spec(t, "cat /etc/secret; echo new >/new && cat /new");
    spec["root"]["readonly"] = json!(false);
    assert_eq!(t.run_with(options(&spec)).success(), "secret\nnew");
    assert!(!t.rootfs.join("new").exists());
    spec["root"] = json!({ "path": "/" });
    spec["process"]["args"] = json!(["/bin/sh", "-c", "echo new >/etc/new && cat /etc/new"]);
    assert_eq!(t.run_with(options(&spec)).success(), "new");
}

fn an_ordinary_user_can_overlay_a_root(t: &Test) {
    as_user(t, "overlaying", &[]);
}

fn forbidden(t: &Test) {
    let mut spec = t.spec(&["/bin/true"]);
    bundle::make_rootless(&mut spec, 0, 0);
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Resource, Stage::Namespaces).says("its namespaces");
    assert!(failure.hint.contains("/proc/sys/user/max_"), "{}", failure.hint);
}

fn that_user_namespaces_are_forbidden_is_said(t: &Test) {
    let forbid = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
    as_user(t, "forbidden", &["unshare", "-Ur", "/bin/sh", "-c", forbid, "sh"]);
}

fn nested(t: &Test) {
    assert_eq!(t.inside("id -u"), "0");
    let container = t.sleeper("a");
    assert_eq!(exec_shell(&*container, "id -u"), "0");
    container.delete(true).expect("delete");
    // The host's own files.
    let mut spec = t.spec(&["/bin/sh", "-c", "echo new > /etc/new && cat /etc/new"]);
    spec["root"] = json!({ "path": "/" });
    let options = Create { rootfs: Rootfs::Overlay, ..t.options("run", &spec) };
    assert_eq!(t.run_with(options).success(), "new");
}

fn root_of_a_user_namespace_runs_containers(t: &Test) {
    as_user(t, "nested", &["unshare", "-Ur"]);
}

fn cgroupless(t: &Test) {
    let container = t.start("a", &user_spec(t, "sleep 1000 & sleep 1000"));
    if container.pids().is_ok() {
        container.delete(true).expect("delete");
        println!("skipped: a user without cgroups");
        std::process::exit(runner::SKIPPED);
    }
    let failure = refused(container.signal(libc::SIGTERM, true));
    failure.must_be(Category::Unsupported, Stage::Cgroup);
    // This one takes the others along in any case.
    container.signal(libc::SIGKILL, true).expect("signal");
    ended(&*container.init());
    container.delete(false).expect("delete");
}

fn a_signal_for_all_is_refused_where_nobody_knows_them(t: &Test) {
    as_user(t, "cgroupless", &[]);
}

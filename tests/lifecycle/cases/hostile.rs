//! Images and programs that mean harm.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use locule_lifecycle::bundle;
use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    a_state_directory_that_others_control_is_refused,
    the_hosts_null_device_is_out_of_reach,
    a_process_in_the_making_holds_no_directory_of_the_host,
    a_container_without_a_mount_namespace_is_refused,
    mounts_over_proc_are_refused,
    a_link_of_the_image_leads_no_mount_over_proc,
];

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// A null device at `/dev/null` that only this case has.
fn own_null_device(t: &Test) -> PathBuf {
    let null = t.dir.join("null");
    let path = c_path(&null);
    // SAFETY: C strings and integers; this process has one thread.
    unsafe {
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let none = std::ptr::null();
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        assert_eq!(libc::mount(none, c"/".as_ptr(), none, private, none.cast()), 0);
        assert_eq!(libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 3)), 0);
        let target = c"/dev/null".as_ptr();
        assert_eq!(libc::mount(path.as_ptr(), target, none, libc::MS_BIND, none.cast()), 0);
    }
    null
}

/// A root filesystem that only this case has.
fn own_root(t: &Test) -> PathBuf {
    let root = t.dir.join("root");
    let busybox = bundle::busybox().expect("busybox");
    bundle::make_rootfs(&root, &busybox).expect("make a root filesystem");
    root
}

fn the_hosts_null_device_is_out_of_reach(t: &Test) {
    t.need_root();
    let null = own_null_device(t);
    let before = fs::metadata(&null).expect("stat");
    let script =
        "for fd in 0 1 2; do chmod 777 /proc/self/fd/$fd; chown 7:7 /proc/self/fd/$fd; done";
    let first = t.start("a", &t.shell(script));
    ended(&*first.init());
    first.delete(false).expect("delete");
    let container = t.sleeper("b");
    let process = container.exec(&Exec::of(&["/bin/sh", "-c", script])).expect("exec");
    ended(&*process);
    container.delete(true).expect("delete");
    let after = fs::metadata(&null).expect("stat");
    assert_eq!((after.mode(), after.uid()), (before.mode(), before.uid()));
}

fn a_container_without_a_mount_namespace_is_refused(t: &Test) {
    let mut spec = t.spec(&["/bin/true"]);
    let linux = spec["linux"].as_object_mut().unwrap();
    linux.remove("maskedPaths");
    linux.remove("readonlyPaths");
    linux["namespaces"].as_array_mut().unwrap().retain(|entry| entry["type"] != "mount");
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Unsupported, Stage::Compile).at("/linux/namespaces");
    spec.as_object_mut().unwrap().remove("linux");
    spec.as_object_mut().unwrap().remove("hostname");
    assert_eq!(t.refused(&t.options("a", &spec)).category, Category::Unsupported);
}

fn with_mount(mut spec: Value, mount: Value) -> Value {
    spec["mounts"].as_array_mut().unwrap().push(mount);
    spec
}

fn mounts_over_proc_are_refused(t: &Test) {
    for destination in ["/proc", "/proc/sys", "/proc/1/attr", "/tmp/../proc/self", "proc/sys"] {
        let mount = json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" });
        let spec = with_mount(t.spec(&["/bin/true"]), mount);
        let failure = t.refused(&t.options("a", &spec));
        failure.must_be(Category::Spec, Stage::Validate).at("/mounts/7/destination");
    }
    let bind = |destination: &str, source: &str| {
        let options = ["bind", "ro"];
        let mount = json!({ "destination": destination, "source": source, "options": options });
        with_mount(t.shell("cat /proc/uptime"), mount)
    };
    let failure = t.refused(&t.options("a", &bind("/proc", t.dir.to_str().unwrap())));
    assert_eq!((failure.category, &*failure.pointer), (Category::System, "/mounts/7"), "{failure}");
    // lxcfs does this.
    let uptime = t.dir.join("uptime");
    fs::write(&uptime, "12.00 34.00\n").expect("write");
    let spec = bind("/proc/uptime", uptime.to_str().unwrap());
    assert_eq!(t.run(&spec).success(), "12.00 34.00");
}

fn a_link_of_the_image_leads_no_mount_over_proc(t: &Test) {
    let root = own_root(t);
    symlink("/proc/sys", root.join("data")).expect("symlink");
    symlink("proc", root.join("more")).expect("symlink");
    for destination in ["/data", "/data/kernel", "/more"] {
        let mount = json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" });
        let spec = with_mount(bundle::spec(&root, &["/bin/true"]), mount);
        let failure = t.refused(&t.options("a", &spec));
        failure.must_be(Category::Spec, Stage::Mounts).at("/mounts/7");
    }
}

fn a_state_directory_that_others_control_is_refused(t: &Test) {
    t.need_root();
    fs::create_dir(&t.state_dir).expect("mkdir");
    // SAFETY: a C string and integers.
    assert_eq!(unsafe { libc::chown(c_path(&t.state_dir).as_ptr(), 12345, 12345) }, 0);
    let failure = refused(t.another_engine());
    failure.must_be(Category::Permission, Stage::State).says("another user");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::chown(c_path(&t.state_dir).as_ptr(), 0, 0) }, 0);
    fs::set_permissions(&t.state_dir, PermissionsExt::from_mode(0o1777)).expect("chmod");
    let failure = refused(t.another_engine());
    failure.must_be(Category::Permission, Stage::State).says("by others");
    fs::set_permissions(&t.state_dir, PermissionsExt::from_mode(0o755)).expect("chmod");
    t.another_engine().expect("open a runtime");
}

fn a_process_in_the_making_holds_no_directory_of_the_host(t: &Test) {
    let list = t.dir.join("list");
    let script = format!(
        r#"pid=$(sed 's/.*"pid":\([0-9]*\).*/\1/'); ls -l /proc/$pid/fd >{}"#,
        list.display()
    );
    let mut spec = t.spec(&["/bin/true"]);
    let env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"];
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": env });
    spec["hooks"] = json!({ "createRuntime": [hook] });
    t.create("a", &spec).delete(false).expect("delete");
    let list = fs::read_to_string(&list).expect("the list of the hook");
    assert!(list.contains("/dev/null") && !list.contains("/sys/fs/cgroup"), "{list}");
}

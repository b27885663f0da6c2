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
    links_in_the_place_of_proc_and_sys_are_refused,
    a_root_that_changes_meanwhile_leads_nothing_outside,
    a_working_directory_among_open_descriptors_is_refused,
    a_root_that_changes_meanwhile_uncovers_nothing,
    masks_and_devices_follow_links_inside_the_root_only,
    a_fifo_in_the_place_of_passwd_hangs_nothing,
    a_passwd_file_without_an_end_is_not_read_to_it,
    exec_gives_no_inheritable_or_ambient_capabilities,
];

pub fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// From here on this process has mounts of its own.
pub fn own_mounts() {
    // SAFETY: C strings and integers; this process has one thread.
    unsafe {
        let (private, none) = (libc::MS_REC | libc::MS_PRIVATE, std::ptr::null());
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        assert_eq!(libc::mount(none, c"/".as_ptr(), none, private, none.cast()), 0);
    }
}

/// A null device at `/dev/null` that only this case has.
pub fn own_null_device(t: &Test) -> PathBuf {
    let null = t.dir.join("null");
    let path = c_path(&null);
    own_mounts();
    // SAFETY: C strings and integers.
    unsafe {
        let none = std::ptr::null::<libc::c_char>();
        assert_eq!(libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 3)), 0);
        let target = c"/dev/null".as_ptr();
        assert_eq!(libc::mount(path.as_ptr(), target, none, libc::MS_BIND, none.cast()), 0);
    }
    null
}

/// A root filesystem that only this case has.
pub fn own_root(t: &Test) -> PathBuf {
    let root = t.dir.join("root");
    let busybox = bundle::busybox().expect("busybox");
    bundle::make_rootfs(&root, &busybox).expect("make a root filesystem");
    root
}

// Without own_null in settings.rs this fails: root in the container changes the mode of the host's
// /dev/null through its standard streams.
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

pub fn with_mount(mut spec: Value, mount: Value) -> Value {
    spec["mounts"].as_array_mut().unwrap().push(mount);
    spec
}

// Without check_proc in validate/mounts.rs this fails (CVE-2019-16884).
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

// Without refuse_hidden_proc in mount.rs this fails (CVE-2019-16884): the tmpfs hides /proc/sys.
pub fn a_link_of_the_image_leads_no_mount_over_proc(t: &Test) {
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

// Without check_owner in runtime.rs this fails.
fn a_state_directory_that_others_control_is_refused(t: &Test) {
    t.need_root();
    fs::create_dir(&t.state_dir).expect("mkdir");
    // SAFETY: a C string and integers.
    assert_eq!(unsafe { libc::chown(c_path(&t.state_dir).as_ptr(), 12345, 12345) }, 0);
    let failure = refused(t.another_engine());
    failure.must_be(Category::Permission, Stage::State).says("another user");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::chown(c_path(&t.state_dir).as_ptr(), 0, 0) }, 0);
    fs::set_permissions(&t.state_dir, PermissionsExt::from_mode(0o777)).expect("chmod");
    let failure = refused(t.another_engine());
    failure.must_be(Category::Permission, Stage::State).says("by others");
    // Where others can add, but not change.
    fs::set_permissions(&t.state_dir, PermissionsExt::from_mode(0o1777)).expect("chmod");
    let theirs = t.state_dir.join(t.id("a"));
    fs::create_dir(&theirs).expect("mkdir");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::chown(c_path(&theirs).as_ptr(), 12345, 12345) }, 0);
    let engine = t.another_engine().expect("open a runtime");
    refused(engine.open(&t.id("a"))).must_be(Category::Permission, Stage::State);
    refused(engine.create(&t.options("a", &t.spec(&["/bin/true"]))));
    assert!(theirs.exists());
    fs::remove_dir(&theirs).expect("rmdir");
}

// Where settle in child.rs keeps what only the keeper needed this fails (CVE-2016-9962): the
// host's cgroup directory is among the descriptors.
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

// Without STRICT_TARGET in compile/filesystem.rs this fails (CVE-2019-19921, CVE-2023-27561):
// procfs is mounted where the link leads.
fn links_in_the_place_of_proc_and_sys_are_refused(t: &Test) {
    let root = own_root(t);
    for (name, index) in [("proc", 0), ("sys", 5)] {
        fs::remove_dir(root.join(name)).expect("rmdir");
        for target in ["tmp", "/tmp"] {
            symlink(target, root.join(name)).expect("symlink");
            let spec = bundle::spec(&root, &["/bin/true"]);
            let failure = t.refused(&t.options("a", &spec));
            failure.must_be(Category::Spec, Stage::Mounts).at(&format!("/mounts/{index}"));
            fs::remove_file(root.join(name)).expect("rm");
        }
        fs::create_dir(root.join(name)).expect("mkdir");
    }
}

// Without RESOLVE_IN_ROOT in path.rs this fails (CVE-2021-30465, CVE-2024-45310): directories to
// mount on, or the device, are made outside.
pub fn a_root_that_changes_meanwhile_leads_nothing_outside(t: &Test) {
    let root = own_root(t);
    let outside = t.dir.join("outside");
    fs::create_dir(&outside).expect("mkdir");
    fs::create_dir_all(root.join("way/b")).expect("mkdir");
    let up = "../".repeat(20);
    symlink(format!("{up}{}", outside.display()), root.join("other")).expect("symlink");
    let (one, other) = (c_path(&root.join("way")), c_path(&root.join("other")));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::SeqCst) {
                let (here, exchange) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
                // SAFETY: C strings and integers.
                unsafe {
                    libc::renameat2(here, one.as_ptr(), here, other.as_ptr(), exchange);
                }
            }
        });
        for round in 0..100 {
            let destination = format!("/way/b/{round}/d");
            let mount = json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs" });
            let mut spec = with_mount(bundle::spec(&root, &["/bin/true"]), mount);
            spec["process"]["cwd"] = json!(format!("/way/cwd-{round}"));
            let device = json!({ "path": format!("/way/node-{round}"), "type": "c",
                                 "major": 1, "minor": 3 });
            spec["linux"]["devices"] = json!([device]);
            if let Ok(container) = t.engine().create(&t.options("a", &spec)) {
                container.delete(true).expect("delete");
            }
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    assert_eq!(fs::read_dir(&outside).expect("the directory").count(), 0);
}

// Without mounted_at in device.rs this fails: another container with the same root, here a thread,
// renames the directory that /proc is mounted on, with the mount, and what was to be masked or
// write-protected below /proc is not found and left open below the other name.
fn a_root_that_changes_meanwhile_uncovers_nothing(t: &Test) {
    t.need_root();
    let root = own_root(t);
    fs::create_dir(root.join("other")).expect("mkdir");
    let (one, other) = (c_path(&root.join("proc")), c_path(&root.join("other")));
    let script = "for proc in /proc /other; do test -d $proc/sys/kernel || continue; \
                  test -c $proc/keys || echo keys; \
                  (: >>$proc/sys/kernel/panic) 2>/dev/null && echo sys; done; echo end";
    // Held while the names must stay as they are; true at the end.
    let done = std::sync::Mutex::new(false);
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                // Kept over the exchange: none may begin before and happen after.
                let done = done.lock().unwrap();
                if *done {
                    break;
                }
                let (here, exchange) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
                // SAFETY: C strings and integers.
                unsafe {
                    libc::renameat2(here, one.as_ptr(), here, other.as_ptr(), exchange);
                }
            }
        });
        let mut found = Vec::new();
        for _ in 0..60 {
            let spec = bundle::spec(&root, &["/bin/sh", "-c", script]);
            let mut options = t.options("a", &spec);
            options.stdio[1] = Stream::Pipe;
            let Ok(container) = t.engine().create(&options) else { continue };
            let _still = done.lock().unwrap();
            if container.start(None).is_ok() {
                found.push(output_of(&*container.init()).stdout);
            }
            container.delete(true).expect("delete");
        }
        *done.lock().unwrap() = true;
        found
    });
    assert!(!found.is_empty(), "no container was created");
    assert_eq!(found.iter().find(|seen| *seen != "end\n"), None);
}

fn a_working_directory_among_open_descriptors_is_refused(t: &Test) {
    let container = t.sleeper("b");
    for number in 3..24 {
        let cwd = format!("/proc/self/fd/{number}");
        let mut spec = t.spec(&["/bin/true"]);
        spec["process"]["cwd"] = json!(cwd);
        refused(t.engine().create(&t.options("a", &spec)));
        let process = json!({ "args": ["/bin/true"], "cwd": cwd });
        refused(container.exec(&Exec { process, ..Exec::of(&[]) }));
    }
    container.delete(true).expect("delete");
}

// Without RESOLVE_IN_ROOT in path.rs this fails (CVE-2026-41579): the device is made outside.
pub fn masks_and_devices_follow_links_inside_the_root_only(t: &Test) {
    let root = own_root(t);
    let outside = t.dir.join("outside");
    fs::create_dir(&outside).expect("mkdir");
    fs::write(outside.join("file"), "host\n").expect("write");
    symlink(&outside, root.join("away")).expect("symlink");
    let mut spec = bundle::spec(&root, &["/bin/sh", "-c", "echo well"]);
    let path = |name: &str| format!("/away/{name}");
    spec["linux"]["maskedPaths"] = json!([path("file"), "/etc/secret"]);
    spec["linux"]["readonlyPaths"] = json!([path("")]);
    spec["linux"]["devices"] =
        json!([{ "path": path("node"), "type": "c", "major": 1, "minor": 3 }]);
    assert_eq!(t.run(&spec).success(), "well");
    assert_eq!(fs::read_to_string(outside.join("file")).expect("read"), "host\n");
    assert_eq!(fs::read_dir(&outside).expect("the directory").count(), 1);
}

fn a_fifo_in_the_place_of_passwd_hangs_nothing(t: &Test) {
    let root = own_root(t);
    let passwd = root.join("etc/passwd");
    fs::remove_file(&passwd).expect("rm");
    // SAFETY: a C string and an integer.
    assert_eq!(unsafe { libc::mkfifo(c_path(&passwd).as_ptr(), 0o644) }, 0);
    let mut spec = bundle::spec(&root, &["/bin/sh", "-c", "echo $HOME"]);
    spec["process"]["env"] = json!(["PATH=/bin"]);
    assert_eq!(t.run(&spec).success(), "/");
}

// Without PASSWD_READS in program.rs this hangs.
fn a_passwd_file_without_an_end_is_not_read_to_it(t: &Test) {
    let root = own_root(t);
    let passwd = fs::File::create(root.join("etc/passwd")).expect("create");
    passwd.set_len(1 << 43).expect("a sparse file");
    let mut spec = bundle::spec(&root, &["/bin/sh", "-c", "echo $HOME"]);
    spec["process"]["env"] = json!(["PATH=/bin"]);
    assert_eq!(t.run(&spec).success(), "/");
}

// Where compile/process.rs makes the permitted ones inheritable this fails (CVE-2022-27650).
fn exec_gives_no_inheritable_or_ambient_capabilities(t: &Test) {
    let container = t.sleeper("a");
    let script = "grep -E 'Cap(Inh|Amb)' /proc/self/status | sort -u | cut -f2 | sort -u";
    for user in [0, 1000] {
        let process = json!({ "args": ["/bin/sh", "-c", script], "user": { "uid": user, "gid": user },
                              "capabilities": { "bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"],
                                                "effective": ["CAP_CHOWN"] } });
        let output = exec(&*container, &Exec { process, ..Exec::of(&[]) });
        assert_eq!(output.success(), "0000000000000000");
    }
    container.delete(true).expect("delete");
}

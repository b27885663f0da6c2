//! Things in an image, or on the way to one, that are not what they seem: a /proc that is none, a
//! null device that is none, ids that are none.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use locule_lifecycle::bundle;
use locule_lifecycle::prelude::*;

use super::hostile::{c_path, own_mounts, own_root, with_mount};

pub const CASES: &[Case] = cases![
    a_forged_terminal_multiplexer_is_refused,
    a_forged_null_device_in_the_image_masks_nothing,
    a_forged_null_device_of_the_host_is_refused,
    a_forged_proc_is_refused_however_it_is_written,
    a_forged_proc_with_mapped_ids_is_refused,
    id_maps_are_not_written_to_a_forged_proc,
    a_user_that_is_no_number_is_refused,
    an_executed_user_is_never_root_by_omission,
    names_that_lead_elsewhere_are_refused,
    a_huge_configuration_arrives_whole,
    annotations_change_nothing,
    nothing_but_mount_points_is_written_into_the_image,
];

/// What is in an image at /dev/pts/ptmx in place of a terminal multiplexer. Without the check in
/// terminal.rs this fails (CVE-2025-52565): the device outside of a devpts is taken, and whatever
/// the image made of it is operated on.
fn a_forged_terminal_multiplexer_is_refused(t: &Test) {
    t.need_root();
    let root = own_root(t);
    let pts = root.join("dev/pts");
    fs::create_dir_all(pts.join("pts")).expect("mkdir");
    let ptmx = pts.join("ptmx");
    let node = |kind, device| {
        // SAFETY: a C string and integers.
        assert_eq!(unsafe { libc::mknod(c_path(&ptmx).as_ptr(), kind | 0o666, device) }, 0);
    };
    let forgeries: [&dyn Fn(); 5] = [
        &|| fs::write(&ptmx, "").expect("write"),
        &|| node(libc::S_IFIFO, 0),
        &|| symlink("pts/ptmx", &ptmx).expect("symlink"),
        &|| node(libc::S_IFCHR, libc::makedev(1, 3)),
        // This one finds the devpts beside it, and works as one does.
        &|| node(libc::S_IFCHR, libc::makedev(5, 2)),
    ];
    for forge in forgeries {
        forge();
        let mut spec = bundle::spec(&root, &["/bin/tty"]);
        spec["process"]["terminal"] = json!(true);
        spec["root"]["readonly"] = json!(false);
        for place in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
            drop_mount(&mut spec, place);
        }
        let devpts = json!({ "destination": "/dev/pts/pts", "type": "devpts", "source": "devpts",
                             "options": ["newinstance", "ptmxmode=0666"] });
        let failure = t.refused(&t.options("a", &with_mount(spec, devpts)));
        failure.at("/process/terminal");
        fs::remove_file(&ptmx).expect("rm");
    }
}

/// Masks show the host's null device, never the image's. Where null_device in device.rs opens
/// the path in the root instead, this fails (CVE-2025-31133).
fn a_forged_null_device_in_the_image_masks_nothing(t: &Test) {
    t.need_root();
    let root = own_root(t);
    fs::write(root.join("etc/target"), "target\n").expect("write");
    let mut spec = bundle::spec(&root, &["/bin/stat", "-c", "%t,%T", "/proc/keys", "/etc/secret"]);
    spec["linux"]["maskedPaths"] = json!(["/proc/keys", "/etc/secret"]);
    for place in ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"] {
        drop_mount(&mut spec, place);
    }
    let null = root.join("dev/null");
    // As the image has it: refused. As it is bound over the genuine one: of no use.
    symlink("/etc/target", &null).expect("symlink");
    t.refused(&t.options("a", &spec));
    fs::remove_file(&null).expect("rm");
    let bind = json!({ "destination": "/dev/null", "source": root.join("etc/target"),
                       "options": ["bind"] });
    fs::write(&null, "").expect("write");
    let device = json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs" });
    let spec = with_mount(with_mount(spec, device), bind);
    t.refused(&t.options("a", &spec));
    let mut spec = spec;
    spec["mounts"].as_array_mut().unwrap().pop();
    assert_eq!(t.run(&spec).success(), "1,3\n1,3");
}

// Without the check of null_device in device.rs this fails (CVE-2025-31133): what the masked file
// shows, and takes, is the forgery.
fn a_forged_null_device_of_the_host_is_refused(t: &Test) {
    t.need_root();
    own_mounts();
    let forgery = t.dir.join("forgery");
    fs::write(&forgery, "forged\n").expect("write");
    let runtime = t.engine();
    // SAFETY: C strings and integers.
    unsafe {
        let (source, none) = (c_path(&forgery), std::ptr::null());
        let target = c"/dev/null".as_ptr();
        assert_eq!(libc::mount(source.as_ptr(), target, none, libc::MS_BIND, none.cast()), 0);
    }
    let mut spec = t.shell("cat /proc/keys");
    spec["linux"]["maskedPaths"] = json!(["/proc/keys"]);
    let failure = refused(runtime.create(&t.options("a", &spec)));
    failure.at("/linux/maskedPaths/0").says("/dev/null");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::umount(c"/dev/null".as_ptr()) }, 0);
}

fn bind_to(spec: Value, source: PathBuf, destination: &str, options: &[&str]) -> Value {
    let options: Vec<_> = ["bind"].iter().chain(options).collect();
    with_mount(spec, json!({ "destination": destination, "source": source, "options": options }))
}

/// Without refuse_forged_proc in mount.rs, or without destinations made plain in
/// compile/filesystem.rs, this fails (CVE-2019-16884).
fn a_forged_proc_is_refused_however_it_is_written(t: &Test) {
    let forged = t.dir.join("forged");
    fs::create_dir_all(forged.join("self/attr")).expect("mkdir");
    for destination in ["/proc", "/proc/", "proc", "/./proc", "/tmp/../proc", "//proc/."] {
        let mut spec = t.spec(&["/bin/true"]);
        let linux = spec["linux"].as_object_mut().unwrap();
        linux.remove("maskedPaths");
        linux.remove("readonlyPaths");
        // A directory of the image; one that is on a procfs, and not all of it.
        for source in [forged.clone(), "/proc/self/attr".into(), "/proc/sys".into()] {
            let spec = bind_to(spec.clone(), source, destination, &[]);
            let failure = t.refused(&t.options("a", &spec));
            failure.at("/mounts/7").says("genuine");
        }
    }
    // And what is one may be there.
    let spec = bind_to(t.shell("cat /proc/self/comm"), "/proc".into(), "/proc", &["rbind"]);
    assert_eq!(t.run(&spec).success(), "cat");
}

// Without refuse_forged_proc in attach_prepared (mount.rs) this fails: a bind that maps ids goes
// another way to its place.
fn a_forged_proc_with_mapped_ids_is_refused(t: &Test) {
    t.need_root();
    let forged = t.dir.join("forged");
    fs::create_dir_all(&forged).expect("mkdir");
    let mut spec = bind_to(t.spec(&["/bin/true"]), forged, "/proc", &["idmap"]);
    let map = json!([{ "containerID": 0, "hostID": 100000, "size": 1000 }]);
    spec["mounts"][7]["uidMappings"] = map.clone();
    spec["mounts"][7]["gidMappings"] = map;
    let failure = t.refused(&t.options("a", &spec));
    failure.at("/mounts/7").says("genuine");
}

// Without the check in procfs::existing this fails (CVE-2025-52881): a /proc that is none takes
// the maps, and the keeper believes that they are set.
fn id_maps_are_not_written_to_a_forged_proc(t: &Test) {
    t.need_root();
    let runtime = t.engine();
    let forged = t.dir.join("forged");
    fs::create_dir_all(&forged).expect("mkdir");
    let last = fs::read_to_string("/proc/sys/kernel/ns_last_pid").expect("ns_last_pid");
    let last: i32 = last.trim().parse().expect("a number");
    let files = ["uid_map", "gid_map", "setgroups"];
    for pid in last..last + 500 {
        let directory = forged.join(pid.to_string());
        fs::create_dir(&directory).expect("mkdir");
        files.iter().for_each(|name| fs::write(directory.join(name), "").expect("write"));
    }
    own_mounts();
    // SAFETY: C strings and integers.
    unsafe {
        let (source, none) = (c_path(&forged), std::ptr::null());
        let target = c"/proc".as_ptr();
        assert_eq!(libc::mount(source.as_ptr(), target, none, libc::MS_BIND, none.cast()), 0);
    }
    let mut spec = t.spec(&["/bin/true"]);
    bundle::make_rootless(&mut spec, 100_000, 100_000);
    let failure = refused(runtime.create(&t.options("a", &spec)));
    // SAFETY: as above.
    assert_eq!(unsafe { libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH) }, 0);
    failure.says("genuine");
    for entry in fs::read_dir(&forged).expect("the forgery").flatten() {
        let written = |name: &&str| fs::metadata(entry.path().join(name)).unwrap().size() > 0;
        assert!(!files.iter().any(&written), "written to {entry:?}");
    }
}

// Numbers are read whole or refused, never taken for root (CVE-2016-3697, CVE-2026-30892).
// Without the u32 of spec/oci, or without check_user in validate/process.rs, this fails.
fn a_user_that_is_no_number_is_refused(t: &Test) {
    let container = t.sleeper("b");
    for wrong in [
        "-1",
        "-0.5",
        "1.5",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "1e400",
        "\"0\"",
        "\"1000\"",
        "\"1000:1000\"",
        "\"0x10\"",
        "\"\"",
        "true",
        "[]",
        "{}",
    ] {
        for field in ["uid", "gid", "additionalGids"] {
            let value = match field {
                "additionalGids" => format!("[5, {wrong}]"),
                _ => wrong.to_owned(),
            };
            let mut user = json!({ "uid": 1, "gid": 1 });
            user[field] = json!("HERE");
            let mut spec = t.spec(&["/bin/true"]);
            spec["process"]["user"] = user.clone();
            let mut options = t.options("a", &spec);
            let text = spec.to_string().replace("\"HERE\"", &value);
            options.spec = Some(text.into_bytes());
            let failure = refused(t.engine().create(&options));
            assert_eq!(failure.category, Category::Spec, "{field} {wrong}: {failure}");
            let Ok(value) = serde_json::from_str::<Value>(&value) else { continue };
            user[field] = value;
            let process = json!({ "args": ["/bin/true"], "user": user });
            let failure = refused(container.exec(&Exec { process, ..Exec::of(&[]) }));
            assert_eq!(failure.category, Category::Spec, "{field} {wrong}: {failure}");
        }
    }
    // The last id that there is.
    let process = json!({ "args": ["/bin/id", "-u"], "user": { "uid": u32::MAX - 1, "gid": 1 } });
    let output = exec(&*container, &Exec { process, ..Exec::of(&[]) });
    assert_eq!(output.success(), "4294967294");
    container.delete(true).expect("delete");
}

// An object `user` without a uid would else be one of root, also in a container of somebody else.
fn an_executed_user_is_never_root_by_omission(t: &Test) {
    let mut spec = t.spec(&["/bin/sleep", "1000"]);
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001 });
    let container = t.start("a", &spec);
    for (user, pointer) in [
        (json!({ "gid": 5 }), "/user/uid"),
        (json!({ "uid": 5 }), "/user/gid"),
        (json!({}), "/user/uid"),
        (json!({ "uid": null, "gid": 1 }), "/user/uid"),
        (json!({ "additionalGids": [7] }), "/user/uid"),
    ] {
        let process = json!({ "args": ["/bin/id"], "user": user });
        let failure = refused(container.exec(&Exec { process, ..Exec::of(&[]) }));
        assert_eq!(failure.category, Category::Spec, "{failure}");
        failure.at(pointer);
    }
    assert_eq!(exec_shell(&*container, "id -u; id -g"), "1000\n1001");
    container.delete(true).expect("delete");
}

// Ids are names of directories; cgroup paths stay in their hierarchy; page sizes are parts of
// file names. Without check_id (state_dir.rs), normal (cgroup/location.rs), check
// (cgroup/limits/hugepages.rs) or the split at ".." (vocabulary.rs) this fails.
fn names_that_lead_elsewhere_are_refused(t: &Test) {
    for id in ["", ".", "..", "a/b", "../a", "/a", "a\0b", "a b", "a\nb", "é"] {
        let options = Create { id: Some(id.into()), ..t.options("a", &t.spec(&["/bin/true"])) };
        if t.is_c() && id.contains('\0') {
            continue;
        }
        let failure = t.refused(&options);
        assert_eq!(failure.category, Category::Invalid, "{id:?}: {failure}");
        if !id.is_empty() {
            refused(t.engine().open(id));
        }
    }
    let with = |pointer: &str, value: Value| {
        let mut spec = t.spec(&["/bin/true"]);
        spec["linux"]["resources"] = json!({});
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).expect("an object")[field] = value;
        spec
    };
    for path in ["/..", "/a/../../b", "../b", "..", "/", "."] {
        let spec = with("/linux/cgroupsPath", json!(path));
        t.refused(&t.options("a", &spec)).at("/linux/cgroupsPath");
    }
    for size in ["../../x", "2MB/../../memory", "/2MB", "2MB\n", "", "MB", "2", "02MB", "-2MB"] {
        let limits = json!([{ "pageSize": size, "limit": 0 }]);
        let spec = with("/linux/resources/hugepageLimits", limits);
        let failure = t.refused(&t.options("a", &spec));
        assert!(failure.pointer.starts_with("/linux/resources/hugepageLimits/0"), "{failure}");
    }
    for name in ["net/../kernel/core_pattern", "net.../x", "net..ipv4", "net//ipv4", "../x"] {
        let spec = with("/linux/sysctl", json!({ name: "1" }));
        let failure = t.refused(&t.options("a", &spec));
        assert!(failure.pointer.starts_with("/linux/sysctl/"), "{name}: {failure}");
    }
    for name in ["../memory.max", "a/memory.max", ".."] {
        let spec = with("/linux/resources/unified", json!({ name: "1" }));
        t.refused(&t.options("a", &spec));
    }
}

// With 16-bit lengths anywhere between the configuration and the process this fails
// (CVE-2021-43784): what the attacker writes into a variable is read as something else.
fn a_huge_configuration_arrives_whole(t: &Test) {
    let long = "x".repeat(100_000);
    let mut spec = t.spec(&["/bin/sh", "-c", "echo ${#LONG} $LAST $V1999 $#; id -u", "sh"]);
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let env = spec["process"]["env"].as_array_mut().unwrap();
    env.push(json!(format!("LONG={long}")));
    (0..2000).for_each(|number| env.push(json!(format!("V{number}=value-{number}"))));
    env.push(json!("LAST=end"));
    let args = spec["process"]["args"].as_array_mut().unwrap();
    (0..5000).for_each(|number| args.push(json!(format!("argument-{number}"))));
    spec["annotations"] = json!({ "a": "y".repeat(300_000), "b": "z" });
    let groups: Vec<_> = (10_000..70_000).collect();
    spec["process"]["user"]["additionalGids"] = json!(groups);
    assert_eq!(t.run(&spec).success(), "100000 end value-1999 5000\n1000");
    // More than the kernel takes is an error, not less than was asked for.
    let env = spec["process"]["env"].as_array_mut().unwrap();
    env.push(json!(format!("MORE={}", "x".repeat(200_000))));
    let container = t.create("a", &spec);
    refused(container.start(None)).with_errno(libc::E2BIG);
    container.delete(true).expect("delete");
}

// Engines pass on annotations that images and users bring (CVE-2024-3154). With an annotation that
// changes what happens and is not among those that `features` tells of this fails.
fn annotations_change_nothing(t: &Test) {
    let spec = t.spec(&["/bin/true"]);
    let plan = |spec: &Value| t.engine().explain(&t.options("a", spec)).expect("a plan");
    let features = t.engine().features().expect("features");
    let told = features["potentiallyUnsafeConfigAnnotations"].as_array();
    let told: Vec<_> = told.into_iter().flatten().filter_map(Value::as_str).collect();
    for name in [
        "org.systemd.property.ExecStartPre",
        "org.criu.config",
        "run.oci.handler",
        "run.oci.hooks.stdout",
        "run.oci.keep_original_groups",
        "run.oci.systemd.subgroup",
        "run.oci.mount_context_type",
        "run.oci.seccomp.receiver",
        "run.oci.pidfd_receiver",
        "run.oci.delegate-cgroup",
        "module.wasm.image/variant",
        "krun.kernel",
        "io.kubernetes.cri.sandbox-id",
    ] {
        if told.iter().any(|known| name.starts_with(known)) {
            continue;
        }
        let mut annotated = spec.clone();
        annotated["annotations"] = json!({ name: "/tmp/x" });
        assert_eq!(plan(&annotated), plan(&spec), "{name}");
    }
}

// What is written into an image is empty directories and files to mount on, made in the root and
// new (CVE-2025-25965). Without O_EXCL and RESOLVE_IN_ROOT in path.rs this fails.
fn nothing_but_mount_points_is_written_into_the_image(t: &Test) {
    let root = own_root(t);
    let host = t.dir.join("host");
    fs::write(&host, "host\n").expect("write");
    symlink(&host, root.join("etc/resolv.conf")).expect("symlink");
    symlink("../../../../../../etc/name", root.join("etc/hostname")).expect("symlink");
    let source = t.dir.join("source");
    fs::write(&source, "bound\n").expect("write");
    let mut spec = bundle::spec(&root, &["/bin/cat", "/etc/resolv.conf", "/new/file"]);
    drop_mount(&mut spec, "/tmp");
    for place in ["/etc/resolv.conf", "/etc/hostname", "/new/file"] {
        spec = bind_to(spec, source.clone(), place, &["ro"]);
    }
    assert_eq!(t.run(&spec).success(), "bound\nbound");
    assert_eq!(fs::read_to_string(&host).expect("read"), "host\n");
    // The target of the link, as it is in the root.
    let inside = root.join(host.strip_prefix("/").unwrap());
    for made in [inside, root.join("etc/name"), root.join("new/file")] {
        let made = fs::metadata(&made).expect("a place to mount on");
        assert_eq!((made.size(), made.mode() & 0o7777), (0, 0o644));
    }
}

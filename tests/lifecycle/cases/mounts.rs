//! What mounts look like from inside: options, id maps, order, what they hide.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use locule::spec::mount_options;
use locule_lifecycle::bundle;
use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    each_option_of_a_new_mount_has_its_effect,
    each_option_of_a_bind_mount_has_its_effect,
    a_recursive_option_reaches_the_mounts_below,
    an_option_without_its_recursive_form_stays_at_the_top,
    files_sockets_and_fifos_can_be_bound_and_write_protected,
    a_read_only_tmpfs_still_takes_the_mounts_in_it,
    a_mount_over_a_read_only_tmpfs_is_no_more_read_only_than_it_asks_to_be,
    a_path_below_a_read_only_one_can_be_masked,
    the_root_can_be_a_read_only_path,
    a_tmpfs_has_the_mode_of_what_it_hides_unless_told_otherwise,
    tmpcopyup_copies_what_the_tmpfs_hides,
    a_remount_changes_a_mount_and_its_filesystem,
    a_mount_of_nothing_but_a_propagation_changes_what_is_there,
    a_locked_flag_cannot_be_cleared_and_is_kept_unless_asked_to,
    a_bind_can_map_ids,
    a_bind_can_map_ids_as_the_container_does,
    ids_below_a_mount_are_mapped_if_asked_to,
    a_new_filesystem_can_map_ids,
    a_filesystem_that_cannot_map_ids_is_named,
    too_many_mounts_that_map_ids_are_refused,
];

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no NUL")
}

/// Mounts for this case alone: from here on nothing reaches the machine's own. Gives a place for
/// them.
fn own_mounts() -> &'static Path {
    // SAFETY: C strings and integers; this process has one thread.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0);
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let none = std::ptr::null();
        assert_eq!(libc::mount(none, c"/".as_ptr(), none, private, none.cast()), 0);
    }
    host_tmpfs(Path::new("/mnt"), 0);
    Path::new("/mnt")
}

/// A tmpfs on the host with these flags.
fn host_tmpfs(at: &Path, flags: libc::c_ulong) {
    fs::create_dir_all(at).expect("mkdir");
    // SAFETY: C strings and integers.
    let rc = unsafe {
        let data = c"mode=755".as_ptr().cast();
        libc::mount(c"tmpfs".as_ptr(), c_path(at).as_ptr(), c"tmpfs".as_ptr(), flags, data)
    };
    assert_eq!(rc, 0, "mount a tmpfs");
}

fn push(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn with(mut spec: Value, mounts: &[Value]) -> Value {
    mounts.iter().for_each(|mount| push(&mut spec, mount.clone()));
    spec
}

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    let options: Vec<_> = ["bind"].iter().chain(options).collect();
    json!({ "destination": destination, "source": source, "options": options })
}

/// The options of the mount itself and those of its filesystem, as a container sees them.
fn options_of(t: &Test, spec: &Value, at: &str) -> (Vec<String>, Vec<String>) {
    let mut spec = spec.clone();
    spec["process"]["args"] = json!(["/bin/cat", "/proc/self/mountinfo"]);
    let text = t.run(&spec).success();
    let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some(at));
    let line = line.unwrap_or_else(|| panic!("nothing is mounted at {at}:\n{text}"));
    let split = |options: &str| options.split(',').map(str::to_owned).collect();
    let (before, after) = line.split_once(" - ").expect("mountinfo");
    (split(before.split(' ').nth(5).unwrap()), split(after.split(' ').nth(2).unwrap()))
}

/// Options, what the mount must have then, and what it must not have.
type Row = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

const OF_MOUNTS: &[Row] = &[
    (&[], &["rw", "relatime"], &["nosuid", "nodev", "noexec", "nosymfollow"]),
    (&["defaults"], &["rw", "relatime"], &["nosuid", "nodev", "noexec"]),
    (&["nosuid"], &["nosuid"], &["nodev", "noexec"]),
    (&["nosuid", "suid"], &[], &["nosuid"]),
    (&["nodev"], &["nodev"], &["nosuid"]),
    (&["nodev", "dev"], &[], &["nodev"]),
    (&["noexec"], &["noexec"], &["nosuid"]),
    (&["noexec", "exec"], &[], &["noexec"]),
    (&["noatime"], &["noatime"], &["relatime"]),
    (&["noatime", "atime"], &["relatime"], &["noatime"]),
    (&["relatime"], &["relatime"], &["noatime"]),
    (&["norelatime"], &["relatime"], &["noatime"]),
    (&["strictatime"], &[], &["relatime", "noatime"]),
    (&["strictatime", "nostrictatime"], &["relatime"], &["noatime"]),
    (&["nodiratime"], &["nodiratime"], &[]),
    (&["nodiratime", "diratime"], &[], &["nodiratime"]),
    (&["nosymfollow"], &["nosymfollow"], &[]),
    (&["nosymfollow", "symfollow"], &[], &["nosymfollow"]),
    (&["ro"], &["ro"], &["rw"]),
    (&["ro", "rw"], &["rw"], &["ro"]),
    (&["rro"], &["ro"], &["rw"]),
    (&["ro", "rrw"], &["rw"], &["ro"]),
    (&["rnosuid"], &["nosuid"], &[]),
    (&["nosuid", "rsuid"], &[], &["nosuid"]),
    (&["rnodev"], &["nodev"], &[]),
    (&["nodev", "rdev"], &[], &["nodev"]),
    (&["rnoexec"], &["noexec"], &[]),
    (&["noexec", "rexec"], &[], &["noexec"]),
    (&["rnoatime"], &["noatime"], &["relatime"]),
    (&["rnoatime", "ratime"], &["relatime"], &["noatime"]),
    (&["rrelatime"], &["relatime"], &[]),
    (&["rnorelatime"], &["relatime"], &[]),
    (&["rstrictatime"], &[], &["relatime", "noatime"]),
    (&["rstrictatime", "rnostrictatime"], &["relatime"], &[]),
    (&["rnodiratime"], &["nodiratime"], &[]),
    (&["rnodiratime", "rdiratime"], &[], &["nodiratime"]),
    (&["rnosymfollow"], &["nosymfollow"], &[]),
    (&["rnosymfollow", "rsymfollow"], &[], &["nosymfollow"]),
    (&["silent"], &["rw"], &[]),
    (&["loud"], &["rw"], &[]),
    (&["iversion"], &["rw"], &[]),
    (&["noiversion"], &["rw"], &[]),
];

/// Options that are about the filesystem; a bind mount has no say in them.
const OF_FILESYSTEMS: &[Row] = &[
    (&["sync"], &["sync"], &[]),
    (&["sync", "async"], &[], &["sync"]),
    (&["dirsync"], &["dirsync"], &[]),
    (&["lazytime"], &["lazytime"], &[]),
    (&["lazytime", "nolazytime"], &[], &["lazytime"]),
    (&["mand"], &["rw"], &[]),
    (&["mand", "nomand"], &[], &["mand"]),
    (&["size=64k,nr_inodes=50"], &["size=64k", "nr_inodes=50"], &[]),
];

/// Tried in the other cases.
const ELSEWHERE: [&str; 15] = [
    "bind",
    "rbind",
    "remount",
    "tmpcopyup",
    "idmap",
    "ridmap",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "rw",
];

fn must_be(found: &[String], row: &Row) {
    for wanted in row.1 {
        assert!(found.iter().any(|option| option == wanted), "{row:?}: {found:?}");
    }
    for unwanted in row.2 {
        assert!(found.iter().all(|option| option != unwanted), "{row:?}: {found:?}");
    }
}

fn each_option_of_a_new_mount_has_its_effect(t: &Test) {
    let covered = |option: &&str| {
        let rows = OF_MOUNTS.iter().chain(OF_FILESYSTEMS);
        ELSEWHERE.contains(option) || rows.clone().any(|row| row.0.contains(option))
    };
    let all = mount_options::ALL;
    assert_eq!(all.iter().find(|option| !covered(option)), None, "no row has this option");
    for row in OF_MOUNTS {
        must_be(
            &options_of(t, &with(t.spec(&["/bin/true"]), &[tmpfs("/mnt", row.0)]), "/mnt").0,
            row,
        );
    }
    t.need_root();
    for row in OF_FILESYSTEMS {
        must_be(
            &options_of(t, &with(t.spec(&["/bin/true"]), &[tmpfs("/mnt", row.0)]), "/mnt").1,
            row,
        );
    }
}

pub fn each_option_of_a_bind_mount_has_its_effect(t: &Test) {
    t.need_root();
    // From nothing set, and from everything set, on the host.
    let place = own_mounts();
    let (plain, full) = (place.join("plain"), place.join("full"));
    host_tmpfs(&plain, 0);
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_NOATIME;
    host_tmpfs(&full, flags | libc::MS_NODIRATIME | libc::MS_RDONLY);
    for row in OF_MOUNTS {
        let spec = with(t.spec(&["/bin/true"]), &[bind(&plain, "/mnt", row.0)]);
        must_be(&options_of(t, &spec, "/mnt").0, row);
    }
    let kept: Row = (&[], &["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"], &[]);
    let spec = |options| with(t.spec(&["/bin/true"]), &[bind(&full, "/mnt", options)]);
    must_be(&options_of(t, &spec(kept.0), "/mnt").0, &kept);
    // Who lists any has those and no others, but for access times.
    const LISTED: &[Row] = &[
        (&["rw"], &["rw", "noatime", "nodiratime"], &["nosuid", "nodev", "noexec"]),
        (&["ro"], &["ro", "noatime"], &["nosuid", "nodev", "noexec"]),
        (&["suid"], &["rw"], &["nosuid", "nodev", "noexec"]),
        (&["nodev", "exec"], &["rw", "nodev"], &["nosuid", "noexec"]),
        (&["atime"], &["rw", "noatime", "nodiratime"], &[]),
        (&["diratime"], &["rw", "noatime", "nodiratime"], &[]),
        (&["norelatime"], &["rw", "noatime", "nodiratime"], &[]),
        (&["relatime"], &["relatime"], &["noatime", "nodiratime"]),
        (&["strictatime"], &[], &["relatime", "noatime", "nodiratime"]),
        (&["nodiratime"], &["relatime", "nodiratime"], &["noatime"]),
        (&["rexec", "rdev", "rsuid", "rrw"], &["rw"], &["noexec", "nodev", "nosuid", "ro"]),
        (&["rexec"], &["ro", "nosuid", "nodev"], &["noexec"]),
    ];
    for row in LISTED {
        must_be(&options_of(t, &spec(row.0), "/mnt").0, row);
    }
    // What would change the filesystem, and so the host, is ignored or refused.
    must_be(&options_of(t, &spec(&["sync", "lazytime"]), "/mnt").1, &(&[], &[], &["sync"]));
    let failure = t.refused(&t.options("a", &spec(&["size=1k"])));
    failure.must_be(Category::Spec, Stage::Validate).at("/mounts/7/options/1");
}

/// A tree of two tmpfs on the host.
fn two_mounts() -> PathBuf {
    let top = own_mounts().join("top");
    host_tmpfs(&top, 0);
    host_tmpfs(&top.join("below"), 0);
    fs::write(top.join("below/file"), "").expect("write");
    top
}

fn a_recursive_option_reaches_the_mounts_below(t: &Test) {
    t.need_root();
    let top = two_mounts();
    let spec = |options: &[&str]| {
        let options: Vec<_> = ["rbind"].iter().chain(options).copied().collect();
        with(t.spec(&["/bin/true"]), &[bind(&top, "/mnt", &options)])
    };
    for (option, flag) in [
        ("rro", "ro"),
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rnosymfollow", "nosymfollow"),
    ] {
        for at in ["/mnt", "/mnt/below"] {
            let (options, _) = options_of(t, &spec(&[option]), at);
            assert!(options.iter().any(|option| option == flag), "{option} {at}: {options:?}");
        }
    }
    // Also where the top was to be something else.
    let spec = spec(&["rro", "rw"]);
    for at in ["/mnt", "/mnt/below"] {
        assert_eq!(options_of(t, &spec, at).0[0], "ro");
    }
}

fn an_option_without_its_recursive_form_stays_at_the_top(t: &Test) {
    t.need_root();
    let top = two_mounts();
    let spec = with(t.spec(&["/bin/true"]), &[bind(&top, "/mnt", &["rbind", "ro", "noexec"])]);
    must_be(&options_of(t, &spec, "/mnt").0, &(&[], &["ro", "noexec"], &[]));
    must_be(&options_of(t, &spec, "/mnt/below").0, &(&[], &["rw"], &["noexec"]));
    // And `bind` alone leaves the mounts below out.
    let mut spec = with(t.spec(&["/bin/true"]), &[bind(&top, "/mnt", &[])]);
    spec["process"]["args"] = json!(["/bin/ls", "/mnt/below"]);
    assert_eq!(t.run(&spec).success(), "");
}

pub fn files_sockets_and_fifos_can_be_bound_and_write_protected(t: &Test) {
    let (file, socket, fifo) = (t.dir.join("file"), t.dir.join("socket"), t.dir.join("fifo"));
    fs::write(&file, "text\n").expect("write");
    let _listener = UnixListener::bind(&socket).expect("bind");
    // SAFETY: a C string and an integer.
    assert_eq!(unsafe { libc::mkfifo(c_path(&fifo).as_ptr(), 0o600) }, 0);
    for option in ["ro", "rro"] {
        let mounts = [
            bind(&file, "/tmp/file", &[option]),
            bind(&socket, "/tmp/socket", &[option]),
            bind(&fifo, "/tmp/fifo", &[option]),
        ];
        let script = "cat /tmp/file; test -S /tmp/socket && test -p /tmp/fifo && echo kinds; \
                      (echo more >/tmp/file) 2>/dev/null || echo protected";
        assert_eq!(t.run(&with(t.shell(script), &mounts)).success(), "text\nkinds\nprotected");
    }
}

pub fn a_read_only_tmpfs_still_takes_the_mounts_in_it(t: &Test) {
    fs::write(t.dir.join("file"), "text\n").expect("write");
    let mounts = [
        tmpfs("/mnt", &["ro", "mode=755"]),
        tmpfs("/mnt/a/b", &[]),
        bind(&t.dir.join("file"), "/mnt/c/file", &[]),
    ];
    let script = "cat /mnt/c/file; touch /mnt/a/b/c && echo made; \
                  touch /mnt/d 2>/dev/null || echo protected";
    assert_eq!(t.run(&with(t.shell(script), &mounts)).success(), "text\nmade\nprotected");
}

fn a_mount_over_a_read_only_tmpfs_is_no_more_read_only_than_it_asks_to_be(t: &Test) {
    let under = || tmpfs("/mnt/a", &["ro"]);
    for over in ["/mnt/a", "/mnt"] {
        let script = format!("touch {over}/file && echo made");
        let mounts = [tmpfs("/mnt", &[]), under(), tmpfs(over, &[])];
        assert_eq!(t.run(&with(t.shell(&script), &mounts)).success(), "made");
    }
}

fn a_path_below_a_read_only_one_can_be_masked(t: &Test) {
    let mut spec =
        t.shell("find /sys/kernel /proc/sys/kernel /etc -mindepth 1 | head -3; echo end");
    spec["linux"]["readonlyPaths"] = json!(["/sys", "/proc", "/etc"]);
    spec["linux"]["maskedPaths"] = json!(["/sys/kernel", "/proc/sys/kernel", "/etc"]);
    assert_eq!(t.run(&spec).success(), "end");
}

fn the_root_can_be_a_read_only_path(t: &Test) {
    let mut spec = with(t.shell("touch /file || echo protected; touch /tmp/file"), &[]);
    spec["root"] = json!({ "path": own_root(t) });
    spec["linux"]["readonlyPaths"] = json!(["/"]);
    assert_eq!(t.run(&spec).success(), "protected");
}

/// A root filesystem that only this case has.
fn own_root(t: &Test) -> PathBuf {
    let root = t.dir.join("root");
    let busybox = bundle::busybox().expect("busybox");
    bundle::make_rootfs(&root, &busybox).expect("make a root filesystem");
    root
}

fn a_tmpfs_has_the_mode_of_what_it_hides_unless_told_otherwise(t: &Test) {
    let root = own_root(t);
    fs::set_permissions(root.join("opt"), PermissionsExt::from_mode(0o1751)).expect("chmod");
    let script = "stat -c %a /opt /home/new /mnt";
    let mounts = [tmpfs("/opt", &[]), tmpfs("/home/new", &[]), tmpfs("/mnt", &["mode=0710"])];
    let mut spec = with(bundle::spec(&root, &["/bin/sh", "-c", script]), &mounts);
    spec["process"]["user"]["umask"] = json!(0o077);
    assert_eq!(t.run(&spec).success(), "1751\n1777\n710");
}

fn tmpcopyup_copies_what_the_tmpfs_hides(t: &Test) {
    let root = own_root(t);
    let data = root.join("opt");
    fs::set_permissions(&data, PermissionsExt::from_mode(0o1770)).expect("chmod");
    fs::create_dir(data.join("sub")).expect("mkdir");
    fs::write(data.join("sub/file"), "text\n").expect("write");
    fs::set_permissions(data.join("sub/file"), PermissionsExt::from_mode(0o640)).expect("chmod");
    fs::set_permissions(data.join("sub"), PermissionsExt::from_mode(0o555)).expect("chmod");
    // Of a link the link is copied, not what it leads to.
    symlink("/etc/shadow", data.join("link")).expect("symlink");
    let script = "cd /opt; stat -c '%a %n' . sub sub/file; cat sub/file; readlink link; \
                  touch new && echo written";
    let spec = |options: &[&str]| {
        with(bundle::spec(&root, &["/bin/sh", "-c", script]), &[tmpfs("/opt", options)])
    };
    let copied = "555 sub\n640 sub/file\ntext\n/etc/shadow\nwritten";
    assert_eq!(t.run(&spec(&["tmpcopyup"])).success(), format!("1770 .\n{copied}"));
    // A mode that was asked for wins over that of the directory.
    let options = ["tmpcopyup", "mode=0711"];
    assert_eq!(t.run(&spec(&options)).success(), format!("711 .\n{copied}"));
    assert!(!data.join("new").exists());
}

pub fn a_remount_changes_a_mount_and_its_filesystem(t: &Test) {
    let mounts = [
        tmpfs("/mnt", &["nosuid", "size=64k"]),
        json!({ "destination": "/mnt", "options": ["remount", "noexec", "size=128k"] }),
    ];
    let spec = with(t.spec(&["/bin/true"]), &mounts);
    let (mount, filesystem) = options_of(t, &spec, "/mnt");
    must_be(&mount, &(&[], &["nosuid", "noexec"], &[]));
    must_be(&filesystem, &(&[], &["size=128k"], &[]));
    let wrong = json!({ "destination": "/mnt", "options": ["remount", "size=banana"] });
    let failure = t.refused(&t.options("a", &with(spec, &[wrong])));
    failure.must_be(Category::Spec, Stage::Mounts).at("/mounts/9");
    // A bind remount leaves the filesystem alone.
    let mounts = [
        tmpfs("/mnt", &[]),
        json!({ "destination": "/mnt", "options": ["bind", "remount", "ro"] }),
    ];
    let (mount, filesystem) = options_of(t, &with(t.spec(&["/bin/true"]), &mounts), "/mnt");
    assert_eq!((&*mount[0], &*filesystem[0]), ("ro", "rw"));
}

fn a_mount_of_nothing_but_a_propagation_changes_what_is_there(t: &Test) {
    let shown = |options: &[&str]| {
        let change = json!({ "destination": "/mnt", "options": options });
        let script = "grep ' /mnt ' /proc/self/mountinfo | grep -o 'shared\\|unbindable'; true";
        t.run(&with(t.shell(script), &[tmpfs("/mnt", &[]), change])).success()
    };
    assert_eq!(shown(&["private"]), "");
    assert_eq!(shown(&["shared"]), "shared");
    assert_eq!(shown(&["rshared"]), "shared");
    assert_eq!(shown(&["unbindable"]), "unbindable");
    assert_eq!(shown(&["runbindable", "rprivate"]), "");
    assert_eq!(shown(&["rslave"]), "");
    // The same with the mount itself.
    let script = "grep ' /mnt ' /proc/self/mountinfo | grep -o shared";
    let spec = with(t.shell(script), &[tmpfs("/mnt", &["rshared"])]);
    assert_eq!(t.run(&spec).success(), "shared");
}

const MAP: u32 = 300_000;

fn map_ids(spec: &mut Value) {
    let linux = &mut spec["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    for map in ["uidMappings", "gidMappings"] {
        linux[map] = json!([{ "containerID": 0, "hostID": MAP, "size": 65536 }]);
    }
}

fn a_locked_flag_cannot_be_cleared_and_is_kept_unless_asked_to(t: &Test) {
    t.need_root();
    let source = own_mounts().join("source");
    host_tmpfs(&source, libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC);
    fs::set_permissions(&t.dir, PermissionsExt::from_mode(0o755)).expect("chmod");
    let spec = |options: &[&str]| {
        let mut spec = with(t.spec(&["/bin/true"]), &[bind(&source, "/mnt", options)]);
        map_ids(&mut spec);
        spec
    };
    let row: Row = (&["ro"], &["ro", "nosuid", "nodev", "noexec"], &[]);
    must_be(&options_of(t, &spec(row.0), "/mnt").0, &row);
    let failure = t.refused(&t.options("a", &spec(&["exec"])));
    failure.must_be(Category::Permission, Stage::Mounts).at("/mounts/7");
}

/// A directory with a file of each of these owners.
fn owned(at: &Path, owners: &[u32]) {
    fs::create_dir_all(at).expect("mkdir");
    for owner in owners {
        let file = at.join(owner.to_string());
        fs::write(&file, "").expect("write");
        chown(&file, Some(*owner), Some(*owner)).expect("chown");
    }
}

fn mapping(container: u32, host: u32, size: u32) -> Value {
    json!([{ "containerID": container, "hostID": host, "size": size }])
}

/// `mount` with these maps of its own.
fn mapped(mut mount: Value, map: &Value) -> Value {
    mount["uidMappings"] = map.clone();
    mount["gidMappings"] = map.clone();
    mount
}

const OWNERS: &str = "stat -c '%n %u %g' /mnt/* | cut -c 6-";

fn a_bind_can_map_ids(t: &Test) {
    t.need_root();
    let source = t.dir.join("source");
    owned(&source, &[0, 7]);
    // What is 0 on the disk is 1000 in the container.
    let mount = mapped(bind(&source, "/mnt", &[]), &mapping(0, 1000, 10));
    let script = format!("{OWNERS}; touch /mnt/new; stat -c %u /mnt/new");
    let mut spec = with(t.shell(&script), &[mount]);
    spec["process"]["user"] = json!({ "uid": 1005, "gid": 1005 });
    fs::set_permissions(&source, PermissionsExt::from_mode(0o777)).expect("chmod");
    assert_eq!(t.run(&spec).success(), "0 1000 1000\n7 1007 1007\n1005");
    // And what the container writes is so on the disk.
    assert_eq!(fs::metadata(source.join("new")).expect("stat").uid(), 5);
    // Only with both maps.
    spec["mounts"][7].as_object_mut().unwrap().remove("gidMappings");
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Spec, Stage::Validate).at("/mounts/7/gidMappings");
}

fn a_bind_can_map_ids_as_the_container_does(t: &Test) {
    t.need_root();
    let source = t.dir.join("source");
    owned(&source, &[0, 7]);
    fs::set_permissions(&t.dir, PermissionsExt::from_mode(0o755)).expect("chmod");
    let script = format!("{OWNERS}; touch /mnt/new");
    for option in ["idmap", "ridmap"] {
        let mut spec = with(t.shell(&script), &[bind(&source, "/mnt", &[option])]);
        // Without a user namespace there is nothing to take the map from.
        let failure = t.refused(&t.options("a", &spec));
        failure.must_be(Category::Spec, Stage::Validate).at("/mounts/7/options");
        map_ids(&mut spec);
        assert_eq!(t.run(&spec).success(), "0 0 0\n7 7 7");
        assert_eq!(fs::metadata(source.join("new")).expect("stat").uid(), 0);
        fs::remove_file(source.join("new")).expect("rm");
        // The map of a namespace that is joined counts as well.
        let mut pod = t.spec(&["/bin/sleep", "1000"]);
        map_ids(&mut pod);
        let pod = t.start("pod", &pod);
        let linux = spec["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        let path = format!("/proc/{}/ns/user", pod.init().pid());
        linux["namespaces"].as_array_mut().unwrap().last_mut().unwrap()["path"] = json!(path);
        assert_eq!(t.run(&spec).success(), "0 0 0\n7 7 7");
        fs::remove_file(source.join("new")).expect("rm");
        pod.delete(true).expect("delete");
    }
    // Maps of the mount's own go before those of the container.
    let mount = mapped(bind(&source, "/mnt", &["idmap"]), &mapping(0, MAP + 50, 10));
    let mut spec = with(t.shell(OWNERS), &[mount]);
    map_ids(&mut spec);
    assert_eq!(t.run(&spec).success(), "0 50 50\n7 57 57");
}

fn ids_below_a_mount_are_mapped_if_asked_to(t: &Test) {
    t.need_root();
    let top = two_mounts();
    let one = mapped(bind(&top, "/mnt", &["rbind", "idmap"]), &mapping(0, 1000, 10));
    need_mapped_tmpfs(t, &with(t.spec(&["/bin/true"]), &[one]));
    let owners = |option: &str| {
        let mount = mapped(bind(&top, "/mnt", &["rbind", option]), &mapping(0, 1000, 10));
        t.run(&with(t.shell("stat -c %u /mnt /mnt/below/file"), &[mount])).success()
    };
    assert_eq!(owners("idmap"), "1000\n0");
    assert_eq!(owners("ridmap"), "1000\n1000");
}

/// Ends the case unless this configuration, which maps ids of a tmpfs, can be used.
fn need_mapped_tmpfs(t: &Test, spec: &Value) {
    if let Err(failure) = t.engine().create(&t.options("a", spec)).and_then(|c| c.delete(true)) {
        failure.must_be(Category::Unsupported, Stage::Mounts).at("/mounts/7");
        t.skip("a tmpfs that maps ids (Linux 6.3)");
    }
}

fn a_new_filesystem_can_map_ids(t: &Test) {
    t.need_root();
    let script = "stat -c %u /mnt; touch /mnt/file && stat -c %u /mnt/file";
    let mut spec = with(t.shell(script), &[mapped(tmpfs("/mnt", &[]), &mapping(0, 70, 10))]);
    spec["process"]["user"] = json!({ "uid": 70, "gid": 70 });
    need_mapped_tmpfs(t, &spec);
    assert_eq!(t.run(&spec).success(), "70\n70");
    let root = own_root(t);
    fs::set_permissions(&t.dir, PermissionsExt::from_mode(0o755)).expect("chmod");
    fs::write(root.join("opt/file"), "").expect("write");
    for at in ["opt", "opt/file"] {
        chown(root.join(at), Some(MAP), Some(MAP)).expect("chown");
    }
    let script = "stat -c '%u %a' /opt /opt/*; touch /opt/new";
    let mount = tmpfs("/opt", &["idmap", "tmpcopyup"]);
    let mut spec = with(bundle::spec(&root, &["/bin/sh", "-c", script]), &[mount]);
    map_ids(&mut spec);
    assert_eq!(t.run(&spec).success(), "0 755\n0 644");
}

fn a_filesystem_that_cannot_map_ids_is_named(t: &Test) {
    t.need_root();
    let mount = json!({ "destination": "/mnt", "type": "proc", "source": "proc" });
    let spec = with(t.spec(&["/bin/true"]), &[mapped(mount, &mapping(0, 1000, 10))]);
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Unsupported, Stage::Mounts).at("/mounts/7");
    assert!(failure.hint.contains("map ids on this filesystem"), "{}", failure.hint);
    let mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup" });
    let spec = with(t.spec(&["/bin/true"]), &[mapped(mount, &mapping(0, 1000, 10))]);
    let failure = t.refused(&t.options("a", &spec));
    failure.must_be(Category::Unsupported, Stage::Compile).at("/mounts/7");
    let missing = mapped(bind(&t.dir.join("missing"), "/mnt", &[]), &mapping(0, 1000, 10));
    let failure = t.refused(&t.options("a", &with(t.spec(&["/bin/true"]), &[missing])));
    failure.must_be(Category::NotFound, Stage::Mounts).at("/mounts/7");
}

fn too_many_mounts_that_map_ids_are_refused(t: &Test) {
    t.need_root();
    let source = t.dir.join("source");
    owned(&source, &[0]);
    let mount =
        |n: u32| mapped(bind(&source, &format!("/tmp/{n}"), &[]), &mapping(0, 1000 + n % 2, 1));
    let mut mounts: Vec<_> = (0..64).map(mount).collect();
    let script = "stat -c %u /tmp/6/0 /tmp/63/0";
    assert_eq!(t.run(&with(t.shell(script), &mounts)).success(), "1000\n1001");
    mounts.push(mount(64));
    let failure = t.refused(&t.options("a", &with(t.shell(script), &mounts)));
    failure.must_be(Category::Unsupported, Stage::Compile).at("/mounts/71");
}

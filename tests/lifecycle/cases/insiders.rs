//! Processes in a container that mean harm: what of the host they can lay hands on.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use locule_lifecycle::prelude::*;

use super::hostile::own_null_device;

pub const CASES: &[Case] = cases![
    a_mask_does_not_lend_the_hosts_null_device,
    without_a_null_device_a_process_gets_one_of_its_own,
    the_hosts_session_keyring_is_out_of_reach,
    a_session_keyring_that_waits_for_a_container_is_not_joined,
    the_keeper_does_not_listen_to_containers,
    a_process_in_the_making_is_closed_to_the_container,
    what_enters_a_container_is_executed_from_a_sealed_image,
    the_plan_cannot_be_changed,
    a_working_directory_outside_of_the_root_is_refused,
    a_program_is_not_found_through_open_descriptors,
    devices_that_were_not_given_cannot_be_used,
    without_a_cgroup_namespace_the_hosts_cgroups_stay_out_of_reach,
];

pub const HELPERS: &[Case] = cases![ask_the_keeper, watch];

/// A configuration that runs a helper of this program in the container.
fn insider(t: &Test, helper: &str, args: &[&str]) -> Value {
    if !fs::read_link("/lib64").is_ok_and(|target| target == Path::new("usr/lib64")) {
        t.skip("a machine with all libraries below /usr");
    }
    let mut command = vec!["/mnt/program", "--case", t.face.name(), helper];
    command.extend(args);
    let mut spec = t.spec(&command);
    let program = fs::read_link("/proc/self/exe").expect("this program");
    let mut bind = |source: &Path, destination: &str| {
        let mount =
            json!({ "destination": destination, "source": source, "options": ["rbind", "ro"] });
        spec["mounts"].as_array_mut().unwrap().push(mount);
    };
    for folder in ["lib", "lib64"] {
        bind(&Path::new("/usr").join(folder), &format!("/{folder}"));
    }
    bind(&program, "/mnt/program");
    for name in ["LOCULE_TEST_DIR", "LOCULE_TEST_ROOTFS", "LOCULE_TEST_PREFIX"] {
        let value = std::env::var(name).expect(name);
        spec["process"]["env"].as_array_mut().unwrap().push(json!(format!("{name}={value}")));
    }
    spec
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::metadata(path).expect("stat");
    (metadata.uid(), metadata.gid(), metadata.mode())
}

// The mask of a file is a bind of the host's null device. In device.rs, without MOUNT_ATTR_RDONLY
// on it, this fails: root in the container changes the mode of the host's /dev/null.
fn a_mask_does_not_lend_the_hosts_null_device(t: &Test) {
    t.need_root();
    let null = own_null_device(t);
    let before = owner_and_mode(&null);
    let mut spec = t.shell(
        "for mask in /proc/keys /proc/uptime; do chmod 777 $mask; chown 7:7 $mask; done 2>/dev/null
         echo into >/proc/keys && wc -c </proc/uptime",
    );
    spec["linux"]["maskedPaths"] = json!(["/proc/uptime", "/proc/keys"]);
    assert_eq!(t.run(&spec).success(), "0");
    assert_eq!(owner_and_mode(&null), before);
}

// Without new_null in settings.rs this fails: where the container has no null device, standard
// streams are the host's, whose mode root in the container changes.
fn without_a_null_device_a_process_gets_one_of_its_own(t: &Test) {
    t.need_root();
    let null = own_null_device(t);
    let before = owner_and_mode(&null);
    let container = t.sleeper("a");
    for forgery in ["", "touch /dev/null", "mkdir /dev/null", "mknod /dev/null c 1 5"] {
        exec_shell(&*container, &format!("rm -rf /dev/null; {forgery}"));
        let script = "for fd in 0 1 2; do chmod 777 /proc/self/fd/$fd; \
                      chown 7:7 /proc/self/fd/$fd; done; cat; echo >&1";
        let process = container.exec(&Exec::of(&["/bin/sh", "-c", script])).expect("exec");
        assert_eq!(ended(&*process), Exit::Code(0), "{forgery}");
        assert_eq!(owner_and_mode(&null), before, "{forgery}");
    }
    container.delete(true).expect("delete");
}

const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
const KEYCTL_SETPERM: i32 = 5;
const SESSION_KEYRING: i32 = -3;

/// Joins a session keyring and puts a key there that only who has the keyring can see.
fn session_keyring_with_a_key(t: &Test, name: Option<&str>) {
    let name = name.map(|name| CString::new(name).expect("no NUL"));
    let name = name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr());
    // SAFETY: C strings, or null, and integers.
    unsafe {
        let keyring = libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name);
        if keyring < 0 {
            t.skip("keyrings");
        }
        let (kind, text) = (c"user".as_ptr(), c"locule-secret".as_ptr());
        let key = libc::syscall(libc::SYS_add_key, kind, text, text, 6usize, SESSION_KEYRING);
        assert!(key > 0, "add a key");
        // All for those who have it, nothing for others of the same user.
        assert_eq!(libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, key, 0x3f00_0000u32), 0);
        // And the keyring can be found and joined by whoever is the same user.
        let all = 0x3f3f_0000u32;
        assert_eq!(libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, keyring, all), 0);
    }
    let own = fs::read_to_string("/proc/keys").expect("the keys");
    assert!(own.contains("locule-secret"), "{own}");
}

fn spec_that_shows_keys(t: &Test) -> Value {
    let mut spec = t.spec(&["/bin/sh", "-c", "cat /proc/keys; sleep 1000"]);
    spec["linux"]["maskedPaths"] = json!([]);
    spec
}

// Without NewKeyring in compile/container.rs or in compile/exec.rs this fails: the process has
// the host's session keyring with the keys in it.
fn the_hosts_session_keyring_is_out_of_reach(t: &Test) {
    session_keyring_with_a_key(t, None);
    let mut options = t.options("a", &spec_that_shows_keys(t));
    options.stdio[1] = Stream::Pipe;
    let container = t.create_with(&options);
    let mut lines = Lines::of(container.init().take_pipe(1));
    started(&*container);
    let seen = exec_shell(&*container, "cat /proc/keys; echo end");
    assert!(!seen.contains("locule-secret"), "{seen}");
    container.delete(true).expect("delete");
    assert!(until_the_end(&mut lines).iter().all(|line| !line.contains("locule-secret")));
}

fn until_the_end(lines: &mut Lines) -> Vec<String> {
    std::iter::from_fn(|| Some(lines.next()).filter(|line| !line.is_empty())).collect()
}

// Where settings.rs gives the keyring the container's name this fails: another process of the
// same user has made a keyring of that name, and the container joins it.
fn a_session_keyring_that_waits_for_a_container_is_not_joined(t: &Test) {
    for name in [format!("_ses.{}", t.id("a")), "_ses".into(), "_ses.".into()] {
        session_keyring_with_a_key(t, Some(&name));
        let mut spec = spec_that_shows_keys(t);
        spec["process"]["args"] = json!(["/bin/cat", "/proc/keys"]);
        let seen = t.run_with(t.options("a", &spec)).success();
        assert!(!seen.contains("locule-secret"), "{name}: {seen}");
    }
}

/// From inside: asks the keeper to leave, and says whether it listens.
fn ask_the_keeper(t: &Test) {
    // SAFETY: integers, and a structure that is all bytes.
    let (socket, mut address) = unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0);
        (socket, std::mem::zeroed::<libc::sockaddr_un>())
    };
    address.sun_family = libc::AF_UNIX as u16;
    for (place, byte) in address.sun_path.iter_mut().zip(t.args[0].bytes()) {
        *place = byte as _;
    }
    use locule_plan::protocol::{Request, RequestKind};
    let request = Request { kind: RequestKind::Shutdown, flags: 0 }.encode();
    let mut answer = [0u8; 64];
    // SAFETY: the address and the buffers live through the calls and have the lengths given.
    let got = unsafe {
        let len = size_of_val(&address) as u32;
        let connected = libc::connect(socket, (&raw const address).cast(), len);
        assert_eq!(connected, 0, "connect: {}", std::io::Error::last_os_error());
        libc::send(socket, request.as_ptr().cast(), request.len(), libc::MSG_NOSIGNAL);
        libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), 0)
    };
    println!("answered {got}");
}

// The state directory is in sight of the container. Without the pid namespaces compared in peer.rs
// this fails: root in the container talks to the keeper, which would run anything on the host
// for it, and here leaves, with the container that it keeps.
fn the_keeper_does_not_listen_to_containers(t: &Test) {
    t.need_root();
    let kept = t.sleeper("kept");
    let socket = format!("/run/state/{}/control", t.id("kept"));
    let mut spec = insider(t, "ask_the_keeper", &[&socket]);
    let bind = json!({ "destination": "/run/state", "source": t.state_dir,
                       "options": ["bind", "ro"] });
    spec["mounts"].as_array_mut().unwrap().push(bind);
    t.run(&spec).success();
    assert_eq!(kept.status(), "running");
    assert_eq!(exec_shell(&*kept, "echo well"), "well");
    kept.delete(true).expect("delete");
}

/// From inside: looks for processes in the making until standard input ends, and says what can be
/// reached of the host through them.
fn watch(_: &Test) {
    let root = fs::metadata("/").expect("the root");
    let root = (root.dev(), root.ino());
    let (mut seen, mut reached) = (0, Vec::new());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            listen();
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            for entry in fs::read_dir("/proc").expect("/proc").flatten() {
                let path = entry.path();
                let in_the_making = || {
                    fs::read_to_string(path.join("comm")).is_ok_and(|name| name == "locule-init\n")
                };
                if !in_the_making() {
                    continue;
                }
                seen += 1;
                for link in ["root", "cwd"] {
                    let found = fs::metadata(path.join(link));
                    if found.is_ok_and(|found| (found.dev(), found.ino()) != root) {
                        reached.push(link.to_owned());
                    }
                }
                let open = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
                let open: Vec<_> = open.flat_map(|fd| fs::read_link(fd.path())).collect();
                let memory = File::open(path.join("mem")).is_ok();
                // What has become a program is the container's.
                if in_the_making() && (memory || !open.is_empty()) {
                    reached.push(format!("memory {memory}, descriptors {open:?}"));
                }
            }
        }
    });
    println!("seen {} reached {:?}", seen > 0, reached);
}

// Without PR_SET_DUMPABLE in reset.rs and child.rs this fails (CVE-2016-9962): a process of the
// container sees into one that waits at the gate, with what it has open.
fn a_process_in_the_making_is_closed_to_the_container(t: &Test) {
    t.need_root();
    // Without a keeper of the container's own each process waits at the gate for a moment.
    let mut options = t.options("a", &insider(t, "watch", &[]));
    options.stdio = [Stream::Pipe, Stream::Pipe, Stream::Null];
    options.parentage = Parentage::Orphan;
    let container = t.create_with(&options);
    let input = container.init().take_pipe(0);
    let mut lines = Lines::of(container.init().take_pipe(1));
    started(&*container);
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        exec(&*container, &Exec::of(&["/bin/true"]));
    }
    drop(input);
    assert_eq!(lines.next(), "seen true reached []");
    ended(&*container.init());
    container.delete(false).expect("delete");
}

/// The seals of the file behind a link of `/proc`.
fn seals(link: &Path) -> Option<libc::c_int> {
    let file = File::open(link).ok()?;
    // SAFETY: plain integers.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    // Dead or of another file by now.
    (seals >= 0).then_some(seals)
}

const SEALED: libc::c_int =
    libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;

// Without add_seals in memory_file.rs this fails (CVE-2019-5736): who executes /proc/self/exe in
// the container gets at what every later keeper is executed from.
fn what_enters_a_container_is_executed_from_a_sealed_image(t: &Test) {
    t.need_root();
    let container = t.create("a", &t.spec(&["/bin/sleep", "1000"]));
    let init = container.init().pid();
    let keeper = parent_of(init);
    let exe = |pid: i32| seals(Path::new(&format!("/proc/{pid}/exe")));
    for pid in [keeper, init] {
        assert_eq!(exe(pid).expect("a sealed image") & SEALED, SEALED);
        let path = format!("/proc/{pid}/exe");
        assert!(File::options().write(true).open(path).is_err());
    }
    started(&*container);
    // And of processes that are executed, whenever one is met before it has become its program.
    let done = AtomicBool::new(false);
    let met = std::thread::scope(|scope| {
        let executes = scope.spawn(|| {
            let until = Instant::now() + PATIENCE;
            while !done.load(Ordering::SeqCst) && Instant::now() < until {
                exec(&*container, &Exec::of(&["/bin/true"]));
            }
        });
        let mut met = 0;
        while met < 20 && !executes.is_finished() {
            for pid in leftovers::children(keeper).into_iter().filter(|&pid| pid != init) {
                let making = || {
                    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
                    name.is_ok_and(|name| name == "locule-init\n")
                };
                let found = making().then(|| exe(pid)).flatten();
                if let (Some(found), true) = (found, making()) {
                    assert_eq!(found & SEALED, SEALED);
                    met += 1;
                }
            }
        }
        done.store(true, Ordering::SeqCst);
        met
    });
    assert!(met > 0, "no process was met in the making");
    container.delete(true).expect("delete");
}

// Without add_seals in memory_file.rs this fails: whoever gets at the file has the keeper run his
// own hooks when the host dies.
fn the_plan_cannot_be_changed(t: &Test) {
    t.need_root();
    let container = t.sleeper("a");
    let keeper = parent_of(container.init().pid());
    let maps = fs::read_to_string(format!("/proc/{keeper}/maps")).expect("maps");
    let plan = maps.lines().find(|line| line.contains("memfd:locule-plan")).expect("a plan");
    let range = plan.split(' ').next().unwrap();
    let found = seals(Path::new(&format!("/proc/{keeper}/map_files/{}", short(range))));
    assert_eq!(found.expect("a sealed plan") & SEALED, SEALED);
    container.delete(true).expect("delete");
}

/// A range of addresses as `map_files` writes it.
fn short(range: &str) -> String {
    let number = |text: &str| u64::from_str_radix(text, 16).expect("an address");
    let (start, end) = range.split_once('-').expect("a range");
    format!("{:x}-{:x}", number(start), number(end))
}

// A directory of the host is open as descriptor 3. Without getcwd in settings.rs this fails
// (CVE-2024-21626): the program starts in it, outside of its root.
fn a_working_directory_outside_of_the_root_is_refused(t: &Test) {
    let outside = File::open("/etc").expect("open");
    let fd = outside.as_raw_fd();
    let mut spec = t.spec(&["/bin/pwd"]);
    spec["process"]["cwd"] = json!("/proc/self/fd/3");
    let options = Create { pass_fds: vec![fd], ..t.options("a", &spec) };
    t.refused(&options).at("/process/cwd");
    let container = t.sleeper("b");
    for cwd in ["/proc/self/fd/3", "/proc/self/fd/3/..", "/proc/thread-self/fd/3/ssl"] {
        let process = json!({ "args": ["/bin/pwd"], "cwd": cwd });
        let options = Exec { process, pass_fds: vec![fd], ..Exec::of(&[]) };
        refused(container.exec(&options)).at("/cwd");
    }
    container.delete(true).expect("delete");
}

// Without close_slots and the closing in settle (child.rs) this finds the host's cgroup directory
// or the host's root among the descriptors (CVE-2024-21626).
fn a_program_is_not_found_through_open_descriptors(t: &Test) {
    let container = t.sleeper("b");
    for number in 3..24 {
        for rest in ["", "/bin/busybox", "/../../../../bin/busybox", "/../../../../../../bin/sh"] {
            let program = format!("/proc/self/fd/{number}{rest}");
            refused(t.engine().create(&t.options("a", &t.spec(&[&program, "true"]))));
            refused(container.exec(&Exec::of(&[&program, "true"])));
        }
    }
    container.delete(true).expect("delete");
}

// Without the general rule that denies in cgroup/devices this fails: root in the container makes
// a node of one of the host's disks and reads it.
fn devices_that_were_not_given_cannot_be_used(t: &Test) {
    t.need_root();
    let disk = fs::metadata("/").expect("the root").dev();
    let (major, minor) = (libc::major(disk), libc::minor(disk));
    if major == 0 {
        t.skip("a root on a disk");
    }
    let container = t.sleeper("a");
    t.need_cgroup(&*container);
    exec_shell(&*container, &format!("mknod /dev/disk b {major} {minor}"));
    let output = exec(&*container, &Exec::of(&["/bin/head", "-c", "1", "/dev/disk"]));
    assert!(output.stderr.contains("not permitted"), "{output:?}");
    container.delete(true).expect("delete");
}

// Without MOUNT_ATTR_RDONLY for the host's sysfs in mount.rs, or with more than the container's
// own cgroup bound in cgroup_mount, this fails (CVE-2023-25809).
fn without_a_cgroup_namespace_the_hosts_cgroups_stay_out_of_reach(t: &Test) {
    t.need_root();
    let script = "find /sys/fs/cgroup -name cgroup.procs | while read file; do \
                  (echo 0 >$file) 2>/dev/null && echo $file; done; \
                  mkdir /sys/fs/cgroup/*/locule-hole /sys/fs/cgroup/locule-hole 2>/dev/null; \
                  find /sys/fs/cgroup -name locule-hole; echo end";
    for own_network in [true, false] {
        let mut spec = t.shell(script);
        let linux = &mut spec["linux"];
        let namespaces = linux["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|entry| entry["type"] != "cgroup");
        // Without it the host's sysfs is shown.
        namespaces.retain(|entry| own_network || entry["type"] != "network");
        locule_lifecycle::bundle::make_rootless(&mut spec, 0, 0);
        assert_eq!(t.run(&spec).success(), "end", "{own_network}");
    }
}

//! `checkpoint` and `restore`, with the machine's CRIU. As root.

mod scene;

use std::fs;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use locule::{
    Category, CheckpointOptions, CreateOptions, Parentage, RestoreOptions, Rootfs, Source, Status,
};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use scene::Scene;
use serde_json::{Value, json};

/// Counts in a file of its root, ten times a second; there is a number in it at any moment.
const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >>/tmp/count; sleep 0.1; done";

/// `None`, after saying so, where the suite cannot run.
fn scene(name: &str) -> Option<Scene> {
    let scene = Scene::new(name)?;
    if !criu(&["check"]) {
        println!("skipped: criu that works on this kernel");
        return None;
    }
    scene.change(|config| config["root"]["readonly"] = json!(false));
    scene.args(&["sh", "-c", COUNT]);
    Some(scene)
}

fn criu(words: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut command = Command::new("criu");
    command.args(words).env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// What the counting program has come to.
fn count(scene: &Scene) -> u32 {
    patiently(|| {
        let text = fs::read_to_string(scene.bundle().join("rootfs/tmp/count")).ok()?;
        text.lines().last()?.parse().ok()
    })
}

/// Waits until the program has counted further than that.
#[track_caller]
fn goes_on(scene: &Scene, from: u32) -> u32 {
    patiently(|| Some(count(scene)).filter(|count| *count > from))
}

#[track_caller]
fn patiently<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let limit = std::env::var("LOCULE_TEST_LIMIT").ok().and_then(|limit| limit.parse().ok());
    let until = Instant::now() + Duration::from_secs(limit.unwrap_or(20));
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command whose container has no streams of the host's, which no image could keep.
#[track_caller]
fn quiet(scene: &Scene, words: &[&str]) {
    let said = scene.directory.join("said");
    let command = scene.command(words);
    let log = [std::ffi::OsStr::new("--log"), said.as_os_str()];
    let whole: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut command = Command::new(command.get_program());
    command.args(log).args(whole).current_dir(scene.bundle());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().expect("run it");
    assert!(status.success(), "{words:?}: {}", fs::read_to_string(&said).unwrap_or_default());
}

fn pid(scene: &Scene, id: &str) -> i32 {
    let state: Value = serde_json::from_str(&scene.fine(&["state", id])).expect("JSON");
    state["pid"].as_i64().expect("a number") as i32
}

fn status(scene: &Scene, id: &str) -> String {
    let state: Value = serde_json::from_str(&scene.fine(&["state", id])).expect("JSON");
    state["status"].as_str().expect("text").to_owned()
}

/// What a host must find unchanged: its mounts, and how its cgroups are mounted. Other tests have
/// network namespaces with names at the same time.
fn mounts() -> String {
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    text.lines().filter(|line| !line.contains("netns")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_container_goes_on_where_it_stood() {
    let Some(scene) = scene("goes-on") else { return };
    let before = mounts();
    quiet(&scene, &["run", "--detach", "one"]);
    let mut counted = goes_on(&scene, 2);
    for _ in 0..2 {
        scene.fine(&["checkpoint", "--work-path", "work", "one"]);
        assert_eq!(scene.fine(&["list", "-q"]), "", "what is in images is no container");
        counted = counted.max(count(&scene));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(count(&scene).max(counted), counted, "nothing runs in between");

        quiet(&scene, &["restore", "-d", "--work-path", "work", "--pid-file", "pid", "one"]);
        assert_eq!(status(&scene, "one"), "running");
        let written = fs::read_to_string(scene.bundle().join("pid")).expect("the pid file");
        assert_eq!(written, pid(&scene, "one").to_string());
        counted = goes_on(&scene, counted);
    }
    assert_eq!(
        scene.fine(&["exec", "one", "sh", "-c", "echo $(id -u) $$"]).split(' ').next(),
        Some("0")
    );
    let groups =
        fs::read_to_string(format!("/proc/{}/cgroup", pid(&scene, "one"))).expect("cgroups");
    assert!(groups.contains(&scene.cgroup()), "{groups}");
    scene.fine(&["pause", "one"]);
    assert_eq!(status(&scene, "one"), "paused");
    scene.fine(&["resume", "one"]);
    scene.fine(&["kill", "one", "KILL"]);
    patiently(|| (status(&scene, "one") == "stopped").then_some(()));
    scene.fine(&["delete", "one"]);
    assert_eq!(mounts(), before);
    no_cgroup_is_left(&scene);
}

#[track_caller]
fn no_cgroup_is_left(scene: &Scene) {
    let name = scene.cgroup();
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-path"])
        .arg(format!("*{name}"))
        .output()
        .expect("find");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn what_criu_does_about_cgroups_does_not_stay_with_the_host() {
    let Some(scene) = scene("modes") else { return };
    let before = mounts();
    quiet(&scene, &["run", "--detach", "one"]);
    for mode in ["soft", "full"] {
        let counted = goes_on(&scene, 0);
        scene.fine(&["checkpoint", "--manage-cgroups-mode", mode, "one"]);
        quiet(&scene, &["restore", "-d", "--manage-cgroups-mode", mode, "one"]);
        goes_on(&scene, counted);
        assert_eq!(mounts(), before, "{mode}");
    }
    let said = scene.fails(&["checkpoint", "--manage-cgroups-mode", "other", "one"], 1);
    assert!(said.contains("invalid manage-cgroups-mode"), "{said}");
}

#[test]
fn a_host_that_does_it_itself_is_left_as_it_was() {
    let Some(scene) = scene("host") else { return };
    let runtime = locule::Runtime::new(locule::RuntimeOptions {
        state_dir: Some(scene.directory.join("state")),
        ..Default::default()
    });
    let runtime = runtime.expect("a runtime");
    let mut options = CreateOptions::new(Source::bundle(scene.bundle()));
    options.id = Some("one");
    options.parentage = Parentage::Orphan;
    let container = runtime.create(options).expect("create");
    container.start(None).expect("start");
    let counted = goes_on(&scene, 1);
    let before = Looks::now();
    container.checkpoint(&CheckpointOptions::new(scene.bundle().join("images"))).expect("dump");
    assert_eq!(container.state().expect("a state").status, Status::Stopped);
    container.delete(false).expect("delete");
    let options =
        RestoreOptions::new("one", Source::bundle(scene.bundle()), scene.bundle().join("images"));
    let restored = runtime.restore(options).expect("restore");
    goes_on(&scene, counted);
    let status = fs::read_to_string(format!("/proc/{}/status", restored.init().pid()));
    let parent = format!("PPid:\t{}\n", std::process::id());
    assert!(!status.expect("its status").contains(&parent), "it is no child of the host");
    restored.delete(true).expect("delete");
    drop((container, restored));
    assert_eq!(Looks::now(), before);
}

/// What a host has that must not change, as far as other tests in the same process let it be seen.
#[derive(Debug, PartialEq)]
struct Looks {
    mounts: String,
    directory: std::path::PathBuf,
    children: String,
}

impl Looks {
    fn now() -> Looks {
        let thread = fs::read_link("/proc/thread-self").expect("a thread");
        Looks {
            mounts: mounts(),
            directory: std::env::current_dir().expect("a directory"),
            children: fs::read_to_string(Path::new("/proc").join(thread).join("children"))
                .expect("children"),
        }
    }
}

#[test]
fn changes_in_an_overlay_are_not_given_up() {
    let Some(scene) = scene("overlay") else { return };
    let runtime = locule::Runtime::new(locule::RuntimeOptions {
        state_dir: Some(scene.directory.join("state")),
        ..Default::default()
    });
    let mut options = CreateOptions::new(Source::bundle(scene.bundle()));
    options.rootfs = Rootfs::Overlay;
    let container = runtime.expect("a runtime").create(options).expect("create");
    container.start(None).expect("start");
    let refused = container.checkpoint(&CheckpointOptions::new(scene.bundle().join("images")));
    let refused = refused.expect_err("refused");
    assert_eq!(refused.category(), Category::Unsupported, "{refused}");
    assert_eq!(container.state().expect("a state").status, Status::Running);
    container.delete(true).expect("delete");
}

#[test]
fn a_container_can_run_on_and_be_restored_beside_itself() {
    let Some(scene) = scene("runs-on") else { return };
    quiet(&scene, &["run", "--detach", "one"]);
    goes_on(&scene, 2);
    scene.fine(&["checkpoint", "--leave-running", "--image-path", "images", "one"]);
    let counted = count(&scene);
    assert_eq!(status(&scene, "one"), "running");
    goes_on(&scene, counted);
    let taken = scene.fails(&["restore", "-d", "--image-path", "images", "one"], 1);
    assert!(taken.contains("exists"), "{taken}");
    scene.change(|config| config["linux"]["cgroupsPath"] = json!(scene.cgroup() + "-two"));
    scene.fine(&[
        "restore",
        "-d",
        "--image-path",
        "images",
        "--manage-cgroups-mode",
        "ignore",
        "two",
    ]);
    assert_eq!(scene.fine(&["list", "-q"]), "one\ntwo\n");
    let groups =
        fs::read_to_string(format!("/proc/{}/cgroup", pid(&scene, "two"))).expect("cgroups");
    // Every process is in version 2, also where nobody uses it.
    let unused = |line: &&str| *line == "0::/" && groups.lines().count() > 1;
    let mut used = groups.lines().filter(|line| !unused(line));
    assert!(used.all(|line| line.ends_with("-two")), "{groups}");
    scene.fine(&["delete", "--force", "two"]);
    assert_eq!(status(&scene, "one"), "running");
}

#[test]
fn a_paused_container_can_be_checkpointed() {
    let Some(scene) = scene("paused") else { return };
    quiet(&scene, &["run", "--detach", "one"]);
    goes_on(&scene, 2);
    scene.fine(&["pause", "one"]);
    let counted = count(&scene);
    scene.fine(&["checkpoint", "one"]);
    quiet(&scene, &["restore", "-d", "one"]);
    assert_eq!(status(&scene, "one"), "running");
    goes_on(&scene, counted);
}

#[test]
fn a_pre_dump_makes_the_next_one_smaller() {
    let Some(scene) = scene("pre-dump") else { return };
    if !criu(&["check", "--feature", "mem_dirty_track"]) {
        println!("skipped: a kernel that tracks changed memory");
        return;
    }
    quiet(&scene, &["run", "--detach", "one"]);
    goes_on(&scene, 2);
    for (wrong, why) in [("/images", "relative"), ("../none", "no directory")] {
        let words = ["checkpoint", "--parent-path", wrong, "--image-path", "images", "one"];
        let said = scene.fails(&words, 1);
        assert!(said.contains("--parent-path") && said.contains(why), "{said}");
    }
    scene.fine(&["checkpoint", "--pre-dump", "--image-path", "parent", "one"]);
    assert_eq!(status(&scene, "one"), "running");
    let counted = count(&scene);
    goes_on(&scene, counted);
    scene.fine(&["checkpoint", "--parent-path", "../parent", "--image-path", "images", "one"]);
    assert!(scene.bundle().join("images/parent").exists());
    let counted = count(&scene);
    quiet(&scene, &["restore", "-d", "--image-path", "images", "one"]);
    goes_on(&scene, counted);
}

#[test]
fn a_terminal_is_handed_over_again() {
    let Some(scene) = scene("terminal") else { return };
    scene.args(&["sh", "-c", "while read word; do echo heard $word; done"]);
    scene.change(|config| config["process"]["terminal"] = json!(true));
    let socket = scene.bundle().join("console");
    let listener = UnixListener::bind(&socket).expect("bind");
    let master = |words: &[&str]| {
        quiet(&scene, words);
        received(&listener)
    };
    let mut first = master(&["run", "--detach", "--console-socket", "console", "one"]);
    talk(&mut first, "before");
    scene.fine(&["checkpoint", "one"]);
    drop(first);
    let mut second = master(&["restore", "-d", "--console-socket", "console", "one"]);
    talk(&mut second, "after");
}

fn talk(master: &mut fs::File, word: &str) {
    writeln!(master, "{word}").expect("write");
    let wanted = format!("heard {word}");
    let mut heard = String::new();
    patiently(|| {
        let mut buffer = [0; 256];
        let length = master.read(&mut buffer).expect("read");
        heard.push_str(&String::from_utf8_lossy(&buffer[..length]));
        heard.contains(&wanted).then_some(())
    });
}

/// The descriptor that comes with a message.
fn received(listener: &UnixListener) -> fs::File {
    let (stream, _) = listener.accept().expect("accept");
    let mut bytes = [0; 4096];
    let mut control = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty());
    for part in message.expect("a message").cmsgs().expect("whole") {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            // SAFETY: it has just come.
            return unsafe { OwnedFd::from_raw_fd(descriptors[0]) }.into();
        }
    }
    panic!("no descriptor came");
}

#[test]
fn pipes_are_replaced_by_those_of_the_caller() {
    let Some(scene) = scene("pipes") else { return };
    scene.args(&["sh", "-c", "while read word; do echo heard $word; done; exit 5"]);
    let start = |words: &[&str]| {
        let mut command = scene.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("run it")
    };
    let mut run = start(&["run", "--detach", "one"]);
    let _open = run.stdin.take();
    assert!(run.wait().expect("wait").success());
    scene.fine(&["checkpoint", "one"]);
    // In the foreground it is known how it ends.
    let mut restore = start(&["restore", "one"]);
    let mut input = restore.stdin.take().expect("a pipe");
    writeln!(input, "it").expect("write");
    drop(input);
    let output = restore.wait_with_output().expect("wait");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "heard it\n");
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(scene.fine(&["list", "-q"]), "");
}

#[test]
fn memory_can_come_when_it_is_needed() {
    let Some(scene) = scene("lazy") else { return };
    let version = Command::new("criu").arg("--version").output().expect("criu").stdout;
    if !criu(&["check", "--feature", "uffd-noncoop"]) || !version.starts_with(b"Version: 3.") {
        println!("skipped: lazy pages, with a CRIU whose dump lives until they are sent (3.x)");
        return;
    }
    quiet(&scene, &["run", "--detach", "one"]);
    let counted = goes_on(&scene, 1);
    let (mut ready, status) = UnixStream::pair().expect("a pair");
    // SAFETY: integers; only this program's child is to have it.
    unsafe { libc::fcntl(status.as_raw_fd(), libc::F_SETFD, 0) };
    let status_fd = status.as_raw_fd().to_string();
    let port = 20000 + std::process::id() % 20000;
    let server = format!("127.0.0.1:{port}");
    let lazy = ["checkpoint", "--lazy-pages", "--page-server", &server, "--status-fd", &status_fd];
    let mut dump = scene.command(&[&lazy[..], &["--image-path", "images", "one"]].concat());
    let mut dump = dump.spawn().expect("run it");
    drop(status);
    let mut byte = [1];
    ready.read_exact(&mut byte).expect("that the pages can be asked for");
    assert_eq!(byte, [0]);
    let mut pages = Command::new("criu");
    pages.args(["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port"]);
    pages.args([&port.to_string(), "-D", "images"]).current_dir(scene.bundle());
    let mut pages = pages.spawn().expect("run criu");
    patiently(|| scene.bundle().join("images/lazy-pages.socket").exists().then_some(()));
    // The old one is there until its last page is.
    scene.change(|config| config["linux"]["cgroupsPath"] = json!(scene.cgroup() + "-two"));
    let images = ["--image-path", "images", "--manage-cgroups-mode", "ignore"];
    quiet(&scene, &[&["restore", "-d", "--lazy-pages"], &images[..], &["two"]].concat());
    assert!(dump.wait().expect("wait").success());
    assert!(pages.wait().expect("wait").success());
    goes_on(&scene, counted);
    assert_eq!(scene.fine(&["list", "-q"]), "two\n");
}

#[test]
fn what_ran_in_the_foreground_goes_on_in_the_background() {
    let Some(scene) = scene("foreground") else { return };
    let mut run = scene.command(&["run", "one"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run it");
    let counted = goes_on(&scene, 1);
    scene.fine(&["checkpoint", "one"]);
    assert_eq!(run.wait().expect("wait").code(), Some(137), "to its caller it was killed");
    quiet(&scene, &["restore", "-d", "one"]);
    goes_on(&scene, counted);
}

#[test]
fn mounts_of_the_host_come_from_the_configuration_again() {
    let Some(scene) = scene("mounts") else { return };
    for place in ["outer", "inner", "other"] {
        fs::create_dir(scene.bundle().join(place)).expect("mkdir");
    }
    fs::write(scene.bundle().join("file"), "first").expect("write");
    fs::create_dir_all(scene.bundle().join("rootfs/real")).expect("mkdir");
    std::os::unix::fs::symlink("/real", scene.bundle().join("rootfs/link")).expect("symlink");
    let bind = |source: &str, target: &str| json!({ "source": source, "destination": target, "options": ["rbind"] });
    scene.change(|config| {
        config["mounts"].as_array_mut().expect("mounts").extend([
            bind("outer", "/link/outer"),
            bind("inner", "/link/outer/deep/inner"),
            bind("file", "/etc/file"),
        ]);
    });
    quiet(&scene, &["run", "--detach", "one"]);
    goes_on(&scene, 2);
    scene.fine(&["exec", "one", "sh", "-c", "echo here >/real/outer/deep/inner/word"]);
    scene.fine(&["checkpoint", "one"]);
    // Another machine would have neither the places to mount on nor the same sources.
    fs::remove_dir_all(scene.bundle().join("outer/deep")).expect("remove");
    fs::remove_dir_all(scene.bundle().join("rootfs/real/outer")).expect("remove");
    fs::remove_file(scene.bundle().join("rootfs/etc/file")).expect("remove");
    fs::write(scene.bundle().join("other-file"), "second").expect("write");
    scene.change(|config| {
        let mounts = config["mounts"].as_array_mut().expect("mounts");
        mounts.last_mut().expect("the file")["source"] = json!("other-file");
    });
    quiet(&scene, &["restore", "-d", "one"]);
    let seen = "cat /etc/file /link/outer/deep/inner/word; ls /sys/fs/cgroup >/dev/null && echo .";
    assert_eq!(scene.fine(&["exec", "one", "sh", "-c", seen]), "secondhere\n.\n");
}

#[test]
fn a_network_namespace_that_was_joined_is_joined_again() {
    let Some(scene) = scene("network") else { return };
    if !Path::new("/usr/sbin/ip").exists() && !Path::new("/sbin/ip").exists() {
        println!("skipped: ip (package iproute2)");
        return;
    }
    let namespace = NetworkNamespace::new();
    let path = namespace.path();
    scene.change(|config| {
        let list = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        let network = list.iter_mut().find(|namespace| namespace["type"] == "network");
        network.expect("a network")["path"] = json!(path);
    });
    let inode =
        |path: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).expect("stat"));
    quiet(&scene, &["run", "--detach", "one"]);
    scene.fine(&["checkpoint", "one"]);
    quiet(&scene, &["restore", "-d", "one"]);
    assert_eq!(inode(&format!("/proc/{}/ns/net", pid(&scene, "one"))), inode(&path));
    scene.fine(&["delete", "--force", "one"]);
}

/// One with a name, as engines make them.
struct NetworkNamespace(String);

impl NetworkNamespace {
    fn new() -> Self {
        let name = format!("locule-{}", std::process::id());
        assert!(ip(&["netns", "add", &name]));
        NetworkNamespace(name)
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        ip(&["netns", "delete", &self.0]);
    }
}

fn ip(words: &[&str]) -> bool {
    Command::new("ip").args(words).status().expect("run ip").success()
}

#[test]
fn hooks_see_a_restored_container_and_its_end() {
    let Some(scene) = scene("hooks") else { return };
    let note = scene.directory.join("note");
    let hook = |word: &str| {
        let script = format!("read state; echo {word} $state >>{}", note.display());
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script] }])
    };
    scene.change(|config| {
        config["hooks"] =
            json!({ "createRuntime": hook("createRuntime"), "poststop": hook("poststop") });
    });
    quiet(&scene, &["run", "--detach", "one"]);
    goes_on(&scene, 1);
    fs::remove_file(&note).expect("the hook of the creation");
    scene.fine(&["checkpoint", "one"]);
    let said = fs::read_to_string(&note).expect("a note");
    assert!(said.starts_with("poststop "), "{said}");
    fs::remove_file(&note).expect("remove");
    quiet(&scene, &["restore", "-d", "one"]);
    let said = fs::read_to_string(&note).expect("a note");
    let state = said.strip_prefix("createRuntime ").expect("the first one");
    let state: Value = serde_json::from_str(state).expect("JSON");
    assert_eq!(state["pid"], pid(&scene, "one"));
}

#[test]
fn a_hook_that_fails_leaves_nothing_of_a_restored_container() {
    let Some(scene) = scene("bad-hook") else { return };
    quiet(&scene, &["run", "--detach", "one"]);
    goes_on(&scene, 1);
    scene.fine(&["checkpoint", "one"]);
    scene.change(|config| {
        config["hooks"] = json!({ "createRuntime": [{ "path": "/bin/false" }] });
    });
    let before = mounts();
    let counted = count(&scene);
    let said = scene.fails(&["restore", "-d", "one"], 1);
    assert!(said.contains("createRuntime hook #0"), "{said}");
    assert_eq!(scene.fine(&["list", "-q"]), "");
    assert_eq!(mounts(), before);
    no_cgroup_is_left(&scene);
    assert_eq!(count(&scene), counted);
}

#[test]
fn what_the_images_lack_is_said_and_nothing_is_left() {
    let Some(scene) = scene("lack") else { return };
    quiet(&scene, &["run", "--detach", "one"]);
    goes_on(&scene, 1);
    scene.fine(&["checkpoint", "--image-path", "images", "one"]);
    let said = scene.fails(&["restore", "-d", "--image-path", "none", "one"], 1);
    assert!(said.contains("none"), "{said}");
    fs::remove_file(scene.bundle().join("images/core-1.img")).expect("remove");
    let said = scene.fails(&["restore", "-d", "--image-path", "images", "one"], 1);
    assert!(said.contains("CRIU failed: ") && said.contains("restore.log"), "{said}");
    assert_eq!(scene.fine(&["list", "-q"]), "");
    no_cgroup_is_left(&scene);
}

#[test]
fn only_what_runs_can_be_checkpointed() {
    let Some(scene) = scene("created") else { return };
    scene.fine(&["create", "one"]);
    let said = scene.fails(&["checkpoint", "one"], 1);
    assert!(said.contains("cannot be checkpointed in created state"), "{said}");
    let said = scene.fails(&["checkpoint", "none"], 1);
    assert!(said.contains("does not exist"), "{said}");
}

#[test]
fn a_container_in_a_unit_of_systemd_is_restored_in_one() {
    let Some(scene) = scene("unit") else { return };
    let there = ["/run/systemd/system", "/sys/fs/cgroup/cgroup.controllers"];
    if !there.iter().all(|path| Path::new(path).exists()) {
        println!("skipped: systemd and cgroup v2 alone");
        return;
    }
    scene.change(|config| config["linux"]["cgroupsPath"] = json!("system.slice:locule:restored"));
    let fine = |words: &[&str]| quiet(&scene, &[&["--systemd-cgroup"], words].concat());
    fine(&["run", "--detach", "one"]);
    let counted = goes_on(&scene, 1);
    fine(&["checkpoint", "one"]);
    fine(&["restore", "-d", "one"]);
    goes_on(&scene, counted);
    let groups =
        fs::read_to_string(format!("/proc/{}/cgroup", pid(&scene, "one"))).expect("cgroups");
    assert!(groups.contains("system.slice/locule-restored.scope"), "{groups}");
    fine(&["delete", "--force", "one"]);
}

#[test]
fn callers_find_out_whether_there_are_checkpoints() {
    let Some(scene) = Scene::new("probes") else { return };
    scene.fine(&["checkpoint", "--help"]);
    let said = scene.fails(&["restore", "--lsm-mount-context"], 1);
    assert!(said.contains("flag needs an argument"), "{said}");
    let features: Value = serde_json::from_str(&scene.fine(&["features"])).expect("JSON");
    assert_eq!(features["annotations"]["org.opencontainers.runc.checkpoint.enabled"], "true");
    let unsafe_ones = features["potentiallyUnsafeConfigAnnotations"].as_array().expect("a list");
    assert!(unsafe_ones.contains(&json!("org.criu.config")));
}

#[test]
fn without_criu_it_is_said_what_is_missing() {
    let Some(scene) = Scene::new("missing") else { return };
    scene.args(&["sleep", "1000"]);
    quiet(&scene, &["run", "--detach", "one"]);
    let checkpoint = scene.command(&["checkpoint", "one"]);
    let mut command = Command::new("unshare");
    // It is looked for where programs for root are, too: it is hidden from this one, if it is there.
    let hide = "before=$IFS; IFS=:; \
                for place in $PATH:/usr/local/sbin:/usr/sbin:/sbin; do \
                [ ! -e $place/criu ] || mount --bind /dev/null $place/criu; done; \
                IFS=$before; exec \"$@\"";
    command.args(["--mount", "sh", "-c", hide, "sh"]).arg(checkpoint.get_program());
    command.args(checkpoint.get_args()).current_dir(scene.bundle());
    let output = command.output().expect("unshare");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the program criu is missing"), "{said}");
    assert_eq!(status(&scene, "one"), "running");
}

//! Images by the command: words, documents, exit codes, and a life from a directory to a container and
//! back. As root, with the host's busybox.

mod scene;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use scene::Scene;
use serde_json::{Value, json};

/// A store of the scene's own.
fn store(scene: &Scene, name: &str) -> String {
    scene.directory.join(name).to_str().expect("text").to_owned()
}

/// The words with a store after the verb of `image`.
fn words<'a>(store: &'a str, given: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["image", given[0], "--store", store];
    words.extend(&given[1..]);
    words
}

/// A store with the scene's root as the image `box`; its digest comes with it.
fn with_box(scene: &Scene) -> (String, String) {
    let store = store(scene, "store");
    let root = scene.bundle().join("rootfs");
    let import = ["import", root.to_str().unwrap(), "box", "-c", "Cmd=[\"echo\", \"hello\"]"];
    let digest = scene.fine(&words(&store, &import));
    let digest = digest.strip_suffix('\n').expect("a line").to_owned();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest}");
    (store, digest)
}

fn document(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_directory_becomes_an_image_and_the_image_a_container() {
    let Some(scene) = Scene::new("image") else { return };
    let (store, digest) = with_box(&scene);
    let name = "docker.io/library/box:latest";

    let list = document(&scene.fine(&words(&store, &["list", "--format", "json"])));
    let [image] = list.as_array().expect("an array").as_slice() else { panic!("one: {list}") };
    assert_eq!((&image["digest"], &image["names"]), (&json!(digest), &json!([name])));
    assert!(image["size"].as_u64().is_some_and(|size| size > 10_000), "{image}");
    assert_eq!(scene.fine(&words(&store, &["list", "-q"])), format!("{digest}\n"));
    let table = scene.fine(&words(&store, &["list"]));
    let row = table.lines().nth(1).expect("a row");
    assert!(row.starts_with(name) && row.contains(&digest[7..19]), "{table}");

    let all = document(&scene.fine(&words(&store, &["inspect", "box"])));
    assert_eq!(all["digest"], json!(digest));
    assert_eq!(all["config"]["config"]["Cmd"], json!(["echo", "hello"]));
    assert_eq!(document(&scene.fine(&words(&store, &["inspect", &digest[7..19]]))), all);

    let run = |given: &[&str]| {
        let mut words = vec!["run", "--image", "box", "--store", store.as_str(), "--pull", "never"];
        words.extend(given);
        scene.fine(&words)
    };
    assert_eq!(run(&[]), "hello\n");
    assert_eq!(run(&["named", "--", "echo", "other"]), "other\n");
    assert_eq!(run(&["--entrypoint", "id", "--", "-u"]), "0\n");
    let script = "echo $A $B $PWD; id -u; id -g";
    let given = ["-e", "A=b", "--user", "7:8", "--cwd", "/tmp", "--patch"];
    let patch = "{\"process\": {\"noNewPrivileges\": true}}";
    let given = given.into_iter().chain([patch, "--", "sh", "-c", script]).collect::<Vec<_>>();
    assert_eq!(run(&given), "b /tmp\n7\n8\n");
    // It is the container's own root that changes, and nobody else's.
    assert_eq!(run(&["--", "sh", "-c", "echo x >/tmp/new; cat /tmp/new"]), "x\n");
    let code =
        ["run", "--image", "box", "--store", &store, "--", "sh", "-c", "cat /tmp/new; exit 3"];
    assert_eq!(scene.locule(&code).status.code(), Some(3));
    assert_eq!(scene.fine(&["list", "-q"]), "");
    // A service manager's socket is there as it is without an image.
    let manager = scene.directory.join("manager.sock");
    let _socket = std::os::unix::net::UnixDatagram::bind(&manager).expect("bind");
    let script = "test -S $NOTIFY_SOCKET && echo $NOTIFY_SOCKET";
    let told = ["run", "--image", "box", "--store", &store, "told", "--", "sh", "-c", script];
    let mut command = scene.command(&told);
    let output = command.env("NOTIFY_SOCKET", &manager).output().expect("run it");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/run/notify/notify.sock\n", "{output:?}");
    // Images are found by the environment, too.
    let mut command = scene.command(&["run", "--image", "box"]);
    let output = command.env("LOCULE_IMAGES", &store).output().expect("run it");
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b"hello\n"[..]),
        "{output:?}"
    );
}

#[test]
fn what_a_container_changed_becomes_an_image_that_goes_to_another_store() {
    let Some(scene) = Scene::new("commit") else { return };
    let (store, digest) = with_box(&scene);
    let changes = scene.directory.join("changes");
    let run = ["run", "--image", "box", "--store", &store, "--keep", "--changes"];
    let script = "echo kept >/etc/kept; rm /bin/cat";
    let run: Vec<_> = run
        .into_iter()
        .chain([changes.to_str().unwrap(), "one", "--", "sh", "-c", script])
        .collect();
    scene.fine(&run);
    let commit =
        ["commit", "one", "changed", "-c", "Cmd=[\"sh\", \"-c\", \"read a </etc/kept; echo $a\"]"];
    let commit: Vec<_> =
        commit.into_iter().chain(["--message", "a test", "--format", "json"]).collect();
    let made = document(&scene.fine(&words(&store, &commit)));
    assert_eq!(made["names"], json!(["docker.io/library/changed:latest"]));
    assert_ne!(made["digest"], json!(digest));
    scene.fine(&["delete", "one"]);

    for (place, compression) in [("layout", "zstd"), ("layout.tar", "none")] {
        // Each with an image of its own.
        let root = scene.bundle().join("rootfs");
        let import = ["import", root.to_str().unwrap(), "packed", "--compression", compression];
        scene.fine(&words(&store, &import));
        let path = scene.directory.join(place);
        let path = path.to_str().unwrap();
        scene.fine(&words(&store, &["save", "changed", path]));
        // A directory has room for more of them.
        if place == "layout" {
            scene.fine(&words(&store, &["save", "packed", path, "--name", "other"]));
        }
        let second = self::store(&scene, &format!("store-of-{place}"));
        let load = ["load", path, "--from", "changed", "--name", "again", "--format", "json"];
        let loaded = document(&scene.fine(&words(&second, &load)));
        assert_eq!(loaded["digest"], made["digest"], "{place}");
        assert_eq!(loaded["names"], json!(["docker.io/library/again:latest"]));
        if place == "layout" {
            let said = scene.fails(&words(&second, &["load", path]), 1);
            assert!(said.contains("library/other:latest"), "which one? {said}");
            scene.fine(&words(&second, &["load", path, "--from", "other"]));
        }
        assert_eq!(scene.fine(&["run", "--image", "again", "--store", &second]), "kept\n");
        let words = ["run", "--image", "again", "--store", &second, "--", "cat", "/etc/kept"];
        scene.fails(&words, 1);
    }
}

#[test]
fn names_come_and_go_and_what_nobody_names_is_pruned() {
    let Some(scene) = Scene::new("prune") else { return };
    let (store, digest) = with_box(&scene);
    let names = || {
        let list = document(&scene.fine(&words(&store, &["list", "-f", "json"])));
        list.as_array()
            .unwrap()
            .iter()
            .flat_map(|image| image["names"].as_array().unwrap().clone())
            .collect::<Vec<_>>()
    };
    scene.fine(&words(&store, &["tag", "box", "second:1"]));
    assert_eq!(
        names(),
        [json!("docker.io/library/box:latest"), json!("docker.io/library/second:1")]
    );
    scene.fine(&words(&store, &["remove", "box"]));
    assert_eq!(names(), [json!("docker.io/library/second:1")]);
    let nothing = document(&scene.fine(&words(&store, &["prune", "--format", "json"])));
    assert_eq!((&nothing["images"], &nothing["blobs"]), (&json!([]), &json!(0)));
    // What is there is removed, whatever is not.
    let said = scene.fails(&words(&store, &["remove", "nothing", "second:1"]), 1);
    assert!(said.contains("nothing"), "{said}");
    // An image goes with its last name, and what it consisted of when it is asked for.
    assert_eq!(scene.fine(&words(&store, &["list", "-f", "json"])), "[]\n");
    let pruned = document(&scene.fine(&words(&store, &["prune", "--format", "json"])));
    assert_eq!((&pruned["images"], &pruned["blobs"]), (&json!([]), &json!(3)));
    assert!(pruned["bytes"].as_u64().is_some_and(|bytes| bytes > 10_000), "{pruned}");
    // One that never had a name.
    let root = scene.bundle().join("rootfs");
    let unnamed = scene.fine(&words(&store, &["import", root.to_str().unwrap()]));
    assert_eq!(scene.fine(&words(&store, &["list", "-q"])), unnamed);
    let said = scene.fine(&words(&store, &["prune"]));
    assert!(said.starts_with(&format!("{unnamed}blobs: 3, of ")), "{said}");
    assert_eq!(scene.fine(&words(&store, &["list", "-q"])), "");
    // With --all, also what has a name.
    with_box(&scene);
    let said = scene.fine(&words(&store, &["prune", "--all"]));
    assert!(said.starts_with(&format!("{digest}\nblobs: ")), "{said}");
}

#[test]
fn an_image_is_unpacked_to_a_directory() {
    let Some(scene) = Scene::new("unpack") else { return };
    chown(scene.bundle().join("rootfs/bin/busybox"), Some(7), Some(8)).expect("chown");
    let (store, _) = with_box(&scene);
    let dir = scene.directory.join("plain");
    scene.fine(&words(&store, &["unpack", "box", dir.to_str().unwrap()]));
    let owner_in = |place: &str, given: &[&str]| {
        let dir = scene.directory.join(place);
        let given = [&["unpack", "box", dir.to_str().unwrap()], given].concat();
        scene.fine(&words(&store, &given));
        let owner = fs::metadata(dir.join("bin/busybox")).expect("stat");
        (owner.uid(), owner.gid())
    };
    assert_eq!(owner_in("auto", &["--owner", "auto"]), (7, 8));
    assert_eq!(owner_in("image", &["--owner", "image"]), (7, 8));
    assert_eq!(owner_in("caller", &["--owner", "caller"]), (0, 0));
    let of = |root: &std::path::Path| fs::read(root.join("bin/busybox")).expect("read");
    assert_eq!(of(&dir), of(&scene.bundle().join("rootfs")));
    assert_eq!(fs::read_link(dir.join("bin/sh")).expect("a link").to_str(), Some("busybox"));
    let shifted = scene.directory.join("shifted");
    let map = ["unpack", "box", shifted.to_str().unwrap(), "--uid-map", "0:1000:10"];
    let said = scene.fails(&words(&store, &map), 1);
    assert!(said.contains("--gid-map"), "{said}");
    let map: Vec<_> = map.into_iter().chain(["--gid-map", "0:2000:10"]).collect();
    scene.fine(&words(&store, &map));
    let owner = fs::metadata(shifted.join("bin/busybox")).expect("stat");
    assert_eq!((owner.uid(), owner.gid()), (1007, 2008));
    let small = scene.directory.join("small");
    let words = words(&store, &["unpack", "box", small.to_str().unwrap(), "--max-entries", "3"]);
    scene.fails(&words, 1);
}

#[test]
fn progress_is_objects_for_programs_and_bars_if_asked_for() {
    let Some(scene) = Scene::new("progress") else { return };
    let (store, digest) = with_box(&scene);
    let path = scene.directory.join("layout");
    let save = |place: &str, form: &[&str]| {
        let path = path.with_file_name(place);
        let mut given = vec!["save", "box", path.to_str().unwrap()];
        given.extend(form);
        let output = scene.locule(&words(&store, &given));
        assert!(output.status.success(), "{output:?}");
        // What came out is where it always is.
        assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{digest}\n"));
        String::from_utf8(output.stderr).expect("text")
    };
    let text = save("json", &["--progress", "json"]);
    let lines: Vec<_> = text.lines().map(document).collect();
    assert!(!lines.is_empty());
    for line in &lines {
        let keys: Vec<_> = line.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["step", "digest", "done", "total", "finished"]);
        assert!(
            line["step"] == "save" && line["done"].is_u64() && line["total"].is_u64(),
            "{line}"
        );
    }
    let finished = lines.iter().filter(|line| line["finished"] == true);
    let mut digests: Vec<_> = finished.map(|line| line["digest"].as_str().unwrap()).collect();
    assert!(digests.iter().all(|digest| digest.starts_with("sha256:")), "{digests:?}");
    digests.sort();
    digests.dedup();
    assert!(!digests.is_empty(), "{text}");
    let bars = save("bar", &["--progress", "bar"]);
    assert!(bars.lines().last().is_some_and(|line| line.contains("save    ")), "{bars}");
    // What a container needs is unpacked before it is made.
    let run = ["run", "--image", "box", "--store", &store, "--progress", "json"];
    let output = scene.locule(&run);
    assert_eq!(&output.stdout[..], b"hello\n", "{output:?}");
    let lines: Vec<_> =
        std::str::from_utf8(&output.stderr).unwrap().lines().map(document).collect();
    assert!(lines.iter().all(|line| line["step"] == "unpack"), "{output:?}");
    assert!(lines.last().is_some_and(|line| line["finished"] == true), "{output:?}");
    assert_eq!(scene.fine(&run), "hello\n", "and never again");
    for form in [&["--progress", "none"][..], &["--quiet"], &["--quiet", "--progress", "json"], &[]]
    {
        assert_eq!(save("none", form), "", "{form:?}");
    }
}

#[test]
fn a_signal_ends_a_long_call_cleanly() {
    let Some(scene) = Scene::new("stopped") else { return };
    let store = store(&scene, "store");
    let big = scene.directory.join("big");
    fs::create_dir_all(&big).expect("mkdir");
    let file = fs::File::create(big.join("big")).expect("a file");
    // It takes minutes, and no room; a layer may have 128 GiB.
    file.set_len(100 << 30).expect("a sparse file");
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        // A shell's background has it ignored. SAFETY: integers.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        let words = words(&store, &["import", big.to_str().unwrap(), "big", "--progress", "json"]);
        let mut child = scene
            .command(&words)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run it");
        let mut output = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("read");
        assert_eq!(document(&line)["step"], "pack", "{line}");
        // SAFETY: integers; it has not been waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        let mut rest = String::new();
        output.read_to_string(&mut rest).expect("read");
        assert_eq!(child.wait().expect("wait").code(), Some(code), "{rest}");
        assert!(rest.lines().last().is_some_and(|line| line.contains("cancelled")), "{rest}");
        assert_eq!(scene.fine(&self::words(&store, &["list", "-q"])), "");
    }
    // So it is while an image is unpacked for a container.
    file.set_len(1 << 30).expect("a smaller one");
    scene.fine(&words(&store, &["import", big.to_str().unwrap(), "big"]));
    let run = ["run", "--image", "big", "--store", &store, "--progress", "json"];
    let mut child = scene.command(&run).stderr(Stdio::piped()).spawn().expect("run it");
    let mut output = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    output.read_line(&mut line).expect("read");
    assert_eq!(document(&line)["step"], "unpack", "{line}");
    // SAFETY: integers; it has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("read");
    assert_eq!(child.wait().expect("wait").code(), Some(143), "{rest}");
    assert!(rest.lines().last().is_some_and(|line| line.contains("cancelled")), "{rest}");
    let layers = fs::read_dir(scene.directory.join("store/layers")).expect("read");
    assert_eq!(layers.count(), 0);
}

#[test]
fn prune_waits_for_others_no_longer_than_it_may() {
    let Some(scene) = Scene::new("patience") else { return };
    let (store, _) = with_box(&scene);
    let lock = fs::File::open(scene.directory.join("store/lock")).expect("the lock");
    // SAFETY: integers.
    let locked = unsafe { libc::flock(std::os::fd::AsRawFd::as_raw_fd(&lock), libc::LOCK_SH) };
    assert_eq!(locked, 0);
    let said = scene.fails(&words(&store, &["prune", "--timeout", "100ms"]), 1);
    assert!(said.contains("the deadline passed"), "{said}");
    let mut command = scene.command(&words(&store, &["prune"]));
    let mut child = command.stderr(Stdio::null()).spawn().expect("run it");
    let status = format!("/proc/{}/status", child.id());
    let caught = || {
        let status = fs::read_to_string(&status).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
        u64::from_str_radix(line.trim(), 16).expect("a number") & 1 << (libc::SIGTERM - 1) != 0
    };
    while !caught() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // SAFETY: integers; it has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert_eq!(child.wait().expect("wait").code(), Some(143));
    drop(lock);
    scene.fine(&words(&store, &["prune", "--timeout", "30s"]));
}

#[test]
fn wrong_words_are_told_before_anything_is_done() {
    let Some(scene) = Scene::new("wrong") else { return };
    let store = store(&scene, "store");
    let path = scene.directory.to_str().unwrap();
    for (given, wrong) in [
        (&["import", path, "--compression", "lzma"][..], "--compression lzma"),
        (&["import", path, "--config", "Cmd"], "--config Cmd: expected KEY=VALUE"),
        (&["import", path, "--config", "{\"Cmd\": [}"], "--config {\"Cmd\": [}: "),
        (&["import", path, "--progress", "x"], "--progress x"),
        (&["import", path, "--timeout", "5"], "--timeout 5"),
        (&["prune", "--timeout", "5"], "--timeout 5"),
        (&["pull", "a", "--format", "xml"], "--format xml: expected text or json"),
        (&["load", path, "--format", "table"], "--format table: expected text or json"),
        (&["import", path, "--format", ""], "--format : expected text or json"),
        (&["commit", "a", "--format", "xml"], "--format xml: expected text or json"),
        (&["save", "a", path, "--format", "xml"], "--format xml: expected text or json"),
        (&["push", "a", "--format", "xml"], "--format xml: expected text or json"),
        (&["prune", "--format", "xml"], "--format xml: expected text or json"),
        (&["list", "--format", "text"], "--format text: expected table or json"),
        (&["unpack", "a", "/nothing", "--format", "json"], "not defined: -format"),
        (&["unpack", "a", "/nothing", "--owner", "me"], "--owner me: expected auto, image or"),
        (&["unpack", "a", "/nothing", "--owner", "auto", "--uid-map", "0:1:1"], "--owner"),
        (&["import", path, "--creds", "a:b"], "flag provided but not defined: -creds"),
        (&["pull", "a", "--creds", "me"], "--password-stdin"),
        (&["pull", "a", "--creds", "me:x", "--password-stdin"], "both"),
        (&["pull", "a", "--password-stdin"], "--creds"),
        (&["pull"], "REFERENCE"),
        (&["unpack", "a", "/nothing", "--uid-map", "0:1"], "--uid-map: 0:1"),
        (&["unpack", "a", "/nothing", "--max-bytes", "-1"], "--max-bytes -1"),
        (&["remove"], "NAME"),
    ] {
        let said = scene.fails(&words(&store, given), 1);
        // The log has quotes of its own.
        assert!(said.replace('\\', "").contains(wrong), "{given:?}: {said}");
    }
    assert!(scene.fails(&["image", "nonsense"], 3).contains("No help topic for 'nonsense'"));
    for verb in [
        "pull", "load", "import", "commit", "list", "inspect", "tag", "save", "push", "unpack",
        "remove", "prune",
    ] {
        let help = scene.fine(&["image", verb, "--help"]);
        assert!(help.starts_with(&format!("NAME:\n   locule image {verb} - ")), "{help}");
        assert!(
            scene
                .fine(&["help", "image", verb])
                .starts_with(&format!("NAME:\n   locule image {verb} - "))
        );
    }
    assert!(scene.fine(&["image"]).contains("take an image from an OCI layout"));
    let root = scene.bundle().join("rootfs");
    let root = root.to_str().unwrap();
    for (given, wrong) in [
        (&["--image", "a", "--rootfs", root][..], "--rootfs"),
        (&["--image", "a", "--bundle", root], "--bundle"),
        (&["--image", "a", "--overlay"], "--overlay"),
        (&["--rootfs", root, "--no-overlay"], "--no-overlay"),
        (&["--image", "a", "--no-overlay", "--changes", root], "--no-overlay"),
        (&["--rootfs", root, "--entrypoint", "x", "--", "true"], "--entrypoint"),
        (&["--bundle", root, "--memory", "1m", "one"], "--memory"),
        (&["--image", "a", "--store", &store, "--pull", "perhaps"], "--pull perhaps"),
        (&["--image", "a", "--store", &store, "--patch", "[]"], "--patch []"),
        (&["--image", "a", "--store", &store, "--annotation", "x"], "--annotation x"),
        (&["--image", "a", "--store", &store, "--entrypoint", "[1]"], "--entrypoint [1]"),
        (&["--image", "a", "--store", &store, "--progress", "x"], "--progress x"),
    ] {
        let given: Vec<_> = ["run"].iter().chain(given).copied().collect();
        let said = scene.fails(&given, 1);
        assert!(said.contains(wrong), "{given:?}: {said}");
    }
    assert!(!scene.directory.join("store").exists(), "nothing was made");
}

#[test]
fn what_is_not_there_is_named() {
    let Some(scene) = Scene::new("absent") else { return };
    let (store, digest) = with_box(&scene);
    let nowhere = scene.directory.join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    let layout = scene.directory.join("layout");
    let layout = layout.to_str().unwrap();
    scene.fine(&words(&store, &["save", "box", layout]));
    for (given, wrong) in [
        (&["inspect", "nothing"][..], "nothing"),
        (&["inspect", "sha256:00"], "sha256:00"),
        (&["inspect", "UPPER"], "UPPER"),
        (&["tag", "nothing", "other"], "nothing"),
        (&["tag", "box", "no name"], "no name"),
        (&["save", "nothing", nowhere], "nothing"),
        (&["load", nowhere], "nowhere"),
        (&["load", layout, "--platform", "linux/"], "linux"),
        (&["import", nowhere], "nowhere"),
        (&["commit", "nothing"], "container does not exist"),
        (&["push", &digest], "where to?"),
        (&["remove", "nothing"], "nothing"),
    ] {
        let said = scene.fails(&words(&store, given), 1);
        assert!(said.contains(wrong), "{given:?}: {said}");
    }
    let run = ["run", "--image", "nothing", "--store", &store, "--pull", "never"];
    assert!(scene.fails(&run, 1).contains("nothing"));
    // Nobody means a repository of that name.
    for pull in ["missing", "always"] {
        let run = ["run", "--image", "0123456789ab", "--store", &store, "--pull", pull];
        let said = scene.fails(&run, 1);
        assert!(said.contains("there is no image") && said.contains("in the store"), "{said}");
        let run = ["run", "--image", &digest[7..19], "--store", &store, "--pull", pull];
        assert_eq!(scene.fine(&run), "hello\n");
    }
    // A container without changes of its own has nothing to make an image of.
    scene.args(&["true"]);
    scene.fine(&["run", "--keep", "one"]);
    scene.fails(&words(&store, &["commit", "one"]), 1);
    scene.fine(&["delete", "one"]);
    let only = words(&store, &["list", "-q", "--read-only-store"]);
    assert_eq!(scene.fine(&only), format!("{digest}\n"));
    scene.fails(&words(&store, &["tag", "--read-only-store", "box", "other"]), 1);
    // The library, which executes these verbs, reads what is wrong on standard output.
    let ids = "{\"uids\": [], \"gids\": []}";
    for given in [
        &["unpack-layers", "/dev/null", &digest, ids][..],
        &["unpack-tree", "/dev/null", &digest, ids, "tree"],
        &["unpack-tree", &store, &digest, ids, "../tree"],
        &["pack-changes", "/dev/null", "/nothing", "gzip", ids],
        &["pack-changes", &store, "/nothing", "gzip", ids],
        &["remove-draft", "/dev/null", "layer"],
    ] {
        let output = scene.locule(&[&["image"], given].concat());
        assert_eq!(output.status.code(), Some(1), "{given:?}: {output:?}");
        let report = document(std::str::from_utf8(&output.stdout).unwrap());
        let named = report["message"].as_str().is_some_and(|text| text.contains("/"));
        assert!(named && report["category"].is_string(), "{given:?}: {report}");
    }
    // What is damaged is not listed, and not passed over in silence.
    fs::remove_file(scene.directory.join("store/blobs/sha256").join(&digest[7..])).expect("rm");
    let output = scene.locule(&words(&store, &["list", "-q"]));
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b""[..]), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("level=warning") && said.contains(&digest), "{said}");
}

#[test]
fn an_image_for_another_platform_is_not_the_one_that_was_asked_for() {
    let Some(scene) = Scene::new("platform") else { return };
    let (store, digest) = with_box(&scene);
    let list = document(&scene.fine(&words(&store, &["list", "--format", "json"])));
    let own = list[0]["platform"].as_str().expect("text");
    let run = |name: &str, platform: &str, pull: &str| {
        let words = ["run", "--image", name, "--store", &store, "--platform", platform];
        scene.locule(&[&words[..], &["--pull", pull]].concat())
    };
    let hello = |output: &Output| assert_eq!(&output.stdout[..], b"hello\n", "{output:?}");
    let refused = |output: Output, wanted: [&str; 2]| {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(wanted.iter().all(|word| said.contains(word)), "{said}");
    };
    hello(&run("box", own, "missing"));
    hello(&run("box", std::env::consts::ARCH, "never"));
    refused(run("box", "linux/s390x", "never"), [own, "linux/s390x"]);
    refused(run(&digest, "linux/s390x", "missing"), [own, "linux/s390x"]);

    // One of the same name that is for another machine is as if it were not there.
    let Some(registry) = Registry::new(&scene) else { return };
    let name = format!("localhost:{}/team/box:1", registry.port);
    scene.fine(&words(&store, &["push", "box", &name]));
    let layout = scene.directory.join("layout");
    scene.fine(&words(&store, &["save", "box", layout.to_str().unwrap()]));
    let other = for_s390x(&layout);
    let load = ["load", layout.to_str().unwrap(), "--platform", "linux/s390x", "--name", &name];
    assert_eq!(scene.fine(&words(&store, &load)), format!("{other}\n"));
    refused(run(&name, own, "never"), ["linux/s390x", own]);
    hello(&run(&name, own, "missing"));
    drop(registry);
    hello(&run(&name, own, "missing"));
}

/// Says of the image in a layout that it is for another machine; gives its new digest.
fn for_s390x(layout: &Path) -> String {
    let blob = |digest: &Value| layout.join("blobs/sha256").join(&digest.as_str().unwrap()[7..]);
    let read = |path: &Path| document(&fs::read_to_string(path).expect("read"));
    let write = |text: &Value| {
        let text = text.to_string();
        let path = layout.join("blobs/sha256/new");
        fs::write(&path, &text).expect("write");
        let sum = Command::new("sha256sum").arg(&path).output().expect("sha256sum");
        let digest = String::from_utf8_lossy(&sum.stdout[..64]).into_owned();
        fs::rename(&path, path.with_file_name(&digest)).expect("rename");
        (json!(format!("sha256:{digest}")), json!(text.len()))
    };
    let mut index = read(&layout.join("index.json"));
    let mut manifest = read(&blob(&index["manifests"][0]["digest"]));
    let mut config = read(&blob(&manifest["config"]["digest"]));
    config["architecture"] = json!("s390x");
    (manifest["config"]["digest"], manifest["config"]["size"]) = write(&config);
    let (digest, size) = write(&manifest);
    let descriptor = &mut index["manifests"][0];
    (descriptor["digest"], descriptor["size"]) = (digest.clone(), size);
    descriptor["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    fs::write(layout.join("index.json"), index.to_string()).expect("write");
    digest.as_str().expect("text").to_owned()
}

#[test]
fn a_registry_on_this_machine_takes_an_image_and_gives_it_back() {
    let Some(scene) = Scene::new("registry") else { return };
    let Some(registry) = Registry::new(&scene) else { return };
    let (store, digest) = with_box(&scene);
    let name = format!("localhost:{}/team/box:1", registry.port);
    assert_eq!(scene.fine(&words(&store, &["push", "box", &name])), format!("{digest}\n"));
    let second = self::store(&scene, "second");
    let pull = ["pull", &name, "--format", "json"];
    let pulled = document(&scene.fine(&words(&second, &pull)));
    assert_eq!((&pulled["digest"], &pulled["names"]), (&json!(digest), &json!([name])));
    // Missing ones are fetched to be run, unless that is not wanted.
    let third = self::store(&scene, "third");
    let run = ["run", "--image", &name, "--store", &third];
    let never: Vec<_> = run.into_iter().chain(["--pull", "never"]).collect();
    scene.fails(&never, 1);
    assert_eq!(scene.fine(&run), "hello\n");
    assert_eq!(scene.fine(&never), "hello\n");
    drop(registry);
    assert_eq!(scene.fine(&run), "hello\n", "it is there");
    let always: Vec<_> = run.into_iter().chain(["--pull", "always"]).collect();
    scene.fails(&always, 1);
}

#[test]
fn a_user_with_subordinate_ids_has_the_owners_that_an_image_says() {
    let Some(scene) = Scene::new("subordinate") else { return };
    let Some(user) = User::new(&scene) else { return };
    let own = scene.bundle().join("rootfs/own");
    fs::create_dir(&own).expect("mkdir");
    fs::write(own.join("file"), "mine\n").expect("write");
    for path in [own.join("file"), own] {
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        chown(&path, Some(1000), Some(1001)).expect("chown");
    }
    let (store, _) = with_box(&scene);
    let layout = scene.directory.join("layout.tar");
    let layout = layout.to_str().unwrap();
    scene.fine(&words(&store, &["save", "box", layout]));
    fs::set_permissions(layout, fs::Permissions::from_mode(0o644)).expect("chmod");

    let store = user.home.join("store");
    let store = store.to_str().unwrap();
    user.fine(&words(store, &["load", layout]));
    let run = |given: &[&str]| {
        let first = ["run", "--image", "box", "--store", store, "--pull", "never"];
        user.fine(&first.iter().chain(given).copied().collect::<Vec<_>>())
    };
    let script = "read a b c </proc/self/uid_map; echo $a $b $c; busybox stat -c %u:%g /own /bin";
    assert_eq!(run(&["--", "sh", "-c", script]), format!("0 {USER} 1\n1000:1001\n0:0\n"));
    assert_eq!(run(&["--user", "1000:1001", "--", "cat", "/own/file"]), "mine\n");
    // So it has without an overlay, and nothing stays.
    let unpacked = || fs::read_dir(user.home.join("store/layers")).expect("read").count();
    let before = unpacked();
    let script =
        "busybox stat -c %u:%g /own /bin; busybox grep -c '^overlay / ' /proc/mounts; true";
    assert_eq!(run(&["--no-overlay", "--", "sh", "-c", script]), "1000:1001\n0:0\n0\n");
    let drafts = || fs::read_dir(user.home.join("store/drafts")).expect("read");
    let trees = || drafts().filter(|entry| entry.as_ref().expect("an entry").path().is_dir());
    assert_eq!((unpacked(), trees().count()), (before, 0));
    // What it changes becomes an image with the same owners.
    let changes = user.home.join("changes");
    let script = "echo new >/etc/new; busybox chown 5:6 /etc/new; busybox chmod 600 /etc/new";
    // No other test's container: a user may not have the cgroup of one that root has.
    let id = "of-subordinate-ids";
    let kept = ["--keep", "--changes", changes.to_str().unwrap(), id, "--", "sh", "-c", script];
    run(&kept);
    user.fine(&words(store, &["commit", id, "changed"]));
    user.fine(&["delete", id]);
    let stat = ["busybox", "stat", "-c", "%u:%g", "/etc/new"];
    let changed = ["run", "--image", "changed", "--store", store, "--"];
    assert_eq!(user.fine(&[&changed[..], &stat].concat()), "5:6\n");
    let read = ["run", "--image", "changed", "--store", store, "--user", "5:6", "--"];
    assert_eq!(user.fine(&[&read[..], &["cat", "/etc/new"]].concat()), "new\n");
    // Its layers go, whosever they are.
    assert_eq!(unpacked(), 2);
    user.fine(&words(store, &["prune", "--all"]));
    assert_eq!(unpacked(), 0);
    assert_eq!(fs::read_dir(user.home.join("store/drafts")).expect("read").count(), 0);

    // What went wrong inside is told outside.
    let far = scene.bundle().join("rootfs/far");
    fs::write(&far, "").expect("write");
    chown(&far, Some(70_000), Some(0)).expect("chown");
    let (store, _) = with_box(&scene);
    scene.fine(&words(&store, &["save", "box", layout]));
    let store = user.home.join("store");
    let store = store.to_str().unwrap();
    user.fine(&words(store, &["load", layout]));
    let output = user.locule(&["run", "--image", "box", "--store", store]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("70000") && said.contains("far"), "{said}");
    assert_eq!(user.fine(&["list", "-q"]), "");
}

/// Somebody whom this machine does not know.
const USER: u32 = 54321;

/// Who has subordinate ids, in mounts of its own.
struct User {
    directory: PathBuf,
    home: PathBuf,
}

impl User {
    fn new(scene: &Scene) -> Option<User> {
        let skipped = |what: &str| {
            println!("skipped: {what}");
            None
        };
        if !Path::new("/usr/bin/newuidmap").exists() {
            return skipped("newuidmap (package uidmap)");
        }
        let directory = scene.directory.join("somebody");
        let home = directory.join("home");
        fs::create_dir_all(&home).expect("mkdir");
        chown(&home, Some(USER), Some(USER)).expect("chown");
        let passwd = fs::read_to_string("/etc/passwd").expect("passwd");
        let range = "somebody:400000:65536\n".to_owned();
        for (file, text) in [
            ("passwd", format!("{passwd}somebody:x:{USER}:{USER}::/:/bin/sh\n")),
            ("subuid", range.clone()),
            ("subgid", range),
        ] {
            if !Path::new("/etc").join(file).exists() {
                return skipped(&format!("/etc/{file}"));
            }
            fs::write(directory.join(file), text).expect("write");
        }
        // Where the user may execute it.
        fs::copy(scene::program(), directory.join("locule")).expect("copy");
        let user = User { directory, home };
        let mut command = user.command();
        let allowed = command.args(["unshare", "-Ur", "true"]).output();
        if !allowed.is_ok_and(|output| output.status.success()) {
            return skipped("unshare, setpriv, and user namespaces for ordinary users");
        }
        Some(user)
    }

    /// The words of a command are to follow.
    fn command(&self) -> Command {
        let script = "for file in passwd subuid subgid; do mount --bind \"$1/$file\" /etc/$file || exit 99; done; \
                      cd / && shift && exec setpriv --reuid=54321 --regid=54321 --clear-groups \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", script, "sh"]);
        command.arg(&self.directory).stdin(Stdio::null());
        command
    }

    fn locule(&self, words: &[&str]) -> Output {
        let mut command = self.command();
        command.arg(self.directory.join("locule"));
        command.arg("--root").arg(self.home.join("state")).args(words);
        command.output().expect("run it")
    }

    #[track_caller]
    fn fine(&self, words: &[&str]) -> String {
        let output = self.locule(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }
}

/// Debian's registry, on loopback.
struct Registry {
    child: std::process::Child,
    port: u16,
}

impl Registry {
    fn new(scene: &Scene) -> Option<Registry> {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("an address").port()
        };
        let config = scene.directory.join("registry.yml");
        let mut file = fs::File::create(&config).expect("a file");
        let data = scene.directory.join("registry");
        let data = data.display();
        write!(
            file,
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {data}\nhttp:\n  addr: 127.0.0.1:{port}\n"
        )
        .expect("write");
        let mut command = std::process::Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            println!("skipped: docker-registry");
            return None;
        };
        let registry = Registry { child, port };
        for _ in 0..1000 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(registry);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the registry does not answer");
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

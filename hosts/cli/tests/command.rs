//! What callers see of the command: words, exit codes, files. As root, with the host's busybox.

mod scene;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use scene::Scene;
use serde_json::{Value, json};

#[test]
fn run_gives_what_the_program_gives() {
    let Some(scene) = Scene::new("run") else { return };
    scene.args(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    let output = scene.locule(&["run", "one"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    scene.args(&["sh", "-c", "kill -9 $$; sleep 9"]);
    // The first process of a pid namespace cannot kill itself.
    scene.change(|config| {
        let list = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
        list.retain(|namespace| namespace["type"] != "pid");
    });
    assert_eq!(scene.locule(&["run", "one"]).status.code(), Some(137));
    assert_eq!(scene.fine(&["list", "-q"]), "");
}

#[test]
fn a_signal_to_the_command_is_one_to_the_program() {
    let Some(scene) = Scene::new("signal") else { return };
    scene.args(&[
        "sh",
        "-c",
        "trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.1; done",
    ]);
    let mut child = scene.command(&["run", "one"]).stdout(Stdio::piped()).spawn().expect("run it");
    let mut output = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).expect("read");
    // SAFETY: integers; it has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGUSR1) };
    std::io::BufRead::read_line(&mut output, &mut line).expect("read");
    assert_eq!(line, "ready\ncaught\n");
    assert_eq!(child.wait().expect("wait").code(), Some(3));
}

#[test]
fn a_life_in_many_commands() {
    let Some(scene) = Scene::new("life") else { return };
    scene.args(&["sleep", "1000"]);
    scene.fine(&["create", "--pid-file", "pid", "one"]);
    let pid = fs::read_to_string(scene.bundle().join("pid")).expect("the pid file");
    assert!(pid.parse::<i32>().is_ok(), "a number and nothing else: {pid:?}");
    let state: Value = serde_json::from_str(&scene.fine(&["state", "one"])).expect("JSON");
    assert_eq!(
        (&state["status"], &state["pid"]),
        (&json!("created"), &json!(pid.parse::<i32>().unwrap()))
    );
    let keys: Vec<_> = state.as_object().expect("an object").keys().map(String::as_str).collect();
    let order = ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"];
    assert_eq!(keys, order);
    scene.fine(&["start", "one"]);
    let again = scene.fails(&["start", "one"], 1);
    assert!(again.contains("cannot start an already running container"), "{again}");
    let lists = scene.fine(&["list", "--format", "json"]);
    assert!(lists.starts_with("[{\"ociVersion\":"), "{lists}");
    assert!(scene.fine(&["list"]).lines().nth(1).expect("a row").contains("running"));
    assert_eq!(scene.fine(&["ps", "--format", "json", "one"]), format!("[{pid}]\n"));
    scene.fine(&["update", "--pids-limit", "50", "--memory", "64M", "--memory-swap", "-1", "one"]);
    let stats: Value =
        serde_json::from_str(&scene.fine(&["events", "--stats", "one"])).expect("JSON");
    assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!("one")));
    scene.fine(&["pause", "one"]);
    let frozen = scene.fails(&["exec", "one", "true"], 255);
    assert!(frozen.contains("cannot exec in a paused container"), "{frozen}");
    scene.fine(&["resume", "one"]);
    let live = scene.fails(&["delete", "one"], 1);
    assert!(live.contains("cannot delete container one that is not stopped: running"), "{live}");
    scene.fine(&["kill", "one", "sigkill"]);
    while !scene.fine(&["state", "one"]).contains("stopped") {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(scene.fails(&["kill", "one"], 1).contains("container not running"));
    scene.fine(&["kill", "--all", "one", "KILL"]);
    scene.fine(&["delete", "one"]);
    assert!(scene.fails(&["state", "one"], 1).contains("does not exist"));
    assert!(scene.fails(&["delete", "one"], 1).contains("does not exist"));
    scene.fine(&["delete", "--force", "one"]);
    assert_eq!(scene.fine(&["list", "-f", "json"]), "null\n");
}

#[test]
fn exec_runs_a_process_with_what_the_options_say() {
    let Some(scene) = Scene::new("exec") else { return };
    scene.args(&["sleep", "1000"]);
    scene.fine(&["run", "--detach", "one"]);
    let env = ["exec", "--env", "A=b", "-e", "C=d", "one", "sh", "-c", "echo $A$C$PATH"];
    assert!(scene.fine(&env).starts_with("bd/usr/local/sbin:"));
    let id = ["exec", "--user", "1000:1001", "--additional-gids", "5", "one", "id", "-G"];
    assert_eq!(scene.fine(&id), "1001 5\n");
    assert_eq!(scene.fine(&["exec", "--cwd", "/tmp", "one", "sh", "-c", "pwd"]), "/tmp\n");
    assert_eq!(scene.locule(&["exec", "one", "sh", "-c", "exit 42"]).status.code(), Some(42));
    scene.fails(&["exec", "--user", "n", "one", "id"], 255);
    scene.fails(&["exec", "--pid-file", "/nosuch/file", "one", "true"], 255);
    let missing = scene.fails(&["exec", "one", "nosuch"], 255);
    assert!(
        missing.contains("exec: \\\"nosuch\\\": executable file not found in $PATH"),
        "{missing}"
    );
    assert!(scene.fails(&["exec", "two", "true"], 255).contains("does not exist"));
    let outside = scene.fails(&["exec", "--cgroup", "../x", "one", "true"], 255);
    assert!(outside.contains("bad sub cgroup path"), "{outside}");
    // An executed process outlives the command that made it, and is nobody's but the reaper's.
    scene.fine(&["exec", "--detach", "--pid-file", "pid", "one", "sleep", "1000"]);
    let pid = fs::read_to_string(scene.bundle().join("pid")).expect("the pid file");
    let comm = fs::read_to_string(format!("/proc/{pid}/comm")).expect("it runs");
    assert_eq!(comm, "sleep\n");
}

#[test]
fn a_missing_program_is_told_in_the_words_that_engines_look_for() {
    let Some(scene) = Scene::new("missing") else { return };
    fs::write(scene.bundle().join("rootfs/plain"), "").expect("write");
    for (program, words) in [
        ("nosuch", "exec: \\\"nosuch\\\": executable file not found in $PATH"),
        ("/nosuch", "exec: \\\"/nosuch\\\": no such file or directory"),
        ("/etc", "exec: \\\"/etc\\\": is a directory"),
        ("/plain", "exec: \\\"/plain\\\": permission denied"),
    ] {
        scene.args(&[program]);
        let text = scene.fails(&["create", "one"], 1);
        let start =
            "create failed: unable to start container process: error during container init: ";
        assert!(text.contains(start) && text.contains(words), "{text}");
    }
    assert_eq!(scene.fine(&["list", "-q"]), "");
}

#[test]
fn the_log_has_one_line_for_an_error_and_none_for_success() {
    let Some(scene) = Scene::new("log") else { return };
    let log = scene.directory.join("log");
    let log = log.to_str().expect("text");
    scene.args(&["nosuch"]);
    let plain = scene.fails(&["--log", log, "--log-format", "json", "create", "one"], 1);
    let text = fs::read_to_string(log).expect("the log");
    let line: Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(line["level"], "error");
    assert_eq!(format!("{}\n", line["msg"].as_str().expect("text")), plain);
    assert!(line["time"].is_string());
    scene.args(&["true"]);
    fs::remove_file(log).expect("rm");
    scene.fine(&["--log", log, "--log-format", "json", "run", "one"]);
    assert_eq!(fs::read_to_string(log).expect("the log"), "");
}

#[test]
fn usage_errors_are_what_callers_look_for() {
    let Some(scene) = Scene::new("usage") else { return };
    assert!(scene.fails(&["nonsense"], 3).contains("No help topic for 'nonsense'"));
    assert!(scene.fails(&["update", "--memory"], 1).contains("flag needs an argument: --memory"));
    scene.fails(&["create"], 1);
    let version = scene.fine(&["--version"]);
    assert!(version.starts_with("locule version ") && version.contains("\nspec: 1."), "{version}");
    for verb in
        ["create", "run", "exec", "kill", "delete", "list", "ps", "state", "spec", "features"]
    {
        let help = scene.fine(&[verb, "--help"]);
        assert!(help.starts_with(&format!("NAME:\n   locule {verb} - ")), "{help}");
    }
    assert!(scene.fails(&["spec"], 1).contains("exists"), "what is there is not lost");
}

#[test]
fn a_root_is_enough_to_run_a_program() {
    let Some(scene) = Scene::new("rootfs") else { return };
    let root = scene.bundle().join("rootfs");
    let root = root.to_str().unwrap();
    let run = ["run", "--rootfs", root, "-e", "A=b", "--user", "7:8", "--hostname", "box", "--"];
    let run: Vec<_> =
        run.into_iter().chain(["sh", "-c", "echo $A; id -u; id -g; exit 3"]).collect();
    let output = scene.locule(&run);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "b\n7\n8\n");

    // The root is forgotten, limits count, and nothing stays.
    let limit = "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max";
    let script = format!("echo x >/tmp/changed; {limit}");
    let given = ["run", "--rootfs", root, "--overlay", "--pids", "17", "named", "--"];
    let given: Vec<_> = given.into_iter().chain(["sh", "-c", script.as_str()]).collect();
    assert_eq!(scene.fine(&given), "17\n");
    assert!(!scene.bundle().join("rootfs/tmp/changed").exists());
    assert_eq!(scene.fine(&["list", "-q"]), "");

    for (words, wrong) in [
        (&["run", "--rootfs", "/nothing/there", "--", "true"][..], "--rootfs /nothing/there"),
        (&["run", "--rootfs", root], "needs a program"),
        (&["run", "--rootfs", root, "--memory", "x", "--", "true"], "memory: x"),
        (&["run", "--rootfs", root, "--cpus", "-1", "--", "true"], "--cpus -1"),
        (&["run", "--rootfs", root, "--pids", "0", "--", "true"], "--pids 0"),
        (&["run", "--rootfs", root, "--mount", "/", "--", "true"], "--mount /"),
        (&["run", "--rootfs", root, "--network", "x", "--", "true"], "--network x"),
        (&["run", "--rootfs", root, "--user", "me", "--", "true"], "invalid user"),
        (&["run", "--memory", "1m", "one"], "--rootfs"),
    ] {
        let said = scene.fails(words, 1);
        assert!(said.contains(wrong), "{words:?}: {said}");
    }
}

#[test]
fn an_ordinary_user_can_do_the_same() {
    let Some(scene) = Scene::new("user") else { return };
    let own = scene.directory.join("own");
    fs::create_dir(&own).expect("mkdir");
    std::os::unix::fs::chown(&own, Some(4321), Some(4321)).expect("chown");
    let locule = |words: &[&str]| {
        // What cargo builds may lie where nobody else may look.
        let program = scene.directory.join("locule");
        if !program.exists() {
            // By a program: a file that another thread's child has open cannot be executed.
            let from = env!("CARGO_BIN_EXE_locule");
            let copied = Command::new("cp").arg(from).arg(&program).status();
            assert!(copied.expect("run cp").success());
        }
        let out = fs::File::create(scene.directory.join("out")).expect("a file");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "4321", "--regid", "4321", "--clear-groups"]).arg(program);
        command.arg("--root").arg(own.join("state")).args(words).current_dir(&own);
        command.stdin(Stdio::null()).stderr(out.try_clone().expect("dup")).stdout(out);
        let status = command.status().expect("run it");
        (status.code(), fs::read_to_string(scene.directory.join("out")).expect("read"))
    };
    assert_eq!(locule(&["run", "--rootfs", "/", "--", "id", "-u"]), (Some(0), "0\n".to_owned()));
    let bundle = own.join("bundle");
    fs::create_dir(&bundle).expect("mkdir");
    std::os::unix::fs::chown(&bundle, Some(4321), Some(4321)).expect("chown");
    let bundle = bundle.to_str().unwrap();
    assert_eq!(locule(&["spec", "--rootless", "--bundle", bundle]), (Some(0), String::new()));
    let path = own.join("bundle/config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("JSON");
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["sleep", "1000"]);
    config["root"]["path"] = json!(scene.bundle().join("rootfs"));
    fs::write(&path, config.to_string()).expect("write");
    // While it is only created, too.
    for verb in ["create", "start"] {
        let words = [verb, "--bundle", bundle, "one"];
        let words = if verb == "start" { &["start", "one"][..] } else { &words };
        assert_eq!(locule(words), (Some(0), String::new()), "{words:?}");
        let exec = locule(&["exec", "one", "id", "-u"]);
        assert_eq!(exec, (Some(0), "0\n".to_owned()), "after {verb}");
    }
    assert_eq!(locule(&["delete", "--force", "one"]), (Some(0), String::new()));
}

#[test]
fn root_of_a_user_namespace_sees_what_is_mounted_for_it_and_no_more() {
    let Some(scene) = Scene::new("hidden") else { return };
    let hidden = scene.directory.join("hidden");
    fs::create_dir_all(hidden.join("given")).expect("mkdir");
    fs::write(hidden.join("given/file"), "text\n").expect("write");
    fs::set_permissions(&hidden, fs::Permissions::from_mode(0o700)).expect("chmod");
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    scene.change(|config| {
        config["process"]["args"] = json!(["cat", "/tmp/file"]);
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        let source = hidden.join("given");
        let bind = json!({ "destination": "/tmp", "source": source, "options": ["bind", "ro"] });
        config["mounts"].as_array_mut().unwrap().push(bind);
    });
    assert_eq!(scene.fine(&["run", "one"]), "text\n");
    // What is missing there is still said.
    fs::remove_dir_all(hidden.join("given")).expect("rm");
    let said = scene.fails(&["run", "one"], 1);
    assert!(said.contains("error mounting: open the mount source"), "{said}");
}

#[test]
fn the_groups_of_the_caller_are_kept_if_an_annotation_says_so() {
    let Some(scene) = Scene::new("groups") else { return };
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    scene.change(|config| {
        config["process"]["args"] = json!(["id", "-G"]);
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    });
    let groups = || {
        let mut command = Command::new("setpriv");
        command.args(["--groups", "4711", env!("CARGO_BIN_EXE_locule"), "--root"]);
        command.arg(scene.directory.join("state")).args(["run", "one"]);
        let output = command.current_dir(scene.bundle()).output().expect("run it");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(groups(), "0\n");
    let keep = json!({ "run.oci.keep_original_groups": "1" });
    scene.change(|config| config["annotations"] = keep);
    // The container has no number for it.
    assert_eq!(groups(), "0 65534\n");
}

#[test]
fn a_service_manager_hears_when_the_program_is_ready() {
    let Some(scene) = Scene::new("notify") else { return };
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: python3");
        return;
    }
    let manager = scene.directory.join("manager.sock");
    let socket = UnixDatagram::bind(&manager).expect("bind");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    // The host's python below an overlay: busybox speaks no datagrams.
    let script = "import os, socket\n\
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
        s.sendto(b'READY=1\\nMAINPID=1', os.environ['NOTIFY_SOCKET'])\n\
        print(os.environ['LISTEN_FDS'], os.environ['LISTEN_PID'], os.read(3, 9).decode())";
    let word = scene.directory.join("word");
    fs::write(&word, "hello").expect("write");
    let listen = "exec 3<$1; LISTEN_FDS=1 LISTEN_PID=$$; export LISTEN_FDS LISTEN_PID; shift; \
        exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", listen, "sh", word.to_str().unwrap(), env!("CARGO_BIN_EXE_locule")]);
    command.arg("--root").arg(scene.directory.join("state"));
    // Its cgroup goes by its name, and other tests have a "one".
    command.args(["run", "--rootfs", "/", "told", "--", "python3", "-c", script]);
    let output = command.env("NOTIFY_SOCKET", &manager).output().expect("run it");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 1 hello\n");
    let mut message = [0; 100];
    let length = socket.recv(&mut message).expect("a message");
    let message = String::from_utf8_lossy(&message[..length]);
    let pid = message.strip_prefix("READY=1\nMAINPID=").expect("ready, and who it is");
    assert!(pid.parse::<i32>().is_ok_and(|pid| pid > 1), "{message}");
    assert!(!scene.directory.join("state.notify").exists());

    // Apart: `start` waits for it.
    scene.args(&["sleep", "1000"]);
    let apart = |words: &[&str]| {
        let mut command = scene.command(words);
        command.env("NOTIFY_SOCKET", &manager).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("run it")
    };
    assert!(apart(&["create", "two"]).wait().expect("wait").success());
    let mut start = apart(&["start", "two"]);
    let inside = scene.directory.join("state.notify/two/notify.sock");
    while !inside.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(start.try_wait().expect("look").is_none(), "it waits");
    // What asks for its name in vain leaves it its socket.
    assert!(!apart(&["create", "two"]).wait().expect("wait").success());
    UnixDatagram::unbound().unwrap().send_to(b"STATUS=soon\nREADY=1", &inside).expect("send");
    assert!(start.wait().expect("wait").success());
    scene.fine(&["delete", "--force", "two"]);
    assert!(!scene.directory.join("state.notify").exists());

    // A place that is too long for a socket.
    let long = scene.directory.join("l".repeat(100));
    let mut command = Command::new(env!("CARGO_BIN_EXE_locule"));
    command.arg("--root").arg(long.join("state")).args(["run", "three", "--bundle"]);
    command.arg(scene.bundle()).env("NOTIFY_SOCKET", &manager);
    let output = command.output().expect("run it");
    assert!(String::from_utf8_lossy(&output.stderr).contains("notify.sock"), "{output:?}");
    assert!(!long.join("state.notify").exists());
    assert!(!long.join("state/three").exists());
}

#[test]
fn explain_and_doctor_have_a_page_for_people_and_one_for_programs() {
    let Some(scene) = Scene::new("pages") else { return };
    scene.change(|config| {
        config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
    });
    let page = scene.fine(&["explain"]);
    for part in ["What the container can reach", "second look", "CAP_SYS_ADMIN: ", "Pivot"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let page: Value = serde_json::from_str(&scene.fine(&["explain", "--format", "json"])).unwrap();
    let concerns = page["concerns"].as_array().expect("concerns");
    let wanted = json!("/process/capabilities/bounding");
    assert!(concerns.iter().any(|concern| concern["pointer"] == wanted), "{concerns:?}");
    assert!(page["plan"]["child"].is_array(), "{}", page["plan"]);
    assert_eq!(scene.fine(&["list", "-q"]), "", "nothing was made");

    let checks: Value = serde_json::from_str(&scene.fine(&["doctor", "-f", "json"])).unwrap();
    let ran = checks.as_array().expect("checks").iter().find(|one| one["check"] == "a container");
    assert_eq!(ran.expect("the last check")["result"], "ok");
    assert!(scene.fine(&["doctor"]).contains("a container"));
}

#[test]
fn a_created_container_ends_by_the_signals_that_end_programs() {
    let Some(scene) = Scene::new("signals") else { return };
    for signal in ["HUP", "INT", "QUIT", "TERM"] {
        scene.fine(&["create", "one"]);
        scene.fine(&["kill", "one", signal]);
        while !scene.fine(&["state", "one"]).contains("stopped") {
            std::thread::sleep(Duration::from_millis(5));
        }
        scene.fine(&["delete", "one"]);
    }
}

#[test]
fn a_hook_that_fails_is_told_with_what_it_said() {
    let Some(scene) = Scene::new("hooks") else { return };
    let script = "echo $HOME $ONE $PWD >&2; exit 3";
    let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    scene.change(|config| {
        config["process"]["env"] = json!(["ONE=two", "PATH=/bin"]);
        config["hooks"] = json!({ "startContainer": [hook] });
    });
    let said = scene.fails(&["run", "one"], 1);
    assert!(said.contains("error running startContainer hook #0: "), "{said}");
    assert!(said.contains("exited with status 3: / two /"), "{said}");
    scene.change(|config| {
        let hooks = config["hooks"].take();
        config["hooks"] = json!({ "createContainer": hooks["startContainer"] });
    });
    // On the host's files still, in what will be the root.
    let said = scene.fails(&["run", "one"], 1);
    let root = scene.bundle().join("rootfs");
    assert!(said.contains(&format!("status 3: {}", root.display())), "{said}");
}

#[test]
fn whatever_a_killed_command_leaves_delete_removes() {
    let Some(scene) = Scene::new("killed") else { return };
    scene.args(&["sleep", "1000"]);
    let turns = std::env::var("LOCULE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    for turn in 0..turns {
        let verb: &[&str] = match turn % 4 {
            0 => &["run", "--detach", "one"],
            1 => &["create", "one"],
            2 => &["run", "one"],
            _ => &["run", "--keep", "one"],
        };
        let mut child = scene
            .command(verb)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run it");
        std::thread::sleep(Duration::from_micros(300 * (turn as u64 * 7 % 67)));
        let _ = child.kill();
        let status = child.wait().expect("wait");
        assert!(status.signal().is_some() || status.success(), "{verb:?}: {status:?}");
        scene.fine(&["delete", "--force", "one"]);
        assert_eq!(scene.fine(&["list", "-q"]), "");
        let left = fs::read_dir(scene.directory.join("state")).map_or(0, Iterator::count);
        assert_eq!(left, 0, "after {verb:?}");
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        assert!(!hierarchy.path().join(&scene.cgroup()[1..]).exists(), "{hierarchy:?}");
    }
}

#[test]
fn who_reads_no_more_is_no_reason_to_complain() {
    let Some(scene) = Scene::new("closed") else { return };
    let closed = || {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        drop(theirs);
        Stdio::from(std::os::fd::OwnedFd::from(ours))
    };
    scene.args(&["sleep", "1000"]);
    scene.fine(&["create", "one"]);
    let store = scene.directory.join("store");
    let root = scene.bundle().join("rootfs");
    let image = |verb: &'static str| ["image", verb, "--store", store.to_str().unwrap()];
    scene.fine(&[&image("import")[..], &[root.to_str().unwrap(), "box"]].concat());
    let quiet = [&image("list")[..], &["-q"]].concat();
    for words in [
        &["--version"][..],
        &["--help"],
        &[],
        &["help", "run"],
        &["run", "--help"],
        &["completion", "bash"],
        &["features"],
        &["list"],
        &["list", "-q"],
        &["list", "--format", "json"],
        &["ps", "one"],
        &["state", "one"],
        &["explain"],
        &["doctor", "--format", "json"],
        &quiet,
        &image("list"),
        &image("prune"),
    ] {
        let output = scene.command(words).stdout(closed()).output().expect("run it");
        // As a shell has it of a program that the signal ends.
        assert_eq!(output.status.code(), Some(128 + libc::SIGPIPE), "{words:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    }
    for (words, code) in [(&["nonsense"][..], 3), (&["state", "two"], 1), (&["--nonsense"], 1)] {
        let status = scene.command(words).stderr(closed()).status().expect("run it");
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
    let log = scene.directory.join("log");
    let words = ["--log", log.to_str().unwrap(), "state", "two"];
    let status = scene.command(&words).stderr(closed()).status().expect("run it");
    assert_eq!(status.code(), Some(1));
}

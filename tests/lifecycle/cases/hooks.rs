//! Hooks of all six kinds: when, where, with what they are told, and what their failure means.

use std::fs;
use std::path::{Path, PathBuf};

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    all_kinds_run_in_order_each_in_its_place,
    a_hook_has_its_arguments_and_its_own_environment_only,
    a_failure_before_the_program_runs_ends_the_container,
    a_failure_after_the_start_ends_the_container,
    poststop_runs_when_all_else_is_gone,
    poststop_runs_after_a_failed_creation,
    a_poststop_hook_that_fails_holds_nothing_up,
    poststop_runs_when_the_host_has_died,
    poststart_runs_for_a_container_without_a_keeper,
    poststop_runs_for_a_container_without_a_keeper,
];

pub const HELPERS: &[Case] = cases![hooked_host];

/// A directory that hooks of every kind can write to, and the log in it.
fn log(t: &Test) -> PathBuf {
    let directory = t.dir.join("log");
    fs::create_dir_all(&directory).expect("mkdir");
    directory.join("log")
}

fn read(log: &Path) -> String {
    fs::read_to_string(log).unwrap_or_default()
}

/// A hook that runs a script in which `$log` is the log.
fn script(log: &Path, text: &str) -> Value {
    let text = format!("log={}; {text}", log.display());
    json!({ "path": "/bin/sh", "args": ["sh", "-c", text], "env": ["PATH=/usr/bin:/bin"] })
}

/// The log's directory is at `/mnt` in the container.
fn hooked(t: &Test, hooks: Value) -> Value {
    let mut spec = t.spec(&["/bin/sh", "-c", "echo program >>/mnt/log; exec sleep 1000"]);
    let source = t.dir.join("log");
    let bind = json!({ "destination": "/mnt", "source": source, "options": ["bind"] });
    spec["mounts"].as_array_mut().unwrap().push(bind);
    spec["hooks"] = hooks;
    spec
}

fn all_kinds_run_in_order_each_in_its_place(t: &Test) {
    t.need_root();
    let log = log(t);
    // The state is one line, and so is what else it says of itself.
    let say = |log: &Path, name: &str| {
        script(
            log,
            &format!(
                "state=$(cat); set -- $(readlink /proc/self/ns/mnt) $(readlink /proc/self/ns/uts); \
             inside=no; test -e /etc/secret && inside=yes; \
             echo {name} $inside $1 $2 $state >>$log"
            ),
        )
    };
    let mut hooks = json!({});
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        hooks[kind] = json!([say(&log, &format!("{kind}1")), say(&log, &format!("{kind}2"))]);
    }
    hooks["startContainer"] = json!([say(Path::new("/mnt/log"), "startContainer1")]);
    let mut spec = hooked(t, hooks);
    spec["annotations"] = json!({ "com.example.key": "a \"value\"" });
    let container = t.create("a", &spec);
    let pid = container.init().pid();
    started(&*container);
    let namespace = |pid: &str, kind: &str| {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        link.to_str().unwrap().to_owned()
    };
    let pid_text = pid.to_string();
    let own = [namespace("self", "mnt"), namespace("self", "uts")];
    let inner = [namespace(&pid_text, "mnt"), namespace(&pid_text, "uts")];
    // The program may be a little later than its start.
    while !read(&log).contains("program") {
        std::thread::sleep(Duration::from_millis(10));
    }
    container.delete(true).expect("delete");
    let lines: Vec<String> =
        read(&log).lines().filter(|line| *line != "program").map(str::to_owned).collect();
    let expected = [
        ("prestart1", "no", &own, "creating", Some(pid)),
        ("prestart2", "no", &own, "creating", Some(pid)),
        ("createRuntime1", "no", &own, "creating", Some(pid)),
        ("createRuntime2", "no", &own, "creating", Some(pid)),
        ("createContainer1", "no", &inner, "creating", Some(1)),
        ("createContainer2", "no", &inner, "creating", Some(1)),
        ("startContainer1", "yes", &inner, "created", Some(1)),
        ("poststart1", "no", &own, "running", Some(pid)),
        ("poststart2", "no", &own, "running", Some(pid)),
        ("poststop1", "no", &own, "stopped", None),
        ("poststop2", "no", &own, "stopped", None),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (name, inside, namespaces, status, pid)) in lines.iter().zip(expected) {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        assert_eq!(words[..4], [name, inside, &namespaces[0], &namespaces[1]], "{line}");
        let state: Value = serde_json::from_str(words[4]).expect("a state document");
        assert_eq!(state["status"], status, "{line}");
        assert_eq!(state["pid"], json!(pid), "{line}");
        assert_eq!(state["id"], t.id("a"));
        assert_eq!(state["bundle"], t.dir.to_str().unwrap());
        assert_eq!(state["annotations"]["com.example.key"], "a \"value\"");
    }
}

fn a_hook_has_its_arguments_and_its_own_environment_only(t: &Test) {
    let log = log(t);
    let text = format!("echo $0 $1 >>{log}; env | grep -v ^PWD >>{log}", log = log.display());
    let hook = json!({
        "path": "/bin/sh", "args": ["sh", "-c", text, "zero", "one"], "env": ["A=1", "PATH=/bin:/usr/bin"]
    });
    let container = t.start("a", &hooked(t, json!({ "createRuntime": [hook] })));
    let mut lines: Vec<String> = read(&log).lines().map(str::to_owned).collect();
    lines.retain(|line| line != "program" && !line.starts_with('_') && !line.starts_with("SHLVL"));
    assert_eq!(lines, ["zero one", "A=1", "PATH=/bin:/usr/bin"]);
    container.delete(true).expect("delete");
}

fn a_failure_before_the_program_runs_ends_the_container(t: &Test) {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let log = log(t);
        let hooks = json!({ kind: [
            script(&log, "echo first >>$log"),
            script(&log, "exit 3"),
            script(&log, "echo third >>$log"),
        ]});
        let failure = t.refused(&t.options("a", &hooked(t, hooks)));
        failure.must_be(Category::Hook, Stage::Hook).at(&format!("/hooks/{kind}/1"));
        failure.says("exited with status 3");
        assert_eq!(read(&log), "first\n", "{kind}");
        fs::remove_file(&log).expect("rm");
    }
    let log = log(t);
    let hooks = json!({ "startContainer": [script(Path::new("/mnt/log"), "kill -9 $$")] });
    let container = t.create("a", &hooked(t, hooks));
    let failure = refused(container.start(None));
    failure.must_be(Category::Hook, Stage::Hook).at("/hooks/startContainer/0").says("signal 9");
    assert_eq!(container.status(), "stopped");
    assert_eq!(read(&log), "");
    container.delete(false).expect("delete");
}

fn a_failure_after_the_start_ends_the_container(t: &Test) {
    let log = log(t);
    let mut slow = script(&log, "exec sleep 1000");
    slow["timeout"] = json!(1);
    let container = t.create("a", &hooked(t, json!({ "poststart": [slow] })));
    let failure = refused(container.start(None));
    failure.must_be(Category::Timeout, Stage::Hook).at("/hooks/poststart/0");
    assert_eq!(container.status(), "stopped");
    container.delete(false).expect("delete");
}

/// A poststop hook that says what is left of container `a`.
fn poststop(t: &Test, log: &Path) -> Value {
    let state = t.state_dir.join(t.id("a"));
    let id = t.id("a");
    let text = format!(
        "test -e {} && echo state >>$log; \
         find /sys/fs/cgroup -maxdepth 4 -name {id} >>$log 2>/dev/null; echo stopped >>$log",
        state.display()
    );
    script(log, &text)
}

fn poststop_runs_when_all_else_is_gone(t: &Test) {
    let log = log(t);
    let container = t.start("a", &hooked(t, json!({ "poststop": [poststop(t, &log)] })));
    container.delete(true).expect("delete");
    assert_eq!(read(&log).trim_start_matches("program\n"), "stopped\n");
    // Once, whoever deletes.
    assert_eq!(refused(container.delete(true)).category, Category::NotFound);
    assert_eq!(read(&log).matches("stopped").count(), 1);
}

fn poststop_runs_after_a_failed_creation(t: &Test) {
    let log = log(t);
    let hooks = json!({
        "createRuntime": [script(&log, "echo begun >>$log"), script(&log, "exit 1")],
        "poststop": [poststop(t, &log)],
    });
    let failure = t.refused(&t.options("a", &hooked(t, hooks)));
    failure.must_be(Category::Hook, Stage::Hook).at("/hooks/createRuntime/1");
    assert_eq!(read(&log), "begun\nstopped\n");
}

fn a_poststop_hook_that_fails_holds_nothing_up(t: &Test) {
    let log = log(t);
    let mut slow = script(&log, "exec sleep 1000");
    slow["timeout"] = json!(1);
    let missing = json!({ "path": "/no/such/program" });
    let hooks = json!({ "poststop": [
        script(&log, "exit 1"), missing, slow, script(&log, "echo last >>$log"),
    ]});
    let container = t.create("a", &hooked(t, hooks));
    container.delete(false).expect("delete");
    assert_eq!(read(&log), "last\n");
}

fn hooked_host(t: &Test) {
    let log = log(t);
    let container = t.start("a", &hooked(t, json!({ "poststop": [poststop(t, &log)] })));
    println!("{}", container.init().pid());
    std::thread::sleep(PATIENCE);
}

fn poststop_runs_when_the_host_has_died(t: &Test) {
    let log = log(t);
    let mut host = t.helper("hooked_host", &[]);
    host.line();
    host.kill();
    for _ in 0..500 {
        if read(&log).contains("stopped") {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(read(&log).replace("program\n", ""), "stopped\n");
}

fn poststart_runs_for_a_container_without_a_keeper(t: &Test) {
    let log = log(t);
    for parentage in [Parentage::Orphan, Parentage::Child] {
        let hooks = json!({ "poststart": [
            script(&log, "cat >>$log"), script(&log, "exit 3"), script(&log, "echo third >>$log"),
        ]});
        let options = Create { parentage, ..t.options("a", &hooked(t, hooks)) };
        let container = t.create_with(&options);
        let pid = container.init().pid();
        let failure = refused(container.start(None));
        failure.must_be(Category::Hook, Stage::Hook).at("/hooks/poststart/1");
        assert_eq!(container.status(), "stopped", "{parentage:?}");
        container.delete(false).expect("delete");
        // The program and the hook write when they come to it.
        let state: Value = serde_json::from_str(&read(&log).replace("program\n", ""))
            .expect("a state document and no more");
        assert_eq!((&state["status"], &state["pid"]), (&json!("running"), &json!(pid)));
        fs::remove_file(&log).expect("rm");
    }
}

fn poststop_runs_for_a_container_without_a_keeper(t: &Test) {
    let log = log(t);
    let spec = hooked(t, json!({ "poststop": [poststop(t, &log)] }));
    let options = Create { parentage: Parentage::Orphan, ..t.options("a", &spec) };
    let container = t.create_with(&options);
    started(&*container);
    // By another process than the creator.
    t.another_engine()
        .expect("an engine")
        .open(&t.id("a"))
        .expect("open")
        .delete(true)
        .expect("delete");
    assert_eq!(read(&log).replace("program\n", ""), "stopped\n");
}

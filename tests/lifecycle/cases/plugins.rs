//! Plugins: what they change is what a container is, what they refuse has not happened, and what
//! they are told.
//!
//! They are called by a runtime of the Rust API. Whoever else has to do with their containers comes
//! through the face that the case runs with.

use std::fs;
use std::sync::Mutex;

use locule::plugin::{self, Call, Fault, Guard, Plugin, Plugins, Registration, Stage as At};
use locule_lifecycle::RustApi;
use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    what_plugins_change_is_seen_from_inside,
    changes_are_in_the_state_and_last_beyond_the_runtime,
    explain_tells_what_plugins_would_change,
    what_is_refused_or_in_conflict_is_not_created,
    a_configuration_that_a_plugin_breaks_is_its_fault,
    a_refused_start_leaves_a_container_that_can_be_started,
    a_refused_exec_runs_nothing,
    a_process_to_execute_can_be_changed,
    limits_to_update_can_be_changed_or_refused,
    a_refused_pause_or_resume_leaves_the_container_as_it_was,
    every_stage_is_told_in_the_order_of_a_life,
    the_end_is_told_once_whoever_sees_it,
    the_end_is_told_before_the_removal_however_long_it_takes,
    the_end_of_a_container_is_not_told_of_its_successor,
    a_signal_is_told_and_never_held_up,
    what_a_crash_has_left_is_told_when_it_is_cleaned_up,
    what_plugins_remember_is_no_container,
];

pub const HELPERS: &[Case] = cases![plugins_host];

struct Native<F>(Vec<At>, F);

impl<F: Fn(&mut Call) -> Result<(), Fault> + Send + Sync> Plugin for Native<F> {
    fn stages(&self) -> &[At] {
        &self.0
    }

    fn handle(&self, call: &mut Call) -> Result<(), Fault> {
        (self.1)(call)
    }
}

fn plugin(
    name: &str,
    stages: &[At],
    handle: impl Fn(&mut Call) -> Result<(), Fault> + Send + Sync + 'static,
) -> Registration {
    Registration::new(name, Arc::new(Native(stages.to_vec(), handle)))
}

/// One that makes adjustments at a stage.
fn adjuster(name: &str, stage: At, adjustments: &[Value]) -> Registration {
    let read = |json: &Value| serde_json::from_value(json.clone()).expect("an adjustment");
    let adjustments: Vec<plugin::Adjustment> = adjustments.iter().map(read).collect();
    plugin(name, &[stage], move |call| {
        Ok(adjustments.iter().try_for_each(|adjustment| call.adjust(adjustment))?)
    })
}

/// One that refuses a stage.
fn refuser(stage: At) -> Registration {
    plugin("refuser", &[stage], |_| Err(Fault::refused("not today")))
}

type Log = Arc<Mutex<Vec<String>>>;

/// One that writes down what it is told: the stage, and what is special about it.
fn recorder(stages: &[At], log: &Log) -> Registration {
    let log = log.clone();
    plugin("recorder", stages, move |call| {
        let mut line = call.stage().name().to_owned();
        for name in ["signal", "all", "exit-code"] {
            call.detail(name).iter().for_each(|value| line += &format!(" {name}={value}"));
        }
        log.lock().unwrap().push(line);
        Ok(())
    })
}

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

/// A runtime that calls these.
fn engine(t: &Test, registrations: Vec<Registration>) -> RustApi {
    let plugins = Plugins::new(registrations, Vec::new(), Guard::default()).expect("plugins");
    RustApi::with_plugins(&t.state_dir, plugins).expect("open a runtime")
}

#[track_caller]
fn created(engine: &dyn Engine, options: &Create<'_>) -> Arc<dyn Container> {
    engine.create(options).unwrap_or_else(|error| panic!("create: {error}"))
}

/// A container of such a runtime that does nothing for a long time.
#[track_caller]
fn sleeper(t: &Test, engine: &dyn Engine) -> Arc<dyn Container> {
    let container = created(engine, &t.options("a", &t.spec(&["/bin/sleep", "1000"])));
    started(&*container);
    container
}

fn set_env(name: &str, value: &str) -> Value {
    json!({ "adjust": "set-env", "name": name, "value": value })
}

fn merge(patch: Value) -> Value {
    json!({ "adjust": "merge", "patch": patch.to_string() })
}

fn what_plugins_change_is_seen_from_inside(t: &Test) {
    t.need_root();
    let changes = [
        set_env("ADDED", "yes"),
        json!({ "adjust": "remove-env", "name": "GONE" }),
        json!({ "adjust": "set-mount", "destination": "/mnt", "kind": "tmpfs", "source": "new",
                "options": ["size=8k"] }),
        json!({ "adjust": "remove-mount", "destination": "/dev/mqueue/" }),
        json!({ "adjust": "set-rlimit", "kind": "RLIMIT_NOFILE", "soft": "77", "hard": "88" }),
        json!({ "adjust": "set-annotation", "key": "com.example/key", "value": "value" }),
        json!({ "adjust": "drop-capability", "name": "kill" }),
        json!({ "adjust": "add-capability", "name": "CAP_SYS_NICE" }),
        merge(json!({ "hostname": "renamed" })),
        json!({ "adjust": "mask-path", "path": "/etc/secret" }),
        json!({ "adjust": "set-device", "path": "/dev/added", "kind": "c", "major": 10,
                "minor": 229, "mode": 0o640, "access": "rw" }),
        json!({ "adjust": "set-root-read-only", "value": false }),
        json!({ "adjust": "set-cwd", "path": "/tmp" }),
    ];
    let script = "echo $ADDED:$GONE; grep -c '^new /mnt tmpfs.*size=8k' /proc/mounts; \
        grep -c mqueue /proc/mounts; ulimit -n; ulimit -Hn; hostname; wc -c </etc/secret; \
        stat -c %t:%T:%a /dev/added; grep Cap[BP] /proc/self/status; \
        grep -c ' / ro' /proc/mounts; pwd";
    let args = json!({ "adjust": "set-args", "args": ["/bin/sh", "-c", script] });
    let plugins = vec![adjuster("p", At::Create, &changes), adjuster("q", At::Create, &[args])];
    let mut spec = t.spec(&["/bin/false"]);
    spec["process"]["env"] = json!(["PATH=/bin", "GONE=no"]);
    let options =
        Create { stdio: [Stream::Null, Stream::Pipe, Stream::Inherit], ..t.options("a", &spec) };
    let container = created(&engine(t, plugins), &options);
    assert_eq!(container.state().expect("state")["annotations"]["com.example/key"], "value");
    started(&*container);
    let output = output_of(&*container.init()).stdout;
    let lines: Vec<&str> = output.lines().collect();
    let [permitted, bounding] = [lines[8], lines[9]].map(|line| {
        let mask = line.split_whitespace().last().expect("a mask");
        u64::from_str_radix(mask, 16).expect("a mask")
    });
    let (kill, nice) = (1 << 5, 1 << 23);
    for mask in [permitted, bounding] {
        assert_eq!(mask & (kill | nice), nice, "{output}");
    }
    let rest = [&lines[..8], &lines[10..]].concat();
    let expected = ["yes:", "1", "0", "77", "88", "renamed", "0", "a:e5:640", "0", "/tmp"];
    assert_eq!(rest, expected, "{output}");
    container.delete(false).expect("delete");
}

fn changes_are_in_the_state_and_last_beyond_the_runtime(t: &Test) {
    let changes = [set_env("ADDED", "yes"), merge(json!({ "hostname": "renamed" }))];
    let plugins = vec![
        adjuster("p", At::Create, &changes),
        adjuster("q", At::Create, &[set_env("MORE", "1")]),
    ];
    let container = sleeper(t, &engine(t, plugins));
    let expected = json!([
        { "plugin": "p", "stage": "create", "adjustment": "set-env", "pointer": "/process/env/ADDED",
          "after": "ADDED=yes" },
        { "plugin": "p", "stage": "create", "adjustment": "merge", "pointer": "/hostname",
          "before": "inside", "after": "renamed" },
        { "plugin": "q", "stage": "create", "adjustment": "set-env", "pointer": "/process/env/MORE",
          "after": "MORE=1" },
    ]);
    assert_eq!(container.state().expect("state")["changes"], expected);
    // To a runtime without plugins this is simply how it is.
    let other = t.engine().open(&container.id()).expect("open");
    assert_eq!(other.state().expect("state")["changes"], expected);
    assert_eq!(t.engine().list().expect("list")[0]["changes"], expected);
    assert_eq!(exec_shell(&*other, "echo $ADDED$MORE; hostname"), "yes1\nrenamed");
    other.delete(true).expect("delete");
    // Without changes nothing is said of them.
    let unchanged =
        sleeper(t, &engine(t, vec![adjuster("p", At::Create, &[set_env("HOME", "/root")])]));
    assert_eq!(unchanged.state().expect("state").get("changes"), None);
    unchanged.delete(true).expect("delete");
}

fn explain_tells_what_plugins_would_change(t: &Test) {
    let log = Log::default();
    let plugins = vec![
        adjuster("p", At::Create, &[set_env("ADDED", "yes"), merge(json!({ "hostname": null }))]),
        recorder(&At::ALL, &log),
    ];
    let engine = engine(t, plugins);
    let options = t.options("a", &t.spec(&["/bin/true"]));
    let text = engine.explain(&options).expect("explain");
    for line in [
        "  p set-env nothing -> \"ADDED=yes\"  (/process/env/ADDED)\n",
        "  p merge \"inside\" -> nothing  (/hostname)\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert_eq!(taken(&log), ["create"]);
    let text = t.engine().explain(&options).expect("explain");
    assert!(!text.contains("plugins"), "{text}");
    t.nothing_is_left();
}

fn what_is_refused_or_in_conflict_is_not_created(t: &Test) {
    let env = |name: &str, value: &str| adjuster(name, At::Create, &[set_env("A", value)]);
    let log = Log::default();
    for (plugins, words) in [
        (vec![env("a", "1"), refuser(At::Create)], "plugin \"refuser\" refused create: not today"),
        (vec![env("a", "1"), env("b", "2")], "plugin \"a\" has changed /process/env/A already"),
        (
            vec![plugin("p", &[At::Create], |_| panic!("lost"))],
            "plugin \"p\" failed at create: it panicked: lost",
        ),
    ] {
        let all = plugins.into_iter().chain([recorder(&[At::Created, At::Delete], &log)]).collect();
        let failure = refused(engine(t, all).create(&t.options("a", &t.spec(&["/bin/true"]))));
        failure.must_be(Category::Plugin, Stage::Plugin).says(words);
        assert_eq!(failure.container_id, t.id("a"));
        t.nothing_is_left();
    }
    assert!(taken(&log).is_empty());
}

fn a_configuration_that_a_plugin_breaks_is_its_fault(t: &Test) {
    let harmless =
        || adjuster("harmless", At::Create, &[json!({ "adjust": "set-cwd", "path": "/tmp" })]);
    let device = json!({ "adjust": "set-device", "path": "/dev/x", "kind": "c", "major": 9999,
                         "minor": 0, "access": "r" });
    let score = merge(json!({ "process": { "oomScoreAdj": 5000 } }));
    for (change, pointer) in [
        (device, "/linux/devices/0/major"),
        (score, "/process/oomScoreAdj"),
        (merge(json!({ "linux": { "maskedPaths": "none" } })), "/linux/maskedPaths"),
    ] {
        let engine = engine(t, vec![harmless(), adjuster("culprit", At::Create, &[change])]);
        let failure = refused(engine.create(&t.options("a", &t.spec(&["/bin/true"]))));
        failure.must_be(Category::Spec, Stage::Validate).at(pointer);
        failure.says("changed by plugin \"culprit\": ");
        t.nothing_is_left();
    }
}

fn a_refused_start_leaves_a_container_that_can_be_started(t: &Test) {
    let log = Log::default();
    let engine = engine(t, vec![refuser(At::Start), recorder(&[At::Started], &log)]);
    let container = created(&engine, &t.options("a", &t.spec(&["/bin/true"])));
    let failure = refused(container.start(None));
    failure.must_be(Category::Plugin, Stage::Plugin).says("plugin \"refuser\" refused start");
    assert_eq!(container.status(), "created");
    // A runtime without that plugin does not ask it.
    started(&*t.engine().open(&container.id()).expect("open"));
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    // What cannot be started is refused for that.
    refused(container.start(None)).must_be(Category::State, Stage::Start).says("has stopped");
    container.delete(false).expect("delete");
    assert!(taken(&log).is_empty());
}

fn a_refused_exec_runs_nothing(t: &Test) {
    let container = sleeper(t, &engine(t, vec![refuser(At::Exec)]));
    let failure = refused(container.exec(&Exec::of(&["/bin/touch", "/tmp/ran"])));
    failure.must_be(Category::Plugin, Stage::Plugin).says("plugin \"refuser\" refused exec");
    let other = t.engine().open(&container.id()).expect("open");
    assert_eq!(exec_shell(&*other, "ls /tmp; ps -o comm | grep -c sleep"), "1");
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn a_process_to_execute_can_be_changed(t: &Test) {
    let wrong = |call: &mut Call| {
        let cwd = plugin::Adjustment::Merge { patch: r#"{"process":{"cwd":"x"}}"#.into() };
        match call.document().pointer("/process/args/0").is_some_and(|it| it == "wrong") {
            true => Ok(call.adjust(&cwd)?),
            false => Ok(()),
        }
    };
    let user = json!({ "adjust": "set-user", "uid": 1000, "gid": 1000 });
    let plugins = vec![
        adjuster("p", At::Exec, &[set_env("ADDED", "yes"), user]),
        plugin("q", &[At::Exec], wrong),
    ];
    let container = sleeper(t, &engine(t, plugins));
    assert_eq!(exec_shell(&*container, "echo $ADDED; id -u; id -g"), "yes\n1000\n1000");
    let failure = refused(container.exec(&Exec::of(&["wrong"])));
    failure.must_be(Category::Spec, Stage::Validate).at("/cwd");
    failure.says("changed by plugin \"q\": ");
    let changes = container.state().expect("state")["changes"].clone();
    let of = |index: usize| (&changes[index]["stage"], &changes[index]["pointer"]);
    assert_eq!(of(0), (&json!("exec"), &json!("/process/env/ADDED")));
    assert_eq!(of(1), (&json!("exec"), &json!("/process/user/uid")));
    assert_eq!(changes.as_array().map(Vec::len), Some(3), "of what was not run nothing");
    // The container's own process is another one.
    let other = t.engine().open(&container.id()).expect("open");
    assert_eq!(exec_shell(&*other, "echo $ADDED; id -u"), "\n0");
    container.delete(true).expect("delete");
}

fn limits_to_update_can_be_changed_or_refused(t: &Test) {
    t.need_controller("pids");
    let limit =
        |value: &str| json!({ "adjust": "set-resource", "name": "pids/limit", "value": value });
    let judge = plugin("q", &[At::Update], |call| {
        let limit = call.document().pointer("/linux/resources/pids/limit").and_then(Value::as_i64);
        match limit == Some(30) && call.document().pointer("/linux/resources/memory").is_none() {
            true => Ok(()),
            false => Err(Fault::refused("too many")),
        }
    });
    let engine = |value: &str, more: Vec<Registration>| {
        engine(t, [vec![adjuster("p", At::Update, &[limit(value)])], more].concat())
    };
    let container = sleeper(t, &engine("30", vec![judge.clone()]));
    t.need_cgroup(&*container);
    let now = || container.stats().expect("stats")["pids"]["limit"].clone();
    container.update(&json!({ "pids": { "limit": 500 } })).expect("update");
    assert_eq!(now(), 30);
    let changes = container.state().expect("state")["changes"].clone();
    let expected = json!([{ "plugin": "p", "stage": "update", "adjustment": "set-resource",
        "pointer": "/linux/resources/pids/limit", "before": 500, "after": 30 }]);
    assert_eq!(changes, expected);
    let id = container.id();
    let refusing = engine("31", vec![judge]).open(&id).expect("open");
    let failure = refused(refusing.update(&json!({ "pids": { "limit": 500 } })));
    failure.must_be(Category::Plugin, Stage::Plugin).says("plugin \"q\" refused update: too many");
    let wrong = merge(json!({ "linux": { "resources": { "cpu": { "cpus": 3 } } } }));
    let wrong = self::engine(t, vec![adjuster("r", At::Update, &[wrong])]).open(&id).expect("open");
    let failure = refused(wrong.update(&json!({ "pids": { "limit": 500 } })));
    failure.must_be(Category::Spec, Stage::Validate).at("/cpu/cpus");
    failure.says("changed by plugin \"r\": ");
    assert_eq!(now(), 30);
    assert_eq!(container.state().expect("state")["changes"], expected);
    container.delete(true).expect("delete");
}

fn a_refused_pause_or_resume_leaves_the_container_as_it_was(t: &Test) {
    let container = sleeper(t, &engine(t, vec![refuser(At::Pause)]));
    t.need_cgroup(&*container);
    refused(container.pause()).must_be(Category::Plugin, Stage::Plugin).says("refused pause");
    assert_eq!(container.status(), "running");
    let stubborn = engine(t, vec![refuser(At::Resume)]).open(&container.id()).expect("open");
    stubborn.pause().expect("pause");
    refused(stubborn.resume()).must_be(Category::Plugin, Stage::Plugin).says("refused resume");
    assert_eq!(container.status(), "paused");
    container.resume().expect("resume");
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn every_stage_is_told_in_the_order_of_a_life(t: &Test) {
    let log = Log::default();
    let engine = engine(t, vec![recorder(&At::ALL, &log)]);
    let container =
        created(&engine, &t.options("a", &t.shell("trap 'exit 3' TERM; sleep 1000 & wait")));
    assert_eq!(taken(&log), ["create", "created"]);
    started(&*container);
    assert_eq!(taken(&log), ["start", "started"]);
    exec_shell(&*container, "true");
    assert_eq!(taken(&log), ["exec"]);
    if container.pids().is_ok() {
        container.update(&json!({})).expect("update");
        container.pause().expect("pause");
        container.resume().expect("resume");
        assert_eq!(taken(&log), ["update", "pause", "resume"]);
    }
    // The trap may not be set yet.
    eventually("it ends", || {
        let _ = container.signal(libc::SIGTERM, false);
        container.init().wait(Some(Duration::from_millis(20)), None).expect("wait").is_some()
    });
    let mut end = taken(&log);
    assert_eq!(end.pop().as_deref(), Some("stopped exit-code=3"));
    assert!(
        !end.is_empty() && end.iter().all(|line| line == "kill signal=15 all=false"),
        "{end:?}"
    );
    container.delete(false).expect("delete");
    assert_eq!(taken(&log), ["delete"]);
    // One that is killed on the way, or has never been started.
    for start in [true, false] {
        let container = created(&engine, &t.options("a", &t.spec(&["/bin/sleep", "1000"])));
        if start {
            started(&*container);
        }
        taken(&log);
        container.delete(true).expect("delete");
        assert_eq!(taken(&log), ["stopped signal=9", "delete"]);
    }
}

fn the_end_is_told_once_whoever_sees_it(t: &Test) {
    let log = Log::default();
    for parentage in [Parentage::Keeper, Parentage::Orphan, Parentage::Child] {
        let engine = || engine(t, vec![recorder(&[At::Stopped, At::Delete], &log)]);
        let (first, second) = (engine(), engine());
        let mut spec = t.shell("while ! test -e /mnt/go; do sleep 0.01; done; exit 7");
        let bind = json!({ "destination": "/mnt", "source": t.dir, "options": ["bind"] });
        spec["mounts"].as_array_mut().unwrap().push(bind);
        let container = created(&first, &Create { parentage, ..t.options("a", &spec) });
        started(&*container);
        let handles = [first.open(&container.id()), second.open(&container.id())];
        let handles = handles.map(|handle| handle.expect("open"));
        fs::write(t.dir.join("go"), "").expect("write");
        // The creator knows of a child's end; for an orphan nobody does.
        let exit = ended(&*container.init());
        std::thread::scope(|scope| {
            for handle in &handles {
                scope.spawn(|| ended(&*handle.init()));
                scope.spawn(|| assert_eq!(handle.status(), "stopped"));
            }
        });
        first.dispatch(Duration::ZERO).expect("dispatch");
        assert_eq!(engine().open(&container.id()).expect("open").status(), "stopped");
        handles[1].delete(false).expect("delete");
        let stopped = match exit {
            Exit::Unknown => "stopped",
            exit => {
                assert_eq!(exit, Exit::Code(7));
                "stopped exit-code=7"
            }
        };
        assert_eq!(taken(&log), [stopped, "delete"], "{parentage:?}");
        fs::remove_file(t.dir.join("go")).expect("rm");
    }
}

fn the_end_is_told_before_the_removal_however_long_it_takes(t: &Test) {
    let log = Log::default();
    let slow = |log: &Log| {
        let log = log.clone();
        plugin("slow", &[At::Stopped], move |_| {
            log.lock().unwrap().push("stopping".into());
            std::thread::sleep(Duration::from_millis(100));
            Ok(())
        })
    };
    // They are told in reverse: the recorder last.
    let engine = |log: &Log| engine(t, vec![recorder(&[At::Stopped, At::Delete], log), slow(log)]);
    let (first, second) = (engine(&log), engine(&log));
    let container = sleeper(t, &first);
    let other = second.open(&container.id()).expect("open");
    std::thread::scope(|scope| {
        scope.spawn(|| ended(&*container.init()));
        other.signal(libc::SIGKILL, false).expect("signal");
        eventually("it is being told", || !log.lock().unwrap().is_empty());
        other.delete(true).expect("delete");
        log.lock().unwrap().push("deleted".into());
    });
    assert_eq!(taken(&log), ["stopping", "stopped signal=9", "delete", "deleted"]);
}

fn the_end_of_a_container_is_not_told_of_its_successor(t: &Test) {
    let log = Log::default();
    let engine = || engine(t, vec![recorder(&[At::Stopped, At::Delete], &log)]);
    let (first, second) = (engine(), engine());
    let old = sleeper(t, &first);
    second.open(&old.id()).expect("open").delete(true).expect("delete");
    assert_eq!(taken(&log), ["stopped signal=9", "delete"]);
    let new = sleeper(t, &second);
    ended(&*old.init());
    assert!(taken(&log).is_empty());
    new.signal(libc::SIGKILL, false).expect("signal");
    ended(&*new.init());
    assert_eq!(taken(&log), ["stopped signal=9"]);
    new.delete(false).expect("delete");
}

fn a_signal_is_told_and_never_held_up(t: &Test) {
    let log = Log::default();
    let panicking = plugin("panicking", &[At::Kill, At::Stopped, At::Delete], |_| panic!("lost"));
    let all = [At::Kill, At::Stopped, At::Delete];
    let recorder = recorder(&all, &log);
    let engine = engine(t, vec![refuser(At::Kill), panicking, recorder]);
    let container = sleeper(t, &engine);
    container.signal(libc::SIGCONT, false).expect("signal");
    container.signal(libc::SIGKILL, true).expect("signal");
    let exit = ended(&*container.init());
    assert_eq!(exit, Exit::Signal { signal: libc::SIGKILL, core_dumped: false });
    // What gets none is not told.
    refused(container.signal(libc::SIGTERM, false)).must_be(Category::State, Stage::Control);
    refused(container.signal(1000, false)).must_be(Category::Invalid, Stage::Arguments);
    container.delete(false).expect("delete");
    let signals = ["kill signal=18 all=false", "kill signal=9 all=true"];
    assert_eq!(taken(&log), [&signals[..], &["stopped signal=9", "delete"]].concat());
}

fn plugins_host(t: &Test) {
    let container = t.sleeper("a");
    tell(container.init().pid());
    listen();
}

fn what_a_crash_has_left_is_told_when_it_is_cleaned_up(t: &Test) {
    let mut host = t.helper("plugins_host", &[]);
    let init: i32 = host.line().parse().expect("a pid");
    // The keeper first, or it would clean up.
    let keeper = parent_of(init);
    // SAFETY: plain integers; it is the keeper of this case's container.
    assert_eq!(unsafe { libc::kill(keeper, libc::SIGKILL) }, 0);
    host.kill();
    let log = Log::default();
    let engine = engine(t, vec![recorder(&At::ALL, &log)]);
    let failure = refused(engine.open(&t.id("a")));
    failure.must_be(Category::NotFound, Stage::State);
    assert_eq!(taken(&log), ["stopped", "delete"]);
    t.nothing_is_left();
}

fn what_plugins_remember_is_no_container(t: &Test) {
    let container = t.sleeper("a");
    let storage = t.state_dir.join("@plugins");
    fs::create_dir(&storage).expect("mkdir");
    let list = t.engine().list().expect("list");
    let ids: Vec<_> = list.iter().map(|state| state["id"].as_str().unwrap_or_default()).collect();
    assert_eq!(ids, [t.id("a")]);
    refused(t.engine().open("@plugins")).must_be(Category::Invalid, Stage::Arguments);
    fs::remove_dir(&storage).expect("rmdir");
    container.delete(true).expect("delete");
}

//! Create, start, wait, delete: the states and what each of them allows.

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    a_container_is_created_started_waited_for_and_deleted,
    the_state_document_follows_the_life_of_a_container,
    a_created_container_has_not_run_its_program_yet,
    a_created_container_can_be_deleted_without_force,
    every_exit_code_arrives,
    a_killing_signal_arrives_as_a_signal,
    the_exit_status_is_kept_for_everyone_who_asks,
    a_bundle_directory_works_as_well_as_a_document,
    start_of_a_running_container_is_refused,
    start_of_a_stopped_container_is_refused,
    delete_of_a_running_container_is_refused,
    delete_with_force_ends_a_running_container,
    every_call_on_a_deleted_container_finds_nothing,
    dropping_every_handle_leaves_the_container_running,
    the_list_has_every_container_in_the_order_of_ids,
    containers_live_side_by_side_on_many_threads,
    explain_prints_the_plan_and_makes_nothing,
    the_features_document_names_the_hooks,
];

fn a_container_is_created_started_waited_for_and_deleted(t: &Test) {
    let container = t.create("a", &t.spec(&["/bin/true"]));
    started(&*container);
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    container.delete(false).expect("delete");
    t.nothing_is_left();
}

fn the_state_document_follows_the_life_of_a_container(t: &Test) {
    let mut spec = t.spec(&["/bin/sleep", "1000"]);
    spec["annotations"] = json!({ "org.example.colour": "blue" });
    let container = t.create("a", &spec);
    let state = container.state().expect("state");
    assert_eq!(state["id"], t.id("a"));
    assert_eq!(state["status"], "created");
    assert_eq!(state["pid"], container.init().pid());
    assert_eq!(state["bundle"], t.dir.to_str().unwrap());
    assert_eq!(state["annotations"]["org.example.colour"], "blue");
    assert!(state["ociVersion"].is_string());
    started(&*container);
    assert_eq!(container.status(), "running");
    container.signal(libc::SIGKILL, false).expect("kill");
    ended(&*container.init());
    let state = container.state().expect("state");
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    container.delete(false).expect("delete");
}

fn a_created_container_has_not_run_its_program_yet(t: &Test) {
    let mark = t.dir.join("mark");
    let mut spec = t.shell("echo ran > /mnt/mark");
    let bind = json!({ "destination": "/mnt", "type": "bind", "source": t.dir,
                       "options": ["rbind", "rw"] });
    spec["mounts"].as_array_mut().unwrap().push(bind);
    let container = t.create("a", &spec);
    assert!(!mark.exists());
    started(&*container);
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    assert_eq!(std::fs::read_to_string(mark).expect("the mark"), "ran\n");
    container.delete(false).expect("delete");
}

fn a_created_container_can_be_deleted_without_force(t: &Test) {
    t.create("a", &t.spec(&["/bin/true"])).delete(false).expect("delete");
    t.nothing_is_left();
}

fn every_exit_code_arrives(t: &Test) {
    for code in [0, 1, 2, 42, 126, 127, 128, 137, 255] {
        let output = t.run(&t.shell(&format!("exit {code}")));
        assert_eq!(output.exit, Exit::Code(code));
    }
}

fn a_killing_signal_arrives_as_a_signal(t: &Test) {
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        // Pid 1 of a namespace ignores what it has no handler for; without the namespace the
        // program is an ordinary process.
        let mut spec = t.spec(&["/bin/sleep", "1000"]);
        spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
        drop_mount(&mut spec, "/proc");
        let container = t.start("a", &spec);
        container.signal(signal, false).expect("signal");
        let exit = ended(&*container.init());
        assert_eq!(exit, Exit::Signal { signal, core_dumped: false });
        container.delete(false).expect("delete");
    }
}

fn the_exit_status_is_kept_for_everyone_who_asks(t: &Test) {
    let container = t.start("a", &t.shell("exit 7"));
    let init = container.init();
    for _ in 0..3 {
        assert_eq!(ended(&*init), Exit::Code(7));
    }
    let opened = t.another_engine().unwrap().open(&t.id("a")).expect("open");
    assert_eq!(ended(&*opened.init()), Exit::Code(7));
    container.delete(false).expect("delete");
    assert_eq!(ended(&*init), Exit::Code(7), "after delete");
}

fn a_bundle_directory_works_as_well_as_a_document(t: &Test) {
    let bundle = t.bundle("bundle", &t.shell("exit 9"));
    let options = Create { id: Some(t.id("a")), bundle: Some(bundle), ..Create::default() };
    assert_eq!(t.run_with(options).exit, Exit::Code(9));
}

fn start_of_a_running_container_is_refused(t: &Test) {
    let container = t.sleeper("a");
    refused(container.start(None)).must_be(Category::State, Stage::Start).says("already running");
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn start_of_a_stopped_container_is_refused(t: &Test) {
    let container = t.start("a", &t.spec(&["/bin/true"]));
    ended(&*container.init());
    refused(container.start(None)).must_be(Category::State, Stage::Start).says("stopped");
    container.delete(false).expect("delete");
}

fn delete_of_a_running_container_is_refused(t: &Test) {
    let container = t.sleeper("a");
    let failure = refused(container.delete(false));
    failure.must_be(Category::State, Stage::Delete).says("not stopped");
    assert_eq!(failure.container_id, t.id("a"));
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn delete_with_force_ends_a_running_container(t: &Test) {
    let container = t.start("a", &t.shell("sleep 1000 & sleep 1000 & wait"));
    container.delete(true).expect("delete");
    t.nothing_is_left();
}

fn every_call_on_a_deleted_container_finds_nothing(t: &Test) {
    let container = t.sleeper("a");
    container.delete(true).expect("delete");
    let gone = |failure: Failure| {
        assert_eq!(failure.category, Category::NotFound, "{failure}");
        assert_eq!(failure.container_id, t.id("a"), "{failure}");
    };
    gone(refused(container.state()));
    gone(refused(container.start(None)));
    gone(refused(container.exec(&Exec::of(&["/bin/true"]))));
    gone(refused(container.pause()));
    gone(refused(container.delete(false)));
    gone(refused(container.delete(true)));
    gone(refused(t.engine().open(&t.id("a"))));
    // The process was there and is no more: that is a state, as for any ended process.
    refused(container.signal(libc::SIGTERM, false)).must_be(Category::State, Stage::Control);
}

fn dropping_every_handle_leaves_the_container_running(t: &Test) {
    drop(t.sleeper("a"));
    let container = t.engine().open(&t.id("a")).expect("open");
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn the_list_has_every_container_in_the_order_of_ids(t: &Test) {
    assert!(t.engine().list().expect("list").is_empty());
    let containers = ["c", "a", "b"].map(|name| t.create(name, &t.spec(&["/bin/sleep", "1000"])));
    started(&*containers[0]);
    let list = t.engine().list().expect("list");
    let seen: Vec<_> = list
        .iter()
        .map(|state| (state["id"].as_str().unwrap(), state["status"].as_str().unwrap()))
        .collect();
    let (a, b, c) = (t.id("a"), t.id("b"), t.id("c"));
    assert_eq!(seen, [(&*a, "created"), (&*b, "created"), (&*c, "running")]);
    containers[1].delete(true).expect("delete");
    assert_eq!(t.engine().list().expect("list").len(), 2);
    containers[0].delete(true).expect("delete");
    containers[2].delete(true).expect("delete");
    assert!(t.engine().list().expect("list").is_empty());
}

fn containers_live_side_by_side_on_many_threads(t: &Test) {
    t.engine();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..5 {
                    let code = thread * 10 + round;
                    let name = format!("t{thread}-{round}");
                    let container = t.start(&name, &t.shell(&format!("exit {code}")));
                    assert_eq!(ended(&*container.init()), Exit::Code(code));
                    container.delete(false).expect("delete");
                }
            });
        }
    });
    t.nothing_is_left();
}

fn explain_prints_the_plan_and_makes_nothing(t: &Test) {
    let plan = t.engine().explain(&t.options("a", &t.spec(&["/bin/true"]))).expect("explain");
    for word in ["Hostname", "Pivot", "/mounts/0", "/process"] {
        assert!(plan.contains(word), "no {word} in: {plan}");
    }
    t.nothing_is_left();
}

fn the_features_document_names_the_hooks(t: &Test) {
    let features = t.engine().features().expect("features");
    let hooks = features["hooks"].as_array().expect("hooks");
    for hook in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
        assert!(hooks.contains(&json!(hook)), "{features}");
    }
}

//! Containers seen from other processes, and what becomes of them when their host ends.

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    another_process_finds_a_container_by_its_id,
    another_process_can_start_what_this_one_created,
    another_process_can_exec_signal_and_delete,
    a_hundred_handles_agree_that_it_runs,
    the_exit_status_reaches_another_process,
    the_exit_status_of_a_detached_container_survives_its_host,
    a_detached_container_outlives_its_host,
    a_detached_container_outlives_the_murder_of_its_host,
    a_container_dies_with_its_host,
    a_created_container_dies_with_its_host,
    a_paused_container_dies_with_its_host,
    a_container_that_died_with_its_host_frees_its_id,
    a_cgroup_that_was_there_before_stays_when_the_host_dies,
    the_end_of_the_creating_thread_ends_nothing,
    a_forked_runtime_refuses_to_work,
];

pub const HELPERS: &[Case] = cases![attach, host];

/// Opens the container `args[0]`, does what it is told, says what came of it.
fn attach(t: &Test) {
    let container = t.engine().open(&t.args[0]).expect("open");
    loop {
        match &*listen() {
            "" => break,
            "status" => tell(container.status()),
            "start" => tell(format!("{:?}", container.start(None).map_err(|e| e.category))),
            "exec" => tell(exec_shell(&*container, "echo inside of $(hostname)")),
            "kill" => {
                container.signal(libc::SIGKILL, false).expect("signal");
                tell("killed");
            }
            "wait" => tell(format!("{:?}", ended(&*container.init()))),
            "delete" => {
                container.delete(true).expect("delete");
                tell("deleted");
            }
            other => panic!("{other}"),
        }
    }
}

/// Creates container `a` as the arguments say, prints its pid, and lives until it is told to end.
fn host(t: &Test) {
    let has = |word: &str| t.args.iter().any(|arg| arg == word);
    let mut options = t.options("a", &t.shell("sleep 1000 & sleep 1000"));
    if has("short") {
        options = t.options("a", &t.shell("sleep 0.2; exit 33"));
    }
    if let Some(path) = t.args.iter().find(|arg| arg.starts_with('/')) {
        let mut spec = t.spec(&["/bin/sleep", "1000"]);
        spec["linux"]["cgroupsPath"] = json!(path);
        options = t.options("a", &spec);
    }
    if has("detach") {
        options.on_host_exit = OnHostExit::Detach;
    }
    let container = t.create_with(&options);
    if !has("create") {
        started(&*container);
    }
    if has("pause") {
        t.need_cgroup(&*container);
        container.pause().expect("pause");
    }
    tell(container.init().pid());
    listen();
}

fn another_process_finds_a_container_by_its_id(t: &Test) {
    let container = t.sleeper("a");
    let mut other = t.helper("attach", &[&t.id("a")]);
    other.say("status");
    assert_eq!(other.line(), "running");
    other.finish();
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn another_process_can_start_what_this_one_created(t: &Test) {
    let container = t.create("a", &t.spec(&["/bin/sleep", "1000"]));
    let mut other = t.helper("attach", &[&t.id("a")]);
    other.say("status");
    assert_eq!(other.line(), "created");
    other.say("start");
    assert_eq!(other.line(), "Ok(())");
    other.say("start");
    assert_eq!(other.line(), "Err(State)");
    assert_eq!(container.status(), "running");
    other.finish();
    container.delete(true).expect("delete");
}

fn another_process_can_exec_signal_and_delete(t: &Test) {
    let container = t.sleeper("a");
    let mut other = t.helper("attach", &[&t.id("a")]);
    other.say("exec");
    assert_eq!(other.line(), "inside of inside");
    other.say("kill");
    assert_eq!(other.line(), "killed");
    ended(&*container.init());
    other.say("delete");
    assert_eq!(other.line(), "deleted");
    other.finish();
    assert_eq!(refused(container.state()).category, Category::NotFound);
    t.nothing_is_left();
}

fn a_hundred_handles_agree_that_it_runs(t: &Test) {
    let container = t.sleeper("a");
    let handles: Vec<_> = (0..100).map(|_| t.engine().open(&t.id("a")).expect("open")).collect();
    for handle in &handles {
        assert_eq!(handle.status(), "running");
    }
    refused(handles[99].delete(false)).must_be(Category::State, Stage::Delete);
    assert_eq!(exec_shell(&*handles[99], "echo well"), "well");
    container.delete(true).expect("delete");
}

fn the_exit_status_reaches_another_process(t: &Test) {
    let container = t.create("a", &t.shell("exit 44"));
    let mut before = t.helper("attach", &[&t.id("a")]);
    before.say("status");
    before.line();
    before.say("wait");
    started(&*container);
    assert_eq!(before.line(), "Code(44)");
    before.finish();
    ended(&*container.init());
    // One that comes when all is over.
    let mut after = t.helper("attach", &[&t.id("a")]);
    after.say("status");
    assert_eq!(after.line(), "stopped");
    after.say("wait");
    assert_eq!(after.line(), "Code(44)");
    after.finish();
    container.delete(false).expect("delete");
}

fn the_exit_status_of_a_detached_container_survives_its_host(t: &Test) {
    let mut host = t.helper("host", &["detach", "short"]);
    host.line();
    host.kill();
    let container = t.engine().open(&t.id("a")).expect("open");
    assert_eq!(ended(&*container.init()), Exit::Code(33));
    assert_eq!(container.status(), "stopped");
    container.delete(false).expect("delete");
    t.nothing_is_left();
}

fn a_detached_container_outlives_its_host(t: &Test) {
    let mut host = t.helper("host", &["detach"]);
    let pid: i32 = host.line().parse().unwrap();
    host.finish();
    still_there(t, pid);
}

fn a_detached_container_outlives_the_murder_of_its_host(t: &Test) {
    let mut host = t.helper("host", &["detach"]);
    let pid: i32 = host.line().parse().unwrap();
    host.kill();
    still_there(t, pid);
}

#[track_caller]
fn still_there(t: &Test, pid: i32) {
    let container = t.engine().open(&t.id("a")).expect("open");
    assert_eq!(container.status(), "running");
    assert_eq!(container.init().pid(), pid);
    assert_eq!(exec_shell(&*container, "echo well"), "well");
    container.delete(true).expect("delete");
    t.nothing_is_left();
}

fn dies_with_its_host(t: &Test, args: &[&str]) {
    let mut host = t.helper("host", args);
    let pid: i32 = host.line().parse().unwrap();
    assert!(!dead(pid));
    host.kill();
    eventually("it is dead", || dead(pid));
    t.nothing_is_left();
    assert_eq!(refused(t.engine().open(&t.id("a"))).category, Category::NotFound);
}

fn a_container_dies_with_its_host(t: &Test) {
    dies_with_its_host(t, &[]);
}

fn a_created_container_dies_with_its_host(t: &Test) {
    dies_with_its_host(t, &["create"]);
}

fn a_paused_container_dies_with_its_host(t: &Test) {
    dies_with_its_host(t, &["pause"]);
}

fn a_container_that_died_with_its_host_frees_its_id(t: &Test) {
    let mut host = t.helper("host", &[]);
    host.line();
    host.kill();
    // At once: this may meet the keeper at its cleaning.
    let container = t.sleeper("a");
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn a_cgroup_that_was_there_before_stays_when_the_host_dies(t: &Test) {
    t.need_root();
    let path = format!("/{}before", t.id(""));
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten();
    let hierarchies = hierarchies.map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
    let cgroups: Vec<_> = hierarchies
        .filter(|hierarchy| hierarchy.join("cgroup.procs").exists())
        .map(|hierarchy| hierarchy.join(&path[1..]))
        .filter(|cgroup| std::fs::create_dir(cgroup).is_ok())
        .collect();
    if cgroups.is_empty() {
        t.skip("a cgroup hierarchy");
    }
    let mut host = t.helper("host", &[&path]);
    let pid: i32 = host.line().parse().unwrap();
    host.kill();
    eventually("it is cleaned up", || dead(pid) && !t.state_dir.join(t.id("a")).exists());
    let stayed = cgroups.iter().filter(|cgroup| std::fs::remove_dir(cgroup).is_ok()).count();
    assert_eq!(stayed, cgroups.len());
}

fn the_end_of_the_creating_thread_ends_nothing(t: &Test) {
    let container = std::thread::scope(|scope| scope.spawn(|| t.sleeper("a")).join().unwrap());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn a_forked_runtime_refuses_to_work(t: &Test) {
    let container = t.sleeper("a");
    // SAFETY: this process has one thread, so its child may do what it likes.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let failure = t.engine().open(&t.id("a")).err();
        let right = failure.is_some_and(|failure| failure.category == Category::State);
        // SAFETY: ends without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(!right)) };
    }
    let mut status = 0;
    // SAFETY: the status lives through the call.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "it worked with a runtime of its parent");
    assert_eq!(container.status(), "running", "the end of a fork is not the end of the host");
    container.delete(true).expect("delete");
}

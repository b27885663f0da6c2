//! Signals: to one process, to all, to none.

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    a_signal_reaches_the_handler_of_the_first_process,
    a_signal_goes_to_the_first_process_alone,
    with_all_every_process_gets_the_signal,
    a_created_container_can_be_killed,
    the_death_of_the_first_process_takes_the_others_along,
    kill_without_a_pid_namespace_reaches_everyone,
    signal_to_a_stopped_container_is_refused,
    a_number_that_is_no_signal_is_refused,
    an_execed_process_is_signalled_by_itself,
    pids_lists_every_process,
];

/// Prints a line for `SIGTERM`, and says when it is ready.
const TRAP: &str = "trap 'echo term; exit 3' TERM; echo ready; while :; do sleep 0.05; done";

fn a_signal_reaches_the_handler_of_the_first_process(t: &Test) {
    let mut options = t.options("a", &t.shell(TRAP));
    options.stdio[1] = Stream::Pipe;
    let container = t.create_with(&options);
    started(&*container);
    let mut out = Lines::of(container.init().take_pipe(1));
    assert_eq!(out.next(), "ready");
    container.signal(libc::SIGTERM, false).expect("signal");
    assert_eq!(out.next(), "term");
    assert_eq!(ended(&*container.init()), Exit::Code(3));
    container.delete(false).expect("delete");
}

fn a_signal_goes_to_the_first_process_alone(t: &Test) {
    let container = t.sleeper("a");
    let other = container.exec(&Exec::of(&["/bin/sleep", "1000"])).expect("exec");
    // Ignored by pid 1, deadly for anyone else.
    container.signal(libc::SIGTERM, false).expect("signal");
    assert_eq!(other.wait(Some(Duration::from_millis(50)), None).unwrap(), None);
    container.delete(true).expect("delete");
    assert_eq!(ended(&*other), Exit::Signal { signal: libc::SIGKILL, core_dumped: false });
}

fn with_all_every_process_gets_the_signal(t: &Test) {
    let container = t.sleeper("a");
    t.need_cgroup(&*container);
    let others = [0, 1].map(|_| container.exec(&Exec::of(&["/bin/sleep", "1000"])).expect("exec"));
    container.signal(libc::SIGTERM, true).expect("signal");
    for other in &others {
        assert_eq!(ended(&**other), Exit::Signal { signal: libc::SIGTERM, core_dumped: false });
    }
    assert_eq!(container.status(), "running", "pid 1 ignores the signal");
    container.signal(libc::SIGKILL, true).expect("signal");
    let exit = ended(&*container.init());
    assert_eq!(exit, Exit::Signal { signal: libc::SIGKILL, core_dumped: false });
    container.delete(false).expect("delete");
}

fn a_created_container_can_be_killed(t: &Test) {
    let container = t.create("a", &t.spec(&["/bin/true"]));
    container.signal(libc::SIGKILL, false).expect("signal");
    let exit = ended(&*container.init());
    assert_eq!(exit, Exit::Signal { signal: libc::SIGKILL, core_dumped: false });
    assert_eq!(container.status(), "stopped");
    container.delete(false).expect("delete");
}

fn the_death_of_the_first_process_takes_the_others_along(t: &Test) {
    let container = t.sleeper("a");
    let other = container.exec(&Exec::of(&["/bin/sleep", "1000"])).expect("exec");
    container.signal(libc::SIGKILL, false).expect("signal");
    assert_eq!(ended(&*other), Exit::Signal { signal: libc::SIGKILL, core_dumped: false });
    ended(&*container.init());
    container.delete(false).expect("delete");
}

fn kill_without_a_pid_namespace_reaches_everyone(t: &Test) {
    let mut spec = t.shell("sleep 1000 & sleep 1000 & wait");
    spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
    drop_mount(&mut spec, "/proc");
    let container = t.start("a", &spec);
    t.need_cgroup(&*container);
    eventually("three processes", || container.pids().unwrap().len() == 3);
    let pids = container.pids().unwrap();
    container.signal(libc::SIGKILL, false).expect("signal");
    ended(&*container.init());
    eventually("all dead", || pids.iter().all(|&pid| dead(pid)));
    container.delete(false).expect("delete");
}

fn signal_to_a_stopped_container_is_refused(t: &Test) {
    let container = t.start("a", &t.spec(&["/bin/true"]));
    ended(&*container.init());
    let failure = refused(container.signal(libc::SIGTERM, false));
    failure.must_be(Category::State, Stage::Control).says("not running");
    assert_eq!(failure.container_id, t.id("a"));
    refused(container.init().signal(libc::SIGTERM)).must_be(Category::State, Stage::Control);
    container.delete(false).expect("delete");
}

fn a_number_that_is_no_signal_is_refused(t: &Test) {
    let container = t.sleeper("a");
    for signal in [-1, 65, 1000] {
        refused(container.signal(signal, false)).must_be(Category::Invalid, Stage::Arguments);
        refused(container.init().signal(signal)).must_be(Category::Invalid, Stage::Arguments);
    }
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn an_execed_process_is_signalled_by_itself(t: &Test) {
    let container = t.sleeper("a");
    let other = container.exec(&Exec::of(&["/bin/sleep", "1000"])).expect("exec");
    other.signal(libc::SIGTERM).expect("signal");
    assert_eq!(ended(&*other), Exit::Signal { signal: libc::SIGTERM, core_dumped: false });
    refused(other.signal(libc::SIGTERM)).must_be(Category::State, Stage::Control);
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn pids_lists_every_process(t: &Test) {
    let container = t.sleeper("a");
    t.need_cgroup(&*container);
    let other = container.exec(&Exec::of(&["/bin/sleep", "1000"])).expect("exec");
    let mut pids = container.pids().expect("pids");
    let mut expected = [container.init().pid(), other.pid()];
    pids.sort();
    expected.sort();
    assert_eq!(pids, expected);
    container.delete(true).expect("delete");
}

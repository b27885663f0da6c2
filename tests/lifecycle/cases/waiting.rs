//! Timeouts, cancellation, descriptors to poll, events.

use std::os::unix::fs::PermissionsExt;

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    wait_for_no_time_only_looks,
    wait_gives_up_after_its_timeout,
    a_token_stops_a_wait,
    a_cancelled_token_stops_every_call_at_once,
    a_token_stops_a_creation_that_hangs_and_nothing_is_left,
    a_creation_that_takes_too_long_times_out_and_nothing_is_left,
    a_token_stops_a_start_that_hangs,
    a_start_that_was_cancelled_before_it_was_heard_does_nothing,
    the_exit_descriptor_is_readable_from_the_end_on,
    events_of_all_containers_come_through_one_descriptor,
    dispatch_without_events_returns_nothing,
    many_threads_wait_for_one_process,
];

fn readable(fd: i32, milliseconds: i32) -> bool {
    let mut fds = [libc::pollfd { fd, events: libc::POLLIN, revents: 0 }];
    // SAFETY: the array lives through the call.
    unsafe { libc::poll(fds.as_mut_ptr(), 1, milliseconds) > 0 }
}

fn wait_for_no_time_only_looks(t: &Test) {
    let container = t.sleeper("a");
    assert_eq!(container.init().wait(Some(Duration::ZERO), None).unwrap(), None);
    container.delete(true).expect("delete");
    assert!(container.init().wait(Some(Duration::ZERO), None).unwrap().is_some());
}

fn wait_gives_up_after_its_timeout(t: &Test) {
    let container = t.sleeper("a");
    assert_eq!(container.init().wait(Some(Duration::from_millis(20)), None).unwrap(), None);
    container.delete(true).expect("delete");
}

fn a_token_stops_a_wait(t: &Test) {
    let container = t.sleeper("a");
    let token = t.engine().token();
    let init = container.init();
    let failure = refused(cancel_soon(&token, || init.wait(None, Some(&token))));
    failure.must_be(Category::Cancelled, Stage::Control);
    assert_eq!(failure.container_id, t.id("a"));
    assert_eq!(container.status(), "running");
    container.delete(true).expect("delete");
}

fn a_cancelled_token_stops_every_call_at_once(t: &Test) {
    let token = t.engine().token();
    token.cancel();
    let spec = t.spec(&["/bin/sleep", "1000"]);
    let options = Create { cancel: Some(&token), ..t.options("a", &spec) };
    assert_eq!(t.refused(&options).category, Category::Cancelled);
    let container = t.create("a", &spec);
    assert_eq!(refused(container.start(Some(&token))).category, Category::Cancelled);
    container.delete(true).expect("delete");
    let container = t.sleeper("a");
    let options = Exec { cancel: Some(&token), ..Exec::of(&["/bin/true"]) };
    assert_eq!(refused(container.exec(&options)).category, Category::Cancelled);
    assert_eq!(refused(container.init().wait(None, Some(&token))).category, Category::Cancelled);
    assert_eq!(exec_shell(&*container, "echo well"), "well");
    container.delete(true).expect("delete");
}

/// A configuration with a hook that never ends.
fn hanging(t: &Test, kind: &str) -> Value {
    let script = t.dir.join("hang");
    std::fs::write(&script, "#!/bin/sh\nsleep 1000\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let mut spec = t.spec(&["/bin/true"]);
    spec["hooks"][kind] = match kind {
        "startContainer" => json!([{ "path": "/bin/sleep", "args": ["sleep", "1000"] }]),
        _ => json!([{ "path": script }]),
    };
    spec
}

fn a_token_stops_a_creation_that_hangs_and_nothing_is_left(t: &Test) {
    for kind in ["prestart", "createRuntime"] {
        let token = t.engine().token();
        let options = Create { cancel: Some(&token), ..t.options("a", &hanging(t, kind)) };
        let failure = cancel_soon(&token, || t.refused(&options));
        assert_eq!(failure.category, Category::Cancelled, "{failure}");
        assert_eq!(failure.container_id, t.id("a"));
    }
}

fn a_creation_that_takes_too_long_times_out_and_nothing_is_left(t: &Test) {
    let timeout = Some(Duration::from_millis(100));
    let options = Create { timeout, ..t.options("a", &hanging(t, "createRuntime")) };
    assert_eq!(t.refused(&options).category, Category::Timeout);
}

fn a_token_stops_a_start_that_hangs(t: &Test) {
    let container = t.create("a", &hanging(t, "startContainer"));
    let token = t.engine().token();
    let failure = refused(cancel_soon(&token, || container.start(Some(&token))));
    assert_eq!(failure.category, Category::Cancelled, "{failure}");
    container.delete(true).expect("delete");
    t.nothing_is_left();
}

fn the_exit_descriptor_is_readable_from_the_end_on(t: &Test) {
    let container = t.sleeper("a");
    let init = container.init();
    assert!(!readable(init.fd(), 0));
    container.signal(libc::SIGKILL, false).expect("signal");
    assert!(readable(init.fd(), 30_000));
    assert!(init.wait(Some(Duration::ZERO), None).unwrap().is_some());
    assert!(readable(init.fd(), 0), "after the status was taken");
    container.delete(false).expect("delete");
    assert!(readable(init.fd(), 0), "after delete");
}

fn events_of_all_containers_come_through_one_descriptor(t: &Test) {
    let engine = t.engine();
    assert!(!readable(engine.event_fd(), 0));
    let containers = [1, 2, 3].map(|n| t.start(&format!("c{n}"), &t.shell(&format!("exit {n}"))));
    let process = containers[0].exec(&Exec::of(&["/bin/true"]));
    let mut ends = Vec::new();
    let expected = 3 + usize::from(process.is_ok());
    while ends.len() < expected {
        assert!(readable(engine.event_fd(), 30_000));
        ends.extend(engine.dispatch(PATIENCE).expect("dispatch"));
    }
    assert!(!readable(engine.event_fd(), 0), "all taken");
    for (n, container) in (1..).zip(&containers) {
        let end = ends.iter().find(|end| end.pid == container.init().pid()).expect("an event");
        assert_eq!((&end.container_id, end.exit), (&container.id(), Exit::Code(n)));
        container.delete(false).expect("delete");
    }
}

fn dispatch_without_events_returns_nothing(t: &Test) {
    let container = t.sleeper("a");
    assert!(t.engine().dispatch(Duration::from_millis(20)).expect("dispatch").is_empty());
    container.delete(true).expect("delete");
}

fn many_threads_wait_for_one_process(t: &Test) {
    let container = t.sleeper("a");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let exit = ended(&*container.init());
                assert_eq!(exit, Exit::Signal { signal: libc::SIGKILL, core_dumped: false });
            });
        }
        container.signal(libc::SIGKILL, false).expect("signal");
    });
    container.delete(false).expect("delete");
}

fn a_start_that_was_cancelled_before_it_was_heard_does_nothing(t: &Test) {
    let container = t.create("a", &t.spec(&["/bin/sleep", "1000"]));
    let keeper = parent_of(container.init().pid());
    // SAFETY: plain integers.
    let signal = |signal| unsafe { libc::kill(keeper, signal) };
    signal(libc::SIGSTOP);
    let token = t.engine().token();
    let failure = refused(cancel_soon(&token, || container.start(Some(&token))));
    assert_eq!(failure.category, Category::Cancelled);
    signal(libc::SIGCONT);
    assert_eq!(container.status(), "created");
    started(&*container);
    container.delete(true).expect("delete");
}

//! Freezing a container and letting it go on.

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    a_paused_container_stands_still_until_it_is_resumed,
    a_created_container_can_be_paused_and_resumed,
    start_of_a_paused_container_is_refused,
    the_state_of_a_paused_orphan_can_be_asked_for_ever,
    pause_of_a_paused_container_is_refused,
    resume_of_a_container_that_is_not_paused_is_refused,
    pause_and_resume_of_a_stopped_container_are_refused,
    delete_of_a_paused_container_needs_force,
    a_kill_of_a_paused_container_takes_effect_when_it_is_resumed,
];

fn a_paused_container_stands_still_until_it_is_resumed(t: &Test) {
    let mut spec = t.shell("i=0; while :; do i=$((i + 1)); echo $i > /mnt/count; done");
    let bind = json!({ "destination": "/mnt", "type": "bind", "source": t.dir,
                       "options": ["rbind", "rw"] });
    spec["mounts"].as_array_mut().unwrap().push(bind);
    let container = t.start("a", &spec);
    t.need_cgroup(&*container);
    let file = t.dir.join("count");
    let count = || std::fs::read_to_string(&file).unwrap_or_default();
    eventually("it counts", || count().trim().parse().unwrap_or(0) > 10);
    container.pause().expect("pause");
    assert_eq!(container.status(), "paused");
    let stopped_at = count();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(count(), stopped_at);
    }
    container.resume().expect("resume");
    assert_eq!(container.status(), "running");
    eventually("it goes on", || !count().is_empty() && count() != stopped_at);
    container.delete(true).expect("delete");
}

fn a_created_container_can_be_paused_and_resumed(t: &Test) {
    let container = t.create("a", &t.spec(&["/bin/true"]));
    t.need_cgroup(&*container);
    container.pause().expect("pause");
    assert_eq!(container.status(), "paused");
    container.resume().expect("resume");
    assert_eq!(container.status(), "created");
    started(&*container);
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    container.delete(false).expect("delete");
}

fn start_of_a_paused_container_is_refused(t: &Test) {
    let container = t.create("a", &t.spec(&["/bin/true"]));
    t.need_cgroup(&*container);
    container.pause().expect("pause");
    refused(container.start(None)).must_be(Category::State, Stage::Start).says("paused");
    container.delete(true).expect("delete");
}

fn pause_of_a_paused_container_is_refused(t: &Test) {
    let container = t.sleeper("a");
    t.need_cgroup(&*container);
    container.pause().expect("pause");
    refused(container.pause()).must_be(Category::State, Stage::Control).says("paused");
    container.resume().expect("resume");
    container.delete(true).expect("delete");
}

fn resume_of_a_container_that_is_not_paused_is_refused(t: &Test) {
    let container = t.create("a", &t.spec(&["/bin/sleep", "1000"]));
    refused(container.resume()).must_be(Category::State, Stage::Control).says("not paused");
    started(&*container);
    refused(container.resume()).must_be(Category::State, Stage::Control).says("not paused");
    container.delete(true).expect("delete");
}

fn pause_and_resume_of_a_stopped_container_are_refused(t: &Test) {
    let container = t.start("a", &t.spec(&["/bin/true"]));
    ended(&*container.init());
    refused(container.pause()).must_be(Category::State, Stage::Control).says("stopped");
    refused(container.resume()).must_be(Category::State, Stage::Control).says("not paused");
    container.delete(false).expect("delete");
}

fn delete_of_a_paused_container_needs_force(t: &Test) {
    let container = t.start("a", &t.shell("sleep 1000 & sleep 1000 & wait"));
    t.need_cgroup(&*container);
    container.pause().expect("pause");
    refused(container.delete(false)).must_be(Category::State, Stage::Delete).says("paused");
    container.delete(true).expect("delete");
    t.nothing_is_left();
}

fn a_kill_of_a_paused_container_takes_effect_when_it_is_resumed(t: &Test) {
    let container = t.sleeper("a");
    t.need_cgroup(&*container);
    container.pause().expect("pause");
    container.signal(libc::SIGKILL, false).expect("signal");
    // With cgroup v2 it dies by itself, before or after this.
    if container.status() == "paused" {
        let _ = container.resume();
    }
    let exit = ended(&*container.init());
    assert_eq!(exit, Exit::Signal { signal: libc::SIGKILL, core_dumped: false });
    container.delete(false).expect("delete");
}

fn the_state_of_a_paused_orphan_can_be_asked_for_ever(t: &Test) {
    let orphan = Create { parentage: Parentage::Orphan, ..t.options("a", &t.shell("sleep 1000")) };
    let container = t.create_with(&orphan);
    t.need_cgroup(&*container);
    container.pause().expect("pause");
    // More often than connections can wait at its gate.
    for _ in 0..80 {
        assert_eq!(container.status(), "paused");
    }
    container.resume().expect("resume");
    started(&*container);
    container.delete(true).expect("delete");
}

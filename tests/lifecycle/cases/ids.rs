//! Ids: which are taken, which are refused, and when one is free again.

use std::time::Instant;

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    ids_that_could_leave_the_state_directory_are_refused,
    ids_with_unusual_but_harmless_characters_are_taken,
    an_id_in_use_is_refused_and_its_container_is_untouched,
    an_id_is_free_after_delete,
    an_id_is_free_after_a_failed_creation,
    an_id_is_invented_where_none_is_given,
    opening_an_unknown_id_finds_nothing,
    one_of_many_creators_gets_an_id,
    looking_for_a_container_never_fails_its_creation,
];

fn ids_that_could_leave_the_state_directory_are_refused(t: &Test) {
    let long = "x".repeat(1025);
    for id in ["", ".", "..", "a/b", "/", "../a", "a b", "a\nb", "ä", "a*", "a:b", &long] {
        let mut options = t.options("unused", &t.spec(&["/bin/true"]));
        options.id = Some(id.to_owned());
        // Through the C ABI an empty string is no id at all, so one is invented.
        if !(id.is_empty() && t.is_c()) {
            t.refused(&options).must_be(Category::Invalid, Stage::Arguments).says("container ID");
        }
        refused(t.engine().open(id)).must_be(Category::Invalid, Stage::Arguments);
    }
}

fn ids_with_unusual_but_harmless_characters_are_taken(t: &Test) {
    for name in ["a_b+c-d.e", "..a", "0", "-", "+", "A.B.C"] {
        let container = t.create(name, &t.spec(&["/bin/true"]));
        assert_eq!(container.id(), t.id(name));
        container.delete(true).expect("delete");
    }
}

fn an_id_in_use_is_refused_and_its_container_is_untouched(t: &Test) {
    let container = t.sleeper("a");
    let failure = refused(t.engine().create(&t.options("a", &t.spec(&["/bin/true"]))));
    failure.must_be(Category::Exists, Stage::State).with_errno(libc::EEXIST);
    assert_eq!(failure.container_id, t.id("a"));
    assert_eq!(container.status(), "running");
    assert_eq!(exec_shell(&*container, "echo well"), "well");
    container.delete(true).expect("delete");
}

fn an_id_is_free_after_delete(t: &Test) {
    for _ in 0..3 {
        t.sleeper("a").delete(true).expect("delete");
    }
    // A handle to the first does not reach the second.
    let first = t.sleeper("a");
    first.delete(true).expect("delete");
    let second = t.sleeper("a");
    refused(first.state());
    refused(first.delete(true));
    assert_eq!(second.status(), "running");
    second.delete(true).expect("delete");
}

fn an_id_is_free_after_a_failed_creation(t: &Test) {
    let mut spec = t.spec(&["/bin/true"]);
    spec["mounts"][0]["type"] = json!("nosuchfs");
    t.refused(&t.options("a", &spec));
    assert_eq!(t.run_with(t.options("a", &t.spec(&["/bin/true"]))).exit, Exit::Code(0));
}

fn an_id_is_invented_where_none_is_given(t: &Test) {
    let mut options = t.options("unused", &t.spec(&["/bin/true"]));
    options.id = None;
    let (one, two) = (t.create_with(&options), t.create_with(&options));
    assert!(!one.id().is_empty());
    assert_ne!(one.id(), two.id());
    one.delete(true).expect("delete");
    two.delete(true).expect("delete");
}

fn opening_an_unknown_id_finds_nothing(t: &Test) {
    let failure = refused(t.engine().open("nobody"));
    failure.must_be(Category::NotFound, Stage::State).with_errno(libc::ENOENT);
    assert_eq!(failure.container_id, "nobody");
}

fn one_of_many_creators_gets_an_id(t: &Test) {
    t.engine();
    let made: Vec<_> = std::thread::scope(|scope| {
        let create = || t.engine().create(&t.options("a", &t.spec(&["/bin/true"])));
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (won, lost): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for failure in lost.into_iter().filter_map(Result::err) {
        failure.must_be(Category::Exists, Stage::State);
    }
    won[0].as_ref().ok().unwrap().delete(true).expect("delete");
}

fn looking_for_a_container_never_fails_its_creation(t: &Test) {
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::SeqCst) {
                    let _ = t.engine().open(&t.id("a"));
                }
            });
        }
        let until = Instant::now() + Duration::from_secs(20);
        let failures: Vec<_> = (0..200)
            .take_while(|_| Instant::now() < until)
            .filter_map(|_| {
                let made = t.engine().create(&t.options("a", &t.spec(&["/bin/true"])));
                made.and_then(|container| container.delete(true)).err()
            })
            .collect();
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(failures, []);
    });
}

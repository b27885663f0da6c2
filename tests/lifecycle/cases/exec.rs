//! Running another process in a container.
//!
//! The pointers of its errors begin at the process document that the caller gave.

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    exec_runs_a_program_and_has_its_exit_status,
    exec_in_a_created_container_runs_before_its_program,
    exec_sees_the_container_from_inside,
    exec_takes_environment_cwd_and_user_from_the_container,
    exec_with_its_own_environment_cwd_and_user,
    exec_with_extra_groups_and_umask,
    exec_with_its_own_rlimits_and_capabilities,
    exec_of_a_missing_program_is_a_program_error,
    exec_of_a_file_that_is_no_program_is_a_program_error,
    exec_in_a_missing_directory_is_refused,
    exec_with_a_broken_document_is_refused,
    exec_in_a_stopped_container_is_refused,
    an_exec_beside_the_end_of_its_container_is_told_so,
    exec_in_a_paused_container_is_refused,
    many_execs_run_at_once,
    the_hosts_soft_limit_on_descriptors_is_none_on_programs,
    an_exec_that_has_timed_out_never_runs,
    a_program_is_found_through_path,
];

fn exec_runs_a_program_and_has_its_exit_status(t: &Test) {
    let container = t.sleeper("a");
    for code in [0, 1, 42, 255] {
        let output = exec(&*container, &Exec::of(&["/bin/sh", "-c", &format!("exit {code}")]));
        assert_eq!(output.exit, Exit::Code(code));
    }
    let output = exec(&*container, &Exec::of(&["/bin/sh", "-c", "kill -9 $$"]));
    assert_eq!(output.exit, Exit::Signal { signal: libc::SIGKILL, core_dumped: false });
    let output = exec(&*container, &Exec::of(&["/bin/sh", "-c", "echo out; echo err >&2"]));
    assert_eq!((&*output.stdout, &*output.stderr), ("out\n", "err\n"));
    container.delete(true).expect("delete");
}

fn exec_in_a_created_container_runs_before_its_program(t: &Test) {
    let container = t.create("a", &t.spec(&["/bin/sleep", "1000"]));
    assert_eq!(exec_shell(&*container, "echo early"), "early");
    assert_eq!(container.status(), "created");
    started(&*container);
    container.delete(true).expect("delete");
}

fn exec_sees_the_container_from_inside(t: &Test) {
    let container = t.sleeper("a");
    assert_eq!(exec_shell(&*container, "hostname"), "inside");
    assert_eq!(exec_shell(&*container, "cat /proc/1/comm"), "sleep");
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let same = format!("test $(readlink /proc/self/ns/{kind}) = $(readlink /proc/1/ns/{kind})");
        assert_eq!(exec_shell(&*container, &same), "", "{kind}");
    }
    container.delete(true).expect("delete");
}

fn exec_takes_environment_cwd_and_user_from_the_container(t: &Test) {
    let mut spec = t.spec(&["/bin/sleep", "1000"]);
    spec["process"]["env"] = json!(["PATH=/bin", "COLOUR=blue"]);
    spec["process"]["cwd"] = json!("/tmp");
    spec["process"]["user"] = json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6] });
    let container = t.start("a", &spec);
    assert_eq!(
        exec_shell(&*container, "echo $COLOUR; pwd; id -u; id -g; id -G"),
        "blue\n/tmp\n1000\n1001\n1001 5 6"
    );
    container.delete(true).expect("delete");
}

fn exec_with_its_own_environment_cwd_and_user(t: &Test) {
    let container = t.sleeper("a");
    let options = Exec {
        process: json!({
            "args": ["/bin/sh", "-c", "echo $COLOUR $SHAPE; pwd; id -u; id -g"],
            "env": ["PATH=/bin", "COLOUR=red"], "cwd": "/etc", "user": { "uid": 7, "gid": 8 }
        }),
        ..Exec::of(&[])
    };
    assert_eq!(exec(&*container, &options).success(), "red\n/etc\n7\n8");
    container.delete(true).expect("delete");
}

fn exec_with_extra_groups_and_umask(t: &Test) {
    let container = t.sleeper("a");
    let options = Exec {
        process: json!({
            "args": ["/bin/sh", "-c", "id -G; umask"],
            "user": { "uid": 7, "gid": 8, "additionalGids": [9, 10], "umask": 0o27 }
        }),
        ..Exec::of(&[])
    };
    assert_eq!(exec(&*container, &options).success(), "8 9 10\n0027");
    container.delete(true).expect("delete");
}

fn exec_with_its_own_rlimits_and_capabilities(t: &Test) {
    let container = t.sleeper("a");
    let options = Exec {
        process: json!({
            "args": ["/bin/sh", "-c", "ulimit -n; grep -E 'Cap(Eff|Prm|Bnd)' /proc/self/status"],
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 77 }],
            "capabilities": { "bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"],
                              "permitted": ["CAP_CHOWN"] }
        }),
        ..Exec::of(&[])
    };
    let one = "0000000000000001";
    let expected = format!("77\nCapPrm:\t{one}\nCapEff:\t{one}\nCapBnd:\t{one}");
    assert_eq!(exec(&*container, &options).success(), expected);
    container.delete(true).expect("delete");
}

fn exec_of_a_missing_program_is_a_program_error(t: &Test) {
    let container = t.sleeper("a");
    for program in ["/bin/nosuch", "nosuch"] {
        let failure = refused(container.exec(&Exec::of(&[program])));
        failure.must_be(Category::Program, Stage::Exec).with_errno(libc::ENOENT);
        failure.at("/args").says("nosuch");
        assert_eq!(failure.container_id, t.id("a"));
    }
    assert_eq!(exec_shell(&*container, "echo well"), "well");
    container.delete(true).expect("delete");
}

fn exec_of_a_file_that_is_no_program_is_a_program_error(t: &Test) {
    let container = t.sleeper("a");
    let failure = refused(container.exec(&Exec::of(&["/bin/not-executable"])));
    failure.must_be(Category::Program, Stage::Exec).with_errno(libc::EACCES);
    let failure = refused(container.exec(&Exec::of(&["/bin/not-a-program"])));
    failure.must_be(Category::Program, Stage::Exec).with_errno(libc::ENOEXEC);
    let failure = refused(container.exec(&Exec::of(&["/etc"])));
    failure.must_be(Category::Program, Stage::Exec).with_errno(libc::EISDIR);
    container.delete(true).expect("delete");
}

fn exec_in_a_missing_directory_is_refused(t: &Test) {
    let container = t.sleeper("a");
    let options =
        Exec { process: json!({ "args": ["/bin/true"], "cwd": "/nosuch" }), ..Exec::of(&[]) };
    let failure = refused(container.exec(&options));
    failure.must_be(Category::NotFound, Stage::Process).with_errno(libc::ENOENT);
    failure.at("/cwd");
    container.delete(true).expect("delete");
}

fn exec_with_a_broken_document_is_refused(t: &Test) {
    let container = t.sleeper("a");
    for (process, pointer) in [
        (json!({ "args": "true" }), "/args"),
        (json!({ "args": [] }), "/args"),
        (json!({ "args": ["/bin/true"], "cwd": "relative" }), "/cwd"),
        (json!({ "args": ["/bin/true"], "user": { "uid": "me" } }), "/user/uid"),
        (
            json!({ "args": ["/bin/true"], "rlimits": [{ "type": "RLIMIT_X", "soft": 1, "hard": 1 }] }),
            "/rlimits/0/type",
        ),
    ] {
        let failure = refused(container.exec(&Exec { process, ..Exec::of(&[]) }));
        assert_eq!(failure.category, Category::Spec, "{failure}");
        failure.at(pointer);
    }
    container.delete(true).expect("delete");
}

fn exec_in_a_stopped_container_is_refused(t: &Test) {
    let container = t.start("a", &t.spec(&["/bin/true"]));
    ended(&*container.init());
    let failure = refused(container.exec(&Exec::of(&["/bin/true"])));
    failure.must_be(Category::State, Stage::Exec).says("stopped");
    container.delete(false).expect("delete");
}

fn an_exec_beside_the_end_of_its_container_is_told_so(t: &Test) {
    for round in 0..10 {
        let container = t.sleeper(&format!("c{round}"));
        let failures = std::thread::scope(|scope| {
            let execs = || (0..).find_map(|_| container.exec(&Exec::of(&["/bin/true"])).err());
            let threads = [(); 4].map(|()| scope.spawn(execs));
            container.signal(libc::SIGKILL, false).expect("signal");
            threads.map(|thread| thread.join().expect("a thread").expect("a failure"))
        });
        for failure in failures {
            // It may also die while it is being set up.
            let died = failure.to_string().contains("signal 9");
            assert!(failure.category == Category::State || died, "{failure}");
        }
        ended(&*container.init());
        container.delete(false).expect("delete");
    }
}

fn exec_in_a_paused_container_is_refused(t: &Test) {
    let container = t.sleeper("a");
    t.need_cgroup(&*container);
    container.pause().expect("pause");
    let failure = refused(container.exec(&Exec::of(&["/bin/true"])));
    failure.must_be(Category::State, Stage::Exec).says("paused");
    container.resume().expect("resume");
    assert_eq!(exec_shell(&*container, "echo well"), "well");
    container.delete(true).expect("delete");
}

fn many_execs_run_at_once(t: &Test) {
    let container = t.sleeper("a");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let container = &container;
            scope.spawn(move || {
                let script = format!("echo {thread}; exit {thread}");
                let output = exec(&**container, &Exec::of(&["/bin/sh", "-c", &script]));
                assert_eq!(output.exit, Exit::Code(thread));
                assert_eq!(output.stdout, format!("{thread}\n"));
            });
        }
    });
    container.delete(true).expect("delete");
}

fn the_hosts_soft_limit_on_descriptors_is_none_on_programs(t: &Test) {
    limit_descriptors(128, 4096);
    let container = t.sleeper("a");
    limit_descriptors(4096, 4096);
    let processes: Vec<_> = (0..200)
        .map(|_| container.exec(&Exec::of(&["/bin/sleep", "1000"])).expect("exec"))
        .collect();
    // And what the programs have is the host's limit all the same.
    assert_eq!(exec_shell(&*container, "ulimit -n"), "128");
    for process in &processes {
        process.signal(libc::SIGKILL).expect("signal");
        ended(&**process);
    }
    container.delete(true).expect("delete");
}

fn an_exec_that_has_timed_out_never_runs(t: &Test) {
    let mut spec = t.spec(&["/bin/sleep", "1000"]);
    let bind = json!({ "destination": "/mnt", "type": "bind", "source": t.dir,
                       "options": ["rbind", "rw"] });
    spec["mounts"].as_array_mut().unwrap().push(bind);
    let container = t.start("a", &spec);
    let keeper = parent_of(container.init().pid());
    // SAFETY: plain integers.
    let signal = |signal| unsafe { libc::kill(keeper, signal) };
    signal(libc::SIGSTOP);
    let options =
        Exec { timeout: Some(Duration::from_millis(100)), ..Exec::of(&["/bin/touch", "/mnt/ran"]) };
    assert_eq!(refused(container.exec(&options)).category, Category::Timeout);
    signal(libc::SIGCONT);
    // It serves requests in their order.
    assert_eq!(exec_shell(&*container, "sleep 0.1; ls /mnt | grep ran; echo well"), "well");
    container.delete(true).expect("delete");
}

fn a_program_is_found_through_path(t: &Test) {
    let container = t.sleeper("a");
    assert_eq!(exec(&*container, &Exec::of(&["hostname"])).success(), "inside");
    container.delete(true).expect("delete");
}

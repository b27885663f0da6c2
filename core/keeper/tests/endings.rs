//! How containers end, whoever dies first, and who is left to look after them.

mod harness;

use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use harness::*;
use locule_plan::protocol::{Gate, Phase, Reply, RequestKind, WITHDRAW, create, detail};
use locule_plan::{Operation, Stream, join};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

fn connect_to(bundle: &Bundle, name: &str) -> OwnedFd {
    let socket =
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let address = UnixAddr::new(&bundle.state().join(name)).unwrap();
    connect(socket.as_raw_fd(), &address).unwrap();
    socket
}

/// Waits until the process behind a pidfd has ended.
fn wait_end(pidfd: &OwnedFd) {
    let mut entry = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives as long as the call.
    assert_eq!(unsafe { libc::poll(&mut entry, 1, 60_000) }, 1);
}

fn sleeper(bundle: &Bundle, cleanup: bool) -> Vec<u8> {
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(bundle).child(&Operation::Pivot {});
    plan.program(&["sleep", "1000"], true);
    if cleanup {
        let state = c(bundle.state());
        plan.push(Stream::Cleanup, &Operation::KillCgroup { path: c"/sys/fs/cgroup/no/such" });
        plan.push(Stream::Cleanup, &Operation::RemoveCgroup { path: c"/sys/fs/cgroup/no/such" });
        plan.push(Stream::Cleanup, &Operation::RemoveState { path: &state });
    }
    plan.finish()
}

#[test]
fn a_container_goes_with_its_host_unless_it_is_detached() {
    for detached in [false, true] {
        let Some(bundle) = Bundle::new() else { return };
        let mut keeper = Keeper::new(As::Root);
        let mut host = Command::new("sleep").arg("1000").spawn().unwrap();
        let host_pidfd = pidfd(host.id() as i32);
        let flags = if detached { create::DETACHED } else { 0 };
        let answer = keeper.create_for(&bundle, &sleeper(&bundle, true), flags, &[], &host_pidfd);
        let (pid, init) = answer.created();
        keeper.start().started();
        host.kill().unwrap();
        host.wait().unwrap();
        if !detached {
            assert_eq!(answer.exited().signal, libc::SIGKILL);
            wait_end(&init);
            assert!(keeper.process.wait().unwrap().success());
            assert!(!bundle.state().exists());
            continue;
        }
        // Another process comes by the name of the control socket.
        let control = connect_to(&bundle, "control");
        let watch = request(&control, RequestKind::Watch, 0, &[]);
        assert_eq!(watch.reply(), Reply::State { pid, phase: Phase::Running });
        let shutdown = request(&control, RequestKind::Shutdown, 0, &[]);
        assert_eq!(watch.exited().signal, libc::SIGKILL);
        assert_eq!(shutdown.reply(), Reply::Done);
        assert!(keeper.process.wait().unwrap().success());
        assert!(bundle.state().exists());
    }
}

#[test]
fn a_host_that_dies_during_create_leaves_nothing() {
    let Some(bundle) = Bundle::new() else { return };
    let mut keeper = Keeper::new(As::Root);
    let mut host = Command::new("sleep").arg("1000").spawn().unwrap();
    let host_pidfd = pidfd(host.id() as i32);
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle).child(&Operation::Checkpoint { network: 0 });
    let (output, input) = pipe();
    let script =
        format!("echo running > /proc/{}/fd/{}; sleep 1000", std::process::id(), input.as_raw_fd());
    let (args, env) = (list(&["sh", "-c", &script]), list(&["PATH=/usr/bin:/bin"]));
    plan.push(
        Stream::Hooks,
        &Operation::Hook {
            path: c"/bin/sh",
            args: args.as_list(),
            env: env.as_list(),
            timeout: 0,
            state_head: c"",
            state_tail: c"",
        },
    );
    let state = c(bundle.state());
    plan.push(Stream::Cleanup, &Operation::RemoveState { path: &state });
    let answer = keeper.create_for(&bundle, &plan.finish(), 0, &[], &host_pidfd);
    let mut line = [0; 8];
    std::io::Read::read_exact(&mut &output, &mut line).unwrap();
    host.kill().unwrap();
    host.wait().unwrap();
    keeper.process.wait().unwrap();
    assert!(!bundle.state().exists());
    drop(answer);
}

#[test]
fn creation_ends_when_nobody_wants_the_answer() {
    let Some(bundle) = Bundle::new() else { return };
    let mut keeper = Keeper::new(As::Root);
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle).child(&Operation::Checkpoint { network: 0 });
    let (args, env) = (list(&["sleep", "1000"]), list(&[]));
    plan.push(
        Stream::Hooks,
        &Operation::Hook {
            path: c"/bin/sleep",
            args: args.as_list(),
            env: env.as_list(),
            timeout: 0,
            state_head: c"",
            state_tail: c"",
        },
    );
    drop(keeper.create(&bundle, &plan.finish(), 0, &[]));
    assert!(!keeper.process.wait().unwrap().success());
    assert!(bundle.state().exists(), "the host, which is alive, cleans up");
}

#[test]
fn a_container_dies_with_its_keeper() {
    let Some(bundle) = Bundle::new() else { return };
    let mut keeper = Keeper::new(As::Root);
    let answer = keeper.create(&bundle, &sleeper(&bundle, false), 0, &[]);
    let (_, init) = answer.created();
    keeper.start().started();
    keeper.process.kill().unwrap();
    keeper.process.wait().unwrap();
    wait_end(&init);
}

#[test]
fn without_a_keeper_the_gate_is_in_the_state_directory() {
    for flags in [create::ORPHAN, create::CHILD] {
        let Some(bundle) = Bundle::new() else { return };
        let mut keeper = Keeper::new(As::Root);
        let (output, input) = pipe();
        let plan = script(&bundle, "echo started; exit 5");
        let answer = keeper.create(&bundle, &plan, flags, &[input.as_raw_fd()]);
        drop(input);
        let (_, init) = answer.created();
        assert!(keeper.process.wait().unwrap().success());
        let gate = connect_to(&bundle, "gate");
        send(&gate, &[Gate::Open as u8], &[]);
        assert!(receive(&gate).is_none(), "the gate closes when the program runs");
        assert_eq!(read_all(output), "started\n");
        wait_end(&init);
        if flags == create::CHILD {
            use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
            use std::os::fd::AsFd;
            let status = waitid(Id::PIDFd(init.as_fd()), WaitPidFlag::WEXITED).unwrap();
            assert!(matches!(status, WaitStatus::Exited(_, 5)), "{status:?}");
        }
    }
}

#[test]
fn a_failed_start_without_a_keeper_is_told_over_the_gate() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle).child(&Operation::Pivot {});
    std::fs::write(bundle.root().join("bin/broken"), "#!/no/interpreter\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bundle.root().join("bin/broken"), mode).unwrap();
    plan.program(&["broken"], true);
    let answer = keeper.create(&bundle, &plan.finish(), create::ORPHAN, &[]);
    let (_, init) = answer.created();
    let gate = connect_to(&bundle, "gate");
    // Someone who says nothing does not use the gate up.
    drop(connect_to(&bundle, "gate"));
    send(&gate, &[Gate::Open as u8], &[]);
    let (bytes, _) = receive(&gate).unwrap();
    let Some(Reply::Failed(failure)) = Reply::decode(&bytes) else { panic!() };
    assert_eq!((failure.stream, failure.errno), (Stream::Start as u32, libc::ENOENT));
    assert_eq!(failure.pointer.as_bytes(), b"/process/args");
    wait_end(&init);
}

#[test]
fn a_failed_start_stops_the_container() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle).child(&Operation::Pivot {}).child(&Operation::Gate {});
    let args = list(&["/bin/missing"]);
    plan.push(
        Stream::Start,
        &Operation::Exec { args: args.as_list(), env: locule_plan::List::EMPTY },
    );
    let answer = keeper.create(&bundle, &plan.finish(), 0, &[]);
    let (pid, _) = answer.created();
    let failure = keeper.start().failure();
    assert_eq!((failure.stream, failure.errno), (Stream::Start as u32, libc::ENOENT));
    answer.exited();
    let watch = keeper.request(RequestKind::Watch, 0, &[]);
    assert_eq!(watch.reply(), Reply::State { pid, phase: Phase::Stopped });
    keeper.shut_down();
}

#[test]
fn hooks_run_at_their_points_with_the_state_on_standard_input() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let log = bundle.path("log");
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    plan.bind(&c(bundle.path("")), c"/tmp", 0, 0);
    plan.child(&Operation::Checkpoint { network: 0 }).child(&Operation::Pivot {});
    let hook = |plan: &mut Plan, stream, name: &str, log: &str| {
        let script = format!("{{ echo -n '{name} '; cat; echo; }} >> {log}");
        let (args, env) = (list(&["sh", "-c", &script]), list(&["PATH=/usr/bin:/bin"]));
        plan.push(
            stream,
            &Operation::Hook {
                path: c"/bin/sh",
                args: args.as_list(),
                env: env.as_list(),
                timeout: 10_000,
                state_head: c"{\"pid\":",
                state_tail: c"}",
            },
        );
    };
    let outside = log.to_str().unwrap();
    hook(&mut plan, Stream::Hooks, "prestart", outside);
    hook(&mut plan, Stream::Child, "createContainer", "/tmp/log");
    plan.program(&["true"], true);
    hook(&mut plan, Stream::Poststart, "poststart", outside);
    let answer = keeper.create(&bundle, &plan.finish(), 0, &[]);
    let (pid, _) = answer.created();
    keeper.start().started();
    answer.exited();
    let text = std::fs::read_to_string(&log).unwrap();
    let state = format!("{{\"pid\":{pid}}}");
    assert_eq!(
        text,
        format!("prestart {state}\ncreateContainer {{\"pid\":1}}\npoststart {state}\n")
    );
    keeper.shut_down();
}

#[test]
fn an_exec_that_fails_leaves_the_container_alone() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let answer = keeper.create(&bundle, &sleeper(&bundle, false), 0, &[]);
    let (pid, init) = answer.created();
    keeper.start().started();
    let mut plan = Plan::default();
    let target = plan.slot();
    plan.push(Stream::Launch, &Operation::JoinForChild { kind: join::PID, slot: target });
    plan.child(&Operation::JoinProcess { slot: target, kinds: join::MOUNT });
    plan.program(&["nothing"], false);
    let failure = keeper.exec(&plan.finish(), &[init.as_raw_fd()]).failure();
    assert_eq!(failure.detail, detail::NOT_IN_PATH);
    let watch = keeper.request(RequestKind::Watch, 0, &[]);
    assert_eq!(watch.reply(), Reply::State { pid, phase: Phase::Running });
    keeper.shut_down();
}

#[test]
fn an_exec_that_is_taken_back_is_killed_whether_or_not_its_answer_was_read() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let answer = keeper.create(&bundle, &sleeper(&bundle, false), 0, &[]);
    let (pid, init) = answer.created();
    keeper.start().started();
    let exec = || {
        let mut plan = Plan::default();
        let target = plan.slot();
        plan.push(Stream::Launch, &Operation::JoinForChild { kind: join::PID, slot: target });
        plan.child(&Operation::JoinProcess { slot: target, kinds: join::MOUNT });
        plan.output();
        plan.program(&["sh", "-c", "echo here; exec sleep 1000"], false);
        let (mut output, input) = pipe();
        let answer = keeper.exec(&plan.finish(), &[init.as_raw_fd(), input.as_raw_fd()]);
        drop(input);
        output.read_exact(&mut [0; 5]).unwrap(); // it has said that it is here
        (answer, output)
    };

    let (left, mut output) = exec();
    let (_, kept) = left.started();
    drop(left);
    for read in [true, false] {
        let (taken_back, mut output) = exec();
        if read {
            taken_back.started();
        }
        send(&taken_back.0, &[WITHDRAW], &[]);
        drop(taken_back);
        assert_eq!(output.read(&mut [0]).unwrap(), 0, "its pipe ends with it");
    }
    let watch = keeper.request(RequestKind::Watch, 0, &[]);
    assert_eq!(watch.reply(), Reply::State { pid, phase: Phase::Running });

    let mut entry = libc::pollfd { fd: kept.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives as long as the call.
    assert_eq!(unsafe { libc::poll(&mut entry, 1, 0) }, 0, "one that is only let go runs on");
    keeper.shut_down();
    assert_eq!(output.read(&mut [0]).unwrap(), 0);
}

#[test]
fn executed_processes_are_killed_with_the_container() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let answer = keeper.create(&bundle, &sleeper(&bundle, false), 0, &[]);
    let (_, init) = answer.created();
    keeper.start().started();
    let many: Vec<Answer> = (0..20)
        .map(|number| {
            let mut plan = Plan::default();
            let target = plan.slot();
            // Some in the container's pid namespace, whose init cannot end before they are
            // reaped; the others outside, so that only the keeper can end them.
            if number % 2 == 0 {
                let join = Operation::JoinForChild { kind: join::PID, slot: target };
                plan.push(Stream::Launch, &join);
            }
            plan.child(&Operation::JoinProcess { slot: target, kinds: join::MOUNT });
            plan.program(&["sleep", "1000"], false);
            keeper.exec(&plan.finish(), &[init.as_raw_fd()])
        })
        .collect();
    for exec in &many {
        exec.started();
    }
    keeper.shut_down();
    for exec in &many {
        assert_eq!(exec.exited().signal, libc::SIGKILL);
    }
}

#[test]
fn a_keeper_leaves_a_newer_directory_of_the_same_name_alone() {
    for replaced in [false, true] {
        let Some(bundle) = Bundle::new() else { return };
        let mut keeper = Keeper::new(As::Root);
        let mut host = Command::new("sleep").arg("1000").spawn().unwrap();
        let host_pidfd = pidfd(host.id() as i32);
        let mut plan = Plan::default();
        plan.namespaces(0).filesystems(&bundle).child(&Operation::Pivot {});
        plan.program(&["sleep", "1000"], true);
        plan.push(Stream::Cleanup, &Operation::RemoveState { path: &c(bundle.state()) });
        let answer = keeper.create_for(&bundle, &plan.finish(), 0, &[], &host_pidfd);
        answer.created();
        if replaced {
            std::fs::rename(bundle.state(), bundle.path("older")).unwrap();
            std::fs::create_dir(bundle.state()).unwrap();
        }
        host.kill().unwrap();
        host.wait().unwrap();
        keeper.process.wait().unwrap();
        assert_eq!(bundle.state().exists(), replaced);
    }
}

#[test]
fn the_cgroup_of_a_dead_host_is_emptied_and_removed() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let hierarchy = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let Some(hierarchy) = hierarchy.and_then(|line| line.split(' ').nth(4)) else {
        println!("skipped: cgroup v2");
        return;
    };
    let Some(bundle) = Bundle::new() else { return };
    let cgroup =
        std::path::Path::new(hierarchy).join(format!("locule-test-{}", std::process::id()));
    if std::fs::create_dir(&cgroup).is_err() {
        println!("skipped: a writable cgroup v2");
        return;
    }
    let folder = std::fs::File::open(&cgroup).unwrap();
    for who in [As::Root, As::Sandboxed] {
        let _ = std::fs::create_dir(&cgroup);
        let mut keeper = Keeper::new(who);
        let mut host = Command::new("sleep").arg("1000").spawn().unwrap();
        let host_pidfd = pidfd(host.id() as i32);
        let mut plan = Plan::default();
        let slot = plan.slot();
        plan.namespaces(0).push(Stream::Launch, &Operation::IntoCgroup { slot });
        plan.filesystems(&bundle).child(&Operation::Pivot {}).output();
        plan.program(&["sh", "-c", "cat /proc/self/cgroup; sleep 1000 & sleep 1000"], true);
        let path = c(&cgroup);
        plan.push(Stream::Cleanup, &Operation::KillCgroup { path: &path });
        plan.push(Stream::Cleanup, &Operation::RemoveCgroup { path: &path });
        let (mut output, input) = pipe();
        let folder = std::fs::File::open(&cgroup).unwrap();
        let fds = [folder.as_raw_fd(), input.as_raw_fd()];
        let answer = keeper.create_for(&bundle, &plan.finish(), 0, &fds, &host_pidfd);
        drop(input);
        answer.created();
        keeper.start().started();
        let mut text = String::new();
        let mut byte = [0];
        let name = cgroup.file_name().unwrap().to_str().unwrap();
        while !text.contains(name) && std::io::Read::read(&mut output, &mut byte).unwrap() == 1 {
            text.push(byte[0] as char);
        }
        assert!(text.contains(name), "{text}");
        host.kill().unwrap();
        host.wait().unwrap();
        keeper.process.wait().unwrap();
        assert!(!cgroup.exists());
        let _ = std::fs::remove_file(bundle.state().join("control"));
    }
    drop(folder);
}

#[test]
fn a_host_whose_sockets_close_before_it_is_dead_leaves_nothing() {
    let Some(bundle) = Bundle::new() else { return };
    let mut keeper = Keeper::new(As::Root);
    let mut host = Command::new("sleep").arg("1000").spawn().unwrap();
    let host_pidfd = pidfd(host.id() as i32);
    let mut plan = Plan::default();
    // Nobody ever lets it go on, and its plan has no gate.
    plan.namespaces(0).filesystems(&bundle);
    plan.program(&["sleep", "1000"], false);
    let script = "touch $0/in-hook; exec sleep 1000";
    let root = bundle.root();
    let args = list(&["sh", "-c", script, root.to_str().unwrap()]);
    let env = list(&[]);
    plan.push(
        Stream::Parent,
        &Operation::Hook {
            path: c"/bin/sh",
            args: args.as_list(),
            env: env.as_list(),
            timeout: 0,
            state_head: c"",
            state_tail: c"",
        },
    );
    let state = c(bundle.state());
    plan.push(Stream::Cleanup, &Operation::RemoveState { path: &state });
    let answer = keeper.create_for(&bundle, &plan.finish(), 0, &[], &host_pidfd);
    let in_hook = root.join("in-hook");
    while !in_hook.exists() {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    drop(answer);
    host.kill().unwrap();
    host.wait().unwrap();
    keeper.process.wait().unwrap();
    assert!(!bundle.state().exists());
}

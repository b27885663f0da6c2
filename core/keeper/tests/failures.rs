//! What goes wrong is named: the stream, the operation, where it came from, what it was.

mod harness;

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use harness::*;
use locule_plan::protocol::{Failure, Reply, Request, RequestKind, detail};
use locule_plan::{Operation, Stream};

fn failure_of(bundle: &Bundle, plan: Plan) -> Failure {
    let keeper = Keeper::new(As::Root);
    let failure = keeper.create(bundle, &plan.finish(), 0, &[]).failure();
    // Removing what is in the state directory is the host's part.
    let _ = std::fs::remove_file(bundle.state().join("control"));
    failure
}

#[test]
fn a_missing_program_is_named_before_the_start() {
    let Some(bundle) = Bundle::new() else { return };
    for (name, expected) in [
        ("no-such-program", (detail::NOT_IN_PATH, libc::ENOENT)),
        ("data", (detail::PLAIN, libc::EACCES)),
        ("/bin", (detail::PLAIN, libc::EISDIR)),
        ("/bin/missing", (detail::PLAIN, libc::ENOENT)),
    ] {
        let mut plan = Plan::default();
        plan.namespaces(0).filesystems(&bundle).child(&Operation::Pivot {});
        plan.program(&[name], true);
        let failure = failure_of(&bundle, plan);
        assert_eq!((failure.detail, failure.errno), expected, "{name}");
        assert_eq!(failure.stream, Stream::Child as u32);
        assert_eq!(failure.pointer.as_bytes(), b"/process/args/0");
        assert_eq!(failure.subject.as_bytes(), name.as_bytes());
    }
}

#[test]
fn a_missing_bind_source_is_named() {
    let Some(bundle) = Bundle::new() else { return };
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    plan.bind(c"/no/such/thing", c"/mnt", 0, 0);
    let failure = failure_of(&bundle, plan);
    assert_eq!((failure.detail, failure.errno), (detail::SOURCE, libc::ENOENT));
    assert_eq!(failure.subject.as_bytes(), b"/no/such/thing");
}

#[test]
fn a_wrong_filesystem_option_is_named() {
    let Some(bundle) = Bundle::new() else { return };
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    plan.mount(c"tmpfs", c"/tmp", &["size=banana"], 0, 0);
    let failure = failure_of(&bundle, plan);
    assert_eq!(failure.detail, detail::OPTION);
    assert_eq!(failure.subject.as_bytes(), b"size=banana");
}

#[test]
fn a_symlink_or_file_in_the_place_of_proc_is_refused() {
    let Some(bundle) = Bundle::new() else { return };
    let proc = bundle.root().join("proc");
    std::fs::remove_dir(&proc).unwrap();
    std::os::unix::fs::symlink("tmp", &proc).unwrap();
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    let failure = failure_of(&bundle, plan);
    assert_eq!(failure.detail, detail::MISMATCH, "{failure:?}");
    std::fs::remove_file(&proc).unwrap();
    std::fs::write(&proc, "").unwrap();
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    assert_eq!(failure_of(&bundle, plan).detail, detail::MISMATCH);
}

#[test]
fn an_existing_node_that_is_another_device_is_refused() {
    let Some(bundle) = Bundle::new() else { return };
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle);
    let mode = libc::S_IFCHR | 0o666;
    let path = c"/dev/null";
    plan.child(&Operation::MakeDevice { path, mode, major: 1, minor: 5, uid: 0, gid: 0 });
    let failure = failure_of(&bundle, plan);
    assert_eq!(failure.detail, detail::MISMATCH);
    assert_eq!(failure.subject.as_bytes(), b"/dev/null");
}

#[test]
fn a_hook_that_fails_or_hangs_is_reported() {
    let Some(bundle) = Bundle::new() else { return };
    for (script, timeout, expected) in
        [("exit 3", 0, (detail::EXIT_STATUS, 3 << 8)), ("sleep 1000", 100, (detail::TIMEOUT, 0))]
    {
        let mut plan = Plan::default();
        plan.namespaces(0).filesystems(&bundle).child(&Operation::Checkpoint { network: 0 });
        let (args, env) = (list(&["sh", "-c", script]), list(&["PATH=/usr/bin:/bin"]));
        plan.push_at(
            Stream::Hooks,
            "/hooks/prestart/0",
            &Operation::Hook {
                path: c"/bin/sh",
                args: args.as_list(),
                env: env.as_list(),
                timeout,
                state_head: c"",
                state_tail: c"",
            },
        );
        let failure = failure_of(&bundle, plan);
        assert_eq!((failure.detail, failure.errno), expected);
        assert_eq!(failure.stream, Stream::Hooks as u32);
        assert_eq!(failure.pointer.as_bytes(), b"/hooks/prestart/0");
        let said = failure.subject.as_bytes().split(|&byte| byte == 0);
        assert_eq!(said.filter(|part| !part.is_empty()).collect::<Vec<_>>(), [b"/bin/sh"]);
    }
}

#[test]
fn a_malformed_plan_is_refused() {
    let Some(bundle) = Bundle::new() else { return };
    let good = script(&bundle, "true");
    for plan in [&good[..good.len() - 1], &good[..10], b"", b"not a plan at all, by no means"] {
        let keeper = Keeper::new(As::Root);
        let failure = keeper.create(&bundle, plan, 0, &[]).failure();
        assert_eq!(failure.detail, detail::MALFORMED_PLAN);
    }
}

#[test]
fn a_plan_with_a_slot_too_few_is_refused() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let plan = script(&bundle, "true");
    let failure = keeper.create(&bundle, &plan, 0, &[1, 1]).failure();
    assert_eq!(failure.detail, detail::MISSING_DESCRIPTOR);
}

#[test]
fn a_request_of_another_version_is_told_ours() {
    let keeper = Keeper::new(As::Root);
    let (ours, theirs) = pair();
    let mut bytes = Request { kind: RequestKind::Create, flags: 0 }.encode();
    bytes[0] ^= 0x40;
    send(&keeper.socket, &bytes, &[std::os::fd::AsRawFd::as_raw_fd(&theirs)]);
    drop(theirs);
    let answer = Answer(ours);
    assert!(matches!(answer.reply(), Reply::Hello { version: locule_plan::VERSION, .. }));
    assert!(answer.next().is_none(), "and the keeper is gone");
}

#[test]
fn requests_before_create_are_out_of_order() {
    let keeper = Keeper::new(As::Root);
    for kind in [RequestKind::Start, RequestKind::Exec, RequestKind::Watch] {
        let failure = keeper.request(kind, 0, &[]).failure();
        assert_eq!(failure.detail, detail::WRONG_STATE);
    }
}

#[test]
fn a_second_start_is_out_of_order() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let null = std::fs::File::open("/dev/null").unwrap();
    let raw = std::os::fd::AsRawFd::as_raw_fd(&null);
    let answer = keeper.create(&bundle, &script(&bundle, "sleep 1000"), 0, &[raw]);
    answer.created();
    keeper.start().started();
    assert_eq!(keeper.start().failure().detail, detail::WRONG_STATE);
    keeper.shut_down();
}

#[test]
fn a_container_killed_before_its_start_is_not_started() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let null = std::fs::File::open("/dev/null").unwrap();
    let raw = std::os::fd::AsRawFd::as_raw_fd(&null);
    let answer = keeper.create(&bundle, &script(&bundle, "true"), 0, &[raw]);
    let (pid, _pidfd) = answer.created();
    // SAFETY: our container's first process, which its pidfd keeps from being another's.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    assert_eq!(answer.exited().signal, libc::SIGKILL);
    assert_eq!(keeper.start().failure().detail, detail::WRONG_STATE);
    keeper.shut_down();
}

/// The files of memory that a keeper has in its memory, without its own image.
fn plans_in_memory(keeper: &Keeper) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", keeper.process.id())).unwrap();
    // The image is such a file, too, and lies low.
    maps.lines().filter(|line| line.contains("/memfd:") && !line.starts_with("00")).count()
}

#[test]
fn a_plan_that_could_still_be_cut_short_is_refused() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let plan = unsealed(&script(&bundle, "sleep 100"));
    let (host, state) = (pidfd(std::process::id() as i32), bundle.state());
    let state = std::fs::File::open(state).unwrap();
    let (_out, output) = pipe();
    let fds = [plan.as_raw_fd(), host.as_raw_fd(), state.as_raw_fd(), output.as_raw_fd()];
    let failure = keeper.request(RequestKind::Create, 0, &fds).failure();
    assert_eq!((failure.detail, failure.errno), (detail::MALFORMED_PLAN, libc::EPERM));
}

#[test]
fn plans_that_were_refused_take_no_memory() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let (_out, output) = pipe();
    let created = keeper.create(&bundle, &script(&bundle, "sleep 100"), 0, &[output.as_raw_fd()]);
    created.created();
    let before = plans_in_memory(&keeper);
    for bytes in [&b"no plan at all"[..], b"", b"LCPL"] {
        for _ in 0..3 {
            assert_eq!(keeper.exec(bytes, &[]).failure().detail, detail::MALFORMED_PLAN);
        }
    }
    assert_eq!(plans_in_memory(&keeper), before);
    keeper.shut_down();
}

#[test]
fn nobody_is_remembered_who_cannot_be_told_anything() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let (_out, output) = pipe();
    let created = keeper.create(&bundle, &script(&bundle, "sleep 100"), 0, &[output.as_raw_fd()]);
    created.created();
    let request = Request { kind: RequestKind::Watch, flags: 0 }.encode();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", keeper.process.id())).unwrap().count();
    let before = open();
    let null = std::fs::File::open("/dev/null").unwrap();
    let (datagram, _other) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let (stream, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    for _ in 0..5 {
        for fd in [null.as_raw_fd(), datagram.as_raw_fd(), stream.as_raw_fd()] {
            send(&keeper.socket, &request, &[fd]);
        }
    }
    // It takes one request after the other.
    let flags = locule_plan::protocol::watch::STATE_ONLY;
    assert!(matches!(keeper.request(RequestKind::Watch, flags, &[]).reply(), Reply::State { .. }));
    // What it has answered it may still be about to close, now as before.
    let until = Instant::now() + Duration::from_secs(10);
    while open() > before {
        assert!(Instant::now() < until, "{before} descriptors have become {}", open());
        std::thread::sleep(Duration::from_millis(5));
    }
    keeper.shut_down();
}

#[test]
fn an_empty_datagram_is_not_taken_for_the_end_of_the_host() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let (_out, output) = pipe();
    let created = keeper.create(&bundle, &script(&bundle, "sleep 100"), 0, &[output.as_raw_fd()]);
    created.created();
    send(&keeper.socket, b"", &[]);
    assert!(matches!(keeper.start().reply(), Reply::Started { .. }));
    keeper.shut_down();
}

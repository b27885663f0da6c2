//! Network interfaces that a creation moves, when it turns out to be none after all.

mod harness;

use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::Command;

use harness::*;
use locule_plan::protocol::{Reply, RequestKind, shutdown};
use locule_plan::{Operation, Stream};

fn ip(args: &str) -> Option<String> {
    let output = Command::new("ip").args(args.split(' ')).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// A network of this thread alone with the interface `net0`, if that can be had.
fn own_network() -> Option<()> {
    // SAFETY: an integer. The keeper that this thread starts will be there as well.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    let made = ip("link add net0 type veth peer name peer0");
    if made.is_none() {
        println!("skipped: ip (package iproute2) and a kernel with veth");
    }
    made?;
    ip("link set peer0 up").expect("up");
    ip("addr add 192.0.2.7/24 dev net0").expect("an address");
    ip("link set net0 up").map(drop)
}

fn addresses() -> Option<String> {
    ip("-4 addr show up dev net0")
}

/// A plan of a container that takes the interface.
fn plan(bundle: &Bundle, hook: Option<&str>) -> Vec<u8> {
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(bundle);
    plan.push(Stream::Hooks, &Operation::MoveInterface { name: c"net0", new_name: c"eth%d" });
    if let Some(script) = hook {
        let (args, env) = (list(&["sh", "-c", script]), list(&["PATH=/usr/bin:/bin"]));
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
    }
    plan.child(&Operation::Checkpoint { network: 1 }).child(&Operation::Pivot {});
    plan.program(&["sleep", "1000"], true);
    plan.finish()
}

#[test]
fn a_host_that_could_not_finish_its_part_gets_the_interface_back() {
    let Some(bundle) = Bundle::new() else { return };
    let Some(()) = own_network() else { return };
    let before = addresses();
    for (start, flags, back) in
        [(false, shutdown::UNDO, true), (true, shutdown::UNDO, false), (false, 0, false)]
    {
        let keeper = Keeper::new(As::Root);
        let answer = keeper.create(&bundle, &plan(&bundle, None), 0, &[]);
        answer.created();
        assert_eq!(addresses(), None);
        if start {
            keeper.start().started();
        }
        assert_eq!(keeper.request(RequestKind::Shutdown, flags, &[]).reply(), Reply::Done);
        if back {
            assert_eq!(addresses(), before);
        } else {
            drop(keeper);
            assert_eq!(addresses(), None, "{start} {flags}");
            let _ = ip("link del peer0");
            ip("link add net0 type veth peer name peer0").expect("another pair");
        }
        std::fs::remove_file(bundle.state().join("control")).unwrap();
    }
}

#[test]
fn an_interface_goes_back_when_the_host_dies_while_it_is_on_its_way() {
    let Some(bundle) = Bundle::new() else { return };
    let Some(()) = own_network() else { return };
    let before = addresses();
    let mut keeper = Keeper::new(As::Root);
    let mut host = Command::new("sleep").arg("1000").spawn().unwrap();
    let host_pidfd = pidfd(host.id() as i32);
    let (mut output, input) = pipe();
    let script =
        format!("echo running > /proc/{}/fd/{}; sleep 1000", std::process::id(), input.as_raw_fd());
    let answer = keeper.create_for(&bundle, &plan(&bundle, Some(&script)), 0, &[], &host_pidfd);
    output.read_exact(&mut [0; 8]).unwrap();
    assert_eq!(addresses(), None);
    host.kill().unwrap();
    host.wait().unwrap();
    keeper.process.wait().unwrap();
    assert_eq!(addresses(), before);
    drop(answer);
}

//! The life of a container through the real protocol and the real kernel.

mod harness;

use std::os::fd::AsRawFd;

use harness::*;
use locule_plan::protocol::{Phase, Reply, RequestKind};
use locule_plan::{Operation, Stream, join};

#[test]
fn a_container_is_created_started_and_its_exit_code_told() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let (output, input) = pipe();
    let plan = script(&bundle, "echo pid $$; echo home $HOME; exit 7");
    let answer = keeper.create(&bundle, &plan, 0, &[input.as_raw_fd()]);
    drop(input);
    let (pid, _) = answer.created();
    assert!(pid > 1);
    let start = keeper.start();
    assert_eq!(start.started().0, pid);
    assert_eq!(read_all(output), "pid 1\nhome /root\n");
    let exit = answer.exited();
    assert_eq!((exit.code, exit.signal), (7, 0));
    let watch = keeper.request(RequestKind::Watch, 0, &[]);
    assert_eq!(watch.reply(), Reply::State { pid, phase: Phase::Stopped });
    assert_eq!(watch.exited().code, 7);
    keeper.shut_down();
}

#[test]
fn a_process_is_executed_in_a_running_container() {
    let Some(bundle) = Bundle::new() else { return };
    let keeper = Keeper::new(As::Root);
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(&bundle).child(&Operation::Pivot {});
    plan.program(&["sleep", "1000"], true);
    let answer = keeper.create(&bundle, &plan.finish(), 0, &[]);
    let (pid, pidfd) = answer.created();
    keeper.start().started();
    for _ in 0..3 {
        let mut plan = Plan::default();
        let target = plan.slot();
        let kinds = join::MOUNT | join::UTS | join::IPC | join::NETWORK;
        plan.push(Stream::Launch, &Operation::JoinForChild { kind: join::PID, slot: target });
        plan.child(&Operation::JoinProcess { slot: target, kinds });
        plan.child(&Operation::WorkingDirectory { path: c"/tmp", attempt: 0 });
        plan.output();
        plan.program(
            &["sh", "-c", "pwd; test -d /proc/1/root/bin && cat /proc/1/comm; exit 3"],
            false,
        );
        let (output, input) = pipe();
        let exec = keeper.exec(&plan.finish(), &[pidfd.as_raw_fd(), input.as_raw_fd()]);
        drop(input);
        let (other, _) = exec.started();
        assert_ne!(other, pid);
        assert_eq!(read_all(output), "/tmp\nsleep\n");
        assert_eq!(exec.exited().code, 3);
    }
    keeper.shut_down();
    assert_eq!(answer.exited().signal, libc::SIGKILL);
}

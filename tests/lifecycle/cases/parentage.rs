//! Whose child the container's first process is.

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use locule_lifecycle::prelude::*;

pub const CASES: &[Case] = cases![
    with_a_keeper_the_host_gets_no_child_and_no_signal,
    a_host_that_orphans_fall_to_collects_its_keepers,
    an_orphan_belongs_to_the_nearest_subreaper,
    an_orphan_can_be_started_execed_killed_and_deleted,
    an_orphan_outlives_its_host,
    a_child_belongs_to_the_host_which_may_wait_for_it,
    a_child_announces_its_end_with_sigchld,
    a_child_can_be_waited_for_through_the_library,
    a_host_short_of_descriptors_takes_nobody_for_dead,
];

pub const HELPERS: &[Case] = cases![orphan_host];

fn own_pid() -> i32 {
    std::process::id() as i32
}

fn sigchld() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: initialised by the first call.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        set.assume_init()
    }
}

pub fn block_sigchld() {
    // SAFETY: the set lives through the call.
    assert_eq!(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &sigchld(), std::ptr::null_mut()) }, 0);
}

/// Takes a blocked `SIGCHLD`; whose it is.
pub fn take_sigchld(patience: Duration) -> Option<i32> {
    let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
    let time = libc::timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
    // SAFETY: everything lives through the call; the information is filled if it succeeds.
    unsafe {
        let signal = libc::sigtimedwait(&sigchld(), info.as_mut_ptr(), &time);
        (signal == libc::SIGCHLD).then(|| info.assume_init().si_pid())
    }
}

fn with(t: &Test, parentage: Parentage, script: &str) -> Create<'static> {
    Create { parentage, ..t.options("a", &t.shell(script)) }
}

fn with_a_keeper_the_host_gets_no_child_and_no_signal(t: &Test) {
    block_sigchld();
    let container = t.sleeper("a");
    assert_ne!(parent_of(container.init().pid()), own_pid());
    assert_eq!(exec_shell(&*container, "echo well"), "well");
    assert_eq!(leftovers::children(own_pid()), [0i32; 0]);
    container.delete(true).expect("delete");
    t.refused(&t.options("b", &t.spec(&["/bin/nosuch"])));
    assert_eq!(take_sigchld(Duration::ZERO), None);
    // SAFETY: nothing is stored.
    assert_eq!(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) }, -1);
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ECHILD));
}

fn a_host_that_orphans_fall_to_collects_its_keepers(t: &Test) {
    // As pid 1 of a container is, such as a program that was started without an init.
    // SAFETY: plain integers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }, 0);
    for parentage in [Parentage::Keeper, Parentage::Orphan, Parentage::Child] {
        let container = t.create_with(&with(t, parentage, "sleep 1000"));
        container.delete(true).expect("delete");
    }
    t.refused(&t.options("b", &t.spec(&["/bin/nosuch"])));
    let children = leftovers::children(own_pid());
    let name = |pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let keepers = children.into_iter().map(name).filter(|name| name == "locule-keeper\n").count();
    assert_eq!(keepers, 0);
}

fn an_orphan_belongs_to_the_nearest_subreaper(t: &Test) {
    // SAFETY: cannot fail.
    let guardian = unsafe { libc::getppid() };
    let container = t.create_with(&with(t, Parentage::Orphan, "sleep 1000"));
    // The keeper leaves once it has answered.
    let adopted = || parent_of(container.init().pid()) == guardian;
    eventually("the subreaper is its parent", adopted);
    container.delete(true).expect("delete");
    t.nothing_is_left();
}

fn an_orphan_can_be_started_execed_killed_and_deleted(t: &Test) {
    let container = t.create_with(&with(t, Parentage::Orphan, "sleep 1000; exit"));
    assert_eq!(container.status(), "created");
    started(&*container);
    assert_eq!(container.status(), "running");
    refused(container.start(None)).must_be(Category::State, Stage::Start).says("already running");
    let output = exec(&*container, &Exec::of(&["/bin/sh", "-c", "hostname; exit 4"]));
    assert_eq!((&*output.stdout, output.exit), ("inside\n", Exit::Code(4)));
    container.signal(libc::SIGKILL, false).expect("signal");
    let exit = ended(&*container.init());
    let killed = Exit::Signal { signal: libc::SIGKILL, core_dumped: false };
    // Before Linux 6.15 only the parent can know.
    assert!(exit == killed || exit == Exit::Unknown, "{exit:?}");
    assert_eq!(container.status(), "stopped");
    container.delete(false).expect("delete");
    t.nothing_is_left();
}

fn orphan_host(t: &Test) {
    let container = t.create_with(&with(t, Parentage::Orphan, "sleep 1000"));
    started(&*container);
    tell(container.init().pid());
    listen();
}

fn an_orphan_outlives_its_host(t: &Test) {
    let mut host = t.helper("orphan_host", &[]);
    let pid: i32 = host.line().parse().unwrap();
    host.kill();
    let container = t.engine().open(&t.id("a")).expect("open");
    assert_eq!((container.status(), container.init().pid()), ("running".to_owned(), pid));
    assert_eq!(exec_shell(&*container, "echo well"), "well");
    container.delete(true).expect("delete");
    t.nothing_is_left();
}

fn a_child_belongs_to_the_host_which_may_wait_for_it(t: &Test) {
    let container = t.create_with(&with(t, Parentage::Child, "exit 12"));
    let pid = container.init().pid();
    assert_eq!(parent_of(pid), own_pid());
    assert_eq!(leftovers::children(own_pid()), [pid], "and nobody else does");
    started(&*container);
    let mut status = 0;
    // SAFETY: the structures live through the call.
    let waited = unsafe {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr())
    };
    assert_eq!(waited, pid);
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 12));
    assert_eq!(container.status(), "stopped");
    container.delete(false).expect("delete");
    t.nothing_is_left();
}

fn a_child_announces_its_end_with_sigchld(t: &Test) {
    block_sigchld();
    let container = t.create_with(&with(t, Parentage::Child, "exit 0"));
    // The keeper is a child for a moment, too.
    while take_sigchld(Duration::ZERO).is_some() {}
    started(&*container);
    assert_eq!(take_sigchld(PATIENCE), Some(container.init().pid()));
    assert_eq!(ended(&*container.init()), Exit::Code(0));
    container.delete(false).expect("delete");
}

fn a_child_can_be_waited_for_through_the_library(t: &Test) {
    let container = t.create_with(&with(t, Parentage::Child, "exit 21"));
    started(&*container);
    assert_eq!(ended(&*container.init()), Exit::Code(21));
    assert_eq!(ended(&*container.init()), Exit::Code(21));
    container.delete(false).expect("delete");
    assert_eq!(leftovers::children(own_pid()), [0i32; 0], "no zombie");
    t.nothing_is_left();
}

fn a_host_short_of_descriptors_takes_nobody_for_dead(t: &Test) {
    let limit = |soft: i32| limit_descriptors(soft as u64, 1024);
    let engine = t.engine();
    for parentage in [Parentage::Keeper, Parentage::Orphan] {
        let container = t.create_with(&with(t, parentage, "sleep 1000"));
        started(&*container);
        let id = container.id();
        let free = std::fs::File::open("/").expect("the root").as_raw_fd();
        let mut short = 0;
        for left in 0..16 {
            limit(free + left);
            let found = engine.open(&id).map(|container| container.state());
            let list = engine.list();
            limit(1024);
            match found.and_then(|state| state) {
                Ok(state) => assert_eq!(state["status"], "running", "{left} left"),
                Err(failure) => {
                    assert_eq!(failure.category, Category::Resource, "{left} left: {failure:?}");
                    short += 1;
                }
            }
            match list {
                Ok(list) => assert_eq!(list.len(), 1, "{left} left"),
                Err(failure) => assert_eq!(failure.category, Category::Resource, "{failure:?}"),
            }
        }
        assert!((1..16).contains(&short), "{short} of 16");
        assert_eq!(container.status(), "running");
        container.delete(true).expect("delete");
    }
}

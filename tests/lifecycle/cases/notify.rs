//! Filters with `SCMP_ACT_NOTIFY`: whoever gets the listener answers for the program, and may
//! have to before the program begins.

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread::JoinHandle;

use locule_lifecycle::prelude::*;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

pub const CASES: &[Case] = cases![
    an_agent_answers_for_the_program,
    an_agent_answers_for_every_call_between_filter_and_program,
    the_caller_can_take_the_listener_itself,
    an_executed_process_has_a_listener_of_its_own,
    a_listener_reaches_its_agent_without_a_keeper,
    a_filter_with_a_listener_fits_the_programs_limit_of_descriptors,
    without_an_agent_nothing_is_created_or_started,
    an_agent_that_hangs_up_makes_the_operation_fail,
    a_path_that_no_rule_needs_is_ignored,
    a_child_of_the_caller_cannot_have_a_listener,
    a_stop_while_an_answer_is_waited_for_leaves_nothing,
];

/// The calls of `struct seccomp_data`, and what this agent says to them.
const ENOMEDIUM: i32 = 123;

/// What an agent was told of a process.
struct Told {
    state: Value,
    descriptors: usize,
}

/// A supervisor: it refuses `mkdirat` and `mkdir` with ENOMEDIUM, and lets all else pass.
struct Agent {
    told: Arc<Mutex<Vec<Told>>>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// One that accepts `times` connections at a path.
    fn at(path: &PathBuf, times: usize) -> Agent {
        let listener = UnixListener::bind(path).expect("listen");
        Agent::new(move |told| {
            for _ in 0..times {
                let (connection, _) = listener.accept().expect("accept");
                told(connection);
            }
        })
    }

    /// One that serves one end of a pair; the other end.
    fn of_pair() -> (Agent, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        (Agent::new(move |told| told(ours)), theirs)
    }

    fn new(run: impl FnOnce(&dyn Fn(UnixStream)) + Send + 'static) -> Agent {
        let told = Arc::new(Mutex::new(Vec::new()));
        let thread = std::thread::spawn({
            let told = told.clone();
            move || {
                run(&|connection| {
                    let (state, mut descriptors) = receive(&connection);
                    let count = descriptors.len();
                    told.lock().unwrap().push(Told { state, descriptors: count });
                    if let Some(listener) = descriptors.pop() {
                        std::thread::spawn(move || answer(&listener));
                    }
                })
            }
        });
        Agent { told, thread: Some(thread) }
    }

    /// What it was told, once it has been told all.
    fn told(mut self) -> Vec<Told> {
        self.thread.take().unwrap().join().expect("the agent");
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

/// The state and the descriptors that come with the first message, up to the end of the state:
/// its sender may keep the connection open.
fn receive(connection: &UnixStream) -> (Value, Vec<OwnedFd>) {
    let (mut text, mut descriptors) = (Vec::new(), Vec::new());
    loop {
        let mut buffer = [0; 4096];
        let mut control = nix::cmsg_space!([RawFd; 4]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let raw = connection.as_raw_fd();
        let message = recvmsg::<()>(raw, &mut slices, Some(&mut control), flags).expect("recvmsg");
        for part in message.cmsgs().expect("control messages") {
            if let ControlMessageOwned::ScmRights(raw) = part {
                // SAFETY: the kernel has just made them for this process.
                descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
            }
        }
        let len = message.bytes;
        assert!(len > 0, "the end before a whole state: {:?}", String::from_utf8_lossy(&text));
        text.extend_from_slice(&buffer[..len]);
        if let Ok(state) = serde_json::from_slice(&text) {
            return (state, descriptors);
        }
    }
}

/// Answers until nobody has the filter any more.
fn answer(listener: &OwnedFd) {
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Notification {
        id: u64,
        pid: u32,
        flags: u32,
        data: libc::seccomp_data,
    }
    #[repr(C)]
    struct Response {
        id: u64,
        value: i64,
        error: i32,
        flags: u32,
    }
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    const SEND: libc::c_ulong = 0xc018_2101;
    const CONTINUE: u32 = 1;
    loop {
        // SAFETY: all zero is a value, and what the kernel asks for.
        let mut asked: Notification = unsafe { std::mem::zeroed() };
        // SAFETY: the structures are the kernel's, and live.
        if unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, &raw mut asked) } != 0 {
            match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR | libc::ENOENT) => continue,
                _ => return,
            }
        }
        let refuse = asked.data.nr == libc::SYS_mkdirat as i32 || asked.data.nr == mkdir();
        let (error, flags) = if refuse { (-ENOMEDIUM, 0) } else { (0, CONTINUE) };
        let response = Response { id: asked.id, value: 0, error, flags };
        // SAFETY: as above. It fails if the process has died meanwhile.
        unsafe { libc::ioctl(listener.as_raw_fd(), SEND, &raw const response) };
    }
}

#[cfg(target_arch = "x86_64")]
fn mkdir() -> i32 {
    libc::SYS_mkdir as i32
}

#[cfg(not(target_arch = "x86_64"))]
fn mkdir() -> i32 {
    -1
}

/// The usual configuration, to run a script of which an agent is asked about some calls.
fn notifying(t: &Test, script: &str, no_new_privileges: bool, calls: &[&str]) -> Value {
    let mut spec = t.shell(script);
    spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
    spec["annotations"] = json!({ "org.example.team": "blue" });
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": t.dir.join("agent"),
        "listenerMetadata": "to whom it \"may\" concern",
        "syscalls": [{ "names": calls, "action": "SCMP_ACT_NOTIFY" }],
    });
    spec
}

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];
const MAKES_A_DIRECTORY: &str = "mkdir /tmp/x; echo $?";
const REFUSED: &str = "mkdir: can't create directory '/tmp/x': No medium found";

/// What a process makes of it that an agent refuses it a directory.
#[track_caller]
fn was_refused(output: &Output) {
    assert_eq!((output.stdout.as_str(), output.stderr.trim()), ("1\n", REFUSED), "{output:?}");
}

fn an_agent_answers_for_the_program(t: &Test) {
    for (no_new_privileges, flags) in [
        (true, json!(null)),
        (false, json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"])),
    ] {
        let agent = Agent::at(&t.dir.join("agent"), 1);
        let mut spec = notifying(t, MAKES_A_DIRECTORY, no_new_privileges, &MKDIR);
        spec["linux"]["seccomp"]["flags"] = flags;
        let options =
            Create { stdio: [Stream::Null, Stream::Pipe, Stream::Pipe], ..t.options("run", &spec) };
        let container = t.create_with(&options);
        started(&*container);
        let pid = container.init().pid();
        was_refused(&output_of(&*container.init()));
        container.delete(false).expect("delete");
        let told = &agent.told()[0];
        assert_eq!(told.descriptors, 1);
        let (version, bundle) = (&told.state["ociVersion"], &t.dir);
        let expected = json!({
            "ociVersion": version,
            "fds": ["seccompFd"],
            "pid": pid,
            "metadata": "to whom it \"may\" concern",
            "state": { "ociVersion": version, "id": t.id("run"), "status": "creating", "pid": pid,
                       "bundle": bundle, "annotations": { "org.example.team": "blue" } },
        });
        assert!(version.as_str().is_some_and(|version| version.starts_with("1.")), "{version}");
        assert_eq!(told.state, expected);
        fs::remove_file(t.dir.join("agent")).expect("remove the socket");
    }
}

fn an_agent_answers_for_every_call_between_filter_and_program(t: &Test) {
    // Among them all that the hand-over, the gate and the last steps need.
    let calls = [
        "accept4",
        "capset",
        "close",
        "close_range",
        "dup3",
        "execve",
        "exit_group",
        "fcntl",
        "mkdir",
        "mkdirat",
        "mmap",
        "openat",
        "poll",
        "ppoll",
        "prctl",
        "read",
        "recvmsg",
        "sendmsg",
        "setgroups",
        "setresgid",
        "setresuid",
        "umask",
        "write",
        "rt_sigprocmask",
        "wait4",
        "clone",
    ];
    for no_new_privileges in [true, false] {
        let agent = Agent::at(&t.dir.join("agent"), 1);
        let spec = notifying(t, MAKES_A_DIRECTORY, no_new_privileges, &calls);
        was_refused(&t.run(&spec));
        agent.told();
        fs::remove_file(t.dir.join("agent")).expect("remove the socket");
    }
}

fn the_caller_can_take_the_listener_itself(t: &Test) {
    for no_new_privileges in [true, false] {
        let (agent, socket) = Agent::of_pair();
        let mut spec =
            notifying(t, MAKES_A_DIRECTORY, no_new_privileges, &["mkdir", "mkdirat", "execve"]);
        // Even if there is a path.
        if no_new_privileges {
            let profile = spec["linux"]["seccomp"].as_object_mut().expect("a profile");
            profile.remove("listenerPath");
            profile.remove("listenerMetadata");
        }
        let options =
            Create { seccomp_listener: Some(socket.as_raw_fd()), ..t.options("run", &spec) };
        was_refused(&t.run_with(options));
        assert_eq!(agent.told()[0].descriptors, 1);
    }
}

fn an_executed_process_has_a_listener_of_its_own(t: &Test) {
    for no_new_privileges in [true, false] {
        let agent = Agent::at(&t.dir.join("agent"), 2);
        let spec = notifying(
            t,
            "sleep 1000",
            no_new_privileges,
            &["mkdir", "mkdirat", "execve", "sendmsg"],
        );
        let container = t.start("a", &spec);
        let init = container.init().pid();
        let process = Exec::of(&["/bin/sh", "-c", MAKES_A_DIRECTORY]);
        let (taking, socket) = Agent::of_pair();
        was_refused(&exec(&*container, &process));
        let own = Exec { seccomp_listener: Some(socket.as_raw_fd()), ..process };
        was_refused(&exec(&*container, &own));
        container.delete(true).expect("delete");
        let (told, taken) = (agent.told(), taking.told());
        assert_eq!(told[0].state["state"]["status"], "creating");
        for executed in [&told[1], &taken[0]] {
            assert_eq!(executed.state["state"]["status"], "running");
            assert_eq!(executed.state["state"]["pid"], init);
            let pid = executed.state["pid"].as_i64().expect("a pid");
            assert!(pid > 0 && pid != i64::from(init), "{}", executed.state);
        }
        fs::remove_file(t.dir.join("agent")).expect("remove the socket");
    }
}

fn a_listener_reaches_its_agent_without_a_keeper(t: &Test) {
    for no_new_privileges in [true, false] {
        let agent = Agent::at(&t.dir.join("agent"), 2);
        let script = "mkdir /tmp/x 2>/tmp/said; sleep 1000";
        let spec = notifying(t, script, no_new_privileges, &MKDIR);
        let orphan = Create { parentage: Parentage::Orphan, ..t.options("a", &spec) };
        let container = t.create_with(&orphan);
        started(&*container);
        let waits = "until test -s /tmp/said; do sleep 0.01; done; cat /tmp/said";
        assert_eq!(exec_shell(&*container, waits), REFUSED);
        container.delete(true).expect("delete");
        assert_eq!(agent.told().len(), 2);
        fs::remove_file(t.dir.join("agent")).expect("remove the socket");
    }
}

fn a_filter_with_a_listener_fits_the_programs_limit_of_descriptors(t: &Test) {
    for no_new_privileges in [true, false] {
        let agent = Agent::at(&t.dir.join("agent"), 1);
        let mut spec = notifying(t, "ulimit -n", no_new_privileges, &MKDIR);
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 4, "hard": 4 }]);
        assert_eq!(t.run(&spec).success(), "4");
        agent.told();
        fs::remove_file(t.dir.join("agent")).expect("remove the socket");
    }
}

fn without_an_agent_nothing_is_created_or_started(t: &Test) {
    let said = |failure: &Failure| {
        failure.must_be(Category::NotFound, Stage::Seccomp);
        failure.at("/linux/seccomp/listenerPath").says("failed to connect with seccomp agent");
        assert!(failure.hint.contains("has to listen"), "{failure}");
    };
    let spec = notifying(t, "true", false, &MKDIR);
    said(&t.refused(&t.options("a", &spec)));
    for parentage in [Parentage::Keeper, Parentage::Orphan] {
        let spec = notifying(t, "true", true, &MKDIR);
        let container = t.create_with(&Create { parentage, ..t.options("a", &spec) });
        said(&refused(container.start(None)));
        assert_eq!(container.state().expect("state")["status"], "stopped");
        container.delete(false).expect("delete");
        t.nothing_is_left();
    }
}

fn an_agent_that_hangs_up_makes_the_operation_fail(t: &Test) {
    for no_new_privileges in [true, false] {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        drop(ours);
        let spec = notifying(t, "true", no_new_privileges, &MKDIR);
        let options =
            Create { seccomp_listener: Some(theirs.as_raw_fd()), ..t.options("a", &spec) };
        let failure = if no_new_privileges {
            let container = t.create_with(&options);
            let failure = refused(container.start(None));
            container.delete(true).expect("delete");
            failure
        } else {
            t.refused(&options)
        };
        failure.at("/linux/seccomp/listenerPath").says("hand over the listener");
    }
}

fn a_path_that_no_rule_needs_is_ignored(t: &Test) {
    let mut spec = notifying(t, "echo fine", true, &MKDIR);
    spec["linux"]["seccomp"]["syscalls"][0]["action"] = json!("SCMP_ACT_ERRNO");
    assert_eq!(t.run(&spec).success(), "fine");
}

fn a_child_of_the_caller_cannot_have_a_listener(t: &Test) {
    let spec = notifying(t, "true", true, &MKDIR);
    let child = Create { parentage: Parentage::Child, ..t.options("a", &spec) };
    let failure = t.refused(&child);
    failure.must_be(Category::Unsupported, Stage::Arguments).at("/linux/seccomp");
}

fn a_stop_while_an_answer_is_waited_for_leaves_nothing(t: &Test) {
    // Nobody answers: the listener lies in the socket.
    let (_ours, theirs) = UnixStream::pair().expect("a pair");
    let spec = notifying(t, "true", true, &["execve"]);
    let options = Create { seccomp_listener: Some(theirs.as_raw_fd()), ..t.options("a", &spec) };
    let container = t.create_with(&options);
    let token = t.engine().token();
    let failure = refused(cancel_soon(&token, || container.start(Some(&token))));
    assert_eq!(failure.category, Category::Cancelled);
    container.delete(true).expect("delete");
    t.nothing_is_left();
}

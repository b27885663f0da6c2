//! What a case is given.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use locule::Exit;
use serde_json::Value;

use crate::engine::{Container, Create, Engine, Exec, Failure, Process, Result, Stream, Token};
use crate::runner::{Face, SKIPPED};
use crate::{CAbi, RustApi, bundle, leftovers};

/// Longer than anything here takes on a machine that works, however busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a case is given: an engine, places, and helpers that are asserts at the same time.
pub struct Test {
    /// The face this run goes through.
    pub face: Face,
    /// Arguments, for functions that run in a process of their own.
    pub args: Vec<String>,
    /// A directory of this case alone.
    pub dir: PathBuf,
    /// The state directory of this case.
    pub state_dir: PathBuf,
    /// A root filesystem with busybox, shared by all cases.
    pub rootfs: PathBuf,
    prefix: String,
    engine: OnceLock<Arc<dyn Engine>>,
}

/// What a program did.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Test {
    /// The case that the environment describes.
    pub(crate) fn new(face: Face, args: Vec<String>) -> Test {
        let path = |name: &str| PathBuf::from(std::env::var_os(name).expect(name));
        let dir = path("LOCULE_TEST_DIR");
        Test {
            face,
            args,
            state_dir: dir.join("state"),
            dir,
            rootfs: path("LOCULE_TEST_ROOTFS"),
            prefix: std::env::var("LOCULE_TEST_PREFIX").expect("LOCULE_TEST_PREFIX"),
            engine: OnceLock::new(),
        }
    }

    /// The runtime, opened at the first use.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        self.engine.get_or_init(|| self.another_engine().expect("open a runtime"))
    }

    /// Opens one more runtime on the same state directory.
    pub fn another_engine(&self) -> Result<Arc<dyn Engine>> {
        Ok(match self.face {
            Face::Rust => Arc::new(RustApi::open(&self.state_dir)?),
            Face::C => Arc::new(CAbi::open(&self.state_dir)?),
        })
    }

    /// Ends the case: this machine lacks something.
    pub fn skip(&self, missing: &str) -> ! {
        println!("skipped: {missing}");
        std::process::exit(SKIPPED);
    }

    /// Ends the case unless this is root with all its capabilities.
    pub fn need_root(&self) {
        // SAFETY: cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            self.skip("root");
        }
    }

    /// Ends the case unless this cgroup controller is there.
    pub fn need_controller(&self, name: &str) {
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let v1 = cgroups.lines().any(|line| {
            line.split(':').nth(1).is_some_and(|list| list.split(',').any(|c| c == name))
        });
        let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        if !v1 && !v2.split_whitespace().any(|controller| controller == name) {
            self.skip(&format!("the cgroup controller {name}"));
        }
    }

    /// Ends the case unless the kernel knows of memory nodes.
    pub fn need_numa(&self) {
        if !Path::new("/sys/devices/system/node").exists() {
            self.skip("a kernel with NUMA");
        }
    }

    /// Ends the case unless the container has a cgroup, as it may not for an ordinary user.
    pub fn need_cgroup(&self, container: &dyn Container) {
        if container.pids().is_err() {
            let _ = container.delete(true);
            self.skip("a cgroup for the container");
        }
    }

    /// Whether this run goes through the C ABI.
    pub fn is_c(&self) -> bool {
        self.face == Face::C
    }

    /// Writes a bundle into the case's directory.
    pub fn bundle(&self, name: &str, spec: &Value) -> PathBuf {
        let path = self.dir.join(name);
        bundle::write(&path, spec).expect("write a bundle");
        path
    }

    /// An id that is unique to this case.
    pub fn id(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The usual configuration.
    pub fn spec(&self, args: &[&str]) -> Value {
        bundle::spec(&self.rootfs, args)
    }

    /// The usual configuration, to run a shell script.
    pub fn shell(&self, script: &str) -> Value {
        self.spec(&["/bin/sh", "-c", script])
    }

    /// The options to create `name` with this configuration.
    pub fn options(&self, name: &str, spec: &Value) -> Create<'static> {
        Create {
            id: Some(self.id(name)),
            bundle: Some(self.dir.clone()),
            spec: Some(spec.to_string().into_bytes()),
            ..Create::default()
        }
    }

    /// Creates `name`.
    #[track_caller]
    pub fn create(&self, name: &str, spec: &Value) -> Arc<dyn Container> {
        self.create_with(&self.options(name, spec))
    }

    /// Creates with options.
    #[track_caller]
    pub fn create_with(&self, options: &Create<'_>) -> Arc<dyn Container> {
        match self.engine().create(options) {
            Ok(container) => container,
            Err(error) => panic!("create: {error}; hint: {}", error.hint),
        }
    }

    /// Creates with options that must be refused; asserts that nothing was left behind.
    #[track_caller]
    pub fn refused(&self, options: &Create<'_>) -> Failure {
        match self.engine().create(options) {
            Ok(container) => {
                let _ = container.delete(true);
                panic!("was created in spite of it");
            }
            Err(failure) => {
                self.nothing_is_left();
                failure
            }
        }
    }

    /// Creates and starts `name`.
    #[track_caller]
    pub fn start(&self, name: &str, spec: &Value) -> Arc<dyn Container> {
        let container = self.create(name, spec);
        started(&*container);
        container
    }

    /// Creates and starts a container that does nothing for a long time.
    #[track_caller]
    pub fn sleeper(&self, name: &str) -> Arc<dyn Container> {
        self.start(name, &self.spec(&["/bin/sleep", "1000"]))
    }

    /// Runs a configuration to its end and deletes the container.
    #[track_caller]
    pub fn run(&self, spec: &Value) -> Output {
        self.run_with(self.options("run", spec))
    }

    /// Runs with options to the end and deletes the container.
    #[track_caller]
    pub fn run_with(&self, mut options: Create<'_>) -> Output {
        options.stdio = [options.stdio[0], Stream::Pipe, Stream::Pipe];
        let container = self.create_with(&options);
        started(&*container);
        let output = output_of(&*container.init());
        container.delete(false).expect("delete");
        output
    }

    /// Runs a script inside the usual container and returns what it prints; it must exit
    /// with 0.
    #[track_caller]
    pub fn inside(&self, script: &str) -> String {
        self.run(&self.shell(script)).success()
    }

    /// Asserts that no container of this case has left anything.
    #[track_caller]
    pub fn nothing_is_left(&self) {
        // SAFETY: cannot fail.
        let guardian = unsafe { libc::getppid() };
        let left = leftovers::settle(
            Duration::from_secs(5),
            &self.state_dir,
            &self.prefix,
            &self.dir,
            Some(guardian),
        );
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    /// Starts another function of this program in a process of its own, with the same state
    /// directory.
    pub fn helper(&self, name: &str, args: &[&str]) -> Helper {
        Helper::start(self.helper_command(name, args))
    }

    /// The command of [`Test::helper`].
    pub fn helper_command(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args(["--case", self.face.name(), name]).args(args);
        command
    }
}

/// Starts a container.
#[track_caller]
pub fn started(container: &dyn Container) {
    if let Err(error) = container.start(None) {
        panic!("start: {error}");
    }
}

/// Waits for the end of a process.
#[track_caller]
pub fn ended(process: &dyn Process) -> Exit {
    match process.wait(Some(PATIENCE), None) {
        Ok(Some(exit)) => exit,
        Ok(None) => panic!("process {} still runs after {PATIENCE:?}", process.pid()),
        Err(error) => panic!("wait: {error}"),
    }
}

/// Reads the pipes of a process to their end, and waits for it.
#[track_caller]
pub fn output_of(process: &dyn Process) -> Output {
    let read = |fd: Option<OwnedFd>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            if let Some(fd) = fd {
                File::from(fd).read_to_end(&mut text).expect("read a pipe");
            }
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let (stdout, stderr) = (read(process.take_pipe(1)), read(process.take_pipe(2)));
    let exit = ended(process);
    Output { exit, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Runs a program in a container.
#[track_caller]
pub fn exec(container: &dyn Container, options: &Exec<'_>) -> Output {
    let mut options = options.clone();
    options.stdio = [options.stdio[0], Stream::Pipe, Stream::Pipe];
    match container.exec(&options) {
        Ok(process) => output_of(&*process),
        Err(error) => panic!("exec: {error}"),
    }
}

/// Runs a script in a container and returns what it prints; it must exit with 0.
#[track_caller]
pub fn exec_shell(container: &dyn Container, script: &str) -> String {
    exec(container, &Exec::of(&["/bin/sh", "-c", script])).success()
}

/// Takes the mount at this place out of a configuration.
pub fn drop_mount(spec: &mut Value, destination: &str) {
    let mounts = spec["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|mount| mount["destination"] != destination);
}

/// Whether a process is gone, or only has to be reaped.
pub fn dead(pid: i32) -> bool {
    matches!(leftovers::state_of(pid), None | Some('Z' | 'X'))
}

/// The parent of a process.
#[track_caller]
pub fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("PPid");
    line.trim().parse().expect("a number")
}

/// The lines that a program prints into a pipe or a terminal.
pub struct Lines(BufReader<File>);

impl Lines {
    /// From this descriptor.
    #[track_caller]
    pub fn of(fd: Option<OwnedFd>) -> Lines {
        Lines(BufReader::new(File::from(fd.expect("a descriptor"))))
    }

    /// The next line; empty at the end.
    #[allow(clippy::should_implement_trait, reason = "not an iterator: the end is an empty line")]
    #[track_caller]
    pub fn next(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("read a line");
        line.trim_end().to_owned()
    }
}

/// Asserts an error; the error.
#[track_caller]
pub fn refused<T>(result: Result<T>) -> Failure {
    match result {
        Ok(_) => panic!("succeeded"),
        Err(failure) => failure,
    }
}

/// Waits until something holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Limits the descriptors that this process may have.
pub fn limit_descriptors(soft: u64, hard: u64) {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the structure lives through the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
}

/// Triggers a token after a while, on a thread.
pub fn cancel_soon<R>(token: &Token, call: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            if !done.load(Ordering::SeqCst) {
                token.cancel();
            }
        });
        let result = call();
        done.store(true, Ordering::SeqCst);
        result
    })
}

impl Output {
    /// Asserts that it exited with 0; its standard output without the last line feed.
    #[track_caller]
    pub fn success(&self) -> String {
        assert_eq!(self.exit, Exit::Code(0), "{self:?}");
        self.stdout.trim_end_matches('\n').to_owned()
    }
}

/// Another process of this program. Killed when dropped.
pub struct Helper {
    /// The process.
    pub child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts a command that speaks over its standard streams.
    pub fn start(mut command: Command) -> Helper {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start a helper");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Helper { child, stdin, stdout }
    }

    /// The next line that it prints.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("read from a helper");
        assert!(!line.is_empty(), "the helper has ended: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    /// Gives it a line.
    pub fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").expect("write to a helper");
    }

    /// Kills it with `SIGKILL` and waits until it is dead.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill a helper");
        self.child.wait().expect("wait for a helper");
    }

    /// Closes its standard input and waits for it; what it prints from here on. It must exit
    /// with 0, or with the code for "skipped".
    #[track_caller]
    pub fn finish(mut self) -> String {
        self.stdin = None;
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("read from a helper");
        let status = self.child.wait().expect("wait for a helper");
        if status.code() == Some(SKIPPED) {
            print!("{rest}");
            std::process::exit(SKIPPED);
        }
        assert!(status.success(), "the helper failed with {status}: {rest}");
        rest
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says something to the process that started this one as its helper.
pub fn tell(line: impl std::fmt::Display) {
    println!("{line}");
}

/// Waits for a line from the process that started this one, or for its end.
pub fn listen() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("read");
    line.trim_end().to_owned()
}

//! Takes a bundle through its life with one of the runtimes, and writes down what can be seen.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bundle::{BUNDLE, Bundle, Step};
use crate::{console, drive, inside};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A runtime: a program that understands runc's commands.
pub struct Runtime<'a> {
    pub name: &'static str,
    pub command: &'a [PathBuf],
    pub root: PathBuf,
}

#[derive(Default)]
pub struct Observation {
    /// What is compared.
    pub lines: Vec<String>,
    /// What the runtime said, for who reads about a difference.
    pub messages: Vec<String>,
}

struct Life<'a> {
    runtime: &'a Runtime<'a>,
    bundle: &'a Bundle,
    id: &'a str,
    /// Of the first process, from when it is known.
    pid: Option<i32>,
    seen: Observation,
}

/// The whole life of the container. The bundle has been laid out.
pub fn live(runtime: &Runtime<'_>, bundle: &Bundle, id: &str) -> Observation {
    let mut life = Life { runtime, bundle, id, pid: None, seen: Observation::default() };
    if let Err(problem) = life.live() {
        life.say(format!("problem={problem}"));
    }
    life.remove();
    for line in crate::leftovers::of(&runtime.root, id) {
        life.say(format!("left {line}"));
    }
    for (who, path) in [("host", "hooks"), ("container", "rootfs/hooks")] {
        let text = fs::read_to_string(Path::new(BUNDLE).join(path)).unwrap_or_default();
        let mut order = Vec::new();
        for line in text.lines() {
            life.say(format!("hook {line}"));
            order.extend(line.split_once(" arguments=").map(|(hook, _)| hook));
        }
        life.say(format!("hooks on the {who}={}", order.join(", ")));
    }
    life.seen
}

impl Life<'_> {
    fn say(&mut self, line: String) {
        self.seen.lines.push(line);
    }

    fn command(&self, command: &str) -> Command {
        let [program, words @ ..] = self.runtime.command else { unreachable!() };
        let mut made = Command::new(program);
        made.args(words).arg("--root").arg(&self.runtime.root).arg(command);
        made.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").current_dir("/");
        if self.bundle.keeper && self.runtime.name == "locule" {
            made.env(drive::KEEPER, "1");
        }
        if self.bundle.user != 0 {
            made.env("XDG_RUNTIME_DIR", "/mnt/run");
            made.uid(self.bundle.user).gid(self.bundle.user);
        }
        made
    }

    /// Runs a command to its end. Gives its exit code, or -1 if it had to be killed.
    fn finish(&mut self, command: &mut Command, what: &str) -> Result<i32, String> {
        let log = "/mnt/messages";
        let _ = fs::remove_file(log);
        let messages = File::create(log).map_err(|error| error.to_string())?;
        let mut child = command.stderr(messages).spawn().map_err(|error| error.to_string())?;
        let until = Instant::now() + PATIENCE;
        let code = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status.code().unwrap_or(-2),
                None if Instant::now() > until => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break -1;
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let text = fs::read_to_string(log).unwrap_or_default();
        if !text.trim().is_empty() {
            self.seen.messages.push(format!("{}, {what}: {}", self.runtime.name, text.trim()));
        }
        Ok(code)
    }

    /// Runs a command of which only whether it works matters.
    fn plain(&mut self, words: &[&str]) -> Result<bool, String> {
        let mut command = self.command(words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null());
        let code = self.finish(&mut command, words[0])?;
        let outcome = self.outcome(code == 0);
        self.say(format!("{}={outcome}", words[0]));
        Ok(code == 0)
    }

    /// With the last message, which may explain a refusal.
    fn outcome(&self, fine: bool) -> String {
        let message = self.seen.messages.last().map_or("", String::as_str);
        if fine { "fine".to_owned() } else { format!("refused: {message}") }
    }

    fn live(&mut self) -> Result<(), String> {
        let has_terminal = self.bundle.config["process"]["terminal"] == true;
        let (stdin, stdin_host) = pipe()?;
        let (stdout_host, stdout) = pipe()?;
        let mut create = self.command("create");
        create.args(["--bundle", BUNDLE, "--pid-file", "/mnt/run/pid"]);
        let _ = fs::remove_file("/mnt/run/console");
        let listener = UnixListener::bind("/mnt/run/console").map_err(|e| e.to_string())?;
        open_to_all(Path::new("/mnt/run/console"));
        if has_terminal {
            create.args(["--console-socket", "/mnt/run/console"]);
        }
        create.arg(self.id).stdin(stdin).stdout(stdout);
        let created = self.finish(&mut create, "create")? == 0;
        drop(create);
        self.say(format!("create={}", self.outcome(created)));
        if !created {
            return Ok(());
        }
        let pid = fs::read_to_string("/mnt/run/pid").map_err(|e| format!("no pid file: {e}"))?;
        let pid: i32 = pid.trim().parse().map_err(|_| format!("a pid file with {pid:?}"))?;
        self.pid = Some(pid);
        let (mut input, mut output) = if has_terminal {
            let (socket, _) = listener.accept().map_err(|e| e.to_string())?;
            let master = console::receive(&socket)?;
            let other = master.try_clone().map_err(|e| e.to_string())?;
            (Some(other), File::from(master))
        } else {
            (Some(stdin_host), File::from(stdout_host))
        };
        self.state("created")?;
        for line in crate::host_side::look(pid) {
            self.say(format!("created {line}"));
        }
        if self.bundle.steps.iter().any(|step| matches!(step, Step::KillBeforeStart)) {
            self.plain(&["kill", self.id, "9"])?;
        } else if self.plain(&["start", self.id])? {
            let text = until_its_end(&mut output)?;
            if !is_whole(text.as_bytes()) {
                // Its filter has killed it, and its output ends a moment before it does.
                until_dead(pid);
            }
            self.seen.lines.extend(inside::normalise(&text));
            let words = self.bundle.config["process"]["args"].as_array();
            if words.is_some_and(|words| words.iter().any(|word| word == "--wait")) {
                self.state("running")?;
            }
            for step in self.bundle.steps.clone() {
                self.take(&step, pid)?;
            }
        }
        if let (true, Some(input)) = (has_terminal, &input) {
            // The end of a terminal's input is a character.
            let _ = File::from(input.try_clone().map_err(|e| e.to_string())?).write_all(b"\n\x04");
        }
        input = if has_terminal { input } else { None };
        let ended = self.wait(pid)?;
        drop(input);
        self.say(format!("exit={ended}"));
        self.state("stopped")
    }

    fn take(&mut self, step: &Step, pid: i32) -> Result<(), String> {
        match step {
            Step::Pause => {
                self.plain(&["pause", self.id])?;
                self.state("paused")?;
            }
            Step::Resume => {
                self.plain(&["resume", self.id])?;
                self.state("resumed")?;
            }
            Step::Kill(signal) => {
                self.plain(&["kill", self.id, &signal.to_string()])?;
            }
            Step::Update(resources) => {
                fs::write("/mnt/run/resources", resources.to_string())
                    .map_err(|e| e.to_string())?;
                self.plain(&["update", "--resources", "/mnt/run/resources", self.id])?;
                for line in crate::host_side::look(pid) {
                    self.say(format!("updated {line}"));
                }
            }
            Step::Exec(process) => {
                let path = "/mnt/run/process";
                fs::write(path, process.to_string()).map_err(|e| e.to_string())?;
                let mut exec = self.command("exec");
                let (mut output, write) = pipe().map(|(read, write)| (File::from(read), write))?;
                let pid_file = "/mnt/run/exec-pid";
                let _ = fs::remove_file(pid_file);
                exec.args(["--process", path, "--pid-file", pid_file, "--detach", self.id]);
                exec.stdin(Stdio::null()).stdout(write);
                let reader = std::thread::spawn(move || until_its_end(&mut output));
                let mut code = self.finish(&mut exec, "exec")?;
                drop(exec);
                // Locule's command stays for as long as the process.
                let pid = fs::read_to_string(pid_file).ok().and_then(|pid| pid.parse().ok());
                let began = pid.is_some();
                if let (Some(pid), "runc") = (pid, self.runtime.name) {
                    code = wait_for(pid)?;
                }
                self.say(match began {
                    true => format!("exec exit={code}"),
                    false => "exec=refused".to_owned(),
                });
                let text = reader.join().expect("a reader")?;
                let lines = inside::normalise(&text);
                self.seen.lines.extend(lines.into_iter().map(|line| format!("exec {line}")));
            }
            Step::KillBeforeStart => {}
        }
        Ok(())
    }

    /// The exit code as a shell has it.
    fn wait(&mut self, pid: i32) -> Result<i32, String> {
        if self.bundle.keeper && self.runtime.name == "locule" {
            let mut wait = self.command("wait");
            wait.arg(self.id).stdin(Stdio::null()).stdout(Stdio::null());
            return self.finish(&mut wait, "wait");
        }
        wait_for(pid)
    }

    fn state(&mut self, when: &str) -> Result<(), String> {
        let mut command = self.command("state");
        let (output, write) = pipe()?;
        command.arg(self.id).stdin(Stdio::null()).stdout(write);
        let code = self.finish(&mut command, "state")?;
        drop(command);
        let mut text = String::new();
        let _ = File::from(output).read_to_string(&mut text);
        if code != 0 {
            self.say(format!("state {when}=refused"));
            return Ok(());
        }
        let document: Value = serde_json::from_str(&text).map_err(|e| format!("state: {e}"))?;
        for (key, value) in document.as_object().ok_or("the state is no object")? {
            let value = match (key.as_str(), value) {
                ("pid", value) => if *value == 0 { "0" } else { "a pid" }.to_owned(),
                ("created", Value::String(time)) => shape_of(time),
                (_, value) => value.to_string(),
            };
            self.say(format!("state {when} {key}={value}"));
        }
        Ok(())
    }

    fn remove(&mut self) {
        let Some(pid) = self.pid else { return };
        if self.plain(&["delete", self.id]) != Ok(true) {
            // SAFETY: integers; it is what the runtime has just started.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            let _ = wait_for(pid);
            let _ = self.plain(&["delete", "--force", self.id]);
        }
    }
}

/// The exit code, as a shell has it, of a process that fell to this one.
fn wait_for(pid: i32) -> Result<i32, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let mut status = 0;
        // SAFETY: the status lives through the call.
        match unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } {
            0 if Instant::now() > until => return Err("the container does not end".into()),
            0 => std::thread::sleep(Duration::from_millis(1)),
            _ if libc::WIFSIGNALED(status) => return Ok(128 + libc::WTERMSIG(status)),
            found if found == pid => return Ok(libc::WEXITSTATUS(status)),
            _ => return Err("the container is nobody's child".into()),
        }
    }
}

/// Everything up to the probe's last line, or the end.
fn until_its_end(output: &mut File) -> Result<String, String> {
    let until = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        if !is_readable(output, until.saturating_duration_since(Instant::now())) {
            return Err(format!("the probe says no more after {} bytes", text.len()));
        }
        match output.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(length) => text.extend_from_slice(&buffer[..length]),
        }
        if is_whole(&text) {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Whether the probe has said all that it has to say.
fn is_whole(text: &[u8]) -> bool {
    let last = text.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    text.ends_with(b"\n") && last.starts_with(b"end ")
}

/// Waits for the end of a process that is about to end.
fn until_dead(pid: i32) {
    // SAFETY: integers; the descriptor is nobody else's.
    let pidfd = unsafe {
        match libc::syscall(libc::SYS_pidfd_open, pid, 0) {
            -1 => return,
            fd => OwnedFd::from_raw_fd(fd as i32),
        }
    };
    is_readable(&pidfd, PATIENCE);
}

/// Whether there is something to read, or the end, within this time.
fn is_readable(fd: &impl AsRawFd, within: Duration) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the structure lives through the call.
    unsafe { libc::poll(&raw mut poll, 1, within.as_millis() as i32) > 0 }
}

/// Digits do not matter, but that they are some.
fn shape_of(time: &str) -> String {
    let (seconds, rest) = time.split_once('.').unwrap_or((time, ""));
    let shape: String = seconds.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let zone = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    format!("{shape}.9{zone}")
}

fn pipe() -> Result<(OwnedFd, OwnedFd), String> {
    let mut fds = [0; 2];
    // SAFETY: there is room for two descriptors, which nobody else owns.
    unsafe {
        match libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) {
            0 => Ok((OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))),
            _ => Err(std::io::Error::last_os_error().to_string()),
        }
    }
}

pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = fs::set_permissions(path, PermissionsExt::from_mode(0o777));
}

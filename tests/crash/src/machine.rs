//! The machine the tests run on: a bundle, hosts, and the search for what they leave.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long the machine may take to settle after a crash.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What all cases share.
pub struct Bench {
    base: PathBuf,
    mounts: String,
    next: AtomicU64,
}

impl Bench {
    /// Makes a bundle and a state directory; `Err` names what this machine lacks.
    pub fn new() -> Result<Bench, String> {
        // SAFETY: cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return Err("root".to_owned());
        }
        let places = ["/bin/busybox", "/usr/bin/busybox"];
        let busybox = places.into_iter().find(|path| Path::new(path).exists());
        let busybox = busybox.ok_or("busybox (package busybox-static)")?;
        own_mount_namespace()?;
        let base = std::env::temp_dir().join(format!("locule-crash-{}", std::process::id()));
        let make = || -> std::io::Result<()> {
            for folder in ["bin", "proc", "sys", "dev", "tmp"] {
                fs::create_dir_all(base.join("bundle/rootfs").join(folder))?;
            }
            fs::create_dir(base.join("state"))?;
            fs::copy(busybox, base.join("bundle/rootfs/bin/busybox"))?;
            for name in ["sh", "sleep", "true"] {
                std::os::unix::fs::symlink("busybox", base.join("bundle/rootfs/bin").join(name))?;
            }
            let template = locule::spec::Template::new("rootfs", ["sleep", "600"]);
            fs::write(base.join("bundle/config.json"), template.json().expect("paths are UTF-8"))
        };
        make().map_err(|error| format!("a writable {base:?}: {error}"))?;
        Ok(Bench { base, mounts: mounts(), next: AtomicU64::new(1) })
    }

    /// A new subject: an id nobody has used.
    pub fn subject(&self, options: &str) -> Subject<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("crash-{}-{number}", std::process::id());
        let log = self.base.join(format!("{id}.log"));
        Subject { bench: self, id, options: options.to_owned(), number, log }
    }

    pub fn state(&self) -> PathBuf {
        self.base.join("state")
    }

    /// What must be so after every case.
    pub fn is_as_it_was(&self) -> Result<(), String> {
        let left: Vec<_> = fs::read_dir(self.state())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("in the state directory: {left:?}")) }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// A mount namespace like the machine's, in which every mount is shared but nobody else
/// mounts: what appears here has leaked out of a container.
fn own_mount_namespace() -> Result<(), String> {
    let root = c"/".as_ptr();
    let null = std::ptr::null();
    // SAFETY: C strings and null pointers, as the calls take them; there is one thread.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(null, root, null, libc::MS_REC | libc::MS_PRIVATE, null.cast()) == 0
            && libc::mount(null, root, null, libc::MS_REC | libc::MS_SHARED, null.cast()) == 0
    };
    if done {
        return Ok(());
    }
    Err(format!("the right to make a mount namespace: {}", std::io::Error::last_os_error()))
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").expect("there is a /proc")
}

/// One container id, and those who do something with it.
pub struct Subject<'a> {
    bench: &'a Bench,
    pub id: String,
    pub options: String,
    number: u64,
    log: PathBuf,
}

impl Subject<'_> {
    /// A host with these steps. It and all its descendants carry the subject's mark: a limit
    /// on message queues, which nothing here uses and everybody inherits.
    pub fn command(&self, options: &str, steps: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg("host").arg(self.bench.state()).arg(self.bench.base.join("bundle"));
        command.arg(&self.id).arg([&self.options, options].join(",")).args(steps);
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.expect("the directory is writable");
        let other = log.try_clone().expect("descriptors are not that rare");
        command.stdin(Stdio::null()).stdout(log).stderr(other);
        let limit = self.limit();
        // SAFETY: a single system call.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_MSGQUEUE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            })
        };
        command
    }

    fn limit(&self) -> libc::rlimit {
        // Below the kernel's default of 819,200, because not every root may raise a limit.
        let process = u64::from(std::process::id()) % 600_000;
        libc::rlimit { rlim_cur: 10_000 + self.number, rlim_max: 200_000 + process }
    }

    /// A host that does what it is told.
    pub fn host(&self, options: &str) -> Host {
        let mut command = self.command(options, &["-"]);
        let log = File::options().append(true).open(&self.log).expect("just made");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("this program can be executed");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Host { child, input, output }
    }

    /// Runs a host to its end. `Err` has what it said.
    pub fn run(&self, step: &str) -> Result<(), String> {
        let status = self.command("", &[step]).status().expect("this program can be executed");
        if status.success() { Ok(()) } else { Err(format!("{step}: {status}{}", self.said())) }
    }

    /// What the hosts have said so far.
    pub fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().map(|line| format!("\n        {line}")).collect()
    }

    /// What there is of the container and of the hosts, one line each.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let limit = self.limit();
        let mark = format!("{} {}", limit.rlim_cur, limit.rlim_max);
        for pid in pids() {
            let read =
                |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
            let limits = read("limits");
            let marked = limits.lines().any(|line| {
                line.strip_prefix("Max msgqueue size").is_some_and(|values| {
                    values.split_whitespace().take(2).collect::<Vec<_>>().join(" ") == mark
                })
            });
            if !marked && !read("cgroup").contains(&self.id) {
                continue;
            }
            let status = read("status");
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or("").trim().to_owned()
            };
            // The dead wait for whoever should collect them, and that is not the library's.
            if !status.is_empty() && !field("State:").starts_with(['Z', 'X']) {
                let (name, parent) = (field("Name:"), field("PPid:"));
                left.push(format!("process {pid} ({name}, child of {parent})"));
            }
        }
        find_cgroups(Path::new("/sys/fs/cgroup"), &self.id, 3, &mut left);
        let directory = self.bench.state().join(&self.id);
        if directory.exists() {
            let inside = fs::read_dir(&directory).into_iter().flatten().flatten();
            let names: Vec<_> = inside.map(|entry| entry.file_name()).collect();
            left.push(format!("state directory with {names:?}"));
        }
        let now = mounts();
        let new = now.lines().filter(|line| !self.bench.mounts.lines().any(|old| old == *line));
        left.extend(new.map(|line| format!("mount {line}")));
        left
    }

    /// Waits until nothing is left; `Err` says what stays. `meanwhile` is done again and again.
    pub fn settle(&self, mut meanwhile: impl FnMut()) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            meanwhile();
            let left = self.leftovers();
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("left:\n        {}{}", left.join("\n        "), self.said()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The end of every case: a `delete --force` finds nothing or succeeds, nothing is left,
    /// and the id can be used again.
    pub fn recovers(&self) -> Result<(), String> {
        self.run("recover-delete")?;
        self.settle(|| {})?;
        self.works()
    }

    /// The id can be used, and leaves nothing.
    pub fn works(&self) -> Result<(), String> {
        self.run("recover-create")?;
        self.settle(|| {})
    }
}

impl Drop for Subject<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.log);
        // A failed case must not make the next one fail.
        for line in self.leftovers() {
            let pid = line.strip_prefix("process ").and_then(|rest| rest.split(' ').next());
            if let Some(pid) = pid.and_then(|pid| pid.parse().ok()) {
                kill(pid);
            }
        }
        let _ = fs::remove_dir_all(self.bench.state().join(&self.id));
        let begun = Instant::now();
        let mut left = Vec::new();
        find_cgroups(Path::new("/sys/fs/cgroup"), &self.id, 3, &mut left);
        for line in left {
            let path = line.trim_start_matches("cgroup ");
            while fs::remove_dir(path).is_err() && begun.elapsed() < Duration::from_secs(1) {
                std::thread::yield_now();
            }
        }
    }
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("there is a /proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn find_cgroups(directory: &Path, id: &str, depth: u32, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(format!("cgroup {}", entry.path().display()));
        } else if depth > 0 {
            find_cgroups(&entry.path(), id, depth - 1, found);
        }
    }
}

/// Ends a process of a test.
pub fn kill(pid: i32) {
    // SAFETY: plain integers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

/// Whether a process lives: not gone, not a zombie.
pub fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Waits for a process to die.
pub fn dies(pid: i32) -> Result<(), String> {
    let begun = Instant::now();
    while lives(pid) {
        if begun.elapsed() > PATIENCE {
            return Err(format!("process {pid} does not die"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A host that takes steps from us. Killed when dropped.
pub struct Host {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Host {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Asks for a step without waiting for it.
    pub fn ask(&mut self, step: &str) {
        let input = self.input.as_mut().expect("open until the end");
        let _ = writeln!(input, "{step}");
    }

    /// What became of the step asked for.
    pub fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let _ = self.output.read_line(&mut line);
        match line.trim_end().split_once(' ') {
            Some(("ok", text)) => Ok(text.to_owned()),
            Some(("error", text)) => Err(text.to_owned()),
            _ if line.trim_end() == "ok" => Ok(String::new()),
            _ => Err(format!("the host said {line:?}")),
        }
    }

    pub fn step(&mut self, step: &str) -> Result<String, String> {
        self.ask(step);
        self.answer().map_err(|error| format!("{step}: {error}"))
    }

    /// Creates; the pids of init and of its keeper.
    pub fn create(&mut self) -> Result<(i32, i32), String> {
        let answer = self.step("create")?;
        let pids: Vec<i32> = answer.split(' ').filter_map(|pid| pid.parse().ok()).collect();
        match pids[..] {
            [init, keeper] => Ok((init, keeper)),
            _ => Err(format!("create: {answer:?}")),
        }
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

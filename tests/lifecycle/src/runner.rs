//! Runs cases, each in a process of its own below a guardian to which its orphans fall.
//!
//! `lifecycle [--list] [FILTER...]`. A case that prints `skipped: ...` could not run here.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::{Test, bundle, leftovers};

/// The exit code of a case that could not run.
pub const SKIPPED: i32 = 77;

/// A case that takes longer hangs.
fn limit() -> Duration {
    let given = std::env::var("LOCULE_TEST_LIMIT").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(120))
}

/// A case, or a function that a case runs in a process of its own.
pub type Case = (&'static str, fn(&Test));

/// Lists functions with their names.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), $name as fn(&$crate::Test))),*] };
}

/// Through which face of the library a case goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// The Rust API.
    Rust,
    /// The C ABI.
    C,
}

impl Face {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Face::Rust => "rust",
            Face::C => "c",
        }
    }

    fn of(name: &str) -> Face {
        if name == "c" { Face::C } else { Face::Rust }
    }
}

/// `main` of a program with these suites, each case of which goes through all of these faces.
pub fn main(faces: &[Face], suites: &[(&str, &[Case])], helpers: &[Case]) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("--case") => {
            let name = &args[2];
            let all = suites.iter().flat_map(|(_, cases)| cases.iter()).chain(helpers);
            let (_, function) = all.into_iter().find(|(n, _)| n == name).expect("a case");
            function(&Test::new(Face::of(&args[1]), args[3..].to_vec()));
            ExitCode::SUCCESS
        }
        Some("--guard") => guard(&args[1], &args[2]),
        _ => run_all(faces, suites, &args),
    }
}

struct Job {
    suite: &'static str,
    name: &'static str,
    face: Face,
}

fn run_all(faces: &[Face], suites: &[(&str, &[Case])], args: &[String]) -> ExitCode {
    let filters: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let mut jobs = Vec::new();
    for (suite, cases) in suites {
        for (name, _) in cases.iter() {
            for &face in faces {
                let full = format!("{suite}::{name} ({})", face.name());
                if filters.is_empty() || filters.iter().any(|filter| full.contains(*filter)) {
                    // SAFETY of the lifetime: the names are literals; leaking says so.
                    let suite: &'static str = Box::leak(suite.to_string().into_boxed_str());
                    jobs.push(Job { suite, name, face });
                }
            }
        }
    }
    if args.iter().any(|arg| arg == "--list") {
        for job in &jobs {
            println!("{}::{} ({}): test", job.suite, job.name, job.face.name());
        }
        return ExitCode::SUCCESS;
    }
    let Some(busybox) = bundle::busybox() else {
        println!("skipped: a static busybox (package busybox-static)");
        return ExitCode::SUCCESS;
    };
    let base = base();
    let rootfs = base.join("rootfs");
    bundle::make_rootfs(&rootfs, &busybox).expect("make a root filesystem");

    let (next, counts) = (AtomicUsize::new(0), Mutex::new([0usize; 3]));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let number = run_one(job, &base, &rootfs);
                    counts.lock().unwrap()[number] += 1;
                    if number == 2 {
                        let name = format!("{}::{} ({})", job.suite, job.name, job.face.name());
                        failed.lock().unwrap().push(name);
                    }
                }
            });
        }
    });
    let _ = fs::remove_dir_all(&base);
    let [passed, skipped, bad] = *counts.lock().unwrap();
    println!("\n{passed} passed, {bad} failed, {skipped} skipped");
    for name in failed.lock().unwrap().iter() {
        println!("    failed: {name}");
    }
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn workers() -> usize {
    let given = std::env::var("LOCULE_TEST_THREADS").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from))
}

/// A directory that ordinary users can reach.
fn base() -> PathBuf {
    let base = std::env::temp_dir().join(format!("locule-tests-{}", std::process::id()));
    let _ = fs::remove_dir_all(&base);
    fs::create_dir_all(&base).expect("make a directory");
    fs::set_permissions(&base, PermissionsExt::from_mode(0o755)).expect("chmod");
    base
}

/// 0 passed, 1 skipped, 2 failed.
fn run_one(job: &Job, base: &Path, rootfs: &Path) -> usize {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::SeqCst);
    let dir = base.join(format!("case-{number}"));
    fs::create_dir(&dir).expect("make a directory");
    fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).expect("chmod");
    let log = base.join(format!("case-{number}.log"));
    let output = File::create(&log).expect("make a log");
    let status = Command::new("/proc/self/exe")
        .args(["--guard", job.face.name(), job.name])
        .env("LOCULE_TEST_DIR", &dir)
        .env("LOCULE_TEST_ROOTFS", rootfs)
        .env("LOCULE_TEST_PREFIX", format!("lc{}-{number}-", std::process::id()))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stderr(output.try_clone().expect("dup"))
        .stdout(output)
        .status()
        .expect("start a guardian");
    let text = fs::read(&log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let name = format!("{}::{} ({})", job.suite, job.name, job.face.name());
    let (number, line) = match status.code() {
        Some(0) => (0, format!("ok       {name}")),
        Some(SKIPPED) => {
            let reason = text.lines().rev().find(|line| line.starts_with("skipped: "));
            (1, format!("{}: {name}", reason.unwrap_or("skipped: (no reason)")))
        }
        _ => (2, format!("FAILED   {name}: {status}\n{}", indent(&text))),
    };
    println!("{line}");
    let _ = fs::remove_dir_all(&dir);
    let _ = fs::remove_file(&log);
    number
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("         | {line}\n")).collect()
}

/// Runs one case as the subreaper of all it starts, and looks for what is left.
fn guard(face: &str, name: &str) -> ExitCode {
    // SAFETY: plain integers.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
    let dir = PathBuf::from(std::env::var_os("LOCULE_TEST_DIR").expect("LOCULE_TEST_DIR"));
    let prefix = std::env::var("LOCULE_TEST_PREFIX").expect("LOCULE_TEST_PREFIX");
    let case = Command::new("/proc/self/exe")
        .args(["--case", face, name])
        .spawn()
        .expect("start a case")
        .id() as i32;
    // SAFETY: plain integers.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, case, 0) } as i32;
    assert!(pidfd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
    let until = Instant::now() + limit();
    let mut code = None;
    while code.is_none() {
        if Instant::now() > until {
            println!("the case hangs; killed");
            // SAFETY: plain integers.
            unsafe { libc::kill(case, libc::SIGKILL) };
        }
        match reap() {
            Some((pid, status)) if pid == case => code = Some(status),
            Some(_) => {}
            None => {
                let mut ended = libc::pollfd { fd: pidfd, events: libc::POLLIN, revents: 0 };
                // SAFETY: one structure, which lives through the call.
                unsafe { libc::poll(&raw mut ended, 1, 50) };
            }
        }
    }
    let status = code.unwrap_or(0);
    let failed = status != 0 && status != SKIPPED << 8;
    // What a failed case leaves is not looked at for long: it is swept, not judged.
    let patience = Duration::from_secs(if failed { 0 } else { 5 });
    let until = Instant::now() + patience;
    let own = std::process::id() as i32;
    let left = loop {
        while reap().is_some() {}
        let left = leftovers::find(&dir.join("state"), &prefix, &dir, Some(own));
        if left.is_empty() || Instant::now() > until {
            break left;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if !left.is_empty() {
        sweep(own, &dir, &prefix);
        for line in left.iter().filter(|_| !failed) {
            println!("left behind: {line}");
        }
    }
    match status {
        _ if !left.is_empty() => ExitCode::FAILURE,
        0 => ExitCode::SUCCESS,
        status if status & 0x7f != 0 => {
            println!("killed by signal {}", status & 0x7f);
            ExitCode::FAILURE
        }
        status => ExitCode::from((status >> 8) as u8),
    }
}

fn reap() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: the status lives through the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Kills and removes what a broken case has left, so that the next ones find a clean machine.
fn sweep(own: i32, dir: &Path, prefix: &str) {
    for _ in 0..200 {
        let children = leftovers::children(own);
        if children.is_empty() {
            break;
        }
        for pid in children {
            // SAFETY: plain integers; these are this process's own children.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        while reap().is_some() {}
        leftovers::remove_cgroups(prefix);
        std::thread::sleep(Duration::from_millis(5));
    }
    leftovers::remove_cgroups(prefix);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for target in mounts.lines().rev().filter_map(|line| line.split(' ').nth(4)) {
        if Path::new(target).starts_with(dir) {
            let target = std::ffi::CString::new(target).expect("no NUL");
            // SAFETY: a C string.
            unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        }
    }
}

//! Two workers share the bundles, each in a mount namespace of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::bundle::BUNDLE;
use crate::explained::ROWS;
use crate::life::{Runtime, live, open_to_all};
use crate::{compare, generate, oracle, picked};

const WORKERS: usize = 2;

const FOR_USERS: &str = include_str!("../../../docs/differences-to-runc.md");

/// What bundles are made up from, unless another seed is asked for.
const SEED: u64 = 1;

/// How many bundles are made up.
const GENERATED: usize = 300;

/// Where the oracle and the probe are kept from one run to the next.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("differential")
}

/// Prepares everything and starts the workers.
pub fn lead(arguments: &[String]) -> ExitCode {
    let begun = Instant::now();
    if arguments.iter().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    let prepared = match prepare() {
        Ok(prepared) => prepared,
        Err(missing) => {
            println!("skipped: {missing}");
            return ExitCode::SUCCESS;
        }
    };
    let seed = match std::env::var("LOCULE_SEED") {
        Ok(seed) => seed.parse().expect("LOCULE_SEED is a number"),
        Err(_) => SEED,
    };
    println!("the oracle is {}; LOCULE_SEED={seed}", prepared.version);
    // What `nohup` and a shell's background have ignored, runc hands on to containers.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: integers.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let mut worker = Command::new("/proc/self/exe")
                .args(["work", &number.to_string(), &seed.to_string()])
                .arg(&prepared.program)
                .args(arguments.iter().filter(|word| !word.starts_with('-')))
                .stdout(Stdio::piped())
                .spawn()
                .expect("start a worker");
            let output = worker.stdout.take().expect("a pipe");
            let reader = std::thread::spawn(move || {
                let mut counts = BTreeMap::<String, usize>::new();
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    match line.strip_prefix("count ").and_then(|count| count.split_once(' ')) {
                        Some((number, what)) => {
                            *counts.entry(what.to_owned()).or_default() +=
                                number.parse::<usize>().expect("a number");
                        }
                        None => println!("{line}"),
                    }
                }
                counts
            });
            (worker, reader)
        })
        .collect();
    let mut counts = BTreeMap::<String, usize>::new();
    let mut fine = true;
    for (mut worker, reader) in workers {
        for (what, number) in reader.join().expect("a reader") {
            *counts.entry(what).or_default() += number;
        }
        fine &= worker.wait().is_ok_and(|status| status.success());
    }
    for (number, row) in ROWS.iter().enumerate() {
        let count = counts.get(&format!("row {number}")).copied().unwrap_or_default();
        println!("{count:>5} x explained: {}", row.reason);
        if !FOR_USERS.contains(&format!("| {} |", row.reason)) {
            println!("      docs/differences-to-runc.md does not say so");
            fine = false;
        }
    }
    let count = |what: &str| counts.get(what).copied().unwrap_or_default();
    println!(
        "{} bundles, {} lines compared, {} unexplained differences in {:.0} s",
        count("bundles"),
        count("lines"),
        count("differences"),
        begun.elapsed().as_secs_f32()
    );
    if fine && count("differences") == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is missing, or the oracle.
fn prepare() -> Result<oracle::Oracle, String> {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Err("root".to_owned());
    }
    let cache = cache();
    fs::create_dir_all(&cache).map_err(|error| format!("{cache:?}: {error}"))?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("probe.c");
    let flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-static", "-o"];
    let compiled = Command::new("cc").args(flags).arg(cache.join("probe")).arg(source).status();
    if !compiled.is_ok_and(|status| status.success()) {
        return Err("a C compiler that can link statically".to_owned());
    }
    fs::copy("/bin/busybox", cache.join("busybox")).map_err(|_| "busybox".to_owned())?;
    oracle::find(&cache)
}

/// `NUMBER SEED ORACLE [NAME...]`
pub fn work(arguments: &[String]) -> ExitCode {
    let [number, seed, oracle, names @ ..] = arguments else { return ExitCode::from(2) };
    let number: usize = number.parse().expect("a number");
    let seed: u64 = seed.parse().expect("a number");
    make_ground();
    let own = vec![std::env::current_exe().expect("own path"), PathBuf::from("drive")];
    let oracle = [PathBuf::from(oracle)];
    let runtimes = [
        Runtime { name: "runc", command: &oracle, root: "/mnt/run/runc".into() },
        Runtime { name: "locule", command: &own, root: "/mnt/run/locule".into() },
    ];
    let count = std::env::var("LOCULE_BUNDLES").map_or(GENERATED, |n| n.parse().expect("a number"));
    let mut all = picked::all();
    all.extend((0..count).map(|number| generate::bundle(seed, number)));
    let (mut bundles, mut lines, mut differences) = (0, 0, 0);
    let mut rows = vec![0; ROWS.len()];
    for (index, bundle) in all.iter().enumerate() {
        let wanted =
            names.is_empty() || names.iter().any(|name| bundle.name.contains(name.as_str()));
        if index % WORKERS != number || !wanted {
            continue;
        }
        bundles += 1;
        let id = format!("differential-{number}-{index}");
        let [theirs, ours] = runtimes.each_ref().map(|runtime| {
            bundle.lay_out(Path::new("/mnt/template"), &id).expect("lay out a bundle");
            let seen = live(runtime, bundle, &id);
            fs::remove_dir_all(BUNDLE).expect("remove a bundle");
            seen
        });
        lines += ours.lines.len();
        let mut report = String::new();
        for difference in compare::compare(&theirs.lines, &ours.lines) {
            if let Some(row) = difference.row {
                rows[row] += 1;
                continue;
            }
            differences += 1;
            for (name, line) in [("runc", difference.oracle), ("locule", difference.ours)] {
                report += &format!("    {name:>6}: {}\n", line.as_deref().unwrap_or("-"));
            }
        }
        if !report.is_empty() {
            for message in theirs.messages.iter().chain(&ours.messages) {
                report += &format!("    {message}\n");
            }
            println!("{}:\n{report}    {}", bundle.name, bundle.config);
        }
    }
    println!("count {bundles} bundles\ncount {lines} lines\ncount {differences} differences");
    for (row, count) in rows.iter().enumerate() {
        println!("count {count} row {row}");
    }
    ExitCode::SUCCESS
}

/// A small host of the worker's own: what a bundle does to the host is done to that. `/mnt` is the
/// worker's, and mounts are shared as systemd has it.
fn make_ground() {
    let mount = |what: &str, place: &str, kind: &str, flags| {
        let [what, place, kind] =
            [what, place, kind].map(|word| std::ffi::CString::new(word).expect("no NUL"));
        // SAFETY: C strings.
        let rc = unsafe {
            let none = std::ptr::null();
            libc::mount(what.as_ptr(), place.as_ptr(), kind.as_ptr(), flags, none)
        };
        assert_eq!(rc, 0, "mount at {place:?}: {}", std::io::Error::last_os_error());
    };
    // SAFETY: integers; this process has one thread.
    unsafe {
        let own = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWNET;
        assert_eq!(libc::unshare(own), 0);
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    }
    mount("none", "/", "none", libc::MS_REC | libc::MS_PRIVATE);
    mount("none", "/", "none", libc::MS_REC | libc::MS_SHARED);
    mount("differential", "/mnt", "tmpfs", 0);
    let cache = cache();
    fs::create_dir("/mnt/template").expect("a directory");
    for program in ["probe", "busybox"] {
        fs::copy(cache.join(program), Path::new("/mnt/template").join(program)).expect("copy");
    }
    fs::create_dir("/mnt/run").expect("a directory");
    open_to_all(Path::new("/mnt/run"));
}

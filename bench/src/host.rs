//! A program that embeds Locule, as a server for the benchmark: each line of its input is an
//! operation and a count, the answer is a line of numbers.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use locule::{Container, CreateOptions, ExecOptions, Exit, Runtime, RuntimeOptions, Source};

use crate::{Result, bundle};

const EXEC: &[u8] = br#"{"args":["/true"]}"#;

/// What the host works with.
struct Host {
    runtime: Runtime,
    bundle: PathBuf,
    /// The same with a seccomp profile.
    filtered: PathBuf,
    /// The same with all that Docker asks for.
    docker: PathBuf,
    /// Of a container that exits at once, and of one that stays.
    templates: [String; 2],
    name: String,
    held: Vec<Container>,
    counter: AtomicUsize,
}

/// `host STATE BUNDLE FILTERED DOCKER BRIEF HOLDING MEBIBYTES`: a state directory, the bundles of a
/// container that exits at once, plain, with a seccomp profile and as Docker asks for it, the
/// templates of such a one and of one that stays, and how much memory to have resident.
pub fn serve(arguments: &[String]) -> Result<()> {
    let [state, bundle, filtered, docker, brief, holding, mebibytes] = arguments else {
        return Err("host STATE BUNDLE FILTERED DOCKER BRIEF HOLDING MEBIBYTES".into());
    };
    let _ballast = touched(mebibytes.parse()?);
    let name = Path::new(bundle).file_name().ok_or("the bundle has no name")?;
    let mut host = Host {
        runtime: Runtime::new(RuntimeOptions {
            state_dir: Some(state.into()),
            ..RuntimeOptions::default()
        })?,
        bundle: bundle.into(),
        filtered: filtered.into(),
        docker: docker.into(),
        templates: [std::fs::read_to_string(brief)?, std::fs::read_to_string(holding)?],
        name: name.to_string_lossy().into_owned(),
        held: Vec::new(),
        counter: AtomicUsize::new(0),
    };
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (operation, count) = line.split_once(' ').ok_or("an operation and a count")?;
        let numbers = host.perform(operation, count.parse()?)?;
        let numbers: Vec<String> = numbers.iter().map(|number| format!("{number:.0}")).collect();
        println!("{}", numbers.join(" "));
        std::io::stdout().flush()?;
    }
    host.hold(0)
}

impl Host {
    fn perform(&mut self, operation: &str, count: usize) -> Result<Vec<f64>> {
        match operation {
            "start" => self.starts(&self.bundle, count),
            "start-filtered" => self.starts(&self.filtered, count),
            "start-docker" => self.starts(&self.docker, count),
            "phases" => {
                let phases: Vec<[f64; 4]> =
                    (0..count).map(|_| self.start(&self.bundle)).collect::<Result<_>>()?;
                Ok(phases.concat())
            }
            "plan" => self.plans(&self.bundle, count),
            "plan-filtered" => self.plans(&self.filtered, count),
            "exec" => (0..count).map(|_| self.exec()).collect(),
            "hold" => self.hold(count).map(|()| Vec::new()),
            "rate" => self.rate(count).map(|rate| vec![rate]),
            "keepers" => keepers(&self.held),
            other => Err(format!("unknown operation {other:?}").into()),
        }
    }

    fn starts(&self, bundle: &Path, count: usize) -> Result<Vec<f64>> {
        (0..count).map(|_| self.start(bundle).map(|phases| phases.iter().sum())).collect()
    }

    /// All that this process computes for a start: from the file to the plan.
    fn plans(&self, bundle: &Path, count: usize) -> Result<Vec<f64>> {
        let plan = || -> Result<f64> {
            let begin = Instant::now();
            let plan = self.runtime.explain(&CreateOptions::new(Source::bundle(bundle)))?;
            let time = begin.elapsed().as_nanos() as f64;
            drop(plan);
            Ok(time)
        };
        (0..count).map(|_| plan()).collect()
    }

    /// Create, start, wait, delete: nanoseconds of each.
    fn start(&self, bundle: &Path) -> Result<[f64; 4]> {
        let mut options = CreateOptions::new(Source::bundle(bundle));
        options.id = Some(&self.name);
        self.live(options)
    }

    fn live(&self, options: CreateOptions<'_>) -> Result<[f64; 4]> {
        let mut clock = Clock(Instant::now());
        let container = self.runtime.create(options)?;
        let create = clock.lap();
        container.start(None)?;
        let start = clock.lap();
        let exit = container.init().wait(None, None)?;
        let wait = clock.lap();
        container.delete(false)?;
        drop(container);
        let delete = clock.lap();
        if exit != Some(Exit::Code(0)) {
            return Err(format!("the program ended with {exit:?}").into());
        }
        Ok([create, start, wait, delete])
    }

    /// Runs a program in the first container that is held.
    fn exec(&self) -> Result<f64> {
        let container = self.held.first().ok_or("no container is held")?;
        let begin = Instant::now();
        let process = container.exec(ExecOptions::new(EXEC))?;
        let exit = process.wait(None, None)?;
        drop(process);
        let time = begin.elapsed().as_nanos() as f64;
        if exit != Some(Exit::Code(0)) {
            return Err(format!("the program ended with {exit:?}").into());
        }
        Ok(time)
    }

    /// Creates or deletes containers until this many run.
    fn hold(&mut self, count: usize) -> Result<()> {
        while self.held.len() > count {
            if let Some(container) = self.held.pop() {
                container.delete(true)?;
            }
        }
        while self.held.len() < count {
            let id = self.new_id();
            let json = bundle::of_template(&self.templates[1], &id);
            let mut options = self.options(&json);
            options.id = Some(&id);
            let container = self.runtime.create(options)?;
            container.start(None)?;
            self.held.push(container);
        }
        Ok(())
    }

    /// Starts a second when two threads start this many containers.
    fn rate(&self, count: usize) -> Result<f64> {
        let begin = Instant::now();
        let half = || -> std::result::Result<(), String> {
            for _ in 0..count / 2 {
                let id = self.new_id();
                let json = bundle::of_template(&self.templates[0], &id);
                let mut options = self.options(&json);
                options.id = Some(&id);
                self.live(options).map_err(|error| error.to_string())?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads = [scope.spawn(half), scope.spawn(half)];
            threads.map(|thread| thread.join().unwrap_or_else(|_| Err("a panic".into())))
        })
        .into_iter()
        .collect::<std::result::Result<(), String>>()?;
        Ok((count / 2 * 2) as f64 / begin.elapsed().as_secs_f64())
    }

    fn options<'a>(&self, json: &'a str) -> CreateOptions<'a> {
        let base = self.bundle.clone();
        CreateOptions::new(Source::Spec { json: json.as_bytes(), base: Some(base) })
    }

    fn new_id(&self) -> String {
        format!("{}-{}", self.name, self.counter.fetch_add(1, Ordering::Relaxed))
    }
}

struct Clock(Instant);

impl Clock {
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let lap = now - std::mem::replace(&mut self.0, now);
        lap.as_nanos() as f64
    }
}

/// Kilobytes of each keeper, proportional and private: the parents of the first processes.
fn keepers(containers: &[Container]) -> Result<Vec<f64>> {
    // A keeper gives pages back once it has been idle for a while.
    std::thread::sleep(Duration::from_millis(500));
    let mut numbers = Vec::new();
    for container in containers {
        let status = std::fs::read_to_string(format!("/proc/{}/status", container.init().pid()))?;
        let keeper = field(&status, "PPid:").ok_or("no parent")?;
        let rollup = std::fs::read_to_string(format!("/proc/{keeper}/smaps_rollup"))?;
        numbers.push(field(&rollup, "Pss:").ok_or("no Pss")?);
    }
    Ok(numbers)
}

fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Memory of which every page is resident, in small pages: the page tables that a fork would
/// have to copy.
fn touched(mebibytes: usize) -> &'static [u8] {
    if mebibytes == 0 {
        return &[];
    }
    let length = mebibytes << 20;
    // SAFETY: a new anonymous mapping, which is never unmapped.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let base = libc::mmap(std::ptr::null_mut(), length, protection, flags, -1, 0);
        assert_ne!(base, libc::MAP_FAILED, "{mebibytes} MiB of memory");
        libc::madvise(base, length, libc::MADV_NOHUGEPAGE);
        let memory = std::slice::from_raw_parts_mut(base.cast::<u8>(), length);
        for page in memory.chunks_mut(4096) {
            page[0] = 1;
        }
        memory
    }
}

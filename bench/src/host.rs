//! A program that embeds Locule, as a server for the benchmark: each line of its input is an
//! operation and a count, the answer is a line of numbers.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use locule::plugin::{Guard, Plugins};
use locule::{Container, CreateOptions, ExecOptions, Exit, Runtime, RuntimeOptions, Source};
use serde_json::json;

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
    /// The same with a hook.
    hooked: PathBuf,
    /// Runtimes with one plugin and with five, and how the one is configured.
    plugged: [Runtime; 2],
    plugin: String,
    /// Of a container that exits at once, and of one that stays.
    templates: [String; 2],
    name: String,
    held: Vec<Container>,
    counter: AtomicUsize,
}

/// `host STATE BUNDLE FILTERED DOCKER HOOKED BRIEF HOLDING PLUGIN MEBIBYTES`: a state directory, the
/// bundles of a container that exits at once, plain, with a seccomp profile, as Docker asks for it
/// and with a hook, the templates of such a one and of one that stays, a plugin, and how much memory
/// to have resident.
pub fn serve(arguments: &[String]) -> Result<()> {
    let [state, bundle, filtered, docker, hooked, brief, holding, plugin, mebibytes] = arguments
    else {
        return Err(
            "host STATE BUNDLE FILTERED DOCKER HOOKED BRIEF HOLDING PLUGIN MEBIBYTES".into()
        );
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
        hooked: hooked.into(),
        plugged: [with_plugins(state, plugin, 1)?, with_plugins(state, plugin, 5)?],
        plugin: configuration(plugin, 0),
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

/// The policy that the examples have, made to drop a capability.
fn configuration(plugin: &str, number: usize) -> String {
    let capabilities = ["KILL", "AUDIT_WRITE", "NET_BIND_SERVICE", "SYS_ADMIN", "NET_RAW"];
    let cache = Path::new(plugin).with_extension("cache");
    let config = json!({
        "allowRoot": true,
        "hostPaths": [],
        "dropCapabilities": [format!("CAP_{}", capabilities[number % capabilities.len()])],
    });
    json!({
        "name": format!("policy-{number}"),
        "path": plugin,
        "powers": ["spec-view", "adjust-security"],
        "config": config,
        "cache": cache,
    })
    .to_string()
}

fn with_plugins(state: &str, plugin: &str, count: usize) -> Result<Runtime> {
    let load = |number| {
        let configuration = configuration(plugin, number);
        locule_plugins::load(configuration.as_bytes(), Path::new("/"))
    };
    let loaded = (0..count).map(load).collect::<locule::Result<Vec<_>>>()?;
    Ok(Runtime::new(RuntimeOptions {
        state_dir: Some(state.into()),
        plugins: Plugins::new(loaded, Vec::new(), Guard::default())?,
        ..RuntimeOptions::default()
    })?)
}

impl Host {
    fn perform(&mut self, operation: &str, count: usize) -> Result<Vec<f64>> {
        match operation {
            "start" => self.starts(&self.bundle, count),
            "start-filtered" => self.starts(&self.filtered, count),
            "start-docker" => self.starts(&self.docker, count),
            "start-hooked" => self.starts(&self.hooked, count),
            "start-plugin" => self.starts_in(&self.plugged[0], &self.bundle, count),
            "start-plugins" => self.starts_in(&self.plugged[1], &self.bundle, count),
            "load" => (0..count).map(|_| self.load()).collect(),
            "phases" => {
                let phases: Vec<[f64; 4]> = (0..count)
                    .map(|_| self.start(&self.runtime, &self.bundle))
                    .collect::<Result<_>>()?;
                Ok(phases.concat())
            }
            "plan" => self.plans(&self.runtime, &self.bundle, count),
            "plan-filtered" => self.plans(&self.runtime, &self.filtered, count),
            "plan-plugin" => self.plans(&self.plugged[0], &self.bundle, count),
            "plan-plugins" => self.plans(&self.plugged[1], &self.bundle, count),
            "exec" => (0..count).map(|_| self.exec()).collect(),
            "hold" => self.hold(count).map(|()| Vec::new()),
            "rate" => self.rate(count).map(|rate| vec![rate]),
            "keepers" => keepers(&self.held),
            other => Err(format!("unknown operation {other:?}").into()),
        }
    }

    fn starts(&self, bundle: &Path, count: usize) -> Result<Vec<f64>> {
        self.starts_in(&self.runtime, bundle, count)
    }

    fn starts_in(&self, runtime: &Runtime, bundle: &Path, count: usize) -> Result<Vec<f64>> {
        (0..count).map(|_| self.start(runtime, bundle).map(|phases| phases.iter().sum())).collect()
    }

    /// Loads a plugin that has been compiled before.
    fn load(&self) -> Result<f64> {
        let begin = Instant::now();
        let loaded = locule_plugins::load(self.plugin.as_bytes(), Path::new("/"))?;
        let time = begin.elapsed().as_nanos() as f64;
        drop(loaded);
        Ok(time)
    }

    /// All that this process computes for a start: from the file to the plan.
    fn plans(&self, runtime: &Runtime, bundle: &Path, count: usize) -> Result<Vec<f64>> {
        let plan = || -> Result<f64> {
            let begin = Instant::now();
            let plan = runtime.explain(&CreateOptions::new(Source::bundle(bundle)))?;
            let time = begin.elapsed().as_nanos() as f64;
            drop(plan);
            Ok(time)
        };
        (0..count).map(|_| plan()).collect()
    }

    /// Create, start, wait, delete: nanoseconds of each.
    fn start(&self, runtime: &Runtime, bundle: &Path) -> Result<[f64; 4]> {
        let mut options = CreateOptions::new(Source::bundle(bundle));
        options.id = Some(&self.name);
        live(runtime, options)
    }
}

/// A whole life: nanoseconds of its phases.
fn live(runtime: &Runtime, options: CreateOptions<'_>) -> Result<[f64; 4]> {
    let mut clock = Clock(Instant::now());
    let container = runtime.create(options)?;
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

impl Host {
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
                live(&self.runtime, options).map_err(|error| error.to_string())?;
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

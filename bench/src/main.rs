//! The benchmark: Locule beside runc, crun and a bare C program, in one run, on one bundle.
//!
//! `run.sh` builds everything, makes the private mount namespace with cgroup v2 that all
//! contenders share, starts this program in it and removes what is left afterwards.

mod bundle;
mod contender;
mod host;
mod machine;
mod report;
mod sample;
mod scale;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bundle::Bundles;
use contender::{Contender, Server, run_program};
use report::{Bar, Report};
use sample::{Samples, interleave, median};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "locule-bench run WORK CGROUP FLOOR RESULTS [quick]
locule-bench trace WORK CGROUP FLOOR floor|locule COUNT TRACER...";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == "host" => host::serve(rest),
        Some((command, rest)) if command == "run" => run(rest),
        Some((command, rest)) if command == "trace" => trace(rest),
        _ => Err(USAGE.into()),
    };
    if let Err(error) = done {
        eprintln!("locule-bench: {error}");
        std::process::exit(1);
    }
}

/// Where things are while the benchmark runs; all of it vanishes with the mount namespace.
struct Place {
    work: PathBuf,
    /// Below the root of the hierarchy.
    cgroup: String,
    bundles: Bundles,
}

impl Place {
    /// `work` holds `rootfs`; `cgroup` is an empty directory in the root of the hierarchy.
    fn new(work: &str, cgroup: &str) -> Place {
        let (work, cgroup) = (PathBuf::from(work), format!("/{cgroup}"));
        Place { bundles: Bundles::new(&work, &cgroup), work, cgroup }
    }

    fn directory(&self, name: &str) -> Result<String> {
        let directory = self.work.join(name);
        fs::create_dir_all(&directory)?;
        text(&directory)
    }

    /// What to execute for a host that embeds Locule.
    fn host(&self, name: &str, mebibytes: usize) -> Result<Vec<String>> {
        let own = text(&std::env::current_exe()?)?;
        let state = self.directory("locule")?;
        let bundle = text(&self.bundles.write(name, &["/true"])?)?;
        let filtered = format!("{name}.filtered");
        let filtered = text(&self.bundles.write_filtered(&filtered, &["/true"])?)?;
        let docker = format!("{name}.docker");
        let docker = text(&self.bundles.write_like_docker(&docker, &["/true"])?)?;
        let hooked = format!("{name}.hooked");
        let hooked = text(&self.bundles.write_hooked(&hooked, &["/true"])?)?;
        let brief = text(&self.bundles.write_template(&format!("{name}.brief"), &["/true"])?)?;
        let holding = format!("{name}.holding");
        let holding = text(&self.bundles.write_template(&holding, &["/true", "hold"])?)?;
        let mebibytes = mebibytes.to_string();
        let plugin = text(&std::env::current_exe()?.with_file_name("policy.wasm"))?;
        let bundles = [state, bundle, filtered, docker, hooked, brief, holding];
        let all = [own, "host".into()].into_iter().chain(bundles).chain([plugin, mebibytes]);
        Ok(all.collect())
    }

    fn start_host(&self, name: &str, mebibytes: usize) -> Result<Rc<RefCell<Server>>> {
        Ok(Rc::new(RefCell::new(Server::start(&self.host(name, mebibytes)?)?)))
    }

    /// What to execute for a floor with directories of its own.
    fn floor(&self, program: &str, name: &str, gate: bool) -> Result<Vec<String>> {
        let cgroup = format!("/sys/fs/cgroup{}/{name}", self.cgroup);
        fs::create_dir_all(&cgroup)?;
        let (root, state) = (self.directory("rootfs")?, self.directory(name)?);
        let mut argv = vec![program.to_owned()];
        argv.extend(gate.then(|| "-g".to_owned()));
        argv.extend([root, cgroup, state, "-".to_owned()]);
        Ok(argv)
    }

    fn start_floor(&self, program: &str, name: &str, gate: bool) -> Result<Server> {
        Server::start(&self.floor(program, name, gate)?)
    }
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().ok_or("a path that is not UTF-8")?.to_owned())
}

/// A runtime that is executed for each operation: runc, crun and the locule command take the
/// same arguments.
struct Command {
    program: String,
    root: String,
    run: Vec<String>,
    /// With a seccomp profile.
    run_filtered: Vec<String>,
    /// With all that Docker asks for.
    run_docker: Vec<String>,
    /// The three commands that engines call instead of `run`.
    steps: Vec<Vec<String>>,
    held: String,
}

impl Command {
    /// Starts a container that stays, to execute programs in.
    fn new(place: &Place, program: &str, name: &str) -> Result<Command> {
        let root = place.directory(&format!("{name}-state"))?;
        let bundle = text(&place.bundles.write(name, &["/true"])?)?;
        let held = format!("{name}-held");
        let stays = text(&place.bundles.write(&held, &["/true", "hold"])?)?;
        let filtered = format!("{name}-filtered");
        let filter = text(&place.bundles.write_filtered(&filtered, &["/true"])?)?;
        let docker = format!("{name}-docker");
        let like_docker = text(&place.bundles.write_like_docker(&docker, &["/true"])?)?;
        let mut command = Command {
            program: program.to_owned(),
            run: Vec::new(),
            run_filtered: Vec::new(),
            run_docker: Vec::new(),
            steps: Vec::new(),
            root,
            held,
        };
        command.run = command.argv(&["run", "--bundle", &bundle, name]);
        command.run_filtered = command.argv(&["run", "--bundle", &filter, &filtered]);
        command.run_docker = command.argv(&["run", "--bundle", &like_docker, &docker]);
        command.steps = vec![
            command.argv(&["create", "--bundle", &bundle, name]),
            command.argv(&["start", name]),
            command.argv(&["delete", "--force", name]),
        ];
        command.call(&["run", "--detach", "--bundle", &stays, &command.held])?;
        Ok(command)
    }

    fn argv(&self, arguments: &[&str]) -> Vec<String> {
        let all = [self.program.as_str(), "--root", &self.root].into_iter();
        all.chain(arguments.iter().copied()).map(str::to_owned).collect()
    }

    fn call(&self, arguments: &[&str]) -> Result<()> {
        run_program(&self.argv(arguments)).map(drop)
    }

    fn exec(&self) -> Vec<String> {
        self.argv(&["exec", &self.held, "/true"])
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        let _ = self.call(&["delete", "--force", &self.held]);
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let ([work, cgroup, floor, results], quick) = (match arguments {
        [all @ .., last] if last == "quick" => (all, true),
        all => (all, false),
    }) else {
        return Err(USAGE.into());
    };
    let machine = machine::describe();
    let filtered = machine::let_everybody_raise_the_memlock_limit()?;
    let versions = [machine::version("runc")?, machine::version("crun")?];
    let place = Place::new(work, cgroup);

    let runc = Command::new(&place, "runc", "runc")?;
    let crun = Command::new(&place, "crun", "crun")?;
    let command = std::env::current_exe()?.with_file_name("locule");
    let command = Command::new(&place, &text(&command)?, "locule-command")?;
    let small = place.start_host("small-host", 10)?;
    let large = place.start_host("large-host", 2048)?;
    small.borrow_mut().ask("hold 1")?;
    let keeper_alone = median(&small.borrow_mut().ask("keepers 0")?);
    let floors = [("floor", false), ("floor-gate", true)];
    let [bare, gate] = floors.map(|(name, gate)| place.start_floor(floor, name, gate));
    let (bare, gate) = (Rc::new(RefCell::new(bare?)), Rc::new(RefCell::new(gate?)));

    const FLOOR: &str = "floor: the system calls alone";
    const GATE: &str = "floor, create and start apart";
    const LOCULE: &str = "Locule in process, host of 10 MiB";
    const LARGE: &str = "Locule in process, host of 2 GiB";
    const COMMAND: &str = "locule run";
    const STEPS: &str = "locule create, start, delete";
    const CRUN_STEPS: &str = "crun create, start, delete";
    const RUNC_STEPS: &str = "runc create, start, delete";
    const COMMAND_EXEC: &str = "locule exec";
    const FILTERED: &str = "Locule in process, seccomp profile";
    const CRUN_FILTERED: &str = "crun run, seccomp profile";
    const RUNC_FILTERED: &str = "runc run, seccomp profile";
    const DOCKER: &str = "Locule in process, as Docker asks";
    const CRUN_DOCKER: &str = "crun run, as Docker asks";
    const RUNC_DOCKER: &str = "runc run, as Docker asks";
    const PLUGIN: &str = "Locule in process, a Rust plugin";
    const PLUGINS: &str = "Locule in process, five of them";
    const HOOK: &str = "Locule in process, a hook /bin/true";
    const EXEC: &str = "Locule exec through the handle";
    let mut contenders = vec![
        Contender::server(FLOOR, 10, &bare, ""),
        Contender::server(GATE, 10, &gate, ""),
        Contender::server(LOCULE, 10, &small, "start"),
        Contender::server(LARGE, 10, &large, "start"),
        Contender::program(COMMAND, 4, command.run.clone()),
        Contender::program("crun run", 4, crun.run.clone()),
        Contender::program("runc run", 2, runc.run.clone()),
        Contender::server(FILTERED, 10, &small, "start-filtered"),
        Contender::program(CRUN_FILTERED, 4, crun.run_filtered.clone()),
        Contender::program(RUNC_FILTERED, 2, runc.run_filtered.clone()),
        Contender::server(DOCKER, 10, &small, "start-docker"),
        Contender::program(CRUN_DOCKER, 4, crun.run_docker.clone()),
        Contender::program(RUNC_DOCKER, 2, runc.run_docker.clone()),
        Contender::server(PLUGIN, 10, &small, "start-plugin"),
        Contender::server(PLUGINS, 10, &small, "start-plugins"),
        Contender::server(HOOK, 10, &small, "start-hooked"),
        Contender::server(EXEC, 10, &small, "exec"),
        Contender::programs(STEPS, 4, command.steps.clone()),
        Contender::programs(CRUN_STEPS, 4, crun.steps.clone()),
        Contender::programs(RUNC_STEPS, 2, runc.steps.clone()),
        Contender::program(COMMAND_EXEC, 4, command.exec()),
        Contender::program("crun exec", 4, crun.exec()),
        Contender::program("runc exec", 2, runc.exec()),
    ];
    let samples = interleave(&mut contenders, if quick { 12 } else { 120 })?;
    let of = |name: &str| -> &Samples {
        let place = contenders.iter().position(|contender| contender.name == name);
        &samples[place.expect("a contender of that name")]
    };

    let plans = if quick { 100 } else { 1000 };
    let kinds = ["plan", "plan-filtered", "plan-plugin", "load"];
    let [plan, plan_filtered, plan_plugin, load] =
        kinds.map(|kind| small.borrow_mut().ask(&format!("{kind} {plans}")));
    let plan = median(&plan?);
    let added = (median(&plan_filtered?) - plan) / 1e3;
    let added_by_plugin = (median(&plan_plugin?) - plan) / 1e3;
    let load = median(&load?) / 1e3;
    let phases = small.borrow_mut().ask(if quick { "phases 60" } else { "phases 400" })?;
    let (levels, starts, repetitions): (&[usize], _, _) =
        if quick { (&[0, 100, 250], 200, 3) } else { (&[0, 250, 1000], 400, 7) };
    let mut pair = [
        place.start_floor(floor, "floor-left", false)?,
        place.start_floor(floor, "floor-right", false)?,
    ];
    let scale = scale::measure(&small, &mut pair, levels, starts, repetitions)?;

    let start = "create, start, wait, delete in process";
    let docker = "with all that Docker asks for by default";
    let mut bars = vec![
        Bar::ratio(start, of(LOCULE), of(FLOOR), 1.25, " x floor"),
        Bar::ratio(start, of(LOCULE), of("crun run"), 0.35, " x crun"),
        Bar::ratio(start, of(LOCULE), of("runc run"), 0.12, " x runc"),
        Bar::ratio("the same, 2 GiB resident", of(LARGE), of(LOCULE), 1.1, " x 10 MiB"),
        Bar::ratio(COMMAND, of(COMMAND), of("crun run"), 0.8, " x crun"),
        Bar::ratio(STEPS, of(STEPS), of(CRUN_STEPS), 0.8, " x crun"),
        Bar::ratio(COMMAND_EXEC, of(COMMAND_EXEC), of("crun exec"), 0.8, " x crun"),
        Bar::ratio("exec through the handle", of(EXEC), of("crun exec"), 0.5, " x crun"),
        Bar::at_most("idle keeper, proportional set size", keeper_alone, 64.0, " kB"),
        Bar::at_most("work in the host that a known seccomp profile adds", added, 50.0, " us"),
        Bar::ratio("the same start with it", of(FILTERED), of(CRUN_FILTERED), 0.35, " x crun"),
        Bar::ratio("the same start with it", of(FILTERED), of(RUNC_FILTERED), 0.12, " x runc"),
        Bar::ratio(docker, of(DOCKER), of(CRUN_DOCKER), 0.35, " x crun"),
        Bar::ratio(docker, of(DOCKER), of(RUNC_DOCKER), 0.12, " x runc"),
        Bar::at_most(
            "work in the host that a warm Rust plugin adds",
            added_by_plugin,
            150.0,
            " us",
        ),
        Bar::at_most("loading it from the cache", load, 1000.0, " us"),
    ];
    if let [none, .., most] = scale.as_slice() {
        let growth = (none.locule / most.locule) / (none.floor / most.floor);
        let what = "cost per start with most held, beyond the floor's growth";
        bars.push(Bar::at_most(what, growth, 1.1, " x none held"));
    }

    let mut report = Report::default();
    report.text("# Benchmark");
    report.text(
        "Written by `make bench`; see `bench/README.md`. Ratios are those of the medians; \
         paired: median and quartiles of the ratios within each round.",
    );
    report.text(&format!("{machine}; {}; {}.", versions[0], versions[1]));
    if filtered {
        report.text(
            "RLIMIT_MEMLOCK may not be raised here, which crun insists on: a seccomp filter \
             pretends so, for every contender.",
        );
    }
    report.bars(&bars);
    report.times(contenders.iter().map(|contender| contender.name).zip(&samples));
    let rows = ["create", "start", "wait", "delete"].iter().enumerate().map(|(index, name)| {
        let times: Vec<f64> = phases.iter().skip(index).step_by(4).copied().collect();
        [(*name).to_owned(), format!("{:.0}", median(&times) / 1e3)]
    });
    report.table(["Locule in process, phases in us", "median"], rows);
    let rows = scale.iter().map(|level| {
        let keeper = match level.held {
            0 => "-".to_owned(),
            _ => format!("{:.0}", level.keeper),
        };
        let [locule, floor] = [level.locule, level.floor].map(|rate| format!("{rate:.0}"));
        [level.held.to_string(), locule, floor, keeper]
    });
    let head = ["containers held", "starts/s, 2 threads", "two floors", "kB a keeper"];
    report.table(head, rows);

    let text = report.into_text();
    print!("{text}");
    Ok(fs::write(results, text)?)
}

/// Runs one contender alone under a tracer, such as `strace -f -r -T -o FILE`.
fn trace(arguments: &[String]) -> Result<()> {
    let [work, cgroup, floor, contender, count, tracer @ ..] = arguments else {
        return Err(USAGE.into());
    };
    let place = Place::new(work, cgroup);
    let traced = match contender.as_str() {
        "floor" => place.floor(floor, "floor", false)?,
        "locule" => place.host("traced-host", 0)?,
        _ => return Err("a contender is floor or locule".into()),
    };
    let mut server = Server::start(&[tracer, &traced].concat())?;
    let command = if contender == "floor" { "" } else { "start " };
    let times = server.ask(&format!("{command}{count}"))?;
    println!("median {:.0} us", median(&times) / 1e3);
    Ok(())
}

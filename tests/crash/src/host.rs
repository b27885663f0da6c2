//! The host that is killed: does what its arguments say, or what it reads, step by step, and
//! answers each step with a line.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use locule::{
    Category, Container, CreateOptions, Error, ExecOptions, Exit, OnHostExit, Parentage, Rootfs,
    Runtime, RuntimeOptions, Source,
};

/// A system call that fails and changes nothing: tells a tracer that the next step begins.
/// The first argument; the second is the first letters of the step.
pub const MARK: u64 = 0x6c6f_6375;

/// How long a step is repeated that another process may be in the way of.
const PATIENCE: Duration = Duration::from_secs(10);

/// Exit status of a host that met an error.
pub const REFUSED: i32 = 3;

struct Host {
    runtime: Runtime,
    bundle: PathBuf,
    id: String,
    options: Vec<String>,
    container: Option<Container>,
}

/// `STATE BUNDLE ID OPTIONS STEP...`; the step `-` reads more of them.
pub fn run(arguments: &[String]) -> ExitCode {
    let [state, bundle, id, options, steps @ ..] = arguments else { return ExitCode::from(2) };
    let options: Vec<String> = options.split(',').map(str::to_owned).collect();
    let runtime = Runtime::new(RuntimeOptions {
        state_dir: Some(state.into()),
        cgroup_manager: match options.iter().any(|option| option == "no-cgroups") {
            true => locule::cgroup::Manager::None,
            false => locule::cgroup::Manager::Cgroupfs,
        },
        ..RuntimeOptions::default()
    });
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("error {:?} {error}", error.category());
            return ExitCode::from(REFUSED as u8);
        }
    };
    let (bundle, id) = (bundle.into(), id.clone());
    let mut host = Host { runtime, bundle, id, options, container: None };
    for step in steps {
        if step != "-" {
            if !host.answer(step) {
                return host.give_up();
            }
            continue;
        }
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            host.answer(&line);
        }
    }
    mark("end");
    ExitCode::SUCCESS
}

fn mark(step: &str) {
    let mut name = [0; 8];
    name.iter_mut().zip(step.bytes().take(7)).for_each(|(to, from)| *to = from);
    // SAFETY: prctl refuses a number that it does not know and looks at nothing else.
    unsafe { libc::syscall(libc::SYS_prctl, MARK, u64::from_le_bytes(name), 0, 0, 0) };
}

impl Host {
    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|given| given == option)
    }

    fn answer(&mut self, step: &str) -> bool {
        mark(step);
        let outcome = self.carry_out(step);
        // A reader that is gone is no reason to end.
        let _ = match &outcome {
            Ok(text) => writeln!(std::io::stdout(), "ok {text}"),
            Err(error) => writeln!(std::io::stdout(), "error {:?} {error}", error.category()),
        };
        let _ = std::io::stdout().flush();
        outcome.is_ok()
    }

    /// Some hosts clean up after an error, others just end.
    fn give_up(&mut self) -> ExitCode {
        if self.has("tidy") && self.container.is_some() {
            self.answer("delete");
        }
        ExitCode::from(REFUSED as u8)
    }

    fn carry_out(&mut self, step: &str) -> locule::Result<String> {
        match step {
            "create" => {
                let container = self.create()?;
                let pid = container.init().pid();
                self.container = Some(container);
                return Ok(format!("{pid} {}", parent_of(pid)));
            }
            "open" => self.container = Some(self.runtime.open(&self.id)?),
            "start" => self.container().start(None)?,
            "exec" | "run" => {
                let args: &[&str] = if step == "exec" { &["sleep", "600"] } else { &["true"] };
                let process = serde_json::json!({ "args": args }).to_string();
                let process = self.container().exec(ExecOptions::new(process.as_bytes()))?;
                if step == "run" {
                    let exit = process.wait(Some(PATIENCE), None)?;
                    return Ok(format!("{exit:?}"));
                }
                return Ok(process.pid().to_string());
            }
            "kill" => self.container().signal(libc::SIGKILL, false)?,
            "wait" => {
                let exit: Option<Exit> = self.container().init().wait(Some(PATIENCE), None)?;
                return Ok(format!("{exit:?}"));
            }
            "status" => return Ok(self.container().state()?.status.name().to_owned()),
            "delete" => self.container().delete(true)?,
            // What comes after a crash: whoever deletes, or takes the id again, in the end can.
            "recover-delete" => repeat(&[Category::Busy], || self.recover_delete())?,
            "recover-create" => {
                let busy = [Category::Busy, Category::Exists];
                let container = repeat(&busy, || self.create())?;
                container.start(None)?;
                container.signal(libc::SIGKILL, false)?;
                container.init().wait(Some(PATIENCE), None)?;
                container.delete(false)?;
            }
            other => panic!("no step {other:?}"),
        }
        Ok(String::new())
    }

    fn container(&self) -> &Container {
        self.container.as_ref().expect("created or opened before")
    }

    fn create(&self) -> locule::Result<Container> {
        let mut options = CreateOptions::new(Source::bundle(&self.bundle));
        options.id = Some(&self.id);
        if self.has("overlay") {
            options.rootfs = Rootfs::Overlay;
        }
        if self.has("detach") {
            options.on_host_exit = OnHostExit::Detach;
        }
        if self.has("orphan") {
            options.parentage = Parentage::Orphan;
        }
        if self.has("child") {
            options.parentage = Parentage::Child;
        }
        self.runtime.create(options)
    }

    fn recover_delete(&self) -> locule::Result<()> {
        let deleted = self.runtime.open(&self.id).and_then(|container| container.delete(true));
        match deleted {
            Err(error) if error.category() == Category::NotFound => Ok(()),
            other => other,
        }
    }
}

fn repeat<T>(
    while_it_is: &[Category],
    mut attempt: impl FnMut() -> locule::Result<T>,
) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if while_it_is.contains(&error.category()) && begun.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

fn parent_of(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    parent.unwrap_or("0").trim().to_owned()
}

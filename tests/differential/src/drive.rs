//! Locule as a command: of runc's commands and options those that the suite uses. So both
//! runtimes are started by the same code, as the same user, from the same environment.

use std::fs;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

use locule::{
    Container, CreateOptions, ExecOptions, Exit, OnHostExit, Parentage, Process, Result, Runtime,
    RuntimeOptions, Source, Stdio,
};

/// With this in the environment the keeper stays.
pub const KEEPER: &str = "LOCULE_DIFFERENTIAL_KEEPER";

/// `--root DIR COMMAND [OPTION...] ID [ARGUMENT]`
pub fn run(arguments: &[String]) -> ExitCode {
    match carry_out(arguments) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(1)
        }
    }
}

fn carry_out(arguments: &[String]) -> Result<ExitCode> {
    let option = |name: &str| {
        let at = arguments.iter().position(|word| word == name)?;
        arguments.get(at + 1).map(PathBuf::from)
    };
    let is_set = |name: &str| arguments.iter().any(|word| word == name);
    let runtime =
        Runtime::new(RuntimeOptions { state_dir: option("--root"), ..RuntimeOptions::default() })?;
    let [command, rest @ ..] = &arguments[2..] else { return Ok(ExitCode::from(2)) };
    let last = rest.last().expect("an id");
    let open = || runtime.open(last);
    match command.as_str() {
        "create" => {
            let container = create(&runtime, last, &option("--bundle").expect("--bundle"))?;
            hand_over(container.init(), option("--console-socket"), option("--pid-file"));
        }
        "start" => open()?.start(None)?,
        "state" => println!("{}", open()?.state()?.document),
        "pause" => open()?.pause()?,
        "resume" => open()?.resume()?,
        "delete" => open()?.delete(is_set("--force"))?,
        "update" => {
            let resources = fs::read(option("--resources").expect("--resources")).expect("a file");
            open()?.update(&resources)?;
        }
        "kill" => {
            let [.., id, signal] = rest else { return Ok(ExitCode::from(2)) };
            runtime.open(id)?.signal(signal.parse().expect("a number"), is_set("--all"))?;
        }
        "wait" => return Ok(code(open()?.init().wait(None, None)?)),
        "exec" => {
            let process = fs::read(option("--process").expect("--process")).expect("a file");
            let mut options = ExecOptions::new(&process);
            options.stdio = [Stdio::Inherit; 3];
            let process = open()?.exec(options)?;
            hand_over(&process, option("--console-socket"), option("--pid-file"));
            return Ok(code(process.wait(None, None)?));
        }
        other => panic!("no command {other:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

fn create(runtime: &Runtime, id: &str, bundle: &PathBuf) -> Result<Container> {
    let mut options = CreateOptions::new(Source::bundle(bundle));
    options.id = Some(id);
    options.stdio = [Stdio::Inherit; 3];
    options.on_host_exit = OnHostExit::Detach;
    if std::env::var_os(KEEPER).is_none() {
        options.parentage = Parentage::Orphan;
    }
    runtime.create(options)
}

/// As a shell has it.
fn code(exit: Option<Exit>) -> ExitCode {
    match exit {
        Some(Exit::Code(code)) => ExitCode::from(code as u8),
        Some(Exit::Signal { signal, .. }) => ExitCode::from(128 + signal as u8),
        _ => ExitCode::from(255),
    }
}

fn hand_over(process: &Process, console: Option<PathBuf>, pid_file: Option<PathBuf>) {
    if let Some(path) = pid_file {
        fs::write(path, process.pid().to_string()).expect("write the pid");
    }
    if let Some(path) = console {
        let socket = UnixStream::connect(path).expect("connect to the console socket");
        let master = process.take_terminal().expect("a terminal");
        // SAFETY: it is open for as long as `master` lives.
        let master = unsafe { BorrowedFd::borrow_raw(master.as_raw_fd()) };
        crate::console::send(&socket, master);
    }
}

//! Runs a bundle with this program's own standard streams, and exits as its program did.
//!
//! ```text
//! cargo run -p locule --example run -- BUNDLE [COMMAND...]
//! ```
//!
//! With a command, that is run in the container as a second process.

use std::process::ExitCode;

use locule::{CreateOptions, ExecOptions, Exit, Runtime, RuntimeOptions, Source, Stdio};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(bundle) = arguments.next() else {
        eprintln!("usage: run BUNDLE [COMMAND...]");
        return ExitCode::FAILURE;
    };
    match run(&bundle, &arguments.collect::<Vec<_>>()) {
        Ok(Exit::Code(code)) => ExitCode::from(code as u8),
        Ok(Exit::Signal { signal, .. }) => ExitCode::from(128 + signal as u8),
        Ok(Exit::Unknown) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            if let Some(advice) = error.advice() {
                eprintln!("hint: {advice}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(bundle: &str, command: &[String]) -> locule::Result<Exit> {
    let runtime = Runtime::new(RuntimeOptions::default())?;
    let mut options = CreateOptions::new(Source::bundle(bundle));
    options.stdio = [Stdio::Inherit; 3];
    let container = runtime.create(options)?;
    let exit = container.start(None).and_then(|()| {
        if !command.is_empty() {
            let process = serde_json::json!({ "args": command }).to_string();
            let mut options = ExecOptions::new(process.as_bytes());
            options.stdio = [Stdio::Inherit; 3];
            container.exec(options)?.wait(None, None)?;
        }
        container.init().wait(None, None)
    });
    container.delete(true)?;
    Ok(exit?.unwrap_or(Exit::Unknown))
}

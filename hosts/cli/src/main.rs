//! `locule`: a command that stands where `runc` stood. A thin face of the library: what is said and
//! parsed by those who call it is here, what is done is in `locule`.

#![forbid(unsafe_op_in_unsafe_fn)]

mod arguments;
mod commands;
mod failure;
mod foreground;
mod grammar;
mod interrupt;
mod log;
mod notify;
mod output;
mod plugins;
mod progress;
mod streams;
mod users;

use std::process::ExitCode;

use failure::Failure;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let (program, words) = match words.split_first() {
        Some((program, words)) => (arguments::name_of(program), words),
        None => ("locule".to_owned(), &[][..]),
    };
    match run(&program, words) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(program: &str, words: &[std::ffi::OsString]) -> Result<ExitCode, Failure> {
    let mut command = arguments::command_for(program, words);
    let words = grammar::canonical(&mut command, words)?;
    let matches = command.try_get_matches_from_mut(words).map_err(Failure::usage)?;
    if matches.get_flag("version") {
        // The first line is looked for by who wants to know what this is.
        let version = env!("CARGO_PKG_VERSION");
        let spec = locule::spec::OCI_VERSION;
        output::line(format_args!(
            "{program} version {version}\ncommit: v{version}\nspec: {spec}"
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some((verb, own)) = matches.subcommand() else {
        output::text(command.render_long_help())?;
        return Ok(ExitCode::SUCCESS);
    };
    let global = arguments::Global::read(&matches)?;
    log::open(&global, verb)?;
    commands::run(program, verb, &global, own)
}

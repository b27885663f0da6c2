//! `kill`.

use std::process::ExitCode;
use std::str::FromStr;

use clap::ArgMatches;
use locule::Category;
use nix::sys::signal::Signal;

use super::{Done, ending, rest};
use crate::arguments::Global;
use crate::failure::Failure;

pub fn kill(global: &Global, own: &ArgMatches) -> Done {
    let (id, words) = rest(own, "kill")?;
    let signal = match words.first().map(String::as_str) {
        None | Some("") => libc::SIGTERM,
        Some(text) => number_of(text)?,
    };
    let container = ending(global)?.open(&id)?;
    match container.signal(signal, false) {
        // Who wants all of it dead has what they want.
        Err(error) if own.get_flag("all") && error.category() == Category::State => {}
        other => other?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A number, or a name with or without `SIG`, in any case.
fn number_of(text: &str) -> Result<i32, Failure> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let name = text.to_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(offset) = name.strip_prefix("RTMIN+").and_then(|n| n.parse::<i32>().ok()) {
        return Ok(libc::SIGRTMIN() + offset);
    }
    if let Some(offset) = name.strip_prefix("RTMAX-").and_then(|n| n.parse::<i32>().ok()) {
        return Ok(libc::SIGRTMAX() - offset);
    }
    Signal::from_str(&format!("SIG{name}"))
        .map(|signal| signal as i32)
        .map_err(|_| Failure::of(format!("unknown signal {text:?}")))
}

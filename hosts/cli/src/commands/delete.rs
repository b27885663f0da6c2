//! `delete`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use locule::{Category, Result, Runtime};

use super::{Done, ending, id};
use crate::arguments::Global;
use crate::notify::Place;

/// How long `--force` waits for a container whose creation is about to end, one way or the other.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn delete(global: &Global, own: &ArgMatches) -> Done {
    let runtime = ending(global)?;
    if own.get_flag("force") {
        force(&runtime, id(own))?;
    } else {
        runtime.open(id(own))?.delete(false)?;
    }
    Place::of(&runtime, id(own)).remove();
    Ok(ExitCode::SUCCESS)
}

fn force(runtime: &Runtime, id: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        match runtime.open(id).and_then(|container| container.delete(true)) {
            Err(error) if error.category() == Category::NotFound => return Ok(()),
            // Who made it may have been killed, and what is left of it is just being removed.
            Err(error) if error.category() == Category::Busy && begin.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

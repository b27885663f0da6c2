//! `ps`: of what the host's `ps` prints, the lines of the container's processes.

use std::process::{Command, ExitCode};

use clap::ArgMatches;
use serde_json::json;

use super::{Done, looking, rest};
use crate::arguments::{Global, text};
use crate::failure::Failure;
use crate::output;

pub fn ps(global: &Global, own: &ArgMatches) -> Done {
    let (id, mut options) = rest(own, "ps")?;
    let pids = looking(global)?.open(&id)?.pids()?;
    match text(own, "format") {
        Some("json") => output::compact(&json!(pids))?,
        Some("table") => {
            if options.is_empty() {
                options.push("-ef".to_owned());
            }
            output::text(chosen(&options, &pids)?)?;
        }
        _ => return Err(Failure::of("invalid format option")),
    }
    Ok(ExitCode::SUCCESS)
}

fn chosen(options: &[String], pids: &[i32]) -> Result<String, Failure> {
    let output = Command::new("ps").args(options).output();
    let output = output.map_err(|error| Failure::of(format!("ps: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Failure::of("ps prints no column PID"))?;
    let of_container = |line: &&str| {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let lines = std::iter::once(head).chain(lines.filter(of_container));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

//! `events`: usage at intervals, and when memory ran out.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use locule::cgroup::{Stats, Watch};
use locule::{Category, Container, Event};
use serde_json::{Value, json};

use super::{Done, id, looking};
use crate::arguments::{Global, text};
use crate::failure::Failure;
use crate::output;

pub fn events(global: &Global, own: &ArgMatches) -> Done {
    let runtime = looking(global)?;
    let container = runtime.open(id(own))?;
    if own.get_flag("stats") {
        output::compact(&stats(&container)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let interval = text(own, "interval").unwrap_or_default();
    let interval = duration(interval)
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| Failure::of(format!("invalid interval {interval:?}")))?;
    container.watch(Watch::OutOfMemory)?;
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next {
            match stats(&container) {
                Ok(stats) => say(&stats)?,
                // It was deleted meanwhile.
                Err(_) if container.state().is_err() => return Ok(ExitCode::SUCCESS),
                Err(failure) => return Err(failure),
            }
            next = now + interval;
        }
        let mut ended = false;
        let mut out_of_memory = false;
        let left = next.saturating_duration_since(Instant::now());
        runtime.dispatch(Some(left), &mut |event| {
            match event {
                Event::Exited { .. } => ended = true,
                Event::OutOfMemory { .. } => out_of_memory = true,
                _ => {}
            }
            Ok(())
        })?;
        if out_of_memory {
            say(&json!({ "type": "oom", "id": container.id() }))?;
        }
        if ended {
            return Ok(ExitCode::SUCCESS);
        }
        match container.state() {
            Err(error) if error.category() == Category::NotFound => return Ok(ExitCode::SUCCESS),
            other => other?,
        };
    }
}

fn say(event: &Value) -> Result<(), Failure> {
    output::compact(event)?;
    Ok(std::io::stdout().flush()?)
}

fn stats(container: &Container) -> Result<Value, Failure> {
    let stats = match container.stats() {
        // An ordinary user's container may have no cgroup, and so nothing is counted.
        Err(error) if error.category() == Category::Unsupported => Stats::default(),
        stats => stats?,
    };
    let mut data = serde_json::to_value(stats).map_err(|error| Failure::of(error.to_string()))?;
    // Not in runc's format, and whoever waits for the word in a line would take this for an event.
    data["memory"].as_object_mut().map(|memory| memory.remove("oomKills"));
    Ok(json!({ "type": "stats", "id": container.id(), "data": data }))
}

/// As Go writes them: `5s`, `100ms`, `1m30s`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let length = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..length] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        rest = &rest[length..];
        total += Duration::try_from_secs_f64(number * unit).ok()?;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_written_as_in_go() {
        assert_eq!(duration("5s"), Some(Duration::from_secs(5)));
        assert_eq!(duration("100ms"), Some(Duration::from_millis(100)));
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        for wrong in ["5", "s", "5x", "-1s", "1..5s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}

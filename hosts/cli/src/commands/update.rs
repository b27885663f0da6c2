//! `update`.

use std::io::Read;
use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::{Map, Value, json};

use super::{Done, id, open};
use crate::arguments::{Global, path, text};
use crate::failure::Failure;

/// An option that is a limit.
pub struct Limit {
    pub name: &'static str,
    pub unit: &'static str,
    pub help: &'static str,
    /// The members of `linux.resources` that it sets.
    place: [&'static str; 2],
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Number,
    /// With a suffix, perhaps.
    Bytes,
    Text,
}

const fn limit(
    name: &'static str,
    unit: &'static str,
    help: &'static str,
    place: [&'static str; 2],
    kind: Kind,
) -> Limit {
    Limit { name, unit, help, place, kind }
}

use Kind::{Bytes, Number, Text};

pub const LIMITS: [Limit; 15] = [
    limit("blkio-weight", "N", "share of block I/O, 10 to 1000", ["blockIO", "weight"], Number),
    limit("cpu-period", "US", "length of a CPU period in microseconds", ["cpu", "period"], Number),
    limit("cpu-quota", "US", "CPU time in a period, -1 for no limit", ["cpu", "quota"], Number),
    limit("cpu-burst", "US", "CPU time that may be saved up", ["cpu", "burst"], Number),
    limit("cpu-share", "N", "share of the CPU, 2 to 262144", ["cpu", "shares"], Number),
    limit("cpu-rt-period", "US", "length of a real-time period", ["cpu", "realtimePeriod"], Number),
    limit("cpu-rt-runtime", "US", "real time in a period", ["cpu", "realtimeRuntime"], Number),
    limit("cpu-idle", "0|1", "run only if nobody else wants to", ["cpu", "idle"], Number),
    limit("cpuset-cpus", "LIST", "processors, such as 0-2,7", ["cpu", "cpus"], Text),
    limit("cpuset-mems", "LIST", "memory nodes, such as 0", ["cpu", "mems"], Text),
    limit(
        "memory",
        "BYTES",
        "memory, with k, m, g or t; -1 for no limit",
        ["memory", "limit"],
        Bytes,
    ),
    limit("memory-reservation", "BYTES", "memory that is kept", ["memory", "reservation"], Bytes),
    limit("memory-swap", "BYTES", "memory and swap together", ["memory", "swap"], Bytes),
    limit("pids-limit", "N", "processes, -1 for no limit", ["pids", "limit"], Number),
    // The kernel has given it up: taken, and ignored by the library with a warning.
    limit("kernel-memory", "BYTES", "has no effect", ["memory", "kernel"], Bytes),
];

pub fn update(global: &Global, own: &ArgMatches) -> Done {
    let resources = match path(own, "resources") {
        Some(file) if file.as_os_str() == "-" => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text)?;
            text
        }
        Some(file) => std::fs::read(&file)
            .map_err(|error| Failure::of(format!("{}: {error}", file.display())))?,
        None => of_options(own)?.to_string().into_bytes(),
    };
    open(global, id(own))?.update(&resources)?;
    Ok(ExitCode::SUCCESS)
}

fn of_options(own: &ArgMatches) -> Result<Value, Failure> {
    let mut resources = Map::new();
    for limit in &LIMITS {
        let Some(given) = text(own, limit.name).filter(|given| !given.is_empty()) else { continue };
        let value = match limit.kind {
            Text => json!(given),
            Number => json!(number(limit.name, given)?),
            Bytes => json!(bytes(limit.name, given)?),
        };
        let [group, member] = limit.place;
        resources.entry(group).or_insert_with(|| json!({}))[member] = value;
    }
    Ok(resources.into())
}

fn number(name: &str, given: &str) -> Result<i64, Failure> {
    given.parse().map_err(|_| Failure::of(format!("invalid value for {name}: {given}")))
}

/// As many bytes as a number with a suffix stands for: `64m`, `1.5g`, `-1`.
pub fn bytes(name: &str, given: &str) -> Result<i64, Failure> {
    let wrong = || Failure::of(format!("invalid value for {name}: {given}"));
    if let Ok(number) = given.parse() {
        return Ok(number);
    }
    let text = given.trim().to_lowercase();
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic() || c == ' ');
    let shift = match text[digits.len()..].trim().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number * (1_i64 << shift) as f64;
    if (0.0..9e18).contains(&bytes) { Ok(bytes as i64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_suffixes() {
        for (given, bytes_) in [
            ("-1", -1),
            ("67108864", 67_108_864),
            ("50M", 50 << 20),
            ("1.5g", 3 << 29),
            ("64 KiB", 65_536),
            ("2kb", 2048),
        ] {
            assert_eq!(bytes("memory", given).ok(), Some(bytes_), "{given}");
        }
        for given in ["", "k", "1x", "-2m", "1e30g", "nan"] {
            assert!(bytes("memory", given).is_err(), "{given}");
        }
    }
}

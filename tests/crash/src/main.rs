//! Kills the host, the keeper or init at every step of a container's life and looks for what
//! is left (DESIGN.md, promise 4).
//!
//! ```text
//! cargo test -p locule-crash -- [NAME...]     only cases whose name contains one of these
//! LOCULE_CRASH_SEED=N                         the sample that was printed
//! LOCULE_CRASH_SAMPLES=N                      kill points for each victim
//! LOCULE_CRASH=all                            every kill point
//! LOCULE_CRASH_POINT=SCENARIO:VICTIM:N:WAY    one of them, as a failure names it
//! ```
//!
//! The program is also what it kills: with `host` as its first argument it is a host.

mod cases;
mod host;
mod machine;
mod points;
mod trace;

use std::process::ExitCode;
use std::time::Instant;

/// A case: its name, a sentence, and what it does. `Err` says what went wrong.
pub type Case = (&'static str, fn(&machine::Bench) -> Result<(), String>);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "host") {
        return host::run(&arguments[1..]);
    }
    let wanted: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let all: Vec<Case> = cases::ALL.iter().chain(points::ALL).copied().collect();
    if arguments.iter().any(|word| word == "--list") {
        all.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let bench = match machine::Bench::new() {
        Ok(bench) => bench,
        Err(missing) => {
            println!("skipped: {missing}");
            return ExitCode::SUCCESS;
        }
    };
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, case) in all {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let outcome = case(&bench).and_then(|()| bench.is_as_it_was());
        let took = begun.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({took:.1} s)");
            }
            Err(message) => {
                println!("test {name} ... FAILED ({took:.1} s)\n{message}\n");
                failed.push(name);
            }
        }
    }
    println!("{passed} passed, {} failed", failed.len());
    failed.iter().for_each(|name| println!("    {name}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

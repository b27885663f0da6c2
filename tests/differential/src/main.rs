//! One bundle, two runtimes: what a program sees inside, the state, and what the host sees must
//! agree with the oracle, runc (DESIGN.md, section 8).
//!
//! ```text
//! cargo test -p locule-differential -- [NAME...]   only bundles whose name contains one of these
//! LOCULE_SEED=N                                    the bundles that were printed
//! LOCULE_BUNDLES=N                                 how many are generated
//! ```
//!
//! The program is also what runs Locule: with `drive` as its first argument it is a command.

mod bundle;
mod compare;
mod console;
mod drive;
mod explained;
mod generate;
mod host_side;
mod inside;
mod leftovers;
mod life;
mod oracle;
mod picked;
mod random;
mod worker;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("drive") => drive::run(&arguments[1..]),
        Some("work") => worker::work(&arguments[1..]),
        _ => worker::lead(&arguments),
    }
}

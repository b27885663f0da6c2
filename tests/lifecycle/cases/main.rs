//! The life of a container, case by case: `cargo test -p locule-lifecycle [-- FILTER...]`.
//!
//! Every case is a sentence of behaviour and runs twice: through the Rust API and through the
//! C ABI. Each runs in a process of its own and must leave nothing behind.

mod exec;
mod ids;
mod life;
mod signals;

use std::process::ExitCode;

use locule_lifecycle::runner;

fn main() -> ExitCode {
    runner::main(
        &[
            ("life", life::CASES),
            ("ids", ids::CASES),
            ("signals", signals::CASES),
            ("exec", exec::CASES),
        ],
        &[],
    )
}

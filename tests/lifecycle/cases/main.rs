//! The life of a container, case by case: `cargo test -p locule-lifecycle [-- FILTER...]`.
//!
//! Every case is a sentence of behaviour and runs twice: through the Rust API and through the
//! C ABI. Each runs in a process of its own and must leave nothing behind.

mod attach;
mod events;
mod exec;
mod forgeries;
mod hooks;
mod hostile;
mod ids;
mod insiders;
mod layers;
mod life;
mod limits;
mod mounts;
mod namespaces;
mod network;
mod notify;
mod older;
mod parentage;
mod pause;
mod plugins;
mod process;
mod rootless;
mod schema;
mod signals;
mod stdio;
mod systemd;
mod waiting;

use std::process::ExitCode;

use locule_lifecycle::runner::{self, Face};

fn main() -> ExitCode {
    runner::main(
        &[Face::Rust, Face::C],
        &[
            ("life", life::CASES),
            ("layers", layers::CASES),
            ("ids", ids::CASES),
            ("signals", signals::CASES),
            ("exec", exec::CASES),
            ("events", events::CASES),
            ("pause", pause::CASES),
            ("plugins", plugins::CASES),
            ("limits", limits::CASES),
            ("stdio", stdio::CASES),
            ("waiting", waiting::CASES),
            ("attach", attach::CASES),
            ("parentage", parentage::CASES),
            ("hooks", hooks::CASES),
            ("hostile", hostile::CASES),
            ("forgeries", forgeries::CASES),
            ("insiders", insiders::CASES),
            ("process", process::CASES),
            ("mounts", mounts::CASES),
            ("namespaces", namespaces::CASES),
            ("network", network::CASES),
            ("notify", notify::CASES),
            ("older", older::CASES),
            ("rootless", rootless::CASES),
            ("schema", schema::CASES),
            ("systemd", systemd::CASES),
        ],
        &[
            stdio::HELPERS,
            attach::HELPERS,
            hooks::HELPERS,
            parentage::HELPERS,
            rootless::HELPERS,
            network::HELPERS,
            systemd::HELPERS,
            insiders::HELPERS,
            plugins::HELPERS,
        ]
        .concat(),
    )
}

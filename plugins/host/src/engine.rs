//! The engines that run components: one for each way of running and each size of the stack, shared
//! by the plugins of this process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use locule::{Category, Error, Result, Stage};
use wasmtime::Config;

use crate::configuration::{self, Limits};

/// Bytes of address space behind a memory, so that it can grow a little without being copied.
const GROWTH: u64 = 4 << 20;

/// Pinned in `Cargo.toml` to its line; the patch does not change compiled code's form.
const WASMTIME: &str = "wasmtime-48";

/// What makes one engine another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    interpreted: bool,
    stack_bytes: usize,
    /// Whether code looks at the clock's ticks, which costs a quarter of its speed.
    ticks: bool,
}

/// An engine, and what compiled components for it depend on.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) engine: wasmtime::Engine,
    /// Other versions and settings have others.
    pub(crate) fingerprint: String,
}

impl Engine {
    pub(crate) fn of(choice: configuration::Engine, limits: &Limits) -> Result<Engine> {
        static ENGINES: Mutex<Option<HashMap<Kind, Engine>>> = Mutex::new(None);
        let kind = Kind {
            interpreted: match choice {
                configuration::Engine::Native => false,
                configuration::Engine::Pulley => true,
                configuration::Engine::Auto => !may_execute(),
            },
            stack_bytes: limits.stack_bytes,
            ticks: limits.wall_milliseconds.is_some(),
        };
        let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
        let engines = engines.get_or_insert_default();
        if let Some(engine) = engines.get(&kind) {
            return Ok(engine.clone());
        }
        let engine = Engine::new(kind)?;
        engines.insert(kind, engine.clone());
        Ok(engine)
    }

    fn new(kind: Kind) -> Result<Engine> {
        let mut config = Config::new();
        // The host's signals are the host's: without handlers for them, code checks each access
        // itself, and needs no address space around its memories either.
        config.signals_based_traps(false);
        config.memory_reservation(0).memory_guard_size(0).memory_reservation_for_growth(GROWTH);
        config.guard_before_linear_memory(false);
        // Fuel is charged for what is copied, too, so it bounds the time without a clock.
        config.consume_fuel(true);
        config.epoch_interruption(kind.ticks);
        config.max_wasm_stack(kind.stack_bytes);
        // The same call does the same on every machine.
        config.wasm_relaxed_simd(false);
        #[cfg(feature = "compile")]
        config.cranelift_nan_canonicalization(true);
        if kind.interpreted {
            config.target("pulley64").map_err(unusable)?;
        }
        let engine = wasmtime::Engine::new(&config).map_err(unusable)?;
        Ok(Engine { fingerprint: kind.fingerprint(), engine })
    }
}

impl Kind {
    /// Known without a compiler, too. That code fits the engine is checked again when it is loaded.
    fn fingerprint(self) -> String {
        let code = if self.interpreted { "pulley64" } else { std::env::consts::ARCH };
        let ticks = if self.ticks { "-ticks" } else { "" };
        format!("{WASMTIME}-{code}-{}{ticks}", self.stack_bytes)
    }
}

fn unusable(error: wasmtime::Error) -> Error {
    let message = format!("the engine for plugins cannot be had: {error:#}");
    Error::new(Category::Unsupported, Stage::Plugin, message)
}

/// Whether this process may make memory executable that it has written: SELinux, systemd's
/// `MemoryDenyWriteExecute` and `PR_SET_MDWE` can forbid it. Tried with a page of its own.
fn may_execute() -> bool {
    const PAGE: usize = 4096;
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, of which nobody else knows.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, access, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return true;
    }
    // SAFETY: the mapping from above, which ends here.
    unsafe {
        let allowed = libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_EXEC) == 0;
        libc::munmap(page, PAGE);
        allowed
    }
}

//! Signals that ask this program to end while a call of the library goes on that can be stopped: the
//! call is told, cleans up and returns. A second one ends the program as ever.

use std::os::raw::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use locule::Cancel;
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::failure::Failure;

static CANCEL: OnceLock<Cancel> = OnceLock::new();
static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// While this lives such signals are caught.
pub struct Interrupt(Vec<(Signal, SigAction)>);

impl Interrupt {
    pub fn catch() -> Result<Interrupt, Failure> {
        if CANCEL.get().is_none() {
            let _ = CANCEL.set(Cancel::new()?);
        }
        let flags = SaFlags::SA_RESETHAND | SaFlags::SA_RESTART;
        let action = SigAction::new(SigHandler::Handler(note), flags, SigSet::empty());
        let mut caught = Interrupt(Vec::new());
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let fail = |errno: Errno| Failure::of(format!("catch {signal}: {errno}"));
            // SAFETY: the handler does only what a handler may: it stores, and writes to an eventfd.
            let before = unsafe { sigaction(signal, &action) }.map_err(fail)?;
            caught.0.push((signal, before));
            // Whoever started this program may want it to live on.
            if matches!(before.handler(), SigHandler::SigIgn) {
                // SAFETY: what was there.
                unsafe { sigaction(signal, &before) }.map_err(fail)?;
            }
        }
        Ok(caught)
    }

    /// For the calls that are to be stopped; `None` if signals were never caught.
    pub fn cancel() -> Option<&'static Cancel> {
        CANCEL.get()
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        for (signal, before) in &self.0 {
            // SAFETY: what was there.
            let _ = unsafe { sigaction(*signal, before) };
        }
    }
}

extern "C" fn note(signal: c_int) {
    let errno = Errno::last();
    CAUGHT.store(signal, Ordering::Relaxed);
    if let Some(cancel) = CANCEL.get() {
        cancel.cancel();
    }
    errno.set();
}

/// Fails, as a shell has it, if a signal was caught.
pub fn check() -> Result<(), Failure> {
    exit_code().map_or(Ok(()), |code| Err(Failure::of("interrupted").with_code(code)))
}

/// The same failure with the exit code for the signal that was caught, if one was.
pub fn of_signal(failure: Failure) -> Failure {
    match exit_code() {
        Some(code) => failure.with_code(code),
        None => failure,
    }
}

fn exit_code() -> Option<u8> {
    u8::try_from(CAUGHT.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0).map(|s| 128 + s)
}

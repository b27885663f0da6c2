//! The clock of plugins that have a limit on time: a thread that lives while such a plugin is being
//! called, and ends with the last of those calls. It takes no signal that is the host's.

use std::sync::{Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often engines are told that time goes by.
pub(crate) const TICK: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Clock {
    /// The engines whose code is being called, once a call.
    engines: Vec<wasmtime::Engine>,
    thread: Option<JoinHandle<()>>,
}

static CLOCK: Mutex<Clock> = Mutex::new(Clock { engines: Vec::new(), thread: None });
static CHANGED: Condvar = Condvar::new();

/// Time goes by for an engine as long as this lives.
pub(crate) struct Ticking(wasmtime::Engine);

impl Ticking {
    pub(crate) fn begin(engine: &wasmtime::Engine) -> std::io::Result<Ticking> {
        let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
        clock.engines.push(engine.clone());
        let ticking = Ticking(engine.clone());
        if clock.thread.is_none() {
            let spawned = without_signals(|| {
                let builder = std::thread::Builder::new().name("locule-plugins".to_owned());
                builder.stack_size(64 << 10).spawn(tick)
            });
            match spawned {
                Ok(thread) => clock.thread = Some(thread),
                Err(error) => {
                    drop(clock);
                    return Err(error);
                }
            }
        }
        Ok(ticking)
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |engine: &wasmtime::Engine| wasmtime::Engine::same(engine, &self.0);
        if let Some(index) = clock.engines.iter().position(same) {
            clock.engines.swap_remove(index);
        }
        if clock.engines.is_empty()
            && let Some(thread) = clock.thread.take()
        {
            CHANGED.notify_all();
            drop(clock);
            let _ = thread.join();
        }
    }
}

fn tick() {
    let me = std::thread::current().id();
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    // Another one may have taken its place already.
    while clock.thread.as_ref().is_some_and(|thread| thread.thread().id() == me) {
        clock = CHANGED.wait_timeout(clock, TICK).unwrap_or_else(PoisonError::into_inner).0;
        clock.engines.iter().for_each(wasmtime::Engine::increment_epoch);
    }
}

/// A thread begins with the mask of signals of the one that makes it.
fn without_signals<T>(make: impl FnOnce() -> T) -> T {
    // SAFETY: the sets are written before they are read, and the mask is as before at the end.
    unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let made = make();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        made
    }
}

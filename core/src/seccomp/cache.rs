//! Compiled programs by profile, so that only the first start with a profile pays for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use oci_spec::runtime::LinuxSeccomp;

use super::{Program, compile};
use crate::error::{Category, Error, Result, Stage};

/// How many programs are kept. A host uses a handful of profiles.
const CAPACITY: usize = 64;

/// Keeps compiled programs. A runtime owns one; it may be used from any thread. A hit costs
/// writing the profile down and comparing, some ten microseconds for a profile like Docker's.
#[derive(Debug, Default)]
pub struct Cache {
    programs: Mutex<Programs>,
    /// Held while compiling, so that threads which start the same container together compile
    /// its profile once.
    compiling: Mutex<()>,
}

#[derive(Debug, Default)]
struct Programs {
    /// The key is the profile itself, written down: no two profiles share a program by chance.
    by_profile: HashMap<Vec<u8>, Entry>,
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    program: Arc<Program>,
    used: u64,
}

impl Cache {
    /// An empty cache.
    pub fn new() -> Self {
        Cache::default()
    }

    /// The program of a profile, compiled if it is not there. See [`compile`] for errors.
    pub fn get(&self, profile: &LinuxSeccomp) -> Result<Arc<Program>> {
        let key = serde_json::to_vec(profile).map_err(|e| {
            Error::new(Category::Spec, Stage::Seccomp, format!("write the profile down: {e}"))
                .at("/linux/seccomp")
        })?;
        if let Some(program) = lock(&self.programs).find(&key) {
            return Ok(program);
        }
        let _guard = lock(&self.compiling);
        if let Some(program) = lock(&self.programs).find(&key) {
            return Ok(program);
        }
        let program = compile(profile)?;
        lock(&self.programs).keep(key, program.clone());
        Ok(program)
    }

    /// How many programs are kept now.
    pub fn len(&self) -> usize {
        lock(&self.programs).by_profile.len()
    }

    /// Whether no program is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Programs {
    fn find(&mut self, key: &[u8]) -> Option<Arc<Program>> {
        self.clock += 1;
        let entry = self.by_profile.get_mut(key)?;
        entry.used = self.clock;
        Some(entry.program.clone())
    }

    fn keep(&mut self, key: Vec<u8>, program: Arc<Program>) {
        if self.by_profile.len() >= CAPACITY {
            let oldest = self.by_profile.iter().min_by_key(|(_, entry)| entry.used);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.by_profile.remove(&key);
            }
        }
        self.by_profile.insert(key, Entry { program, used: self.clock });
    }
}

/// A panic elsewhere leaves nothing half-done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

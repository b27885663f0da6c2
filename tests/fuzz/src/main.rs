//! The fuzzer: libFuzzer around the target that `LOCULE_FUZZ` names. See `run.sh`.
#![no_main]

use std::sync::OnceLock;

use locule_fuzz::{Form, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("LOCULE_FUZZ").unwrap_or_default();
        let target = locule_fuzz::target(&name);
        let _ = TARGET.set(target.unwrap_or_else(|| panic!("LOCULE_FUZZ={name:?}: no such target")));
    },
    |bytes: &[u8]| (TARGET.get().expect("set at the start").run)(bytes)
);

libfuzzer_sys::fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let form = TARGET.get().map_or(Form::Bytes, |target| target.form);
    // Every fourth time as bytes all the same: parsers of text have to be tried, too.
    match (form, seed % 4) {
        (Form::Json, 1..) => {
            if let Some(changed) = locule_fuzz::change::json(&bytes[..size], max_size, seed) {
                bytes[..changed.len()].copy_from_slice(&changed);
                return changed.len();
            }
        }
        // Small changes alone would take days to make a program of a few calls.
        (Form::Program, 0) => {
            locule_fuzz::change::fill(&mut bytes[..max_size], seed);
            return max_size;
        }
        _ => {}
    }
    libfuzzer_sys::fuzzer_mutate(bytes, size, max_size)
});

//! The fuzzer: libFuzzer around the target that `LOCULE_FUZZ` names. See `run.sh`.
#![no_main]

use std::sync::OnceLock;

use locule_fuzz::Target;

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
    // Every fourth time as bytes all the same: parsers of text have to be tried, too.
    if TARGET.get().is_some_and(|target| target.is_json) && seed % 4 != 0 {
        if let Some(changed) = locule_fuzz::json::change(&bytes[..size], max_size, seed) {
            bytes[..changed.len()].copy_from_slice(&changed);
            return changed.len();
        }
    }
    libfuzzer_sys::fuzzer_mutate(bytes, size, max_size)
});

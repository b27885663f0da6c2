//! `state.json`, as a host that was killed or a full disk may have left it.

use std::path::Component;

pub fn run(json: &[u8]) {
    for directory in locule::fuzzing::record(json).unwrap_or_default() {
        // These are emptied and removed later.
        let climbs = directory.components().any(|part| part == Component::ParentDir);
        assert!(directory.is_absolute() && !climbs, "{directory:?}");
    }
}

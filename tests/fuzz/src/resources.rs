//! `resources` documents, as `update` takes them: checked, and written into directories of plain
//! files in place of cgroups. Nothing outside of the directory changes.

use locule::fuzzing::{allow_devices, limit};
use locule::spec;

use crate::cgroup::Fake;
use crate::plan;

pub fn run(json: &[u8]) {
    let resources = match spec::parse_resources(json) {
        Ok(resources) => resources,
        Err(error) => return plan::check_error(&error),
    };
    if let Err(error) = spec::validate_resources(&resources) {
        assert!(error.pointer().is_some(), "no pointer: {error}");
        return plan::check_error(&error);
    }
    for unified in [true, false] {
        let fake = Fake::shared(unified);
        fake.reset();
        for is_update in [false, true] {
            if let Err(error) = limit(&fake.directory, unified, &resources, is_update) {
                plan::check_error(&error);
            }
            if let Err(error) = allow_devices(&fake.directory, unified, &resources, !is_update) {
                plan::check_error(&error);
            }
        }
        fake.check();
    }
}

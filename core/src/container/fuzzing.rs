//! What state directories remember, for the fuzz targets.

use super::record::Record;
use crate::cgroup::Cgroup;
use crate::spec;

/// Reads a `state.json` and makes a state document of it; the cgroup directories that belong to
/// the container then.
pub fn record(json: &[u8]) -> Option<Vec<std::path::PathBuf>> {
    let record = Record::read(json).ok()?;
    let spec = spec::parse(record.config.get().as_bytes()).ok()?;
    record.state(&spec, super::Status::Running, &[]);
    let cgroup = Cgroup::open(record.cgroup).ok()?;
    Some(cgroup.location().directories().collect())
}

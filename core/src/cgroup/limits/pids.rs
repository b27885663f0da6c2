//! `linux.resources.pids`.

use oci_spec::runtime::LinuxPids;

use super::{Writer, or_max};
use crate::error::Result;

const LIMIT: &str = "/linux/resources/pids/limit";

pub(super) fn apply(pids: &LinuxPids, writer: &mut Writer<'_>) -> Result<()> {
    let place = writer.place("pids", "pids", LIMIT)?;
    // 0 is a limit: no process but the first. As 1 it says so to whoever reads the file, too.
    let limit = if pids.limit() == 0 { 1 } else { pids.limit() };
    writer.put(place, "pids.max", &or_max(limit), LIMIT)
}

//! `linux.resources.network`: version 1 only, and refused without it.

use oci_spec::runtime::LinuxNetwork;

use super::{Writer, given};
use crate::error::Result;

pub(super) fn apply(network: &LinuxNetwork, writer: &mut Writer<'_>) -> Result<()> {
    if let Some(class) = given(network.class_id()) {
        let pointer = "/linux/resources/network/classID";
        let place = writer.place("net_cls", "net_cls", pointer)?;
        writer.put(place, "net_cls.classid", &class.to_string(), pointer)?;
    }
    for (index, entry) in network.priorities().iter().flatten().enumerate() {
        let pointer = format!("/linux/resources/network/priorities/{index}");
        let place = writer.place("net_prio", "net_prio", &pointer)?;
        let line = format!("{} {}", entry.name(), entry.priority());
        writer.put(place, "net_prio.ifpriomap", &line, &pointer)?;
    }
    Ok(())
}

//! `linux.resources.rdma`.

use std::collections::HashMap;

use oci_spec::runtime::{LinuxRdma, LinuxResources};

use super::{Writer, wrong};
use crate::error::Result;

fn pointer(device: &str) -> String {
    format!("/linux/resources/rdma/{}", device.replace('~', "~0").replace('/', "~1"))
}

pub(super) fn check(resources: &LinuxResources) -> Result<()> {
    for (device, limit) in resources.rdma().iter().flatten() {
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(wrong(format!("{device:?} is no RDMA device"), pointer(device)));
        }
        if limit.hca_handles().is_none() && limit.hca_objects().is_none() {
            return Err(wrong("one of hcaHandles and hcaObjects must be given", pointer(device)));
        }
    }
    Ok(())
}

pub(super) fn apply(limits: &HashMap<String, LinuxRdma>, writer: &mut Writer<'_>) -> Result<()> {
    let mut limits: Vec<_> = limits.iter().collect();
    limits.sort_by_key(|(device, _)| device.as_str());
    for (device, limit) in limits {
        let pointer = pointer(device);
        let place = writer.place("rdma", "rdma", &pointer)?;
        let mut line = device.clone();
        for (name, value) in
            [("hca_handle", limit.hca_handles()), ("hca_object", limit.hca_objects())]
        {
            if let Some(value) = value {
                line.push_str(&format!(" {name}={value}"));
            }
        }
        writer.put(place, "rdma.max", &line, &pointer)?;
    }
    Ok(())
}

//! Network interfaces that the container takes from the host.

use locule_plan::protocol::MAX_INTERFACES;
use locule_plan::{Operation, Stream};

use super::{HostFacts, Writer, c_string, unsupported};
use crate::spec::oci;
use crate::{Category, Error, Result, Stage};

/// Has them moved before the hooks run; whether there are any.
pub(super) fn push(out: &mut Writer, spec: &oci::Spec, facts: &HostFacts) -> Result<bool> {
    let linux = spec.linux().as_ref();
    let devices = linux.and_then(|linux| linux.net_devices().as_ref());
    let mut devices: Vec<_> = devices.into_iter().flatten().collect();
    devices.sort_by_key(|(name, _)| *name); // the map has no order, the plan must have one
    if devices.is_empty() {
        return Ok(false);
    }
    let all = "/linux/netDevices";
    if !facts.privileged || !facts.network_admin {
        let message = "moving network interfaces of the host takes privilege over its network";
        return Err(Error::new(Category::Permission, Stage::Compile, message).at(all).hint(
            "run as root: it takes CAP_NET_ADMIN in the host's network namespace, and \
             CAP_SYS_ADMIN",
        ));
    }
    if devices.len() > MAX_INTERFACES {
        let what = format!("moving more than {MAX_INTERFACES} network interfaces");
        return Err(unsupported(all, &what));
    }
    for (name, device) in devices {
        let pointer = format!("{all}/{}", name.replace('~', "~0").replace('/', "~1"));
        let name = c_string(name.as_str(), &pointer)?;
        let new_name = c_string(device.name().as_deref().unwrap_or_default(), &pointer)?;
        let operation = Operation::MoveInterface { name: &name, new_name: &new_name };
        out.push(Stream::Hooks, &pointer, &operation);
    }
    Ok(true)
}

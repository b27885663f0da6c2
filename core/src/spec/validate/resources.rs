//! Rules for `resources`, in `config.json` and in `update`.
//!
//! Zero often means "not set": engines written in Go send it so.

use super::{linux, member, refuse};
use crate::error::Result;
use crate::spec::oci::{LinuxBlockIo, LinuxCpu, LinuxDeviceType, LinuxMemory, LinuxResources};
use crate::spec::vocabulary;

/// Checks a `resources` document, as `update` takes it. Pointers begin at the object.
pub fn validate_resources(resources: &LinuxResources) -> Result<()> {
    check_values(resources, "")
}

/// As above, for a new container, which has no limits that the others could refer to.
pub(super) fn check(resources: &LinuxResources, at: &str) -> Result<()> {
    check_values(resources, at)?;
    let Some(memory) = resources.memory() else { return Ok(()) };
    match memory.swap().filter(|swap| *swap > 0 && memory.limit().unwrap_or(0) == 0) {
        None => Ok(()),
        Some(swap) => Err(refuse(
            format!("{at}/memory/swap"),
            format!("memory swap {swap} counts memory and swap together: it needs a limit too"),
        )),
    }
}

fn check_values(resources: &LinuxResources, at: &str) -> Result<()> {
    check_devices(resources, at)?;
    if let Some(memory) = resources.memory() {
        check_memory(memory, &format!("{at}/memory"))?;
    }
    if let Some(cpu) = resources.cpu() {
        check_cpu(cpu, &format!("{at}/cpu"))?;
    }
    if let Some(limit) = resources.pids().map(|pids| pids.limit()).filter(|limit| *limit < -1) {
        return Err(refuse(format!("{at}/pids/limit"), format!("pids limit {limit} is below -1")));
    }
    if let Some(block_io) = resources.block_io() {
        check_block_io(block_io, &format!("{at}/blockIO"))?;
    }
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        if !is_page_size(limit.page_size()) {
            return Err(refuse(
                format!("{at}/hugepageLimits/{index}/pageSize"),
                format!("page size {:?} is not of the form 2MB", limit.page_size()),
            ));
        }
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        let pointer = member(&format!("{at}/rdma"), device);
        if device.is_empty() || device.contains(char::is_whitespace) {
            return Err(refuse(pointer, format!("{device:?} is not the name of a device")));
        }
        if limits.hca_handles().is_none() && limits.hca_objects().is_none() {
            return Err(refuse(
                pointer,
                format!("rdma device {device:?} has neither hcaHandles nor hcaObjects"),
            ));
        }
    }
    let priorities = resources.network().as_ref().and_then(|network| network.priorities().as_ref());
    for (index, priority) in priorities.into_iter().flatten().enumerate() {
        if !linux::is_interface_name(priority.name()) {
            return Err(refuse(
                format!("{at}/network/priorities/{index}/name"),
                format!("{:?} is not the name of an interface", priority.name()),
            ));
        }
    }
    for key in resources.unified().iter().flatten().map(|(key, _)| key) {
        // The key becomes a file name in the container's cgroup directory.
        if key.is_empty() || key == "." || key == ".." || key.contains('/') {
            return Err(refuse(
                member(&format!("{at}/unified"), key),
                format!("{key:?} is not the name of a cgroup file"),
            ));
        }
    }
    Ok(())
}

fn check_devices(resources: &LinuxResources, at: &str) -> Result<()> {
    for (index, rule) in resources.devices().iter().flatten().enumerate() {
        if rule.typ() == Some(LinuxDeviceType::P) {
            return Err(refuse(
                format!("{at}/devices/{index}/type"),
                "a FIFO is no device that a cgroup can rule",
            ));
        }
        let access = rule.access().as_deref().unwrap_or_default();
        if access.chars().any(|c| !matches!(c, 'r' | 'w' | 'm')) {
            return Err(refuse(
                format!("{at}/devices/{index}/access"),
                format!("device access {access:?} has other letters than r, w and m"),
            ));
        }
        for (name, value) in [("major", rule.major()), ("minor", rule.minor())] {
            // -1 is the old way to write "any".
            if let Some(value) = value.filter(|v| !(-1..=i64::from(u32::MAX)).contains(v)) {
                return Err(refuse(
                    format!("{at}/devices/{index}/{name}"),
                    format!("{name} number {value} is out of range"),
                ));
            }
        }
    }
    Ok(())
}

fn check_memory(memory: &LinuxMemory, at: &str) -> Result<()> {
    for (name, value) in
        [("limit", memory.limit()), ("reservation", memory.reservation()), ("swap", memory.swap())]
    {
        if let Some(value) = value.filter(|value| *value < -1) {
            return Err(refuse(
                format!("{at}/{name}"),
                format!("memory {name} {value} is below -1"),
            ));
        }
    }
    // 0 says nothing, and -1 of swap that there is no limit.
    let (limit, swap) = (memory.limit().unwrap_or(0), memory.swap().unwrap_or(0));
    if swap > 0 && (limit < 0 || limit > swap) {
        let limit = if limit < 0 { "no limit".to_owned() } else { format!("the limit {limit}") };
        return Err(refuse(
            format!("{at}/swap"),
            format!("memory swap {swap} counts memory and swap together: it is below {limit}"),
        ));
    }
    if let Some(value) = memory.swappiness().filter(|value| *value > 100 && *value != u64::MAX) {
        return Err(refuse(
            format!("{at}/swappiness"),
            format!("swappiness {value} is not between 0 and 100"),
        ));
    }
    Ok(())
}

fn check_cpu(cpu: &LinuxCpu, at: &str) -> Result<()> {
    if let Some(value) = cpu.idle().filter(|value| !(0..=1).contains(value)) {
        return Err(refuse(format!("{at}/idle"), format!("cpu idle {value} is neither 0 nor 1")));
    }
    let (burst, quota) = (cpu.burst().unwrap_or(0), cpu.quota().unwrap_or(0));
    if quota > 0 && burst > quota as u64 {
        return Err(refuse(
            format!("{at}/burst"),
            format!("cpu burst {burst} is above the quota {quota}"),
        ));
    }
    for (name, list) in [("cpus", cpu.cpus()), ("mems", cpu.mems())] {
        if let Some(list) =
            list.as_deref().filter(|list| vocabulary::numbers_of(list.trim()).is_none())
        {
            return Err(refuse(
                format!("{at}/{name}"),
                format!("{list:?} is not a list such as 0-3,7"),
            ));
        }
    }
    Ok(())
}

fn check_block_io(block_io: &LinuxBlockIo, at: &str) -> Result<()> {
    let in_range = |weight: Option<u16>| weight.is_none_or(|w| w == 0 || (10..=1000).contains(&w));
    for (name, weight) in [("weight", block_io.weight()), ("leafWeight", block_io.leaf_weight())] {
        if !in_range(weight) {
            return Err(refuse(
                format!("{at}/{name}"),
                format!("block I/O {name} {} is not between 10 and 1000", weight.unwrap_or(0)),
            ));
        }
    }
    for (index, device) in block_io.weight_device().iter().flatten().enumerate() {
        if !in_range(device.weight()) || !in_range(device.leaf_weight()) {
            return Err(refuse(
                format!("{at}/weightDevice/{index}"),
                format!(
                    "the weight of device {}:{} is not between 10 and 1000",
                    device.major(),
                    device.minor()
                ),
            ));
        }
    }
    Ok(())
}

/// A number and a unit: it becomes part of a file name (runc 1.1.10 learned it the hard way).
fn is_page_size(size: &str) -> bool {
    ["KB", "MB", "GB"].iter().any(|unit| {
        size.strip_suffix(unit).is_some_and(|number| {
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            digits && (1..10).contains(&number.len()) && !number.starts_with('0')
        })
    })
}

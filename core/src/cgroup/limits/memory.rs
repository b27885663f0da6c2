//! `linux.resources.memory`.

use oci_spec::runtime::LinuxMemory;

use super::{Writer, given, or_max, unsupported, wrong};
use crate::cgroup::file;
use crate::cgroup::location::Place;
use crate::error::{Category, Error, Result, Stage};

const LIMIT: &str = "/linux/resources/memory/limit";
const RESERVATION: &str = "/linux/resources/memory/reservation";
const SWAP: &str = "/linux/resources/memory/swap";
const KERNEL_TCP: &str = "/linux/resources/memory/kernelTCP";
const SWAPPINESS: &str = "/linux/resources/memory/swappiness";
const OOM: &str = "/linux/resources/memory/disableOOMKiller";
const HIERARCHY: &str = "/linux/resources/memory/useHierarchy";

#[allow(deprecated)] // `kernel` is still in the spec, and is reported when ignored.
pub(super) fn apply(memory: &LinuxMemory, writer: &mut Writer<'_>) -> Result<()> {
    let (limit, swap) = (given(memory.limit()), given(memory.swap()));
    if let (Some(limit @ 1..), Some(swap @ 1..)) = (limit, swap) {
        if swap < limit {
            return Err(wrong(
                format!(
                    "memory.swap {swap} is memory and swap together and may not be below memory.limit {limit}"
                ),
                SWAP,
            ));
        }
    }
    if given(memory.kernel()).is_some() {
        tracing::warn!("memory.kernel is ignored: Linux has had no such limit since 5.4");
    }
    let Some(first) = first_pointer(memory) else { return Ok(()) };
    let place = writer.place("memory", "memory", first)?;
    if let (Some(limit @ 1..), Some(true)) = (limit, memory.check_before_update()) {
        let usage = if place.unified { "memory.current" } else { "memory.usage_in_bytes" };
        let usage: i64 = writer.get(place, usage, LIMIT)?.parse().unwrap_or(0);
        if usage > limit {
            return Err(Error::new(
                Category::Busy,
                Stage::Cgroup,
                format!("memory.limit {limit} is below the {usage} bytes in use"),
            )
            .at(LIMIT));
        }
    }
    match place.unified {
        true => v2(memory, place, writer),
        false => v1(memory, place, writer),
    }
}

fn first_pointer(memory: &LinuxMemory) -> Option<&'static str> {
    let fields = [
        (given(memory.limit()).is_some(), LIMIT),
        (given(memory.reservation()).is_some(), RESERVATION),
        (given(memory.swap()).is_some(), SWAP),
        (given(memory.kernel_tcp()).is_some(), KERNEL_TCP),
        (memory.swappiness().is_some(), SWAPPINESS),
        (memory.disable_oom_killer() == Some(true), OOM),
        (memory.use_hierarchy().is_some(), HIERARCHY),
    ];
    fields.into_iter().find(|(is_given, _)| *is_given).map(|(_, pointer)| pointer)
}

fn v2(memory: &LinuxMemory, place: &Place, writer: &mut Writer<'_>) -> Result<()> {
    // The kernel refuses nothing here by order; swap goes first so that a lower limit swaps out
    // no more than the new swap allows.
    let limit = given(memory.limit());
    if let Some(swap) = given(memory.swap()) {
        let value = swap_max(swap, limit, place, writer)?;
        match writer.try_put(place, "memory.swap.max", &value) {
            // A kernel without swap keeps both of these by itself, and engines always send one.
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    && matches!(value.as_str(), "max" | "0") => {}
            Err(error) => {
                return Err(writer.failed(place, "memory.swap.max", &value, SWAP, &error));
            }
            Ok(()) => {}
        }
    } else if limit == Some(-1) && writer.is_update() {
        // Memory without limit and swap with one makes no sense; the combined limit of version 1
        // would have had to go as well.
        let _ = writer.try_put(place, "memory.swap.max", "max");
    }
    if let Some(limit) = limit {
        writer.put(place, "memory.max", &or_max(limit), LIMIT)?;
    }
    if let Some(reservation) = given(memory.reservation()) {
        writer.put(place, "memory.low", &or_max(reservation), RESERVATION)?;
    }
    if given(memory.kernel_tcp()).is_some() {
        tracing::warn!("memory.kernelTCP is ignored: cgroup v2 counts it as memory");
    }
    for (is_given, pointer, name) in [
        (memory.swappiness().is_some(), SWAPPINESS, "swappiness"),
        (memory.disable_oom_killer() == Some(true), OOM, "disableOOMKiller"),
        (memory.use_hierarchy() == Some(false), HIERARCHY, "useHierarchy=false"),
    ] {
        if is_given {
            return Err(unsupported(format!("memory.{name} needs cgroup v1")).at(pointer));
        }
    }
    Ok(())
}

/// The spec's memory and swap together as version 2's swap alone.
fn swap_max(swap: i64, limit: Option<i64>, place: &Place, writer: &Writer<'_>) -> Result<String> {
    if swap < 0 {
        return Ok("max".to_owned());
    }
    let limit = match limit {
        Some(limit) => Some(limit).filter(|limit| *limit >= 0),
        None if writer.is_update() => writer.get(place, "memory.max", SWAP)?.parse().ok(),
        None => None,
    };
    match limit {
        Some(limit) if swap >= limit => Ok((swap - limit).to_string()),
        Some(limit) => {
            Err(wrong(format!("memory.swap {swap} is below the memory limit {limit}"), SWAP))
        }
        None => Err(wrong(
            "memory.swap is memory and swap together, so it needs memory.limit beside it",
            SWAP,
        )),
    }
}

fn v1(memory: &LinuxMemory, place: &Place, writer: &mut Writer<'_>) -> Result<()> {
    const BYTES: &str = "memory.limit_in_bytes";
    const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";
    let limit = given(memory.limit());
    let mut swap = given(memory.swap());
    if limit == Some(-1) && swap.is_none() && place.directory().join(WITH_SWAP).exists() {
        swap = Some(-1);
    }
    // The kernel keeps limit <= memsw at every instant: whichever grows past the other goes first.
    let swap_first = match (limit, swap) {
        (Some(_), Some(-1)) => true,
        (Some(limit), Some(_)) if writer.is_update() => {
            let now = file::read(&place.directory(), WITH_SWAP).unwrap_or_default();
            now.trim().parse().is_ok_and(|now: i64| now < limit)
        }
        _ => false,
    };
    let mut writes = [(BYTES, limit, LIMIT), (WITH_SWAP, swap, SWAP)];
    if swap_first {
        writes.reverse();
    }
    for (name, value, pointer) in writes {
        let Some(value) = value else { continue };
        writer.put(place, name, &value.max(-1).to_string(), pointer).map_err(|error| {
            match (error.errno(), name) {
                (Some(libc::EBUSY), BYTES) => error.hint("more memory than that is in use"),
                (Some(libc::EINVAL), BYTES) => error
                    .hint("the limit of memory and swap together is lower: give memory.swap too"),
                _ => error,
            }
        })?;
    }
    if let Some(reservation) = given(memory.reservation()) {
        let value = reservation.max(-1).to_string();
        writer.put(place, "memory.soft_limit_in_bytes", &value, RESERVATION)?;
    }
    if let Some(limit) = given(memory.kernel_tcp()) {
        let value = limit.max(-1).to_string();
        writer.put(place, "memory.kmem.tcp.limit_in_bytes", &value, KERNEL_TCP)?;
    }
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            return Err(wrong(format!("memory.swappiness {swappiness} is above 100"), SWAPPINESS));
        }
        writer.put(place, "memory.swappiness", &swappiness.to_string(), SWAPPINESS)?;
    }
    if let Some(disable) =
        memory.disable_oom_killer().filter(|disable| *disable || writer.is_update())
    {
        writer.put(place, "memory.oom_control", if disable { "1" } else { "0" }, OOM)?;
    }
    if let Some(use_hierarchy) = memory.use_hierarchy() {
        let value = if use_hierarchy { "1" } else { "0" };
        writer.put(place, "memory.use_hierarchy", value, HIERARCHY)?;
    }
    Ok(())
}

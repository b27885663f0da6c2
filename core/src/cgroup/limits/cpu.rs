//! `linux.resources.cpu`: shares, bandwidth, idle, real time, and the cpuset.

use oci_spec::runtime::LinuxCpu;

use super::convert::cpu_weight;
use super::{Writer, given, unsupported, wrong};
use crate::cgroup::location::Place;
use crate::error::Result;

const SHARES: &str = "/linux/resources/cpu/shares";
const QUOTA: &str = "/linux/resources/cpu/quota";
const PERIOD: &str = "/linux/resources/cpu/period";
const BURST: &str = "/linux/resources/cpu/burst";
const IDLE: &str = "/linux/resources/cpu/idle";
const RT_RUNTIME: &str = "/linux/resources/cpu/realtimeRuntime";
const RT_PERIOD: &str = "/linux/resources/cpu/realtimePeriod";
const CPUS: &str = "/linux/resources/cpu/cpus";
const MEMS: &str = "/linux/resources/cpu/mems";

pub(super) fn apply(cpu: &LinuxCpu, writer: &mut Writer<'_>) -> Result<()> {
    if let (Some(burst), Some(quota @ 1..)) = (cpu.burst(), cpu.quota()) {
        if burst > quota as u64 {
            return Err(wrong(format!("cpu.burst {burst} is above cpu.quota {quota}"), BURST));
        }
    }
    let fields = [
        (given(cpu.shares()).is_some(), SHARES),
        (given(cpu.quota()).is_some(), QUOTA),
        (given(cpu.period()).is_some(), PERIOD),
        (cpu.burst().is_some(), BURST),
        (cpu.idle().is_some(), IDLE),
        (given(cpu.realtime_runtime()).is_some(), RT_RUNTIME),
        (given(cpu.realtime_period()).is_some(), RT_PERIOD),
    ];
    if let Some((_, pointer)) = fields.into_iter().find(|(is_given, _)| *is_given) {
        let place = writer.place("cpu", "cpu", pointer)?;
        weight(cpu, place, writer)?;
        match place.unified {
            true => bandwidth_v2(cpu, place, writer)?,
            false => {
                real_time_v1(cpu, place, writer)?;
                bandwidth_v1(cpu, place, writer)?;
            }
        }
    }
    for (list, name, pointer) in
        [(cpu.cpus(), "cpuset.cpus", CPUS), (cpu.mems(), "cpuset.mems", MEMS)]
    {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            let place = writer.place("cpuset", "cpuset", pointer)?;
            writer.put(place, name, list, pointer)?;
        }
    }
    Ok(())
}

fn weight(cpu: &LinuxCpu, place: &Place, writer: &mut Writer<'_>) -> Result<()> {
    let idle = cpu.idle();
    if let Some(value) = idle {
        writer.put(place, "cpu.idle", &value.to_string(), IDLE)?;
    }
    // An idle group has no weight: the kernel answers EINVAL to one.
    let Some(shares) = given(cpu.shares()).filter(|_| idle != Some(1)) else { return Ok(()) };
    if place.unified {
        return writer.put(place, "cpu.weight", &cpu_weight(shares).to_string(), SHARES);
    }
    // Version 1 would clamp without a word.
    if !(2..=262_144).contains(&shares) {
        return Err(wrong(format!("cpu.shares {shares} is not within 2 and 262144"), SHARES));
    }
    writer.put(place, "cpu.shares", &shares.to_string(), SHARES)
}

fn bandwidth_v2(cpu: &LinuxCpu, place: &Place, writer: &mut Writer<'_>) -> Result<()> {
    for (is_given, pointer) in [
        (given(cpu.realtime_runtime()).is_some(), RT_RUNTIME),
        (given(cpu.realtime_period()).is_some(), RT_PERIOD),
    ] {
        if is_given {
            return Err(unsupported("real-time limits need cgroup v1".to_owned()).at(pointer));
        }
    }
    // A burst above the quota is refused at every instant: it goes first when it shrinks below
    // the new quota, else after it.
    let late_burst = early_burst(cpu, place, writer, "cpu.max.burst")?;
    let quota = given(cpu.quota())
        .map(|quota| if quota < 0 { "max".to_owned() } else { quota.to_string() });
    let value = match (quota, given(cpu.period())) {
        (None, None) => None,
        (Some(quota), None) => Some((quota, QUOTA)),
        (Some(quota), Some(period)) => Some((format!("{quota} {period}"), QUOTA)),
        (None, Some(period)) => {
            let now = writer.get(place, "cpu.max", PERIOD)?;
            Some((format!("{} {period}", now.split(' ').next().unwrap_or("max")), PERIOD))
        }
    };
    if let Some((value, pointer)) = value {
        writer.put(place, "cpu.max", &value, pointer)?;
    }
    match late_burst {
        Some(burst) => writer.put(place, "cpu.max.burst", &burst, BURST),
        None => Ok(()),
    }
}

/// Tries to write the burst, and returns it if it has to wait for the quota.
fn early_burst(
    cpu: &LinuxCpu,
    place: &Place,
    writer: &mut Writer<'_>,
    name: &str,
) -> Result<Option<String>> {
    let Some(burst) = cpu.burst().map(|burst| burst.to_string()) else { return Ok(None) };
    match writer.try_put(place, name, &burst) {
        Ok(()) => Ok(None),
        Err(error)
            if error.raw_os_error() == Some(libc::EINVAL) && given(cpu.quota()).is_some() =>
        {
            Ok(Some(burst))
        }
        Err(error) => Err(writer.failed(place, name, &burst, BURST, &error)),
    }
}

fn bandwidth_v1(cpu: &LinuxCpu, place: &Place, writer: &mut Writer<'_>) -> Result<()> {
    const PERIOD_FILE: &str = "cpu.cfs_period_us";
    let late_burst = early_burst(cpu, place, writer, "cpu.cfs_burst_us")?;
    let quota = given(cpu.quota());
    let mut period = given(cpu.period()).map(|period| period.to_string());
    if let Some(value) = &period {
        match writer.try_put(place, PERIOD_FILE, value) {
            Ok(()) => period = None,
            // The parent's ratio of quota to period binds the pair, so the new quota goes first.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && quota.is_some() => {}
            Err(error) => return Err(writer.failed(place, PERIOD_FILE, value, PERIOD, &error)),
        }
    }
    if let Some(quota) = quota {
        writer.put(place, "cpu.cfs_quota_us", &quota.max(-1).to_string(), QUOTA)?;
    }
    if let Some(value) = period {
        writer.put(place, PERIOD_FILE, &value, PERIOD)?;
    }
    match late_burst {
        Some(burst) => writer.put(place, "cpu.cfs_burst_us", &burst, BURST),
        None => Ok(()),
    }
}

fn real_time_v1(cpu: &LinuxCpu, place: &Place, writer: &mut Writer<'_>) -> Result<()> {
    let period = |writer: &mut Writer<'_>| match given(cpu.realtime_period()) {
        Some(period) => writer.put(place, "cpu.rt_period_us", &period.to_string(), RT_PERIOD),
        None => Ok(()),
    };
    let runtime = |writer: &mut Writer<'_>| match given(cpu.realtime_runtime()) {
        Some(runtime) => writer.put(place, "cpu.rt_runtime_us", &runtime.to_string(), RT_RUNTIME),
        None => Ok(()),
    };
    match period(writer) {
        Ok(()) => runtime(writer),
        // A period shorter than the runtime so far is refused: then the runtime goes first.
        Err(error) => runtime(writer).and_then(|()| period(writer)).map_err(|_| error),
    }
}

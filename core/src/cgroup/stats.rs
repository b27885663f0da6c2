//! What a container uses, in the shape of the data of `runc events --stats`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::file;
use super::location::{Location, Place};
use super::pids::is_gone;
use crate::error::{Category, Error, Result, Stage};

/// Resource usage of a container. What the machine does not count is 0, empty or absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    pub blkio: BlockIo,
    /// Huge pages, by page size such as `2MB`.
    pub hugetlb: BTreeMap<String, HugePages>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// Time denied by the quota.
    pub throttling: Throttling,
    /// Time lost to waiting for a processor; version 2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Processor time used, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CpuUsage {
    /// All of it.
    pub total: u64,
    /// On each processor; version 1 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// Outside the kernel.
    pub user: u64,
}

/// What the processor quota did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Throttling {
    /// Periods that have passed.
    pub periods: u64,
    /// Periods in which the quota ran out.
    pub throttled_periods: u64,
    /// Time spent held back, in nanoseconds.
    pub throttled_time: u64,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Memory {
    /// File pages, in bytes.
    pub cache: u64,
    /// Memory; without swap.
    pub usage: MemoryUsage,
    /// Memory and swap together in version 1, swap alone in version 2.
    pub swap: MemoryUsage,
    /// Kernel memory; version 1 only.
    pub kernel: MemoryUsage,
    /// TCP buffers; version 1 only.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryUsage,
    /// `memory.stat` as it is.
    pub raw: BTreeMap<String, u64>,
    /// Processes killed for want of memory. Not in runc's data.
    pub oom_kills: u64,
    /// Time lost to waiting for memory; version 2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MemoryUsage {
    /// The limit; `u64::MAX` for none in version 2.
    pub limit: u64,
    /// In use now.
    pub usage: u64,
    /// The most ever in use.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Pids {
    /// There now.
    pub current: u64,
    /// The limit; 0 for none.
    pub limit: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BlockIo {
    /// Bytes moved.
    pub io_service_bytes_recursive: Vec<BlockIoEntry>,
    /// Requests served.
    pub io_serviced_recursive: Vec<BlockIoEntry>,
    /// Time lost to waiting for input and output; version 2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One count of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BlockIoEntry {
    /// Major device number.
    pub major: u64,
    /// Minor device number.
    pub minor: u64,
    /// `Read`, `Write`, `Discard` and so on, as the kernel names it.
    pub op: String,
    /// The count.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HugePages {
    /// In use now.
    pub usage: u64,
    /// The most ever in use; version 1 only.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Pressure stall information.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Pressure {
    /// Some task waited.
    pub some: PressureLevel,
    /// All tasks waited.
    pub full: PressureLevel,
}

/// Shares of time in percent over the last seconds, and the total.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PressureLevel {
    /// Over 10 seconds.
    pub avg10: f64,
    /// Over 60 seconds.
    pub avg60: f64,
    /// Over 300 seconds.
    pub avg300: f64,
    /// Since the start, in microseconds.
    pub total: u64,
}

pub(super) fn read(location: &Location) -> Result<Stats> {
    let gone = |place: &Place| !place.directory().exists();
    if let Some(place) = location.places.iter().find(|place| gone(place)) {
        return Err(Error::new(
            Category::NotFound,
            Stage::Cgroup,
            format!("the cgroup {:?} is gone", place.directory()),
        ));
    }
    let mut stats = Stats::default();
    for place in &location.places {
        let directory = place.directory();
        if place.unified {
            read_v2(&directory, &mut stats);
            continue;
        }
        for controller in &place.controllers {
            read_v1(&directory, controller, &mut stats);
        }
    }
    hugetlb(location, &mut stats);
    Ok(stats)
}

fn number(directory: &Path, name: &str) -> u64 {
    match file::get(directory, name) {
        Ok(text) if text.trim() == "max" => u64::MAX,
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(_) => 0,
    }
}

fn table(directory: &Path, name: &str) -> BTreeMap<String, u64> {
    let text = file::get(directory, name).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn pids(directory: &Path) -> Pids {
    let limit = number(directory, "pids.max");
    let limit = if limit == u64::MAX { 0 } else { limit };
    Pids { current: number(directory, "pids.current"), limit }
}

fn read_v1(directory: &Path, controller: &str, stats: &mut Stats) {
    /// Clock ticks of `cpuacct.stat`: USER_HZ is 100 on every architecture we support.
    const NANOSECONDS_PER_TICK: u64 = 10_000_000;
    let value = |name: &str| number(directory, name);
    match controller {
        "cpuacct" => {
            let ticks = table(directory, "cpuacct.stat");
            let time = |key: &str| {
                ticks.get(key).copied().unwrap_or(0).saturating_mul(NANOSECONDS_PER_TICK)
            };
            let percpu = file::get(directory, "cpuacct.usage_percpu").unwrap_or_default();
            stats.cpu.usage = CpuUsage {
                total: value("cpuacct.usage"),
                percpu: percpu.split_whitespace().filter_map(|n| n.parse().ok()).collect(),
                kernel: time("system"),
                user: time("user"),
            };
        }
        "cpu" => {
            let table = table(directory, "cpu.stat");
            let of = |key: &str| table.get(key).copied().unwrap_or(0);
            stats.cpu.throttling = Throttling {
                periods: of("nr_periods"),
                throttled_periods: of("nr_throttled"),
                throttled_time: of("throttled_time"),
            };
        }
        "memory" => {
            let usage = |kind: &str| MemoryUsage {
                limit: value(&format!("memory.{kind}limit_in_bytes")),
                usage: value(&format!("memory.{kind}usage_in_bytes")),
                max: value(&format!("memory.{kind}max_usage_in_bytes")),
                failcnt: value(&format!("memory.{kind}failcnt")),
            };
            let raw = table(directory, "memory.stat");
            stats.memory = Memory {
                cache: raw.get("cache").copied().unwrap_or(0),
                usage: usage(""),
                swap: usage("memsw."),
                kernel: usage("kmem."),
                kernel_tcp: usage("kmem.tcp."),
                raw,
                oom_kills: table(directory, "memory.oom_control").remove("oom_kill").unwrap_or(0),
                psi: None,
            };
        }
        "pids" => stats.pids = pids(directory),
        "blkio" => {
            let entries = |kind: &str| {
                // BFQ counts only the devices it schedules; the throttling layer counts all.
                ["blkio.throttle", "blkio.bfq"]
                    .iter()
                    .map(|layer| block_v1(directory, &format!("{layer}.{kind}_recursive")))
                    .find(|entries| !entries.is_empty())
                    .unwrap_or_default()
            };
            stats.blkio.io_service_bytes_recursive = entries("io_service_bytes");
            stats.blkio.io_serviced_recursive = entries("io_serviced");
        }
        _ => {}
    }
}

/// Lines such as `8:0 Read 4096`; the `Total` of all devices has no device.
fn block_v1(directory: &Path, name: &str) -> Vec<BlockIoEntry> {
    let text = file::get(directory, name).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            Some(BlockIoEntry {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                op: words.next()?.to_owned(),
                value: words.next()?.parse().ok()?,
            })
        })
        .collect()
}

fn read_v2(directory: &Path, stats: &mut Stats) {
    let value = |name: &str| number(directory, name);
    let has = |name: &str| directory.join(name).exists();
    // Beside version 1 the counts are those of version 1, where the controllers are.
    if stats.cpu.usage.total == 0 {
        let table = table(directory, "cpu.stat");
        let nanoseconds = |key: &str| table.get(key).copied().unwrap_or(0).saturating_mul(1000);
        stats.cpu.usage = CpuUsage {
            total: nanoseconds("usage_usec"),
            percpu: Vec::new(),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
        };
        if table.contains_key("nr_periods") {
            stats.cpu.throttling = Throttling {
                periods: table["nr_periods"],
                throttled_periods: table.get("nr_throttled").copied().unwrap_or(0),
                throttled_time: nanoseconds("throttled_usec"),
            };
        }
    }
    if has("memory.current") {
        let raw = table(directory, "memory.stat");
        let events = table(directory, "memory.events");
        let count = |key: &str| events.get(key).copied().unwrap_or(0);
        stats.memory = Memory {
            cache: raw.get("file").copied().unwrap_or(0),
            usage: MemoryUsage {
                limit: value("memory.max"),
                usage: value("memory.current"),
                max: value("memory.peak"),
                failcnt: count("max"),
            },
            swap: MemoryUsage {
                limit: value("memory.swap.max"),
                usage: value("memory.swap.current"),
                max: value("memory.swap.peak"),
                failcnt: table(directory, "memory.swap.events").remove("max").unwrap_or(0),
            },
            oom_kills: count("oom_kill"),
            raw,
            ..Memory::default()
        };
    }
    if has("pids.current") {
        stats.pids = pids(directory);
    }
    if has("io.stat") {
        block_v2(&file::get(directory, "io.stat").unwrap_or_default(), &mut stats.blkio);
    }
    stats.cpu.psi = pressure(directory, "cpu.pressure");
    stats.memory.psi = pressure(directory, "memory.pressure");
    stats.blkio.psi = pressure(directory, "io.pressure");
}

/// Lines such as `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn block_v2(text: &str, into: &mut BlockIo) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(|device| device.split_once(':')) else {
            continue;
        };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let op = match key.as_bytes().first() {
                Some(b'r') => "Read",
                Some(b'w') => "Write",
                Some(b'd') => "Discard",
                _ => continue,
            };
            let list = match &key[1..] {
                "bytes" => &mut into.io_service_bytes_recursive,
                "ios" => &mut into.io_serviced_recursive,
                _ => continue,
            };
            let value = value.parse().unwrap_or(0);
            list.push(BlockIoEntry { major, minor, op: op.to_owned(), value });
        }
    }
}

fn pressure(directory: &Path, name: &str) -> Option<Pressure> {
    // EOPNOTSUPP where it is compiled in and switched off.
    parse_pressure(&file::get(directory, name).ok()?)
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let level = match words.next()? {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => level.avg10 = value.parse().ok()?,
                "avg60" => level.avg60 = value.parse().ok()?,
                "avg300" => level.avg300 = value.parse().ok()?,
                "total" => level.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    Some(pressure)
}

fn hugetlb(location: &Location, stats: &mut Stats) {
    let Some(place) = location.controller("hugetlb") else { return };
    let directory = place.directory();
    let (current, suffix) = match place.unified {
        true => ("current", ".current"),
        false => ("usage_in_bytes", ".usage_in_bytes"),
    };
    let Ok(entries) = std::fs::read_dir(&directory) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(suffix));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let value = |field: &str| number(&directory, &format!("hugetlb.{size}.{field}"));
        let pages = match place.unified {
            true => HugePages {
                usage: value(current),
                max: 0,
                failcnt: table(&directory, &format!("hugetlb.{size}.events"))
                    .remove("max")
                    .unwrap_or(0),
            },
            false => HugePages {
                usage: value(current),
                max: value("max_usage_in_bytes"),
                failcnt: value("failcnt"),
            },
        };
        stats.hugetlb.insert(size.to_owned(), pages);
    }
}

pub(super) fn oom_kills(location: &Location) -> Result<u64> {
    let Some(place) = location.controller("memory") else { return Ok(0) };
    let directory = place.directory();
    // In version 2 the count includes the cgroups below.
    let name = if place.unified { "memory.events" } else { "memory.oom_control" };
    match file::get(&directory, name) {
        Ok(text) => Ok(file::keyed(&text, "oom_kill").unwrap_or(0)),
        Err(error) if is_gone(&error) => Ok(0),
        Err(error) => Err(file::failed_to_read(&directory, name, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_stat_becomes_one_entry_for_each_operation() {
        let mut io = BlockIo::default();
        block_v2("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16 \n", &mut io);
        assert_eq!(io.io_service_bytes_recursive.len(), 3);
        assert_eq!(
            (io.io_serviced_recursive[1].op.as_str(), io.io_serviced_recursive[1].value),
            ("Write", 4)
        );
    }

    #[test]
    fn pressure_is_read_line_by_line() {
        let text = "some avg10=0.50 avg60=1.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let pressure = parse_pressure(text).unwrap();
        assert_eq!((pressure.some.avg10, pressure.some.total, pressure.full.total), (0.5, 42, 7));
    }

    #[test]
    fn times_that_cannot_be_do_not_overflow() {
        let directory = std::env::temp_dir().join(format!("locule-times-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for (name, key) in [("cpu.stat", "usage_usec"), ("cpuacct.stat", "user")] {
            std::fs::write(directory.join(name), format!("{key} {}\n", u64::MAX)).unwrap();
        }
        let mut stats = Stats::default();
        read_v2(&directory, &mut stats);
        assert_eq!(stats.cpu.usage.total, u64::MAX);
        read_v1(&directory, "cpuacct", &mut stats);
        assert_eq!(stats.cpu.usage.user, u64::MAX);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn the_json_has_the_names_of_runc() {
        let json = serde_json::to_value(Stats::default()).unwrap();
        for pointer in [
            "/cpu/usage/total",
            "/cpu/throttling/throttledPeriods",
            "/memory/usage/failcnt",
            "/memory/kernelTCP/limit",
            "/memory/raw",
            "/pids/current",
            "/blkio/ioServiceBytesRecursive",
        ] {
            assert!(json.pointer(pointer).is_some(), "{pointer}");
        }
    }
}

//! `linux.resources` as properties of a unit. Pure.
//!
//! systemd writes the cgroup files of a unit anew whenever it likes: when a property changes,
//! when it is reloaded. So what it has a property for has to be told to it, in addition to being
//! written; what it has none for it leaves alone.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};
use zvariant::Value;

use crate::cgroup::limits::{cpu_weight, given, io_weight};

/// systemd's "infinity".
const INFINITY: u64 = u64::MAX;

/// Properties of a unit, each once.
#[derive(Debug, Default)]
pub(super) struct Properties(Vec<(String, Value<'static>)>);

impl Properties {
    /// Sets a property, in place of what it was set to before.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value<'static>>) {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.to_owned(), value.into()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the methods of systemd take them.
    pub(super) fn list(&self) -> Vec<(&str, &Value<'static>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value)).collect()
    }

    #[cfg(test)]
    pub(super) fn get(&self, name: &str) -> Option<&Value<'static>> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value)
    }
}

/// Adds what the resources ask for. `version` is systemd's; `now` reads a file of the cgroup,
/// where there is one, for the other half of a pair of which only one is given.
pub(super) fn add(
    properties: &mut Properties,
    resources: &LinuxResources,
    version: u32,
    now: &dyn Fn(&str) -> Option<String>,
) {
    if let Some(memory) = resources.memory() {
        add_memory(properties, memory, now);
    }
    if let Some(cpu) = resources.cpu() {
        add_cpu(properties, cpu, version, now);
    }
    if let Some(pids) = resources.pids() {
        properties.set("TasksMax", tasks(pids.limit()));
    }
    let weight = resources.block_io().as_ref().and_then(|io| io.weight());
    if let Some(weight) = given(weight) {
        properties.set("IOWeight", io_weight(weight));
    }
    // Last, as raw values win over what was converted.
    for (file, value) in resources.unified().iter().flatten() {
        add_raw(properties, file, value.trim(), version);
    }
}

/// 0 is a limit, which systemd does not have; with 1, which it has, no process may fork either.
fn tasks(limit: i64) -> u64 {
    u64::try_from(limit).map_or(INFINITY, |limit| limit.max(1))
}

fn bytes(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(INFINITY)
}

fn add_memory(
    properties: &mut Properties,
    memory: &LinuxMemory,
    now: &dyn Fn(&str) -> Option<String>,
) {
    let limit = given(memory.limit());
    if let Some(limit) = limit {
        properties.set("MemoryMax", bytes(limit));
    }
    if let Some(reservation) = given(memory.reservation()) {
        properties.set("MemoryLow", bytes(reservation));
    }
    // The specification counts memory and swap together.
    let limit = limit.or_else(|| now("memory.max")?.parse().ok());
    match (given(memory.swap()), limit) {
        (Some(swap @ 0..), Some(limit @ 0..)) => {
            properties.set("MemorySwapMax", bytes((swap - limit).max(0)));
        }
        (Some(swap), _) if swap < 0 => properties.set("MemorySwapMax", INFINITY),
        (None, Some(limit)) if limit < 0 => properties.set("MemorySwapMax", INFINITY),
        _ => {}
    }
}

fn add_cpu(
    properties: &mut Properties,
    cpu: &LinuxCpu,
    version: u32,
    now: &dyn Fn(&str) -> Option<String>,
) {
    /// The weight of an idle group; systemd has had it since 252.
    const IDLE: u64 = 0;
    match (cpu.idle(), given(cpu.shares())) {
        (Some(1), _) if version >= 252 => properties.set("CPUWeight", IDLE),
        (Some(1), _) => {}
        (_, Some(shares)) => properties.set("CPUWeight", cpu_weight(shares)),
        (Some(_), None) => {
            let weight = now("cpu.weight").and_then(|weight| weight.parse().ok());
            properties.set("CPUWeight", weight.unwrap_or(100u64));
        }
        (None, None) => {}
    }
    let (quota, period) = (given(cpu.quota()), given(cpu.period()));
    if quota.is_some() || period.is_some() {
        let now = now("cpu.max").unwrap_or_else(|| "max 100000".to_owned());
        let (old_quota, old_period) = now.split_once(' ').unwrap_or((&now, ""));
        let quota = quota.or_else(|| old_quota.parse().ok()).unwrap_or(-1);
        let period = period.or_else(|| old_period.parse().ok()).unwrap_or(100_000);
        add_bandwidth(properties, quota, period, version);
    }
    let lists = [(cpu.cpus(), "AllowedCPUs"), (cpu.mems(), "AllowedMemoryNodes")];
    for (list, name) in lists {
        add_list(properties, name, list.as_deref().unwrap_or_default(), version);
    }
}

/// Without rounding: systemd's unit file has whole percents, but what it is told it keeps.
fn add_bandwidth(properties: &mut Properties, quota: i64, period: u64, version: u32) {
    if version >= 242 {
        properties.set("CPUQuotaPeriodUSec", period);
    }
    let per_second = u64::try_from(quota).ok().filter(|quota| *quota > 0).map(|quota| {
        let exact = u128::from(quota) * 1_000_000;
        u64::try_from(exact.div_ceil(u128::from(period))).unwrap_or(INFINITY)
    });
    properties.set("CPUQuotaPerSecUSec", per_second.unwrap_or(INFINITY));
}

fn add_list(properties: &mut Properties, name: &str, list: &str, version: u32) {
    if let (244.., Some(mask)) = (version, mask(list)) {
        properties.set(name, mask);
    }
}

/// A list such as `0-3,7` as bits, the lowest first; nothing for an empty or impossible one.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut mask = Vec::new();
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= 8192 {
            return None;
        }
        for number in first..=last {
            if mask.len() <= number / 8 {
                mask.resize(number / 8 + 1, 0);
            }
            mask[number / 8] |= 1u8 << (number % 8);
        }
    }
    (!mask.is_empty()).then_some(mask)
}

/// What `unified` has for a file that systemd has a property for. A value that makes no sense
/// is left to the kernel to refuse.
fn add_raw(properties: &mut Properties, file: &str, value: &str, version: u32) {
    let number = || if value == "max" { Some(INFINITY) } else { value.parse::<u64>().ok() };
    let name = match file {
        "memory.max" => "MemoryMax",
        "memory.high" => "MemoryHigh",
        "memory.low" => "MemoryLow",
        "memory.min" => "MemoryMin",
        "memory.swap.max" => "MemorySwapMax",
        "cpu.weight" => "CPUWeight",
        "pids.max" => {
            if let Some(limit) = number() {
                properties.set("TasksMax", limit.max(1));
            }
            return;
        }
        "cpu.idle" => {
            if value == "1" && version >= 252 {
                properties.set("CPUWeight", 0u64);
            }
            return;
        }
        "cpu.max" => {
            let (quota, period) = value.split_once(' ').unwrap_or((value, "100000"));
            let quota = if quota == "max" { Some(-1) } else { quota.parse().ok() };
            if let (Some(quota), Ok(period @ 1..)) = (quota, period.parse()) {
                add_bandwidth(properties, quota, period, version);
            }
            return;
        }
        "cpuset.cpus" => return add_list(properties, "AllowedCPUs", value, version),
        "cpuset.mems" => return add_list(properties, "AllowedMemoryNodes", value, version),
        _ => return,
    };
    if let Some(number) = number() {
        properties.set(name, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties_over(json: &str, version: u32, now: &[(&str, &str)]) -> Properties {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        let mut properties = Properties::default();
        let now = |file: &str| {
            now.iter().find(|(name, _)| *name == file).map(|(_, value)| (*value).to_owned())
        };
        add(&mut properties, &resources, version, &now);
        properties
    }

    fn properties(json: &str) -> Properties {
        properties_over(json, 255, &[])
    }

    fn number(properties: &Properties, name: &str) -> Option<u64> {
        properties.get(name).map(|value| u64::try_from(value.try_clone().unwrap()).unwrap())
    }

    #[test]
    fn memory_and_swap_together_become_memory_and_swap() {
        let all = properties(r#"{"memory": {"limit": 1000, "swap": 1500, "reservation": 500}}"#);
        assert_eq!(number(&all, "MemoryMax"), Some(1000));
        assert_eq!(number(&all, "MemorySwapMax"), Some(500));
        assert_eq!(number(&all, "MemoryLow"), Some(500));
        let all = properties(r#"{"memory": {"limit": -1, "swap": 0}}"#);
        assert_eq!(number(&all, "MemoryMax"), Some(u64::MAX));
        assert_eq!(number(&all, "MemorySwapMax"), Some(u64::MAX));
        let all = properties_over(r#"{"memory": {"swap": 700}}"#, 255, &[("memory.max", "600")]);
        assert_eq!(number(&all, "MemorySwapMax"), Some(100));
        assert_eq!(number(&all, "MemoryMax"), None);
    }

    #[test]
    fn a_quota_is_told_by_the_second_and_the_other_half_is_the_one_in_force() {
        let all = properties(r#"{"cpu": {"quota": 50000, "period": 200000}}"#);
        assert_eq!(number(&all, "CPUQuotaPerSecUSec"), Some(250_000));
        assert_eq!(number(&all, "CPUQuotaPeriodUSec"), Some(200_000));
        let all = properties_over(r#"{"cpu": {"quota": 3}}"#, 241, &[("cpu.max", "max 7")]);
        assert_eq!(number(&all, "CPUQuotaPerSecUSec"), Some(428_572));
        assert_eq!(number(&all, "CPUQuotaPeriodUSec"), None);
        let all = properties_over(r#"{"cpu": {"period": 9}}"#, 255, &[("cpu.max", "3 7")]);
        assert_eq!(number(&all, "CPUQuotaPerSecUSec"), Some(333_334));
        let all = properties(r#"{"cpu": {"quota": -1}}"#);
        assert_eq!(number(&all, "CPUQuotaPerSecUSec"), Some(u64::MAX));
    }

    #[test]
    fn an_idle_group_has_the_weight_that_systemd_means_by_it() {
        let json = r#"{"cpu": {"idle": 1, "shares": 1024}}"#;
        assert_eq!(number(&properties(json), "CPUWeight"), Some(0));
        assert_eq!(number(&properties_over(json, 251, &[]), "CPUWeight"), None);
        assert_eq!(number(&properties(r#"{"cpu": {"shares": 1024}}"#), "CPUWeight"), Some(100));
        let all = properties_over(r#"{"cpu": {"idle": 0}}"#, 255, &[("cpu.weight", "77")]);
        assert_eq!(number(&all, "CPUWeight"), Some(77));
    }

    #[test]
    fn processors_become_bits() {
        let all = properties(r#"{"cpu": {"cpus": "0-1,8", "mems": "0"}}"#);
        let bits = |name| Vec::<u8>::try_from(all.get(name).unwrap().try_clone().unwrap());
        assert_eq!(bits("AllowedCPUs").unwrap(), [3, 1]);
        assert_eq!(bits("AllowedMemoryNodes").unwrap(), [1]);
        assert!(properties_over(r#"{"cpu": {"cpus": "0"}}"#, 243, &[]).is_empty());
    }

    #[test]
    fn no_processes_is_one_and_no_limit_is_infinity() {
        let tasks = |json| number(&properties(json), "TasksMax");
        assert_eq!(tasks(r#"{"pids": {"limit": 0}}"#), Some(1));
        assert_eq!(tasks(r#"{"pids": {"limit": 7}}"#), Some(7));
        assert_eq!(tasks(r#"{"pids": {"limit": -1}}"#), Some(u64::MAX));
        assert_eq!(tasks(r#"{"unified": {"pids.max": "0"}}"#), Some(1));
    }

    #[test]
    fn raw_values_win_and_what_systemd_has_no_property_for_is_left_out() {
        let all = properties(
            r#"{"memory": {"limit": 1000}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
                "unified": {"memory.max": "2000", "memory.oom.group": "1", "cpu.max": "50 100",
                            "memory.high": "max", "cpuset.cpus": "1"}}"#,
        );
        assert_eq!(number(&all, "MemoryMax"), Some(2000));
        assert_eq!(number(&all, "MemoryHigh"), Some(u64::MAX));
        assert_eq!(number(&all, "CPUQuotaPerSecUSec"), Some(500_000));
        assert!(all.get("AllowedCPUs").is_some());
        assert_eq!(all.list().len(), 5);
    }
}

//! What the host sees of a container: its cgroups, and what is written in them.

use std::fs;
use std::path::{Path, PathBuf};

/// What is a setting and no figure.
const SETTINGS: &[&str] = &[
    "limit_in_bytes",
    "swappiness",
    "oom_control",
    "use_hierarchy",
    "move_charge_at_immigrate",
    "shares",
    "quota_us",
    "period_us",
    "burst_us",
    "runtime_us",
    "cpu.idle",
    "cpuset.cpus",
    "cpuset.mems",
    "exclusive",
    "hardwall",
    "memory_migrate",
    "memory_spread_page",
    "load_balance",
    "pids.max",
    "devices.list",
    "weight",
    "weight_device",
    "bps_device",
    "iops_device",
    "classid",
    "ifpriomap",
    "rdma.max",
    "freezer.state",
    "notify_on_release",
    "uclamp.min",
    "uclamp.max",
    ".high",
    ".low",
    ".min",
    "memory.max",
    "swap.max",
    "cpu.max",
];

pub fn look(pid: i32) -> Vec<String> {
    let mut lines = Vec::new();
    for (controller, directory) in cgroups(pid) {
        let path = directory.strip_prefix("/sys/fs/cgroup").unwrap_or(&directory);
        let path = path.components().skip(1).collect::<PathBuf>();
        lines.push(format!("cgroup {controller}={}", path.display()));
        let mut settings: Vec<_> = fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|file| SETTINGS.iter().any(|end| file.to_string_lossy().ends_with(end)))
            .collect();
        settings.sort();
        for file in settings {
            let text = fs::read_to_string(&file).unwrap_or_else(|error| error.to_string());
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name =
                if name.starts_with(&controller) { name } else { format!("{controller} {name}") };
            let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
            if name == "devices.list" {
                rows = without_the_obvious(&rows);
            }
            rows.sort_unstable();
            lines.push(format!("setting {name}={}", rows.join("; ")));
        }
    }
    for file in ["oom_score_adj", "timens_offsets"] {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        lines.push(format!("{file}={}", text.trim().replace('\n', "; ")));
    }
    lines
}

/// Of what several rules allow each is said once.
fn without_the_obvious(rules: &[String]) -> Vec<String> {
    let split = |rule: &str| -> Option<[String; 4]> {
        let (kind, rest) = rule.split_once(' ')?;
        let (numbers, access) = rest.split_once(' ')?;
        let (major, minor) = numbers.split_once(':')?;
        Some([kind, major, minor, access].map(str::to_owned))
    };
    let rules: Vec<[String; 4]> = rules.iter().filter_map(|rule| split(rule)).collect();
    let includes = |all: &str, one: &str| all == "*" || all == one;
    let mut left = Vec::new();
    for (index, [kind, major, minor, access]) in rules.iter().enumerate() {
        let mut access = access.clone();
        for (other, [k, all_major, all_minor, allowed]) in rules.iter().enumerate() {
            let wider = includes(all_major, major) && includes(all_minor, minor);
            if other != index && k == kind && wider {
                access.retain(|letter| !allowed.contains(letter));
            }
        }
        if !access.is_empty() {
            left.push(format!("{kind} {major}:{minor} {access}"));
        }
    }
    left
}

/// The controllers and where a process is in them.
pub fn cgroups(pid: i32) -> Vec<(String, PathBuf)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mut found: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let name = controllers.strip_prefix("name=").unwrap_or(controllers);
            let name = if name.is_empty() { "unified" } else { name };
            let directory = Path::new("/sys/fs/cgroup").join(name);
            Some((name.to_owned(), directory.join(path.trim_start_matches('/'))))
        })
        .collect();
    found.sort();
    found
}

//! Makes what the probe says comparable: numbers that differ from run to run go.

use std::collections::HashMap;
use std::fs;

/// Files of one line.
const SINGLE: [&str; 4] = ["oom_score_adj", "timerslack", "coredump_filter", "setgroups"];

pub fn normalise(text: &str) -> Vec<String> {
    let mut mounts = Vec::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = line.trim_end_matches('\r');
        if let Some(mount) = line.strip_prefix("mount ") {
            mounts.push(mount);
        } else if let Some(namespace) = line.strip_prefix("namespace ") {
            lines.push(format!("namespace {}", whose(namespace)));
        } else if let Some(parent) = line.strip_prefix("parent=") {
            // Without a pid namespace it is somebody on the host.
            lines.push(format!("parent={}", if parent == "0" { "outside" } else { "somebody" }));
        } else if let Some(pid) = line.strip_prefix("pid=") {
            lines.push(format!("pid={}", if pid == "1" { "1" } else { "another" }));
        } else if let Some(queue) = line.strip_prefix("status SigQ:\\x09") {
            // How many the user has is the machine's affair.
            let limit = queue.split('/').nth(1).unwrap_or_default();
            lines.push(format!("status SigQ={limit}"));
        } else if let Some(value) = SINGLE.iter().find_map(|name| {
            line.strip_prefix(name)?.strip_prefix(' ').map(|value| format!("{name}={value}"))
        }) {
            lines.push(value);
        } else if let Some(traffic) = line.strip_prefix("interface ") {
            let (name, _) = traffic.split_once(':').unwrap_or((traffic, ""));
            lines.push(format!("interface {}", name.trim()));
        } else {
            lines.push(line.to_owned());
        }
    }
    lines.extend(mount_lines(&mounts));
    lines
}

/// `pid=pid:[4026531836]`: whether that is the host's.
fn whose(namespace: &str) -> String {
    let (name, link) = namespace.split_once('=').unwrap_or((namespace, ""));
    let is = |path: &str| fs::read_link(path).is_ok_and(|target| target.as_os_str() == link);
    let whose = if link == "none" {
        "none"
    } else if is(&format!("/proc/self/ns/{name}")) {
        "the host's"
    } else {
        "its own"
    };
    format!("{name}={whose}")
}

/// Mount ids become paths, peer groups the words for them.
fn mount_lines(mounts: &[&str]) -> Vec<String> {
    let field = |line: &str, number: usize| line.split(' ').nth(number).unwrap_or("").to_owned();
    let places: HashMap<String, String> =
        mounts.iter().map(|line| (field(line, 0), field(line, 4))).collect();
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut lines = Vec::new();
    for line in mounts {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let words: Vec<&str> = mount.split(' ').collect();
        let [_, parent, _, root, place, options, tags @ ..] = &words[..] else { continue };
        // Whether mounts appear on the host, too, or only come from there.
        let on_host = |tag: &&str| host.contains(&format!(" {tag} "));
        let tags: Vec<String> = tags
            .iter()
            .map(|tag| match tag.split(':').next().unwrap_or_default() {
                "shared" if on_host(tag) => "shared with the host".to_owned(),
                word => word.to_owned(),
            })
            .collect();
        let parent = places.get(*parent).map_or("outside", |place| place);
        let number = seen.entry((*place).to_owned()).or_default();
        let nth = if *number == 0 { String::new() } else { format!("#{number}") };
        *number += 1;
        lines.push(format!(
            "mount {place}{nth}=root {root} on {parent} options {options} tags {} is {filesystem}",
            tags.join(",")
        ));
    }
    lines
}

//! What a container can leave behind: a directory, a cgroup, a unit, a mount, a process.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Everything that is left, a line each; empty if all is well.
///
/// `prefix` is what the ids of the containers in question begin with, `directory` a path that
/// only they mount things below, `reaper` the process that their orphans fall to.
pub fn find(state_dir: &Path, prefix: &str, directory: &Path, reaper: Option<i32>) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(state_dir).into_iter().flatten().flatten() {
        found.push(format!("state directory {:?}", entry.path()));
    }
    cgroups_below(Path::new("/sys/fs/cgroup"), prefix, 5, &mut found);
    if crate::with_systemd() {
        units(prefix, &mut found);
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let directory = directory.to_str().expect("UTF-8");
    for line in mounts.lines().filter(|line| line.contains(directory) || line.contains(prefix)) {
        found.push(format!("mount {line}"));
    }
    let own = std::process::id() as i32;
    for pid in reaper.into_iter().flat_map(children).filter(|&pid| pid != own) {
        if let Some(what) = describe(pid) {
            found.push(format!("process {what}"));
        }
    }
    found
}

/// As [`find`], but waits for what is on its way out.
pub fn settle(
    patience: Duration,
    state_dir: &Path,
    prefix: &str,
    directory: &Path,
    reaper: Option<i32>,
) -> Vec<String> {
    let until = Instant::now() + patience;
    loop {
        let found = find(state_dir, prefix, directory, reaper);
        if found.is_empty() || Instant::now() > until {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes cgroups that a broken container has left, so that one bug is reported once.
pub fn remove_cgroups(prefix: &str) {
    for _ in 0..5 {
        let mut found = Vec::new();
        cgroups_below(Path::new("/sys/fs/cgroup"), prefix, 8, &mut found);
        for line in found.iter().rev() {
            let path = line.trim_start_matches("cgroup ");
            let _ = fs::write(format!("{path}/freezer.state"), "THAWED");
            let _ = fs::remove_dir(path);
        }
    }
}

fn cgroups_below(directory: &Path, prefix: &str, depth: u32, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(prefix) {
            found.push(format!("cgroup {}", entry.path().display()));
        } else if depth > 0 {
            cgroups_below(&entry.path(), prefix, depth - 1, found);
        }
    }
}

/// Units of systemd: the machine's, or for an ordinary user the user's own.
fn units(prefix: &str, found: &mut Vec<String>) {
    // SAFETY: cannot fail.
    let whose = if unsafe { libc::geteuid() } == 0 { "--system" } else { "--user" };
    let pattern = format!("*{prefix}*");
    let listed = Command::new("systemctl")
        .args([whose, "list-units", "--all", "--plain", "--no-legend", "--no-pager", &pattern])
        .output()
        .expect("systemctl");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    found.extend(listed.lines().map(|line| format!("unit {line}")));
}

/// The children of a process, whichever of its threads made them.
pub fn children(pid: i32) -> Vec<i32> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    all
}

/// A process in words; `None` if it is gone or a zombie that only has to be reaped.
fn describe(pid: i32) -> Option<String> {
    let state = state_of(pid)?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    (state != 'Z').then(|| format!("{pid} ({state}) {command}"))
}

/// The state letter of `/proc/PID/stat`; `None` if there is no such process.
pub fn state_of(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

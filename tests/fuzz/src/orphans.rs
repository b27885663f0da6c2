//! Processes and descriptors that a target has left behind.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Whoever of them loses their parent becomes this process's.
pub fn adopt() {
    nix::sys::prctl::set_child_subreaper(true).expect("it is allowed to everybody");
}

/// Kills and collects all of them.
pub fn reap() {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        for task in fs::read_dir("/proc/self/task").expect("procfs is there").flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for pid in children.split_whitespace() {
                let pid = pid.parse().expect("it is a number");
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => continue,
            Err(_) => return,
        }
        assert!(Instant::now() < deadline, "a process cannot be killed");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// What this process has open, by number.
pub fn descriptors() -> Vec<(i32, String)> {
    let mut open: Vec<_> = fs::read_dir("/proc/self/fd")
        .expect("procfs is there")
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            Some((entry.file_name().to_str()?.parse().ok()?, target))
        })
        // That of the directory itself.
        .filter(|(_, target): &(i32, String)| !target.starts_with("/proc/"))
        .collect();
    open.sort();
    open
}

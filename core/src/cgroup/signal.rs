//! Signals for every process of a container.

use std::thread;
use std::time::{Duration, Instant};

use super::file;
use super::freeze;
use super::location::Location;
use super::pids;
use crate::error::{Category, Error, Result, Stage};

/// How long the processes have to stop for a signal to be handed out.
const FREEZE_PATIENCE: Duration = Duration::from_millis(500);

/// Sends the signal to every process; for SIGKILL in one step where the kernel has it.
pub(super) fn all(location: &Location, signal: i32) -> Result<()> {
    if signal == libc::SIGKILL {
        if let Some(place) = location.unified() {
            let directory = place.directory();
            // Linux 5.14.
            match file::put(&directory, "cgroup.kill", "1") {
                // What a version 1 freezer holds dies only when it is thawed.
                Ok(()) => return freeze::thaw(location),
                Err(error) if pids::is_gone(&error) => {}
                Err(error) => {
                    return Err(file::failed_to_write(&directory, "cgroup.kill", "1", &error));
                }
            }
        }
    }
    // Frozen, no process can fork away from the list. Best effort: one that hangs in the kernel
    // must not keep the others from being signalled.
    let was_frozen = freeze::is_frozen(location)?;
    if !was_frozen {
        let _ = freeze::freeze(location, Instant::now() + FREEZE_PATIENCE);
    }
    let sent = each(location, signal);
    if !was_frozen || signal == libc::SIGKILL {
        freeze::thaw(location)?;
    }
    sent
}

fn each(location: &Location, signal: i32) -> Result<()> {
    let own = std::process::id() as i32;
    for pid in list(location)? {
        if pid == own {
            continue;
        }
        // SAFETY: kill takes two integers and touches no memory.
        if unsafe { libc::kill(pid, signal) } == 0 {
            continue;
        }
        match nix::errno::Errno::last_raw() {
            libc::ESRCH => {}
            errno => {
                return Err(Error::os(
                    Stage::Control,
                    errno,
                    format!("send signal {signal} to process {pid}"),
                ));
            }
        }
    }
    Ok(())
}

/// Kills, and returns once no process is left.
pub(super) fn kill_until_empty(location: &Location, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        if list(location)?.is_empty() {
            return Ok(());
        }
        all(location, libc::SIGKILL)?;
        let left = list(location)?;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::new(
                Category::Timeout,
                Stage::Control,
                format!("processes survive SIGKILL: {left:?}"),
            )
            .hint("a process in uninterruptible sleep dies only when its system call returns"));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The container's processes, from the hierarchy that is sure to have them all.
pub(super) fn list(location: &Location) -> Result<Vec<i32>> {
    let place = location
        .unified()
        .or_else(|| location.controller("freezer"))
        .or_else(|| location.places.first());
    place.map_or(Ok(Vec::new()), |place| pids::below(&place.directory()))
}

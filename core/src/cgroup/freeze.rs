//! Freezing every process of a container, and thawing them.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::file;
use super::location::{Location, Place};
use super::pids::is_gone;
use crate::error::{Category, Error, Result, Stage};

/// The place that freezes. The unified hierarchy goes first, also beside version 1: what it
/// has frozen can still be killed.
fn freezer(location: &Location) -> Option<&Place> {
    location
        .unified()
        .filter(|place| place.directory().join("cgroup.freeze").exists())
        .or_else(|| location.controller("freezer"))
}

/// Freezes, and returns once everything is frozen.
pub(super) fn freeze(location: &Location, deadline: Instant) -> Result<()> {
    let place = freezer(location).ok_or_else(|| {
        Error::new(
            Category::Unsupported,
            Stage::Cgroup,
            "the container has no cgroup that can freeze it",
        )
    })?;
    let directory = place.directory();
    let frozen = match place.unified {
        true => freeze_v2(&directory, deadline),
        false => freeze_v1(&directory, deadline),
    };
    match frozen {
        Ok(true) => Ok(()),
        Ok(false) => {
            thaw(location)?;
            Err(Error::new(
                Category::Timeout,
                Stage::Cgroup,
                "some process did not freeze in time; all are thawed again",
            ))
        }
        Err(error) => {
            let _ = thaw(location);
            Err(error)
        }
    }
}

fn freeze_v2(directory: &Path, deadline: Instant) -> Result<bool> {
    let failed = |error| file::failed_to_read(directory, "cgroup.events", &error);
    file::write(directory, "cgroup.freeze", "1")?;
    loop {
        // Opened anew each time: the poll below fires for changes since the last read.
        let mut events = File::open(directory.join("cgroup.events")).map_err(failed)?;
        let mut text = String::new();
        events.read_to_string(&mut text).map_err(failed)?;
        if file::keyed(&text, "frozen") == Some(1) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let slice = left.as_millis().clamp(1, 100) as u16;
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        // An interrupted poll is as good as one that timed out: the loop looks again.
        let _ = poll(&mut fds, PollTimeout::from(slice));
    }
}

fn freeze_v1(directory: &Path, deadline: Instant) -> Result<bool> {
    let mut pause = Duration::from_micros(50);
    for round in 1.. {
        // Written again each round: a process that forks while the kernel walks the cgroup
        // leaves it in FREEZING until then.
        file::write(directory, "freezer.state", "FROZEN")?;
        if file::read(directory, "freezer.state")?.trim() == "FROZEN" {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            break;
        }
        if round % 50 == 0 {
            // Two frozen processes may wait for a third that waits for them.
            file::write(directory, "freezer.state", "THAWED")?;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(false)
}

/// Thaws, whoever froze it, in whichever hierarchy.
pub(super) fn thaw(location: &Location) -> Result<()> {
    for place in &location.places {
        let directory = place.directory();
        let Some((name, value)) = switch(place) else { continue };
        match file::put(&directory, name, value) {
            Err(error) if !is_gone(&error) => {
                return Err(file::failed_to_write(&directory, name, value, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The file that thaws the place, and what to write.
fn switch(place: &Place) -> Option<(&'static str, &'static str)> {
    if place.unified {
        return Some(("cgroup.freeze", "0"));
    }
    let freezes = place.controllers.iter().any(|controller| controller == "freezer");
    freezes.then_some(("freezer.state", "THAWED"))
}

/// Whether any hierarchy holds the container frozen.
pub(super) fn is_frozen(location: &Location) -> Result<bool> {
    for place in &location.places {
        if place_is_frozen(place)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether somebody asked for this cgroup to be frozen.
pub(super) fn place_is_frozen(place: &Place) -> Result<bool> {
    let Some((name, _)) = switch(place) else { return Ok(false) };
    let directory = place.directory();
    match file::get(&directory, name) {
        Ok(text) => Ok(matches!(text.trim(), "1" | "FROZEN" | "FREEZING")),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(file::failed_to_read(&directory, name, &error)),
    }
}

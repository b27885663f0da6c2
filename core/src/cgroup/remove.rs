//! Removing a container's directories, and nothing else.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::location::Place;
use super::pids;
use crate::error::{Error, Result, Stage};

/// How long a cgroup may stay busy after its last process has gone: an exiting process leaves
/// it a moment after its parent could collect it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Removes the place's directory with those below it; of one that was there before the
/// container, only those below it. Nothing there is fine.
pub(super) fn place(place: &Place) -> Result<()> {
    let directory = place.directory();
    let deadline = Instant::now() + PATIENCE;
    if place.existed {
        return pids::children(&directory).try_for_each(|child| tree(&child, deadline));
    }
    tree(&directory, deadline)
}

fn tree(directory: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        let error = match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        if error.raw_os_error() != Some(libc::EBUSY)
            && error.raw_os_error() != Some(libc::ENOTEMPTY)
        {
            return Err(failed(directory, &error));
        }
        // Busy for its children or for its processes: the same errno.
        pids::children(directory).try_for_each(|child| tree(&child, deadline))?;
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(failed(directory, &error)),
            Err(_) => {}
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn failed(directory: &Path, error: &io::Error) -> Error {
    let failed = Error::io(Stage::Cgroup, error, format!("remove the cgroup {directory:?}"));
    match pids::below(directory) {
        Ok(pids) if !pids.is_empty() => failed.hint(format!("it still has processes: {pids:?}")),
        _ => failed,
    }
}

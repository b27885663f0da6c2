//! The processes in a cgroup and in those below it.

use std::fs;
use std::io;
use std::path::Path;

use super::file;
use crate::error::Result;

/// The pids in the directory and below, as this process sees them; none if it is gone.
pub(super) fn below(directory: &Path) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    collect(directory, &mut pids)?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

fn collect(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    match file::get(directory, "cgroup.procs") {
        // 0 stands for a process that this pid namespace cannot name.
        Ok(text) => pids
            .extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0)),
        // EOPNOTSUPP: a threaded cgroup, whose processes its domain lists.
        Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        Err(error) => return Err(file::failed_to_read(directory, "cgroup.procs", &error)),
    }
    for child in children(directory) {
        collect(&child, pids)?;
    }
    Ok(())
}

/// The cgroups right below the directory.
pub(super) fn children(directory: &Path) -> impl Iterator<Item = std::path::PathBuf> {
    // The link count of a cgroup directory is 2 plus its children, which spares listing the
    // fifty files of most.
    use std::os::unix::fs::MetadataExt;
    let leaf = fs::symlink_metadata(directory).map_or(true, |metadata| metadata.nlink() == 2);
    let entries = (!leaf).then(|| fs::read_dir(directory).ok()).flatten();
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}

/// Whether the error says that the cgroup was removed.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

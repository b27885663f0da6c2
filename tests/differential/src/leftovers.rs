//! What a deleted container must not leave behind.

use std::fs;
use std::path::Path;

/// A line for each thing that is left of a container; cgroups are removed then, so that one bug is
/// reported once.
pub fn of(root: &Path, id: &str) -> Vec<String> {
    let mut found = Vec::new();
    if root.join(id).exists() {
        found.push("a state directory".to_owned());
    }
    cgroups(Path::new("/sys/fs/cgroup"), id, 4, &mut found);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines().rev() {
        let place = line.split(' ').nth(4).unwrap_or_default();
        if place.starts_with(crate::bundle::BUNDLE) {
            found.push(format!("a mount at {place}"));
            let place = std::ffi::CString::new(place).expect("no NUL");
            // SAFETY: a C string.
            unsafe { libc::umount2(place.as_ptr(), libc::MNT_DETACH) };
        }
    }
    found
}

fn cgroups(directory: &Path, id: &str, depth: u32, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if depth > 0 {
            cgroups(&entry.path(), id, depth - 1, found);
        }
        if entry.file_name().to_string_lossy().contains(id) {
            found.push(format!("the cgroup {}", entry.path().display()));
            let _ = fs::remove_dir(entry.path());
        }
    }
}

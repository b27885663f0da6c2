//! Removes what was unpacked, however deep a stranger has made it.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Removes a tree in a directory that nobody else writes to, with one descriptor: directories in it
/// are moved up first, to names that begin like its own. What stays if that fails stays there.
pub(super) fn remove_tree(top: &Path) -> io::Result<()> {
    let mut waiting = vec![top.to_owned()];
    let mut count = 0u64;
    while let Some(dir) = waiting.pop() {
        open_up(&dir);
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let path = entry.path();
            if !entry.file_type()?.is_dir() {
                fs::remove_file(path)?;
            } else if fs::remove_dir(&path).is_err() {
                open_up(&path);
                // One that was interrupted may have left some.
                let mut place = beside(top, count);
                while place.symlink_metadata().is_ok() {
                    count += 1;
                    place = beside(top, count);
                }
                fs::rename(path, &place)?;
                waiting.push(place);
            }
        }
        fs::remove_dir(dir)?;
    }
    Ok(())
}

fn beside(top: &Path, count: u64) -> PathBuf {
    let mut name = top.as_os_str().to_owned();
    name.push(format!(".{count}"));
    name.into()
}

/// An image may have directories in which even their owner can do nothing. If it does not help, what
/// comes next says so.
fn open_up(dir: &Path) {
    let _ = fs::set_permissions(dir, Permissions::from_mode(0o700));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_goes() {
        let dir = std::env::temp_dir().join(format!("locule-removal-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let top = dir.join("top");
        let half = "d/".repeat(1500);
        for name in ["top", "other"] {
            fs::create_dir_all(dir.join(name).join(&half)).unwrap();
        }
        fs::write(dir.join("other/file"), "").unwrap();
        fs::rename(dir.join("other"), top.join(&half).join("other")).unwrap();
        fs::create_dir_all(top.join("closed/full")).unwrap();
        fs::write(dir.join("kept"), "").unwrap();
        fs::create_dir_all(dir.join("top.0/left")).unwrap();
        std::os::unix::fs::symlink("../kept", top.join("closed/link")).unwrap();
        fs::set_permissions(top.join("closed"), Permissions::from_mode(0o000)).unwrap();
        remove_tree(&top).unwrap();
        let left: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|left| left.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2);
        assert!(dir.join("kept").is_file() && dir.join("top.0/left").is_dir());
        fs::remove_dir_all(dir).unwrap();
    }
}

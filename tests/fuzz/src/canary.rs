//! A place in which everything is known, so that it is seen if something else was written than what was meant to be.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A fresh directory with `canary`, which nobody may touch, in it.
pub struct Nest {
    path: PathBuf,
    before: BTreeMap<PathBuf, String>,
}

impl Nest {
    /// One of this name.
    pub fn new(name: &str) -> Nest {
        let path = crate::scratch().join(name);
        let _ = fs::remove_dir_all(&path);
        let canary = path.join("canary");
        fs::create_dir_all(canary.join("dir")).unwrap();
        for name in ["file", "dir/file"] {
            fs::write(canary.join(name), "tweet").unwrap();
            fs::set_permissions(canary.join(name), PermissionsExt::from_mode(0o640)).unwrap();
        }
        symlink("file", canary.join("link")).unwrap();
        let before = looks(&canary);
        Nest { path, before }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Fails unless the canary is as it was, and nothing is there but what has these names.
    pub fn check(&self, names: &[&str]) {
        assert_eq!(looks(&self.path.join("canary")), self.before, "the canary");
        for entry in fs::read_dir(&self.path).unwrap() {
            let name = entry.unwrap().file_name();
            assert!(name == "canary" || names.iter().any(|known| name == **known), "{name:?}");
        }
    }
}

impl Drop for Nest {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// All that can be seen of a tree, but for when something was last read.
fn looks(path: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let mut look = format!(
            "{:o} {}:{} links {} size {} at {}.{}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.nlink(),
            found.size(),
            found.ctime(),
            found.ctime_nsec()
        );
        if found.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if found.is_file() {
            look.push_str(&format!(" {:?}", fs::read(&path).unwrap()));
        }
        all.insert(path, look);
    }
    all
}

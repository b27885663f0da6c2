//! Trees, compared in all that a layer can say of a file.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::sha256;

/// What there is to say of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Type and permissions.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub modified: (i64, i64),
    /// Digest of the content, target of a link, number of a device.
    pub content: String,
    /// Extended attributes.
    pub attributes: BTreeMap<OsString, Vec<u8>>,
    /// The first of the paths that are the same file.
    pub same_as: PathBuf,
}

/// Looks at a tree. Paths are relative to it; the tree's own is empty.
pub fn look(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).expect("a file of the tree");
        let kind = metadata.file_type();
        let content = if kind.is_dir() {
            for entry in fs::read_dir(&full).expect("a directory of the tree") {
                waiting.push(path.join(entry.expect("an entry").file_name()));
            }
            String::new()
        } else if kind.is_symlink() {
            format!("{:?}", fs::read_link(&full).expect("a link"))
        } else if kind.is_file() {
            sha256(&fs::read(&full).expect("a file"))
        } else if kind.is_block_device() || kind.is_char_device() {
            format!("device {:x}", metadata.rdev())
        } else {
            String::new()
        };
        let entry = Entry {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            content,
            attributes: attributes(&full),
            same_as: PathBuf::from(format!("{}:{}", metadata.dev(), metadata.ino())),
        };
        found.insert(path, entry);
    }
    let mut first: HashMap<PathBuf, PathBuf> = HashMap::new();
    for (path, entry) in &mut found {
        let inode = std::mem::take(&mut entry.same_as);
        entry.same_as = first.entry(inode).or_insert_with(|| path.clone()).clone();
    }
    found
}

/// What differs, a line for each file; nothing if the trees are the same.
pub fn difference(
    ours: &BTreeMap<PathBuf, Entry>,
    theirs: &BTreeMap<PathBuf, Entry>,
) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, entry) in ours {
        match theirs.get(path) {
            None => lines.push(format!("only ours: {path:?}")),
            Some(other) if other != entry => {
                lines.push(format!("{path:?}:\n  ours   {entry:?}\n  theirs {other:?}"));
            }
            Some(_) => {}
        }
    }
    let missing = theirs.keys().filter(|path| !ours.contains_key(*path));
    lines.extend(missing.map(|path| format!("only theirs: {path:?}")));
    lines
}

fn attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    let mut names = vec![0u8; 64 << 10];
    // SAFETY: path and buffer live through the call, which writes no more than the buffer's length.
    let length = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(length).unwrap_or(0));
    let mut all = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let c_name = CString::new(name).expect("no NUL within");
        let mut value = vec![0u8; 64 << 10];
        // SAFETY: as above.
        let length = unsafe {
            libc::lgetxattr(path.as_ptr(), c_name.as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        value.truncate(usize::try_from(length).unwrap_or(0));
        all.insert(OsString::from(std::ffi::OsStr::from_bytes(name)), value);
    }
    all
}

//! Unpacked layers, seen as a container sees them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::{Entry, look};

/// Looks at the overlayfs of these directories, the topmost first, in a mount namespace of its own.
pub fn overlay(lower: &[PathBuf]) -> BTreeMap<PathBuf, Entry> {
    let dir = tempfile::tempdir().expect("a directory");
    let (point, empty) = (dir.path().join("root"), dir.path().join("empty"));
    for path in [&point, &empty] {
        std::fs::create_dir(path).expect("a directory");
    }
    // A single directory is no overlayfs. As long as a page may be, so links stand for the paths.
    let mut names = Vec::new();
    for (number, path) in lower.iter().chain([&empty]).enumerate() {
        let name = dir.path().join(number.to_string());
        std::os::unix::fs::symlink(path, &name).expect("a link");
        names.push(name.display().to_string());
    }
    let options = CString::new(format!("lowerdir={}", names.join(":"))).expect("no NUL");
    let looking = || {
        let target = CString::new(point.as_os_str().as_bytes()).expect("no NUL");
        let overlay = c"overlay".as_ptr();
        let none = std::ptr::null();
        // SAFETY: C strings that live through the calls. The namespace is this thread's alone, and
        // goes with it.
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "{}", last());
            let private = libc::MS_REC | libc::MS_PRIVATE;
            assert_eq!(libc::mount(none, c"/".as_ptr(), none, private, none.cast()), 0);
            let data = options.as_ptr().cast();
            let mounted = libc::mount(overlay, target.as_ptr(), overlay, libc::MS_RDONLY, data);
            assert_eq!(mounted, 0, "{}", last());
        }
        look(Path::new(&point))
    };
    std::thread::scope(|scope| scope.spawn(looking).join()).expect("the layers of an overlayfs")
}

fn last() -> std::io::Error {
    std::io::Error::last_os_error()
}

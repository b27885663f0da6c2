//! Archives as tests want them, right and wrong, and a place to unpack them to.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use tar::{EntryType, Header};

use super::{Form, Ids, Limits, Options, apply};
use crate::Result;
use crate::image::xattr::{self, Of};
use crate::image::{Guide, Transfer};

/// An archive in the making.
#[derive(Clone, Default)]
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    pub(super) fn new() -> Tar {
        Tar::default()
    }

    /// An entry, its header changed at will before the checksum is made.
    pub(super) fn with(
        mut self,
        kind: EntryType,
        name: impl AsRef<[u8]>,
        data: impl AsRef<[u8]>,
        change: impl FnOnce(&mut Header),
    ) -> Tar {
        let (name, data) = (name.as_ref(), data.as_ref());
        if name.len() > 100 {
            self = self.extension(EntryType::GNULongName, &[name, b"\0"].concat());
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        let count = name.len().min(100);
        header.as_old_mut().name[..count].copy_from_slice(&name[..count]);
        header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
        // As the one who runs the tests.
        header.set_uid(nix::unistd::getuid().as_raw().into());
        header.set_gid(nix::unistd::getgid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.raw(&header, data)
    }

    /// A header as it is.
    pub(super) fn raw(mut self, header: &Header, data: &[u8]) -> Tar {
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(super) fn extension(self, kind: EntryType, data: &[u8]) -> Tar {
        self.with(kind, "extension", data, |_| {})
    }

    pub(super) fn pax(self, records: &[(&str, &[u8])]) -> Tar {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (1..).find(|digits| (rest + digits).to_string().len() == *digits);
            data.extend_from_slice(format!("{} {key}=", rest + length.unwrap()).as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.extension(EntryType::XHeader, &data)
    }

    pub(super) fn file(self, name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Tar {
        self.with(EntryType::Regular, name, data, |_| {})
    }

    pub(super) fn dir(self, name: impl AsRef<[u8]>) -> Tar {
        self.with(EntryType::Directory, name, "", |_| {})
    }

    pub(super) fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.linked(EntryType::Symlink, name, target)
    }

    pub(super) fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        self.linked(EntryType::Link, name, target)
    }

    fn linked(self, kind: EntryType, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Tar {
        let target = target.as_ref();
        if target.len() > 100 {
            let tar = self.extension(EntryType::GNULongLink, &[target, b"\0"].concat());
            return tar.with(kind, name, "", |_| {});
        }
        self.with(kind, name, "", |header| {
            header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
        })
    }

    pub(super) fn device(self, name: &str, kind: EntryType, major: u32, minor: u32) -> Tar {
        self.with(kind, name, "", |header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        })
    }

    /// The whole archive.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A directory for a test: `root`, for layers, and beside it `canary`, which nothing may change.
pub(super) struct Place {
    pub(super) path: PathBuf,
    canary: BTreeMap<PathBuf, String>,
}

impl Place {
    pub(super) fn new() -> Place {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("locule-unpack-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        fs::create_dir(path.join("root")).unwrap();
        fs::create_dir(path.join("canary")).unwrap();
        fs::create_dir(path.join("canary/dir")).unwrap();
        fs::write(path.join("canary/file"), "untouched").unwrap();
        symlink("file", path.join("canary/link")).unwrap();
        let canary = snapshot(&path.join("canary"));
        Place { path, canary }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    pub(super) fn canary(&self) -> String {
        self.path.join("canary").to_str().unwrap().to_owned()
    }

    pub(super) fn dir(&self, name: &str) -> File {
        let path = self.path.join(name);
        if !path.exists() {
            fs::create_dir(&path).unwrap();
        }
        File::open(path).unwrap()
    }

    /// Unpacks to `root` with the ordinary limits.
    pub(super) fn unpack(&self, form: Form, tar: &[u8]) -> Result<()> {
        self.unpack_with(form, &ids(), &Limits::default(), tar)
    }

    pub(super) fn unpack_with(
        &self,
        form: Form,
        ids: &Ids,
        limits: &Limits,
        tar: &[u8],
    ) -> Result<()> {
        let options = Options { form, ids, limits, lower: &[], copied: &Cell::new(0) };
        self.unpack_to("root", &options, tar)
    }

    pub(super) fn unpack_to(&self, name: &str, options: &Options<'_>, tar: &[u8]) -> Result<()> {
        let guide = Guide::new(Transfer::default());
        let mut tar = tar;
        let result = apply(&mut tar, &self.dir(name), options, &guide);
        assert!(result.is_err() || tar.is_empty(), "the stream was not read to its end");
        self.check();
        result
    }

    /// Unpacks layers, the lowest first, as one tree and as layers: the directories of these, topmost first.
    pub(super) fn unpack_all(&self, ids: &Ids, layers: &[Vec<u8>]) -> Result<Vec<File>> {
        let (limits, copied) = (&Limits::default(), &Cell::new(0));
        let mut lower: Vec<File> = Vec::new();
        for (number, tar) in layers.iter().enumerate() {
            let options = Options { form: Form::Tree, ids, limits, lower: &[], copied };
            self.unpack_to("root", &options, tar)?;
            let name = format!("layer{number}");
            let options = Options { form: Form::Layer, ids, limits, lower: &lower, copied };
            self.unpack_to(&name, &options, tar)?;
            lower.insert(0, self.dir(&name));
        }
        Ok(lower)
    }

    /// That nothing outside of what was unpacked to has changed.
    pub(super) fn check(&self) {
        assert_eq!(snapshot(&self.path.join("canary")), self.canary);
        for entry in fs::read_dir(&self.path).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name == "root" || name == "canary" || name.starts_with("layer"), "{name}");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fn open_up(path: &Path) {
            let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    open_up(&entry.path());
                }
            }
        }
        if !nix::unistd::geteuid().is_root() {
            open_up(&self.path);
        }
        fs::remove_dir_all(&self.path).unwrap();
    }
}

/// All there is to know about a tree, for comparison.
pub(super) fn snapshot(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut rest = vec![root.to_owned()];
    while let Some(path) = rest.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let content = if kind.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else if kind.is_file() {
            format!("{:?} {}", String::from_utf8_lossy(&fs::read(&path).unwrap()), metadata.nlink())
        } else if kind.is_dir() {
            rest.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else {
            format!("{:x}", metadata.rdev())
        };
        let text = format!(
            "{:o} {}:{} {}.{:09} {content}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        );
        found.insert(path.strip_prefix(root).unwrap().to_owned(), text);
    }
    found
}

/// The names in a tree, directories with a slash at the end.
pub(super) fn names(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let below = self::names(&entry.path());
            names.extend(below.iter().map(|below| format!("{name}/{below}")));
            names.push(format!("{name}/"));
        } else {
            names.push(name);
        }
    }
    names.sort();
    names
}

pub(super) fn get_xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let dir = File::open(path.parent().unwrap()).unwrap();
    let file = path.file_name().unwrap().as_bytes();
    xattr::get(Of::Name(dir.as_fd(), file), &CString::new(name).unwrap()).unwrap()
}

/// What the one who runs the tests can do.
pub(super) fn ids() -> Ids {
    if nix::unistd::geteuid().is_root() { Ids::Same } else { Ids::Caller }
}

/// Whether the tests run as root; says so if they do not.
pub(super) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: root");
    }
    root
}

//! Trees are made, packed, and read back with the `tar` crate and other people's programs.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::stat::{UtimensatFlags, makedev, mkdirat, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::mkfifo;

use super::super::Transfer;
use super::super::unpack::IdRange;
use super::*;

/// A directory that goes away.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        Dir::new_in(&std::env::temp_dir()).unwrap()
    }

    fn new_in(parent: &Path) -> io::Result<Dir> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("locule-pack-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        chmod(&path, 0o755);
        Ok(Dir(path))
    }

    fn at(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.0.join(Path::new(name.as_ref()))
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(&path).unwrap();
        chmod(&path, 0o755);
        path
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.at(name);
        fs::write(&path, content).unwrap();
        chmod(&path, 0o644);
        path
    }

    /// Every time is the same, then.
    fn settle(&self) {
        fn settle(path: &Path) {
            if path.symlink_metadata().unwrap().is_dir() {
                fs::read_dir(path).unwrap().for_each(|entry| settle(&entry.unwrap().path()));
            }
            set_time(path, 1_000_000_000, 0);
        }
        settle(&self.0);
    }

    fn pack(&self, kind: Kind, ids: &Ids) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let dir = File::open(&self.0).unwrap();
        let mut guide = Guide::new(Transfer::default());
        pack(&dir, kind, ids, &mut out, &mut guide).map(|_| out)
    }

    fn list(&self, kind: Kind) -> Vec<String> {
        names(&self.pack(kind, &Ids::Same).unwrap())
    }

    fn refused(&self, kind: Kind, ids: &Ids) -> Error {
        self.pack(kind, ids).expect_err("it is to be refused")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    let at = nix::fcntl::AT_FDCWD;
    utimensat(at, path, &time, &time, UtimensatFlags::NoFollowSymlink).unwrap();
}

/// `false`, and said so, where the kernel does not let us.
fn set_xattr(path: &Path, name: &str, value: &[u8]) -> bool {
    let (path, text) = (CString::new(path.as_os_str().as_bytes()).unwrap(), name);
    let name = CString::new(name).unwrap();
    let pointer = value.as_ptr() as *const libc::c_void;
    // SAFETY: both are C strings, and the value has this length.
    let result = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), pointer, value.len(), 0) };
    match Errno::result(result) {
        Ok(_) => true,
        Err(errno) => {
            println!("skipped: the attribute {text} cannot be set here: {errno}");
            false
        }
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: root");
    }
    root
}

fn make_device(path: &Path, kind: SFlag, numbers: (u64, u64)) -> bool {
    match mknod(path, kind, Mode::from_bits_truncate(0o600), makedev(numbers.0, numbers.1)) {
        Ok(()) => true,
        Err(errno) => {
            println!("skipped: a device cannot be made here: {errno}");
            false
        }
    }
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap();
    entries
        .map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned())
        .collect()
}

#[derive(Debug, PartialEq)]
struct Found {
    kind: EntryType,
    link: Option<String>,
    content: Vec<u8>,
    pax: BTreeMap<String, Vec<u8>>,
    header: Header,
}

#[derive(Debug, PartialEq)]
struct Header {
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    device: (u32, u32),
}

/// The records of a PAX header. Those of the `tar` crate end at the first newline, wherever it is.
fn records(mut bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap();
        let length: usize = std::str::from_utf8(&bytes[..space]).unwrap().parse().unwrap();
        let record = bytes[space + 1..length].strip_suffix(b"\n").unwrap();
        let equals = record.iter().position(|byte| *byte == b'=').unwrap();
        let name = String::from_utf8(record[..equals].to_vec()).unwrap();
        records.insert(name, record[equals + 1..].to_vec());
        bytes = &bytes[length..];
    }
    records
}

/// Of names that fit into a header.
fn entries(tar: &[u8]) -> BTreeMap<String, Found> {
    let mut archive = tar::Archive::new(tar);
    let mut found = BTreeMap::new();
    let mut pax = BTreeMap::new();
    for entry in archive.entries().unwrap().raw(true) {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if entry.header().entry_type() == EntryType::XHeader {
            pax = records(&content);
            continue;
        }
        let header = entry.header();
        let link = entry.link_name_bytes();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        assert_eq!(header.username_bytes().unwrap_or_default(), b"");
        let entry = Found {
            kind: header.entry_type(),
            link: link.map(|link| String::from_utf8_lossy(&link).into_owned()),
            content,
            pax: std::mem::take(&mut pax),
            header: Header {
                mode: header.mode().unwrap(),
                owner: (header.uid().unwrap(), header.gid().unwrap()),
                mtime: header.mtime().unwrap(),
                device: (
                    header.device_major().unwrap().unwrap(),
                    header.device_minor().unwrap().unwrap(),
                ),
            },
        };
        assert!(found.insert(name.clone(), entry).is_none(), "{name} is there twice");
    }
    found
}

#[test]
fn an_entry_says_all_there_is_to_a_file() {
    let dir = Dir::new();
    chmod(&dir.dir("d"), 0o1777);
    let file = dir.file("d/file", b"hello");
    chmod(&file, 0o4751);
    let attributes = set_xattr(&file, "user.b", b"\0\n\n=") && set_xattr(&file, "user.a", b"");
    set_time(&file, 1_234_567_890, 120_000_000);
    symlink("../some/where", dir.at("link")).unwrap();
    set_time(&dir.at("link"), -10, 250_000_000);
    mkfifo(&dir.at("fifo"), Mode::S_IRUSR).unwrap();
    chmod(&dir.at("fifo"), 0o620);
    drop(UnixListener::bind(dir.at("socket")).unwrap());
    dir.file("empty", b"");
    set_time(&dir.at("d"), 5, 0);
    let tar = dir.pack(Kind::Tree, &Ids::Same).unwrap();
    assert_eq!(tar.len() % 512, 0);
    assert_eq!(names(&tar), ["./", "d/", "d/file", "empty", "fifo", "link"]);

    let all = entries(&tar);
    let own = fs::metadata(&file).unwrap();
    let found = &all["d/file"];
    assert_eq!((found.kind, &found.content[..]), (EntryType::Regular, &b"hello"[..]));
    let owner = (own.uid().into(), own.gid().into());
    let header = Header { mode: 0o4751, owner, mtime: 1_234_567_890, device: (0, 0) };
    assert_eq!(found.header, header);
    assert_eq!(found.pax["mtime"], b"1234567890.12");
    if attributes {
        assert_eq!(found.pax["SCHILY.xattr.user.b"], b"\0\n\n=");
        assert_eq!(found.pax["SCHILY.xattr.user.a"], b"");
    }
    let found = &all["d/"];
    assert_eq!((found.kind, found.header.mode), (EntryType::Directory, 0o1777));
    assert_eq!((found.header.mtime, found.pax.len()), (5, 0));
    let found = &all["link"];
    assert_eq!((found.kind, found.link.as_deref()), (EntryType::Symlink, Some("../some/where")));
    assert_eq!(found.pax["mtime"], b"-9.75");
    assert_eq!((all["fifo"].kind, all["fifo"].header.mode), (EntryType::Fifo, 0o620));
    assert_eq!(all["empty"].content, b"");
    assert_eq!(all["./"].header.mode, 0o755);
}

#[test]
fn devices_keep_their_numbers() {
    let dir = Dir::new();
    if !is_root()
        || !make_device(&dir.at("b"), SFlag::S_IFBLK, (259, 1_048_575))
        || !make_device(&dir.at("c"), SFlag::S_IFCHR, (1, 3))
    {
        return;
    }
    chmod(&dir.at("c"), 0o666);
    let all = entries(&dir.pack(Kind::Upper(Marks::Trusted), &Ids::Same).unwrap());
    assert_eq!((all["b"].kind, all["b"].header.device), (EntryType::Block, (259, 1_048_575)));
    assert_eq!((all["c"].kind, all["c"].header.device), (EntryType::Char, (1, 3)));
    assert_eq!(all["c"].header.mode, 0o666);
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let make = |names: &[&str]| {
        let dir = Dir::new();
        for name in names {
            match name.strip_suffix('/') {
                Some(name) => drop(dir.dir(name)),
                None => drop(dir.file(name, name.as_bytes())),
            }
            for attribute in names.iter().filter(|_| name.starts_with('x')) {
                let attribute = format!("user.{}", attribute.replace('/', "-"));
                set_xattr(&dir.at(name), &attribute, b"v");
            }
        }
        dir.settle();
        let tar = dir.pack(Kind::Tree, &Ids::Same).unwrap();
        let again = dir.pack(Kind::Tree, &Ids::Same).unwrap();
        assert!(tar == again);
        tar
    };
    let mut order = vec!["a/", "a/b/", "a/b/c", "a-b", "a.b/", "a/é", "B", "x", "x1"];
    let tar = make(&order);
    assert_eq!(names(&tar), ["./", "B", "a/", "a/b/", "a/b/c", "a/é", "a-b", "a.b/", "x", "x1"]);
    order.swap(3, 8);
    order.swap(4, 6);
    order.swap(2, 5);
    assert!(make(&order) == tar);
}

#[test]
fn further_names_of_a_file_are_links_to_its_first() {
    for kind in [Kind::Tree, Kind::Upper(Marks::Trusted)] {
        let dir = Dir::new();
        dir.dir("b");
        dir.file("b/second", b"content");
        fs::hard_link(dir.at("b/second"), dir.at("a")).unwrap();
        fs::hard_link(dir.at("b/second"), dir.at("c")).unwrap();
        symlink("x", dir.at("l1")).unwrap();
        fs::hard_link(dir.at("l1"), dir.at("l2")).unwrap();
        // Its other name is elsewhere.
        let outside = Dir::new();
        dir.file("lone", b"lone");
        fs::hard_link(dir.at("lone"), outside.at("other")).unwrap();
        let all = entries(&dir.pack(kind, &Ids::Same).unwrap());
        assert_eq!((all["a"].kind, &all["a"].content[..]), (EntryType::Regular, &b"content"[..]));
        for name in ["b/second", "c"] {
            assert_eq!((all[name].kind, all[name].link.as_deref()), (EntryType::Link, Some("a")));
            assert_eq!(all[name].content, b"");
        }
        assert_eq!((all["l1"].kind, all["l2"].kind), (EntryType::Symlink, EntryType::Link));
        assert_eq!(all["l2"].link.as_deref(), Some("l1"));
        assert_eq!(all["lone"].content, b"lone");
    }
}

#[test]
fn marks_of_an_upper_directory_become_whiteouts() {
    let dir = Dir::new();
    dir.dir("plain");
    dir.dir("opaque");
    dir.file("opaque/a", b"");
    dir.dir("attributes");
    dir.file("attributes/gone", b"");
    dir.file("attributes/empty", b"");
    if !is_root()
        || !set_xattr(&dir.at("opaque"), "trusted.overlay.opaque", b"y")
        || !set_xattr(&dir.at("attributes"), "trusted.overlay.opaque", b"x")
        || !set_xattr(&dir.at("attributes/gone"), "trusted.overlay.whiteout", b"")
        || !set_xattr(&dir.at("plain"), "trusted.overlay.impure", b"y")
        || !make_device(&dir.at("plain/zz"), SFlag::S_IFCHR, (0, 0))
    {
        return;
    }
    dir.file("plain/aa", b"");
    // As overlayfs makes them.
    fs::hard_link(dir.at("plain/zz"), dir.at("opaque/zz")).unwrap();
    set_time(&dir.at("plain/zz"), 4_000_000_000, 0);
    let tar = dir.pack(Kind::Upper(Marks::Trusted), &Ids::Same).unwrap();
    assert_eq!(
        names(&tar),
        [
            "./",
            "attributes/",
            "attributes/.wh.gone",
            "attributes/empty",
            "opaque/",
            "opaque/.wh..wh..opq",
            "opaque/.wh.zz",
            "opaque/a",
            "plain/",
            "plain/.wh.zz",
            "plain/aa",
        ]
    );
    for (name, entry) in entries(&tar) {
        assert!(entry.pax.keys().all(|key| key == "mtime"), "{name}: {:?}", entry.pax);
        if name.contains(".wh.") {
            assert_eq!((entry.kind, entry.content.len()), (EntryType::Regular, 0));
            assert_eq!((entry.header.mtime, entry.header.mode), (0, 0o644));
        }
    }
    // In a tree they are what they are.
    let all = entries(&dir.pack(Kind::Tree, &Ids::Same).unwrap());
    assert_eq!(all["opaque/zz"].kind, EntryType::Char);
    assert!(all.keys().all(|name| !name.contains(".wh.")));
}

#[test]
fn only_the_marks_of_the_overlay_itself_count() {
    let dir = Dir::new();
    if !set_xattr(&dir.dir("opaque"), "user.overlay.opaque", b"y") {
        return;
    }
    assert_eq!(dir.list(Kind::Upper(Marks::User)), ["./", "opaque/", "opaque/.wh..wh..opq"]);
    // Without it, the directory was copied from a layer for user namespaces, and hides nothing.
    assert_eq!(dir.list(Kind::Upper(Marks::Trusted)), ["./", "opaque/"]);
    assert_eq!(dir.list(Kind::Tree), ["./", "opaque/"]);
}

#[test]
fn what_overlayfs_keeps_elsewhere_is_refused() {
    for (name, path) in [("redirect", "moved"), ("metacopy", "moved/file")] {
        let dir = Dir::new();
        dir.dir("moved");
        dir.file("moved/file", b"");
        for (space, marks) in [("user", Marks::User), ("trusted", Marks::Trusted)] {
            if set_xattr(&dir.at(path), &format!("{space}.overlay.{name}"), b"/elsewhere") {
                let error = dir.refused(Kind::Upper(marks), &Ids::Same);
                assert_eq!(error.category(), Category::Unsupported);
                assert!(error.to_string().contains(path), "{error}");
                assert_eq!(dir.list(Kind::Tree), ["./", "moved/", "moved/file"]);
            }
        }
    }
}

#[test]
fn a_file_that_would_be_taken_for_a_whiteout_is_refused() {
    for kind in [Kind::Upper(Marks::Trusted), Kind::Tree] {
        let dir = Dir::new();
        dir.dir("d");
        dir.file("d/.wh.x", b"");
        let error = dir.refused(kind, &Ids::Same);
        assert_eq!(error.category(), Category::Spec);
        assert!(error.to_string().contains("\"d/.wh.x\""), "{error}");
    }
}

#[test]
fn owners_are_those_in_the_image() {
    let dir = Dir::new();
    dir.file("a", b"");
    let all = entries(&dir.pack(Kind::Tree, &Ids::Caller).unwrap());
    assert_eq!(all["a"].header.owner, (0, 0));
    if !is_root() {
        return;
    }
    let range = |outside| vec![IdRange { inside: 0, outside, count: 70_000 }];
    let ids = Ids::Mapped { uids: range(100_000), gids: range(200_000) };
    std::os::unix::fs::lchown(&dir.0, Some(100_000), Some(200_000)).unwrap();
    std::os::unix::fs::lchown(dir.at("a"), Some(165_534), Some(200_005)).unwrap();
    let all = entries(&dir.pack(Kind::Tree, &ids).unwrap());
    assert_eq!((all["./"].header.owner, all["a"].header.owner), ((0, 0), (65_534, 5)));
    std::os::unix::fs::lchown(dir.at("a"), Some(1000), None).unwrap();
    let error = dir.refused(Kind::Tree, &ids);
    assert_eq!(error.category(), Category::Invalid);
    assert!(error.to_string().contains("\"a\": the image has no id for the user 1000"), "{error}");
}

#[test]
fn a_tree_is_packed_as_deep_as_it_can_be_unpacked_again() {
    let dir = Dir::new();
    let mut at = OwnedFd::from(File::open(&dir.0).unwrap());
    let mut go = |name: &str| {
        mkdirat(&at, name, Mode::S_IRWXU).unwrap();
        // Something to come back for.
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        openat(&at, "z", flags, Mode::S_IRUSR).unwrap();
        at = openat(&at, name, DIRECTORY, Mode::empty()).unwrap();
    };
    let depth = 3 * OPEN;
    let name = "n".repeat(41);
    (0..depth).for_each(|_| go(&name));
    go(&"n".repeat(63));
    let names = dir.list(Kind::Tree);
    assert_eq!(names.len(), 1 + 2 * (depth + 1));
    assert_eq!(names[depth + 1].len(), 4096);
    assert_eq!(names.last().unwrap(), "z");
    assert_eq!(names[depth + 2], format!("{}z", &names[depth]));

    go("n");
    let error = dir.refused(Kind::Tree, &Ids::Same);
    assert_eq!(error.category(), Category::Unsupported);
    let text = error.to_string();
    assert!(text.contains("nnn") && text.contains("no more than 4096 bytes"), "{text}");
    assert!(text.len() < 400, "{text}");
}

#[test]
fn what_would_not_be_unpacked_again_is_refused() {
    let dir = Dir::new();
    dir.file("small", b"");
    let file = File::create(dir.at("vast")).unwrap();
    file.set_len((128 << 30) + 1).unwrap();
    let error = dir.refused(Kind::Tree, &Ids::Same);
    assert_eq!(error.category(), Category::Resource);
    assert!(error.to_string().starts_with("\"vast\": with its 137438953473 bytes"), "{error}");

    // Here attributes may be large.
    let Ok(dir) = Dir::new_in(Path::new("/dev/shm")) else { return println!("skipped: /dev/shm") };
    let file = dir.file("f", b"");
    for number in 0..17 {
        if !set_xattr(&file, &format!("trusted.{number}"), &[b'x'; 1 << 16]) {
            return;
        }
    }
    let error = dir.refused(Kind::Tree, &Ids::Same);
    assert_eq!(error.category(), Category::Unsupported);
    assert!(error.to_string().starts_with("\"f\": in a layer, attributes have no"), "{error}");
}

#[test]
fn contents_of_every_length_come_back() {
    let dir = Dir::new();
    let sizes = [0, 1, 511, 512, 513, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 7];
    let content = |size: usize| (0..size).map(|at| (at / 3) as u8).collect::<Vec<_>>();
    for size in sizes {
        dir.file(&format!("{size}"), &content(size));
    }
    let sparse = File::create(dir.at("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    let all = entries(&dir.pack(Kind::Tree, &Ids::Same).unwrap());
    for size in sizes {
        assert!(all[&size.to_string()].content == content(size), "{size}");
    }
    assert!(all["sparse"].content == vec![0; 1 << 20]);
}

#[test]
fn names_need_not_be_text() {
    let dir = Dir::new();
    let name = OsStr::from_bytes(b"\xff\n\x01");
    fs::write(dir.at(name), b"x").unwrap();
    symlink(OsStr::from_bytes(&[0xfe; 300]), dir.at("link")).unwrap();
    let tar = dir.pack(Kind::Tree, &Ids::Same).unwrap();
    let mut archive = tar::Archive::new(&tar[..]);
    let found: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (entry.path_bytes().into_owned(), entry.link_name_bytes().map(|link| link.to_vec()))
        })
        .collect();
    assert_eq!(found[1], (b"link".to_vec(), Some(vec![0xfe; 300])));
    assert_eq!(found[2].0, name.as_bytes());
}

#[test]
fn what_was_packed_is_counted() {
    let dir = Dir::new();
    dir.file("old", b"1");
    dir.file("new", b"2");
    dir.settle();
    set_time(&dir.at("new"), 1_700_000_000, 5);
    let open = File::open(&dir.0).unwrap();
    let mut seen = Vec::new();
    let mut report = |progress: &super::super::Progress<'_>| {
        seen.push((progress.step, progress.done, progress.finished));
        Ok(())
    };
    let transfer = Transfer { progress: Some(&mut report), ..Transfer::default() };
    let mut out = Vec::new();
    let packed = pack(&open, Kind::Tree, &Ids::Same, &mut out, &mut Guide::new(transfer)).unwrap();
    assert_eq!(packed.latest, 1_700_000_000);
    assert_eq!(seen.first(), Some(&(Step::Pack, 0, false)));
    assert_eq!(seen.last(), Some(&(Step::Pack, out.len() as u64, true)));
}

#[test]
fn a_cancelled_call_and_a_full_disk_are_errors() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let dir = Dir::new();
    let open = File::open(&dir.0).unwrap();
    let mut guide = Guide::new(Transfer::default());
    let error = pack(&open, Kind::Tree, &Ids::Same, &mut Full, &mut guide).err().unwrap();
    assert_eq!(error.errno(), Some(libc::ENOSPC));
    let cancel = crate::Cancel::new().unwrap();
    cancel.cancel();
    let mut guide = Guide::new(Transfer { cancel: Some(&cancel), ..Transfer::default() });
    let error = pack(&open, Kind::Tree, &Ids::Same, &mut Vec::new(), &mut guide).err().unwrap();
    assert_eq!(error.category(), Category::Cancelled);
}

#[test]
fn gnu_tar_unpacks_the_same_tree() {
    if Command::new("tar").arg("--version").output().is_err() {
        println!("skipped: tar");
        return;
    }
    let dir = Dir::new();
    dir.dir("d/e");
    dir.file("d/e/file", b"content");
    dir.file(&format!("d/{}", "l".repeat(200)), b"long");
    fs::hard_link(dir.at("d/e/file"), dir.at("d/hard")).unwrap();
    symlink("e/file", dir.at("d/soft")).unwrap();
    chmod(&dir.file("mode", b""), 0o6711);
    dir.settle();
    set_time(&dir.at("mode"), 1_500_000_000, 123_456_789);
    let attributes = set_xattr(&dir.at("mode"), "user.x", b"\0\ny");
    let (archive, to) = (Dir::new(), Dir::new());
    fs::write(archive.at("a.tar"), dir.pack(Kind::Tree, &Ids::Same).unwrap()).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "-xpf"]).arg(archive.at("a.tar"));
    let output = tar.arg("-C").arg(&to.0).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");

    fn describe(path: &Path, under: &Path, text: &mut String) {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(under).unwrap();
        write!(text, "{name:?} {:o} {} {} ", meta.mode(), meta.uid(), meta.gid()).unwrap();
        write!(text, "{}.{} ", meta.mtime(), meta.mtime_nsec()).unwrap();
        if meta.is_file() {
            write!(text, "{} {:?}", meta.nlink(), fs::read(path).unwrap()).unwrap();
        }
        if meta.is_symlink() {
            write!(text, "{:?}", fs::read_link(path).unwrap()).unwrap();
        }
        text.push('\n');
        if meta.is_dir() {
            let mut paths: Vec<_> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            paths.sort();
            paths.iter().for_each(|path| describe(path, under, text));
        }
    }
    let (mut before, mut after) = (String::new(), String::new());
    describe(&dir.0, &dir.0, &mut before);
    describe(&to.0, &to.0, &mut after);
    assert_eq!(after, before);
    if attributes {
        let file = File::open(to.at("mode")).unwrap();
        let xattrs = xattr::read(Of::File(file.as_fd())).unwrap();
        assert!(xattrs.contains(&(b"user.x".to_vec(), b"\0\ny".to_vec())), "{xattrs:?}");
    }
}

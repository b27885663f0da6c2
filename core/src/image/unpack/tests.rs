//! What archives mean, in both forms.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use tar::{EntryType, Header};

use super::fixture::{Place, Tar, get_xattr, ids, is_root, names, snapshot};
use super::{Form, IdRange, Ids, Limits, Options, apply};
use crate::image::digest::wrap;
use crate::image::{Guide, Transfer, trees};
use crate::{Category, Error, Stage};

const FORMS: [Form; 2] = [Form::Tree, Form::Layer];

fn mode(mode: u32) -> impl FnOnce(&mut Header) {
    move |header| header.set_mode(mode)
}

#[test]
fn everything_an_entry_says_is_done() {
    for form in FORMS {
        let place = Place::new();
        let tar = Tar::new()
            .with(EntryType::Directory, "d", "", mode(0o1770))
            .pax(&[("mtime", b"1234567890.123456789")])
            .with(EntryType::Regular, "d/f", "data", mode(0o4751))
            .pax(&[("mtime", b"-1.5")])
            .symlink("d/l", "/nowhere/../at/all")
            .link("d/h", "d/f")
            .with(EntryType::Fifo, "p", "", mode(0o620))
            .with(EntryType::Continuous, "c", "more", mode(0))
            .end();
        place.unpack(form, &tar).unwrap();
        let root = place.root();
        let of = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
        // What came into it later did not change the directory's time.
        assert_eq!((of("d").mode(), of("d").mtime()), (0o041770, 1_000_000_000));
        let file = of("d/f");
        assert_eq!((file.mode(), file.nlink(), file.ino()), (0o104751, 2, of("d/h").ino()));
        assert_eq!((file.mtime(), file.mtime_nsec()), (1_234_567_890, 123_456_789));
        assert_eq!(fs::read(root.join("d/h")).unwrap(), b"data");
        let link = of("d/l");
        assert_eq!((link.mtime(), link.mtime_nsec()), (-2, 500_000_000));
        assert_eq!(fs::read_link(root.join("d/l")).unwrap(), Path::new("/nowhere/../at/all"));
        assert!(of("p").file_type().is_fifo());
        assert_eq!((of("p").mode() & 0o7777, of("p").mtime()), (0o620, 1_000_000_000));
        assert_eq!((of("c").mode() & 0o7777, of("c").len()), (0, 4));
    }
}

#[test]
fn owners_and_devices_are_the_images() {
    if !is_root() {
        return;
    }
    let own = |uid, gid| {
        move |header: &mut Header| {
            header.set_mode(0o6755);
            header.set_uid(uid);
            header.set_gid(gid);
            if matches!(header.entry_type(), EntryType::Char | EntryType::Block) {
                header.set_device_major(4095).unwrap();
                header.set_device_minor(70_000).unwrap();
            }
        }
    };
    let tar = Tar::new()
        .with(EntryType::Directory, "d", "", own(3, 4))
        .with(EntryType::Regular, "d/f", "", own(5, 6))
        .with(EntryType::Symlink, "l", "", |header| {
            own(7, 8)(header);
            header.set_link_name("x").unwrap();
        })
        .with(EntryType::Char, "c", "", own(9, 10))
        .with(EntryType::Block, "b", "", own(9, 10))
        .pax(&[("uid", b"4000000000"), ("gid", b"11")])
        .file("big", "")
        .file("implied/f", "")
        .end();
    let ranges = |outside| vec![IdRange { inside: 0, outside, count: 100 }];
    let mapped = Ids::Mapped {
        uids: [ranges(1000), vec![IdRange { inside: 4_000_000_000, outside: 5, count: 1 }]]
            .concat(),
        gids: ranges(2000),
    };
    for form in FORMS {
        for (ids, uid, gid, big) in [(&Ids::Same, 0, 0, 4_000_000_000), (&mapped, 1000, 2000, 5)] {
            let place = Place::new();
            place.unpack_with(form, ids, &Limits::default(), &tar).unwrap();
            let of = |name: &str| {
                let metadata = fs::symlink_metadata(place.root().join(name)).unwrap();
                (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
            };
            assert_eq!(of("d"), (uid + 3, gid + 4, 0o6755));
            assert_eq!(of("d/f"), (uid + 5, gid + 6, 0o6755));
            assert_eq!(of("l"), (uid + 7, gid + 8, 0o777));
            assert_eq!(of("c"), (uid + 9, gid + 10, 0o6755));
            assert_eq!(of("big"), (big, gid + 11, 0o644));
            assert_eq!(of("implied"), (uid, gid, 0o755));
            let device = fs::metadata(place.root().join("b")).unwrap().rdev();
            assert_eq!(device, libc::makedev(4095, 70_000));
        }
        let place = Place::new();
        place.unpack_with(form, &Ids::Caller, &Limits::default(), &tar).unwrap();
        for (path, text) in snapshot(&place.root()) {
            assert!(text.contains(" 0:0 "), "{path:?} {text}");
        }
        let few = Ids::Mapped { uids: ranges(1000), gids: ranges(1000) };
        let error = Place::new().unpack_with(form, &few, &Limits::default(), &tar).unwrap_err();
        assert_eq!(error.category(), Category::Invalid);
        let says = "entry \"big\": the user id 4000000000 is in no range of the mapping";
        assert_eq!(error.to_string(), says);
    }
}

#[test]
fn the_hosts_umask_does_not_matter() {
    // A thread may have a umask of its own.
    let thread = std::thread::spawn(|| {
        let place = Place::new();
        unshare(CloneFlags::CLONE_FS).unwrap();
        umask(Mode::from_bits_truncate(0o777));
        let tar = Tar::new()
            .with(EntryType::Directory, "d", "", mode(0o777))
            .with(EntryType::Regular, "d/f", "", mode(0o666))
            .with(EntryType::Fifo, "d/p", "", mode(0o666))
            .file("implied/f", "")
            .end();
        place.unpack(Form::Tree, &tar).unwrap();
        let of = |name: &str| fs::metadata(place.root().join(name)).unwrap().mode() & 0o7777;
        let modes = ["d", "d/f", "d/p", "implied"].map(of);
        assert_eq!(modes, [0o777, 0o666, 0o666, 0o755]);
    });
    thread.join().unwrap();
}

#[test]
fn old_headers_are_understood() {
    for form in FORMS {
        let place = Place::new();
        let v7 = |kind: u8| {
            move |header: &mut Header| {
                header.set_mode(0o755);
                header.as_old_mut().linkflag = [kind];
                header.as_mut_bytes()[257..].fill(0);
            }
        };
        let tar = Tar::new()
            .with(EntryType::Regular, "dir/", "", v7(0))
            .with(EntryType::Regular, "dir/file", "data", v7(0))
            // A slash means nothing here.
            .with(EntryType::Regular, "dir/other/", "data", v7(b'0'))
            .with(EntryType::Regular, "name", "", |header| {
                header.as_ustar_mut().unwrap().prefix[..3].copy_from_slice(b"dir");
            })
            .with(EntryType::Regular, "binary", "", |header| {
                // The end of the year 2242, which octal digits do not reach.
                header.set_mtime(1 << 33);
            })
            .extension(EntryType::GNULongName, b"dir/long\0more")
            .extension(EntryType::GNULongLink, b"target\0")
            .symlink("short", "")
            .extension(
                EntryType::XGlobalHeader,
                b"52 comment=0123456789012345678901234567890123456789\n",
            )
            .pax(&[("path", b"from/pax"), ("linkpath", b"pax-target"), ("comment", b"\xff")])
            .symlink("x", "y")
            .pax(&[("path", b""), ("size", b"4")])
            .with(EntryType::Regular, "sized", "four", |header| header.set_size(0))
            .end();
        place.unpack(form, &tar).unwrap();
        let root = place.root();
        let all = [
            "binary",
            "dir/",
            "dir/file",
            "dir/long",
            "dir/name",
            "dir/other",
            "from/",
            "from/pax",
            "sized",
        ];
        assert_eq!(names(&root), all);
        assert_eq!(fs::read_link(root.join("dir/long")).unwrap(), Path::new("target"));
        assert_eq!(fs::read_link(root.join("from/pax")).unwrap(), Path::new("pax-target"));
        assert_eq!(fs::read(root.join("sized")).unwrap(), b"four");
        assert_eq!(fs::metadata(root.join("binary")).unwrap().mtime(), 1 << 33);
    }
}

#[test]
fn what_comes_later_replaces_what_was_there() {
    let make = |kind: usize, tar: Tar| match kind {
        0 => tar.file("x", "new"),
        1 => tar.dir("x"),
        2 => tar.symlink("x", "other"),
        3 => tar.link("x", "other"),
        _ => tar.with(EntryType::Fifo, "x", "", |_| {}),
    };
    for form in FORMS {
        for before in 0..5 {
            for after in 0..5 {
                let tar = make(before, Tar::new().file("other", "other"));
                let tar = if before == 1 { tar.file("x/in/it", "") } else { tar };
                let place = Place::new();
                place.unpack(form, &make(after, tar).end()).unwrap();
                let kept: &[&str] = match (before, after) {
                    (1, 1) => &["other", "x/", "x/in/", "x/in/it"],
                    (_, 1) => &["other", "x/"],
                    _ => &["other", "x"],
                };
                assert_eq!(names(&place.root()), kept, "{before} {after}");
                // What shared its data with the one that was replaced still has it.
                assert_eq!(fs::read(place.root().join("other")).unwrap(), b"other");
                let alone = fs::Permissions::from_mode(0o100644);
                let metadata = fs::metadata(place.root().join("other")).unwrap();
                assert_eq!(metadata.permissions(), alone);
                assert_eq!(metadata.nlink(), if after == 3 { 2 } else { 1 });
            }
        }
    }
}

#[test]
fn attributes_are_kept_byte_for_byte() {
    let value: Vec<u8> = (0..=255).collect();
    for form in FORMS {
        let place = Place::new();
        let large = vec![b'x'; 1000];
        let tar = Tar::new()
            .pax(&[("SCHILY.xattr.user.one", &value), ("SCHILY.xattr.user.empty", b"")])
            .file("f", "")
            .pax(&[("SCHILY.xattr.user.large", &large)])
            .with(EntryType::Directory, "d", "", mode(0o500))
            .pax(&[("SCHILY.xattr.user.root", b"1"), ("SCHILY.xattr.nonsense", b"1")])
            .dir("./")
            .pax(&[("SCHILY.xattr.security.selinux", b"a:b:c:d")])
            .file("s", "")
            .end();
        place.unpack(form, &tar).unwrap();
        let get = |name: &str, key: &str| get_xattr(&place.path.join(name), key);
        assert_eq!(get("root/f", "user.one"), Some(value.clone()));
        assert_eq!(get("root/f", "user.empty"), Some(Vec::new()));
        assert_eq!(get("root/d", "user.large"), Some(large));
        assert_eq!(get("root", "user.root"), Some(b"1".to_vec()));
        assert_eq!(get("root/s", "security.selinux"), None);

        // A further entry of a directory starts afresh.
        let tar = Tar::new().pax(&[("SCHILY.xattr.user.new", b"1")]).dir("d").end();
        place.unpack(form, &tar).unwrap();
        assert_eq!(get("root/d", "user.large"), None);
        assert_eq!(get("root/d", "user.new"), Some(b"1".to_vec()));
    }
}

#[test]
fn users_attributes_are_left_out_where_the_kernel_has_none() {
    let user: &[(&str, &[u8])] = &[("SCHILY.xattr.user.x", b"1")];
    let sticky = |tar: Tar| tar.pax(user).with(EntryType::Directory, "d", "", mode(0o1777));
    let tar = sticky(sticky(Tar::new())).pax(user).symlink("l", "f").pax(user);
    let tar = tar.with(EntryType::Fifo, "p", "", |_| {}).pax(user).file("f", "");
    let tar = if is_root() { tar.pax(user).device("c", EntryType::Char, 1, 3) } else { tar };
    for form in FORMS {
        let place = Place::new();
        place.unpack(form, &tar.clone().end()).unwrap();
        for (name, value) in [("d", Some(&b"1"[..])), ("f", Some(b"1")), ("l", None), ("p", None)] {
            let found = get_xattr(&place.root().join(name), "user.x");
            assert_eq!(found.as_deref(), value, "{name}");
        }
    }
}

#[test]
fn capabilities_survive_and_are_mapped() {
    if !is_root() {
        return;
    }
    let second = [&[1, 0, 0, 2, 0, 4, 0, 0][..], &[0; 12]].concat();
    let tar = Tar::new()
        .pax(&[("SCHILY.xattr.security.capability", &second)])
        .with(EntryType::Regular, "f", "x", |header| {
            header.set_uid(1);
            header.set_gid(1);
        })
        .pax(&[("SCHILY.xattr.trusted.t", b"1")])
        .symlink("l", "f")
        .end();
    let range = vec![IdRange { inside: 0, outside: 70_000, count: 10 }];
    let mapped = Ids::Mapped { uids: range.clone(), gids: range };
    for form in FORMS {
        let place = Place::new();
        place.unpack(form, &tar).unwrap();
        let get = |name: &str, key: &str| get_xattr(&place.root().join(name), key);
        assert_eq!(get("f", "security.capability").as_ref(), Some(&second));
        assert_eq!(get("l", "trusted.t"), Some(b"1".to_vec()));
        let place = Place::new();
        place.unpack_with(form, &mapped, &Limits::default(), &tar).unwrap();
        let mut third = second.clone();
        third[3] = 3;
        third.extend_from_slice(&70_000u32.to_le_bytes());
        assert_eq!(get_xattr(&place.root().join("f"), "security.capability"), Some(third));
    }
}

#[test]
fn the_root_gets_what_is_said_of_it() {
    for form in FORMS {
        for name in [".", "./", "/", "./."] {
            let place = Place::new();
            let tar = Tar::new().file("a", "").with(EntryType::Directory, name, "", mode(0o711));
            place.unpack(form, &tar.file("b", "").end()).unwrap();
            let metadata = fs::metadata(place.root()).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o711, 1_000_000_000));
        }
    }
}

/// The same file with holes, as GNU tar writes it in four ways.
#[test]
fn holes_stay_holes() {
    let place = Place::new();
    let source = place.path.join("layer-source");
    fs::create_dir(&source).unwrap();
    let file = File::create(source.join("holes")).unwrap();
    for at in [0, 1 << 20, 5 << 20, 6 << 20, 7 << 20, 9 << 20, 11 << 20, 13 << 20] {
        std::os::unix::fs::FileExt::write_all_at(&file, b"data", at).unwrap();
    }
    file.set_len(20 << 20).unwrap();
    File::create(source.join("empty")).unwrap().set_len(1 << 20).unwrap();
    let ways: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for way in ways {
        let made = std::process::Command::new("tar")
            .args(["--create", "--sparse", "--owner=0", "--group=0", "--directory"])
            .arg(&source)
            .args(way)
            .args(["holes", "empty"])
            .output();
        let tar = match made {
            Ok(output) if output.status.success() => output.stdout,
            _ => return println!("skipped: GNU tar"),
        };
        assert!(tar.len() < 1 << 20);
        for form in FORMS {
            let place = Place::new();
            place.unpack_with(form, &Ids::Caller, &Limits::default(), &tar).unwrap();
            for name in ["holes", "empty"] {
                let (from, to) = (source.join(name), place.root().join(name));
                assert_eq!(fs::read(&to).unwrap(), fs::read(from).unwrap());
                assert!(fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
            }
            assert_eq!(names(&place.root()), ["empty", "holes"]);
        }
    }
}

/// Layers that say all there is to say about what is gone.
fn layers() -> Vec<Vec<u8>> {
    let first = Tar::new()
        .with(EntryType::Directory, ".", "", mode(0o751))
        .with(EntryType::Directory, "tmp", "", mode(0o1777))
        .dir("usr")
        .with(EntryType::Directory, "usr/bin", "", mode(0o555))
        .file("usr/bin/a", "a")
        .file("usr/bin/b", "b")
        .with(EntryType::Regular, "usr/bin/su", "su", mode(0o4755))
        .symlink("bin", "usr/bin")
        .symlink("sbin", "/bin")
        .dir("etc")
        .file("etc/passwd", "root")
        .dir("etc/old")
        .file("etc/old/x", "x")
        .dir("var")
        .dir("var/lib")
        .file("var/lib/one", "1")
        .file("var/lib/two", "2")
        .dir("var/cache")
        .file("var/cache/x", "x")
        .dir("replaced")
        .file("replaced/x", "x")
        .file("file", "file")
        .symlink("link", "file")
        .dir("again")
        .file("again/old", "x")
        .dir("late")
        .file("late/old", "x")
        .dir("late/d")
        .file("late/d/old", "x")
        .dir("implied")
        .file("implied/old", "x")
        .dir("deep")
        .dir("deep/er")
        .file("deep/er/x", "x")
        .pax(&[("SCHILY.xattr.user.x", b"1")])
        .with(EntryType::Directory, "marked", "", mode(0o700))
        .end();
    let second = Tar::new()
        // Without entries of their directories, and through a link of the lower layer.
        .file("tmp/x", "x")
        .file("bin/c", "c")
        .file("sbin/.wh.a", "")
        .link("usr/bin/d", "sbin/b")
        .link("su", "usr/bin/su")
        .link("link2", "link")
        .file("marked/x", "x")
        .file("etc/.wh.passwd", "")
        .file("etc/.wh.old", "")
        .file("nowhere/.wh.x", "")
        .file("nowhere/.wh..wh..opq", "")
        .file(".wh.nothing", "")
        .file("file/.wh.x", "")
        // The mark in the middle, and entries around it.
        .dir("var/lib")
        .file("var/lib/three", "3")
        .file("var/lib/.wh..wh..opq", "")
        .file("var/lib/four", "4")
        .file("replaced", "now a file")
        // Gone and there again, in either order.
        .file(".wh.again", "")
        .dir("again")
        .file("again/new", "x")
        .dir("late")
        .file("late/new", "x")
        .file("late/d/new", "x")
        .file(".wh.late", "")
        .file(".wh.implied", "")
        .file("implied/new", "x")
        .dir("deep")
        .file("deep/.wh.er", "")
        .link("kept", "file")
        .file(".wh.file", "")
        .end();
    let third = Tar::new()
        .dir("etc")
        .file("etc/passwd", "again")
        .dir("replaced")
        .file("replaced/y", "y")
        .file("var/cache/.wh..wh..opq", "")
        .dir("deep/er")
        .file("deep/er/y", "y")
        .symlink("late", "again")
        .file("late/through", "x")
        .file(".wh.kept", "")
        .end();
    vec![first, second, third]
}

const MERGED: &[&str] = &[
    "again/",
    "again/new",
    "again/through",
    "bin",
    "deep/",
    "deep/er/",
    "deep/er/y",
    "etc/",
    "etc/passwd",
    "implied/",
    "implied/new",
    "late",
    "link",
    "link2",
    "marked/",
    "marked/x",
    "replaced/",
    "replaced/y",
    "sbin",
    "su",
    "tmp/",
    "tmp/x",
    "usr/",
    "usr/bin/",
    "usr/bin/b",
    "usr/bin/c",
    "usr/bin/d",
    "usr/bin/su",
    "var/",
    "var/cache/",
    "var/lib/",
    "var/lib/four",
    "var/lib/three",
];

#[test]
fn layers_make_one_tree() {
    let place = Place::new();
    let lower = place.unpack_all(&ids(), &layers()).unwrap();
    let root = place.root();
    assert_eq!(names(&root), MERGED);
    // A directory that only got something new is as it was.
    let of = |name: &str| fs::metadata(root.join(name)).unwrap();
    assert_eq!((of("tmp").mode(), of("tmp").mtime()), (0o041777, 1_000_000_000));
    assert_eq!((of("usr/bin").mode(), of("usr/bin").mtime()), (0o040555, 1_000_000_000));
    assert_eq!((of(".").mode(), of(".").mtime()), (0o040751, 1_000_000_000));
    assert_eq!(of("usr/bin/b").ino(), of("usr/bin/d").ino());
    assert_eq!(fs::read(root.join("etc/passwd")).unwrap(), b"again");

    for name in MERGED.iter().filter(|name| !name.ends_with('/')) {
        let path = root.join(name);
        if path.is_file() {
            let bytes = trees::read_file(&lower, name, 100).unwrap();
            assert_eq!(bytes, Some(fs::read(path).unwrap()), "{name}");
        }
    }
    for gone in ["usr/bin/a", "etc/old/x", "var/lib/one", "again/old", "late/old", "file", "kept"] {
        assert_eq!(trees::read_file(&lower, gone, 100).unwrap(), None, "{gone}");
    }
}

/// In a mount namespace of its own, what overlayfs makes of layers, the topmost first.
fn mounted<T: Send>(
    place: &Place,
    layers: &[&str],
    options: &str,
    look: impl FnOnce(&Path) -> T + Send,
) -> Option<T> {
    let merged = place.dir("layer-merged");
    let empty = place.dir("layer-empty");
    let _ = (merged, empty);
    let path = |name: &str| place.path.join(name).to_str().unwrap().to_owned();
    let lower: Vec<String> = layers.iter().chain(&["layer-empty"]).map(|name| path(name)).collect();
    let options = format!("lowerdir={}{options}", lower.join(":"));
    let target = path("layer-merged");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).ok()?;
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).ok()?;
            let flags = MsFlags::MS_RDONLY;
            mount(Some("overlay"), &target[..], Some("overlay"), flags, Some(&options[..])).ok()?;
            Some(look(Path::new(&target)))
        });
        thread.join().unwrap()
    })
}

fn overlay(place: &Place, layers: &[&str]) -> Option<BTreeMap<PathBuf, String>> {
    mounted(place, layers, "", snapshot)
}

#[test]
fn overlayfs_shows_layers_as_the_tree_is() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.unpack_all(&Ids::Same, &layers()).unwrap();
    let Some(merged) = overlay(&place, &["layer2", "layer1", "layer0"]) else {
        return println!("skipped: overlayfs");
    };
    assert_eq!(merged, snapshot(&place.root()));
    // So it is with the marks for user namespaces, which the files of mapped ids get.
    let all = || vec![IdRange { inside: 0, outside: 0, count: u32::MAX }];
    let place = Place::new();
    place.unpack_all(&Ids::Mapped { uids: all(), gids: all() }, &layers()).unwrap();
    let shown = mounted(&place, &["layer2", "layer1", "layer0"], ",userxattr", names);
    assert_eq!(shown.unwrap(), MERGED);
}

#[test]
fn marks_are_only_where_something_is_below() {
    let first = Tar::new().file("d/a", "").file("d/s/b", "").file(".wh.x", "").file("d/.wh.x", "");
    let second = Tar::new()
        .file("d/s/.wh.b", "")
        .file("d/.wh.a", "")
        .file("d/.wh.x", "")
        .dir("new")
        .file("new/.wh.x", "")
        .file("d/.wh..wh..opq", "");
    // What was copied up to be linked to goes with its directories.
    let third = Tar::new().link("l", "f/g/h").file("f/.wh..wh..opq", "").link("m", "i/j/k");
    let third = third.file("i/.wh.j", "").file("i/n", "");
    let below = Tar::new().file("f/g/h", "").file("i/j/k", "");
    let place = Place::new();
    let layers = [first.end(), second.end(), below.end(), third.end()];
    place.unpack_all(&ids(), &layers).unwrap();
    let made = |layer: usize| names(&place.path.join(format!("layer{layer}")));
    assert_eq!(made(0), ["d/", "d/a", "d/s/", "d/s/b"]);
    assert_eq!(made(1), ["d/", "d/s/", "new/"]);
    assert_eq!(made(3), ["f/", "i/", "i/j", "i/n", "l", "m"]);
}

#[test]
fn what_is_below_is_known_from_directory_to_directory() {
    let first = Tar::new()
        .with(EntryType::Directory, "a", "", mode(0o700))
        .with(EntryType::Directory, "a/b", "", mode(0o710))
        .with(EntryType::Directory, "a/b/c", "", mode(0o711))
        .file("a/b/c/1", "")
        .file("a/b/c/2", "")
        .file("a/b/x", "")
        .symlink("a/l", "b/c")
        .file("d/e/f", "")
        .file("d/e/g/h", "")
        .file("k/1", "")
        .file("k/2", "");
    let second = Tar::new()
        .file("a/b/c/n/new", "")
        // Of these in a row the lower layers have one, and one again once it is said to be gone.
        .file("a/b/c/.wh.n", "")
        .file("a/b/c/.wh.1", "")
        .file("a/b/c/.wh.1", "")
        .file("a/b/.wh.x", "")
        .file("a/l/m/o", "")
        .file("a/l/.wh.2", "")
        .file("d/.wh.e", "")
        .file("d/e/.wh.f", "")
        .file("d/e/g/.wh.h", "")
        .file("d/e/g/i", "")
        .file("k/.wh.1", "")
        .file("k/.wh..wh..opq", "")
        .file("k/.wh.2", "");
    let place = Place::new();
    place.unpack_all(&ids(), &[first.end(), second.end()]).unwrap();
    let merged = ["a/", "a/b/", "a/b/c/", "a/b/c/m/", "a/b/c/m/o", "a/b/c/n/", "a/b/c/n/new"];
    let merged = [&merged[..], &["a/l", "d/", "d/e/", "d/e/g/", "d/e/g/i", "k/"]].concat();
    assert_eq!(names(&place.root()), merged);
    let of = |name: &str| fs::metadata(place.path.join("layer1").join(name)).unwrap().mode();
    let modes = ["a", "a/b", "a/b/c", "a/b/c/n", "d/e"].map(|name| of(name) & 0o7777);
    assert_eq!(modes, [0o700, 0o710, 0o711, 0o755, 0o755]);
    let made = names(&place.path.join("layer1"));
    let marks = ["a/b/c/1", "a/b/c/2", "a/b/x"];
    let mut expected: Vec<&str> = [&merged[..], &marks].concat();
    expected.retain(|name| *name != "a/l");
    expected.sort();
    assert_eq!(made, expected);
}

#[test]
fn a_layer_can_hide_all_below() {
    let first =
        Tar::new().dir(".").dir("a").file("a/x", "").file("b", "").dir("c").file("c/x", "").end();
    let second = Tar::new().file("a/y", "").file(".wh..wh..opq", "").file("d", "").end();
    let place = Place::new();
    let lower = place.unpack_all(&ids(), &[first, second]).unwrap();
    assert_eq!(names(&place.root()), ["a/", "a/y", "d"]);
    for gone in ["a/x", "b", "c/x"] {
        assert_eq!(trees::read_file(&lower, gone, 1).unwrap(), None);
    }
    if is_root() {
        match overlay(&place, &["layer1", "layer0"]) {
            Some(merged) => assert_eq!(merged, snapshot(&place.root())),
            None => println!("skipped: overlayfs"),
        }
    }
}

#[test]
fn what_a_layer_hides_of_the_lower_roots_counts_as_its_entries() {
    let first = (0..9).fold(Tar::new(), |tar, number| tar.file(number.to_string(), "")).end();
    let second = Tar::new().file(".wh..wh..opq", "").end();
    let place = Place::new();
    let lower = place.unpack_all(&ids(), &[first]).unwrap();
    let (ids, none) = (&ids(), &Cell::new(0));
    for (entries, enough) in [(9, false), (10, true)] {
        let limits = Limits { entries, ..Limits::default() };
        let options = options(ids, &limits, &lower, none);
        let done = place.unpack_to(&format!("layer-{entries}"), &options, &second);
        match done.err() {
            None => assert!(enough),
            Some(error) => {
                assert!(!enough && error.category() == Category::Resource, "{error}");
                assert!(error.to_string().contains("more than 9 entries"), "{error}");
            }
        }
    }
}

#[test]
fn a_name_that_was_only_copied_up_is_gone_when_the_layer_says_so() {
    let first = Tar::new().dir("d").file("d/a", "a").file("d/b", "b").end();
    let renamed = Tar::new().link("d/c", "d/a").file("d/.wh.a", "").end();
    let opaque = Tar::new().link("x", "d/a").file("d/.wh..wh..opq", "").end();
    let entry = Tar::new().link("x", "d/a").file("d/a", "new").file("d/.wh.a", "").end();
    for (second, all, gone) in [
        (renamed, &["d/", "d/b", "d/c"][..], Some("d/a")),
        (opaque, &["d/", "x"], Some("d/a")),
        (entry, &["d/", "d/a", "d/b", "x"], None),
    ] {
        let place = Place::new();
        let lower = place.unpack_all(&ids(), &[first.clone(), second]).unwrap();
        assert_eq!(names(&place.root()), all);
        let found = trees::read_file(&lower, "d/a", 10).unwrap();
        assert_eq!(found, if gone.is_some() { None } else { Some(b"new".to_vec()) });
    }
}

#[test]
fn a_hard_link_to_what_is_below_shares_its_copy() {
    let first = Tar::new()
        .pax(&[("mtime", b"5.000000007"), ("SCHILY.xattr.user.x", b"1")])
        .with(EntryType::Regular, "d/a", "data", mode(0o2741))
        .with(EntryType::Fifo, "p", "", |_| {})
        .end();
    let second = Tar::new().link("b", "d/a").link("c", "d/a").link("e", "b").link("q", "p").end();
    let place = Place::new();
    place.unpack_all(&ids(), &[first.clone(), second.clone()]).unwrap();
    let layer = place.path.join("layer1");
    assert_eq!(names(&layer), ["b", "c", "d/", "d/a", "e", "p", "q"]);
    let of = |name: &str| fs::metadata(layer.join(name)).unwrap();
    let file = of("d/a");
    assert_eq!(
        (file.nlink(), file.ino(), of("b").ino(), of("e").ino()),
        (4, file.ino(), file.ino(), file.ino())
    );
    assert_eq!((file.mode(), file.mtime(), file.mtime_nsec()), (0o102741, 5, 7));
    assert_eq!(get_xattr(&layer.join("b"), "user.x"), Some(b"1".to_vec()));
    assert_eq!(fs::read(layer.join("c")).unwrap(), b"data");
    assert_eq!(of("q").ino(), of("p").ino());

    // Without knowing what is below there is nothing to link to.
    let error = Place::new().unpack(Form::Layer, &second).unwrap_err();
    assert_eq!(error.category(), Category::Spec);
    assert!(error.to_string().contains("\"b\": its target \"d/a\" is not there"), "{error}");
}

#[test]
fn what_is_copied_up_is_bounded() {
    let first = Tar::new().file("a", vec![b'x'; 3000]).file("b", vec![b'x'; 3000]).end();
    let second = Tar::new().link("c", "a").link("d", "a").link("e", "b").end();
    let place = Place::new();
    let (ids, none) = (&ids(), &Cell::new(0));
    place.unpack_to("layer0", &options(ids, &Limits::default(), &[], none), &first).unwrap();
    let lower = [place.dir("layer0")];
    let limits = Limits { bytes: 11_999, ..Limits::default() };
    let copied = &Cell::new(0);
    let options = options(ids, &limits, &lower, copied);
    place.unpack_to("layer1", &options, &second).unwrap();
    assert_eq!(copied.get(), 6000);
    // One limit for all layers of the image.
    let error = place.unpack_to("layer2", &options, &second).unwrap_err();
    assert_eq!(error.category(), Category::Resource);
    assert!(error.to_string().contains("entry \"e\": more than 11999 bytes"), "{error}");
}

fn options<'a>(
    ids: &'a Ids,
    limits: &'a Limits,
    lower: &'a [File],
    copied: &'a Cell<u64>,
) -> Options<'a> {
    Options { form: Form::Layer, ids, limits, lower, copied }
}

#[test]
fn an_unprivileged_owner_gets_past_the_modes_of_directories() {
    let first = Tar::new()
        .with(EntryType::Directory, "d", "", mode(0o555))
        .file("d/a", "")
        .with(EntryType::Directory, "d/none", "", mode(0))
        .file("d/none/b", "")
        .dir("gone")
        .with(EntryType::Directory, "gone/none", "", mode(0))
        .file("gone/none/x", "")
        .end();
    let second = Tar::new()
        .file("d/c", "")
        .file("d/none/.wh.b", "")
        .file("d/none/c", "")
        .file(".wh.gone", "")
        .end();
    let place = Place::new();
    for tar in [first, second] {
        place.unpack_with(Form::Tree, &Ids::Caller, &Limits::default(), &tar).unwrap();
        let of = |name: &str| fs::metadata(place.root().join(name)).unwrap();
        assert_eq!((of("d").mode(), of("d/none").mode()), (0o040555, 0o040000));
        assert_eq!(of("d").mtime(), 1_000_000_000);
    }
    fs::set_permissions(place.root().join("d/none"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(names(&place.root()), ["d/", "d/a", "d/c", "d/none/", "d/none/c"]);
}

#[test]
fn who_lacks_the_rights_is_told_what_to_do() {
    if nix::unistd::geteuid().is_root() {
        return println!("skipped: an ordinary user");
    }
    let tar = Tar::new().with(EntryType::Regular, "f", "", |header| header.set_uid(0)).end();
    let error =
        Place::new().unpack_with(Form::Tree, &Ids::Same, &Limits::default(), &tar).unwrap_err();
    assert_eq!(error.category(), Category::Permission);
    assert!(error.advice().is_some());
    let tar = Tar::new().device("null", EntryType::Char, 1, 3).file("f", "").end();
    let place = Place::new();
    place.unpack_with(Form::Tree, &Ids::Caller, &Limits::default(), &tar).unwrap();
    assert_eq!(names(&place.root()), ["f"]);
}

#[test]
fn the_deadline_and_the_sources_errors_come_through() {
    struct Endless(Vec<u8>, usize);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.1 == self.0.len() {
                buffer.fill(0);
                return Ok(buffer.len());
            }
            let count = (&self.0[self.1..]).read(buffer)?;
            self.1 += count;
            Ok(count)
        }
    }
    let place = Place::new();
    let (ids, limits) = (Ids::Same, Limits::default());
    let options =
        Options { form: Form::Tree, ids: &ids, limits: &limits, lower: &[], copied: &Cell::new(0) };
    let transfer = || Transfer { timeout: Some(Duration::from_millis(20)), ..Transfer::default() };
    let large = Tar::new().with(EntryType::Regular, "f", "", |header| header.set_size(1 << 36));
    // In the middle of data, and behind the end.
    for tar in [large.0, Tar::new().end()] {
        let guide = Guide::new(transfer());
        let error = apply(&mut Endless(tar, 0), &place.dir("root"), &options, &guide).unwrap_err();
        assert_eq!(error.category(), Category::Timeout);
    }

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(wrap(Error::new(Category::Spec, Stage::Image, "blob x: its bytes are wrong")))
        }
    }
    let tar = Tar::new().file("f", "data").end();
    let mut source = (&tar[..514]).chain(Broken);
    let guide = Guide::new(Transfer::default());
    let error = apply(&mut source, &place.dir("root"), &options, &guide).unwrap_err();
    assert_eq!(error.to_string(), "entry \"f\": blob x: its bytes are wrong");
    assert_eq!(error.category(), Category::Spec);
}

#[test]
fn a_stream_may_come_in_small_pieces() {
    struct Bytes<'a>(&'a [u8]);
    impl Read for Bytes<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(7).min(self.0.len());
            self.0.read(&mut buffer[..count])
        }
    }
    let place = Place::new();
    let (ids, limits) = (Ids::Caller, Limits::default());
    let options =
        Options { form: Form::Tree, ids: &ids, limits: &limits, lower: &[], copied: &Cell::new(0) };
    let data: Vec<u8> = (0..5000u32).map(|number| number as u8).collect();
    let tar = Tar::new().pax(&[("mtime", b"1.5")]).file("a", &data).file("b", &data).end();
    let guide = Guide::new(Transfer::default());
    apply(&mut Bytes(&tar), &place.dir("root"), &options, &guide).unwrap();
    assert_eq!(fs::read(place.root().join("b")).unwrap(), data);
}

//! Archives that were made to do harm. Each is unpacked in both forms, to an empty directory and to one with what an
//! earlier layer may have left; what is beside the directory must stay as it was, whatever comes of it.

use std::fs;
use std::os::unix::fs::symlink;

use tar::{EntryType, Header};

use super::fixture::{Place, Tar, get_xattr, ids, is_root, names};
use super::{Form, Limits};
use crate::{Category, Error};

const FORMS: [Form; 2] = [Form::Tree, Form::Layer];

/// A small layer's limits.
fn limits() -> Limits {
    Limits { entries: 100, bytes: 4 << 20, ratio: 10 }
}

/// Unpacks what must fail, and checks how.
fn refused(says: &str, category: Category, make: impl Fn(&Place) -> Tar) {
    for prepared in [false, true] {
        for form in FORMS {
            let place = Place::new();
            if prepared {
                prepare(&place);
            }
            let tar = make(&place).end();
            let error = place.unpack_with(form, &ids(), &limits(), &tar).unwrap_err();
            check(&error, says, category);
        }
    }
}

fn check(error: &Error, says: &str, category: Category) {
    assert_eq!(error.category(), category, "{error}");
    assert!(error.to_string().contains(says), "{error}, not {says}");
    assert!(error.to_string().len() < 1000, "{error}");
}

/// Unpacks what does no harm; the names that there are then.
fn harmless(expected: &[&str], make: impl Fn(&Place) -> Tar) {
    for form in FORMS {
        let place = Place::new();
        let tar = make(&place).end();
        place.unpack_with(form, &ids(), &limits(), &tar).unwrap();
        assert_eq!(names(&place.root()), expected);

        let place = Place::new();
        prepare(&place);
        place.unpack_with(form, &ids(), &limits(), &make(&place).end()).unwrap();
    }
}

/// Links that lead out, as an earlier layer may have left them.
fn prepare(place: &Place) {
    let root = place.root();
    symlink(place.canary(), root.join("absolute")).unwrap();
    symlink("../canary", root.join("relative")).unwrap();
    symlink("../canary/file", root.join("file")).unwrap();
    symlink("..", root.join("up")).unwrap();
    fs::create_dir(root.join("full")).unwrap();
    symlink("../../canary", root.join("full/out")).unwrap();
    fs::write(root.join("full/data"), "").unwrap();
}

/// Where the canary's path leads within the root: its directories and the file in it.
fn inside(place: &Place, file: &str) -> Vec<String> {
    let path = format!("{}/{file}", &place.canary()[1..]);
    let ends = path.match_indices('/').map(|(at, _)| at + 1);
    let mut names: Vec<String> = ends.map(|end| path[..end].to_owned()).collect();
    names.push(path);
    names
}

#[test]
fn names_that_lead_upwards_are_refused() {
    for name in
        ["../x", "..", "a/..", "a/../../x", "/..", "./../x", "//../x", "a/../b", "../canary/file"]
    {
        refused("leads upwards", Category::Spec, |_| Tar::new().dir("a").file(name, "evil"));
        refused("leads upwards", Category::Spec, |_| Tar::new().dir(name));
        refused("leads upwards", Category::Spec, |_| Tar::new().symlink(name, "/"));
        refused("leads upwards", Category::Spec, |_| Tar::new().link(name, "full/data"));
    }
}

#[test]
fn names_that_lead_upwards_are_refused_wherever_they_stand() {
    let says = "\"../canary/file\": its name leads upwards";
    refused(says, Category::Spec, |_| {
        Tar::new().extension(EntryType::GNULongName, b"../canary/file\0").file("a", "evil")
    });
    refused(says, Category::Spec, |_| {
        Tar::new().pax(&[("path", b"../canary/file")]).file("a", "evil")
    });
    refused(says, Category::Spec, |_| {
        let sparse: &[(&str, &[u8])] = &[
            ("GNU.sparse.name", b"../canary/file"),
            ("GNU.sparse.map", b"0,4"),
            ("GNU.sparse.size", b"4"),
        ];
        Tar::new().pax(sparse).file("a", "evil")
    });
    refused(says, Category::Spec, |_| {
        Tar::new().with(EntryType::Regular, "file", "evil", |header| {
            header.as_ustar_mut().unwrap().prefix[..9].copy_from_slice(b"../canary");
        })
    });
}

#[test]
fn absolute_names_are_relative_to_the_root() {
    harmless(&["etc/", "etc/passwd", "x"], |_| {
        Tar::new().file("/etc/passwd", "evil").file("///./x", "")
    });
    for form in FORMS {
        let place = Place::new();
        let tar = Tar::new().file(format!("{}/file", place.canary()), "evil").end();
        place.unpack(form, &tar).unwrap();
        assert_eq!(names(&place.root()), inside(&place, "file"));
    }
}

#[test]
fn names_that_are_none_are_refused() {
    refused("it has no name", Category::Spec, |_| Tar::new().file("", ""));
    refused("PAX record \"path\" is wrong", Category::Spec, |_| {
        Tar::new().pax(&[("path", b"a\0b")]).file("a", "")
    });
    refused("it would be the root", Category::Spec, |_| Tar::new().file(".", "evil"));
    refused("it would be the root", Category::Spec, |_| Tar::new().symlink("/", "../canary"));
    refused("it would be the root", Category::Spec, |_| Tar::new().file("a", "").link("./", "a"));
    harmless(&["..."], |_| Tar::new().file("...", ""));
}

#[test]
fn names_that_are_too_long_are_refused() {
    let long = "a/".repeat(2500);
    refused("longer than 4096 bytes", Category::Spec, |_| Tar::new().file(&long, ""));
    let long = format!("a/{}", "b".repeat(256));
    refused("longer than 255 bytes", Category::Spec, |_| Tar::new().file(&long, ""));
    let name = "b".repeat(255);
    harmless(&[&name], |_| Tar::new().file(&name, ""));
    let gone = format!(".wh.{name}");
    harmless(&[], |_| Tar::new().file(&gone, ""));
    refused("longer than 255 bytes", Category::Spec, |_| Tar::new().file(format!("{gone}b"), ""));
}

#[test]
fn what_is_written_through_a_link_stays_in_the_root() {
    for form in FORMS {
        let place = Place::new();
        let tar = Tar::new().symlink("out", place.canary()).file("out/file", "evil").end();
        place.unpack(form, &tar).unwrap();
        let mut expected = inside(&place, "file");
        expected.push("out".to_owned());
        expected.sort();
        assert_eq!(names(&place.root()), expected);
    }
    harmless(&["canary/", "canary/file", "out"], |_| {
        Tar::new().symlink("out", "../canary").file("out/file", "evil")
    });
    harmless(&["canary/", "canary/file", "d/", "d/out"], |_| {
        Tar::new().dir("d").symlink("d/out", "../../../../canary").file("d/out/file", "evil")
    });
    harmless(&["up", "x"], |_| Tar::new().symlink("up", "..").file("up/up/up/x", ""));
    harmless(&["all", "x"], |_| Tar::new().symlink("all", "/").file("all/x", ""));
}

#[test]
fn links_of_earlier_layers_do_not_lead_out_either() {
    for name in ["absolute", "relative", "up/canary", "full/out"] {
        let place = Place::new();
        prepare(&place);
        let tar = Tar::new()
            .file(format!("{name}/file"), "evil")
            .dir(format!("{name}/dir"))
            .file(format!("{name}/.wh.link"), "")
            .file(format!("{name}/.wh..wh..opq"), "")
            .symlink(format!("{name}/link"), "/")
            .end();
        place.unpack(Form::Tree, &tar).unwrap();
    }
}

#[test]
fn chains_and_loops_of_links_end() {
    refused("more than 40 links", Category::Spec, |_| {
        Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "evil")
    });
    refused("more than 40 links", Category::Spec, |_| Tar::new().symlink("a", "a").dir("a/x"));
    refused("more than 40 links", Category::Spec, |_| {
        Tar::new().symlink("a", "a/a/a").file("a/x", "evil")
    });
    refused("more than 40 links", Category::Spec, |_| {
        Tar::new().symlink("a", "b").symlink("b", "a").link("x", "a/y")
    });
    let chain = |count: usize| {
        let tar = (0..count).fold(Tar::new().dir("0"), |tar, number| {
            tar.symlink((number + 1).to_string(), number.to_string())
        });
        tar.file(format!("{count}/x"), "")
    };
    refused("more than 40 links", Category::Spec, |_| chain(41));
    let place = Place::new();
    place.unpack(Form::Tree, &chain(40).end()).unwrap();
    assert!(place.root().join("0/x").is_file());
}

#[test]
fn links_are_replaced_and_not_followed() {
    for form in FORMS {
        let place = Place::new();
        let target = format!("{}/file", place.canary());
        let tar = Tar::new()
            .symlink("a", &target)
            .file("a", "evil")
            .symlink("b", place.canary())
            .dir("b")
            .file("b/file", "evil")
            .symlink("c", &target)
            .link("c", "a")
            .symlink("d", &target)
            .symlink("d", "x")
            .symlink("e", &target)
            .with(EntryType::Fifo, "e", "", |_| {})
            .end();
        place.unpack(form, &tar).unwrap();
        let root = place.root();
        assert_eq!(names(&root), ["a", "b/", "b/file", "c", "d", "e"]);
        assert_eq!(fs::read(root.join("c")).unwrap(), b"evil");
    }
}

#[test]
fn directories_that_become_links_are_no_way_out() {
    harmless(&["a", "canary/", "canary/file"], |_| {
        Tar::new().dir("a").file("a/b", "").symlink("a", "../canary").file("a/file", "evil")
    });
    harmless(&["a/", "a/x", "canary/", "canary/b/", "canary/b/file"], |_| {
        Tar::new()
            .file("a/b/c", "")
            .symlink("a", "../canary")
            .file("a/b/file", "evil")
            .dir("a")
            .file("a/x", "")
    });
}

#[test]
fn hard_links_reach_nothing_outside() {
    for target in ["../canary/file", "..", "a/../../canary/file", "/../canary/file"] {
        refused("leads upwards", Category::Spec, |_| Tar::new().dir("a").link("x", target));
    }
    refused("is not there", Category::Spec, |place| {
        Tar::new().link("x", format!("{}/file", place.canary()))
    });
    refused("is not there", Category::Spec, |_| Tar::new().link("x", "/etc/passwd"));
    refused("is not there", Category::Spec, |place| {
        Tar::new().symlink("out", place.canary()).link("x", "out/file")
    });
    refused("is not there", Category::Spec, |_| {
        Tar::new().symlink("out", "../canary").link("x", "out/file").file("x", "evil")
    });
    refused("is not there", Category::Spec, |_| {
        Tar::new().pax(&[("linkpath", b"/proc/self/fd/3")]).link("x", "")
    });
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_no_way_out() {
    for form in FORMS {
        let place = Place::new();
        let file = format!("{}/file", place.canary());
        let tar = Tar::new()
            .symlink("link", &file)
            .link("again", "link")
            .file("again", "evil")
            .symlink("dir", place.canary())
            .link("other", "dir")
            .dir("other")
            .file("other/file", "evil")
            .end();
        place.unpack(form, &tar).unwrap();
        assert_eq!(names(&place.root()), ["again", "dir", "link", "other/", "other/file"]);
    }
}

#[test]
fn hard_links_that_make_no_sense_are_refused() {
    refused("is a directory", Category::Spec, |_| Tar::new().dir("d").link("x", "d"));
    refused("is a directory", Category::Spec, |_| Tar::new().link("x", "/"));
    refused("is a directory", Category::Spec, |_| Tar::new().dir("d").link("x", "./d/."));
    refused("has no name", Category::Spec, |_| Tar::new().link("x", ""));
    refused("is not there", Category::Spec, |_| Tar::new().link("x", "x"));
    refused("is not there", Category::Spec, |_| Tar::new().file("f", "").link("x", "f/g"));
    refused("is not there any more", Category::Spec, |_| {
        Tar::new().file("d/f", "").link("d", "d/f")
    });
    refused("PAX record \"linkpath\" is wrong", Category::Spec, |_| {
        Tar::new().pax(&[("linkpath", b"a\0b")]).link("x", "")
    });
    harmless(&["x"], |_| Tar::new().file("x", "").link("x", "x").link("./x", "/x"));
}

#[test]
fn symbolic_links_that_make_no_sense_are_refused() {
    refused("its target is empty", Category::Spec, |_| Tar::new().symlink("x", ""));
    refused("its target is empty, too long", Category::Spec, |_| {
        Tar::new().symlink("x", "a".repeat(4096))
    });
    let target = "a".repeat(4095);
    harmless(&["x"], |_| Tar::new().symlink("x", &target));
}

#[test]
fn nothing_is_put_into_a_file() {
    refused("\"f\" on the way to it is no directory", Category::Spec, |_| {
        Tar::new().file("f", "").file("f/x", "evil")
    });
    refused("\"f\" on the way to it is no directory", Category::Spec, |_| {
        Tar::new().file("f", "").symlink("l", "f/../../canary").file("l/x", "evil")
    });
    refused("no directory", Category::Spec, |_| {
        Tar::new().with(EntryType::Fifo, "f", "", |_| {}).dir("f/x")
    });
}

#[test]
fn whiteouts_of_what_is_no_name_are_refused() {
    refused("a whiteout of \"..\"", Category::Spec, |_| Tar::new().file(".wh...", ""));
    refused("a whiteout of \".\"", Category::Spec, |_| Tar::new().file("full/.wh..", ""));
    refused("a whiteout of \"\"", Category::Spec, |_| Tar::new().file(".wh.", ""));
    refused("a whiteout of \"\"", Category::Spec, |_| Tar::new().dir("full/.wh./"));
    refused("leads upwards", Category::Spec, |_| Tar::new().file("../.wh.canary", ""));
    refused("leads upwards", Category::Spec, |_| Tar::new().file("../canary/.wh..wh..opq", ""));
    refused("it is in the whiteout", Category::Spec, |_| Tar::new().file(".wh.full/x", ""));
    refused("it is in the whiteout", Category::Spec, |_| Tar::new().file(".wh.../canary/x", ""));
    harmless(&[], |_| Tar::new().file(".wh..wh.plnk/1.2", "").dir(".wh..wh.aufs"));
}

#[test]
fn whiteouts_remove_nothing_outside() {
    for name in ["absolute", "relative", "up/canary", "full/out"] {
        for gone in [".wh.file", ".wh.dir", ".wh..wh..opq"] {
            let place = Place::new();
            prepare(&place);
            let tar = Tar::new().file(format!("{name}/{gone}"), "").end();
            place.unpack(Form::Tree, &tar).unwrap();
        }
    }
    // Removing a link, or a directory that has some, leaves alone what they lead to.
    for gone in [".wh.absolute", ".wh.relative", ".wh.full", "full/.wh..wh..opq", ".wh..wh..opq"] {
        let place = Place::new();
        prepare(&place);
        place.unpack(Form::Tree, &Tar::new().file(gone, "").end()).unwrap();
        assert!(names(&place.root()).len() < 7);
    }
    // So does replacing one.
    let place = Place::new();
    prepare(&place);
    place.unpack(Form::Tree, &Tar::new().file("full", "").end()).unwrap();
    assert_eq!(fs::read(place.root().join("full")).unwrap(), b"");
}

#[test]
fn devices_that_are_none_are_refused() {
    let says = "overlayfs's mark";
    refused(says, Category::Spec, |_| Tar::new().device("x", EntryType::Char, 0, 0));
    for (major, minor) in [(4096, 0), (0, 1 << 20), (1 << 20, 1)] {
        refused("there can be no device", Category::Spec, |_| {
            Tar::new().device("x", EntryType::Char, major, minor)
        });
    }
    refused("there can be no device -1:0", Category::Spec, |_| {
        Tar::new().with(EntryType::Block, "x", "", |header| {
            header.as_ustar_mut().unwrap().dev_major = [0xff; 8];
        })
    });
    refused("no device numbers", Category::Spec, |_| {
        Tar::new().with(EntryType::Char, "x", "", |header| {
            header.as_mut_bytes()[257..265].fill(0);
        })
    });
    refused("its device number is no number", Category::Spec, |_| {
        Tar::new().with(EntryType::Char, "x", "", |header| {
            header.as_ustar_mut().unwrap().dev_minor = *b"99999999";
        })
    });
}

#[test]
fn more_than_the_limits_is_refused() {
    refused("more than 100 entries", Category::Resource, |_| {
        (0..101).fold(Tar::new(), |tar, number| tar.file(number.to_string(), ""))
    });
    refused("more than 100 entries", Category::Resource, |_| {
        (0..101).fold(Tar::new(), |tar, _| tar.file("same", ""))
    });
    // Directories that no entry names count, too.
    refused("more than 100 entries", Category::Resource, |_| {
        (0..10)
            .fold(Tar::new(), |tar, number| tar.file(format!("{number}/{}", "a/".repeat(20)), ""))
    });
    let says = "unpacks to more than 4194304 bytes";
    refused(says, Category::Resource, |_| Tar::new().file("x", vec![0; 5 << 20]));
    refused(says, Category::Resource, |_| {
        (0..5).fold(Tar::new(), |tar, number| tar.file(number.to_string(), vec![0; 1 << 20]))
    });
    // What is said to come is too much already.
    for size in [5 << 20, i64::MAX as u64] {
        refused(says, Category::Resource, |_| {
            Tar::new().with(EntryType::Regular, "x", "", |header| header.set_size(size))
        });
    }
    refused(says, Category::Resource, |_| {
        Tar::new().pax(&[("size", b"9223372036854775807")]).file("x", "")
    });
    // So is what comes after the end.
    refused(says, Category::Resource, |_| {
        let mut tar = Tar::new();
        tar.0.resize(5 << 20, 0);
        tar
    });
}

#[test]
fn files_that_are_mostly_holes_are_bounded_too() {
    let says = "unpacks to more than 4194304 bytes";
    let records = |size: &'static str| {
        [("GNU.sparse.map", &b"0,4"[..]), ("GNU.sparse.size", size.as_bytes())]
    };
    for size in ["4194305", "9223372036854775807"] {
        refused(says, Category::Resource, |_| Tar::new().pax(&records(size)).file("x", "data"));
    }
    refused("PAX record \"GNU.sparse.size\" is wrong", Category::Spec, |_| {
        Tar::new().pax(&records("9223372036854775808")).file("x", "data")
    });
    refused(says, Category::Resource, |_| {
        Tar::new().raw(&gnu_sparse(1 << 40, &[(0, 4)], 4), b"data")
    });
}

fn gnu_sparse(size: u64, parts: &[(u64, u64)], data: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.as_old_mut().name[0] = b'x';
    header.set_mode(0o644);
    header.set_uid(nix::unistd::getuid().as_raw().into());
    header.set_gid(nix::unistd::getgid().as_raw().into());
    header.set_mtime(0);
    header.set_size(data);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(size);
    for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(parts) {
        slot.set_offset(*offset);
        slot.set_length(*length);
    }
    header.set_cksum();
    header
}

#[test]
fn maps_of_holes_that_make_no_sense_are_refused() {
    type Parts = &'static [(u64, u64)];
    let cases: [(&str, u64, Parts); 8] = [
        ("overlap", 100, &[(0, 3), (2, 1)]),
        ("overlap", 100, &[(50, 2), (0, 2)]),
        ("beyond its size", 3, &[(0, 4)]),
        ("beyond its size", 100, &[(99, 4)]),
        ("beyond its size", 100, &[(u64::MAX >> 1, 4)]),
        ("tells of 3 bytes of data, there are 4", 100, &[(0, 3)]),
        ("tells of 5 bytes of data, there are 4", 100, &[(0, 5)]),
        ("tells of 0 bytes", 100, &[]),
    ];
    for (says, size, parts) in cases {
        refused(says, Category::Spec, |_| Tar::new().raw(&gnu_sparse(size, parts, 4), b"data"));
        let map: Vec<String> = parts.iter().map(|(at, length)| format!("{at},{length}")).collect();
        let (map, size) = (map.join(","), size.to_string());
        refused(says, Category::Spec, |_| {
            let map = ("GNU.sparse.map", map.as_bytes());
            let none = ("GNU.sparse.numblocks", &b"0"[..]);
            let map = if map.1.is_empty() { none } else { map };
            Tar::new().pax(&[map, ("GNU.sparse.size", size.as_bytes())]).file("x", "data")
        });
    }
    let in_data: [(&str, &[u8]); 3] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"100")];
    for (says, data) in [
        ("cut off", &b""[..]),
        ("cut off", &[&b"099999999\n"[..], &b"0\n".repeat(251)].concat()),
        ("something else than numbers", b"x\n"),
        ("something else than numbers", b"-1\n"),
        ("something else than numbers", b"\n"),
        ("something else than numbers", b"9223372036854775808\n"),
        ("has no lines", b"111111111111111111111111111111"),
        ("beyond its size", b"1\n100\n1\n"),
    ] {
        let mut block = data.to_vec();
        block.resize(data.len().next_multiple_of(512), b'\n');
        refused(says, Category::Spec, |_| Tar::new().pax(&in_data).file("x", &block));
    }
    refused("comes without a size", Category::Spec, |_| {
        Tar::new().pax(&in_data[..2]).file("x", "")
    });
    refused("is cut off", Category::Spec, |_| {
        Tar::new().pax(&[("GNU.sparse.map", b"0,1,2"), ("GNU.sparse.size", b"9")]).file("x", "a")
    });
    refused("unknown format 2.0", Category::Unsupported, |_| {
        Tar::new().pax(&[("GNU.sparse.major", b"2")]).file("x", "")
    });
    refused("more than 65536 parts", Category::Unsupported, |_| {
        let mut data = b"70000\n".to_vec();
        data.extend_from_slice(&b"0\n0\n".repeat(70000));
        data.resize(data.len().next_multiple_of(512), 0);
        Tar::new().pax(&in_data).file("x", data)
    });
    let mut header = gnu_sparse(4, &[(0, 4)], 4);
    header.as_gnu_mut().unwrap().set_is_extended(true);
    header.set_cksum();
    let mut further = tar::GnuExtSparseHeader::new();
    further.set_is_extended(true);
    let tar = [&header.as_bytes()[..], &further.as_bytes()[..]].concat();
    let error = Place::new().unpack(Form::Tree, &tar).unwrap_err();
    check(&error, "ends in its map of holes", Category::Spec);
}

#[test]
fn extension_headers_are_bounded() {
    let large = vec![b'a'; (1 << 20) + 1];
    for kind in [
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::GNULongName,
        EntryType::GNULongLink,
    ] {
        refused("more than the 1048576 it may", Category::Spec, |_| {
            Tar::new().extension(kind, &large).file("x", "")
        });
        // What is only said to be large takes no memory.
        refused("more than the 1048576 it may", Category::Spec, |_| {
            Tar::new().with(kind, "x", "", |header| header.set_size(1 << 50))
        });
    }
    let name = vec![b'a'; 1 << 20];
    refused("longer than 4096 bytes", Category::Spec, |_| {
        Tar::new().extension(EntryType::GNULongName, &name).file("x", "")
    });
}

#[test]
fn malformed_extension_headers_are_refused() {
    for data in
        [&b"12 path=a/c"[..], b"99 path=a\n", b"x", b"0 a=b\n", b"\0", b"5 =a\n", b"-1 a=b\n"]
    {
        refused("a PAX record is malformed", Category::Spec, |_| {
            Tar::new().extension(EntryType::XHeader, data).file("x", "")
        });
    }
    for (key, value) in [
        ("size", &b"-1"[..]),
        ("size", b"1e3"),
        ("size", b"9223372036854775808"),
        ("uid", b"x"),
        ("gid", b"99999999999999999999"),
        ("mtime", b"now"),
        ("mtime", b"1.2.3"),
        ("SCHILY.xattr.", b"x"),
        ("SCHILY.xattr.user.a\0b", b"x"),
        ("GNU.sparse.map", b"1,,2"),
        ("GNU.sparse.numbytes", b"1"),
    ] {
        refused("is wrong", Category::Spec, |_| Tar::new().pax(&[(key, value)]).file("x", ""));
    }
    let key = format!("SCHILY.xattr.\0{}", "a".repeat(1 << 19));
    refused("is wrong", Category::Spec, |_| Tar::new().pax(&[(&key, b"x")]).file("x", ""));
    for kind in [EntryType::XHeader, EntryType::GNULongName, EntryType::GNULongLink] {
        refused("ends after an extension header", Category::Spec, |_| {
            Tar::new().extension(kind, b"12 path=a/b\n")
        });
    }
}

#[test]
fn numbers_that_are_none_are_refused() {
    refused("its size is no size", Category::Spec, |_| {
        Tar::new().with(EntryType::Regular, "x", "", |header| header.as_old_mut().size = [0xff; 12])
    });
    refused("its size is no size", Category::Spec, |_| {
        Tar::new().with(EntryType::Regular, "x", "", |header| header.as_old_mut().size = [0xbf; 12])
    });
    refused("its size is no size", Category::Spec, |_| {
        Tar::new().with(EntryType::Directory, "x", "", |header| {
            header.as_old_mut().size = *b"-00000000001";
        })
    });
    refused("its mode is no number", Category::Spec, |_| {
        Tar::new().with(EntryType::Regular, "x", "", |header| {
            header.as_old_mut().mode = *b"rwxr-xr-";
        })
    });
    refused("its modification time is no number", Category::Spec, |_| {
        Tar::new()
            .with(EntryType::Regular, "x", "", |header| header.as_old_mut().mtime = [b'9'; 12])
    });
}

#[test]
fn ids_that_are_none_are_refused() {
    if !is_root() {
        return;
    }
    refused("there can be no user id -1", Category::Spec, |_| {
        Tar::new().with(EntryType::Regular, "x", "", |header| header.as_old_mut().uid = [0xff; 8])
    });
    refused("there can be no group id 4294967295", Category::Spec, |_| {
        Tar::new().pax(&[("gid", b"4294967295")]).file("x", "")
    });
    refused("there can be no user id 4294967296", Category::Spec, |_| {
        Tar::new().pax(&[("uid", b"4294967296")]).symlink("x", "y")
    });
}

#[test]
fn times_are_as_far_away_as_the_filesystem_has_them() {
    harmless(&["d/", "x", "y"], |_| {
        Tar::new()
            .pax(&[("mtime", b"9223372036854775807.999999999")])
            .file("x", "")
            .pax(&[("mtime", b"-9223372036854775807.1")])
            .dir("d")
            .with(EntryType::Regular, "y", "", |header| header.as_old_mut().mtime = [0xff; 12])
    });
}

#[test]
fn unknown_types_are_refused() {
    for flag in [b'V', b'M', b'D', b'N', b'X', b'8', b'Z', 0xff] {
        refused("unknown type", Category::Spec, |_| {
            Tar::new().with(EntryType::new(flag), "x", "", |_| {})
        });
    }
}

#[test]
fn damaged_archives_are_refused() {
    let good = Tar::new().dir("d").pax(&[("mtime", b"1.5")]).file("d/x", vec![b'x'; 1000]);
    for form in FORMS {
        // Every block boundary but those between entries, and places within blocks.
        for (length, says) in [
            (100, "in the middle of a block"),
            (512 + 100, "in the middle of a block"),
            (1024, "the archive ends in a header"),
            (1024 + 10, "in the middle of a block"),
            (1536, "ends after an extension header"),
            (2048, "\"d/x\": the archive ends in the middle of it"),
            (2048 + 512, "\"d/x\": the archive ends in the middle of it"),
            (3048, "in the middle of an entry"),
        ] {
            let place = Place::new();
            let error = place.unpack(form, &good.0[..length]).unwrap_err();
            check(&error, says, Category::Spec);
        }
        // Some programs forget the end mark.
        for length in [0, 512, 3072] {
            Place::new().unpack(form, &good.0[..length]).unwrap();
        }
        for at in [0, 124, 150, 500] {
            let mut bad = good.clone().end();
            bad[at] ^= 1;
            let error = Place::new().unpack(form, &bad).unwrap_err();
            check(&error, "header at byte 0: its checksum is wrong", Category::Spec);
        }
    }
    refused("a lone block of zeros at byte 512", Category::Spec, |_| {
        let mut tar = Tar::new().file("a", "");
        tar.0.resize(1024, 0);
        tar.file("b", "")
    });
    refused("checksum", Category::Spec, |_| Tar(b"this is no archive at all".repeat(100)));
}

#[test]
fn data_that_is_only_claimed_is_missed() {
    for form in FORMS {
        let tar = Tar::new().pax(&[("size", b"3000000")]).file("x", "short").end();
        let error = Place::new().unpack_with(form, &ids(), &limits(), &tar).unwrap_err();
        check(&error, "\"x\": the archive ends in the middle of it", Category::Spec);
    }
    // What is no file has no data, so what follows the header is the next one.
    harmless(&["d/", "l", "x"], |_| {
        Tar::new()
            .with(EntryType::Directory, "d", "", |header| header.set_size(512))
            .pax(&[("size", b"512")])
            .symlink("l", "x")
            .file("x", "")
    });
}

#[test]
fn attributes_that_steer_overlayfs_are_left_out() {
    let user = if is_root() { &["trusted", "user"][..] } else { &["user"] };
    for form in FORMS {
        for class in user {
            let place = Place::new();
            let names = ["opaque", "redirect", "metacopy", "whiteout", "overlay.opaque"];
            let names = names.map(|name| format!("{class}.overlay.{name}"));
            let keys = names.clone().map(|name| format!("SCHILY.xattr.{name}"));
            let records: Vec<(&str, &[u8])> =
                keys.iter().map(|key| (key.as_str(), &b"y"[..])).collect();
            let tar = Tar::new().pax(&records).dir("d").pax(&records).file("f", "");
            let tar = tar.pax(&records).dir(".").pax(&records).symlink("l", "/");
            place.unpack(form, &tar.end()).unwrap();
            for name in &names {
                for path in ["root", "root/d", "root/f"] {
                    assert_eq!(get_xattr(&place.path.join(path), name), None);
                }
            }
        }
    }
}

#[test]
fn trees_that_are_very_deep_come_and_go() {
    let deep = "d/".repeat(600);
    let other = format!("{}x/", "d/".repeat(300));
    let tar = Tar::new()
        .dir(&deep)
        .file(format!("{deep}file"), "")
        .file(format!("{other}file"), "")
        .link(format!("{other}link"), format!("{deep}file"))
        .file("d/d/file", "")
        .end();
    for form in FORMS {
        for gone in [".wh.d", ".wh..wh..opq"] {
            let place = Place::new();
            place.unpack(form, &tar).unwrap();
            if form == Form::Layer {
                continue;
            }
            let tar = Tar::new().file(format!("{other}keep"), "").file(gone, "").end();
            place.unpack(form, &tar).unwrap();
            let mut path = place.root();
            for _ in 0..300 {
                path.push("d");
                assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
            }
            path.push("x");
            assert_eq!(names(&path), ["keep"]);
            place.unpack(form, &Tar::new().file("d", "").end()).unwrap();
            assert_eq!(names(&place.root()), ["d"]);
        }
    }
}

#[test]
fn archives_changed_at_random_do_no_harm() {
    let make = |place: &Place| {
        Tar::new()
            .dir("d")
            .pax(&[("SCHILY.xattr.user.a", b"1"), ("mtime", b"1.5"), ("path", b"d/file")])
            .file("x", "data")
            .symlink("out", place.canary())
            .file("out/file", "evil")
            .link("hard", "d/file")
            .extension(EntryType::GNULongName, b"relative/x\0")
            .file("y", "more")
            .raw(&gnu_sparse(1000, &[(0, 2), (500, 2)], 4), b"data")
            .file("d/.wh.file", "")
            .file("full/.wh..wh..opq", "")
            .end()
    };
    // A generator of Knuth's: the same archives each time.
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    let mut fine = 0;
    for round in 0..300 {
        let place = Place::new();
        prepare(&place);
        let mut tar = make(&place);
        for _ in 0..1 + random(3) {
            let at = random(tar.len());
            tar[at] = [b'.', b'/', b'0', b'7', 0, 0xff, b'\n', random(256) as u8][random(8)];
        }
        // Right checksums let the rest be looked at.
        for block in tar.chunks_exact_mut(512) {
            if block[257..262] == *b"ustar" {
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
                block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        let form = FORMS[round % 2];
        fine += place.unpack_with(form, &ids(), &limits(), &tar).is_ok() as usize;
    }
    // Among them must be some of either kind, or it tests nothing.
    println!("{fine} of 300 were unpacked");
    assert!((1..300).contains(&fine));
}

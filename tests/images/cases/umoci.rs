//! What umoci makes of an image is what we make of it, as a tree and as layers below an overlayfs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use locule::image::{Ids, Image, ImageStore, Limits, Transfer};
use locule::{CreateOptions, Runtime, Source};
use locule_images::{
    Entry, Layer, Layout, TarFile, Tool, difference, is_root, look, overlay, sha256, skip, tool,
};
use serde_json::json;
use tar::{EntryType, Header};

use super::commits::runtime;
use super::{generated, load, scratch, store};

/// Where umoci 0.4.7 does something else, and why that is no fault of ours.
const EXPLAINED: &[(&str, &str, &str)] = &[
    ("no layer at all but an empty one", "", "umoci gives a root without an entry the time 0"),
    (
        "opaque after its entries",
        "dir/sub",
        "umoci leaves the time when it has emptied a directory",
    ),
    ("a link to a file of another layer", "same", BROKEN),
    ("a link replaces a directory", "same", BROKEN),
];

const BROKEN: &str = "overlayfs knows no file that is in two layers: its name below stays behind";

/// The first layer of most images.
fn base() -> TarFile {
    TarFile::new()
        .dir("./", 0o755)
        .dir("dir/", 0o755)
        .file("dir/a", "a")
        .file("dir/b", "b")
        .dir("dir/sub/", 0o750)
        .file("dir/sub/c", "c")
        .file("file", "file")
        .symlink("link", "dir")
        .hard_link("same", "file")
}

fn top() -> TarFile {
    TarFile::new()
}

fn header(mode: u32, ids: (u64, u64), mtime: u64) -> impl FnOnce(&mut Header) {
    move |header| {
        header.set_mode(mode);
        header.set_uid(ids.0);
        header.set_gid(ids.1);
        header.set_mtime(mtime);
    }
}

fn device(kind: EntryType, name: &str, number: (u32, u32)) -> impl FnOnce(TarFile) -> TarFile {
    let name = name.to_owned();
    move |tar| {
        let set = |header: &mut Header| {
            header.set_mode(0o620);
            header.set_device_major(number.0).expect("ustar");
            header.set_device_minor(number.1).expect("ustar");
        };
        tar.entry(&name, kind, set, b"")
    }
}

/// Data, a hole, data, a hole.
fn sparse(tar: TarFile, name: &str) -> TarFile {
    tar.pax(&[
        ("GNU.sparse.major", b"0"),
        ("GNU.sparse.minor", b"1"),
        ("GNU.sparse.size", b"3145728"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.map", b"0,512,1048576,512"),
    ])
    .file(name, [b'x'; 1024])
}

const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What came to mind, each as its layers.
fn picked() -> Vec<(&'static str, Vec<TarFile>)> {
    let long = ["x".repeat(90), "y".repeat(200), "z".repeat(255)].join("/");
    let (first, rest) = long.split_once('/').expect("a slash");
    let second = format!("{first}/{}", rest.split_once('/').expect("a slash").0);
    let regular = EntryType::Regular;
    let directory = EntryType::Directory;
    let whole = || base().file("dir/sub/d", "d");
    vec![
        ("one layer", vec![base()]),
        ("no layer at all but an empty one", vec![top()]),
        ("a file goes", vec![base(), top().file("dir/.wh.a", "")]),
        ("a directory goes", vec![base(), top().file(".wh.dir", "")]),
        ("a link goes and not what it leads to", vec![base(), top().file(".wh.link", "")]),
        ("one of two names goes", vec![base(), top().file(".wh.same", "")]),
        ("what is not there goes", vec![base(), top().file("dir/.wh.none", "")]),
        ("what is in a link goes", vec![base(), top().file("link/.wh.a", "")]),
        (
            "a directory goes and comes back",
            vec![base(), top().file(".wh.dir", ""), top().dir("dir/", 0o711).file("dir/new", "")],
        ),
        (
            "a directory goes and comes back in one layer",
            vec![base(), top().file(".wh.dir", "").dir("dir/", 0o711).file("dir/new", "")],
        ),
        (
            "a file goes and comes back in one layer",
            vec![base(), top().file("dir/.wh.a", "").file("dir/a", "new")],
        ),
        (
            "opaque before its entries",
            vec![
                base(),
                top().dir("dir/", 0o700).file("dir/.wh..wh..opq", "").file("dir/new", "new"),
            ],
        ),
        (
            "opaque after its entries",
            vec![
                base(),
                top()
                    .dir("dir/", 0o700)
                    .file("dir/b", "new")
                    .dir("dir/sub/", 0o755)
                    .file("dir/.wh..wh..opq", ""),
            ],
        ),
        (
            "opaque without an entry of its own",
            vec![base(), top().file("dir/.wh..wh..opq", "").file("dir/a", "new")],
        ),
        ("opaque through a link", vec![base(), top().file("link/.wh..wh..opq", "")]),
        ("the root is opaque", vec![base(), top().file(".wh..wh..opq", "").file("new", "")]),
        (
            "opaque twice",
            vec![
                base(),
                top().dir("dir/", 0o755).file("dir/.wh..wh..opq", "").file("dir/1", "1"),
                top().dir("dir/", 0o755).file("dir/.wh..wh..opq", "").file("dir/2", "2"),
            ],
        ),
        ("a directory becomes a file", vec![base(), top().file("dir", "no more")]),
        ("a directory becomes a link", vec![base(), top().symlink("dir/sub", "../file")]),
        (
            "a file becomes a directory",
            vec![base(), top().dir("file/", 0o755).file("file/in", "in")],
        ),
        ("a link becomes a directory", vec![base(), top().dir("link/", 0o755).file("link/x", "")]),
        ("a link becomes a file", vec![base(), top().file("link", "no link")]),
        (
            "a file becomes a pipe and a link",
            vec![
                base(),
                top().entry("file", EntryType::Fifo, |_| {}, b"").symlink("dir/a", "/absolute"),
            ],
        ),
        (
            "a directory becomes a file and a directory again",
            vec![base(), top().file("dir", ""), top().dir("dir/", 0o755).file("dir/z", "z")],
        ),
        (
            "links within a layer",
            vec![
                base()
                    .hard_link("dir/third", "same")
                    .hard_link("fourth", "./dir/./a")
                    .file("other", ""),
            ],
        ),
        ("a link to a file of another layer", vec![base(), top().hard_link("dir/new", "file")]),
        (
            "a link to a file of the lowest of three layers",
            vec![base(), top().file("dir/x", ""), top().hard_link("y", "dir/sub/c")],
        ),
        (
            "a link to a link of another layer",
            vec![base().symlink("dir/s", "a"), top().hard_link("t", "dir/s")],
        ),
        (
            "a link to a file that is replaced",
            vec![base(), top().file("file", "new").hard_link("third", "file")],
        ),
        (
            "one of two names is replaced",
            vec![base(), top().file("same", "alone"), top().file("file", "alone too")],
        ),
        ("a link replaces a directory", vec![base(), top().hard_link("dir/sub", "file")]),
        (
            "a link to the very same file",
            vec![base(), top().hard_link("same", "file"), top().file("file", "another")],
        ),
        (
            "files behind links",
            vec![
                base()
                    .dir("usr/", 0o755)
                    .dir("usr/lib/", 0o755)
                    .symlink("lib", "usr/lib")
                    .symlink("abs", "/usr/lib")
                    .file("lib/one", "1"),
                top().file("abs/two", "2").dir("lib/three/", 0o700).file("lib/three/x", ""),
                top().file("lib/.wh.one", "").hard_link("abs/four", "abs/two"),
            ],
        ),
        (
            "modes",
            vec![
                base()
                    .entry("setuid", regular, header(0o4755, (1, 2), 1), b"x")
                    .entry("setgid", regular, header(0o2711, (3, 4), 2), b"y")
                    .entry("secret", regular, header(0, (0, 0), 3), b"z")
                    .entry("tmp/", directory, header(0o1777, (0, 0), 4), b"")
                    .entry("mail/", directory, header(0o2775, (0, 8), 5), b"")
                    .entry("closed/", directory, header(0, (5, 5), 6), b"")
                    .file("closed/in", "in")
                    .entry("pipe", EntryType::Fifo, header(0o604, (9, 9), 7), b""),
            ],
        ),
        (
            "times",
            vec![
                base()
                    .pax(&[("mtime", b"1234567890.123456789")])
                    .file("nanoseconds", "")
                    .pax(&[("mtime", b"-86400")])
                    .file("before 1970", "")
                    .pax(&[("mtime", b"4294967296.5")])
                    .file("late", "")
                    .pax(&[("mtime", b"99.1")])
                    .symlink("a link", "a")
                    .pax(&[("mtime", b"99.25"), ("atime", b"5"), ("ctime", b"6")])
                    .dir("dated/", 0o755)
                    .file("dated/file", "")
                    .entry("nothing", regular, header(0o644, (0, 0), 0), b""),
                top().file("dated/more", "").file("dir/.wh.a", ""),
            ],
        ),
        (
            "attributes",
            vec![
                base()
                    .pax(&[("SCHILY.xattr.security.capability", CAPABILITY)])
                    .entry("capable", regular, header(0o755, (7, 7), 1), b"x")
                    .pax(&[("SCHILY.xattr.user.one", b"1"), ("SCHILY.xattr.user.two", b"\x00\xff")])
                    .file("two", "")
                    .pax(&[("SCHILY.xattr.user.of-a-directory", b"yes")])
                    .dir("marked/", 0o755)
                    .pax(&[("SCHILY.xattr.user.gone", b"yes")])
                    .file("replaced", ""),
                top().file("replaced", "").file("marked/in", "").hard_link("2", "two"),
            ],
        ),
        ("devices", {
            let tar = device(EntryType::Char, "null", (1, 3))(base());
            let tar = device(EntryType::Block, "dir/disk", (259, 70_000))(tar);
            vec![device(EntryType::Block, "zero", (0, 0))(tar)]
        }),
        ("holes", vec![sparse(base(), "sparse").file("after", "after")]),
        (
            "long names",
            vec![
                base()
                    .dir(&format!("{first}/"), 0o755)
                    .dir(&format!("{second}/"), 0o755)
                    .file(&long, "deep")
                    .symlink("to it", &long)
                    .hard_link("it", &long),
                top().file(&format!("{second}/.wh.{}", "z".repeat(100)), ""),
            ],
        ),
        (
            "odd names",
            vec![
                base()
                    .file("a b", "")
                    .file("new\nline", "")
                    .file("ünïcode", "")
                    .file("a.wh.b", "not a whiteout")
                    .file("...", "")
                    .file(".hidden", "")
                    .file("back\\slash", "")
                    .file("*", ""),
            ],
        ),
        (
            "slashes and dots",
            vec![
                base()
                    .dir("plain", 0o711)
                    .file("./dir//two", "2")
                    .file("/absolute", "")
                    .dir("./dir/./deep/", 0o700),
            ],
        ),
        ("nothing in a layer", vec![base(), top(), top().file("x", ""), top()]),
        ("one layer twice", vec![base(), base()]),
        (
            "one layer twice with one between",
            vec![base(), top().file(".wh.dir", "").file("file", "x"), base()],
        ),
        (
            "the root has a mode",
            vec![
                top().entry("./", directory, header(0o711, (1, 2), 77), b"").file("a", ""),
                top().entry("./", directory, header(0o1750, (3, 4), 78), b""),
                top().file("b", ""),
            ],
        ),
        (
            "entries twice",
            vec![
                base()
                    .file("file", "again")
                    .entry("dir/", directory, header(0o500, (1, 1), 9), b"")
                    .symlink("link", "file")
                    .file("dir/sub/c", "again"),
            ],
        ),
        (
            "a directory is named again with another mode",
            vec![
                base(),
                top().entry("dir/", directory, header(0o2700, (11, 12), 13), b""),
                top().file("dir/later", ""),
            ],
        ),
        (
            "many ids",
            vec![(0..200).fold(base(), |tar, id| {
                let name = format!("dir/id{id}");
                tar.entry(&name, regular, header(0o600, (id * 10_007, id * 9_973), id), b"")
            })],
        ),
        (
            "large ids",
            vec![
                base()
                    .pax(&[("uid", b"4294967294"), ("gid", b"2147483648")])
                    .file("large", "")
                    .entry("old", regular, header(0o600, (1 << 21, 1 << 30), 1), b""),
            ],
        ),
        (
            "old and rare types",
            vec![
                base()
                    .entry("v7/", EntryType::Regular, |header| header.as_mut_bytes()[156] = 0, b"")
                    .entry(
                        "v7/file",
                        EntryType::Regular,
                        |header| {
                            header.as_mut_bytes()[156] = 0;
                        },
                        b"7",
                    ),
            ],
        ),
        (
            "twenty layers",
            (0..20)
                .map(|layer| {
                    let tar = match layer {
                        0 => base(),
                        _ => top().file(&format!("dir/.wh.{}", layer - 1), ""),
                    };
                    tar.file(&format!("dir/{layer}"), "x").file("file", layer.to_string())
                })
                .collect(),
        ),
        (
            "what is gone below is not back above",
            vec![
                whole(),
                top().file("dir/sub/.wh.c", ""),
                top().dir("dir/sub/", 0o755).file("dir/sub/e", "e"),
                top().file("dir/.wh.sub", ""),
                top().dir("dir/sub/", 0o700),
            ],
        ),
        (
            "a whiteout and a directory in its place",
            vec![base(), top().file(".wh.file", ""), top().dir("file/", 0o755).file("file/x", "")],
        ),
        (
            "a large file",
            vec![base().file("large", vec![7; 5 << 20]), top().hard_link("l", "large")],
        ),
    ]
}

/// Has the store unpack the layers, as for a container, and mounts them.
fn layered(runtime: &Runtime, store: &ImageStore, image: &Image) -> BTreeMap<PathBuf, Entry> {
    let overrides = Box::default();
    let made = runtime.create(CreateOptions::new(Source::Image { image, overrides }));
    match made {
        Ok(container) => container.delete(true).unwrap(),
        // There is no program in it.
        Err(error) => assert!(error.to_string().contains("/none"), "{error}"),
    }
    let said = image.inspect().unwrap();
    let mut chain = String::new();
    let mut lower = Vec::new();
    for layer in said["layers"].as_array().unwrap() {
        let diff_id = layer["diffId"].as_str().unwrap();
        chain = match chain.as_str() {
            "" => diff_id.to_owned(),
            below => sha256(format!("{below} {diff_id}").as_bytes()),
        };
        let hex = chain.strip_prefix("sha256:").unwrap();
        lower.insert(0, store.path().join("layers").join(hex).join("root"));
    }
    overlay(&lower)
}

struct Beside {
    dir: tempfile::TempDir,
    umoci: Tool,
    failed: Vec<String>,
}

impl Beside {
    fn new() -> Option<Beside> {
        if !is_root() {
            skip("root");
            return None;
        }
        let umoci = tool("umoci")?;
        Some(Beside { dir: scratch(), umoci, failed: Vec::new() })
    }

    /// Compares all three.
    fn compare(&mut self, number: usize, name: &str, layers: &[TarFile]) {
        let dir = self.dir.path().join(number.to_string());
        let mut layout = Layout::new(&dir.join("layout"));
        let layers: Vec<Layer> = layers
            .iter()
            .enumerate()
            .map(|(index, tar)| match index % 2 {
                0 => Layer::gzip(tar.clone().finish()),
                _ => Layer::plain(tar.clone().finish()),
            })
            .collect();
        layout.image(Some("it"), &layers, json!({ "Cmd": ["/none"] }));
        let args = ["unpack", "--image", "layout:it", "theirs"];
        let unpacked = self.umoci.attempt(&dir, args);
        if !unpacked.status.success() {
            let said = String::from_utf8_lossy(&unpacked.stderr);
            self.failed.push(format!("{name}: umoci: {said}"));
            return;
        }
        let mut theirs = look(&dir.join("theirs/rootfs"));
        let store = store(&dir);
        let image = match load(&store, layout.path()) {
            Ok(image) => image,
            Err(error) => return self.failed.push(format!("{name}: {error}")),
        };
        let tree = dir.join("ours");
        let (ids, limits) = (Ids::default(), Limits::default());
        if let Err(error) = image.unpack(&tree, &ids, &limits, Transfer::default()) {
            return self.failed.push(format!("{name}: {error}"));
        }
        let tree = look(&tree);
        let generated = name.contains('=');
        for (path, entry) in &mut theirs {
            // The time when umoci has emptied an opaque directory: see EXPLAINED.
            if generated && entry.modified.0 > generated::LATEST {
                entry.modified = tree.get(path).map_or((0, 0), |entry| entry.modified);
            }
        }
        self.judge(name, "as a tree", difference(&tree, &theirs));
        let mut layered = layered(&runtime(&dir), &store, &image);
        if generated {
            // Generated ones link all the time between layers, which overlayfs can't: see BROKEN.
            for (path, entry) in &mut layered {
                entry.same_as =
                    tree.get(path).map_or_else(PathBuf::new, |entry| entry.same_as.clone());
            }
        }
        self.judge(name, "as layers", difference(&layered, &tree));
        fs::remove_dir_all(&dir).unwrap();
    }

    fn judge(&mut self, name: &str, form: &str, lines: Vec<String>) {
        let explained = |line: &str| {
            EXPLAINED
                .iter()
                .any(|(image, path, _)| *image == name && line.contains(&format!("{path:?}:")))
        };
        let lines = lines.into_iter().filter(|line| !explained(line));
        self.failed.extend(lines.map(|line| format!("{name}, {form}: {line}")));
    }

    fn end(self) {
        assert!(self.failed.is_empty(), "{}", self.failed.join("\n"));
    }
}

#[test]
fn picked_images_become_what_umoci_makes_of_them() {
    let Some(mut beside) = Beside::new() else { return };
    for (number, (name, layers)) in picked().into_iter().enumerate() {
        beside.compare(number, name, &layers);
    }
    beside.end();
}

#[test]
fn generated_images_become_what_umoci_makes_of_them() {
    let Some(mut beside) = Beside::new() else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("LOCULE_SEED").unwrap_or(1);
    let count = number("LOCULE_IMAGES").unwrap_or(40);
    for seed in seed..seed + count {
        let name = format!("LOCULE_SEED={seed}");
        beside.compare(seed as usize, &name, &generated::layers(seed));
    }
    beside.end();
}

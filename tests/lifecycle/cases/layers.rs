//! Roots of several layers, and changes to them that are kept.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use locule_lifecycle::prelude::*;

use super::rootless::{as_user, own_mounts, user_spec};

pub const CASES: &[Case] = cases![
    a_layer_shows_what_those_above_it_do_not_hide,
    many_layers_with_names_of_any_kind_make_a_root,
    changes_are_kept_and_found_again,
    kept_changes_refer_to_no_other_layer,
    changes_vanish_where_nothing_keeps_them,
    what_is_beneath_a_read_only_root_stays_out_of_reach,
    the_directory_for_changes_is_remembered,
    a_layer_that_is_missing_is_named,
    layers_are_for_overlays,
    what_cannot_take_changes_is_refused,
    a_plan_says_which_layers_there_are,
    root_of_a_user_namespace_has_layers_that_it_cannot_reach,
    an_ordinary_user_has_layers_and_keeps_changes,
];

pub const HELPERS: &[Case] = cases![layered];

/// The name of the attribute by which a directory hides those beneath it.
const TRUSTED: &CStr = c"trusted.overlay.opaque";
const OF_USERS: &CStr = c"user.overlay.opaque";

fn layered_options(t: &Test, spec: &Value, lower: &[PathBuf]) -> Create<'static> {
    Create { rootfs: Rootfs::Overlay, lower: lower.to_vec(), ..t.options("run", spec) }
}

/// A script in a root that can be written to.
fn writable(t: &Test, script: &str) -> Value {
    let mut spec = t.shell(script);
    spec["root"]["readonly"] = json!(false);
    spec
}

/// Makes a layer with these files; an empty text is that of a directory.
fn layer(path: PathBuf, files: &[(&str, &str)]) -> PathBuf {
    fs::create_dir_all(&path).expect("mkdir");
    for (name, text) in files {
        let file = path.join(name);
        if text.is_empty() {
            fs::create_dir_all(&file).expect("mkdir");
        } else {
            fs::create_dir_all(file.parent().unwrap()).expect("mkdir");
            fs::write(&file, text).expect("write");
        }
    }
    path
}

fn c(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap()
}

/// Hides what has this name further down.
fn whiteout(path: &Path) {
    // SAFETY: a C string and integers.
    let made = unsafe { libc::mknod(c(path).as_ptr(), libc::S_IFCHR, 0) };
    assert_eq!(made, 0, "mknod: {}", std::io::Error::last_os_error());
}

/// Hides what is in the directories of this name further down; whether the filesystem can say so.
fn opaque(path: &Path, attribute: &CStr) -> bool {
    // SAFETY: C strings, and a byte with its length.
    unsafe { libc::setxattr(c(path).as_ptr(), attribute.as_ptr(), c"y".as_ptr().cast(), 1, 0) == 0 }
}

/// Two layers, the upper of which hides parts of the lower.
fn hiding(t: &Test, attribute: &CStr) -> [PathBuf; 2] {
    let text = [("same", "upper\n"), ("own/upper", "upper\n"), ("opaque/upper", "upper\n")];
    let upper = layer(t.dir.join("upper"), &text);
    whiteout(&upper.join("gone"));
    if !opaque(&upper.join("opaque"), attribute) {
        t.skip("a filesystem with the attributes of overlays");
    }
    let text = [
        ("same", "lower\n"),
        ("own/lower", "lower\n"),
        ("opaque/lower", "lower\n"),
        ("gone", "lower\n"),
        ("etc/secret", "hidden by the root\n"),
    ];
    [upper, layer(t.dir.join("lower"), &text)]
}

const LOOK: &str =
    "cat /same /own/* /opaque/* /etc/secret; ls /gone 2>&1 | wc -l; test -e /gone && echo found";
const SEEN: &str = "upper\nlower\nupper\nupper\nsecret\n1";

fn a_layer_shows_what_those_above_it_do_not_hide(t: &Test) {
    t.need_root();
    let lower = hiding(t, TRUSTED);
    let spec = t.shell(&format!("{LOOK}; true"));
    assert_eq!(t.run_with(layered_options(t, &spec, &lower)).success(), SEEN);
}

fn many_layers_with_names_of_any_kind_make_a_root(t: &Test) {
    t.need_root();
    let names = ["a:b", "a,b", "a\\b", "a b", "\u{e9}", "a\\", ":", "lowerdir=x,upperdir=y"];
    let lower: Vec<_> = (0..60)
        .map(|number| {
            let name = match names.get(number) {
                Some(name) => (*name).to_owned(),
                None => format!("{number}-{}", "x".repeat(64)),
            };
            layer(
                t.dir.join("layers").join(name),
                &[(&format!("seen/{number}"), "x"), ("top", name_of(number))],
            )
        })
        .collect();
    let spec = t.shell("ls /seen | wc -l; cat /top; cat /seen/* | wc -c");
    assert_eq!(t.run_with(layered_options(t, &spec, &lower)).success(), "60\nfirst\n60");
}

fn name_of(number: usize) -> &'static str {
    if number == 0 { "first\n" } else { "another\n" }
}

fn keeping(t: &Test, spec: &Value, changes: &Path) -> Create<'static> {
    Create { changes: Some(changes.to_owned()), ..layered_options(t, spec, &[]) }
}

fn changes_are_kept_and_found_again(t: &Test) {
    t.need_root();
    let changes = t.dir.join("changes");
    let lower = [layer(t.dir.join("lower"), &[("below/file", "below\n")])];
    let options = |script: &str| Create {
        lower: lower.to_vec(),
        ..keeping(t, &writable(t, script), &changes)
    };
    let script = "echo new >/new; rm /etc/secret; echo more >>/below/file; chmod 711 /";
    t.run_with(options(script)).success();
    // The container is deleted.
    let upper = changes.join("upper");
    assert_eq!(fs::read_to_string(upper.join("new")).expect("new"), "new\n");
    assert_eq!(fs::read_to_string(upper.join("below/file")).expect("file"), "below\nmore\n");
    assert_eq!(fs::metadata(upper.join("etc/secret")).expect("a whiteout").rdev(), 0);
    assert_eq!(fs::metadata(&changes).expect("stat").mode() & 0o7777, 0o700);
    assert_eq!(fs::read_to_string(lower[0].join("below/file")).unwrap(), "below\n");
    assert!(t.rootfs.join("etc/secret").exists() && !t.rootfs.join("new").exists());
    let script = "cat /new /below/file; test -e /etc/secret || echo gone; stat -c %a /";
    assert_eq!(t.run_with(options(script)).success(), "new\nbelow\nmore\ngone\n711");
}

fn kept_changes_refer_to_no_other_layer(t: &Test) {
    t.need_root();
    let changes = t.dir.join("changes");
    let lower = [layer(t.dir.join("lower"), &[("tree/sub/file", "text\n")])];
    let script = "cp -r /tree /copy && rm -r /tree && mkdir /tree && chmod 600 /copy/sub/file";
    let spec = writable(t, script);
    let options = Create { lower: lower.to_vec(), ..keeping(t, &spec, &changes) };
    t.run_with(options).success();
    // What only a mount with the same layers would understand is in none of these.
    let upper = changes.join("upper");
    assert_eq!(fs::read_to_string(upper.join("copy/sub/file")).expect("copy"), "text\n");
    assert_eq!(fs::read_dir(upper.join("tree")).expect("tree").count(), 0);
    for name in [c"trusted.overlay.redirect", c"trusted.overlay.metacopy"] {
        for path in ["copy", "copy/sub/file", "tree"] {
            let path = c(&upper.join(path));
            // SAFETY: C strings, and no buffer.
            let found =
                unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), std::ptr::null_mut(), 0) };
            assert!(found < 0, "{name:?} of {path:?}");
        }
    }
}

fn changes_vanish_where_nothing_keeps_them(t: &Test) {
    t.need_root();
    let lower = [layer(t.dir.join("lower"), &[("file", "text\n")])];
    let script = "cat /file && echo new >/file && cat /file";
    for _ in 0..2 {
        let options = layered_options(t, &writable(t, script), &lower);
        assert_eq!(t.run_with(options).success(), "text\nnew");
    }
    assert_eq!(fs::read_to_string(lower[0].join("file")).unwrap(), "text\n");
}

fn what_is_beneath_a_read_only_root_stays_out_of_reach(t: &Test) {
    t.need_root();
    let changes = t.dir.join("changes");
    let spec = t.shell("echo new 2>/dev/null >/new || echo read-only; ls /proc/self/fd | wc -l");
    let lower = [layer(t.dir.join("lower"), &[("file", "text\n")])];
    let options = Create { lower: lower.to_vec(), ..keeping(t, &spec, &changes) };
    assert_eq!(t.run_with(options).success(), "read-only\n4");
    assert!(!changes.join("upper/new").exists());
}

fn the_directory_for_changes_is_remembered(t: &Test) {
    t.need_root();
    // Not text at all. The C ABI does not tell it.
    let changes = t.dir.join(std::ffi::OsStr::from_bytes(b"changes \xff"));
    let container = t.create_with(&keeping(t, &writable(t, "echo new >/new"), &changes));
    let state_dir = Some(t.state_dir.clone());
    let options = locule::RuntimeOptions { state_dir, ..Default::default() };
    let runtime = locule::Runtime::new(options).expect("a runtime");
    let opened = runtime.open(&t.id("run")).expect("the container");
    assert_eq!(opened.changes(), Some(&*changes));
    started(&*container);
    ended(&*container.init());
    assert_eq!(opened.changes(), Some(&*changes));
    container.delete(false).expect("delete");
    assert!(changes.join("upper/new").exists());
}

fn a_layer_that_is_missing_is_named(t: &Test) {
    t.need_root();
    let there = layer(t.dir.join("there"), &[("file", "text\n")]);
    let missing = t.dir.join("missing,layer");
    let changes = t.dir.join("changes");
    let spec = t.spec(&["/bin/true"]);
    let options = Create {
        lower: vec![there.clone(), missing.clone(), there],
        ..keeping(t, &spec, &changes)
    };
    let failure = t.refused(&options);
    failure.must_be(Category::NotFound, Stage::Rootfs).with_errno(libc::ENOENT).at("/root/path");
    failure.says(missing.to_str().unwrap());
    assert!(!changes.exists(), "what was made for it is still there");
    // Somebody else's stays.
    fs::create_dir(&changes).expect("mkdir");
    t.refused(&options);
    assert!(changes.exists());
}

fn layers_are_for_overlays(t: &Test) {
    let spec = t.spec(&["/bin/true"]);
    for (name, options) in [
        ("lower", Create { lower: vec!["/".into()], ..t.options("a", &spec) }),
        ("changes", Create { changes: Some("/tmp".into()), ..t.options("a", &spec) }),
        ("lower", layered_options(t, &spec, &vec!["/".into(); 500])),
        ("lower", layered_options(t, &spec, &["".into()])),
    ] {
        let failure = t.refused(&options);
        failure.must_be(Category::Invalid, Stage::Arguments).says(&format!("`{name}`"));
    }
}

fn what_cannot_take_changes_is_refused(t: &Test) {
    t.need_root();
    let spec = t.spec(&["/bin/true"]);
    let failure = t.refused(&keeping(t, &spec, &t.dir.join("no/parent")));
    failure.must_be(Category::NotFound, Stage::Rootfs).says("no/parent");
    fs::write(t.dir.join("file"), "").expect("write");
    let failure = t.refused(&keeping(t, &spec, &t.dir.join("file")));
    failure.must_be(Category::Invalid, Stage::Rootfs).with_errno(libc::ENOTDIR).says("/file\"");
    // An overlay on which to lay one.
    own_mounts();
    let place = layer("/mnt/overlay".into(), &[("lower", ""), ("upper", ""), ("work", "")]);
    let options =
        c"lowerdir=/mnt/overlay/lower,upperdir=/mnt/overlay/upper,workdir=/mnt/overlay/work";
    let (target, overlay) = (c(&place), c"overlay".as_ptr());
    // SAFETY: C strings and an integer.
    let mounted =
        unsafe { libc::mount(overlay, target.as_ptr(), overlay, 0, options.as_ptr().cast()) };
    assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
    let changes = place.join("changes");
    let failure = t.refused(&keeping(t, &spec, &changes));
    failure.must_be(Category::Unsupported, Stage::Rootfs).says(changes.to_str().unwrap());
    assert!(failure.hint.contains("filesystem"), "{}", failure.hint);
    assert!(!changes.exists());
}

fn a_plan_says_which_layers_there_are(t: &Test) {
    t.need_root();
    let spec = t.spec(&["/bin/true"]);
    let options = Create {
        lower: vec!["/layers/b".into(), "/layers/a".into()],
        ..keeping(t, &spec, Path::new("/changes"))
    };
    let plan = t.engine().explain(&options).expect("a plan");
    let listed = "below=[\"/layers/b\", \"/layers/a\"] changes=\"/changes\"";
    assert!(plan.contains(listed), "{plan}");
    assert!(!Path::new("/changes").exists());
}

fn root_of_a_user_namespace_has_layers_that_it_cannot_reach(t: &Test) {
    t.need_root();
    const ROOT: u32 = 300_000;
    let private = t.dir.join("private");
    fs::DirBuilder::new().mode(0o700).create(&private).expect("mkdir");
    let lower: Vec<_> = (0..3)
        .map(|number| {
            let path =
                layer(private.join(format!("{number}")), &[(&format!("l{number}"), "text\n")]);
            for path in [path.clone(), path.join(format!("l{number}"))] {
                chown(&path, Some(ROOT), Some(ROOT)).expect("chown");
            }
            path
        })
        .collect();
    let changes = private.join("changes");
    let spec_of = |script: &str| {
        let mut spec = writable(t, script);
        let linux = &mut spec["linux"];
        linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
        for map in ["uidMappings", "gidMappings"] {
            linux[map] = json!([{ "containerID": 0, "hostID": ROOT, "size": 1000 }]);
        }
        spec
    };
    let options = |script: &str, lower: &[PathBuf]| Create {
        lower: lower.to_vec(),
        ..keeping(t, &spec_of(script), &changes)
    };
    let script = "cat /l*; echo more >>/l1; rm /l2; touch /new; stat -c %u /l1 /new /";
    let output = t.run_with(options(script, &lower)).success();
    // Of the root itself the owner is not mapped, so that it is the container's own, too.
    assert_eq!(output, "text\ntext\ntext\n0\n0\n0");
    for path in ["", "upper/new", "upper/l1", "upper/l2"] {
        let found = fs::symlink_metadata(changes.join(path)).expect(path);
        assert_eq!((found.uid(), found.gid()), (ROOT, ROOT), "{path}");
    }
    let output = t.run_with(options("cat /l1; ls / | grep -c l2; true", &lower[..2])).success();
    assert_eq!(output, "text\nmore\n0");
    // Without any of them.
    let alone = Create { changes: None, ..options("echo new >/new && cat /new", &[]) };
    assert_eq!(t.run_with(alone).success(), "new");
    // The host's own files, for which there are many overlays.
    let mut spec = spec_of("echo new >/etc/new && cat /etc/new");
    spec["root"]["path"] = json!("/");
    assert_eq!(t.run_with(layered_options(t, &spec, &[])).success(), "new");
    // Somebody else's directory.
    fs::remove_dir_all(&changes).expect("remove");
    fs::DirBuilder::new().mode(0o700).create(&changes).expect("mkdir");
    let failure = t.refused(&options("true", &lower));
    failure.must_be(Category::Permission, Stage::Rootfs).says(changes.to_str().unwrap());
    assert!(failure.hint.contains("the container's root"), "{}", failure.hint);
}

fn layered(t: &Test) {
    let user = |script: &str| {
        let mut spec = user_spec(t, script);
        spec["root"]["readonly"] = json!(false);
        spec
    };
    let lower = hiding(t, OF_USERS);
    let changes = t.dir.join("changes");
    let options = |script: &str| Create {
        changes: Some(changes.clone()),
        ..layered_options(t, &user(script), &lower)
    };
    let script = format!("{LOOK}; rm -r /own && mkdir /own && echo new >/own/new");
    assert_eq!(t.run_with(options(&script)).success(), SEEN);
    assert_eq!(fs::read_to_string(changes.join("upper/own/new")).expect("new"), "new\n");
    assert_eq!(t.run_with(options("cat /own/*")).success(), "new");
    let vanishing = Create { changes: None, ..options("cat /own/*; echo new >/new") };
    assert_eq!(t.run_with(vanishing).success(), "lower\nupper");
    // Of `/` there are many overlays.
    let mut spec = user_spec(t, "true");
    spec["root"] = json!({ "path": "/" });
    let failure = t.refused(&layered_options(t, &spec, &lower));
    failure.must_be(Category::Unsupported, Stage::Compile).at("/root/path").says("`lower`");
    // The kernel's directory is nobody's to look into.
    let _ = fs::remove_dir(changes.join("work/work"));
    fs::remove_dir_all(&changes).expect("remove");
}

fn an_ordinary_user_has_layers_and_keeps_changes(t: &Test) {
    fs::set_permissions(&t.dir, PermissionsExt::from_mode(0o777)).expect("chmod");
    as_user(t, "layered", &[]);
}

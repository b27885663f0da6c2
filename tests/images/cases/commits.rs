//! Containers made from images, and images made from what containers have changed.

use std::fs;
use std::path::Path;

use locule::image::{
    Compression, IdRange, Ids, Image, ImageMount, ImageStore, Limits, NewOptions, Overrides,
    PruneOptions, StoreOptions, Transfer,
};
use locule::{Category, Container, CreateOptions, Runtime, RuntimeOptions, Source, Stdio};
use locule_images::{Layer, Layout, TarFile, is_root, look, skip};
use serde_json::json;

use super::{load, scratch, store};

const BUSYBOX: &str = "/bin/busybox";

/// An image of two layers whose programs are busybox.
pub(super) fn image(store: &ImageStore, dir: &Path) -> Option<Image> {
    if !is_root() {
        skip("root");
        return None;
    }
    let Ok(busybox) = fs::read(BUSYBOX) else {
        skip("busybox, statically linked");
        return None;
    };
    let executable = |header: &mut tar::Header| header.set_mode(0o755);
    let regular = tar::EntryType::Regular;
    let lower = TarFile::new()
        .dir("etc/", 0o755)
        .file("etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:1000:100::/home/user:/bin/sh\n")
        .file("etc/group", "root:x:0:\nusers:x:100:\nextra:x:200:user\n")
        .dir("data/", 0o755)
        .file("data/old", "old")
        .entry("bin/busybox", regular, executable, &busybox)
        .symlink("bin/sh", "busybox")
        .entry(
            "home/user/own",
            regular,
            |header| {
                header.set_uid(1000);
                header.set_gid(100);
            },
            b"mine",
        );
    let upper = TarFile::new().file("data/.wh..wh..opq", "").file("data/new", "new");
    let mut layout = Layout::new(&dir.join("layout"));
    let config = json!({
        "Entrypoint": ["/bin/sh", "-c"],
        "Cmd": ["echo default"],
        "Env": ["PATH=/bin", "FROM=image"],
        "WorkingDir": "/home/user",
        "Labels": { "a.label": "its value" },
    });
    layout.image(Some("box"), &[Layer::gzip(lower.finish()), Layer::zstd(upper.finish())], config);
    Some(load(store, layout.path()).unwrap())
}

pub(super) fn runtime(dir: &Path) -> Runtime {
    let state_dir = Some(dir.join("state"));
    Runtime::new(RuntimeOptions { state_dir, ..RuntimeOptions::default() }).unwrap()
}

pub(super) fn create(
    runtime: &Runtime,
    image: &Image,
    overrides: Overrides,
    changes: Option<&Path>,
) -> locule::Result<Container> {
    let overrides = Box::new(overrides);
    runtime.create(CreateOptions {
        stdio: [Stdio::Null, Stdio::Pipe, Stdio::Inherit],
        changes,
        ..CreateOptions::new(Source::Image { image, overrides })
    })
}

pub(super) fn output(container: &Container) -> String {
    let mut pipe = fs::File::from(container.init().take_pipe(1).unwrap());
    container.start(None).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut pipe, &mut text).unwrap();
    container.init().wait(None, None).unwrap();
    text
}

pub(super) fn run(runtime: &Runtime, image: &Image, overrides: Overrides) -> String {
    let container = create(runtime, image, overrides, None).unwrap();
    let text = output(&container);
    container.delete(true).unwrap();
    text
}

pub(super) fn script(text: &str) -> Overrides {
    Overrides { args: Some(vec![text.to_owned()]), ..Overrides::default() }
}

#[test]
fn a_container_is_what_its_image_says_and_what_the_caller_changes() {
    let dir = scratch();
    let store = store(dir.path());
    let Some(image) = image(&store, dir.path()) else { return };
    let runtime = runtime(dir.path());
    assert_eq!(run(&runtime, &image, Overrides::default()), "default\n");
    let asked = "busybox id -u; busybox id -g; busybox id -G; busybox pwd; echo $FROM $MORE $HOME";
    assert_eq!(run(&runtime, &image, script(asked)), "0\n0\n0\n/home/user\nimage /root\n");
    let overrides = Overrides {
        user: Some("user".to_owned()),
        env: vec!["MORE=caller".to_owned()],
        cwd: Some("/data".into()),
        mounts: vec![ImageMount {
            source: dir.path().join("layout"),
            target: "/mnt".into(),
            readonly: true,
        }],
        ..script(&format!("{asked}; busybox ls /data /mnt/oci-layout; busybox cat /data/new"))
    };
    assert_eq!(
        run(&runtime, &image, overrides),
        "1000\n100\n100 200\n/data\nimage caller /home/user\n/mnt/oci-layout\n\n/data:\nnew\nnew"
    );
    let unknown = Overrides { user: Some("nobody-such".to_owned()), ..script("") };
    let error = create(&runtime, &image, unknown, None).unwrap_err();
    assert!(error.to_string().contains("nobody-such"), "{error}");
    assert_eq!(fs::read_dir(store.path().join("uses")).unwrap().count(), 0);
}

#[test]
fn in_a_user_namespace_files_belong_to_whom_the_image_says() {
    let dir = scratch();
    // Its own users have to reach it.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(dir.path(), mode).unwrap();
    let store = store(dir.path());
    let Some(image) = image(&store, dir.path()) else { return };
    let runtime = runtime(dir.path());
    let range = IdRange { inside: 0, outside: 200_000, count: 65_536 };
    for overlay in [None, Some(false)] {
        let overrides = Overrides {
            overlay,
            uid_mappings: vec![range],
            gid_mappings: vec![range],
            user: Some("user".to_owned()),
            ..script(
                "busybox stat -c '%u %g' own /bin/busybox; busybox ls /data; echo x >> own; \
                      busybox cat own; busybox grep -c 200000 /proc/self/uid_map",
            )
        };
        assert_eq!(run(&runtime, &image, overrides), "1000 100\n0 0\nnew\nminex\n1\n");
    }
}

#[test]
fn without_an_overlay_a_container_has_files_of_its_own() {
    let dir = scratch();
    let store = store(dir.path());
    let Some(image) = image(&store, dir.path()) else { return };
    let runtime = runtime(dir.path());
    let count = |folder: &str| fs::read_dir(store.path().join(folder)).unwrap().count();
    let nothing_is_left = || ["layers", "drafts", "uses"].map(count) == [0; 3];
    let copied = |text: &str| Overrides { overlay: Some(false), ..script(text) };
    image.prepare(&copied(""), Transfer::default()).unwrap();
    assert!(nothing_is_left());
    let text = "busybox ls /data; echo x >/data/x; busybox rm /data/new; busybox ls /data; \
                busybox grep -c '^overlay / ' /proc/mounts";
    for _ in 0..2 {
        assert_eq!(run(&runtime, &image, copied(text)), "new\nx\n0\n");
        assert!(nothing_is_left());
    }
    let readonly = Overrides { readonly: true, ..copied("echo x 2>&- >/data/x; echo $?") };
    assert_eq!(run(&runtime, &image, readonly), "1\n");

    let path = Some(store.path().to_owned());
    let reader = StoreOptions { path, read_only: true, ..StoreOptions::default() };
    let read = ImageStore::open(reader).unwrap().get("box").unwrap();
    let error = create(&runtime, &read, copied(""), None).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");

    // It stays as long as the container does.
    let container = create(&runtime, &image, copied("busybox cat /data/new"), None).unwrap();
    store.remove("box").unwrap();
    let all = PruneOptions { all: true };
    assert_eq!(store.prune(&all, Transfer::default()).unwrap().layers, 0);
    assert_eq!(output(&container), "new");
    let error = store.commit(&container, &NewOptions::default(), Transfer::default()).unwrap_err();
    assert_eq!(error.category(), Category::State, "{error}");
    container.delete(false).unwrap();
    assert!(nothing_is_left());

    // What comes to nothing leaves nothing, and what crashes goes with the next prune.
    let overrides = Box::new(copied("true"));
    let options = CreateOptions::new(Source::Image { image: &image, overrides });
    runtime.explain(&options).unwrap();
    let unknown = Overrides { user: Some("nobody-such".to_owned()), ..copied("") };
    create(&runtime, &image, unknown, None).unwrap_err();
    let error = create(&runtime, &image, copied(""), Some(&dir.path().join("kept"))).unwrap_err();
    assert!(error.to_string().contains("`changes`"), "{error}");
    assert!(nothing_is_left());
    fs::create_dir_all(store.path().join("layers/use.1.0.0/root/data")).unwrap();
    fs::write(store.path().join("layers/use.1.0.0/root/data/x"), "").unwrap();
    assert_eq!(store.prune(&PruneOptions::default(), Transfer::default()).unwrap().layers, 1);
    assert!(nothing_is_left());
}

#[test]
fn what_a_container_has_changed_becomes_a_layer_and_the_same_one_each_time() {
    let dir = scratch();
    let store = store(dir.path());
    let Some(image) = image(&store, dir.path()) else { return };
    let runtime = runtime(dir.path());
    let changes = dir.path().join("changes");
    let made = script(
        "echo more > /data/more; busybox rm /data/new; busybox rm -r /home/user; busybox mkdir \
         /home/user; busybox touch -d @1000000000 /data/more; busybox ln /data/more /data/linked",
    );
    let container = create(&runtime, &image, made, Some(&changes)).unwrap();
    let options = NewOptions {
        name: Some("box:changed".to_owned()),
        config: Some(json!({ "Cmd": ["busybox ls -A /data /home/user"] })),
        created: Some("2026-01-01T00:00:00Z".to_owned()),
        ..NewOptions::default()
    };
    let commit = |container: &Container| store.commit(container, &options, Transfer::default());
    let early = commit(&container).unwrap_err();
    assert_eq!(early.category(), Category::State, "{early}");
    output(&container);
    // Even without its name.
    store.remove("box").unwrap();
    store.prune(&PruneOptions { all: true }, Transfer::default()).unwrap();
    let committed = commit(&container).unwrap();
    assert_eq!(commit(&container).unwrap().digest(), committed.digest());
    container.delete(false).unwrap();
    let said = committed.inspect().unwrap();
    assert_eq!(said["layers"].as_array().unwrap().len(), 3);
    assert_eq!(said["config"]["config"]["Env"][1], "FROM=image");
    assert_eq!(said["config"]["history"].as_array().unwrap().len(), 1);
    let listing = run(&runtime, &committed, Overrides::default());
    assert_eq!(listing, "/data:\nlinked\nmore\n\n/home/user:\n");
    let tree = dir.path().join("tree");
    committed.unpack(&tree, &Ids::default(), &Limits::default(), Transfer::default()).unwrap();
    let files = look(&tree);
    assert_eq!(files[Path::new("data/more")].same_as, Path::new("data/linked"));
    assert_eq!(files[Path::new("data/more")].modified.0, 1_000_000_000);
    assert!(!files.contains_key(Path::new("home/user/own")));
    assert!(!files.contains_key(Path::new("data/new")));
    // The directory was copied, and hides nothing that it did not hide before.
    let changed =
        Overrides { args: Some(vec!["echo x >/data/x".to_owned()]), ..Default::default() };
    let container = create(&runtime, &image, changed, Some(&dir.path().join("other"))).unwrap();
    output(&container);
    let committed = commit(&container).unwrap();
    container.delete(false).unwrap();
    assert_eq!(run(&runtime, &committed, script("busybox ls /data")), "new\nx\n");

    let plain = create(&runtime, &committed, script("true"), None).unwrap();
    output(&plain);
    let error = commit(&plain).unwrap_err();
    assert_eq!(error.category(), Category::State, "{error}");
    plain.delete(false).unwrap();
}

#[test]
fn the_layers_of_a_container_stay_as_long_as_it_does() {
    let dir = scratch();
    let store = store(dir.path());
    let Some(image) = image(&store, dir.path()) else { return };
    let runtime = runtime(dir.path());
    let container = create(&runtime, &image, script("busybox cat /data/new"), None).unwrap();
    store.remove("box").unwrap();
    let all = PruneOptions { all: true };
    let pruned = store.prune(&all, Transfer::default()).unwrap();
    assert_eq!((pruned.layers, pruned.blobs), (0, 0));
    assert_eq!(output(&container), "new");
    container.delete(false).unwrap();
    let pruned = store.prune(&all, Transfer::default()).unwrap();
    assert_eq!((pruned.layers, pruned.blobs), (2, 4));
    assert_eq!(fs::read_dir(store.path().join("uses")).unwrap().count(), 0);
    let gone = create(&runtime, &image, script("true"), None).unwrap_err();
    assert_eq!(gone.category(), Category::NotFound, "{gone}");
}

#[test]
fn what_a_crashed_container_had_goes_when_another_has_its_id() {
    let dir = scratch();
    let store = store(dir.path());
    let Some(image) = image(&store, dir.path()) else { return };
    let runtime = runtime(dir.path());
    let container = create(&runtime, &image, script("true"), None).unwrap();
    let uses = store.path().join("uses");
    let own = fs::read_dir(&uses).unwrap().next().unwrap().unwrap().path();
    let text = fs::read_to_string(&own).unwrap();
    // Nothing but the file is left of a container that was killed together with its host.
    fs::write(uses.join("crashed"), &text).unwrap();
    // In another mount namespace its directory may be there.
    let mut elsewhere: serde_json::Value = serde_json::from_str(&text).unwrap();
    elsewhere["view"]["mounts"] = json!(1);
    fs::write(uses.join("elsewhere"), elsewhere.to_string()).unwrap();
    elsewhere["view"]["boot"] = json!("another");
    fs::write(uses.join("yesterday"), elsewhere.to_string()).unwrap();
    store.prune(&PruneOptions::default(), Transfer::default()).unwrap();
    let left = |name: &str| uses.join(name).exists();
    assert!(own.exists() && left("elsewhere") && !left("crashed") && !left("yesterday"));
    container.delete(true).unwrap();
}

#[test]
fn layers_for_the_mapping_of_one_container_go_with_it() {
    let dir = scratch();
    let store = store(dir.path());
    let Some(image) = image(&store, dir.path()) else { return };
    let runtime = runtime(dir.path());
    let range = |outside| vec![IdRange { inside: 0, outside, count: 65536 }];
    let mapped = |outside| Overrides {
        uid_mappings: range(outside),
        gid_mappings: range(outside),
        ..script("true")
    };
    image.prepare(&Overrides::default(), Transfer::default()).unwrap();
    image.prepare(&mapped(300_000), Transfer::default()).unwrap();
    let container = create(&runtime, &image, mapped(400_000), None).unwrap();
    let prune = || store.prune(&PruneOptions::default(), Transfer::default()).unwrap().layers;
    assert_eq!(prune(), 2);
    container.delete(true).unwrap();
    assert_eq!(prune(), 2);
    assert_eq!(fs::read_dir(store.path().join("layers")).unwrap().count(), 2, "without a mapping");
}

#[test]
fn a_layer_that_would_be_taken_for_a_trap_is_not_made() {
    let dir = scratch();
    let store = store(dir.path());
    let Some(image) = image(&store, dir.path()) else { return };
    let runtime = runtime(dir.path());
    let zeros = script("busybox dd if=/dev/zero of=/zeros bs=1M count=200 2>/dev/null");
    let container = create(&runtime, &image, zeros, Some(&dir.path().join("changes"))).unwrap();
    output(&container);
    let commit = |compression| {
        let options = NewOptions { compression, ..NewOptions::default() };
        store.commit(&container, &options, Transfer::default())
    };
    let error = commit(Compression::Zstd).unwrap_err();
    assert_eq!(error.category(), Category::Resource, "{error}");
    assert!(error.advice().is_some_and(|advice| advice.contains("gzip")), "{error:?}");
    let committed = commit(Compression::Gzip).unwrap();
    assert_eq!(run(&runtime, &committed, script("busybox wc -c </zeros")), "209715200\n");
    container.delete(false).unwrap();
}

//! Images in layouts and archives, taken and given back.

use std::fs;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use locule::Category;
use locule::image::{
    Compression, Ids, Image, Limits, NewOptions, PruneOptions, SaveOptions, TakeOptions, Transfer,
};
use locule_images::{Layer, Layout, TarFile, config_of, docker_archive, look, pack_directory};
use serde_json::json;

use super::{layers, load, scratch, store};

fn content(image: &Image, dir: &Path) -> Vec<(String, String)> {
    let tree = dir.join("tree");
    image.unpack(&tree, &Ids::default(), &Limits::default(), Transfer::default()).expect("unpack");
    let files = look(&tree);
    fs::remove_dir_all(&tree).expect("remove the tree");
    let text = |path: &Path| path.to_string_lossy().into_owned();
    files.iter().map(|(path, entry)| (text(path), entry.content.clone())).collect()
}

fn paths(image: &Image, dir: &Path) -> Vec<String> {
    content(image, dir).into_iter().map(|(path, _)| path).collect()
}

#[test]
fn a_layout_is_taken_from_a_directory_and_from_a_tar_file_compressed_or_not() {
    let dir = scratch();
    let store = store(dir.path());
    let mut layout = Layout::new(&dir.path().join("layout"));
    let manifest = layout.image(Some("example.com/app:1"), &layers(), json!({ "Cmd": ["sh"] }));
    let tar = pack_directory(layout.path());
    let gzip = Layer::gzip(tar.clone()).blob;
    let zstd = Layer::zstd(tar.clone()).blob;
    let mut sources = vec![layout.path().to_owned()];
    for (name, bytes) in [("plain.tar", tar), ("layout.tar.gz", gzip), ("layout.zst", zstd)] {
        fs::write(dir.path().join(name), bytes).unwrap();
        sources.push(dir.path().join(name));
    }
    for source in sources {
        let image = load(&store, &source).unwrap();
        assert_eq!(image.digest(), manifest["digest"].as_str().unwrap(), "{source:?}");
        assert_eq!(image.names(), ["example.com/app:1"]);
        assert_eq!(paths(&image, dir.path()), ["", "etc", "etc/b", "etc/c"]);
        store.remove("example.com/app:1").unwrap();
        assert!(store.prune(&PruneOptions::default(), Transfer::default()).unwrap().blobs >= 4);
    }
}

#[test]
fn archives_of_docker_are_taken_and_their_layers_verified() {
    let dir = scratch();
    let store = store(dir.path());
    let layers = [Layer::plain(TarFile::new().file("a", "b").finish())];
    let config = config_of(&layers, json!({}));
    let path = dir.path().join("saved.tar");
    fs::write(&path, docker_archive(&["app:1", "app:2"], &layers, &config)).unwrap();
    let image = load(&store, &path).unwrap();
    assert_eq!(image.names(), ["docker.io/library/app:1", "docker.io/library/app:2"]);
    assert_eq!(paths(&image, dir.path()), ["", "a"]);

    let mut wrong = config_of(&layers, json!({}));
    wrong["rootfs"]["diff_ids"][0] = format!("sha256:{}", "0".repeat(64)).into();
    fs::write(&path, docker_archive(&["bad"], &layers, &wrong)).unwrap();
    let image = load(&store, &path).unwrap();
    let unpacked = image.unpack(
        &dir.path().join("bad"),
        &Ids::default(),
        &Limits::default(),
        Transfer::default(),
    );
    let error = unpacked.unwrap_err();
    assert_eq!(error.category(), Category::Spec, "{error}");
    assert!(error.to_string().contains(&"0".repeat(64)), "{error}");
}

#[test]
fn the_image_is_chosen_by_name_and_by_platform() {
    let dir = scratch();
    let store = store(dir.path());
    let mut layout = Layout::new(&dir.path().join("layout"));
    let one = layout.image(Some("one"), &layers(), json!({ "Cmd": ["1"] }));
    let two = layout.image(Some("two:2"), &layers(), json!({ "Cmd": ["2"] }));
    let from = |from: &str| {
        let options = TakeOptions { from: Some(from.to_owned()), ..TakeOptions::default() };
        store.load(layout.path(), &options, Transfer::default())
    };
    let several = load(&store, layout.path()).unwrap_err();
    assert_eq!(several.category(), Category::Invalid);
    assert!(several.to_string().contains("one, two:2"), "{several}");
    assert_eq!(from("one").unwrap().digest(), one["digest"].as_str().unwrap());
    assert_eq!(from("two:2").unwrap().digest(), two["digest"].as_str().unwrap());
    assert_eq!(
        from(one["digest"].as_str().unwrap()).unwrap().names(),
        ["docker.io/library/one:latest"]
    );
    assert_eq!(from("three").unwrap_err().category(), Category::NotFound);

    // An index in the index, of two platforms.
    let mut both = Layout::new(&dir.path().join("both"));
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64", "s390x"] {
        let mut config = config_of(&layers(), json!({ "Cmd": [architecture] }));
        config["architecture"] = architecture.into();
        let mut manifest = both.manifest(&layers(), &config);
        manifest["platform"] = json!({ "os": "linux", "architecture": architecture });
        manifests.push(manifest);
    }
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    let index = both.document("application/vnd.oci.image.index.v1+json", &index);
    both.list(Some("multi"), index);
    let platform = |platform: Option<&str>| {
        let platform = platform.map(str::to_owned);
        let options = TakeOptions { platform, ..TakeOptions::default() };
        store.load(both.path(), &options, Transfer::default())
    };
    let chosen =
        |of| platform(of).unwrap().inspect().unwrap()["config"]["config"]["Cmd"][0].clone();
    assert_eq!(chosen(Some("linux/s390x")), "s390x");
    assert_eq!(chosen(Some("linux/arm64/v8")), "arm64");
    let own = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    assert_eq!(chosen(None), own);
    let error = platform(Some("linux/riscv64")).unwrap_err();
    assert_eq!(error.category(), Category::NotFound);
    assert!(error.to_string().contains("linux/s390x"), "{error}");
}

#[test]
fn what_is_saved_is_the_same_image_and_the_same_bytes_each_time() {
    let dir = scratch();
    let first = store(dir.path());
    let mut layout = Layout::new(&dir.path().join("layout"));
    layout.image(Some("app:1"), &layers(), json!({ "Cmd": ["sh"] }));
    let image = load(&first, layout.path()).unwrap();
    let save = |image: &Image, name: &str| {
        let path = dir.path().join(name);
        image.save(&path, &SaveOptions::default(), Transfer::default()).unwrap();
        path
    };
    let one = save(&image, "one.tar");
    let two = save(&image, "two.tar");
    assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap());
    let directory = save(&image, "directory");
    save(&image, "directory");
    let index = fs::read_to_string(directory.join("index.json")).unwrap();
    assert_eq!(index.matches("digest").count(), 1, "{index}");
    for path in [one, directory] {
        let dir = scratch();
        let again = load(&store(dir.path()), &path).unwrap();
        assert_eq!(again.digest(), image.digest());
        assert_eq!(again.names(), image.names());
    }
    let taken = dir.path().join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("file"), "").unwrap();
    let error = image.save(&taken, &SaveOptions::default(), Transfer::default()).unwrap_err();
    assert_eq!(error.category(), Category::Invalid, "{error}");
    assert_eq!(fs::read_dir(&taken).unwrap().count(), 1);
}

#[test]
fn a_tree_becomes_an_image_and_the_image_the_tree() {
    let dir = scratch();
    let store = store(dir.path());
    let tree = dir.path().join("root");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/true"), "#!/bin/sh").unwrap();
    fs::hard_link(tree.join("bin/true"), tree.join("bin/yes")).unwrap();
    std::os::unix::fs::symlink("bin/true", tree.join("link")).unwrap();
    let import = |compression, path: &Path| {
        let config = Some(json!({ "Cmd": ["true"], "Env": ["A=b"] }));
        let name = Some("made".to_owned());
        let options = NewOptions { compression, config, name, ..NewOptions::default() };
        store.import(path, &options, Transfer::default())
    };
    let mut digests = Vec::new();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let image = import(compression, &tree).unwrap();
        assert_eq!(image.digest(), import(compression, &tree).unwrap().digest());
        digests.push(image.digest().to_owned());
        let back = dir.path().join("back");
        image.unpack(&back, &Ids::default(), &Limits::default(), Transfer::default()).unwrap();
        assert_eq!(locule_images::difference(&look(&back), &look(&tree)), [""; 0]);
        fs::remove_dir_all(back).unwrap();
        let said = image.inspect().unwrap();
        assert_eq!(said["config"]["config"]["Env"][0], "A=b");
    }
    digests.dedup();
    assert_eq!(digests.len(), 3);

    let archive = dir.path().join("root.tar.gz");
    let tar = TarFile::new().file("from/an/archive", "x").finish();
    fs::write(&archive, Layer::gzip(tar).blob).unwrap();
    let image = import(Compression::Gzip, &archive).unwrap();
    assert!(paths(&image, dir.path()).contains(&"from/an/archive".to_owned()));
    fs::write(&archive, "no tar file at all, but text").unwrap();
    let error = import(Compression::Gzip, &archive).unwrap_err();
    assert_eq!(error.category(), Category::Spec, "{error}");
    assert!(error.to_string().contains("root.tar.gz"), "{error}");
    assert_eq!(fs::read_dir(dir.path().join("store/drafts")).unwrap().count(), 0);
}

#[test]
fn a_name_means_the_newest_and_goes_without_the_image() {
    let dir = scratch();
    let store = store(dir.path());
    let mut layout = Layout::new(&dir.path().join("layout"));
    layout.image(Some("app"), &layers(), json!({ "Cmd": ["1"] }));
    let first = load(&store, layout.path()).unwrap();
    let other = first.tag("other:x").unwrap();
    assert_eq!(other.names(), ["docker.io/library/app:latest", "docker.io/library/other:x"]);
    let mut layout = Layout::new(&dir.path().join("second"));
    layout.image(Some("app"), &layers(), json!({ "Cmd": ["2"] }));
    let second = load(&store, layout.path()).unwrap();
    assert_ne!(first.digest(), second.digest());
    assert_eq!(store.get("app").unwrap().digest(), second.digest());
    assert_eq!(store.get("docker.io/library/other:x").unwrap().digest(), first.digest());
    assert_eq!(store.get(&first.digest()[..19]).unwrap().digest(), first.digest());
    assert_eq!(store.get(&first.digest()[7..27]).unwrap().digest(), first.digest());
    assert_eq!(store.list().unwrap().len(), 2);

    store.remove("other:x").unwrap();
    assert_eq!(store.get("other:x").unwrap_err().category(), Category::NotFound);
    assert_eq!(store.remove("other:x").unwrap_err().category(), Category::NotFound);
    assert_eq!(store.get("UPPER").unwrap_err().category(), Category::Invalid);
    let pruned = store.prune(&PruneOptions::default(), Transfer::default()).unwrap();
    assert!(pruned.blobs > 0);
    assert_eq!(store.list().unwrap().len(), 1);
    // What both have stays.
    content(&second, dir.path());
    let all = store.prune(&PruneOptions { all: true }, Transfer::default()).unwrap();
    assert_eq!(all.images, [second.digest()]);
    assert!(store.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(dir.path().join("store/blobs/sha256")).unwrap().count(), 0);
    let gone = second.unpack(
        &dir.path().join("gone"),
        &Ids::default(),
        &Limits::default(),
        Transfer::default(),
    );
    assert_eq!(gone.unwrap_err().category(), Category::NotFound);
}

#[test]
fn progress_is_told_and_can_stop_the_call() {
    let dir = scratch();
    let store = store(dir.path());
    let mut layout = Layout::new(&dir.path().join("layout"));
    layout.image(Some("app"), &layers(), json!({}));
    let mut told = Vec::new();
    let mut report = |progress: &locule::image::Progress<'_>| {
        told.push((progress.digest.to_owned(), progress.finished, progress.done, progress.total));
        Ok(())
    };
    let transfer = Transfer { progress: Some(&mut report), ..Transfer::default() };
    store.load(layout.path(), &TakeOptions::default(), transfer).unwrap();
    let finished: Vec<_> = told.iter().filter(|(_, finished, ..)| *finished).collect();
    assert_eq!(finished.len(), 3, "{told:?}");
    assert!(finished.iter().all(|(_, _, done, total)| done == total && *total > 0));
    store.prune(&PruneOptions { all: true }, Transfer::default()).unwrap();

    let stop = locule::Error::new(Category::Callback, locule::Stage::Image, "enough");
    let mut report = |_: &locule::image::Progress<'_>| Err(stop.clone());
    let transfer = Transfer { progress: Some(&mut report), ..Transfer::default() };
    let stopped = store.load(layout.path(), &TakeOptions::default(), transfer).unwrap_err();
    assert_eq!(stopped.category(), Category::Callback);
    let cancel = locule::Cancel::new().unwrap();
    cancel.cancel();
    let transfer = Transfer { cancel: Some(&cancel), ..Transfer::default() };
    let cancelled = store.load(layout.path(), &TakeOptions::default(), transfer).unwrap_err();
    assert_eq!(cancelled.category(), Category::Cancelled);
    let timeout = Some(std::time::Duration::ZERO);
    let transfer = Transfer { timeout, ..Transfer::default() };
    let late = store.load(layout.path(), &TakeOptions::default(), transfer).unwrap_err();
    assert_eq!(late.category(), Category::Timeout);
    assert!(store.list().unwrap().is_empty());
    assert_eq!(fs::read_dir(dir.path().join("store/drafts")).unwrap().count(), 0);
}

#[test]
fn an_archive_may_come_through_a_pipe() {
    let dir = scratch();
    let store = store(dir.path());
    let mut layout = Layout::new(&dir.path().join("layout"));
    layout.image(Some("app"), &layers(), json!({}));
    let image = load(&store, layout.path()).unwrap();
    let archive = dir.path().join("app.tar");
    image.save(&archive, &SaveOptions::default(), Transfer::default()).unwrap();
    let piped = |bytes: Vec<u8>, take: &dyn Fn(&Path) -> locule::Result<Image>| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(&bytes).unwrap());
            take(Path::new(&format!("/proc/self/fd/{}", reader.as_raw_fd()))).unwrap()
        })
    };
    let loaded = piped(fs::read(&archive).unwrap(), &|path| load(&store, path));
    assert_eq!(loaded.digest(), image.digest());
    let tree = TarFile::new().file("a", "a").finish();
    let import = |path: &Path| store.import(path, &NewOptions::default(), Transfer::default());
    let imported = piped(tree, &import);
    assert_eq!(imported.inspect().unwrap()["layers"].as_array().unwrap().len(), 1);
    assert_eq!(import(Path::new("/dev/null")).unwrap_err().category(), Category::Invalid);
}

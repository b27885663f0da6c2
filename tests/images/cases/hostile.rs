//! What those try who want more than to break an image: the host's memory and disk, other people's
//! files, and the moment in which something is not yet whole.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, chown, symlink};
use std::path::Path;

use locule::Category;
use locule::image::{ImageStore, PruneOptions, SaveOptions, StoreOptions, TakeOptions, Transfer};
use locule_images::{Layout, config_of, docker_archive, pack_directory};
use serde_json::{Value, json};

use super::{layers, load, scratch, store};

/// Loads what has to be refused.
fn refused(path: &Path, category: Category, words: &str) {
    let dir = scratch();
    let store = store(dir.path());
    let error = load(&store, path).unwrap_err();
    assert_eq!(error.category(), category, "{error}");
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(fs::read_dir(dir.path().join("store/drafts")).unwrap().count(), 0, "{words}");
}

#[test]
fn no_memory_is_made_of_a_name_without_an_end() {
    let dir = scratch();
    let path = dir.path().join("long.tar");
    let file = File::create(&path).unwrap();
    for kind in [tar::EntryType::GNULongName, tar::EntryType::XHeader] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(4 << 30);
        header.set_cksum();
        file.write_all_at(header.as_bytes(), 0).unwrap();
        // Most of it is a hole.
        file.set_len((4 << 30) + 2048).unwrap();
        refused(&path, Category::Spec, "headers are larger");
    }
}

#[test]
fn an_archive_that_ends_early_is_wrong_not_unlucky() {
    let dir = scratch();
    let mut layout = Layout::new(&dir.path().join("layout"));
    let good = layout.image(None, &layers(), json!({}));
    // The last member is cut off.
    let manifest = fs::read(layout.blob_path(good["digest"].as_str().unwrap())).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layer = layout.blob_path(manifest["layers"][0]["digest"].as_str().unwrap());
    let name = format!("blobs/sha256/{}", layer.file_name().unwrap().to_str().unwrap());
    let blob = fs::read(&layer).unwrap();
    fs::remove_file(&layer).unwrap();
    let mut archive = pack_directory(layout.path());
    archive.truncate(archive.len() - 1024);
    let mut last = locule_images::TarFile::new().file(&name, &blob).finish();
    last.truncate(512 + blob.len() / 2);
    archive.extend(last);
    let path = dir.path().join("short.tar");
    fs::write(&path, archive).unwrap();
    refused(&path, Category::Spec, "ends in the middle");
}

#[test]
fn a_compressed_archive_does_not_fill_the_disk() {
    let dir = scratch();
    let path = dir.path().join("bomb.tar.zst");
    let mut out = zstd::Encoder::new(File::create(&path).unwrap(), 1).unwrap();
    for _ in 0..512 {
        out.write_all(&[0; 1 << 20]).unwrap();
    }
    out.finish().unwrap();
    refused(&path, Category::Resource, "1024 times");
}

#[test]
fn a_docker_archive_has_so_many_images_and_layers() {
    let dir = scratch();
    let path = dir.path().join("many.tar");
    let config = config_of(&layers(), json!({}));
    let good = docker_archive(&["app"], &layers(), &config);
    let image = |layers: usize| json!({ "Config": "c.json", "Layers": vec!["l"; layers] });
    for (list, words) in [(vec![image(1); 1001], "1000 images"), (vec![image(501)], "501 layers")] {
        let list = locule_images::TarFile::new().file("manifest.json", json!(list).to_string());
        // The last of a name counts.
        let archive = [&good[..good.len() - 1024], &list.finish()].concat();
        fs::write(&path, archive).unwrap();
        refused(&path, Category::Spec, words);
    }
    let names: Vec<String> = (0..1001).map(|number| format!("app:{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    fs::write(&path, docker_archive(&names, &layers(), &config)).unwrap();
    refused(&path, Category::Spec, "1000 names");
    let archive = docker_archive(&["a\x1b[2Jb"], &layers(), &config);
    fs::write(&path, archive).unwrap();
    let dir = scratch();
    let options = TakeOptions { from: Some("other".to_owned()), ..TakeOptions::default() };
    let error = store(dir.path()).load(&path, &options, Transfer::default()).unwrap_err();
    assert!(error.to_string().contains(r"there are: a\u{1b}[2Jb"), "{error}");
}

#[test]
fn a_name_that_cannot_be_one_is_the_images_fault() {
    for name in ["nul\0", &"x".repeat(300), "loop", "zero"] {
        let dir = scratch();
        let root = dir.path().join("archive");
        fs::create_dir(&root).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("/dev/zero", root.join("zero")).unwrap();
        let list = json!([{ "Config": name, "RepoTags": null, "Layers": [] }]);
        fs::write(root.join("manifest.json"), list.to_string()).unwrap();
        let expected = name.trim_end_matches('\0');
        refused(&root, Category::Spec, expected);
    }
}

#[test]
fn many_threads_save_to_one_layout_and_all_of_it_is_whole() {
    let dir = scratch();
    let own = store(dir.path());
    let images: Vec<_> = (0..8)
        .map(|number| {
            let mut layout = Layout::new(&dir.path().join(format!("layout{number}")));
            // The layers are the same.
            layout.image(None, &layers(), json!({ "Env": [format!("N={number}")] }));
            load(&own, layout.path()).unwrap()
        })
        .collect();
    let saved = dir.path().join("saved");
    std::thread::scope(|scope| {
        for (number, image) in images.iter().enumerate() {
            let saved = &saved;
            scope.spawn(move || {
                let name = Some(format!("app:{number}"));
                image.save(saved, &SaveOptions { name }, Transfer::default()).unwrap();
            });
        }
    });
    for (number, image) in images.iter().enumerate() {
        let other = scratch();
        let from = Some(format!("app:{number}"));
        let options = TakeOptions { from, ..TakeOptions::default() };
        let loaded = store(other.path()).load(&saved, &options, Transfer::default()).unwrap();
        assert_eq!(loaded.digest(), image.digest());
    }
    let mut names: Vec<_> =
        fs::read_dir(&saved).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["blobs", "index.json", "oci-layout"]);
}

#[test]
fn nothing_is_made_in_what_is_another_users() {
    if !locule_images::is_root() {
        return locule_images::skip("root");
    }
    let dir = scratch();
    let path = dir.path().join("store");
    fs::create_dir(&path).unwrap();
    chown(&path, Some(1234), Some(1234)).unwrap();
    let options = StoreOptions { path: Some(path.clone()), ..StoreOptions::default() };
    let error = ImageStore::open(options).unwrap_err();
    assert_eq!(error.category(), Category::Permission, "{error}");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[test]
fn prune_takes_nothing_of_which_it_cannot_tell_whether_it_is_needed() {
    let dir = scratch();
    let own = store(dir.path());
    let mut layout = Layout::new(&dir.path().join("layout"));
    layout.image(Some("app"), &layers(), json!({}));
    let image = load(&own, layout.path()).unwrap();
    let uses = own.path().join("uses");
    let everything = PruneOptions { all: true };

    // Whether that is there cannot be said.
    symlink("loop", dir.path().join("loop")).unwrap();
    let container = dir.path().join("loop/container");
    let usage = json!({
        "container": { "Unix": container.to_str().unwrap().as_bytes() },
        "view": { "boot": "", "mounts": 0 },
        "manifest": image.digest(),
        "layers": [],
    });
    fs::write(uses.join("one"), usage.to_string()).unwrap();
    assert_eq!(own.prune(&everything, Transfer::default()).unwrap().images.len(), 0);
    fs::remove_file(uses.join("one")).unwrap();

    // What cannot be read now may be read later.
    symlink("two", uses.join("two")).unwrap();
    let error = own.prune(&everything, Transfer::default()).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ELOOP), "{error}");
    own.get("app").unwrap();
    fs::remove_file(uses.join("two")).unwrap();

    let blob = |digest: &str| own.path().join("blobs").join(digest.replace(':', "/"));
    let manifest = blob(image.digest());
    let bytes = fs::read(&manifest).unwrap();
    let count = || fs::read_dir(own.path().join("blobs/sha256")).unwrap().count();
    fs::remove_file(&manifest).unwrap();
    symlink(manifest.file_name().unwrap(), &manifest).unwrap();
    let before = count();
    own.prune(&PruneOptions::default(), Transfer::default()).unwrap_err();
    assert_eq!(count(), before);
    // A damaged one is no reason to keep anything.
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, &bytes[1..]).unwrap();
    own.prune(&PruneOptions::default(), Transfer::default()).unwrap();
    assert_eq!(count(), 1);
}

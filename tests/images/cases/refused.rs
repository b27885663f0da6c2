//! Images that are wrong, or that mean harm: refused, with a message that names what is wrong, and
//! nothing of them left.

use std::fs;

use locule::Category;
use locule::image::{Ids, Limits, Transfer};
use locule_images::{Layer, Layout, TarFile, config_of};
use serde_json::{Value, json};

use super::{layers, load, scratch, store};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What is wrong with a layout.
type Break = fn(&mut Layout);

/// Lists a manifest of which a part was changed.
fn changed(layout: &mut Layout, change: impl FnOnce(&mut Value)) {
    let good = layout.manifest(&layers(), &config_of(&layers(), json!({})));
    let path = layout.blob_path(good["digest"].as_str().unwrap());
    let mut manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut manifest);
    let changed = layout.document(MANIFEST, &manifest);
    layout.list(None, changed);
}

fn with_config(layout: &mut Layout, change: impl FnOnce(&mut Value)) {
    let mut config = config_of(&layers(), json!({}));
    change(&mut config);
    let manifest = layout.manifest(&layers(), &config);
    layout.list(None, manifest);
}

fn tamper(
    layout: &mut Layout,
    of: impl FnOnce(&Value) -> String,
    change: impl FnOnce(&mut Vec<u8>),
) {
    let good = layout.image(None, &layers(), json!({}));
    let path = layout.blob_path(good["digest"].as_str().unwrap());
    let manifest: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let path = layout.blob_path(&of(&manifest));
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn layer_of(manifest: &Value) -> String {
    manifest["layers"][0]["digest"].as_str().unwrap().to_owned()
}

fn config_digest(manifest: &Value) -> String {
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

/// A sentence, the break, the category, and words of the message.
const CASES: &[(&str, Break, Category, &str)] = &[
    (
        "a layer with a byte changed",
        |l| tamper(l, layer_of, |b| b[20] ^= 1),
        Category::Spec,
        "sha256:",
    ),
    (
        "a layer that is too short",
        |l| tamper(l, layer_of, |b| b.truncate(30)),
        Category::Spec,
        "ends after 30",
    ),
    (
        "a layer that is too long",
        |l| tamper(l, layer_of, |b| b.push(0)),
        Category::Spec,
        "longer than",
    ),
    (
        "a configuration with a byte changed",
        |l| tamper(l, config_digest, |b| b[3] ^= 1),
        Category::Spec,
        "sha256:",
    ),
    (
        "a configuration that is too long",
        |l| tamper(l, config_digest, |b| b.push(b' ')),
        Category::Spec,
        "longer than",
    ),
    (
        "a layer that is not there",
        |l| {
            changed(l, |m| m["layers"][0]["digest"] = format!("sha256:{}", "1".repeat(64)).into());
        },
        Category::NotFound,
        "sha256:1111",
    ),
    (
        "a manifest that is not there",
        |l| {
            l.list(None, json!({ "mediaType": MANIFEST, "size": 3, "digest": format!("sha256:{}", "2".repeat(64)) }));
        },
        Category::NotFound,
        "sha256:2222",
    ),
    (
        "a digest that leads elsewhere",
        |l| {
            changed(l, |m| m["layers"][0]["digest"] = "sha256:../../../../etc/passwd".into());
        },
        Category::Spec,
        "manifest sha256:",
    ),
    (
        "a digest in capitals",
        |l| {
            changed(l, |m| m["layers"][0]["digest"] = format!("sha256:{}", "A".repeat(64)).into());
        },
        Category::Spec,
        "manifest sha256:",
    ),
    (
        "a digest of an unknown algorithm",
        |l| {
            changed(l, |m| {
                m["layers"][0]["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e".into()
            });
        },
        Category::Unsupported,
        "md5",
    ),
    (
        "a negative size",
        |l| changed(l, |m| m["layers"][0]["size"] = (-1).into()),
        Category::Spec,
        "manifest sha256:",
    ),
    (
        "a size that is a text",
        |l| changed(l, |m| m["config"]["size"] = "3".into()),
        Category::Spec,
        "manifest sha256:",
    ),
    (
        "a manifest without a configuration",
        |l| {
            changed(l, |m| drop(m.as_object_mut().unwrap().remove("config")));
        },
        Category::Spec,
        "config",
    ),
    (
        "a manifest that is an index, too",
        |l| {
            changed(l, |m| m["manifests"] = json!([]));
        },
        Category::Spec,
        "both layers and manifests",
    ),
    (
        "a manifest of schema 1",
        |l| {
            let old = l.document(MANIFEST, &json!({ "schemaVersion": 1, "fsLayers": [] }));
            l.list(None, old);
        },
        Category::Unsupported,
        "schema 1",
    ),
    (
        "a manifest that is no JSON",
        |l| {
            let text = l.blob(MANIFEST, b"{\"schemaVersion\": 2,");
            l.list(None, text);
        },
        Category::Spec,
        "sha256:",
    ),
    (
        "a huge manifest",
        |l| {
            let mut huge = l.blob(MANIFEST, b"{}");
            huge["size"] = (1u64 << 40).into();
            l.list(None, huge);
        },
        Category::Spec,
        "too many for a document",
    ),
    (
        "an artifact that is no image",
        |l| {
            changed(l, |m| m["config"]["mediaType"] = "application/vnd.example.chart".into());
        },
        Category::Unsupported,
        "vnd.example.chart",
    ),
    (
        "an encrypted layer",
        |l| {
            changed(l, |m| {
                m["layers"][1]["mediaType"] =
                    "application/vnd.oci.image.layer.v1.tar+gzip+encrypted".into()
            });
        },
        Category::Unsupported,
        "layers[1]",
    ),
    (
        "more layers than a kernel takes",
        |l| {
            changed(l, |m| {
                let layer = m["layers"][0].clone();
                m["layers"] = vec![layer; 501].into();
            });
        },
        Category::Unsupported,
        "501 layers",
    ),
    (
        "fewer diff ids than layers",
        |l| {
            with_config(l, |c| drop(c["rootfs"]["diff_ids"].as_array_mut().unwrap().pop()));
        },
        Category::Spec,
        "rootfs.diff_ids",
    ),
    (
        "a diff id that is none",
        |l| {
            with_config(l, |c| c["rootfs"]["diff_ids"][1] = "sha256:0".into());
        },
        Category::Spec,
        "rootfs.diff_ids[1]",
    ),
    (
        "a rootfs of another type",
        |l| with_config(l, |c| c["rootfs"]["type"] = "tree".into()),
        Category::Spec,
        "rootfs.type",
    ),
    (
        "a configuration without a rootfs",
        |l| {
            with_config(l, |c| drop(c.as_object_mut().unwrap().remove("rootfs")));
        },
        Category::Spec,
        "rootfs",
    ),
    (
        "a Cmd that is a text",
        |l| with_config(l, |c| c["config"]["Cmd"] = "sh".into()),
        Category::Spec,
        "configuration sha256:",
    ),
    ("an empty index", |_| {}, Category::NotFound, "no image"),
    (
        "indexes without an end",
        |l| {
            let mut next = l.manifest(&layers(), &config_of(&layers(), json!({})));
            for _ in 0..6 {
                next["platform"] = json!({ "os": "linux", "architecture": "amd64" });
                next = l.document(INDEX, &json!({ "schemaVersion": 2, "manifests": [next] }));
            }
            l.list(None, next);
        },
        Category::Spec,
        "four deep",
    ),
    (
        "an index that is no JSON",
        |l| fs::write(l.path().join("index.json"), "{").unwrap(),
        Category::Spec,
        "index.json",
    ),
    (
        "no index",
        |l| fs::remove_file(l.path().join("index.json")).unwrap(),
        Category::Spec,
        "index.json",
    ),
    (
        "a layout of another version",
        |l| {
            fs::write(l.path().join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap();
        },
        Category::Unsupported,
        "imageLayoutVersion",
    ),
    (
        "neither layout nor archive",
        |l| fs::remove_file(l.path().join("oci-layout")).unwrap(),
        Category::Spec,
        "neither",
    ),
    (
        "a FIFO for a layer",
        |l| {
            let good = l.image(None, &layers(), json!({}));
            let manifest = fs::read(l.blob_path(good["digest"].as_str().unwrap())).unwrap();
            let path = l.blob_path(&layer_of(&serde_json::from_slice(&manifest).unwrap()));
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        },
        Category::Spec,
        "not a regular file",
    ),
];

#[test]
fn a_wrong_image_is_refused_and_leaves_nothing() {
    for (what, broken, category, words) in CASES {
        let dir = scratch();
        let store = store(dir.path());
        let mut layout = Layout::new(&dir.path().join("layout"));
        broken(&mut layout);
        let error = match load(&store, layout.path()) {
            Err(error) => error,
            Ok(image) => panic!("{what}: taken as {}", image.digest()),
        };
        assert_eq!(error.category(), *category, "{what}: {error}");
        assert!(error.to_string().contains(words), "{what}: {error}");
        assert!(store.list().unwrap().is_empty(), "{what}");
        assert_eq!(fs::read_dir(dir.path().join("store/drafts")).unwrap().count(), 0, "{what}");
    }
}

fn unpack(layer: Layer, limits: &Limits) -> locule::Result<()> {
    let dir = scratch();
    let store = store(dir.path());
    let mut layout = Layout::new(&dir.path().join("layout"));
    layout.image(None, &[layer], json!({}));
    let image = load(&store, layout.path())?;
    let tree = dir.path().join("tree");
    image.unpack(&tree, &Ids::default(), limits, Transfer::default())
}

#[test]
fn bombs_meet_the_limits() {
    let zeros = vec![0; 80 << 20];
    let bomb = || Layer::gzip(TarFile::new().file("zeros", &zeros).finish());
    let small = Limits { ratio: 10, ..Limits::default() };
    let error = unpack(bomb(), &small).unwrap_err();
    assert_eq!(error.category(), Category::Resource, "{error}");
    assert!(error.to_string().contains("10 times"), "{error}");
    let small = Limits { bytes: 1 << 20, ..Limits::default() };
    let error = unpack(bomb(), &small).unwrap_err();
    assert_eq!(error.category(), Category::Resource, "{error}");
    let few = Limits { entries: 3, ..Limits::default() };
    let tar = (0..10).fold(TarFile::new(), |tar, number| tar.file(&format!("f{number}"), ""));
    let error = unpack(Layer::plain(tar.finish()), &few).unwrap_err();
    assert_eq!(error.category(), Category::Resource, "{error}");
    unpack(bomb(), &Limits::default()).unwrap();
}

#[test]
fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    let mut layer = Layer::gzip(TarFile::new().file("a", "b").finish());
    layer.diff_id = locule_images::sha256(b"another one");
    let error = unpack(layer.clone(), &Limits::default()).unwrap_err();
    assert_eq!(error.category(), Category::Spec, "{error}");
    assert!(error.to_string().contains(&layer.diff_id), "{error}");
    // Cut off within the compressed stream, with a descriptor that says so.
    let mut layer = Layer::gzip(TarFile::new().file("a", vec![7; 100_000]).finish());
    layer.blob.truncate(layer.blob.len() / 2);
    let error = unpack(layer, &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("layer sha256:"), "{error}");
}

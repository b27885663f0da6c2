//! What is written fits the JSON schemas of the image specification. They come from the module that
//! `tests/go.mod` names, in the version that it names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jsonschema::{Registry, Validator};
use locule::image::{Compression, NewOptions, SaveOptions, Transfer};
use locule_images::skip;
use serde_json::{Value, json};

use super::{scratch, store};

fn schemas() -> Option<PathBuf> {
    let module = "github.com/opencontainers/image-spec";
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let go =
        Command::new("go").args(["mod", "download", "-json", module]).current_dir(tests).output();
    let told: Value =
        go.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok()).unwrap_or_default();
    let found = told["Dir"].as_str().map(|dir| Path::new(dir).join("schema"));
    if found.is_none() {
        skip("go, which brings the schemas of the image specification");
    }
    found
}

fn schema(directory: &Path, name: &str) -> Validator {
    let base = "https://opencontainers.org/schema/";
    let mut registry = Registry::new();
    let read = |path: &Path| -> Value {
        serde_json::from_slice(&fs::read(path).expect("a schema")).expect("a schema in JSON")
    };
    for entry in fs::read_dir(directory).expect("the schemas").flatten() {
        let file = entry.file_name().into_string().expect("a plain name");
        if file.ends_with(".json") {
            let resource = jsonschema::Resource::from_contents(read(&entry.path()));
            // They refer to each other as if they lay in several folders.
            for folder in ["", "image/", "image/descriptor/", "image/index/", "image/manifest/"] {
                let uri = format!("{base}{folder}{file}");
                registry = registry.add(uri, resource.clone()).expect("a schema");
            }
        }
    }
    let registry = registry.prepare().expect("schemas that refer to each other");
    jsonschema::options()
        .with_registry(&registry)
        .with_base_uri(format!("{base}{name}"))
        .build(&read(&directory.join(name)))
        .expect("a schema")
}

#[test]
fn what_is_written_fits_the_schemas() {
    let Some(schemas) = schemas() else { return };
    let dir = scratch();
    let store = store(dir.path());
    let tree = dir.path().join("root");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "x").unwrap();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let options = NewOptions {
            name: Some("example.com/made:1".to_owned()),
            compression,
            config: Some(json!({ "Cmd": ["sh"], "ExposedPorts": { "80/tcp": {} }, "User": "1:2" })),
            author: Some("A. Uthor".to_owned()),
            comment: Some("a remark".to_owned()),
            created: Some("2026-01-02T03:04:05Z".to_owned()),
        };
        let image = store.import(&tree, &options, Transfer::default()).unwrap();
        let saved = dir.path().join(format!("saved.{compression:?}"));
        image.save(&saved, &SaveOptions::default(), Transfer::default()).unwrap();
        let read = |path: &str| -> Value {
            serde_json::from_slice(&fs::read(saved.join(path)).unwrap()).unwrap()
        };
        let blob = |descriptor: &Value| {
            read(&format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/")))
        };
        let index = read("index.json");
        let manifest = blob(&index["manifests"][0]);
        let config = blob(&manifest["config"]);
        let documents = [
            ("image-layout-schema.json", read("oci-layout")),
            ("image-index-schema.json", index),
            ("image-manifest-schema.json", manifest),
            ("config-schema.json", config),
        ];
        for (name, document) in documents {
            let schema = schema(&schemas, name);
            assert!(!schema.is_valid(&json!({})), "{name} is not in force");
            let faults: Vec<_> = schema
                .iter_errors(&document)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(faults.is_empty(), "{name}: {faults:?}\n{document:#}");
        }
    }
}

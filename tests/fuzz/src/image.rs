//! Images in archives: loaded, looked at, made ready for a container, committed.
//!
//! An input is an archive; or a JSON object of its files, each as text or as the document itself.
//! In the latter `@NAME` is the digest of the file NAME and `#NAME` its size. A file whose name
//! begins with `@` is a blob, one with `layer` in its name a tar file of its members.
//! `overrides`, `patch` and `name` are, besides, what a caller says.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;

use locule::fuzzing::{commit, image_json, whole_name};
use locule::image::{
    ImageStore, Limits, NewOptions, Overrides, SaveOptions, StoreOptions, TakeOptions, Transfer,
};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::canary::Nest;
use crate::plan::check_error;

/// How often digests lead to digests: a document that names itself has to end somewhere.
const DEPTH: usize = 5;

pub fn run(bytes: &[u8]) {
    let nest = Nest::new("image");
    let said = serde_json::from_slice::<Value>(bytes).ok();
    let members = said.as_ref().and_then(Value::as_object);
    let archive = match members {
        Some(members) => Files::new(members).archive(),
        None => bytes.to_vec(),
    };
    let said = |name: &str| members.and_then(|members| members.get(name));
    fs::write(nest.path("archive"), archive).unwrap();
    if let Err(error) = take(&nest, &said) {
        if crate::is_shown() {
            println!("{error}");
        }
        check_error(&error);
    }
    nest.check(&["archive", "store", "tree", "upper", "layout"]);
}

fn take<'a>(nest: &Nest, said: &dyn Fn(&str) -> Option<&'a Value>) -> locule::Result<()> {
    let quiet = Transfer::default;
    let name = said("name").and_then(Value::as_str);
    if let Some(Ok(whole)) = name.map(whole_name) {
        assert_eq!(whole_name(&whole)?, whole, "a whole name is one");
    }
    let overrides = match said("overrides") {
        None => Overrides::default(),
        Some(overrides) => Overrides::from_json(overrides.to_string().as_bytes())?,
    };
    let store = ImageStore::open(StoreOptions {
        path: Some(nest.path("store")),
        ..StoreOptions::default()
    })?;
    let loaded = store.load(&nest.path("archive"), &TakeOptions::default(), quiet());
    let image = match loaded {
        Ok(image) => image,
        Err(error) => {
            assert_eq!(store.list()?.len(), 0, "what is refused is not there: {error}");
            return Err(error);
        }
    };
    let found = store.get(image.digest())?;
    assert_eq!(found.summary(), image.summary());
    image.inspect()?;

    let limits = Limits { entries: 100, bytes: 1 << 20, ratio: 1024 };
    if let Err(error) = image.unpack(&nest.path("tree"), &Default::default(), &limits, quiet()) {
        check_error(&error);
    }
    match image_json(&image, &overrides) {
        Ok(json) => match locule::spec::parse(&json) {
            Ok(spec) => {
                // What is wrong may be the caller's patch.
                let checked = locule::spec::validate(&spec);
                assert!(checked.is_ok() || overrides.patch.is_some(), "{checked:?}");
            }
            Err(error) => assert!(overrides.patch.is_some(), "{error}"),
        },
        Err(error) => check_error(&error),
    }

    fs::create_dir(nest.path("upper")).unwrap();
    fs::write(nest.path("upper/new"), "new").unwrap();
    let options = NewOptions { config: said("patch").cloned(), ..NewOptions::default() };
    match commit(&image, &nest.path("upper"), &options) {
        Ok(committed) => {
            let layers = |image: &locule::image::Image| {
                image.inspect().unwrap()["layers"].as_array().map(Vec::len)
            };
            assert_eq!(layers(&committed), layers(&image).map(|count| count + 1));
            committed.save(&nest.path("layout"), &SaveOptions::default(), quiet())?;
            store.load(&nest.path("layout"), &TakeOptions::default(), quiet())?;
        }
        Err(error) => check_error(&error),
    }
    Ok(())
}

/// The files of an input.
struct Files<'a> {
    members: &'a Map<String, Value>,
    /// What has been written, by name and depth.
    known: RefCell<HashMap<(String, usize), Vec<u8>>>,
}

impl<'a> Files<'a> {
    fn new(members: &'a Map<String, Value>) -> Files<'a> {
        Files { members, known: RefCell::default() }
    }

    fn archive(&self) -> Vec<u8> {
        let mut tar = Tar::default();
        for name in self.members.keys().take(32) {
            let bytes = self.bytes(name, DEPTH);
            match name.starts_with('@') {
                true => tar.file(&format!("blobs/sha256/{}", hex(&bytes)), &bytes),
                false => tar.file(name, &bytes),
            }
        }
        tar.end()
    }

    fn bytes(&self, name: &str, depth: usize) -> Vec<u8> {
        let key = (name.to_owned(), depth);
        if let Some(known) = self.known.borrow().get(&key) {
            return known.clone();
        }
        let bytes = match &self.members[name] {
            Value::String(text) => text.clone().into_bytes(),
            Value::Object(files) if name.contains("layer") => {
                let mut tar = Tar::default();
                for (name, contents) in files.iter().take(32) {
                    tar.file(name, contents.as_str().unwrap_or_default().as_bytes());
                }
                tar.end()
            }
            document => {
                let mut document = document.clone();
                self.fill(&mut document, depth);
                document.to_string().into_bytes()
            }
        };
        self.known.borrow_mut().insert(key, bytes.clone());
        bytes
    }

    /// Puts digests and sizes where they are asked for.
    fn fill(&self, value: &mut Value, depth: usize) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.fill(item, depth)),
            Value::Object(members) => members.values_mut().for_each(|item| self.fill(item, depth)),
            Value::String(text) if depth > 0 && text.starts_with(['@', '#']) => {
                let (kind, name) = text.split_at(1);
                let names = [format!("@{name}"), name.to_owned()];
                let Some(name) = names.iter().find(|name| self.members.contains_key(*name)) else {
                    return;
                };
                let bytes = self.bytes(name, depth - 1);
                *value = match kind {
                    "@" => format!("sha256:{}", hex(&bytes)).into(),
                    _ => bytes.len().into(),
                };
            }
            _ => {}
        }
    }
}

#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(&mut self, name: &str, contents: &[u8]) {
        let mut header = [0u8; 512];
        let count = name.len().min(99);
        header[..count].copy_from_slice(&name.as_bytes()[..count]);
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{:011o}\0", contents.len()).as_bytes());
        header[136..148].copy_from_slice(b"00000000000\0");
        header[148..156].fill(b' ');
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
        self.0.extend(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

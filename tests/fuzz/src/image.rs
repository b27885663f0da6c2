//! Images in archives: loaded, looked at, made ready for a container, committed.
//!
//! An input is an archive; or a JSON object of its files, each as text or as the document itself.
//! In the latter `@NAME` is the digest of the file NAME and `#NAME` its size, and a file whose name
//! begins with `@` is a blob. `overrides`, `patch` and `name` are no files, but what a caller says.

use std::collections::HashMap;
use std::fs;

use locule::fuzzing::{commit, image_json, whole_name};
use locule::image::{
    ImageStore, Limits, NewOptions, Overrides, SaveOptions, StoreOptions, TakeOptions, Transfer,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::canary::Nest;
use crate::plan::check_error;

/// Takes names apart from each other: a document that names itself has to end somewhere.
const DEPTH: usize = 4;

pub fn run(bytes: &[u8]) {
    let nest = Nest::new("image");
    let said = serde_json::from_slice::<Value>(bytes).ok();
    let members = said.as_ref().and_then(Value::as_object);
    let archive = match members {
        Some(members) => Archive::of(members),
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
    let store =
        ImageStore::open(StoreOptions { path: Some(nest.path("store")), read_only: false })?;
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
struct Archive<'a> {
    members: &'a serde_json::Map<String, Value>,
    known: HashMap<&'a str, Vec<u8>>,
}

impl<'a> Archive<'a> {
    fn of(members: &'a serde_json::Map<String, Value>) -> Vec<u8> {
        let mut archive = Archive { members, known: HashMap::new() };
        let mut tar = Vec::new();
        for name in members.keys().take(32) {
            let bytes = archive.bytes(name, DEPTH);
            let name = match name.starts_with('@') {
                true => format!("blobs/sha256/{}", hex(&bytes)),
                false => name.clone(),
            };
            let mut header = [0u8; 512];
            let count = name.len().min(99);
            header[..count].copy_from_slice(&name.as_bytes()[..count]);
            header[100..108].copy_from_slice(b"0000644\0");
            header[124..136].copy_from_slice(format!("{:011o}\0", bytes.len()).as_bytes());
            header[136..148].copy_from_slice(b"00000000000\0");
            header[148..156].fill(b' ');
            header[156] = b'0';
            header[257..265].copy_from_slice(b"ustar\x0000");
            let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            tar.extend(header);
            tar.extend(&bytes);
            tar.resize(tar.len().next_multiple_of(512), 0);
        }
        tar.resize(tar.len() + 1024, 0);
        tar
    }

    fn bytes(&mut self, name: &str, depth: usize) -> Vec<u8> {
        let Some((name, value)) = self.members.get_key_value(name) else { return Vec::new() };
        if let Some(known) = self.known.get(name.as_str()) {
            return known.clone();
        }
        let bytes = match value {
            Value::String(text) => text.clone().into_bytes(),
            document => {
                let mut document = document.clone();
                self.fill(&mut document, depth);
                document.to_string().into_bytes()
            }
        };
        if depth == DEPTH {
            self.known.insert(name, bytes.clone());
        }
        bytes
    }

    fn fill(&mut self, value: &mut Value, depth: usize) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.fill(item, depth)),
            Value::Object(members) => members.values_mut().for_each(|item| self.fill(item, depth)),
            Value::String(text) if depth > 0 && self.members.contains_key(text.as_str()) => {
                // Names of blobs begin with @ themselves.
                if text.starts_with('@') {
                    let bytes = self.bytes(text, depth - 1);
                    *value = format!("sha256:{}", hex(&bytes)).into();
                }
            }
            Value::String(text) if depth > 0 && text.starts_with('#') => {
                let bytes = self.bytes(&format!("@{}", &text[1..]), depth - 1);
                *value = bytes.len().into();
            }
            _ => {}
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

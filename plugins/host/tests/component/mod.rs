//! Components for tests, out of core modules in text: no toolchain, and nothing is hidden.

use std::path::{Path, PathBuf};

use locule::plugin::{Guard, Plugins, Registration};
use serde_json::{Value, json};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A component of the package in `plugins/wit`.
pub fn component(world: &str, module: &str) -> Vec<u8> {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    component_of(&wit, world, module)
}

/// A component of another package.
pub fn component_of(wit: &Path, world: &str, module: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(wit).unwrap();
    let world = resolve.select_world(&[package], Some(world)).unwrap();
    let mut module = wat::parse_str(module).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let encoder = ComponentEncoder::default().module(&module).unwrap().validate(true);
    let mut encoder = encoder;
    encoder.encode().unwrap()
}

/// What a plugin is made of here: everything it does is in `handle`.
pub struct Parts<'a> {
    /// Imports, and what else comes first.
    pub imports: &'a str,
    /// Functions, data and globals; addresses from 2048 to 4095 are free for it.
    pub items: &'a str,
    /// The body of `configure` before its answer.
    pub configure: &'a str,
    /// The body of `handle` before its answer, which is to agree. Parameters 0 and 1 are the
    /// stage, 2 and 3 the id.
    pub handle: &'a str,
    /// The stages, comma-separated.
    pub stages: &'a str,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Parts { imports: "", items: "", configure: "", handle: "", stages: "create" }
    }
}

impl Parts<'_> {
    /// The text of the core module.
    pub fn module(&self) -> String {
        let (mut names, mut list) = (String::new(), String::new());
        let word = |number: usize| -> String {
            (number as u32).to_le_bytes().iter().map(|byte| format!("\\{byte:02x}")).collect()
        };
        let stages: Vec<&str> = self.stages.split(',').filter(|name| !name.is_empty()).collect();
        for name in &stages {
            list += &(word(1280 + names.len()) + &word(name.len()));
            names += name;
        }
        let Parts { imports, items, configure, handle, .. } = self;
        let count = stages.len();
        format!(
            r#"(module
                {imports}
                (memory (export "memory") 1)
                (global $free (mut i32) (i32.const 8192))
                (data (i32.const 1024) "{list}")
                (data (i32.const 1280) "{names}")
                ;; The answers: 64 to configure, 96 to agree, 128 to refuse with the text at 2048.
                (data (i32.const 68) "\00\04\00\00")
                (data (i32.const 128) "\01\00\00\00\07\00\00\00\00\08\00\00\05\00\00\00")
                {items}
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
                    (global.set $free (i32.add (local.get $at) (local.get 3)))
                    (block $enough
                        (br_if $enough (i32.le_u (global.get $free)
                            (i32.mul (memory.size) (i32.const 65536))))
                        (drop (memory.grow (i32.add (i32.const 1)
                            (i32.div_u (local.get 3) (i32.const 65536))))))
                    (local.get $at))
                (func (export "locule:plugin/lifecycle@0.1.0#configure") (result i32)
                    {configure}
                    (i32.store (i32.const 72) (i32.const {count}))
                    (i32.const 64))
                (func (export "locule:plugin/lifecycle@0.1.0#handle")
                    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                    {handle}
                    (i32.const 96)))"#
        )
    }

    /// The component.
    pub fn build(&self) -> Vec<u8> {
        component("plugin", &self.module())
    }
}

/// A folder that is gone when this is.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a component there.
    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Loads a component with a configuration.
    pub fn load(&self, bytes: &[u8], changes: Value) -> locule::Result<Registration> {
        self.put("it.wasm", bytes);
        let mut document = json!({
            "name": "it",
            "path": "it.wasm",
            "cache": self.path().join("cache"),
        });
        document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        locule_plugins::load(document.to_string().as_bytes(), self.path())
    }
}

/// A chain of one.
pub fn alone(registration: Registration) -> Plugins {
    Plugins::new(vec![registration], Vec::new(), Guard::default()).unwrap()
}

/// A configuration of a container.
pub fn document() -> Value {
    json!({
        "ociVersion": "1.2.0",
        "process": { "user": { "uid": 0, "gid": 0 }, "args": ["/bin/true"], "cwd": "/",
                     "env": ["PATH=/bin"] },
        "root": { "path": "rootfs" },
        "annotations": { "team": "web" },
    })
}

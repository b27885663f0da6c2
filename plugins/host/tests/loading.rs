//! Where components come from, how they are configured, and what of them is kept.

mod component;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use component::{Folder, Parts, alone, component, component_of, document};
use locule::plugin::{Guard, Plugins, Stage};
use locule::{Category, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn create(plugins: &Plugins) -> Result<Value> {
    let made = plugins.rehearse(Stage::Create, "web", "/bundle".as_ref(), document());
    made.map(|(document, _)| document)
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    format!("sha256:{}", digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Sets A to 1.
fn setter() -> Vec<u8> {
    let parts = Parts {
        imports: r#"(import "locule:plugin/adjust-env@0.1.0" "set"
            (func $set (param i32 i32 i32 i32 i32)))"#,
        items: r#"(data (i32.const 2048) "A=1")"#,
        handle: "(call $set (i32.const 2048) (i32.const 1) (i32.const 2050) (i32.const 1)
            (i32.const 2064))",
        ..Parts::default()
    };
    parts.build()
}

fn powers() -> Value {
    json!({ "powers": ["adjust-env"] })
}

#[test]
fn a_digest_lets_nothing_else_be_loaded() {
    let folder = Folder::new();
    let bytes = setter();
    let with = |digest: &str| {
        folder.load(&bytes, json!({ "powers": ["adjust-env"], "digest": digest })).map(drop)
    };
    with(&sha256(&bytes)).unwrap();
    let error = with(&sha256(b"other")).unwrap_err();
    assert_eq!((error.category(), error.pointer()), (Category::Plugin, Some("/digest")));
    for wrong in ["sha256:00", "md5:0", &sha256(&bytes).to_uppercase()] {
        assert_eq!(with(wrong).unwrap_err().category(), Category::Invalid, "{wrong}");
    }
}

#[test]
fn a_component_that_others_may_write_needs_a_digest() {
    let folder = Folder::new();
    let bytes = setter();
    let path = folder.put("theirs.wasm", &bytes);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let mut changes = json!({ "powers": ["adjust-env"], "path": "theirs.wasm" });
    let error = folder.load(b"", changes.clone()).unwrap_err();
    assert_eq!(error.category(), Category::Permission);
    assert!(error.advice().unwrap().contains("with a `digest`"), "{error}");
    changes["digest"] = json!(sha256(&bytes));
    folder.load(b"", changes).unwrap();
}

/// Files in the cache beside the key.
fn compiled(folder: &Folder) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder.path().join("cache")).unwrap().flatten();
    entries.map(|entry| entry.path()).filter(|path| !path.ends_with("key")).collect()
}

#[test]
fn a_component_is_compiled_once() {
    let folder = Folder::new();
    folder.load(&setter(), powers()).unwrap();
    let [path] = &compiled(&folder)[..] else { panic!("one file") };
    let before = std::fs::metadata(path).unwrap().modified().unwrap();
    let plugins = alone(folder.load(&setter(), powers()).unwrap());
    assert_eq!(create(&plugins).unwrap()["process"]["env"], json!(["PATH=/bin", "A=1"]));
    assert_eq!(std::fs::metadata(path).unwrap().modified().unwrap(), before);
    for path in [path.clone(), folder.path().join("cache/key")] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_forged_file_in_the_cache_is_not_run() {
    let folder = Folder::new();
    folder.load(&setter(), powers()).unwrap();
    let [path] = &compiled(&folder)[..] else { panic!("one file") };
    let genuine = std::fs::read(path).unwrap();
    let mut changed = genuine.clone();
    changed[genuine.len() / 2] ^= 1;
    // Another component's, with a code that is right for that one.
    let other = Folder::new();
    std::fs::create_dir(other.path().join("cache")).unwrap();
    std::fs::set_permissions(other.path().join("cache"), PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::copy(folder.path().join("cache/key"), other.path().join("cache/key")).unwrap();
    other.load(&Parts::default().build(), json!({})).unwrap();
    let [theirs] = &compiled(&other)[..] else { panic!("one file") };
    let of_another = std::fs::read(theirs).unwrap();
    for forged in [&changed[..], &genuine[..40], b"", &[0; 100], &genuine[32..], &of_another] {
        std::fs::write(path, forged).unwrap();
        let plugins = alone(folder.load(&setter(), powers()).unwrap());
        assert_eq!(create(&plugins).unwrap()["process"]["env"], json!(["PATH=/bin", "A=1"]));
        assert!(std::fs::read(path).unwrap().len() > 1000, "it was compiled again");
    }
    // Readable by others, or a link: somebody else may have put it there.
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
    folder.load(&setter(), powers()).unwrap();
    std::fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(theirs, path).unwrap();
    let plugins = alone(folder.load(&setter(), powers()).unwrap());
    assert_eq!(create(&plugins).unwrap()["process"]["env"], json!(["PATH=/bin", "A=1"]));
}

#[test]
fn a_cache_that_others_may_write_to_is_none() {
    let folder = Folder::new();
    let cache = folder.path().join("cache");
    std::fs::create_dir(&cache).unwrap();
    std::fs::set_permissions(&cache, PermissionsExt::from_mode(0o777)).unwrap();
    folder.load(&setter(), powers()).unwrap();
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
}

fn layout(folder: &Folder, component: &[u8], media_type: &str) {
    let blobs = folder.path().join("layout/blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = sha256(bytes);
        std::fs::write(blobs.join(&digest[7..]), bytes).unwrap();
        json!({ "digest": digest, "size": bytes.len() })
    };
    let mut layer = put(component);
    layer["mediaType"] = json!(media_type);
    let mut manifest = put(json!({ "schemaVersion": 2, "layers": [layer] }).to_string().as_bytes());
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string();
    std::fs::write(folder.path().join("layout/index.json"), index).unwrap();
}

#[test]
fn a_component_can_come_from_an_image_layout() {
    let folder = Folder::new();
    layout(&folder, &setter(), "application/wasm");
    let load = |path: &str| {
        folder.load(
            b"",
            json!({ "path": path, "powers": ["adjust-env"], "digest": sha256(&setter()) }),
        )
    };
    load("oci:layout").unwrap();
    load("oci:layout:v1").unwrap();
    let absolute = format!("oci:{}:v1", folder.path().join("layout").display());
    load(&absolute).unwrap();
    assert_eq!(load("oci:layout:v2").unwrap_err().category(), Category::Plugin);
    assert_eq!(load("oci:elsewhere").unwrap_err().category(), Category::NotFound);
    let said = folder.load(b"", json!({ "path": "oci:layout" })).unwrap_err();
    assert!(said.to_string().contains("was not granted adjust-env"), "{said}");

    // All else follows from the index. Whoever wrote it, it can be looked at.
    let index = folder.path().join("layout/index.json");
    std::fs::set_permissions(index, PermissionsExt::from_mode(0o666)).unwrap();
    let said = folder.load(b"", json!({ "path": "oci:layout" })).unwrap_err();
    assert!(said.to_string().contains("index.json\" can be written to by others"), "{said}");
    load("oci:layout").unwrap();
    locule_plugins::inspect(absolute.as_str().as_ref()).unwrap();

    layout(&folder, b"changed", "application/octet-stream");
    assert!(load("oci:layout").unwrap_err().to_string().contains("no layer of the type"));
    layout(&folder, &setter(), "application/wasm");
    let blob = folder.path().join("layout/blobs/sha256").join(&sha256(&setter())[7..]);
    std::fs::write(blob, b"\0asm something else").unwrap();
    assert!(load("oci:layout").unwrap_err().to_string().contains("not what its digest says"));
}

#[test]
fn a_configuration_that_is_wrong_names_the_field() {
    let folder = Folder::new();
    for (changes, pointer) in [
        (json!({ "powers": ["adjust-env", "everything"] }), "/powers/1"),
        (json!({ "onFailure": "ignore" }), "/onFailure"),
        (json!({ "onFailureAt": { "create": "ignore" } }), "/onFailureAt/create"),
        (json!({ "onFailureAt": { "tomorrow": "skip" } }), "/onFailureAt/tomorrow"),
        (json!({ "limits": { "fuel": 0 } }), "/limits/fuel"),
        (json!({ "limits": { "wallMilliseconds": 0 } }), "/limits/wallMilliseconds"),
        (json!({ "limits": { "stackBytes": 100 } }), "/limits/stackBytes"),
    ] {
        let error = folder.load(&setter(), changes.clone()).unwrap_err();
        assert_eq!(error.pointer(), Some(pointer), "{changes}: {error}");
        assert_eq!(error.category(), Category::Invalid);
    }
    for (changes, field) in [
        (json!({ "surprise": 1 }), "surprise"),
        (json!({ "limits": { "fule": 1 } }), "fule"),
        (json!({ "limits": { "fuel": -1 } }), "-1"),
        (json!({ "engine": "jvm" }), "jvm"),
    ] {
        let error = folder.load(&setter(), changes).unwrap_err();
        assert_eq!(error.category(), Category::Invalid);
        assert!(error.to_string().contains(field), "{error}");
    }
    let error = locule_plugins::load(br#"{"name": "x"}"#, folder.path()).unwrap_err();
    assert!(error.to_string().contains("missing field `path`"), "{error}");
    let missing = br#"{"name": "x", "path": "nowhere.wasm"}"#;
    let error = locule_plugins::load(missing, folder.path()).unwrap_err();
    assert_eq!(error.category(), Category::NotFound);
}

#[test]
fn a_folder_configures_plugins_and_rules() {
    let folder = Folder::new();
    let settings = folder.path().join("plugins");
    std::fs::create_dir(&settings).unwrap();
    std::fs::write(settings.join("env.wasm"), setter()).unwrap();
    let cache = folder.path().join("cache");
    let put = |name: &str, value: Value| {
        std::fs::write(settings.join(name), value.to_string()).unwrap();
    };
    put("env.json", json!({ "path": "env.wasm", "powers": ["adjust-env"], "cache": cache }));
    put("rules.json", json!({ "required": ["env"], "forbid": ["hooks"] }));
    std::fs::write(settings.join("README"), "not read").unwrap();
    let loaded = locule_plugins::load_folder(&settings).unwrap();
    assert_eq!(loaded.registrations[0].name, "env");
    assert_eq!(loaded.required, ["env"]);
    assert_eq!(loaded.guard, Guard { hooks: true, ..Guard::default() });
    let plugins = Plugins::new(loaded.registrations, loaded.required, loaded.guard).unwrap();
    create(&plugins).unwrap();

    put("rules.json", json!({ "forbid": ["hooks", "fun"] }));
    let error = locule_plugins::load_folder(&settings).unwrap_err();
    assert_eq!(error.pointer(), Some("/forbid/1"));
    assert!(error.to_string().contains("rules.json"), "{error}");
    put("rules.json", json!({}));

    std::fs::set_permissions(settings.join("env.json"), PermissionsExt::from_mode(0o666)).unwrap();
    let error = locule_plugins::load_folder(&settings).unwrap_err();
    assert_eq!(error.category(), Category::Permission);
    let error = locule_plugins::load_folder(Path::new("/nowhere")).unwrap_err();
    assert_eq!(error.category(), Category::NotFound);
}

/// The interfaces as they were first published: what was built with them has to load for ever. A
/// change to what is in `old` breaks plugins that are in use; what is new belongs beside it.
#[test]
fn a_component_that_was_built_with_the_first_version_loads() {
    let folder = Folder::new();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old");
    for interface in [
        ("adjust-annotations", "set", "i32 i32 i32 i32 i32"),
        ("adjust-annotations", "remove", "i32 i32 i32"),
        ("adjust-env", "set", "i32 i32 i32 i32 i32"),
        ("adjust-env", "remove", "i32 i32 i32"),
        ("adjust-mounts", "set", "i32 i32 i32 i32 i32 i32 i32 i32 i32"),
        ("adjust-mounts", "remove", "i32 i32 i32"),
        ("adjust-devices", "set", "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32"),
        ("adjust-devices", "remove", "i32 i32 i32"),
        ("adjust-resources", "set", "i32 i32 i32 i32 i32"),
        ("adjust-resources", "set-unified", "i32 i32 i32 i32 i32"),
        ("adjust-rlimits", "set", "i32 i32 i32 i32 i32 i32 i32"),
        ("adjust-rlimits", "remove", "i32 i32 i32"),
        ("adjust-process", "set-args", "i32 i32 i32"),
        ("adjust-process", "set-cwd", "i32 i32 i32"),
        ("adjust-process", "set-user", "i32 i32 i32 i32 i32"),
        ("adjust-process", "set-oom-score-adj", "i32 i32"),
        ("adjust-namespaces", "set", "i32 i32 i32 i32 i32 i32"),
        ("adjust-namespaces", "remove", "i32 i32 i32"),
        ("adjust-security", "drop-capability", "i32 i32 i32"),
        ("adjust-security", "add-capability", "i32 i32 i32"),
        ("adjust-security", "set-no-new-privileges", "i32 i32"),
        ("adjust-security", "set-seccomp", "i32 i32 i32"),
        ("adjust-security", "set-apparmor-profile", "i32 i32 i32"),
        ("adjust-security", "set-selinux-label", "i32 i32 i32"),
        ("adjust-security", "mask-path", "i32 i32 i32"),
        ("adjust-security", "write-protect-path", "i32 i32 i32"),
        ("adjust-security", "set-root-read-only", "i32 i32"),
        ("adjust-hooks", "add", "i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32"),
        ("adjust-raw", "merge", "i32 i32 i32"),
        ("config", "get", "i32"),
        ("event", "detail", "i32 i32 i32"),
        ("log", "emit", "i32 i32 i32"),
        ("kv", "get", "i32 i32 i32"),
        ("kv", "set", "i32 i32 i32 i32 i32"),
        ("kv", "delete", "i32 i32"),
        ("kv", "keys", "i32"),
        ("spec-view", "get", "i32 i32 i32"),
        ("spec-view", "whole", "i32"),
    ] {
        let (interface, function, parameters) = interface;
        let imports = format!(
            r#"(import "locule:plugin/{interface}@0.1.0" "{function}" (func (param {parameters})))"#
        );
        let module = Parts { imports: &imports, ..Parts::default() }.module();
        let built = component_of(&old, "plugin", &module);
        let open = ["config", "event", "log"].contains(&interface);
        let powers = if open { json!([]) } else { json!([interface]) };
        let plugins = alone(folder.load(&built, json!({ "powers": powers })).unwrap());
        assert_eq!(create(&plugins).unwrap(), document(), "{interface}.{function}");
    }
}

#[test]
fn a_judge_sees_what_others_have_changed_and_may_not_adjust() {
    // It refuses if there are changes: their number is the second word of their list.
    let module = r#"(module
        (memory (export "memory") 1)
        (global $free (mut i32) (i32.const 8192))
        (data (i32.const 128) "\01\00\00\00\07\00\00\00\00\08\00\00\05\00\00\00")
        (data (i32.const 2048) "never")
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
            (global.set $free (i32.add (local.get $at) (local.get 3)))
            (local.get $at))
        (func (export "locule:plugin/validator@0.1.0#validate")
            (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
            (if (local.get 9) (then (return (i32.const 128))))
            (i32.const 96)))"#;
    let judge = component("judge", module);
    let folder = Folder::new();
    let load = |bytes: &[u8], changes| folder.load(bytes, changes).unwrap();
    let plugins = alone(load(&judge, json!({ "name": "judge" })));
    assert_eq!(create(&plugins).unwrap(), document());
    let both = vec![
        load(&judge, json!({ "name": "judge" })),
        load(&setter(), json!({ "name": "setter", "powers": ["adjust-env"] })),
    ];
    let plugins = Plugins::new(both, Vec::new(), Guard::default()).unwrap();
    let said = create(&plugins).unwrap_err().to_string();
    assert_eq!(said, r#"plugin "judge" refused create with code 7: never"#);
    let error = folder.load(&judge, json!({ "powers": ["adjust-env"] })).unwrap_err();
    assert_eq!(error.pointer(), Some("/powers"));
}

#[test]
fn a_component_can_be_inspected_without_running_it() {
    let folder = Folder::new();
    let parts = Parts {
        imports: r#"(import "locule:plugin/kv@0.1.0" "keys" (func (param i32)))
            (import "locule:plugin/config@0.1.0" "get" (func (param i32)))"#,
        configure: "unreachable",
        ..Parts::default()
    };
    let bytes = parts.build();
    let found = locule_plugins::inspect(&folder.put("it.wasm", &bytes)).unwrap();
    assert_eq!(found["powers"], json!(["kv"]));
    assert_eq!(found["digest"], json!(sha256(&bytes)));
    assert_eq!(found["bytes"], json!(bytes.len()));
    assert_eq!(found["judges"], json!(false));
    let imports = found["imports"].as_array().unwrap();
    assert!(imports.contains(&json!("locule:plugin/config@0.1.0")), "{found}");
    assert_eq!(found["exports"], json!(["locule:plugin/lifecycle@0.1.0"]));
}

/// Of this process's status.
fn status(name: &str) -> String {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

#[test]
fn loading_and_calling_leaves_the_process_as_it_was() {
    let size = || status("VmSize").split(' ').next().unwrap().parse::<u64>().unwrap();
    let (caught, before) = (status("SigCgt"), size());
    let folder = Folder::new();
    let plugins: Vec<_> = (0..5)
        .map(|number| {
            let changes = json!({ "name": format!("p{number}"), "powers": ["adjust-env"] });
            folder.load(&setter(), changes).unwrap()
        })
        .collect();
    let plugins = Plugins::new(plugins, Vec::new(), Guard::default()).unwrap();
    for _ in 0..20 {
        create(&plugins).unwrap();
    }
    assert_eq!(status("SigCgt"), caught);
    // KiB. An engine that keeps address space for each memory takes 4 GiB at once.
    assert!(size() < before + (256 << 10), "{before} KiB, then {} KiB", size());
}

/// Where signal handlers run on this thread: address, flags and size.
fn signal_stack() -> (usize, i32, usize) {
    // SAFETY: plain data, filled by the call.
    unsafe {
        let mut stack: libc::stack_t = std::mem::zeroed();
        assert_eq!(libc::sigaltstack(std::ptr::null(), &raw mut stack), 0);
        (stack.ss_sp.addr(), stack.ss_flags, stack.ss_size)
    }
}

#[test]
fn the_signal_stack_of_a_thread_stays_its_own() {
    let folder = Folder::new();
    let plugins = alone(folder.load(&setter(), powers()).unwrap());
    let call = |disabled: bool| {
        if disabled {
            // SAFETY: plain data. The standard library's own stack goes with the thread.
            unsafe {
                let mut none: libc::stack_t = std::mem::zeroed();
                none.ss_flags = libc::SS_DISABLE;
                assert_eq!(libc::sigaltstack(&raw const none, std::ptr::null_mut()), 0);
            }
        }
        let before = signal_stack();
        create(&plugins).unwrap();
        assert_eq!(signal_stack(), before);
        assert_eq!(before.1 == libc::SS_DISABLE, disabled);
    };
    std::thread::scope(|scope| {
        for disabled in [false, true] {
            scope.spawn(move || call(disabled)).join().unwrap();
        }
    });
}

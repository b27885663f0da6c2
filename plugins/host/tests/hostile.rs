//! Components that mean harm, or are broken: this process goes on, the container is refused or
//! created as the policy says, and the error names the plugin, the stage and the limit.

mod component;

use component::{Folder, Parts, alone, component_of, document};
use locule::plugin::{Plugins, Stage};
use locule::{Category, Result};
use serde_json::{Value, json};

const ADJUST_ENV: &str = r#"(import "locule:plugin/adjust-env@0.1.0" "set"
    (func $set (param i32 i32 i32 i32 i32)))"#;

fn create(plugins: &Plugins) -> Result<Value> {
    let made = plugins.rehearse(Stage::Create, "web", "/bundle".as_ref(), document());
    made.map(|(document, _)| document)
}

/// What is said if such a plugin must succeed.
fn failure(parts: &Parts<'_>, changes: Value) -> String {
    let folder = Folder::new();
    let plugins = alone(folder.load(&parts.build(), changes.clone()).unwrap());
    let error = create(&plugins).unwrap_err();
    assert_eq!(error.category(), Category::Plugin);
    // Where it need not succeed, nothing has happened.
    let mut lenient = changes;
    lenient["onFailure"] = json!("skip");
    let plugins = alone(folder.load(&parts.build(), lenient).unwrap());
    assert_eq!(create(&plugins).unwrap(), document());
    error.to_string()
}

/// What is said when it is loaded.
fn refused_to_load(component: &[u8], changes: Value) -> String {
    let error = Folder::new().load(component, changes).unwrap_err();
    error.to_string()
}

#[test]
fn a_plugin_that_agrees_changes_nothing() {
    let folder = Folder::new();
    let plugins = alone(folder.load(&Parts::default().build(), json!({})).unwrap());
    assert_eq!(create(&plugins).unwrap(), document());
}

#[test]
fn an_endless_loop_ends_with_its_fuel() {
    let parts = Parts { handle: "(loop $on (br $on))", ..Parts::default() };
    assert_eq!(
        failure(&parts, json!({ "limits": { "fuel": 1_000_000 } })),
        r#"plugin "it" failed at create: it computed more than fuel, 1000000"#
    );
}

#[test]
fn an_endless_loop_ends_with_its_time() {
    let parts = Parts { handle: "(loop $on (br $on))", ..Parts::default() };
    let limits = json!({ "limits": { "fuel": u64::MAX >> 2, "wallMilliseconds": 30 } });
    assert_eq!(
        failure(&parts, limits),
        r#"plugin "it" failed at create: it took longer than wallMilliseconds, 30"#
    );
    assert_eq!(threads_named("locule-plugins"), 0);
}

/// How many threads of this process have this name.
fn threads_named(name: &str) -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let named = threads.filter(|thread| {
        let found = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        found.trim() == name
    });
    named.count()
}

#[test]
fn fuel_pays_for_bytes_that_are_filled() {
    let parts = Parts {
        items: "(func $fill (memory.fill (i32.const 8192) (i32.const 1) (i32.const 50000)))",
        handle: "(loop $on (call $fill) (br $on))",
        ..Parts::default()
    };
    let said = failure(&parts, json!({ "limits": { "fuel": 40_000 } }));
    assert!(said.ends_with("it computed more than fuel, 40000"), "{said}");
}

#[test]
fn a_memory_hog_is_stopped_at_its_memory() {
    let parts = Parts {
        handle: "(loop $on (drop (memory.grow (i32.const 16))) (br $on))",
        ..Parts::default()
    };
    assert_eq!(
        failure(&parts, json!({ "limits": { "memoryBytes": 8 << 20 } })),
        r#"plugin "it" failed at create: it wanted more memory than memoryBytes, 8388608"#
    );
}

#[test]
fn a_table_hog_is_stopped_at_its_table() {
    let parts = Parts {
        items: "(table $table 1 funcref)",
        handle: "(loop $on (drop (table.grow $table (ref.null func) (i32.const 1000))) (br $on))",
        ..Parts::default()
    };
    assert_eq!(
        failure(&parts, json!({})),
        r#"plugin "it" failed at create: it wanted a table of more than tableElements, 100000"#
    );
}

#[test]
fn deep_recursion_is_stopped_at_its_stack() {
    let parts = Parts {
        items: "(func $deeper (param i64) (result i64)
            (i64.add (local.get 0) (call $deeper (i64.add (local.get 0) (i64.const 1)))))",
        handle: "(drop (call $deeper (i64.const 0)))",
        ..Parts::default()
    };
    assert_eq!(
        failure(&parts, json!({})),
        r#"plugin "it" failed at create: it needed more stack than stackBytes, 524288"#
    );
}

#[test]
fn a_thread_with_too_little_stack_is_told_so() {
    let folder = Folder::new();
    let plugins = alone(folder.load(&Parts::default().build(), json!({})).unwrap());
    let small = std::thread::Builder::new().stack_size(256 << 10);
    let said = small.spawn(move || create(&plugins).unwrap_err().to_string()).unwrap().join();
    let said = said.unwrap();
    assert!(said.contains("KiB of stack left, and it may use 512"), "{said}");
}

#[test]
fn a_trap_is_a_failure() {
    let parts = Parts { handle: "unreachable", ..Parts::default() };
    let said = failure(&parts, json!({}));
    assert!(said.starts_with(r#"plugin "it" failed at create: it trapped: "#), "{said}");
    let parts = Parts { handle: "(drop (i32.load (i32.const -4)))", ..Parts::default() };
    let said = failure(&parts, json!({}));
    assert!(said.contains("out of bounds memory access"), "{said}");
}

#[test]
fn a_refusal_counts_whatever_the_policy_is() {
    let parts = Parts {
        items: r#"(data (i32.const 2048) "never")"#,
        handle: "(return (i32.const 128))",
        ..Parts::default()
    };
    for policy in ["fail", "skip", "disable"] {
        let folder = Folder::new();
        let plugins = folder.load(&parts.build(), json!({ "onFailure": policy })).unwrap();
        assert_eq!(
            create(&alone(plugins)).unwrap_err().to_string(),
            r#"plugin "it" refused create with code 7: never"#
        );
    }
}

/// Sets A to what is at 2050.
const SET: &str = r#"(call $set (i32.const 2048) (i32.const 1) (i32.const 2050) (i32.const 1)
    (i32.const 2064))"#;

#[test]
fn ten_thousand_adjustments_are_too_many() {
    let parts = Parts {
        imports: ADJUST_ENV,
        items: r#"(data (i32.const 2048) "A=1") (global $left (mut i32) (i32.const 10000))"#,
        handle: &format!(
            "(loop $on {SET} (global.set $left (i32.sub (global.get $left) (i32.const 1)))
                (br_if $on (global.get $left)))"
        ),
        ..Parts::default()
    };
    assert_eq!(
        failure(&parts, json!({ "powers": ["adjust-env"] })),
        r#"plugin "it" failed at create: it made more than 1000 adjustments"#
    );
    let folder = Folder::new();
    let more = json!({ "powers": ["adjust-env"], "limits": { "adjustments": 10_000 } });
    let made = create(&alone(folder.load(&parts.build(), more).unwrap())).unwrap();
    assert_eq!(made["process"]["env"], json!(["PATH=/bin", "A=1"]));
}

#[test]
fn a_refused_adjustment_lets_the_plugin_go_on() {
    // A name with = in it is refused; then comes one that is not.
    let parts = Parts {
        imports: ADJUST_ENV,
        items: r#"(data (i32.const 2048) "A=1")"#,
        handle: &format!(
            "(call $set (i32.const 2048) (i32.const 3) (i32.const 2050) (i32.const 1)
                (i32.const 2064))
            (if (i32.ne (i32.load8_u (i32.const 2064)) (i32.const 1)) (then unreachable))
            (if (i32.ne (i32.load8_u (i32.const 2068)) (i32.const 2)) (then unreachable))
            {SET}"
        ),
        ..Parts::default()
    };
    let folder = Folder::new();
    let plugins = folder.load(&parts.build(), json!({ "powers": ["adjust-env"] })).unwrap();
    let made = create(&alone(plugins)).unwrap();
    assert_eq!(made["process"]["env"], json!(["PATH=/bin", "A=1"]));
}

#[test]
fn nothing_is_left_of_a_plugin_that_fails_after_an_adjustment() {
    let parts = Parts {
        imports: ADJUST_ENV,
        items: r#"(data (i32.const 2048) "A=1")"#,
        handle: &format!("{SET} unreachable"),
        ..Parts::default()
    };
    failure(&parts, json!({ "powers": ["adjust-env"] }));
}

#[test]
fn a_huge_text_is_too_long() {
    let parts = Parts {
        imports: ADJUST_ENV,
        items: r#"(data (i32.const 2048) "A")"#,
        handle: "(drop (memory.grow (i32.const 64)))
            (memory.fill (i32.const 65536) (i32.const 97) (i32.const 2000000))
            (call $set (i32.const 2048) (i32.const 1) (i32.const 65536) (i32.const 2000000)
                (i32.const 2064))",
        ..Parts::default()
    };
    assert_eq!(
        failure(&parts, json!({ "powers": ["adjust-env"] })),
        r#"plugin "it" failed at create: it gave a text longer than textBytes, 1048576"#
    );
}

#[test]
fn a_text_beyond_its_memory_is_a_failure() {
    let parts = Parts {
        imports: ADJUST_ENV,
        handle: "(call $set (i32.const 65530) (i32.const 100) (i32.const 0) (i32.const 0)
            (i32.const 2064))",
        ..Parts::default()
    };
    let said = failure(&parts, json!({ "powers": ["adjust-env"] }));
    assert!(said.contains("out of bounds"), "{said}");
}

#[test]
fn bad_utf_8_is_a_failure() {
    let parts = Parts {
        imports: ADJUST_ENV,
        items: r#"(data (i32.const 2048) "\ff\fe")"#,
        handle: "(call $set (i32.const 2048) (i32.const 2) (i32.const 2048) (i32.const 0)
            (i32.const 2064))",
        ..Parts::default()
    };
    let said = failure(&parts, json!({ "powers": ["adjust-env"] }));
    assert!(said.to_lowercase().contains("utf-8"), "{said}");
}

#[test]
fn an_answer_that_is_none_is_a_failure() {
    // A result that is neither ok nor an error.
    let parts = Parts { handle: "(i32.store8 (i32.const 96) (i32.const 9))", ..Parts::default() };
    let said = failure(&parts, json!({}));
    assert!(said.contains("invalid"), "{said}");
}

#[test]
fn what_it_asks_for_is_limited() {
    let parts = Parts {
        imports: r#"(import "locule:plugin/spec-view@0.1.0" "whole" (func $whole (param i32)))"#,
        handle: "(call $whole (i32.const 2048))",
        ..Parts::default()
    };
    assert_eq!(
        failure(&parts, json!({ "powers": ["spec-view"], "limits": { "inputBytes": 100 } })),
        r#"plugin "it" failed at create: it asked for a text longer than inputBytes, 100"#
    );
}

#[test]
fn a_component_that_imports_what_it_was_not_granted_is_not_loaded() {
    let parts = Parts {
        imports: ADJUST_ENV,
        handle: "(call $set (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
        ..Parts::default()
    };
    assert_eq!(
        refused_to_load(&parts.build(), json!({ "powers": ["adjust-mounts", "spec-view"] })),
        r#"plugin "it": it was not granted adjust-env (at /powers)"#
    );
}

#[test]
fn a_component_that_imports_what_nobody_has_is_not_loaded() {
    let folder = Folder::new();
    let wit = folder.put(
        "other.wit",
        b"package wasi:clocks@0.2.0;
        interface wall-clock { now: func() -> u64; }
        world other { import wall-clock; export run: func(); }",
    );
    let module = r#"(module
        (import "wasi:clocks/wall-clock@0.2.0" "now" (func $now (result i64)))
        (func (export "run") (drop (call $now))))"#;
    let said = refused_to_load(&component_of(&wit, "other", module), json!({}));
    assert_eq!(
        said,
        r#"plugin "it": it imports wasi:clocks/wall-clock@0.2.0, which no plugin gets"#
    );
}

#[test]
fn a_component_without_our_exports_is_not_loaded() {
    let folder = Folder::new();
    let wit = folder.put("other.wit", b"package a:b; world other { export run: func(); }");
    let module = r#"(module (func (export "run")))"#;
    let said = refused_to_load(&component_of(&wit, "other", module), json!({}));
    assert!(said.contains("exports neither locule:plugin/lifecycle nor"), "{said}");
}

#[test]
fn exports_of_other_types_are_not_taken_for_ours() {
    let folder = Folder::new();
    let wit = folder.put(
        "other.wit",
        b"package locule:plugin@0.1.0;
        interface lifecycle { configure: func() -> u32; handle: func(stage: u32); }
        world other { export lifecycle; }",
    );
    let module = r#"(module
        (func (export "locule:plugin/lifecycle@0.1.0#configure") (result i32) (i32.const 0))
        (func (export "locule:plugin/lifecycle@0.1.0#handle") (param i32)))"#;
    let said = refused_to_load(&component_of(&wit, "other", module), json!({}));
    assert!(said.starts_with(r#"plugin "it": it could not be configured: "#), "{said}");
}

#[test]
fn what_is_no_component_is_not_loaded() {
    assert_eq!(
        refused_to_load(b"#!/bin/sh\n", json!({})),
        r#"plugin "it": "it.wasm" is no WebAssembly"#
    );
    let said = refused_to_load(&wat::parse_str("(module)").unwrap(), json!({}));
    assert!(said.starts_with(r#"plugin "it": it is no component that can be run: "#), "{said}");
    let cut = &Parts::default().build()[..200];
    let said = refused_to_load(cut, json!({}));
    assert!(said.starts_with(r#"plugin "it": it is no component that can be run: "#), "{said}");
}

#[test]
fn a_plugin_that_fails_when_it_is_configured_is_not_loaded() {
    let parts = Parts { configure: "unreachable", ..Parts::default() };
    let said = refused_to_load(&parts.build(), json!({}));
    assert!(said.starts_with(r#"plugin "it": it could not be configured: it trapped: "#), "{said}");
    let parts = Parts { configure: "(loop $on (br $on))", ..Parts::default() };
    let said = refused_to_load(&parts.build(), json!({ "limits": { "fuel": 100_000 } }));
    assert!(said.ends_with("it computed more than fuel, 100000"), "{said}");
    let parts = Parts { stages: "create,tomorrow", ..Parts::default() };
    let said = refused_to_load(&parts.build(), json!({}));
    assert!(said.contains(r#"it wants to be called at "tomorrow", which is no stage"#), "{said}");
}

#[test]
fn a_failed_plugin_is_as_good_as_new_the_next_time() {
    // It fails if it is called a second time in the same memory.
    let parts = Parts {
        items: "(global $calls (mut i32) (i32.const 0))",
        handle: "(if (global.get $calls) (then unreachable))
            (global.set $calls (i32.const 1))",
        ..Parts::default()
    };
    let folder = Folder::new();
    let plugins = alone(folder.load(&parts.build(), json!({})).unwrap());
    for _ in 0..3 {
        create(&plugins).unwrap();
    }
    let kept = alone(folder.load(&parts.build(), json!({ "keepAlive": true })).unwrap());
    create(&kept).unwrap();
    create(&kept).unwrap_err();
    create(&kept).unwrap();
}

#[test]
fn a_disabled_plugin_is_not_called_again_and_is_missed_where_it_is_required() {
    let parts = Parts { handle: "unreachable", ..Parts::default() };
    let folder = Folder::new();
    let plugins = folder.load(&parts.build(), json!({ "onFailure": "disable" })).unwrap();
    let plugins = alone(plugins);
    create(&plugins).unwrap();
    assert!(plugins.iter().all(|(_, disabled)| disabled));
    create(&plugins).unwrap();
    let required = json!({ "onFailure": "disable", "required": true });
    let plugins = alone(folder.load(&parts.build(), required).unwrap());
    let error = create(&plugins).unwrap_err().to_string();
    assert!(error.contains("failed at create: it trapped"), "{error}");
    assert_eq!(
        create(&plugins).unwrap_err().to_string(),
        r#"the required plugin "it" has been disabled after a failure"#
    );
}

#[test]
fn the_same_failures_come_from_the_interpreter() {
    for (handle, said) in [
        ("(loop $on (br $on))", "it computed more than fuel, 1000000"),
        ("(loop $on (drop (memory.grow (i32.const 16))) (br $on))", "memoryBytes, 67108864"),
        ("unreachable", "unreachable` instruction executed"),
    ] {
        let parts = Parts { handle, ..Parts::default() };
        let interpreted = json!({ "engine": "pulley", "limits": { "fuel": 1_000_000 } });
        let found = failure(&parts, interpreted);
        assert!(found.contains(said), "{found}");
    }
}

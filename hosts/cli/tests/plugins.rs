//! Plugins from a folder, as the command takes them.

mod scene;

use std::fs;
use std::path::{Path, PathBuf};

use scene::Scene;
use serde_json::{Value, json};

/// A scene with a folder of plugins; `None`, after saying so, where there is no example.
fn scene(name: &str) -> Option<(Scene, PathBuf)> {
    let component = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins/stamp.wasm");
    if !component.exists() {
        assert!(std::env::var_os("CI").is_none(), "plugins/build.sh stamp has not been run");
        println!("skipped: stamp.wasm (plugins/build.sh stamp)");
        return None;
    }
    let scene = Scene::new(name)?;
    let folder = scene.directory.join("plugins");
    fs::create_dir(&folder).expect("mkdir");
    fs::copy(component, folder.join("stamp.wasm")).expect("copy");
    configure(&folder, json!({ "powers": ["adjust-annotations", "adjust-rlimits"] }));
    Some((scene, folder))
}

fn configure(folder: &Path, changes: Value) {
    let mut document = json!({
        "path": "stamp.wasm", "config": "hello", "cache": folder.join("cache"),
    });
    document.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    fs::write(folder.join("stamp.json"), document.to_string()).expect("write");
}

#[test]
fn a_plugin_of_the_folder_changes_what_a_container_is() {
    let Some((scene, folder)) = scene("plugged") else { return };
    let folder = folder.to_str().unwrap();
    scene.args(&["sh", "-c", "ulimit -Hn"]);
    assert_eq!(scene.fine(&["--plugins", folder, "run", "a"]), "4096\n");
    // An empty one is none, whatever the machine has.
    assert_eq!(scene.fine(&["--plugins", "", "run", "a"]), "1024\n");

    scene.args(&["sleep", "1000"]);
    scene.fine(&["--plugins", folder, "run", "-d", "b"]);
    let state: Value = serde_json::from_str(&scene.fine(&["state", "b"])).unwrap();
    assert_eq!(state["annotations"]["org.locule.stamp"], json!("hello"));
    assert_eq!(state["changes"][0]["plugin"], json!("stamp"));
    scene.fine(&["delete", "--force", "b"]);
    let page = scene.fine(&["--plugins", folder, "explain"]);
    assert!(page.contains(r#"stamp set-annotation nothing -> "hello""#), "{page}");
}

#[test]
fn a_broken_plugin_keeps_containers_from_being_made_and_not_from_ending() {
    let Some((scene, folder)) = scene("broken") else { return };
    scene.args(&["sleep", "1000"]);
    let words = folder.to_str().unwrap();
    scene.fine(&["--plugins", words, "run", "-d", "a"]);
    configure(&folder, json!({ "powers": [] }));
    let said = scene.fails(&["--plugins", words, "create", "b"], 1);
    assert!(said.contains("it was not granted adjust-annotations"), "{said}");
    assert_eq!(scene.fine(&["list", "-q"]), "a\n");
    let killed = scene.locule(&["--plugins", words, "kill", "a", "KILL"]);
    assert!(killed.status.success(), "{killed:?}");
    let deleted = scene.locule(&["--plugins", words, "delete", "--force", "a"]);
    assert!(deleted.status.success(), "{deleted:?}");
    let said = scene.fails(&["--plugins", "/nowhere", "create", "b"], 1);
    assert!(said.contains("/nowhere"), "{said}");
}

//! The workbench, on an example.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// An example that `plugins/build.sh` has built; `None`, after saying so, if it has not.
fn example(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins");
    let path = path.join(format!("{name}.wasm"));
    if !path.exists() {
        assert!(std::env::var_os("CI").is_none(), "plugins/build.sh {name} has not been run");
        println!("skipped: {name}.wasm (plugins/build.sh {name})");
        return None;
    }
    Some(path)
}

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { folder: tempfile::tempdir().expect("a folder") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, document: &Value) -> String {
        std::fs::write(self.path(name), document.to_string()).expect("write");
        self.path(name).to_str().expect("text").to_owned()
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_locule-plugin"));
        command.args(words).output().expect("run it")
    }

    #[track_caller]
    fn fine(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    #[track_caller]
    fn fails(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).expect("text")
    }

    /// A configuration of an example, with a cache of its own.
    fn configure(&self, name: &str, powers: &[&str], config: Value) -> Option<String> {
        let component = example(name)?;
        let document = json!({
            "path": component, "powers": powers, "config": config, "cache": self.path("cache"),
        });
        Some(self.write(&format!("{name}.json"), &document))
    }

    fn stamp(&self) -> Option<String> {
        self.configure("stamp", &["adjust-annotations", "adjust-rlimits"], json!("hello"))
    }
}

#[test]
fn a_component_tells_what_it_wants() {
    let Some(stamp) = example("stamp") else { return };
    let said = Bench::new().fine(&["inspect", stamp.to_str().unwrap()]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["powers"], json!(["adjust-annotations", "adjust-rlimits"]));
    assert_eq!(said["judges"], json!(false));
    let said = Bench::new().fails(&["inspect", "/bin/sh"]);
    assert!(said.contains("is no WebAssembly"), "{said}");
}

#[test]
fn what_a_plugin_changes_is_shown_line_by_line() {
    let bench = Bench::new();
    let Some(stamp) = bench.stamp() else { return };
    let said = bench.fine(&["run", &stamp]);
    assert!(said.contains(r#"+ /annotations/org.locule.stamp: "hello""#), "{said}");
    assert!(said.contains("RLIMIT_NOFILE"), "{said}");
    assert!(said.contains("it agrees\n"), "{said}");
    let said = bench.fine(&["run", "--stage", "delete", &stamp]);
    assert!(said.contains("it agrees, and changes nothing"), "{said}");
    let said = bench.fails(&["run", "--stage", "tomorrow", &stamp]);
    assert!(said.contains(r#""tomorrow" is no stage"#), "{said}");
}

#[test]
fn a_refusal_is_shown_and_fails() {
    let bench = Bench::new();
    let powers = ["spec-view", "adjust-security"];
    let Some(policy) = bench.configure("policy", &powers, json!({})) else { return };
    let said = bench.fails(&["run", &policy]);
    assert!(said.contains(r#"plugin "policy" refused create"#), "{said}");
}

#[test]
fn a_component_can_be_granted_less_than_it_wants() {
    let Some(stamp) = example("stamp") else { return };
    let words = ["run", "--grant", "adjust-rlimits", stamp.to_str().unwrap()];
    let said = Bench::new().fails(&words);
    assert!(said.contains("it was not granted adjust-annotations"), "{said}");
    let said = Bench::new().fails(&["run", "--settings", "{", stamp.to_str().unwrap()]);
    assert!(said.contains("is not JSON"), "{said}");
}

#[test]
fn a_recording_is_kept_until_the_plugin_does_something_else() {
    let bench = Bench::new();
    let Some(stamp) = bench.stamp() else { return };
    let golden = bench.path("golden.json");
    let golden = golden.to_str().unwrap();
    bench.fine(&["record", &stamp, "-o", golden]);
    assert_eq!(bench.fine(&["replay", &stamp, golden]), "it does the same\n");
    let mut recording: Value = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    recording["calls"][0]["result"] = json!("something else");
    bench.write("golden.json", &recording);
    let said = bench.fails(&["replay", &stamp, golden]);
    assert!(said.contains("call 1 was"), "{said}");
    bench.write("golden.json", &json!({ "version": 2 }));
    assert!(bench.fails(&["replay", &stamp, golden]).contains("the recording"));
}

#[test]
fn the_plugins_of_a_folder_are_listed_and_checked() {
    let bench = Bench::new();
    let (Some(stamp), Some(_)) = (bench.stamp(), example("policy")) else { return };
    bench.configure("policy", &["spec-view", "adjust-security"], json!({}));
    bench.write("rules.json", &json!({ "required": ["policy"] }));
    let folder = bench.folder.path().to_str().unwrap();
    let said = bench.fine(&["list", "--plugins", folder]);
    let lines: Vec<Vec<&str>> =
        said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "PRIORITY", "REQUIRED", "STAGES"]);
    assert_eq!(lines[1], ["policy", "0", "yes", "create,exec"]);
    assert_eq!(lines[2], ["stamp", "0", "create"]);
    let said = bench.fine(&["check", &stamp]);
    assert!(said.contains("fine; called at create"), "{said}");
    let wrong = bench.write("wrong.json", &json!({ "path": "nowhere.wasm" }));
    let said = bench.fails(&["check", &stamp, &wrong]);
    assert!(said.contains("fine") && said.contains("nowhere.wasm"), "{said}");
    std::fs::remove_file(&wrong).unwrap();
    bench.write("rules.json", &json!({ "required": ["other"] }));
    let said = bench.fails(&["check", "--plugins", folder]);
    assert!(said.contains(r#"the required plugin "other" is missing"#), "{said}");
}

#[test]
fn calls_are_timed() {
    let bench = Bench::new();
    let Some(stamp) = bench.stamp() else { return };
    let said = bench.fine(&["bench", "-n", "20", &stamp]);
    assert!(said.starts_with("20 calls: median "), "{said}");
}

//! `docs/conformance.md` and its companions name tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

/// The texts of all tests and tables of cases.
fn sources(directory: &Path, found: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != "node_modules" {
            sources(&path, found);
        }
        let kind = path.extension().and_then(|kind| kind.to_str());
        if path.is_file() && matches!(kind, Some("rs" | "py" | "go" | "c" | "sh")) {
            found.push_str(&fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_tests_that_the_documents_name_exist() {
    let mut all = String::new();
    for place in ["core", "ffi", "plugins", "tests", "bindings", "hosts"] {
        sources(&repository().join(place), &mut all);
    }
    let mut missing = Vec::new();
    for document in ["conformance", "differences-to-runc", "security"] {
        let path = repository().join("docs").join(document).with_extension("md");
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for row in text.lines().filter(|line| line.starts_with('|')) {
            let Some(proof) = row.trim_end_matches('|').rsplit('|').next() else { continue };
            for name in proof.split('`').skip(1).step_by(2) {
                let function = name.rsplit("::").next().unwrap_or(name);
                let words = function.contains('_') && !function.contains(['/', '.', ' ']);
                let defined = ["(", "<"].iter().any(|end| {
                    all.contains(&format!("fn {function}{end}"))
                        || all.contains(&format!("def {function}{end}"))
                        || all.contains(&format!("func {function}{end}"))
                });
                if words && !defined {
                    missing.push(format!("{document}: {name}"));
                }
            }
            for sentence in proof.split('"').skip(1).step_by(2) {
                if !all.contains(sentence) {
                    missing.push(format!("{document}: \"{sentence}\""));
                }
            }
        }
    }
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

//! `include/locule.h` is what the sources of `ffi` say: one section a file, in this order.
//! `make header` writes it; without that, a difference fails this test.

use std::path::{Path, PathBuf};

use cbindgen::{Builder, Config, DocumentationStyle, Language, Style};

/// The sections of the header: the file, and what stands above it.
const SECTIONS: [(&str, &str); 14] = [
    ("version", "Version: which library runs, and what it can do"),
    ("error", "Errors: what failed, where in a container's life, and where in config.json"),
    ("buf", "Buffers: bytes that Locule hands out"),
    ("cancel", "Cancelling: tokens that stop waiting calls"),
    ("runtime", "Runtime: the place where containers are kept"),
    ("spec", "Spec: the default config.json"),
    ("options", "Standard streams"),
    ("container", "Containers"),
    ("process", "Processes: waiting, signals, pipes, terminals"),
    ("event", "Events: what locule_runtime_dispatch reports"),
    ("image_opts", "Image options: how images are fetched, made, written and unpacked"),
    ("image", "Images: a store of them, what comes into it and what goes out"),
    ("plugin", "Plugins: what sees, changes or refuses a container at stages of its life"),
    ("plugin_call", "Plugin calls: what a plugin's callback can learn and ask for"),
];

/// Types that C sees by a typedef, without `struct`. The preamble declares them.
const TYPEDEFS: [&str; 11] = [
    "locule_runtime",
    "locule_container",
    "locule_process",
    "locule_cancel",
    "locule_error",
    "locule_event",
    "locule_plugin",
    "locule_plugin_call",
    "locule_image_store",
    "locule_image",
    "locule_buf",
];

/// Types that C sees as `struct`.
const STRUCTS: [&str; 11] = [
    "locule_runtime_opts",
    "locule_spec_opts",
    "locule_stdio",
    "locule_create_opts",
    "locule_exec_opts",
    "locule_exit",
    "locule_watch_opts",
    "locule_plugin_opts",
    "locule_image_store_opts",
    "locule_image_opts",
    "locule_image_progress",
];

const PREAMBLE: &str = include_str!("preamble.h");
const POSTAMBLE: &str = "\n#ifdef __cplusplus\n}\n#endif\n\n#endif /* LOCULE_H */\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn section(file: &str, title: &str) -> String {
    let mut config = Config {
        language: Language::C,
        style: Style::Tag,
        documentation_style: DocumentationStyle::Doxy,
        usize_is_size_t: true,
        no_includes: true,
        line_length: 96,
        tab_width: 4,
        ..Config::default()
    };
    config.export.exclude = TYPEDEFS[..10].iter().map(|name| (*name).to_owned()).collect();
    // Those that no function of the same file mentions, too.
    config.export.include = STRUCTS.iter().map(|name| (*name).to_owned()).collect();
    let bindings = Builder::new()
        .with_config(config)
        .with_src(root().join(format!("ffi/src/{file}.rs")))
        .generate()
        .unwrap_or_else(|error| panic!("{file}.rs: {error}"));
    let mut text = Vec::new();
    bindings.write(&mut text);
    let mut text = String::from_utf8(text).expect("cbindgen writes UTF-8");
    // cbindgen sees one file at a time, so it does not know which of its neighbours' types are
    // structs; it must not, or the functions would come after all types instead of beside them.
    for name in TYPEDEFS {
        text = text.replace(&format!("struct {name} *"), &format!("{name} *"));
    }
    for name in STRUCTS {
        for end in [" *", " stdio"] {
            text = text.replace(&format!("struct {name}{end}"), &format!("{name}{end}"));
            text = text.replace(&format!("{name}{end}"), &format!("struct {name}{end}"));
        }
    }
    let text = compact(&text);
    let line = "=".repeat(90);
    format!("\n/* {line}\n * {title}\n * {line} */\n\n{text}\n")
}

/// Puts a comment of one line on one line, and the constants of one group close together.
fn compact(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    let mut compacted: Vec<String> = Vec::new();
    let mut index = 0;
    while let Some(&line) = lines.get(index) {
        let one_line =
            line.trim() == "/**" && lines.get(index + 2).is_some_and(|l| l.trim() == "*/");
        if one_line {
            let indent = &line[..line.len() - line.trim_start().len()];
            let text = lines[index + 1].trim().trim_start_matches('*').trim();
            compacted.push(format!("{indent}/** {text} */"));
            index += 3;
            continue;
        }
        // A negative number in parentheses, lest `a LOCULE_E_X` be a subtraction.
        match line.strip_prefix("#define ").and_then(|rest| rest.split_once(" -")) {
            Some((name, number)) => compacted.push(format!("#define {name} (-{number})")),
            None => compacted.push(line.to_owned()),
        }
        index += 1;
    }
    let mut previous_group = None;
    let mut grouped = Vec::new();
    for (index, line) in compacted.iter().enumerate() {
        let next = compacted.get(index + 2).map(String::as_str).unwrap_or_default();
        if line.is_empty() && previous_group.is_some() && previous_group == group(next) {
            continue;
        }
        if !line.is_empty() {
            previous_group = group(line);
        }
        grouped.push(line.as_str());
    }
    grouped.join("\n")
}

/// The group of a constant: `STAGE` of `#define LOCULE_STAGE_START 17`.
fn group(line: &str) -> Option<&str> {
    line.strip_prefix("#define LOCULE_")?.split('_').next()
}

fn generate() -> String {
    let sections: String = SECTIONS.iter().map(|(file, title)| section(file, title)).collect();
    format!("{PREAMBLE}{sections}{POSTAMBLE}")
}

#[test]
fn the_committed_header_is_what_the_sources_say() {
    let path = root().join("include/locule.h");
    let generated = generate();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, generated).expect("write include/locule.h");
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if committed != generated {
        let line = committed.lines().zip(generated.lines()).take_while(|(a, b)| a == b).count();
        panic!("include/locule.h is stale from line {} on: run `make header`", line + 1);
    }
}

#[test]
fn no_file_of_the_abi_is_left_out_of_the_header() {
    let source = root().join("ffi/src");
    for entry in std::fs::read_dir(source).expect("read ffi/src").flatten() {
        let path = entry.path();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if text.contains("#[unsafe(no_mangle)]") {
            assert!(SECTIONS.iter().any(|(file, _)| *file == name), "{name}.rs has no section");
        }
    }
}

#[test]
fn nothing_of_rustdoc_leaks_into_the_header() {
    for (number, line) in generate().lines().enumerate() {
        let comment = line.trim_start().trim_start_matches("* ");
        for markup in ["[`", "::", "# Safety", "# Errors", "](", "Option<"] {
            assert!(!comment.contains(markup), "line {}: {line}", number + 1);
        }
        assert!(line.len() <= 100, "line {} is too long: {line}", number + 1);
    }
}

/// Whether a declaration of a function begins on this line.
fn function(line: &str) -> bool {
    let first = line.chars().next().unwrap_or(' ');
    first.is_ascii_lowercase() && line.contains('(') && !line.starts_with("typedef")
}

#[test]
fn every_function_says_its_thread_rule_and_since_when_it_exists() {
    let header = generate();
    let mut comment = String::new();
    for line in header[PREAMBLE.len()..].lines() {
        match line.trim_start().strip_prefix('*') {
            _ if line.starts_with("/**") => comment.clear(), // one line: a constant or a type
            Some(text) if line.starts_with(' ') => {
                comment.push_str(text);
                comment.push('\n');
            }
            _ if function(line) => {
                for required in ["Since 0.", "lock"] {
                    assert!(comment.contains(required), "{line} lacks \"{required}\"");
                }
                let thread = comment.contains("Any thread") || comment.contains("Only in the");
                assert!(thread, "{line} lacks its thread rule");
            }
            _ => {}
        }
    }
}

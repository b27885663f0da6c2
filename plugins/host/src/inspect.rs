//! What a component is, read from its file without running it.

use std::path::Path;

use locule::Result;
use serde_json::{Value, json};
use wasmparser::{Parser, Payload};

use crate::source::Source;
use crate::{failed, linker};

/// Describes a component: a file, or `oci:` and an image layout. The document has `digest`, `bytes`,
/// `powers` (what it has to be granted), `imports` and `exports` (all of them, by their full names),
/// and `judges`, whether it is a validator. None of its code is run, or compiled, so it may be anybody's.
///
/// # Errors
/// As [`load`](crate::load()) where it is no component at all.
pub fn inspect(reference: &Path) -> Result<Value> {
    let reference = reference.to_string_lossy();
    let source = Source::look(&reference)?;
    let (imports, exports) = names(&source.bytes)
        .map_err(|error| failed(format!("{reference:?} is no component: {error}")))?;
    let interfaces = |names: &[String]| -> Vec<String> {
        names.iter().filter_map(|name| linker::interface(name)).map(str::to_owned).collect()
    };
    let mut powers = interfaces(&imports);
    powers.retain(|name| linker::POWERS.contains(&name.as_str()));
    Ok(json!({
        "digest": format!("sha256:{}", source.digest),
        "bytes": source.bytes.len(),
        "powers": powers,
        "judges": interfaces(&exports).iter().any(|name| name == "validator"),
        "imports": imports,
        "exports": exports,
    }))
}

/// The names of what a component itself imports and exports, not of what is inside.
fn names(bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), String> {
    let said = |error: wasmparser::BinaryReaderError| error.to_string();
    let (mut imports, mut exports, mut depth) = (Vec::new(), Vec::new(), 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(said)? {
            Payload::Version { encoding, .. } => {
                if depth == 0 && encoding != wasmparser::Encoding::Component {
                    return Err("it is a core module".to_owned());
                }
                depth += 1;
            }
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    imports.push(import.map_err(said)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.push(export.map_err(said)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

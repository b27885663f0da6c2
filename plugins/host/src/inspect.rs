//! What a component is, read from its file without running it.

use std::path::Path;

use locule::Result;
use serde_json::{Value, json};
use wasmtime::component::Component;

use crate::configuration::{Engine as Choice, Limits};
use crate::engine::Engine;
use crate::source::Source;
use crate::{failed, linker};

/// Describes a component: a file, or `oci:` and an image layout. The document has `digest`, `bytes`,
/// `powers` (what it has to be granted), `imports` and `exports` (all of them, by their full names),
/// and `judges`, whether it is a validator. None of its code is run.
///
/// # Errors
/// As [`load`](crate::load()) where it is no component at all.
pub fn inspect(reference: &Path) -> Result<Value> {
    let reference = reference.to_string_lossy();
    let source = Source::read(&reference, Path::new(""), None)?;
    let engine = Engine::of(Choice::Pulley, &Limits::default())?;
    let component = Component::from_binary(&engine.engine, &source.bytes)
        .map_err(|error| failed(format!("{reference:?} is no component: {error:#}")))?;
    let component = component.component_type();
    let names = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let imports = names(component.imports(&engine.engine).map(|(name, _)| name).collect());
    let exports = names(component.exports(&engine.engine).map(|(name, _)| name).collect());
    let wanted = |name: &String| linker::interface(name).map(str::to_owned);
    let powers: Vec<String> = imports.iter().filter_map(wanted).collect();
    let powers: Vec<&String> =
        powers.iter().filter(|name| linker::POWERS.contains(&name.as_str())).collect();
    Ok(json!({
        "digest": format!("sha256:{}", source.digest),
        "bytes": source.bytes.len(),
        "powers": powers,
        "judges": exports.iter().any(|name| linker::interface(name) == Some("validator")),
        "imports": imports,
        "exports": exports,
    }))
}

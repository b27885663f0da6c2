//! Which interfaces a component may import: its powers, as the operator has granted them.

use locule::Result;
use wasmtime::component::types::Component;
use wasmtime::component::{HasSelf, Linker};

use crate::failed;
use crate::guest::{Guest, wit};

/// The package of all interfaces, in the version that is built in.
const PACKAGE: &str = "locule:plugin/";

/// What everybody may import.
const OPEN: [&str; 4] = ["types", "config", "event", "log"];

/// What has to be granted.
pub(crate) const POWERS: [&str; 13] = [
    "kv",
    "spec-view",
    "adjust-annotations",
    "adjust-env",
    "adjust-mounts",
    "adjust-devices",
    "adjust-resources",
    "adjust-rlimits",
    "adjust-process",
    "adjust-namespaces",
    "adjust-security",
    "adjust-hooks",
    "adjust-raw",
];

/// The interface of our package that an import or export names, such as `adjust-env`.
pub(crate) fn interface(name: &str) -> Option<&str> {
    name.strip_prefix(PACKAGE)?.split('@').next()
}

/// Refuses a component that imports what it was not granted, or what nobody has.
pub(crate) fn check(
    engine: &wasmtime::Engine,
    component: &Component,
    powers: &[String],
) -> Result<()> {
    let mut missing = Vec::new();
    for (name, _) in component.imports(engine) {
        match interface(name) {
            Some(open) if OPEN.contains(&open) => {}
            Some(power) if POWERS.contains(&power) => {
                if !powers.iter().any(|granted| granted == power) {
                    missing.push(power);
                }
            }
            Some(_) => {
                let message = format!("it imports {name}, which this version does not have");
                return Err(failed(message).hint("it may have been built for a later version"));
            }
            None => {
                let message = format!("it imports {name}, which no plugin gets");
                return Err(failed(message)
                    .hint("build it without WASI: a plugin has no files, clocks and sockets"));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("it was not granted {}", missing.join(", "));
    Err(failed(message).at("/powers").hint("what it imports are the powers it wants"))
}

/// A linker with what is open to all and the powers that were granted, and with nothing else.
pub(crate) fn make(
    engine: &wasmtime::Engine,
    powers: &[String],
) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    let linking = &mut linker;
    macro_rules! add {
        ($module:ident) => {
            wit::$module::add_to_linker::<Guest, HasSelf<Guest>>(linking, |guest| guest)?
        };
    }
    add!(types);
    add!(config);
    add!(event);
    add!(log);
    for power in powers {
        match power.as_str() {
            "kv" => add!(kv),
            "spec-view" => add!(spec_view),
            "adjust-annotations" => add!(adjust_annotations),
            "adjust-env" => add!(adjust_env),
            "adjust-mounts" => add!(adjust_mounts),
            "adjust-devices" => add!(adjust_devices),
            "adjust-resources" => add!(adjust_resources),
            "adjust-rlimits" => add!(adjust_rlimits),
            "adjust-process" => add!(adjust_process),
            "adjust-namespaces" => add!(adjust_namespaces),
            "adjust-security" => add!(adjust_security),
            "adjust-hooks" => add!(adjust_hooks),
            "adjust-raw" => add!(adjust_raw),
            other => unreachable!("{other} was checked"),
        }
    }
    Ok(linker)
}

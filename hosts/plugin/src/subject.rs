//! What is tried: a plugin, and a container that there is not.

use std::path::Path;

use clap::ArgMatches;
use locule::spec::Template;
use locule_plugins::{Configuration, Scene, Session, inspect};
use serde_json::{Value, json};

use crate::arguments::{path, text};

/// The plugin's configuration: as it is written, or made up for a component.
pub fn configuration(own: &ArgMatches) -> Result<Configuration, String> {
    let name = text(own, "plugin").unwrap_or_default();
    let given = |option: &str| own.contains_id(option) && own.value_source(option).is_some();
    if name.ends_with(".json") {
        if let Some(option) = ["grant", "settings"].into_iter().find(|option| given(option)) {
            return Err(format!("--{option} is for a component; this is a configuration"));
        }
        return read(Path::new(name));
    }
    let powers = match own.get_many::<String>("grant") {
        Some(powers) => json!(powers.collect::<Vec<_>>()),
        None => inspect(Path::new(name)).map_err(|error| error.to_string())?["powers"].take(),
    };
    let settings = match text(own, "settings") {
        Some(settings) => serde_json::from_str(settings)
            .map_err(|error| format!("--settings {settings:?} is not JSON: {error}"))?,
        None => Value::Null,
    };
    // With the prefix of a layout, or the name of a file, the rest stays what it is.
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or("plugin");
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    let stem: String = stem.chars().map(|it| if fits(it) { it } else { '-' }).collect();
    let document = json!({ "name": stem, "path": name, "powers": powers, "config": settings });
    Configuration::parse(document.to_string().as_bytes(), Path::new(""))
        .map_err(|error| error.to_string())
}

/// A configuration in a file, which names it if it has no name of its own.
pub fn read(file: &Path) -> Result<Configuration, String> {
    locule_plugins::read_configuration(file).map_err(|error| said(&error))
}

pub fn session(own: &ArgMatches) -> Result<Session, String> {
    Session::new(configuration(own)?).map_err(|error| said(&error))
}

/// With what it is called.
pub fn scene(own: &ArgMatches) -> Result<Scene, String> {
    let text_of = |name: &str| text(own, name).unwrap_or_default().to_owned();
    let (json, bundle) = match path(own, "bundle") {
        Some(bundle) => {
            let bundle = std::path::absolute(bundle).map_err(|error| error.to_string())?;
            let file = bundle.join("config.json");
            let json = std::fs::read(&file).map_err(|error| format!("{file:?}: {error}"))?;
            locule::spec::parse(&json).map_err(|error| format!("{file:?}: {error}"))?;
            (json, bundle)
        }
        None => {
            let json = Template::new("rootfs", ["sh"]).json().map_err(|error| error.to_string())?;
            (json, "/bundle".into())
        }
    };
    let document = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
    Ok(Scene { stage: text_of("stage"), id: text_of("id"), bundle, document })
}

/// An error with what helps.
pub fn said(error: &locule::Error) -> String {
    match error.advice() {
        Some(advice) => format!("{error}\n  {advice}"),
        None => error.to_string(),
    }
}

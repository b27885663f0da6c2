//! `run --image NAME`: the image, fetched if need be, and what is wanted other than it says.

use std::path::PathBuf;

use clap::ArgMatches;
use locule::Category;
use locule::image::{Image, ImageMount, ImageStore, Overrides, TakeOptions};
use serde_json::Value;

use super::options::{given, maps, reached};
use super::{Long, store};
use crate::arguments::{path, texts};
use crate::commands::template::{self, Limited};
use crate::failure::Failure;
use crate::foreground::own_size;

/// What `create` wants to know.
pub struct Wanted {
    pub image: Image,
    pub overrides: Overrides,
    /// Where its changes to the root are kept.
    pub changes: Option<PathBuf>,
}

/// The image, with its layers unpacked, and the options; `None` if no image is given.
pub fn wanted(own: &ArgMatches) -> Result<Option<Wanted>, Failure> {
    let Some(name) = given(own, "image")? else { return Ok(None) };
    let overrides = overrides(own)?;
    let mut long = Long::of(own)?;
    let image = found(own, name, &mut long)?;
    image.prepare(&overrides, long.transfer())?;
    Ok(Some(Wanted { image, overrides, changes: path(own, "changes") }))
}

/// From the store, or first from the registry.
fn found(own: &ArgMatches, name: &str, long: &mut Long) -> Result<Image, Failure> {
    let pull = given(own, "pull")?.unwrap_or("missing");
    if !["missing", "always", "never"].contains(&pull) {
        return Err(Failure::of(format!("--pull {pull}: expected missing, always or never")));
    }
    let platform = given(own, "platform")?;
    let store = store(own)?;
    // No registry finds a digest alone.
    let pull = if ImageStore::is_digest(name) { "never" } else { pull };
    if pull != "always" {
        match store.get(name) {
            Ok(image) => match platform.map_or(Ok(()), |wanted| image.check_platform(wanted)) {
                Ok(()) => return Ok(image),
                // It is another image that is missing.
                Err(error) if pull == "missing" && error.category() == Category::NotFound => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) if pull == "missing" && error.category() == Category::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let platform = platform.map(str::to_owned);
    let taken = TakeOptions { platform, ..TakeOptions::default() };
    Ok(store.pull(name, &taken, &reached(own), long.transfer())?)
}

fn overrides(own: &ArgMatches) -> Result<Overrides, Failure> {
    let args = template::program(own)?;
    let Limited { memory, cpus, pids } = template::limits(own)?;
    let text = |option| given(own, option).map(|text| text.map(str::to_owned));
    let terminal = template::wants_terminal(own);
    let size = own_size().filter(|_| terminal);
    let (uid_mappings, gid_mappings) = maps(own)?;
    Ok(Overrides {
        args: (!args.is_empty()).then(|| args.into_iter().map(str::to_owned).collect()),
        entrypoint: given(own, "entrypoint")?.map(entrypoint).transpose()?,
        env: texts(own, "env").map(str::to_owned).collect(),
        clear_env: own.get_flag("clear-env"),
        cwd: path(own, "cwd"),
        user: text("user")?,
        hostname: text("hostname")?,
        readonly: own.get_flag("read-only"),
        overlay: own.get_flag("no-overlay").then_some(false),
        host_network: template::host_network(own)?,
        memory,
        cpus,
        pids,
        mounts: texts(own, "mount")
            .map(|given| {
                let (source, target, readonly) = template::mount(given)?;
                Ok(ImageMount { source, target, readonly })
            })
            .collect::<Result<_, Failure>>()?,
        terminal,
        terminal_size: size.map(|size| (size.rows, size.columns)),
        annotations: texts(own, "annotation")
            .map(|given| {
                let wrong = || Failure::of(format!("--annotation {given}: expected KEY=VALUE"));
                let (key, value) = given.split_once('=').ok_or_else(wrong)?;
                Ok((key.to_owned(), value.to_owned()))
            })
            .collect::<Result<_, Failure>>()?,
        stop_signal: text("stop-signal")?,
        uid_mappings,
        gid_mappings,
        patch: given(own, "patch")?.map(patch).transpose()?,
    })
}

/// A word, a list of words in JSON, or nothing.
fn entrypoint(given: &str) -> Result<Vec<String>, Failure> {
    if !given.trim_start().starts_with('[') {
        return Ok(Some(given)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .into_iter()
            .collect());
    }
    serde_json::from_str(given)
        .map_err(|error| Failure::of(format!("--entrypoint {given}: {error}")))
}

fn patch(given: &str) -> Result<Value, Failure> {
    let wrong = |why: String| Failure::of(format!("--patch {given}: {why}"));
    match serde_json::from_str(given) {
        Ok(patch @ Value::Object(_)) => Ok(patch),
        Ok(_) => Err(wrong("expected a JSON object".to_owned())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entrypoint_is_a_word_or_a_list() {
        let of = |given| entrypoint(given).map_err(|failure| failure.to_string());
        assert_eq!(of(""), Ok(vec![]));
        assert_eq!(of("[]"), Ok(vec![]));
        assert_eq!(of("a b"), Ok(vec!["a b".to_owned()]));
        assert_eq!(of("[\"a\", \"b\"]"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert!(of("[1]").is_err_and(|text| text.starts_with("--entrypoint [1]: ")));
    }

    #[test]
    fn a_patch_is_an_object() {
        assert!(patch("{\"a\": null}").is_ok());
        for wrong in ["", "[]", "1", "{"] {
            assert!(patch(wrong).is_err(), "{wrong}");
        }
    }
}

//! Options of images, read and checked.

use std::io::Read;

use clap::ArgMatches;
use locule::image::{Compression, IdRange, Ids, NewOptions, RegistryOptions, TakeOptions};
use serde_json::{Map, Value};

use super::word;
use crate::arguments::{path, texts};
use crate::failure::Failure;

/// The most bytes of a password.
const LONGEST: u64 = 64 * 1024;

/// The text of an option; what is no text is not taken for none.
pub fn given<'a>(own: &'a ArgMatches, name: &str) -> Result<Option<&'a str>, Failure> {
    let Some(value) = own.get_one::<std::ffi::OsString>(name) else { return Ok(None) };
    let wrong = || Failure::of(format!("--{name} {value:?}: no text in UTF-8"));
    value.to_str().map(Some).ok_or_else(wrong)
}

pub fn taken(own: &ArgMatches) -> Result<TakeOptions, Failure> {
    Ok(TakeOptions {
        from: None,
        name: given(own, "name")?.map(str::to_owned),
        platform: given(own, "platform")?.map(str::to_owned),
    })
}

/// The files that say how registries are reached.
pub fn reached(own: &ArgMatches) -> RegistryOptions {
    RegistryOptions {
        credentials: None,
        auth_file: path(own, "authfile"),
        ca_file: path(own, "cacert"),
        registries_file: path(own, "registries"),
    }
}

/// The same with the user.
pub fn registry(own: &ArgMatches) -> Result<RegistryOptions, Failure> {
    let mut options = reached(own);
    let Some(creds) = given(own, "creds")? else { return Ok(options) };
    let (user, password) = match (creds.split_once(':'), own.get_flag("password-stdin")) {
        (Some((user, password)), false) => (user, password.to_owned()),
        (None, true) => (creds, password()?),
        (Some(_), true) => {
            return Err(Failure::of("a password both in --creds and from standard input"));
        }
        (None, false) => {
            let words = "a password is missing: --creds USER:PASSWORD, or --password-stdin";
            return Err(Failure::of(words));
        }
    };
    options.credentials = Some((user.to_owned(), password));
    Ok(options)
}

/// The password from standard input, without the end of its line.
fn password() -> Result<String, Failure> {
    let fail = |error| Failure::of(format!("read the password: {error}"));
    let mut text = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut text).map_err(fail)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

pub fn new(own: &ArgMatches) -> Result<NewOptions, Failure> {
    let compression = match given(own, "compression")? {
        Some("gzip") | None => Compression::Gzip,
        Some("zstd") => Compression::Zstd,
        Some("none") => Compression::None,
        Some(other) => {
            return Err(Failure::of(format!("--compression {other}: expected gzip, zstd or none")));
        }
    };
    let name = Some(word(own, "name")).filter(|name| !name.is_empty());
    let text = |option| given(own, option).map(|text| text.map(str::to_owned));
    Ok(NewOptions {
        name: name.map(str::to_owned),
        compression,
        config: config(texts(own, "config"))?,
        author: text("author")?,
        comment: text("message")?,
        created: text("created")?,
    })
}

/// The changes to an image's config, as one merge patch: what comes later counts.
fn config<'a>(given: impl Iterator<Item = &'a str>) -> Result<Option<Value>, Failure> {
    let mut patch = Map::new();
    for change in given {
        merge(&mut patch, one(change)?);
    }
    Ok((!patch.is_empty()).then_some(Value::Object(patch)))
}

/// A whole merge patch, or a member's value: JSON if it can be no text.
fn one(change: &str) -> Result<Map<String, Value>, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::of(format!("--config {change}: {why}"));
    if change.trim_start().starts_with('{') {
        return serde_json::from_str(change).map_err(|error| wrong(&error));
    }
    let (key, value) = change
        .split_once('=')
        .filter(|(key, _)| !key.is_empty())
        .ok_or_else(|| wrong(&"expected KEY=VALUE or a JSON object"))?;
    let value = match value.trim_start().starts_with(['[', '{', '"']) || value == "null" {
        true => serde_json::from_str(value).map_err(|error| wrong(&error))?,
        false => Value::from(value),
    };
    Ok(Map::from_iter([(key.to_owned(), value)]))
}

/// Two merge patches as one.
fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(inner)), Value::Object(value)) => merge(inner, value),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Users and groups as they are mapped; none if it is not said.
pub fn maps(own: &ArgMatches) -> Result<(Vec<IdRange>, Vec<IdRange>), Failure> {
    let ranges = |option: &str| {
        texts(own, option)
            .map(|text| range(text).map_err(|failure| failure.context(format!("--{option}"))))
            .collect::<Result<Vec<_>, _>>()
    };
    let (uids, gids) = (ranges("uid-map")?, ranges("gid-map")?);
    match uids.is_empty() == gids.is_empty() {
        true => Ok((uids, gids)),
        false => Err(Failure::of("--uid-map and --gid-map go together")),
    }
}

/// Whose files an unpacked image has.
pub fn ids(own: &ArgMatches) -> Result<Ids, Failure> {
    let (uids, gids) = maps(own)?;
    if !uids.is_empty() {
        return Ok(Ids::Mapped { uids, gids });
    }
    match given(own, "owner")?.unwrap_or("auto") {
        // An ordinary user gives files to nobody else.
        "auto" if locule::rootless_ids().is_some() => Ok(Ids::Caller),
        "auto" | "image" => Ok(Ids::Same),
        "caller" => Ok(Ids::Caller),
        other => Err(Failure::of(format!("--owner {other}: expected auto, image or caller"))),
    }
}

/// `INSIDE:OUTSIDE:COUNT`
fn range(text: &str) -> Result<IdRange, Failure> {
    let wrong = || Failure::of(format!("{text}: expected INSIDE:OUTSIDE:COUNT"));
    let digits = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let numbers = text.split(':').map(|word| word.parse().ok().filter(|_| digits(word)));
    match numbers.collect::<Option<Vec<u32>>>().as_deref() {
        Some(&[inside, outside, count]) if count > 0 => Ok(IdRange { inside, outside, count }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_of_the_config_become_one_patch() {
        let of = |given: &[&str]| config(given.iter().copied()).map_err(|e| e.to_string());
        assert_eq!(of(&[]), Ok(None));
        let given = [
            "Cmd=[\"sh\", \"-c\"]",
            "User=1000",
            "WorkingDir=/a=b",
            "Entrypoint=null",
            "{\"User\": \"7\", \"Labels\": {\"a\": \"b\"}}",
            "Labels={\"c\": \"d\"}",
        ];
        let patch = json!({
            "Cmd": ["sh", "-c"],
            "User": "7",
            "WorkingDir": "/a=b",
            "Entrypoint": null,
            "Labels": { "a": "b", "c": "d" },
        });
        assert_eq!(of(&given), Ok(Some(patch)));
        for wrong in ["", "Cmd", "=x", "Cmd=[", "{\"Cmd\"}", "Cmd=[\"a\"] b"] {
            assert!(of(&[wrong]).is_err_and(|text| text.starts_with("--config ")), "{wrong}");
        }
    }

    #[test]
    fn a_range_of_ids_is_three_numbers() {
        let of = |text| range(text).ok();
        assert_eq!(
            of("0:100000:65536"),
            Some(IdRange { inside: 0, outside: 100_000, count: 65536 })
        );
        for wrong in [
            "",
            "0",
            "0:1",
            "0:1:0",
            "0:1:2:3",
            "a:1:2",
            "-1:1:2",
            "+1:1:2",
            "0:1:",
            "0:4294967296:1",
        ] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }
}

//! What is printed of images.

use std::process::ExitCode;

use clap::ArgMatches;
use locule::image::{Image, Pruned};
use serde_json::{Value, json};

use super::{Done, found, store};
use crate::arguments::text;
use crate::failure::Failure;
use crate::output;

pub fn wants_json(own: &ArgMatches) -> Result<bool, Failure> {
    match text(own, "format") {
        Some("json") => Ok(true),
        Some("text" | "table") => Ok(false),
        _ => Err(Failure::of("invalid format option")),
    }
}

/// The digest of an image that a verb was about, or the short document.
pub fn made(own: &ArgMatches, image: &Image) -> Done {
    match wants_json(own)? {
        true => output::compact(&document(image))?,
        false => println!("{}", image.digest()),
    }
    Ok(ExitCode::SUCCESS)
}

/// What a list tells of an image. One whose documents cannot be read is there all the same.
fn document(image: &Image) -> Value {
    let all = image.inspect().unwrap_or_default();
    json!({
        "digest": image.digest(),
        "names": image.names(),
        "size": image.size(),
        "platform": all["platform"],
        "created": all["created"],
    })
}

pub fn list(own: &ArgMatches) -> Done {
    let json = wants_json(own)?;
    let images = store(own)?.list()?;
    if own.get_flag("quiet") {
        for image in &images {
            println!("{}", image.digest());
        }
    } else if json {
        output::compact(&images.iter().map(document).collect())?;
    } else {
        let head = ["NAME", "DIGEST", "PLATFORM", "CREATED", "SIZE"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(images.iter().flat_map(of_image));
        output::table(&rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A row for each name.
fn of_image(image: &Image) -> Vec<Vec<String>> {
    let document = document(image);
    let hexadecimal = image.digest().rsplit(':').next().unwrap_or_default();
    let rest = [
        hexadecimal.get(..12).unwrap_or(hexadecimal).to_owned(),
        platform(&document["platform"]),
        document["created"].as_str().unwrap_or("-").to_owned(),
        output::size(image.size()),
    ];
    let row = |name: &str| [name.to_owned()].into_iter().chain(rest.clone()).collect();
    match image.names() {
        [] => vec![row("-")],
        names => names.iter().map(|name| row(name)).collect(),
    }
}

/// `os/architecture[/variant]`
fn platform(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    let parts = ["os", "architecture", "variant"].map(|part| value[part].as_str());
    let parts: Vec<_> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join("/") }
}

pub fn inspect(own: &ArgMatches) -> Done {
    output::pretty(&found(own)?.inspect()?)?;
    Ok(ExitCode::SUCCESS)
}

pub fn pruned(pruned: &Pruned, json: bool) -> Done {
    if json {
        let document = serde_json::to_value(pruned);
        output::compact(&document.map_err(|error| Failure::of(error.to_string()))?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for digest in &pruned.images {
        println!("{digest}");
    }
    let bytes = output::size(pruned.bytes);
    println!("blobs: {}, of {bytes}; unpacked layers: {}", pruned.blobs, pruned.layers);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_its_parts_or_nothing() {
        assert_eq!(platform(&json!({ "architecture": "amd64", "os": "linux" })), "linux/amd64");
        let arm = json!({ "os": "linux", "architecture": "arm64", "variant": "v8" });
        assert_eq!(platform(&arm), "linux/arm64/v8");
        assert_eq!(platform(&json!("linux/amd64")), "linux/amd64");
        assert_eq!(platform(&Value::Null), "-");
    }
}

//! What is printed of images.

use std::process::ExitCode;

use clap::ArgMatches;
use locule::image::{Image, Pruned};
use serde_json::Value;

use super::options::given;
use super::{Done, found, store};
use crate::failure::Failure;
use crate::output;

/// Whether a document is wanted, not what is for people and called `plain`.
pub fn wants_json(own: &ArgMatches, plain: &str) -> Result<bool, Failure> {
    match given(own, "format")?.unwrap_or_default() {
        "json" => Ok(true),
        form if form == plain => Ok(false),
        other => Err(Failure::of(format!("--format {other}: expected {plain} or json"))),
    }
}

/// The digest of an image that a verb was about, or the short document.
pub fn made(json: bool, image: &Image) -> Done {
    match json {
        true => output::compact(&document(image))?,
        false => output::line(image.digest())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What a list tells of an image.
fn document(image: &Image) -> Value {
    let all = image.summary();
    let members = ["digest", "names", "size", "platform", "created"];
    members.into_iter().map(|member| (member.to_owned(), all[member].clone())).collect()
}

pub fn list(own: &ArgMatches) -> Done {
    let json = wants_json(own, "table")?;
    let images = store(own)?.list()?;
    if own.get_flag("quiet") {
        for image in &images {
            output::line(image.digest())?;
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
    let all = image.summary();
    let text = |member: &str| all[member].as_str().unwrap_or("-").to_owned();
    let hexadecimal = image.digest().rsplit(':').next().unwrap_or_default();
    let rest = [
        hexadecimal.get(..12).unwrap_or(hexadecimal).to_owned(),
        text("platform"),
        text("created"),
        output::size(image.size()),
    ];
    let row = |name: &str| [name.to_owned()].into_iter().chain(rest.clone()).collect();
    match image.names() {
        [] => vec![row("-")],
        names => names.iter().map(|name| row(name)).collect(),
    }
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
        output::line(digest)?;
    }
    let bytes = output::size(pruned.bytes);
    let (blobs, layers) = (pruned.blobs, pruned.layers);
    output::line(format_args!("blobs: {blobs}, of {bytes}; unpacked layers: {layers}"))?;
    Ok(ExitCode::SUCCESS)
}

//! What plugins have changed of a container, kept in its state directory: a line a change.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Change;
use crate::{Category, Error, Result, Stage};

const NAME: &str = "changes.jsonl";

/// Adds changes.
pub(crate) fn append(state_dir: &Path, changes: &[Change]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut text = Vec::new();
    for change in changes {
        serde_json::to_writer(&mut text, change).map_err(|error| {
            Error::new(Category::Bug, Stage::State, format!("write a change: {error}"))
        })?;
        text.push(b'\n');
    }
    let path = state_dir.join(NAME);
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(&path);
    // One write: several processes may do this at a time.
    file.and_then(|mut file| file.write_all(&text))
        .map_err(|error| Error::io(Stage::State, &error, format!("write {path:?}")))
}

/// All changes, in the order in which they were made.
pub(crate) fn read(state_dir: &Path) -> Result<Vec<Change>> {
    let path = state_dir.join(NAME);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(Stage::State, &error, format!("read {path:?}"))),
    };
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let changes = lines.map(serde_json::from_slice::<Change>).collect::<Result<_, _>>();
    changes.map_err(|error| {
        Error::new(Category::System, Stage::State, format!("{path:?} is damaged: {error}"))
    })
}

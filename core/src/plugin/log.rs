//! What plugins have changed of a container, kept in its state directory: a line a change.

use std::fs::{OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::Change;
use crate::{Category, Error, Result, Stage};

const NAME: &str = "changes.jsonl";

/// How large the changes of later stages may make it: all of it is in every state document, and
/// an engine may execute a probe every few seconds.
const LIMIT: u64 = 64 << 10;

/// Begins it with the changes that a container is created with.
pub(crate) fn begin(state_dir: &Path, changes: &[Change]) -> Result<()> {
    append(state_dir, changes, u64::MAX)
}

/// Adds changes as long as there is room.
pub(crate) fn add(state_dir: &Path, changes: &[Change]) -> Result<()> {
    append(state_dir, changes, LIMIT)
}

fn append(state_dir: &Path, changes: &[Change], limit: u64) -> Result<()> {
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
    let write = || {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        if size + text.len() as u64 > limit {
            return Err(ErrorKind::FileTooLarge.into());
        }
        if size == 0 {
            // Whatever the host's umask is.
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        // At once: several processes may do this at a time.
        file.write_all(&text)
    };
    write().map_err(|error| Error::io(Stage::State, &error, format!("write {path:?}")))
}

/// The changes, in the order in which they were made. A line that a full disk has cut off is left
/// out.
pub(crate) fn read(state_dir: &Path) -> Result<Vec<Change>> {
    let path = state_dir.join(NAME);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(Stage::State, &error, format!("read {path:?}"))),
    };
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let change = |line| {
        let change = serde_json::from_slice(line);
        change.inspect_err(|error| tracing::warn!(?path, %error, "a line is damaged")).ok()
    };
    Ok(lines.filter_map(change).collect())
}

//! Reading and writing the files of a cgroup, with errors that name file and value.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::error::{Error, Result, Stage};

/// Writes a value in one `write(2)`, which is what gives a cgroup file its meaning.
pub(super) fn put(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    // Never O_CREAT: cgroupfs would answer EACCES where ENOENT says what is wrong.
    // O_TRUNC only for the plain files of unit tests.
    let mut opened =
        OpenOptions::new().write(true).truncate(cfg!(test)).open(directory.join(file))?;
    opened.write_all(value.as_bytes())
}

/// Reads a whole file.
pub(super) fn get(directory: &Path, file: &str) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(256);
    // Through `take`, or the size would be asked for first: cgroupfs says 0.
    File::open(directory.join(file))?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// [`get`], with the error that names the file.
pub(super) fn read(directory: &Path, file: &str) -> Result<String> {
    get(directory, file).map_err(|error| failed_to_read(directory, file, &error))
}

/// [`put`], with the error that names file and value.
pub(super) fn write(directory: &Path, file: &str, value: &str) -> Result<()> {
    put(directory, file, value).map_err(|error| failed_to_write(directory, file, value, &error))
}

pub(super) fn failed_to_read(directory: &Path, file: &str, error: &io::Error) -> Error {
    Error::io(Stage::Cgroup, error, format!("read {file} of the cgroup {directory:?}"))
}

pub(super) fn failed_to_write(
    directory: &Path,
    file: &str,
    value: &str,
    error: &io::Error,
) -> Error {
    Error::io(Stage::Cgroup, error, format!("write {value:?} to {file}"))
        .context(format!("cgroup {directory:?}"))
}

/// The value of a `name value` line.
pub(super) fn keyed(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| match line.split_once(' ') {
        Some((key, value)) if key == name => value.trim().parse().ok(),
        _ => None,
    })
}

//! A plugin's store: a file for each key, in the runtime's state directory.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use std::collections::BTreeMap;

/// Longer keys would not fit into a file's name.
pub(crate) const LONGEST_KEY: usize = 100;

/// Where a plugin's keys and values are.
#[derive(Debug)]
pub(crate) enum Store {
    /// In memory, for a session without a runtime.
    Memory(BTreeMap<String, Vec<u8>>),
    /// In a directory, which is made when something is put there.
    Directory(PathBuf),
}

impl Store {
    /// That of a plugin of a runtime.
    pub(crate) fn of(storage: Option<&Path>, plugin: &str) -> Store {
        match storage {
            Some(storage) => Store::Directory(storage.join(plugin)),
            None => Store::Memory(BTreeMap::new()),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        match self {
            Store::Memory(values) => values.get(key).cloned(),
            Store::Directory(path) => fs::read(path.join(name_of(key))).ok(),
        }
    }

    pub(crate) fn set(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        let path = match self {
            Store::Memory(values) => {
                values.insert(key.to_owned(), value.to_owned());
                return Ok(());
            }
            Store::Directory(path) => path,
        };
        crate::directory::make(path)?;
        let name = name_of(key);
        let temporary =
            path.join(format!(".{}-{:?}", std::process::id(), std::thread::current().id()));
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&temporary)?.write_all(value)?;
        fs::rename(&temporary, path.join(name))
    }

    pub(crate) fn delete(&mut self, key: &str) {
        match self {
            Store::Memory(values) => drop(values.remove(key)),
            Store::Directory(path) => drop(fs::remove_file(path.join(name_of(key)))),
        }
    }

    pub(crate) fn keys(&self) -> io::Result<Vec<String>> {
        let path = match self {
            Store::Memory(values) => return Ok(values.keys().cloned().collect()),
            Store::Directory(path) => path,
        };
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut keys: Vec<String> = names.filter_map(|name| key_of(&name)).collect();
        keys.sort();
        Ok(keys)
    }
}

/// A file's name for a key, which may have any characters.
fn name_of(key: &str) -> String {
    key.bytes().map(|byte| format!("{byte:02x}")).chain(["+".to_owned()]).collect()
}

fn key_of(name: &str) -> Option<String> {
    let digits = name.strip_suffix('+')?;
    let byte = |at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    String::from_utf8(bytes?).ok()
}

//! A bundle's `config.json`, read without trusting that it is one.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{Category, Error, Result, Stage};

/// No configuration comes near this; what is larger would cost the host its memory.
const LIMIT: u64 = 16 << 20;

/// Reads the file. A FIFO or a device, which could keep the host waiting or reading for ever,
/// is refused.
pub(super) fn read_config(bundle: &Path) -> Result<Vec<u8>> {
    let path = bundle.join("config.json");
    let failed = |error: io::Error| read_failed(bundle, &path, &error);
    let refused =
        |why: &str| Error::new(Category::Spec, Stage::Validate, format!("{path:?} {why}"));

    // O_NONBLOCK: opening a FIFO waits for a writer otherwise.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(&path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(refused("is not a regular file"));
    }
    if meta.len() > LIMIT {
        return Err(refused(&format!("is larger than {} MiB", LIMIT >> 20)));
    }
    let mut json = Vec::with_capacity(meta.len() as usize + 1);
    // It may grow meanwhile; what is cut off is no JSON any more.
    file.take(LIMIT).read_to_end(&mut json).map_err(failed)?;
    Ok(json)
}

/// Says whether it is the file that is missing or the bundle.
fn read_failed(bundle: &Path, path: &Path, error: &io::Error) -> Error {
    let leads_nowhere = [libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::ENAMETOOLONG];
    if !error.raw_os_error().is_some_and(|errno| leads_nowhere.contains(&errno)) {
        return Error::io(Stage::Validate, error, format!("read {path:?}"));
    }
    let message = match bundle.is_dir() {
        true => format!("read {path:?}"),
        false => format!("open the bundle {bundle:?}"),
    };
    Error::io(Stage::Validate, error, message).with_category(Category::NotFound)
}

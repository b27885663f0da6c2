//! Small files of the system's and the user's: authentication, policy, certificates.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::{Category, Error, Result, Stage};

const LIMIT: u64 = 4 << 20;

/// `None` if it isn't there.
pub(super) fn read_if_there(path: &Path, what: &str) -> Result<Option<Vec<u8>>> {
    match try_read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            Ok(None)
        }
        Err(error) => {
            Err(Error::io(Stage::Image, &error, format!("read {what} {}", path.display())))
        }
    }
}

/// One that has to be there.
pub(super) fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    read_if_there(path, what)?.ok_or_else(|| {
        Error::os(Stage::Image, libc::ENOENT, format!("read {what} {}", path.display()))
    })
}

fn try_read(path: &Path) -> io::Result<Vec<u8>> {
    // O_NONBLOCK: a FIFO must not hang the host.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other(format!("it is longer than {LIMIT} bytes")));
    }
    Ok(bytes)
}

/// What is wrong with one of them.
pub(super) fn wrong(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(Category::Spec, Stage::Image, format!("{}: {what}", path.display()))
}

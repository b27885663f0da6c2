//! The directories with images and CRIU's work: found or made, and open.

use std::fs::{DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::CriuOptions;
use crate::{Category, Error, Result, Stage};

pub(super) struct Directories {
    images: File,
    work: Option<File>,
    log: PathBuf,
}

impl Directories {
    /// Makes those that are missing.
    pub(super) fn make(options: &CriuOptions<'_>, log: &str) -> Result<Directories> {
        make(&options.image_dir)?;
        Self::open(options, log)
    }

    /// Opens what a checkpoint has made.
    pub(super) fn open(options: &CriuOptions<'_>, log: &str) -> Result<Directories> {
        if let Some(work) = &options.work_dir {
            make(work)?;
        }
        Ok(Directories {
            images: open(&options.image_dir)?,
            work: options.work_dir.as_deref().map(open).transpose()?,
            log: options.work_dir.as_ref().unwrap_or(&options.image_dir).join(log),
        })
    }

    /// The same directories as a process sees them that has a mount namespace of its own: one that
    /// works in those of another namespace can mount nothing there.
    pub(super) fn of_process(self, pid: i32) -> Result<Directories> {
        let again = |file: File| {
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            let path = std::fs::read_link(link).map_err(|error| {
                Error::io(Stage::Checkpoint, &error, "find the directory with the images")
            })?;
            let path = path.strip_prefix("/").unwrap_or(&path);
            open(&Path::new(&format!("/proc/{pid}/root")).join(path))
        };
        let work = self.work.map(again).transpose()?;
        Ok(Directories { images: again(self.images)?, work, log: self.log })
    }

    /// Their numbers, which CRIU finds them by.
    pub(super) fn numbers(&self) -> (i32, Option<i32>) {
        (self.images.as_raw_fd(), self.work.as_ref().map(AsRawFd::as_raw_fd))
    }

    pub(super) fn log(&self) -> &Path {
        &self.log
    }
}

fn make(path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() {
        let message = "the path of the directory with the images is empty";
        return Err(Error::new(Category::Invalid, Stage::Arguments, message));
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Error::io(Stage::Checkpoint, &error, format!("create the directory {path:?}"))
    })
}

fn open(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_DIRECTORY);
    options.open(path).map_err(|error| {
        Error::io(Stage::Checkpoint, &error, format!("open the directory {path:?}"))
    })
}

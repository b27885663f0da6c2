//! The directories with images and CRIU's work: found or made, and open.

use std::fs::{DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::CriuOptions;
use crate::{Category, Error, Result, Stage};

pub(super) struct Directories {
    pub(super) images: File,
    work: Option<File>,
    work_path: PathBuf,
}

impl Directories {
    /// Makes those that are missing.
    pub(super) fn make(options: &CriuOptions<'_>) -> Result<Directories> {
        make(&options.image_dir)?;
        Self::open(options)
    }

    /// Opens what a checkpoint has made.
    pub(super) fn open(options: &CriuOptions<'_>) -> Result<Directories> {
        let images = open(&options.image_dir)?;
        let work = options.work_dir.as_deref().map(|path| make(path).and_then(|()| open(path)));
        Ok(Directories {
            images,
            work: work.transpose()?,
            work_path: options.work_dir.as_ref().unwrap_or(&options.image_dir).clone(),
        })
    }

    pub(super) fn work(&self) -> Option<i32> {
        self.work.as_ref().map(AsRawFd::as_raw_fd)
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.work_path.join(name)
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

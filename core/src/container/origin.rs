//! A container made from an image: what the image stands for is put in its place.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::record::Record;
use super::state_dir::RECORD;
use super::{CreateOptions, Rootfs, Runtime, Source};
use crate::image::{Prepared, Transfer};
use crate::{Category, Error, Result, Stage};

/// What an image is for one container.
pub(super) struct Origin {
    prepared: Prepared,
    begun: Instant,
}

impl Origin {
    /// Unpacks what is missing; `None` if the configuration comes from elsewhere. With an id the
    /// image's layers are kept for that container.
    pub(super) fn of(
        runtime: &Runtime,
        options: &CreateOptions<'_>,
        id: Option<&str>,
    ) -> Result<Option<Origin>> {
        let Source::Image { image, overrides } = &options.source else { return Ok(None) };
        if !options.lower.is_empty() {
            let message = "`lower` does not go with an image, which has layers of its own";
            return Err(Error::new(Category::Invalid, Stage::Arguments, message));
        }
        let begun = Instant::now();
        let transfer =
            Transfer { progress: None, cancel: options.cancel, timeout: options.timeout };
        let container = id.map(|id| runtime.0.state_dir.join(id));
        let prepared = image.for_container(overrides, container.as_deref(), transfer)?;
        Ok(Some(Origin { prepared, begun }))
    }

    /// The same options with the image's configuration and layers.
    pub(super) fn options<'a>(&'a self, options: &CreateOptions<'a>) -> CreateOptions<'a> {
        CreateOptions {
            source: Source::Spec { json: &self.prepared.json, base: None },
            rootfs: if self.prepared.overlay { Rootfs::Overlay } else { Rootfs::Direct },
            lower: &self.prepared.lower,
            timeout: options.timeout.map(|time| time.saturating_sub(self.begun.elapsed())),
            ..options.clone()
        }
    }

    /// The file that keeps the layers.
    pub(super) fn usage(&self) -> Option<PathBuf> {
        self.prepared.usage.as_ref().map(|usage| usage.path.clone())
    }

    /// The container is there, and keeps them.
    pub(super) fn keep(self) {
        if let Some(usage) = self.prepared.usage {
            usage.keep();
        }
    }
}

/// Whether the container with this state directory keeps its layers by this file; `None` if that cannot be told.
pub(crate) fn has_usage(dir: &Path, usage: &Path) -> Option<bool> {
    let json = match std::fs::read(dir.join(RECORD)) {
        Ok(json) => json,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(false),
        Err(_) => return None,
    };
    let record = Record::read(&json).ok()?;
    // The store may have been found by another path; what the file is called nothing else is.
    let name = record.usage.as_deref().and_then(|path| Path::new(path).file_name());
    Some(name == usage.file_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_the_file_that_its_record_names() {
        let dir = std::env::temp_dir().join(format!("locule-usage-{}", std::process::id()));
        let asked = |name: &str| has_usage(&dir, Path::new(name));
        assert_eq!(asked("/store/uses/a"), Some(false), "there is no container");
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(asked("/store/uses/a"), Some(false), "nothing was written yet");
        std::fs::write(dir.join(RECORD), "{").unwrap();
        assert_eq!(asked("/store/uses/a"), None, "damaged");
        std::fs::remove_dir_all(dir).unwrap();
    }
}

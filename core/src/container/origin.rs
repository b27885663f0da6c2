//! A container made from an image: what the image stands for is put in its place.

use std::path::PathBuf;

use super::{CreateOptions, Rootfs, Runtime, Source, facts};
use crate::image::{Prepared, Transfer};
use crate::{Category, Error, Result, Stage};

/// What an image is for one container.
pub(super) struct Origin(Prepared);

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
        let transfer =
            Transfer { progress: None, cancel: options.cancel, timeout: options.timeout };
        let container = id.map(|id| runtime.0.state_dir.join(id));
        image
            .prepare(overrides, facts::rootless_ids(), container.as_deref(), transfer)
            .map(|prepared| Some(Origin(prepared)))
    }

    /// The same options with the image's configuration and layers.
    pub(super) fn options<'a>(&'a self, options: &CreateOptions<'a>) -> CreateOptions<'a> {
        CreateOptions {
            source: Source::Spec { json: &self.0.json, base: None },
            rootfs: Rootfs::Overlay,
            lower: &self.0.lower,
            ..options.clone()
        }
    }

    /// The file that keeps the layers.
    pub(super) fn usage(&self) -> Option<PathBuf> {
        self.0.usage.clone()
    }
}

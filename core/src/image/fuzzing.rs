//! Images as strangers write them, for the fuzz targets.

use std::fs::File;
use std::path::Path;

use super::unpack::{self, Form, Options};
use super::{Ids, Image, Limits, Overrides, Transfer};
use crate::Result;

/// The configuration that a container of the image would have; its layers are unpacked for that.
pub fn image_json(image: &Image, overrides: &Overrides) -> Result<Vec<u8>> {
    image.for_container(overrides, None, Transfer::default()).map(|prepared| prepared.json)
}

/// The image with an overlay's `upper` on top.
pub fn commit(image: &Image, upper: &Path, options: &super::NewOptions) -> Result<Image> {
    image.commit_upper(upper, options)
}

/// The whole form of an image's name.
pub fn whole_name(name: &str) -> Result<String> {
    super::reference::parse(name).map(|name| super::reference::whole(&name))
}

/// Unpacks a layer, as a tree or, if there are layers below it, for overlayfs.
pub fn unpack(
    mut layer: &[u8],
    dir: &Path,
    lower: Option<&[&Path]>,
    ids: &Ids,
    limits: &Limits,
) -> Result<()> {
    let opened = lower.unwrap_or_default().iter().map(|path| super::layers::open_dir(path));
    let opened = opened.collect::<Result<Vec<File>>>()?;
    let form = if lower.is_some() { Form::Layer } else { Form::Tree };
    let options = Options { form, ids, limits, lower: &opened, copied: &Default::default() };
    let guide = &mut super::Guide::new(Transfer::default());
    unpack::apply(&mut layer, &super::layers::open_dir(dir)?, &options, guide)
}

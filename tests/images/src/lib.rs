//! What the suites of images share.

mod image;
mod overlay;
mod registry;
mod tar_file;
mod tool;
mod tree;

pub use image::{Layer, Layout, config_of, docker_archive, pack_directory, sha256};
pub use overlay::overlay;
pub use registry::{Registry, Security};
pub use tar_file::TarFile;
pub use tool::{Tool, is_root, skip, tool};
pub use tree::{Entry, difference, look};

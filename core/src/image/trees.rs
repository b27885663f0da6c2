//! Unpacked layers seen as one tree, as overlayfs would show it.

use std::fs::File;

use crate::Result;

/// Reads a small file of layers, the topmost first. Links are followed, within the tree. `None` if there is
/// none; an error if it is no regular file or larger than `limit`.
pub(super) fn read_file(_layers: &[File], _path: &str, _limit: u64) -> Result<Option<Vec<u8>>> {
    todo!()
}

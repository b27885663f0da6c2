//! A directory becomes a layer: the tar file of what an overlay's upper directory has changed, or of
//! a whole tree. The same bytes for the same tree.

use std::fs::File;
use std::io::Write;

use super::Guide;
use super::unpack::Ids;
use crate::Result;

/// What the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An overlay's upper directory, whose marks become whiteouts.
    Upper,
    /// A tree, of which everything goes in.
    Tree,
}

/// What was packed.
pub(super) struct Packed {
    /// The latest modification time of an entry, in seconds since 1970; 0 without any.
    pub(super) latest: i64,
    pub(super) entries: u64,
}

/// Writes an uncompressed tar file.
pub(super) fn pack(
    _dir: &File,
    _kind: Kind,
    _ids: &Ids,
    _out: &mut dyn Write,
    _guide: &mut Guide<'_>,
) -> Result<Packed> {
    todo!()
}

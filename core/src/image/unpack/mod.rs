//! A layer becomes files, in a directory that nothing of it leaves.

use std::fs::File;
use std::io::Read;

use super::Guide;
use crate::Result;

/// How much an image may unpack to. What is over is refused, naming the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of a layer. Default: 4,000,000.
    pub entries: u64,
    /// Bytes of a layer, uncompressed. Default: 128 GiB.
    pub bytes: u64,
    /// How many times larger than the compressed layer its contents may be, beyond the first 64 MiB.
    /// Default: 1,024.
    pub ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { entries: 4_000_000, bytes: 128 << 30, ratio: 1024 }
    }
}

/// A range of ids: `count` from `inside` on are `outside` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdRange {
    /// The first id in the image.
    #[serde(rename = "containerID")]
    pub inside: u32,
    /// The first id on disk.
    #[serde(rename = "hostID")]
    pub outside: u32,
    /// How many.
    #[serde(rename = "size")]
    pub count: u32,
}

/// Who owns the unpacked files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum Ids {
    /// Who the image says.
    #[default]
    Same,
    /// The caller, all of them: no other id exists for it.
    Caller,
    /// Who the image says, shifted; an id that is in no range is an error.
    Mapped {
        /// Users.
        uids: Vec<IdRange>,
        /// Groups.
        gids: Vec<IdRange>,
    },
}

/// What the directory is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The tree itself: whiteouts remove what earlier layers have left.
    Tree,
    /// One layer for overlayfs: whiteouts become its marks, both in trusted and user attributes
    /// where the caller may write those.
    Layer,
}

/// How a layer is unpacked.
pub(super) struct Options<'a> {
    pub(super) form: Form,
    pub(super) ids: &'a Ids,
    pub(super) limits: &'a Limits,
}

/// Applies a layer, an uncompressed tar stream, to the directory `dir`, which nobody else changes
/// meanwhile. Reads the stream to its end. Errors name the entry.
pub(super) fn apply(
    _layer: &mut dyn Read,
    _dir: &File,
    _options: &Options<'_>,
    _guide: &mut Guide<'_>,
) -> Result<()> {
    todo!()
}

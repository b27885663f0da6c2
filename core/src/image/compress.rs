//! Compressed layers, read and written.

use std::io::{Read, Write};

use crate::Result;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which everything can read.
    #[default]
    Gzip,
    /// zstd: smaller and faster; read by Docker 23, podman and containerd 1.5.
    Zstd,
}

/// What is inside, by its first bytes; gzip and zstd of several members, too.
pub(super) fn decoder<'a>(
    _source: Box<dyn Read + 'a>,
) -> Result<(Compression, Box<dyn Read + 'a>)> {
    todo!()
}

/// Something to write to, of which `finish` writes the end.
pub(super) trait Encoder: Write {
    fn finish(self: Box<Self>) -> std::io::Result<()>;
}

/// The same bytes for the same input, whoever runs it and when.
pub(super) fn encoder<'a>(
    _out: Box<dyn Write + 'a>,
    _compression: Compression,
) -> Result<Box<dyn Encoder + 'a>> {
    todo!()
}

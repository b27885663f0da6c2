//! A layer becomes files, in a directory that nothing of it leaves.

mod archive;
mod attributes;
mod below;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod hostile_tests;
mod make;
mod pax;
mod sparse;
mod stack;
mod sweep;
#[cfg(test)]
mod tests;
mod whiteout;

use std::cell::Cell;
use std::fs::File;
use std::io::Read;

use nix::errno::Errno;

use self::archive::{Archive, Entry, Kind};
use self::stack::Unpacker;
use super::Guide;
use crate::{Category, Error, Result, Stage};

/// The longest name of an entry, and of a component of it.
pub(super) const NAME: usize = 4096;
const COMPONENT: usize = 255;
/// The most an extension header may take; tar programs stop here, too.
pub(super) const EXTENSION: usize = 1 << 20;

/// How much an image may unpack to. What is over is refused, naming the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Entries of a layer. Default: 4,000,000.
    pub entries: u64,
    /// Bytes of a layer, uncompressed; and those that all layers together copy from lower ones, for hard
    /// links. Default: 128 GiB.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
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
    /// With [`Form::Layer`], the unpacked layers below, the topmost first. What is only there, hard links
    /// and what is put into directories need.
    pub(super) lower: &'a [File],
    /// Bytes that this layer and others of the image have copied from lower ones.
    pub(super) copied: &'a Cell<u64>,
}

/// Applies a layer, an uncompressed tar stream, to the directory `dir`, which nobody else changes
/// meanwhile. Reads the stream to its end. Errors name the entry.
pub(super) fn apply(
    layer: &mut dyn Read,
    dir: &File,
    options: &Options<'_>,
    guide: &Guide<'_>,
) -> Result<()> {
    let mut archive = Archive::new(layer, options.limits, guide);
    let mut unpacker = Unpacker::new(dir, options, guide)?;
    let mut entry = Entry::new();
    let mut path = Vec::new();
    while archive.next(&mut entry)? {
        guide.check()?;
        unpacker.count()?;
        add(&mut unpacker, &mut archive, &entry, &mut path)
            .map_err(|error| error.context(format!("entry {}", shown(&entry.name))))?;
    }
    unpacker.finish()
}

fn add(
    unpacker: &mut Unpacker<'_, '_>,
    archive: &mut Archive<'_, '_>,
    entry: &Entry,
    path: &mut Vec<u8>,
) -> Result<()> {
    clean(&entry.name, path)?;
    if path.is_empty() {
        return match entry.kind {
            Kind::Directory => unpacker.root(entry),
            _ => Err(spec("it would be the root, and is no directory")),
        };
    }
    let (parent, name) = split(path);
    match parent.split(|byte| *byte == b'/').find(|part| part.starts_with(b".wh.")) {
        None => {}
        // What aufs kept for itself.
        Some(part) if part.starts_with(b".wh..wh.") => return Ok(()),
        Some(part) => return Err(spec(format!("it is in the whiteout {}", shown(part)))),
    }
    if let Some(gone) = name.strip_prefix(b".wh.") {
        return unpacker.whiteout(parent, gone);
    }
    unpacker.add(archive, entry, parent, name)
}

/// The path without what means nothing, relative to the root; empty for that.
fn clean(name: &[u8], path: &mut Vec<u8>) -> Result<()> {
    path.clear();
    match name {
        [] => return Err(spec("it has no name")),
        _ if name.len() > NAME => {
            return Err(spec(format!("its name is longer than {NAME} bytes")));
        }
        _ if name.contains(&0) => return Err(spec("its name has a zero byte")),
        _ => {}
    }
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(spec("its name leads upwards with ..")),
            // What is gone may have had the longest name.
            _ if part.strip_prefix(b".wh.").unwrap_or(part).len() > COMPONENT => {
                let message = format!("a component of its name is longer than {COMPONENT} bytes");
                return Err(spec(message));
            }
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    Ok(())
}

/// A clean path as that of its directory and its last component.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// A name as it goes into a message.
pub(super) fn shown(name: &[u8]) -> String {
    match name.get(..256) {
        Some(start) => format!("{:?}…", String::from_utf8_lossy(start)),
        None => format!("{:?}", String::from_utf8_lossy(name)),
    }
}

fn spec(message: impl Into<String>) -> Error {
    Error::new(Category::Spec, Stage::Image, message)
}

fn os(errno: Errno, doing: impl Into<String>) -> Error {
    Error::os(Stage::Image, errno as i32, doing)
}

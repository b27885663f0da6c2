//! Files with holes, as GNU tar and those that follow it write them: four ways to say where the data is.

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use super::archive::{BLOCK, number};
use super::{pax, spec};
use crate::{Category, Error, Result, Stage};

/// The most parts that a file's data may be in.
const PARTS: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The `GNU.sparse.*` records of a PAX header.
#[derive(Default)]
pub(super) struct Records {
    pub(super) name: Option<Vec<u8>>,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    /// Offsets and lengths by turns, of which the last may be half.
    map: Option<Vec<u64>>,
}

impl Records {
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"name" => self.name = Some(pax::name(value)?).filter(|name| !name.is_empty()),
            b"major" => self.major = Some(pax::number(value)?),
            b"minor" => self.minor = Some(pax::number(value)?),
            b"size" | b"realsize" => self.size = Some(pax::number(value)?),
            b"map" => {
                let numbers = value.split(|byte| *byte == b',').filter(|_| !value.is_empty());
                self.map = Some(numbers.map(pax::number).collect::<Option<_>>()?);
            }
            b"offset" | b"numbytes" => {
                let map = self.map.get_or_insert_default();
                let turn = (key == b"numbytes") as usize;
                (map.len() % 2 == turn).then_some(())?;
                map.push(pax::number(value)?);
            }
            // Of no file at all there may be none.
            b"numblocks" => {
                self.map.get_or_insert_default();
            }
            _ => {}
        }
        Some(())
    }

    /// The file's size and its map; without the map where that stands before the data, and none at
    /// all for a file without holes.
    #[allow(clippy::type_complexity)] // It is taken apart where it is called.
    pub(super) fn format(self) -> Result<Option<(u64, Option<Vec<Part>>)>> {
        let size = || self.size.ok_or_else(|| spec("its map of holes comes without a size"));
        match (self.major, self.minor) {
            (None, None) | (Some(0), Some(0 | 1)) => match &self.map {
                None => Ok(None),
                Some(map) if map.len() % 2 == 1 => Err(spec("its map of holes is cut off")),
                Some(map) => {
                    let parts = map.chunks(2).map(|two| Part { offset: two[0], length: two[1] });
                    Ok(Some((size()?, Some(parts.collect()))))
                }
            },
            (Some(1), Some(0)) => Ok(Some((size()?, None))),
            (major, minor) => {
                let [major, minor] = [major, minor].map(|part| part.unwrap_or(0));
                let message = format!("its map of holes is of the unknown format {major}.{minor}");
                Err(Error::new(Category::Unsupported, Stage::Image, message))
            }
        }
    }
}

/// The map in a GNU header, and in those that follow it.
pub(super) fn gnu(
    header: &GnuHeader,
    mut block: impl FnMut() -> Result<Option<[u8; BLOCK]>>,
) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    add(&mut parts, &header.sparse)?;
    let mut more = header.is_extended();
    while more {
        let mut further = GnuExtSparseHeader::new();
        let block = block()?.ok_or_else(|| spec("the archive ends in its map of holes"))?;
        further.as_mut_bytes().copy_from_slice(&block);
        add(&mut parts, further.sparse())?;
        more = further.is_extended();
    }
    Ok(parts)
}

fn add(parts: &mut Vec<Part>, headers: &[GnuSparseHeader]) -> Result<()> {
    for header in headers.iter().filter(|header| !header.is_empty()) {
        let field = |bytes| {
            let value = number(bytes).and_then(|value| u64::try_from(value).ok());
            value.ok_or_else(|| spec("its map of holes has something else than numbers"))
        };
        push(parts, Part { offset: field(&header.offset)?, length: field(&header.numbytes)? })?;
    }
    Ok(())
}

fn push(parts: &mut Vec<Part>, part: Part) -> Result<()> {
    if parts.len() == PARTS {
        let message = format!("its data is in more than {PARTS} parts, which is not supported");
        return Err(Error::new(Category::Unsupported, Stage::Image, message));
    }
    parts.push(part);
    Ok(())
}

/// The map that is before the data: decimal numbers, a line each, their count first.
pub(super) fn map_in_data(
    mut block: impl FnMut() -> Result<Option<[u8; BLOCK]>>,
) -> Result<Vec<Part>> {
    let mut current = ([0; BLOCK], BLOCK);
    let mut line = || {
        let mut digits = Vec::new();
        loop {
            if current.1 == BLOCK {
                let block = block()?.ok_or_else(|| spec("its map of holes is cut off"))?;
                current = (block, 0);
            }
            let byte = current.0[current.1];
            current.1 += 1;
            match byte {
                b'\n' => break,
                _ if digits.len() == 20 => return Err(spec("its map of holes has no lines")),
                _ => digits.push(byte),
            }
        }
        pax::number(&digits).ok_or_else(|| spec("its map of holes has something else than numbers"))
    };
    let count = line()?;
    let mut parts = Vec::new();
    for _ in 0..count {
        push(&mut parts, Part { offset: line()?, length: line()? })?;
    }
    Ok(parts)
}

/// That the parts follow each other, within the file, and are as long as the data together.
pub(super) fn check(parts: &[Part], size: u64, data: u64) -> Result<()> {
    let mut end = 0;
    let mut sum = 0;
    for part in parts {
        if part.offset < end {
            return Err(spec("the parts of its data overlap"));
        }
        end = part
            .offset
            .checked_add(part.length)
            .filter(|end| *end <= size)
            .ok_or_else(|| spec("its map of holes goes beyond its size"))?;
        sum += part.length;
    }
    if sum != data {
        return Err(spec(format!(
            "its map of holes tells of {sum} bytes of data, there are {data}"
        )));
    }
    Ok(())
}

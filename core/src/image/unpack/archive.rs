//! The entries of a tar stream: ustar, PAX, GNU and what was before them. Whatever a header says,
//! it takes little memory, and what two readers could understand in two ways is refused.

use std::io::{self, Read};

use nix::sys::time::TimeSpec;
use tar::{EntryType, Header};

use super::pax::Pax;
use super::sparse::{self, Part};
use super::{EXTENSION, Limits, shown, spec};
use crate::image::{Guide, digest};
use crate::{Category, Error, Result, Stage};

pub(super) const BLOCK: usize = 512;
const BUFFER: usize = 256 << 10;
/// Between two looks at whether to go on.
const STRIDE: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    /// A hard link.
    Link,
    Char,
    Block,
    Fifo,
}

/// What the headers say about an entry. The names are as they stand there.
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) mtime: TimeSpec,
    pub(super) device: (i64, i64),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of the data in the stream.
    pub(super) size: u64,
    pub(super) sparse: Option<Sparse>,
}

/// A file with holes: its size, and where its data belongs.
pub(super) struct Sparse {
    pub(super) size: u64,
    pub(super) parts: Vec<Part>,
}

impl Entry {
    pub(super) fn new() -> Entry {
        Entry {
            kind: Kind::File,
            name: Vec::new(),
            link: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: TimeSpec::new(0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            size: 0,
            sparse: None,
        }
    }
}

pub(super) struct Archive<'a, 'g> {
    source: &'a mut dyn Read,
    guide: &'a Guide<'g>,
    limits: &'a Limits,
    buffer: Box<[u8]>,
    from: usize,
    to: usize,
    /// Bytes read from the source.
    read: u64,
    checked: u64,
    /// Bytes of the current entry that are to come, and what fills its last block.
    left: u64,
    padding: u64,
}

impl<'a, 'g> Archive<'a, 'g> {
    pub(super) fn new(
        source: &'a mut dyn Read,
        limits: &'a Limits,
        guide: &'a Guide<'g>,
    ) -> Archive<'a, 'g> {
        let buffer = vec![0; BUFFER].into_boxed_slice();
        let (from, to, read, checked, left, padding) = (0, 0, 0, 0, 0, 0);
        Archive { source, guide, limits, buffer, from, to, read, checked, left, padding }
    }

    /// The next entry; `false` at the end, with the whole stream read.
    pub(super) fn next(&mut self, entry: &mut Entry) -> Result<bool> {
        let rest = self.left + self.padding;
        (self.left, self.padding) = (0, 0);
        self.skip(rest)?;
        let mut pax = Pax::default();
        let (mut name, mut link) = (None, None);
        let mut extended = false;
        loop {
            let at = self.read - (self.to - self.from) as u64;
            let header = match self.block()? {
                Some(header) if header.iter().any(|byte| *byte != 0) => header,
                zeros => {
                    if extended {
                        return Err(spec("the archive ends after an extension header"));
                    }
                    if zeros.is_some() {
                        self.end(at)?;
                    }
                    return Ok(false);
                }
            };
            let wrong = |what: &str| spec(format!("the archive's header at byte {at}: {what}"));
            if !sum_is_right(&header) {
                return Err(wrong("its checksum is wrong"));
            }
            let header = Header::from_byte_slice(&header);
            let size = number(&header.as_old().size)
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| wrong("its size is no size"))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    pax = Pax::parse(&self.extension(size, at)?).map_err(|what| wrong(&what))?;
                }
                EntryType::GNULongName => name = Some(text(self.extension(size, at)?)),
                EntryType::GNULongLink => link = Some(text(self.extension(size, at)?)),
                EntryType::XGlobalHeader => {
                    self.extension(size, at)?;
                    continue;
                }
                _ => {
                    self.take(entry, header, size, pax, (name, link))
                        .map_err(|error| error.context(format!("entry {}", shown(&entry.name))))?;
                    return Ok(true);
                }
            }
            extended = true;
        }
    }

    /// Puts together what all headers of an entry say, later ones winning.
    fn take(
        &mut self,
        entry: &mut Entry,
        header: &Header,
        size: u64,
        pax: Pax,
        (name, link): (Option<Vec<u8>>, Option<Vec<u8>>),
    ) -> Result<()> {
        entry.name.clear();
        match pax.sparse.name.as_deref().or(name.as_deref()).or(pax.path.as_deref()) {
            Some(name) => entry.name.extend_from_slice(name),
            None => entry.name.extend_from_slice(&header.path_bytes()),
        }
        entry.link.clear();
        match link.as_deref().or(pax.link.as_deref()) {
            Some(link) => entry.link.extend_from_slice(link),
            None => {
                entry.link.extend_from_slice(header.link_name_bytes().as_deref().unwrap_or(&[]))
            }
        }
        let old = header.as_old();
        entry.kind = match header.entry_type() {
            // Before ustar, a slash at the end was all that made a directory.
            EntryType::Regular if old.linkflag == [0] && entry.name.ends_with(b"/") => {
                Kind::Directory
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Link,
            EntryType::Char => Kind::Char,
            EntryType::Block => Kind::Block,
            EntryType::Fifo => Kind::Fifo,
            other => {
                let flag = (other.as_byte() as char).escape_default();
                return Err(spec(format!("it has the unknown type '{flag}'")));
            }
        };
        let field = |bytes: &[u8], what: &str| {
            number(bytes).ok_or_else(|| spec(format!("its {what} is no number")))
        };
        entry.mode = (field(&old.mode, "mode")? & 0o7777) as u32;
        entry.uid = pax.uid.map_or_else(|| field(&old.uid, "user id"), Ok)?;
        entry.gid = pax.gid.map_or_else(|| field(&old.gid, "group id"), Ok)?;
        entry.mtime = match pax.mtime {
            Some(mtime) => mtime,
            None => TimeSpec::new(field(&old.mtime, "modification time")?, 0),
        };
        entry.device = (0, 0);
        if matches!(entry.kind, Kind::Char | Kind::Block) {
            let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
                (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
                (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
                (None, None) => return Err(spec("its header has no device numbers")),
            };
            entry.device = (field(major, "device number")?, field(minor, "device number")?);
        }
        entry.xattrs = pax.xattrs;
        entry.sparse = None;
        entry.size = 0;
        // No data follows the header of anything else, whatever its size field says: so does every
        // reader of images take it, and what they agree on is what the image is.
        if entry.kind != Kind::File {
            return Ok(());
        }
        self.left = pax.size.unwrap_or(size);
        self.padding = self.left.wrapping_neg() % BLOCK as u64;
        if self.left > self.limits.bytes {
            return Err(self.too_long());
        }
        let parts = match (header.entry_type(), header.as_gnu()) {
            (EntryType::GNUSparse, Some(gnu)) => {
                // The further headers stand before the data, and do not count to its size.
                let (left, padding) = (self.left, self.padding);
                let size = number(&gnu.realsize).and_then(|size| u64::try_from(size).ok());
                let parts = sparse::gnu(gnu, || self.block())?;
                (self.left, self.padding) = (left, padding);
                Some((size.ok_or_else(|| spec("its size is no size"))?, parts))
            }
            (EntryType::GNUSparse, None) => return Err(spec("its header has no map of holes")),
            _ => match pax.sparse.format()? {
                None => None,
                Some((size, Some(parts))) => Some((size, parts)),
                Some((size, None)) => Some((size, sparse::map_in_data(|| self.data_block())?)),
            },
        };
        if let Some((size, parts)) = parts {
            sparse::check(&parts, size, self.left)?;
            if size > self.limits.bytes {
                return Err(self.too_long());
            }
            entry.sparse = Some(Sparse { size, parts });
        }
        entry.size = self.left;
        Ok(())
    }

    /// What is there of the entry's data: something, unless all of it was used.
    pub(super) fn data(&mut self) -> Result<&[u8]> {
        let left = self.left;
        if left == 0 {
            return Ok(&[]);
        }
        let bytes = self.bytes()?;
        match bytes.len() {
            0 => Err(spec("the archive ends in the middle of it")),
            count => Ok(&bytes[..left.min(count as u64) as usize]),
        }
    }

    pub(super) fn used(&mut self, count: usize) {
        self.from += count;
        self.left -= count as u64;
    }

    /// A block of the entry's data.
    fn data_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.left == 0 {
            return Ok(None);
        }
        let count = self.left.min(BLOCK as u64);
        let block = self.block()?;
        self.left -= count;
        if self.left == 0 {
            self.padding = 0;
        }
        Ok(block)
    }

    /// A block of the archive; none at its end.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            let bytes = self.bytes()?;
            let count = bytes.len().min(BLOCK - filled);
            if count == 0 {
                return match filled {
                    0 => Ok(None),
                    _ => Err(spec("the archive ends in the middle of a block")),
                };
            }
            block[filled..filled + count].copy_from_slice(&bytes[..count]);
            self.from += count;
            filled += count;
        }
        Ok(Some(block))
    }

    /// The data of an extension header.
    fn extension(&mut self, size: u64, at: u64) -> Result<Vec<u8>> {
        if size > EXTENSION as u64 {
            let message = format!(
                "the archive's header at byte {at}: it extends another one by {size} bytes, more \
                 than the {EXTENSION} it may"
            );
            return Err(spec(message));
        }
        let mut data = Vec::with_capacity(size as usize);
        while (data.len() as u64) < size {
            let block = self.block()?.ok_or_else(|| spec("the archive ends in a header"))?;
            let count = BLOCK.min(size as usize - data.len());
            data.extend_from_slice(&block[..count]);
        }
        Ok(data)
    }

    fn skip(&mut self, mut count: u64) -> Result<()> {
        while count > 0 {
            let there = self.bytes()?.len();
            if there == 0 {
                return Err(spec("the archive ends in the middle of an entry"));
            }
            let step = count.min(there as u64);
            self.from += step as usize;
            count -= step;
        }
        Ok(())
    }

    /// After a block of zeros: another one, and what programs write after those.
    fn end(&mut self, at: u64) -> Result<()> {
        if self.block()?.is_some_and(|block| block.iter().any(|byte| *byte != 0)) {
            let message = format!("the archive has a lone block of zeros at byte {at}");
            return Err(spec(message));
        }
        loop {
            match self.bytes()?.len() {
                0 => return Ok(()),
                count => self.from += count,
            }
        }
    }

    /// What is in the buffer, filled if there is nothing; empty at the end of the stream.
    fn bytes(&mut self) -> Result<&[u8]> {
        while self.from == self.to {
            let count = match self.source.read(&mut self.buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(digest::unwrap(error, || "read the layer".to_owned()));
                }
            };
            (self.from, self.to) = (0, count);
            self.read += count as u64;
            if self.read > self.limits.bytes {
                return Err(self.too_long());
            }
            if self.read - self.checked >= STRIDE {
                self.checked = self.read;
                self.guide.check()?;
            }
            if count == 0 {
                break;
            }
        }
        Ok(&self.buffer[self.from..self.to])
    }

    fn too_long(&self) -> Error {
        let limit = self.limits.bytes;
        let message = format!("the layer unpacks to more than {limit} bytes, the limit");
        Error::new(Category::Resource, Stage::Image, message)
    }
}

/// The name in a header of its own: what is before its end mark.
fn text(mut data: Vec<u8>) -> Vec<u8> {
    if let Some(end) = data.iter().position(|byte| *byte == 0) {
        data.truncate(end);
    }
    data
}

/// Old programs summed signed bytes.
fn sum_is_right(header: &[u8; BLOCK]) -> bool {
    let Some(said) = number(&header[148..156]) else { return false };
    let others = || header[..148].iter().chain(&header[156..]);
    let unsigned: i64 = others().map(|byte| i64::from(*byte)).sum();
    let signed: i64 = others().map(|byte| i64::from(*byte as i8)).sum();
    let spaces = 8 * i64::from(b' ');
    said == unsigned + spaces || said == signed + spaces
}

/// A numeric field: octal digits, or GNU's big-endian two's complement, which its highest bit marks.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    if field.first()? & 0x80 != 0 {
        let highest = i128::from(((field[0] << 1) as i8) >> 1);
        let value = field[1..].iter().fold(highest, |value, byte| value << 8 | i128::from(*byte));
        return i64::try_from(value).ok();
    }
    let is_digit = |byte: &u8| !matches!(*byte, b' ' | 0);
    let start = field.iter().position(is_digit).unwrap_or(field.len());
    let end = field.iter().rposition(is_digit).map_or(start, |last| last + 1);
    field[start..end].iter().try_fold(0i64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000755\0"), Some(0o755));
        assert_eq!(number(b"   755 \0"), Some(0o755));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(number(b"        "), Some(0));
        assert_eq!(number(b"77777777"), Some(0o77777777));
        assert_eq!(number(b"00000008"), None);
        assert_eq!(number(b"-0000001"), None);
        assert_eq!(number(b"7\x0007\0\0\0\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(
            number(&[0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255]),
            Some(i64::MAX)
        );
        assert_eq!(number(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(number(&[0xbf; 12]), None);
    }
}

//! The plan as a whole: a header, then streams of operations.
//!
//! ```text
//! u32 magic   u32 version   u32 slots   { u32 offset, u32 length } x Stream::COUNT   operations...
//! operation:  u16 code   u16 pointer length   u32 body length   pointer (NUL-terminated)   body
//! ```

use core::ffi::CStr;

use crate::wire::{Malformed, Reader};
use crate::{Operation, VERSION};

const MAGIC: u32 = u32::from_le_bytes(*b"LCPL");
const HEADER: usize = 12 + Stream::COUNT * 8;

/// Who carries out an operation, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// The keeper, before it creates the process.
    Launch = 0,
    /// The keeper, once the process exists; the process waits meanwhile.
    Parent = 1,
    /// The new process, up to and including the gate.
    Child = 2,
    /// The new process, once the gate is open.
    Start = 3,
    /// The keeper, at the child's [`Operation::Checkpoint`]: network interfaces, then hooks in
    /// the runtime's namespaces.
    Hooks = 4,
    /// The keeper, once the program runs: hooks.
    Poststart = 5,
    /// The keeper, when it tears the container down because the host has died.
    Cleanup = 6,
}

impl Stream {
    /// How many streams a plan has.
    pub const COUNT: usize = 7;

    /// All streams in order.
    pub const ALL: [Stream; Stream::COUNT] = [
        Stream::Launch,
        Stream::Parent,
        Stream::Child,
        Stream::Start,
        Stream::Hooks,
        Stream::Poststart,
        Stream::Cleanup,
    ];

    /// The stream with this number, if there is one.
    pub fn from_number(number: u32) -> Option<Stream> {
        Stream::ALL.get(number as usize).copied()
    }

    /// The stream's name in printed plans.
    pub fn name(self) -> &'static str {
        match self {
            Stream::Launch => "launch",
            Stream::Parent => "parent",
            Stream::Child => "child",
            Stream::Start => "start",
            Stream::Hooks => "hooks",
            Stream::Poststart => "poststart",
            Stream::Cleanup => "cleanup",
        }
    }
}

/// One operation with the JSON pointer into `config.json` it came from (empty if none).
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// What to do.
    pub operation: Operation<'a>,
    /// Where in `config.json` it was asked for.
    pub pointer: &'a CStr,
}

/// An encoded plan.
#[derive(Clone, Copy)]
pub struct Document<'a> {
    bytes: &'a [u8],
    slots: u32,
}

impl<'a> Document<'a> {
    /// Checks the header and the bounds of every stream.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u32()? != MAGIC {
            return Err(Malformed::NotAPlan);
        }
        match reader.u32()? {
            VERSION => {}
            other => return Err(Malformed::WrongVersion(other)),
        }
        let document = Document { bytes, slots: reader.u32()? };
        for stream in Stream::ALL {
            document.range(stream)?;
        }
        Ok(document)
    }

    /// How many descriptors go with the plan.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    fn range(&self, stream: Stream) -> Result<&'a [u8], Malformed> {
        let mut entry = Reader::new(self.bytes);
        entry.take(12 + stream as usize * 8)?;
        let (offset, length) = (entry.u32()? as usize, entry.u32()? as usize);
        let end = offset.checked_add(length).ok_or(Malformed::Truncated)?;
        if offset < HEADER {
            return Err(Malformed::Truncated);
        }
        self.bytes.get(offset..end).ok_or(Malformed::Truncated)
    }

    /// The operations of one stream, in order.
    pub fn stream(&self, stream: Stream) -> Operations<'a> {
        // `parse` has checked the range.
        Operations { reader: Reader::new(self.range(stream).unwrap_or(&[])) }
    }

    /// Decodes every operation, so that later iteration cannot fail.
    pub fn check(&self) -> Result<(), Malformed> {
        for stream in Stream::ALL {
            for step in self.stream(stream) {
                step?;
            }
        }
        Ok(())
    }
}

/// Iterates over a stream; ends after the first malformed operation.
#[derive(Clone, Copy)]
pub struct Operations<'a> {
    reader: Reader<'a>,
}

impl<'a> Operations<'a> {
    fn step(&mut self) -> Result<Step<'a>, Malformed> {
        let code = self.reader.u16()?;
        let pointer_len = usize::from(self.reader.u16()?);
        let body_len = self.reader.u32()? as usize;
        let pointer = CStr::from_bytes_with_nul(self.reader.take(pointer_len)?)
            .map_err(|_| Malformed::Unterminated)?;
        let mut body = Reader::new(self.reader.take(body_len)?);
        let operation = Operation::decode(code, &mut body)?;
        if !body.is_empty() {
            return Err(Malformed::TrailingBytes);
        }
        Ok(Step { operation, pointer })
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<Step<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(step)
    }
}

/// Writes a plan.
#[cfg(feature = "encode")]
#[derive(Default)]
pub struct Builder {
    streams: [alloc::vec::Vec<u8>; Stream::COUNT],
}

#[cfg(feature = "encode")]
impl Builder {
    /// Appends an operation. `pointer` is a JSON pointer; one longer than 4,096 bytes is cut.
    pub fn push(&mut self, stream: Stream, pointer: &str, operation: &Operation<'_>) {
        let out = &mut self.streams[stream as usize];
        let pointer = pointer.as_bytes();
        let pointer = &pointer[..pointer.len().min(4096)];
        let pointer = pointer.split(|&byte| byte == 0).next().unwrap_or_default();
        let mut body = alloc::vec::Vec::new();
        operation.encode(&mut body);
        out.extend_from_slice(&operation.code().to_le_bytes());
        out.extend_from_slice(&(pointer.len() as u16 + 1).to_le_bytes());
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(pointer);
        out.push(0);
        out.extend_from_slice(&body);
    }

    /// The finished document, to which `slots` descriptors belong.
    pub fn finish(self, slots: u32) -> alloc::vec::Vec<u8> {
        let mut out = alloc::vec::Vec::new();
        for word in [MAGIC, VERSION, slots] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let mut offset = HEADER;
        for stream in &self.streams {
            out.extend_from_slice(&(offset as u32).to_le_bytes());
            out.extend_from_slice(&(stream.len() as u32).to_le_bytes());
            offset += stream.len();
        }
        for stream in &self.streams {
            out.extend_from_slice(stream);
        }
        out
    }
}

#[cfg(all(test, feature = "encode"))]
mod tests {
    use super::*;
    use crate::OwnedList;

    fn sample() -> alloc::vec::Vec<u8> {
        let mut builder = Builder::default();
        builder.push(Stream::Child, "/hostname", &Operation::Hostname { name: c"box" });
        let args: OwnedList = [c"/bin/sh", c"-c", c""].into_iter().collect();
        let exec = Operation::Exec { args: args.as_list(), env: crate::List::EMPTY };
        builder.push(Stream::Start, "/process/args", &exec);
        builder.finish(3)
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = sample();
        let document = Document::parse(&bytes).unwrap();
        assert_eq!(document.slots(), 3);
        document.check().unwrap();
        let step = document.stream(Stream::Child).next().unwrap().unwrap();
        assert_eq!(step.pointer, c"/hostname");
        assert!(matches!(step.operation, Operation::Hostname { name } if name == c"box"));
        let step = document.stream(Stream::Start).next().unwrap().unwrap();
        let Operation::Exec { args, .. } = step.operation else { panic!("{step:?}") };
        assert_eq!(args.iter().collect::<alloc::vec::Vec<_>>(), [c"/bin/sh", c"-c", c""]);
    }

    #[test]
    fn a_plan_cut_anywhere_is_refused_or_shorter_but_never_panics() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert!(Document::parse(&bytes[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn no_flipped_byte_makes_the_decoder_panic() {
        let bytes = sample();
        for at in 0..bytes.len() {
            for flip in [1u8, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                if let Ok(document) = Document::parse(&bytes) {
                    let _ = document.check();
                }
            }
        }
    }
}

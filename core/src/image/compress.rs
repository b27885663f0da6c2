//! Compressed layers, read and written.

use std::io::{self, BufReader, Read, Write};

use super::digest;
use crate::{Category, Error, Result, Stage};

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

impl Compression {
    /// The media type of a layer that is compressed so.
    pub(super) fn layer(self) -> &'static str {
        match self {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Of this a zstd frame may need no more to be read: as much as the `zstd` command allows.
const WINDOW_LOG: u32 = 27;

/// What is inside, by its first bytes; gzip and zstd of several members, too. Data that is damaged, or ends
/// too early, is an error of the category Spec; those of the source come through as they are.
pub(super) fn decoder<'a>(source: Box<dyn Read + 'a>) -> Result<(Compression, Box<dyn Read + 'a>)> {
    let mut source = Source(source);
    let mut magic = [0; 4];
    let mut length = 0;
    while length < magic.len() {
        match source.0.read(&mut magic[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(digest::unwrap(error, || "read a layer".into())),
        }
    }
    let compression = sniff(&magic[..length]);
    let first = io::Cursor::new(magic).take(length as u64);
    let decoder: Box<dyn Read + 'a> = match compression {
        Compression::None => return Ok((compression, Box::new(first.chain(source.0)))),
        Compression::Gzip => {
            let source = BufReader::with_capacity(64 << 10, first.chain(source));
            Box::new(flate2::bufread::MultiGzDecoder::new(source))
        }
        Compression::Zstd => {
            let size = zstd::zstd_safe::DCtx::in_size();
            let source = BufReader::with_capacity(size, first.chain(source));
            let decoder = zstd::stream::read::Decoder::with_buffer(source)
                .and_then(|mut decoder| decoder.window_log_max(WINDOW_LOG).map(|()| decoder));
            Box::new(decoder.map_err(|error| {
                Error::io(Stage::Image, &error, "set up the decompression of zstd")
            })?)
        }
    };
    Ok((compression, Box::new(Decoder { decoder, compression })))
}

/// By the first four bytes.
pub(super) fn sniff(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        // A frame to skip, with which a zstd file may begin.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Compression::Zstd,
        _ => Compression::None,
    }
}

/// Marks the errors of what is read from, to tell them from those of the decompression.
struct Source<R>(R);

#[derive(Debug)]
struct SourceError(io::Error);

impl std::fmt::Display for SourceError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for SourceError {}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                // Not everything between here and the caller tries again.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(io::Error::new(error.kind(), SourceError(error))),
                count => return count,
            }
        }
    }
}

struct Decoder<'a> {
    decoder: Box<dyn Read + 'a>,
    compression: Compression,
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer).map_err(|error| {
            if error.get_ref().is_some_and(|inner| inner.is::<SourceError>()) {
                let inner = error.into_inner().expect("looked at above");
                return inner.downcast::<SourceError>().expect("looked at above").0;
            }
            let name = match self.compression {
                Compression::Zstd => "zstd",
                _ => "gzip",
            };
            let message = match error.kind() {
                io::ErrorKind::UnexpectedEof => format!("the {name} data ends too early"),
                _ => format!("the {name} data is damaged: {error}"),
            };
            digest::wrap(Error::new(Category::Spec, Stage::Image, message))
        })
    }
}

/// Something to write to, of which `finish` writes the end.
pub(super) trait Encoder: Write {
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// The same bytes for the same input, whoever runs it and when. What is written without `finish` is
/// useless.
pub(super) fn encoder<'a>(
    out: Box<dyn Write + 'a>,
    compression: Compression,
) -> Result<Box<dyn Encoder + 'a>> {
    Ok(match compression {
        Compression::None => Box::new(Plain(out)),
        Compression::Gzip => {
            // No name, no time; and no word about the system that wrote it.
            let header = flate2::GzBuilder::new().mtime(0).operating_system(255);
            Box::new(Blocks::new(header.write(out, flate2::Compression::new(6))))
        }
        Compression::Zstd => {
            let encoder = zstd::stream::write::Encoder::new(out, 3).and_then(|mut encoder| {
                encoder.include_checksum(true)?;
                Ok(encoder)
            });
            Box::new(Blocks::new(encoder.map_err(|error| {
                Error::io(Stage::Image, &error, "set up the compression with zstd")
            })?))
        }
    })
}

/// Hands on blocks of one size. Into which pieces its input comes changes what a compressor makes of it.
struct Blocks<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> Blocks<W> {
    const SIZE: usize = 64 << 10;

    fn new(out: W) -> Blocks<W> {
        Blocks { out, block: Vec::with_capacity(Self::SIZE) }
    }

    /// The last of them may be shorter.
    fn rest(mut self) -> io::Result<W> {
        self.out.write_all(&self.block)?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Blocks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == Self::SIZE {
            self.out.write_all(&self.block)?;
            self.block.clear();
        }
        let count = bytes.len().min(Self::SIZE - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Does nothing: a block that ends early, too, would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Plain<'a>(Box<dyn Write + 'a>);

impl Write for Plain<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Encoder for Plain<'_> {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

impl<'a> Encoder for Blocks<flate2::write::GzEncoder<Box<dyn Write + 'a>>> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.rest()?.finish()?.flush()
    }
}

impl<'a> Encoder for Blocks<zstd::stream::write::Encoder<'static, Box<dyn Write + 'a>>> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.rest()?.finish()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Compression; 2] = [Compression::Gzip, Compression::Zstd];

    fn compress(bytes: &[u8], compression: Compression, chunk: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = encoder(Box::new(&mut out), compression).unwrap();
        for bytes in bytes.chunks(chunk) {
            encoder.write_all(bytes).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap();
        out
    }

    fn decompress(source: impl Read) -> Result<(Compression, Vec<u8>)> {
        let mut bytes = Vec::new();
        let (compression, mut decoder) = decoder(Box::new(source))?;
        decoder.read_to_end(&mut bytes).map_err(|error| digest::unwrap(error, || "read".into()))?;
        Ok((compression, bytes))
    }

    /// Half of it compresses well.
    fn sample(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..length).map(|at| if at / 1000 % 2 == 0 { next() } else { b'x' }).collect()
    }

    /// Gives one byte at a time, and is interrupted each time.
    struct Slow<'a>(&'a [u8], bool);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            self.0.read(&mut buffer[..1])
        }
    }

    #[test]
    fn what_is_compressed_comes_back() {
        for length in [0, 1, 3, 4, 100, 300_000] {
            let bytes = sample(length);
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                let packed = compress(&bytes, compression, 7777);
                let expected = (compression, bytes.clone());
                assert_eq!(decompress(&packed[..]).unwrap(), expected, "{length} {compression:?}");
                assert_eq!(decompress(Slow(&packed, false)).unwrap(), expected, "{length}");
            }
        }
        assert_eq!(decompress(&b""[..]).unwrap(), (Compression::None, vec![]));
        assert_eq!(decompress(&b"\x1f"[..]).unwrap(), (Compression::None, vec![0x1f]));
    }

    #[test]
    fn members_one_after_another_are_one_layer() {
        for compression in BOTH {
            let mut packed = Vec::new();
            for part in sample(50_000).chunks(20_000) {
                packed.extend(compress(part, compression, 20_000));
            }
            packed.extend(compress(b"", compression, 1));
            assert_eq!(decompress(&packed[..]).unwrap(), (compression, sample(50_000)));
        }
        let mut packed = b"\x5a\x2a\x4d\x18\x03\0\0\0abc".to_vec();
        packed.extend(compress(b"hello", Compression::Zstd, 5));
        packed.extend(b"\x50\x2a\x4d\x18\0\0\0\0");
        assert_eq!(decompress(&packed[..]).unwrap(), (Compression::Zstd, b"hello".to_vec()));
    }

    #[test]
    fn data_that_ends_early_is_an_error_wherever_it_ends() {
        for compression in BOTH {
            let mut packed = compress(&sample(3000), compression, 3000);
            let member = packed.len();
            packed.extend(compress(b"hello", compression, 5));
            for length in (4..packed.len()).filter(|length| *length != member) {
                let error = decompress(&packed[..length]).unwrap_err();
                assert_eq!(error.category(), Category::Spec, "{compression:?} {length}: {error}");
            }
        }
    }

    #[test]
    fn damaged_data_is_an_error() {
        for compression in BOTH {
            let packed = compress(&sample(3000), compression, 3000);
            // What follows the header, whose time and flags for people nothing checks.
            for at in 10..packed.len() {
                let mut packed = packed.clone();
                packed[at] ^= 0x10;
                match decompress(&packed[..]) {
                    Err(error) => assert_eq!(error.category(), Category::Spec, "{at}: {error}"),
                    Ok(same) => assert_eq!(same.1, sample(3000), "{compression:?} {at}"),
                }
            }
            let mut packed = packed;
            packed.extend(b"more");
            assert_eq!(decompress(&packed[..]).unwrap_err().category(), Category::Spec);
        }
    }

    #[test]
    fn a_frame_that_needs_much_memory_is_refused() {
        let mut packed = Vec::new();
        let mut encoder = zstd::stream::write::Encoder::new(&mut packed, 1).unwrap();
        encoder.window_log(28).unwrap();
        encoder.write_all(b"hello").unwrap();
        encoder.finish().unwrap();
        let error = decompress(&packed[..]).unwrap_err();
        assert_eq!(error.category(), Category::Spec);
    }

    #[test]
    fn the_bytes_depend_on_the_input_alone() {
        let bytes = sample(400_000);
        for compression in BOTH {
            let packed = compress(&bytes, compression, 400_000);
            for chunk in [1, 511, 70_000] {
                assert!(compress(&bytes, compression, chunk) == packed, "{compression:?} {chunk}");
            }
        }
        let packed = compress(b"x", Compression::Gzip, 1);
        assert_eq!(packed[..10], *b"\x1f\x8b\x08\0\0\0\0\0\0\xff");
    }

    #[test]
    fn an_error_of_the_source_is_not_taken_for_damage() {
        struct Failing<'a>(&'a [u8], fn() -> io::Error);
        impl Read for Failing<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0.read(buffer)? {
                    0 => Err(self.1()),
                    count => Ok(count),
                }
            }
        }
        for compression in BOTH {
            let packed = compress(&sample(3000), compression, 3000);
            for length in [2, 4, 6, 12, packed.len() - 2] {
                let eio = || io::Error::from_raw_os_error(libc::EIO);
                let error = decompress(Failing(&packed[..length], eio)).unwrap_err();
                assert_eq!(error.errno(), Some(libc::EIO));
                let own = || digest::wrap(Error::new(Category::Timeout, Stage::Image, "late"));
                let error = decompress(Failing(&packed[..length], own)).unwrap_err();
                assert_eq!((error.category(), &*error.to_string()), (Category::Timeout, "late"));
                let early = || io::ErrorKind::UnexpectedEof.into();
                let error = decompress(Failing(&packed[..length], early)).unwrap_err();
                assert_eq!(error.category(), Category::System);
            }
        }
    }

    #[test]
    fn an_error_of_what_is_written_to_comes_through() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut encoder = encoder(Box::new(Full), compression).unwrap();
            let result = encoder.write_all(&sample(1_000_000)).and_then(|()| encoder.finish());
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        }
    }
}

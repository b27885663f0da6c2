//! Digests: computing them, and reading only what has the right one.

use std::io::{self, Read};

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};

use crate::{Category, Error, Result, Stage};

/// A digest being computed.
#[derive(Clone)]
pub(super) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// For the algorithm of a digest that is to be checked.
    pub(super) fn like(digest: &Digest) -> Result<Hasher> {
        match digest.algorithm() {
            DigestAlgorithm::Sha256 => Ok(Hasher::Sha256(Sha256::new())),
            DigestAlgorithm::Sha512 => Ok(Hasher::Sha512(Sha512::new())),
            other => {
                let message = format!("the digest {digest} is of the unknown algorithm {other}");
                Err(Error::new(Category::Unsupported, Stage::Image, message))
            }
        }
    }

    pub(super) fn sha256() -> Hasher {
        Hasher::Sha256(Sha256::new())
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        let (name, hex) = match self {
            Hasher::Sha256(hasher) => ("sha256", hex(&hasher.finalize())),
            Hasher::Sha512(hasher) => ("sha512", hex(&hasher.finalize())),
        };
        format!("{name}:{hex}").parse().expect("a digest of hexadecimal digits")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 digest of bytes in memory.
pub(super) fn sha256(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::sha256();
    hasher.update(bytes);
    hasher.finish()
}

/// A digest that somebody wrote, in a message that names where.
pub(super) fn parse(text: &str, what: &str) -> Result<Digest> {
    text.parse().map_err(|error| {
        let message = format!("{what}: {text:?} is no digest: {error}");
        Error::new(Category::Spec, Stage::Image, message)
    })
}

/// Reads a blob, and fails at its end, or as soon as it is too long, unless size and digest are
/// the descriptor's.
pub(super) struct Verified<R> {
    source: R,
    hasher: Option<Hasher>,
    digest: Digest,
    size: Option<u64>,
    read: u64,
}

impl<R: Read> Verified<R> {
    pub(super) fn new(source: R, digest: Digest, size: Option<u64>) -> Result<Verified<R>> {
        Ok(Verified { source, hasher: Some(Hasher::like(&digest)?), digest, size, read: 0 })
    }

    fn wrong(&self, what: String) -> io::Error {
        let message = format!("blob {}: {what}", self.digest);
        wrap(Error::new(Category::Spec, Stage::Image, message))
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        let Some(hasher) = &mut self.hasher else { return Ok(count) };
        if count > 0 || buffer.is_empty() {
            hasher.update(&buffer[..count]);
            self.read += count as u64;
            return match self.size {
                Some(size) if self.read > size => {
                    Err(self.wrong(format!("it is longer than the {size} bytes it should have")))
                }
                _ => Ok(count),
            };
        }
        if let Some(size) = self.size.filter(|size| self.read != *size) {
            return Err(self.wrong(format!("it has {} bytes instead of {size}", self.read)));
        }
        let found = self.hasher.take().expect("looked at above").finish();
        match found == self.digest {
            true => Ok(0),
            false => Err(self.wrong(format!("its bytes have the digest {found}"))),
        }
    }
}

/// Takes an error through code that knows those of the standard library only.
pub(super) fn wrap(error: Error) -> io::Error {
    io::Error::other(error)
}

/// The error that [`wrap`] took along; else one about `what`.
pub(super) fn unwrap(error: io::Error, what: impl FnOnce() -> String) -> Error {
    // Libraries put a message of their own around an error.
    let mut cause = error.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static));
    while let Some(inner) = cause {
        if let Some(own) = inner.downcast_ref::<Error>() {
            return own.clone();
        }
        cause = match inner.downcast_ref::<io::Error>() {
            Some(inner) => inner.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
            None => inner.source(),
        };
    }
    Error::io(Stage::Image, &error, what())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], digest: Digest, size: Option<u64>) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut source = Verified::new(bytes, digest, size)?;
        source.read_to_end(&mut all).map_err(|error| unwrap(error, String::new))?;
        Ok(all)
    }

    #[test]
    fn only_the_right_bytes_come_through() {
        let digest = sha256(b"hello");
        assert_eq!(read(b"hello", digest.clone(), Some(5)).unwrap(), b"hello");
        assert_eq!(read(b"hello", digest.clone(), None).unwrap(), b"hello");
        for (bytes, size) in [(&b"hellp"[..], 5), (b"hello", 4), (b"hello", 6), (b"", 5)] {
            let error = read(bytes, digest.clone(), Some(size)).unwrap_err();
            assert_eq!(error.category(), Category::Spec);
            assert!(error.to_string().contains(digest.as_ref()), "{error}");
        }
        let sha512 = Hasher::Sha512(Sha512::new()).finish();
        assert_eq!(read(b"", sha512, Some(0)).unwrap(), b"");
        let other = parse(&format!("sha384:{}", "0".repeat(96)), "x").unwrap();
        assert_eq!(read(b"", other, None).unwrap_err().category(), Category::Unsupported);
        assert!(parse("sha256:xyz", "config").unwrap_err().to_string().starts_with("config: "));
    }
}

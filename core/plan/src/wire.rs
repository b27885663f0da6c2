//! The field encoding: little-endian integers, NUL-terminated strings, byte blocks.
//!
//! Everything is decoded in place and bounds-checked; a string keeps its NUL so that the
//! keeper can hand it to the kernel without a copy. Nothing here may panic on any input.

use core::ffi::CStr;
use core::fmt;

/// Why a plan could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The bytes end inside a field.
    Truncated,
    /// A string has no NUL at its end, or one before it.
    Unterminated,
    /// A list does not hold as many entries as it says.
    BadList,
    /// The operation code is not one of this version's.
    UnknownOperation(u16),
    /// An operation's body is longer than its fields.
    TrailingBytes,
    /// The document does not begin as a plan does.
    NotAPlan,
    /// The document was written for another version.
    WrongVersion(u32),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::Truncated => f.write_str("the plan ends inside a field"),
            Malformed::Unterminated => f.write_str("a string in the plan is not NUL-terminated"),
            Malformed::BadList => f.write_str("a list in the plan has a wrong length"),
            Malformed::UnknownOperation(code) => write!(f, "unknown operation {code} in the plan"),
            Malformed::TrailingBytes => f.write_str("an operation of the plan has trailing bytes"),
            Malformed::NotAPlan => f.write_str("not a plan"),
            Malformed::WrongVersion(version) => {
                write!(f, "plan version {version}, expected {}", crate::VERSION)
            }
        }
    }
}

/// A cursor over encoded bytes.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.bytes.len() {
            return Err(Malformed::Truncated);
        }
        let (head, tail) = self.bytes.split_at(len);
        self.bytes = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn block(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()? as usize;
        self.take(len)
    }
}

/// A field's value, for printing a plan.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// An unsigned number.
    Unsigned(u64),
    /// A signed number.
    Signed(i64),
    /// A path, name or other text.
    Text(&'a CStr),
    /// Opaque bytes, such as a BPF program.
    Bytes(&'a [u8]),
    /// Texts in order.
    List(List<'a>),
    /// Numbers in order.
    Numbers(Numbers<'a>),
}

/// A type that can stand as a field of an operation.
pub(crate) trait Field<'a>: Sized {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed>;
    #[cfg(feature = "encode")]
    fn encode(&self, out: &mut alloc::vec::Vec<u8>);
    fn value(&self) -> Value<'a>;
}

macro_rules! integer_field {
    ($type:ty, $variant:ident, $wide:ty) => {
        impl<'a> Field<'a> for $type {
            fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
                Ok(<$type>::from_le_bytes(reader.array()?))
            }
            #[cfg(feature = "encode")]
            fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn value(&self) -> Value<'a> {
                Value::$variant(<$wide>::from(*self))
            }
        }
    };
}

integer_field!(u32, Unsigned, u64);
integer_field!(u64, Unsigned, u64);
integer_field!(i32, Signed, i64);
integer_field!(i64, Signed, i64);

#[cfg(feature = "encode")]
pub(crate) fn encode_block(bytes: &[u8], out: &mut alloc::vec::Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

impl<'a> Field<'a> for &'a CStr {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        CStr::from_bytes_with_nul(reader.block()?).map_err(|_| Malformed::Unterminated)
    }
    #[cfg(feature = "encode")]
    fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        encode_block(self.to_bytes_with_nul(), out);
    }
    fn value(&self) -> Value<'a> {
        Value::Text(self)
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        reader.block()
    }
    #[cfg(feature = "encode")]
    fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        encode_block(self, out);
    }
    fn value(&self) -> Value<'a> {
        Value::Bytes(self)
    }
}

/// Texts in order: each NUL-terminated, one after the other.
#[derive(Clone, Copy)]
pub struct List<'a> {
    count: u32,
    bytes: &'a [u8],
}

impl<'a> List<'a> {
    /// The list without entries.
    pub const EMPTY: List<'static> = List { count: 0, bytes: &[] };

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &'a CStr> + use<'a> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let entry = CStr::from_bytes_until_nul(rest).ok()?;
            rest = &rest[entry.to_bytes_with_nul().len()..];
            Some(entry)
        })
    }
}

impl fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Field<'a> for List<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let count = reader.u32()?;
        let bytes = reader.block()?;
        let ends = bytes.iter().filter(|&&byte| byte == 0).count();
        if ends != count as usize || bytes.last().is_some_and(|&last| last != 0) {
            return Err(Malformed::BadList);
        }
        Ok(List { count, bytes })
    }
    #[cfg(feature = "encode")]
    fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        self.count.encode(out);
        encode_block(self.bytes, out);
    }
    fn value(&self) -> Value<'a> {
        Value::List(*self)
    }
}

/// Numbers in order, such as supplementary group ids.
#[derive(Clone, Copy)]
pub struct Numbers<'a> {
    bytes: &'a [u8],
}

impl<'a> Numbers<'a> {
    /// The list without entries.
    pub const EMPTY: Numbers<'static> = Numbers { bytes: &[] };

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / 4
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
}

impl fmt::Debug for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Field<'a> for Numbers<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let bytes = reader.block()?;
        if bytes.len() % 4 != 0 {
            return Err(Malformed::BadList);
        }
        Ok(Numbers { bytes })
    }
    #[cfg(feature = "encode")]
    fn encode(&self, out: &mut alloc::vec::Vec<u8>) {
        encode_block(self.bytes, out);
    }
    fn value(&self) -> Value<'a> {
        Value::Numbers(*self)
    }
}

/// Storage from which a [`List`] can be borrowed while a plan is written.
#[cfg(feature = "encode")]
#[derive(Default, Clone)]
pub struct OwnedList {
    count: u32,
    bytes: alloc::vec::Vec<u8>,
}

#[cfg(feature = "encode")]
impl OwnedList {
    /// Appends an entry.
    pub fn push(&mut self, entry: &CStr) {
        self.count += 1;
        self.bytes.extend_from_slice(entry.to_bytes_with_nul());
    }

    /// The entries as a field.
    pub fn as_list(&self) -> List<'_> {
        List { count: self.count, bytes: &self.bytes }
    }
}

#[cfg(feature = "encode")]
impl<S: AsRef<CStr>> FromIterator<S> for OwnedList {
    fn from_iter<I: IntoIterator<Item = S>>(entries: I) -> Self {
        let mut list = OwnedList::default();
        for entry in entries {
            list.push(entry.as_ref());
        }
        list
    }
}

/// Storage from which [`Numbers`] can be borrowed while a plan is written.
#[cfg(feature = "encode")]
#[derive(Default, Clone)]
pub struct OwnedNumbers(alloc::vec::Vec<u8>);

#[cfg(feature = "encode")]
impl OwnedNumbers {
    /// The entries as a field.
    pub fn as_numbers(&self) -> Numbers<'_> {
        Numbers { bytes: &self.0 }
    }
}

#[cfg(feature = "encode")]
impl FromIterator<u32> for OwnedNumbers {
    fn from_iter<I: IntoIterator<Item = u32>>(entries: I) -> Self {
        OwnedNumbers(entries.into_iter().flat_map(u32::to_le_bytes).collect())
    }
}

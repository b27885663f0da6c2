//! Text of bounded length, put together on the stack.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use crate::system::{Errno, Sys};

/// Bytes with a NUL behind them. What comes after is left as it is: filling a page with zeroes
/// for every path would be most of the work.
pub struct PathBuffer<const N: usize> {
    /// The first `len` and one more, the NUL, are initialised.
    bytes: [MaybeUninit<u8>; N],
    len: usize,
}

/// The longest path the kernel takes.
pub const PATH_MAX: usize = 4096;

impl<const N: usize> PathBuffer<N> {
    pub const fn new() -> Self {
        let mut bytes = [const { MaybeUninit::uninit() }; N];
        bytes[0] = MaybeUninit::new(0);
        PathBuffer { bytes, len: 0 }
    }

    /// All of `parts`, one after the other.
    pub fn of(parts: &[&[u8]]) -> Sys<Self> {
        let mut out = Self::new();
        for part in parts {
            out.push(part)?;
        }
        Ok(out)
    }

    pub fn clear(&mut self) {
        self.truncate(0);
    }

    pub fn truncate(&mut self, len: usize) {
        self.end_at(len.min(self.len));
    }

    fn end_at(&mut self, len: usize) {
        self.len = len;
        self.bytes[len] = MaybeUninit::new(0);
    }

    /// Appends bytes, which hold no NUL.
    pub fn push(&mut self, bytes: &[u8]) -> Sys {
        let end = self.len + bytes.len();
        if end >= N {
            return Err(Errno::ENAMETOOLONG);
        }
        for (place, &byte) in self.bytes[self.len..end].iter_mut().zip(bytes) {
            *place = MaybeUninit::new(byte);
        }
        self.end_at(end);
        Ok(())
    }

    /// Appends a number in decimal.
    pub fn push_number(&mut self, number: u64) -> Sys {
        self.push_digits(number, 10)
    }

    /// Appends a number in octal.
    pub fn push_octal(&mut self, number: u32) -> Sys {
        self.push_digits(number.into(), 8)
    }

    fn push_digits(&mut self, number: u64, base: u64) -> Sys {
        let mut digits = [0; 22];
        let mut at = digits.len();
        let mut rest = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % base) as u8;
            rest /= base;
            if rest == 0 {
                return self.push(&digits[at..]);
            }
        }
    }

    /// The same for one that may be negative.
    pub fn push_signed(&mut self, number: i32) -> Sys {
        if number < 0 {
            self.push(b"-")?;
        }
        self.push_number(number.unsigned_abs().into())
    }

    fn with_nul(&self) -> &[u8] {
        // SAFETY: so many are initialised, always.
        unsafe { self.bytes[..=self.len].assume_init_ref() }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.with_nul()[..self.len]
    }

    pub fn as_cstr(&self) -> &CStr {
        CStr::from_bytes_until_nul(self.with_nul()).unwrap_or(c"")
    }

    /// Room to be filled by the kernel; `set_len` tells how much it was.
    pub fn space(&mut self) -> &mut [u8] {
        let space = &mut self.bytes[..N - 1];
        space.fill(MaybeUninit::new(0));
        // SAFETY: just initialised.
        unsafe { space.assume_init_mut() }
    }

    /// As many bytes of `space` as the kernel says it has filled.
    pub fn set_len(&mut self, len: usize) {
        self.end_at(len.min(N - 1));
    }
}

/// A decimal number at the start of `text`.
pub fn parse_number(text: &[u8]) -> Option<u32> {
    let mut number = 0u32;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(digit.into())?;
    }
    if text.is_empty() { None } else { Some(number) }
}

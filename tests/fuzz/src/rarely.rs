//! What goes wrong early keeps the rest from being tried. So it comes up now and then only.

use arbitrary::{Arbitrary, Result, Unstructured};

/// Nothing, but for once in sixteen times.
#[derive(Debug)]
pub struct Rarely<T>(pub Option<T>);

impl<'a, T: Arbitrary<'a>> Arbitrary<'a> for Rarely<T> {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let some = u8::arbitrary(bytes)? < 16;
        Ok(Rarely(if some { Some(T::arbitrary(bytes)?) } else { None }))
    }
}

impl<T: Copy + Default> Rarely<T> {
    /// The value, or its usual one.
    pub fn get(&self) -> T {
        self.0.unwrap_or_default()
    }
}

//! The keeper executable, as bytes.

/// Placeholder until the image is built.
pub static IMAGE: &[u8] = &[];

//! The plan: what happens when a container starts, as data.
//!
//! The compiler in the host turns `config.json` into a [`Document`]: a few
//! [`Stream`]s of [`Operation`]s, each carrying the JSON pointer it came from. The
//! keeper decodes the document in place and carries it out. This crate is what both
//! sides share, so it knows neither JSON nor system calls and never allocates unless
//! the `encode` feature is on.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

#[cfg(feature = "encode")]
extern crate alloc;

mod document;
mod operation;
pub mod protocol;
mod wire;

#[cfg(feature = "encode")]
pub use document::Builder;
pub use document::{Document, Operations, Step, Stream};
pub use operation::{MAX_LAYERS, Operation, join, mount, root, terminal};
pub use wire::{List, Malformed, Numbers, Reader, Value};
#[cfg(feature = "encode")]
pub use wire::{OwnedList, OwnedNumbers};

/// Version of the plan encoding and of the keeper protocol, which change together.
pub const VERSION: u32 = 1;

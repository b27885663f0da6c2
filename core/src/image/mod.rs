//! Images: from a registry, a layout or an archive into a store, and from there into containers.
//!
//! What follows the image-spec 1.1 is named as there. Nothing of an image is used before its digest
//! and size were found right, and nothing of a layer leaves the directory it is unpacked into.

mod compress;
mod convert;
mod digest;
mod fetch;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod handle;
mod inside;
mod layers;
mod layout;
mod manifest;
mod new;
mod pack;
mod patch;
mod platform;
mod prepare;
mod prune;
mod reference;
#[cfg(feature = "registry")]
mod registry;
mod removal;
#[cfg(feature = "registry")]
mod repository;
mod save;
mod store;
mod subordinate;
mod transfer;
mod trees;
mod unpack;
mod xattr;

pub use compress::Compression;
pub use convert::{ImageMount, Overrides};
pub use handle::{
    Image, ImageStore, NewOptions, PruneOptions, Pruned, SaveOptions, StoreOptions, TakeOptions,
};
#[cfg(feature = "registry")]
pub use registry::RegistryOptions;
pub use transfer::{Progress, Report, Step, Transfer};
pub use unpack::{IdRange, Ids, Limits};

pub(crate) use prepare::Prepared;
pub(crate) use prune::release;
pub(crate) use transfer::Guide;

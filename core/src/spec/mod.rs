//! config.json: parsing, checking, the default spec, the features document.
//!
//! Everything here is a pure function of its arguments: no system call, no file, no global
//! state. What depends on the machine (which capabilities can be granted, whether a path
//! exists) is the compiler's business.

mod document;
pub mod features;
mod gaps;
pub mod mount_options;
mod parse;
mod template;
mod validate;
pub mod vocabulary;

/// The version of the specification that is implemented; every 1.x is accepted.
pub const OCI_VERSION: &str = "1.3.0";

#[cfg(feature = "images")]
pub(crate) use document::wanted;
pub use mount_options::MountOptions;
pub use oci_spec::runtime as oci;
pub use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Process, Spec};
pub(crate) use parse::process_to_json;
pub use parse::{parse, parse_process, parse_process_over, parse_resources, to_json};
pub use template::{Network, Template};
pub use validate::{validate, validate_process, validate_process_in, validate_resources};

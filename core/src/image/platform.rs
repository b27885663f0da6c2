//! Which image of an index is for this machine.

use oci_spec::image::{Descriptor, Platform};

use crate::Result;

/// This machine's platform, or `os/architecture[/variant]`.
pub(super) fn wanted(_choice: Option<&str>) -> Result<Platform> {
    todo!()
}

/// The best of an index; an error that lists what there is.
pub(super) fn choose<'a>(
    _manifests: &'a [Descriptor],
    _wanted: &Platform,
) -> Result<&'a Descriptor> {
    todo!()
}

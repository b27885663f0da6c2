//! The distribution API: images from registries and into them.

use std::io::Read;
use std::path::PathBuf;

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;

use super::Guide;
use crate::Result;

/// How a registry is reached.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// User and password, or token with an empty user. Default: from `auth_file`.
    pub credentials: Option<(String, String)>,
    /// Where credentials are. Default: `$REGISTRY_AUTH_FILE`, then the usual places of podman and
    /// Docker.
    pub auth_file: Option<PathBuf>,
    /// A file in PEM with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Mirrors and policy: see docs/images.md. Default: `/etc/locule/registries.json`, if it is there.
    pub registries_file: Option<PathBuf>,
}

/// A repository in a registry.
pub(super) struct Client {}

/// A manifest or index as it is in the registry, of which only the size was checked, and the digest if it was
/// asked for by one.
pub(super) struct Fetched {
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

impl Client {
    pub(super) fn new(_reference: &Reference, _options: &RegistryOptions) -> Result<Client> {
        todo!()
    }

    /// By tag or digest. 4 MiB at most.
    pub(super) fn manifest(&mut self, _reference: &str, _guide: &mut Guide<'_>) -> Result<Fetched> {
        todo!()
    }

    /// From byte `from` on; `None` if the registry cannot do that.
    pub(super) fn blob(
        &mut self,
        _digest: &Digest,
        _from: u64,
        _guide: &mut Guide<'_>,
    ) -> Result<Option<Box<dyn Read + '_>>> {
        todo!()
    }

    pub(super) fn has_blob(&mut self, _digest: &Digest, _guide: &mut Guide<'_>) -> Result<bool> {
        todo!()
    }

    /// Uploads `size` bytes.
    pub(super) fn put_blob(
        &mut self,
        _digest: &Digest,
        _size: u64,
        _source: &mut dyn Read,
        _guide: &mut Guide<'_>,
    ) -> Result<()> {
        todo!()
    }

    pub(super) fn put_manifest(
        &mut self,
        _reference: &str,
        _media_type: &str,
        _bytes: &[u8],
        _guide: &mut Guide<'_>,
    ) -> Result<()> {
        todo!()
    }
}

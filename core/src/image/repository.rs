//! A repository of a registry as a source of images, and as a place for them.

use std::io::Read;

use oci_spec::distribution::Reference;
use oci_spec::image::Descriptor;

use super::RegistryOptions;
use super::fetch::{Found, Source};
use super::manifest::Parts;
use super::registry::Client;
use super::store::Store;
use super::transfer::{Guide, Step};
use crate::Result;

pub(super) struct Repository {
    client: Client,
    /// Digest or tag.
    wanted: String,
}

impl Repository {
    pub(super) fn new(reference: &Reference, options: &RegistryOptions) -> Result<Repository> {
        let wanted = reference.digest().or(reference.tag()).unwrap_or("latest").to_owned();
        Ok(Repository { client: Client::new(reference, options)?, wanted })
    }

    /// The manifest or index that the reference names.
    pub(super) fn find(&mut self, guide: &mut Guide<'_>) -> Result<Found> {
        let fetched = self.client.manifest(&self.wanted, guide)?;
        Ok(Found { bytes: fetched.bytes, media_type: fetched.media_type })
    }

    /// Sends what the registry does not have: layers, configuration, manifest last.
    pub(super) fn push(
        &mut self,
        store: &Store,
        media_type: &str,
        manifest: &[u8],
        parts: &Parts,
        guide: &mut Guide<'_>,
    ) -> Result<()> {
        self.client.expect_to_push();
        for blob in parts.manifest.layers().iter().chain([parts.manifest.config()]) {
            let (digest, size) = (blob.digest(), blob.size());
            if !self.client.has_blob(digest, guide)? {
                self.client.put_blob(digest, size, || store.blob(digest), guide)?;
            }
            guide.finished(Step::Push, digest.as_ref(), size)?;
        }
        self.client.put_manifest(&self.wanted, media_type, manifest, guide)
    }
}

impl Source for Repository {
    fn blob<'s>(
        &'s mut self,
        descriptor: &Descriptor,
        from: u64,
        guide: &mut Guide<'_>,
    ) -> Result<Option<Box<dyn Read + 's>>> {
        self.client.blob(descriptor.digest(), from, guide)
    }

    fn pass_over(&mut self, descriptor: &Descriptor) -> bool {
        self.client.pass_over(descriptor.digest())
    }

    /// Manifests are no blobs to a registry.
    fn manifest(&mut self, descriptor: &Descriptor, guide: &mut Guide<'_>) -> Result<Vec<u8>> {
        Ok(self.client.manifest(descriptor.digest().as_ref(), guide)?.bytes)
    }
}

//! The distribution API: images from registries and into them (distribution-spec 1.1).
//!
//! What comes from a mirror is no better than what comes from anywhere: it is used if its digest is right.

mod challenge;
mod complaint;
mod credentials;
mod endpoint;
mod file;
mod helper;
mod policy;
mod session;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
mod token;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;
use serde::Deserialize;
use ureq::BodyReader;
use ureq::http::Method;
use ureq::http::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE,
};

use self::credentials::Login;
use self::endpoint::{Endpoint, follow, with_query};
use self::policy::Policy;
use self::session::{Answer, Ask, Load, RETRIES, Session, To, backoff, wait};
use self::socket::{Patience, ends_all};
use super::digest;
use super::fetch::passes;
use super::transfer::{Guide, Reported, Step};
use crate::{Category, Error, Result, Stage};

/// How a registry is reached.
///
/// The HTTP client writes what it sends and receives to the `log` crate at the level `trace`, below `ureq` and
/// `ureq_proto`: passwords, too. A host with a logger there leaves those out.
#[derive(Clone, Default)]
pub struct RegistryOptions {
    /// User and password, or an identity token with an empty user; for the registry itself, not for
    /// its mirrors. Default: from `auth_file`.
    pub credentials: Option<(String, String)>,
    /// Where credentials are. Default: `$REGISTRY_AUTH_FILE`, then the usual places of podman and
    /// Docker.
    pub auth_file: Option<PathBuf>,
    /// A file in PEM with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Mirrors and policy: see docs/images.md. Default: `/etc/locule/registries.json`, if it is there.
    pub registries_file: Option<PathBuf>,
}

impl fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.credentials.as_ref().map(|(user, _)| user);
        f.debug_struct("RegistryOptions")
            .field("user", &user)
            .field("auth_file", &self.auth_file)
            .field("ca_file", &self.ca_file)
            .field("registries_file", &self.registries_file)
            .finish()
    }
}

/// The manifests and indexes that there are.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

const LARGEST_MANIFEST: u64 = 4 << 20;

/// How often the upload of a blob is begun.
const UPLOADS: u32 = 3;

/// A repository in a registry.
pub(super) struct Client {
    /// The mirrors, and last the registry itself.
    sources: Vec<Session>,
    patience: Arc<Patience>,
    given: HashMap<String, Given>,
}

/// What has become of a blob that was asked for.
struct Given {
    /// Who has given it; those before do not have it, or not right.
    source: usize,
    /// The byte from which it was asked for last, and how often in vain before that.
    last: Option<(u64, u32)>,
}

/// A manifest or index as it is in the registry, of which only the size was checked, and the digest if it was
/// asked for by one.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) media_type: String,
    pub(super) bytes: Vec<u8>,
}

/// What every manifest has.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Head {
    schema_version: Option<u64>,
    media_type: Option<String>,
}

impl Client {
    pub(super) fn new(reference: &Reference, options: &RegistryOptions) -> Result<Client> {
        let policy = Policy::read(options.registries_file.as_deref())?;
        let (registry, repository) = (reference.registry(), reference.repository());
        let rules = policy.of(registry)?;
        let patience = Arc::new(Patience::default());
        let auth_file = options.auth_file.as_deref();
        let session = |endpoint: Endpoint, login, ca: Option<&PathBuf>| {
            let certificates: Vec<&Path> =
                options.ca_file.iter().chain(ca).map(PathBuf::as_path).collect();
            Session::new(endpoint, login, auth_file, &certificates, &patience)
        };
        let mut sources = Vec::new();
        for mirror in rules.iter().flat_map(|rules| &rules.mirrors) {
            let endpoint = Endpoint::of_mirror(mirror, repository, &policy)?;
            let ca = policy.of_mirror(&endpoint.host).and_then(|rules| rules.ca.as_ref());
            sources.push(session(endpoint, None, ca)?);
        }
        let plain = rules.is_some_and(|rules| rules.plain_http);
        let endpoint = Endpoint::of_registry(registry, repository, plain);
        let given = options.credentials.as_ref();
        let login = given.map(|(user, password)| Login::new(user, password));
        sources.push(session(endpoint, login, rules.and_then(|rules| rules.ca.as_ref()))?);
        Ok(Client { sources, patience, given: HashMap::new() })
    }

    /// By tag or digest. 4 MiB at most.
    pub(super) fn manifest(&mut self, reference: &str, guide: &mut Guide<'_>) -> Result<Fetched> {
        let what = manifest_name(reference)?;
        let digest = match reference.contains(':') {
            true => Some(digest::parse(reference, &what)?),
            false => None,
        };
        self.patience.begin(guide)?;
        let path = format!("manifests/{reference}");
        let patience = self.patience.clone();
        let fetched = self.first_of(0, |source| {
            let mut tries = 0;
            loop {
                let mut ask = Ask::new(Method::GET, &what);
                ask.headers.push((ACCEPT, HeaderValue::from_static(MANIFESTS)));
                let answer = source.send(&To::Path(&path), ask, &[200])?;
                match read_manifest(answer, &what, digest.as_ref()) {
                    Err(error) if passes(&error) && tries < RETRIES => {
                        tracing::debug!(%error, "interrupted, asking again");
                        patience.pause(backoff(tries))?;
                        tries += 1;
                    }
                    read => return read,
                }
            }
        });
        fetched.map(|(_, fetched)| fetched)
    }

    /// From byte `from` on; `None` if the registry cannot do that, or has less. Asked again for the same, it waits a
    /// little.
    pub(super) fn blob(
        &mut self,
        digest: &Digest,
        from: u64,
        guide: &mut Guide<'_>,
    ) -> Result<Option<Box<dyn Read + '_>>> {
        let what = blob_name(digest);
        self.patience.begin(guide)?;
        let last = self.sources.len() - 1;
        let given = self.given.get(digest.as_ref());
        let start = given.map_or(0, |given| given.source);
        let vain = match given.and_then(|given| given.last) {
            Some((at, vain)) if at == from => {
                self.patience.pause(backoff(vain))?;
                vain + 1
            }
            _ => 0,
        };
        let path = format!("blobs/{digest}");
        let answer = self.first_of(start, |source| {
            let mut ask = Ask::new(Method::GET, &what);
            if from > 0 {
                let range = HeaderValue::try_from(format!("bytes={from}-")).expect("plain text");
                ask.headers.push((RANGE, range));
            }
            let expected: &[u16] = if from > 0 { &[200, 206, 416] } else { &[200] };
            source.send(&To::Path(&path), ask, expected)
        });
        let source = answer.as_ref().map_or(last, |(source, _)| *source);
        let given = Given { source, last: Some((from, vain)) };
        self.given.insert(digest.as_ref().to_owned(), given);
        let (_, answer) = answer?;
        let continues = || {
            let range = answer.header(CONTENT_RANGE).unwrap_or_default();
            answer.status() == 206 && range.starts_with(&format!("bytes {from}-"))
        };
        if from > 0 && !continues() {
            if answer.status() == 416 {
                self.pass_over(digest);
            }
            return Ok(None);
        }
        Ok(Some(Box::new(Blob::new(answer, what))))
    }

    /// Has the next source asked for a blob, as who has given it does not have it right. False if there is none.
    pub(super) fn pass_over(&mut self, digest: &Digest) -> bool {
        let last = self.sources.len() - 1;
        match self.given.get_mut(digest.as_ref()) {
            Some(given) if given.source < last => {
                *given = Given { source: given.source + 1, last: None };
                true
            }
            _ => false,
        }
    }

    pub(super) fn has_blob(&mut self, digest: &Digest, guide: &mut Guide<'_>) -> Result<bool> {
        let what = blob_name(digest);
        self.patience.begin(guide)?;
        let path = format!("blobs/{digest}");
        let ask = Ask::new(Method::HEAD, &what);
        Ok(self.registry().send(&To::Path(&path), ask, &[200, 404])?.status() == 200)
    }

    /// Says that something will be sent, so that the first token is good for that.
    pub(super) fn expect_to_push(&mut self) {
        let registry = self.registry();
        let scope = format!("repository:{}:pull,push", registry.endpoint.repository);
        registry.scopes.push(scope);
    }

    /// Uploads `size` bytes, which `open` gives anew for each try.
    pub(super) fn put_blob<R: Read>(
        &mut self,
        digest: &Digest,
        size: u64,
        open: impl Fn() -> Result<R>,
        guide: &mut Guide<'_>,
    ) -> Result<()> {
        let what = blob_name(digest);
        self.patience.begin(guide)?;
        let patience = self.patience.clone();
        let registry = self.registry();
        let mut tries = 0;
        loop {
            let ask = Ask::new(Method::POST, &what);
            let begun = registry.send(&To::Path("blobs/uploads/"), ask, &[202])?;
            let place = begun.header(LOCATION).and_then(|location| follow(&begun.uri, location));
            let place = place.and_then(|place| with_query(&place, &[("digest", digest.as_ref())]));
            let Some(place) = place else {
                let message = format!("{what}: {} names no place to upload it to", begun.host());
                return Err(Error::new(Category::System, Stage::Image, message));
            };
            let mut ask = Ask::new(Method::PUT, &what);
            ask.headers.push((CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")));
            let mut source = open()?;
            let mut source = Reported::new(&mut source, Step::Push, digest, size, guide);
            ask.load = Load::Stream(size, &mut source);
            let expected = [200, 201, 204, 401, 429, 500, 502, 503, 504];
            let (wait, error) = match registry.send(&To::Uri(place), ask, &expected) {
                Ok(answer) if answer.status() < 300 => return Ok(()),
                Ok(answer) => {
                    let wait = match answer.status() {
                        // The token is too old by now; the next upload begins with another one.
                        401 => Some(backoff(tries)),
                        _ => wait(&answer, tries),
                    };
                    (wait, registry.refused(answer, &what))
                }
                Err(error) if passes(&error) => (Some(backoff(tries)), error),
                Err(error) => return Err(error),
            };
            tries += 1;
            match wait {
                Some(wait) if tries < UPLOADS && patience.allows(wait) => patience.pause(wait)?,
                _ => return Err(error),
            }
            tracing::debug!(%error, "uploading it again");
        }
    }

    pub(super) fn put_manifest(
        &mut self,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
        guide: &mut Guide<'_>,
    ) -> Result<()> {
        let what = manifest_name(reference)?;
        self.patience.begin(guide)?;
        let path = format!("manifests/{reference}");
        let mut ask = Ask::new(Method::PUT, &what);
        let media_type = HeaderValue::try_from(media_type).map_err(|_| {
            let message = format!("{what}: {media_type:?} is no media type");
            Error::new(Category::Invalid, Stage::Image, message)
        })?;
        ask.headers.push((CONTENT_TYPE, media_type));
        ask.load = Load::Bytes(bytes);
        self.registry().send(&To::Path(&path), ask, &[200, 201, 204]).map(drop)
    }

    fn registry(&mut self) -> &mut Session {
        self.sources.last_mut().expect("the registry is the last")
    }

    /// What the first source from `start` on gives that gives something; else the registry's own error.
    fn first_of<T>(
        &mut self,
        start: usize,
        mut ask: impl FnMut(&mut Session) -> Result<T>,
    ) -> Result<(usize, T)> {
        let last = self.sources.len() - 1;
        for (index, source) in self.sources.iter_mut().enumerate().skip(start) {
            match ask(source) {
                Ok(found) => return Ok((index, found)),
                Err(error) if index == last || ends_all(&error) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, mirror = source.endpoint.host, "a mirror is passed over");
                }
            }
        }
        unreachable!("the last source has returned")
    }
}

fn manifest_name(reference: &str) -> Result<String> {
    let usual = |c: char| c.is_ascii_alphanumeric() || "._-:+".contains(c);
    if reference.is_empty() || !reference.chars().all(usual) {
        let message = format!("{reference:?} is no tag and no digest");
        return Err(Error::new(Category::Invalid, Stage::Image, message));
    }
    Ok(format!("manifest {reference}"))
}

fn blob_name(digest: &Digest) -> String {
    format!("blob {digest}")
}

fn read_manifest(mut answer: Answer, what: &str, digest: Option<&Digest>) -> Result<Fetched> {
    let wrong =
        |category, how: String| Error::new(category, Stage::Image, format!("{what}: {how}"));
    let mut bytes = Vec::new();
    let mut body = answer.response.body_mut().as_reader().take(LARGEST_MANIFEST + 1);
    let failed = |error| digest::unwrap(error, || format!("{what}: read the manifest"));
    body.read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST_MANIFEST {
        let how = format!("the manifest is longer than {LARGEST_MANIFEST} bytes");
        return Err(wrong(Category::Resource, how));
    }
    if let Some(digest) = digest {
        let mut hasher = digest::Hasher::like(digest)?;
        hasher.update(&bytes);
        let found = hasher.finish();
        if found != *digest {
            let how = format!("{} gives one with the digest {found}", answer.host());
            return Err(wrong(Category::Spec, how));
        }
    }
    let header = answer.header(CONTENT_TYPE).unwrap_or_default();
    let header = header.split(';').next().unwrap_or_default().trim().to_owned();
    // What is wrong with it is for who reads it to say.
    let head: Head = serde_json::from_slice(&bytes).unwrap_or_default();
    // Its own word is what its digest vouches for.
    let media_type = head.media_type.filter(|own| !own.is_empty()).unwrap_or(header);
    if head.schema_version == Some(1)
        || media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
    {
        let how = "the manifest is of Docker's schema 1, which nobody writes since 2017";
        return Err(wrong(Category::Unsupported, how.to_owned())
            .hint("push the image again, with a tool of these days"));
    }
    Ok(Fetched { media_type, bytes })
}

/// A blob on its way.
struct Blob {
    body: BodyReader<'static>,
    /// Bytes to come, where the registry has said how many there are.
    left: Option<u64>,
    what: String,
    host: String,
    failed: Option<Error>,
}

impl Blob {
    fn new(answer: Answer, what: String) -> Blob {
        let left = answer.header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let host = answer.host().to_owned();
        let body = answer.response.into_body().into_reader();
        Blob { body, left, what, host, failed: None }
    }

    /// Further reading must not take it for the end.
    fn fail(&mut self, error: Error) -> io::Error {
        self.failed = Some(error.clone());
        digest::wrap(error)
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(digest::wrap(error.clone()));
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.body.read(buffer) {
            Ok(count) => {
                self.left = self.left.map(|left| left.saturating_sub(count as u64));
                match self.left {
                    Some(left) if count == 0 && left > 0 => {
                        let message = format!(
                            "{}: {} has ended the connection {left} bytes before the end",
                            self.what, self.host
                        );
                        Err(self.fail(Error::new(Category::System, Stage::Image, message)))
                    }
                    _ => Ok(count),
                }
            }
            Err(error) => {
                let error = digest::unwrap(error, || format!("read from {}", self.host));
                let error = match ends_all(&error) {
                    true => error,
                    false => error.context(self.what.as_str()),
                };
                Err(self.fail(error))
            }
        }
    }
}

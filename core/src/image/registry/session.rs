//! Requests to one registry or mirror: retries, redirects, errors.
//!
//! What authorizes goes to the registry itself and to the token server that it names, and never along with a
//! redirect to anybody else.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use ureq::http::header::{CONTENT_LENGTH, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector};
use ureq::{Agent, Body, Proxy, ProxyProtocol, SendBody};

use super::challenge::{self, Challenge};
use super::complaint;
use super::credentials::{self, Login};
use super::endpoint::{Endpoint, Scheme, follow, is_loopback, same_place};
use super::socket::{Patience, Sockets, ends_all};
use super::tls;
use crate::image::digest;
use crate::{Category, Error, Result, Stage};

/// How often something is tried again.
pub(super) const RETRIES: u32 = 3;

/// The same for a registry that has answered before, and cannot be reached now.
const RECONNECTS: u32 = 4;

/// How long a registry may ask to wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

const REDIRECTS: u32 = 5;

/// A request.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) load: Load<'a>,
    /// What it is about, for messages.
    pub(super) what: &'a str,
    /// Without what authorizes, and without redirects.
    pub(super) bare: bool,
}

/// What is sent along.
pub(super) enum Load<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// So many bytes, once.
    Stream(u64, &'a mut dyn Read),
}

impl<'a> Ask<'a> {
    pub(super) fn new(method: Method, what: &'a str) -> Ask<'a> {
        Ask { method, headers: Vec::new(), load: Load::Nothing, what, bare: false }
    }

    fn once_only(&self) -> bool {
        matches!(self.load, Load::Stream(..))
    }
}

/// Where to.
pub(super) enum To<'a> {
    /// Something of the repository's.
    Path(&'a str),
    /// Where the registry has sent us.
    Uri(Uri),
}

/// What came back.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    pub(super) uri: Uri,
    /// Whether it comes from where the endpoint is.
    own: bool,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn host(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }
}

/// A registry or a mirror.
pub(super) struct Session {
    pub(super) endpoint: Endpoint,
    agent: Agent,
    patience: Arc<Patience>,
    auth_file: Option<PathBuf>,
    /// Once it was looked for.
    login: Option<Option<Login>>,
    authorization: Option<HeaderValue>,
    pub(super) scopes: Vec<String>,
    /// Whether there has been an answer.
    reached: bool,
}

impl Session {
    pub(super) fn new(
        endpoint: Endpoint,
        login: Option<Login>,
        auth_file: Option<&Path>,
        certificates: &[&Path],
        patience: &Arc<Patience>,
    ) -> Result<Session> {
        let proxy = Proxy::try_from_env().filter(|_| !is_loopback(&endpoint.host));
        let known = [ProxyProtocol::Http, ProxyProtocol::Https];
        if proxy.as_ref().is_some_and(|proxy| !known.contains(&proxy.protocol())) {
            let message = "a SOCKS proxy, as the environment names one, is not supported";
            return Err(Error::new(Category::Unsupported, Stage::Image, message));
        }
        // No timeouts here: with them, ureq would start a thread to resolve names.
        let config = Agent::config_builder()
            .tls_config(tls::config(certificates)?)
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("locule/", env!("CARGO_PKG_VERSION")))
            .build();
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(Sockets(patience.clone()))
                .chain(RustlsConnector::default());
        Ok(Session {
            endpoint,
            agent: Agent::with_parts(config, connector, DefaultResolver::default()),
            patience: patience.clone(),
            auth_file: auth_file.map(Path::to_owned),
            login: login.map(Some),
            authorization: None,
            scopes: Vec::new(),
            reached: false,
        })
    }

    /// Sends it, and again with authorization if that is asked for. An answer of another status than
    /// `expected` is an error.
    pub(super) fn send(
        &mut self,
        to: &To<'_>,
        mut ask: Ask<'_>,
        expected: &[u16],
    ) -> Result<Answer> {
        let mut renewed = false;
        loop {
            let answer = self.persist(to, &mut ask)?;
            if expected.contains(&answer.status()) {
                return Ok(answer);
            }
            let asked = answer.status() == StatusCode::UNAUTHORIZED && answer.own;
            if !asked || renewed || ask.once_only() {
                return Err(self.refused(answer, ask.what));
            }
            renewed = true;
            let headers = answer.response.headers().get_all(WWW_AUTHENTICATE).iter();
            let challenges: Vec<Challenge> = headers
                .filter_map(|value| value.to_str().ok())
                .flat_map(challenge::parse)
                .collect();
            match self.authorize(&challenges, ask.what)? {
                Some(authorization) => self.authorization = Some(authorization),
                None => return Err(self.refused(answer, ask.what)),
            }
        }
    }

    /// What the registry wants to see.
    fn authorize(&mut self, challenges: &[Challenge], what: &str) -> Result<Option<HeaderValue>> {
        let login = self.login()?;
        let bearer = challenges.iter().find(|one| one.is("Bearer") && one.get("realm").is_some());
        let value = match (bearer, login) {
            (_, Some(Login::Registry(token))) => format!("Bearer {token}"),
            (Some(challenge), login) => {
                format!("Bearer {}", self.token(challenge, login.as_ref(), what)?)
            }
            (None, Some(Login::Password { user, password }))
                if challenges.iter().any(|one| one.is("Basic")) =>
            {
                credentials::basic(&user, &password)
            }
            _ => return Ok(None),
        };
        secret(&value, || format!("{what}: the token of {}", self.endpoint.host)).map(Some)
    }

    /// Who asks. Nobody, where others could read along.
    fn login(&mut self) -> Result<Option<Login>> {
        if !self.endpoint.is_private() {
            return Ok(None);
        }
        if let Some(login) = &self.login {
            return Ok(login.clone());
        }
        let Endpoint { name, repository, .. } = &self.endpoint;
        let found = credentials::find(self.auth_file.as_deref(), name, repository, &self.patience)?;
        self.login = Some(found.clone());
        Ok(found)
    }

    /// Sends it until there is an answer worth looking at.
    pub(super) fn persist(&mut self, to: &To<'_>, ask: &mut Ask<'_>) -> Result<Answer> {
        let mut tries = 0;
        loop {
            let uri = match to {
                To::Path(path) => self.endpoint.uri(path)?,
                To::Uri(uri) => uri.clone(),
            };
            let wait = match self.deliver(uri.clone(), ask) {
                Ok(answer) => {
                    self.reached = true;
                    if self.endpoint.scheme == Scheme::Unknown && matches!(to, To::Path(_)) {
                        self.endpoint.scheme = Scheme::Secure;
                    }
                    match wait(&answer, tries) {
                        Some(wait)
                            if tries < RETRIES
                                && !ask.once_only()
                                && self.patience.allows(wait) =>
                        {
                            wait
                        }
                        _ => return Ok(answer),
                    }
                }
                Err(error) => {
                    let unknown = self.endpoint.scheme == Scheme::Unknown;
                    if unknown && matches!(to, To::Path(_)) && speaks_no_tls(&error) {
                        self.endpoint.scheme = Scheme::Plain;
                        continue;
                    }
                    if ask.once_only() || tries >= self.retries(&error) {
                        return Err(failed(error, &uri, ask.what));
                    }
                    backoff(tries)
                }
            };
            tries += 1;
            tracing::debug!(host = uri.host(), tries, ?wait, "a registry is asked again");
            self.patience.pause(wait)?;
        }
    }

    /// How often it is worth being tried again after this.
    fn retries(&self, error: &ureq::Error) -> u32 {
        let ureq::Error::Io(error) = error else { return 0 };
        let own = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match own {
            _ if breaks(error) => RETRIES,
            _ if !self.reached || tls_error(error).is_some() => 0,
            // Over a new connection it may do better, but that took long.
            Some(own) if own.category() == Category::Timeout => own.errno().is_some().into(),
            Some(own) if own.category() != Category::System || own.errno().is_none() => 0,
            // No name server, no route, nobody who listens.
            _ => RECONNECTS,
        }
    }

    fn deliver(&self, mut uri: Uri, ask: &mut Ask<'_>) -> Result<Answer, ureq::Error> {
        let may_lead_on = !ask.bare && matches!(ask.method, Method::GET | Method::HEAD);
        for _ in 0..=REDIRECTS {
            let own = self.endpoint.uri("").is_ok_and(|own| same_place(&own, &uri));
            let response = self.run(&uri, own, ask)?;
            let leads_on = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !leads_on || !may_lead_on {
                return Ok(Answer { response, uri, own });
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            // It may have a key in it, and is not told.
            uri = location.and_then(|location| follow(&uri, location)).ok_or_else(|| {
                let message = format!("{} sends us to nowhere", uri.host().unwrap_or_default());
                own_error(Category::System, message)
            })?;
        }
        let message =
            format!("{} is the end of too many redirects", uri.host().unwrap_or_default());
        Err(own_error(Category::System, message))
    }

    fn run(&self, uri: &Uri, own: bool, ask: &mut Ask<'_>) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(ask.method.clone()).uri(uri);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(authorization) = self.authorization.as_ref().filter(|_| own && !ask.bare) {
            request = request.header(AUTHORIZATION, authorization);
        }
        match &mut ask.load {
            Load::Nothing if ask.method == Method::POST => self.agent.run(request.body(&[][..])?),
            Load::Nothing => self.agent.run(request.body(())?),
            Load::Bytes(bytes) => self.agent.run(request.body(*bytes)?),
            Load::Stream(size, source) => {
                let request = request.header(CONTENT_LENGTH, *size);
                let mut exactly = Exactly { source: &mut **source, left: *size };
                self.agent.run(request.body(SendBody::from_reader(&mut exactly))?)
            }
        }
    }

    /// The error that an answer stands for.
    pub(super) fn refused(&self, mut answer: Answer, what: &str) -> Error {
        let status = answer.response.status();
        let mut message = format!("{what}: {} answers {}", answer.host(), status.as_u16());
        match complaint::read(&mut answer.response) {
            words if words.is_empty() => {
                let reason = status.canonical_reason().unwrap_or_default();
                message = format!("{message} {reason}").trim_end().to_owned();
            }
            words => message = format!("{message}: {words}"),
        }
        let wait = answer.header(RETRY_AFTER).map(|wait| complaint::printable(wait, 40));
        let category = match status.as_u16() {
            401 | 403 => Category::Permission,
            404 => Category::NotFound,
            405 | 415 | 501 => Category::Unsupported,
            413 | 429 | 507 => Category::Resource,
            _ => Category::System,
        };
        let error = Error::new(category, Stage::Image, message);
        match category {
            Category::Permission if answer.own => error.hint(self.advice()),
            Category::Resource => match wait {
                Some(wait) => error.hint(format!("it wants to be asked again later: {wait} s")),
                None => error,
            },
            _ => error,
        }
    }

    /// What helps against a refusal.
    pub(super) fn advice(&self) -> String {
        let name = &self.endpoint.name;
        if !self.endpoint.is_private() {
            return format!("{name} is spoken to without TLS, and so without credentials");
        }
        match &self.login {
            Some(Some(_)) => format!(
                "are the credentials for {name} right, and do they allow this? Some registries \
                 say so, too, of what they do not have"
            ),
            _ => format!(
                "give credentials for {name}, in the call or in the file that `podman login \
                 {name}` writes. Some registries say so, too, of what they do not have"
            ),
        }
    }
}

/// A header with a secret in it.
pub(super) fn secret(text: &str, what: impl FnOnce() -> String) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        let message = format!("{} has characters that no header may have", what());
        Error::new(Category::Spec, Stage::Image, message)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn own_error(category: Category, message: String) -> ureq::Error {
    ureq::Error::Io(digest::wrap(Error::new(category, Stage::Image, message)))
}

pub(super) fn backoff(tries: u32) -> Duration {
    Duration::from_millis(300) * 3u32.pow(tries.min(RECONNECTS))
}

/// How long to wait before asking again; `None` if that is of no use.
pub(super) fn wait(answer: &Answer, tries: u32) -> Option<Duration> {
    match answer.status() {
        429 | 503 => {
            let wait = answer.header(RETRY_AFTER).map(|wait| wait.trim().parse().ok());
            match wait {
                Some(seconds) => {
                    Some(Duration::from_secs(seconds?)).filter(|wait| *wait <= LONGEST_WAIT)
                }
                None => Some(backoff(tries)),
            }
        }
        500 | 502 | 504 => Some(backoff(tries)),
        _ => None,
    }
}

/// Whether the connection broke.
fn breaks(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// Whether it is what comes of a server that takes a TLS greeting for HTTP.
fn speaks_no_tls(error: &ureq::Error) -> bool {
    let found = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) if breaks(error) => return true,
        ureq::Error::Io(error) => tls_error(error),
        _ => None,
    };
    matches!(found, Some(rustls::Error::InvalidMessage(_)))
}

/// The error of a request that has got no answer.
fn failed(error: ureq::Error, uri: &Uri, what: &str) -> Error {
    let host = uri.authority().map_or("", |authority| authority.as_str());
    match error {
        ureq::Error::Io(error) => {
            let certificate =
                matches!(tls_error(&error), Some(rustls::Error::InvalidCertificate(_)));
            let error = digest::unwrap(error, || host.to_owned());
            let error = match ends_all(&error) {
                true => error,
                false => error.context(what),
            };
            match certificate {
                true => error.hint(format!(
                    "if {host} has a certificate of its own, name the one that has signed it: \
                     `ca_file`, or `ca` in the file of registries"
                )),
                false => error,
            }
        }
        other => Error::new(Category::System, Stage::Image, format!("{what}: {host}: {other}")),
    }
}

/// Exactly so many bytes of something.
struct Exactly<'a> {
    source: &'a mut dyn Read,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.source.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            let message = format!("what is to be sent ends {} bytes too early", self.left);
            return Err(digest::wrap(Error::new(Category::Spec, Stage::Image, message)));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

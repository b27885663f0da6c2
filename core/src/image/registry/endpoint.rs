//! Where a repository is: host, scheme and path. URLs, and which of them are the same place.

use std::net::IpAddr;

use ureq::http::Uri;

use super::policy::Policy;
use crate::{Category, Error, Result, Stage};

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// With TLS.
    Secure,
    /// Without, as somebody has allowed.
    Plain,
    /// With TLS if it can do that: it is on this machine.
    Unknown,
}

/// A repository at a registry or a mirror.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// The name by which credentials are kept.
    pub(super) name: String,
    /// `HOST[:PORT]`.
    pub(super) host: String,
    pub(super) repository: String,
    pub(super) scheme: Scheme,
}

impl Endpoint {
    pub(super) fn of_registry(registry: &str, repository: &str, plain: bool) -> Endpoint {
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        Endpoint {
            name: registry.to_owned(),
            host: host.to_owned(),
            repository: repository.to_owned(),
            scheme: scheme(host, plain),
        }
    }

    /// From `[SCHEME://]HOST[:PORT][/PATH]`; a path comes before the repository's name.
    pub(super) fn of_mirror(text: &str, repository: &str, policy: &Policy) -> Result<Endpoint> {
        let wrong = || policy.wrong(format!("{text:?} is no mirror, [http://]HOST[:PORT][/PATH]"));
        let (given, rest) = text.split_once("://").map_or((None, text), |(a, b)| (Some(a), b));
        let rest = rest.trim_end_matches('/');
        let (host, path) = rest.split_once('/').map_or((rest, None), |(a, b)| (a, Some(b)));
        let repository = match path {
            Some(path) => format!("{path}/{repository}"),
            None => repository.to_owned(),
        };
        let plain = match given {
            Some("http") => Scheme::Plain,
            Some("https") => Scheme::Secure,
            Some(_) => return Err(wrong()),
            None => scheme(host, policy.of_mirror(host).is_some_and(|rules| rules.plain_http)),
        };
        let endpoint =
            Endpoint { name: host.to_owned(), host: host.to_owned(), repository, scheme: plain };
        let uri = endpoint.uri("").map_err(|_| wrong())?;
        let authority = uri.authority().filter(|authority| authority.as_str() == host);
        match authority.is_some_and(|authority| !authority.as_str().contains('@')) {
            true => Ok(endpoint),
            false => Err(wrong()),
        }
    }

    /// The URL of something of the repository's.
    pub(super) fn uri(&self, path: &str) -> Result<Uri> {
        let scheme = if self.scheme == Scheme::Plain { "http" } else { "https" };
        let Endpoint { host, repository, .. } = self;
        format!("{scheme}://{host}/v2/{repository}/{path}").parse().map_err(|error| {
            let message = format!("{host}/{repository}: {path:?} makes no URL: {error}");
            Error::new(Category::Invalid, Stage::Image, message)
        })
    }

    /// Whether what is sent there is read there only.
    pub(super) fn is_private(&self) -> bool {
        self.scheme != Scheme::Plain || is_loopback(&self.host)
    }
}

fn scheme(host: &str, plain: bool) -> Scheme {
    match plain {
        true => Scheme::Plain,
        false if is_loopback(host) => Scheme::Unknown,
        false => Scheme::Secure,
    }
}

/// Whether `HOST[:PORT]` is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether both are at the same server.
pub(super) fn same_place(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().or(if is_plain(uri) { Some(80) } else { Some(443) });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

pub(super) fn is_plain(uri: &Uri) -> bool {
    uri.scheme_str() != Some("https")
}

/// Where a `Location` leads (RFC 3986, section 5.2; without the dots that nobody sends). From TLS there is no
/// way back.
pub(super) fn follow(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str()?;
    let start = format!("{scheme}://{}", base.authority()?);
    let absolute = match location {
        "" => return None,
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{start}{location}"),
        _ if location.starts_with('?') => format!("{start}{}{location}", base.path()),
        _ if has_scheme(location) => location.to_owned(),
        _ => {
            let folder = &base.path()[..base.path().rfind('/')? + 1];
            format!("{start}{folder}{location}")
        }
    };
    let uri: Uri = absolute.parse().ok()?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let whole = uri.host().is_some_and(|host| !host.is_empty());
    let back = is_plain(&uri) && !is_plain(base);
    (known && whole && !back).then_some(uri)
}

fn has_scheme(location: &str) -> bool {
    let before = location.split(['/', '?']).next().unwrap_or_default();
    before.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}

/// Adds to the query of a URL.
pub(super) fn with_query(uri: &Uri, pairs: &[(&str, &str)]) -> Option<Uri> {
    let mut text = uri.to_string();
    for (name, value) in pairs {
        text.push(if text.contains('?') { '&' } else { '?' });
        text.push_str(name);
        text.push('=');
        text.push_str(&encode(value));
    }
    text.parse().ok()
}

/// Percent-encoding of all but the unreserved characters (RFC 3986, section 2.3).
pub(super) fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut out = String::new();
    for byte in text.bytes() {
        match plain(byte) {
            true => out.push(byte as char),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_this_machine() {
        for host in ["localhost", "LOCALHOST:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        let others =
            ["localhost.example", "128.0.0.1", "127.0.0.1.example:5000", "[::2]", "", "::1x"];
        for host in others {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_location_is_followed_but_never_out_of_tls() {
        let base: Uri = "https://r.example:5000/v2/a/blobs/uploads/?x=1".parse().unwrap();
        for (location, expected) in [
            ("/v2/b?c=d", Some("https://r.example:5000/v2/b?c=d")),
            ("b?c=d", Some("https://r.example:5000/v2/a/blobs/uploads/b?c=d")),
            ("?c=d", Some("https://r.example:5000/v2/a/blobs/uploads/?c=d")),
            ("//s.example/b", Some("https://s.example/b")),
            ("https://s.example/b?u=http://x#top", Some("https://s.example/b?u=http://x")),
            ("a:b/c", None),
            ("file:///etc/passwd", None),
            ("http://r.example:5000/b", None),
            ("https://", None),
            ("", None),
        ] {
            let found = follow(&base, location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn a_place_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_place(&a.parse().unwrap(), &b.parse().unwrap());
        assert!(same("https://A.example/x", "https://a.example:443/y"));
        assert!(!same("https://a.example", "http://a.example"));
        assert!(!same("https://a.example", "https://a.example:444"));
        assert!(!same("https://a.example", "https://b.a.example"));
    }

    #[test]
    fn a_query_is_added_to_what_is_there() {
        let uri = "https://a.example/up?state=x%2By".parse().unwrap();
        let with = with_query(&uri, &[("digest", "sha256:ab"), ("b", "ä ")]).unwrap();
        assert_eq!(with, "https://a.example/up?state=x%2By&digest=sha256%3Aab&b=%C3%A4%20");
    }
}

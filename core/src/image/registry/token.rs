//! Tokens for a repository, from the server that its registry names (distribution, spec/auth).

use std::io::Read;

use serde::Deserialize;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use ureq::http::{Method, Uri};

use super::challenge::Challenge;
use super::complaint;
use super::credentials::{Login, basic};
use super::endpoint::{Scheme, encode, is_loopback, is_plain, with_query};
use super::session::{Ask, Load, Session, To, secret};
use crate::{Category, Error, Result, Stage};

const LIMIT: u64 = 1 << 20;

/// More than any registry asks for.
const MOST_SCOPES: usize = 8;

#[derive(Deserialize)]
struct Granted {
    token: Option<String>,
    access_token: Option<String>,
}

impl Session {
    /// Fetches one that is good for all that was asked for up to now.
    pub(super) fn token(
        &mut self,
        challenge: &Challenge,
        login: Option<&Login>,
        what: &str,
    ) -> Result<String> {
        let realm = self.realm(challenge, login, what)?;
        let asked = challenge.get("scope").unwrap_or_default();
        let usual = format!("repository:{}:pull", self.endpoint.repository);
        let asked = if asked.is_empty() { usual.as_str() } else { asked };
        for scope in asked.split_ascii_whitespace() {
            self.scopes.retain(|known| known != scope);
            self.scopes.push(scope.to_owned());
        }
        self.scopes.drain(..self.scopes.len().saturating_sub(MOST_SCOPES));
        let service = challenge.get("service").unwrap_or_default();

        let form;
        let mut ask = Ask::new(Method::GET, what);
        ask.bare = true;
        ask.headers.push((ACCEPT, HeaderValue::from_static("application/json")));
        let uri = match login {
            Some(Login::Identity(token)) => {
                form = format!(
                    "grant_type=refresh_token&client_id=locule&service={}&scope={}&refresh_token={}",
                    encode(service),
                    encode(&self.scopes.join(" ")),
                    encode(token),
                );
                ask.method = Method::POST;
                let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
                ask.headers.push((CONTENT_TYPE, kind));
                ask.load = Load::Bytes(form.as_bytes());
                Some(realm.clone())
            }
            login => {
                if let Some(Login::Password { user, password }) = login {
                    let value = secret(&basic(user, password), || "the password".to_owned())?;
                    ask.headers.push((AUTHORIZATION, value));
                }
                let mut query: Vec<(&str, &str)> = vec![("service", service)];
                query.retain(|(_, value)| !value.is_empty());
                query.extend(self.scopes.iter().map(|scope| ("scope", scope.as_str())));
                with_query(&realm, &query)
            }
        };
        let host = realm.host().unwrap_or_default().to_owned();
        let wrong = |how: &str| {
            let message = format!("{what}: the token server {host} {how}");
            Error::new(Category::System, Stage::Image, message)
        };
        let uri = uri.ok_or_else(|| wrong("has a URL that cannot be asked"))?;
        let mut answer = self.persist(&To::Uri(uri), &mut ask)?;
        if answer.status() != 200 {
            return Err(self.denied(
                answer.status(),
                &complaint::read(&mut answer.response),
                &host,
                what,
            ));
        }
        let mut bytes = Vec::new();
        let mut body = answer.response.body_mut().as_reader().take(LIMIT);
        body.read_to_end(&mut bytes).map_err(|error| {
            crate::image::digest::unwrap(error, || format!("{what}: the token server {host}"))
        })?;
        // Without the parser's own words, which may quote a token.
        let granted: Option<Granted> = serde_json::from_slice(&bytes).ok();
        granted
            .and_then(|granted| granted.token.or(granted.access_token))
            .filter(|token| !token.is_empty())
            .ok_or_else(|| wrong("gives no token"))
    }

    /// Where tokens come from. Over TLS, from this machine to this machine, or for anybody from a registry that is
    /// spoken to without TLS itself.
    fn realm(&self, challenge: &Challenge, login: Option<&Login>, what: &str) -> Result<Uri> {
        let refuse = |why: &str| {
            let message = format!("{what}: {} names a token server {why}", self.endpoint.host);
            Error::new(Category::Permission, Stage::Image, message)
        };
        let realm = challenge.get("realm").unwrap_or_default();
        let uri: Uri = realm.parse().map_err(|_| refuse("that is no URL"))?;
        let host = uri.host().unwrap_or_default();
        let userinfo = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if host.is_empty() || userinfo || !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(refuse("that is no URL"));
        }
        let here = is_loopback(&self.endpoint.host) && is_loopback(host);
        let may_be_plain = self.endpoint.scheme == Scheme::Plain && (here || login.is_none());
        if is_plain(&uri) && !may_be_plain {
            return Err(refuse("that is asked without TLS"));
        }
        Ok(uri)
    }

    fn denied(&self, status: u16, words: &str, host: &str, what: &str) -> Error {
        let words = if words.is_empty() { String::new() } else { format!(": {words}") };
        let message = format!("{what}: the token server {host} answers {status}{words}");
        match status {
            400 | 401 | 403 => {
                Error::new(Category::Permission, Stage::Image, message).hint(self.advice())
            }
            429 => Error::new(Category::Resource, Stage::Image, message),
            _ => Error::new(Category::System, Stage::Image, message),
        }
    }
}

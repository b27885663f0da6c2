//! Who asks: the credentials that podman's and Docker's files have for a registry (containers-auth.json(5)).
//! Secrets appear in no message.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde_json::{Map, Value};

use super::file;
use super::helper;
use super::socket::Patience;
use crate::Result;

/// What is shown to a registry or to its token server.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Password {
        user: String,
        password: String,
    },
    /// With which a token server gives tokens.
    Identity(String),
    /// For the registry itself.
    Registry(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    /// A user without a name or with the one that Docker's helpers give has a token.
    pub(super) fn new(user: &str, secret: &str) -> Login {
        match user {
            "" | "<token>" => Login::Identity(secret.to_owned()),
            _ => Login::Password { user: user.to_owned(), password: secret.to_owned() },
        }
    }
}

/// Looks credentials up for a repository of a registry; `None` if there are none. The first file that has
/// some counts.
pub(super) fn find(
    auth_file: Option<&Path>,
    registry: &str,
    repository: &str,
    patience: &Patience,
) -> Result<Option<Login>> {
    let places = Places::of_process(auth_file);
    for path in places.optional() {
        if let Some(bytes) = file::read_if_there(&path, WHAT)? {
            if let Some(login) = find_in(&path, &bytes, registry, repository, patience)? {
                return Ok(Some(login));
            }
        }
    }
    match places.given {
        Some(path) => find_in(&path, &file::read(&path, WHAT)?, registry, repository, patience),
        None => Ok(None),
    }
}

const WHAT: &str = "the file of credentials";

#[derive(Default)]
struct Places {
    /// The only place if somebody names one.
    given: Option<PathBuf>,
    runtime: Option<PathBuf>,
    home: Option<PathBuf>,
    docker: Option<PathBuf>,
}

impl Places {
    fn of_process(auth_file: Option<&Path>) -> Places {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let path = |name| var(name).map(PathBuf::from);
        let given = auth_file.map(Path::to_owned).or_else(|| path("REGISTRY_AUTH_FILE"));
        if given.is_some() {
            return Places { given, ..Places::default() };
        }
        let root = nix::unistd::geteuid().is_root().then(|| PathBuf::from("/run"));
        let runtime = match root {
            Some(run) => path("XDG_RUNTIME_DIR").or(Some(run)),
            None => path("XDG_RUNTIME_DIR"),
        };
        Places { given, runtime, home: path("HOME"), docker: path("DOCKER_CONFIG") }
    }

    fn optional(&self) -> Vec<PathBuf> {
        let mut places = Vec::new();
        if self.given.is_some() {
            return places;
        }
        if let Some(run) = &self.runtime {
            places.push(run.join("containers/auth.json"));
        }
        if nix::unistd::geteuid().is_root() {
            places.push(PathBuf::from("/run/containers/0/auth.json"));
        }
        if let Some(home) = &self.home {
            places.push(home.join(".config/containers/auth.json"));
        }
        match (&self.docker, &self.home) {
            (Some(docker), _) => places.push(docker.join("config.json")),
            (None, Some(home)) => places.push(home.join(".docker/config.json")),
            (None, None) => {}
        }
        places
    }
}

fn find_in(
    path: &Path,
    bytes: &[u8],
    registry: &str,
    repository: &str,
    patience: &Patience,
) -> Result<Option<Login>> {
    // Read as values, because errors of types would quote what is there instead.
    let document: Value = serde_json::from_slice(bytes)
        .map_err(|error| file::wrong(path, format!("not JSON: {error}")))?;
    let document = object(path, "the file", &document)?;
    let auths = match document.get("auths") {
        None | Some(Value::Null) => &Map::new(),
        Some(auths) => object(path, "auths", auths)?,
    };
    let wanted = candidates(registry, repository);

    if let Some(helpers) = document.get("credHelpers").filter(|value| !value.is_null()) {
        for (key, name) in object(path, "credHelpers", helpers)? {
            if plain(key) == registry {
                let name = string(path, &format!("credHelpers.{key}"), name)?;
                return helper::ask(path, name, &server(registry), patience);
            }
        }
    }
    let entry =
        wanted.iter().find_map(|wanted| auths.iter().find(|(key, _)| plain(key) == *wanted));
    if let Some((key, entry)) = entry {
        let field = format!("auths.{key}");
        if let Some(login) = login_of(path, &field, object(path, &field, entry)?)? {
            return Ok(Some(login));
        }
    }
    match document.get("credsStore").filter(|value| !value.is_null()) {
        Some(name) => {
            let name = string(path, "credsStore", name)?;
            if name.is_empty() {
                return Ok(None);
            }
            helper::ask(path, name, &server(registry), patience)
        }
        None => Ok(None),
    }
}

fn login_of(path: &Path, field: &str, entry: &Map<String, Value>) -> Result<Option<Login>> {
    let text = |name: &str| -> Result<Option<&str>> {
        let value = entry.get(name).filter(|value| !value.is_null());
        let text =
            value.map(|value| string(path, &format!("{field}.{name}"), value)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    };
    if let Some(token) = text("identitytoken")? {
        return Ok(Some(Login::Identity(token.to_owned())));
    }
    if let Some(token) = text("registrytoken")? {
        return Ok(Some(Login::Registry(token.to_owned())));
    }
    if let Some(auth) = text("auth")? {
        let wrong = |what| file::wrong(path, format!("{field}.auth {what}"));
        let auth = auth.trim_end_matches('=');
        let bytes = STANDARD_NO_PAD.decode(auth).map_err(|_| wrong("is no base64"))?;
        let pair = String::from_utf8(bytes).map_err(|_| wrong("has no text in it"))?;
        let pair = pair.trim_end_matches('\0');
        let Some((user, password)) = pair.split_once(':') else {
            return Err(wrong("has no USER:PASSWORD in it"));
        };
        return Ok(Some(Login::new(user, password)));
    }
    match (text("username")?, text("password")?) {
        (Some(user), Some(password)) => Ok(Some(Login::new(user, password))),
        _ => Ok(None),
    }
}

/// Keys under which credentials for a repository may stand, the narrowest first.
fn candidates(registry: &str, repository: &str) -> Vec<String> {
    let mut name = format!("{registry}/{repository}");
    let mut all = vec![name.clone()];
    while name.len() > registry.len() {
        let Some(end) = name.rfind('/') else { break };
        name.truncate(end);
        all.push(name.clone());
    }
    all
}

/// A key as it would be written today: Docker's have a scheme, or the path of a version of the API.
fn plain(key: &str) -> String {
    let name = match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(url) => url.split('/').next().unwrap_or(url),
        None => {
            let key = key.trim_end_matches('/');
            key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
        }
    };
    let (host, rest) = name.split_at(name.find('/').unwrap_or(name.len()));
    match host {
        "index.docker.io" | "registry-1.docker.io" => format!("docker.io{rest}"),
        _ => name.to_owned(),
    }
}

/// The name of a registry as helpers keep it.
fn server(registry: &str) -> String {
    match registry {
        "docker.io" => "https://index.docker.io/v1/".to_owned(),
        _ => registry.to_owned(),
    }
}

fn object<'a>(path: &Path, field: &str, value: &'a Value) -> Result<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| file::wrong(path, format!("{field} is no object")))
}

fn string<'a>(path: &Path, field: &str, value: &'a Value) -> Result<&'a str> {
    value.as_str().ok_or_else(|| file::wrong(path, format!("{field} is no string")))
}

/// `USER:PASSWORD` for a header.
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Category;

    fn lookup(json: &str, registry: &str, repository: &str) -> Result<Option<Login>> {
        let path = Path::new("/x/auth.json");
        find_in(path, json.as_bytes(), registry, repository, &Patience::default())
    }

    fn password(user: &str, password: &str) -> Option<Login> {
        Some(Login::Password { user: user.into(), password: password.into() })
    }

    #[test]
    fn the_narrowest_key_counts() {
        // a:1, b:2, c:3
        let json = r#"{"auths": {"r.example": {"auth": "YTox"}, "r.example/team": {"auth": "Yjoy"},
            "r.example/team/app": {"auth": "Yzoz"}, "r.example/te": {}}}"#;
        for (repository, expected) in [
            ("other", password("a", "1")),
            ("team/other", password("b", "2")),
            ("team/app", password("c", "3")),
            ("team/app/part", password("c", "3")),
            ("teams", password("a", "1")),
        ] {
            assert_eq!(lookup(json, "r.example", repository).unwrap(), expected, "{repository}");
        }
        assert_eq!(lookup(json, "r.example:5000", "team").unwrap(), None);
    }

    #[test]
    fn keys_may_be_written_as_docker_does() {
        for key in [
            "https://index.docker.io/v1/",
            "index.docker.io/v1/",
            "docker.io",
            "index.docker.io",
            "https://registry-1.docker.io",
        ] {
            let json = format!(r#"{{"auths": {{"{key}": {{"auth": "YTox"}}}}}}"#);
            let found = lookup(&json, "docker.io", "library/alpine").unwrap();
            assert_eq!(found, password("a", "1"), "{key}");
            assert_eq!(lookup(&json, "r.example", "library/alpine").unwrap(), None);
        }
    }

    #[test]
    fn every_form_of_an_entry_is_understood() {
        for (entry, expected) in [
            (r#"{"auth": "YTox"}"#, password("a", "1")),
            (r#"{"auth": "YTo6OjE="}"#, password("a", "::1")),
            (r#"{"username": "a", "password": "1"}"#, password("a", "1")),
            (r#"{"auth": "YTox", "identitytoken": "t"}"#, Some(Login::Identity("t".into()))),
            (r#"{"registrytoken": "t"}"#, Some(Login::Registry("t".into()))),
            (r#"{"auth": "OnQ="}"#, Some(Login::Identity("t".into()))),
            (r#"{"auth": ""}"#, None),
            ("{}", None),
        ] {
            let json = format!(r#"{{"auths": {{"r": {entry}}}, "credsStore": ""}}"#);
            assert_eq!(lookup(&json, "r", "a").unwrap(), expected, "{entry}");
        }
        assert_eq!(lookup("{}", "r", "a").unwrap(), None);
    }

    #[test]
    fn a_wrong_file_is_named_with_the_field_and_without_its_secrets() {
        for (json, field) in [
            (r#"{"auths": {"r": {"auth": ["geheim"]}}}"#, "auths.r.auth"),
            (r#"{"auths": {"r": {"auth": "geheim!"}}}"#, "auths.r.auth"),
            (r#"{"auths": {"r": {"auth": "Z2VoZWlt"}}}"#, "auths.r.auth"),
            (r#"{"auths": {"r": "geheim"}}"#, "auths.r"),
            (r#"{"auths": "geheim"}"#, "auths"),
            (r#"{"credHelpers": {"r": {"geheim": 1}}}"#, "credHelpers.r"),
            (r#"{"credsStore": ["geheim"]}"#, "credsStore"),
            (r#""geheim""#, "the file"),
            (r#"{"geheim"#, "not JSON"),
        ] {
            let error = lookup(json, "r", "a").unwrap_err();
            let text = error.to_string();
            assert_eq!(error.category(), Category::Spec, "{json}");
            assert!(text.starts_with("/x/auth.json: ") && text.contains(field), "{text}");
            assert!(!text.contains("geheim"), "{text}");
        }
        assert_eq!(format!("{:?}", password("user", "geheim")), "Some(Login)");
    }
}

//! Who asks, and who gets to know it.

use super::server::{Asked, Reply, Server};
use super::*;

const PULL: &str = "repository:team/app:pull";
const PUSH: &str = "repository:team/app:pull,push";

fn bearer(realm: &str, scope: &str) -> Reply {
    let value = format!("Bearer realm=\"{realm}\",service=\"s x\",scope=\"{scope}\"");
    Reply::new(401).with("WWW-Authenticate", value)
}

/// Gives tokens that say what they are good for.
fn token_server() -> Server {
    Server::new(|asked: &Asked| {
        let good = if asked.target.contains("push") { "push" } else { "pull" };
        Reply::ok(format!(r#"{{"token": "T-{good}"}}"#).as_bytes())
    })
}

fn registry(
    realm: String,
    scope: impl Fn(&Asked) -> (&'static str, bool) + Send + Sync + 'static,
) -> Server {
    Server::new(move |asked: &Asked| {
        let (scope, allowed) = scope(asked);
        match allowed {
            false => bearer(&realm, scope),
            true if asked.method == "POST" => Reply::new(202).with("Location", "/up"),
            true if asked.method == "PUT" => Reply::new(201),
            true => Reply::ok(MANIFEST),
        }
    })
}

#[test]
fn a_token_is_fetched_once_and_again_when_more_is_asked_for() {
    let tokens = token_server();
    let realm = format!("http://{}/token?x=y", tokens.host());
    let server = registry(realm, |asked| match asked.method.as_str() {
        "GET" | "HEAD" => (PULL, asked.header("authorization").starts_with("Bearer T-")),
        _ => (PUSH, asked.header("authorization") == "Bearer T-push"),
    });
    let setup = Setup::new().credentials("user", "geheim");
    let mut client = setup.client(&server.host());
    client.manifest("latest", &mut guide()).unwrap();
    client.manifest("latest", &mut guide()).unwrap();
    assert_eq!(tokens.asked().len(), 1);
    let asked = &tokens.asked()[0];
    assert!(asked.is("GET", "/token?x=y&service=s%20x&scope=repository%3Ateam%2Fapp%3Apull"));
    assert_eq!(asked.header("authorization"), "Basic dXNlcjpnZWhlaW0=");

    client.put_manifest("latest", "application/json", MANIFEST, &mut guide()).unwrap();
    client.manifest("latest", &mut guide()).unwrap();
    assert_eq!(tokens.asked().len(), 2);
    let both = &tokens.asked()[1].target;
    assert!(both.contains("app%3Apull&scope=repository%3Ateam%2Fapp%3Apull%2Cpush"), "{both}");
    for asked in server.asked() {
        assert!(!asked.header("authorization").contains("Basic"), "{asked:?}");
    }
}

#[test]
fn who_will_push_asks_for_that_at_once() {
    let tokens = token_server();
    let server = registry(format!("http://{}/", tokens.host()), |asked| {
        (PULL, asked.header("authorization") == "Bearer T-push")
    });
    let setup = Setup::new();
    let mut client = setup.client(&server.host());
    client.expect_to_push();
    client.has_blob(&digest::sha256(b""), &mut guide()).unwrap();
    client.put_manifest("latest", "application/json", MANIFEST, &mut guide()).unwrap();
    assert_eq!(tokens.asked().len(), 1);
}

#[test]
fn what_is_plain_itself_may_name_a_plain_token_server_to_nobody() {
    let tokens = token_server();
    // Another name for this machine, which does not count as it.
    let realm = format!("http://{}/", tokens.host().replace("127.0.0.1", "0.0.0.0"));
    let server = registry(realm, |asked| (PULL, !asked.header("authorization").is_empty()));
    let setup = Setup::new();
    setup.client(&server.host()).manifest("latest", &mut guide()).unwrap();
    let setup = Setup::new().credentials("user", "geheim");
    let error = setup.client(&server.host()).manifest("latest", &mut guide()).unwrap_err();
    assert_eq!(error.category(), Category::Permission, "{error}");
    assert_eq!(tokens.asked().len(), 1);
}

#[test]
fn without_credentials_an_anonymous_token_is_asked_for() {
    let tokens = token_server();
    let server = registry(format!("http://{}/", tokens.host()), |asked| {
        (PULL, !asked.header("authorization").is_empty())
    });
    let setup = Setup::new();
    setup.client(&server.host()).manifest("latest", &mut guide()).unwrap();
    assert_eq!(tokens.asked()[0].header("authorization"), "");
}

#[test]
fn an_identity_token_is_posted() {
    let tokens = Server::new(|_: &Asked| Reply::ok(br#"{"access_token": "T"}"#));
    let server = registry(format!("http://{}/", tokens.host()), |asked| {
        (PULL, asked.header("authorization") == "Bearer T")
    });
    let setup = Setup::new();
    let auths = format!(r#"{{"auths": {{"{}": {{"identitytoken": "i&d"}}}}}}"#, server.host());
    setup.folder.write("auth.json", &auths);
    setup.client(&server.host()).manifest("latest", &mut guide()).unwrap();
    let asked = &tokens.asked()[0];
    assert_eq!(asked.method, "POST");
    assert_eq!(
        String::from_utf8_lossy(&asked.body),
        "grant_type=refresh_token&client_id=locule&service=s%20x\
         &scope=repository%3Ateam%2Fapp%3Apull&refresh_token=i%26d"
    );
}

#[test]
fn basic_authentication_is_used_where_no_token_is_wanted() {
    let server = Server::new(|asked: &Asked| match asked.header("authorization") {
        "Basic dXNlcjpnZWhlaW0=" => Reply::ok(MANIFEST),
        _ => Reply::new(401)
            .with("WWW-Authenticate", "Negotiate, Basic realm=\"r\"")
            .body(r#"{"errors": [{"code": "UNAUTHORIZED", "message": "log in"}]}"#),
    });
    let setup = Setup::new().credentials("user", "geheim");
    let mut client = setup.client(&server.host());
    client.manifest("latest", &mut guide()).unwrap();
    client.manifest("latest", &mut guide()).unwrap();
    assert_eq!(server.asked().len(), 3);

    let error = Setup::new().client(&server.host()).manifest("latest", &mut guide()).unwrap_err();
    assert_eq!(error.category(), Category::Permission);
    let host = server.host();
    let expected = format!("manifest latest: {host} answers 401: UNAUTHORIZED: log in");
    assert_eq!(error.to_string(), expected);
    assert!(error.advice().unwrap().contains("podman login"));

    let wrong = Setup::new().credentials("user", "falsch");
    let error = wrong.client(&server.host()).manifest("latest", &mut guide()).unwrap_err();
    assert!(error.advice().unwrap().starts_with("are the credentials"));
    assert!(!format!("{error:?}").contains("falsch"));
    assert!(!format!("{:?}", wrong.options).contains("falsch"));
}

#[test]
fn a_token_server_that_refuses_is_named() {
    let tokens = Server::new(|_: &Asked| {
        Reply::new(401).body(r#"{"details": "incorrect username or password"}"#)
    });
    let server = registry(format!("http://{}/", tokens.host()), |_| (PULL, false));
    let setup = Setup::new().credentials("user", "geheim");
    let error = setup.client(&server.host()).manifest("latest", &mut guide()).unwrap_err();
    assert_eq!(error.category(), Category::Permission);
    let end = "the token server 127.0.0.1 answers 401: incorrect username or password";
    assert!(error.to_string().ends_with(end), "{error}");
    assert!(!format!("{error:?}").contains("geheim"));
}

#[test]
fn credentials_go_to_no_token_server_without_tls_elsewhere() {
    for realm in ["http://token.example/", "ftp://127.0.0.1/", "http://u:p@127.0.0.1/", "/token"] {
        let server = registry(realm.to_owned(), |_| (PULL, false));
        let setup = Setup::new().credentials("user", "geheim");
        let error = setup.client(&server.host()).manifest("latest", &mut guide()).unwrap_err();
        assert_eq!(error.category(), Category::Permission, "{realm}");
        assert!(error.to_string().contains("names a token server that is"), "{error}");
    }
}

#[test]
fn a_token_server_is_followed_nowhere() {
    let thief = Server::new(|_: &Asked| Reply::ok(br#"{"token": "T"}"#));
    let target = format!("http://{}/", thief.host());
    let tokens = Server::new(move |_: &Asked| Reply::new(307).with("Location", target.clone()));
    let server = registry(format!("http://{}/", tokens.host()), |_| (PULL, false));
    let setup = Setup::new().credentials("user", "geheim");
    let error = setup.client(&server.host()).manifest("latest", &mut guide()).unwrap_err();
    assert!(error.to_string().ends_with("answers 307"), "{error}");
    assert!(thief.asked().is_empty());
}

#[test]
fn a_redirect_takes_no_credentials_along() {
    let storage = Server::new(|_: &Asked| Reply::ok(b"hello"));
    let target = format!("http://{}/bucket?signature=geheim", storage.host());
    let server = Server::new(move |asked: &Asked| match asked.header("authorization") {
        "" => Reply::new(401).with("WWW-Authenticate", "Basic realm=r"),
        _ if asked.target.contains("blobs") => Reply::new(307).with("Location", target.clone()),
        _ => Reply::new(307).with("Location", "/elsewhere/blobs"),
    });
    let setup = Setup::new().credentials("user", "geheim");
    let mut client = setup.client(&server.host());
    let digest = digest::sha256(b"hello");
    assert_eq!(blob_of(&mut client, &digest, 0).unwrap().unwrap(), b"hello");
    assert!(client.has_blob(&digest, &mut guide()).unwrap());
    // Over the same host to another.
    client.manifest("latest", &mut guide()).unwrap();
    assert_eq!(storage.asked().len(), 3);
    for asked in storage.asked() {
        assert_eq!(asked.header("authorization"), "", "{asked:?}");
    }
    assert!(server.asked().iter().skip(1).all(|asked| !asked.header("authorization").is_empty()));
}

#[test]
fn what_another_host_asks_for_is_not_given() {
    let storage =
        Server::new(|_: &Asked| Reply::new(401).with("WWW-Authenticate", "Basic realm=r"));
    let target = format!("http://{}/", storage.host());
    let server = Server::new(move |_: &Asked| Reply::new(302).with("Location", target.clone()));
    let setup = Setup::new().credentials("user", "geheim");
    let mut client = setup.client(&server.host());
    let error = blob_of(&mut client, &digest::sha256(b""), 0).unwrap_err();
    assert_eq!(error.category(), Category::Permission);
    assert!(error.to_string().contains(&storage.host()), "{error}");
    assert_eq!(storage.asked().len(), 1);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn redirects_end() {
    let server =
        Server::new(|asked: &Asked| Reply::new(302).with("Location", format!("{}x", asked.target)));
    let setup = Setup::new();
    let error = setup.client(&server.host()).manifest("latest", &mut guide()).unwrap_err();
    assert!(error.to_string().contains("too many redirects"), "{error}");
    assert_eq!(server.asked().len(), 6);
}

//! Mirrors and policy.

use super::server::{Asked, Reply, Server};
use super::*;

const BLOB: &[u8] = b"hello";

fn good() -> Server {
    Server::new(|asked: &Asked| match asked.target.contains("/blobs/") {
        true => Reply::ok(BLOB),
        false => Reply::ok(MANIFEST),
    })
}

fn mirrored(registry: &Server, mirrors: &[String]) -> (Setup, Client) {
    let mirrors = mirrors.join(r#"", ""#);
    let json =
        format!(r#"{{"registries": {{"{}": {{"mirrors": ["{mirrors}"]}}}}}}"#, registry.host());
    let setup = Setup::new().registries(&json).credentials("user", "geheim");
    let client = setup.client(&registry.host());
    (setup, client)
}

#[test]
fn mirrors_come_before_the_registry_in_their_order() {
    let (bad, mirror, registry) = (Server::new(|_: &Asked| Reply::new(404)), good(), good());
    let (_setup, mut client) =
        mirrored(&registry, &[bad.host(), format!("http://{}/cache/", mirror.host())]);
    client.manifest("latest", &mut guide()).unwrap();
    let digest = digest::sha256(BLOB);
    assert_eq!(blob_of(&mut client, &digest, 0).unwrap().unwrap(), BLOB);
    assert_eq!(bad.asked().len(), 2);
    assert_eq!(
        mirror.lines(),
        [
            "GET /v2/cache/team/app/manifests/latest".to_owned(),
            format!("GET /v2/cache/team/app/blobs/{digest}"),
        ]
    );
    assert!(registry.asked().is_empty());
}

#[test]
fn what_a_mirror_lies_about_comes_from_the_registry() {
    let (mirror, registry) = (Server::new(|_: &Asked| Reply::ok(b"lies")), good());
    let (_setup, mut client) = mirrored(&registry, &[mirror.host()]);
    let digest = digest::sha256(MANIFEST).to_string();
    assert_eq!(client.manifest(&digest, &mut guide()).unwrap().bytes, MANIFEST);
    let digest = digest::sha256(BLOB);
    assert_eq!(blob_of(&mut client, &digest, 0).unwrap().unwrap(), b"lies");
    // The caller has found it wrong.
    assert!(client.pass_over(&digest));
    assert_eq!(blob_of(&mut client, &digest, 0).unwrap().unwrap(), BLOB);
    assert!(!client.pass_over(&digest));
}

#[test]
fn what_a_mirror_has_less_of_comes_from_the_registry() {
    let mirror = Server::new(|asked: &Asked| match asked.header("range") {
        "" => Reply::ok(&BLOB[..3]),
        _ => Reply::new(416),
    });
    let registry = good();
    let (_setup, mut client) = mirrored(&registry, &[mirror.host()]);
    let digest = digest::sha256(BLOB);
    assert_eq!(blob_of(&mut client, &digest, 0).unwrap().unwrap(), &BLOB[..3]);
    assert!(blob_of(&mut client, &digest, 3).unwrap().is_none());
    assert_eq!(blob_of(&mut client, &digest, 0).unwrap().unwrap(), BLOB);
    assert_eq!((mirror.asked().len(), registry.asked().len()), (2, 1));
}

#[test]
fn the_registry_has_the_last_word_and_gets_what_is_pushed() {
    let mirror = Server::new(|_: &Asked| Reply::new(403));
    let registry = Server::new(|asked: &Asked| match asked.method.as_str() {
        "PUT" => Reply::new(201),
        _ => Reply::new(404),
    });
    let (_setup, mut client) = mirrored(&registry, &[mirror.host()]);
    let error = client.manifest("latest", &mut guide()).unwrap_err();
    assert_eq!(error.category(), Category::NotFound);
    client.put_manifest("latest", "a/b", MANIFEST, &mut guide()).unwrap();
    assert!(!client.has_blob(&digest::sha256(b""), &mut guide()).unwrap());
    assert_eq!(mirror.lines(), ["GET /v2/team/app/manifests/latest"]);
}

#[test]
fn a_mirror_gets_its_own_credentials_only() {
    let wants = |asked: &Asked| match asked.header("authorization") {
        "Basic bTpwdw==" => Reply::ok(MANIFEST),
        _ => Reply::new(401).with("WWW-Authenticate", "Basic realm=r"),
    };
    let (first, second, registry) = (Server::new(wants), Server::new(wants), good());
    let (setup, mut client) = mirrored(&registry, &[first.host(), second.host()]);
    let auths = format!(r#"{{"auths": {{"{}": {{"auth": "bTpwdw=="}}}}}}"#, second.host());
    setup.folder.write("auth.json", &auths);
    client.manifest("latest", &mut guide()).unwrap();
    assert_eq!(first.asked().len(), 1);
    assert_eq!(second.asked().len(), 2);
    assert!(registry.asked().is_empty());
}

#[test]
fn a_blocked_registry_is_not_asked() {
    let server = good();
    let host = server.host();
    for json in [
        format!(r#"{{"registries": {{"{host}": {{"blocked": true}}}}}}"#),
        r#"{"default": {"blocked": true}}"#.to_owned(),
    ] {
        let setup = Setup::new().registries(&json);
        let error = setup.try_client(&host).err().unwrap();
        assert_eq!(error.category(), Category::Permission);
        let file = setup.options.registries_file.as_ref().unwrap().display().to_string();
        assert!(error.to_string().contains(&file), "{error}");
    }
    let json = format!(r#"{{"registries": {{"{host}": {{}}}}, "default": {{"blocked": true}}}}"#);
    Setup::new().registries(&json).client(&host).manifest("latest", &mut guide()).unwrap();
}

#[test]
fn a_registry_is_the_same_however_it_is_written() {
    let json = r#"{"registries": {
        "Bad.example.com": {"blocked": true},
        "docker.io": {"blocked": true},
        "plain.example.com": {"plainHttp": true, "blocked": true},
        "[2001:DB8::1]:443": {"blocked": true},
        "fine.example.com:80": {"blocked": true}
    }}"#;
    let setup = Setup::new().registries(json);
    for host in [
        "bad.example.com",
        "BAD.example.com:443",
        "bad.example.com:0443",
        "registry-1.docker.io",
        "Index.Docker.io:443",
        "plain.example.com:80",
        "[2001:db8::1]",
        "fine.example.com:080",
    ] {
        let error = setup.try_client(host).err().expect(host);
        assert_eq!(error.category(), Category::Permission, "{host}: {error}");
    }
    for host in ["bad.example.com:80", "bad.example.com:5000", "fine.example.com"] {
        setup.client(host);
    }
    for (one, other) in [
        ("r.example", "R.example:443"),
        ("docker.io", "index.docker.io"),
        ("r.example:80", "r.example:080"),
    ] {
        let json = format!(r#"{{"registries": {{"{one}": {{}}, "{other}": {{}}}}}}"#);
        let error = Setup::new().registries(&json).try_client("x.example").err().unwrap();
        assert_eq!(error.category(), Category::Spec);
        let text = error.to_string();
        assert!(text.contains(one) && text.contains(other), "{text}");
    }
}

#[test]
fn a_wrong_policy_is_an_error_that_names_the_file() {
    for json in [
        "{",
        r#"{"registry": {}}"#,
        r#"{"registries": {"r.example": {"mirror": []}}}"#,
        r#"{"registries": {"r.example": {"mirrors": ["ftp://m.example"]}}}"#,
        r#"{"registries": {"r.example": {"mirrors": [""]}}}"#,
        r#"{"registries": {"r.example": {"mirrors": ["u:p@m.example"]}}}"#,
        r#"{"registries": {"r.example": {"mirrors": ["m example"]}}}"#,
    ] {
        let setup = Setup::new().registries(json);
        let error = setup.try_client("r.example").err().expect(json);
        assert_eq!(error.category(), Category::Spec, "{json}: {error}");
        assert!(error.to_string().contains("registries.json"), "{error}");
    }
    let mut setup = Setup::new();
    setup.options.registries_file = Some(setup.folder.0.join("none.json"));
    assert_eq!(setup.try_client("r.example").err().unwrap().category(), Category::NotFound);
}

#[test]
fn only_what_is_here_or_allowed_is_spoken_to_without_tls() {
    let plain = r#"{"registries": {"r.example": {"plainHttp": true}}}"#;
    let setup = Setup::new().registries(plain);
    let start = |host: &str| {
        let client = setup.client(host);
        client.sources[0].endpoint.uri("x").unwrap().to_string()
    };
    assert_eq!(start("r.example"), "http://r.example/v2/team/app/x");
    assert_eq!(start("s.example"), "https://s.example/v2/team/app/x");
    assert_eq!(start("docker.io"), "https://registry-1.docker.io/v2/team/app/x");
    assert_eq!(start("localhost:5000"), "https://localhost:5000/v2/team/app/x");
    // And then nobody learns who asks.
    assert!(!setup.client("r.example").sources[0].endpoint.is_private());
    assert!(setup.client("s.example").sources[0].endpoint.is_private());
}

//! TLS, with a certificate made for the test.

use std::process::Command;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::server::{Asked, Reply, Server, Stream};
use super::*;

/// A server whose certificate is signed by `ca.pem` in the folder; `None` without openssl.
fn server(folder: &Folder) -> Option<Server> {
    let script = "set -e; exec 2>/dev/null
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -subj /CN=test -keyout ca.key -out ca.pem
        openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
            -subj /CN=localhost -keyout key.pem -out request.pem
        printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' >extensions
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile extensions -out certificate.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(&folder.0).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: openssl");
        return None;
    }
    let chain = CertificateDer::pem_file_iter(folder.0.join("certificate.pem")).unwrap();
    let chain: Vec<_> = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.0.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let wrap = move |stream| -> Box<dyn Stream> {
        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
        Box::new(rustls::StreamOwned::new(connection, stream))
    };
    let answer = |asked: &Asked| match asked.header("authorization") {
        "" => Reply::new(401).with("WWW-Authenticate", "Basic realm=r"),
        _ => Reply::ok(MANIFEST),
    };
    Some(Server::start(Box::new(answer), Some(Box::new(wrap))))
}

fn named(server: &Server) -> String {
    server.host().replace("127.0.0.1", "localhost")
}

#[test]
fn a_certificate_that_is_named_is_trusted() {
    let folder = Folder::new("tls");
    let Some(server) = server(&folder) else { return };
    let host = named(&server);
    let ca = folder.0.join("ca.pem");
    let mut setup = Setup::new().credentials("user", "geheim");
    setup.options.ca_file = Some(ca.clone());
    setup.client(&host).manifest("latest", &mut guide()).unwrap();

    let json =
        format!(r#"{{"registries": {{"{host}": {{"ca": {:?}}}}}}}"#, ca.display().to_string());
    let setup = Setup::new().registries(&json).credentials("user", "geheim");
    setup.client(&host).manifest("latest", &mut guide()).unwrap();
}

#[test]
fn a_certificate_that_nobody_knows_is_not_replaced_by_plain_http() {
    let folder = Folder::new("tls");
    let Some(server) = server(&folder) else { return };
    let setup = Setup::new().credentials("user", "geheim");
    let error = setup.client(&named(&server)).manifest("latest", &mut guide()).unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert!(error.advice().unwrap().contains("ca_file"));
    assert!(server.asked().is_empty());

    // The right one for another name.
    let mut setup = Setup::new().credentials("user", "geheim");
    setup.options.ca_file = Some(folder.0.join("ca.pem"));
    let error = setup.client(&server.host()).manifest("latest", &mut guide()).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(server.asked().is_empty());
}

#[test]
fn a_file_without_certificates_is_an_error() {
    let mut setup = Setup::new();
    for text in [
        "",
        "x",
        "-----BEGIN CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ] {
        setup.options.ca_file = Some(setup.folder.write("ca.pem", text));
        let error = setup.try_client("r.example").err().expect(text);
        assert_eq!(error.category(), Category::Spec, "{text}");
        assert!(ureq::tls::parse_pem(text.as_bytes()).count() < 2, "{text}");
        assert!(error.to_string().contains("ca.pem"), "{error}");
    }
}

//! Which certificates are trusted: the system's, and those that the caller and the policy add.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::file;
use crate::Result;

/// Where distributions have all certificates in one file.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reads the system's certificates and those of `more`, of which each file must have one.
pub(super) fn config(more: &[&Path]) -> Result<TlsConfig> {
    let mut trusted = system()?;
    for path in more {
        let bytes = file::read(path, "the certificates")?;
        let before = trusted.len();
        for item in parse_pem(&bytes) {
            match item {
                Ok(PemItem::Certificate(certificate)) => trusted.push(certificate),
                Ok(_) => {}
                Err(_) => return Err(file::wrong(path, "not PEM")),
            }
        }
        if trusted.len() == before {
            return Err(file::wrong(path, "no certificate is in it"));
        }
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(trusted)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

/// A machine without any trusts what is added.
fn system() -> Result<Vec<Certificate<'static>>> {
    let given = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
    let given = given.map(PathBuf::from);
    let places = match &given {
        Some(path) => vec![path.as_path()],
        None => BUNDLES.map(Path::new).to_vec(),
    };
    for path in places {
        if let Some(bytes) = file::read_if_there(path, "the certificates")? {
            // What one of a hundred certificates has wrong is not our business.
            return Ok(parse_pem(&bytes)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect());
        }
    }
    Ok(Vec::new())
}

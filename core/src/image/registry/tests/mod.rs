//! The client against servers on this machine that do what registries do, and what they should not.

mod auth;
mod debian;
mod server;
mod sources;
mod tls;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::*;
use crate::Cancel;
use crate::image::Transfer;

/// A folder that goes with the test.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("locule-registry-{}-{number}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn guide() -> Guide<'static> {
    Guide::new(Transfer { timeout: Some(Duration::from_secs(60)), ..Transfer::default() })
}

/// For `team/app` at a host, with files of its own in place of this machine's.
struct Setup {
    folder: Folder,
    options: RegistryOptions,
}

impl Setup {
    fn new() -> Setup {
        let folder = Folder::new("client");
        let options = RegistryOptions {
            auth_file: Some(folder.write("auth.json", "{}")),
            registries_file: Some(folder.write("registries.json", "{}")),
            ..RegistryOptions::default()
        };
        Setup { folder, options }
    }

    fn registries(self, json: &str) -> Setup {
        self.folder.write("registries.json", json);
        self
    }

    fn credentials(mut self, user: &str, password: &str) -> Setup {
        self.options.credentials = Some((user.into(), password.into()));
        self
    }

    fn client(&self, host: &str) -> Client {
        self.try_client(host).unwrap()
    }

    fn try_client(&self, host: &str) -> Result<Client> {
        let reference = crate::image::reference::parse(&format!("{host}/team/app")).unwrap();
        Client::new(&reference, &self.options)
    }
}

fn blob_of(client: &mut Client, digest: &Digest, from: u64) -> Result<Option<Vec<u8>>> {
    let Some(mut blob) = client.blob(digest, from, &mut guide())? else { return Ok(None) };
    let mut bytes = Vec::new();
    match blob.read_to_end(&mut bytes) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) => Err(digest::unwrap(error, || "read".to_owned())),
    }
}

const MANIFEST: &[u8] =
    br#"{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}"#;

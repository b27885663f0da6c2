//! Against a real registry: Debian's docker-registry.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::*;

struct Registry {
    child: Child,
    host: String,
    _folder: Folder,
}

impl Registry {
    /// `None` if there is none on this machine.
    fn start() -> Option<Registry> {
        let program = Path::new("/usr/bin/docker-registry");
        if !program.exists() {
            println!("skipped: docker-registry");
            return None;
        }
        let folder = Folder::new("docker-registry");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        drop(listener);
        let config = format!(
            "version: 0.1\nlog:\n  accesslog:\n    disabled: true\n  level: error\nstorage:\n  \
             filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            folder.0.join("data").display()
        );
        let config = folder.write("config.yml", &config);
        let child = Command::new(program)
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Registry { child, host, _folder: folder };
        while TcpStream::connect(&registry.host).is_err() {
            assert!(registry.child.try_wait().unwrap().is_none(), "docker-registry has ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_registry_takes_an_image_and_gives_it_back() {
    let Some(registry) = Registry::start() else { return };
    let setup = Setup::new();
    let mut client = setup.client(&registry.host);
    let error = client.manifest("v1", &mut guide()).unwrap_err();
    assert_eq!(error.category(), Category::NotFound);
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");

    let layer: Vec<u8> =
        (0..3_000_000u32).map(|number| (number.wrapping_mul(number) >> 7) as u8).collect();
    let config = b"{}".to_vec();
    let mut descriptors = Vec::new();
    for (bytes, kind) in [(&config, "config.v1+json"), (&layer, "layer.v1.tar")] {
        let digest = digest::sha256(bytes);
        let size = bytes.len() as u64;
        assert!(!client.has_blob(&digest, &mut guide()).unwrap());
        client.put_blob(&digest, size, || Ok(bytes.as_slice()), &mut guide()).unwrap();
        assert!(client.has_blob(&digest, &mut guide()).unwrap());
        assert_eq!(blob_of(&mut client, &digest, 0).unwrap().unwrap(), *bytes);
        descriptors.push(format!(
            r#"{{"mediaType": "application/vnd.oci.image.{kind}", "digest": "{digest}", "size": {size}}}"#
        ));
    }
    let digest = digest::sha256(&layer);
    let rest = blob_of(&mut client, &digest, 2_999_000).unwrap().unwrap();
    assert_eq!(rest, &layer[2_999_000..]);
    let wrong = digest::sha256(b"other");
    let error = client.put_blob(&wrong, 2, || Ok(config.as_slice()), &mut guide()).unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error}");

    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion": 2, "mediaType": "{kind}", "config": {}, "layers": [{}]}}"#,
        descriptors[0], descriptors[1]
    );
    client.put_manifest("v1", kind, manifest.as_bytes(), &mut guide()).unwrap();
    for reference in ["v1", digest::sha256(manifest.as_bytes()).as_ref()] {
        let fetched = client.manifest(reference, &mut guide()).unwrap();
        assert_eq!(
            (fetched.media_type.as_str(), fetched.bytes.as_slice()),
            (kind, manifest.as_bytes())
        );
    }
}

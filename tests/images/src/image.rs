//! Images made by hand, right or wrong.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The digest of bytes.
pub fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A layer.
#[derive(Clone)]
pub struct Layer {
    /// What the blob has.
    pub blob: Vec<u8>,
    /// The digest of what it is uncompressed.
    pub diff_id: String,
    /// Its media type.
    pub media_type: String,
}

impl Layer {
    /// Uncompressed.
    pub fn plain(tar: Vec<u8>) -> Layer {
        Layer::of(&tar, tar.clone(), "")
    }

    /// Compressed with gzip.
    pub fn gzip(tar: Vec<u8>) -> Layer {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar).expect("memory");
        Layer::of(&tar, encoder.finish().expect("memory"), "+gzip")
    }

    /// Compressed with zstd.
    pub fn zstd(tar: Vec<u8>) -> Layer {
        Layer::of(&tar, zstd::encode_all(tar.as_slice(), 1).expect("memory"), "+zstd")
    }

    fn of(tar: &[u8], blob: Vec<u8>, suffix: &str) -> Layer {
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        Layer { blob, diff_id: sha256(tar), media_type }
    }
}

/// An image configuration for these layers.
pub fn config_of(layers: &[Layer], config: Value) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
}

/// An image layout that is being written to a directory.
pub struct Layout {
    dir: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    /// An empty one.
    pub fn new(dir: &Path) -> Layout {
        fs::create_dir_all(dir.join("blobs/sha256")).expect("a directory for the layout");
        let layout = Layout { dir: dir.to_owned(), manifests: Vec::new() };
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
        layout.write();
        layout
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// The file of a blob.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.replace(':', "/"))
    }

    /// Adds a blob, and gives its descriptor.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = sha256(bytes);
        fs::write(self.blob_path(&digest), bytes).expect("write a blob");
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Adds a document, and gives its descriptor.
    pub fn document(&self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// Adds configuration, layers and manifest, and gives the manifest's descriptor.
    pub fn manifest(&self, layers: &[Layer], config: &Value) -> Value {
        let config = self.document("application/vnd.oci.image.config.v1+json", config);
        let layers: Vec<Value> =
            layers.iter().map(|layer| self.blob(&layer.media_type, &layer.blob)).collect();
        self.manifest_of(&json!({ "config": config, "layers": layers }))
    }

    /// Adds a manifest with these members, and gives its descriptor.
    pub fn manifest_of(&self, members: &Value) -> Value {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": media_type });
        for (name, value) in members.as_object().into_iter().flatten() {
            manifest[name] = value.clone();
        }
        self.document(media_type, &manifest)
    }

    /// Adds an image, under a name if there is one.
    pub fn image(&mut self, name: Option<&str>, layers: &[Layer], config: Value) -> Value {
        let manifest = self.manifest(layers, &config_of(layers, config));
        self.list(name, manifest.clone());
        manifest
    }

    /// Lists a descriptor in the index.
    pub fn list(&mut self, name: Option<&str>, mut descriptor: Value) {
        if let Some(name) = name {
            descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        }
        self.manifests.push(descriptor);
        self.write();
    }

    fn write(&self) {
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests });
        fs::write(self.dir.join("index.json"), index.to_string()).expect("write the index");
    }
}

/// The tar file of a directory that has files and directories only, as a layout has.
pub fn pack_directory(dir: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all(".", dir).expect("pack the directory");
    archive.into_inner().expect("memory")
}

/// What `docker save` wrote before it wrote layouts.
pub fn docker_archive(names: &[&str], layers: &[Layer], config: &Value) -> Vec<u8> {
    let mut archive = crate::TarFile::new();
    let config = config.to_string();
    let config_name = format!("{}.json", sha256(config.as_bytes()).trim_start_matches("sha256:"));
    let mut paths = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let path = format!("layer{index}/layer.tar");
        archive = archive.dir(&format!("layer{index}/"), 0o755).file(&path, &layer.blob);
        paths.push(path);
    }
    let list = json!([{ "Config": config_name, "RepoTags": names, "Layers": paths }]);
    archive.file(&config_name, config).file("manifest.json", list.to_string()).finish()
}

//! What an image consists of: its manifest and configuration, read and checked.

use oci_spec::image::{
    Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest, MediaType,
};
use serde::de::{Deserialize, Deserializer, IgnoredAny};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::digest;
use crate::{Category, Error, Result, Stage};

pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The most layers an image may have: more than overlayfs takes.
pub(super) const MOST_LAYERS: usize = 500;

/// The most entries a history may have.
const MOST_HISTORY: usize = 10_000;

/// What a manifest or index may be.
pub(super) enum Document {
    Index(Box<ImageIndex>),
    Manifest(Box<ImageManifest>),
}

/// Reads the document `bytes`, which is what `what` says, such as `manifest sha256:...`.
pub(super) fn parse<'d, T: Deserialize<'d>>(bytes: &'d [u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::new(Category::Spec, Stage::Image, format!("{what}: {error}")))
}

/// As [`parse`], of an object: serde reads a list, too, as the members in their order.
fn parse_object<'d, T: Deserialize<'d>>(bytes: &'d [u8], what: &str) -> Result<T> {
    let document: &RawValue = parse(bytes, what)?;
    if !is_object(document) {
        let message = format!("{what}: the document is no object");
        return Err(Error::new(Category::Spec, Stage::Image, message));
    }
    parse(bytes, what)
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// What a manifest or index looks like. A stranger's document is never read whole to a tree of values, which takes
/// a hundred times its size.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Look<'d> {
    #[serde(borrow)]
    schema_version: Option<&'d RawValue>,
    media_type: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    layers: bool,
    #[serde(default, deserialize_with = "is_there")]
    manifests: bool,
}

fn is_there<'d, D: Deserializer<'d>>(source: D) -> std::result::Result<bool, D::Error> {
    IgnoredAny::deserialize(source).map(|_| true)
}

/// Manifest or index, by its own media type, that of its descriptor, or what is in it.
pub(super) fn document(bytes: &[u8], media_type: &str, what: &str) -> Result<Document> {
    let look: Look<'_> = parse_object(bytes, what)?;
    let wrong = |why: &str| Error::new(Category::Spec, Stage::Image, format!("{what}: {why}"));
    let version = look.schema_version.map_or("", RawValue::get);
    if version == "1" {
        let message = format!("{what}: it is of Docker's schema 1");
        return Err(Error::new(Category::Unsupported, Stage::Image, message)
            .hint("push it again with a Docker of this decade"));
    }
    if version != "2" {
        return Err(wrong("schemaVersion is not 2"));
    }
    let own = look.media_type.as_deref().filter(|own| !own.is_empty());
    let index = ImageIndex::is(own.unwrap_or(media_type));
    let manifest = ImageManifest::is(own.unwrap_or(media_type));
    // A document that could be read both ways means different things to different tools.
    if look.layers && look.manifests {
        return Err(wrong("it has both layers and manifests"));
    }
    match (index, manifest) {
        (true, _) => Ok(Document::Index(Box::new(parse(bytes, what)?))),
        (_, true) => Ok(Document::Manifest(Box::new(parse(bytes, what)?))),
        _ if look.manifests => Ok(Document::Index(Box::new(parse(bytes, what)?))),
        _ if look.layers => Ok(Document::Manifest(Box::new(parse(bytes, what)?))),
        _ => Err(wrong(&format!("{:?} is no image", own.unwrap_or(media_type)))),
    }
}

trait Is {
    fn is(media_type: &str) -> bool;
}

impl Is for ImageIndex {
    fn is(media_type: &str) -> bool {
        media_type == MediaType::ImageIndex.as_ref() || media_type == DOCKER_INDEX
    }
}

impl Is for ImageManifest {
    fn is(media_type: &str) -> bool {
        media_type == MANIFEST || media_type == DOCKER_MANIFEST
    }
}

/// An image, whole.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    pub(super) manifest: ImageManifest,
    pub(super) config: ImageConfiguration,
    /// The digests of the uncompressed layers, the lowest first.
    pub(super) diff_ids: Vec<Digest>,
}

/// The text of a manifest of this configuration and these layers.
pub(super) fn text(config: &Digest, size: usize, layers: Vec<Value>) -> Vec<u8> {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": config.to_string(), "size": size },
        "layers": layers,
    });
    manifest.to_string().into_bytes()
}

/// Checks a manifest before its blobs are fetched.
pub(super) fn check_manifest(manifest: &ImageManifest, what: &str) -> Result<()> {
    let config = manifest.config().media_type().as_ref();
    if config != CONFIG && config != DOCKER_CONFIG {
        let kind = manifest.artifact_type().as_ref().map_or(config, AsRef::as_ref);
        let message = format!("{what}: it is no container image, but {kind:?}");
        return Err(Error::new(Category::Unsupported, Stage::Image, message));
    }
    if manifest.layers().len() > MOST_LAYERS {
        let message = format!(
            "{what}: {} layers, of which there may be {MOST_LAYERS}",
            manifest.layers().len()
        );
        return Err(Error::new(Category::Unsupported, Stage::Image, message));
    }
    for (index, layer) in manifest.layers().iter().enumerate() {
        check_layer(layer, index, what)?;
    }
    Ok(())
}

fn check_layer(layer: &Descriptor, index: usize, what: &str) -> Result<()> {
    let kind = layer.media_type().as_ref();
    let plain = kind.starts_with("application/vnd.oci.image.layer.")
        || kind.starts_with("application/vnd.docker.image.rootfs.");
    if plain && !kind.contains("encrypted") && kind.contains(".tar") {
        return Ok(());
    }
    let message = format!("{what}: layers[{index}] is of the media type {kind:?}");
    Err(Error::new(Category::Unsupported, Stage::Image, message))
}

/// Checks that configuration and manifest belong together.
pub(super) fn parts(manifest: ImageManifest, config: &[u8]) -> Result<Parts> {
    let what = format!("configuration {}", manifest.config().digest());
    let wrong = |why: String| Error::new(Category::Spec, Stage::Image, format!("{what}: {why}"));
    #[derive(serde::Deserialize)]
    struct Look<'d> {
        #[serde(borrow)]
        config: Option<&'d RawValue>,
        #[serde(borrow)]
        rootfs: Option<&'d RawValue>,
        // Counted without being kept.
        history: Option<Vec<IgnoredAny>>,
    }
    let look: Look<'_> = parse_object(config, &what)?;
    for (name, value) in [("config", look.config), ("rootfs", look.rootfs)] {
        if value.is_some_and(|value| !is_object(value)) {
            return Err(wrong(format!("{name} is no object")));
        }
    }
    if look.history.is_some_and(|history| history.len() > MOST_HISTORY) {
        return Err(wrong(format!("history has more than {MOST_HISTORY} entries")));
    }
    let config: ImageConfiguration = parse(config, &what)?;
    if config.rootfs().typ() != "layers" {
        return Err(wrong(format!("rootfs.type is {:?}, not \"layers\"", config.rootfs().typ())));
    }
    let ids = config.rootfs().diff_ids();
    if ids.len() != manifest.layers().len() {
        let layers = manifest.layers().len();
        return Err(wrong(format!(
            "rootfs.diff_ids has {} entries for {layers} layers",
            ids.len()
        )));
    }
    let diff_ids = ids.iter().enumerate();
    let diff_ids = diff_ids
        .map(|(index, id)| {
            let id = digest::parse(id, &format!("{what}: rootfs.diff_ids[{index}]"))?;
            // Layers are found by the digits alone.
            digest::Hasher::like(&id).map(|_| id)
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Parts { manifest, config, diff_ids })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &str, media_type: &str) -> String {
        match document(bytes.as_bytes(), media_type, "it") {
            Ok(Document::Index(_)) => "index".to_owned(),
            Ok(Document::Manifest(_)) => "manifest".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_configuration_is_an_object_with_digests_that_can_be_checked() {
        let layer =
            r#"{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"DIGEST","size":1}"#;
        let digest = digest::sha256(b"").to_string();
        let manifest = format!(r#"{{"schemaVersion":2,"config":{layer},"layers":[{layer}]}}"#)
            .replace("DIGEST", &digest);
        let said = |config: &str| {
            let manifest = parse(manifest.as_bytes(), "it").unwrap();
            parts(manifest, config.as_bytes()).map(drop).map_err(|error| error.to_string())
        };
        let rootfs = format!(r#"{{"type":"layers","diff_ids":["{digest}"]}}"#);
        let object =
            format!(r#"{{"architecture":"amd64","os":"linux","config":null,"rootfs":{rootfs}}}"#);
        assert_eq!(said(&object), Ok(()));
        for (old, new, wrong) in [
            (
                &*object,
                format!(r#"[null,null,"amd64","linux",null,null,null,null,{rootfs},[]]"#),
                "the document",
            ),
            (&*rootfs, format!(r#"["layers",["{digest}"]]"#), "rootfs"),
            ("null", "[]".to_owned(), "config"),
            (&*digest, "other:empty".to_owned(), "unknown algorithm"),
            ("null", format!(r#"null,"history":[{}0]"#, "0,".repeat(10_000)), "history has more"),
        ] {
            let error = said(&object.replace(old, &new)).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn no_values_are_made_of_what_nobody_asks_for() {
        // As values, these are nested too deeply.
        let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        let index = format!(r#"{{"schemaVersion":2,"manifests":[],"x":{deep}}}"#);
        assert_eq!(said(&index, ""), "index");
        let rootfs = r#"{"type":"layers","diff_ids":[]}"#;
        let config =
            format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{rootfs},"x":{deep}}}"#);
        let digest = digest::sha256(config.as_bytes());
        let manifest = text(&digest, config.len(), Vec::new());
        let manifest = parse(&manifest, "it").unwrap();
        parts(manifest, config.as_bytes()).unwrap();
    }

    #[test]
    fn a_document_is_what_it_says_or_what_it_looks_like_and_never_both() {
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(said(index, MediaType::ImageIndex.as_ref()), "index");
        assert_eq!(said(index, ""), "index");
        assert!(said(index, MANIFEST).contains("missing field"));
        let typed = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert_eq!(said(typed, "text/plain"), "index");
        let both = r#"{"schemaVersion":2,"layers":[],"manifests":[]}"#;
        assert!(said(both, MANIFEST).contains("both layers and manifests"));
        assert!(said(r#"{"schemaVersion":1}"#, "").contains("schema 1"));
        assert!(said(r#"{"schemaVersion":"2"}"#, "").contains("schemaVersion"));
        assert!(said(r#"{"schemaVersion":2}"#, "text/html").contains("text/html"));
        assert!(said("{", "").starts_with("it: "));
        assert!(said(r#"[2,"",[],[]]"#, "").contains("no object"));
    }
}

//! Labels become annotations, and so do fields that a runtime configuration has no place for.

use std::collections::BTreeMap;
use std::fmt::Display;

use oci_spec::image::ImageConfiguration;

use super::{Overrides, invalid, signal_number, wrong_image};
use crate::Result;
use crate::container::UNSAFE_ANNOTATIONS;
use crate::image::handle::BASE_DIGEST;

const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// From the weakest to the strongest: the fields, the labels, ours, the caller's.
pub(super) fn all(
    config: &ImageConfiguration,
    overrides: &Overrides,
    digest: &str,
) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let mut field = |name: &str, value: Option<&dyn Display>| {
        let value = value.map(|value| value.to_string()).unwrap_or_default();
        if !value.is_empty() {
            all.insert(format!("org.opencontainers.image.{name}"), value);
        }
    };
    fn some<T: Display>(value: &Option<T>) -> Option<&dyn Display> {
        value.as_ref().map(|value| value as &dyn Display)
    }
    field("os", Some(config.os()));
    field("os.version", some(config.os_version()));
    field("os.features", some(&config.os_features().as_ref().map(|all| all.join(","))));
    field("architecture", Some(config.architecture()));
    field("variant", some(config.variant()));
    field("author", some(config.author()));
    field("created", some(config.created()));
    let image = config.config().as_ref();
    let ports = image.and_then(|image| image.exposed_ports().clone()).map(|mut ports| {
        // They come from a hash table.
        ports.sort();
        ports.join(",")
    });
    field("exposedPorts", some(&ports));

    let stop = image.and_then(|image| image.stop_signal().as_deref()).filter(|s| !s.is_empty());
    if let Some(stop) = stop.filter(|_| overrides.stop_signal.is_none()) {
        if signal_number(stop).is_none() {
            let message = format!("the image's StopSignal {stop:?} is no signal");
            return Err(wrong_image(message).hint("give another one with `stopSignal`"));
        }
        all.insert(STOP_SIGNAL.to_owned(), stop.to_owned());
    }

    for (key, value) in config.labels_of_config().into_iter().flatten() {
        if key.is_empty() || UNSAFE_ANNOTATIONS.iter().any(|start| key.starts_with(start)) {
            tracing::warn!(
                "the image's label {key:?} does not become an annotation: as one it would tell the \
                 runtime what to do, or has no name"
            );
            continue;
        }
        all.insert(key.clone(), value.clone());
    }

    if let Some(stop) = &overrides.stop_signal {
        if signal_number(stop).is_none() {
            return Err(invalid(format!("`stopSignal` {stop:?} is no signal"))
                .hint("a name or a number, such as SIGTERM, RTMIN+3 or 15"));
        }
        all.insert(STOP_SIGNAL.to_owned(), stop.clone());
    }
    if overrides.annotations.contains_key("") {
        return Err(invalid("`annotations` has an empty key".to_owned()));
    }
    all.extend(overrides.annotations.clone());
    all.insert(BASE_DIGEST.to_owned(), digest.to_owned());
    Ok(all)
}

//! The configuration of a container: read without trusting that it is one, checked, and kept
//! for the next container with the same.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde_json::Value;
use serde_json::value::RawValue;

use super::Source;
use crate::spec::{self, oci};
use crate::{Category, Error, Result, Stage};

/// A configuration and what it says.
pub(super) struct Configuration {
    pub(super) json: Box<RawValue>,
    pub(super) spec: oci::Spec,
    document: OnceLock<Arc<Value>>,
}

impl Configuration {
    pub(super) fn new(json: Box<RawValue>, spec: oci::Spec) -> Configuration {
        Configuration { json, spec, document: OnceLock::new() }
    }

    /// The text as plugins see and change it.
    pub(super) fn document(&self) -> Result<Arc<Value>> {
        if let Some(document) = self.document.get() {
            return Ok(document.clone());
        }
        let document = serde_json::from_str(self.json.get()).map_err(|error| {
            let message = format!("the document is not valid JSON: {error}");
            Error::new(Category::Spec, Stage::Validate, message)
        })?;
        Ok(self.document.get_or_init(|| Arc::new(document)).clone())
    }
}

/// The last few configurations. A host starts many containers of a few kinds, and reading one
/// with a seccomp profile costs more than the rest of what a start computes.
#[derive(Default)]
pub(super) struct Configurations(Mutex<Vec<Arc<Configuration>>>);

impl Configurations {
    const CAPACITY: usize = 8;
    /// Larger ones are not kept.
    const LARGEST: usize = 128 << 10;

    /// Reads and checks a configuration. The directory that its paths are relative to comes with
    /// it.
    pub(super) fn load(&self, source: &Source<'_>) -> Result<(Arc<Configuration>, PathBuf)> {
        match source {
            Source::Bundle(path) => {
                let bundle = absolute(path)?;
                let json = read_config(&bundle)?;
                let configuration = self.of_text(json).map_err(|error| match error.pointer() {
                    // A pointer says enough; without one it is the file as a whole.
                    None => error.context(format!("{:?}", bundle.join("config.json"))),
                    Some(_) => error,
                })?;
                Ok((configuration, bundle))
            }
            Source::Spec { json, base } => {
                let base = absolute(base.as_deref().unwrap_or(Path::new(".")))?;
                Ok((self.of_text(json.to_vec())?, base))
            }
            #[cfg(feature = "images")]
            Source::Image { .. } => {
                let message = "only a new container is made from an image";
                Err(Error::new(Category::Invalid, Stage::Arguments, message)
                    .hint("give a bundle, or a configuration"))
            }
        }
    }

    /// Reads and checks the text of a configuration.
    pub(super) fn of_text(&self, json: Vec<u8>) -> Result<Arc<Configuration>> {
        let same = |kept: &&Arc<Configuration>| kept.json.get().as_bytes() == json;
        if let Some(kept) = self.kept().iter().find(same) {
            return Ok(kept.clone());
        }
        let spec = spec::parse(&json)?;
        spec::validate(&spec)?;
        // It has just been parsed, so it is valid UTF-8 and valid JSON.
        let json = String::from_utf8(json).ok().and_then(|text| RawValue::from_string(text).ok());
        let json = json.ok_or_else(|| {
            Error::new(Category::Bug, Stage::Validate, "a configuration that is no JSON")
        })?;
        let configuration = Arc::new(Configuration::new(json, spec));
        if configuration.json.get().len() <= Self::LARGEST {
            let mut kept = self.kept();
            kept.truncate(Self::CAPACITY - 1);
            kept.insert(0, configuration.clone());
        }
        Ok(configuration)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Configuration>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| Error::io(Stage::Arguments, &error, format!("path {path:?}")))
}

/// No configuration comes near this; what is larger would cost the host its memory.
const LIMIT: u64 = 16 << 20;

/// Reads the file. A FIFO or a device, which could keep the host waiting or reading for ever,
/// is refused.
fn read_config(bundle: &Path) -> Result<Vec<u8>> {
    let path = bundle.join("config.json");
    let failed = |error: io::Error| read_failed(bundle, &path, &error);
    let refused =
        |why: &str| Error::new(Category::Spec, Stage::Validate, format!("{path:?} {why}"));

    // O_NONBLOCK: opening a FIFO waits for a writer otherwise.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = File::options().read(true).custom_flags(flags).open(&path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(refused("is not a regular file"));
    }
    if meta.len() > LIMIT {
        return Err(refused(&format!("is larger than {} MiB", LIMIT >> 20)));
    }
    let mut json = Vec::with_capacity(meta.len() as usize + 1);
    // It may grow meanwhile; what is cut off is no JSON any more.
    file.take(LIMIT).read_to_end(&mut json).map_err(failed)?;
    Ok(json)
}

/// Says whether it is the file that is missing or the bundle.
fn read_failed(bundle: &Path, path: &Path, error: &io::Error) -> Error {
    let leads_nowhere = [libc::ENOENT, libc::ENOTDIR, libc::ELOOP, libc::ENAMETOOLONG];
    if !error.raw_os_error().is_some_and(|errno| leads_nowhere.contains(&errno)) {
        return Error::io(Stage::Validate, error, format!("read {path:?}"));
    }
    let message = match bundle.is_dir() {
        true => format!("read {path:?}"),
        false => format!("open the bundle {bundle:?}"),
    };
    Error::io(Stage::Validate, error, message).with_category(Category::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(hostname: &str) -> Vec<u8> {
        format!(
            r#"{{"ociVersion":"1.0.2","root":{{"path":"/"}},"hostname":"{hostname}",
                "process":{{"args":["true"],"cwd":"/","user":{{"uid":0,"gid":0}}}},
                "linux":{{"namespaces":[{{"type":"uts"}},{{"type":"mount"}}]}}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn an_equal_configuration_is_read_once_and_another_one_is_not_taken_for_it() {
        let all = Configurations::default();
        let first = all.of_text(config("first")).unwrap();
        let other = all.of_text(config("other")).unwrap();
        assert!(Arc::ptr_eq(&first, &all.of_text(config("first")).unwrap()));
        assert_eq!(other.spec.hostname().as_deref(), Some("other"));
    }

    #[test]
    fn only_the_last_few_are_kept_and_none_that_is_refused() {
        let all = Configurations::default();
        let first = all.of_text(config("first")).unwrap();
        for number in 0..Configurations::CAPACITY {
            all.of_text(config(&format!("h{number}"))).unwrap();
        }
        assert!(all.of_text(b"{}".to_vec()).is_err());
        assert_eq!(all.kept().len(), Configurations::CAPACITY);
        assert!(!Arc::ptr_eq(&first, &all.of_text(config("first")).unwrap()));
    }
}

//! Plugins that are Wasm components, where this library is built to run them: with the feature
//! `plugins`.

use std::path::Path;

use locule::Result;
use locule::plugin::{Guard, Registration};

/// Whether this library runs them.
pub(crate) const HERE: bool = cfg!(feature = "plugins");

/// What a folder of configuration files holds: plugins, the names of those that are required, and
/// what no plugin may do.
pub(crate) type Folder = (Vec<Registration>, Vec<String>, Guard);

#[cfg(feature = "plugins")]
mod built {
    use super::*;

    pub(crate) fn load(json: &[u8], base: &Path) -> Result<Registration> {
        locule_plugins::load(json, base)
    }

    pub(crate) fn load_folder(path: &Path) -> Result<Folder> {
        let folder = locule_plugins::load_folder(path)?;
        Ok((folder.registrations, folder.required, folder.guard))
    }

    pub(crate) fn inspect(path: &Path) -> Result<serde_json::Value> {
        locule_plugins::inspect(path)
    }
}

#[cfg(not(feature = "plugins"))]
mod built {
    use super::*;
    use locule::{Category, Error, Stage};

    fn missing<T>() -> Result<T> {
        let message = "this library was built without Wasm plugins";
        Err(Error::new(Category::Unsupported, Stage::Plugin, message)
            .hint("build it with the cargo feature `plugins` of locule-ffi"))
    }

    pub(crate) fn load(_json: &[u8], _base: &Path) -> Result<Registration> {
        missing()
    }

    pub(crate) fn load_folder(_path: &Path) -> Result<Folder> {
        missing()
    }

    pub(crate) fn inspect(_path: &Path) -> Result<serde_json::Value> {
        missing()
    }
}

pub(crate) use built::{inspect, load, load_folder};

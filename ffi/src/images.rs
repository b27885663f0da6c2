//! Images, where this library is built with the feature `images`, and with `registry` for what
//! goes over the network. Without them there is no store, and hence nothing to be done with one.

use std::path::Path;

use locule::{Container, Result, Source};

use crate::image_opts::Choices;

/// Whether this library keeps images.
pub(crate) const HERE: bool = cfg!(feature = "images");
/// Whether it reaches registries.
pub(crate) const REGISTRY: bool = cfg!(feature = "registry");

/// What was asked for is not in this library.
#[cfg(not(feature = "registry"))]
fn missing<T>(what: &str, feature: &str) -> Result<T> {
    use locule::{Category, Error, Stage};

    let message = format!("this library was built without {what}");
    Err(Error::new(Category::Unsupported, Stage::Image, message)
        .hint(format!("build it with the cargo feature `{feature}` of locule-ffi")))
}

#[cfg(feature = "images")]
mod built {
    use super::*;
    use crate::image_opts::{Owner, Packing};
    use locule::image::{
        Compression, Ids, Limits, NewOptions, Overrides, Progress, PruneOptions, SaveOptions,
        StoreOptions, TakeOptions, Transfer,
    };
    use serde_json::{Value, json};

    pub(crate) type Store = locule::image::ImageStore;
    pub(crate) type Image = locule::image::Image;

    fn owned(text: Option<&str>) -> Option<String> {
        text.map(str::to_owned)
    }

    pub(super) fn take(choices: &Choices<'_>) -> TakeOptions {
        TakeOptions {
            from: owned(choices.from),
            name: owned(choices.name),
            platform: owned(choices.platform),
        }
    }

    fn new(choices: &Choices<'_>) -> NewOptions {
        NewOptions {
            name: owned(choices.name),
            compression: match choices.packing {
                Packing::Gzip => Compression::Gzip,
                Packing::Zstd => Compression::Zstd,
                Packing::None => Compression::None,
            },
            config: choices.config.clone(),
            author: owned(choices.author),
            comment: owned(choices.comment),
            created: owned(choices.created),
        }
    }

    /// Runs a call that reports to the host.
    pub(super) fn transferring<T>(
        choices: &Choices<'_>,
        call: impl FnOnce(Transfer<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut report = |progress: &Progress<'_>| {
            let Progress { step, digest, done, total, finished } = *progress;
            choices.tell(step as u32, digest, (done, total), finished)
        };
        let (cancel, timeout) = (choices.cancel, choices.timeout);
        match choices.progress {
            Some(_) => call(Transfer { progress: Some(&mut report), cancel, timeout }),
            None => call(Transfer { progress: None, cancel, timeout }),
        }
    }

    pub(crate) fn open(path: Option<&Path>, read_only: bool) -> Result<Store> {
        let path = path.map(Path::to_owned);
        Store::open(StoreOptions { path, read_only, ..StoreOptions::default() })
    }

    fn overrides(json: Option<&[u8]>, name: &'static str) -> Result<Overrides> {
        let overrides = json.map(Overrides::from_json).transpose();
        overrides.map(Option::unwrap_or_default).map_err(|error| error.context(name))
    }

    /// What a container of the image is created from.
    pub(crate) fn source<'a>(image: &'a Image, json: Option<&[u8]>) -> Result<Source<'a>> {
        let overrides = overrides(json, "`opts.image_overrides_json`")?;
        Ok(Source::Image { image, overrides: Box::new(overrides) })
    }

    pub(crate) fn prepare(image: &Image, json: Option<&[u8]>, choices: &Choices<'_>) -> Result<()> {
        let overrides = overrides(json, "`overrides_json`")?;
        transferring(choices, |transfer| image.prepare(&overrides, transfer))
    }

    pub(crate) fn load(store: &Store, path: &Path, choices: &Choices<'_>) -> Result<Image> {
        transferring(choices, |transfer| store.load(path, &take(choices), transfer))
    }

    pub(crate) fn import(store: &Store, path: &Path, choices: &Choices<'_>) -> Result<Image> {
        transferring(choices, |transfer| store.import(path, &new(choices), transfer))
    }

    pub(crate) fn commit(
        store: &Store,
        container: &Container,
        choices: &Choices<'_>,
    ) -> Result<Image> {
        transferring(choices, |transfer| store.commit(container, &new(choices), transfer))
    }

    pub(crate) fn list(store: &Store) -> Result<Value> {
        Ok(store.list()?.iter().map(Image::summary).collect())
    }

    pub(crate) fn prune(store: &Store, choices: &Choices<'_>) -> Result<Value> {
        let options = PruneOptions { all: choices.all };
        let pruned = transferring(choices, |transfer| store.prune(&options, transfer))?;
        Ok(json!(pruned))
    }

    pub(crate) fn save(image: &Image, path: &Path, choices: &Choices<'_>) -> Result<()> {
        let options = SaveOptions { name: owned(choices.name) };
        transferring(choices, |transfer| image.save(path, &options, transfer))
    }

    pub(crate) fn unpack(image: &Image, dir: &Path, choices: &Choices<'_>) -> Result<()> {
        let ids = match choices.owner {
            Owner::Auto if locule::rootless_ids().is_some() => Ids::Caller,
            Owner::Auto | Owner::Image => Ids::Same,
            Owner::Caller => Ids::Caller,
        };
        let mut limits = Limits::default();
        limits.bytes = choices.max_bytes.unwrap_or(limits.bytes);
        limits.entries = choices.max_entries.unwrap_or(limits.entries);
        limits.ratio = choices.max_ratio.unwrap_or(limits.ratio);
        transferring(choices, |transfer| image.unpack(dir, &ids, &limits, transfer))
    }
}

#[cfg(not(feature = "images"))]
mod built {
    use super::*;
    use serde_json::Value;

    /// There is none.
    #[derive(Debug)]
    pub(crate) enum Store {}
    /// There is none.
    #[derive(Debug)]
    pub(crate) enum Image {}

    impl Store {
        pub(crate) fn path(&self) -> &Path {
            match *self {}
        }

        pub(crate) fn get(&self, _name: &str) -> Result<Image> {
            match *self {}
        }

        pub(crate) fn remove(&self, _name: &str) -> Result<()> {
            match *self {}
        }
    }

    impl Image {
        pub(crate) fn digest(&self) -> &str {
            match *self {}
        }

        pub(crate) fn inspect(&self) -> Result<Value> {
            match *self {}
        }

        pub(crate) fn tag(&self, _name: &str) -> Result<Image> {
            match *self {}
        }
    }

    pub(crate) fn open(_path: Option<&Path>, _read_only: bool) -> Result<Store> {
        missing("images", "images")
    }

    pub(crate) fn source<'a>(image: &'a Image, _overrides: Option<&[u8]>) -> Result<Source<'a>> {
        match *image {}
    }

    pub(crate) fn load(store: &Store, _path: &Path, _choices: &Choices<'_>) -> Result<Image> {
        match *store {}
    }

    pub(crate) fn import(store: &Store, _path: &Path, _choices: &Choices<'_>) -> Result<Image> {
        match *store {}
    }

    pub(crate) fn commit(
        store: &Store,
        _container: &Container,
        _choices: &Choices<'_>,
    ) -> Result<Image> {
        match *store {}
    }

    pub(crate) fn list(store: &Store) -> Result<Value> {
        match *store {}
    }

    pub(crate) fn prune(store: &Store, _choices: &Choices<'_>) -> Result<Value> {
        match *store {}
    }

    pub(crate) fn prepare(
        image: &Image,
        _json: Option<&[u8]>,
        _choices: &Choices<'_>,
    ) -> Result<()> {
        match *image {}
    }

    pub(crate) fn save(image: &Image, _path: &Path, _choices: &Choices<'_>) -> Result<()> {
        match *image {}
    }

    pub(crate) fn unpack(image: &Image, _dir: &Path, _choices: &Choices<'_>) -> Result<()> {
        match *image {}
    }
}

#[cfg(feature = "registry")]
mod remote {
    use super::*;
    use locule::image::RegistryOptions;

    fn registry(choices: &Choices<'_>) -> RegistryOptions {
        let owned = |path: Option<&Path>| path.map(Path::to_owned);
        RegistryOptions {
            credentials: choices.credentials.map(|(user, word)| (user.to_owned(), word.to_owned())),
            auth_file: owned(choices.auth_file),
            ca_file: owned(choices.ca_file),
            registries_file: owned(choices.registries_file),
        }
    }

    pub(crate) fn pull(store: &Store, reference: &str, choices: &Choices<'_>) -> Result<Image> {
        built::transferring(choices, |transfer| {
            store.pull(reference, &built::take(choices), &registry(choices), transfer)
        })
    }

    pub(crate) fn push(image: &Image, reference: &str, choices: &Choices<'_>) -> Result<()> {
        built::transferring(choices, |transfer| image.push(reference, &registry(choices), transfer))
    }
}

#[cfg(not(feature = "registry"))]
mod remote {
    use super::*;

    pub(crate) fn pull(_store: &Store, _reference: &str, _choices: &Choices<'_>) -> Result<Image> {
        missing("registries", "registry")
    }

    pub(crate) fn push(_image: &Image, _reference: &str, _choices: &Choices<'_>) -> Result<()> {
        missing("registries", "registry")
    }
}

pub(crate) use built::{
    Image, Store, commit, import, list, load, open, prepare, prune, save, source, unpack,
};
pub(crate) use remote::{pull, push};

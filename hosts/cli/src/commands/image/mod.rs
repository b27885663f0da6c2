//! `image`: a store of images, and what goes in and out.

mod options;
pub mod run;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;
use locule::image::{
    Image, ImageStore, Limits, Progress, PruneOptions, SaveOptions, StoreOptions, TakeOptions,
    Transfer,
};

use self::options::{given, ids, new, registry, taken};
use super::{Done, events, help_on, looking, update};
use crate::arguments::{Global, path, text};
use crate::failure::Failure;
use crate::interrupt::{self, Interrupt};
use crate::output;
use crate::progress::Watcher;

pub fn image(program: &str, global: &Global, own: &ArgMatches) -> Done {
    let Some((verb, own)) = own.subcommand() else { return help_on(program, &["image"]) };
    let run = || match verb {
        "list" => show::list(own),
        "inspect" => show::inspect(own),
        "prune" => prune(own),
        "tag" => tag(own),
        "remove" => remove(own),
        "pull" => pull(own),
        "load" => load(own),
        "import" => import(own),
        "commit" => commit(global, own),
        "save" => save(own),
        "push" => push(own),
        "unpack" => unpack(own),
        "unpack-layers" | "unpack-tree" => inside(own, |store| {
            let tree = (verb == "unpack-tree").then(|| word(own, "name"));
            let (digest, ids) = (word(own, "digest"), word(own, "ids"));
            store.unpack_inside(digest, ids, tree).map(|()| String::new())
        }),
        "pack-changes" => inside(own, |store| {
            let upper = Path::new(word(own, "upper"));
            store.pack_changes(upper, word(own, "compression"), word(own, "ids"))
        }),
        "remove-draft" => {
            inside(own, |store| store.remove_draft(word(own, "draft")).map(|()| String::new()))
        }
        other => unreachable!("the command line has no verb image {other}"),
    };
    run().map_err(interrupt::of_signal)
}

/// The store that the options, or this program's environment, name.
pub fn store(own: &ArgMatches) -> Result<ImageStore, Failure> {
    let read_only = own.get_flag("read-only-store");
    let path = store_path(path(own, "store"));
    Ok(ImageStore::open(StoreOptions { path, read_only, command: std::env::current_exe().ok() })?)
}

/// The directory of the store; `None` for the library's own choice.
pub fn store_path(given: Option<PathBuf>) -> Option<PathBuf> {
    let set = || std::env::var_os("LOCULE_IMAGES").filter(|set| !set.is_empty());
    given.or_else(|| set().map(PathBuf::from))
}

type Report = dyn FnMut(&Progress<'_>) -> locule::Result<()>;

/// A call that may take long: somebody may watch it, and a signal stops it.
pub struct Long {
    report: Option<Box<Report>>,
    /// Until this is dropped.
    _caught: Interrupt,
    timeout: Option<Duration>,
}

impl Long {
    pub fn of(own: &ArgMatches) -> Result<Long, Failure> {
        let mut watcher = Watcher::of(own)?;
        let report: Box<Report> = Box::new(move |progress| {
            watcher.tell(progress);
            Ok(())
        });
        Ok(Long { report: Some(report), _caught: Interrupt::catch()?, timeout: None })
    }

    /// For a verb of its own, which has an option for the time.
    fn verb(own: &ArgMatches) -> Result<Long, Failure> {
        Ok(Long { timeout: timeout(own)?, ..Long::of(own)? })
    }

    /// The same, of which nothing can be told meanwhile.
    fn unseen(own: &ArgMatches) -> Result<Long, Failure> {
        let timeout = timeout(own)?;
        Ok(Long { report: None, _caught: Interrupt::catch()?, timeout })
    }

    pub fn transfer(&mut self) -> Transfer<'_> {
        Transfer {
            progress: self.report.as_mut().map(|report| &mut **report as locule::image::Report<'_>),
            cancel: Interrupt::cancel(),
            timeout: self.timeout,
        }
    }
}

fn timeout(own: &ArgMatches) -> Result<Option<Duration>, Failure> {
    let Some(given) = given(own, "timeout")? else { return Ok(None) };
    let wrong = || Failure::of(format!("--timeout {given}: expected a time, such as 90s"));
    events::duration(given).filter(|time| !time.is_zero()).ok_or_else(wrong).map(Some)
}

fn word<'a>(own: &'a ArgMatches, name: &str) -> &'a str {
    own.get_one::<String>(name).map_or("", String::as_str)
}

fn place<'a>(own: &'a ArgMatches, name: &str) -> &'a PathBuf {
    own.get_one(name).expect("required")
}

/// The store and the image in it.
fn found(own: &ArgMatches) -> Result<Image, Failure> {
    Ok(store(own)?.get(word(own, "image"))?)
}

fn pull(own: &ArgMatches) -> Done {
    let json = show::wants_json(own, "text")?;
    let (taken, registry) = (taken(own)?, registry(own)?);
    let mut long = Long::verb(own)?;
    let image = store(own)?.pull(word(own, "reference"), &taken, &registry, long.transfer())?;
    show::made(json, &image)
}

fn load(own: &ArgMatches) -> Done {
    let json = show::wants_json(own, "text")?;
    let from = given(own, "from")?.map(str::to_owned);
    let taken = TakeOptions { from, ..taken(own)? };
    let mut long = Long::verb(own)?;
    let image = store(own)?.load(place(own, "path"), &taken, long.transfer())?;
    show::made(json, &image)
}

fn import(own: &ArgMatches) -> Done {
    let json = show::wants_json(own, "text")?;
    let new = new(own)?;
    let mut long = Long::verb(own)?;
    let image = store(own)?.import(place(own, "path"), &new, long.transfer())?;
    show::made(json, &image)
}

fn commit(global: &Global, own: &ArgMatches) -> Done {
    let json = show::wants_json(own, "text")?;
    let new = new(own)?;
    let container = looking(global)?.open(word(own, "container"))?;
    let mut long = Long::verb(own)?;
    let image = store(own)?.commit(&container, &new, long.transfer())?;
    show::made(json, &image)
}

fn save(own: &ArgMatches) -> Done {
    let json = show::wants_json(own, "text")?;
    let options = SaveOptions { name: given(own, "name")?.map(str::to_owned) };
    let mut long = Long::verb(own)?;
    let image = found(own)?;
    image.save(place(own, "path"), &options, long.transfer())?;
    show::made(json, &image)
}

fn push(own: &ArgMatches) -> Done {
    let json = show::wants_json(own, "text")?;
    let registry = registry(own)?;
    let mut long = Long::verb(own)?;
    let image = found(own)?;
    let name = word(own, "image");
    let reference = match word(own, "reference") {
        "" if is_found_by(name, image.digest()) => {
            return Err(Failure::of(format!("where to? push {name} REFERENCE")));
        }
        "" => name,
        reference => reference,
    };
    image.push(reference, &registry, long.transfer())?;
    show::made(json, &image)
}

/// Whether an image that has this digest was found by it.
fn is_found_by(name: &str, digest: &str) -> bool {
    ImageStore::is_digest(name) && digits(digest).starts_with(digits(name))
}

fn digits(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

fn unpack(own: &ArgMatches) -> Done {
    let ids = ids(own)?;
    let mut limits = Limits::default();
    let most = [
        ("max-entries", &mut limits.entries),
        ("max-bytes", &mut limits.bytes),
        ("max-ratio", &mut limits.ratio),
    ];
    for (option, limit) in most {
        let Some(given) = text(own, option) else { continue };
        let wrong = || Failure::of(format!("--{option} {given}: expected a number above 0"));
        let number = update::bytes(option, given)?;
        *limit = u64::try_from(number).ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    }
    let mut long = Long::verb(own)?;
    found(own)?.unpack(place(own, "dir"), &ids, &limits, long.transfer())?;
    Ok(ExitCode::SUCCESS)
}

fn tag(own: &ArgMatches) -> Done {
    found(own)?.tag(word(own, "new"))?;
    Ok(ExitCode::SUCCESS)
}

/// All that can be removed is, whatever of the rest is not there.
fn remove(own: &ArgMatches) -> Done {
    let store = store(own)?;
    let mut failed: Option<Failure> = None;
    for name in own.get_many::<String>("name").into_iter().flatten() {
        if let Err(error) = store.remove(name) {
            if let Some(earlier) = failed.replace(error.into()) {
                earlier.report();
            }
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn prune(own: &ArgMatches) -> Done {
    let json = show::wants_json(own, "text")?;
    let options = PruneOptions { all: own.get_flag("all") };
    let mut long = Long::unseen(own)?;
    let pruned = store(own)?.prune(&options, long.transfer())?;
    show::pruned(&pruned, json)
}

/// What this program does in a user namespace for the library outside, which reads what it prints.
fn inside(own: &ArgMatches, act: impl FnOnce(&ImageStore) -> Result<String, String>) -> Done {
    let path = Some(place(own, "directory").clone());
    let store = ImageStore::open(StoreOptions { path, ..StoreOptions::default() });
    match store.map_err(|error| ImageStore::report(&error)).and_then(|store| act(&store)) {
        Ok(made) => {
            output::text(made)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(report) => {
            output::line(report)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_found_by_its_digest_has_not_said_where_it_goes() {
        let digest = "sha256:0123456789abcdef";
        for name in [digest, "0123456789abcdef", "0123456789ab"] {
            assert!(is_found_by(name, digest), "{name}");
        }
        for name in ["alpine", "0123456789a", "registry.example/0123456789ab", "", "deadbeefcafe"] {
            assert!(!is_found_by(name, digest), "{name}");
        }
        assert!(ImageStore::is_digest("deadbeefcafe"));
        for name in ["deadbeefcaf", "deadbeefcafes", "DEADBEEFCAFE", "sha256:00", "a@sha256:00"] {
            assert!(!ImageStore::is_digest(name), "{name}");
        }
    }
}

//! What takes ids that an ordinary user has only in a user namespace: the command `locule` does it there, in a
//! container of the host's own files. A verb that it fails to do it says as a [`Report`] on standard output.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::store::Store;
use super::transfer::{Guide, Step};
use super::unpack::{IdRange, Ids};
use crate::cgroup::Manager;
use crate::container::{Container, CreateOptions, Exit, Runtime, RuntimeOptions, Source, Stdio};
use crate::{Category, Error, Result, Stage};

/// No report is longer. The smallest pipe takes it, as nobody reads before it was written.
const LONGEST_REPORT: usize = 4096;

/// What root needs for files that have ids of its user namespace.
const CAPABILITIES: [&str; 6] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETFCAP",
];

/// Why it was not done.
pub(super) enum Refused {
    /// It did not come to it.
    Unable(Error),
    /// It went wrong.
    Failed(Error),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        match refused {
            Refused::Unable(error) | Refused::Failed(error) => error,
        }
    }
}

/// Whose the files are, on its way to the command.
#[derive(Serialize, Deserialize)]
struct Whose {
    uids: Vec<IdRange>,
    gids: Vec<IdRange>,
}

/// How the command says what went wrong.
#[derive(Serialize, Deserialize)]
struct Report {
    category: String,
    message: String,
    errno: Option<i32>,
    hint: Option<String>,
}

/// Unpacks these layers of an image, of which the digests and sizes are given: each by itself, or all to the tree of
/// this name.
pub(super) fn unpack(
    store: &Store,
    digest: &str,
    layers: &[(String, u64)],
    tree: Option<&str>,
    ids: &Ids,
    guide: &mut Guide<'_>,
) -> Result<(), Refused> {
    let tell = |guide: &mut Guide<'_>, done: bool| {
        layers.iter().try_for_each(|(digest, size)| match done {
            true => guide.finished(Step::Unpack, digest, *size),
            false => guide.report(Step::Unpack, digest, 0, *size),
        })
    };
    let Ids::Mapped { uids, gids } = ids else {
        let message = "ids that are not mapped need no user namespace";
        return Err(Refused::Failed(Error::new(Category::Bug, Stage::Image, message)));
    };
    let whose = json!(Whose { uids: uids.clone(), gids: gids.clone() }).to_string();
    tell(guide, false).map_err(Refused::Failed)?;
    match tree {
        None => run(store, &["unpack-layers"], &[digest, &whose], (uids, gids), guide)?,
        Some(name) => run(store, &["unpack-tree"], &[digest, &whose, name], (uids, gids), guide)?,
    };
    tell(guide, true).map_err(Refused::Failed)
}

/// Makes a layer of a container's changes, and says what it is as `pack-changes` does.
pub(super) fn pack(
    store: &Store,
    upper: &Path,
    compression: &str,
    (uids, gids): (&[IdRange], &[IdRange]),
    guide: &mut Guide<'_>,
) -> Result<String, Refused> {
    let Some(upper) = upper.to_str() else {
        let message = format!("the path of the changes is no UTF-8: {upper:?}");
        return Err(Refused::Unable(Error::new(Category::Unsupported, Stage::Image, message)));
    };
    let whose = json!(Whose { uids: uids.to_vec(), gids: gids.to_vec() }).to_string();
    guide.report(Step::Pack, "", 0, 0).map_err(Refused::Failed)?;
    run(store, &["pack-changes"], &[upper, compression, &whose], (uids, gids), guide)
}

/// What the command reads: the ids are as the host sees them, and here each is itself.
pub(super) fn whose(text: &str) -> Result<(Ids, Ids)> {
    let Whose { uids, gids } = serde_json::from_str(text).map_err(|error| {
        Error::new(Category::Invalid, Stage::Image, format!("the ids {text:?}: {error}"))
    })?;
    let here = |ranges: &[IdRange]| {
        ranges.iter().map(|range| IdRange { outside: range.inside, ..*range }).collect()
    };
    let here = Ids::Mapped { uids: here(&uids), gids: here(&gids) };
    Ok((Ids::Mapped { uids, gids }, here))
}

/// Removes drafts that have files of further ids.
pub(super) fn remove(
    store: &Store,
    ids: &Ids,
    draft: &Path,
    guide: &mut Guide<'_>,
) -> Result<(), Refused> {
    let Ids::Mapped { uids, gids } = ids else { return Ok(()) };
    let name = draft.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    run(store, &["remove-draft"], &[name], (uids, gids), guide).map(drop)
}

/// The command: this program, if it is that, or the one that is installed.
fn command(store: &Store) -> Option<PathBuf> {
    const NAME: &str = "locule";
    if let Some(command) = &store.command {
        return Some(command.clone());
    }
    let itself = std::env::current_exe().ok();
    let itself = itself.filter(|path| path.file_name().is_some_and(|name| name == NAME));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let folders = ["/usr/local/bin", "/usr/bin"].map(PathBuf::from).into_iter();
    let folders = folders.chain(std::env::split_paths(&paths).filter(|path| path.is_absolute()));
    itself.into_iter().chain(folders.map(|folder| folder.join(NAME))).find(|path| path.is_file())
}

/// Runs a verb of the command as root of a user namespace, and gives what it prints.
fn run(
    store: &Store,
    verb: &[&str],
    words: &[&str],
    ids: (&[IdRange], &[IdRange]),
    guide: &mut Guide<'_>,
) -> Result<String, Refused> {
    let unable = |message: &str| {
        Refused::Unable(
            Error::new(Category::Unsupported, Stage::Image, message)
                .hint("install the command `locule`, or say where it is: it works for further ids"),
        )
    };
    let command = command(store).ok_or_else(|| unable("there is no command `locule`"))?;
    let texts = (command.to_str(), store.path.to_str());
    let (Some(command), Some(path)) = texts else {
        return Err(unable("the path of the command or the image store is no UTF-8"));
    };
    let args = [&[command, "image"], verb, &[path], words].concat();
    let state_dir = StateDir(store.draft("run"));
    let config = config(&args, ids).to_string();
    let mut source =
        CreateOptions::new(Source::Spec { json: config.as_bytes(), base: Some("/".into()) });
    source.stdio = [Stdio::Null, Stdio::Pipe, Stdio::Null];
    source.timeout = guide.left();
    source.cancel = guide.cancel();
    let options = RuntimeOptions {
        state_dir: Some(state_dir.0.clone()),
        cgroup_manager: Manager::None,
        ..RuntimeOptions::default()
    };
    let begun = Runtime::new(options).and_then(|runtime| {
        let container = Begun(runtime.create(source)?);
        container.0.start(guide.cancel())?;
        Ok(container)
    });
    let container = begun.map_err(|error| {
        let error = error.context("run the command `locule` in a user namespace");
        match error.category() {
            // Another time it works.
            Category::Cancelled | Category::Timeout | Category::Resource | Category::Keeper => {
                Refused::Failed(error)
            }
            _ => Refused::Unable(error),
        }
    })?;
    let init = container.0.init();
    let exit = init.wait(guide.left(), guide.cancel()).map_err(Refused::Failed)?;
    guide.check().map_err(Refused::Failed)?;
    let mut text = String::new();
    if let Some(pipe) = init.take_pipe(1) {
        // It was written whole before its writer ended.
        let _ = File::from(pipe).take(LONGEST_REPORT as u64).read_to_string(&mut text);
    }
    if exit == Some(Exit::Code(0)) {
        return Ok(text);
    }
    match serde_json::from_str::<Report>(&text) {
        Ok(report) => Err(Refused::Failed(report.into_error())),
        // Another program of this name.
        Err(_) if text.is_empty() && !matches!(exit, Some(Exit::Signal { .. })) => {
            let message = format!("the command {command:?} cannot work for further ids: {exit:?}");
            Err(unable(&message))
        }
        Err(_) => {
            let message = format!("the command {command:?} ended amid its work: {exit:?}");
            Err(Refused::Failed(Error::new(Category::System, Stage::Image, message)))
        }
    }
}

/// The host's own files, as its root: of its own are ids and mounts alone.
fn config(args: &[&str], (uids, gids): (&[IdRange], &[IdRange])) -> Value {
    json!({
        "ociVersion": crate::spec::OCI_VERSION,
        "root": { "path": "/" },
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "args": args,
            "env": [],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {
                "bounding": CAPABILITIES,
                "effective": CAPABILITIES,
                "permitted": CAPABILITIES,
            },
        },
        "mounts": [
            { "destination": "/dev", "source": "/dev", "options": ["rbind"] },
        ],
        "linux": {
            "namespaces": [{ "type": "user" }, { "type": "mount" }],
            "uidMappings": uids,
            "gidMappings": gids,
        },
    })
}

/// Where the container is kept meanwhile.
struct StateDir(PathBuf);

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The container, which goes when it has done its work, or is not to go on.
struct Begun(Container);

impl Drop for Begun {
    fn drop(&mut self) {
        if let Err(error) = self.0.delete(true) {
            tracing::warn!(%error, "a container for unpacking is left");
        }
    }
}

impl Report {
    fn into_error(self) -> Error {
        let known = Category::ALL.into_iter().find(|known| known.name() == self.category);
        let mut error = Error::new(known.unwrap_or(Category::Bug), Stage::Image, self.message);
        if let Some(errno) = self.errno {
            error = error.with_errno(errno);
        }
        match self.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// What the command is to print when it fails.
pub(super) fn report(error: &Error) -> String {
    let mut report = Report {
        category: error.category().name().to_owned(),
        message: error.messages().collect::<Vec<_>>().join(": "),
        errno: error.errno(),
        hint: error.advice().map(str::to_owned),
    };
    let text = json!(report).to_string();
    if text.len() < LONGEST_REPORT {
        return text;
    }
    // Escaped, a character takes six bytes at most.
    report.message = report.message.chars().take(LONGEST_REPORT / 8).collect();
    report.hint = None;
    json!(report).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_comes_out_as_it_was() {
        let error = Error::new(Category::Spec, Stage::Image, "it is wrong")
            .context("layer a")
            .with_errno(libc::EINVAL)
            .hint("make it right");
        let report: Report = serde_json::from_str(&report(&error)).unwrap();
        let back = report.into_error();
        assert_eq!(back.category(), Category::Spec);
        assert_eq!(back.errno(), Some(libc::EINVAL));
        assert_eq!(back.advice(), Some("make it right"));
        let text = error.messages().collect::<Vec<_>>().join(": ");
        assert_eq!(back.messages().next(), Some(text.as_str()));
    }

    #[test]
    fn an_error_of_any_length_fits_into_a_pipe() {
        let error = Error::new(Category::Spec, Stage::Image, "\0é".repeat(100_000));
        let text = super::report(&error);
        assert!(text.len() < LONGEST_REPORT, "{}", text.len());
        let report: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(report.into_error().category(), Category::Spec);
    }

    #[test]
    fn ids_are_themselves_in_their_user_namespace() {
        let text = r#"{"uids": [{"containerID": 1, "hostID": 9, "size": 2}], "gids": []}"#;
        let (outside, here) = whose(text).unwrap();
        let of = |outside| Ids::Mapped {
            uids: vec![IdRange { inside: 1, outside, count: 2 }],
            gids: vec![],
        };
        assert_eq!((outside, here), (of(9), of(1)));
        assert_eq!(whose("{}").err().map(|error| error.category()), Some(Category::Invalid));
    }
}

//! What is run, with which environment, and where.

use std::collections::HashSet;
use std::path::PathBuf;

use oci_spec::image::Config;

use super::{Overrides, invalid, wrong_image};
use crate::Result;

/// The program and its arguments: Entrypoint, then Cmd.
pub(super) fn args(image: &Config, overrides: &Overrides) -> Result<Vec<String>> {
    let own = overrides.entrypoint.as_deref();
    let entrypoint = own.or(image.entrypoint().as_deref()).unwrap_or_default();
    let cmd = match (&overrides.args, own) {
        (Some(args), _) => args,
        (None, Some(_)) => &[][..],
        (None, None) => image.cmd().as_deref().unwrap_or_default(),
    };
    // Dockerfiles and `--entrypoint ""` write "none" as one empty word.
    let entrypoint = if entrypoint == [""] { &[] } else { entrypoint };
    let all = [entrypoint, cmd].concat();
    if !all.is_empty() {
        return Ok(all);
    }
    let message = match (own, &overrides.args) {
        (None, None) => "nothing to run: the image's Entrypoint and Cmd are empty",
        (None, Some(_)) => "nothing to run: the image's Entrypoint and the given `args` are empty",
        (Some(_), Some(_)) => "nothing to run: the given `entrypoint` and `args` are empty",
        (Some(_), None) => {
            "nothing to run: the given `entrypoint` is empty, and with one the image's Cmd does \
             not count"
        }
    };
    Err(invalid(message.to_owned()).hint("name a program in `args`, such as [\"sh\"]"))
}

/// The environment without what every container has.
pub(super) struct Environment {
    /// `NAME=VALUE`, each name once.
    pub(super) entries: Vec<String>,
    /// Names that the caller wants not to be there.
    pub(super) removed: HashSet<String>,
}

pub(super) fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

impl Environment {
    /// In the place of an earlier one of the same name.
    fn set(&mut self, entry: &str) {
        let name = name_of(entry);
        self.removed.remove(name);
        match self.entries.iter_mut().find(|other| name_of(other) == name) {
            Some(other) => *other = entry.to_owned(),
            None => self.entries.push(entry.to_owned()),
        }
    }

    fn remove(&mut self, name: &str) {
        self.entries.retain(|entry| name_of(entry) != name);
        self.removed.insert(name.to_owned());
    }
}

/// The image's environment, the caller's, and `HOME`, as other engines set it.
pub(super) fn env(image: &Config, overrides: &Overrides, home: &str) -> Result<Environment> {
    let mut env = Environment { entries: Vec::new(), removed: HashSet::new() };
    let of_image = image.env().iter().flatten().filter(|_| !overrides.clear_env);
    for entry in of_image {
        match entry.find('=') {
            Some(1..) => env.set(entry),
            _ => tracing::warn!("{entry:?} in the image's Env is not NAME=VALUE, and is left out"),
        }
    }
    for (index, entry) in overrides.env.iter().enumerate() {
        match entry.find('=') {
            Some(1..) => env.set(entry),
            None if !entry.is_empty() => env.remove(entry),
            _ => return Err(invalid(format!("`env[{index}]` has no name"))),
        }
    }
    if !env.removed.contains("HOME") && !env.entries.iter().any(|entry| name_of(entry) == "HOME") {
        env.entries.insert(0, format!("HOME={home}"));
    }
    Ok(env)
}

/// The working directory, which the runtime makes if it is missing.
pub(super) fn cwd(image: &Config, overrides: &Overrides) -> Result<PathBuf> {
    if let Some(cwd) = &overrides.cwd {
        return match cwd.is_absolute() {
            true => Ok(cwd.clone()),
            false => Err(invalid(format!("`cwd` {cwd:?} is not absolute"))),
        };
    }
    match image.working_dir().as_deref() {
        None | Some("") => Ok("/".into()),
        Some(cwd) if cwd.starts_with('/') => Ok(cwd.into()),
        Some(cwd) => Err(wrong_image(format!("the image's WorkingDir {cwd:?} is not absolute"))
            .hint("give another one with `cwd`")),
    }
}

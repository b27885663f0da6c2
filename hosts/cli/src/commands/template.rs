//! `run --rootfs DIR -- PROGRAM...`: a container without a bundle, from the library's own template.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::ArgMatches;
use locule::Rootfs;
use locule::spec::{Network, Template};

use super::exec::id_of;
use super::update::bytes;
use crate::arguments::{path, text, texts};
use crate::failure::Failure;

/// What `create` wants to know.
pub struct Filled {
    pub json: Vec<u8>,
    pub rootfs: Rootfs,
}

/// Fills the template in; `None` if no root is given.
pub fn fill(own: &ArgMatches) -> Result<Option<Filled>, Failure> {
    let Some(root) = path(own, "rootfs") else { return Ok(None) };
    let root = std::fs::canonicalize(&root)
        .map_err(|error| Failure::of(format!("--rootfs {}: {error}", root.display())))?;
    let args = program(own)?;
    if args.is_empty() {
        return Err(Failure::of(
            "--rootfs needs a program: run --rootfs DIR -- PROGRAM ARGUMENT...",
        ));
    }
    // The host's own files are never changed.
    let overlay = own.get_flag("overlay") || root.as_os_str() == "/";
    let mut template = Template::new(root, args);
    template.env = texts(own, "env").map(str::to_owned).collect();
    if let Some(wrong) = template.env.iter().find(|entry| !entry.contains('=')) {
        return Err(Failure::of(format!("--env {wrong}: expected NAME=VALUE")));
    }
    if let Some(cwd) = path(own, "cwd") {
        template.cwd = cwd;
    }
    if let Some(user) = text(own, "user") {
        let (uid, gid) = user.split_once(':').unwrap_or((user, user));
        template.user = (id_of(uid, user)?, id_of(gid, user)?);
    }
    if let Some(hostname) = text(own, "hostname") {
        template.hostname = hostname.to_owned();
    }
    template.readonly = own.get_flag("read-only");
    template.terminal = wants_terminal(own);
    template.network = if host_network(own)? { Network::Host } else { Network::None };
    template.rootless = locule::rootless_ids();
    let Limited { memory, cpus, pids } = limits(own)?;
    (template.memory, template.cpus, template.pids) = (memory, cpus, pids);
    template.mounts = texts(own, "mount").map(mount).collect::<Result<_, _>>()?;
    let rootfs = if overlay { Rootfs::Overlay } else { Rootfs::Direct };
    Ok(Some(Filled { json: template.json()?, rootfs }))
}

/// The program and its arguments.
pub fn program(own: &ArgMatches) -> Result<Vec<&str>, Failure> {
    let words = own.get_many::<OsString>("program").into_iter().flatten();
    words
        .map(|word| {
            word.to_str().ok_or_else(|| Failure::of(format!("{word:?} is no text in UTF-8")))
        })
        .collect()
}

/// Whether it gets a terminal: as asked for, or as this program has one to attend to.
pub fn wants_terminal(own: &ArgMatches) -> bool {
    own.get_flag("tty")
        || !own.get_flag("detach")
            && std::io::stdin().is_terminal()
            && std::io::stdout().is_terminal()
}

pub fn host_network(own: &ArgMatches) -> Result<bool, Failure> {
    match text(own, "network") {
        None | Some("none") => Ok(false),
        Some("host") => Ok(true),
        Some(other) => Err(Failure::of(format!("--network {other}: expected none or host"))),
    }
}

/// Limits, where they are given.
pub struct Limited {
    pub memory: Option<u64>,
    pub cpus: Option<f64>,
    pub pids: Option<i64>,
}

pub fn limits(own: &ArgMatches) -> Result<Limited, Failure> {
    let memory = match text(own, "memory") {
        Some(given) => {
            let wrong = || Failure::of(format!("--memory {given}: expected bytes, such as 64m"));
            Some(u64::try_from(bytes("memory", given)?).map_err(|_| wrong())?)
        }
        None => None,
    };
    let cpus = match text(own, "cpus") {
        Some(given) => {
            let cpus = given.parse().ok().filter(|cpus: &f64| cpus.is_finite() && *cpus > 0.0);
            let wrong = || Failure::of(format!("--cpus {given}: expected a number, such as 1.5"));
            Some(cpus.ok_or_else(wrong)?)
        }
        None => None,
    };
    let pids = match text(own, "pids") {
        Some(given) => {
            let wrong = || Failure::of(format!("--pids {given}: expected a number above 0"));
            Some(given.parse().ok().filter(|pids| *pids > 0).ok_or_else(wrong)?)
        }
        None => None,
    };
    Ok(Limited { memory, cpus, pids })
}

/// `SOURCE:TARGET[:ro]`
pub fn mount(given: &str) -> Result<(PathBuf, PathBuf, bool), Failure> {
    let wrong = |why: &str| Failure::of(format!("--mount {given}: {why}"));
    let (source, target, read_only) = match given.split(':').collect::<Vec<_>>()[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err(wrong("expected SOURCE:TARGET or SOURCE:TARGET:ro")),
    };
    if !target.starts_with('/') {
        return Err(wrong("the target has to be an absolute path"));
    }
    let source = std::fs::canonicalize(source).map_err(|error| wrong(&error.to_string()))?;
    Ok((source, target.into(), read_only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_a_source_and_a_target() {
        let of = |given| mount(given).ok();
        assert_eq!(of("/:/mnt"), Some(("/".into(), "/mnt".into(), false)));
        assert_eq!(of("/:/mnt:ro"), Some(("/".into(), "/mnt".into(), true)));
        for wrong in ["", "/", "/:mnt", "/:/mnt:rx", "/nothing-there:/mnt", "/:/a:/b:ro"] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }
}

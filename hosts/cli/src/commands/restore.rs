//! `restore`.

use std::process::ExitCode;

use clap::ArgMatches;
use locule::{RestoreOptions, Source, Stdio};

use super::checkpoint::criu_options;
use super::create::configuration;
use super::{Done, id, remove, runtime};
use crate::arguments::{Global, text};
use crate::failure::Failure;
use crate::foreground::{self, Signals};
use crate::streams::Announce;

pub fn restore(global: &Global, own: &ArgMatches) -> Done {
    let detach = own.get_flag("detach");
    let (json, base) = configuration(own)?;
    let announce = Announce::read(own);
    let chosen = |name: &str| text(own, name).filter(|text| !text.is_empty());
    let mut options =
        RestoreOptions::new(id(own), Source::Spec { json: &json, base: Some(base) }, "");
    options.criu = criu_options(own)?;
    options.stdio = [Stdio::Inherit; 3];
    options.tcp_close = own.get_flag("tcp-close");
    options.lsm_profile = chosen("lsm-profile");
    options.lsm_mount_context = chosen("lsm-mount-context");

    let signals = if detach { None } else { Some(Signals::hold()?) };
    if !detach && !own.get_flag("no-subreaper") {
        // The one who waits for a process has to be its parent.
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(|errno| Failure::of(format!("become a subreaper: {errno}")))?;
    }
    let container = runtime(global)?.restore(options)?;
    announce.announce(container.init()).inspect_err(|_| {
        let _ = container.delete(true);
    })?;
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let ended = foreground::attend(container.init(), &signals);
    remove(&container)?;
    ended
}

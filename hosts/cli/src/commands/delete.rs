//! `delete`.

use std::process::ExitCode;

use clap::ArgMatches;
use locule::Category;

use super::{Done, id, runtime};
use crate::arguments::Global;

pub fn delete(global: &Global, own: &ArgMatches) -> Done {
    let force = own.get_flag("force");
    match runtime(global)?.open(id(own)).and_then(|container| container.delete(force)) {
        Err(error) if force && error.category() == Category::NotFound => {}
        other => other?,
    }
    Ok(ExitCode::SUCCESS)
}

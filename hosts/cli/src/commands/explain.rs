//! `explain`: the plan, before anything is done.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;
use locule::{CreateOptions, Source};

use super::{Done, runtime};
use crate::arguments::Global;

pub fn explain(global: &Global, own: &ArgMatches) -> Done {
    let here = PathBuf::from(".");
    let bundle = own.get_one::<PathBuf>("bundle").unwrap_or(&here);
    let plan = runtime(global)?.explain(&CreateOptions::new(Source::bundle(bundle)))?;
    print!("{}", plan.to_text());
    Ok(ExitCode::SUCCESS)
}

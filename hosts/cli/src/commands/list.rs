//! `list`.

use std::process::ExitCode;

use clap::ArgMatches;
use locule::State;
use serde_json::Value;

use super::{Done, looking};
use crate::arguments::{Global, text};
use crate::failure::Failure;
use crate::output;
use crate::users;

pub fn list(global: &Global, own: &ArgMatches) -> Done {
    if let Some(root) = global.root.as_ref().filter(|root| !root.exists()) {
        return Err(Failure::of(format!("{}: no such file or directory", root.display())));
    }
    let states = looking(global)?.list()?;
    if own.get_flag("quiet") {
        for state in &states {
            output::line(&state.id)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    match text(own, "format") {
        Some("table") => {
            let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
            let mut rows = vec![head.map(str::to_owned).to_vec()];
            rows.extend(states.iter().map(row));
            output::table(&rows)?;
        }
        Some("json") if states.is_empty() => output::compact(&Value::Null)?,
        Some("json") => {
            output::compact(&states.into_iter().map(|state| state.document).collect())?;
        }
        _ => return Err(Failure::of("invalid format option")),
    }
    Ok(ExitCode::SUCCESS)
}

fn row(state: &State) -> Vec<String> {
    let member = |name: &str| state.document[name].as_str().unwrap_or_default().to_owned();
    let owner: u32 = member("owner").parse().unwrap_or_default();
    let owner = users::name_of(owner).unwrap_or_else(|| format!("#{owner}"));
    vec![
        state.id.clone(),
        state.pid.to_string(),
        state.status.name().to_owned(),
        state.bundle.display().to_string(),
        member("created"),
        owner,
    ]
}

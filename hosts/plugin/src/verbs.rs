//! The verbs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;
use locule::plugin::{Change, Plugins, Registration};
use locule_plugins::{Recording, Session, default_folder, inspect, load_folder};
use serde_json::{Value, json};

use crate::arguments::{path, text};
use crate::subject::{read, said, scene, session};

type Done = Result<ExitCode, String>;

pub fn run(matches: &ArgMatches) -> Done {
    match matches.subcommand() {
        Some(("inspect", own)) => {
            let name = text(own, "plugin").unwrap_or_default();
            print(&inspect(Path::new(name)).map_err(|error| said(&error))?)
        }
        Some(("check", own)) => check(own),
        Some(("list", own)) => list(own),
        Some(("run", own)) => try_it(own),
        Some(("record", own)) => record(own),
        Some(("replay", own)) => replay(own),
        Some(("bench", own)) => bench(own),
        other => unreachable!("the command line has no verb {other:?}"),
    }
}

fn print(document: &Value) -> Done {
    println!("{document:#}");
    Ok(ExitCode::SUCCESS)
}

/// The one that was named, or that in which the command `locule` looks, too.
fn folder(own: &ArgMatches) -> Result<PathBuf, String> {
    let named = path(own, "plugins").cloned();
    named.or_else(default_folder).ok_or_else(|| "which folder? say it with --plugins".to_owned())
}

/// What takes this program more than that is not worth waiting for: a component made to keep a
/// compiler busy is somebody's joke.
const COMPILING: [(libc::__rlimit_resource_t, u64); 2] =
    [(libc::RLIMIT_CPU, 300), (libc::RLIMIT_AS, 8 << 30)];

fn check(own: &ArgMatches) -> Done {
    for (resource, most) in COMPILING {
        let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
        // SAFETY: the structure lives through the call. What has a lower limit keeps it.
        unsafe { libc::setrlimit(resource, &limit) };
    }
    let Some(files) = own.get_many::<PathBuf>("configurations") else {
        return list(own);
    };
    let mut failed = false;
    for file in files {
        let loaded = read(file).map(|configuration| {
            Session::new(configuration)
                .map_err(|error| format!("{}: {}", file.display(), said(&error)))
        });
        match loaded.and_then(|session| session) {
            Ok(session) => {
                let stages: Vec<_> = session.stages().iter().map(|stage| stage.name()).collect();
                println!("{}: fine; called at {}", file.display(), stages.join(", "));
            }
            Err(message) => {
                failed = true;
                println!("{message}");
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn list(own: &ArgMatches) -> Done {
    let folder = load_folder(&folder(own)?).map_err(|error| said(&error))?;
    let required = folder.required.clone();
    let plugins = Plugins::new(folder.registrations, folder.required, folder.guard);
    let plugins = plugins.map_err(|error| said(&error))?;
    let row = |registration: &Registration| {
        let mut stages: Vec<_> =
            registration.plugin.stages().iter().map(|stage| stage.name()).collect();
        if registration.plugin.validates() {
            stages.push("(judges)");
        }
        let is_required = registration.required || required.contains(&registration.name);
        let priority = registration.priority.to_string();
        let yes = if is_required { "yes" } else { "" };
        [registration.name.clone(), priority, yes.to_owned(), stages.join(",")]
    };
    let heading = ["NAME", "PRIORITY", "REQUIRED", "STAGES"].map(str::to_owned);
    let rows = plugins.iter().map(|(registration, _)| row(registration));
    for [name, priority, required, stages] in std::iter::once(heading).chain(rows) {
        println!("{name:<20} {priority:<10} {required:<10} {stages}");
    }
    let is_there = |name: &String| plugins.iter().any(|(known, _)| known.name == *name);
    match required.iter().find(|name| !is_there(name)) {
        Some(missing) => Err(format!("the required plugin {missing:?} is missing")),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn try_it(own: &ArgMatches) -> Done {
    let outcome = session(own)?.run(&scene(own)?).map_err(|error| said(&error))?;
    for change in &outcome.changes {
        println!("{}", shown(change));
    }
    let answer = match &outcome.document {
        Ok(_) if outcome.changes.is_empty() => "it agrees, and changes nothing".to_owned(),
        Ok(_) => "it agrees".to_owned(),
        Err(error) => error.to_string(),
    };
    println!("{answer}");
    let time = outcome.time.as_micros();
    println!("{} calls, {} fuel, {time} us", outcome.calls.len(), outcome.fuel);
    Ok(if outcome.document.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A change as a line: what goes, and what comes.
fn shown(change: &Change) -> String {
    let Change { pointer, before, after, .. } = change;
    match (before, after) {
        (None, Some(after)) => format!("+ {pointer}: {after}"),
        (Some(before), None) => format!("- {pointer}: {before}"),
        (Some(before), Some(after)) => format!("~ {pointer}: {before} -> {after}"),
        (None, None) => format!("  {pointer}"),
    }
}

fn record(own: &ArgMatches) -> Done {
    let recording = session(own)?.record(scene(own)?).map_err(|error| said(&error))?;
    let document = json!(recording);
    let Some(file) = path(own, "output") else { return print(&document) };
    std::fs::write(file, format!("{document:#}\n"))
        .map_err(|error| format!("{file:?}: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

fn replay(own: &ArgMatches) -> Done {
    let file = path(own, "recording").ok_or("a recording is missing")?;
    let text = std::fs::read(file).map_err(|error| format!("{file:?}: {error}"))?;
    let recording = Recording::parse(&text).map_err(|error| said(&error))?;
    session(own)?.replay(&recording).map_err(|error| said(&error))?;
    println!("it does the same");
    Ok(ExitCode::SUCCESS)
}

fn bench(own: &ArgMatches) -> Done {
    let (session, scene) = (session(own)?, scene(own)?);
    let count = own.get_one::<u32>("count").copied().unwrap_or(1);
    let mut times = Vec::new();
    let mut fuel = 0;
    for _ in 0..count {
        let outcome = session.run(&scene).map_err(|error| said(&error))?;
        outcome.document.map_err(|error| error.to_string())?;
        times.push(outcome.time);
        fuel = outcome.fuel;
    }
    times.sort();
    let at = |part: usize| -> Duration { times[(times.len() - 1) * part / 100] };
    let [half, most, all] = [50, 95, 100].map(|part| at(part).as_micros());
    println!(
        "{count} calls: median {half} us, 95 % within {most} us, longest {all} us, {fuel} fuel"
    );
    Ok(ExitCode::SUCCESS)
}

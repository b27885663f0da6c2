//! The verbs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;
use locule::plugin::{Change, Plugins};
use locule_plugins::{Recording, Session, inspect, load_folder};
use serde_json::{Value, json};

use crate::arguments::{path, text};
use crate::subject::{read, said, scene, session};

type Done = Result<ExitCode, String>;

/// Where the command `locule` looks for plugins, too.
const FOLDER: &str = "/etc/locule/plugins";

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

fn folder(own: &ArgMatches) -> PathBuf {
    path(own, "plugins").cloned().unwrap_or_else(|| FOLDER.into())
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
        match read(file).and_then(|it| Session::new(it).map_err(|error| said(&error))) {
            Ok(session) => {
                let stages: Vec<_> = session.stages().iter().map(|stage| stage.name()).collect();
                println!("{}: fine; called at {}", file.display(), stages.join(", "));
            }
            Err(message) => {
                failed = true;
                println!("{}: {message}", file.display());
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn list(own: &ArgMatches) -> Done {
    let folder = load_folder(&folder(own)).map_err(|error| said(&error))?;
    let plugins = Plugins::new(folder.registrations, folder.required, folder.guard);
    let plugins = plugins.map_err(|error| said(&error))?;
    let rows = plugins.iter().map(|(registration, _)| {
        let mut stages: Vec<_> =
            registration.plugin.stages().iter().map(|stage| stage.name()).collect();
        if registration.plugin.validates() {
            stages.push("(judges)");
        }
        let required = if registration.required { "yes" } else { "" };
        let priority = registration.priority.to_string();
        [registration.name.clone(), priority, required.to_owned(), stages.join(",")]
    });
    let heading = ["NAME", "PRIORITY", "REQUIRED", "STAGES"].map(str::to_owned);
    for [name, priority, required, stages] in std::iter::once(heading).chain(rows) {
        println!("{name:<20} {priority:<10} {required:<10} {stages}");
    }
    Ok(ExitCode::SUCCESS)
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

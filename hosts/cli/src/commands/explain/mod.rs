//! `explain`: what a container could reach and how it would be made, before anything is done.

mod review;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;
use locule::{CreateOptions, Source, plugin};

use self::review::Review;
use super::{Done, runtime};
use crate::arguments::{Global, text};
use crate::commands::create::read;
use crate::failure::Failure;
use crate::output::{self, Style};

pub fn explain(global: &Global, own: &ArgMatches) -> Done {
    let here = PathBuf::from(".");
    let bundle = own.get_one::<PathBuf>("bundle").unwrap_or(&here);
    let bundle = std::fs::canonicalize(bundle)
        .map_err(|error| Failure::of(format!("bundle {}: {error}", bundle.display())))?;
    let json = read(&bundle.join("config.json"))?;
    locule::spec::parse(&json)?;
    let runtime = runtime(global)?;
    // Of what plugins make of it, not of what they were given.
    let document = serde_json::from_slice(&json).map_err(|e| Failure::of(e.to_string()))?;
    let made = runtime.plugins().rehearse(plugin::Stage::Create, "example", &bundle, document)?;
    let review = Review::of(&locule::spec::parse(made.0.to_string().as_bytes())?, &bundle);
    let source = Source::Spec { json: &json, base: Some(bundle) };
    let plan = runtime.explain(&CreateOptions::new(source))?;
    match text(own, "format") {
        Some("json") => {
            let mut page = review.to_json();
            page["plan"] = plan.to_json();
            output::pretty(&page)?;
        }
        Some("text") => page(&review, &plan.to_text())?,
        _ => return Err(Failure::of("invalid format option")),
    }
    Ok(ExitCode::SUCCESS)
}

fn page(review: &Review, plan: &str) -> std::io::Result<()> {
    let style = Style::of_output();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", style.heading("What the container can reach"))?;
    for fact in &review.facts {
        writeln!(out, "  {}", fact.about)?;
        for line in &fact.lines {
            writeln!(out, "    {line}")?;
        }
    }
    writeln!(out, "\n{}", style.heading("What deserves a second look"))?;
    if review.concerns.is_empty() {
        writeln!(out, "  nothing")?;
    }
    for concern in &review.concerns {
        writeln!(out, "  {} {}  ({})", style.warning("!"), concern.text, concern.pointer)?;
    }
    writeln!(out, "\n{}\n{plan}", style.heading("How it is made"))
}

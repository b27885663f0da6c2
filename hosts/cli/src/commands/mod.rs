//! The verbs.

mod checkpoint;
mod create;
mod delete;
mod doctor;
mod events;
mod exec;
mod explain;
mod image;
mod kill;
mod list;
mod ps;
mod restore;
mod spec;
mod template;
pub mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use locule::plugin::Plugins;
use locule::{Category, Container, Runtime, RuntimeOptions};

use crate::arguments::{self, Global};
use crate::failure::Failure;
use crate::{output, plugins};

type Done = Result<ExitCode, Failure>;

/// Carries out a verb.
pub fn run(program: &str, verb: &str, global: &Global, own: &ArgMatches) -> Done {
    match verb {
        "create" => create::create(program, global, own),
        "run" => create::run(program, global, own),
        "exec" => exec::exec(global, own),
        "kill" => kill::kill(global, own),
        "delete" => delete::delete(global, own),
        "list" => list::list(global, own),
        "ps" => ps::ps(global, own),
        "update" => update::update(global, own),
        "checkpoint" => checkpoint::checkpoint(global, own),
        "restore" => restore::restore(global, own),
        "events" => events::events(global, own),
        "spec" => spec::spec(own),
        "image" => image::image(program, global, own),
        "doctor" => doctor::doctor(global, own),
        "plugin" => {
            let words: Vec<_> = arguments::texts(own, "rest").map(str::to_owned).collect();
            Err(plugins::become_tool(global, &words))
        }
        "explain" => explain::explain(global, own),
        "start" => create::start(global, own),
        "pause" => on(global, own, |container| Ok(container.pause()?)),
        "resume" => on(global, own, |container| Ok(container.resume()?)),
        "state" => {
            let container = looking(global)?.open(id(own))?;
            output::pretty(&container.state()?.document)?;
            Ok(ExitCode::SUCCESS)
        }
        "features" => {
            output::pretty(&looking(global)?.features())?;
            Ok(ExitCode::SUCCESS)
        }
        "completion" => completion(program, own),
        "man" => man(program, own),
        "help" => help(program, own),
        other => unreachable!("the command line has no verb {other}"),
    }
}

fn on(
    global: &Global,
    own: &ArgMatches,
    act: impl FnOnce(&Container) -> Result<(), Failure>,
) -> Done {
    act(&open(global, id(own))?)?;
    Ok(ExitCode::SUCCESS)
}

fn id(own: &ArgMatches) -> &str {
    own.get_one::<String>("id").map_or("", String::as_str)
}

/// The words from the id on.
fn rest(own: &ArgMatches, verb: &str) -> Result<(String, Vec<String>), Failure> {
    let mut words = arguments::texts(own, "rest").map(str::to_owned);
    let id = words.next().ok_or_else(|| Failure::of(format!("{verb:?} needs a container id")))?;
    Ok((id, words.collect()))
}

/// The runtime, for a verb at which plugins are called.
fn runtime(global: &Global) -> Result<Runtime, Failure> {
    with_plugins(global, plugins::load(global)?)
}

/// The runtime, for a verb that ends a container: no plugin is in its way, not even a broken one.
fn ending(global: &Global) -> Result<Runtime, Failure> {
    let plugins = plugins::load(global).unwrap_or_else(|failure| {
        tracing::warn!("without plugins: {failure}");
        Plugins::default()
    });
    with_plugins(global, plugins)
}

/// The runtime, for a verb that only looks.
fn looking(global: &Global) -> Result<Runtime, Failure> {
    with_plugins(global, Plugins::default())
}

fn with_plugins(global: &Global, plugins: Plugins) -> Result<Runtime, Failure> {
    Ok(Runtime::new(RuntimeOptions {
        state_dir: global.root.clone(),
        cgroup_manager: global.manager,
        plugins,
        ..RuntimeOptions::default()
    })?)
}

fn open(global: &Global, id: &str) -> Result<Container, Failure> {
    Ok(runtime(global)?.open(id)?)
}

/// Deletes a container that has ended, unless another command has done so.
fn remove(container: &Container) -> Result<(), Failure> {
    match container.delete(true) {
        Err(error) if error.category() == Category::NotFound => Ok(()),
        other => Ok(other?),
    }
}

fn completion(program: &str, own: &ArgMatches) -> Done {
    let name = own.get_one::<String>("shell").map_or("", String::as_str);
    let shell: clap_complete::Shell =
        name.parse().map_err(|_| Failure::of(format!("no completion for the shell {name:?}")))?;
    let mut command = arguments::command(program);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    output::text(String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

fn help(program: &str, own: &ArgMatches) -> Done {
    let verbs: Vec<_> = own.get_many::<String>("verb").into_iter().flatten().collect();
    help_on(program, &verbs.iter().map(|verb| verb.as_str()).collect::<Vec<_>>())
}

/// Prints the help on a verb, or on one of a verb's, or on everything.
fn help_on(program: &str, verbs: &[&str]) -> Done {
    let mut command = arguments::command(program);
    command.build();
    let mut command = &mut command;
    for verb in verbs {
        command = command
            .find_subcommand_mut(verb)
            .ok_or_else(|| Failure::unknown_verb(verb.as_ref()))?;
    }
    output::text(command.render_long_help())?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the manual: a page of the program and one of each verb, those of verbs included.
fn man(program: &str, own: &ArgMatches) -> Done {
    let directory = own.get_one::<PathBuf>("directory").expect("required");
    let failed = |error| Failure::of(format!("{}: {error}", directory.display()));
    let mut command = arguments::command(program);
    command.build();
    for (name, page) in pages(&command, program) {
        let mut text = Vec::new();
        let page = page.version(env!("CARGO_PKG_VERSION")).display_name(name.clone());
        clap_mangen::Man::new(page).render(&mut text).map_err(failed)?;
        std::fs::write(directory.join(format!("{name}.1")), text).map_err(failed)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A page's name and what it is about, for a command and the verbs below it.
fn pages(command: &Command, name: &str) -> Vec<(String, Command)> {
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    let below = verbs.flat_map(|verb| pages(verb, &format!("{name}-{}", verb.get_name())));
    below.chain([(name.to_owned(), command.clone())]).collect()
}

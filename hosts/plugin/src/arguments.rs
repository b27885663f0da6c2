//! The command line.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

pub fn command() -> Command {
    Command::new("locule plugin")
        .bin_name("locule plugin")
        .about("look at plugins, try them without a container, compile them")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            Command::new("inspect")
                .about("tell what a component is and which powers it wants, without running it")
                .arg(component()),
            Command::new("check")
                .about(
                    "load plugins as a runtime does: compiles them for all that use the same cache",
                )
                .arg(folder())
                .arg(
                    Arg::new("configurations")
                        .value_name("CONFIGURATION")
                        .help("configurations of plugins; those of the folder if none is given")
                        .num_args(0..)
                        .value_parser(value_parser!(PathBuf)),
                ),
            Command::new("list")
                .about("list the plugins of a folder, in the order in which they are called")
                .arg(folder()),
            trying(
                Command::new("run")
                    .about("call a plugin, and show what it makes of a configuration"),
            ),
            trying(Command::new("record").about("call a plugin, and write down what it does")).arg(
                Arg::new("output")
                    .short('o')
                    .long("output")
                    .value_name("FILE")
                    .help("where to write it; standard output if not given")
                    .value_parser(value_parser!(PathBuf)),
            ),
            loading(
                Command::new("replay")
                    .about("call a plugin as was written down, and compare what it does"),
            )
            .arg(
                Arg::new("recording")
                    .value_name("RECORDING")
                    .help("what `record` has written")
                    .required(true)
                    .value_parser(value_parser!(PathBuf)),
            ),
            trying(
                Command::new("bench").about("call a plugin many times, and tell how long it takes"),
            )
            .arg(
                Arg::new("count")
                    .short('n')
                    .long("count")
                    .value_name("N")
                    .help("how many times")
                    .default_value("1000")
                    .value_parser(value_parser!(u32).range(1..)),
            ),
        ])
}

fn component() -> Arg {
    Arg::new("plugin")
        .value_name("PLUGIN")
        .help("a component: a file, or oci: and the path of an image layout")
        .required(true)
}

fn folder() -> Arg {
    Arg::new("plugins")
        .long("plugins")
        .value_name("DIR")
        .help("the folder of configurations; that of `locule` if not given")
        .value_parser(value_parser!(PathBuf))
}

/// Which plugin, and how.
fn loading(command: Command) -> Command {
    command.args([
        component().help("a configuration (NAME.json), or a component with the options below"),
        Arg::new("grant")
            .long("grant")
            .value_name("POWER")
            .help("of a component: a power; all that it wants if none is given")
            .action(ArgAction::Append),
        Arg::new("settings")
            .long("settings")
            .value_name("JSON")
            .help("of a component: what it gets to see as its configuration"),
    ])
}

/// Which plugin, and with what to try it.
fn trying(command: Command) -> Command {
    loading(command).args([
        Arg::new("stage")
            .long("stage")
            .value_name("STAGE")
            .help("the stage at which it is called")
            .default_value("create"),
        Arg::new("bundle")
            .short('b')
            .long("bundle")
            .value_name("DIR")
            .help("take the configuration of this bundle; a usual one if not given")
            .value_parser(value_parser!(PathBuf)),
        Arg::new("id")
            .long("id")
            .value_name("ID")
            .help("the container's id")
            .default_value("example"),
    ])
}

pub fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

pub fn path<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a PathBuf> {
    matches.get_one(name)
}

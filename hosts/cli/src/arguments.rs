//! The command line: verbs, options, and what each is for.

mod image;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use locule::cgroup::Manager;

use crate::failure::Failure;
use crate::grammar;

/// What it calls itself: as it was called, because tools look for that name.
pub fn name_of(program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

/// How help looks, as runc's callers know it.
const HELP: &str =
    "NAME:\n   {name} - {about}\n\nUSAGE:\n   {usage}\n{after-help}\nOPTIONS:\n{options}\n";
const HELP_OF_ALL: &str = "NAME:\n   {name} - {about}\n\nUSAGE:\n   {usage}\n\nCOMMANDS:\n{subcommands}\n\nOPTIONS:\n{options}\n";

/// A verb, and what makes its part of the command line.
type Verb = (&'static str, fn() -> Command);

/// All verbs.
const VERBS: [Verb; 24] = [
    ("create", create),
    ("run", run),
    ("start", start),
    ("exec", exec),
    ("kill", kill),
    ("delete", delete),
    ("list", list),
    ("ps", ps),
    ("state", state),
    ("pause", pause),
    ("resume", resume),
    ("update", update),
    ("events", events),
    ("spec", spec),
    ("checkpoint", checkpoint),
    ("restore", restore),
    ("image", image::image),
    ("features", features),
    ("explain", explain),
    ("doctor", doctor),
    ("plugin", plugin),
    ("completion", completion),
    ("man", man),
    ("help", help),
];

/// The whole command line of a program of this name.
pub fn command(program: &str) -> Command {
    with_verbs(without_verbs(program), &VERBS)
}

/// The part of it that these words need: making all of it takes longer than most verbs do.
pub fn command_for(program: &str, words: &[OsString]) -> Command {
    let command = without_verbs(program);
    let mut rest = words.iter().map(|word| word.to_str().unwrap_or_default());
    while let Some(word) = rest.next() {
        let Some(option) = word.strip_prefix('-') else {
            let known = VERBS.iter().position(|verb| verb.0 == word);
            return with_verbs(command, known.map_or(&VERBS, |at| &VERBS[at..=at]));
        };
        let option = option.trim_start_matches('-');
        if matches!(option, "help" | "h") {
            break;
        }
        if grammar::find(&command, option).is_some_and(grammar::takes_value) {
            rest.next();
        }
    }
    with_verbs(command, &VERBS)
}

fn with_verbs(command: Command, verbs: &[Verb]) -> Command {
    let program = command.get_name().to_owned();
    command.subcommands(verbs.iter().map(|(_, verb)| named(verb(), &program)))
}

/// A verb, with its own, below what is called `above`.
fn named(verb: Command, above: &str) -> Command {
    let name = format!("{above} {}", verb.get_name());
    let verb = match verb.has_subcommands() {
        true => verb.mut_subcommands(|own| named(own, &name)),
        false => verb.help_template(HELP),
    };
    verb.display_name(name.clone()).bin_name(name).disable_version_flag(true)
}

/// The options before the verb.
fn without_verbs(program: &str) -> Command {
    Command::new(program.to_owned())
        .about("Open Container Initiative runtime")
        .help_template(HELP_OF_ALL)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .args_override_self(true)
        .args([
            value("root", "DIR", "where the containers' states are kept"),
            value("log", "FILE", "write errors to this file, too; or journald:NAME, syslog:NAME"),
            value("log-format", "FORMAT", "text or json").default_value("text"),
            switch("debug", "log what is done"),
            switch("systemd-cgroup", "let systemd make the cgroups, as its scopes"),
            value("cgroup-manager", "NAME", "cgroupfs, systemd or disabled"),
            value("plugins", "DIR", "the folder that configures plugins; an empty one is none"),
            value("rootless", "BOOL", "has no effect: what this program may do is found out"),
            switch("version", "print the version").short('v'),
        ])
}

fn value(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    list_of(name, what, help).action(ArgAction::Set).overrides_with(name)
}

fn list_of(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(what)
        .help(help)
        .action(ArgAction::Append)
        .value_parser(clap::value_parser!(OsString))
        .allow_hyphen_values(true)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).help(help).action(ArgAction::SetTrue).overrides_with(name)
}

fn verb(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).args_override_self(true)
}

fn id() -> Arg {
    Arg::new("id").value_name("CONTAINER-ID").required(true).help("the container's id")
}

/// The id and what follows it.
fn rest(what: &'static str) -> Arg {
    Arg::new("rest")
        .value_name(what)
        .action(ArgAction::Append)
        .num_args(0..)
        .value_parser(clap::value_parser!(OsString))
        .allow_hyphen_values(true)
}

/// Where a container is described, and where its first process is announced.
fn bundled(command: Command) -> Command {
    command.args([
        value("bundle", "DIR", "the directory with config.json; the current one if not given")
            .short('b'),
        value("config", "FILE", "the configuration; config.json of the bundle if not given")
            .short('f'),
        value("console-socket", "PATH", "a socket that receives the master of the terminal"),
        value("pidfd-socket", "PATH", "a socket that receives a pidfd of the first process"),
        value("pid-file", "FILE", "write the pid of the first process to this file"),
    ])
}

/// What create and run have in common.
fn creating(command: Command) -> Command {
    bundled(command.arg(id())).args([
        value("preserve-fds", "N", "pass on this many descriptors, from 3 on"),
        switch("no-pivot", "not supported: the root is always left by pivot_root"),
        switch(
            "no-new-keyring",
            "not supported: processes always have a session keyring of their own",
        ),
    ])
}

fn create() -> Command {
    creating(verb("create", "create a container"))
}

fn run() -> Command {
    let of_template = [
        list_of("env", "NAME=VALUE", "without a bundle: set a variable").short('e'),
        value("cwd", "DIR", "without a bundle: the working directory"),
        value("user", "UID[:GID]", "without a bundle: run as this user; --image has names, too")
            .short('u'),
        value("hostname", "NAME", "without a bundle: the hostname"),
        switch("tty", "without a bundle: give it a terminal, as it gets if this program has one")
            .short('t'),
        switch("read-only", "without a bundle: mount the root read-only"),
        value("network", "NAME", "without a bundle: none or host"),
        value("memory", "BYTES", "without a bundle: the most memory, such as 64m"),
        value("cpus", "N", "without a bundle: the most processor time, such as 1.5"),
        value("pids", "N", "without a bundle: the most processes"),
        list_of("mount", "SOURCE:TARGET[:ro]", "without a bundle: bind a path of the host's"),
    ];
    creating(verb("run", "create and run a container"))
        .mut_arg("id", |id| {
            id.required(false)
                .required_unless_present("source")
                .help("the container's id; without a bundle it may be left out, and a program goes after --")
        })
        .args([
            switch("detach", "do not wait for it to end").short('d'),
            switch("keep", "do not delete it when it has ended"),
            switch("no-subreaper", "has no effect: this program never becomes one"),
            value("rootfs", "DIR", "no bundle: run the PROGRAM with this root"),
            value("image", "NAME", "no bundle: run an image, fetched if missing; its arguments go after --"),
            switch("overlay", "with --rootfs: forget its changes to the root; always so for /")
                .requires("rootfs")
                .conflicts_with("image"),
        ])
        .group(
            ArgGroup::new("source")
                .args(["rootfs", "image"])
                .conflicts_with_all(["bundle", "config"]),
        )
        // What would conflict with something given is not missed, so it takes both.
        .args(
            of_template
                .map(|option| option.requires("source").conflicts_with_all(["bundle", "config"])),
        )
        .args(image::of_run())
        .arg(image::program())
}

fn start() -> Command {
    verb("start", "executes the user defined process in a created container").arg(id())
}

fn exec() -> Command {
    verb("exec", "execute a process in a running container").arg(rest("CONTAINER-ID COMMAND")).args(
        [
            value("process", "FILE", "read the process, as in config.json, from this file")
                .short('p'),
            value("console-socket", "PATH", "a socket that receives the master of the terminal"),
            value("pidfd-socket", "PATH", "a socket that receives a pidfd of the process"),
            value("pid-file", "FILE", "write the pid of the process to this file"),
            value("cwd", "DIR", "the working directory in the container"),
            list_of("env", "NAME=VALUE", "set a variable").short('e'),
            switch("tty", "give it a terminal").short('t'),
            value("user", "UID[:GID]", "run as this user").short('u'),
            list_of("additional-gids", "GID", "a further group").short('g'),
            switch("detach", "do not wait for it to end").short('d'),
            value("process-label", "LABEL", "the SELinux label"),
            value("apparmor", "PROFILE", "the AppArmor profile"),
            switch("no-new-privs", "it cannot gain privileges"),
            list_of("cap", "NAME", "a further capability").short('c'),
            list_of("cgroup", "[CONTROLLER,...:]PATH", "run in a cgroup below the container's"),
            switch("ignore-paused", "wait for a paused container to be resumed"),
            value("preserve-fds", "N", "pass on this many descriptors, from 3 on"),
        ],
    )
}

fn kill() -> Command {
    verb("kill", "send the specified signal (default: SIGTERM) to the container's init process")
        .arg(rest("CONTAINER-ID [SIGNAL]"))
        .arg(switch("all", "succeed also if it has ended").short('a'))
}

fn delete() -> Command {
    verb("delete", "delete any resources held by the container")
        .arg(id())
        .arg(switch("force", "kill it first; succeed also if there is none").short('f'))
}

fn list() -> Command {
    verb("list", "list containers").args([
        value("format", "FORMAT", "table or json").short('f').default_value("table"),
        switch("quiet", "print ids only").short('q'),
    ])
}

fn ps() -> Command {
    verb("ps", "display the processes running inside a container")
        .arg(rest("CONTAINER-ID [PS-OPTION]..."))
        .arg(value("format", "FORMAT", "table or json").short('f').default_value("table"))
}

fn state() -> Command {
    verb("state", "output the state of a container").arg(id())
}

fn pause() -> Command {
    verb("pause", "suspend all processes inside the container").arg(id())
}

fn resume() -> Command {
    verb("resume", "resume all processes that have been paused").arg(id())
}

fn update() -> Command {
    let mut command = verb("update", "update container resource constraints").arg(id()).args([
        value("resources", "FILE", "read linux.resources as JSON from this file, or - for standard input; no other option counts then")
            .short('r'),
    ]);
    for limit in crate::commands::update::LIMITS {
        command = command.arg(value(limit.name, limit.unit, limit.help));
    }
    command
}

fn events() -> Command {
    verb(
        "events",
        "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
    )
    .arg(id())
    .args([
        switch("stats", "print the usage once"),
        value("interval", "TIME", "print the usage this often, such as 5s or 100ms")
            .default_value("5s"),
    ])
}

fn spec() -> Command {
    verb("spec", "create a new specification file").args([
        value("bundle", "DIR", "where to put config.json; the current directory if not given")
            .short('b'),
        switch("rootless", "for an ordinary user"),
    ])
}

/// What checkpoint and restore have in common.
fn with_criu(command: Command) -> Command {
    command.arg(id()).args([
        value("image-path", "DIR", "the directory of the images; ./checkpoint if not given"),
        value("work-path", "DIR", "where CRIU works and puts its log"),
        switch("tcp-established", "allow open TCP connections"),
        switch("tcp-close", "close open TCP connections"),
        switch("ext-unix-sk", "allow unix sockets that are connected to others outside"),
        switch("shell-job", "allow a session and a terminal from outside"),
        switch("lazy-pages", "move memory when it is touched"),
        switch("file-locks", "allow file locks"),
        switch("auto-dedup", "free images of memory that are not needed any more"),
        value("manage-cgroups-mode", "MODE", "soft, full, strict or ignore"),
        value("network-lock", "METHOD", "iptables, nftables or skip"),
        list_of("empty-ns", "NAMESPACE", "leave out what is in it: network"),
    ])
}

fn checkpoint() -> Command {
    with_criu(verb("checkpoint", "checkpoint a running container")).args([
        value("parent-path", "DIR", "images of a pre-dump, relative to the image path"),
        switch("pre-dump", "write memory only, and let the container run"),
        switch("leave-running", "let the container run on"),
        switch("tcp-skip-in-flight", "leave out connections that are being made"),
        switch("link-remap", "allow files that have been removed"),
        value("page-server", "ADDRESS:PORT", "send memory to a page server"),
        value("status-fd", "N", "gets a zero byte when lazy pages can be asked for")
            .default_value("-1"),
    ])
}

fn restore() -> Command {
    bundled(with_criu(verb("restore", "restore a container from a previous checkpoint"))).args([
        switch("detach", "do not wait for it to end").short('d'),
        switch("no-subreaper", "do not become the parent of it"),
        switch("no-pivot", "has no effect"),
        value("lsm-profile", "TYPE:NAME", "another AppArmor profile or SELinux label"),
        value("lsm-mount-context", "CONTEXT", "another SELinux context of the mounts"),
    ])
}

fn features() -> Command {
    verb("features", "show the enabled features")
}

fn explain() -> Command {
    verb("explain", "tell what a container can reach and how it is made, without making it")
        .arg(
            Arg::new("bundle")
                .value_name("BUNDLE")
                .help("the directory with config.json; the current one if not given")
                .value_parser(clap::value_parser!(PathBuf)),
        )
        .arg(value("format", "FORMAT", "text or json").short('f').default_value("text"))
}

fn doctor() -> Command {
    verb("doctor", "tell what this machine can do for containers, and how to get what is missing")
        .arg(value("format", "FORMAT", "text or json").short('f').default_value("text"))
}

fn plugin() -> Command {
    verb("plugin", "look at plugins, try them without a container, compile them")
        .arg(rest("VERB").help("inspect, check, list, run, record, replay, bench or help"))
}

fn completion() -> Command {
    verb("completion", "print a completion script for a shell")
        .arg(Arg::new("shell").value_name("SHELL").required(true).help("bash, zsh, fish or elvish"))
}

fn man() -> Command {
    verb("man", "write the manual's pages").arg(
        Arg::new("directory")
            .value_name("DIR")
            .required(true)
            .help("where to write them")
            .value_parser(clap::value_parser!(PathBuf)),
    )
}

fn help() -> Command {
    verb("help", "show a list of commands or help for one command")
        .arg(Arg::new("verb").value_name("COMMAND").help("the command").num_args(0..))
}

/// Options before the verb.
pub struct Global {
    pub root: Option<PathBuf>,
    pub log: Option<PathBuf>,
    pub json: bool,
    pub debug: bool,
    pub manager: Manager,
    pub plugins: Option<PathBuf>,
}

impl Global {
    pub fn read(matches: &ArgMatches) -> Result<Global, Failure> {
        let json = match text(matches, "log-format") {
            Some("text") | None => false,
            Some("json") => true,
            Some(other) => return Err(Failure::of(format!("invalid log-format: {other}"))),
        };
        let manager = match text(matches, "cgroup-manager") {
            Some("systemd") => Manager::Systemd,
            Some("disabled") => Manager::None,
            Some("cgroupfs") => Manager::Cgroupfs,
            Some(other) => return Err(Failure::of(format!("invalid cgroup-manager: {other}"))),
            None if matches.get_flag("systemd-cgroup") => Manager::Systemd,
            None => Manager::Cgroupfs,
        };
        Ok(Global {
            root: path(matches, "root"),
            log: path(matches, "log"),
            json,
            debug: matches.get_flag("debug"),
            manager,
            plugins: matches.get_one::<OsString>("plugins").map(PathBuf::from),
        })
    }
}

/// The value of an option that is text.
pub fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<OsString>(name).and_then(|value| value.to_str())
}

/// The value of an option that is a path; an empty one is none.
pub fn path(matches: &ArgMatches, name: &str) -> Option<PathBuf> {
    matches.get_one::<OsString>(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The values of an option that may be given several times.
pub fn texts<'a>(matches: &'a ArgMatches, name: &str) -> impl Iterator<Item = &'a str> {
    matches.get_many::<OsString>(name).into_iter().flatten().filter_map(|value| value.to_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verbs_for(words: &str) -> Vec<String> {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        let command = command_for("locule", &words);
        command.get_subcommands().map(|verb| verb.get_name().to_owned()).collect()
    }

    #[test]
    fn a_value_that_is_a_verbs_name_is_not_taken_for_the_verb() {
        for words in ["--root create state x", "-root create state x", "--debug state x"] {
            assert_eq!(verbs_for(words), ["state"], "{words}");
        }
        assert_eq!(verbs_for("--root=create state x"), ["state"]);
    }

    #[test]
    fn help_and_what_is_no_verb_see_all_of_them() {
        for words in ["--help", "-h state", "nonsense", ""] {
            assert_eq!(verbs_for(words).len(), VERBS.len(), "{words}");
        }
    }
}

//! The command line of `image`, and what `run --image` has of it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use super::{HELP_OF_ALL, list_of, switch, value, verb};

/// The verb with its own verbs.
pub fn image() -> Command {
    verb("image", "images: fetch them, keep them, make them, hand them on")
        .help_template(HELP_OF_ALL)
        .disable_help_subcommand(true)
        .subcommands([
            pull(),
            load(),
            import(),
            commit(),
            list(),
            inspect(),
            tag(),
            save(),
            push(),
            unpack(),
            remove(),
            prune(),
            inside("unpack-layers", &["digest", "ids"]),
            inside("unpack-tree", &["digest", "ids", "name"]),
            inside("pack-changes", &["upper", "compression", "ids"]),
            inside("remove-draft", &["draft"]),
        ])
}

/// A verb that the library has executed in a user namespace.
fn inside(name: &'static str, words: &[&'static str]) -> Command {
    let words = words.iter().map(|name| Arg::new(*name).required(true));
    let directory = Arg::new("directory").required(true);
    verb(name, "for the library alone")
        .hide(true)
        .arg(directory.value_parser(clap::value_parser!(PathBuf)))
        .args(words)
}

/// Where images are kept.
pub fn stored() -> [Arg; 2] {
    [
        value("store", "DIR", "where images are kept; LOCULE_IMAGES, or the user's, if not given"),
        switch("read-only-store", "change nothing there; root may so use another user's"),
    ]
}

/// How a registry is reached.
pub fn reaching() -> [Arg; 3] {
    [
        value("authfile", "FILE", "where credentials are; the usual places if not given"),
        value("cacert", "FILE", "certificates in PEM to trust beside the system's"),
        value("registries", "FILE", "mirrors and policy; /etc/locule/registries.json if not given"),
    ]
}

pub fn platform() -> Arg {
    value("platform", "OS/ARCH[/VARIANT]", "which image of several; this machine's if not given")
}

pub fn progress() -> Arg {
    value("progress", "FORM", "on standard error: bar, json, none, or auto: bar at a terminal")
}

/// A verb of an image that may take long: how it is watched, when it ends.
fn long(name: &'static str, about: &'static str) -> Command {
    short(name, about).args([
        progress(),
        switch("quiet", "the same as --progress none").short('q'),
        timeout(),
    ])
}

/// The same, which tells of an image in the end.
fn telling(name: &'static str, about: &'static str) -> Command {
    long(name, about).arg(format("text"))
}

fn timeout() -> Arg {
    value("timeout", "TIME", "how long it may take, such as 90s or 5m")
}

fn short(name: &'static str, about: &'static str) -> Command {
    verb(name, about).args(stored())
}

fn format(default: &'static str) -> Arg {
    let help = if default == "text" { "text or json" } else { "table or json" };
    value("format", "FORMAT", help).short('f').default_value(default)
}

fn word(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(what).required(true).help(help)
}

fn place(name: &'static str, what: &'static str, help: &'static str) -> Arg {
    word(name, what, help).value_parser(clap::value_parser!(PathBuf))
}

fn image_name() -> Arg {
    word("image", "NAME", "the image: its name, or the first 12 digits of its digest or more")
}

/// Everything about a registry.
fn registry(command: Command) -> Command {
    command.args(reaching()).args([
        value("creds", "USER[:PASSWORD]", "the user; others of the machine see the password"),
        switch("password-stdin", "read the password from standard input").requires("creds"),
    ])
}

fn taking(command: Command) -> Command {
    command
        .args([platform(), value("name", "NAME", "what it is called here; as there if not given")])
}

fn making(command: Command) -> Command {
    command.args([
        value("compression", "FORM", "of the new layer: gzip, zstd or none").default_value("gzip"),
        list_of("config", "KEY=VALUE|JSON", "change the image's config, such as Cmd=[\"sh\"]")
            .short('c'),
        value("author", "TEXT", "who made it"),
        value("message", "TEXT", "a remark for its history").short('m'),
        value("created", "TIME", "when it was made, in RFC 3339; its newest file's if not given"),
    ])
}

fn pull() -> Command {
    let command = telling("pull", "fetch an image from a registry").arg(word(
        "reference",
        "REFERENCE",
        "where it is, such as alpine or registry.example/team/app:1.2",
    ));
    registry(taking(command))
}

fn load() -> Command {
    taking(telling("load", "take an image from an OCI layout or a docker-archive"))
        .arg(place("path", "PATH", "a directory or a tar file"))
        .arg(value("from", "NAME", "which image of several, by its name there"))
}

fn import() -> Command {
    making(telling("import", "make an image of a root filesystem"))
        .arg(place("path", "PATH", "a directory or a tar file"))
        .arg(word("name", "NAME", "what it is called").required(false))
}

fn commit() -> Command {
    making(telling("commit", "make an image of what a stopped container has changed"))
        .arg(word("container", "CONTAINER-ID", "created with --changes"))
        .arg(word("name", "NAME", "what it is called").required(false))
}

fn save() -> Command {
    telling("save", "write an image to an OCI layout").args([
        image_name(),
        place(
            "path",
            "PATH",
            "a tar file if it ends with .tar, else a directory, which is added to",
        ),
        value("name", "NAME", "what it is called there; as here if not given"),
    ])
}

fn push() -> Command {
    registry(telling("push", "send an image to a registry")).args([
        image_name(),
        word("reference", "REFERENCE", "where to; NAME if not given").required(false),
    ])
}

fn list() -> Command {
    short("list", "list images")
        .arg(format("table"))
        .arg(switch("quiet", "print digests only").short('q'))
}

fn inspect() -> Command {
    short("inspect", "print all about an image, as JSON").arg(image_name())
}

fn tag() -> Command {
    short("tag", "give an image a further name")
        .args([image_name(), word("new", "NEW", "the name; whatever image has it loses it")])
}

const MAP: &str = "INSIDE:OUTSIDE:COUNT";

fn uid_map() -> Arg {
    list_of("uid-map", MAP, "which users of this machine are the image's, from which on")
}

fn gid_map() -> Arg {
    list_of("gid-map", MAP, "the same for groups")
}

fn unpack() -> Command {
    long("unpack", "write an image's files to a directory").args([
        image_name(),
        place("dir", "DIR", "a new or empty directory"),
        value("owner", "WHO", "whose the files are: image, caller, or auto: image for root")
            .conflicts_with_all(["uid-map", "gid-map"]),
        uid_map(),
        gid_map(),
        value("max-entries", "N", "the most entries of a layer"),
        value("max-bytes", "BYTES", "the most bytes of a layer, such as 10g"),
        value("max-ratio", "N", "how many times larger than compressed a layer may be"),
    ])
}

fn remove() -> Command {
    short("remove", "take names away; a digest takes an image away with all its names")
        .arg(word("name", "NAME", "a name or a digest").action(ArgAction::Append).num_args(1..))
}

fn prune() -> Command {
    short("prune", "remove images without a name, and what no image and no container needs")
        .arg(format("text"))
        .arg(switch("all", "images that no container uses, too, named or not").short('a'))
        .arg(timeout())
}

/// What `run` has for images alone.
pub fn of_run() -> Vec<Arg> {
    let mut options = vec![
        value("pull", "WHEN", "with --image: missing, always or never"),
        value("entrypoint", "WORD|JSON", "with --image: in place of the image's; empty for none"),
        switch("clear-env", "with --image: leave the image's variables out"),
        list_of("annotation", "KEY=VALUE", "with --image: a further annotation"),
        value("stop-signal", "SIGNAL", "with --image: an annotation, for who asks it to end"),
        value("changes", "DIR", "with --image: keep its changes to the root here"),
        switch("no-overlay", "with --image: the root is a copy of the image's files")
            .conflicts_with("changes"),
        value("patch", "JSON", "with --image: merge this into its config.json, last"),
        uid_map(),
        gid_map(),
        platform(),
        progress(),
    ];
    options.extend(stored());
    options.extend(reaching());
    let alone =
        |option: Arg| option.requires("image").conflicts_with_all(["rootfs", "bundle", "config"]);
    options.into_iter().map(alone).collect()
}

/// The program of a container without a bundle.
pub fn program() -> Arg {
    Arg::new("program")
        .value_name("PROGRAM")
        .help("without a bundle: the program and its arguments, or an image's arguments, after --")
        .last(true)
        .num_args(0..)
        .requires("source")
        .value_parser(clap::value_parser!(OsString))
        .allow_hyphen_values(true)
}

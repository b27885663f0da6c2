//! The grammar of runc's options, made into one that clap reads: long options may have one dash,
//! values may begin with one, the last of several counts, a switch may be set to `false`, and
//! some verbs read no options after the container's id.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, Command};

use crate::failure::Failure;

/// Verbs whose words after the first, an id or another verb, are somebody else's.
const END_AT_ID: [&str; 4] = ["exec", "kill", "ps", "plugin"];

/// The same words, so that each option is `--name` or `--name=value`.
pub fn canonical(command: &mut Command, words: &[OsString]) -> Result<Vec<OsString>, Failure> {
    command.build();
    let mut current = &*command;
    let mut made: Vec<OsString> = vec![command.get_name().into()];
    let mut words = words.iter();
    let mut positionals = 0;
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            made.push(word.clone());
            made.extend(words.cloned());
            break;
        }
        let option = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"));
        let Some(option) = option.filter(|option| !option.is_empty()) else {
            let verb = if current.has_subcommands() { current.find_subcommand(word) } else { None };
            if let Some(verb) = verb {
                (current, positionals) = (verb, 0);
                made.push(word.clone());
                continue;
            }
            if current.has_subcommands() {
                return Err(Failure::unknown_verb(word));
            }
            positionals += 1;
            if positionals == 1 && END_AT_ID.contains(&current.get_name()) {
                made.extend([OsString::from("--"), word.clone()]);
                made.extend(words.cloned());
                break;
            }
            made.push(word.clone());
            continue;
        };
        let (name, value) = match option.iter().position(|&byte| byte == b'=') {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (option, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let Some(known) = find(current, &name) else {
            return Err(Failure::bad_usage(format!("flag provided but not defined: -{name}")));
        };
        let long = known.get_long().unwrap_or(&name).to_owned();
        let mut text = OsString::from(format!("--{long}"));
        if takes_value(known) {
            let value = match value {
                Some(value) => OsString::from_vec(value.to_vec()),
                None => words.next().cloned().ok_or_else(|| {
                    let dashes = if name.len() > 1 { "--" } else { "-" };
                    Failure::bad_usage(format!("flag needs an argument: {dashes}{name}"))
                })?,
            };
            text.push("=");
            text.push(value);
        } else if !switched_on(value)
            .ok_or_else(|| Failure::bad_usage(format!("--{long} is true or false")))?
        {
            continue;
        }
        made.push(text);
    }
    Ok(made)
}

/// An option by its name or its letter.
pub fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let mut letters = name.chars();
    let letter = letters.next().filter(|_| letters.next().is_none());
    command.get_arguments().find(|argument| {
        argument.get_long_and_visible_aliases().is_some_and(|all| all.contains(&name))
            || argument.get_all_aliases().is_some_and(|all| all.contains(&name))
            || letter.is_some() && argument.get_short() == letter
    })
}

/// Whether what follows it is its value.
pub fn takes_value(argument: &Arg) -> bool {
    matches!(argument.get_action(), ArgAction::Set | ArgAction::Append)
}

/// As Go reads a switch.
fn switched_on(value: Option<&[u8]>) -> Option<bool> {
    match value.map(OsStr::from_bytes).map(OsStr::to_str) {
        None => Some(true),
        Some(Some("1" | "t" | "T" | "true" | "TRUE" | "True")) => Some(true),
        Some(Some("0" | "f" | "F" | "false" | "FALSE" | "False")) => Some(false),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> String {
        let words: Vec<OsString> = words.split_whitespace().map(OsString::from).collect();
        match canonical(&mut crate::arguments::command("locule"), &words) {
            Ok(words) => words.join(OsStr::new(" ")).into_string().expect("text"),
            Err(failure) => failure.message().to_owned(),
        }
    }

    #[test]
    fn every_way_to_write_an_option_is_one() {
        assert_eq!(of("-root /r create -b /x id"), "locule --root=/r create --bundle=/x id");
        assert_eq!(of("--root=/r create --bundle=/x id"), "locule --root=/r create --bundle=/x id");
        assert_eq!(of("run -no-subreaper id"), "locule run --no-subreaper id");
    }

    #[test]
    fn verbs_may_have_verbs() {
        assert_eq!(of("image -store /s"), "flag provided but not defined: -store");
        assert_eq!(of("image pull -store /s a"), "locule image pull --store=/s a");
        assert_eq!(of("image save a b.tar -q"), "locule image save a b.tar --quiet");
        assert_eq!(of("image nonsense"), "No help topic for 'nonsense'");
    }

    #[test]
    fn values_may_begin_with_a_dash() {
        assert_eq!(of("update --memory -1 id"), "locule update --memory=-1 id");
    }

    #[test]
    fn what_follows_the_id_of_exec_is_the_programs() {
        assert_eq!(of("exec -t id ls -la --cwd /"), "locule exec --tty -- id ls -la --cwd /");
        assert_eq!(of("kill -a id 9"), "locule kill --all -- id 9");
    }

    #[test]
    fn switches_can_be_switched_off() {
        assert_eq!(of("run --detach=false id"), "locule run id");
        assert_eq!(of("run --detach=true id"), "locule run --detach id");
        assert_eq!(of("run --detach=perhaps id"), "--detach is true or false");
    }

    #[test]
    fn what_is_missing_or_unknown_is_said_in_the_words_that_are_looked_for() {
        assert_eq!(of("update --memory"), "flag needs an argument: --memory");
        assert_eq!(of("create --nonsense id"), "flag provided but not defined: -nonsense");
        assert_eq!(of("nonsense"), "No help topic for 'nonsense'");
    }
}

//! What a failed command says and exits with. Callers look for these words: see the tests of the
//! engines and of runc that are run against this program.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use locule::{Category, Stage};

/// Why the command fails.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
    /// Whether the message is meant for the log: usage errors are not.
    logged: bool,
}

impl Failure {
    pub fn of(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 1, logged: true }
    }

    /// The same, with another exit code.
    pub fn with_code(mut self, code: u8) -> Failure {
        self.code = code;
        self
    }

    /// Puts words in front.
    pub fn context(mut self, words: impl std::fmt::Display) -> Failure {
        self.message = format!("{words}: {}", self.message);
        self
    }

    /// For the one who looks at it, and not for the log.
    pub fn plain(mut self) -> Failure {
        self.logged = false;
        self
    }

    pub fn usage(error: clap::Error) -> Failure {
        if error.exit_code() == 0 {
            // Help is no failure.
            return match crate::output::text(&error) {
                Ok(()) => Failure::silent(0),
                Err(error) => error.into(),
            };
        }
        Failure { message: error.to_string().trim_end().to_owned(), code: 1, logged: false }
    }

    /// Nothing is said.
    fn silent(code: u8) -> Failure {
        Failure { message: String::new(), code, logged: false }
    }

    pub fn bad_usage(message: String) -> Failure {
        Failure { message, code: 1, logged: false }
    }

    pub fn unknown_verb(verb: &OsStr) -> Failure {
        let message = format!("No help topic for '{}'", verb.to_string_lossy());
        Failure { message, code: 3, logged: false }
    }

    #[cfg(test)]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Says it where it is looked for, and gives the exit code.
    pub fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            match self.logged {
                true => crate::log::error(&self.message),
                // Nobody may look any more.
                false => drop(writeln!(std::io::stderr(), "{}", self.message)),
            }
        }
        ExitCode::from(self.code)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<locule::Error> for Failure {
    fn from(error: locule::Error) -> Failure {
        // What engines look for when a container is gone.
        if error.category() == Category::NotFound && error.stage() == Stage::State {
            return Failure::of("container does not exist");
        }
        let mut text = error.messages().collect::<Vec<_>>().join(": ");
        if let Some(errno) = error.errno() {
            let words = words_of(errno);
            if !text.to_lowercase().ends_with(&words) {
                text = format!("{text}: {words}");
            }
        }
        if let Some(pointer) = error.pointer() {
            text = match hook_of(pointer) {
                Some((kind, index)) => format!("error running {kind} hook #{index}: {text}"),
                None => format!("{text} (at {pointer})"),
            };
        }
        if error.step().is_some() {
            text = format!("error during container init: {text}");
        }
        // No engine looks for words here, and people need them.
        if error.stage() == Stage::Image {
            if let Some(advice) = error.advice() {
                text = format!("{text} ({advice})");
            }
        }
        Failure::of(text)
    }
}

/// What a program would say itself that could not be executed after all: as the kernel finds out
/// only when it tries that its interpreter is missing.
pub fn of_program(error: locule::Error) -> Failure {
    let about_args = error.pointer().is_some_and(|pointer| pointer.ends_with("/args"));
    let name = error.messages().last().and_then(|text| text.strip_prefix("exec: \""));
    let Some(name) = name.and_then(|name| name.strip_suffix('"')).filter(|_| about_args) else {
        return error.into();
    };
    let words = words_of(error.errno().unwrap_or_default());
    Failure::of(format!("exec {name}: {words}"))
}

/// Go's words for an error number, which callers look for: those of the C library in lower case.
fn words_of(errno: i32) -> String {
    let words = std::io::Error::from_raw_os_error(errno).to_string();
    words.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// The kind and the index of the hook that a pointer is about.
fn hook_of(pointer: &str) -> Option<(&str, &str)> {
    let (kind, index) = pointer.strip_prefix("/hooks/")?.split_once('/')?;
    Some((kind, index.split('/').next()?))
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            // Who reads standard output has had enough: the signal ends other programs, and says nothing.
            ErrorKind::BrokenPipe => Failure::silent(128 + libc::SIGPIPE as u8),
            _ => Failure::of(error.to_string()),
        }
    }
}

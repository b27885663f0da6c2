//! What a failed command says and exits with. Callers look for these words: see the tests of the
//! engines and of runc that are run against this program.

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::Command;
use locule::Category;

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

    pub fn usage(error: clap::Error) -> Failure {
        if error.exit_code() == 0 {
            // Help is no failure.
            print!("{error}");
            return Failure { message: String::new(), code: 0, logged: false };
        }
        Failure { message: error.to_string().trim_end().to_owned(), code: 1, logged: false }
    }

    pub fn bad_usage(command: &Command, message: String) -> Failure {
        let _ = command;
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
                false => eprintln!("{}", self.message),
            }
        }
        ExitCode::from(self.code)
    }
}

impl From<locule::Error> for Failure {
    fn from(error: locule::Error) -> Failure {
        let text = match error.category() {
            // What engines look for when a container is gone.
            Category::NotFound if error.stage() == locule::Stage::State => {
                "container does not exist".to_owned()
            }
            _ => error.to_string(),
        };
        Failure::of(text)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::of(error.to_string())
    }
}

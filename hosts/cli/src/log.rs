//! `--log`, `--log-format` and `--debug`. Whoever calls this program parses what it writes: one
//! line for an error, nothing for success.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber, span};

use crate::arguments::Global;
use crate::failure::Failure;

struct Log {
    file: Option<Mutex<File>>,
    json: bool,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// From now on errors go where these options want them, and warnings to whoever looks on.
pub fn open(global: &Global, verb: &str) -> Result<(), Failure> {
    let file = match &global.log {
        Some(path) => {
            let file = File::options().append(true).create(true).open(path);
            Some(file.map_err(|error| Failure::of(format!("open {}: {error}", path.display())))?)
        }
        None => None,
    };
    // Callers take what they find in the file for an error, and what some verbs print for a document.
    let told = matches!(verb, "create" | "run" | "exec" | "update") && file.is_none();
    let _ = LOG.set(Log { file: file.map(Mutex::new), json: global.json });
    let level = match (global.debug, told) {
        (true, _) => Level::DEBUG,
        (false, true) => Level::WARN,
        (false, false) => return Ok(()),
    };
    let _ = tracing::subscriber::set_global_default(Events(level));
    Ok(())
}

/// For `--debug`: the start of a process begins. With [`set_up`] these are the marks that readers of
/// runc's log look for.
pub fn setting_up() {
    tracing::debug!("nsexec container setup");
}

/// For `--debug`: the process has been set up; what it does is `next`.
pub fn set_up(next: &str) {
    tracing::debug!("child process in init()");
    tracing::debug!("{next}");
}

/// An error: to the log, and as plain text to standard error if that is not the log.
pub fn error(message: &str) {
    write("error", message);
    if LOG.get().is_some_and(|log| log.file.is_some()) {
        eprintln!("{message}");
    }
}

fn write(level: &str, message: &str) {
    let log = LOG.get();
    let time = humantime::format_rfc3339_seconds(SystemTime::now());
    let line = match log.is_some_and(|log| log.json) {
        true => json!({ "level": level, "msg": message, "time": time.to_string() }).to_string(),
        false => format!("time=\"{time}\" level={level} msg={}", quoted(message)),
    };
    let line = format!("{line}\n");
    match log.and_then(|log| log.file.as_ref()) {
        // In one piece, so that lines of several programs do not mix.
        Some(file) => {
            let _ = file.lock().unwrap_or_else(|e| e.into_inner()).write_all(line.as_bytes());
        }
        None => {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// As logrus quotes.
fn quoted(message: &str) -> String {
    let mut text = String::from("\"");
    for character in message.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// Hands what the library tells to the log.
struct Events(Level);

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let level = event.metadata().level().as_str().to_lowercase();
        write(if level == "warn" { "warning" } else { &level }, text.0.trim());
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write;
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

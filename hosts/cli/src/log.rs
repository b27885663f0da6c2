//! `--log`, `--log-format` and `--debug`. Whoever calls this program parses what it writes: one
//! line for an error, nothing for success.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::{Level, Metadata, Subscriber, span};

use crate::arguments::Global;
use crate::failure::Failure;

struct Log {
    sink: Option<Sink>,
    json: bool,
}

/// Where `--log` wants it.
enum Sink {
    File(Mutex<File>),
    /// A service of the machine's, and what this program is called there.
    Service(UnixDatagram, Service, String),
}

#[derive(Clone, Copy)]
enum Service {
    Journald,
    Syslog,
}

impl Sink {
    /// A file, which may have `file:` before its path, or `journald:NAME` or `syslog:NAME`.
    fn open(given: &Path) -> Result<Sink, Failure> {
        let text = given.to_string_lossy();
        let services = [
            ("journald:", Service::Journald, "/run/systemd/journal/socket"),
            ("syslog:", Service::Syslog, "/dev/log"),
        ];
        for (prefix, service, path) in services {
            let Some(name) = text.strip_prefix(prefix) else { continue };
            let failed = |error| Failure::of(format!("--log {text}: {path}: {error}"));
            let socket = UnixDatagram::unbound().map_err(failed)?;
            socket.connect(path).map_err(failed)?;
            let name = if name.is_empty() { "locule" } else { name };
            return Ok(Sink::Service(socket, service, name.to_owned()));
        }
        let path = text.strip_prefix("file:").map_or(given, Path::new);
        let file = File::options().append(true).create(true).open(path);
        let file =
            file.map_err(|error| Failure::of(format!("open {}: {error}", path.display())))?;
        Ok(Sink::File(Mutex::new(file)))
    }
}

static LOG: OnceLock<Log> = OnceLock::new();

/// From now on errors go where these options want them, and warnings to whoever looks on.
pub fn open(global: &Global, verb: &str) -> Result<(), Failure> {
    let sink = global.log.as_deref().map(Sink::open).transpose()?;
    // Callers take what they find in the file for an error, and what some verbs print for a document.
    let told = matches!(verb, "create" | "run" | "exec" | "update" | "image") && sink.is_none();
    let _ = LOG.set(Log { sink, json: global.json });
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
    if LOG.get().is_some_and(|log| log.sink.is_some()) {
        let _ = writeln!(std::io::stderr(), "{message}");
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
    match log.and_then(|log| log.sink.as_ref()) {
        // In one piece, so that lines of several programs do not mix.
        Some(Sink::File(file)) => {
            let _ = file.lock().unwrap_or_else(|e| e.into_inner()).write_all(line.as_bytes());
        }
        Some(Sink::Service(socket, service, name)) => {
            let _ = socket.send(&datagram(*service, name, level, message));
        }
        None => {
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

/// A message as systemd's native protocol or RFC 3164 has it.
fn datagram(service: Service, name: &str, level: &str, message: &str) -> Vec<u8> {
    let severity = match level {
        "error" => 3,
        "warning" => 4,
        "info" => 6,
        _ => 7,
    };
    match service {
        Service::Syslog => {
            let facility_of_daemons = 3 << 3;
            format!("<{}>{name}: {message}", facility_of_daemons | severity).into_bytes()
        }
        Service::Journald => {
            let mut text =
                format!("PRIORITY={severity}\nSYSLOG_IDENTIFIER={name}\nMESSAGE\n").into_bytes();
            // With its length, as it may have several lines.
            text.extend((message.len() as u64).to_le_bytes());
            text.extend(message.as_bytes());
            text.push(b'\n');
            text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_told_in_their_own_protocols() {
        let text = datagram(Service::Syslog, "box", "error", "no luck");
        assert_eq!(text, b"<27>box: no luck");
        let text = datagram(Service::Journald, "box", "warning", "a\nb");
        assert_eq!(text, b"PRIORITY=4\nSYSLOG_IDENTIFIER=box\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
    }

    #[test]
    fn a_file_may_be_named_as_one() {
        let path = std::env::temp_dir().join(format!("locule-log-{}", std::process::id()));
        let named = format!("file:{}", path.display());
        assert!(matches!(Sink::open(Path::new(&named)), Ok(Sink::File(_))));
        assert!(std::fs::remove_file(&path).is_ok());
    }
}

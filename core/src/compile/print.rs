//! Plans for people and as JSON.

use std::fmt::Write;

use locule_plan::{self, Document, Malformed, Step, Stream};
use serde_json::{Value, json};

use super::{Plan, Slot};
use crate::plugin::Change;

impl Plan {
    /// The plan for people: a line a step, with the JSON pointer it came from.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.visit(&mut |stream, steps| {
            if steps.is_empty() {
                return;
            }
            let _ = writeln!(text, "{}: {}", stream.name(), actor(stream));
            for step in steps {
                let mut line = format!("  {}", step.operation.name());
                step.operation.fields(&mut |name, value| {
                    if let Some(value) = brief(step.operation.name(), name, &value) {
                        let _ = write!(line, " {name}={value}");
                    }
                });
                if !step.pointer.is_empty() {
                    let _ = write!(line, "  ({})", step.pointer.to_string_lossy());
                }
                text.push_str(&line);
                text.push('\n');
            }
        });
        if !self.changes.is_empty() {
            text.push_str("plugins: what they have changed in the configuration\n");
            for change in &self.changes {
                let Change { plugin, adjustment, pointer, .. } = change;
                let value = |value: &Option<Value>| {
                    value.as_ref().map_or("nothing".to_owned(), Value::to_string)
                };
                let (before, after) = (value(&change.before), value(&change.after));
                let _ = writeln!(text, "  {plugin} {adjustment} {before} -> {after}  ({pointer})");
            }
        }
        if !self.slots.is_empty() {
            text.push_str("descriptors:\n");
            for (index, slot) in self.slots.iter().enumerate() {
                let _ = writeln!(text, "  {index}: {slot}");
            }
        }
        text
    }

    /// The plan as JSON: an object with an array of steps for each stream, and the
    /// descriptors that go with the plan.
    pub fn to_json(&self) -> Value {
        let mut document = serde_json::Map::new();
        self.visit(&mut |stream, steps| {
            let steps = steps.iter().map(|step| {
                let mut fields = serde_json::Map::new();
                step.operation.fields(&mut |name, value| {
                    fields.insert(name.to_owned(), full(&value));
                });
                json!({
                    "operation": step.operation.name(),
                    "pointer": step.pointer.to_string_lossy(),
                    "fields": fields,
                })
            });
            document.insert(stream.name().to_owned(), steps.collect());
        });
        let slots: Vec<_> = self.slots.iter().map(ToString::to_string).collect();
        document.insert("descriptors".to_owned(), json!(slots));
        if !self.changes.is_empty() {
            document.insert("changes".to_owned(), json!(self.changes));
        }
        document.into()
    }

    fn visit(&self, visitor: &mut dyn FnMut(Stream, &[Step<'_>])) {
        // The bytes are this crate's own work, so they decode.
        let Ok(document) = Document::parse(&self.bytes) else { return };
        for stream in Stream::ALL {
            let steps: Result<Vec<_>, Malformed> = document.stream(stream).collect();
            visitor(stream, &steps.unwrap_or_default());
        }
    }
}

fn actor(stream: Stream) -> &'static str {
    match stream {
        Stream::Launch => "the keeper, before it creates the process",
        Stream::Parent => "the keeper, while the process waits",
        Stream::Child => "the process, up to the gate",
        Stream::Start => "the process, once started",
        Stream::Hooks => "the keeper, at the checkpoint",
        Stream::Poststart => "the keeper, once the program runs",
        Stream::Cleanup => "the keeper, if the host dies",
    }
}

/// A value on one line, or nothing for one that says nothing.
fn brief(operation: &str, field: &str, value: &locule_plan::Value<'_>) -> Option<String> {
    use locule_plan::Value;
    const BITS: [&str; 13] = [
        "flags",
        "set",
        "clear",
        "recursive_set",
        "recursive_clear",
        "propagation",
        "kind",
        "kinds",
        "mask",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ];
    Some(match value {
        Value::Unsigned(0) | Value::Signed(0) => return None,
        Value::Unsigned(mode) if field == "mode" || operation == "Umask" => format!("{mode:#o}"),
        Value::Unsigned(bits) if BITS.contains(&field) => format!("{bits:#x}"),
        Value::Unsigned(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Text(text) if text.is_empty() => return None,
        Value::Text(text) => format!("{:?}", text.to_string_lossy()),
        Value::Bytes(bytes) => format!("<{} bytes>", bytes.len()),
        Value::List(list) if list.is_empty() => return None,
        Value::List(list) => {
            let entries: Vec<_> = list.iter().map(|entry| entry.to_string_lossy()).collect();
            format!("{entries:?}")
        }
        Value::Numbers(numbers) if numbers.is_empty() => return None,
        Value::Numbers(numbers) => format!("{:?}", numbers.iter().collect::<Vec<_>>()),
    })
}

fn full(value: &locule_plan::Value<'_>) -> Value {
    use locule_plan::Value;
    match value {
        Value::Unsigned(number) => json!(number),
        Value::Signed(number) => json!(number),
        Value::Text(text) => json!(text.to_string_lossy()),
        Value::Bytes(bytes) => json!({ "bytes": bytes.len() }),
        Value::List(list) => {
            json!(list.iter().map(|entry| entry.to_string_lossy()).collect::<Vec<_>>())
        }
        Value::Numbers(numbers) => json!(numbers.iter().collect::<Vec<_>>()),
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Slot::Stdio(number) => write!(f, "standard stream {number}"),
            Slot::Pass(index) => write!(f, "passed descriptor {}", index + 3),
            Slot::Namespace { path, .. } => write!(f, "namespace {}", path.display()),
            Slot::CgroupEntry(index) => write!(f, "way into cgroup {index}"),
            Slot::Listener => f.write_str("socket for the seccomp listener"),
            Slot::ResctrlTasks(index) => write!(f, "way into resctrl group {index}"),
            Slot::Init => f.write_str("pidfd of the container's first process"),
        }
    }
}

//! Places in a configuration: where a value is, by what it is known, and how to put another there.

use serde_json::{Map, Value};

use crate::spec::vocabulary;

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A member, by its path. What leads there is made if it is missing.
    Member(Vec<String>),
    /// The entry of a list that is known by a key; all of them, if there are several.
    Entry { list: Vec<String>, known: Known, key: String },
    /// A new entry at the end of a list. Others may add theirs.
    Added { list: Vec<String> },
}

/// What an entry of a list is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// An object, by a member that is text.
    Member(&'static str),
    /// An object, by a member that is a path in the container.
    PathMember(&'static str),
    /// Text of the form `key=...`.
    Variable,
    /// Text that is a path in the container.
    Path,
    /// Text that names a capability.
    Capability,
}

impl Known {
    /// Whether an entry is known by this key.
    fn by(self, key: &str, entry: &Value) -> bool {
        let text = match self {
            Known::Member(name) | Known::PathMember(name) => entry.get(name),
            Known::Variable | Known::Path | Known::Capability => Some(entry),
        };
        let Some(text) = text.and_then(Value::as_str) else { return false };
        match self {
            Known::Member(_) => text == key,
            Known::PathMember(_) | Known::Path => plain(text) == key,
            Known::Variable => text.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')),
            Known::Capability => capability(text) == Some(key),
        }
    }

    /// Whether an entry is nothing but its key, however it is spelt.
    fn is_all(self) -> bool {
        matches!(self, Known::Path | Known::Capability)
    }
}

/// A path in the container, spelt in the one way of many: `/data` for `data/` and `//data/.`.
pub(super) fn plain(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    format!("/{}", parts.collect::<Vec<_>>().join("/"))
}

/// The name of a capability as it is written, from how configurations may write it.
pub(super) fn capability(name: &str) -> Option<&'static str> {
    vocabulary::capability(name).map(|number| vocabulary::CAPABILITIES[number as usize].0)
}

/// A path of members, from text such as `/linux/resources`, whose names have no `~` and no `/`.
pub(super) fn path(text: &str) -> Vec<String> {
    text.split('/').skip(1).map(str::to_owned).collect()
}

/// A JSON pointer (RFC 6901).
fn pointer<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let escaped = |name: &String| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    names.into_iter().map(escaped).collect()
}

impl Place {
    /// How it is named: a JSON pointer, in which an entry of a list is named by its key.
    pub(super) fn pointer(&self) -> String {
        match self {
            Place::Member(path) => pointer(path),
            Place::Entry { list, key, .. } => pointer(list.iter().chain([key])),
            Place::Added { list } => pointer(list) + "/-",
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Place::Added { .. })
    }

    /// What is there; of several entries the last, which is the one that counts. `null` is
    /// nothing, as programs in Go write it.
    pub(super) fn get<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        let found = match self {
            Place::Member(path) => at(document, path),
            Place::Entry { .. } => self.entries(document).next_back(),
            Place::Added { .. } => None,
        };
        found.filter(|value| !value.is_null())
    }

    /// Whether this is there, and nothing else; with `None`, whether nothing is.
    pub(super) fn holds(&self, document: &Value, value: Option<&Value>) -> bool {
        match self {
            Place::Entry { known, .. } if value.is_some() && self.get(document).is_some() => {
                known.is_all() || self.entries(document).all(|entry| Some(entry) == value)
            }
            _ => self.get(document) == value,
        }
    }

    /// The entries that are meant.
    fn entries<'a>(&self, document: &'a Value) -> impl DoubleEndedIterator<Item = &'a Value> {
        let (list, known, key) = match self {
            Place::Entry { list, known, key } => (at(document, list), *known, key.as_str()),
            Place::Member(_) | Place::Added { .. } => (None, Known::Path, ""),
        };
        let all = list.and_then(Value::as_array).into_iter().flatten();
        all.filter(move |entry| known.by(key, entry))
    }

    /// Puts a value there, or takes away what is there. Fails if something on the way is neither
    /// an object nor a list, as it has to be; says what.
    pub(super) fn put(&self, document: &mut Value, value: Option<Value>) -> Result<(), String> {
        match self {
            Place::Member(path) => put_member(document, path, value),
            Place::Entry { list, known, key } => {
                if value.is_none() && at(document, list).is_none_or(Value::is_null) {
                    return Ok(());
                }
                let entries = make_list(document, list)?;
                // Where the last one was: of mounts the order matters.
                let last = entries.iter().rposition(|entry| known.by(key, entry));
                let after = last.map_or(0, |last| entries.len() - last - 1);
                entries.retain(|entry| !known.by(key, entry));
                if let Some(value) = value {
                    entries.insert(entries.len() - after, value);
                }
                Ok(())
            }
            Place::Added { list } => {
                make_list(document, list)?.extend(value);
                Ok(())
            }
        }
    }
}

/// The value at a path.
pub(super) fn at<'a>(document: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(document, |value, name| value.as_object()?.get(name))
}

fn put_member(document: &mut Value, path: &[String], value: Option<Value>) -> Result<(), String> {
    let Some((name, parents)) = path.split_last() else {
        *document = value.unwrap_or_default();
        return Ok(());
    };
    match value {
        Some(value) => {
            object(make(document, parents)?, parents)?.insert(name.clone(), value);
        }
        // Not made for the sake of removing something from it.
        None if at(document, parents).is_some_and(Value::is_object) => {
            object(make(document, parents)?, parents)?.shift_remove(name);
        }
        None => {}
    }
    Ok(())
}

/// The value at a path, `null` if it was missing; what leads there are objects.
fn make<'a>(document: &'a mut Value, path: &[String]) -> Result<&'a mut Value, String> {
    let mut value = document;
    for (depth, name) in path.iter().enumerate() {
        value = object(value, &path[..depth])?.entry(name.clone()).or_insert(Value::Null);
    }
    Ok(value)
}

/// The list at a path, made if it was missing.
fn make_list<'a>(document: &'a mut Value, path: &[String]) -> Result<&'a mut Vec<Value>, String> {
    let value = make(document, path)?;
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().ok_or_else(|| format!("{} is not an array", pointer(path)))
}

fn object<'a>(value: &'a mut Value, path: &[String]) -> Result<&'a mut Map<String, Value>, String> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or_else(|| format!("{} is not an object", pointer(path)))
}

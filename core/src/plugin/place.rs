//! Places in a configuration: where a value is, by what it is known, and how to put another there.

use serde_json::{Map, Value};

/// Where something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A member, by its path. What leads there is made if it is missing.
    Member(Vec<String>),
    /// The object of a list in which the member `by` is `key`.
    Element { list: Vec<String>, by: &'static str, key: String },
    /// The entry `key=...` of a list of texts.
    Variable { list: Vec<String>, key: String },
    /// A text in a list of texts.
    Word { list: Vec<String>, word: String },
    /// A new element at the end of a list. Nobody owns it: others may add theirs.
    Added { list: Vec<String> },
}

/// A path of members, from text such as `/linux/resources`, whose names have no `~` and no `/`.
pub(super) fn path(text: &str) -> Vec<String> {
    text.split('/').skip(1).map(str::to_owned).collect()
}

/// A JSON pointer (RFC 6901).
pub(super) fn pointer<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    let escaped = |name: &String| format!("/{}", name.replace('~', "~0").replace('/', "~1"));
    names.into_iter().map(escaped).collect()
}

impl Place {
    /// How it is named: a JSON pointer, in which an element of a list is named by its key.
    pub(super) fn pointer(&self) -> String {
        match self {
            Place::Member(path) => pointer(path),
            Place::Element { list, key, .. }
            | Place::Variable { list, key }
            | Place::Word { list, word: key } => pointer(list.iter().chain([key])),
            Place::Added { list } => pointer(list.iter().chain([&"-".to_owned()])),
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        matches!(self, Place::Added { .. })
    }

    /// What is there. `null` is nothing, as programs in Go write it.
    pub(super) fn get<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        let found = match self {
            Place::Member(path) => at(document, path),
            Place::Added { .. } => None,
            Place::Element { list, .. }
            | Place::Variable { list, .. }
            | Place::Word { list, .. } => {
                let entries = at(document, list)?.as_array()?;
                entries.iter().rev().find(|entry| self.is(entry))
            }
        };
        found.filter(|value| !value.is_null())
    }

    /// Whether an entry of the list is the one that is meant.
    fn is(&self, entry: &Value) -> bool {
        match self {
            Place::Element { by, key, .. } => entry.get(by).and_then(Value::as_str) == Some(key),
            Place::Variable { key, .. } => entry.as_str().is_some_and(|entry| {
                entry.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('='))
            }),
            Place::Word { word, .. } => entry.as_str() == Some(word),
            Place::Member(_) | Place::Added { .. } => false,
        }
    }

    /// Puts a value there, or takes away what is there. Fails if something on the way is neither
    /// an object nor a list, as it has to be; says what.
    pub(super) fn put(&self, document: &mut Value, value: Option<Value>) -> Result<(), String> {
        let (list, value) = match (self, value) {
            (Place::Member(path), value) => return put_member(document, path, value),
            (
                Place::Element { list, .. }
                | Place::Variable { list, .. }
                | Place::Word { list, .. }
                | Place::Added { list },
                value,
            ) => (list, value),
        };
        if value.is_none() && at(document, list).is_none_or(Value::is_null) {
            return Ok(());
        }
        let entries = make(document, list)?;
        if entries.is_null() {
            *entries = Value::Array(Vec::new());
        }
        let Some(entries) = entries.as_array_mut() else {
            return Err(format!("{} is not an array", pointer(list)));
        };
        match (entries.iter().rposition(|entry| self.is(entry)), value) {
            (Some(index), Some(value)) => entries[index] = value,
            (None, Some(value)) => entries.push(value),
            // All of them: of a variable or a mount there may be several.
            (Some(_), None) => entries.retain(|entry| !self.is(entry)),
            (None, None) => {}
        }
        Ok(())
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

fn object<'a>(value: &'a mut Value, path: &[String]) -> Result<&'a mut Map<String, Value>, String> {
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or_else(|| format!("{} is not an object", pointer(path)))
}

//! A JSON document in memory, and its conversion into typed values with exact pointers.
//!
//! Between text and types lies a small tree that borrows from the text. It is there because
//! the straight way loses what the runtime specification cares about: serde accepts an array
//! where an object belongs (`"user": []` would silently mean uid 0), refuses `null` where Go
//! programs write it for "absent", keeps the last of two equal keys, and forgets where in the
//! document it was.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::value::CowStrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::vocabulary::SCHEDULER_FLAG_NAMES;
use crate::error::{Category, Error, Result, Stage};

/// One JSON value.
#[derive(Debug, Clone)]
pub(super) enum Node<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// Reads a document. Syntax errors name line and column; duplicate keys are refused.
    pub(super) fn read(json: &'a [u8]) -> Result<Self> {
        // Editors do not show it.
        if json.starts_with(b"\xef\xbb\xbf") {
            return Err(refused("the document begins with a byte order mark".into()));
        }
        let text = std::str::from_utf8(json)
            .map_err(|e| refused(format!("the document is not UTF-8: {e}")))?;
        let node: Node = serde_json::from_str(text)
            .map_err(|e| refused(format!("the document is not valid JSON: {e}")))?;
        match node.duplicate() {
            None => Ok(node),
            Some(path) => Err(Fault { message: "the key appears twice".into(), path }.into()),
        }
    }

    /// Converts the document into a typed value; errors carry the pointer.
    pub(super) fn decode<T: de::Deserialize<'a>>(self) -> Result<T> {
        T::deserialize(self).map_err(Error::from)
    }

    /// A member of an object; `None` too if it is null or this is no object.
    pub(super) fn get(&self, name: &str) -> Option<&Node<'a>> {
        let Node::Object(members) = self else { return None };
        members.iter().find(|(key, _)| key == name).map(|(_, v)| v).filter(|v| !v.is_null())
    }

    /// As [`Node::get`], to change it.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Node<'a>> {
        let Node::Object(members) = self else { return None };
        members.iter_mut().find(|(key, _)| key == name).map(|(_, v)| v).filter(|v| !v.is_null())
    }

    /// Removes members of an object for which `unwanted` holds.
    pub(super) fn remove(&mut self, mut unwanted: impl FnMut(&str, &Node) -> bool) {
        if let Node::Object(members) = self {
            members.retain(|(key, value)| !unwanted(key, value));
        }
    }

    /// Adds a member to an object that has none of this name.
    pub(super) fn insert_missing(&mut self, name: &'static str, value: Node<'a>) {
        if self.get(name).is_none() {
            if let Node::Object(members) = self {
                members.retain(|(key, _)| key != name);
                members.push((Cow::Borrowed(name), value));
            }
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Node::Text(text) = self { Some(text) } else { None }
    }

    fn is_null(&self) -> bool {
        matches!(self, Node::Null)
    }

    /// The path to a key that appears twice in its object, innermost step first.
    fn duplicate(&self) -> Option<Vec<Step>> {
        match self {
            Node::Object(members) => {
                let twice = if members.len() <= 16 {
                    (1..members.len())
                        .find(|&i| members[..i].iter().any(|(key, _)| *key == members[i].0))
                } else {
                    let mut seen = HashSet::with_capacity(members.len());
                    members.iter().position(|(key, _)| !seen.insert(key.as_ref()))
                };
                if let Some(index) = twice {
                    return Some(vec![Step::Key(members[index].0.to_string())]);
                }
                members.iter().find_map(|(key, value)| {
                    let mut path = value.duplicate()?;
                    path.push(Step::Key(key.to_string()));
                    Some(path)
                })
            }
            Node::List(items) => items.iter().enumerate().find_map(|(index, item)| {
                let mut path = item.duplicate()?;
                path.push(Step::Index(index));
                Some(path)
            }),
            _ => None,
        }
    }

    fn unexpected(&self) -> Unexpected<'_> {
        match self {
            Node::Null => Unexpected::Other("null"),
            Node::Bool(value) => Unexpected::Bool(*value),
            Node::Unsigned(value) => Unexpected::Unsigned(*value),
            Node::Signed(value) => Unexpected::Signed(*value),
            Node::Float(value) => Unexpected::Float(*value),
            Node::Text(value) => Unexpected::Str(value),
            Node::List(_) => Unexpected::Seq,
            Node::Object(_) => Unexpected::Map,
        }
    }
}

fn refused(message: String) -> Error {
    Error::new(Category::Spec, Stage::Validate, message)
}

/// One step of a JSON pointer.
#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Index(usize),
}

/// Why a document does not have the type it should, and where: innermost step first.
#[derive(Debug)]
pub(super) struct Fault {
    message: String,
    path: Vec<Step>,
}

impl Fault {
    fn below(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Fault { message: message.to_string(), path: Vec::new() }
    }

    fn missing_field(field: &'static str) -> Self {
        Fault { message: format!("{field} is missing"), path: vec![Step::Key(field.into())] }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = expected.to_string();
        de::Error::custom(format_args!("expected {}, not {}", wanted(&expected), Found(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let of_specification = |name: &&'static str| {
            let mut names = SCHEDULER_FLAG_NAMES.iter();
            names.find(|(_, renamed)| renamed == name).map_or(*name, |(name, _)| name)
        };
        let expected: Vec<_> = expected.iter().map(of_specification).collect();
        de::Error::custom(format_args!("{variant:?} is none of {}", expected.join(", ")))
    }
}

/// What serde says is expected, in the words of JSON.
pub(crate) fn wanted(expected: &str) -> &str {
    match expected {
        "a sequence" => "an array",
        "a map" => "an object",
        "a boolean" => "true or false",
        "path string" => "a string",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "i32" | "i64" => "a whole number",
        "f64" => "a number",
        other => other,
    }
}

/// What was found, in the words of JSON.
struct Found<'a>(Unexpected<'a>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Bool(value) => write!(f, "{value}"),
            Unexpected::Unsigned(value) => write!(f, "{value}"),
            Unexpected::Signed(value) => write!(f, "{value}"),
            Unexpected::Float(value) => write!(f, "{value:?}"),
            Unexpected::Str(text) if text.chars().nth(60).is_some() => f.write_str("a string"),
            Unexpected::Str(text) => write!(f, "{text:?}"),
            Unexpected::Seq => f.write_str("an array"),
            Unexpected::Map => f.write_str("an object"),
            other => write!(f, "{other}"),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let mut pointer = String::new();
        for step in fault.path.iter().rev() {
            pointer.push('/');
            match step {
                Step::Key(key) => pointer.push_str(&escape(key)),
                Step::Index(index) => pointer.push_str(&index.to_string()),
            }
        }
        let error = refused(fault.message);
        if pointer.is_empty() { error } else { error.at(pointer) }
    }
}

/// An object key as a step of a JSON pointer (RFC 6901).
pub(super) fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

// ---- text to tree ---------------------------------------------------------------------------

impl<'de> de::Deserialize<'de> for Node<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Node::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Node::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Node::Unsigned(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Node::Signed(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Node::Float(value))
    }
    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Node::Text(Cow::Borrowed(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Node::Text(Cow::Owned(value.to_owned())))
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Key(key)) = access.next_key()? {
            members.push((key, access.next_value()?));
        }
        Ok(Node::Object(members))
    }
}

/// An object key, borrowed from the text where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> de::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object key")
            }
            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(value.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

// ---- tree to types --------------------------------------------------------------------------

/// No value of a `config.json` may hold a NUL: it would be cut off on its way to the kernel.
/// JSON can only write one as an escape, so borrowed text has none.
#[allow(clippy::ptr_arg)] // whether it is borrowed is the point
fn without_nul(text: &Cow<'_, str>) -> Result<(), Fault> {
    match text {
        Cow::Owned(text) if text.contains('\0') => {
            Err(de::Error::custom(format_args!("{text:?} contains a NUL character")))
        }
        _ => Ok(()),
    }
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self {
            Node::Null => visitor.visit_unit(),
            Node::Bool(value) => visitor.visit_bool(value),
            Node::Unsigned(value) => visitor.visit_u64(value),
            Node::Signed(value) => visitor.visit_i64(value),
            Node::Float(value) => visitor.visit_f64(value),
            Node::Text(text) => {
                without_nul(&text)?;
                match text {
                    Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
                    Cow::Owned(text) => visitor.visit_string(text),
                }
            }
            Node::List(items) => visitor.visit_seq(Items { items: items.into_iter(), index: 0 }),
            Node::Object(members) => {
                visitor.visit_map(Members { members: members.into_iter(), current: None })
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Node::Object(_) => self.deserialize_any(visitor),
            other => Err(de::Error::invalid_type(other.unexpected(), &"an object")),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self {
            Node::Text(text) => visitor.visit_enum(CowStrDeserializer::new(text)),
            other => Err(de::Error::invalid_type(other.unexpected(), &"a string")),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier
    }
}

struct Items<'a> {
    items: std::vec::IntoIter<Node<'a>>,
    index: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(item).map(Some).map_err(|fault| fault.below(Step::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Members<'a> {
    members: std::vec::IntoIter<(Cow<'a, str>, Node<'a>)>,
    current: Option<(Cow<'a, str>, Node<'a>)>,
}

impl<'de> de::MapAccess<'de> for Members<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        // A null member is an absent member: Go programs write nil slices and maps that way.
        let Some((key, value)) = self.members.find(|(_, value)| !value.is_null()) else {
            return Ok(None);
        };
        without_nul(&key)?;
        let name = key.clone();
        self.current = Some((key, value));
        seed.deserialize(CowStrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, value) = self.current.take().ok_or_else(|| -> Fault {
            de::Error::custom("a value was asked for before its key")
        })?;
        seed.deserialize(value).map_err(|fault| fault.below(Step::Key(key.into_owned())))
    }
}

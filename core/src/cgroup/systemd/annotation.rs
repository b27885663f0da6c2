//! Annotations that set properties of the container's unit: `org.systemd.property.NAME`, with a
//! value in GLib's text format, which has types: `'text'`, `true`, `uint64 5`, `['a', 'b']`. Pure.
//!
//! Whoever may set them decides what systemd does with the unit (CVE-2024-3154), so they are
//! listed in the features document, and a host can have them left alone.

use std::collections::HashMap;

use zvariant::{Array, ObjectPath, Signature, StructureBuilder, Value};

use super::property::Properties;
use crate::error::{Category, Error, Result, Stage};

/// What such an annotation's key begins with.
pub(crate) const PREFIX: &str = "org.systemd.property.";

/// Properties on which it depends that the unit is the container's, and is gone when that is.
const OURS: [&str; 10] = [
    "CollectMode",
    "Controller",
    "Delegate",
    "DelegateControllers",
    "DelegateSubgroup",
    "Description",
    "PIDFDs",
    "PIDs",
    "Slice",
    "User",
];

/// Brackets within brackets, further than which nothing sensible goes.
const DEPTH: u32 = 16;

/// Adds the properties that the annotations name.
pub(super) fn add(
    properties: &mut Properties,
    annotations: &HashMap<String, String>,
) -> Result<()> {
    let mut all: Vec<(&str, &str)> = annotations
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?, value.as_str())))
        .collect();
    all.sort_unstable();
    for (name, text) in all {
        let refuse =
            |message: String| Error::new(Category::Spec, Stage::Cgroup, message).at(pointer(name));
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(refuse(format!("{name:?} is not the name of a property")));
        }
        if OURS.contains(&name) {
            let message = format!("{name} of the container's unit is not for an annotation to set");
            return Err(refuse(message));
        }
        let value = parse(text).map_err(|why| {
            refuse(format!("the value {text:?} of {name} is wrong: {why}"))
                .hint("write text as 'text', numbers with their type: uint64 5")
        })?;
        // Unit files have seconds, the bus has microseconds.
        match name.strip_suffix("Sec").filter(|stem| stem.ends_with(|c: char| c.is_lowercase())) {
            Some(stem) => {
                let time = microseconds(&value)
                    .ok_or_else(|| refuse(format!("{name} is no number of seconds: {text:?}")))?;
                properties.set(&format!("{stem}USec"), time);
            }
            None => properties.set(name, value),
        }
    }
    Ok(())
}

/// The place of the annotation that set a property.
pub(super) fn pointer(name: &str) -> String {
    format!("/annotations/{}", format!("{PREFIX}{name}").replace('~', "~0").replace('/', "~1"))
}

fn microseconds(value: &Value<'_>) -> Option<u64> {
    const MILLION: u64 = 1_000_000;
    let whole = |seconds: i64| u64::try_from(seconds).ok()?.checked_mul(MILLION);
    match value {
        Value::U8(number) => whole((*number).into()),
        Value::U16(number) => whole((*number).into()),
        Value::U32(number) => whole((*number).into()),
        Value::U64(u64::MAX) => Some(u64::MAX),
        Value::U64(number) => number.checked_mul(MILLION),
        Value::I16(number) => whole((*number).into()),
        Value::I32(number) => whole((*number).into()),
        Value::I64(number) => whole(*number),
        Value::F64(number) if (0.0..1e12).contains(number) => {
            Some((number * MILLION as f64) as u64)
        }
        _ => None,
    }
}

/// Reads one value, and all of the text.
fn parse(text: &str) -> Result<Value<'static>, String> {
    let mut reader = Reader { rest: text };
    let value = reader.value(None, DEPTH)?;
    reader.skip_space();
    match reader.rest {
        "" => Ok(value),
        rest => Err(format!("there is more after the value: {rest:?}")),
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    /// A value, which has to be of the type `wanted` if that is known.
    fn value(&mut self, wanted: Option<&Signature>, depth: u32) -> Result<Value<'static>, String> {
        let depth = depth.checked_sub(1).ok_or("too many brackets within brackets")?;
        self.skip_space();
        let Some(first) = self.rest.chars().next() else { return Err("it is empty".to_owned()) };
        match first {
            '@' => {
                self.rest = &self.rest[1..];
                let text = self.word(|c| !c.is_whitespace());
                let own = Signature::try_from(text.as_str())
                    .map_err(|_| format!("{text:?} is not a type"))?;
                agree(wanted, &own)?;
                self.value(Some(&own), depth)
            }
            '\'' | '"' => {
                let text = self.quoted(first)?;
                string(text, wanted)
            }
            '[' => self.array(wanted, depth),
            '(' => self.tuple(wanted, depth),
            '<' => {
                self.take('<');
                agree(wanted, &Signature::Variant)?;
                let inner = self.value(None, depth)?;
                if !self.take('>') {
                    return Err("a > is missing".to_owned());
                }
                Ok(Value::Value(Box::new(inner)))
            }
            '0'..='9' | '+' | '-' | '.' => self.number(wanted),
            'a'..='z' => self.keyword(wanted, depth),
            other => Err(format!("no value begins with {other:?}")),
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut characters = self.rest[quote.len_utf8()..].chars();
        loop {
            match characters.next().ok_or("the closing quote is missing")? {
                c if c == quote => break,
                '\\' => text.push(match characters.next().ok_or("it ends in a backslash")? {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    c @ ('\\' | '\'' | '"') => c,
                    other => return Err(format!("\\{other} means nothing")),
                }),
                '\0' => return Err("a NUL character cannot be sent".to_owned()),
                c => text.push(c),
            }
        }
        self.rest = characters.as_str();
        Ok(text)
    }

    fn array(&mut self, wanted: Option<&Signature>, depth: u32) -> Result<Value<'static>, String> {
        let mut element = match wanted {
            None => None,
            Some(Signature::Array(child)) => Some(child.signature().clone()),
            Some(other) => return Err(format!("a list is not of the type {other}")),
        };
        self.take('[');
        let mut values = Vec::new();
        while !self.take(']') {
            if !values.is_empty() && !self.take(',') {
                return Err("a , or a ] is missing".to_owned());
            }
            let value = self.value(element.as_ref(), depth)?;
            element.get_or_insert_with(|| value.value_signature().clone());
            values.push(value);
        }
        let element = element.ok_or("an empty list needs its type before it: @as []")?;
        let mut array = Array::new(&element);
        for value in values {
            array.append(value).map_err(|error| error.to_string())?;
        }
        Ok(array.into())
    }

    fn tuple(&mut self, wanted: Option<&Signature>, depth: u32) -> Result<Value<'static>, String> {
        let wanted: Option<Vec<Signature>> = match wanted {
            None => None,
            Some(Signature::Structure(fields)) => Some(fields.iter().cloned().collect()),
            Some(other) => return Err(format!("a tuple is not of the type {other}")),
        };
        self.take('(');
        let mut fields = StructureBuilder::new();
        let mut count = 0;
        while !self.take(')') {
            if count > 0 && !self.take(',') {
                return Err("a , or a ) is missing".to_owned());
            }
            // The comma after the only element.
            if count > 0 && self.take(')') {
                break;
            }
            let field = wanted.as_ref().map(|all| all.get(count).ok_or("the tuple is too long"));
            fields.push_value(self.value(field.transpose()?, depth)?);
            count += 1;
        }
        if wanted.is_some_and(|all| all.len() != count) {
            return Err("the tuple is too short".to_owned());
        }
        fields.build().map(Value::from).map_err(|error| error.to_string())
    }

    fn keyword(
        &mut self,
        wanted: Option<&Signature>,
        depth: u32,
    ) -> Result<Value<'static>, String> {
        let word = self.word(|c| c.is_ascii_alphanumeric());
        let own = match word.as_str() {
            "true" | "false" => {
                agree(wanted, &Signature::Bool)?;
                return Ok(Value::Bool(word == "true"));
            }
            "boolean" => Signature::Bool,
            "byte" => Signature::U8,
            "int16" => Signature::I16,
            "uint16" => Signature::U16,
            "int32" => Signature::I32,
            "uint32" => Signature::U32,
            "int64" => Signature::I64,
            "uint64" => Signature::U64,
            "double" => Signature::F64,
            "string" => Signature::Str,
            "objectpath" => Signature::ObjectPath,
            "signature" => Signature::Signature,
            _ => return Err(format!("{word:?} is neither a type nor a value")),
        };
        agree(wanted, &own)?;
        self.value(Some(&own), depth)
    }

    fn number(&mut self, wanted: Option<&Signature>) -> Result<Value<'static>, String> {
        let text = self.word(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(&text)),
        };
        let hexadecimal = digits.strip_prefix("0x");
        let is_real = hexadecimal.is_none() && digits.contains(['.', 'e', 'E']);
        let wanted = match wanted {
            None if is_real => &Signature::F64,
            None => &Signature::I32,
            Some(wanted) => wanted,
        };
        let wrong = || format!("{text:?} is not a number of the type {wanted}");
        if *wanted == Signature::F64 {
            return text.parse().map(Value::F64).map_err(|_| wrong());
        }
        let magnitude = match hexadecimal {
            Some(digits) => i128::from_str_radix(digits, 16),
            None => digits.parse::<u64>().map(i128::from),
        };
        let number = magnitude.map_err(|_| wrong())? * if negative { -1 } else { 1 };
        let value = match wanted {
            Signature::U8 => number.try_into().map(Value::U8),
            Signature::I16 => number.try_into().map(Value::I16),
            Signature::U16 => number.try_into().map(Value::U16),
            Signature::I32 => number.try_into().map(Value::I32),
            Signature::U32 => number.try_into().map(Value::U32),
            Signature::I64 => number.try_into().map(Value::I64),
            Signature::U64 => number.try_into().map(Value::U64),
            _ => return Err(wrong()),
        };
        value.map_err(|_| wrong())
    }
}

fn string(text: String, wanted: Option<&Signature>) -> Result<Value<'static>, String> {
    match wanted {
        None | Some(Signature::Str) => Ok(Value::from(text)),
        Some(Signature::ObjectPath) => ObjectPath::try_from(text)
            .map(Value::from)
            .map_err(|_| "it is not the path of an object".to_owned()),
        Some(Signature::Signature) => Signature::try_from(text.as_str())
            .map(Value::Signature)
            .map_err(|_| format!("{text:?} is not a type")),
        Some(other) => Err(format!("text is not of the type {other}")),
    }
}

fn agree(wanted: Option<&Signature>, own: &Signature) -> Result<(), String> {
    match wanted {
        Some(wanted) if wanted != own => Err(format!("{own} stands where {wanted} has to")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let value = parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        format!("{}:{value}", value.value_signature())
    }

    #[test]
    fn values_have_the_types_of_the_text_format() {
        for (text, expected) in [
            ("'a b'", r#"s:"a b""#),
            (r#""it's""#, r#"s:"it's""#),
            ("true", "b:true"),
            (" 5 ", "i:5"),
            ("-5", "i:-5"),
            ("0x10", "i:16"),
            ("uint64 18446744073709551615", "t:uint64 18446744073709551615"),
            ("@t 5", "t:uint64 5"),
            ("byte 0x7f", "y:byte 0x7f"),
            ("1.5", "d:1.5"),
            ("['a', 'b']", r#"as:["a", "b"]"#),
            ("[uint32 1, 2]", "au:[uint32 1, 2]"),
            ("@as []", "as:@as []"),
            ("('a', 1)", r#"(si):("a", 1)"#),
            ("[('/dev/sda', uint64 5)]", r#"a(st):[("/dev/sda", uint64 5)]"#),
            ("<5>", "v:<5>"),
            ("(1,)", "(i):(1,)"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "abc",
            "'a",
            "[1, 'a']",
            "[]",
            "uint32 -1",
            "byte 256",
            "2147483648",
            "5 6",
            "(1",
            "@z 1",
            "@as 5",
            "uint32 'a'",
            "boolean 1",
            "nothing",
            "'\\q'",
            "1e",
            "--5",
            "0x",
            "[1 2]",
            "@(ii) (1)",
            "@(i) (1, 2)",
            "{'a': 1}",
            "<5",
            "'a\0'",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(10_000)).is_err());
    }

    fn added(key: &str, value: &str) -> Result<Properties> {
        let mut properties = Properties::default();
        let annotations = [(key.to_owned(), value.to_owned()), ("other".to_owned(), "x".into())];
        add(&mut properties, &annotations.into()).map(|()| properties)
    }

    #[test]
    fn seconds_become_microseconds() {
        for (key, value, name, expected) in [
            ("TimeoutStopSec", "uint32 3", "TimeoutStopUSec", 3_000_000),
            ("TimeoutStopSec", "1.5", "TimeoutStopUSec", 1_500_000),
            ("TimeoutStopUSec", "uint64 7", "TimeoutStopUSec", 7),
        ] {
            let properties = added(&format!("org.systemd.property.{key}"), value).unwrap();
            let value = properties.get(name).unwrap().try_clone().unwrap();
            assert_eq!(u64::try_from(value).unwrap(), expected);
        }
        assert!(added("org.systemd.property.TimeoutStopSec", "'3'").is_err());
        assert!(added("org.systemd.property.TimeoutStopSec", "-1").is_err());
    }

    #[test]
    fn a_wrong_name_and_a_property_of_ours_are_refused_with_their_place() {
        for (name, value) in
            [("PIDs", "[uint32 1]"), ("Slice", "'a.slice'"), ("a b", "1"), ("X", "1"), ("Foo", "x")]
        {
            let error = added(&format!("org.systemd.property.{name}"), value).unwrap_err();
            assert_eq!(error.category(), Category::Spec);
            assert_eq!(
                error.pointer(),
                Some(format!("/annotations/org.systemd.property.{name}").as_str())
            );
        }
    }
}

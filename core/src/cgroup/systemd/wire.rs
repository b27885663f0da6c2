//! D-Bus messages as bytes (D-Bus specification, "Message Protocol"). Pure.

use std::num::NonZeroU32;

use serde::Serialize;
use zvariant::serialized::{Context, Data};
use zvariant::{Endian, OwnedValue, Signature, Type, Value};

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// What comes before the header fields, with their length.
pub(super) const FIXED: usize = 16;

/// systemd sends no message that comes near this; the protocol would allow 128 MiB.
const MAX_SIZE: usize = 1 << 20;

/// The method that a call is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Method<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// The bytes of a method call.
pub(super) fn call<B: Serialize + Type>(
    method: Method<'_>,
    serial: NonZeroU32,
    body: &B,
) -> zvariant::Result<Vec<u8>> {
    let encoded = zvariant::to_bytes(Context::new_dbus(Endian::Little, 0), body)?;
    let mut bytes = vec![b'l', METHOD_CALL, 0, 1];
    bytes.extend((encoded.len() as u32).to_le_bytes());
    bytes.extend(serial.get().to_le_bytes());
    bytes.extend([0; 4]); // the length of the fields, once that is known
    field(&mut bytes, PATH, b'o', method.path);
    field(&mut bytes, DESTINATION, b's', method.destination);
    field(&mut bytes, INTERFACE, b's', method.interface);
    field(&mut bytes, MEMBER, b's', method.member);
    if !encoded.is_empty() {
        // Without the outermost parentheses, which are those of the Rust tuple.
        field(&mut bytes, SIGNATURE, b'g', &B::SIGNATURE.to_string_no_parens());
    }
    let fields = (bytes.len() - FIXED) as u32;
    bytes[12..FIXED].copy_from_slice(&fields.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend_from_slice(&encoded);
    Ok(bytes)
}

/// Adds a header field: a structure of its code and a variant that is a path, text or signature.
fn field(bytes: &mut Vec<u8>, code: u8, kind: u8, text: &str) {
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend([code, 1, kind, 0]);
    match kind {
        b'g' => bytes.push(text.len() as u8),
        _ => bytes.extend((text.len() as u32).to_le_bytes()),
    }
    bytes.extend(text.bytes());
    bytes.push(0);
}

/// A number of a message's beginning, in the byte order that the message has.
fn number(start: &[u8; FIXED], at: usize) -> Option<usize> {
    let bytes = start[at..at + 4].try_into().expect("four bytes");
    match start[0] {
        b'l' => Some(u32::from_le_bytes(bytes) as usize),
        b'B' => Some(u32::from_be_bytes(bytes) as usize),
        _ => None,
    }
}

/// How long the message is that begins with these [`FIXED`] bytes.
pub(super) fn size(start: &[u8; FIXED]) -> Option<usize> {
    let (body, fields) = (number(start, 4)?, number(start, 12)?);
    let size = FIXED.checked_add(fields.checked_next_multiple_of(8)?)?.checked_add(body)?;
    (size <= MAX_SIZE).then_some(size)
}

/// What a message is about.
#[derive(Debug, PartialEq)]
pub(super) enum Kind {
    /// The answer to the call with this serial.
    Return(u32),
    /// The refusal of the call with this serial: its name.
    Error(u32, String),
    /// The signal of this name.
    Signal(String),
    /// Anything else, which nobody asked for.
    Other,
}

/// A message that came in.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    body: Data<'static, 'static>,
    signature: Signature,
}

impl Message {
    /// Reads a whole message, as long as [`size`] says.
    pub(super) fn decode(bytes: &[u8]) -> zvariant::Result<Message> {
        let endian = if bytes[0] == b'B' { Endian::Big } else { Endian::Little };
        let start: &[u8; FIXED] = bytes.first_chunk().ok_or(zvariant::Error::OutOfBounds)?;
        let body_length = number(start, 4).ok_or(zvariant::Error::OutOfBounds)?;
        let fields = Data::new(&bytes[12..], Context::new_dbus(endian, 12));
        let fields: Vec<(u8, OwnedValue)> = fields.deserialize()?.0;

        let mut name = None;
        let mut member = None;
        let mut reply_to = 0;
        let mut signature = Signature::Unit;
        for (code, value) in fields {
            match (code, &*value) {
                (ERROR_NAME, Value::Str(text)) => name = Some(text.as_str().to_owned()),
                (MEMBER, Value::Str(text)) => member = Some(text.as_str().to_owned()),
                (REPLY_SERIAL, Value::U32(serial)) => reply_to = *serial,
                (SIGNATURE, Value::Signature(given)) => signature = given.clone(),
                _ => {}
            }
        }
        let kind = match (bytes[1], name, member) {
            (METHOD_RETURN, _, _) => Kind::Return(reply_to),
            (ERROR, Some(name), _) => Kind::Error(reply_to, name),
            (SIGNAL, _, Some(member)) => Kind::Signal(member),
            _ => Kind::Other,
        };
        let body = bytes.len().checked_sub(body_length);
        let body = bytes[body.ok_or(zvariant::Error::OutOfBounds)?..].to_vec();
        Ok(Message { kind, body: Data::new(body, Context::new_dbus(endian, 0)), signature })
    }

    /// The body, if it has this type.
    pub(super) fn body<'d, B>(&'d self) -> zvariant::Result<B>
    where
        B: serde::Deserialize<'d> + Type,
    {
        if self.signature.to_string_no_parens() != B::SIGNATURE.to_string_no_parens() {
            return Err(zvariant::Error::SignatureMismatch(
                self.signature.clone(),
                format!("`{}`", B::SIGNATURE),
            ));
        }
        Ok(self.body.deserialize()?.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method() -> Method<'static> {
        Method { destination: "a.b", path: "/a", interface: "a.b.C", member: "Do" }
    }

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let bytes = call(method(), NonZeroU32::new(7).unwrap(), &("ab", 5u32)).unwrap();
        assert_eq!(bytes[..4], [b'l', 1, 0, 1]);
        // "ab" is 4 + 3 bytes, and the number is aligned to 4.
        assert_eq!(bytes[4..12], [12, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(bytes.len(), size(bytes.first_chunk().unwrap()).unwrap());
        assert!(bytes.ends_with(&[2, 0, 0, 0, b'a', b'b', 0, 0, 5, 0, 0, 0]));
        assert!(bytes.windows(8).any(|part| part == [8, 1, b'g', 0, 2, b's', b'u', 0]));
    }

    #[test]
    fn a_message_of_the_other_byte_order_is_read_too() {
        let mut bytes = vec![b'B', 2, 0, 1, 0, 0, 0, 4, 0, 0, 0, 9, 0, 0, 0, 15];
        bytes.extend([REPLY_SERIAL, 1, b'u', 0, 0, 0, 0, 7, SIGNATURE, 1, b'g', 0, 1, b'u', 0, 0]);
        bytes.extend([0, 0, 1, 2]);
        assert_eq!(size(bytes.first_chunk().unwrap()), Some(bytes.len()));
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.kind, Kind::Return(7));
        assert_eq!(message.body::<u32>().unwrap(), 258);
        assert!(message.body::<&str>().is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(size(b"x\x02\0\x01\0\0\0\0\x01\0\0\0\0\0\0\0"), None);
        assert_eq!(size(b"l\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0"), None);
        assert!(Message::decode(b"l\x02\0\x01\xff\0\0\0\x01\0\0\0\0\0\0\0").is_err());
        assert!(Message::decode(b"l\x02\0\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x08\x01g\0").is_err());
    }
}

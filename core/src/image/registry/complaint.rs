//! What a registry says when it refuses, for messages: the errors of the distribution API.

use std::io::Read;

use serde_json::Value;
use ureq::Body;
use ureq::http::Response;

/// As much of an error's body as is looked at.
const LIMIT: u64 = 64 * 1024;

/// The errors of the body in words: `CODE: message`; nothing if it is of another kind.
pub(super) fn read(response: &mut Response<Body>) -> String {
    let mut bytes = Vec::new();
    let _ = response.body_mut().as_reader().take(LIMIT).read_to_end(&mut bytes);
    words(&bytes)
}

fn words(body: &[u8]) -> String {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let errors = document.get("errors").and_then(Value::as_array);
    let one = |error: &Value| {
        let text = |name| printable(error.get(name).and_then(Value::as_str).unwrap_or(""), 200);
        let parts = [text("code"), text("message")];
        parts.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(": ")
    };
    let errors = errors.into_iter().flatten().take(3).map(one).filter(|text| !text.is_empty());
    let errors = errors.collect::<Vec<_>>().join("; ");
    // As token servers say it (RFC 6749, section 5.2), or in their own way.
    match errors.is_empty() {
        true => ["error_description", "details", "error", "message"]
            .iter()
            .find_map(|name| document.get(name).and_then(Value::as_str))
            .map_or(String::new(), |text| printable(text, 200)),
        false => errors,
    }
}

/// At most `limit` characters, none of which does anything to a terminal.
pub(super) fn printable(text: &str, limit: usize) -> String {
    let shown = |c: char| {
        let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns || c == '\u{feff}' { ' ' } else { c }
    };
    let text: String = text.chars().take(limit).map(shown).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_short_and_printable() {
        let body = br#"{"errors": [{"code": "DENIED", "message": "no\u001b[2J\n"}, {"code": "X"}, {}, {"code": "Z"}]}"#;
        assert_eq!(words(body), "DENIED: no [2J; X");
        assert_eq!(
            words(br#"{"details": "incorrect username or password"}"#),
            "incorrect username or password"
        );
        assert_eq!(words(b"<html>"), "");
        assert_eq!(words(br#"{"errors": 3}"#), "");
        let long = format!(r#"{{"errors": [{{"message": "{}"}}]}}"#, "x".repeat(5000));
        assert_eq!(words(long.as_bytes()).len(), 200);
    }
}

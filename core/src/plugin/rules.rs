//! Rules for all plugins of a runtime, as a document.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::guard::Guard;
use crate::{Category, Error, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    forbid: Vec<String>,
}

/// Reads the rules for all plugins, `{"required": [NAME...], "forbid": [SWITCH...]}`: the names of
/// those without which no container is created, and what no plugin may do, by the names of
/// [`Guard`].
///
/// # Errors
/// [`Category::Invalid`], with the place.
pub fn rules(json: &[u8]) -> Result<(Vec<String>, Guard)> {
    let invalid = |message| Error::new(Category::Invalid, crate::Stage::Arguments, message);
    // By way of an object: a struct is read from an array, too.
    let rules: Rules = serde_json::from_slice::<Map<String, Value>>(json)
        .and_then(|members| serde_json::from_value(members.into()))
        .map_err(|error| invalid(format!("the rules for plugins: {error}")))?;
    let mut guard = Guard::default();
    for (index, name) in rules.forbid.iter().enumerate() {
        guard.forbid(name).ok_or_else(|| {
            invalid(format!("{name:?} is nothing that can be forbidden"))
                .at(format!("/forbid/{index}"))
                .hint(format!("there are {}", Guard::NAMES.join(", ")))
        })?;
    }
    Ok((rules.required, guard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_who_is_required_and_what_is_forbidden() {
        let (required, guard) = rules(br#"{"required": ["a"], "forbid": ["hooks"]}"#).unwrap();
        assert_eq!(required, ["a"]);
        assert_eq!(guard, Guard { hooks: true, ..Guard::default() });
        assert_eq!(rules(b"{}").unwrap(), (Vec::new(), Guard::default()));
    }

    #[test]
    fn a_rule_that_is_none_is_refused_with_its_place() {
        let refused = rules(br#"{"forbid": ["hooks", "rain"]}"#).unwrap_err();
        assert_eq!(refused.category(), Category::Invalid);
        assert_eq!(refused.pointer(), Some("/forbid/1"));
        for document in [&b"[]"[..], b"{", br#"{"require": []}"#] {
            assert_eq!(rules(document).unwrap_err().category(), Category::Invalid);
        }
    }

    #[test]
    fn rules_of_two_documents_add_up() {
        let mut guard = Guard { hooks: true, ..Guard::default() };
        guard.also(Guard { sysctl: true, ..Guard::default() });
        assert_eq!(guard, Guard { hooks: true, sysctl: true, ..Guard::default() });
    }
}

//! Which devices a container may use: `linux.resources.devices`.
//!
//! A container starts with no device allowed. The rules then apply in order, each to the accesses
//! it names, and a later one overrides an earlier one; the default devices of the spec come last,
//! so that no rule takes `/dev/null` away. Version 1 has files for this, version 2 a BPF program.

mod bpf;
mod program;
mod v1;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

pub(super) use self::bpf::Cache;
use super::location::Location;
use crate::error::{Category, Error, Result, Stage};

/// A kind of device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Block,
    Char,
}

/// Accesses, as the kernel counts them in BPF.
pub(super) const MKNOD: u8 = 1;
pub(super) const READ: u8 = 2;
pub(super) const WRITE: u8 = 4;
pub(super) const ALL: u8 = MKNOD | READ | WRITE;

/// One rule. No number means every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) allow: bool,
    pub(super) kind: Kind,
    pub(super) major: Option<u32>,
    pub(super) minor: Option<u32>,
    pub(super) access: u8,
}

impl Rule {
    /// Whether the rule is about every device of its kind.
    fn is_general(&self) -> bool {
        self.major.is_none() && self.minor.is_none()
    }
}

const fn allowed(kind: Kind, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { allow: true, kind, major, minor, access }
}

/// What every container may do: make any node (making one gives no access), and use the
/// devices that the spec provides in `/dev`. Its `/dev/console` is a pseudoterminal: the console
/// of character device 5:1 is the machine's own.
const DEFAULTS: [Rule; 11] = [
    allowed(Kind::Char, None, None, MKNOD),
    allowed(Kind::Block, None, None, MKNOD),
    allowed(Kind::Char, Some(1), Some(3), ALL),    // null
    allowed(Kind::Char, Some(1), Some(5), ALL),    // zero
    allowed(Kind::Char, Some(1), Some(7), ALL),    // full
    allowed(Kind::Char, Some(1), Some(8), ALL),    // random
    allowed(Kind::Char, Some(1), Some(9), ALL),    // urandom
    allowed(Kind::Char, Some(5), Some(0), ALL),    // tty
    allowed(Kind::Char, Some(5), Some(2), ALL),    // ptmx
    allowed(Kind::Char, Some(136), None, ALL),     // pts/*
    allowed(Kind::Char, Some(10), Some(200), ALL), // net/tun: taking it away broke users elsewhere
];

/// The rules of the spec, with the default ones after them.
pub(super) fn rules(resources: Option<&LinuxResources>) -> Result<Vec<Rule>> {
    let asked = resources.and_then(|resources| resources.devices().as_ref());
    let mut rules = Vec::with_capacity(DEFAULTS.len() + 4);
    for (index, rule) in asked.into_iter().flatten().enumerate() {
        read_rule(rule, index, &mut rules)?;
    }
    // What comes before a rule for everything has no effect.
    let everything = |rule: &Rule| rule.is_general() && rule.access == ALL;
    for kind in [Kind::Block, Kind::Char] {
        let is_last = |rule: &Rule| rule.kind == kind && everything(rule);
        if let Some(last) = rules.iter().rposition(is_last) {
            let mut index = 0;
            rules.retain(|rule| {
                index += 1;
                rule.kind != kind || index > last
            });
        }
    }
    rules.extend(DEFAULTS);
    Ok(rules)
}

fn read_rule(rule: &LinuxDeviceCgroup, index: usize, into: &mut Vec<Rule>) -> Result<()> {
    let wrong = |message: String, field: &str| {
        Error::new(Category::Spec, Stage::Cgroup, message)
            .at(format!("/linux/resources/devices/{index}/{field}"))
    };
    let mut access = 0;
    for letter in rule.access().as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => return Err(wrong(format!("access {letter:?} is none of r, w, m"), "access")),
        };
    }
    if access == 0 {
        access = ALL;
    }
    let number = |value: Option<i64>, field: &str| match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value)
            .map(Some)
            .map_err(|_| wrong(format!("{field} {value} is no device number"), field)),
    };
    let (major, minor) = (number(rule.major(), "major")?, number(rule.minor(), "minor")?);
    let kinds: &[Kind] = match rule.typ() {
        None | Some(LinuxDeviceType::A) => &[Kind::Block, Kind::Char],
        Some(LinuxDeviceType::B) => &[Kind::Block],
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => &[Kind::Char],
        Some(LinuxDeviceType::P) => {
            return Err(wrong("a FIFO is no device that a cgroup can rule".to_owned(), "type"));
        }
    };
    into.extend(kinds.iter().map(|&kind| Rule { allow: rule.allow(), kind, major, minor, access }));
    Ok(())
}

/// Puts the rules in force. `fresh` says that the cgroup is new, so that nothing is there to
/// take over.
pub(super) fn apply(location: &Location, rules: &[Rule], fresh: bool, cache: &Cache) -> Result<()> {
    const POINTER: &str = "/linux/resources/devices";
    if let Some(place) = location.controller("devices").filter(|place| !place.unified) {
        return v1::apply(&place.directory(), rules, fresh).map_err(|error| error.at(POINTER));
    }
    match location.unified() {
        Some(place) => {
            let fresh = fresh && !place.existed;
            bpf::apply(&place.directory(), rules, fresh, cache).map_err(|error| error.at(POINTER))
        }
        None => Ok(()),
    }
}

/// Makes the program for version 2, and leaves it at that.
#[cfg(feature = "fuzzing")]
pub(super) fn assemble(rules: &[Rule]) {
    program::assemble(rules);
}

/// What the rules come to for one request; the reference that both versions are tested against.
#[cfg(test)]
pub(super) fn decide(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
    [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        rules
            .iter()
            .rev()
            .find(|rule| {
                rule.kind == kind
                    && rule.major.is_none_or(|m| m == major)
                    && rule.minor.is_none_or(|m| m == minor)
                    && rule.access & bit != 0
            })
            .is_some_and(|rule| rule.allow)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<Vec<Rule>> {
        rules(Some(&serde_json::from_str(&format!("{{\"devices\": {json}}}")).unwrap()))
    }

    #[test]
    fn without_rules_only_the_default_devices_may_be_used() {
        let rules = rules(None).unwrap();
        assert!(decide(&rules, Kind::Char, 1, 3, READ | WRITE));
        assert!(decide(&rules, Kind::Char, 136, 77, READ));
        assert!(decide(&rules, Kind::Block, 8, 0, MKNOD));
        assert!(!decide(&rules, Kind::Block, 8, 0, READ));
        assert!(!decide(&rules, Kind::Char, 10, 229, READ));
    }

    #[test]
    fn a_later_rule_overrides_an_earlier_one_in_the_accesses_it_names() {
        let rules = parsed(
            r#"[{"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"},
                {"allow":false,"type":"c","major":10,"minor":229,"access":"w"}]"#,
        )
        .unwrap();
        assert!(decide(&rules, Kind::Char, 10, 229, READ));
        assert!(!decide(&rules, Kind::Char, 10, 229, READ | WRITE));
    }

    #[test]
    fn a_rule_for_everything_wipes_out_what_came_before() {
        let text =
            r#"[{"allow":true,"type":"b","major":8,"minor":0},{"allow":false,"access":"rwm"}]"#;
        let rules = parsed(text).unwrap();
        assert_eq!(rules.len(), 2 + DEFAULTS.len());
        assert!(!decide(&rules, Kind::Block, 8, 0, READ));
    }

    #[test]
    fn minus_one_is_any_number_and_other_nonsense_is_refused_with_its_place() {
        assert!(
            parsed(r#"[{"allow":true,"type":"b","major":-1,"minor":-1,"access":"r"}]"#).is_ok()
        );
        for (json, field) in [
            (r#"[{"allow":true,"major":-2}]"#, "major"),
            (r#"[{"allow":true,"access":"rx"}]"#, "access"),
            (r#"[{"allow":true,"type":"p"}]"#, "type"),
        ] {
            let error = parsed(json).unwrap_err();
            assert_eq!(
                error.pointer(),
                Some(format!("/linux/resources/devices/0/{field}").as_str())
            );
        }
    }
}

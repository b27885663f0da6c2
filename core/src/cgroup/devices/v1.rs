//! Device rules in the version 1 files `devices.allow` and `devices.deny`.
//!
//! The kernel keeps a default and a list of exceptions, and ignores a write that would cut a
//! hole into an exception. So the rules are first turned into such a pair, and refused if they
//! have no such form; then the difference to what is in force is written.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::{ALL, Kind, MKNOD, READ, Rule, WRITE};
use crate::cgroup::file;
use crate::error::{Category, Error, Result, Stage};

/// A default, and what differs from it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List {
    allow: bool,
    exceptions: Vec<Entry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    major: Option<u32>,
    minor: Option<u32>,
    access: u8,
}

impl Entry {
    fn same_devices(&self, other: &Entry) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    fn covers(&self, other: &Entry) -> bool {
        self.kind == other.kind
            && self.major.is_none_or(|major| other.major == Some(major))
            && self.minor.is_none_or(|minor| other.minor == Some(minor))
    }

    fn meets(&self, other: &Entry) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
    }

    fn line(&self) -> String {
        let number = |value: Option<u32>| value.map_or("*".to_owned(), |value| value.to_string());
        let kind = match self.kind {
            Kind::Block => 'b',
            Kind::Char => 'c',
        };
        let mut line = format!("{kind} {}:{} ", number(self.major), number(self.minor));
        for (bit, letter) in [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')] {
            if self.access & bit != 0 {
                line.push(letter);
            }
        }
        line
    }

    fn parse(line: &str) -> Option<Entry> {
        let mut words = line.split_whitespace();
        let kind = match words.next()? {
            "b" => Kind::Block,
            "c" => Kind::Char,
            _ => return None,
        };
        let (major, minor) = words.next()?.split_once(':')?;
        let number = |text: &str| match text {
            "*" => Some(None),
            text => text.parse().ok().map(Some),
        };
        let access = words.next()?.chars().fold(0, |access, letter| {
            access
                | match letter {
                    'r' => READ,
                    'w' => WRITE,
                    'm' => MKNOD,
                    _ => 0,
                }
        });
        Some(Entry { kind, major: number(major)?, minor: number(minor)?, access })
    }
}

impl List {
    fn from_rules(rules: &[Rule]) -> Result<List> {
        // Both kinds allowed as a whole at some point make "allow" the shorter default.
        let general = |kind: Kind| {
            rules
                .iter()
                .rev()
                .find(|rule| rule.kind == kind && rule.is_general() && rule.access == ALL)
                .is_some_and(|rule| rule.allow)
        };
        let allow = general(Kind::Block) && general(Kind::Char);
        let mut list = List { allow, exceptions: Vec::new() };
        for rule in rules {
            list.apply(rule)?;
        }
        // The kernel wants one exception that covers a whole request: give the narrow ones what
        // the broad ones have.
        let broad = list.exceptions.clone();
        for entry in &mut list.exceptions {
            let inherited = broad.iter().filter(|other| other.covers(entry));
            entry.access = inherited.fold(entry.access, |access, other| access | other.access);
        }
        let all = list.exceptions.clone();
        list.exceptions.retain(|entry| {
            !all.iter().any(|other| {
                other.covers(entry)
                    && !other.same_devices(entry)
                    && entry.access & !other.access == 0
            })
        });
        Ok(list)
    }

    fn apply(&mut self, rule: &Rule) -> Result<()> {
        let new =
            Entry { kind: rule.kind, major: rule.major, minor: rule.minor, access: rule.access };
        if rule.allow != self.allow {
            match self.exceptions.iter_mut().find(|entry| entry.same_devices(&new)) {
                Some(entry) => entry.access |= new.access,
                None => self.exceptions.push(new),
            }
            return Ok(());
        }
        for entry in &mut self.exceptions {
            if new.covers(entry) {
                entry.access &= !new.access;
            } else if new.meets(entry) && entry.access & new.access != 0 {
                return Err(Error::new(
                    Category::Unsupported,
                    Stage::Cgroup,
                    format!("cgroup v1 cannot take {:?} out of {:?}", new.line(), entry.line()),
                ));
            }
        }
        self.exceptions.retain(|entry| entry.access != 0);
        Ok(())
    }

    fn parse(text: &str) -> List {
        if text.trim() == "a *:* rwm" {
            return List { allow: true, exceptions: Vec::new() };
        }
        List { allow: false, exceptions: text.lines().filter_map(Entry::parse).collect() }
    }
}

pub(super) fn apply(directory: &Path, rules: &[Rule], fresh: bool) -> Result<()> {
    let wanted = List::from_rules(rules)?;
    // A new cgroup has what its parent has; writing "a" is a clean start from anything. With
    // processes in it that would take their devices away for a moment, so the difference is
    // written instead where the default stays.
    let now = match fresh {
        true => None,
        false => Some(List::parse(&file::read(directory, "devices.list")?)),
    };
    let (grow, shrink) = if wanted.allow {
        ("devices.deny", "devices.allow")
    } else {
        ("devices.allow", "devices.deny")
    };
    let now = match now {
        Some(now) if !now.allow && !wanted.allow => now.exceptions,
        _ => {
            Lines::open(directory, shrink)?.put("a")?;
            Vec::new()
        }
    };
    if wanted.exceptions.iter().any(|entry| !now.contains(entry)) {
        let mut lines = Lines::open(directory, grow)?;
        for entry in wanted.exceptions.iter().filter(|entry| !now.contains(entry)) {
            lines.put(&entry.line())?;
        }
    }
    for entry in now.iter() {
        let kept = wanted.exceptions.iter().find(|other| other.same_devices(entry));
        let excess = entry.access & !kept.map_or(0, |kept| kept.access);
        if excess != 0 {
            Lines::open(directory, shrink)?.put(&Entry { access: excess, ..*entry }.line())?;
        }
    }
    Ok(())
}

/// One open file that takes a line with each write.
struct Lines<'a> {
    directory: &'a Path,
    name: &'static str,
    file: File,
}

impl<'a> Lines<'a> {
    fn open(directory: &'a Path, name: &'static str) -> Result<Self> {
        let opened = OpenOptions::new().write(true).open(directory.join(name));
        let file = opened.map_err(|error| {
            Error::io(Stage::Cgroup, &error, format!("open {name} of the cgroup {directory:?}"))
        })?;
        Ok(Lines { directory, name, file })
    }

    fn put(&mut self, line: &str) -> Result<()> {
        self.file
            .write_all(line.as_bytes())
            .map_err(|error| file::failed_to_write(self.directory, self.name, line, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DEFAULTS, decide};
    use super::*;

    /// What the kernel decides from a list.
    fn kernel(list: &List, kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        let request = Entry { kind, major: Some(major), minor: Some(minor), access };
        let mut entries = list.exceptions.iter().filter(|entry| entry.covers(&request));
        match list.allow {
            false => entries.any(|entry| access & !entry.access == 0),
            true => !entries.any(|entry| access & entry.access != 0),
        }
    }

    #[test]
    fn the_list_decides_as_the_rules_do_or_the_rules_are_refused() {
        let mut every = Vec::new();
        for allow in [false, true] {
            for kind in [Kind::Block, Kind::Char] {
                for (major, minor) in
                    [(None, None), (Some(8), None), (Some(8), Some(3)), (None, Some(3))]
                {
                    for access in [READ, READ | WRITE, ALL] {
                        every.push(Rule { allow, kind, major, minor, access });
                    }
                }
            }
        }
        let general = |allow| {
            [Kind::Block, Kind::Char].map(|kind| Rule {
                allow,
                kind,
                major: None,
                minor: None,
                access: ALL,
            })
        };
        let (mut refused, mut checked) = (0, 0);
        for first in &every {
            for second in &every {
                for start in [Vec::new(), general(true).to_vec(), general(false).to_vec()] {
                    let mut rules = start;
                    rules.extend([*first, *second]);
                    let Ok(list) = List::from_rules(&rules) else {
                        refused += 1;
                        continue;
                    };
                    checked += 1;
                    for (major, minor) in [(8, 3), (8, 4), (9, 3), (9, 4)] {
                        for kind in [Kind::Block, Kind::Char] {
                            // One access at a time: with several, the kernel may want them in
                            // one exception where two partial ones overlap.
                            for access in [MKNOD, READ, WRITE] {
                                assert_eq!(
                                    kernel(&list, kind, major, minor, access),
                                    decide(&rules, kind, major, minor, access),
                                    "{kind:?} {major}:{minor} {access} under {rules:?}: {list:?}"
                                );
                            }
                        }
                    }
                }
            }
        }
        assert!(checked > refused, "{refused} refused, {checked} checked");
    }

    #[test]
    fn lines_are_read_back_as_they_were_written() {
        for rule in DEFAULTS {
            let entry = Entry {
                kind: rule.kind,
                major: rule.major,
                minor: rule.minor,
                access: rule.access,
            };
            assert_eq!(Entry::parse(&entry.line()), Some(entry));
        }
        assert!(List::parse("a *:* rwm\n").allow);
    }
}

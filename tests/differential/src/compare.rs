//! Compares what was seen under both runtimes, and knows which differences are meant.

use std::collections::BTreeMap;

use crate::explained::ROWS;

/// A line that only one of them has, or that both have in different words.
#[derive(Debug)]
pub struct Difference {
    pub oracle: Option<String>,
    pub ours: Option<String>,
    /// The row of the table that explains it.
    pub row: Option<usize>,
}

pub fn compare(oracle: &[String], ours: &[String]) -> Vec<Difference> {
    // If only one of them has got that far, all that follows is only said by one.
    for step in ["create=", "start="] {
        let [theirs, own] = [oracle, ours].map(|lines| line_of(lines, step));
        if theirs.map(is_refusal) != own.map(is_refusal) {
            return vec![difference(theirs, own)];
        }
    }
    // How far a creation gets before it fails is each one's own affair.
    let refused = line_of(ours, "create=").is_some_and(is_refusal);
    let counts = |line: &&String| !refused || line.starts_with("left ");
    let mut sides: BTreeMap<&str, [Vec<&String>; 2]> = BTreeMap::new();
    for (side, lines) in [oracle, ours].into_iter().enumerate() {
        for line in lines.iter().filter(counts) {
            sides.entry(key(line)).or_default()[side].push(line);
        }
    }
    let mut found = Vec::new();
    for [oracle, ours] in sides.into_values() {
        for number in 0..oracle.len().max(ours.len()) {
            let [theirs, own] =
                [&oracle, &ours].map(|lines| lines.get(number).map(|line| line.as_str()));
            // Each has words of its own for a refusal.
            let same =
                theirs == own || theirs.is_some_and(is_refusal) && own.is_some_and(is_refusal);
            if !same {
                found.push(difference(theirs, own));
            }
        }
    }
    found
}

fn line_of<'a>(lines: &'a [String], start: &str) -> Option<&'a str> {
    lines.iter().map(String::as_str).find(|line| line.starts_with(start))
}

fn is_refusal(line: &str) -> bool {
    line.contains("=refused: ")
}

fn difference(oracle: Option<&str>, ours: Option<&str>) -> Difference {
    // What explains the first process explains another one.
    let texts = [oracle, ours].map(Option::unwrap_or_default);
    let of_exec = texts.map(|text| text.strip_prefix("exec ").unwrap_or(text));
    let explains = |patterns: [&str; 2]| alike(patterns, texts) || alike(patterns, of_exec);
    let row = ROWS.iter().position(|row| explains([row.oracle, row.ours]));
    Difference { oracle: oracle.map(str::to_owned), ours: ours.map(str::to_owned), row }
}

/// What makes two lines be about the same: all before the first `=`, or all.
fn key(line: &str) -> &str {
    let (key, _) = line.split_once('=').or_else(|| line.split_once(":\\x09")).unwrap_or((line, ""));
    key
}

/// Whether two texts are like two patterns. In them `*` stands for anything, and each `~` in one
/// for the same as the `~` of that number in the other.
fn alike(patterns: [&str; 2], texts: [&str; 2]) -> bool {
    if !(0..2).all(|side| fits(patterns[side], texts[side])) {
        return false;
    }
    let [one, other] = [0, 1].map(|side| captures(patterns[side], texts[side]));
    one.iter().any(|captured| other.contains(captured))
}

/// Whether a text is like a pattern, found out fast.
fn fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split(['*', '~']);
    let Some(mut rest) = text.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// Every way in which a text is like a pattern: what its `~` stand for.
fn captures<'a>(pattern: &str, text: &'a str) -> Vec<Vec<&'a str>> {
    let Some(at) = pattern.find(['*', '~']) else {
        return if pattern == text { vec![Vec::new()] } else { Vec::new() };
    };
    let Some(rest) = text.strip_prefix(&pattern[..at]) else { return Vec::new() };
    let mut found = Vec::new();
    for end in (0..=rest.len()).filter(|&end| rest.is_char_boundary(end)) {
        for mut captured in captures(&pattern[at + 1..], &rest[end..]) {
            if pattern[at..].starts_with('~') {
                captured.insert(0, &rest[..end]);
            }
            if !found.contains(&captured) {
                found.push(captured);
            }
        }
    }
    found
}

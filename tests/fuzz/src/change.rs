//! How inputs are changed. JSON is changed as JSON: a flipped byte breaks a document more often than it says something new;
//! a member that is gone, doubled, or has another's value gets past the parser.

use serde_json::{Map, Value, json};

/// A source of choices: xorshift, so that a seed tells all.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }
}

/// Fills an input with anything.
pub fn fill(bytes: &mut [u8], seed: u32) {
    let mut dice = Dice(u64::from(seed) << 1 | 1);
    bytes.fill_with(|| dice.below(256) as u8);
}

/// A changed document, or nothing if the bytes are no JSON or all has become too long.
pub fn json(bytes: &[u8], longest: usize, seed: u32) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    let mut dice = Dice(u64::from(seed) << 1 | 1);
    for _ in 0..=dice.below(3) {
        // A value to be moved elsewhere.
        let donor = at(&mut document, &mut dice).clone();
        let place = at(&mut document, &mut dice);
        alter(place, donor, &mut dice);
    }
    let changed = serde_json::to_vec(&document).ok()?;
    (changed.len() <= longest).then_some(changed)
}

/// A value somewhere in the document.
fn at<'a>(value: &'a mut Value, dice: &mut Dice) -> &'a mut Value {
    let len = match value {
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    };
    // One in so many stops at each level.
    if len == 0 || dice.below(8) == 0 {
        return value;
    }
    let index = dice.below(len);
    match value {
        Value::Array(items) => at(&mut items[index], dice),
        Value::Object(members) => {
            at(members.values_mut().nth(index).expect("it is below the number"), dice)
        }
        _ => unreachable!("others have no length"),
    }
}

fn alter(place: &mut Value, donor: Value, dice: &mut Dice) {
    match (dice.below(8), &mut *place) {
        (0, _) => *place = donor,
        (1 | 2, Value::Array(items)) => {
            let index = dice.below(items.len());
            match dice.below(4) {
                0 if !items.is_empty() => drop(items.remove(index)),
                1 if !items.is_empty() => items.push(items[index].clone()),
                2 => items.reverse(),
                _ => items.push(donor),
            }
        }
        (1 | 2, Value::Object(members)) => {
            let key = members.keys().nth(dice.below(members.len())).cloned();
            match (dice.below(4), key) {
                (0, Some(key)) => drop(members.remove(&key)),
                (1, Some(key)) => {
                    let value = members[&key].clone();
                    members.insert(word(dice), value);
                }
                (2, Some(key)) => drop(members.insert(key, donor)),
                _ => drop(members.insert(word(dice), donor)),
            }
        }
        (3, Value::Number(number)) => {
            let near = number.as_i64().unwrap_or(0).wrapping_add(dice.below(3) as i64 - 1);
            *place = json!(near);
        }
        (3, Value::String(text)) => match dice.below(3) {
            0 => text.push_str(&word(dice)),
            1 => text.insert(0, '/'),
            _ => drop(text.pop()),
        },
        _ => *place = any(dice),
    }
}

/// A value that has broken a program before.
fn any(dice: &mut Dice) -> Value {
    match dice.below(12) {
        0 => Value::Null,
        1 => json!(dice.below(2) == 0),
        2 => json!([]),
        3 => Value::Object(Map::new()),
        4 => json!(1.5),
        5 => {
            let edges = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX, 1 << 63];
            json!(edges[dice.below(edges.len())].wrapping_add(dice.below(3) as u64))
        }
        6 => {
            let edges = [-1, -2, i64::from(i32::MIN), i64::MIN, 1000, 65536, 340];
            json!(edges[dice.below(edges.len())])
        }
        _ => json!(word(dice)),
    }
}

/// The words of the dictionary, which the fuzzer has too.
fn word(dice: &mut Dice) -> String {
    const DICTIONARY: &str = include_str!("../dictionary");
    let words = || DICTIONARY.lines().filter_map(|line| line.strip_prefix('"')?.strip_suffix('"'));
    let word = words().nth(dice.below(words().count())).unwrap_or_default();
    match dice.below(16) {
        0 => format!("{word}\0"),
        1 => format!("../{word}"),
        _ => word.replace("\\\\", "\\"),
    }
}

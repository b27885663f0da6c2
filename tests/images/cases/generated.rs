//! Images that nobody thought of, from a seed.

use std::collections::BTreeMap;

use locule_images::TarFile;
use tar::{EntryType, Header};

/// Numbers from a seed, by xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % sides
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.roll(all.len())]
    }
}

/// A tree as far as it has to be known for what follows to make sense: whether a path is a directory.
type Known = BTreeMap<String, bool>;

fn below<'a>(known: &'a Known, path: &str) -> impl Iterator<Item = String> + use<'a> {
    let start = match path {
        "" => String::new(),
        path => format!("{path}/"),
    };
    known.keys().filter(move |other| !other.is_empty() && other.starts_with(&start)).cloned()
}

fn forget(known: &mut Known, path: &str) {
    for other in below(known, path).collect::<Vec<_>>() {
        known.remove(&other);
    }
    known.remove(path);
}

struct Maker {
    dice: Dice,
    known: Known,
    /// What the layer has made, in which nothing is hidden by it.
    own: Known,
    tar: TarFile,
}

/// Nothing is of a later time.
pub const LATEST: i64 = 1_500_000_000;

/// The layers of the image of a seed.
pub fn layers(seed: u64) -> Vec<TarFile> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for _ in 0..8 {
        dice.roll(2);
    }
    let mut maker = Maker {
        dice,
        known: Known::new(),
        own: Known::new(),
        tar: TarFile::new().dir("./", 0o755),
    };
    maker.known.insert(String::new(), true);
    let count = 2 + maker.dice.roll(4);
    let mut layers = Vec::new();
    for layer in 0..count {
        let entries = if layer == 0 { 25 } else { 12 };
        for _ in 0..entries {
            maker.entry(layer > 0);
        }
        maker.own.clear();
        layers.push(std::mem::take(&mut maker.tar));
    }
    layers
}

impl Maker {
    fn entry(&mut self, upper: bool) {
        let directories: Vec<String> =
            self.known.iter().filter(|(_, is)| **is).map(|(path, _)| path.clone()).collect();
        let parent = directories[self.dice.roll(directories.len())].clone();
        let name = self.dice.of(&["a", "b", "c", "d", "e"]);
        let path = match parent.as_str() {
            "" => name.to_owned(),
            parent => format!("{parent}/{name}"),
        };
        if path.matches('/').count() > 3 {
            return;
        }
        match self.dice.roll(if upper { 14 } else { 10 }) {
            0..=2 => self.make(&path, EntryType::Regular, ""),
            3..=5 => self.directory(&path),
            6 => {
                let target = self.dice.of(&["a", "../b", "/c", "d/e", "nowhere"]);
                self.make(&path, EntryType::Symlink, target);
            }
            7 => self.make(&path, EntryType::Fifo, ""),
            8 | 9 => self.link(&path),
            10 | 11 => self.whiteout(&parent, name, &path),
            12 => self.opaque(&parent),
            _ => self.directory(&parent.clone()),
        }
    }

    fn add(&mut self, path: &str, is_directory: bool) {
        self.known.insert(path.to_owned(), is_directory);
        self.own.insert(path.to_owned(), is_directory);
    }

    fn make(&mut self, path: &str, kind: EntryType, target: &str) {
        forget(&mut self.known, path);
        forget(&mut self.own, path);
        let content = match kind {
            EntryType::Regular => vec![self.dice.roll(256) as u8; self.dice.roll(2000)],
            _ => Vec::new(),
        };
        let mut tar = std::mem::take(&mut self.tar);
        let time =
            format!("{}.{:09}", self.dice.roll(LATEST as usize), self.dice.roll(1_000_000_000));
        let mut records = vec![("mtime", time.into_bytes())];
        if kind == EntryType::Regular && self.dice.roll(4) == 0 {
            records.push(("SCHILY.xattr.user.number", vec![self.dice.roll(256) as u8; 3]));
        }
        let records: Vec<_> = records.iter().map(|(key, value)| (*key, value.as_slice())).collect();
        tar = tar.pax(&records);
        let header = self.header(target);
        self.tar = tar.entry(path, kind, header, &content);
        self.add(path, false);
    }

    fn header(&mut self, target: &str) -> impl FnOnce(&mut Header) + use<> {
        let target = target.to_owned();
        let mode = self.dice.of(&[0o644, 0o755, 0o600, 0, 0o4755, 0o2770, 0o1777, 0o444]);
        let (uid, gid) = (self.dice.roll(70_000) as u64, self.dice.roll(3) as u64);
        let time = self.dice.roll(LATEST as usize) as u64;
        move |header| {
            header.set_mode(mode);
            header.set_uid(uid);
            header.set_gid(gid);
            header.set_mtime(time);
            if !target.is_empty() {
                header.set_link_name(&target).expect("a short target");
            }
        }
    }

    fn directory(&mut self, path: &str) {
        if self.known.get(path) == Some(&false) {
            forget(&mut self.known, path);
            forget(&mut self.own, path);
        }
        let header = self.header("");
        let name = if path.is_empty() { "./".to_owned() } else { format!("{path}/") };
        let tar = std::mem::take(&mut self.tar);
        self.tar = tar.entry(&name, EntryType::Directory, header, b"");
        self.add(path, true);
    }

    fn link(&mut self, path: &str) {
        let inside = format!("{path}/");
        let targets: Vec<String> = self
            .known
            .iter()
            .filter(|(other, is)| !**is && other.as_str() != path && !other.starts_with(&inside))
            .map(|(other, _)| other.clone())
            .collect();
        if targets.is_empty() {
            return;
        }
        let target = targets[self.dice.roll(targets.len())].clone();
        forget(&mut self.known, path);
        forget(&mut self.own, path);
        self.tar = std::mem::take(&mut self.tar).hard_link(path, &target);
        self.add(path, false);
    }

    /// Of what only lower layers have, so that it is clear what is meant.
    fn whiteout(&mut self, parent: &str, name: &str, path: &str) {
        if self.own.contains_key(path) || below(&self.own, path).next().is_some() {
            return;
        }
        let file = match parent {
            "" => format!(".wh.{name}"),
            parent => format!("{parent}/.wh.{name}"),
        };
        forget(&mut self.known, path);
        self.own.insert(file.clone(), false);
        self.tar = std::mem::take(&mut self.tar).file(&file, "");
    }

    fn opaque(&mut self, path: &str) {
        // What has a mark of this layer in it counts as its own for us, and not for umoci.
        if path.is_empty() || below(&self.own, path).any(|other| other.contains(".wh.")) {
            return;
        }
        for other in below(&self.known, path).collect::<Vec<_>>() {
            let kept = self.own.contains_key(&other) || below(&self.own, &other).next().is_some();
            if !kept {
                self.known.remove(&other);
            }
        }
        let file = format!("{path}/.wh..wh..opq");
        self.own.insert(file.clone(), false);
        self.tar = std::mem::take(&mut self.tar).file(&file, "");
    }
}

//! Layers: tar files of a few entries with names that meet each other and lead everywhere, unpacked
//! as a tree and for overlayfs. Headers are damaged, and their sums made right again, else nothing
//! but the sum would be tried. Nothing leaves the directory.

use arbitrary::{Arbitrary, Unstructured};
use locule::fuzzing::unpack;
use locule::image::{IdRange, Ids, Limits};

use crate::canary::Nest;
use crate::plan::check_error;
use crate::rarely::Rarely;

#[derive(Debug, Arbitrary)]
struct Input {
    lower: Vec<Entry>,
    upper: Vec<Entry>,
    ids: Rarely<Whose>,
    damage: Rarely<Vec<(u16, u8)>>,
}

#[derive(Debug, Arbitrary)]
enum Whose {
    Caller,
    Mapped { outside: u16, count: u16 },
}

#[derive(Debug, Arbitrary)]
struct Entry {
    kind: Kind,
    name: Vec<Part>,
    link: Vec<Part>,
    absolute: (Rarely<()>, bool),
    mode: u16,
    ids: Rarely<(u32, u32)>,
    size: Rarely<u64>,
    contents: u8,
    long: Rarely<Vec<Long>>,
}

#[derive(Debug, Arbitrary)]
enum Kind {
    File,
    Old,
    Hard,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
    Contiguous,
    GnuSparse,
    Global,
    Other(Rarely<u8>),
}

impl Kind {
    fn flag(&self) -> u8 {
        match self {
            Kind::File => b'0',
            Kind::Old => 0,
            Kind::Hard => b'1',
            Kind::Symlink => b'2',
            Kind::Character => b'3',
            Kind::Block => b'4',
            Kind::Directory => b'5',
            Kind::Fifo => b'6',
            Kind::Contiguous => b'7',
            Kind::GnuSparse => b'S',
            Kind::Global => b'g',
            Kind::Other(flag) => flag.0.unwrap_or(b'0'),
        }
    }

    fn has_contents(&self) -> bool {
        matches!(self, Kind::File | Kind::Old | Kind::Contiguous | Kind::GnuSparse | Kind::Global)
    }
}

/// What comes before an entry and changes it.
#[derive(Debug, Arbitrary)]
enum Long {
    GnuName(Vec<Part>),
    GnuLink(Vec<Part>),
    Path(Vec<Part>),
    LinkPath(Vec<Part>),
    Size(u64),
    Uid(u64),
    Time(i32),
    Attribute(Attribute, Vec<u8>),
    Sparse(Vec<(u16, u16)>, u32),
    Any(Vec<u8>),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Attribute {
    User,
    Opaque,
    Redirect,
    Capability,
    Acl,
    Empty,
}

/// A component of a name. Few, so that they meet.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Part {
    A,
    B,
    C,
    Up,
    Here,
    Nothing,
    Canary,
    File,
    GoneA,
    GoneB,
    Gone,
    Opaque,
    Aufs,
    Proc,
    Odd(u8),
    Long,
}

fn path(parts: &[Part], absolute: bool) -> Vec<u8> {
    let mut path = Vec::new();
    for (index, part) in parts.iter().take(16).enumerate() {
        if index > 0 || absolute {
            path.push(b'/');
        }
        match part {
            Part::A => path.push(b'a'),
            Part::B => path.push(b'b'),
            Part::C => path.push(b'c'),
            Part::Up => path.extend(b".."),
            Part::Here => path.push(b'.'),
            Part::Nothing => {}
            Part::Canary => path.extend(b"canary"),
            Part::File => path.extend(b"file"),
            Part::GoneA => path.extend(b".wh.a"),
            Part::GoneB => path.extend(b".wh.b"),
            Part::Gone => path.extend(b".wh."),
            Part::Opaque => path.extend(b".wh..wh..opq"),
            Part::Aufs => path.extend(b".wh..wh.plnk"),
            Part::Proc => path.extend(b"proc/self/fd/3"),
            Part::Odd(byte) => path.push(*byte),
            Part::Long => path.extend([b'x'; 100]),
        }
    }
    path
}

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    if text.len() <= digits {
        field[..digits].copy_from_slice(text.as_bytes());
    } else {
        // As GNU tar has it.
        field.fill(0);
        field[0] = 0x80;
        let bytes = value.to_be_bytes();
        let count = bytes.len().min(digits);
        let length = field.len();
        field[length - count..].copy_from_slice(&bytes[bytes.len() - count..]);
    }
}

fn record(tar: &mut Tar, flag: u8, contents: &[u8]) {
    let size = contents.len() as u64;
    tar.header(b"./@LongLink", b"", flag, 0o644, (0, 0), size);
    tar.contents(contents);
}

#[derive(Default)]
struct Tar {
    bytes: Vec<u8>,
    headers: Vec<usize>,
}

impl Tar {
    fn header(
        &mut self,
        name: &[u8],
        link: &[u8],
        flag: u8,
        mode: u16,
        ids: (u32, u32),
        size: u64,
    ) {
        let mut header = [0u8; 512];
        let count = name.len().min(100);
        header[..count].copy_from_slice(&name[..count]);
        octal(&mut header[100..108], u64::from(mode));
        octal(&mut header[108..116], ids.0.into());
        octal(&mut header[116..124], ids.1.into());
        octal(&mut header[124..136], size);
        octal(&mut header[136..148], 1_700_000_000);
        header[156] = flag;
        let count = link.len().min(100);
        header[157..157 + count].copy_from_slice(&link[..count]);
        header[257..265].copy_from_slice(if flag == b'S' { b"ustar  \0" } else { b"ustar\x0000" });
        self.headers.push(self.bytes.len());
        self.bytes.extend(header);
    }

    fn contents(&mut self, contents: &[u8]) {
        self.bytes.extend(contents);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    fn entry(&mut self, entry: &Entry) {
        let mut pax = Vec::new();
        let mut say = |key: &[u8], value: &[u8]| {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            pax.extend(length.to_string().into_bytes());
            pax.push(b' ');
            pax.extend(key);
            pax.push(b'=');
            pax.extend(value);
            pax.push(b'\n');
        };
        for long in entry.long.0.iter().flatten().take(4) {
            match long {
                Long::GnuName(parts) => record(self, b'L', &path(parts, false)),
                Long::GnuLink(parts) => record(self, b'K', &path(parts, false)),
                Long::Path(parts) => say(b"path", &path(parts, false)),
                Long::LinkPath(parts) => say(b"linkpath", &path(parts, false)),
                Long::Size(size) => say(b"size", size.to_string().as_bytes()),
                Long::Uid(uid) => say(b"uid", uid.to_string().as_bytes()),
                Long::Time(time) => say(b"mtime", format!("{time}.5").as_bytes()),
                Long::Attribute(which, value) => {
                    let name: &[u8] = match which {
                        Attribute::User => b"SCHILY.xattr.user.x",
                        Attribute::Opaque => b"SCHILY.xattr.trusted.overlay.opaque",
                        Attribute::Redirect => b"SCHILY.xattr.trusted.overlay.redirect",
                        Attribute::Capability => b"SCHILY.xattr.security.capability",
                        Attribute::Acl => b"SCHILY.acl.access",
                        Attribute::Empty => b"SCHILY.xattr.",
                    };
                    say(name, value);
                }
                Long::Sparse(map, size) => {
                    let map: Vec<_> =
                        map.iter().map(|(offset, count)| format!("{offset},{count}")).collect();
                    say(b"GNU.sparse.major", b"0");
                    say(b"GNU.sparse.minor", b"1");
                    say(b"GNU.sparse.size", size.to_string().as_bytes());
                    say(b"GNU.sparse.map", map.join(",").as_bytes());
                }
                Long::Any(bytes) => record(self, b'x', bytes),
            }
        }
        if !pax.is_empty() {
            record(self, b'x', &pax);
        }
        let name = path(&entry.name, entry.absolute.0.0.is_some());
        let link = path(&entry.link, entry.absolute.1);
        let contents = match entry.kind.has_contents() {
            true => usize::from(entry.contents) * 8,
            false => 0,
        };
        let size = entry.size.0.unwrap_or(contents as u64);
        self.header(&name, &link, entry.kind.flag(), entry.mode, entry.ids.get(), size);
        self.contents(&vec![b'.'; contents]);
    }

    fn of(entries: &[Entry], damage: &[(u16, u8)]) -> Vec<u8> {
        let mut tar = Tar::default();
        for entry in entries.iter().take(24) {
            tar.entry(entry);
        }
        for (at, byte) in damage {
            if let Some(place) = tar.bytes.get_mut(usize::from(*at)) {
                *place = *byte;
            }
        }
        for start in &tar.headers {
            let header = &mut tar.bytes[*start..start + 512];
            header[148..156].fill(b' ');
            let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
            octal(&mut header[148..155], sum);
        }
        tar.bytes.resize(tar.bytes.len() + 1024, 0);
        tar.bytes
    }
}

pub fn run(bytes: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    if crate::is_shown() {
        println!("{input:#?}");
    }
    let ids = match &input.ids.0 {
        None => Ids::Same,
        Some(Whose::Caller) => Ids::Caller,
        Some(Whose::Mapped { outside, count }) => {
            let range =
                IdRange { inside: 0, outside: u32::from(*outside), count: u32::from(*count) };
            Ids::Mapped { uids: vec![range], gids: vec![range] }
        }
    };
    let limits = Limits { entries: 100, bytes: 1 << 20, ratio: 1024 };
    let damage = input.damage.0.as_deref().unwrap_or_default();
    let (lower, upper) = (Tar::of(&input.lower, damage), Tar::of(&input.upper, damage));
    let nest = Nest::new("layer");
    let at = |name: &str| nest.path(name);
    for name in ["tree", "one", "two"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    let tell = |what: &str, result: locule::Result<()>| {
        if crate::is_shown() {
            println!("{what}: {result:?}");
        }
        if let Err(error) = result {
            check_error(&error);
        }
    };
    tell("tree", unpack(&lower, &at("tree"), None, &ids, &limits));
    tell("tree, again", unpack(&upper, &at("tree"), None, &ids, &limits));
    tell("lower", unpack(&lower, &at("one"), Some(&[]), &ids, &limits));
    tell("upper", unpack(&upper, &at("two"), Some(&[&at("one")]), &ids, &limits));
    nest.check(&["tree", "one", "two"]);
}

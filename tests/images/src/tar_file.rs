//! Tar files, also such as no sane program writes.

use tar::{EntryType, Header};

/// A tar file being written, entry by entry.
#[derive(Default, Clone)]
pub struct TarFile(Vec<u8>);

impl TarFile {
    /// An empty one.
    pub fn new() -> TarFile {
        TarFile::default()
    }

    /// Adds a directory.
    pub fn dir(self, name: &str, mode: u32) -> TarFile {
        self.entry(name, EntryType::Directory, |header| header.set_mode(mode), b"")
    }

    /// Adds a file.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> TarFile {
        self.entry(name, EntryType::Regular, |_| {}, content.as_ref())
    }

    /// Adds a symbolic link.
    pub fn symlink(self, name: &str, target: &str) -> TarFile {
        self.link(name, EntryType::Symlink, target)
    }

    /// Adds a hard link.
    pub fn hard_link(self, name: &str, target: &str) -> TarFile {
        self.link(name, EntryType::Link, target)
    }

    fn link(self, name: &str, kind: EntryType, target: &str) -> TarFile {
        let with = match target.len() {
            0..=100 => self,
            _ => self.pax(&[("linkpath", target.as_bytes())]),
        };
        let set = |header: &mut Header| {
            let field = &mut header.as_old_mut().linkname;
            let length = target.len().min(field.len());
            field[..length].copy_from_slice(&target.as_bytes()[..length]);
        };
        with.entry(name, kind, set, b"")
    }

    /// Adds an extended header, which is about the next entry.
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> TarFile {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = 3 + key.len() + value.len();
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            data.extend(format!("{length} {key}=").bytes());
            data.extend(*value);
            data.push(b'\n');
        }
        let mut header = header("pax", EntryType::XHeader, data.len());
        header.set_cksum();
        self.push(&header, &data);
        self
    }

    /// Adds an entry, of which `set` may change the header in any way. A name that is too long goes
    /// into an extended header.
    pub fn entry(
        self,
        name: &str,
        kind: EntryType,
        set: impl FnOnce(&mut Header),
        content: &[u8],
    ) -> TarFile {
        let mut all = match name.len() {
            0..=100 => self,
            _ => self.pax(&[("path", name.as_bytes())]),
        };
        let mut header = header(name, kind, content.len());
        set(&mut header);
        header.set_cksum();
        all.push(&header, content);
        all
    }

    fn push(&mut self, header: &Header, content: &[u8]) {
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    /// The bytes, with the two empty blocks at the end.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn header(name: &str, kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_ustar();
    let field = &mut header.as_old_mut().name;
    let length = name.len().min(field.len());
    field[..length].copy_from_slice(&name.as_bytes()[..length]);
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_size(size as u64);
    header.set_mtime(1_000_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header
}

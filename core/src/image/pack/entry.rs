//! One entry of a tar file: a POSIX header, and before it a PAX header with what that cannot hold.

use tar::{EntryType, Header};

/// What the headers of an entry say.
pub(super) struct Entry<'a> {
    pub(super) kind: EntryType,
    /// Ends in a slash for a directory.
    pub(super) path: &'a [u8],
    pub(super) link: &'a [u8],
    /// Permissions alone.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    /// Seconds since 1970, and nanoseconds more.
    pub(super) mtime: (i64, u32),
    /// Major and minor number of a device; else zeros.
    pub(super) device: (u32, u32),
    /// Names and values.
    pub(super) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Default for Entry<'_> {
    fn default() -> Self {
        Entry {
            kind: EntryType::Regular,
            path: b"",
            link: b"",
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: &[],
        }
    }
}

/// Contents and headers fill blocks of this size.
pub(super) const BLOCK: usize = 512;

/// The largest numbers of fields of 8 and 12 bytes.
const SHORT_MAX: u64 = 0o7777777;
const LONG_MAX: u64 = 0o77777777777;

impl Entry<'_> {
    /// Appends the headers to `out`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut pax = Vec::new();
        let mut header = Header::new_ustar();
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        let ustar = header.as_ustar_mut().expect("made as one");
        if !place(self.path, &mut ustar.name, &mut ustar.prefix) {
            record(&mut pax, b"path", self.path);
        }
        let link = self.link.len().min(ustar.linkname.len());
        ustar.linkname[..link].copy_from_slice(&self.link[..link]);
        if link < self.link.len() {
            record(&mut pax, b"linkpath", self.link);
        }
        ustar.set_device_major(self.device.0);
        ustar.set_device_minor(self.device.1);
        let mut number = |name: &str, number: u64, max: u64| {
            if number <= max {
                return number;
            }
            record(&mut pax, name.as_bytes(), number.to_string().as_bytes());
            0
        };
        header.set_size(number("size", self.size, LONG_MAX));
        header.set_uid(number("uid", self.uid.into(), SHORT_MAX));
        header.set_gid(number("gid", self.gid.into(), SHORT_MAX));
        let (seconds, nanoseconds) = self.mtime;
        let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= LONG_MAX);
        header.set_mtime(seconds.unwrap_or(0));
        if seconds.is_none() || nanoseconds != 0 {
            record(&mut pax, b"mtime", time(self.mtime).as_bytes());
        }
        for (name, value) in self.xattrs {
            record(&mut pax, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        header.set_cksum();
        if !pax.is_empty() {
            let mut before = Header::new_ustar();
            before.set_entry_type(EntryType::XHeader);
            before.set_mode(0o644);
            before.set_uid(0);
            before.set_gid(0);
            before.set_mtime(0);
            before.set_size(pax.len() as u64);
            let ustar = before.as_ustar_mut().expect("made as one");
            ustar.name[..PAX_NAME.len()].copy_from_slice(PAX_NAME);
            ustar.set_device_major(0);
            ustar.set_device_minor(0);
            before.set_cksum();
            out.extend_from_slice(before.as_bytes());
            out.extend_from_slice(&pax);
            out.resize(out.len().next_multiple_of(BLOCK), 0);
        }
        out.extend_from_slice(header.as_bytes());
    }
}

/// Programs that do not know PAX headers make a file of each, of this name.
const PAX_NAME: &[u8] = b"PaxHeaders.0";

/// Puts a path where a POSIX header has it, in two parts if need be; as much as there is room for, and
/// `false`, if it is too long.
fn place(path: &[u8], name: &mut [u8; 100], prefix: &mut [u8; 155]) -> bool {
    if path.len() <= name.len() {
        name[..path.len()].copy_from_slice(path);
        return true;
    }
    // The slash between the parts is in neither. The shortest prefix that does.
    let first = path.len().saturating_sub(name.len() + 1);
    let end = (path.len() - 1).min(prefix.len() + 1);
    let slash = (first.max(1)..end).find(|at| path[*at] == b'/');
    let Some(slash) = slash else {
        let room = name.len();
        name.copy_from_slice(&path[..room]);
        return false;
    };
    prefix[..slash].copy_from_slice(&path[..slash]);
    let rest = &path[slash + 1..];
    name[..rest.len()].copy_from_slice(rest);
    true
}

/// A PAX record begins with its length, which counts the digits of that, too.
fn record(pax: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let rest = name.len() + value.len() + " =\n".len();
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(length.to_string().as_bytes());
    pax.push(b' ');
    pax.extend_from_slice(name);
    pax.push(b'=');
    pax.extend_from_slice(value);
    pax.push(b'\n');
}

/// A decimal number without zeros at its end.
fn time((seconds, nanoseconds): (i64, u32)) -> String {
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    // Nanoseconds count forward, also before 1970.
    let (sign, seconds, nanoseconds) = match seconds {
        0.. => ("", seconds, nanoseconds),
        _ => ("-", -(seconds + 1), 1_000_000_000 - nanoseconds),
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_numbers() {
        for (mtime, text) in [
            ((0, 0), "0"),
            ((5, 500_000_000), "5.5"),
            ((5, 1), "5.000000001"),
            ((-1, 0), "-1"),
            ((-2, 500_000_000), "-1.5"),
            ((-1, 999_999_999), "-0.000000001"),
            ((i64::MIN, 1), "-9223372036854775807.999999999"),
        ] {
            assert_eq!(time(mtime), text);
        }
    }

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in 0..2000 {
            let mut pax = Vec::new();
            record(&mut pax, b"a", &vec![b'x'; length]);
            let text = String::from_utf8(pax).unwrap();
            let (count, _) = text.split_once(' ').unwrap();
            assert_eq!(count, text.len().to_string());
        }
    }

    #[test]
    fn a_path_of_any_length_comes_back() {
        let part = |length: usize| "p".repeat(length);
        for (path, has_pax) in [
            ("a".to_owned(), false),
            (part(100), false),
            (part(101), true),
            (format!("{}/", part(99)), false),
            (format!("{}/", part(100)), true),
            (format!("{}/{}", part(155), part(100)), false),
            (format!("{}/{}", part(156), part(50)), true),
            (format!("{}/{}/", part(155), part(99)), false),
            (format!("{}/{}/", part(155), part(100)), true),
            (format!("{}/{}/{}", part(60), part(60), part(60)), false),
            (format!("{}/{}", part(50), part(101)), true),
            (format!("{}x", "d/".repeat(127)), false),
            (format!("{}x", "d/".repeat(130)), true),
            (format!("{}x", "d/".repeat(9000)), true),
        ] {
            let mut out = Vec::new();
            Entry { path: path.as_bytes(), ..Entry::default() }.write(&mut out);
            assert_eq!(out.len() > BLOCK, has_pax, "{path}");
            let mut archive = tar::Archive::new(&out[..]);
            let entry = archive.entries().unwrap().next().unwrap().unwrap();
            assert_eq!(*entry.path_bytes(), *path.as_bytes());
        }
    }

    #[test]
    fn numbers_that_are_too_large_for_the_header_come_back() {
        let mut out = Vec::new();
        let entry =
            Entry { path: b"a", uid: 2_097_152, gid: u32::MAX, mtime: (-5, 0), ..Entry::default() };
        entry.write(&mut out);
        let mut archive = tar::Archive::new(&out[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let records: Vec<String> = entry
            .pax_extensions()
            .unwrap()
            .unwrap()
            .map(|record| record.unwrap())
            .map(|record| format!("{}={}", record.key().unwrap(), record.value().unwrap()))
            .collect();
        assert_eq!(records, ["uid=2097152", "gid=4294967295", "mtime=-5"]);
        assert_eq!(entry.header().uid().unwrap(), 2_097_152);

        let mut out = Vec::new();
        Entry { path: b"a", size: 8 << 30, uid: 2_097_151, ..Entry::default() }.write(&mut out);
        let mut archive = tar::Archive::new(&out[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.size(), 8 << 30);
    }
}

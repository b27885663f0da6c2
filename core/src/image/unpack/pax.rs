//! The records of a PAX header.

use nix::sys::time::TimeSpec;

use super::shown;
use super::sparse::Records;

/// What the records say about the entry that follows. Those that do not matter here are left out.
#[derive(Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime: Option<TimeSpec>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Records,
}

impl Pax {
    /// Fails with what is wrong.
    pub(super) fn parse(mut data: &[u8]) -> Result<Pax, String> {
        let mut pax = Pax::default();
        while !data.is_empty() {
            let (key, value, rest) = record(data).ok_or("a PAX record is malformed")?;
            data = rest;
            pax.take(key, value)
                .ok_or_else(|| format!("its PAX record {} is wrong", shown(key)))?;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            let fits = !name.is_empty() && !name.contains(&0);
            return fits.then(|| self.xattrs.push((name.to_vec(), value.to_vec())));
        }
        if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.take(key, value);
        }
        match key {
            b"path" => self.path = given(value, name)?,
            b"linkpath" => self.link = given(value, name)?,
            b"size" => self.size = given(value, number)?,
            b"uid" => self.uid = given(value, signed)?,
            b"gid" => self.gid = given(value, signed)?,
            b"mtime" => self.mtime = given(value, time)?,
            _ => {}
        }
        Some(())
    }
}

/// `LENGTH KEY=VALUE\n`: the key, the value and what comes behind. The value may be any bytes.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&data[..space])?).ok()?;
    let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    Some((&record[..equals], &record[equals + 1..], &data[length..]))
}

/// An empty value takes the record back.
fn given<T>(value: &[u8], parse: impl Fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { parse(value).map(Some) }
}

pub(super) fn name(value: &[u8]) -> Option<Vec<u8>> {
    (!value.contains(&0)).then(|| value.to_vec())
}

/// Decimal digits and nothing else, at most what fits a signed number.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = std::str::from_utf8(digits).ok()?.parse::<i64>().ok()?;
    u64::try_from(value).ok()
}

fn signed(value: &[u8]) -> Option<i64> {
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let value = i64::try_from(number(digits)?).ok()?;
    Some(if negative { -value } else { value })
}

/// Seconds since 1970 with a fraction, of which what is below nanoseconds is cut off.
fn time(value: &[u8]) -> Option<TimeSpec> {
    let mut halves = value.splitn(2, |byte| *byte == b'.');
    let whole = halves.next()?;
    let seconds = signed(whole)?;
    let fraction = halves.next().unwrap_or(b"0");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
    match whole.starts_with(b"-") && nanoseconds > 0 {
        true => Some(TimeSpec::new(seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        false => Some(TimeSpec::new(seconds, nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_any_bytes() {
        let pax = Pax::parse(b"27 SCHILY.xattr.user.a=\n=\0\n12 path=a/b\n10 foo=\n\n\n").unwrap();
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"\n=\0".to_vec())]);
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        // A later empty value takes it back.
        assert_eq!(Pax::parse(b"12 path=a/b\n8 path=\n").unwrap().path, None);
        for wrong in [
            &b"12 path=a/c"[..],
            b"13 path=a/b\n",
            b"11 path=a/b\n",
            b"path=a/b\n",
            b"-12 path=a/b\n",
            b"99999999999999999999 a=b\n",
            b"0 a=b\n",
            b"3 \n",
            b"6 =ab\n",
            b"6 abc\n",
            b"10 path=\0\n",
            b"11 size=-1\n",
            b"28 size=9223372036854775808\n",
            b"9 uid=+1\n",
            b"13 mtime=1.x\n",
            b"18 SCHILY.xattr.=\n",
            b"\0\0\0\0",
        ] {
            assert!(Pax::parse(wrong).is_err(), "{:?}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        let parse = |text: &str| time(text.as_bytes()).map(|time| (time.tv_sec(), time.tv_nsec()));
        assert_eq!(parse("12"), Some((12, 0)));
        assert_eq!(parse("12.5"), Some((12, 500_000_000)));
        assert_eq!(parse("12.0000000019"), Some((12, 1)));
        assert_eq!(parse("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(parse("-0.25"), Some((-1, 750_000_000)));
        assert_eq!(parse("-3"), Some((-3, 0)));
        assert_eq!(parse("-9223372036854775808"), None);
        assert_eq!(parse("1e9"), None);
        assert_eq!(parse(".5"), None);
    }
}

//! Names of signals, as images and people write them.

use std::str::FromStr;

use nix::sys::signal::Signal;

/// The number of a signal: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `RTMAX-1`, in any case.
pub(in crate::image) fn number(text: &str) -> Option<i32> {
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    if let Some(number) = digits(text) {
        return (1..=last).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |offset: &str, sign: char| match offset.strip_prefix(sign) {
        Some(number) => digits(number),
        None => offset.is_empty().then_some(0),
    };
    let real_time = if let Some(rest) = name.strip_prefix("RTMIN") {
        first.checked_add(offset(rest, '+')?)?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        last.checked_sub(offset(rest, '-')?)?
    } else {
        // Other names of theirs.
        let name = match name {
            "CLD" => "CHLD",
            "IOT" => "ABRT",
            "POLL" => "IO",
            name => name,
        };
        return Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32);
    };
    (first..=last).contains(&real_time).then_some(real_time)
}

/// Nothing but digits: Rust's own takes a sign too.
fn digits(text: &str) -> Option<i32> {
    let all = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_many_spellings() {
        for (text, wanted) in [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("SIGKILL", 9),
            ("64", libc::SIGRTMAX()),
            ("SIGCLD", libc::SIGCHLD),
            ("IOT", libc::SIGABRT),
            ("poll", libc::SIGIO),
            ("SIGRTMIN", libc::SIGRTMIN()),
            ("SIGRTMIN+3", libc::SIGRTMIN() + 3),
            ("rtmin+0", libc::SIGRTMIN()),
            ("RTMAX-1", libc::SIGRTMAX() - 1),
            ("RTMAX", libc::SIGRTMAX()),
        ] {
            assert_eq!(number(text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_signal_is_none() {
        for text in [
            "",
            "SIG",
            "0",
            "65",
            "-1",
            "+15",
            "15.0",
            " 15",
            "99999999999",
            "SIGFOO",
            "SIGSIGTERM",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN+",
            "RTMIN++1",
            "RTMIN+2147483647",
            "TERM\0",
        ] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }
}

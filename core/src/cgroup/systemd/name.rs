//! From `cgroupsPath` to a unit, and from a unit to its cgroup. Pure.

use std::path::{Path, PathBuf};

use crate::error::{Category, Error, Result, Stage};

const POINTER: &str = "/linux/cgroupsPath";

/// What begins the name of a unit that nobody has named.
const PREFIX: &str = "locule";

/// The longest name that systemd takes.
const LONGEST: usize = 255;

/// The slice and the scope that `cgroupsPath` stands for: `slice:prefix:name`, where an empty
/// slice is systemd's own choice for what root, or a user, runs, and an empty prefix is none.
pub(super) fn of(cgroups_path: Option<&Path>, id: &str, user: bool) -> Result<(String, String)> {
    let default_slice = if user { "user.slice" } else { "system.slice" };
    let Some(path) = cgroups_path.filter(|path| !path.as_os_str().is_empty()) else {
        let scope = format!("{PREFIX}-{}.scope", escape(id));
        check_length(&scope)?;
        return Ok((default_slice.to_owned(), scope));
    };
    let text = path.to_str().unwrap_or_default();
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return Err(wrong(format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \
             {path:?} instead"
        )));
    };
    if name.is_empty() {
        return Err(wrong(format!("cgroupsPath {path:?} has no name after the second colon")));
    }
    if name.ends_with(".slice") {
        return Err(wrong(format!("cgroupsPath {path:?} names a slice, which has no processes"))
            .hint("name a scope in that slice: \"SLICE:PREFIX:NAME\""));
    }
    let slice = if slice.is_empty() { default_slice } else { slice };
    directory_of_slice(slice)?;
    let scope = match prefix {
        "" => format!("{name}.scope"),
        _ => format!("{prefix}-{name}.scope"),
    };
    if let Some(strange) = scope.chars().find(|c| !is_plain(*c)) {
        return Err(wrong(format!("the unit {scope:?} has {strange:?} in its name"))
            .hint("systemd takes ASCII letters, digits and : - _ . \\ @"));
    }
    check_length(&scope)?;
    Ok((slice.to_owned(), scope))
}

fn wrong(message: String) -> Error {
    Error::new(Category::Spec, Stage::Cgroup, message).at(POINTER)
}

fn check_length(unit: &str) -> Result<()> {
    match unit.len() {
        0..=LONGEST => Ok(()),
        length => Err(wrong(format!("the unit's name of {length} bytes is longer than {LONGEST}"))),
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || ":-_.\\@".contains(c)
}

/// An id has one character that a unit's name cannot have.
fn escape(id: &str) -> String {
    id.replace('+', "\\x2b")
}

/// Where a slice's cgroup is: each dash descends, so `a-b.slice` is `a.slice/a-b.slice`.
pub(super) fn directory_of_slice(slice: &str) -> Result<PathBuf> {
    let strange = || wrong(format!("{slice:?} is not the name of a slice"));
    let stem = slice.strip_suffix(".slice").ok_or_else(strange)?;
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    if stem.is_empty() || stem.contains('/') || !stem.chars().all(is_plain) {
        return Err(strange());
    }
    if slice.len() > LONGEST || stem.split('-').any(str::is_empty) {
        return Err(strange());
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}

/// The path of a unit's object: what is no letter or digit is written as `_` and its code.
pub(super) fn object_path(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for (index, byte) in unit.bytes().enumerate() {
        match byte {
            b'0'..=b'9' if index > 0 => path.push(byte.into()),
            b'a'..=b'z' | b'A'..=b'Z' => path.push(byte.into()),
            _ => path.push_str(&format!("_{byte:02x}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Result<(String, String)> {
        of(Some(Path::new(path)), "box", false)
    }

    #[test]
    fn a_path_names_slice_prefix_and_name() {
        let pair = |slice: &str, scope: &str| (slice.to_owned(), scope.to_owned());
        assert_eq!(names("my.slice:cri:web").unwrap(), pair("my.slice", "cri-web.scope"));
        assert_eq!(names(":cri:web").unwrap(), pair("system.slice", "cri-web.scope"));
        assert_eq!(names("my.slice::web").unwrap(), pair("my.slice", "web.scope"));
        assert_eq!(names("").unwrap(), pair("system.slice", "locule-box.scope"));
        let user = of(None, "a+b", true).unwrap();
        assert_eq!(user, pair("user.slice", "locule-a\\x2bb.scope"));
    }

    #[test]
    fn what_is_no_slice_prefix_and_name_is_refused_with_its_place() {
        let long = format!("a.slice:p:{}", "x".repeat(250));
        for path in [
            "/my.slice/web",
            "web",
            "a.slice:p",
            "a.slice:p:n:m",
            "a.slice:p:",
            "a:p:n",
            "a.slice:p:b.slice",
            "a/b.slice:p:n",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            ".slice:p:n",
            "a.slice:p:n/m",
            "a.slice:p:n m",
            &long,
        ] {
            let error = names(path).unwrap_err();
            assert_eq!(error.category(), Category::Spec, "{path}");
            assert_eq!(error.pointer(), Some(POINTER), "{path}");
        }
    }

    #[test]
    fn a_slice_is_below_the_slices_that_its_dashes_name() {
        let directory = |slice: &str| directory_of_slice(slice).unwrap();
        assert_eq!(directory("-.slice"), Path::new(""));
        assert_eq!(directory("system.slice"), Path::new("system.slice"));
        assert_eq!(directory("a-b-c.slice"), Path::new("a.slice/a-b.slice/a-b-c.slice"));
    }

    #[test]
    fn the_path_of_an_object_has_letters_and_digits_only() {
        let path = object_path("1a-\\x2b.scope");
        assert_eq!(path, "/org/freedesktop/systemd1/unit/_31a_2d_5cx2b_2escope");
    }
}

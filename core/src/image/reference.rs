//! Names of images, as Docker reads them: `alpine` is `docker.io/library/alpine:latest`.

use oci_spec::distribution::Reference;

use crate::{Category, Error, Result, Stage};

/// The longest repository name.
const NAME_MAX: usize = 255;

const HUB: &str = "docker.io";

/// Written out here because the parser of `oci_spec` takes less than Docker does (no registry by its IPv6
/// address or in capitals), and more (letters of every alphabet in a tag).
pub(super) fn parse(name: &str) -> Result<Reference> {
    let wrong = |what: String| {
        let message = format!("image name {name:?}: {what}");
        Error::new(Category::Invalid, Stage::Image, message)
    };
    if name.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    if name.len() == 64 && name.bytes().all(is_hex) {
        let error = wrong("a name cannot be of 64 hexadecimal digits".into());
        return Err(error.hint("a digest begins with its algorithm: sha256:"));
    }
    if let Some((scheme, rest)) = name.split_once("://") {
        let error = wrong(format!("{:?} does not belong to it", format!("{scheme}://")));
        return Err(error.hint(format!("write {rest:?}")));
    }
    let (registry, rest) = split_registry(name);
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (rest, None),
    };
    let (repository, tag) = match rest.split_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (rest, None),
    };
    if !is_registry(registry) {
        return Err(wrong(format!("{registry:?} is no registry's address")));
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let error = wrong(format!("the repository {repository:?} has to be in lower case"));
        return Err(error.hint(format!("write {:?}", repository.to_ascii_lowercase())));
    }
    if repository.is_empty() {
        return Err(wrong("there is no repository in it".into()));
    }
    if let Some(part) = repository.split('/').find(|part| !is_component(part)) {
        return Err(wrong(match part {
            "" => format!("a part of the repository {repository:?} is empty"),
            part => format!(
                "{part:?} is not of lower-case letters and digits, with one of \".\", \"_\", \
                 \"__\" or any number of \"-\" between them"
            ),
        }));
    }
    let repository = match repository.contains('/') || registry != HUB {
        true => repository.to_owned(),
        false => format!("library/{repository}"),
    };
    if repository.len() > NAME_MAX {
        return Err(wrong(format!("the repository is longer than {NAME_MAX} characters")));
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(wrong(format!(
            "the tag {tag:?} is not of 1 to 128 letters, digits and any of \"_.-\", of which the \
             last two cannot be the first"
        )));
    }
    if let Some(digest) = digest {
        is_digest(digest).map_err(|what| wrong(format!("the digest {digest:?} {what}")))?;
    }
    let registry = registry.to_owned();
    Ok(match (tag.map(str::to_owned), digest.map(str::to_owned)) {
        (None, None) => Reference::with_tag(registry, repository, "latest".into()),
        (Some(tag), None) => Reference::with_tag(registry, repository, tag),
        (None, Some(digest)) => Reference::with_digest(registry, repository, digest),
        (Some(tag), Some(digest)) => {
            Reference::with_tag_and_digest(registry, repository, tag, digest)
        }
    })
}

/// With everything that may be left out: `docker.io/library/alpine:latest`, and with the digest after that,
/// if there is one.
pub(super) fn whole(reference: &Reference) -> String {
    reference.whole()
}

/// What stands before the first slash is a registry only if it cannot be a user's name.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => (HUB, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (HUB, name),
    }
}

/// A host name or an address, and maybe a port.
fn is_registry(text: &str) -> bool {
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let good = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
        return !address.is_empty()
            && address.bytes().all(good)
            && (port.is_empty() || port.strip_prefix(':').is_some_and(digits));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(good)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(digits)
}

/// Runs of letters and digits, with a separator between each two.
fn is_component(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    inner(*first)
        && inner(*last)
        && bytes.split(|byte| inner(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-')
        })
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = text.bytes();
    text.len() <= 128
        && bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || b".-".contains(&byte))
}

/// What is wrong with it, to follow its name.
fn is_digest(text: &str) -> Result<(), String> {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return Err("does not begin with an algorithm, such as sha256:".into());
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(format!("is of the unknown algorithm {algorithm:?}")),
    };
    match hex.len() == length && hex.bytes().all(is_hex) {
        true => Ok(()),
        false => Err(format!("does not end in {length} hexadecimal digits in lower case")),
    }
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let sha512 = format!("sha512:{}", "0a".repeat(64));
        let long = "a".repeat(255);
        let tag = "T".repeat(128);
        for (name, expected) in [
            ("alpine", "docker.io/library/alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20"),
            ("alpine:5000", "docker.io/library/alpine:5000"),
            ("a.b", "docker.io/library/a.b:latest"),
            ("localhost", "docker.io/library/localhost:latest"),
            ("user/app", "docker.io/user/app:latest"),
            ("user/a/b", "docker.io/user/a/b:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest"),
            ("docker.io/user/app:1", "docker.io/user/app:1"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
            ("index.docker.io/user/app", "docker.io/user/app:latest"),
            ("library/alpine", "docker.io/library/alpine:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("localhost:5000/x:y", "localhost:5000/x:y"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("[2001:db8::1]/x:1", "[2001:db8::1]/x:1"),
            ("registry.example/a", "registry.example/a:latest"),
            ("Registry.Example/a", "Registry.Example/a:latest"),
            ("REGISTRY/a", "REGISTRY/a:latest"),
            ("xn--n3h.com/x", "xn--n3h.com/x:latest"),
            ("gcr.io/a.b/c-d_e__f---g", "gcr.io/a.b/c-d_e__f---g:latest"),
            ("a:_T-1.x", "docker.io/library/a:_T-1.x"),
            ("deadbeef", "docker.io/library/deadbeef:latest"),
        ] {
            let reference = parse(name).unwrap();
            assert_eq!(whole(&reference), expected, "{name}");
            assert_eq!(whole(&parse(expected).unwrap()), expected);
        }
        for (name, expected) in [
            (format!("alpine@{digest}"), format!("docker.io/library/alpine@{digest}")),
            (format!("alpine:1@{digest}"), format!("docker.io/library/alpine:1@{digest}")),
            (
                format!("registry.example:80/a/b/c:tag@{digest}"),
                format!("registry.example:80/a/b/c:tag@{digest}"),
            ),
            (format!("x.y/z@{sha512}"), format!("x.y/z@{sha512}")),
            (format!("x.y/{long}"), format!("x.y/{long}:latest")),
            (format!("a:{tag}"), format!("docker.io/library/a:{tag}")),
            (format!("{}/a", "0".repeat(64)), format!("docker.io/{}/a:latest", "0".repeat(64))),
        ] {
            assert_eq!(whole(&parse(&name).unwrap()), expected, "{name}");
        }
        let reference = parse("alpine:1").unwrap();
        assert_eq!(
            (reference.registry(), reference.repository(), reference.tag(), reference.digest()),
            ("docker.io", "library/alpine", Some("1"), None)
        );
    }

    #[test]
    fn what_docker_refuses_is_refused_by_name() {
        let hex = "0a".repeat(32);
        let long = "a".repeat(256);
        for name in [
            "",
            ":",
            ":latest",
            "/",
            "/a",
            "a/",
            "a//b",
            "Alpine",
            "user/App",
            "docker.io/Alpine",
            "a b",
            " a",
            "a\n",
            "a..b",
            "a_.b",
            "a___b",
            "-a",
            "a-",
            "a._b",
            "a:",
            "a:.x",
            "a:-x",
            "a:x/y",
            "a:é",
            "é",
            "a:b:c",
            "a@",
            "a@sha256:",
            "a@sha256:abc",
            "x_y.com/a",
            "-x.com/a",
            "x..com/a",
            "x.com:/a",
            "x.com:80a/a",
            "[::1/a",
            "[]/a",
            "[::1]x/a",
            "docker://alpine",
            "https://registry.example/a",
            &hex,
            &format!("a@{hex}"),
            &format!("a@md5:{hex}"),
            &format!("a@sha256:{}", hex.to_uppercase()),
            &format!("a@sha512:{hex}"),
            &format!("a@sha256:{hex}@sha256:{hex}"),
            &format!("@sha256:{hex}"),
            &format!("x.com/{long}"),
            // With the `library/` that is put in front.
            &long[..250],
            &format!("a:{}", "t".repeat(129)),
        ] {
            let error = parse(name).unwrap_err();
            assert_eq!(error.category(), Category::Invalid, "{name}");
            assert!(error.to_string().starts_with(&format!("image name {name:?}: ")), "{error}");
        }
    }

    #[test]
    fn capitals_and_schemes_come_with_advice() {
        assert_eq!(parse("user/App:1").unwrap_err().advice(), Some("write \"user/app\""));
        let advice = parse("docker://alpine").unwrap_err();
        assert_eq!(advice.advice(), Some("write \"alpine\""));
    }
}

//! Which image of an index is for this machine.

use std::fmt;

use oci_spec::image::{Arch, Descriptor, ImageConfiguration, MediaType, Os, Platform};

use crate::{Category, Error, Result, Stage};

/// This machine's platform, or `os/architecture[/variant]`, of which one of the first two does. Names that
/// distributions use for architectures are understood, too.
pub(super) fn wanted(choice: Option<&str>) -> Result<Platform> {
    let Some(choice) = choice else { return Ok(Name::own().into()) };
    let wrong = |what: &str| {
        let message = format!("platform {choice:?}: {what}");
        Error::new(Category::Invalid, Stage::Image, message)
            .hint("write it as os/architecture[/variant], such as linux/amd64 or linux/arm/v7")
    };
    let parts: Vec<&str> = choice.split('/').collect();
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if parts.iter().any(|part| part.is_empty() || !part.bytes().all(good)) {
        return Err(wrong("its parts are of letters, digits and any of \"_.-\""));
    }
    let name = match parts[..] {
        [os, architecture] => Name::new(os, architecture, ""),
        [os, architecture, variant] => Name::new(os, architecture, variant),
        [one] => {
            let name = Name::new("linux", one, "");
            let own = Name::own();
            let os = Name::new(one, &own.architecture, &own.variant);
            match (Arch::from(&*name.architecture), Os::from(&*os.os)) {
                (Arch::Other(_), Os::Other(_)) => {
                    return Err(wrong("this is neither an operating system nor an architecture"));
                }
                (Arch::Other(_), _) => os,
                _ => name,
            }
        }
        _ => return Err(wrong("it has too many parts")),
    };
    Ok(name.into())
}

/// The best of an index; an error that lists what there is. Older variants of the wanted one come after it,
/// the newest first; an image that does not say for what it is comes last, if there is one such alone.
pub(super) fn choose<'a>(manifests: &'a [Descriptor], wanted: &Platform) -> Result<&'a Descriptor> {
    let wanted = Name::of(wanted);
    let images = || manifests.iter().filter(|descriptor| is_image(descriptor));
    let mut best: Option<(&Descriptor, Rank)> = None;
    for descriptor in images() {
        let Some(platform) = descriptor.platform() else { continue };
        let Some(rank) = rank(&wanted, &Name::of(platform)) else { continue };
        if best.as_ref().is_none_or(|(_, other)| rank > *other) {
            best = Some((descriptor, rank));
        }
    }
    if let Some((descriptor, _)) = best {
        return Ok(descriptor);
    }
    let mut unnamed = images().filter(|descriptor| descriptor.platform().is_none());
    if let (Some(descriptor), None) = (unnamed.next(), unnamed.next()) {
        return Ok(descriptor);
    }
    let mut there: Vec<String> = Vec::new();
    for descriptor in images() {
        let name = match descriptor.platform() {
            Some(platform) => Name::of(platform).to_string(),
            None => "some without a platform".into(),
        };
        if !there.contains(&name) {
            there.push(name);
        }
        if there.len() > 20 {
            there.push("others".into());
            break;
        }
    }
    if there.is_empty() {
        let message = format!("there is no image for {wanted}: the index lists none at all");
        return Err(Error::new(Category::NotFound, Stage::Image, message));
    }
    let message = format!("there is no image for {wanted}, only for {}", there.join(", "));
    Err(Error::new(Category::NotFound, Stage::Image, message)
        .hint("another platform than this machine's has to be asked for"))
}

/// Refuses an image, in no index, that is not for the platform that was asked for.
pub(super) fn check(image: &ImageConfiguration, wanted: &Platform) -> Result<()> {
    let variant = image.variant().as_deref().unwrap_or_default();
    let name = Name::new(&image.os().to_string(), &image.architecture().to_string(), variant);
    let wanted = Name::of(wanted);
    match rank(&wanted, &name) {
        Some(_) => Ok(()),
        None => {
            let message = format!("there is no image for {wanted}, only for {name}");
            Err(Error::new(Category::NotFound, Stage::Image, message))
        }
    }
}

/// Whether it is something to run: not what is said about another image, and nothing unknown, which the
/// image-spec has readers ignore.
fn is_image(descriptor: &Descriptor) -> bool {
    let known = match descriptor.media_type() {
        MediaType::ImageManifest | MediaType::ImageIndex => true,
        other => matches!(
            other.as_ref(),
            "application/vnd.docker.distribution.manifest.v2+json"
                | "application/vnd.docker.distribution.manifest.list.v2+json"
        ),
    };
    let annotated = descriptor
        .annotations()
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key("vnd.docker.reference.type"));
    let unknown = descriptor.platform().as_ref().is_some_and(|platform| {
        platform.os().to_string() == "unknown" || platform.architecture().to_string() == "unknown"
    });
    known && !annotated && !unknown
}

/// A platform by the names that everything is compared by: those of containerd. An arm64 without a variant
/// is v8, an arm without one v7, and the first amd64 has none.
#[derive(PartialEq, Eq)]
struct Name {
    os: String,
    architecture: String,
    variant: String,
}

impl Name {
    fn new(os: &str, architecture: &str, variant: &str) -> Name {
        let os = match &*os.to_ascii_lowercase() {
            "macos" => "darwin".into(),
            os => os.to_owned(),
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.to_ascii_lowercase();
        let (architecture, variant) = match (&*architecture, &*variant) {
            ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1" | "1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "" | "8" | "8.0" | "v8.0") => ("arm64", "v8"),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", variant) => ("arm", variant),
            ("loongarch64", variant) => ("loong64", variant),
            ("powerpc64le" | "ppc64el", variant) => ("ppc64le", variant),
            other => other,
        };
        let variant = match variant.as_bytes() {
            [b'0'..=b'9', ..] => format!("v{variant}"),
            _ => variant.to_owned(),
        };
        Name { os, architecture: architecture.to_owned(), variant }
    }

    fn of(platform: &Platform) -> Name {
        let variant = platform.variant().as_deref().unwrap_or_default();
        Name::new(&platform.os().to_string(), &platform.architecture().to_string(), variant)
    }

    fn own() -> Name {
        let little = cfg!(target_endian = "little");
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if little => "ppc64le",
            "powerpc64" => "ppc64",
            "powerpc" => "ppc",
            "mips" if little => "mipsle",
            "mips64" if little => "mips64le",
            other => other,
        };
        Name::new("linux", architecture, "")
    }
}

impl From<Name> for Platform {
    fn from(name: Name) -> Platform {
        let mut platform = Platform::default();
        platform.set_os(Os::from(&*name.os));
        platform.set_architecture(Arch::from(&*name.architecture));
        platform.set_variant(Some(name.variant).filter(|variant| !variant.is_empty()));
        platform
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Somebody else's words.
        write!(f, "{}/{}", self.os.escape_debug(), self.architecture.escape_debug())?;
        match &*self.variant {
            "" => Ok(()),
            variant => write!(f, "/{}", variant.escape_debug()),
        }
    }
}

/// How new a variant is.
type Rank = (u32, u32);

/// How well a machine like `wanted` runs what is for `other`; `None` if not at all.
fn rank(wanted: &Name, other: &Name) -> Option<Rank> {
    if wanted.os != other.os || wanted.architecture != other.architecture {
        return None;
    }
    if wanted.variant == other.variant {
        return Some((u32::MAX, 0));
    }
    // Each of these runs what its predecessors do.
    let ordered = matches!(&*wanted.architecture, "amd64" | "arm" | "arm64");
    let (newest, version) = (version(&wanted.variant), version(&other.variant));
    match (newest, version) {
        (Some(newest), Some(version)) if ordered => Some(version).filter(|_| version < newest),
        _ if other.variant.is_empty() => Some((0, 0)),
        _ => None,
    }
}

/// `v8.1` is (8, 1); none is the first.
fn version(variant: &str) -> Option<Rank> {
    if variant.is_empty() {
        return Some((1, 0));
    }
    let digits = variant.strip_prefix('v')?;
    let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn name(choice: Option<&str>) -> String {
        Name::of(&wanted(choice).unwrap()).to_string()
    }

    /// Descriptors, numbered by their sizes.
    fn index(platforms: &[&str]) -> Vec<Descriptor> {
        let descriptor = |(size, platform): (usize, &&str)| {
            let mut descriptor = json!({
                "mediaType": MediaType::ImageManifest.to_string(),
                "digest": format!("sha256:{}", "0".repeat(64)),
                "size": size,
            });
            let parts: Vec<&str> = platform.split('/').collect();
            if let [os, architecture, variant @ ..] = &parts[..] {
                descriptor["platform"] = json!({ "os": os, "architecture": architecture });
                if let [variant] = variant {
                    descriptor["platform"]["variant"] = json!(variant);
                }
            }
            serde_json::from_value(descriptor).unwrap()
        };
        platforms.iter().enumerate().map(descriptor).collect()
    }

    fn chosen(platforms: &[&str], choice: &str) -> Option<u64> {
        match choose(&index(platforms), &wanted(Some(choice)).unwrap()) {
            Ok(descriptor) => Some(descriptor.size()),
            Err(error) => {
                assert_eq!(error.category(), Category::NotFound, "{error}");
                None
            }
        }
    }

    #[test]
    fn an_image_alone_has_to_be_for_the_platform_that_was_asked_for() {
        let image = |document| serde_json::from_value::<ImageConfiguration>(document).unwrap();
        let arm = image(json!({
            "os": "linux", "architecture": "arm", "variant": "v6",
            "rootfs": { "type": "layers", "diff_ids": [] },
        }));
        for choice in ["linux/arm/v6", "linux/arm", "armhf"] {
            check(&arm, &wanted(Some(choice)).unwrap()).unwrap();
        }
        for choice in ["linux/arm/v5", "linux/arm64", "freebsd/arm"] {
            let error = check(&arm, &wanted(Some(choice)).unwrap()).unwrap_err();
            assert_eq!(error.category(), Category::NotFound, "{choice}");
            assert!(error.to_string().ends_with("only for linux/arm/v6"), "{error}");
        }
    }

    #[test]
    fn without_a_choice_it_is_this_machine() {
        let platform = wanted(None).unwrap();
        assert_eq!(*platform.os(), Os::Linux);
        match std::env::consts::ARCH {
            "x86_64" => assert_eq!(name(None), "linux/amd64"),
            "aarch64" => assert_eq!(name(None), "linux/arm64/v8"),
            other => println!("skipped: what {other} is called here is unknown"),
        }
    }

    #[test]
    fn names_of_architectures_are_understood_as_containerd_does() {
        for (choice, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("Linux/x86_64", "linux/amd64"),
            ("linux/x86-64/v2", "linux/amd64/v2"),
            ("linux/arm64", "linux/arm64/v8"),
            ("linux/arm64/v8", "linux/arm64/v8"),
            ("linux/arm64/8", "linux/arm64/v8"),
            ("linux/AArch64", "linux/arm64/v8"),
            ("linux/arm64/v9.0", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("linux/riscv64", "linux/riscv64"),
            ("macos/arm64", "darwin/arm64/v8"),
            ("windows/amd64", "windows/amd64"),
            ("plan9/of.course", "plan9/of.course"),
            ("arm64", "linux/arm64/v8"),
            ("s390x", "linux/s390x"),
        ] {
            assert_eq!(name(Some(choice)), expected, "{choice}");
        }
        assert_eq!(name(Some("linux")), name(None));
        assert!(name(Some("windows")).starts_with("windows/"));
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for choice in
            ["", "/", "linux/", "/amd64", "linux/amd64/v2/x", "linux/a b", "nonsense", "linux//v8"]
        {
            let error = wanted(Some(choice)).unwrap_err();
            assert_eq!(error.category(), Category::Invalid, "{choice}");
            assert!(error.to_string().contains(&format!("{choice:?}")), "{error}");
        }
    }

    #[test]
    fn the_exact_platform_is_chosen_before_older_variants() {
        let arm = ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm64/v8"];
        assert_eq!(chosen(&arm, "linux/arm/v7"), Some(1));
        assert_eq!(chosen(&arm, "linux/arm/v6"), Some(2));
        assert_eq!(chosen(&arm, "linux/arm/v5"), Some(0));
        assert_eq!(chosen(&arm, "linux/arm/v8"), Some(1));
        assert_eq!(chosen(&arm, "linux/arm"), Some(1));
        assert_eq!(chosen(&arm, "linux/arm64"), Some(3));
        assert_eq!(chosen(&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7"), Some(1));
        assert_eq!(chosen(&["linux/arm"], "linux/arm/v7"), Some(0));
        assert_eq!(chosen(&["linux/arm"], "linux/arm/v6"), None);
        assert_eq!(chosen(&["linux/arm64/v9", "linux/arm64"], "linux/arm64"), Some(1));
        assert_eq!(chosen(&["linux/arm64", "linux/arm64/v8.2"], "linux/arm64/v9"), Some(1));
        let amd64 = ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/amd64"];
        assert_eq!(chosen(&amd64, "linux/amd64"), Some(2));
        assert_eq!(chosen(&amd64, "linux/amd64/v2"), Some(1));
        assert_eq!(chosen(&amd64, "linux/amd64/v4"), Some(0));
        assert_eq!(chosen(&amd64[..2], "linux/amd64"), None);
        assert_eq!(chosen(&["linux/riscv64", "linux/riscv64/x"], "linux/riscv64/x"), Some(1));
        assert_eq!(chosen(&["linux/riscv64"], "linux/riscv64/x"), Some(0));
        assert_eq!(chosen(&["linux/riscv64/x"], "linux/riscv64"), None);
    }

    #[test]
    fn another_system_is_chosen_only_when_asked_for() {
        assert_eq!(chosen(&["windows/amd64"], "linux/amd64"), None);
        assert_eq!(chosen(&["linux/amd64", "windows/amd64"], "windows/amd64"), Some(1));
        assert_eq!(chosen(&["linux/386"], "linux/amd64"), None);
    }

    #[test]
    fn an_image_that_does_not_say_for_what_it_is_comes_last() {
        assert_eq!(chosen(&["", "linux/amd64"], "linux/amd64"), Some(1));
        assert_eq!(chosen(&[""], "linux/amd64"), Some(0));
        assert_eq!(chosen(&["linux/s390x", ""], "linux/amd64"), Some(1));
        assert_eq!(chosen(&["", ""], "linux/amd64"), None);
    }

    #[test]
    fn what_is_no_image_is_never_chosen() {
        assert_eq!(chosen(&["unknown/unknown"], "unknown/unknown"), None);
        let mut annotated = index(&["linux/amd64"]);
        let annotation = ("vnd.docker.reference.type".into(), "attestation-manifest".into());
        annotated[0].set_annotations(Some([annotation].into()));
        assert!(choose(&annotated, &wanted(Some("linux/amd64")).unwrap()).is_err());
        let mut layer = index(&[""]);
        layer[0].set_media_type(MediaType::ImageLayer);
        assert!(choose(&layer, &wanted(None).unwrap()).is_err());
        layer[0].set_media_type("application/vnd.docker.distribution.manifest.v2+json".into());
        assert!(choose(&layer, &wanted(None).unwrap()).is_ok());
    }

    #[test]
    fn the_error_says_what_there_is() {
        let there = ["linux/arm64", "linux/s390x", "linux/arm64/v8", "unknown/unknown"];
        let error = choose(&index(&there), &wanted(Some("linux/amd64")).unwrap()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there is no image for linux/amd64, only for linux/arm64/v8, linux/s390x"
        );
        let error = choose(&[], &wanted(Some("linux/amd64")).unwrap()).unwrap_err();
        assert!(error.to_string().contains("none at all"), "{error}");
    }
}

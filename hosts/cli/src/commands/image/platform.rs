//! Whether an image in the store is for the platform that is asked for: by the rules by which the library chooses
//! from an index and refuses an image, so that what was fetched for a platform is found again.

/// Whether `image`, the platform of one, does for who asks for `wanted`.
pub fn serves(image: &str, wanted: &str) -> bool {
    let unsaid = image.split('/').nth(2).is_none_or(str::is_empty);
    let (image, wanted) = (Name::of(image), Name::of(wanted));
    if (&image.os, &image.architecture) != (&wanted.os, &wanted.architecture) {
        return false;
    }
    // Only the index that it came from may have said more.
    if unsaid || image.variant == wanted.variant {
        return true;
    }
    // Each of these runs what its predecessors do.
    let ordered = matches!(&*wanted.architecture, "amd64" | "arm" | "arm64");
    match (version(&image.variant), version(&wanted.variant)) {
        (Some(image), Some(wanted)) => ordered && image < wanted,
        _ => false,
    }
}

/// A platform by the names that are compared.
struct Name {
    os: String,
    architecture: String,
    variant: String,
}

impl Name {
    /// `os/architecture[/variant]`, or one of the first two.
    fn of(text: &str) -> Name {
        let text = text.to_ascii_lowercase();
        let (os, architecture, variant) = match text.split('/').collect::<Vec<_>>()[..] {
            ["linux"] => ("linux", std::env::consts::ARCH, ""),
            [architecture] => ("linux", architecture, ""),
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => ("", "", ""),
        };
        let variant = variant.strip_suffix(".0").unwrap_or(variant);
        let variant = match variant.as_bytes() {
            [b'0'..=b'9', ..] => format!("v{variant}"),
            _ => variant.to_owned(),
        };
        let (architecture, variant) = match (architecture, &*variant) {
            ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "") => ("arm64", "v8"),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "") => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("loongarch64", variant) => ("loong64", variant),
            ("powerpc64le" | "ppc64el" | "powerpc64", variant) => ("ppc64le", variant),
            other => other,
        };
        let os = if os == "macos" { "darwin" } else { os };
        Name {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }
}

/// `v8.1` is (8, 1); none is the first.
fn version(variant: &str) -> Option<(u32, u32)> {
    if variant.is_empty() {
        return Some((1, 0));
    }
    let digits = variant.strip_prefix('v')?;
    let (major, minor) = digits.split_once('.').unwrap_or((digits, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_platform_has_many_names() {
        for (image, wanted) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/amd64", "x86_64"),
            ("linux/amd64", "Linux/amd64/v1"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64", "aarch64"),
            ("linux/arm64", "linux/arm64/v8.0"),
            ("linux/arm/v7", "linux/armhf"),
            ("linux/arm", "linux/arm/7"),
        ] {
            assert!(serves(image, wanted) && serves(wanted, image), "{image} {wanted}");
        }
        assert!(serves(&format!("linux/{}", std::env::consts::ARCH), "linux"));
    }

    #[test]
    fn an_older_variant_does_and_nothing_else_that_differs() {
        for (image, wanted) in [
            ("linux/arm/v6", "linux/arm/v7"),
            ("linux/arm64/v8", "linux/arm64/v9"),
            ("linux/arm64", "linux/arm64/v9"),
            ("linux/amd64", "linux/amd64/v3"),
            ("linux/riscv64", "linux/riscv64/x"),
        ] {
            assert!(serves(image, wanted), "{image} {wanted}");
            assert!(!serves(wanted, image), "{wanted} {image}");
        }
        for (image, wanted) in [
            ("linux/amd64", "linux/arm64"),
            ("linux/386", "linux/amd64"),
            ("linux/arm", "linux/arm64"),
            ("windows/amd64", "linux/amd64"),
            ("linux/amd64", "linux/"),
            ("linux/amd64", "nonsense"),
        ] {
            assert!(!serves(image, wanted), "{image} {wanted}");
        }
    }
}

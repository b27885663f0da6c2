//! Which library this is, and what it can do.

use std::ffi::{CStr, c_char, c_int};

use crate::argument;
use crate::entry::infallible;
use crate::{images, wasm};

/// The version of this header. Within one LOCULE_VERSION_MAJOR.LOCULE_VERSION_MINOR below 1.0,
/// and within one major version from 1.0 on, programs built with an older header go on working.
pub const LOCULE_VERSION_MAJOR: u32 = 0;
/// See LOCULE_VERSION_MAJOR.
pub const LOCULE_VERSION_MINOR: u32 = 1;
/// See LOCULE_VERSION_MAJOR.
pub const LOCULE_VERSION_PATCH: u32 = 0;

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("the package version contains a NUL byte"),
    };

/// What locule_has answers yes to, beside what depends on the build. A name is never removed.
const FEATURES: [&str; 16] = [
    "cancel",
    "container",
    "detach",
    "events",
    "exec",
    "explain",
    "parentage",
    "pass-fds",
    "plugins",
    "rootfs-layers",
    "rootfs-overlay",
    "seccomp-listener",
    "spec",
    "systemd",
    "terminal",
    "watch",
];

/// The version of the library that runs, such as "0.1.0": it may be later than the header. A
/// constant.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn locule_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Returns 1 if the library that runs has this feature, else 0, also for NULL. In 0.1:
/// "cancel", "container", "detach", "events", "exec", "explain", "parentage", "pass-fds",
/// "plugins", "rootfs-layers", "rootfs-overlay", "seccomp-listener", "spec", "systemd", "terminal",
/// "watch"; and if the library was built with it "images", "registry", "wasm-plugins". What this
/// machine can do says locule_runtime_features_json.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_has(feature: *const c_char) -> c_int {
    infallible(0, || {
        // SAFETY: NULL or a string, as the header asks.
        let feature = unsafe { argument::optional_text(feature, "feature") };
        let has = |name| match name {
            "images" => images::HERE,
            "registry" => images::REGISTRY,
            "wasm-plugins" => wasm::HERE,
            name => FEATURES.contains(&name),
        };
        matches!(feature, Ok(Some(name)) if has(name)).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_version_of_the_package() {
        let header =
            format!("{LOCULE_VERSION_MAJOR}.{LOCULE_VERSION_MINOR}.{LOCULE_VERSION_PATCH}");
        assert_eq!(VERSION.to_str(), Ok(header.as_str()));
    }

    #[test]
    fn an_unknown_feature_is_refused_without_a_word() {
        // SAFETY: strings and NULL.
        unsafe {
            assert_eq!(locule_has(c"exec".as_ptr()), 1);
            assert_eq!(locule_has(c"teleport".as_ptr()), 0);
            assert_eq!(locule_has(std::ptr::null()), 0);
        }
    }
}

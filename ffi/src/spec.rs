//! The default config.json, with a few choices filled in.

use std::ffi::{c_char, c_int};
use std::path::Path;

use locule::Result;

use crate::argument::{optional_path, optional_strings, optional_text, unsupported};
use crate::buf::{self, locule_buf};
use crate::entry::fallible;
use crate::error::locule_error;
use crate::options::{self, Versioned, check_flags};

/// The root filesystem is read-only.
pub const LOCULE_SPEC_READONLY: u64 = 1;
/// If the calling process is not root: add a user namespace that maps its user and group, and
/// leave out what needs root. Without effect for root.
pub const LOCULE_SPEC_ROOTLESS_AUTO: u64 = 2;
/// Share the network of the calling process.
pub const LOCULE_SPEC_NETWORK_HOST: u64 = 4;
/// The program gets a terminal.
pub const LOCULE_SPEC_TERMINAL: u64 = 8;

/// The choices for a default config.json.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_spec_opts {
    /// sizeof(struct locule_spec_opts).
    pub size: usize,
    /// LOCULE_SPEC_*.
    pub flags: u64,
    /// The program and its arguments, ending with NULL. Default: "sh".
    pub args: *const *const c_char,
    /// The environment as "NAME=value", ending with NULL. Default: a PATH, and TERM with
    /// LOCULE_SPEC_TERMINAL.
    pub env: *const *const c_char,
    /// The working directory in the container. Default: "/".
    pub cwd: *const c_char,
    /// The host name in the container. Default: "locule".
    pub hostname: *const c_char,
    /// The root filesystem, absolute or from the bundle. Default: "rootfs".
    pub rootfs: *const c_char,
    /// The user id of the program in the container.
    pub uid: u32,
    /// The group id of the program in the container.
    pub gid: u32,
    /// The most memory the container may use, in bytes. 0: no limit.
    pub memory_bytes: u64,
    /// The most processor time it may use, in thousandths of one processor. 0: no limit.
    pub cpu_milli: u32,
    /// The most processes it may have. 0: no limit.
    pub pids: u32,
}

// SAFETY: `repr(C)`, the size comes first, integers and pointers only, without padding
// (tests/abi/layout.rs).
unsafe impl Versioned for locule_spec_opts {
    const NAME: &str = "locule_spec_opts";
    const FIRST_SIZE: usize = 80;
}

/// What the struct says, in Rust types.
#[allow(dead_code)] // until the core has the template that takes it
struct Choices<'a> {
    args: Option<Vec<&'a str>>,
    env: Option<Vec<&'a str>>,
    cwd: Option<&'a Path>,
    hostname: Option<&'a str>,
    rootfs: Option<&'a Path>,
    flags: u64,
    user: (u32, u32),
    memory_bytes: u64,
    cpu_milli: u32,
    pids: u32,
}

fn generate(_choices: Choices<'_>) -> Result<Vec<u8>> {
    Err(unsupported("the default spec is not part of this version yet"))
}

/// Stores in *out a config.json that suits most containers, with these choices: namespaces,
/// the usual mounts, masked paths, capabilities and seccomp profile. It may be changed and
/// given to locule_container_create. NULL for `opts` takes every default. The caller frees
/// it with locule_buf_free.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_UNSUPPORTED. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_spec_generate(
    opts: *const locule_spec_opts,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            let defaults = locule_spec_opts {
                size: size_of::<locule_spec_opts>(),
                flags: 0,
                args: std::ptr::null(),
                env: std::ptr::null(),
                cwd: std::ptr::null(),
                hostname: std::ptr::null(),
                rootfs: std::ptr::null(),
                uid: 0,
                gid: 0,
                memory_bytes: 0,
                cpu_milli: 0,
                pids: 0,
            };
            let opts = match opts.is_null() {
                true => defaults,
                false => options::read(opts, "opts")?,
            };
            let known = LOCULE_SPEC_READONLY
                | LOCULE_SPEC_ROOTLESS_AUTO
                | LOCULE_SPEC_NETWORK_HOST
                | LOCULE_SPEC_TERMINAL;
            check_flags(opts.flags, known, "opts.flags")?;
            *out = locule_buf::new(generate(Choices {
                args: optional_strings(opts.args, "opts.args")?,
                env: optional_strings(opts.env, "opts.env")?,
                cwd: optional_path(opts.cwd),
                hostname: optional_text(opts.hostname, "opts.hostname")?,
                rootfs: optional_path(opts.rootfs),
                flags: opts.flags,
                user: (opts.uid, opts.gid),
                memory_bytes: opts.memory_bytes,
                cpu_milli: opts.cpu_milli,
                pids: opts.pids,
            })?);
            Ok(0)
        })
    }
}

//! The default config.json, with a few choices filled in.

use std::ffi::{c_char, c_int};
use std::path::Path;
use std::ptr;

use locule::Result;
use locule::spec::{Network, Template};

use crate::argument::{invalid, optional_path, optional_strings, optional_text};
use crate::buf::{self, locule_buf};
use crate::entry::fallible;
use crate::error::locule_error;
use crate::options::{self, Versioned, check_flags};

/// The root filesystem is read-only.
pub const LOCULE_SPEC_READONLY: u64 = 1;
/// If the calling process is not root, or root of a user namespace without other ids: add a
/// user namespace that maps its user and group, and leave out what needs root. Without effect
/// for root.
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
    /// The environment as "NAME=value", ending with NULL. A usual PATH is added if it has none,
    /// and with a terminal TERM.
    pub env: *const *const c_char,
    /// The working directory in the container. Default: "/".
    pub cwd: *const c_char,
    /// The host name in the container; "" for this machine's own. Default: "locule".
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
    const NAME: &'static str = "locule_spec_opts";
    const FIRST_SIZE: usize = 80;
}

impl locule_spec_opts {
    const DEFAULT: locule_spec_opts = locule_spec_opts {
        size: size_of::<locule_spec_opts>(),
        flags: 0,
        args: ptr::null(),
        env: ptr::null(),
        cwd: ptr::null(),
        hostname: ptr::null(),
        rootfs: ptr::null(),
        uid: 0,
        gid: 0,
        memory_bytes: 0,
        cpu_milli: 0,
        pids: 0,
    };

    /// # Safety
    /// The pointers in the struct are as the header asks.
    unsafe fn template(&self) -> Result<Template> {
        let known = LOCULE_SPEC_READONLY
            | LOCULE_SPEC_ROOTLESS_AUTO
            | LOCULE_SPEC_NETWORK_HOST
            | LOCULE_SPEC_TERMINAL;
        check_flags(self.flags, known, "opts.flags")?;
        let has = |flag: u64| self.flags & flag != 0;
        // SAFETY: passed on to the caller.
        let (args, env, cwd, hostname, rootfs) = unsafe {
            (
                optional_strings(self.args, "opts.args")?.unwrap_or_else(|| vec!["sh"]),
                optional_strings(self.env, "opts.env")?.unwrap_or_default(),
                optional_path(self.cwd),
                optional_text(self.hostname, "opts.hostname")?,
                optional_path(self.rootfs).unwrap_or(Path::new("rootfs")),
            )
        };
        if args.is_empty() {
            return Err(invalid("`opts.args` names no program"));
        }
        let mut template = Template::new(rootfs, args);
        template.env = env.into_iter().map(str::to_owned).collect();
        if let Some(cwd) = cwd {
            template.cwd = cwd.to_owned();
        }
        if let Some(hostname) = hostname {
            template.hostname = hostname.to_owned();
        }
        template.user = (self.uid, self.gid);
        template.readonly = has(LOCULE_SPEC_READONLY);
        if has(LOCULE_SPEC_ROOTLESS_AUTO) {
            template.rootless = locule::rootless_ids();
        }
        if has(LOCULE_SPEC_NETWORK_HOST) {
            template.network = Network::Host;
        }
        template.terminal = has(LOCULE_SPEC_TERMINAL);
        template.memory = (self.memory_bytes != 0).then_some(self.memory_bytes);
        template.cpus = (self.cpu_milli != 0).then(|| f64::from(self.cpu_milli) / 1000.0);
        template.pids = (self.pids != 0).then(|| self.pids.into());
        Ok(template)
    }
}

/// Stores in *out a config.json that suits most containers, with these choices: namespaces,
/// the usual mounts, masked paths, capabilities and seccomp profile. It may be changed and
/// given to locule_container_create. NULL for `opts` takes every default. The caller frees
/// it with locule_buf_free.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_SPEC,
/// LOCULE_E_UNSUPPORTED. Since 0.1.
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
            let opts = match opts.is_null() {
                true => locule_spec_opts::DEFAULT,
                false => options::read(opts, "opts")?,
            };
            *out = locule_buf::new(opts.template()?.json()?);
            Ok(0)
        })
    }
}

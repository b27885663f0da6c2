//! The place where containers are kept, and the one descriptor for all that happens there.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use locule::cgroup::Manager;
use locule::plugin::Plugins;
use locule::{Category, Error, Result, Runtime, RuntimeOptions, Stage};

use crate::argument::{
    invalid, object, optional_bytes, optional_path, out, poll_timeout, unsupported,
};
use crate::buf::{self, locule_buf};
use crate::container::locule_create_opts;
use crate::entry::{fallible, infallible};
use crate::error::{LOCULE_E_INVALID, locule_error};
use crate::event::locule_event;
use crate::handle;
use crate::options::{self, Versioned, check_flags, check_reserved};
use crate::plugin::{self, locule_plugin};
use crate::wasm;

/// Do not touch cgroups at all.
pub const LOCULE_RUNTIME_NO_CGROUPS: u64 = 1;
/// Leave annotations alone that change what is done. With LOCULE_CGROUPS_SYSTEMD
/// org.systemd.property.NAME sets any property of the container's unit: who may write annotations
/// could do so.
pub const LOCULE_RUNTIME_IGNORE_ANNOTATIONS: u64 = 2;

/// The library makes the containers' cgroups itself, with directories in every hierarchy.
pub const LOCULE_CGROUPS_CGROUPFS: u32 = 0;
/// systemd makes them, with a scope for each container: that of the machine for root, the user's
/// own for an ordinary user. Needs cgroup v2 alone.
pub const LOCULE_CGROUPS_SYSTEMD: u32 = 1;

/// For who looks for a fault.
pub const LOCULE_LOG_DEBUG: u32 = 0;
/// What goes on.
pub const LOCULE_LOG_INFO: u32 = 1;
/// What is not as it should be.
pub const LOCULE_LOG_WARN: u32 = 2;
/// What has failed.
pub const LOCULE_LOG_ERROR: u32 = 3;

/// Hears a line that a Wasm plugin says, or that is said of a plugin: how much it matters, one of
/// LOCULE_LOG_*, the plugin's name, the container's id, and the line, without a line end. All of it
/// lives until the callback returns. It is called on the thread on which the plugin is, and must
/// return: no longjmp, no exception.
pub type locule_plugin_log_fn = Option<
    unsafe extern "C" fn(
        level: u32,
        plugin: *const c_char,
        container_id: *const c_char,
        message: *const c_char,
        user: *mut c_void,
    ),
>;

/// How a runtime is opened.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_runtime_opts {
    /// sizeof(struct locule_runtime_opts).
    pub size: usize,
    /// LOCULE_RUNTIME_*.
    pub flags: u64,
    /// The directory where containers are kept; made if missing. NULL: /run/locule for root,
    /// else $XDG_RUNTIME_DIR/locule, else /tmp/locule-UID.
    pub state_dir: *const c_char,
    /// The keeper executable. NULL: the one inside this library, else an installed one.
    pub keeper_path: *const c_char,
    /// Who makes the containers' cgroups, one of LOCULE_CGROUPS_*; 0 with
    /// LOCULE_RUNTIME_NO_CGROUPS.
    pub cgroup_manager: u32,
    /// 0.
    pub reserved: u32,
    /// What is called at stages of the containers' lives, in any order: `priority` decides. The
    /// runtime takes a reference of its own to each. Feature "plugins".
    pub plugins: *const *mut locule_plugin,
    /// How many there are.
    pub plugin_count: usize,
    /// A folder with further plugins: a file NAME.json for each Wasm plugin, as for
    /// locule_plugin_load, and perhaps rules.json, as `plugin_rules_json`. NULL: none. Feature
    /// "wasm-plugins".
    pub plugin_dir: *const c_char,
    /// JSON with what holds for all plugins: {"required": [NAME...], "forbid": [WHAT...]}. Without
    /// a plugin that is required, present and not disabled, no container is created. Forbidden can
    /// be to change "hooks", "namespaces", "seccomp", "capabilities", "confinement", "sysctl",
    /// "devices", or in the case of walls to take them away. NULL: none.
    pub plugin_rules_json: *const c_void,
    /// Its length in bytes.
    pub plugin_rules_json_len: usize,
    /// Hears what Wasm plugins say, and warnings about plugins: one that was skipped, a fault at a
    /// stage that cannot be refused. NULL: nobody does.
    pub plugin_log: locule_plugin_log_fn,
    /// What `plugin_log` gets.
    pub plugin_log_user: *mut c_void,
    /// Called with `plugin_log_user` once nothing will use it any more, on the thread that gave back
    /// the last reference to the runtime and what belongs to it; also when this call fails, unless
    /// the struct itself is refused. May be NULL.
    pub plugin_log_release: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

// SAFETY: `repr(C)`, the size comes first, integers and pointers only, without padding
// (tests/abi/layout.rs).
unsafe impl Versioned for locule_runtime_opts {
    const NAME: &'static str = "locule_runtime_opts";
    const FIRST_SIZE: usize = 32;
}

impl locule_runtime_opts {
    fn cgroup_manager(&self) -> Result<Manager> {
        let none = self.flags & LOCULE_RUNTIME_NO_CGROUPS != 0;
        match (none, self.cgroup_manager) {
            (true, LOCULE_CGROUPS_CGROUPFS) => Ok(Manager::None),
            (true, LOCULE_CGROUPS_SYSTEMD) => {
                Err(invalid("`opts.cgroup_manager` is given with LOCULE_RUNTIME_NO_CGROUPS"))
            }
            (false, LOCULE_CGROUPS_CGROUPFS) => Ok(Manager::Cgroupfs),
            (false, LOCULE_CGROUPS_SYSTEMD) => Ok(Manager::Systemd),
            (_, other) => Err(unsupported(format!("`opts.cgroup_manager` {other} is unknown"))),
        }
    }

    /// # Safety
    /// The pointers in the struct are as the header asks.
    unsafe fn plugins(&self) -> Result<Plugins> {
        let name = "opts.plugin_rules_json";
        // SAFETY: passed on to the caller.
        let (mut registrations, rules, folder) = unsafe {
            (
                plugin::registrations(self.plugins, self.plugin_count)?,
                optional_bytes(self.plugin_rules_json, self.plugin_rules_json_len, name)?,
                optional_path(self.plugin_dir),
            )
        };
        let (mut required, mut guard) =
            rules.map(locule::plugin::rules).transpose()?.unwrap_or_default();
        if let Some(folder) = folder {
            let (more, also_required, also_forbidden) = wasm::load_folder(folder)?;
            registrations.extend(more);
            required.extend(also_required);
            guard.also(also_forbidden);
        }
        Plugins::new(registrations, required, guard)
    }
}

/// The plan as text for people, a line a step.
pub const LOCULE_EXPLAIN_TEXT: u32 = 0;
/// The plan as JSON.
pub const LOCULE_EXPLAIN_JSON: u32 = 1;

/// Gets an event from locule_runtime_dispatch, on the thread that called it. `event` lives
/// until the callback returns. Returns 0 to go on; anything else makes the dispatch return
/// LOCULE_E_CALLBACK. It may call Locule, but must return: no longjmp, no exception.
pub type locule_event_fn =
    Option<unsafe extern "C" fn(event: *const locule_event, user: *mut c_void) -> c_int>;

/// The place where containers are kept.
pub struct locule_runtime {
    runtime: Runtime,
    state_dir: CString,
}

/// The runtime behind a handle.
///
/// # Safety
/// `runtime` is NULL or a live handle for the length of the call.
pub(crate) unsafe fn target<'a>(runtime: *const locule_runtime) -> Result<&'a Runtime> {
    // SAFETY: passed on to the caller.
    unsafe { object(runtime, "runtime") }.map(|runtime| &runtime.runtime)
}

/// A JSON document for the caller.
pub(crate) fn json_buf(document: &serde_json::Value) -> locule_buf {
    locule_buf::new(document.to_string())
}

/// Opens a runtime and stores it in *out; the caller owns that reference. NULL for `opts` takes
/// every default. A process may open any number, of one state directory too.
///
/// Any thread. Does not block, but for the filesystem and, with `plugin_dir`, to load plugins.
/// Fails with LOCULE_E_INVALID, LOCULE_E_UNSUPPORTED, LOCULE_E_PERMISSION, LOCULE_E_RESOURCE,
/// LOCULE_E_SYSTEM, and with `plugin_dir` as locule_plugin_load. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_runtime_new(
    opts: *const locule_runtime_opts,
    out: *mut *mut locule_runtime,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = self::out(out, ptr::null_mut(), "out")?;
            let options = match opts.is_null() {
                true => RuntimeOptions::default(),
                false => {
                    let opts = options::read(opts, "opts")?;
                    // Before anything else can fail: what it was given is given back in any case.
                    let listener = plugin::listener(
                        opts.plugin_log,
                        opts.plugin_log_user,
                        opts.plugin_log_release,
                    );
                    let known = LOCULE_RUNTIME_NO_CGROUPS | LOCULE_RUNTIME_IGNORE_ANNOTATIONS;
                    check_flags(opts.flags, known, "opts.flags")?;
                    check_reserved(opts.reserved, "opts.reserved")?;
                    RuntimeOptions {
                        state_dir: optional_path(opts.state_dir).map(Path::to_owned),
                        keeper: optional_path(opts.keeper_path).map(Path::to_owned),
                        cgroup_manager: opts.cgroup_manager()?,
                        ignore_annotations: opts.flags & LOCULE_RUNTIME_IGNORE_ANNOTATIONS != 0,
                        plugins: match listener {
                            Some(listener) => opts.plugins()?.heard_by(listener),
                            None => opts.plugins()?,
                        },
                    }
                }
            };
            let runtime = Runtime::new(options)?;
            let state_dir = CString::new(runtime.state_dir().as_os_str().as_bytes())
                .map_err(|_| invalid("the state directory contains a NUL byte"))?;
            *out = handle::new(locule_runtime { runtime, state_dir });
            Ok(0)
        })
    }
}

/// The state directory. Borrowed from the runtime. NULL for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_runtime_state_dir(runtime: *const locule_runtime) -> *const c_char {
    infallible(ptr::null(), || {
        // SAFETY: NULL or a live handle, as the header asks.
        unsafe { object(runtime, "runtime") }
            .map_or(ptr::null(), |runtime| runtime.state_dir.as_ptr())
    })
}

/// One descriptor for everything that this runtime's handles wait for: readable while
/// locule_runtime_dispatch has an event to give. Borrowed: it is closed with the runtime, and
/// must only be polled. LOCULE_E_INVALID for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_runtime_fd(runtime: *const locule_runtime) -> c_int {
    infallible(LOCULE_E_INVALID, || {
        // SAFETY: NULL or a live handle, as the header asks.
        unsafe { target(runtime) }
            .map_or(LOCULE_E_INVALID, |runtime| runtime.event_fd().as_raw_fd())
    })
}

/// Waits up to `timeout_ms` milliseconds (negative: no limit; 0: only looks) for the processes
/// that were created or opened through this runtime handle, and gives the end of each to
/// `callback`, with `user`, on this thread. Returns how many there were; 0 after the timeout.
/// Each end is given once, and only while the host holds a handle to the process or its
/// container.
///
/// Any thread. Blocks up to the timeout. Fails with LOCULE_E_INVALID, LOCULE_E_SYSTEM, and
/// with LOCULE_E_CALLBACK as soon as the callback returns anything but 0. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_runtime_dispatch(
    runtime: *mut locule_runtime,
    timeout_ms: c_int,
    callback: locule_event_fn,
    user: *mut c_void,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let runtime = target(runtime)?;
            let callback = callback.ok_or_else(|| invalid("`callback` is NULL"))?;
            let count = runtime.dispatch(poll_timeout(timeout_ms), &mut |event| {
                let Some(event) = locule_event::new(event) else { return Ok(()) };
                match callback(&event, user) {
                    0 => Ok(()),
                    code => Err(Error::new(
                        Category::Callback,
                        Stage::Control,
                        format!("the event callback returned {code}"),
                    )),
                }
            })?;
            Ok(c_int::try_from(count).unwrap_or(c_int::MAX))
        })
    }
}

/// Stores in *out a JSON array with the state document of every container in the state
/// directory, whoever created it, in the order of their ids. The caller frees it with
/// locule_buf_free.
///
/// Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
/// LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_runtime_list_json(
    runtime: *mut locule_runtime,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            let states = target(runtime)?.list()?;
            *out = json_buf(&states.into_iter().map(|state| state.document).collect());
            Ok(0)
        })
    }
}

/// Stores in *out the features document (runtime-spec, features.md): what this library can do
/// on this machine. The caller frees it with locule_buf_free.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_runtime_features_json(
    runtime: *mut locule_runtime,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            *out = json_buf(&target(runtime)?.features());
            Ok(0)
        })
    }
}

/// Stores in *out the plugins of the runtime, in the order in which they are called: a JSON array
/// of what locule_plugin_describe_json gives of each, with `disabled`. The caller frees it with
/// locule_buf_free.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_runtime_plugins_json(
    runtime: *mut locule_runtime,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            *out = json_buf(&plugin::describe_all(target(runtime)?));
            Ok(0)
        })
    }
}

/// Stores in *out what locule_container_create would do with these options, without doing it:
/// every step, in order. `format` is one of LOCULE_EXPLAIN_*. Plugins are called at "create", and
/// what they change is shown. Needs no privilege. Of an image, whose files say what its names of
/// users mean, what is not unpacked yet is. The caller frees the result with locule_buf_free.
///
/// Any thread. Does not block, but for the filesystem and plugins, and as locule_image_prepare.
/// Fails with LOCULE_E_INVALID, LOCULE_E_SPEC, LOCULE_E_UNSUPPORTED, LOCULE_E_NOT_FOUND,
/// LOCULE_E_PLUGIN, with an image like locule_image_prepare. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_runtime_explain(
    runtime: *mut locule_runtime,
    opts: *const locule_create_opts,
    format: u32,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            let runtime = target(runtime)?;
            let opts = options::read(opts, "opts")?;
            let pass_fds = opts.pass_fds()?;
            let lower = opts.lower()?;
            let options = opts.convert(&pass_fds, &lower)?;
            *out = match format {
                LOCULE_EXPLAIN_TEXT => locule_buf::new(runtime.explain(&options)?.to_text()),
                LOCULE_EXPLAIN_JSON => json_buf(&runtime.explain(&options)?.to_json()),
                other => return Err(unsupported(format!("`format` {other} is unknown"))),
            };
            Ok(0)
        })
    }
}

/// Takes another reference and returns the runtime. NULL gives NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_runtime_ref(runtime: *mut locule_runtime) -> *mut locule_runtime {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { handle::acquire(runtime) }
}

/// Gives a reference back; the last one closes the runtime. Containers go on, and so do their
/// handles. NULL is ignored.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_runtime_unref(runtime: *mut locule_runtime) {
    // SAFETY: NULL or a reference that the caller owns, as the header asks.
    infallible((), || unsafe { handle::release(runtime) });
}

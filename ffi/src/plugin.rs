//! Plugins: what sees, changes or refuses a container at stages of its life.

use std::ffi::{CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use locule::plugin::{
    Call, Change, Fault, Guard, Level, OnFailure, Plugin, Plugins, Registration, Said, Stage,
};
use locule::{Result, Runtime};
use serde_json::{Value, json};

use crate::argument::{
    self, bytes, invalid, object, optional_path, optional_strings, text, unsupported,
};
use crate::buf::{self, locule_buf};
use crate::entry::{fallible, infallible};
use crate::error::locule_error;
use crate::handle;
use crate::options::{self, Versioned, check_flags};
use crate::plugin_call::locule_plugin_call;
use crate::runtime::{
    LOCULE_LOG_DEBUG, LOCULE_LOG_ERROR, LOCULE_LOG_INFO, LOCULE_LOG_WARN, json_buf,
    locule_plugin_log_fn,
};
use crate::wasm;

/// The plugin may change what plugins before it have changed. Otherwise that is refused.
pub const LOCULE_PLUGIN_OVERRIDE: u64 = 1;
/// No container is created while the plugin is disabled, and none for which it fails.
pub const LOCULE_PLUGIN_REQUIRED: u64 = 2;

/// When the plugin fails, so does what it was called for, where it can be refused; elsewhere as
/// LOCULE_ON_FAILURE_SKIP.
pub const LOCULE_ON_FAILURE_FAIL: u32 = 0;
/// When the plugin fails, it is as if it had not been called: what it has changed in that call is
/// undone.
pub const LOCULE_ON_FAILURE_SKIP: u32 = 1;
/// As LOCULE_ON_FAILURE_SKIP, and the runtime does not call it again.
pub const LOCULE_ON_FAILURE_DISABLE: u32 = 2;

/// Gets a call at a stage of a container's life, on the thread that made the call of Locule
/// which led to it. `call` lives until the callback returns. Returns 0 to agree, after it has
/// perhaps asked for adjustments; for anything else the container's stage is refused, with what
/// locule_plugin_call_refuse was given. locule_plugin_call_fail says that the plugin has failed
/// instead, which means what `on_failure` says. Either counts whatever is returned.
///
/// It may call Locule, for other containers than that of the call, but must return: no longjmp, no
/// exception. What it waits for, the caller waits for.
pub type locule_plugin_fn =
    Option<unsafe extern "C" fn(call: *mut locule_plugin_call, user: *mut c_void) -> c_int>;

/// Who hears what plugins say.
pub(crate) fn listener(
    callback: locule_plugin_log_fn,
    user: *mut c_void,
    release: Option<unsafe extern "C" fn(user: *mut c_void)>,
) -> Option<impl Fn(&Said<'_>) + Send + Sync + 'static> {
    let user = User { pointer: user, release };
    let callback = callback?;
    Some(move |said: &Said<'_>| {
        // The whole of it, which may go to other threads, not the pointer in it.
        let user = &user;
        let level = match said.level {
            Level::Debug => LOCULE_LOG_DEBUG,
            Level::Info => LOCULE_LOG_INFO,
            Level::Warn => LOCULE_LOG_WARN,
            Level::Error => LOCULE_LOG_ERROR,
        };
        // Of what a component says, a NUL is a character like any other.
        let text = |text: &str| CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
        let [plugin, id, message] = [said.plugin, said.id, said.message].map(text);
        // SAFETY: the host's function, with what the host gave with it; the texts live on.
        unsafe { callback(level, plugin.as_ptr(), id.as_ptr(), message.as_ptr(), user.pointer) };
    })
}

/// A plugin that is a callback of the host. `handle` or `judge` has to be set, or both.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_plugin_opts {
    /// sizeof(struct locule_plugin_opts).
    pub size: usize,
    /// LOCULE_PLUGIN_*.
    pub flags: u64,
    /// Its name: letters, digits and any of _.- , at most 64. No two of a runtime have the same.
    pub name: *const c_char,
    /// The stages at which `handle` is called, ending with NULL: "create", "created", "start",
    /// "started", "exec", "update", "pause", "resume", "kill", "stopped", "delete". Adjustments
    /// are for "create", "exec" and "update". "create", "start", "exec", "update", "pause" and
    /// "resume" can be refused; elsewhere what the callback says changes nothing.
    pub stages: *const *const c_char,
    /// Plugins with lower ones are called first; of equal ones the names decide. At "created",
    /// "started", "stopped" and "delete" the order is the other way round.
    pub priority: i32,
    /// What becomes of a container when the plugin fails, one of LOCULE_ON_FAILURE_*.
    pub on_failure: u32,
    /// Called at `stages`.
    pub handle: locule_plugin_fn,
    /// Called when all plugins have adjusted a container that is about to be created: what it
    /// refuses is not created. A plugin with it may adjust nothing.
    pub judge: locule_plugin_fn,
    /// What the callbacks get. They may be called on several threads at once, if the host is.
    pub user: *mut c_void,
    /// Called with `user` once nothing will use it any more, on the thread that gave back the last
    /// reference to the plugin, or to a runtime with it and what belongs to that. May be NULL.
    pub release: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

// SAFETY: `repr(C)`, the size comes first, integers and pointers only, without padding
// (tests/abi/layout.rs).
unsafe impl Versioned for locule_plugin_opts {
    const NAME: &'static str = "locule_plugin_opts";
    const FIRST_SIZE: usize = 72;
}

impl locule_plugin_opts {
    /// # Safety
    /// The pointers in the struct are as the header asks.
    unsafe fn registration(&self, user: User) -> Result<Registration> {
        let known = LOCULE_PLUGIN_OVERRIDE | LOCULE_PLUGIN_REQUIRED;
        check_flags(self.flags, known, "opts.flags")?;
        // SAFETY: passed on to the caller.
        let (name, stages) = unsafe {
            (
                text(self.name, "opts.name")?,
                optional_strings(self.stages, "opts.stages")?.unwrap_or_default(),
            )
        };
        match (self.handle, self.judge) {
            (None, None) => return Err(invalid("neither `opts.handle` nor `opts.judge` is set")),
            (Some(_), _) if stages.is_empty() => {
                return Err(invalid("`opts.handle` is set, but `opts.stages` names none"));
            }
            (None, _) if !stages.is_empty() => {
                return Err(invalid("`opts.stages` is set, but `opts.handle` is NULL"));
            }
            _ => {}
        }
        let stages = stages.into_iter().map(stage).collect::<Result<_>>()?;
        let plugin = Callback { stages, handle: self.handle, judge: self.judge, user };
        let mut registration = Registration::new(name, Arc::new(plugin));
        registration.priority = self.priority;
        registration.may_override = self.flags & LOCULE_PLUGIN_OVERRIDE != 0;
        registration.required = self.flags & LOCULE_PLUGIN_REQUIRED != 0;
        registration.on_failure = match self.on_failure {
            LOCULE_ON_FAILURE_FAIL => OnFailure::Fail,
            LOCULE_ON_FAILURE_SKIP => OnFailure::Skip,
            LOCULE_ON_FAILURE_DISABLE => OnFailure::Disable,
            other => return Err(unsupported(format!("`opts.on_failure` {other} is unknown"))),
        };
        Ok(registration)
    }
}

fn stage(name: &str) -> Result<Stage> {
    Stage::named(name).ok_or_else(|| {
        let known: Vec<_> = Stage::ALL.iter().map(|stage| stage.name()).collect();
        unsupported(format!("`opts.stages` names the stage {name:?}, which is unknown"))
            .hint(format!("there are {}", known.join(", ")))
    })
}

/// What the host wants to be given in its callbacks, until nothing needs it any more.
struct User {
    pointer: *mut c_void,
    release: Option<unsafe extern "C" fn(user: *mut c_void)>,
}

// SAFETY: the header asks the host for callbacks that may be called on any thread.
unsafe impl Send for User {}
// SAFETY: as for Send; this library only passes the pointer on.
unsafe impl Sync for User {}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the host's function, with what the host gave with it; called once.
            unsafe { release(self.pointer) };
        }
    }
}

/// A plugin that is a callback of the host.
struct Callback {
    stages: Vec<Stage>,
    handle: locule_plugin_fn,
    judge: locule_plugin_fn,
    user: User,
}

impl Callback {
    fn call(&self, callback: locule_plugin_fn, call: &mut Call) -> Result<(), Fault> {
        let Some(callback) = callback else { return Ok(()) };
        locule_plugin_call::lend(call, |call| {
            // SAFETY: the host's function, with what the host gave with it; `call` lives on.
            unsafe { callback(call, self.user.pointer) }
        })
    }
}

impl Plugin for Callback {
    fn stages(&self) -> &[Stage] {
        &self.stages
    }

    fn handle(&self, call: &mut Call) -> Result<(), Fault> {
        self.call(self.handle, call)
    }

    fn validates(&self) -> bool {
        self.judge.is_some()
    }

    fn validate(&self, call: &mut Call, _changes: &[Change]) -> Result<(), Fault> {
        self.call(self.judge, call)
    }
}

/// A plugin.
pub struct locule_plugin(Registration);

impl locule_plugin {
    /// The plugin behind a new handle, if it could be one of a runtime.
    fn new(registration: Registration) -> Result<*mut locule_plugin> {
        Plugins::new(vec![registration.clone()], Vec::new(), Guard::default())?;
        Ok(handle::new(locule_plugin(registration)))
    }
}

/// The plugins behind an array of handles.
///
/// # Safety
/// `array` is NULL or has `count` elements, which are NULL or live handles for the length of the
/// call.
pub(crate) unsafe fn registrations(
    array: *const *mut locule_plugin,
    count: usize,
) -> Result<Vec<Registration>> {
    // SAFETY: passed on to the caller.
    let handles = unsafe { argument::elements(array, count, "opts.plugins")? };
    let plugin = |handle: &*mut locule_plugin| {
        // SAFETY: passed on to the caller.
        unsafe { object(*handle, "opts.plugins[...]") }.map(|plugin| plugin.0.clone())
    };
    handles.iter().map(plugin).collect()
}

/// What there is to say about a plugin.
fn describe(registration: &Registration) -> Value {
    let policy = |policy: OnFailure| match policy {
        OnFailure::Fail => "fail",
        OnFailure::Skip => "skip",
        OnFailure::Disable => "disable",
    };
    let stages = registration.plugin.stages().iter().map(|stage| stage.name());
    let on_failure_at = registration.on_failure_at.iter();
    json!({
        "name": registration.name,
        "stages": stages.collect::<Vec<_>>(),
        "judges": registration.plugin.validates(),
        "priority": registration.priority,
        "onFailure": policy(registration.on_failure),
        "onFailureAt": on_failure_at
            .map(|(stage, at)| (stage.name().to_owned(), policy(*at).into()))
            .collect::<serde_json::Map<_, _>>(),
        "override": registration.may_override,
        "required": registration.required,
    })
}

/// The plugins of a runtime, in the order in which they are called.
pub(crate) fn describe_all(runtime: &Runtime) -> Value {
    let plugin = |(registration, disabled): (&Registration, bool)| {
        let mut description = describe(registration);
        description["disabled"] = disabled.into();
        description
    };
    runtime.plugins().iter().map(plugin).collect()
}

/// Makes a plugin of a callback and stores it in *out; the caller owns that reference. It is
/// called by the runtimes it is given to. Once `opts` is not NULL and its size is right, `release`
/// is called exactly once, also when this call fails. Feature "plugins".
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_UNSUPPORTED. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_new(
    opts: *const locule_plugin_opts,
    out: *mut *mut locule_plugin,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            options::size_of_given(opts, "opts")?;
            // Before anything else can fail; the first version of the struct had both fields.
            let user = User { pointer: (*opts).user, release: (*opts).release };
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let opts = options::read(opts, "opts")?;
            *out = locule_plugin::new(opts.registration(user)?)?;
            Ok(0)
        })
    }
}

/// Loads a Wasm plugin and stores it in *out; the caller owns that reference. `json` says which
/// file, what the plugin may do and how it is to be called; docs/plugins.md has its members.
/// Relative paths in it are taken from `base_dir`, NULL being the current directory. Feature
/// "wasm-plugins".
///
/// Any thread. Blocks while the component is compiled, which is done once for each. Fails with
/// LOCULE_E_INVALID, LOCULE_E_NOT_FOUND, LOCULE_E_PERMISSION, LOCULE_E_PLUGIN, LOCULE_E_RESOURCE,
/// LOCULE_E_SYSTEM, and with LOCULE_E_UNSUPPORTED where the library was built without Wasm.
/// Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_load(
    json: *const c_void,
    json_len: usize,
    base_dir: *const c_char,
    out: *mut *mut locule_plugin,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let json = bytes(json, json_len, "json")?;
            let base = optional_path(base_dir).unwrap_or(Path::new("."));
            *out = locule_plugin::new(wasm::load(json, base)?)?;
            Ok(0)
        })
    }
}

/// Stores in *out what the Wasm component in this file is, without running it: JSON with its
/// digest, its size, the powers it asks for and what it offers. The caller frees it with
/// locule_buf_free. Feature "wasm-plugins".
///
/// Any thread. Does not block, but for the filesystem. Fails with LOCULE_E_INVALID,
/// LOCULE_E_NOT_FOUND, LOCULE_E_PERMISSION, LOCULE_E_PLUGIN, LOCULE_E_SYSTEM, and with
/// LOCULE_E_UNSUPPORTED where the library was built without Wasm. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_inspect_json(
    path: *const c_char,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            let path = optional_path(path).ok_or_else(|| invalid("`path` is NULL"))?;
            *out = json_buf(&wasm::inspect(path)?);
            Ok(0)
        })
    }
}

/// Stores in *out what a plugin is: a JSON object with `name`, `stages`, `judges`, `priority`,
/// `onFailure`, `onFailureAt`, `override` and `required`. The caller frees it with
/// locule_buf_free.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_describe_json(
    plugin: *const locule_plugin,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            *out = json_buf(&describe(&object(plugin, "plugin")?.0));
            Ok(0)
        })
    }
}

/// Takes another reference and returns the plugin. NULL gives NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_ref(plugin: *mut locule_plugin) -> *mut locule_plugin {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { handle::acquire(plugin) }
}

/// Gives a reference back. Runtimes that were given the plugin keep theirs. NULL is ignored.
///
/// Any thread. Does not block, but for `release`. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_unref(plugin: *mut locule_plugin) {
    // SAFETY: NULL or a reference that the caller owns, as the header asks.
    infallible((), || unsafe { handle::release(plugin) });
}

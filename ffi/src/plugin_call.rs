//! What a plugin's callback can learn and ask for.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use locule::plugin::{Adjustment, Call, Fault, Refusal};
use locule::{Category, Error, Result, Stage};

use crate::argument::{bytes, invalid, object, optional_text};
use crate::buf::{self, locule_buf};
use crate::entry::{fallible, infallible};
use crate::error::{LOCULE_E_INVALID, c_string, locule_error};
use crate::runtime::json_buf;

/// A call of a plugin. Lives as long as the callback that gets it.
pub struct locule_plugin_call {
    stage: CString,
    container_id: CString,
    bundle: CString,
    pid: c_int,
    state: Mutex<State>,
}

struct State {
    call: Call,
    /// What has been asked for, so that it can be lent.
    details: BTreeMap<String, CString>,
    /// What the callback has said.
    fault: Option<Fault>,
    /// Why the last adjustment that was not taken was not: perhaps what the callback means.
    untaken: Option<String>,
}

impl locule_plugin_call {
    /// Lends a call to a callback, and makes of its answer what the core wants to know.
    pub(crate) fn lend(
        call: &mut Call,
        callback: impl FnOnce(*mut locule_plugin_call) -> c_int,
    ) -> Result<(), Fault> {
        let mut lent = locule_plugin_call {
            stage: c_string(call.stage().name()),
            container_id: c_string(call.id()),
            bundle: CString::new(call.bundle().as_os_str().as_bytes()).unwrap_or_default(),
            pid: call.pid().unwrap_or(0),
            state: Mutex::new(State {
                call: std::mem::take(call),
                details: BTreeMap::new(),
                fault: None,
                untaken: None,
            }),
        };
        let answer = callback(&raw mut lent);
        let state = lent.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        *call = state.call;
        match (state.fault, answer) {
            (Some(fault), _) => Err(fault),
            (None, 0) => Ok(()),
            (None, answer) => Err(Fault::refused(match state.untaken {
                Some(why) => format!("its callback returned {answer} after {why}"),
                None => format!("its callback returned {answer} and gave no reason"),
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The call behind a pointer.
///
/// # Safety
/// `call` is NULL or the call of a running callback.
unsafe fn target<'a>(call: *const locule_plugin_call) -> Result<&'a locule_plugin_call> {
    // SAFETY: passed on to the caller.
    unsafe { object(call, "call") }
}

/// What is given for people to read, as far as it can be read.
///
/// # Safety
/// `message` is NULL or a string.
unsafe fn message(message: *const c_char) -> String {
    if message.is_null() {
        return "it gave no reason".to_owned();
    }
    // SAFETY: not NULL; that it ends in a NUL byte is the caller's promise.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}

/// The stage: "create", "exec" and so on. For `judge` it is "create". Borrowed from the call. NULL
/// for NULL.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_call_stage(
    call: *const locule_plugin_call,
) -> *const c_char {
    // SAFETY: NULL or the call of a running callback, as the header asks.
    infallible(ptr::null(), || unsafe { target(call) }.map_or(ptr::null(), |it| it.stage.as_ptr()))
}

/// The id of the container. Borrowed from the call. NULL for NULL.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_call_container_id(
    call: *const locule_plugin_call,
) -> *const c_char {
    infallible(ptr::null(), || {
        // SAFETY: NULL or the call of a running callback, as the header asks.
        unsafe { target(call) }.map_or(ptr::null(), |it| it.container_id.as_ptr())
    })
}

/// The directory of the container's bundle, absolute. Borrowed from the call. NULL for NULL.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_call_bundle(
    call: *const locule_plugin_call,
) -> *const c_char {
    // SAFETY: NULL or the call of a running callback, as the header asks.
    infallible(ptr::null(), || unsafe { target(call) }.map_or(ptr::null(), |it| it.bundle.as_ptr()))
}

/// The pid of the container's first process as the host sees it; 0 while there is none, and for
/// NULL.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_call_pid(call: *const locule_plugin_call) -> c_int {
    // SAFETY: NULL or the call of a running callback, as the header asks.
    infallible(0, || unsafe { target(call) }.map_or(0, |it| it.pid))
}

/// What is special about the stage, by name: at "kill" "signal" and "all" ("true" or "false"), at
/// "stopped" "exit-code" or "signal", at "exec" "container-pid". Borrowed from the call. NULL if
/// there is none of this name.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_call_detail(
    call: *const locule_plugin_call,
    name: *const c_char,
) -> *const c_char {
    infallible(ptr::null(), || {
        // SAFETY: NULL or the call of a running callback, and NULL or a string, as the header asks.
        let (call, name) = unsafe { (target(call), optional_text(name, "name")) };
        let (Ok(call), Ok(Some(name))) = (call, name) else { return ptr::null() };
        let state = &mut *call.state();
        let Some(value) = state.call.detail(name) else { return ptr::null() };
        state.details.entry(name.to_owned()).or_insert_with(|| c_string(value)).as_ptr()
    })
}

/// Stores in *out a part of the container's configuration, as the plugins so far have made it:
/// JSON of what is at `pointer`, a JSON pointer such as "/process/env"; "" for all of it. At
/// "exec" "/process" is the process to run, at "update" "/linux/resources" are the new limits.
/// The caller frees it with locule_buf_free.
///
/// Only in the callback. Does not block. Fails with LOCULE_E_INVALID, and with LOCULE_E_NOT_FOUND
/// if nothing is there. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_call_get_json(
    call: *const locule_plugin_call,
    pointer: *const c_char,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            let call = target(call)?;
            let pointer = crate::argument::text(pointer, "pointer")?;
            if !pointer.is_empty() && !pointer.starts_with('/') {
                return Err(invalid(format!("`pointer` {pointer:?} does not begin with /")));
            }
            let state = call.state();
            let found = state.call.document().pointer(pointer).ok_or_else(|| {
                let message = format!("nothing is at {pointer:?} in the configuration");
                Error::new(Category::NotFound, Stage::Plugin, message)
            })?;
            *out = json_buf(found);
            Ok(0)
        })
    }
}

/// Stores in *out what plugins have changed so far in this stage: a JSON array of objects with
/// `plugin`, `stage`, `adjustment`, `pointer`, and `before` and `after` where something was or is
/// there. The caller frees it with locule_buf_free.
///
/// Only in the callback. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_call_changes_json(
    call: *const locule_plugin_call,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            let state = target(call)?.state();
            *out = json_buf(&serde_json::json!(state.call.changes()));
            Ok(0)
        })
    }
}

/// Changes the configuration: {"adjust": "set-env", "name": "HOME", "value": "/root"}.
/// docs/plugins.md has all adjustments and their members. It takes effect if every plugin and the
/// configuration as a whole agree.
///
/// Only in the callback. Does not block. Changes nothing if it fails: with LOCULE_E_BUSY where
/// another plugin has changed the same place and this one may not override that; with
/// LOCULE_E_STATE where this stage, or a plugin that judges, may not change it; with
/// LOCULE_E_INVALID for what is no adjustment or makes no sense. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_call_adjust_json(
    call: *mut locule_plugin_call,
    json: *const c_void,
    json_len: usize,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let call = target(call)?;
            let json = bytes(json, json_len, "json")?;
            let adjustment: Adjustment = serde_json::from_slice(json)
                .map_err(|error| invalid(format!("the adjustment: {error}")))?;
            let state = &mut *call.state();
            state.call.adjust(&adjustment).map_err(|refusal| {
                let message = format!("{}: {refusal}", adjustment.name());
                state.untaken = Some(message.clone());
                let error = |category| Error::new(category, Stage::Plugin, message);
                match refusal {
                    Refusal::Conflict { pointer, .. } => error(Category::Busy).at(pointer),
                    Refusal::Denied(_) => error(Category::State),
                    Refusal::Invalid(_) => error(Category::Invalid),
                }
            })?;
            Ok(0)
        })
    }
}

/// Refuses the stage. `code` is a number of the plugin's own, or 0; `message` says for people what
/// is wrong. Returns 1, or LOCULE_E_INVALID if `call` is NULL, so that the callback can return
/// what this returns.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_call_refuse(
    call: *mut locule_plugin_call,
    code: u32,
    message: *const c_char,
) -> c_int {
    // SAFETY: NULL or the call of a running callback, and NULL or a string, as the header asks.
    unsafe { say(call, || Fault::Refused { code, message: self::message(message) }) }
}

/// Says that the plugin itself has failed; `message` says for people how. Returns what
/// locule_plugin_call_refuse does.
///
/// Only in the callback. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_plugin_call_fail(
    call: *mut locule_plugin_call,
    message: *const c_char,
) -> c_int {
    // SAFETY: NULL or the call of a running callback, and NULL or a string, as the header asks.
    unsafe { say(call, || Fault::Failed { message: self::message(message) }) }
}

/// # Safety
/// `call` is NULL or the call of a running callback.
unsafe fn say(call: *mut locule_plugin_call, fault: impl FnOnce() -> Fault) -> c_int {
    infallible(LOCULE_E_INVALID, || {
        // SAFETY: passed on to the caller.
        let Ok(call) = (unsafe { target(call) }) else { return LOCULE_E_INVALID };
        call.state().fault = Some(fault());
        1
    })
}

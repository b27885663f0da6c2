//! What failed, where in a container's life, and where in config.json.

use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use locule::{Category, Error, Stage};

use crate::{entry, handle};

/// An argument of the call is wrong.
pub const LOCULE_E_INVALID: c_int = -4097;
/// config.json, or another OCI document, is wrong.
pub const LOCULE_E_SPEC: c_int = -4098;
/// No such container, process, image or file.
pub const LOCULE_E_NOT_FOUND: c_int = -4099;
/// The id is in use, or a directory is not empty that has to be.
pub const LOCULE_E_EXISTS: c_int = -4100;
/// The container is in a state that does not allow the call, or the image store is only read.
pub const LOCULE_E_STATE: c_int = -4101;
/// The system refused for lack of privilege.
pub const LOCULE_E_PERMISSION: c_int = -4102;
/// The kernel, this machine or this version of Locule cannot do it.
pub const LOCULE_E_UNSUPPORTED: c_int = -4103;
/// Something is in use that must not be.
pub const LOCULE_E_BUSY: c_int = -4104;
/// The deadline passed.
pub const LOCULE_E_TIMEOUT: c_int = -4105;
/// The call was cancelled.
pub const LOCULE_E_CANCELLED: c_int = -4106;
/// A resource ran out: memory, disk, descriptors, processes.
pub const LOCULE_E_RESOURCE: c_int = -4107;
/// A system call failed for another reason.
pub const LOCULE_E_SYSTEM: c_int = -4108;
/// The program could not be executed.
pub const LOCULE_E_PROGRAM: c_int = -4109;
/// A hook failed.
pub const LOCULE_E_HOOK: c_int = -4110;
/// The container's keeper is gone or does not answer as it should.
pub const LOCULE_E_KEEPER: c_int = -4111;
/// A plugin refused or failed.
pub const LOCULE_E_PLUGIN: c_int = -4112;
/// A callback of the host asked to stop.
pub const LOCULE_E_CALLBACK: c_int = -4113;
/// A defect in Locule.
pub const LOCULE_E_BUG: c_int = -4114;

/// Checking the arguments of a call.
pub const LOCULE_STAGE_ARGUMENTS: u32 = 1;
/// Reading and checking config.json.
pub const LOCULE_STAGE_VALIDATE: u32 = 2;
/// Compiling the plan.
pub const LOCULE_STAGE_COMPILE: u32 = 3;
/// The state directory.
pub const LOCULE_STAGE_STATE: u32 = 4;
/// Cgroups and resource limits.
pub const LOCULE_STAGE_CGROUP: u32 = 5;
/// Starting the keeper or the process.
pub const LOCULE_STAGE_SPAWN: u32 = 6;
/// Creating or joining namespaces, mapping ids.
pub const LOCULE_STAGE_NAMESPACES: u32 = 7;
/// The root filesystem.
pub const LOCULE_STAGE_ROOTFS: u32 = 8;
/// Mounts, masked and read-only paths.
pub const LOCULE_STAGE_MOUNTS: u32 = 9;
/// Device nodes.
pub const LOCULE_STAGE_DEVICES: u32 = 10;
/// Hostname, sysctl and other settings of the namespaces.
pub const LOCULE_STAGE_SETTINGS: u32 = 11;
/// User, groups, capabilities, limits, labels of the process.
pub const LOCULE_STAGE_PROCESS: u32 = 12;
/// The terminal and standard streams.
pub const LOCULE_STAGE_STDIO: u32 = 13;
/// The seccomp filter.
pub const LOCULE_STAGE_SECCOMP: u32 = 14;
/// Hooks.
pub const LOCULE_STAGE_HOOK: u32 = 15;
/// Finding and executing the program.
pub const LOCULE_STAGE_EXEC: u32 = 16;
/// Letting the program run.
pub const LOCULE_STAGE_START: u32 = 17;
/// Signals, freezing, waiting.
pub const LOCULE_STAGE_CONTROL: u32 = 18;
/// Deleting the container.
pub const LOCULE_STAGE_DELETE: u32 = 19;
/// Writing a checkpoint, and restoring a container from one.
pub const LOCULE_STAGE_CHECKPOINT: u32 = 20;
/// Plugins.
pub const LOCULE_STAGE_PLUGIN: u32 = 21;
/// Images: reading, unpacking, keeping, writing and moving them.
pub const LOCULE_STAGE_IMAGE: u32 = 22;

/// A number here that is not the core's is a number a program was compiled with.
const _: () = {
    assert!(LOCULE_E_INVALID == Category::Invalid as c_int);
    assert!(LOCULE_E_SPEC == Category::Spec as c_int);
    assert!(LOCULE_E_NOT_FOUND == Category::NotFound as c_int);
    assert!(LOCULE_E_EXISTS == Category::Exists as c_int);
    assert!(LOCULE_E_STATE == Category::State as c_int);
    assert!(LOCULE_E_PERMISSION == Category::Permission as c_int);
    assert!(LOCULE_E_UNSUPPORTED == Category::Unsupported as c_int);
    assert!(LOCULE_E_BUSY == Category::Busy as c_int);
    assert!(LOCULE_E_TIMEOUT == Category::Timeout as c_int);
    assert!(LOCULE_E_CANCELLED == Category::Cancelled as c_int);
    assert!(LOCULE_E_RESOURCE == Category::Resource as c_int);
    assert!(LOCULE_E_SYSTEM == Category::System as c_int);
    assert!(LOCULE_E_PROGRAM == Category::Program as c_int);
    assert!(LOCULE_E_HOOK == Category::Hook as c_int);
    assert!(LOCULE_E_KEEPER == Category::Keeper as c_int);
    assert!(LOCULE_E_PLUGIN == Category::Plugin as c_int);
    assert!(LOCULE_E_CALLBACK == Category::Callback as c_int);
    assert!(LOCULE_E_BUG == Category::Bug as c_int);
    // A new category fails here until it has its constant above.
    assert!(Category::ALL.len() == 18);

    assert!(LOCULE_STAGE_ARGUMENTS == Stage::Arguments as u32);
    assert!(LOCULE_STAGE_VALIDATE == Stage::Validate as u32);
    assert!(LOCULE_STAGE_COMPILE == Stage::Compile as u32);
    assert!(LOCULE_STAGE_STATE == Stage::State as u32);
    assert!(LOCULE_STAGE_CGROUP == Stage::Cgroup as u32);
    assert!(LOCULE_STAGE_SPAWN == Stage::Spawn as u32);
    assert!(LOCULE_STAGE_NAMESPACES == Stage::Namespaces as u32);
    assert!(LOCULE_STAGE_ROOTFS == Stage::Rootfs as u32);
    assert!(LOCULE_STAGE_MOUNTS == Stage::Mounts as u32);
    assert!(LOCULE_STAGE_DEVICES == Stage::Devices as u32);
    assert!(LOCULE_STAGE_SETTINGS == Stage::Settings as u32);
    assert!(LOCULE_STAGE_PROCESS == Stage::Process as u32);
    assert!(LOCULE_STAGE_STDIO == Stage::Stdio as u32);
    assert!(LOCULE_STAGE_SECCOMP == Stage::Seccomp as u32);
    assert!(LOCULE_STAGE_HOOK == Stage::Hook as u32);
    assert!(LOCULE_STAGE_EXEC == Stage::Exec as u32);
    assert!(LOCULE_STAGE_START == Stage::Start as u32);
    assert!(LOCULE_STAGE_CONTROL == Stage::Control as u32);
    assert!(LOCULE_STAGE_DELETE == Stage::Delete as u32);
    assert!(LOCULE_STAGE_CHECKPOINT == Stage::Checkpoint as u32);
    assert!(LOCULE_STAGE_PLUGIN == Stage::Plugin as u32);
    assert!(LOCULE_STAGE_IMAGE == Stage::Image as u32);
};

/// A failure; never changes.
pub struct locule_error {
    code: c_int,
    errno: c_int,
    stage: u32,
    stage_name: CString,
    message: CString,
    pointer: Option<CString>,
    container_id: Option<CString>,
    step: Option<CString>,
    hint: Option<CString>,
}

impl From<Error> for locule_error {
    fn from(error: Error) -> Self {
        locule_error {
            code: error.category() as c_int,
            errno: error.errno().unwrap_or(0),
            stage: error.stage() as u32,
            stage_name: c_string(error.stage().name()),
            message: c_string(&error.to_string()),
            pointer: error.pointer().map(c_string),
            container_id: error.container_id().map(c_string),
            step: error.step().map(c_string),
            hint: error.advice().map(c_string),
        }
    }
}

/// A text for C. One that contains a NUL byte is shown with `\0` in its place.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text)
        .unwrap_or_else(|_| CString::new(text.replace('\0', "\\0")).unwrap_or_default())
}

/// A getter of an error: `fallback` for NULL.
///
/// # Safety
/// `error` is NULL or a handle of which the caller holds a reference.
unsafe fn get<T>(
    error: *const locule_error,
    fallback: T,
    of: impl FnOnce(&locule_error) -> T,
) -> T {
    // SAFETY: passed on to the caller.
    match unsafe { error.as_ref() } {
        Some(error) => of(error),
        None => fallback,
    }
}

fn borrowed(text: &Option<CString>) -> *const c_char {
    text.as_deref().map_or(ptr::null(), CStr::as_ptr)
}

/// Takes another reference and returns the error. NULL gives NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_ref(error: *mut locule_error) -> *mut locule_error {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { handle::acquire(error) }
}

/// Gives a reference back; the last one frees the error and the strings borrowed from it.
/// NULL is ignored.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_unref(error: *mut locule_error) {
    // SAFETY: NULL or a reference that the caller owns, as the header asks.
    entry::infallible((), || unsafe { handle::release(error) });
}

/// The category, one of LOCULE_E_*: what the failed call returned. 0 for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_code(error: *const locule_error) -> c_int {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { get(error, 0, |error| error.code) }
}

/// The errno of the system call that failed; 0 if it was none, and for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_errno(error: *const locule_error) -> c_int {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { get(error, 0, |error| error.errno) }
}

/// Where in a container's life it happened, one of LOCULE_STAGE_*. 0 for NULL. A later
/// version of the library may return numbers that this header does not name.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_stage(error: *const locule_error) -> u32 {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { get(error, 0, |error| error.stage) }
}

/// The stage in words, such as "mounts". Borrowed from the error. NULL for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_stage_name(error: *const locule_error) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { get(error, ptr::null(), |error| error.stage_name.as_ptr()) }
}

/// The whole text on one line: what was attempted, from the widest to the narrowest, the
/// errno in words, the place in config.json. Borrowed from the error. NULL for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_message(error: *const locule_error) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { get(error, ptr::null(), |error| error.message.as_ptr()) }
}

/// The JSON pointer of the field to blame in the document the caller gave, such as
/// "/mounts/3". Borrowed from the error. NULL if there is none.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_pointer(error: *const locule_error) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { get(error, ptr::null(), |error| borrowed(&error.pointer)) }
}

/// The id of the container. Borrowed from the error. NULL if there is none.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_container_id(error: *const locule_error) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { get(error, ptr::null(), |error| borrowed(&error.container_id)) }
}

/// The step of the plan that failed, as locule_runtime_explain prints it. Borrowed from the
/// error. NULL if it was none.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_step(error: *const locule_error) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { get(error, ptr::null(), |error| borrowed(&error.step)) }
}

/// What can be done about it. Borrowed from the error. NULL if nothing is known.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_error_hint(error: *const locule_error) -> *const c_char {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { get(error, ptr::null(), |error| borrowed(&error.hint)) }
}

/// The name of a category, such as "not-found" for LOCULE_E_NOT_FOUND. A constant; never
/// NULL: "ok" for 0 and above, "unknown" for a number that is no category.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn locule_category_name(code: c_int) -> *const c_char {
    let name = match code {
        0.. => c"ok",
        LOCULE_E_INVALID => c"invalid",
        LOCULE_E_SPEC => c"spec",
        LOCULE_E_NOT_FOUND => c"not-found",
        LOCULE_E_EXISTS => c"exists",
        LOCULE_E_STATE => c"state",
        LOCULE_E_PERMISSION => c"permission",
        LOCULE_E_UNSUPPORTED => c"unsupported",
        LOCULE_E_BUSY => c"busy",
        LOCULE_E_TIMEOUT => c"timeout",
        LOCULE_E_CANCELLED => c"cancelled",
        LOCULE_E_RESOURCE => c"resource",
        LOCULE_E_SYSTEM => c"system",
        LOCULE_E_PROGRAM => c"program",
        LOCULE_E_HOOK => c"hook",
        LOCULE_E_KEEPER => c"keeper",
        LOCULE_E_PLUGIN => c"plugin",
        LOCULE_E_CALLBACK => c"callback",
        LOCULE_E_BUG => c"bug",
        _ => c"unknown",
    };
    name.as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_has_the_name_the_core_gives_it() {
        for category in Category::ALL {
            // SAFETY: the function returns constants.
            let name = unsafe { CStr::from_ptr(locule_category_name(category as c_int)) };
            assert_eq!(name.to_str(), Ok(category.name()));
        }
    }

    #[test]
    fn a_nul_byte_in_a_text_does_not_cut_it() {
        assert_eq!(c_string("a\0b").as_bytes(), b"a\\0b");
    }
}

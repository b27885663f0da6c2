//! The engine through the C ABI: the extern functions, called as C would call them.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use locule::cgroup::{Resource, Watch};
use locule::{Category, Exit, OnHostExit, Parentage, Rootfs};
use locule_ffi::buf::{locule_buf, locule_buf_free};
use locule_ffi::cancel::{
    locule_cancel, locule_cancel_new, locule_cancel_trigger, locule_cancel_unref,
};
use locule_ffi::container::*;
use locule_ffi::error::*;
use locule_ffi::event::{
    LOCULE_EVENT_EXITED, LOCULE_EVENT_OOM, LOCULE_EVENT_PRESSURE, locule_event,
    locule_event_container_id, locule_event_exit, locule_event_kind, locule_event_pressure,
    locule_event_process,
};
use locule_ffi::options::*;
use locule_ffi::process::*;
use locule_ffi::runtime::*;
use locule_ffi::spec::{locule_spec_generate, locule_spec_opts};
use serde_json::Value;

use crate::engine::{
    Container, Create, Ended, Engine, Exec, Failure, Happened, Process, Result, Stream, Token,
};

/// The C ABI.
pub struct CAbi(*mut locule_runtime);

/// A token of the C ABI.
#[derive(Debug)]
pub struct CToken(*mut locule_cancel);

struct CContainer(*mut locule_container);
struct CProcess(*mut locule_process);

// SAFETY: the header promises that every handle may be used from any thread.
unsafe impl Send for CAbi {}
// SAFETY: as above.
unsafe impl Sync for CAbi {}
// SAFETY: as above.
unsafe impl Send for CContainer {}
// SAFETY: as above.
unsafe impl Sync for CContainer {}
// SAFETY: as above.
unsafe impl Send for CProcess {}
// SAFETY: as above.
unsafe impl Sync for CProcess {}
// SAFETY: as above.
unsafe impl Send for CToken {}
// SAFETY: as above.
unsafe impl Sync for CToken {}

/// The default configuration with these flags.
pub fn generated_spec(flags: u64) -> Vec<u8> {
    let opts = locule_spec_opts {
        size: size_of::<locule_spec_opts>(),
        flags,
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
    let mut out = locule_buf { data: ptr::null_mut(), len: 0 };
    // SAFETY: a complete struct and a place for the result, which is freed after being copied.
    unsafe {
        assert_eq!(locule_spec_generate(&opts, &mut out, ptr::null_mut()), 0);
        let bytes = std::slice::from_raw_parts(out.data.cast::<u8>(), out.len).to_vec();
        locule_buf_free(&mut out);
        bytes
    }
}

impl CToken {
    pub(crate) fn trigger(&self) {
        // SAFETY: a live handle.
        unsafe { locule_cancel_trigger(self.0) };
    }
}

impl Drop for CToken {
    fn drop(&mut self) {
        // SAFETY: the one reference, given back once.
        unsafe { locule_cancel_unref(self.0) };
    }
}

impl Drop for CAbi {
    fn drop(&mut self) {
        // SAFETY: the one reference, given back once.
        unsafe { locule_runtime_unref(self.0) };
    }
}

impl Drop for CContainer {
    fn drop(&mut self) {
        // SAFETY: the one reference, given back once.
        unsafe { locule_container_unref(self.0) };
    }
}

impl Drop for CProcess {
    fn drop(&mut self) {
        // SAFETY: the one reference, given back once.
        unsafe { locule_process_unref(self.0) };
    }
}

fn text(borrowed: *const c_char) -> String {
    if borrowed.is_null() {
        return String::new();
    }
    // SAFETY: a string that its handle keeps.
    unsafe { CStr::from_ptr(borrowed) }.to_string_lossy().into_owned()
}

/// Makes a call and converts its error; checks what the header says about every call.
fn call(f: impl FnOnce(*mut *mut locule_error) -> c_int) -> Result<c_int> {
    // A value that the call has to overwrite.
    let mut err = ptr::dangling_mut::<locule_error>();
    let code = f(&raw mut err);
    if code >= 0 {
        assert!(err.is_null(), "success with an error object");
        return Ok(code);
    }
    assert!(!err.is_null(), "{code} without an error object");
    // SAFETY: a live error, given back once at the end.
    let failure = unsafe {
        assert_eq!(locule_error_code(err), code);
        let failure = Failure {
            category: *Category::ALL.iter().find(|c| **c as i32 == code).expect("a category"),
            stage: locule_error_stage(err),
            errno: locule_error_errno(err),
            pointer: text(locule_error_pointer(err)),
            message: text(locule_error_message(err)),
            hint: text(locule_error_hint(err)),
            container_id: text(locule_error_container_id(err)),
        };
        locule_error_unref(err);
        failure
    };
    Err(failure)
}

/// Makes a call that fills a buffer.
fn json(f: impl FnOnce(*mut locule_buf, *mut *mut locule_error) -> c_int) -> Result<String> {
    let mut buf = locule_buf { data: ptr::null_mut(), len: 0 };
    call(|err| f(&raw mut buf, err))?;
    // SAFETY: the library filled it; it is freed once.
    unsafe {
        let bytes = std::slice::from_raw_parts(buf.data.cast::<u8>(), buf.len);
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        assert_eq!(*buf.data.add(buf.len), 0, "no NUL after the buffer");
        locule_buf_free(&raw mut buf);
        Ok(text)
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn stdio(streams: &[Stream; 3]) -> [locule_stdio; 3] {
    streams.map(|stream| match stream {
        Stream::Null => locule_stdio { kind: LOCULE_STDIO_NULL, fd: 0 },
        Stream::Inherit => locule_stdio { kind: LOCULE_STDIO_INHERIT, fd: 0 },
        Stream::Fd(fd) => locule_stdio { kind: LOCULE_STDIO_FD, fd },
        Stream::Pipe => locule_stdio { kind: LOCULE_STDIO_PIPE, fd: 0 },
    })
}

fn cancel_of(token: Option<&Token>) -> *mut locule_cancel {
    match token {
        None => ptr::null_mut(),
        Some(Token::C(token)) => token.0,
        Some(Token::Rust(_)) => unreachable!("a token of the other face"),
    }
}

/// 0 is the default there, so no time at all becomes a millisecond.
fn option_ms(timeout: Option<Duration>) -> u32 {
    timeout.map_or(0, |timeout| (timeout.as_millis() as u32).max(1))
}

fn wait_ms(timeout: Option<Duration>) -> c_int {
    timeout.map_or(-1, |timeout| timeout.as_millis() as c_int)
}

fn empty_exit() -> locule_exit {
    locule_exit { size: size_of::<locule_exit>(), kind: 0, code: 0, signal: 0, core_dumped: 0 }
}

fn exit_of(exit: &locule_exit) -> Exit {
    match exit.kind {
        LOCULE_EXIT_CODE => Exit::Code(exit.code),
        LOCULE_EXIT_SIGNAL => {
            Exit::Signal { signal: exit.signal, core_dumped: exit.core_dumped != 0 }
        }
        LOCULE_EXIT_UNKNOWN => Exit::Unknown,
        other => panic!("exit kind {other}"),
    }
}

fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("no NUL")
}

impl CAbi {
    /// Opens a runtime.
    pub fn open(state_dir: &Path) -> Result<CAbi> {
        let state_dir = c_string(state_dir.as_os_str().as_bytes());
        let opts = locule_runtime_opts {
            size: size_of::<locule_runtime_opts>(),
            flags: 0,
            state_dir: state_dir.as_ptr(),
            keeper_path: ptr::null(),
            cgroup_manager: match crate::with_systemd() {
                true => LOCULE_CGROUPS_SYSTEMD,
                false => LOCULE_CGROUPS_CGROUPFS,
            },
            reserved: 0,
            plugins: ptr::null(),
            plugin_count: 0,
            plugin_dir: ptr::null(),
            plugin_rules_json: ptr::null(),
            plugin_rules_json_len: 0,
            plugin_log: None,
            plugin_log_user: ptr::null_mut(),
            plugin_log_release: None,
        };
        let mut runtime = ptr::null_mut();
        // SAFETY: everything lives through the call.
        call(|err| unsafe { locule_runtime_new(&raw const opts, &raw mut runtime, err) })?;
        Ok(CAbi(runtime))
    }

    fn with_options<T>(
        options: &Create<'_>,
        f: impl FnOnce(*const locule_create_opts) -> T,
    ) -> Result<T> {
        let id = options.id.as_ref().map(|id| c_string(id.as_bytes()));
        let bundle = options.bundle.as_ref().map(|path| c_string(path.as_os_str().as_bytes()));
        let lower: Vec<CString> =
            options.lower.iter().map(|path| c_string(path.as_os_str().as_bytes())).collect();
        let lower_pointers: Vec<*const c_char> = lower.iter().map(|path| path.as_ptr()).collect();
        let changes = options.changes.as_ref().map(|path| c_string(path.as_os_str().as_bytes()));
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |t| t.as_ptr());
        let mut flags = 0;
        if options.rootfs == Rootfs::Overlay {
            flags |= LOCULE_CREATE_ROOTFS_OVERLAY;
        }
        if options.on_host_exit == OnHostExit::Detach {
            flags |= LOCULE_CREATE_DETACH;
        }
        let opts = locule_create_opts {
            size: size_of::<locule_create_opts>(),
            flags,
            id: pointer(&id),
            bundle: pointer(&bundle),
            spec_json: options.spec.as_ref().map_or(ptr::null(), |spec| spec.as_ptr().cast()),
            spec_json_len: options.spec.as_ref().map_or(0, Vec::len),
            stdio: stdio(&options.stdio),
            parentage: match options.parentage {
                Parentage::Keeper => LOCULE_PARENTAGE_KEEPER,
                Parentage::Orphan => LOCULE_PARENTAGE_ORPHAN,
                Parentage::Child => LOCULE_PARENTAGE_CHILD,
            },
            timeout_ms: option_ms(options.timeout),
            pass_fds: options.pass_fds.as_ptr(),
            pass_fd_count: options.pass_fds.len(),
            cancel: cancel_of(options.cancel),
            seccomp_listener: options.seccomp_listener.as_ref().map_or(ptr::null(), ptr::from_ref),
            lower: lower_pointers.as_ptr(),
            lower_count: lower.len(),
            changes: pointer(&changes),
            image: ptr::null(),
            image_overrides_json: ptr::null(),
            image_overrides_json_len: 0,
        };
        Ok(f(&raw const opts))
    }
}

extern "C" fn collect(event: *const locule_event, user: *mut c_void) -> c_int {
    let mut exit = empty_exit();
    let mut watch = empty_watch();
    // SAFETY: the event lives through the callback, `user` is the vector that `dispatch_all` gave.
    unsafe {
        let container_id = text(locule_event_container_id(event));
        let happened = match locule_event_kind(event) {
            LOCULE_EVENT_EXITED => {
                assert_eq!(locule_event_exit(event, &raw mut exit, ptr::null_mut()), 0);
                assert!(locule_event_pressure(event, &raw mut watch, ptr::null_mut()) < 0);
                let pid = locule_process_pid(locule_event_process(event));
                Happened::Ended(Ended { container_id, pid, exit: exit_of(&exit) })
            }
            LOCULE_EVENT_OOM => {
                assert!(locule_event_process(event).is_null());
                assert!(locule_event_exit(event, &raw mut exit, ptr::null_mut()) < 0);
                Happened::OutOfMemory(container_id)
            }
            LOCULE_EVENT_PRESSURE => {
                assert_eq!(locule_event_pressure(event, &raw mut watch, ptr::null_mut()), 0);
                assert_eq!(watch.kind, LOCULE_WATCH_PRESSURE);
                Happened::Pressure(container_id, resource_of(watch.resource))
            }
            other => panic!("event {other}"),
        };
        (*user.cast::<Vec<Happened>>()).push(happened);
    }
    0
}

fn empty_watch() -> locule_watch_opts {
    locule_watch_opts {
        size: size_of::<locule_watch_opts>(),
        flags: 0,
        kind: 0,
        resource: 0,
        stall_us: 0,
        window_us: 0,
    }
}

const RESOURCES: [(Resource, u32); 3] = [
    (Resource::Cpu, LOCULE_RESOURCE_CPU),
    (Resource::Memory, LOCULE_RESOURCE_MEMORY),
    (Resource::Io, LOCULE_RESOURCE_IO),
];

fn resource_of(number: u32) -> Resource {
    RESOURCES.into_iter().find(|(_, its)| *its == number).expect("a known resource").0
}

// The SAFETY argument of every call below: the handles are live, since `self` holds a
// reference, and everything else that is passed lives through the call.
#[allow(clippy::undocumented_unsafe_blocks, reason = "argued once, above")]
impl Engine for CAbi {
    fn create(&self, options: &Create<'_>) -> Result<Arc<dyn Container>> {
        let mut container = ptr::dangling_mut();
        let made = CAbi::with_options(options, |opts| {
            call(|err| unsafe { locule_container_create(self.0, opts, &raw mut container, err) })
        })?;
        if made.is_err() {
            assert!(container.is_null(), "a handle beside an error");
        }
        made?;
        Ok(Arc::new(CContainer(container)))
    }

    fn open(&self, id: &str) -> Result<Arc<dyn Container>> {
        let id = c_string(id.as_bytes());
        let mut container = ptr::null_mut();
        call(|err| unsafe { locule_container_open(self.0, id.as_ptr(), &raw mut container, err) })?;
        Ok(Arc::new(CContainer(container)))
    }

    fn list(&self) -> Result<Vec<Value>> {
        let list = json(|out, err| unsafe { locule_runtime_list_json(self.0, out, err) })?;
        Ok(parse(&list).as_array().expect("an array").clone())
    }

    fn event_fd(&self) -> RawFd {
        unsafe { locule_runtime_fd(self.0) }
    }

    fn dispatch_all(&self, timeout: Duration) -> Result<Vec<Happened>> {
        let mut all: Vec<Happened> = Vec::new();
        let user = (&raw mut all).cast();
        let count = call(|err| unsafe {
            locule_runtime_dispatch(self.0, wait_ms(Some(timeout)), Some(collect), user, err)
        })?;
        assert_eq!(count as usize, all.len());
        Ok(all)
    }

    fn explain(&self, options: &Create<'_>) -> Result<String> {
        CAbi::with_options(options, |opts| {
            json(|out, err| unsafe {
                locule_runtime_explain(self.0, opts, LOCULE_EXPLAIN_TEXT, out, err)
            })
        })?
    }

    fn features(&self) -> Result<Value> {
        Ok(parse(&json(|out, err| unsafe { locule_runtime_features_json(self.0, out, err) })?))
    }

    fn token(&self) -> Token {
        let mut token = ptr::null_mut();
        call(|err| unsafe { locule_cancel_new(&raw mut token, err) }).expect("a token");
        Token::C(CToken(token))
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "argued once, above")]
impl Container for CContainer {
    fn id(&self) -> String {
        text(unsafe { locule_container_id(self.0) })
    }

    fn init(&self) -> Arc<dyn Process> {
        let mut process = ptr::null_mut();
        call(|err| unsafe { locule_container_init(self.0, &raw mut process, err) })
            .expect("the first process");
        Arc::new(CProcess(process))
    }

    fn start(&self, cancel: Option<&Token>) -> Result<()> {
        call(|err| unsafe { locule_container_start(self.0, cancel_of(cancel), err) }).map(drop)
    }

    fn exec(&self, options: &Exec<'_>) -> Result<Arc<dyn Process>> {
        let document = options.process.to_string();
        let opts = locule_exec_opts {
            size: size_of::<locule_exec_opts>(),
            flags: 0,
            process_json: document.as_ptr().cast(),
            process_json_len: document.len(),
            stdio: stdio(&options.stdio),
            timeout_ms: option_ms(options.timeout),
            reserved: 0,
            pass_fds: options.pass_fds.as_ptr(),
            pass_fd_count: options.pass_fds.len(),
            cancel: cancel_of(options.cancel),
            seccomp_listener: options.seccomp_listener.as_ref().map_or(ptr::null(), ptr::from_ref),
        };
        let mut process = ptr::null_mut();
        call(|err| unsafe {
            locule_container_exec(self.0, &raw const opts, &raw mut process, err)
        })?;
        Ok(Arc::new(CProcess(process)))
    }

    fn signal(&self, signal: i32, all: bool) -> Result<()> {
        let flags = if all { LOCULE_SIGNAL_ALL } else { 0 };
        call(|err| unsafe { locule_container_signal(self.0, signal, flags, err) }).map(drop)
    }

    fn pause(&self) -> Result<()> {
        call(|err| unsafe { locule_container_pause(self.0, err) }).map(drop)
    }

    fn resume(&self) -> Result<()> {
        call(|err| unsafe { locule_container_resume(self.0, err) }).map(drop)
    }

    fn update(&self, resources: &Value) -> Result<()> {
        let text = resources.to_string();
        call(|err| unsafe {
            locule_container_update_json(self.0, text.as_ptr().cast(), text.len(), err)
        })
        .map(drop)
    }

    fn watch(&self, watch: Watch) -> Result<()> {
        let mut opts = empty_watch();
        match watch {
            Watch::OutOfMemory => opts.kind = LOCULE_WATCH_OOM,
            Watch::Pressure(trigger) => {
                let number = RESOURCES.into_iter().find(|(its, _)| *its == trigger.resource);
                opts.kind = LOCULE_WATCH_PRESSURE;
                opts.flags = if trigger.full { LOCULE_WATCH_FULL } else { 0 };
                opts.resource = number.expect("a known resource").1;
                opts.stall_us = trigger.stall.as_micros() as u64;
                opts.window_us = trigger.window.as_micros() as u64;
            }
            other => panic!("{other:?}"),
        }
        call(|err| unsafe { locule_container_watch(self.0, &raw const opts, err) }).map(drop)
    }

    fn stats(&self) -> Result<Value> {
        Ok(parse(&json(|out, err| unsafe { locule_container_stats_json(self.0, out, err) })?))
    }

    fn pids(&self) -> Result<Vec<i32>> {
        let list = json(|out, err| unsafe { locule_container_pids_json(self.0, out, err) })?;
        let list = parse(&list);
        Ok(list.as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap() as i32).collect())
    }

    fn state(&self) -> Result<Value> {
        Ok(parse(&json(|out, err| unsafe { locule_container_state_json(self.0, out, err) })?))
    }

    fn delete(&self, force: bool) -> Result<()> {
        let flags = if force { LOCULE_DELETE_FORCE } else { 0 };
        call(|err| unsafe { locule_container_delete(self.0, flags, err) }).map(drop)
    }
}

/// A descriptor that the library gave away; `None` for "not found".
fn taken(result: Result<c_int>) -> Option<OwnedFd> {
    match result {
        // SAFETY: a new descriptor that the caller owns.
        Ok(fd) => Some(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(failure) if failure.category == Category::NotFound => None,
        Err(failure) => panic!("{failure}"),
    }
}

#[allow(clippy::undocumented_unsafe_blocks, reason = "argued once, above")]
impl Process for CProcess {
    fn pid(&self) -> i32 {
        unsafe { locule_process_pid(self.0) }
    }

    fn fd(&self) -> RawFd {
        unsafe { locule_process_fd(self.0) }
    }

    fn wait(&self, timeout: Option<Duration>, cancel: Option<&Token>) -> Result<Option<Exit>> {
        let mut exit = empty_exit();
        let ended = call(|err| unsafe {
            let cancel = cancel_of(cancel);
            locule_process_wait(self.0, wait_ms(timeout), cancel, &raw mut exit, err)
        })?;
        Ok((ended == 1).then(|| exit_of(&exit)))
    }

    fn signal(&self, signal: i32) -> Result<()> {
        call(|err| unsafe { locule_process_signal(self.0, signal, err) }).map(drop)
    }

    fn take_pipe(&self, number: usize) -> Option<OwnedFd> {
        taken(call(|err| unsafe { locule_process_take_pipe(self.0, number as u32, err) }))
    }

    fn take_terminal(&self) -> Option<OwnedFd> {
        taken(call(|err| unsafe { locule_process_take_terminal(self.0, err) }))
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        call(|err| unsafe { locule_process_resize(self.0, rows, columns, err) }).map(drop)
    }
}

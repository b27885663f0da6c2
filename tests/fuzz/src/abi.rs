//! The C ABI with hostile arguments: structs of odd sizes, NULL, garbage for documents, calls in
//! the wrong order and on the same handles from two threads. What the header forbids outright
//! (pointers to nowhere, handles that were given back) is left alone.
//!
//! Nothing may be a defect (`LOCULE_E_BUG`), a failed call gives an error and no result, and in
//! the end no process, descriptor or state directory is left.

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::ptr;
use std::sync::{LazyLock, Mutex};

use arbitrary::{Arbitrary, Unstructured};
use locule_ffi::buf::*;
use locule_ffi::cancel::*;
use locule_ffi::container::*;
use locule_ffi::error::*;
use locule_ffi::event::*;
use locule_ffi::options::*;
use locule_ffi::process::*;
use locule_ffi::runtime::*;
use locule_ffi::spec::*;
use locule_ffi::version::*;
use locule_lifecycle::bundle;

use crate::orphans;
use crate::rarely::Rarely;

#[derive(Debug, Arbitrary)]
struct Program {
    first: Vec<Call>,
    /// On a thread of its own.
    second: Vec<Call>,
}

/// Which handle of a kind; NULL now and then.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Which(u8);

#[derive(Debug, Arbitrary)]
enum Call {
    NewRuntime {
        flags: Rarely<u64>,
        shape: Rarely<Shape>,
        keeper: Rarely<Text>,
        no_out: Rarely<bool>,
    },
    Runtime {
        which: Which,
        call: OfRuntime,
    },
    Explain {
        which: Which,
        create: Create,
        format: u32,
    },
    Generate {
        spec: SpecOptions,
        no_out: Rarely<bool>,
    },
    Create {
        which: Which,
        create: Create,
        no_out: Rarely<bool>,
    },
    Open {
        which: Which,
        id: Text,
    },
    Container {
        which: Which,
        cancel: Rarely<Which>,
        call: OfContainer,
    },
    Exec {
        which: Which,
        exec: Exec,
    },
    Process {
        which: Which,
        cancel: Rarely<Which>,
        call: OfProcess,
    },
    Error {
        which: Which,
        give_back: bool,
    },
    Cancel {
        which: Which,
        call: OfCancel,
    },
    Named {
        text: Text,
        code: i32,
    },
    FreeBuffer {
        twice: bool,
    },
}

#[derive(Debug, Arbitrary)]
enum OfRuntime {
    Descriptor,
    Dispatch { callback: bool, answer: i32, timeout: u8 },
    List,
    Features,
    GiveBack,
}

#[derive(Debug, Arbitrary)]
enum OfContainer {
    Id,
    Init,
    Start,
    Signal { signal: i32, flags: u8 },
    Pause,
    Resume,
    Update(Bytes),
    Stats,
    Pids,
    State,
    Delete { flags: u8 },
    GiveBack,
}

#[derive(Debug, Arbitrary)]
enum OfProcess {
    Pid,
    Wait { timeout: u8, shape: Rarely<Shape> },
    Signal(i32),
    Pipe(u32),
    Terminal,
    Resize(u16, u16),
    GiveBack,
}

#[derive(Debug, Arbitrary)]
enum OfCancel {
    New { no_out: Rarely<bool> },
    Trigger,
    Descriptor,
    GiveBack,
}

/// How a struct is given that is not given as it is: as one of another version would be, or not.
#[derive(Debug, Arbitrary)]
enum Shape {
    Null,
    Sized { size: u16, tail: u8 },
    Impossible(u64),
}

#[derive(Debug, Arbitrary)]
enum Text {
    Null,
    Empty,
    Id(u8),
    Any(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Bytes {
    Null { length: u8 },
    Any(Vec<u8>),
    Limits(u8),
}

#[derive(Debug, Arbitrary)]
struct Create {
    shape: Rarely<Shape>,
    overlay: Rarely<bool>,
    detached: bool,
    flags: Rarely<u64>,
    id: Text,
    config: Config,
    stdio: [Stream; 3],
    odd_stream: Rarely<(u32, i32)>,
    parentage: u8,
    odd_parentage: Rarely<u32>,
    timeout: Rarely<u16>,
    pass: Rarely<Pass>,
    cancel: Rarely<Which>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Stream {
    Null,
    Inherit,
    Pipe,
    Descriptor(u8),
}

#[derive(Debug, Arbitrary)]
enum Config {
    True,
    Sleep,
    Terminal,
    NoProgram,
    NoBundle,
    None,
    Garbage(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
struct Exec {
    shape: Rarely<Shape>,
    flags: Rarely<u64>,
    reserved: Rarely<u32>,
    process: Process,
    stdio: [Stream; 3],
    odd_stream: Rarely<(u32, i32)>,
    timeout: Rarely<u16>,
    pass: Rarely<Pass>,
    cancel: Rarely<Which>,
    no_out: Rarely<bool>,
}

#[derive(Debug, Arbitrary)]
enum Process {
    True,
    Sleep,
    Terminal,
    Null,
    Garbage(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Pass {
    These(Vec<i16>),
    Nowhere(u16),
}

#[derive(Debug, Arbitrary)]
struct SpecOptions {
    shape: Rarely<Shape>,
    flags: u8,
    args: Option<Vec<Text>>,
    env: Option<Vec<Text>>,
    cwd: Text,
    hostname: Text,
    rootfs: Text,
    numbers: (u32, u32, u64, u32, u32),
}

pub fn run(bytes: &[u8]) {
    let Ok(program) = Unstructured::new(bytes).arbitrary::<Program>() else { return };
    if crate::is_shown() {
        eprintln!("{program:#?}");
    }
    let Some(stage) = &*STAGE else { return };
    let before = orphans::descriptors();
    let handles = Handles::default();
    stage.new_runtime(&handles);
    std::thread::scope(|scope| {
        scope.spawn(|| stage.perform(&program.second, &handles));
        stage.perform(&program.first, &handles);
    });
    stage.finish(handles);
    orphans::reap();
    assert_eq!(orphans::descriptors(), before, "descriptors are left");
}

/// Handles that the program has, one reference each.
#[derive(Default)]
struct Handles {
    runtimes: Pool<locule_runtime>,
    containers: Pool<locule_container>,
    processes: Pool<locule_process>,
    cancels: Pool<locule_cancel>,
    errors: Pool<locule_error>,
}

struct Pool<T>(Mutex<Vec<*mut T>>);

// SAFETY: the header promises that every handle may be used from any thread.
unsafe impl<T> Sync for Pool<T> {}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Pool(Mutex::default())
    }
}

impl<T> Pool<T> {
    fn add(&self, handle: *mut T) {
        self.0.lock().expect("no panic is survived").push(handle);
    }

    /// Takes one with its reference out, or NULL.
    fn take(&self, which: Which) -> *mut T {
        let mut all = self.0.lock().expect("no panic is survived");
        match all.len() {
            len if len > 0 && which.0 < 240 => all.remove(usize::from(which.0) % len),
            _ => ptr::null_mut(),
        }
    }

    /// A reference of one's own to one, or NULL: the other thread may give back what is here.
    fn borrow(&self, which: Which, reference: unsafe extern "C" fn(*mut T) -> *mut T) -> *mut T {
        let all = self.0.lock().expect("no panic is survived");
        match all.len() {
            len if len > 0 && which.0 < 240 => {
                // SAFETY: what is in the pool is alive.
                unsafe { reference(all[usize::from(which.0) % len]) }
            }
            _ => ptr::null_mut(),
        }
    }
}

/// What all runs share: a bundle and a state directory.
struct Stage {
    bundle: CString,
    state_dir: CString,
    root: PathBuf,
}

static STAGE: LazyLock<Option<Stage>> = LazyLock::new(|| {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: root");
        return None;
    }
    let Some(busybox) = bundle::busybox() else {
        println!("skipped: busybox-static");
        return None;
    };
    orphans::adopt();
    let base = crate::scratch().join("abi");
    let rootfs = base.join("rootfs");
    fs::create_dir_all(&rootfs).expect("a directory in memory");
    bundle::make_rootfs(&rootfs, &busybox).expect("a root in it");
    let path = |path: &PathBuf| CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL");
    let stage = Stage { bundle: path(&base), state_dir: path(&base.join("state")), root: rootfs };
    // What is opened once and stays, such as by the library's first use of a resolver.
    stage.finish(Handles::default());
    Some(stage)
});

impl Stage {
    fn perform(&self, calls: &[Call], handles: &Handles) {
        for call in calls.iter().take(16) {
            // SAFETY: the pointers are NULL or as the header asks; handles have a reference.
            unsafe { self.call(call, handles) };
        }
    }

    fn new_runtime(&self, handles: &Handles) {
        let opts = locule_runtime_opts {
            size: size_of::<locule_runtime_opts>(),
            flags: 0,
            state_dir: self.state_dir.as_ptr(),
            keeper_path: ptr::null(),
            cgroup_manager: 0,
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
        let (mut out, mut err) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: all of it is there.
        let code = unsafe { locule_runtime_new(&opts, &mut out, &mut err) };
        assert_eq!(code, 0, "a runtime can be opened");
        handles.runtimes.add(out);
    }

    /// Deletes all there is and gives everything back.
    fn finish(&self, handles: Handles) {
        self.new_runtime(&handles);
        let runtime = handles.runtimes.take(Which(0));
        let mut err = ptr::null_mut();
        let mut list = Buffer::new();
        // SAFETY: live handles, and places for the results.
        unsafe {
            assert_eq!(locule_runtime_list_json(runtime, &mut list.0, &mut err), 0);
            let states: serde_json::Value =
                serde_json::from_slice(list.bytes()).expect("a list is JSON");
            for state in states.as_array().expect("a list is an array") {
                let id = state["id"].as_str().expect("a state has an id");
                let id = CString::new(id).expect("without a NUL");
                let mut container = ptr::null_mut();
                if locule_container_open(runtime, id.as_ptr(), &mut container, ptr::null_mut()) == 0
                {
                    let code = locule_container_delete(container, LOCULE_DELETE_FORCE, &mut err);
                    handles.check(code, err);
                    locule_container_unref(container);
                }
            }
            locule_runtime_unref(runtime);
            let Handles { runtimes, containers, processes, cancels, errors } = handles;
            drain(runtimes, |handle| locule_runtime_unref(handle));
            drain(containers, |handle| locule_container_unref(handle));
            drain(processes, |handle| locule_process_unref(handle));
            drain(cancels, |handle| locule_cancel_unref(handle));
            drain(errors, |handle| locule_error_unref(handle));
        }
        let state_dir = PathBuf::from(self.state_dir.to_str().expect("it is ASCII"));
        let left: Vec<_> = fs::read_dir(&state_dir).expect("it is there").flatten().collect();
        assert!(left.is_empty(), "{left:?} is left");
    }

    /// One call of the program.
    ///
    /// # Safety
    /// None of its own: everything handed over is made here.
    unsafe fn call(&self, call: &Call, handles: &Handles) {
        let mut err = ptr::null_mut();
        // SAFETY: as above.
        let code = unsafe {
            match call {
                Call::NewRuntime { flags, shape, keeper, no_out } => {
                    let keeper = keeper.0.as_ref().and_then(Text::c);
                    let opts = shape.give(&locule_runtime_opts {
                        size: size_of::<locule_runtime_opts>(),
                        flags: flags.get() & 3,
                        state_dir: self.state_dir.as_ptr(),
                        keeper_path: pointer(&keeper),
                        cgroup_manager: 0,
                        reserved: 0,
                        plugins: ptr::null(),
                        plugin_count: 0,
                        plugin_dir: ptr::null(),
                        plugin_rules_json: ptr::null(),
                        plugin_rules_json_len: 0,
                        plugin_log: None,
                        plugin_log_user: ptr::null_mut(),
                        plugin_log_release: None,
                    });
                    // NULL would open this machine's own directory.
                    if opts.is_null() || opts.size() < 24 {
                        return;
                    }
                    let mut out = ptr::null_mut();
                    let code =
                        locule_runtime_new(opts.get(), unless(no_out.get(), &mut out), &mut err);
                    keep(&handles.runtimes, code, out);
                    code
                }
                Call::Runtime { which, call } => self.of_runtime(*which, call, handles, &mut err),
                Call::Explain { which, create, format } => {
                    let runtime = handles.runtimes.borrow(*which, locule_runtime_ref);
                    let mut out = Buffer::new();
                    let code = create.give(self, handles, true, |opts| {
                        locule_runtime_explain(runtime, opts, format % 3, &mut out.0, &mut err)
                    });
                    locule_runtime_unref(runtime);
                    code
                }
                Call::Generate { spec, no_out } => {
                    let mut out = Buffer::new();
                    spec.give(|opts| {
                        locule_spec_generate(opts, unless(no_out.get(), &mut out.0), &mut err)
                    })
                }
                Call::Create { which, create, no_out } => {
                    let runtime = handles.runtimes.borrow(*which, locule_runtime_ref);
                    let mut out = ptr::null_mut();
                    let code = create.give(self, handles, false, |opts| {
                        locule_container_create(
                            runtime,
                            opts,
                            unless(no_out.get(), &mut out),
                            &mut err,
                        )
                    });
                    keep(&handles.containers, code, out);
                    locule_runtime_unref(runtime);
                    code
                }
                Call::Open { which, id } => {
                    let runtime = handles.runtimes.borrow(*which, locule_runtime_ref);
                    let (id, mut out) = (id.c(), ptr::null_mut());
                    let code = locule_container_open(runtime, pointer(&id), &mut out, &mut err);
                    keep(&handles.containers, code, out);
                    locule_runtime_unref(runtime);
                    code
                }
                Call::Container { which, cancel, call } => {
                    self.of_container(*which, cancel, call, handles, &mut err)
                }
                Call::Exec { which, exec } => {
                    let container = handles.containers.borrow(*which, locule_container_ref);
                    let mut out = ptr::null_mut();
                    let code = exec.give(handles, |opts| {
                        locule_container_exec(
                            container,
                            opts,
                            unless(exec.no_out.get(), &mut out),
                            &mut err,
                        )
                    });
                    keep(&handles.processes, code, out);
                    locule_container_unref(container);
                    code
                }
                Call::Process { which, cancel, call } => {
                    self.of_process(*which, cancel, call, handles, &mut err)
                }
                Call::Error { which, give_back } => {
                    let error = handles.errors.borrow(*which, locule_error_ref);
                    read_error(error);
                    locule_error_unref(error);
                    if *give_back {
                        locule_error_unref(handles.errors.take(*which));
                    }
                    0
                }
                Call::Cancel { which, call } => {
                    let cancel = handles.cancels.borrow(*which, locule_cancel_ref);
                    let code = match call {
                        OfCancel::New { no_out } => {
                            let mut out = ptr::null_mut();
                            let code = locule_cancel_new(unless(no_out.get(), &mut out), &mut err);
                            keep(&handles.cancels, code, out);
                            code
                        }
                        OfCancel::Trigger => {
                            locule_cancel_trigger(cancel);
                            0
                        }
                        OfCancel::Descriptor => {
                            assert_eq!(locule_cancel_fd(cancel) < 0, cancel.is_null());
                            0
                        }
                        OfCancel::GiveBack => {
                            locule_cancel_unref(handles.cancels.take(*which));
                            0
                        }
                    };
                    locule_cancel_unref(cancel);
                    code
                }
                Call::Named { text, code } => {
                    let text = text.c();
                    assert!(!locule_category_name(*code).is_null());
                    assert!(!locule_version().is_null());
                    locule_has(pointer(&text))
                }
                Call::FreeBuffer { twice } => {
                    let mut buffer = locule_buf { data: ptr::null_mut(), len: 0 };
                    locule_spec_generate(ptr::null(), &mut buffer, &mut err);
                    locule_buf_free(&mut buffer);
                    if *twice {
                        locule_buf_free(&mut buffer);
                    }
                    locule_buf_free(ptr::null_mut());
                    0
                }
            }
        };
        handles.check(code, err);
    }

    /// # Safety
    /// As for [`Stage::call`].
    unsafe fn of_runtime(
        &self,
        which: Which,
        call: &OfRuntime,
        handles: &Handles,
        err: &mut *mut locule_error,
    ) -> c_int {
        let runtime = handles.runtimes.borrow(which, locule_runtime_ref);
        // SAFETY: as for `call`.
        unsafe {
            let code = match call {
                OfRuntime::Descriptor => {
                    assert_eq!(locule_runtime_state_dir(runtime).is_null(), runtime.is_null());
                    assert_eq!(locule_runtime_fd(runtime) < 0, runtime.is_null());
                    0
                }
                OfRuntime::Dispatch { callback, answer, timeout } => {
                    let callback: locule_event_fn = callback.then_some(on_event);
                    let user = ptr::from_ref(answer).cast_mut().cast();
                    locule_runtime_dispatch(runtime, (timeout % 8).into(), callback, user, err)
                }
                OfRuntime::List => locule_runtime_list_json(runtime, &mut Buffer::new().0, err),
                OfRuntime::Features => {
                    locule_runtime_features_json(runtime, &mut Buffer::new().0, err)
                }
                OfRuntime::GiveBack => {
                    locule_runtime_unref(handles.runtimes.take(which));
                    0
                }
            };
            locule_runtime_unref(runtime);
            code
        }
    }

    /// # Safety
    /// As for [`Stage::call`].
    unsafe fn of_container(
        &self,
        which: Which,
        cancel: &Rarely<Which>,
        call: &OfContainer,
        handles: &Handles,
        err: &mut *mut locule_error,
    ) -> c_int {
        let container = handles.containers.borrow(which, locule_container_ref);
        // SAFETY: as for `call`.
        unsafe {
            let code = match call {
                OfContainer::Id => {
                    assert_eq!(locule_container_id(container).is_null(), container.is_null());
                    0
                }
                OfContainer::Init => {
                    let mut out = ptr::null_mut();
                    let code = locule_container_init(container, &mut out, err);
                    keep(&handles.processes, code, out);
                    code
                }
                OfContainer::Start => {
                    let cancel = handles.optional_cancel(cancel);
                    let code = locule_container_start(container, cancel, err);
                    locule_cancel_unref(cancel);
                    code
                }
                OfContainer::Signal { signal, flags } => {
                    locule_container_signal(container, signal % 70, (flags & 3).into(), err)
                }
                OfContainer::Pause => locule_container_pause(container, err),
                OfContainer::Resume => locule_container_resume(container, err),
                OfContainer::Update(bytes) => bytes.give(|bytes, length| {
                    locule_container_update_json(container, bytes, length, err)
                }),
                OfContainer::Stats => {
                    locule_container_stats_json(container, &mut Buffer::new().0, err)
                }
                OfContainer::Pids => {
                    locule_container_pids_json(container, &mut Buffer::new().0, err)
                }
                OfContainer::State => {
                    locule_container_state_json(container, &mut Buffer::new().0, err)
                }
                OfContainer::Delete { flags } => {
                    locule_container_delete(container, (flags & 3).into(), err)
                }
                OfContainer::GiveBack => {
                    locule_container_unref(handles.containers.take(which));
                    0
                }
            };
            locule_container_unref(container);
            code
        }
    }

    /// # Safety
    /// As for [`Stage::call`].
    unsafe fn of_process(
        &self,
        which: Which,
        cancel: &Rarely<Which>,
        call: &OfProcess,
        handles: &Handles,
        err: &mut *mut locule_error,
    ) -> c_int {
        let process = handles.processes.borrow(which, locule_process_ref);
        // SAFETY: as for `call`.
        unsafe {
            let code = match call {
                OfProcess::Pid => {
                    assert_eq!(locule_process_pid(process) < 0, process.is_null());
                    assert_eq!(locule_process_fd(process) < 0, process.is_null());
                    0
                }
                OfProcess::Wait { timeout, shape } => {
                    let cancel = handles.optional_cancel(cancel);
                    let mut exit = shape.give(&locule_exit {
                        size: size_of::<locule_exit>(),
                        kind: 99,
                        code: 99,
                        signal: 99,
                        core_dumped: 99,
                    });
                    let timeout = (timeout % 8).into();
                    let code = locule_process_wait(process, timeout, cancel, exit.get_mut(), err);
                    locule_cancel_unref(cancel);
                    code
                }
                OfProcess::Signal(signal) => locule_process_signal(process, signal % 70, err),
                OfProcess::Pipe(number) => own(locule_process_take_pipe(process, number % 4, err)),
                OfProcess::Terminal => own(locule_process_take_terminal(process, err)),
                OfProcess::Resize(rows, columns) => {
                    locule_process_resize(process, *rows, *columns, err)
                }
                OfProcess::GiveBack => {
                    locule_process_unref(handles.processes.take(which));
                    0
                }
            };
            locule_process_unref(process);
            code
        }
    }
}

impl Handles {
    fn optional_cancel(&self, which: &Rarely<Which>) -> *mut locule_cancel {
        which.0.map_or(ptr::null_mut(), |which| self.cancels.borrow(which, locule_cancel_ref))
    }

    /// A failure has an error that tells, a success has none.
    fn check(&self, code: c_int, err: *mut locule_error) {
        if crate::is_shown() {
            eprintln!("{code}: {}", text_of(err));
        }
        assert_ne!(code, LOCULE_E_BUG, "{}", text_of(err));
        assert_eq!(code < 0, !err.is_null(), "{code} with {}", text_of(err));
        if !err.is_null() {
            // SAFETY: the reference is ours.
            unsafe {
                assert_eq!(locule_error_code(err), code);
                read_error(err);
            }
            self.errors.add(err);
        }
    }
}

/// Reads a text to its end.
///
/// # Safety
/// It has one.
unsafe fn text_length(text: *const c_char) -> usize {
    // SAFETY: passed on to the caller.
    unsafe { std::ffi::CStr::from_ptr(text) }.count_bytes()
}

fn text_of(error: *mut locule_error) -> String {
    if error.is_null() {
        return "no error".to_owned();
    }
    // SAFETY: alive, and its message ends in a NUL.
    let text = unsafe { std::ffi::CStr::from_ptr(locule_error_message(error)) };
    text.to_string_lossy().into_owned()
}

/// # Safety
/// A live error, or NULL.
unsafe fn read_error(error: *const locule_error) {
    // SAFETY: passed on to the caller.
    unsafe {
        let missing = error.is_null();
        assert_eq!(locule_error_code(error) == 0, missing);
        assert_eq!(locule_error_message(error).is_null(), missing);
        assert_eq!(locule_error_stage_name(error).is_null(), missing);
        locule_error_errno(error);
        locule_error_stage(error);
        for text in [
            locule_error_pointer(error),
            locule_error_container_id(error),
            locule_error_step(error),
            locule_error_hint(error),
        ] {
            if !text.is_null() {
                text_length(text);
            }
        }
    }
}

unsafe extern "C" fn on_event(event: *const locule_event, user: *mut c_void) -> c_int {
    // SAFETY: the event of a running callback, and the number that was given with it.
    unsafe {
        assert_eq!(locule_event_kind(event), LOCULE_EVENT_EXITED);
        assert!(!locule_event_container_id(event).is_null());
        let process = locule_process_ref(locule_event_process(event));
        assert!(locule_process_pid(process) > 0);
        locule_process_unref(process);
        let mut exit: locule_exit = std::mem::zeroed();
        exit.size = size_of::<locule_exit>();
        assert!(locule_event_exit(event, &mut exit, ptr::null_mut()) >= 0);
        user.cast::<i32>().read() % 3
    }
}

/// Gives back what a pool holds.
fn drain<T>(pool: Pool<T>, give_back: impl Fn(*mut T)) {
    pool.0.into_inner().expect("no panic is survived").into_iter().for_each(give_back);
}

/// A result is there if and only if the call has succeeded.
fn keep<T>(pool: &Pool<T>, code: c_int, out: *mut T) {
    assert_eq!(code >= 0, !out.is_null());
    if !out.is_null() {
        pool.add(out);
    }
}

/// A descriptor that a call has given is closed at once.
fn own(fd: c_int) -> c_int {
    if fd >= 0 {
        // SAFETY: it was given to us.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
        return 0;
    }
    fd
}

fn unless<T>(no: bool, place: &mut T) -> *mut T {
    if no { ptr::null_mut() } else { place }
}

fn pointer(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(ptr::null(), |text| text.as_ptr())
}

struct Buffer(locule_buf);

impl Buffer {
    fn new() -> Buffer {
        Buffer(locule_buf { data: ptr::null_mut(), len: 0 })
    }

    fn bytes(&self) -> &[u8] {
        if self.0.data.is_null() {
            return &[];
        }
        // SAFETY: filled by the library.
        unsafe { std::slice::from_raw_parts(self.0.data.cast(), self.0.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: empty, or filled by the library.
        unsafe { locule_buf_free(&mut self.0) };
    }
}

/// Memory that is exactly as long as the struct in it says, so that a sanitizer sees what is
/// read past it.
struct Given<T> {
    words: Option<Box<[u64]>>,
    size: u64,
    kind: std::marker::PhantomData<T>,
}

impl Rarely<Shape> {
    fn give<T: Copy>(&self, value: &T) -> Given<T> {
        let right = size_of::<T>();
        let (size, len, tail) = match &self.0 {
            None => (right as u64, right, 0),
            Some(Shape::Null) => {
                return Given { words: None, size: 0, kind: std::marker::PhantomData };
            }
            Some(Shape::Sized { size, tail }) => {
                let len = usize::from(size % 64) * 8;
                (len as u64, len, *tail)
            }
            // Only the first field may be read then.
            Some(Shape::Impossible(size)) if (8..=4096).contains(size) => (8, 8, 0),
            Some(Shape::Impossible(size)) => (*size, 8, 0),
        };
        let count = len.max(8) / 8;
        let mut words = vec![0u64; count].into_boxed_slice();
        for word in words.iter_mut().skip(right / 8) {
            *word = u64::from(tail);
        }
        // SAFETY: both have as many bytes.
        unsafe {
            ptr::copy_nonoverlapping(
                ptr::from_ref(value).cast::<u8>(),
                words.as_mut_ptr().cast(),
                right.min(count * 8),
            );
        }
        words[0] = size;
        Given { words: Some(words), size, kind: std::marker::PhantomData }
    }
}

impl<T> Given<T> {
    fn is_null(&self) -> bool {
        self.words.is_none()
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn get(&self) -> *const T {
        self.words.as_ref().map_or(ptr::null(), |words| words.as_ptr().cast())
    }

    fn get_mut(&mut self) -> *mut T {
        self.words.as_mut().map_or(ptr::null_mut(), |words| words.as_mut_ptr().cast())
    }
}

impl Text {
    fn c(&self) -> Option<CString> {
        let bytes = match self {
            Text::Null => return None,
            Text::Empty => Vec::new(),
            Text::Id(number) => format!("box-{}", number % 3).into_bytes(),
            Text::Any(bytes) => bytes.iter().copied().filter(|byte| *byte != 0).collect(),
        };
        Some(CString::new(bytes).expect("it has no NUL"))
    }
}

impl Bytes {
    fn give(&self, call: impl FnOnce(*const c_void, usize) -> c_int) -> c_int {
        match self {
            Bytes::Null { length } => call(ptr::null(), (length % 2).into()),
            Bytes::Any(bytes) => call(bytes.as_ptr().cast(), bytes.len()),
            Bytes::Limits(number) => {
                let json = format!("{{\"pids\":{{\"limit\":{number}}}}}");
                call(json.as_ptr().cast(), json.len())
            }
        }
    }
}

impl Rarely<Pass> {
    fn give(&self) -> (Vec<c_int>, usize) {
        match &self.0 {
            None => (Vec::new(), 0),
            Some(Pass::These(fds)) => {
                let fds: Vec<c_int> = fds.iter().take(4).map(|fd| few(*fd)).collect();
                let count = fds.len();
                (fds, count)
            }
            Some(Pass::Nowhere(count)) => (Vec::new(), (*count).into()),
        }
    }
}

/// A standard stream, one that is none, or nonsense.
fn few(fd: i16) -> c_int {
    match fd % 6 {
        small @ 0..=2 => small.into(),
        3 => 1000,
        _ => fd.into(),
    }
}

fn streams(stdio: &[Stream; 3], odd: &Rarely<(u32, i32)>) -> [locule_stdio; 3] {
    let mut streams = stdio.map(|stream| match stream {
        Stream::Null => locule_stdio { kind: LOCULE_STDIO_NULL, fd: 0 },
        Stream::Inherit => locule_stdio { kind: LOCULE_STDIO_INHERIT, fd: 0 },
        Stream::Pipe => locule_stdio { kind: LOCULE_STDIO_PIPE, fd: 0 },
        Stream::Descriptor(fd) => locule_stdio { kind: LOCULE_STDIO_FD, fd: (fd % 3).into() },
    });
    if let Some((kind, fd)) = odd.0 {
        streams[2] = locule_stdio { kind: kind % 6, fd };
    }
    streams
}

impl Create {
    fn give(
        &self,
        stage: &Stage,
        handles: &Handles,
        only_explained: bool,
        call: impl FnOnce(*const locule_create_opts) -> c_int,
    ) -> c_int {
        let program = |args: &[&str]| bundle::spec(&stage.root, args).to_string().into_bytes();
        let json = match &self.config {
            Config::True => Some(program(&["true"])),
            Config::Sleep => Some(program(&["sleep", "1000"])),
            Config::Terminal => {
                let mut spec = bundle::spec(&stage.root, &["sh"]);
                spec["process"]["terminal"] = true.into();
                Some(spec.to_string().into_bytes())
            }
            Config::NoProgram => Some(program(&["absent"])),
            Config::NoBundle | Config::None => None,
            // What is carried out must not be left to chance: this is the machine's root.
            Config::Garbage(bytes) if only_explained || locule::spec::parse(bytes).is_err() => {
                Some(bytes.clone())
            }
            Config::Garbage(_) => None,
        };
        let has_bundle = !matches!(self.config, Config::None);
        let id = self.id.c();
        let (fds, count) = self.pass.give();
        let cancel = handles.optional_cancel(&self.cancel);
        let opts = self.shape.give(&locule_create_opts {
            size: size_of::<locule_create_opts>(),
            flags: self.flags.get()
                | if self.overlay.get() { LOCULE_CREATE_ROOTFS_OVERLAY } else { 0 }
                | if self.detached { LOCULE_CREATE_DETACH } else { 0 },
            id: pointer(&id),
            bundle: if has_bundle { stage.bundle.as_ptr() } else { ptr::null() },
            spec_json: json.as_ref().map_or(ptr::null(), |json| json.as_ptr().cast()),
            spec_json_len: json.as_ref().map_or(0, Vec::len),
            stdio: streams(&self.stdio, &self.odd_stream),
            parentage: self.odd_parentage.0.unwrap_or((self.parentage % 3).into()),
            timeout_ms: self.timeout.get().into(),
            pass_fds: if fds.is_empty() { ptr::null() } else { fds.as_ptr() },
            pass_fd_count: count,
            cancel,
            seccomp_listener: if fds.is_empty() { ptr::null() } else { fds.as_ptr() },
            lower: ptr::null(),
            lower_count: 0,
            changes: ptr::null(),
            image: ptr::null(),
            image_overrides_json: ptr::null(),
            image_overrides_json_len: 0,
        });
        let code = call(opts.get());
        // SAFETY: the reference from above, or NULL.
        unsafe { locule_cancel_unref(cancel) };
        code
    }
}

impl Exec {
    fn give(
        &self,
        handles: &Handles,
        call: impl FnOnce(*const locule_exec_opts) -> c_int,
    ) -> c_int {
        let json: Option<&[u8]> = match &self.process {
            Process::True => Some(br#"{"args":["true"]}"#),
            Process::Sleep => Some(br#"{"args":["sleep","1000"]}"#),
            Process::Terminal => Some(br#"{"args":["sh"],"terminal":true}"#),
            Process::Null => None,
            Process::Garbage(bytes) => Some(bytes),
        };
        let (fds, count) = self.pass.give();
        let cancel = handles.optional_cancel(&self.cancel);
        let opts = self.shape.give(&locule_exec_opts {
            size: size_of::<locule_exec_opts>(),
            flags: self.flags.get(),
            process_json: json.map_or(ptr::null(), |json| json.as_ptr().cast()),
            process_json_len: json.map_or(0, <[u8]>::len),
            stdio: streams(&self.stdio, &self.odd_stream),
            timeout_ms: self.timeout.get().into(),
            reserved: self.reserved.get(),
            pass_fds: if fds.is_empty() { ptr::null() } else { fds.as_ptr() },
            pass_fd_count: count,
            cancel,
            seccomp_listener: if fds.is_empty() { ptr::null() } else { fds.as_ptr() },
        });
        let code = call(opts.get());
        // SAFETY: the reference from above, or NULL.
        unsafe { locule_cancel_unref(cancel) };
        code
    }
}

impl SpecOptions {
    fn give(&self, call: impl FnOnce(*const locule_spec_opts) -> c_int) -> c_int {
        let texts = |list: &Option<Vec<Text>>| {
            let list = list.as_ref()?;
            Some(list.iter().take(4).filter_map(Text::c).collect::<Vec<_>>())
        };
        let array = |list: &Option<Vec<CString>>| {
            let list = list.as_ref()?;
            let end = std::iter::once(ptr::null());
            Some(list.iter().map(|text| text.as_ptr()).chain(end).collect::<Vec<_>>())
        };
        let (args, env) = (texts(&self.args), texts(&self.env));
        let (args, env) = (array(&args), array(&env));
        let start = |array: &Option<Vec<*const c_char>>| {
            array.as_ref().map_or(ptr::null(), |array| array.as_ptr())
        };
        let (cwd, hostname, rootfs) = (self.cwd.c(), self.hostname.c(), self.rootfs.c());
        let (uid, gid, memory_bytes, cpu_milli, pids) = self.numbers;
        let opts = self.shape.give(&locule_spec_opts {
            size: size_of::<locule_spec_opts>(),
            flags: (self.flags % 20).into(),
            args: start(&args),
            env: start(&env),
            cwd: pointer(&cwd),
            hostname: pointer(&hostname),
            rootfs: pointer(&rootfs),
            uid,
            gid,
            memory_bytes,
            cpu_milli,
            pids,
        });
        call(opts.get())
    }
}

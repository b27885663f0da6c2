//! Containers: created, started, signalled, measured and deleted.

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::Duration;

use locule::cgroup::{Resource, Trigger, Watch};
use locule::{
    Container, CreateOptions, Error, ExecOptions, OnHostExit, Parentage, Result, Rootfs, Source,
};

use crate::argument::{
    self, bytes, descriptor, descriptors, invalid, object, option_timeout, optional_bytes,
    optional_path, optional_text, paths, unsupported,
};
use crate::buf::{self, locule_buf};
use crate::cancel::{self, locule_cancel};
use crate::entry::{fallible, infallible};
use crate::error::{c_string, locule_error};
use crate::handle;
use crate::image::{self, locule_image};
use crate::images;
use crate::options::{self, Versioned, check_flags, check_reserved, locule_stdio};
use crate::process::locule_process;
use crate::runtime::{self, json_buf, locule_runtime};

/// Take `root.path` as the read-only lower layer of a private overlay: what the container
/// changes there vanishes with it, unless `changes` keeps it. With "/" it sees the host's own files.
pub const LOCULE_CREATE_ROOTFS_OVERLAY: u64 = 1;
/// Let the container live on when this process ends. Without the flag it is killed then and
/// everything of it is removed.
pub const LOCULE_CREATE_DETACH: u64 = 2;

/// The parent of the first process is a keeper, which stays as long as the container.
pub const LOCULE_PARENTAGE_KEEPER: u32 = 0;
/// The parent is the nearest subreaper, or pid 1. The keeper leaves once the container is
/// created, so that the container lives on when this process ends.
pub const LOCULE_PARENTAGE_ORPHAN: u32 = 1;
/// The parent is the calling process: it gets SIGCHLD and may wait for it. The keeper leaves.
pub const LOCULE_PARENTAGE_CHILD: u32 = 2;

/// How a container is created. One of `bundle`, `spec_json` and `image` has to be set.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_create_opts {
    /// sizeof(struct locule_create_opts).
    pub size: usize,
    /// LOCULE_CREATE_*.
    pub flags: u64,
    /// The id: letters, digits and any of _+-. , at most 1024. NULL: one is invented.
    pub id: *const c_char,
    /// The bundle: a directory with config.json. With `spec_json` only the directory from
    /// which relative paths are taken; NULL is then the current directory.
    pub bundle: *const c_char,
    /// The text of config.json, in place of the bundle's.
    pub spec_json: *const c_void,
    /// Its length in bytes.
    pub spec_json_len: usize,
    /// Standard input, output and error. Default: /dev/null.
    pub stdio: [locule_stdio; 3],
    /// One of LOCULE_PARENTAGE_*.
    pub parentage: u32,
    /// How long creation may take, in milliseconds. 0: 60 seconds, beside what unpacking an image
    /// takes.
    pub timeout_ms: u32,
    /// Descriptors that become 3, 4, ... in the program; borrowed for the call.
    pub pass_fds: *const c_int,
    /// How many there are.
    pub pass_fd_count: usize,
    /// Stops the call. May be NULL.
    pub cancel: *mut locule_cancel,
    /// NULL, or a connected AF_UNIX socket, borrowed for the call, over which the listener of the
    /// seccomp filter goes to the caller instead of to `listenerPath`, in one message with the
    /// container process state. Its other end has to be served while this call and the start block:
    /// what they wait for may be the answer to a notification. Feature "seccomp-listener".
    pub seccomp_listener: *const c_int,
    /// With LOCULE_CREATE_ROOTFS_OVERLAY: further read-only layers beneath `root.path`, the topmost
    /// first; at most 499. They are layers as overlayfs has them, where a character device 0, 0
    /// hides what has its name further down. Feature "rootfs-layers".
    pub lower: *const *const c_char,
    /// How many there are.
    pub lower_count: usize,
    /// With LOCULE_CREATE_ROOTFS_OVERLAY: NULL, or a directory that takes the container's changes,
    /// in its `upper`, and keeps them when the container is deleted; a container that is created
    /// with it again finds them. Made if missing, as the container's root's own. It has to be on a
    /// filesystem that can take an overlay's changes, which an overlay cannot, and is for one
    /// container at a time: what two see that share it is undefined. Feature "rootfs-layers".
    pub changes: *const c_char,
    /// NULL, or an image in place of a bundle: its configuration becomes a config.json, its layers,
    /// unpacked once, the root, below a private overlay. `bundle` and `spec_json` are NULL then.
    /// The store keeps what the container needs, unless it was opened read-only. What is not
    /// unpacked yet, which locule_image_prepare sees to, is first. Feature "images".
    pub image: *const locule_image,
    /// With `image`: what is to be other than the image has it, a JSON object; docs/images.md has
    /// its members, such as {"args": ["ls"], "env": ["A=1"]}. NULL: nothing.
    pub image_overrides_json: *const c_void,
    /// Its length in bytes.
    pub image_overrides_json_len: usize,
}

// SAFETY: `repr(C)`, the size comes first, integers and pointers only, without padding
// (tests/abi/layout.rs).
unsafe impl Versioned for locule_create_opts {
    const NAME: &'static str = "locule_create_opts";
    const FIRST_SIZE: usize = 104;
}

impl locule_create_opts {
    /// # Safety
    /// The pointers in the struct are as the header asks, for `'a`.
    pub(crate) unsafe fn pass_fds<'a>(&self) -> Result<Vec<BorrowedFd<'a>>> {
        // SAFETY: passed on to the caller.
        unsafe { descriptors(self.pass_fds, self.pass_fd_count, "opts.pass_fds") }
    }

    /// # Safety
    /// The pointers in the struct are as the header asks.
    pub(crate) unsafe fn lower(&self) -> Result<Vec<PathBuf>> {
        // SAFETY: passed on to the caller.
        unsafe { paths(self.lower, self.lower_count, "opts.lower") }
    }

    /// # Safety
    /// The pointers in the struct are as the header asks, for `'a`.
    unsafe fn source<'a>(&self) -> Result<Source<'a>> {
        let (overrides, overrides_len) = (self.image_overrides_json, self.image_overrides_json_len);
        // SAFETY: passed on to the caller.
        let (bundle, json, image, overrides) = unsafe {
            (
                optional_path(self.bundle),
                optional_bytes(self.spec_json, self.spec_json_len, "opts.spec_json")?,
                image::optional(self.image),
                optional_bytes(overrides, overrides_len, "opts.image_overrides_json")?,
            )
        };
        match (image, json, bundle) {
            (None, ..) if overrides.is_some() => {
                Err(invalid("`opts.image_overrides_json` is set, but `opts.image` is not"))
            }
            (Some(image), None, None) => images::source(image, overrides),
            (Some(_), Some(_), _) => Err(invalid("`opts.image` and `opts.spec_json` are both set")),
            (Some(_), None, Some(_)) => Err(invalid("`opts.image` and `opts.bundle` are both set")),
            (None, Some(json), base) => Ok(Source::Spec { json, base: base.map(Path::to_owned) }),
            (None, None, Some(bundle)) => Ok(Source::bundle(bundle)),
            (None, None, None) => {
                Err(invalid("none of `opts.bundle`, `opts.spec_json` and `opts.image` is set"))
            }
        }
    }

    /// # Safety
    /// The pointers in the struct are as the header asks, for `'a`.
    pub(crate) unsafe fn convert<'a>(
        &self,
        pass_fds: &'a [BorrowedFd<'a>],
        lower: &'a [PathBuf],
    ) -> Result<CreateOptions<'a>> {
        let known = LOCULE_CREATE_ROOTFS_OVERLAY | LOCULE_CREATE_DETACH;
        check_flags(self.flags, known, "opts.flags")?;
        // SAFETY: passed on to the caller.
        let (id, source, cancel) = unsafe {
            (optional_text(self.id, "opts.id")?, self.source()?, cancel::optional(self.cancel))
        };
        let mut options = CreateOptions::new(source);
        options.id = id;
        if self.flags & LOCULE_CREATE_ROOTFS_OVERLAY != 0 {
            options.rootfs = Rootfs::Overlay;
        }
        if self.flags & LOCULE_CREATE_DETACH != 0 {
            options.on_host_exit = OnHostExit::Detach;
        }
        options.stdio = options::stdio(&self.stdio)?;
        options.parentage = match self.parentage {
            LOCULE_PARENTAGE_KEEPER => Parentage::Keeper,
            LOCULE_PARENTAGE_ORPHAN => Parentage::Orphan,
            LOCULE_PARENTAGE_CHILD => Parentage::Child,
            other => return Err(unsupported(format!("`opts.parentage` {other} is unknown"))),
        };
        options.pass_fds = pass_fds;
        options.lower = lower;
        // SAFETY: passed on to the caller.
        options.seccomp_listener = unsafe { listener(self.seccomp_listener)? };
        // SAFETY: passed on to the caller.
        options.changes = unsafe { optional_path(self.changes) };
        options.timeout = option_timeout(self.timeout_ms);
        options.cancel = cancel;
        Ok(options)
    }
}

/// How another process is run in a container.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_exec_opts {
    /// sizeof(struct locule_exec_opts).
    pub size: usize,
    /// None yet: 0.
    pub flags: u64,
    /// JSON of a `process` object as in config.json. Only `args` is required; what is absent
    /// is as for the container's first process.
    pub process_json: *const c_void,
    /// Its length in bytes.
    pub process_json_len: usize,
    /// Standard input, output and error. Default: /dev/null.
    pub stdio: [locule_stdio; 3],
    /// How long the start may take, in milliseconds. 0: 60 seconds.
    pub timeout_ms: u32,
    /// 0.
    pub reserved: u32,
    /// Descriptors that become 3, 4, ... in the program; borrowed for the call.
    pub pass_fds: *const c_int,
    /// How many there are.
    pub pass_fd_count: usize,
    /// Stops the call. May be NULL.
    pub cancel: *mut locule_cancel,
    /// NULL, or a connected AF_UNIX socket, borrowed for the call, over which the listener of the
    /// seccomp filter goes to the caller instead of to `listenerPath`, in one message with the
    /// container process state. Its other end has to be served while this call blocks:
    /// what it waits for may be the answer to a notification. Feature "seccomp-listener".
    pub seccomp_listener: *const c_int,
}

// SAFETY: `repr(C)`, the size comes first, integers and pointers only, without padding
// (tests/abi/layout.rs).
unsafe impl Versioned for locule_exec_opts {
    const NAME: &'static str = "locule_exec_opts";
    const FIRST_SIZE: usize = 88;
}

/// # Safety
/// `socket` is NULL or points to a descriptor that stays open for `'a`.
unsafe fn listener<'a>(socket: *const c_int) -> Result<Option<BorrowedFd<'a>>> {
    // SAFETY: passed on to the caller.
    match unsafe { socket.as_ref() } {
        Some(&socket) => descriptor(socket, "opts.seccomp_listener").map(Some),
        None => Ok(None),
    }
}

/// The container ran out of memory: LOCULE_EVENT_OOM.
pub const LOCULE_WATCH_OOM: u32 = 1;
/// Its processes had to wait for a resource too long: LOCULE_EVENT_PRESSURE. Needs cgroup v2
/// alone.
pub const LOCULE_WATCH_PRESSURE: u32 = 2;

/// A processor.
pub const LOCULE_RESOURCE_CPU: u32 = 1;
/// Memory.
pub const LOCULE_RESOURCE_MEMORY: u32 = 2;
/// Block devices.
pub const LOCULE_RESOURCE_IO: u32 = 3;

/// Count the time in which all processes that could run had to wait at once; else that in which
/// at least one had to.
pub const LOCULE_WATCH_FULL: u64 = 1;

/// What to be told of. All but `size` and `kind` are for LOCULE_WATCH_PRESSURE and else 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct locule_watch_opts {
    /// sizeof(struct locule_watch_opts).
    pub size: usize,
    /// 0 or LOCULE_WATCH_FULL.
    pub flags: u64,
    /// One of LOCULE_WATCH_*.
    pub kind: u32,
    /// What they wait for: one of LOCULE_RESOURCE_*.
    pub resource: u32,
    /// How long is too long: the time of waiting within a window, added up, in microseconds.
    pub stall_us: u64,
    /// The window, 500,000 to 10,000,000 microseconds. For an ordinary user a multiple of two
    /// seconds. There is one event in a window at most.
    pub window_us: u64,
}

// SAFETY: `repr(C)`, the size comes first, integers only, without padding (tests/abi/layout.rs).
unsafe impl Versioned for locule_watch_opts {
    const NAME: &'static str = "locule_watch_opts";
    const FIRST_SIZE: usize = 40;
}

impl locule_watch_opts {
    fn convert(&self) -> Result<Watch> {
        check_flags(self.flags, LOCULE_WATCH_FULL, "opts.flags")?;
        match self.kind {
            LOCULE_WATCH_OOM => {
                let unused = self.flags | u64::from(self.resource) | self.stall_us | self.window_us;
                match unused {
                    0 => Ok(Watch::OutOfMemory),
                    _ => Err(invalid("a field of `opts` is for LOCULE_WATCH_PRESSURE only")),
                }
            }
            LOCULE_WATCH_PRESSURE => Ok(Watch::Pressure(Trigger {
                resource: match self.resource {
                    LOCULE_RESOURCE_CPU => Resource::Cpu,
                    LOCULE_RESOURCE_MEMORY => Resource::Memory,
                    LOCULE_RESOURCE_IO => Resource::Io,
                    other => {
                        return Err(unsupported(format!("`opts.resource` {other} is unknown")));
                    }
                },
                full: self.flags & LOCULE_WATCH_FULL != 0,
                stall: Duration::from_micros(self.stall_us),
                window: Duration::from_micros(self.window_us),
            })),
            other => Err(unsupported(format!("`opts.kind` {other} is unknown"))),
        }
    }
}

impl From<&Trigger> for locule_watch_opts {
    fn from(trigger: &Trigger) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        locule_watch_opts {
            size: size_of::<locule_watch_opts>(),
            flags: if trigger.full { LOCULE_WATCH_FULL } else { 0 },
            kind: LOCULE_WATCH_PRESSURE,
            resource: match trigger.resource {
                Resource::Cpu => LOCULE_RESOURCE_CPU,
                Resource::Memory => LOCULE_RESOURCE_MEMORY,
                Resource::Io => LOCULE_RESOURCE_IO,
                _ => 0,
            },
            stall_us: micros(trigger.stall),
            window_us: micros(trigger.window),
        }
    }
}

/// Send the signal to every process of the container.
pub const LOCULE_SIGNAL_ALL: u64 = 1;
/// Kill the container first if it is not stopped.
pub const LOCULE_DELETE_FORCE: u64 = 1;

/// A container.
pub struct locule_container {
    container: Container,
    id: CString,
}

impl locule_container {
    fn new(container: Container) -> *mut locule_container {
        let id = c_string(container.id());
        handle::new(locule_container { container, id })
    }
}

/// The container behind a handle.
///
/// # Safety
/// `container` is NULL or a live handle for the length of the call.
pub(crate) unsafe fn target<'a>(container: *const locule_container) -> Result<&'a Container> {
    // SAFETY: passed on to the caller.
    unsafe { object(container, "container") }.map(|container| &container.container)
}

/// Creates a container and stores it in *out; the caller owns that reference. Everything is
/// set up and the program waits for locule_container_start. A call that fails leaves nothing
/// behind.
///
/// Any thread. Blocks until the container is set up, its hooks included, and before that until its
/// image is unpacked, if it is not yet. Fails with any category; the error names the stage, the
/// step and the place in config.json. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_create(
    runtime: *mut locule_runtime,
    opts: *const locule_create_opts,
    out: *mut *mut locule_container,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let runtime = runtime::target(runtime)?;
            let opts = options::read(opts, "opts")?;
            let named = |error: Error| match optional_text(opts.id, "opts.id") {
                Ok(Some(id)) => error.of_container(id),
                _ => error,
            };
            let pass_fds = opts.pass_fds().map_err(named)?;
            let lower = opts.lower().map_err(named)?;
            let options = opts.convert(&pass_fds, &lower).map_err(named)?;
            *out = locule_container::new(runtime.create(options).map_err(named)?);
            Ok(0)
        })
    }
}

/// Opens the container with this id, created by whichever process, and stores it in *out; the
/// caller owns that reference.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_NOT_FOUND,
/// LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_open(
    runtime: *mut locule_runtime,
    id: *const c_char,
    out: *mut *mut locule_container,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let runtime = runtime::target(runtime)?;
            *out = locule_container::new(runtime.open(argument::text(id, "id")?)?);
            Ok(0)
        })
    }
}

/// The container's id. Borrowed from the container. NULL for NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_id(container: *const locule_container) -> *const c_char {
    infallible(ptr::null(), || {
        // SAFETY: NULL or a live handle, as the header asks.
        unsafe { object(container, "container") }
            .map_or(ptr::null(), |container| container.id.as_ptr())
    })
}

/// Stores the container's first process in *out; the caller owns that reference.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_init(
    container: *const locule_container,
    out: *mut *mut locule_process,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            *out = handle::new(locule_process(target(container)?.init().clone()));
            Ok(0)
        })
    }
}

/// Lets the program run. Returns once it has been executed. `cancel` may be NULL.
///
/// Any thread. Blocks until the program has been executed. Fails with LOCULE_E_INVALID,
/// LOCULE_E_STATE if it is not waiting for this, LOCULE_E_PROGRAM, LOCULE_E_HOOK,
/// LOCULE_E_CANCELLED, LOCULE_E_KEEPER, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_start(
    container: *mut locule_container,
    cancel: *mut locule_cancel,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe { fallible(err, || target(container)?.start(cancel::optional(cancel)).map(|()| 0)) }
}

/// Runs another process in the container and stores it in *out; the caller owns that
/// reference. Returns once its program has been executed.
///
/// Any thread. Blocks until the program has been executed. Fails with LOCULE_E_INVALID,
/// LOCULE_E_SPEC, LOCULE_E_STATE if the container does not run, LOCULE_E_PROGRAM,
/// LOCULE_E_TIMEOUT, LOCULE_E_CANCELLED, LOCULE_E_KEEPER, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_exec(
    container: *mut locule_container,
    opts: *const locule_exec_opts,
    out: *mut *mut locule_process,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = argument::out(out, ptr::null_mut(), "out")?;
            let container = target(container)?;
            let opts = options::read(opts, "opts")?;
            check_flags(opts.flags, 0, "opts.flags")?;
            check_reserved(opts.reserved, "opts.reserved")?;
            let named = |error: Error| error.of_container(container.id());
            let process = bytes(opts.process_json, opts.process_json_len, "opts.process_json")
                .map_err(named)?;
            let pass_fds =
                descriptors(opts.pass_fds, opts.pass_fd_count, "opts.pass_fds").map_err(named)?;
            let process = container.exec(ExecOptions {
                stdio: options::stdio(&opts.stdio).map_err(named)?,
                pass_fds: &pass_fds,
                seccomp_listener: listener(opts.seccomp_listener).map_err(named)?,
                timeout: option_timeout(opts.timeout_ms),
                cancel: cancel::optional(opts.cancel),
                ..ExecOptions::new(process)
            })?;
            *out = handle::new(locule_process(process));
            Ok(0)
        })
    }
}

/// Sends a signal to the container's first process, or with LOCULE_SIGNAL_ALL in `flags` to
/// every process in it.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_UNSUPPORTED,
/// LOCULE_E_STATE if it is stopped, LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_signal(
    container: *mut locule_container,
    signal: c_int,
    flags: u64,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            check_flags(flags, LOCULE_SIGNAL_ALL, "flags")?;
            target(container)?.signal(signal, flags & LOCULE_SIGNAL_ALL != 0).map(|()| 0)
        })
    }
}

/// Freezes every process of the container. Needs a cgroup with a freezer.
///
/// Any thread. Blocks until all are frozen. Fails with LOCULE_E_INVALID, LOCULE_E_STATE,
/// LOCULE_E_UNSUPPORTED, LOCULE_E_PERMISSION, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_pause(
    container: *mut locule_container,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe { fallible(err, || target(container)?.pause().map(|()| 0)) }
}

/// Thaws what locule_container_pause froze.
///
/// Any thread. Blocks until all are thawed. Fails like locule_container_pause. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_resume(
    container: *mut locule_container,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe { fallible(err, || target(container)?.resume().map(|()| 0)) }
}

/// Changes the container's resource limits: `json` is `len` bytes of a `linux.resources`
/// object as in config.json; what is absent stays as it is.
///
/// Any thread. Does not block, but for systemd's answer with LOCULE_CGROUPS_SYSTEMD. Fails with
/// LOCULE_E_INVALID, LOCULE_E_SPEC, LOCULE_E_STATE, LOCULE_E_UNSUPPORTED, LOCULE_E_PERMISSION,
/// LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_update_json(
    container: *mut locule_container,
    json: *const c_void,
    len: usize,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe { fallible(err, || target(container)?.update(bytes(json, len, "json")?).map(|()| 0)) }
}

/// Has locule_runtime_dispatch of the container's runtime tell, from now on, when this happens,
/// until the container is gone or the host has given back its last reference to this handle.
/// What is watched for already is not told twice.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_NOT_FOUND,
/// LOCULE_E_UNSUPPORTED, LOCULE_E_PERMISSION, LOCULE_E_RESOURCE, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_watch(
    container: *mut locule_container,
    opts: *const locule_watch_opts,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let container = target(container)?;
            container.watch(options::read(opts, "opts")?.convert()?).map(|()| 0)
        })
    }
}

/// Stores in *out what the container uses, as a JSON object. The caller frees it with
/// locule_buf_free.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_STATE,
/// LOCULE_E_UNSUPPORTED, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_stats_json(
    container: *mut locule_container,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            let stats = target(container)?.stats()?;
            *out = json_buf(&serde_json::json!(stats));
            Ok(0)
        })
    }
}

/// Stores in *out a JSON array of the pids of every process in the container, as the calling
/// process sees them. The caller frees it with locule_buf_free.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_STATE,
/// LOCULE_E_UNSUPPORTED, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_pids_json(
    container: *mut locule_container,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            *out = json_buf(&target(container)?.pids()?.into());
            Ok(0)
        })
    }
}

/// Stores in *out the state document (runtime-spec, runtime.md) as JSON, with runc's `rootfs`,
/// `created` and `owner`. The caller frees it with locule_buf_free.
///
/// Any thread. Does not block. Fails with LOCULE_E_INVALID, LOCULE_E_NOT_FOUND if the
/// container has been deleted, LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_state_json(
    container: *mut locule_container,
    out: *mut locule_buf,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            let out = buf::out(out)?;
            *out = json_buf(&target(container)?.state()?.document);
            Ok(0)
        })
    }
}

/// Deletes a container that is stopped or has never been started; with LOCULE_DELETE_FORCE in
/// `flags` in any state. The handle stays valid, for its id and to be given back.
///
/// Any thread. Blocks until all of it is gone. Fails with LOCULE_E_INVALID,
/// LOCULE_E_UNSUPPORTED, LOCULE_E_STATE if it runs, LOCULE_E_NOT_FOUND, LOCULE_E_BUSY,
/// LOCULE_E_SYSTEM. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_delete(
    container: *mut locule_container,
    flags: u64,
    err: *mut *mut locule_error,
) -> c_int {
    // SAFETY: the caller's pointers are as the header asks.
    unsafe {
        fallible(err, || {
            check_flags(flags, LOCULE_DELETE_FORCE, "flags")?;
            target(container)?.delete(flags & LOCULE_DELETE_FORCE != 0).map(|()| 0)
        })
    }
}

/// Takes another reference and returns the container. NULL gives NULL.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_ref(
    container: *mut locule_container,
) -> *mut locule_container {
    // SAFETY: NULL or a live handle, as the header asks.
    unsafe { handle::acquire(container) }
}

/// Gives a reference back; the last one frees the handle. The container itself goes on: see
/// locule_container_delete and LOCULE_CREATE_DETACH. NULL is ignored.
///
/// Any thread. Does not block. Since 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn locule_container_unref(container: *mut locule_container) {
    // SAFETY: NULL or a reference that the caller owns, as the header asks.
    infallible((), || unsafe { handle::release(container) });
}

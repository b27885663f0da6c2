//! Loading a device program and attaching it to a cgroup, with the raw `bpf(2)`.
//!
//! An attached program belongs to the cgroup and goes away with it, whoever closes what.
//! RLIMIT_MEMLOCK plays no part: programs count against the memory cgroup since Linux 5.11, and
//! one of this size fits the default limit before.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::Rule;
use super::program::{Instruction, assemble};
use crate::error::{Error, Result, Stage};

const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_GET_FD_BY_ID: u32 = 13;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const PROG_QUERY: u32 = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// Marks our programs, so that an update finds its own among those of others.
const NAME: [u8; 16] = *b"locule_devices\0\0";

// The kernel takes the leading part of its big union, zero-filled by it where we are shorter.

#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
    padding: u32,
}

#[repr(C)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    attach_flags_each: u64,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    open_flags: u32,
    padding: u32,
}

#[repr(C)]
struct InfoByFd {
    program: u32,
    length: u32,
    info: u64,
}

/// The head of `struct bpf_prog_info`, up to and with the name.
#[repr(C)]
#[derive(Default)]
struct Info {
    before_name: [u64; 8],
    name: [u8; 16],
}

fn bpf<T>(command: u32, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: every `T` here is a plain repr(C) struct without padding bytes, given with its size;
    // each address in it is that of a live buffer of the length given beside it, for this call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: called with a descriptor that bpf(2) has just opened (O_CLOEXEC) and nobody owns.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The program loaded last. The verifier takes four times as long as all the rest of a
/// version 2 cgroup, and most containers have the same rules.
#[derive(Debug, Default)]
pub(in crate::cgroup) struct Cache(Mutex<Option<Loaded>>);

#[derive(Debug)]
struct Loaded {
    rules: Vec<Rule>,
    program: Arc<OwnedFd>,
}

impl Cache {
    fn program(&self, rules: &[Rule]) -> io::Result<Arc<OwnedFd>> {
        // A panic elsewhere cannot leave the cache half written.
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = lock().as_ref().filter(|loaded| loaded.rules == rules) {
            return Ok(loaded.program.clone());
        }
        let program = Arc::new(load(&assemble(rules))?);
        *lock() = Some(Loaded { rules: rules.to_vec(), program: program.clone() });
        Ok(program)
    }
}

/// Puts the rules in force in place of those that [`apply`] put there before, in one step.
/// Programs of others stay.
pub(super) fn apply(directory: &Path, rules: &[Rule], fresh: bool, cache: &Cache) -> Result<()> {
    let fail = |step: &'static str| {
        move |error: io::Error| {
            let failed = Error::io(Stage::Cgroup, &error, format!("{step} the device rules (bpf)"));
            match error.raw_os_error() {
                Some(libc::EPERM) => {
                    failed.hint("this needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN")
                }
                _ => failed,
            }
        }
    };
    let cgroup = File::open(directory).map_err(fail("open the cgroup for"))?;
    let program = cache.program(rules).map_err(fail("load"))?;
    let former = if fresh { None } else { attached(&cgroup).map_err(fail("look for"))? };
    attach(&cgroup, &program, former.as_ref()).map_err(fail("attach"))
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut attributes = Load {
        program_type: TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: NAME,
    };
    let mut attempts = 0;
    loop {
        match bpf(PROG_LOAD, &mut attributes) {
            Ok(fd) => return Ok(own(fd)),
            // The verifier gives up when a signal is pending.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && attempts < 5 => {
                attempts += 1
            }
            Err(error) => return Err(error),
        }
    }
}

fn attach(cgroup: &File, program: &OwnedFd, former: Option<&OwnedFd>) -> io::Result<()> {
    let mut attributes = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | if former.is_some() { REPLACE } else { 0 },
        replaced: former.map_or(0, |former| former.as_raw_fd() as u32),
        padding: 0,
    };
    bpf(PROG_ATTACH, &mut attributes).map(drop)
}

/// Our program among those attached to the cgroup.
fn attached(cgroup: &File) -> io::Result<Option<OwnedFd>> {
    let mut ids = [0u32; 64];
    let mut query = Query {
        target: cgroup.as_raw_fd() as u32,
        kind: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        padding: 0,
        attach_flags_each: 0,
    };
    bpf(PROG_QUERY, &mut query)?;
    for id in &ids[..ids.len().min(query.count as usize)] {
        let mut by_id = ById { id: *id, next: 0, open_flags: 0, padding: 0 };
        let program = own(bpf(PROG_GET_FD_BY_ID, &mut by_id)?);
        if name(program.as_fd())? == NAME {
            return Ok(Some(program));
        }
    }
    Ok(None)
}

fn name(program: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    let mut info = Info::default();
    let mut by_fd = InfoByFd {
        program: program.as_raw_fd() as u32,
        length: size_of::<Info>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, &mut by_fd)?;
    Ok(info.name)
}

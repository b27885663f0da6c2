//! The smaller steps of a new process, each a few lines long.

use core::ffi::CStr;

use locule_plan::protocol::detail;
use locule_plan::{Numbers, Operation};

use crate::abi::*;
use crate::child::Child;
use crate::copy::device_number;
use crate::failure::{During, Error, Result};
use crate::path::{self, Links, Missing};
use crate::procfs;
use crate::system::{self, Errno, Fd, Raw, Sys};
use crate::text::{PATH_MAX, PathBuffer};

/// The offsets can be written until the first process is in, so: unshare, write, enter.
pub fn time_namespace(child: &mut Child, offsets: &CStr) -> Result {
    let proc = child.proc()?;
    system::unshare(CLONE_NEWTIME)?;
    if !offsets.is_empty() {
        procfs::write_own(proc, c"self/timens_offsets", offsets.to_bytes())?;
    }
    let namespace = system::openat(proc, c"self/ns/time_for_children", O_RDONLY, 0)?;
    Ok(system::setns(namespace.raw(), CLONE_NEWTIME)?)
}

/// A session keyring of its own, or the host's keys stay readable. It has no name, because a
/// process that makes one of the same name first could make this one join that.
pub fn keyring() -> Result {
    match system::new_session_keyring() {
        Ok(()) | Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

pub fn loopback_up() -> Result {
    let socket =
        system::socket(AF_INET, SOCK_DGRAM).or_else(|_| system::socket(AF_UNIX, SOCK_DGRAM))?;
    let mut request = InterfaceRequest { name: [0; 16], flags: 0, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    system::ioctl(socket.raw(), SIOCGIFFLAGS, &mut request)?;
    request.flags |= IFF_UP;
    system::ioctl(socket.raw(), SIOCSIFFLAGS, &mut request)?;
    Ok(())
}

pub fn directory(child: &mut Child, path: &CStr, mode: u32) -> Result {
    path::ensure(child.root()?, path, Missing::Directory(mode), Links::Follow)
        .during(detail::TARGET)?;
    Ok(())
}

pub fn symlink(child: &mut Child, path: &'static CStr, target: &CStr) -> Result {
    let root = child.root()?;
    let (directory, name) = path::parent(root, path, &mut child.parent).during(detail::TARGET)?;
    match system::symlinkat(target, directory.raw(), name) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

pub fn sysctl(child: &mut Child, name: &CStr, value: &CStr) -> Result {
    let proc = child.proc()?;
    if name.to_bytes().split(|&byte| byte == b'/').any(|part| part == b"..") {
        return Err(Errno::EINVAL.into());
    }
    let path = PathBuffer::<512>::of(&[b"sys/", name.to_bytes()])?;
    let file = procfs::open(proc, path.as_cstr(), O_WRONLY, RESOLVE_NO_SYMLINKS)?;
    system::write(file.raw(), value.to_bytes())?;
    Ok(())
}

pub fn oom_score(child: &mut Child, value: i32) -> Result {
    let mut text = PathBuffer::<16>::new();
    text.push_signed(value)?;
    Ok(procfs::write_own(child.proc()?, c"self/oom_score_adj", text.as_bytes())?)
}

/// The label of the program to come.
pub fn label(child: &mut Child, kind: u32, label: &CStr) -> Result {
    let proc = child.proc()?;
    if kind == 1 {
        return Ok(procfs::write_own(proc, c"self/attr/exec", label.to_bytes())?);
    }
    let text = PathBuffer::<PATH_MAX>::of(&[b"exec ", label.to_bytes()])?;
    // With several security modules in one kernel the old file may be another's.
    match procfs::write_own(proc, c"self/attr/apparmor/exec", text.as_bytes()) {
        Err(Errno::ENOENT) => Ok(procfs::write_own(proc, c"self/attr/exec", text.as_bytes())?),
        result => Ok(result?),
    }
}

pub fn seccomp(flags: u64, program: &[u8]) -> Result {
    let len = u16::try_from(program.len() / 8).map_err(|_| Errno::E2BIG)?;
    system::seccomp(flags, &SockFprog { len, filter: program.as_ptr() })?;
    Ok(())
}

pub fn personality(persona: u64) -> Result {
    system::personality(persona)?;
    Ok(())
}

pub fn scheduler(operation: &Operation<'_>) -> Result {
    let Operation::Scheduler { policy, flags, nice, priority, runtime, deadline, period } =
        *operation
    else {
        return Ok(());
    };
    let size = size_of::<SchedAttr>() as u32;
    Ok(system::sched_setattr(&SchedAttr {
        size,
        policy,
        flags,
        nice,
        priority,
        runtime,
        deadline,
        period,
    })?)
}

pub fn affinity(mask: Numbers<'_>) -> Result {
    let mut bytes = [0u8; 1024];
    fill(&mut bytes, mask);
    Ok(system::set_affinity(&bytes)?)
}

pub fn memory_policy(policy: u32, nodes: Numbers<'_>) -> Result {
    // As many nodes as a kernel can be built for.
    let mut bytes = [0u8; 1024 / 8];
    fill(&mut bytes, nodes);
    Ok(system::set_memory_policy(policy, &bytes)?)
}

fn fill(mask: &mut [u8], numbers: Numbers<'_>) {
    for (place, number) in mask.chunks_exact_mut(4).zip(numbers.iter()) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}

/// Puts the container's null device in the place of the host's: through a descriptor of that
/// one the container's root could change the mode and the owner of a file of the host.
pub fn own_null(child: &mut Child) -> Result {
    let slash = system::openat(AT_FDCWD, c"/", O_PATH | O_DIRECTORY, 0)?;
    let flags = O_RDWR | O_NOFOLLOW | O_NOCTTY;
    let null = match path::open_file(slash.raw(), c"/dev/null", flags, 0) {
        Ok(null) if is_null(null.raw()) => null,
        // The image may have anything there, and the container may have taken it away.
        _ => match new_null() {
            // In a user namespace, which has no power over the host's.
            Err(Errno::EPERM) => return Ok(()),
            null => null?,
        },
    };
    for stream in (0..3).filter(|&stream| is_null(stream)) {
        system::duplicate_to(null.raw(), stream, 0)?;
    }
    child.replace_hook_null(&null)
}

fn is_null(fd: Raw) -> bool {
    system::stat(fd).is_ok_and(|stat| stat.is_device(1, 3))
}

/// A null device that is mounted nowhere.
fn new_null() -> Sys<Fd> {
    let fs = system::fsopen(c"tmpfs")?;
    system::fsconfig_create(fs.raw())?;
    let mount = system::fsmount(fs.raw(), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC)?;
    system::mknodat(mount.raw(), c"null", S_IFCHR | 0o666, device_number(1, 3))?;
    system::openat(mount.raw(), c"null", O_RDWR | O_NOFOLLOW | O_NOCTTY, 0)
}

/// Changes to a directory and makes sure that it is one of the container's: a symlink in
/// the image to a descriptor of ours could have led anywhere (CVE-2024-21626).
pub fn working_directory(path: &CStr) -> Result {
    system::chdir(path)?;
    let mut buffer = [0u8; PATH_MAX];
    match system::getcwd(&mut buffer) {
        Ok(_) if buffer[0] == b'/' => Ok(()),
        Err(errno) if errno != Errno::ENOENT => Err(errno.into()),
        _ => Err(Error::new(detail::OUTSIDE_ROOT, Errno::ENOENT)),
    }
}

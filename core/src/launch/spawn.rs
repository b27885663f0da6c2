//! The trampoline: from a host thread to a running keeper without a fork.
//!
//! `fork` would copy page tables (its cost grows with the host) and run the child on a copy
//! of locks that other threads may hold. So the child is created with `CLONE_VM | CLONE_VFORK`
//! on a stack of its own and only issues raw system calls until it executes the keeper.
//! In between, the calling thread is suspended and all its signals are blocked, because a
//! handler that ran in the child would write to the host's memory.
//!
//! [`Relation::Silent`] uses two such steps: an intermediate process, created with exit
//! signal 0 and waited for by its own pidfd, creates the keeper and exits. The host never gets
//! a SIGCHLD, and a foreign `waitpid(-1)` finds nothing.
//!
//! What runs in the children must not allocate, panic, touch thread-local storage (errno) or
//! call libc.

use std::arch::asm;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use locule_plan::protocol::KEEPER_SOCKET;

/// How the keeper stands to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    /// No relation: pid 1 or the nearest subreaper becomes its parent.
    Silent,
    /// A child of the host.
    Child,
}

/// What the host has to collect of a keeper that it has spawned, by its pidfd.
#[derive(Debug, Default)]
pub(crate) struct Spawned {
    /// The keeper's pid.
    pub pid: i32,
    /// The keeper, a child in the `Child` relation.
    pub child: Option<OwnedFd>,
    /// The keeper, which falls to this process in the `Silent` relation because it is the pid 1
    /// or the subreaper to which all orphans around it fall.
    pub adopted: Option<OwnedFd>,
}

/// Whether orphans of this process's children become its own children.
fn adopts_orphans() -> bool {
    let mut subreaper: libc::c_int = 0;
    // SAFETY: an integer to write to.
    unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut subreaper) };
    subreaper != 0 || std::process::id() == 1
}

/// Executes the keeper in `image` with `socket` as its descriptor 3.
///
/// `capabilities` are raised into the ambient set on the way, because executing a file drops
/// them for a host that has its own from file capabilities; 0 where it is root.
pub(crate) fn spawn(
    image: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    relation: Relation,
    capabilities: u64,
    pool: &StackPool,
) -> io::Result<Spawned> {
    let stacks = pool.take()?;
    let argv = [c"locule: keeper".as_ptr(), ptr::null()];
    let envp = [ptr::null()];
    let mut task = Task {
        image: image.as_raw_fd(),
        socket: socket.as_raw_fd(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        capabilities,
        inner_stack: stacks.top(1),
        keeper: 0,
        error: 0,
    };
    let entry = match relation {
        Relation::Silent => intermediate,
        Relation::Child => execute,
    };

    let all: u64 = !0;
    let mut previous: u64 = 0;
    let mut pidfd: i32 = -1;
    // SAFETY: both masks are valid for 8 bytes, the kernel's sigset size. The raw call also
    // blocks the two signals that libc reserves for itself.
    unsafe { mask_signals(&all, &mut previous) };
    // SAFETY: the child runs `entry` on a stack that outlives it (CLONE_VFORK: this thread
    // resumes only once the child has executed the keeper or exited); `task` likewise.
    let pid = unsafe {
        vfork_on_stack(
            (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64,
            stacks.top(0),
            &mut pidfd,
            entry,
            &mut task,
        )
    };
    // SAFETY: as above.
    unsafe { mask_signals(&previous, ptr::null_mut()) };
    // SAFETY: `task` is initialised; the children that may have written to it are done.
    let (error, keeper) =
        unsafe { (ptr::read_volatile(&task.error), ptr::read_volatile(&task.keeper)) };
    // A keeper whose creator was killed may still be on its stack; then it goes with the stack.
    if relation == Relation::Child || keeper != 0 {
        pool.put_back(stacks);
    }

    if pid < 0 {
        return Err(io::Error::from_raw_os_error(-pid as i32));
    }
    // SAFETY: the kernel has just put a new descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    if relation == Relation::Silent || error != 0 {
        reap(&pidfd);
    }
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    if relation == Relation::Child {
        return Ok(Spawned { pid: pid as i32, child: Some(pidfd), adopted: None });
    }
    // One that has fallen to this process keeps its pid until it is collected.
    let adopted = adopts_orphans().then(|| pidfd_of(keeper).ok()).flatten();
    Ok(Spawned { pid: keeper, child: None, adopted })
}

pub(super) fn pidfd_of(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Collects a process that only its pidfd may collect, whatever its exit signal.
pub(crate) fn reap(pidfd: &OwnedFd) {
    collect(pidfd, 0);
}

/// The same if it has ended already.
pub(crate) fn reap_if_ended(pidfd: &OwnedFd) {
    collect(pidfd, libc::WNOHANG);
}

fn collect(pidfd: &OwnedFd, options: libc::c_int) {
    loop {
        // SAFETY: a null `siginfo` is allowed. `__WALL` is needed for exit signal 0.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_raw_fd(),
                ptr::null_mut::<libc::siginfo_t>(),
                libc::WEXITED | libc::__WALL | options,
                ptr::null_mut::<libc::rusage>(),
            )
        };
        if rc == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// What the two children need; lives on the suspended host thread's stack.
struct Task {
    image: i32,
    socket: i32,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    capabilities: u64,
    inner_stack: *mut u8,
    keeper: i32,
    error: i32,
}

/// Stacks that are not in use. Unmapping them after each start would interrupt every processor
/// that runs another thread of the host.
#[derive(Default)]
pub(crate) struct StackPool(Mutex<Vec<Stacks>>);

impl StackPool {
    fn take(&self) -> io::Result<Stacks> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.map_or_else(Stacks::new, Ok)
    }

    fn put_back(&self, stacks: Stacks) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(stacks);
    }
}

/// Two small stacks with a guard page below each.
struct Stacks(*mut u8);

// SAFETY: memory that no thread has a special relation to.
unsafe impl Send for Stacks {}

impl Stacks {
    const GUARD: usize = 64 * 1024; // a page on every aarch64 page size
    const USABLE: usize = 64 * 1024;
    const SIZE: usize = 2 * (Self::GUARD + Self::USABLE);

    fn new() -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::SIZE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stacks = Stacks(base.cast());
        for index in 0..2 {
            // SAFETY: the range lies within the mapping.
            let usable = unsafe { stacks.top(index).sub(Self::USABLE) };
            // SAFETY: as above; nobody uses it yet.
            if unsafe {
                libc::mprotect(usable.cast(), Self::USABLE, libc::PROT_READ | libc::PROT_WRITE)
            } != 0
            {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(stacks)
    }

    fn top(&self, index: usize) -> *mut u8 {
        // SAFETY: `index` is 0 or 1, so this is within or one past the mapping.
        unsafe { self.0.add((index + 1) * (Self::GUARD + Self::USABLE)) }
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        // SAFETY: nobody runs on the stacks any more: both children have left the memory.
        unsafe { libc::munmap(self.0.cast(), Self::SIZE) };
    }
}

/// First child in the silent relation: creates the keeper and exits.
extern "C" fn intermediate(task: *mut Task) -> ! {
    // SAFETY: `task` outlives this process's stay in the memory; see `spawn`.
    unsafe {
        let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64;
        let pid = vfork_on_stack(flags, (*task).inner_stack, ptr::null_mut(), execute, task);
        ptr::write_volatile(&raw mut (*task).keeper, pid as i32);
        if pid < 0 {
            ptr::write_volatile(&raw mut (*task).error, -pid as i32);
        } else if ptr::read_volatile(&raw const (*task).error) != 0 {
            // It did not become a keeper; nobody else may see it die.
            raw(libc::SYS_wait4, [pid as usize, 0, libc::__WALL as usize, 0, 0]);
        }
        exit(0)
    }
}

/// Last child: becomes the keeper.
extern "C" fn execute(task: *mut Task) -> ! {
    const EMPTY: &CStr = c"";
    // SAFETY: `task` outlives this process's stay in the memory; see `spawn`. The descriptors
    // are this process's own copies (no CLONE_FILES).
    unsafe {
        let mut image = (*task).image;
        if image == KEEPER_SOCKET {
            // To any other number: the host may be allowed few.
            let copy = raw(
                libc::SYS_fcntl,
                [image as usize, libc::F_DUPFD_CLOEXEC as usize, KEEPER_SOCKET as usize + 1, 0, 0],
            );
            fail_if_negative(task, copy);
            image = copy as i32;
        }
        let moved = if (*task).socket == KEEPER_SOCKET {
            raw(libc::SYS_fcntl, [KEEPER_SOCKET as usize, libc::F_SETFD as usize, 0, 0, 0])
        } else {
            raw(libc::SYS_dup3, [(*task).socket as usize, KEEPER_SOCKET as usize, 0, 0, 0])
        };
        fail_if_negative(task, moved);
        if (*task).capabilities != 0 {
            raise_ambient(task);
        }
        let (argv, envp) = ((*task).argv as usize, (*task).envp as usize);
        let flags = libc::AT_EMPTY_PATH as usize;
        let mut result =
            raw(libc::SYS_execveat, [image as usize, EMPTY.as_ptr() as usize, argv, envp, flags]);
        if matches!(-result as i32, libc::ENOSYS | libc::EPERM) {
            // A sandbox that only knows the older call; this one needs /proc.
            let path = descriptor_path(image as u32);
            result = raw(libc::SYS_execve, [path.as_ptr() as usize, argv, envp, 0, 0]);
        }
        fail_if_negative(task, result);
        exit(127)
    }
}

/// `/proc/self/fd/N`, ending in NUL.
fn descriptor_path(fd: u32) -> [u8; 32] {
    let mut path = *b"/proc/self/fd/\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let mut digits = 1;
    while digits < 10 && fd / 10u32.pow(digits) > 0 {
        digits += 1;
    }
    for (place, power) in path[14..].iter_mut().zip((0..digits).rev()) {
        *place = b'0' + (fd / 10u32.pow(power) % 10) as u8;
    }
    path
}

/// Makes the capabilities survive the exec, in this process only.
unsafe fn raise_ambient(task: *mut Task) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    // effective, permitted, inheritable: low words, then high words
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: both structures have the layout that version 3 of the call expects.
    unsafe {
        let arguments = [&raw const header as usize, &raw mut sets as usize, 0, 0, 0];
        fail_if_negative(task, raw(libc::SYS_capget, arguments));
        let wanted = [(*task).capabilities as u32, ((*task).capabilities >> 32) as u32];
        for (set, wanted) in sets.iter_mut().zip(wanted) {
            set[2] |= wanted & set[1];
        }
        fail_if_negative(task, raw(libc::SYS_capset, arguments));
        let mut capability = 0;
        while capability < 64 {
            if (*task).capabilities & (1 << capability) != 0 {
                let raise = libc::PR_CAP_AMBIENT_RAISE as usize;
                let arguments = [libc::PR_CAP_AMBIENT as usize, raise, capability, 0, 0];
                fail_if_negative(task, raw(libc::SYS_prctl, arguments));
            }
            capability += 1;
        }
    }
}

unsafe fn fail_if_negative(task: *mut Task, result: isize) {
    if result < 0 {
        // SAFETY: `task` is valid; see `spawn`.
        unsafe {
            ptr::write_volatile(&raw mut (*task).error, -result as i32);
            exit(127)
        }
    }
}

unsafe fn exit(code: usize) -> ! {
    loop {
        // SAFETY: ends the process.
        unsafe { raw(libc::SYS_exit_group, [code, 0, 0, 0, 0]) };
    }
}

unsafe fn mask_signals(new: *const u64, old: *mut u64) {
    const SIGSET_SIZE: usize = 8;
    let arguments = [libc::SIG_SETMASK as usize, new as usize, old as usize, SIGSET_SIZE, 0];
    // SAFETY: the caller vouches for the pointers.
    unsafe { raw(libc::SYS_rt_sigprocmask, arguments) };
}

/// A system call that leaves errno alone: thread-local storage belongs to the host's thread.
#[inline(always)]
unsafe fn raw(number: libc::c_long, a: [usize; 5]) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller vouches for the call itself.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        )
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the caller vouches for the call itself.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a[0] as isize => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4],
            options(nostack),
        )
    };
    result
}

/// `clone` in assembly, because the child comes back on another stack and must not return.
#[inline(never)]
unsafe fn vfork_on_stack(
    flags: u64,
    stack_top: *mut u8,
    pidfd: *mut i32,
    entry: extern "C" fn(*mut Task) -> !,
    task: *mut Task,
) -> isize {
    let result: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the child never leaves `entry`; the parent sees an ordinary system call, after
    // which only memory may have changed.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone as isize => result,
            in("rdi") flags, in("rsi") stack_top, in("rdx") pidfd, in("r10") 0, in("r8") 0,
            in("r12") task, in("r13") entry,
            lateout("rcx") _, lateout("r11") _,
        )
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x20",
            "blr x21",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone,
            inlateout("x0") flags as isize => result,
            in("x1") stack_top, in("x2") pidfd, in("x3") 0, in("x4") 0,
            in("x20") task, in("x21") entry,
        )
    };
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    /// `cat` writes what it reads on descriptor 0 only; a shell script shows descriptor 3.
    #[test]
    fn the_executed_file_gets_the_socket_and_the_host_gets_no_child() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let image = File::open("/bin/sh").unwrap();
        // `sh` with argv[0] alone reads commands from its standard input, which is /dev/null
        // or closed under the test runner, and exits; the socket then reads end of file.
        spawn(image.as_fd(), there.as_fd(), Relation::Silent, 0, &StackPool::default()).unwrap();
        drop(there);
        let mut rest = Vec::new();
        here.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }

    #[test]
    fn a_descriptor_has_a_path() {
        for fd in [0, 9, 10, 123, 1_048_576, u32::MAX] {
            let path = descriptor_path(fd);
            let path = CStr::from_bytes_until_nul(&path).unwrap();
            assert_eq!(path.to_str().unwrap(), format!("/proc/self/fd/{fd}"));
        }
    }

    #[test]
    fn a_file_that_cannot_be_executed_gives_its_errno() {
        let (_here, there) = UnixStream::pair().unwrap();
        let image = File::open("/etc/passwd").unwrap();
        for relation in [Relation::Silent, Relation::Child] {
            let pool = StackPool::default();
            let error = spawn(image.as_fd(), there.as_fd(), relation, 0, &pool).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        }
    }
}

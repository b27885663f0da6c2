//! Helper programs: hooks, and the setuid writers of id maps. They are waited for with a
//! deadline, and while one runs, the end of whoever wants the result ends it too.

use core::ffi::CStr;

use locule_plan::protocol::{Text, detail};
use locule_plan::{List, Operation};

use crate::abi::*;
use crate::failure::{During, Error, Result};
use crate::process::{Interrupts, wait_status};
use crate::system::{self, Errno, Fd, Raw};
use crate::text::{PATH_MAX, PathBuffer};
use crate::{program, settings};

const ID_MAPPER_TIMEOUT: u64 = 10_000;

/// How much a helper can write to its standard error; more fails.
const ERROR_SIZE: usize = 64 * 1024;

/// Where a hook is run.
pub struct Place<'a> {
    /// A null device.
    pub null: Raw,
    /// Its working directory, if not `/`.
    pub directory: Option<Raw>,
    /// The filter of system calls that it is below: flags and program.
    pub filter: Option<(u64, &'a [u8])>,
}

impl Place<'_> {
    /// In the keeper.
    pub const HOST: Place<'static> = Place { null: 1, directory: None, filter: None };
}

/// What a helper is given beside its arguments.
struct Start<'a> {
    path: &'a CStr,
    /// Null-terminated, as `execve` takes them.
    args: &'a [*const u8],
    env: &'a [*const u8],
    stdin: Option<Raw>,
    place: &'a Place<'a>,
}

/// Runs a hook. `pid` is the container's as this process knows it.
pub fn run(
    operation: &Operation<'_>,
    pid: i32,
    place: &Place<'_>,
    interrupts: &Interrupts,
) -> Result {
    let Operation::Hook { path, args, env, timeout, state_head, state_tail } = *operation else {
        return Ok(());
    };
    // A file instead of a pipe: the state is there in whole before the hook starts, however
    // long it is, and a hook that does not read it breaks nothing.
    let state = system::memfd(c"state")?;
    let mut number = PathBuffer::<16>::new();
    number.push_number(pid as u64)?;
    system::write_all(state.raw(), state_head.to_bytes())?;
    if !state_tail.is_empty() {
        system::write_all(state.raw(), number.as_bytes())?;
        system::write_all(state.raw(), state_tail.to_bytes())?;
    }
    system::rewind(state.raw())?;
    let mut argv = system::allocate::<*const u8>(args.len() + 1)?;
    for (place, text) in argv.iter_mut().zip(args.iter()) {
        *place = text.as_ptr().cast();
    }
    let mut home = PathBuffer::<PATH_MAX>::new();
    let envp = program::environment(env, env.iter().any(|entry| entry == c"HOME="), &mut home)?;
    let start = Start { path, args: &argv, env: &envp, stdin: Some(state.raw()), place };
    let deadline = if timeout == 0 { None } else { Some(timeout) };
    wait_for(&start, deadline, interrupts)
}

/// Runs `program PID args...`.
pub fn map_ids(
    program: &CStr,
    pid: i32,
    args: List<'_>,
    interrupts: &Interrupts,
) -> Result {
    let mut number = PathBuffer::<16>::new();
    number.push_number(pid as u64)?;
    let mut argv = system::allocate::<*const u8>(args.len() + 3)?;
    argv[0] = program.as_ptr().cast();
    argv[1] = number.as_cstr().as_ptr().cast();
    for (place, text) in argv[2..].iter_mut().zip(args.iter()) {
        *place = text.as_ptr().cast();
    }
    let env = [core::ptr::null()];
    let start = Start { path: program, args: &argv, env: &env, stdin: None, place: &Place::HOST };
    wait_for(&start, Some(ID_MAPPER_TIMEOUT), interrupts)
}

/// Starts the helper and waits until it has exited with 0.
fn wait_for(start: &Start<'_>, timeout: Option<u64>, interrupts: &Interrupts) -> Result {
    // A file here, too: a helper that leaves something running must not harm it by its own end.
    let said = system::memfd(c"stderr")?;
    system::bound(said.raw(), ERROR_SIZE)?;
    let mut pidfd = -1;
    let pid = system::clone(CLONE_PIDFD | SIGCHLD as u64, &mut pidfd).during(detail::CLONE)?;
    if pid == 0 {
        become_helper(start, said.raw());
    }
    let pidfd = Fd::new(pidfd).ok_or(Errno::EBADF)?;
    let deadline = timeout.map(|timeout| system::now().saturating_add(timeout));
    let ended = loop {
        let [host, reply] = interrupts.entries();
        let mut entries = [PollFd::readable(pidfd.raw()), host, reply];
        let left = deadline.map(|deadline| deadline.saturating_sub(system::now()));
        match system::poll(&mut entries, left.map(TimeSpec::from_milliseconds)) {
            Err(Errno::EINTR) => {}
            Err(errno) => break Err(Error::from(errno)),
            Ok(0) => break Err(Error::new(detail::TIMEOUT, Errno(0)).about(start.path.to_bytes())),
            Ok(_) if entries[0].revents != 0 => break Ok(()),
            Ok(_) => break Err(Errno::ECANCELED.into()),
        }
    };
    if ended.is_err() {
        let _ = system::pidfd_send_signal(pidfd.raw(), SIGKILL);
        // And what it has started: a script waits for its commands.
        let _ = system::kill(-pid, SIGKILL);
    }
    let status = wait_status(&system::waitid(pidfd.raw(), WEXITED)?);
    ended?;
    if status != 0 {
        // 127 is what a helper ends with that could not be executed, and what shells say of a
        // command: the file itself tells which.
        if status == 127 << 8
            && let Err(errno) = program::executable(start.path)
        {
            return Err(Error::from(errno).about(start.path.to_bytes()));
        }
        return Err(Error::new(detail::EXIT_STATUS, Errno(status)).about(&complaint(start, &said)));
    }
    Ok(())
}

/// The helper's path, and after a zero the beginning of what it said, as far as there is room.
fn complaint(start: &Start<'_>, said: &Fd) -> [u8; Text::CAPACITY] {
    let mut text = [0; Text::CAPACITY];
    let path = start.path.to_bytes();
    let path = &path[..path.len().min(Text::CAPACITY - 1)];
    text[..path.len()].copy_from_slice(path);
    if system::rewind(said.raw()).is_ok() {
        let _ = system::read(said.raw(), &mut text[path.len() + 1..]);
    }
    text
}

fn become_helper(start: &Start<'_>, error: Raw) -> ! {
    let place = start.place;
    let _ = system::prctl(PR_SET_PDEATHSIG, SIGKILL as usize, 0);
    // A process group of its own, to be killed as one.
    let _ = system::setpgid();
    if let Some(directory) = place.directory {
        let _ = system::fchdir(directory);
    }
    let _ = system::duplicate_to(start.stdin.unwrap_or(place.null), 0, 0);
    let _ = system::duplicate_to(place.null, 1, 0);
    let _ = system::duplicate_to(error, 2, 0);
    crate::reset::close_from(3);
    system::umask(0o022);
    let _ = crate::descriptors::restore();
    if let Some((flags, filter)) = place.filter
        && settings::seccomp(flags, filter).is_err()
    {
        system::exit(127);
    }
    let _ = system::execve(start.path, start.args.as_ptr(), start.env.as_ptr());
    system::exit(127)
}

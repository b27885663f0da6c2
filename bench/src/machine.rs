//! What the numbers depend on: the machine, and the versions of the others.

use std::io;
use std::process::Command;

use crate::Result;

/// One line about the machine.
pub fn describe() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    let count = std::thread::available_parallelism().map_or(0, usize::from);
    format!("Linux {}, {count} x {model}, load {load} at the start", kernel.trim())
}

/// Name and version of a program, from the first line of its `--version`.
pub fn version(program: &str) -> Result<String> {
    let output = Command::new(program).arg("--version").output().map_err(|error| {
        format!("{program}: {error} (apt-get install --no-install-recommends runc crun)")
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().replace(" version", ""))
}

/// crun raises RLIMIT_MEMLOCK before it loads a device filter and gives up when it may not.
/// Since Linux 5.11 the limit has no effect on that, so where this process may not raise it
/// either, a seccomp filter answers the call with success: for every contender, so that all pay
/// the same for the filter. Whether it was needed.
pub fn let_everybody_raise_the_memlock_limit() -> io::Result<bool> {
    let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the structure lives through the call.
    if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all) } == 0 {
        return Ok(false);
    }
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// The lower half of an argument in `struct seccomp_data`, little endian.
    const fn argument(index: u32) -> u32 {
        16 + 8 * index
    }
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        op(LOAD, 0, 0, 0), // the number of the call
        op(EQUAL, 5, 0, libc::SYS_setrlimit as u32),
        op(EQUAL, 0, 6, libc::SYS_prlimit64 as u32),
        op(LOAD, 0, 0, argument(2)), // without a new limit it is a question: let it pass
        op(EQUAL, 4, 0, 0),
        op(LOAD, 0, 0, argument(1)),
        op(JUMP, 0, 0, 1),
        op(LOAD, 0, 0, argument(0)),
        op(EQUAL, 1, 0, libc::RLIMIT_MEMLOCK),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO), // errno 0: success
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program lives through the call.
    let rc =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if rc == 0 { Ok(true) } else { Err(io::Error::last_os_error()) }
}

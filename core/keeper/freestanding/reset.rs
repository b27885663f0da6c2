//! What a keeper inherits from a host it knows nothing about, and what it makes of it.
//! The container's processes inherit the result. `oom_score_adj` and the other resource limits
//! stay: the plan sets them, and raising them again could be impossible.

use crate::abi::*;
use crate::{descriptors, system};

/// Brings the process into a known state.
pub fn inherited() {
    // Capabilities the host passed through exec; the permitted set has them as well.
    let _ = system::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0);
    // exec keeps ignored signals ignored, and a host that ignores SIGPIPE would pass that
    // on to every program in the container.
    for signal in 1..=64 {
        system::default_action(signal);
    }
    close_from(4);
    descriptors::raise();
    standard_descriptors();
    let _ = system::setsid();
    let _ = system::chdir(c"/");
    system::umask(0);
    let _ = system::set_affinity(&[0xff; 1024]);
    let _ = system::set_normal_scheduling();
    let _ = system::set_nice(0);
    let _ = system::ioprio_set(0);
    let _ = system::prctl(PR_SET_TIMERSLACK, 0, 0);
    system::default_memory_policy();
    system::set_name(c"locule-keeper");
    // Whoever can read a root keeper's memory could be in a container it has joined.
    if system::geteuid() == 0 {
        let _ = system::prctl(PR_SET_DUMPABLE, 0, 0);
    }
    system::unblock_signals();
}

/// Closes all descriptors from `first` on.
pub fn close_from(first: u32) {
    if system::close_range(first, u32::MAX, 0).is_err() {
        for fd in first..65536 {
            system::close(fd as i32);
        }
    }
}

/// Points 0 to 2 at the null device. Where there is none they are occupied all the same, or
/// later descriptors would land there and be taken for standard input.
fn standard_descriptors() {
    let null = system::openat(AT_FDCWD, c"/dev/null", O_RDWR, 0)
        .or_else(|_| system::openat(AT_FDCWD, c"/", O_PATH, 0));
    if let Ok(null) = null {
        for target in 0..3 {
            let _ = system::duplicate_to(null.raw(), target, 0);
        }
        // It may have taken one of the three numbers itself.
        if null.raw() < 3 {
            null.into_raw();
        }
    }
}

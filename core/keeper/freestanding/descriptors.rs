//! How many descriptors a process may have.
//!
//! A keeper needs as many as it has processes and connections, whatever soft limit the host
//! has. And a new process needs some while it is set up, more than its program may be
//! allowed. So both have what the hard limit allows; programs get theirs at the last moment.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use locule_plan::{Document, Operation, Stream};

use crate::abi::RLIMIT_NOFILE;
use crate::system::{self, Sys};

static SOFT: AtomicU64 = AtomicU64::new(0);
static HARD: AtomicU64 = AtomicU64::new(0);

/// Raises this process's soft limit, and remembers what it was.
pub fn raise() {
    if let Ok([soft, hard]) = system::limit(RLIMIT_NOFILE) {
        SOFT.store(soft, Relaxed);
        HARD.store(hard, Relaxed);
        let _ = system::prlimit(0, RLIMIT_NOFILE, &[hard, hard]);
    }
}

/// Sets a limit of a process that is being set up; of this one it only raises the hard limit,
/// which may be impossible later.
pub fn limit(pid: i32, resource: u32, soft: u64, hard: u64) -> Sys {
    if resource != RLIMIT_NOFILE {
        return system::prlimit(pid, resource, &[soft, hard]);
    }
    if hard > HARD.load(Relaxed) { system::prlimit(pid, resource, &[hard, hard]) } else { Ok(()) }
}

/// Gives this process what its plan says, or else what the host had.
pub fn settle(plan: &Document<'_>) -> Sys {
    let steps = plan.stream(Stream::Parent).chain(plan.stream(Stream::Child)).flatten();
    let planned = steps.filter_map(|step| match step.operation {
        Operation::ResourceLimit { resource: RLIMIT_NOFILE, soft, hard } => Some([soft, hard]),
        _ => None,
    });
    match planned.last() {
        Some(limit) => system::prlimit(0, RLIMIT_NOFILE, &limit),
        None => restore(),
    }
}

/// Gives this process what the host had.
pub fn restore() -> Sys {
    match [SOFT.load(Relaxed), HARD.load(Relaxed)] {
        [_, 0] => Ok(()),
        limit => system::prlimit(0, RLIMIT_NOFILE, &limit),
    }
}

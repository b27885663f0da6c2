//! Seccomp profiles to BPF programs, compiled once per profile.
//!
//! Nothing here installs a filter: the keeper does that, in the container. The one trace that
//! compiling leaves in this process is inside libseccomp, which asks the kernel what it can do
//! with a few `seccomp(2)` calls that are invalid on purpose and change nothing.

mod cache;
mod compile;
mod profile;
mod unknown;

pub use cache::Cache;
pub use compile::{ACTIONS, FLAGS, OPERATORS, architectures, compile};
pub use profile::default_profile;

/// A compiled profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// An array of the kernel's `struct sock_filter`, eight bytes each.
    pub bpf: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*` for `seccomp(2)`.
    pub flags: u64,
}

impl Program {
    /// Whether installing it gives a listener, to which calls of the program are notified.
    pub fn has_listener(&self) -> bool {
        self.flags & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0
    }
}

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;

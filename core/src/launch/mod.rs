//! Starts keepers and speaks their protocol.
//!
//! Nothing here changes the host: no fork, no signal handler, no wait for a foreign child.

mod channel;
mod image;
mod memory_file;
mod spawn;

#[cfg(feature = "registry")]
pub(crate) use channel::poll_for;
pub(crate) use channel::{Channel, Deadline, Message, poll_readable, request};
pub(crate) use image::{Images, host_pidfd};
pub(crate) use memory_file::{Execution, memory_file};
pub(crate) use spawn::{Relation, reap, reap_if_ended};

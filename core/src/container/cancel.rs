//! A token that stops waiting calls.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::{Error, Result, Stage};

/// Stops waiting calls, from any thread. Cloning gives another handle to the same token. Once
/// cancelled it stays so.
#[derive(Debug, Clone)]
pub struct Cancel(Arc<EventFd>);

impl Cancel {
    /// A token that has not been cancelled.
    pub fn new() -> Result<Cancel> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_flags(flags)
            .map_err(|errno| Error::os(Stage::Arguments, errno as i32, "eventfd"))?;
        Ok(Cancel(Arc::new(event)))
    }

    /// Makes every call that was given this token return with category
    /// [`Cancelled`](crate::Category::Cancelled).
    pub fn cancel(&self) {
        // Nobody reads the counter; it can only overflow after 2^64 calls.
        let _ = self.0.write(1);
    }

    /// Readable once cancelled. Only to be polled.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

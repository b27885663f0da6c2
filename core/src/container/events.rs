//! One descriptor for everything a runtime's handles wait for.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::process::{self, Exit, Process};
use crate::{Error, Result, Stage};

/// Something that happened, from [`Runtime::dispatch`](crate::Runtime::dispatch).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A process that was created or opened through this runtime has ended.
    Exited {
        /// The container's id.
        container_id: String,
        /// The process.
        process: Process,
        /// How it ended.
        exit: Exit,
    },
}

#[derive(Debug)]
pub(super) struct Events {
    epoll: Epoll,
    watched: Mutex<Watched>,
}

/// Ready once, so that one exit is one event, however many threads dispatch.
fn interest(token: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, token)
}

#[derive(Debug, Default)]
struct Watched {
    next: u64,
    processes: HashMap<u64, Weak<process::Inner>>,
}

impl Events {
    pub(super) fn new() -> Result<Events> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|errno| Error::os(Stage::Arguments, errno as i32, "epoll_create1"))?;
        Ok(Events { epoll, watched: Mutex::default() })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a process until its exit has been dispatched or its last handle is dropped,
    /// which closes the descriptor and so takes it out of the epoll set.
    pub(super) fn watch(&self, process: &Process) -> Result<()> {
        let token = {
            let mut watched = self.watched();
            // Handles that were dropped leave their entries; sweep now and then.
            if watched.processes.len() >= 64 && watched.next % 64 == 0 {
                watched.processes.retain(|_, process| process.strong_count() > 0);
            }
            watched.next += 1;
            let token = watched.next;
            watched.processes.insert(token, Arc::downgrade(&process.0));
            token
        };
        self.epoll
            .add(process.exit_fd(), interest(token))
            .map_err(|errno| Error::os(Stage::Control, errno as i32, "epoll_ctl"))
    }

    pub(super) fn dispatch(
        &self,
        timeout: Option<Duration>,
        callback: &mut dyn FnMut(Event) -> Result<()>,
    ) -> Result<usize> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut given = 0;
        loop {
            let left = match until {
                _ if given > 0 => EpollTimeout::ZERO,
                None => EpollTimeout::NONE,
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    // Rounded up, or the last wait would spin.
                    EpollTimeout::try_from(left + Duration::from_micros(999))
                        .unwrap_or(EpollTimeout::MAX)
                }
            };
            // One at a time, so that an event which is not given stays in the set.
            let mut ready = [EpollEvent::empty(); 1];
            match self.epoll.wait(&mut ready, left) {
                Ok(0) => return Ok(given),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Error::os(Stage::Control, errno as i32, "epoll_wait")),
            }
            let token = ready[0].data();
            let process = self.watched().processes.get(&token).and_then(Weak::upgrade);
            let Some(process) = process.map(Process) else { continue };
            let Some(exit) = process.wait(Some(Duration::ZERO), None)? else {
                self.epoll
                    .modify(process.exit_fd(), &mut interest(token))
                    .map_err(|errno| Error::os(Stage::Control, errno as i32, "epoll_ctl"))?;
                continue;
            };
            self.watched().processes.remove(&token);
            given += 1;
            let container_id = process.container_id().to_owned();
            callback(Event::Exited { container_id, process, exit })?;
        }
    }
}

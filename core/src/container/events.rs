//! One descriptor for everything a runtime's handles wait for.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::process::{self, Exit, Process};
use crate::cgroup::{Happening, Trigger, Watch, Watcher};
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
    /// A container for which [`Watch::OutOfMemory`] is set ran out of memory. Given before the end
    /// of a process that comes of it. A unit of systemd goes with its last process, and what was
    /// not given by then is not given.
    OutOfMemory {
        /// The container's id.
        container_id: String,
        /// How many of its processes the kernel has killed for that by now. With cgroup v1 the
        /// kernel reports it before it kills.
        kills: u64,
    },
    /// The processes of a container had to wait longer than a [`Watch::Pressure`] allows.
    Pressure {
        /// The container's id.
        container_id: String,
        /// What was watched for.
        trigger: Trigger,
    },
}

#[derive(Debug)]
pub(super) struct Events {
    epoll: Epoll,
    watched: Mutex<Watched>,
}

/// Ready once, so that one thing is one event, however many threads dispatch.
const ONCE: EpollFlags = EpollFlags::EPOLLONESHOT;

#[derive(Debug, Default)]
struct Watched {
    next: u64,
    all: HashMap<u64, Subject>,
}

/// What is watched: only as long as somebody has a handle to it.
#[derive(Debug, Clone)]
enum Subject {
    Process(Weak<process::Inner>),
    Container(String, Weak<Watcher>),
}

impl Subject {
    /// What is watched of a container of this id.
    fn watcher(&self, id: &str) -> Option<Arc<Watcher>> {
        match self {
            Subject::Container(of, watcher) if of == id => watcher.upgrade(),
            _ => None,
        }
    }

    fn is_there(&self) -> bool {
        match self {
            Subject::Process(process) => process.strong_count() > 0,
            Subject::Container(_, watcher) => watcher.strong_count() > 0,
        }
    }
}

/// What there is to poll of a watch.
fn interest(watcher: &Watcher) -> (BorrowedFd<'_>, EpollFlags) {
    let (fd, readable) = watcher.poll_for();
    (fd, if readable { EpollFlags::EPOLLIN } else { EpollFlags::EPOLLPRI })
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
        let subject = Subject::Process(Arc::downgrade(&process.0));
        self.add(subject, process.exit_fd(), EpollFlags::EPOLLIN)
    }

    /// Watches a container until it is gone or the last handle to it is dropped.
    pub(super) fn watch_container(&self, id: &str, watcher: &Arc<Watcher>) -> Result<()> {
        let (fd, flags) = interest(watcher);
        self.add(Subject::Container(id.to_owned(), Arc::downgrade(watcher)), fd, flags)
    }

    fn add(&self, subject: Subject, fd: BorrowedFd<'_>, flags: EpollFlags) -> Result<()> {
        let token = {
            let mut watched = self.watched();
            // Handles that were dropped leave their entries; sweep now and then.
            if watched.all.len() >= 64 && watched.next % 64 == 0 {
                watched.all.retain(|_, subject| subject.is_there());
            }
            watched.next += 1;
            let token = watched.next;
            watched.all.insert(token, subject);
            token
        };
        self.epoll
            .add(fd, EpollEvent::new(flags | ONCE, token))
            .map_err(|errno| Error::os(Stage::Control, errno as i32, "epoll_ctl"))
    }

    fn watch_on(&self, fd: BorrowedFd<'_>, flags: EpollFlags, token: u64) -> Result<()> {
        self.epoll
            .modify(fd, &mut EpollEvent::new(flags | ONCE, token))
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
            let (token, flags) = (ready[0].data(), ready[0].events());
            let subject = self.watched().all.get(&token).cloned();
            let event = match subject {
                Some(Subject::Process(process)) => match process.upgrade() {
                    Some(process) => self.exit_of(Process(process), token)?,
                    None => None,
                },
                Some(Subject::Container(id, watcher)) => match watcher.upgrade() {
                    Some(watcher) => self.happening(id, &watcher, flags, token)?,
                    None => None,
                },
                None => None,
            };
            if let Some(event) = event {
                given += 1;
                callback(event)?;
            }
        }
    }

    fn exit_of(&self, process: Process, token: u64) -> Result<Option<Event>> {
        let Some(exit) = process.wait(Some(Duration::ZERO), None)? else {
            self.watch_on(process.exit_fd(), EpollFlags::EPOLLIN, token)?;
            return Ok(None);
        };
        // Cause before effect: of a kill the kernel may tell a moment later than of the end.
        if let Some(event) = self.memory_ran_out(process.container_id()) {
            self.watch_on(process.exit_fd(), EpollFlags::EPOLLIN, token)?;
            return Ok(Some(event));
        }
        self.watched().all.remove(&token);
        let container_id = process.container_id().to_owned();
        Ok(Some(Event::Exited { container_id, process, exit }))
    }

    /// Whether a container has run out of memory and nobody has been told. An error is for who
    /// polls the watch.
    fn memory_ran_out(&self, id: &str) -> Option<Event> {
        let watchers: Vec<_> =
            self.watched().all.values().filter_map(|it| it.watcher(id)).collect();
        watchers.iter().filter(|watcher| watcher.watch() == Watch::OutOfMemory).find_map(
            |watcher| {
                let Ok(Happening::Fired(kills)) = watcher.look(false) else { return None };
                Some(Event::OutOfMemory { container_id: id.to_owned(), kills })
            },
        )
    }

    fn happening(
        &self,
        container_id: String,
        watcher: &Watcher,
        flags: EpollFlags,
        token: u64,
    ) -> Result<Option<Event>> {
        let happening = watcher.look(flags.contains(EpollFlags::EPOLLERR))?;
        if happening == Happening::Over {
            self.watched().all.remove(&token);
            return Ok(None);
        }
        let (fd, flags) = interest(watcher);
        self.watch_on(fd, flags, token)?;
        let Happening::Fired(kills) = happening else { return Ok(None) };
        Ok(Some(match watcher.watch() {
            Watch::OutOfMemory => Event::OutOfMemory { container_id, kills },
            Watch::Pressure(trigger) => Event::Pressure { container_id, trigger },
        }))
    }
}

//! What the kernel tells of a cgroup as it happens: that memory ran out, and pressure.
//!
//! Each watch is one descriptor to poll; nothing here waits.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::file;
use super::location::{Location, Place};
use super::pids::is_gone;
use crate::error::{Category, Error, Result, Stage};

/// Something to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Watch {
    /// The container ran out of memory: the kernel killed a process of it, or, where it was told
    /// not to (`disableOOMKiller`), lets it wait.
    OutOfMemory,
    /// Processes had to wait for a resource too long. Needs cgroup v2 alone.
    Pressure(Trigger),
}

/// How long is too long, as the kernel counts it (its documentation, "Pressure Stall
/// Information"). It fires once in a window at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Trigger {
    /// What they wait for.
    pub resource: Resource,
    /// The time in which all processes that could run had to wait at once; else the time in
    /// which at least one had to.
    pub full: bool,
    /// The time of waiting, added up, within a window.
    pub stall: Duration,
    /// The window: from half a second to ten. An ordinary user may have multiples of two
    /// seconds only.
    pub window: Duration,
}

/// A resource that processes may have to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// A processor.
    Cpu,
    /// Memory.
    Memory,
    /// Block devices.
    Io,
}

impl Resource {
    /// Its name, as in `linux.resources` of version 2: `cpu`, `memory`, `io`.
    pub fn name(self) -> &'static str {
        match self {
            Resource::Cpu => "cpu",
            Resource::Memory => "memory",
            Resource::Io => "io",
        }
    }
}

/// What a watch has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    /// It happened; how many processes the kernel has killed by now.
    Fired(u64),
    /// Not what was watched for.
    Nothing,
    /// The cgroup is gone, so nothing will happen any more.
    Over,
}

/// A watch that is set.
#[derive(Debug)]
pub(crate) struct Watcher {
    watch: Watch,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// Version 2: `memory.events`, and the kills that it counted when it was read last.
    Counts(File, Mutex<u64>),
    /// Version 1: an event counter, and the directory of the memory hierarchy.
    Counter(EventFd, Place),
    /// A file with a trigger.
    Trigger(File),
}

impl Watcher {
    pub(super) fn set(location: &Location, watch: Watch) -> Result<Watcher> {
        let source = match watch {
            Watch::OutOfMemory => out_of_memory(location)?,
            Watch::Pressure(trigger) => pressure(location, trigger)?,
        };
        Ok(Watcher { watch, source })
    }

    pub(crate) fn watch(&self) -> Watch {
        self.watch
    }

    /// The descriptor, and whether it is to be polled for readable or for exceptional
    /// conditions.
    pub(crate) fn poll_for(&self) -> (BorrowedFd<'_>, bool) {
        match &self.source {
            Source::Counts(file, _) | Source::Trigger(file) => (file.as_fd(), false),
            Source::Counter(counter, _) => (counter.as_fd(), true),
        }
    }

    /// Looks what has happened since it was looked at last. `broken` says that polling reported
    /// an error, the kernel's only way to tell that a trigger is gone with its cgroup.
    pub(crate) fn look(&self, broken: bool) -> Result<Happening> {
        let failed = |error| Error::io(Stage::Cgroup, &error, "read what a watch has to say");
        match &self.source {
            Source::Trigger(_) => Ok(if broken { Happening::Over } else { Happening::Fired(0) }),
            Source::Counts(file, before) => {
                let mut text = [0; 512];
                let length = match file.read_at(&mut text, 0) {
                    Err(error) if is_gone(&error) => return Ok(Happening::Over),
                    read => read.map_err(failed)?,
                };
                let kills = kills(&String::from_utf8_lossy(&text[..length]));
                let mut before = before.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let more = kills > *before;
                *before = kills;
                Ok(if more { Happening::Fired(kills) } else { Happening::Nothing })
            }
            Source::Counter(counter, place) => {
                match counter.read() {
                    Err(nix::errno::Errno::EAGAIN) => return Ok(Happening::Nothing),
                    read => read.map_err(|errno| failed(errno.into()))?,
                };
                // It also counts the end of the cgroup.
                match file::get(&place.directory(), "memory.oom_control") {
                    Ok(text) => Ok(Happening::Fired(kills(&text))),
                    Err(error) if is_gone(&error) => Ok(Happening::Over),
                    Err(error) => Err(failed(error)),
                }
            }
        }
    }
}

fn kills(text: &str) -> u64 {
    file::keyed(text, "oom_kill").unwrap_or(0)
}

fn unsupported(message: impl Into<String>) -> Error {
    Error::new(Category::Unsupported, Stage::Cgroup, message)
}

fn out_of_memory(location: &Location) -> Result<Source> {
    let place = location.controller("memory").ok_or_else(|| {
        unsupported("the container has no memory cgroup, which would tell that memory ran out")
    })?;
    let directory = place.directory();
    if place.unified {
        const NAME: &str = "memory.events";
        // Opened for reading, it can be polled: a change since the last read is exceptional.
        let events =
            File::open(directory.join(NAME)).map_err(|error| missing(error, &directory, NAME))?;
        let text = file::read(&directory, NAME)?;
        return Ok(Source::Counts(events, Mutex::new(kills(&text))));
    }
    const CONTROL: &str = "cgroup.event_control";
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let counter = EventFd::from_value_and_flags(0, flags)
        .map_err(|errno| Error::os(Stage::Cgroup, errno as i32, "eventfd"))?;
    let control = File::open(directory.join("memory.oom_control"))
        .map_err(|error| missing(error, &directory, "memory.oom_control"))?;
    let line = format!("{} {}", counter.as_fd().as_raw_fd(), control.as_raw_fd());
    file::put(&directory, CONTROL, &line).map_err(|error| missing(error, &directory, CONTROL))?;
    Ok(Source::Counter(counter, place.clone()))
}

/// A file may be missing because the cgroup is, or because the kernel does not have it.
fn missing(error: io::Error, directory: &std::path::Path, name: &str) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound if directory.exists() => {
            unsupported(format!("this kernel or cgroup has no {name}")).with_errno(libc::ENOENT)
        }
        _ => Error::io(Stage::Cgroup, &error, format!("watch {name} of the cgroup {directory:?}")),
    }
}

fn pressure(location: &Location, trigger: Trigger) -> Result<Source> {
    let place = location.unified().filter(|_| location.is_pure_v2());
    let place = place.ok_or_else(|| unsupported("pressure is counted by cgroup v2 alone"))?;
    let invalid = |message: String| Error::new(Category::Invalid, Stage::Arguments, message);
    let Trigger { resource, full, stall, window } = trigger;
    if !(Duration::from_millis(500)..=Duration::from_secs(10)).contains(&window) {
        return Err(invalid(format!("a window of {window:?} is not within 0.5 and 10 seconds")));
    }
    if stall.as_micros() == 0 || stall > window {
        return Err(invalid(format!("{stall:?} is no time within a window of {window:?}")));
    }
    let directory = place.directory();
    let name = format!("{}.pressure", resource.name());
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let mut file =
        options.open(directory.join(&name)).map_err(|error| missing(error, &directory, &name))?;
    let kind = if full { "full" } else { "some" };
    let line = format!("{kind} {} {}\0", stall.as_micros(), window.as_micros());
    file.write_all(line.as_bytes()).map_err(|error| {
        let failed = Error::io(Stage::Cgroup, &error, format!("set the trigger of {name}"));
        match error.raw_os_error() {
            Some(libc::EINVAL) => failed
                .with_category(Category::Unsupported)
                .hint("an ordinary user needs Linux 6.5, and a window of 2, 4, 6, 8 or 10 seconds"),
            Some(libc::EOPNOTSUPP) => failed.hint("the kernel was booted without psi=1"),
            _ => failed,
        }
    })?;
    Ok(Source::Trigger(file))
}

//! What long calls have in common: progress, cancellation, a deadline.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use oci_spec::image::Digest;

use super::digest::wrap;
use crate::launch::poll_readable;
use crate::{Cancel, Category, Error, Result, Stage};

/// What is being done to a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum Step {
    /// It comes into the store: from a registry, a layout or an archive.
    Fetch = 1,
    /// It is unpacked. The digest is the layer's, the numbers are of its compressed bytes.
    Unpack = 2,
    /// It is written to a layout or an archive.
    Save = 3,
    /// It goes to a registry.
    Push = 4,
    /// A layer is made of a container's changes or of a tree.
    Pack = 5,
}

impl Step {
    /// Its name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Step::Fetch => "fetch",
            Step::Unpack => "unpack",
            Step::Save => "save",
            Step::Push => "push",
            Step::Pack => "pack",
        }
    }
}

/// How far a call is with one blob. What is there already is told once, as done.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// What is being done.
    pub step: Step,
    /// The blob's digest; empty while a layer is being made.
    pub digest: &'a str,
    /// Bytes done.
    pub done: u64,
    /// Bytes in all; 0 where that is not known.
    pub total: u64,
    /// Whether this blob is finished.
    pub finished: bool,
}

/// Called on the calling thread, at most ten times a second for a blob, and at its beginning and end. An
/// error stops the call and is returned.
pub type Report<'a> = &'a mut dyn FnMut(&Progress<'_>) -> Result<()>;

/// How a long call reports, and how it is stopped. All of it is optional.
#[derive(Default)]
pub struct Transfer<'a> {
    /// Is told how far it is.
    pub progress: Option<Report<'a>>,
    /// Stops the call.
    pub cancel: Option<&'a Cancel>,
    /// How long it may take. Default: as long as it takes.
    pub timeout: Option<Duration>,
}

impl std::fmt::Debug for Transfer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// A call's [`Transfer`] on its way through the modules.
pub(crate) struct Guide<'a> {
    progress: Option<Report<'a>>,
    cancel: Option<&'a Cancel>,
    deadline: Option<Instant>,
    last: Option<Instant>,
}

impl<'a> Guide<'a> {
    const INTERVAL: Duration = Duration::from_millis(100);

    pub(crate) fn new(transfer: Transfer<'a>) -> Guide<'a> {
        Guide {
            progress: transfer.progress,
            cancel: transfer.cancel,
            deadline: transfer.timeout.and_then(|time| Instant::now().checked_add(time)),
            last: None,
        }
    }

    /// Whether to go on. To be asked at least for every few hundred kilobytes or files.
    pub(crate) fn check(&self) -> Result<()> {
        let now = Instant::now();
        if let Some(cancel) = self.cancel {
            if poll_readable(cancel.as_fd(), Some(now), None, Stage::Image)? {
                return Err(Error::new(
                    Category::Cancelled,
                    Stage::Image,
                    "the call was cancelled",
                ));
            }
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Error::new(Category::Timeout, Stage::Image, "the deadline passed"));
        }
        Ok(())
    }

    /// Waits until something can be read.
    pub(crate) fn wait_for(&self, fd: BorrowedFd<'_>) -> Result<()> {
        self.check()?;
        match poll_readable(fd, self.deadline, self.cancel, Stage::Image)? {
            true => Ok(()),
            false => self.check(),
        }
    }

    /// One that the same stops, and that has nothing to tell.
    pub(crate) fn quiet(&self) -> Guide<'a> {
        Guide { progress: None, cancel: self.cancel, deadline: self.deadline, last: None }
    }

    /// What stops the call, for code that waits by itself.
    #[cfg(feature = "registry")]
    pub(crate) fn limits(&self) -> (Option<Cancel>, Option<Instant>) {
        (self.cancel.cloned(), self.deadline)
    }

    /// What cancels the call.
    pub(crate) fn cancel(&self) -> Option<&'a Cancel> {
        self.cancel
    }

    /// The time that is left; `None` for as long as it takes.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Reports, if it is time to, and checks.
    pub(crate) fn report(&mut self, step: Step, digest: &str, done: u64, total: u64) -> Result<()> {
        self.check()?;
        if done != 0 && self.last.is_some_and(|last| last.elapsed() < Self::INTERVAL) {
            return Ok(());
        }
        self.say(&Progress { step, digest, done, total, finished: false })
    }

    /// Reports the end of a blob.
    pub(crate) fn finished(&mut self, step: Step, digest: &str, total: u64) -> Result<()> {
        self.say(&Progress { step, digest, done: total, total, finished: true })
    }

    fn say(&mut self, progress: &Progress<'_>) -> Result<()> {
        self.last = Some(Instant::now());
        match &mut self.progress {
            Some(report) => report(progress),
            None => Ok(()),
        }
    }
}

/// A blob that is read for `step`, which is told how far that is.
pub(crate) struct Reported<'a, 'g> {
    source: &'a mut dyn Read,
    step: Step,
    digest: &'a Digest,
    size: u64,
    done: u64,
    guide: &'a mut Guide<'g>,
}

impl<'a, 'g> Reported<'a, 'g> {
    pub(crate) fn new(
        source: &'a mut dyn Read,
        step: Step,
        digest: &'a Digest,
        size: u64,
        guide: &'a mut Guide<'g>,
    ) -> Reported<'a, 'g> {
        Reported { source, step, digest, size, done: 0, guide }
    }
}

impl Read for Reported<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.guide.report(self.step, self.digest.as_ref(), self.done, self.size).map_err(wrap)?;
        let count = self.source.read(buffer)?;
        self.done += count as u64;
        Ok(count)
    }
}

/// Opens a file, a directory or a pipe. A pipe that nobody writes to would be waited for, and nothing could end that:
/// it is read as [`Arriving`].
pub(crate) fn open_soon(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(path)
}

/// A file, or a pipe that does not block: there may be a long wait for it.
pub(crate) struct Arriving<'a, 'g> {
    pub(crate) file: &'a File,
    pub(crate) guide: &'a Guide<'g>,
}

impl Read for Arriving<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.guide.wait_for(self.file.as_fd()).map_err(wrap)?;
            match (&*self.file).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

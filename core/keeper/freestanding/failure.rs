//! Why an operation failed, in the three things only the place of the failure knows: what
//! was being done, the errno, and what it was about.

use core::cell::UnsafeCell;
use core::ffi::CStr;

use locule_plan::protocol::{Failure, Text, detail};
use locule_plan::{Operation, Step, Stream};

use crate::system::{self, Errno, Sys};

/// The failure of a part of an operation. Small, because every step returns it.
#[derive(Clone, Copy)]
pub struct Error {
    pub errno: i32,
    /// One of [`detail`].
    pub detail: u16,
    /// Whether [`SUBJECT`] is about this failure.
    named: bool,
}

pub type Result<T = ()> = core::result::Result<T, Error>;

struct Cell(UnsafeCell<Text>);
// SAFETY: there is one thread.
unsafe impl Sync for Cell {}

/// What the last failure was about, where that is not what its operation names.
static SUBJECT: Cell = Cell(UnsafeCell::new(Text::EMPTY));

impl Error {
    #[inline(never)]
    pub fn new(detail: u16, errno: Errno) -> Self {
        Error { detail, errno: errno.0, named: false }
    }

    /// The same about something else.
    #[cold]
    #[inline(never)]
    pub fn about(mut self, subject: &[u8]) -> Self {
        // SAFETY: one thread, and no reference to the text outlives a statement.
        unsafe { *SUBJECT.0.get() = Text::new(subject) };
        self.named = true;
        self
    }

    fn subject(&self) -> Text {
        // SAFETY: as above.
        if self.named { unsafe { *SUBJECT.0.get() } } else { Text::EMPTY }
    }

    /// As the frame that goes to the host.
    #[cold]
    #[inline(never)]
    pub fn frame(&self, stream: Stream, step: &Step<'_>) -> Failure {
        let subject = if self.named { self.subject() } else { Text::new(subject(&step.operation)) };
        Failure {
            stream: stream as u32,
            operation: step.operation.code(),
            detail: self.detail,
            errno: system::with_call(self.errno),
            pointer: Text::new(step.pointer.to_bytes()),
            subject,
        }
    }

    /// As a frame about no operation in particular.
    pub fn bare_frame(&self, stream: Stream) -> Failure {
        Failure {
            stream: stream as u32,
            operation: 0,
            detail: self.detail,
            errno: system::with_call(self.errno),
            pointer: Text::EMPTY,
            subject: self.subject(),
        }
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Error::new(detail::PLAIN, errno)
    }
}

/// Says what a failed system call was part of.
pub trait During<T> {
    fn during(self, detail: u16) -> Result<T>;
}

impl<T> During<T> for Sys<T> {
    #[inline]
    fn during(self, detail: u16) -> Result<T> {
        self.map_err(|errno| Error::new(detail, errno))
    }
}

/// What an operation is about, for the failure frame.
fn subject<'a>(operation: &Operation<'a>) -> &'a [u8] {
    let text: &CStr = match *operation {
        Operation::RunIdMapper { program, .. } => program,
        Operation::Root { path, .. } => path,
        Operation::OverlayRoot { lower, .. } => lower,
        Operation::OverlayRootByEntry { scratch } => scratch,
        Operation::OverlayEntry { name } => name,
        Operation::Directory { path, .. }
        | Operation::Symlink { path, .. }
        | Operation::MakeDevice { path, .. }
        | Operation::ReadonlyPath { path }
        | Operation::MaskPath { path }
        | Operation::Remount { path, .. }
        | Operation::WorkingDirectory { path, .. } => path,
        Operation::Mount { target, .. }
        | Operation::Bind { target, .. }
        | Operation::Attach { target, .. } => target,
        Operation::Hostname { name } | Operation::Domainname { name } => name,
        Operation::Sysctl { name, .. } | Operation::Program { name, .. } => name,
        Operation::SecurityLabel { label, .. } => label,
        Operation::Listener { path, .. } => path,
        Operation::Exec { args, .. } => args.iter().next().unwrap_or(c""),
        Operation::Hook { path, .. } => path,
        Operation::MoveInterface { name, .. } => name,
        Operation::KillCgroup { path }
        | Operation::RemoveCgroup { path }
        | Operation::RemoveResctrlGroup { path }
        | Operation::RemoveState { path } => path,
        _ => c"",
    };
    text.to_bytes()
}

//! A process in the foreground: signals go to it, its terminal is this program's, and its end is
//! waited for.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use locule::{Exit, Process, TerminalSize};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{self, SetArg, Termios};

use crate::failure::Failure;

/// Signals that are held back from before the process is there, so that none is lost.
pub struct Signals(SignalFd);

impl Signals {
    pub fn hold() -> Result<Signals, Failure> {
        let mut set = SigSet::all();
        // Faults are this program's own, and the rest says nothing to a process.
        for own in [
            Signal::SIGCHLD,
            Signal::SIGURG,
            Signal::SIGPIPE,
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGABRT,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
        ] {
            set.remove(own);
        }
        let fail = |errno: nix::errno::Errno| Failure::of(format!("hold back signals: {errno}"));
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(fail)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        SignalFd::with_flags(&set, flags).map(Signals).map_err(fail)
    }
}

/// The size of this program's terminal, if it has one.
pub fn own_size() -> Option<TerminalSize> {
    size_of(0)
}

/// The size of the terminal that one of this program's streams is, if it is one.
pub fn size_of(stream: i32) -> Option<TerminalSize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure lives through the call.
    let known = unsafe { libc::ioctl(stream, libc::TIOCGWINSZ, &raw mut size) } == 0;
    known.then_some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Lets the process have this program's terminal and signals until it ends; with what this program
/// is to exit then.
pub fn attend(process: &Process, signals: &Signals) -> Result<ExitCode, Failure> {
    let master = process.take_terminal();
    let raw = master.as_ref().map(|_| Raw::enter());
    if let (Some(_), Some(size)) = (&master, own_size()) {
        let _ = process.resize(size);
    }
    let mut proxy = master.map(Proxy::new);
    let exit = loop {
        if let Some(exit) = process.wait(Some(Duration::ZERO), None)? {
            break exit;
        }
        let events = PollFlags::POLLIN;
        let mut waited =
            vec![PollFd::new(process.exit_fd(), events), PollFd::new(signals.0.as_fd(), events)];
        if let Some(proxy) = &proxy {
            waited.extend(proxy.waited());
        }
        match poll(&mut waited, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Failure::of(format!("wait: {errno}"))),
        }
        let ready: Vec<bool> =
            waited.iter().map(|fd| fd.revents().is_some_and(|found| !found.is_empty())).collect();
        drop(waited);
        if ready[1] {
            pass_on(process, signals);
        }
        if let Some(proxy) = &mut proxy {
            proxy.carry(&ready[2..]);
        }
    };
    if let Some(proxy) = &mut proxy {
        proxy.drain();
    }
    drop(raw);
    Ok(code(exit))
}

fn pass_on(process: &Process, signals: &Signals) {
    while let Ok(Some(info)) = signals.0.read_signal() {
        match info.ssi_signo as i32 {
            libc::SIGWINCH => {
                if let Some(size) = own_size() {
                    let _ = process.resize(size);
                }
            }
            signal => {
                // It may have ended just now.
                let _ = process.signal(signal);
            }
        }
    }
}

/// As a shell has it.
pub fn code(exit: Exit) -> ExitCode {
    match exit {
        Exit::Code(code) => ExitCode::from(code as u8),
        Exit::Signal { signal, .. } => ExitCode::from((128 + signal) as u8),
        Exit::Unknown => ExitCode::from(255),
    }
}

/// This program's terminal, which hands every key on until this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Raw {
        let stdin = std::io::stdin();
        let Ok(before) = termios::tcgetattr(stdin.as_fd()) else { return Raw(None) };
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        let _ = termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw);
        Raw(Some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = termios::tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, before);
        }
    }
}

/// Carries bytes between this program's streams and the master of a terminal.
struct Proxy {
    master: OwnedFd,
    input_open: bool,
    master_open: bool,
}

impl Proxy {
    fn new(master: OwnedFd) -> Proxy {
        Proxy { master, input_open: true, master_open: true }
    }

    /// What is waited for: always two, of which one may be closed.
    fn waited(&self) -> [PollFd<'_>; 2] {
        let flags = |open: bool| if open { PollFlags::POLLIN } else { PollFlags::empty() };
        // SAFETY: standard input is open as long as this program runs, or poll says that it is not.
        let stdin = unsafe { BorrowedFd::borrow_raw(0) };
        [
            PollFd::new(
                if self.input_open { stdin } else { self.master.as_fd() },
                flags(self.input_open),
            ),
            PollFd::new(self.master.as_fd(), flags(self.master_open)),
        ]
    }

    fn carry(&mut self, ready: &[bool]) {
        if ready[0] && self.input_open {
            self.input_open = carry(0, self.master.as_raw_fd());
        }
        if ready[1] && self.master_open {
            self.master_open = carry(self.master.as_raw_fd(), 1);
        }
    }

    /// What the process has written before it ended.
    fn drain(&mut self) {
        while self.master_open {
            let mut waited = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waited, PollTimeout::ZERO) {
                Ok(1..) => self.master_open = carry(self.master.as_raw_fd(), 1),
                _ => break,
            }
        }
    }
}

/// False at the end.
fn carry(from: i32, to: i32) -> bool {
    let mut buffer = [0_u8; 32 * 1024];
    // SAFETY: there is room for that many bytes.
    let read = unsafe { libc::read(from, buffer.as_mut_ptr().cast(), buffer.len()) };
    if read <= 0 {
        return read < 0
            && std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted;
    }
    let mut rest = &buffer[..read as usize];
    while !rest.is_empty() {
        // SAFETY: so many bytes are there.
        let written = unsafe { libc::write(to, rest.as_ptr().cast(), rest.len()) };
        if written <= 0 {
            return false;
        }
        rest = &rest[written as usize..];
    }
    true
}

//! A CRIU that has been started, and what is said to it: `criu swrk` on a socket of its own.
//!
//! It is started by a keeper that leaves at once, so it is no child of this process and ends by
//! itself: when it is done, or when this process is gone.

use std::ffi::OsString;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use locule_plan::protocol;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, recvmsg, sendmsg,
    shutdown, socketpair,
};
use prost::Message;

use super::super::Runtime;
use super::super::create::{Keeper, Opened, await_creation};
use super::super::pidfd::send_signal;
use super::super::state_dir::StateDir;
use super::messages::{Features, Kind, Notification, Options, Request, Response};
use crate::compile::Plan;
use crate::launch::{Deadline, reap_if_ended};
use crate::{Category, Error, Result, Stage};

/// The oldest that is taken: 3.16, the first that can replace the labels of a security module.
const OLDEST: (i32, i32) = (3, 16);
/// No answer is longer.
const LONGEST: usize = 64 << 10;

pub(super) struct Criu {
    socket: OwnedFd,
    pidfd: OwnedFd,
    pub(super) pid: i32,
}

/// The host's end of the socket, and CRIU's.
pub(super) fn sockets() -> Result<(OwnedFd, OwnedFd)> {
    let kind = SockType::SeqPacket;
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
        .map_err(|errno| Error::os(Stage::Checkpoint, errno as i32, "create a socket pair"))
}

/// Where to look for CRIU and what it executes itself: where this process would, and where such
/// programs are that only root needs.
pub(super) fn search_path() -> PathBuf {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    for place in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        if !std::env::split_paths(&path).any(|known| known == Path::new(place)) {
            path.push(if path.is_empty() { "" } else { ":" });
            path.push(place);
        }
    }
    PathBuf::from(path)
}

/// The configuration file that an administrator may have for CRIU below a container runtime.
pub(super) fn default_configuration() -> Option<String> {
    let known = ["/etc/criu/locule.conf", "/etc/criu/runc.conf"];
    known.into_iter().find(|path| Path::new(path).exists()).map(str::to_owned)
}

impl Criu {
    /// Has the keeper start it. `dir` is a directory for the time being, `socket` the host's end of
    /// what the plan has CRIU's of.
    pub(super) fn start(
        runtime: &Runtime,
        keeper: &Keeper,
        plan: &Plan,
        opened: &Opened,
        dir: &StateDir,
        socket: OwnedFd,
        deadline: &Deadline<'_>,
    ) -> Result<Criu> {
        let flags = protocol::create::ORPHAN | protocol::create::DETACHED;
        let replies = keeper.create(runtime, flags, plan, dir, opened)?;
        let started =
            await_creation(&replies, deadline, Stage::Checkpoint).map(|(started, _)| started);
        // Where others would wait at the gate.
        let _ = std::fs::remove_file(dir.path.join("gate"));
        let started = started.map_err(|error| match error.step() {
            Some("Program") => missing(),
            _ => error,
        })?;
        keeper.see_off();
        let criu = Criu { socket, pidfd: started.pidfd, pid: started.pid };
        criu.check_version(deadline)?;
        Ok(criu)
    }

    fn check_version(&self, deadline: &Deadline<'_>) -> Result<()> {
        let ask = Request { keep_open: Some(true), ..request(Kind::Version) };
        let answer = self.ask(&ask, deadline, &mut |_, _| Ok(()))?;
        let version = answer.version.unwrap_or_default();
        if (version.major, version.minor) >= OLDEST {
            return Ok(());
        }
        let (major, minor) = OLDEST;
        let message = format!(
            "CRIU {}.{} is too old: {major}.{minor} is needed",
            version.major, version.minor
        );
        Err(Error::new(Category::Unsupported, Stage::Checkpoint, message))
    }

    /// Refuses what the kernel or this CRIU cannot do.
    pub(super) fn check_features(&self, wanted: Features, deadline: &Deadline<'_>) -> Result<()> {
        let ask = Request {
            keep_open: Some(true),
            features: Some(wanted),
            ..request(Kind::FeatureCheck)
        };
        let found = self.ask(&ask, deadline, &mut |_, _| Ok(()))?.features.unwrap_or_default();
        let lacks =
            |wanted: Option<bool>, found: Option<bool>| wanted == Some(true) && found != Some(true);
        let missing = match (
            lacks(wanted.mem_track, found.mem_track),
            lacks(wanted.lazy_pages, found.lazy_pages),
        ) {
            (true, _) => "tracking of changed memory, which a pre-dump needs",
            (_, true) => "lazy pages",
            _ => return Ok(()),
        };
        let message = format!("CRIU and this kernel lack {missing}");
        Err(Error::new(Category::Unsupported, Stage::Checkpoint, message))
    }

    /// Makes the request that this CRIU is here for; `notified` is told on the way. What goes wrong
    /// is in `log`.
    pub(super) fn carry_out(
        &self,
        kind: Kind,
        options: Options,
        log: &Path,
        deadline: &Deadline<'_>,
        notified: &mut dyn FnMut(&Notification, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Response> {
        let request = Request { opts: Some(options), ..request(kind) };
        let mut own = false;
        let answer = self.ask(&request, deadline, &mut |notification, descriptor| {
            notified(notification, descriptor).inspect_err(|_| own = true)
        });
        answer.map_err(|error| match error.category() {
            Category::System if !own => with_log(error, log),
            _ => error,
        })
    }

    fn ask(
        &self,
        request: &Request,
        deadline: &Deadline<'_>,
        notified: &mut dyn FnMut(&Notification, Option<OwnedFd>) -> Result<()>,
    ) -> Result<Response> {
        self.send(request)?;
        loop {
            let (answer, descriptor) = self.receive(deadline)?;
            if !answer.success {
                return Err(failed(&answer));
            }
            if answer.kind != Kind::Notify as i32 {
                return Ok(answer);
            }
            notified(&answer.notification.unwrap_or_default(), descriptor)?;
            self.send(&Request { notify_success: Some(true), ..self::request(Kind::Notify) })?;
        }
    }

    fn send(&self, request: &Request) -> Result<()> {
        let bytes = request.encode_to_vec();
        let flags = MsgFlags::MSG_NOSIGNAL;
        loop {
            let raw = self.socket.as_raw_fd();
            match sendmsg::<()>(raw, &[IoSlice::new(&bytes)], &[], flags, None) {
                Err(Errno::EINTR) => {}
                Ok(_) => return Ok(()),
                Err(_) => return Err(gone()),
            }
        }
    }

    fn receive(&self, deadline: &Deadline<'_>) -> Result<(Response, Option<OwnedFd>)> {
        let mut bytes = vec![0; LONGEST];
        let mut control = nix::cmsg_space!([RawFd; 1]);
        let (length, descriptor) = loop {
            deadline.wait(self.socket.as_fd(), Stage::Checkpoint).map_err(|error| {
                match error.category() {
                    Category::Timeout => Error::new(
                        Category::Timeout,
                        Stage::Checkpoint,
                        "the deadline passed before CRIU was done",
                    )
                    .with_errno(libc::ETIMEDOUT),
                    _ => error,
                }
            })?;
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
            let raw = self.socket.as_raw_fd();
            match recvmsg::<()>(raw, &mut slices, Some(&mut control), flags) {
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => return Err(gone()),
                Ok(message) => {
                    let mut descriptor = None;
                    for part in message.cmsgs().into_iter().flatten() {
                        if let ControlMessageOwned::ScmRights(descriptors) = part {
                            for raw in descriptors {
                                // SAFETY: the kernel has just installed it for this process.
                                descriptor = Some(unsafe { OwnedFd::from_raw_fd(raw) });
                            }
                        }
                    }
                    break (message.bytes, descriptor);
                }
            }
        };
        if length == 0 {
            return Err(gone());
        }
        let response = Response::decode(&bytes[..length]).map_err(|error| {
            let message = format!("CRIU's answer is none: {error}");
            Error::new(Category::System, Stage::Checkpoint, message)
        })?;
        Ok((response, descriptor))
    }

    /// Waits until it has left.
    pub(super) fn finish(self, deadline: &Deadline<'_>) -> Result<()> {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Write);
        deadline.wait(self.pidfd.as_fd(), Stage::Checkpoint)
    }
}

impl Drop for Criu {
    /// One that is not done yet notices that nobody waits, takes back what it has begun, and leaves.
    fn drop(&mut self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        let deadline = Deadline::within(Some(Duration::from_secs(10)), None);
        if deadline.wait(self.pidfd.as_fd(), Stage::Checkpoint).is_err() {
            let _ = send_signal(&self.pidfd, libc::SIGKILL);
            let deadline = Deadline::within(Some(Duration::from_secs(1)), None);
            let _ = deadline.wait(self.pidfd.as_fd(), Stage::Checkpoint);
        }
        // Where orphans fall to this process.
        reap_if_ended(&self.pidfd);
    }
}

fn request(kind: Kind) -> Request {
    Request { kind: kind as i32, ..Request::default() }
}

fn missing() -> Error {
    let message =
        "the program criu is missing: install it (most distributions call the package criu)";
    Error::new(Category::Unsupported, Stage::Checkpoint, message)
        .hint("PATH names the directories where it is looked for")
}

fn gone() -> Error {
    Error::new(Category::System, Stage::Checkpoint, "CRIU ended before it was done")
}

fn failed(answer: &Response) -> Error {
    let mut message = "CRIU failed".to_owned();
    if let Some(words) = answer.message.as_deref().filter(|words| !words.is_empty()) {
        message = format!("{message}: {}", words.trim_end());
    }
    let error = Error::new(Category::System, Stage::Checkpoint, message);
    match answer.errno.filter(|errno| *errno > 0) {
        Some(errno) => error.with_errno(errno),
        None => error,
    }
}

/// Puts in the place of the answer, which says little, what CRIU's log says went wrong first.
fn with_log(error: Error, log: &Path) -> Error {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // That it may not have more descriptors is no failure.
    let fatal = |line: &&str| line.contains("Error (") && !line.contains("RLIMIT_NOFILE");
    let line = text.lines().find(fatal).unwrap_or_default();
    // (00.012345) Error (criu/mount.c:1088): mnt: ...
    let words = match line.split_once("): ") {
        Some((_, words)) => format!("CRIU failed: {}", words.trim()),
        None => error.to_string(),
    };
    let error = Error::new(
        error.category(),
        error.stage(),
        format!("{words} (its log is {})", log.display()),
    );
    match line.contains("Can't lookup mount") {
        true => error.hint("a process has a file open that is not in the container"),
        false => error,
    }
}

/// Text as the protocol has it.
pub(super) fn text_of(path: &Path) -> Result<String> {
    let text: OsString = path.into();
    text.into_string().map_err(|path| {
        let message = format!("the path {path:?} is no UTF-8, which CRIU's protocol needs");
        Error::new(Category::Unsupported, Stage::Checkpoint, message)
    })
}

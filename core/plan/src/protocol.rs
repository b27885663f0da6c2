//! What the host, the keeper and the container's processes say to each other.
//!
//! A request is one datagram on a `SOCK_SEQPACKET` socket: the socket the keeper was born
//! with, or a connection to `control` in the container's state directory. Its first
//! descriptor is the *reply socket* (`SOCK_SEQPACKET` as well), on which every answer to this
//! request comes; more descriptors follow as the request says. So requests from several
//! threads and processes never mix, and closing one's end withdraws from the answer.
//!
//! | request | descriptors after the reply socket | replies, in order |
//! |---|---|---|
//! | Create | plan, host pidfd, state directory, then the plan's slots | (Terminal), Created, later Exited; or Failed |
//! | Exec | plan, then the plan's slots | (Terminal), Started, later Exited; or Failed |
//! | Start | - | Started; or Failed |
//! | Watch | - | State, later Exited; or Failed |
//! | Shutdown | - | Done; then the keeper exits |
//! | Hooks | plan | a Failed for each hook that fails, Done; then the keeper exits |
//!
//! Closing the reply socket of an Exec before Started takes it back; later it leaves the process
//! alone, unless a byte [`WITHDRAW`] was sent before: the asker could not use the answer.
//!
//! A datagram carries at most [`MAX_DESCRIPTORS`] descriptors. `Create`, or `Hooks`, must be the
//! first request, and is accepted only on the socket the keeper was born with.
//!
//! In the orphan and child modes the keeper leaves after `Created`, and the process waits at
//! `gate` in the state directory: whoever connects and sends [`Gate::Open`] lets it go on; the
//! connection then yields end of file when the program runs, or a `Failed` reply.

use crate::VERSION;

/// The descriptor on which a keeper finds its first socket.
pub const KEEPER_SOCKET: i32 = 3;
/// What an asker sends on the reply socket of an Exec to take the request back.
pub const WITHDRAW: u8 = 1;
/// The kernel's limit for one datagram (`SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 253;
/// How many mounts a keeper can make for a process.
pub const MAX_PREPARED_MOUNTS: usize = 64;
/// How many network interfaces a keeper can move.
pub const MAX_INTERFACES: usize = 64;
/// Name of the keeper's listening socket in the state directory.
pub const CONTROL_NAME: &core::ffi::CStr = c"control";
/// Name of the listening socket of a process that waits at the gate without a keeper.
pub const GATE_NAME: &core::ffi::CStr = c"gate";

/// Request kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum RequestKind {
    /// Create the container's first process.
    Create = 1,
    /// Open the gate.
    Start = 2,
    /// Run another process in the container.
    Exec = 3,
    /// Tell the state now and the exit when it comes.
    Watch = 4,
    /// Leave; whatever still runs is killed first.
    Shutdown = 5,
    /// Run the hooks in the Poststart stream of a plan, up to the first that fails, and in the Hooks
    /// stream all, for a container that has no keeper (any more).
    Hooks = 6,
}

impl RequestKind {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Create, Self::Start, Self::Exec, Self::Watch, Self::Shutdown, Self::Hooks]
            .into_iter()
            .find(|&kind| kind as u32 == number)
    }
}

/// Flag bits of [`Request::flags`] of `Watch`.
pub mod watch {
    /// Tell the state, and not the exit.
    pub const STATE_ONLY: u32 = 1;
}

/// Flag bits of [`Request::flags`] of `Shutdown`.
pub mod shutdown {
    /// The creation has failed after all: what it took from the host goes back.
    pub const UNDO: u32 = 1;
}

/// Flag bits of [`Request::flags`] of `Create` (`Exec`, `Start` and `Hooks` take 0).
pub mod create {
    /// The keeper leaves once the container is created; init goes to the nearest subreaper.
    pub const ORPHAN: u32 = 1;
    /// The keeper leaves likewise; init becomes a child of the keeper's parent.
    pub const CHILD: u32 = 2;
    /// The container outlives the host.
    pub const DETACHED: u32 = 4;
}

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub kind: RequestKind,
    /// Bits of [`create`], [`watch`] or [`shutdown`].
    pub flags: u32,
}

impl Request {
    /// Encoded size.
    pub const SIZE: usize = 16;

    /// The datagram.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        put(&mut out, 0, VERSION);
        put(&mut out, 4, self.kind as u32);
        put(&mut out, 8, self.flags);
        out
    }

    /// Reads a datagram; `None` if it is not a request of this version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != Self::SIZE || get(bytes, 0)? != VERSION {
            return None;
        }
        Some(Request { kind: RequestKind::from_number(get(bytes, 4)?)?, flags: get(bytes, 8)? })
    }
}

/// Where in its life the container's first process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// Being set up.
    Creating = 0,
    /// Waiting at the gate.
    Created = 1,
    /// Running its program.
    Running = 2,
    /// Dead.
    Stopped = 3,
}

impl Phase {
    fn from_number(number: u32) -> Option<Self> {
        [Self::Creating, Self::Created, Self::Running, Self::Stopped]
            .into_iter()
            .find(|&phase| phase as u32 == number)
    }
}

/// How a process ended, as `waitid` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// The exit code, if it exited by itself.
    pub code: i32,
    /// The signal that killed it, or 0.
    pub signal: i32,
    /// 1 if a core was dumped.
    pub core: u32,
}

/// Why a step failed: the step, the errno, and where in `config.json` it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The number of the [`Stream`](crate::Stream) it belongs to.
    pub stream: u32,
    /// The number of the operation, 0 if it was none (creating the process itself, say).
    pub operation: u16,
    /// What exactly was being done: one of [`detail`].
    pub detail: u16,
    /// The errno, 0 if there is none; for a hook that failed, its wait status. With `ENOSYS`
    /// the upper half is the number of the system call, where it is known.
    pub errno: i32,
    /// The JSON pointer.
    pub pointer: Text,
    /// The file, program or name it was about.
    pub subject: Text,
}

/// Values of [`Failure::detail`].
pub mod detail {
    /// The operation's own system call failed.
    pub const PLAIN: u16 = 0;
    /// `clone3`, `clone` or `fork` failed.
    pub const CLONE: u16 = 1;
    /// The process died before it could say why; `errno` is its wait status.
    pub const DIED: u16 = 2;
    /// The plan could not be decoded.
    pub const MALFORMED_PLAN: u16 = 3;
    /// A slot has no descriptor.
    pub const MISSING_DESCRIPTOR: u16 = 4;
    /// The target of a mount could not be opened or created in the root.
    pub const TARGET: u16 = 5;
    /// The source of a mount could not be opened.
    pub const SOURCE: u16 = 6;
    /// A filesystem option was refused.
    pub const OPTION: u16 = 7;
    /// The mount attributes could not be set.
    pub const ATTRIBUTES: u16 = 8;
    /// What exists at the path is something else (a device that differs, a symlink for /proc).
    pub const MISMATCH: u16 = 9;
    /// A file or helper ended with a failure; `errno` is its wait status.
    pub const EXIT_STATUS: u16 = 10;
    /// It took longer than allowed.
    pub const TIMEOUT: u16 = 11;
    /// The keeper's table of processes or watchers is full.
    pub const TOO_MANY: u16 = 12;
    /// The request does not fit the container's state.
    pub const WRONG_STATE: u16 = 13;
    /// The program was not found in `PATH`.
    pub const NOT_IN_PATH: u16 = 14;
    /// The working directory is outside of the container's root.
    pub const OUTSIDE_ROOT: u16 = 15;
    /// Not the genuine `/proc`, devpts or null device.
    pub const NOT_GENUINE: u16 = 16;
    /// Attaching the finished mount failed.
    pub const ATTACH: u16 = 17;
    /// The keeper's socket could not be made in the state directory.
    pub const LISTEN: u16 = 18;
    /// The ids of the mount could not be mapped.
    pub const ID_MAP: u16 = 19;
    /// Nobody could be reached at the path of a listening socket.
    pub const CONNECT: u16 = 20;
    /// The interface's addresses could not be set in the new namespace.
    pub const ADDRESSES: u16 = 21;
    /// The interface could not be brought up in the new namespace.
    pub const BRING_UP: u16 = 22;
    /// The directory cannot keep the changes to an overlay.
    pub const CHANGES: u16 = 23;
}

/// A short text in a datagram, cut to fit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text {
    len: u8,
    bytes: [u8; Text::CAPACITY],
}

impl Text {
    /// The longest text.
    pub const CAPACITY: usize = 200;
    /// The empty text.
    pub const EMPTY: Text = Text { len: 0, bytes: [0; Text::CAPACITY] };

    /// The beginning of `text`.
    pub fn new(text: &[u8]) -> Self {
        let len = text.len().min(Self::CAPACITY);
        let mut bytes = [0; Self::CAPACITY];
        bytes[..len].copy_from_slice(&text[..len]);
        Text { len: len as u8, bytes }
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len).min(Self::CAPACITY)]
    }
}

impl core::fmt::Debug for Text {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// A reply.
#[allow(clippy::large_enum_variant, reason = "nothing to box with; lives on the stack only")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The keeper's protocol version: the answer to a request of any other.
    Hello {
        /// Protocol version of the keeper.
        version: u32,
        /// The keeper's pid.
        pid: i32,
    },
    /// Comes with one descriptor: the master of the process's terminal.
    Terminal,
    /// The container is created; comes with a pidfd of its first process.
    Created {
        /// Pid of the first process as the keeper sees it.
        pid: i32,
    },
    /// The program runs; comes with a pidfd of its process.
    Started {
        /// The process's pid as the keeper sees it.
        pid: i32,
    },
    /// The process has ended.
    Exited(Exit),
    /// The state of the first process; comes with a pidfd of it unless it is stopped.
    State {
        /// Its pid as the keeper sees it.
        pid: i32,
        /// Where in its life it is.
        phase: Phase,
    },
    /// The request has been carried out.
    Done,
    /// The request failed, without effect.
    Failed(Failure),
}

impl Reply {
    /// The largest encoded size.
    pub const MAX_SIZE: usize = 20 + 2 * (1 + Text::CAPACITY);

    /// Writes the datagram to `out` and returns its length.
    pub fn encode(&self, out: &mut [u8; Self::MAX_SIZE]) -> usize {
        out.fill(0);
        let words: (u32, [u32; 3]) = match *self {
            Reply::Hello { version, pid } => (1, [version, pid as u32, 0]),
            Reply::Terminal => (2, [0; 3]),
            Reply::Created { pid } => (3, [pid as u32, 0, 0]),
            Reply::Started { pid } => (4, [pid as u32, 0, 0]),
            Reply::Exited(exit) => (5, [exit.code as u32, exit.signal as u32, exit.core]),
            Reply::State { pid, phase } => (6, [pid as u32, phase as u32, 0]),
            Reply::Done => (7, [0; 3]),
            Reply::Failed(failure) => (
                8,
                [
                    failure.stream,
                    u32::from(failure.operation) | u32::from(failure.detail) << 16,
                    failure.errno as u32,
                ],
            ),
        };
        put(out, 0, words.0);
        for (index, word) in words.1.into_iter().enumerate() {
            put(out, 4 + 4 * index, word);
        }
        let Reply::Failed(failure) = self else { return 16 };
        let mut at = 16;
        for text in [&failure.pointer, &failure.subject] {
            let bytes = text.as_bytes();
            out[at] = bytes.len() as u8;
            out[at + 1..at + 1 + bytes.len()].copy_from_slice(bytes);
            at += 1 + bytes.len();
        }
        at
    }

    /// Reads a datagram; `None` if it is no reply of this version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (a, b, c) = (get(bytes, 4)?, get(bytes, 8)?, get(bytes, 12)?);
        Some(match get(bytes, 0)? {
            1 => Reply::Hello { version: a, pid: b as i32 },
            2 => Reply::Terminal,
            3 => Reply::Created { pid: a as i32 },
            4 => Reply::Started { pid: a as i32 },
            5 => Reply::Exited(Exit { code: a as i32, signal: b as i32, core: c }),
            6 => Reply::State { pid: a as i32, phase: Phase::from_number(b)? },
            7 => Reply::Done,
            8 => {
                let mut rest = bytes.get(16..)?;
                let mut text = || {
                    let (&len, tail) = rest.split_first()?;
                    let text = Text::new(tail.get(..usize::from(len))?);
                    rest = &tail[usize::from(len)..];
                    Some(text)
                };
                let (pointer, subject) = (text()?, text()?);
                Reply::Failed(Failure {
                    stream: a,
                    operation: b as u16,
                    detail: (b >> 16) as u16,
                    errno: c as i32,
                    pointer,
                    subject,
                })
            }
            _ => return None,
        })
    }
}

/// What passes over the socket between the keeper and a process it has created (and, without
/// a keeper, between the process and whoever opens its gate): one byte a message. A process
/// that fails sends an encoded [`Reply::Failed`] instead and exits; a terminal's master comes
/// with [`Gate::Terminal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Gate {
    /// To the process: the Parent or Hooks stream is done, go on.
    Proceed = 1,
    /// From the process: at the checkpoint; with a descriptor as the operation says.
    Checkpoint = 2,
    /// From the process: at the gate; the container is created.
    Ready = 3,
    /// To the process: run the program.
    Open = 4,
    /// From the process, with one descriptor: the master of its terminal.
    Terminal = 5,
    /// To the process, with one descriptor: a mount for it to attach.
    Mount = 6,
    /// From the process, followed by a number of four bytes: of the sources of its plan (see
    /// [`Operation::sources`](crate::Operation::sources)) the one of that number is out of its reach.
    /// To the process: the source, opened, or no descriptor.
    Source = 7,
}

impl Gate {
    /// Reads a one-byte message.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [byte] = bytes else { return None };
        [
            Self::Proceed,
            Self::Checkpoint,
            Self::Ready,
            Self::Open,
            Self::Terminal,
            Self::Mount,
            Self::Source,
        ]
        .into_iter()
        .find(|&message| message as u8 == *byte)
    }

    /// Asks for a source.
    pub fn ask_for_source(number: u32) -> [u8; 5] {
        let [a, b, c, d] = number.to_le_bytes();
        [Self::Source as u8, a, b, c, d]
    }

    /// Reads such a question.
    pub fn source_asked_for(bytes: &[u8]) -> Option<u32> {
        match *bytes {
            [word, a, b, c, d] if word == Self::Source as u8 => {
                Some(u32::from_le_bytes([a, b, c, d]))
            }
            _ => None,
        }
    }
}

fn put(out: &mut [u8], at: usize, word: u32) {
    out[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

fn get(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_survive_the_wire() {
        let failure = Failure {
            stream: 2,
            operation: 36,
            detail: detail::TARGET,
            errno: -1,
            pointer: Text::new(b"/mounts/3"),
            subject: Text::new(b"/dev/shm"),
        };
        for reply in [
            Reply::Hello { version: 1, pid: 7 },
            Reply::Terminal,
            Reply::Created { pid: 8 },
            Reply::Started { pid: 9 },
            Reply::Exited(Exit { code: 3, signal: 0, core: 0 }),
            Reply::State { pid: 4, phase: Phase::Running },
            Reply::Done,
            Reply::Failed(failure),
        ] {
            let mut buffer = [0; Reply::MAX_SIZE];
            let len = reply.encode(&mut buffer);
            assert_eq!(Reply::decode(&buffer[..len]), Some(reply));
        }
    }

    #[test]
    fn a_request_of_another_version_is_not_understood() {
        let request = Request { kind: RequestKind::Create, flags: create::DETACHED };
        let mut bytes = request.encode();
        assert_eq!(Request::decode(&bytes), Some(request));
        bytes[0] ^= 0x40;
        assert_eq!(Request::decode(&bytes), None);
    }

    #[test]
    fn short_and_garbled_replies_are_refused() {
        assert_eq!(Reply::decode(&[8, 0, 0, 0]), None);
        let mut bytes = [0xff; 20];
        bytes[..4].copy_from_slice(&8u32.to_le_bytes());
        assert_eq!(Reply::decode(&bytes), None);
    }
}

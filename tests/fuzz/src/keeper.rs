//! A real keeper, and a host that means harm: garbage for requests and plans, descriptors of the
//! wrong kind, connections that go away, plans whose steps climb about in a hostile root.
//!
//! It must answer or hang up, leave when it is told to, keep no descriptor and no memory of what
//! it refused, and leave nothing changed outside of the container's root. Its plan it trusts, as
//! it must: so steps that mean the host itself are not among those that are tried.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use locule_plan::protocol::{Reply, Request, RequestKind};
use locule_plan::{Builder, Operation, OwnedList, OwnedNumbers, Stream, join, root};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::orphans;
use crate::rarely::Rarely;

#[path = "../../../core/keeper/tests/harness/mod.rs"]
mod harness;

use harness::{As, Bundle, Keeper, c, list, memfd, pair, pidfd, unsealed};

/// How many descriptors go with a plan here.
const SLOTS: usize = 3;

/// No request takes as long, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Arbitrary)]
struct Attack {
    /// What lies in the root.
    litter: Vec<(Path_, Litter)>,
    /// Before all others, so that most of them meet a container.
    first: Option<(Steps, bool)>,
    moves: Vec<Move>,
}

#[derive(Debug, Arbitrary)]
enum Litter {
    Directory,
    File,
    Link(Path_),
    Outside,
    Fifo,
    Socket,
}

#[derive(Debug, Arbitrary)]
enum Move {
    /// A datagram of any bytes.
    Garbage {
        bytes: Vec<u8>,
        descriptors: Vec<Thing>,
        over: Over,
    },
    /// A request with any descriptors.
    Request {
        kind: Kind,
        flags: u32,
        descriptors: Vec<Thing>,
        over: Over,
    },
    /// A container, as a host would ask for it, of these steps.
    Create {
        plan: Steps,
        detached: bool,
    },
    /// A process in it.
    Exec {
        plan: Steps,
        over: Over,
    },
    Start {
        over: Over,
    },
    Watch {
        over: Over,
    },
    /// Says something on a reply socket, which is closed then if so wanted.
    Speak {
        reply: u8,
        bytes: Vec<u8>,
        close: bool,
    },
    /// Another connection, or one less.
    Connect,
    HangUp(u8),
    /// Lets the keeper come so far.
    Wait,
}

/// Over which socket: the one the keeper was born with, or a connection.
#[derive(Debug, Arbitrary)]
enum Over {
    Born,
    Connection(u8),
}

#[derive(Debug, Arbitrary, Clone, Copy)]
enum Kind {
    Create,
    Start,
    Exec,
    Watch,
}

/// What is handed over as a descriptor.
#[derive(Debug, Arbitrary)]
enum Thing {
    Null,
    Pipe,
    PipeIn,
    Directory,
    State,
    Root,
    Stream,
    Datagram,
    Listener,
    Unconnected,
    OwnEnd,
    Reply(u8),
    Pidfd,
    PathOnly,
    Event,
    Namespace(u8),
    Plan(Steps),
    Bytes(Vec<u8>),
    /// A plan that is cut short after it was sent.
    Shrinking(Steps),
    Huge,
    Empty,
}

#[derive(Debug, Arbitrary)]
struct Steps {
    launch: Rarely<LaunchStep>,
    parent: Rarely<Vec<ParentStep>>,
    before: Vec<Step>,
    after: Vec<Step>,
    gateless: Rarely<bool>,
    program: Program,
    hooks: Vec<(Where, HookStep)>,
    slots: Vec<Thing>,
    /// Other slots than the plan asks for: more, or fewer.
    wrong: Rarely<u8>,
}

#[derive(Debug, Arbitrary)]
enum LaunchStep {
    JoinForChild(u8),
    Join(u8),
    IntoCgroup(u8),
    ThroughUser(u8, u64),
}

#[derive(Debug, Arbitrary)]
enum ParentStep {
    DenySetgroups,
    UidMap(Vec<u8>),
    GidMap(Vec<u8>),
    Mapper(bool),
    Limit(u32, u64, u64),
    Oom(i32),
    /// A mount that the keeper makes, with mapped ids.
    Mapped(u8, u32),
}

#[derive(Debug, Arbitrary)]
enum Where {
    Hooks,
    Start,
    Poststart,
}

#[derive(Debug, Arbitrary)]
enum HookStep {
    True,
    False,
    Sleep(u8),
    Missing,
}

#[derive(Debug, Arbitrary)]
enum Program {
    True,
    Sleep,
    Dies,
    Missing,
    NotOne,
    None,
}

/// A path in the root, of few words, so that steps and litter meet.
#[derive(Debug, Arbitrary)]
struct Path_(Vec<Word>);

#[derive(Debug, Arbitrary)]
enum Word {
    Up,
    Here,
    Proc,
    Dev,
    Tmp,
    Bin,
    Link,
    Self_,
    Fd,
    Canary,
    Nothing,
    Long,
}

/// A step of the new process, in the root or about itself.
#[derive(Debug, Arbitrary)]
enum Step {
    Directory(Path_, u32),
    Symlink(Path_, Path_),
    Mount {
        kind: Filesystem,
        target: Path_,
        options: Vec<Vec<u8>>,
        bits: [u64; 4],
        propagation: u8,
        flags: u32,
    },
    Bind {
        shared: bool,
        target: Path_,
        bits: [u64; 4],
        propagation: u8,
        flags: u32,
    },
    Device(Path_, u32, bool),
    Readonly(Path_),
    Mask(Path_),
    Remount(Path_, [u64; 4], u8),
    ReadonlyRoot,
    RootPropagation(u8),
    Descriptor(u32, u8),
    Hostname(Vec<u8>),
    Domainname(Vec<u8>),
    Umask(u32),
    NoNewPrivileges,
    Bounding(u64),
    WorkingDirectory(Path_, u8),
    Personality(u64),
    NewSession,
    Loopback,
    Checkpoint,
    Odd(OddStep),
}

/// A step that any value but a few makes fail.
#[derive(Debug, Arbitrary)]
enum OddStep {
    Terminal(u32, u32, u8, u32),
    Seccomp(u64, Vec<u8>),
    Capabilities([u64; 4]),
    Label(u32, Vec<u8>),
    IoPriority(u32),
    Affinity(Vec<u32>),
    MemoryPolicy(u32, Vec<u32>),
    Join(u8),
    EnterCgroup(u8),
    Attach(Path_, u8, u32),
    User(u32, u32, Vec<u32>, bool),
}

#[derive(Debug, Arbitrary)]
enum Filesystem {
    Tmpfs,
    Proc,
    Devpts,
    Mqueue,
    Nonsense,
}

pub fn run(bytes: &[u8]) {
    let Ok(attack) = Unstructured::new(bytes).arbitrary::<Attack>() else { return };
    if crate::is_shown() {
        eprintln!("{attack:#?}");
    }
    if let Some(scene) = Scene::new(&attack.litter) {
        scene.play(&attack);
    }
}

/// A bundle with a canary beside its root, a keeper, and all ends of sockets to it.
struct Scene {
    bundle: Bundle,
    keeper: Keeper,
    connections: Vec<OwnedFd>,
    replies: Vec<OwnedFd>,
    /// What was handed over and is not needed any more.
    handed: Vec<OwnedFd>,
    asked_for_container: bool,
}

impl Scene {
    fn new(litter: &[(Path_, Litter)]) -> Option<Scene> {
        static ONCE: Once = Once::new();
        ONCE.call_once(prepare);
        let bundle = Bundle::new()?;
        fs::create_dir(bundle.path("canary")).expect("it is new");
        fs::write(bundle.path("canary/file"), "as it was").expect("it is new");
        fs::create_dir(bundle.path("shared")).expect("it is new");
        fs::write(bundle.path("shared/file"), "shared").expect("it is new");
        for (path, what) in litter.iter().take(8) {
            // Where it is in the way of what is there already, it stays away; and what leads to
            // it is a directory: through a link put here before, it would be litter elsewhere.
            let path = path.below(&bundle.root());
            let parent = path.parent().expect("it is below the root");
            if !fs::symlink_metadata(parent).is_ok_and(|it| it.is_dir()) {
                continue;
            }
            let _ = match what {
                Litter::Directory => fs::create_dir(&path),
                Litter::File => fs::File::create_new(&path).map(drop),
                Litter::Link(to) => std::os::unix::fs::symlink(to.text(), &path),
                Litter::Outside => std::os::unix::fs::symlink(bundle.path("canary"), &path),
                Litter::Fifo => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU)
                    .map_err(std::io::Error::from),
                Litter::Socket => std::os::unix::net::UnixListener::bind(&path).map(drop),
            };
        }
        Some(Scene {
            bundle,
            keeper: Keeper::new(As::Root),
            connections: Vec::new(),
            replies: Vec::new(),
            handed: Vec::new(),
            asked_for_container: false,
        })
    }

    fn play(mut self, attack: &Attack) {
        if let Some((plan, detached)) = &attack.first {
            self.create(plan, *detached);
        }
        for one in attack.moves.iter().take(24) {
            self.make(one);
        }
        self.listen();
        self.check_canary();
        self.end();
    }

    fn make(&mut self, one: &Move) {
        match one {
            Move::Garbage { bytes, descriptors, over } => {
                let things = self.things(descriptors);
                self.send(&bytes[..bytes.len().min(64)], things, over);
            }
            Move::Request { kind, flags, descriptors, over } => {
                let kind = match kind {
                    Kind::Create => RequestKind::Create,
                    Kind::Start => RequestKind::Start,
                    Kind::Exec => RequestKind::Exec,
                    Kind::Watch => RequestKind::Watch,
                };
                let mut things = vec![self.reply()];
                things.extend(self.things(descriptors));
                self.ask(kind, *flags, things, over);
            }
            Move::Create { plan, detached } => self.create(plan, *detached),
            Move::Exec { plan, over } => {
                let mut things = vec![self.reply(), memfd(&plan.encode(&self.bundle, true))];
                things.extend(self.slots(plan));
                self.ask(RequestKind::Exec, 0, things, over);
            }
            Move::Start { over } => {
                let reply = self.reply();
                self.ask(RequestKind::Start, 0, vec![reply], over);
            }
            Move::Watch { over } => {
                let reply = self.reply();
                self.ask(RequestKind::Watch, 0, vec![reply], over);
            }
            Move::Speak { reply, bytes, close } => {
                let Some(index) = pick(&self.replies, *reply) else { return };
                let _ = nix::sys::socket::send(
                    self.replies[index].as_raw_fd(),
                    &bytes[..bytes.len().min(64)],
                    nix::sys::socket::MsgFlags::MSG_DONTWAIT
                        | nix::sys::socket::MsgFlags::MSG_NOSIGNAL,
                );
                if *close {
                    self.replies.remove(index);
                }
            }
            Move::Connect => {
                if let Some(connection) = connect(&self.bundle.state().join("control")) {
                    self.connections.push(connection);
                }
            }
            Move::HangUp(which) => {
                if let Some(index) = pick(&self.connections, *which) {
                    self.connections.remove(index);
                }
            }
            Move::Wait => self.listen(),
        }
    }

    fn create(&mut self, plan: &Steps, detached: bool) {
        let state = fs::File::open(self.bundle.state()).expect("it is there");
        let mut things = vec![
            self.reply(),
            memfd(&plan.encode(&self.bundle, false)),
            pidfd(std::process::id() as i32),
            state.into(),
        ];
        let answered = self.replies.len() - 1;
        things.extend(self.slots(plan));
        let flags = if detached { locule_plan::protocol::create::DETACHED } else { 0 };
        self.ask(RequestKind::Create, flags, things, &Over::Born);
        self.asked_for_container = true;
        // Until then nothing else is read.
        self.await_reply(answered);
    }

    fn ask(&mut self, kind: RequestKind, flags: u32, things: Vec<OwnedFd>, over: &Over) {
        self.send(&Request { kind, flags }.encode(), things, over);
    }

    /// The descriptors that go with a plan, in most cases as many as it asks for.
    fn slots(&mut self, plan: &Steps) -> Vec<OwnedFd> {
        let mut slots = self.things(&plan.slots[..plan.slots.len().min(4)]);
        let wanted = plan.wrong.0.map_or(SLOTS, |wrong| usize::from(wrong % 6));
        slots.truncate(wanted);
        while slots.len() < wanted {
            slots.push(fs::File::open("/dev/null").expect("it is there").into());
        }
        slots
    }

    /// A new reply socket, of which our end is kept; the other one.
    fn reply(&mut self) -> OwnedFd {
        let (ours, theirs) = pair();
        self.replies.push(ours);
        theirs
    }

    fn send(&mut self, bytes: &[u8], things: Vec<OwnedFd>, over: &Over) {
        let socket = match over {
            Over::Born => &self.keeper.socket,
            Over::Connection(which) => match pick(&self.connections, *which) {
                Some(index) => &self.connections[index],
                None => &self.keeper.socket,
            },
        };
        try_send(socket, bytes, &things);
        // Shrinking: the last moment at which the keeper has surely not read it is past.
        self.handed = things;
    }

    fn things(&mut self, things: &[Thing]) -> Vec<OwnedFd> {
        let things = &things[..things.len().min(12)];
        things.iter().filter_map(|thing| self.thing(thing)).collect()
    }

    fn thing(&mut self, thing: &Thing) -> Option<OwnedFd> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket, socketpair};
        let flags = SockFlag::SOCK_CLOEXEC;
        let open = |path: &Path| fs::File::open(path).ok().map(OwnedFd::from);
        Some(match thing {
            Thing::Null => open(Path::new("/dev/null"))?,
            Thing::Pipe => harness::pipe().1,
            Thing::PipeIn => harness::pipe().0.into(),
            Thing::Directory => open(&self.bundle.path("shared"))?,
            Thing::State => open(&self.bundle.state())?,
            Thing::Root => open(&self.bundle.root())?,
            Thing::Stream => socketpair(AddressFamily::Unix, SockType::Stream, None, flags).ok()?.0,
            Thing::Datagram => {
                let (ours, theirs) =
                    socketpair(AddressFamily::Unix, SockType::Datagram, None, flags).ok()?;
                self.replies.push(ours);
                theirs
            }
            Thing::Listener => {
                let one = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).ok()?;
                let address = nix::sys::socket::UnixAddr::new_unnamed();
                nix::sys::socket::bind(one.as_raw_fd(), &address).ok()?;
                nix::sys::socket::listen(&one, nix::sys::socket::Backlog::new(1).ok()?).ok()?;
                one
            }
            Thing::Unconnected => {
                socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).ok()?
            }
            Thing::OwnEnd => self.keeper.socket.try_clone().ok()?,
            Thing::Reply(which) => self.replies[pick(&self.replies, *which)?].try_clone().ok()?,
            Thing::Pidfd => pidfd(std::process::id() as i32),
            Thing::PathOnly => {
                use std::os::unix::fs::OpenOptionsExt;
                let path_only = fs::File::options().read(true).custom_flags(libc::O_PATH).clone();
                path_only.open(self.bundle.root()).ok()?.into()
            }
            Thing::Event => nix::sys::eventfd::EventFd::new().ok()?.into(),
            // Those whose loss nobody would notice; the mount namespace is not among them.
            Thing::Namespace(which) => {
                let name = ["ipc", "net", "pid", "user", "cgroup", "time"];
                let name = name[usize::from(*which) % name.len()];
                open(&Path::new("/proc/self/ns").join(name))?
            }
            Thing::Plan(steps) => memfd(&steps.encode(&self.bundle, true)),
            Thing::Bytes(bytes) => memfd(bytes),
            Thing::Shrinking(steps) => {
                let file = unsealed(&steps.encode(&self.bundle, true));
                let other = file.try_clone().ok()?;
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_micros(200));
                    let _ = other.set_len(0);
                });
                file.into()
            }
            Thing::Huge => {
                let file = unsealed(b"LCPL");
                file.set_len(1 << 40).ok()?;
                file.into()
            }
            Thing::Empty => memfd(b""),
        })
    }

    /// Reads what has been answered. Every answer can be read.
    fn listen(&mut self) {
        std::thread::sleep(Duration::from_millis(1));
        for reply in &self.replies {
            while let Some(bytes) = receive(reply) {
                let answer = Reply::decode(&bytes);
                count(answer.unwrap_or_else(|| panic!("no reply: {bytes:02x?}")));
            }
        }
    }

    /// Waits until the request before has been answered, or the keeper has gone.
    fn await_reply(&mut self, which: usize) {
        let reply = &self.replies[which];
        use std::os::fd::AsFd;
        let mut entry = [PollFd::new(reply.as_fd(), PollFlags::POLLIN)];
        self.handed.clear();
        let patience = PollTimeout::try_from(PATIENCE).expect("it is short");
        let ready = poll(&mut entry, patience).expect("it is a socket");
        assert!(ready == 1, "a container was neither made nor refused in {PATIENCE:?}");
    }

    fn check_canary(&self) {
        let names: Vec<_> = fs::read_dir(self.bundle.path("canary"))
            .expect("it is there")
            .map(|entry| entry.expect("it is read").file_name())
            .collect();
        assert_eq!(names, ["file"], "the canary");
        let text = fs::read_to_string(self.bundle.path("canary/file"));
        assert_eq!(text.ok().as_deref(), Some("as it was"));
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("procfs is there");
        let base = self.bundle.path("");
        let base = base.to_str().expect("it is ASCII").trim_end_matches('/');
        assert!(!mounts.contains(base), "a mount was left:\n{mounts}");
    }

    /// Asks it to leave; before, it has to let go of what it does not need.
    fn end(mut self) {
        self.handed.clear();
        self.replies.clear();
        self.connections.clear();
        self.await_order();
        let (ours, theirs) = pair();
        let shutdown = Request { kind: RequestKind::Shutdown, flags: 0 };
        try_send(&self.keeper.socket, &shutdown.encode(), &[theirs]);
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.keeper.process.try_wait().expect("it is our child") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "the keeper does not leave"),
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        drop(ours);
        // 0: asked to leave, or nobody is left; 1: no container could be made. 134 is a panic.
        assert!(matches!(status.code(), Some(0 | 1)), "the keeper ended with {status}");
        orphans::reap();
    }

    /// Nobody waits for anything any more: a keeper has its own descriptors, three for each of
    /// its processes, and their plans.
    fn await_order(&mut self) {
        let proc = PathBuf::from(format!("/proc/{}", self.keeper.process.id()));
        let read = |name: &str| fs::read_to_string(proc.join(name)).unwrap_or_default();
        let deadline = Instant::now() + PATIENCE;
        while self.keeper.process.try_wait().expect("it is our child").is_none() {
            let Ok(open) = fs::read_dir(proc.join("fd")) else { continue };
            let open: Vec<_> = open.flatten().map(|entry| fs::read_link(entry.path())).collect();
            let maps = read("maps");
            // The keeper's image is a file of the same name, and lies low.
            let is_plan = |line: &&str| line.starts_with("7f") && line.contains("/memfd:test");
            let plans = maps.lines().filter(is_plan).count();
            let name = format!("task/{}/children", self.keeper.process.id());
            let children = read(&name).split_whitespace().count();
            // Standard streams, the socket and the epoll set; with a container the host, the
            // state directory and the listening socket.
            let own = if children == 0 && !self.asked_for_container { 5 } else { 8 };
            if open.len() <= own + 3 * children && plans <= children.max(1) {
                return;
            }
            assert!(Instant::now() < deadline, "{children} children, {open:?}\n{maps}");
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn pick<T>(all: &[T], which: u8) -> Option<usize> {
    (!all.is_empty()).then(|| usize::from(which) % all.len())
}

fn connect(path: &Path) -> Option<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
    let flags = SockFlag::SOCK_CLOEXEC;
    let one = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).ok()?;
    nix::sys::socket::connect(one.as_raw_fd(), &UnixAddr::new(path).ok()?).ok()?;
    Some(one)
}

/// A datagram that need not arrive: the other side may have gone, or may not read.
fn try_send(socket: &OwnedFd, bytes: &[u8], things: &[OwnedFd]) {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let raw: Vec<RawFd> = things.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let slices = [std::io::IoSlice::new(bytes)];
    let _ = sendmsg::<()>(socket.as_raw_fd(), &slices, control, flags, None);
}

/// The keeper is another program, whose paths the fuzzer does not see. So its answers are what
/// makes an input worth keeping: libFuzzer takes whatever is in this section for coverage.
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static ANSWERS: [AtomicU8; 8192] = [const { AtomicU8::new(0) }; 8192];

fn count(answer: Reply) {
    let place = match answer {
        Reply::Failed(failure) => {
            let what = usize::from(failure.operation) * 31 + usize::from(failure.detail);
            16 + (what * 131 + failure.errno as u8 as usize + failure.stream as usize * 7) % 8176
        }
        Reply::Hello { .. } => 0,
        Reply::Terminal => 1,
        Reply::Created { .. } => 2,
        Reply::Started { .. } => 3,
        Reply::Exited(exit) => 4 + usize::from(exit.signal != 0),
        Reply::State { phase, .. } => 6 + phase as usize,
        Reply::Done => 10,
    };
    if crate::is_shown() {
        eprintln!("{answer:?}");
    }
    ANSWERS[place].fetch_add(1, Ordering::Relaxed);
}

/// What has come, if anything. Descriptors that come with it are closed.
fn receive(socket: &OwnedFd) -> Option<Vec<u8>> {
    use nix::sys::socket::{MsgFlags, recv};
    let mut bytes = vec![0; 4096];
    let len = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).ok()?;
    bytes.truncate(len);
    (len > 0).then_some(bytes)
}

/// The processes of a keeper that dies become this process's, and should a step reach the mounts
/// or the name of the host in spite of all, they are not the machine's.
fn prepare() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    orphans::adopt();
    if unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).is_ok() {
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount::<str, str, str, str>(None, "/", None, flags, None).expect("they are its own");
    }
}

impl Path_ {
    fn text(&self) -> String {
        let words = self.0.iter().take(6).map(|word| match word {
            Word::Up => "..".to_owned(),
            Word::Here => ".".to_owned(),
            Word::Proc => "proc".to_owned(),
            Word::Dev => "dev".to_owned(),
            Word::Tmp => "tmp".to_owned(),
            Word::Bin => "bin".to_owned(),
            Word::Link => "link".to_owned(),
            Word::Self_ => "self".to_owned(),
            Word::Fd => "fd".to_owned(),
            Word::Canary => "canary".to_owned(),
            Word::Nothing => String::new(),
            Word::Long => "long".repeat(64),
        });
        format!("/{}", words.collect::<Vec<_>>().join("/"))
    }

    fn c(&self) -> CString {
        text(self.text().as_bytes())
    }

    /// In a root on the host, without the ways out.
    fn below(&self, root: &Path) -> PathBuf {
        let text = self.text();
        let names = text.split('/').filter(|name| !matches!(*name, "" | "." | ".."));
        names.take(2).fold(root.to_owned(), |path, name| path.join(name))
    }
}

/// Bytes as a text, up to a NUL.
fn text(bytes: &[u8]) -> CString {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    CString::new(&bytes[..bytes.len().min(300)]).expect("it has no NUL")
}

/// Attributes of a mount: mostly those that exist.
fn attributes(bits: u64) -> u64 {
    if bits >> 56 < 0xf0 { bits & 0x8f } else { bits }
}

fn propagation(choice: u8) -> u64 {
    let kinds = [0, libc::MS_PRIVATE, libc::MS_SLAVE, libc::MS_SHARED, libc::MS_UNBINDABLE];
    let kind = kinds[usize::from(choice) % kinds.len()];
    kind | if choice & 0x80 != 0 && kind != 0 { libc::MS_REC } else { 0 }
}

impl Steps {
    /// The plan. A container begins in namespaces of its own with a root of its own; what comes
    /// then is up to the fuzzer.
    fn encode(&self, bundle: &Bundle, is_exec: bool) -> Vec<u8> {
        let mut out = Builder::default();
        let kinds = join::MOUNT | join::PID | join::UTS | join::IPC | join::NETWORK;
        out.push(Stream::Launch, "", &Operation::NewNamespaces { flags: kinds });
        if let Some(step) = &self.launch.0 {
            let operation = match *step {
                LaunchStep::JoinForChild(slot) => {
                    Operation::JoinForChild { kind: join::PID, slot: (slot % 4).into() }
                }
                LaunchStep::Join(slot) => {
                    Operation::JoinNamespace { kind: join::NETWORK, slot: (slot % 4).into() }
                }
                LaunchStep::IntoCgroup(slot) => Operation::IntoCgroup { slot: (slot % 4).into() },
                LaunchStep::ThroughUser(slot, kinds) => {
                    Operation::ThroughUserNamespace { slot: (slot % 4).into(), kinds }
                }
            };
            out.push(Stream::Launch, "/launch", &operation);
        }
        for step in self.parent.0.iter().flatten().take(4) {
            step.push(&mut out, bundle);
        }
        out.push(
            Stream::Child,
            "",
            &Operation::Propagation { flags: libc::MS_REC | libc::MS_PRIVATE },
        );
        let path = c(bundle.root());
        out.push(Stream::Child, "/root", &Operation::Root { path: &path, kind: root::PIVOT });
        for step in self.before.iter().take(6) {
            step.push(&mut out, bundle, false);
        }
        out.push(Stream::Child, "", &Operation::Pivot {});
        for step in self.after.iter().take(6) {
            step.push(&mut out, bundle, true);
        }
        let (args, path): (&[&str], _) = match self.program {
            Program::True => (&["true"], c"/bin"),
            Program::Sleep => (&["sleep", "1000"], c"/bin"),
            Program::Dies => (&["sh", "-c", "kill -9 $$"], c"/bin"),
            Program::Missing => (&["absent"], c"/bin:/proc:/link"),
            Program::NotOne => (&["data"], c"/bin"),
            Program::None => (&[], c""),
        };
        if let Some(name) = args.first() {
            let name = text(name.as_bytes());
            out.push(Stream::Child, "/args/0", &Operation::Program { name: &name, path });
        }
        if !self.gateless.get() && !is_exec {
            out.push(Stream::Child, "", &Operation::Gate {});
        }
        for (place, hook) in self.hooks.iter().take(3) {
            hook.push(&mut out, place);
        }
        let env = list(&["PATH=/bin"]);
        let args = list(args);
        let exec = Operation::Exec { args: args.as_list(), env: env.as_list() };
        out.push(Stream::Start, "/args", &exec);
        out.finish(SLOTS as u32)
    }
}

impl ParentStep {
    fn push(&self, out: &mut Builder, bundle: &Bundle) {
        let none = OwnedList::default();
        let (map, source);
        let operation = match self {
            ParentStep::DenySetgroups => Operation::DenySetgroups {},
            ParentStep::UidMap(bytes) => {
                map = text(bytes);
                Operation::UidMap { map: &map }
            }
            ParentStep::GidMap(bytes) => {
                map = text(bytes);
                Operation::GidMap { map: &map }
            }
            ParentStep::Mapper(works) => Operation::RunIdMapper {
                program: if *works { c"/bin/true" } else { c"/bin/false" },
                args: none.as_list(),
            },
            ParentStep::Limit(resource, soft, hard) => {
                Operation::ResourceLimit { resource: *resource, soft: *soft, hard: *hard }
            }
            ParentStep::Oom(value) => Operation::OomScoreAdj { value: *value },
            ParentStep::Mapped(choice, flags) => {
                let map = c"0 100000 65536\n";
                let propagation = propagation(*choice);
                let mapped = Operation::IdMap { uid: map, gid: map, propagation };
                out.push(Stream::Parent, "/parent", &mapped);
                source = c(bundle.path("shared"));
                Operation::Bind {
                    source: &source,
                    target: c"/tmp",
                    set: 0,
                    clear: 0,
                    recursive_set: 0,
                    recursive_clear: 0,
                    propagation: 0,
                    flags: *flags,
                }
            }
        };
        out.push(Stream::Parent, "/parent", &operation);
    }
}

impl HookStep {
    fn push(&self, out: &mut Builder, place: &Where) {
        let stream = match place {
            Where::Hooks => Stream::Hooks,
            Where::Start => Stream::Start,
            Where::Poststart => Stream::Poststart,
        };
        let (path, args, timeout) = match self {
            HookStep::True => (c"/bin/true", list(&["true"]), 0),
            HookStep::False => (c"/bin/false", list(&["false"]), 1000),
            HookStep::Sleep(time) => {
                (c"/bin/sleep", list(&["sleep", "1000"]), u64::from(time % 20) + 1)
            }
            HookStep::Missing => (c"/bin/absent", list(&[]), 0),
        };
        let env = list(&["A=1"]);
        let hook = Operation::Hook {
            path,
            args: args.as_list(),
            env: env.as_list(),
            timeout,
            state_head: c"{\"pid\":",
            state_tail: c"}",
        };
        out.push(stream, "/hooks", &hook);
    }
}

impl Step {
    /// `inside`: the root is the container's already, so that a step about the process itself
    /// cannot mean the host's files.
    fn push(&self, out: &mut Builder, bundle: &Bundle, inside: bool) {
        let mut child = |operation: &Operation<'_>| out.push(Stream::Child, "/step", operation);
        match self {
            Step::Directory(path, mode) => {
                child(&Operation::Directory { path: &path.c(), mode: *mode });
            }
            Step::Symlink(path, target) => {
                child(&Operation::Symlink { path: &path.c(), target: &target.c() });
            }
            Step::Mount { kind, target, options, bits, propagation: choice, flags } => {
                let fstype = match kind {
                    Filesystem::Tmpfs => c"tmpfs",
                    Filesystem::Proc => c"proc",
                    Filesystem::Devpts => c"devpts",
                    Filesystem::Mqueue => c"mqueue",
                    Filesystem::Nonsense => c"nonsense",
                };
                let options: OwnedList = options.iter().take(4).map(|one| text(one)).collect();
                child(&Operation::Mount {
                    fstype,
                    source: fstype,
                    target: &target.c(),
                    options: options.as_list(),
                    set: attributes(bits[0]),
                    clear: attributes(bits[1]),
                    recursive_set: attributes(bits[2]),
                    recursive_clear: attributes(bits[3]),
                    propagation: propagation(*choice),
                    flags: *flags,
                });
            }
            Step::Bind { shared, target, bits, propagation: choice, flags } => {
                let source = bundle.path(if *shared { "shared" } else { "absent" });
                child(&Operation::Bind {
                    source: &c(source),
                    target: &target.c(),
                    set: attributes(bits[0]),
                    clear: attributes(bits[1]),
                    recursive_set: attributes(bits[2]),
                    recursive_clear: attributes(bits[3]),
                    propagation: propagation(*choice),
                    flags: *flags,
                });
            }
            // Null and zero: others would be ones of this machine.
            Step::Device(path, mode, zero) => child(&Operation::MakeDevice {
                path: &path.c(),
                mode: *mode,
                major: 1,
                minor: if *zero { 5 } else { 3 },
                uid: 0,
                gid: 0,
            }),
            Step::Readonly(path) => child(&Operation::ReadonlyPath { path: &path.c() }),
            Step::Mask(path) => child(&Operation::MaskPath { path: &path.c() }),
            // Without options: the filesystem that holds the root is the machine's.
            Step::Remount(path, bits, choice) => {
                let options = OwnedList::default();
                child(&Operation::Remount {
                    path: &path.c(),
                    options: options.as_list(),
                    set: attributes(bits[0]),
                    clear: attributes(bits[1]),
                    recursive_set: attributes(bits[2]),
                    recursive_clear: attributes(bits[3]),
                    propagation: propagation(*choice),
                });
            }
            Step::ReadonlyRoot => child(&Operation::ReadonlyRoot {}),
            Step::RootPropagation(choice) => {
                child(&Operation::RootPropagation { flags: propagation(*choice) });
            }
            Step::Descriptor(target, slot) => {
                child(&Operation::Descriptor { target: target % 10, slot: (slot % 4).into() });
            }
            Step::Hostname(name) => child(&Operation::Hostname { name: &text(name) }),
            Step::Domainname(name) => child(&Operation::Domainname { name: &text(name) }),
            Step::Umask(mask) => child(&Operation::Umask { mask: *mask }),
            Step::NoNewPrivileges => child(&Operation::NoNewPrivileges {}),
            Step::Bounding(mask) => child(&Operation::BoundingCapabilities { mask: *mask }),
            Step::WorkingDirectory(path, attempt) if inside => {
                let attempt = (attempt % 3).into();
                child(&Operation::WorkingDirectory { path: &path.c(), attempt });
            }
            Step::WorkingDirectory(..) => {}
            Step::Personality(persona) => child(&Operation::Personality { persona: *persona }),
            Step::NewSession => child(&Operation::NewSession {}),
            Step::Loopback => child(&Operation::LoopbackUp {}),
            Step::Checkpoint => child(&Operation::Checkpoint { network: 0 }),
            Step::Odd(step) => step.push(out),
        }
    }
}

impl OddStep {
    fn push(&self, out: &mut Builder) {
        let mut child = |operation: &Operation<'_>| out.push(Stream::Child, "/step", operation);
        match self {
            OddStep::Terminal(rows, columns, flags, uid) => child(&Operation::Terminal {
                rows: *rows,
                columns: *columns,
                flags: (*flags).into(),
                uid: *uid,
            }),
            OddStep::Seccomp(flags, program) => {
                child(&Operation::Seccomp { flags: *flags, program });
            }
            OddStep::Capabilities([effective, permitted, inheritable, ambient]) => {
                child(&Operation::Capabilities {
                    effective: *effective,
                    permitted: *permitted,
                    inheritable: *inheritable,
                    ambient: *ambient,
                });
            }
            OddStep::Label(kind, label) => {
                child(&Operation::SecurityLabel { kind: *kind, label: &text(label) });
            }
            OddStep::IoPriority(value) => child(&Operation::IoPriority { value: *value }),
            OddStep::Affinity(mask) => {
                let mask: OwnedNumbers = mask.iter().copied().collect();
                child(&Operation::Affinity { mask: mask.as_numbers() });
            }
            OddStep::MemoryPolicy(policy, nodes) => {
                let nodes: OwnedNumbers = nodes.iter().copied().collect();
                child(&Operation::MemoryPolicy { policy: *policy, nodes: nodes.as_numbers() });
            }
            OddStep::Join(slot) => {
                child(&Operation::JoinNamespace { kind: join::NETWORK, slot: (slot % 4).into() });
            }
            OddStep::EnterCgroup(slot) => {
                child(&Operation::EnterCgroup { slot: (slot % 4).into() })
            }
            OddStep::Attach(target, choice, flags) => child(&Operation::Attach {
                target: &target.c(),
                propagation: propagation(*choice),
                flags: *flags,
            }),
            OddStep::User(uid, gid, groups, keep) => {
                let groups: OwnedNumbers = groups.iter().copied().collect();
                child(&Operation::User {
                    uid: *uid,
                    gid: *gid,
                    groups: groups.as_numbers(),
                    keep_groups: (*keep).into(),
                });
            }
        }
    }
}

//! The keeper's memory and its event loop.
//!
//! Everything it waits for is a descriptor in one epoll set. It takes one event at a time,
//! so no event can be about something an earlier one has already put away.

use core::cell::UnsafeCell;

use locule_plan::protocol::{
    Exit, Failure, Gate, KEEPER_SOCKET, Phase, Reply, Text, WITHDRAW, detail,
};
use locule_plan::{Document, Operation, Step, Stream};

use crate::abi::*;
use crate::failure::Error;
use crate::interface::Interfaces;
use crate::hook::Place;
use crate::process::{Interrupts, dismiss, wait_status};
use crate::request;
use crate::socket::{self, Descriptors};
use crate::system::{self, Errno, Fd, Raw, Sys};
use crate::text::PathBuffer;
use crate::{cleanup, hook, idle, peer};

const PROCESSES: usize = 1024;
const WATCHERS: usize = 768;
const CONNECTIONS: usize = 1024;

/// A process the keeper is the parent of. The first one is the container's.
pub struct Process {
    pub pid: i32,
    pub pidfd: Option<Fd>,
    /// Open until the program runs.
    pub gate: Option<Fd>,
    /// Who waits for `Started`, and then, unless it is the first process, for `Exited`.
    pub answer: Option<Fd>,
    pub plan: Option<Plan>,
    /// What is to be seen off with it.
    pub agent: Option<Fd>,
}

/// A plan in memory.
#[derive(Clone, Copy)]
pub struct Plan {
    pub bytes: &'static [u8],
    pub document: Document<'static>,
}

impl Process {
    const NONE: Process =
        Process { pid: 0, pidfd: None, gate: None, answer: None, plan: None, agent: None };
}

/// All zero at first, and touched only as far as it is used. The small things come first and
/// the large tables last, so that a container with few processes needs one page of it.
#[repr(C)]
pub struct Keeper {
    epoll: Option<Fd>,
    control: Option<Fd>,
    pub host: Option<Fd>,
    /// The container's state directory.
    pub state: Option<Fd>,
    /// The socket the keeper was born with, while its other end is open.
    born: Option<Fd>,
    pub detached: bool,
    /// 0 until there is a container, then its phase and one.
    phase: u32,
    exit: Exit,
    /// There was no room for a connection, so those to come wait until there may be.
    deaf: bool,
    watchers: [Option<Fd>; WATCHERS],
    pub processes: [Process; PROCESSES],
    connections: [Option<Fd>; CONNECTIONS],
    /// Those moved by a creation that may still turn out to have failed.
    pub interfaces: Interfaces,
}

struct Cell(UnsafeCell<Keeper>);
// SAFETY: there is one thread.
unsafe impl Sync for Cell {}

static KEEPER: Cell = Cell(UnsafeCell::new(Keeper {
    epoll: None,
    control: None,
    host: None,
    state: None,
    born: None,
    detached: false,
    phase: 0,
    exit: Exit { code: 0, signal: 0, core: 0 },
    deaf: false,
    processes: [const { Process::NONE }; PROCESSES],
    watchers: [const { None }; WATCHERS],
    connections: [const { None }; CONNECTIONS],
    interfaces: Interfaces::NONE,
}));

/// What an event is about: a kind, and an index in the kind's table.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Source {
    Born,
    Control,
    Host,
    Connection,
    Watcher,
    Gate,
    Process,
    Answer,
}

fn tag(source: Source, index: usize) -> u64 {
    (source as u64) << 32 | index as u64
}

/// Serves requests until there is no reason to.
pub fn serve() -> ! {
    // SAFETY: called once, by the only thread; nothing else takes a reference.
    let keeper = unsafe { &mut *KEEPER.0.get() };
    keeper.born = Fd::new(KEEPER_SOCKET);
    let Ok(epoll) = system::epoll_create() else { system::exit(1) };
    keeper.epoll = Some(epoll);
    keeper.watch_for(KEEPER_SOCKET, EPOLLIN, Source::Born, 0);
    loop {
        let mut event = EpollEvent { events: 0, data: 0 };
        let plan = keeper.processes[0].plan.map_or(&[][..], |plan| plan.bytes);
        if !idle::wait(keeper.epoll(), &mut event, plan) {
            continue;
        }
        let (source, index) = ((event.data >> 32) as u32, event.data as u32 as usize);
        keeper.handle(source, index);
    }
}

impl Keeper {
    fn epoll(&self) -> Raw {
        self.epoll.as_ref().map_or(-1, Fd::raw)
    }

    fn watch_for(&self, fd: Raw, events: u32, source: Source, index: usize) {
        let _ = system::epoll_add(self.epoll(), fd, events, tag(source, index));
    }

    /// Takes a descriptor out of the set and closes it. A process that is just being created
    /// may have a copy of it, so closing alone would not take it out.
    fn put_away(epoll: Raw, fd: &mut Option<Fd>) {
        if let Some(fd) = fd.take() {
            system::epoll_remove(epoll, fd.raw());
        }
    }

    fn handle(&mut self, source: u32, index: usize) {
        let epoll = self.epoll();
        match source {
            x if x == Source::Born as u32 => {
                if !request::serve(self, KEEPER_SOCKET, true) {
                    Self::put_away(epoll, &mut self.born);
                    // Nobody can ask for a container any more.
                    if self.phase == 0 {
                        system::exit(0);
                    }
                    if self.host.is_none() && !self.detached {
                        self.host_is_gone();
                    }
                }
            }
            x if x == Source::Control as u32 => self.accept(),
            x if x == Source::Host as u32 => self.host_is_gone(),
            x if x == Source::Connection as u32 => {
                let Some(raw) = self.connections[index].as_ref().map(Fd::raw) else { return };
                if !request::serve(self, raw, false) {
                    Self::put_away(epoll, &mut self.connections[index]);
                }
            }
            x if x == Source::Watcher as u32 => Self::put_away(epoll, &mut self.watchers[index]),
            x if x == Source::Gate as u32 => {
                if !self.hear(index) {
                    self.gate_closed(index);
                }
            }
            x if x == Source::Process as u32 => self.ended(index),
            _ => self.answer_closed(index),
        }
        // Whatever it was may have made room.
        if self.deaf && source != Source::Control as u32 {
            self.deaf = false;
            if let Some(control) = self.control.as_ref().map(Fd::raw) {
                self.watch_for(control, EPOLLIN, Source::Control, 0);
            }
        }
    }

    /// Who waits for the answer goes away, and takes the process along if it says so.
    fn answer_closed(&mut self, index: usize) {
        let process = &self.processes[index];
        if let (1.., Some(answer), Some(pidfd)) = (index, &process.answer, &process.pidfd) {
            let (mut word, mut none) = ([0], Descriptors::none());
            let mut hear = || socket::receive(answer.raw(), &mut word, &mut none, MSG_DONTWAIT);
            // That the other side has not read everything is an error, and comes first.
            let said = hear().or_else(|_| hear());
            // Without a word before the program runs, the caller was told that it will not.
            if said == Ok(1) && word == [WITHDRAW] || process.gate.is_some() {
                let _ = system::pidfd_send_signal(pidfd.raw(), SIGKILL);
            }
        }
        self.end_answer(index);
    }

    /// Where the first process is; `None` before there was one.
    pub fn phase(&self) -> Option<Phase> {
        [Phase::Creating, Phase::Created, Phase::Running, Phase::Stopped]
            .into_iter()
            .find(|&phase| phase as u32 + 1 == self.phase)
    }

    pub fn set_phase(&mut self, phase: Phase) {
        self.phase = phase as u32 + 1;
    }

    pub fn last_exit(&self) -> Exit {
        self.exit
    }

    /// Begins to listen and to look after the host.
    pub fn settle(&mut self, control: Option<Fd>) {
        if let Some(control) = control {
            self.watch_for(control.raw(), EPOLLIN, Source::Control, 0);
            self.control = Some(control);
        }
        if let Some(host) = &self.host {
            self.watch_for(host.raw(), EPOLLIN, Source::Host, 0);
        }
    }

    /// Who else might end while something is waited for.
    pub fn interrupts(&self, reply: Raw) -> Interrupts {
        if self.detached {
            return Interrupts { reply, ..Interrupts::NONE };
        }
        match &self.host {
            Some(host) => Interrupts { host: host.raw(), host_is_pidfd: true, reply },
            None => Interrupts {
                host: self.born.as_ref().map_or(-1, Fd::raw),
                host_is_pidfd: false,
                reply,
            },
        }
    }

    fn accept(&mut self) {
        let Some(control) = self.control.as_ref().map(Fd::raw) else { return };
        let free = self.connections.iter().position(Option::is_none);
        let accepted = match free {
            Some(_) => system::accept(control),
            None => Err(Errno::EAGAIN),
        };
        let Ok(connection) = accepted else {
            // It stays ready, and would be asked again without a pause.
            system::epoll_remove(self.epoll(), control);
            self.deaf = true;
            return;
        };
        if let (true, Some(index)) = (peer::may_ask(connection.raw()), free) {
            self.watch_for(connection.raw(), EPOLLIN, Source::Connection, index);
            self.connections[index] = Some(connection);
        }
    }

    pub fn has_room_for_watcher(&self) -> bool {
        self.watchers.iter().any(Option::is_none)
    }

    /// Keeps a reply socket until the first process ends, if there is room.
    pub fn add_watcher(&mut self, reply: Fd) {
        let Some(index) = self.watchers.iter().position(Option::is_none) else { return };
        self.watch_for(reply.raw(), EPOLLRDHUP, Source::Watcher, index);
        self.watchers[index] = Some(reply);
    }

    /// A free place for a process that is executed in the container.
    pub fn free_place(&self) -> Option<usize> {
        (1..PROCESSES).find(|&index| self.processes[index].pid == 0)
    }

    /// Starts to look after a process.
    pub fn adopt(&mut self, index: usize, process: Process) {
        if let Some(pidfd) = &process.pidfd {
            self.watch_for(pidfd.raw(), EPOLLIN, Source::Process, index);
        }
        if let Some(gate) = &process.gate {
            self.watch_for(gate.raw(), EPOLLIN, Source::Gate, index);
        }
        self.processes[index] = process;
        self.watch_answer(index);
    }

    /// Gives the process someone who waits for it.
    pub fn set_answer(&mut self, index: usize, answer: Fd) {
        self.processes[index].answer = Some(answer);
        self.watch_answer(index);
    }

    fn watch_answer(&self, index: usize) {
        if let Some(answer) = &self.processes[index].answer {
            self.watch_for(answer.raw(), EPOLLRDHUP, Source::Answer, index);
        }
    }

    fn answer(&self, index: usize, reply: &Reply, descriptor: Option<Raw>) {
        let answer = self.processes[index].answer.as_ref().map(Fd::raw);
        socket::reply(answer, reply, descriptor);
    }

    fn end_answer(&mut self, index: usize) {
        let epoll = self.epoll();
        Self::put_away(epoll, &mut self.processes[index].answer);
    }

    /// Takes one message of a process that has not come to its program yet. False when the
    /// gate is closed.
    fn hear(&mut self, index: usize) -> bool {
        let Some(gate) = self.processes[index].gate.as_ref().map(Fd::raw) else { return true };
        let mut buffer = [0; Reply::MAX_SIZE];
        let mut descriptors = Descriptors::none();
        let len = match socket::receive(gate, &mut buffer, &mut descriptors, MSG_DONTWAIT) {
            Ok(len @ 1..) => len,
            Err(Errno::EAGAIN) => return true,
            _ => return false,
        };
        match Gate::decode(&buffer[..len]) {
            Some(Gate::Terminal) => {
                if let Some(master) = descriptors.take(0) {
                    self.answer(index, &Reply::Terminal, Some(master.raw()));
                }
            }
            // Nobody has to ask for the start of an executed process.
            Some(Gate::Ready) => {
                let _ = socket::say(gate, Gate::Open, None);
            }
            Some(Gate::Checkpoint) => match self.run_hooks(index, Stream::Hooks) {
                Ok(()) => {
                    let _ = socket::say(gate, Gate::Proceed, None);
                }
                Err(failure) => self.give_up(index, &failure),
            },
            _ => {
                if let Some(Reply::Failed(failure)) = Reply::decode(&buffer[..len]) {
                    self.give_up(index, &failure);
                }
            }
        }
        true
    }

    /// Reports a failure and makes sure that the process ends.
    fn give_up(&mut self, index: usize, failure: &Failure) {
        self.answer(index, &Reply::Failed(*failure), None);
        self.end_answer(index);
        if let Some(pidfd) = &self.processes[index].pidfd {
            let _ = system::pidfd_send_signal(pidfd.raw(), SIGKILL);
        }
    }

    /// The gate closes when the program is executed, and when the process dies before.
    fn gate_closed(&mut self, index: usize) {
        let epoll = self.epoll();
        Self::put_away(epoll, &mut self.processes[index].gate);
        // It had the gate, too, so it has done its work.
        dismiss(self.processes[index].agent.take());
        let pidfd = self.processes[index].pidfd.as_ref().map_or(-1, Fd::raw);
        if let Some(status) = died_before_exec(pidfd, self.processes[index].pid) {
            let error = Error::new(detail::DIED, Errno(status));
            self.give_up(index, &error.bare_frame(Stream::Start));
            return;
        }
        if index == 0 {
            if self.phase() != Some(Phase::Created) {
                return;
            }
            self.set_phase(Phase::Running);
            if let Err(failure) = self.run_hooks(0, Stream::Poststart) {
                self.give_up(0, &failure);
                return;
            }
        }
        let pid = self.processes[index].pid;
        self.answer(index, &Reply::Started { pid }, Some(pidfd));
        if index == 0 {
            self.end_answer(0);
        }
    }

    /// Runs the hooks of a stream.
    pub fn run_hooks(&mut self, index: usize, stream: Stream) -> Result<(), Failure> {
        let process = &self.processes[index];
        let Some(plan) = process.plan else { return Ok(()) };
        let reply = process.answer.as_ref().map_or(-1, Fd::raw);
        run_hooks(&plan.document, stream, process.pid, &self.interrupts(reply))
    }

    /// A process has ended. What it said before is heard first.
    fn ended(&mut self, index: usize) {
        dismiss(self.processes[index].agent.take());
        while self.processes[index].gate.is_some() {
            if !self.hear(index) {
                self.gate_closed(index);
            }
        }
        let epoll = self.epoll();
        let Some(pidfd) = self.processes[index].pidfd.as_ref().map(Fd::raw) else { return };
        let Ok(info) = system::waitid(pidfd, WEXITED) else { return };
        Self::put_away(epoll, &mut self.processes[index].pidfd);
        let exit = exit_of(&info);
        if index == 0 {
            self.exit = exit;
            self.set_phase(Phase::Stopped);
            // A start that was asked for while it died has been answered above.
            for watcher in &mut self.watchers {
                if let Some(reply) = watcher {
                    socket::reply(Some(reply.raw()), &Reply::Exited(exit), None);
                    Self::put_away(epoll, watcher);
                }
            }
            return;
        }
        self.answer(index, &Reply::Exited(exit), None);
        self.end_answer(index);
        self.release(index);
    }

    /// Frees the place of an executed process.
    fn release(&mut self, index: usize) {
        let process = core::mem::replace(&mut self.processes[index], Process::NONE);
        if let Some(plan) = process.plan {
            // SAFETY: the process held the last reference; the documents handed out by it
            // lived no longer than the calls they were handed to.
            unsafe { system::unmap(plan.bytes) };
        }
    }

    /// Kills and reaps every process, and tells those who wait.
    pub fn kill_all(&mut self) {
        for process in &self.processes {
            if let Some(pidfd) = &process.pidfd {
                let _ = system::pidfd_send_signal(pidfd.raw(), SIGKILL);
            }
        }
        // The first process last: if it is the init of a pid namespace, it cannot end before
        // the others in there have been reaped, which only their parent, the keeper, can do.
        for index in (0..PROCESSES).rev() {
            let Some(pidfd) = self.processes[index].pidfd.as_ref().map(Fd::raw) else { continue };
            // A process in uninterruptible sleep must not hold the others up for ever.
            let mut entry = [PollFd::readable(pidfd)];
            if system::poll(&mut entry, Some(TimeSpec::from_milliseconds(10_000))) == Ok(1) {
                self.ended(index);
            }
        }
    }

    /// The host has died: a container that was not detached goes with it.
    pub fn host_is_gone(&mut self) {
        let epoll = self.epoll();
        Self::put_away(epoll, &mut self.host);
        if self.detached {
            return;
        }
        let pid = self.processes[0].pid;
        self.kill_all();
        if let Some(plan) = self.processes[0].plan {
            clean_up(&plan.document, self.state.as_ref(), pid);
        }
        system::exit(0);
    }
}

/// Whether a process whose gate is closed has died without reaching its program, and then
/// its wait status. One that fails says so before it exits, so only a death by a signal
/// leaves a doubt; the name of the dead tells whether exec had given it a new one.
pub fn died_before_exec(pidfd: Raw, pid: i32) -> Option<i32> {
    let info = system::waitid(pidfd, WEXITED | WNOHANG | WNOWAIT).ok()?;
    if info.pid == 0 || info.code == CLD_EXITED && info.status != 127 && info.status != 1 {
        return None;
    }
    let mut path = PathBuffer::<32>::new();
    let mut name = [0; 16];
    let len = path
        .push(b"/proc/")
        .and_then(|()| path.push_number(pid as u64))
        .and_then(|()| path.push(b"/comm"))
        .and_then(|()| system::openat(AT_FDCWD, path.as_cstr(), O_RDONLY, 0))
        .and_then(|file| system::read(file.raw(), &mut name))
        .unwrap_or(0);
    (&name[..len] == b"locule-init\n").then(|| wait_status(&info))
}

/// Runs the hooks of a stream; the first that fails ends it.
pub fn run_hooks(
    document: &Document<'static>,
    stream: Stream,
    pid: i32,
    interrupts: &Interrupts,
) -> Result<(), Failure> {
    document.stream(stream).flatten().try_for_each(|step| run_hook(stream, &step, pid, interrupts))
}

/// Runs one hook.
pub fn run_hook(
    stream: Stream,
    step: &Step<'_>,
    pid: i32,
    interrupts: &Interrupts,
) -> Result<(), Failure> {
    let result = match step.operation {
        Operation::Hook { .. } => hook::run(&step.operation, pid, &Place::HOST, interrupts),
        _ => Err(Errno::EINVAL.into()),
    };
    result.map_err(|error| error.frame(stream, step))
}

/// Carries out the Cleanup stream; what fails does not keep the rest from being done. `state` is
/// the state directory of the container that is meant: its paths may be another's by now.
pub fn clean_up(document: &Document<'static>, state: Option<&Fd>, pid: i32) {
    let removes = |step: &Step<'static>| match step.operation {
        Operation::RemoveState { path } => Some(path),
        _ => None,
    };
    let path = document.stream(Stream::Cleanup).flatten().find_map(|step| removes(&step));
    if let (Some(path), Some(state)) = (path, state)
        && !cleanup::may_clean(state.raw(), path)
    {
        return;
    }
    for step in document.stream(Stream::Cleanup).flatten() {
        let _ = match step.operation {
            Operation::KillCgroup { path } => cleanup::kill_cgroup(path),
            Operation::RemoveCgroup { path } => cleanup::remove_cgroup(path),
            Operation::RemoveResctrlGroup { path } => cleanup::remove_resctrl_group(path),
            Operation::RemoveState { path } => cleanup::remove_state(path),
            Operation::Hook { .. } => hook::run(&step.operation, pid, &Place::HOST, &Interrupts::NONE),
            _ => Ok(()),
        };
    }
}

fn exit_of(info: &SigInfo) -> Exit {
    match info.code {
        CLD_EXITED => Exit { code: info.status, signal: 0, core: 0 },
        code => Exit { code: 0, signal: info.status, core: (code == CLD_DUMPED).into() },
    }
}

/// A failure that is about a request, not about a step of a plan.
pub fn refusal(what: u16, errno: Errno) -> Reply {
    Reply::Failed(Failure {
        stream: Stream::Launch as u32,
        operation: 0,
        detail: what,
        errno: system::with_call(errno.0),
        pointer: Text::EMPTY,
        subject: Text::EMPTY,
    })
}

/// Maps a plan and checks all of it.
pub fn read_plan(file: Raw) -> Result<Plan, Reply> {
    let map = || -> Sys<&'static [u8]> {
        let len = system::stat(file)?.size as usize;
        system::map_file(file, len)
    };
    let bytes = map().map_err(|errno| refusal(detail::MALFORMED_PLAN, errno))?;
    let document = Document::parse(bytes).and_then(|document| document.check().map(|()| document));
    document.map(|document| Plan { bytes, document }).map_err(|_| {
        // SAFETY: the document that refers to it has come to nothing.
        unsafe { system::unmap(bytes) };
        refusal(detail::MALFORMED_PLAN, Errno::EINVAL)
    })
}

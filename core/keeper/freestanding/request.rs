//! What the keeper is asked to do. `Create` is done while the asker waits; everything else
//! is begun here and goes on in the event loop.

use locule_plan::protocol::{
    CONTROL_NAME, Failure, GATE_NAME, Gate, Phase, Reply, Request, RequestKind, create as flag,
    detail, shutdown, watch as watch_flag,
};
use locule_plan::{Operation, Stream, VERSION};

use crate::abi::*;
use crate::agent;
use crate::failure::Error;
use crate::hook::{self, Place};
use crate::keeper::{
    Keeper, Plan, Process, clean_up, died_before_exec, read_plan, refusal, run_hook, run_hooks,
};
use crate::interface::Interfaces;
use crate::procfs;
use crate::process::{Interrupts, Launched, Mode, Order, Refused, abandon, launch, wait_status};
use crate::socket::{self, Descriptors};
use crate::system::{self, Errno, Fd, Raw};

/// Receives one request and serves it. False when there will be no more.
pub fn serve(keeper: &mut Keeper, socket: Raw, born: bool) -> bool {
    let mut bytes = [0; Request::SIZE + 1];
    let mut descriptors = Descriptors::none();
    let len = match socket::receive(socket, &mut bytes, &mut descriptors, MSG_DONTWAIT) {
        // An empty datagram looks the same, and is only another that says nothing.
        Ok(0) if hung_up(socket) => return false,
        Ok(len) => len,
        Err(Errno::EAGAIN) => return true,
        Err(Errno::EINVAL) => {
            // There was no number left for some of its descriptors.
            let reply = descriptors.take(0);
            send(reply.as_ref(), &refusal(detail::TOO_MANY, Errno::EMFILE), None);
            return true;
        }
        Err(_) => return false,
    };
    // Anything else would not tell when its other side is closed, and be kept for ever.
    let reply = descriptors.take(0).filter(|reply| system::is_socket(reply.raw(), SOCK_SEQPACKET));
    let Some(request) = Request::decode(&bytes[..len]) else {
        // The other side speaks another version: tell ours, which says enough.
        hello(reply.as_ref());
        if keeper.phase().is_none() {
            system::exit(1);
        }
        return true;
    };
    match request.kind {
        RequestKind::Create if born && keeper.phase().is_none() => {
            create(keeper, request.flags, reply, &mut descriptors);
        }
        RequestKind::Hooks if born && keeper.phase().is_none() => {
            let plan = descriptors.take(1);
            hooks(reply.as_ref(), plan);
            system::exit(0);
        }
        RequestKind::Start if keeper.phase().is_some() => start(keeper, reply),
        RequestKind::Exec if keeper.phase().is_some() => exec(keeper, reply, &mut descriptors),
        RequestKind::Watch if keeper.phase().is_some() => watch(keeper, request.flags, reply),
        RequestKind::Shutdown => {
            keeper.kill_all();
            if request.flags & shutdown::UNDO != 0 {
                keeper.interfaces.put_back();
            }
            send(reply.as_ref(), &Reply::Done, None);
            system::exit(0);
        }
        _ => send(reply.as_ref(), &refusal(detail::WRONG_STATE, Errno::EINVAL), None),
    }
    true
}

fn send(to: Option<&Fd>, reply: &Reply, descriptor: Option<Raw>) {
    socket::reply(to.map(Fd::raw), reply, descriptor);
}

fn hello(to: Option<&Fd>) {
    send(to, &Reply::Hello { version: VERSION, pid: system::getpid() }, None);
}

/// Runs hooks of a container that has no keeper: of its start, up to the first that fails, and those
/// of its end, of which one that fails keeps no other from running.
fn hooks(reply: Option<&Fd>, file: Option<Fd>) {
    let plan = file
        .ok_or(refusal(detail::MISSING_DESCRIPTOR, Errno::EBADF))
        .and_then(|file| read_plan(file.raw()));
    match plan {
        Err(failure) => send(reply, &failure, None),
        Ok(plan) => {
            let waiting = Interrupts { reply: reply.map_or(-1, Fd::raw), ..Interrupts::NONE };
            if let Err(failure) = run_hooks(&plan.document, Stream::Poststart, 0, &waiting) {
                send(reply, &Reply::Failed(failure), None);
            }
            for step in plan.document.stream(Stream::Hooks).flatten() {
                if let Operation::Hook { .. } = step.operation
                    && let Err(error) = hook::run(&step.operation, 0, &Place::HOST, &Interrupts::NONE)
                {
                    send(reply, &Reply::Failed(error.frame(Stream::Hooks, &step)), None);
                }
            }
        }
    }
    send(reply, &Reply::Done, None);
}

/// Why a container could not be created, and who is to blame.
enum Ending {
    Refused(Refused),
    Reply(Reply),
    /// The host is dead, or does not want it any more.
    Abandoned,
}

fn create(keeper: &mut Keeper, flags: u32, reply: Option<Fd>, descriptors: &mut Descriptors) {
    keeper.detached = flags & flag::DETACHED != 0;
    let mode = match flags {
        flags if flags & flag::CHILD != 0 => Mode::Child,
        flags if flags & flag::ORPHAN != 0 => Mode::Orphan,
        _ => Mode::Keeper,
    };
    let plan = descriptors
        .take(1)
        .ok_or(refusal(detail::MISSING_DESCRIPTOR, Errno::EBADF))
        .and_then(|file| read_plan(file.raw()));
    let known = plan.as_ref().ok().copied();
    let ending = match plan {
        Ok(plan) => match build(keeper, mode, plan, reply.as_ref(), descriptors) {
            // Nobody knows yet of a container whose creator is dead, also of a detached one.
            Ok((launched, _)) if !announced(&launched, reply.as_ref()) => {
                abandon(launched, mode);
                Ending::Abandoned
            }
            Ok((launched, phase)) => {
                if mode != Mode::Keeper {
                    system::exit(0);
                }
                if system::geteuid() != 0 {
                    let _ = system::prctl(PR_SET_DUMPABLE, 0, 0);
                }
                keeper.set_phase(phase);
                let gate = (phase == Phase::Created).then_some(launched.gate);
                keeper.adopt(
                    0,
                    Process {
                        pid: launched.pid,
                        pidfd: Some(launched.pidfd),
                        gate,
                        answer: None,
                        plan: Some(plan),
                        agent: launched.agent,
                    },
                );
                if let Some(reply) = reply {
                    keeper.add_watcher(reply);
                }
                return;
            }
            Err(ending) => ending,
        },
        Err(reply) => Ending::Reply(reply),
    };
    keeper.interfaces.put_back();
    // What was broken off because someone ended, rather than failed.
    let mut ended = matches!(ending, Ending::Abandoned);
    match ending {
        Ending::Refused(refused) => {
            ended |= refused.failure.errno == Errno::ECANCELED.0;
            let pidfd = refused.pidfd.as_ref().map(Fd::raw);
            send(reply.as_ref(), &Reply::Failed(refused.failure), pidfd);
        }
        Ending::Reply(failure) => send(reply.as_ref(), &failure, None),
        Ending::Abandoned => {}
    }
    drop(reply);
    // A host that is alive undoes what it had made ready. One that dies closes its sockets
    // before its end can be seen, so after an end of the former kind the latter gets time.
    let patience = if ended { HOST_ENDS } else { 0 };
    if let Some(plan) = known
        && host_died(keeper, patience)
    {
        clean_up(&plan.document, keeper.state.as_ref(), 0);
    }
    system::exit(1);
}

/// Says that there is a container.
fn announced(launched: &Launched, reply: Option<&Fd>) -> bool {
    let created = Reply::Created { pid: launched.pid };
    let pidfd = Some(launched.pidfd.raw());
    reply.is_some_and(|reply| socket::try_reply(reply.raw(), &created, pidfd).is_ok())
}

/// How long a process may take from closing its sockets to being dead, in milliseconds.
const HOST_ENDS: u64 = 300;

/// Whether the host is dead, or will be in a moment.
fn host_died(keeper: &Keeper, patience: u64) -> bool {
    let [mut host, _] = keeper.interrupts(-1).entries();
    let patience = TimeSpec::from_milliseconds(patience);
    host.fd >= 0 && system::poll(core::slice::from_mut(&mut host), Some(patience)) == Ok(1)
}

/// Creates the first process and brings it to the gate.
fn build(
    keeper: &mut Keeper,
    mode: Mode,
    plan: Plan,
    reply: Option<&Fd>,
    descriptors: &mut Descriptors,
) -> Result<(Launched, Phase), Ending> {
    let missing = || Ending::Reply(refusal(detail::MISSING_DESCRIPTOR, Errno::EBADF));
    let unheard = |errno| Ending::Reply(refusal(detail::LISTEN, errno));
    // The host's pidfd is left out, or something else, where it could not be had.
    let slots = plan.document.slots() as usize;
    let without = descriptors.len() == slots + 3;
    if !without && descriptors.len() != slots + 4 {
        return Err(missing());
    }
    if !without {
        let host = descriptors.take(2).ok_or_else(missing)?;
        if system::pidfd_send_signal(host.raw(), 0) != Err(Errno::EBADF) {
            keeper.host = Some(host);
        }
    }
    let state = if without { 2 } else { 3 };
    let directory = descriptors.take(state).ok_or_else(missing)?;
    let name = if mode == Mode::Keeper { CONTROL_NAME } else { GATE_NAME };
    let directory = keeper.state.insert(directory);
    let listener = socket::listen(directory.raw(), name).map_err(unheard)?;
    let order = Order {
        plan: plan.document,
        slots: descriptors.rest(state + 1),
        mode,
        listener: (mode != Mode::Keeper).then(|| listener.raw()),
        by_root: system::geteuid() == 0,
    };
    let interrupts = keeper.interrupts(reply.map_or(-1, Fd::raw));
    let mut launched = launch(&order, &interrupts).map_err(Ending::Refused)?;
    let interfaces = &mut keeper.interfaces;
    let phase = match escort(&mut launched, &order, &plan, reply, &interrupts, interfaces) {
        Ok(phase) => phase,
        Err(mut ending) => {
            let pidfd = abandon(launched, mode);
            if let Ending::Refused(refused) = &mut ending {
                refused.pidfd = pidfd;
            }
            return Err(ending);
        }
    };
    keeper.settle((mode == Mode::Keeper).then_some(listener));
    Ok((launched, phase))
}

/// Serves the process until it is at the gate, or at its program if its plan has no gate.
fn escort(
    launched: &mut Launched,
    order: &Order<'_>,
    plan: &Plan,
    reply: Option<&Fd>,
    interrupts: &Interrupts,
    interfaces: &mut Interfaces,
) -> Result<Phase, Ending> {
    let gate = launched.gate.raw();
    let refused = |failure| Ending::Refused(Refused { failure, pidfd: None });
    loop {
        let [host, asker] = interrupts.entries();
        let mut entries = [PollFd::readable(gate), host, asker];
        match system::poll(&mut entries, None) {
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(Ending::Reply(refusal(detail::PLAIN, errno))),
            Ok(_) => {}
        }
        if entries[0].revents == 0 {
            return Err(Ending::Abandoned);
        }
        let mut buffer = [0; Reply::MAX_SIZE];
        let mut descriptors = Descriptors::none();
        let len = socket::receive(gate, &mut buffer, &mut descriptors, 0).unwrap_or(0);
        if len == 0 {
            let status = if has_gate(plan) {
                Some(status_of_dead(launched.pidfd.raw()))
            } else {
                died_before_exec(launched.pidfd.raw(), launched.pid)
            };
            return match status {
                None => Ok(Phase::Running),
                Some(status) => {
                    let error = Error::new(detail::DIED, Errno(status));
                    Err(refused(error.bare_frame(Stream::Child)))
                }
            };
        }
        match Gate::decode(&buffer[..len]) {
            Some(Gate::Ready) => {
                // A filter that is installed already has its listener handed over by now, or
                // its agent says why not.
                if agent::step_of(order).is_some_and(|(stream, _)| stream == Stream::Child)
                    && let Some(agent) = launched.agent.take()
                {
                    let _ = system::waitid(agent.raw(), WEXITED);
                    let len = socket::receive(gate, &mut buffer, &mut descriptors, MSG_DONTWAIT);
                    if let Some(Reply::Failed(failure)) = Reply::decode(&buffer[..len.unwrap_or(0)])
                    {
                        return Err(refused(failure));
                    }
                }
                return Ok(Phase::Created);
            }
            Some(Gate::Terminal) => {
                if let Some(master) = descriptors.take(0) {
                    send(reply, &Reply::Terminal, Some(master.raw()));
                }
            }
            Some(Gate::Checkpoint) => {
                let network = descriptors.take(0);
                at_checkpoint(plan, launched.pid, network, interrupts, interfaces).map_err(
                    |failure| {
                        // A hook that was stopped because nobody waits is no failure.
                        if failure.errno == Errno::ECANCELED.0 && failure.detail == detail::PLAIN {
                            Ending::Abandoned
                        } else {
                            refused(failure)
                        }
                    },
                )?;
                let _ = socket::say(gate, Gate::Proceed, None);
            }
            _ => {
                if let Some(Reply::Failed(failure)) = Reply::decode(&buffer[..len]) {
                    return Err(refused(failure));
                }
                if let Some(number) = Gate::source_asked_for(&buffer[..len]) {
                    let source = open_source(order, launched.pid, number);
                    let source = source.as_ref().ok().map(Fd::raw);
                    let _ = socket::say(gate, Gate::Source, source);
                }
            }
        }
    }
}

/// Opens the source of that number, which root of the process's user namespace may not reach: as the
/// configuration is this keeper's to carry out, and in the process's own mounts, whose locks stay.
fn open_source(order: &Order<'_>, pid: i32, number: u32) -> crate::failure::Result<Fd> {
    let steps = order.plan.stream(Stream::Child).flatten();
    let mut sources = steps.flat_map(|step| step.operation.sources());
    let source = sources.nth(number as usize).ok_or(Errno::EINVAL)?;
    Ok(procfs::open_for(procfs::private()?.raw(), pid, source)?)
}

/// Carries out the Hooks stream of the first process, whose network namespace `network` is of.
fn at_checkpoint(
    plan: &Plan,
    pid: i32,
    network: Option<Fd>,
    interrupts: &Interrupts,
    interfaces: &mut Interfaces,
) -> Result<(), Failure> {
    for step in plan.document.stream(Stream::Hooks).flatten() {
        match step.operation {
            Operation::MoveInterface { name, new_name } => interfaces
                .move_in(network.as_ref(), name, new_name)
                .map_err(|error| error.frame(Stream::Hooks, &step))?,
            _ => run_hook(Stream::Hooks, &step, pid, interrupts)?,
        }
    }
    Ok(())
}

/// Whether the asker has given up, and told its caller so, before the request was read.
fn withdrawn(reply: Option<&Fd>) -> bool {
    hung_up(reply.map_or(-1, Fd::raw))
}

fn hung_up(socket: Raw) -> bool {
    let mut entry = [PollFd::hangup(socket)];
    system::poll(&mut entry, Some(TimeSpec::ZERO)) == Ok(1)
}

/// Whether a process that closes its gate before it is ready can only be dead.
fn has_gate(plan: &Plan) -> bool {
    let mut steps = plan.document.stream(Stream::Child).flatten();
    steps.any(|step| matches!(step.operation, Operation::Gate {}))
}

/// The wait status of a process that is dying: its descriptors are closed a moment before it
/// can be waited for. 0 if it cannot be known, as that of another's child.
fn status_of_dead(pidfd: Raw) -> i32 {
    let mut entry = [PollFd::readable(pidfd)];
    let _ = system::poll(&mut entry, Some(TimeSpec::from_milliseconds(1000)));
    system::waitid(pidfd, WEXITED | WNOHANG | WNOWAIT).map_or(0, |info| wait_status(&info))
}

fn start(keeper: &mut Keeper, reply: Option<Fd>) {
    if withdrawn(reply.as_ref()) {
        return;
    }
    let process = &keeper.processes[0];
    let waiting = keeper.phase() == Some(Phase::Created) && process.answer.is_none();
    let gate = process.gate.as_ref().map(Fd::raw).filter(|_| waiting);
    let (Some(gate), Some(reply)) = (gate, reply.as_ref()) else {
        send(reply.as_ref(), &refusal(detail::WRONG_STATE, Errno::EINVAL), None);
        return;
    };
    let _ = socket::say(gate, Gate::Open, None);
    keeper.interfaces.keep();
    if let Ok(answer) = system::duplicate(reply.raw(), 3) {
        keeper.set_answer(0, answer);
    }
}

fn exec(keeper: &mut Keeper, reply: Option<Fd>, descriptors: &mut Descriptors) {
    if withdrawn(reply.as_ref()) {
        return;
    }
    let refuse = |what, errno| send(reply.as_ref(), &refusal(what, errno), None);
    if !matches!(keeper.phase(), Some(Phase::Created | Phase::Running)) {
        return refuse(detail::WRONG_STATE, Errno::EINVAL);
    }
    let Some(place) = keeper.free_place() else {
        return refuse(detail::TOO_MANY, Errno::EAGAIN);
    };
    let Some(file) = descriptors.take(1) else {
        return refuse(detail::MISSING_DESCRIPTOR, Errno::EBADF);
    };
    let plan = match read_plan(file.raw()) {
        Ok(plan) => plan,
        Err(failure) => return send(reply.as_ref(), &failure, None),
    };
    let slots = descriptors.rest(2);
    let launched = if slots.len() == plan.document.slots() as usize {
        let by_root = system::geteuid() == 0;
        let order =
            Order { plan: plan.document, slots, mode: Mode::Keeper, listener: None, by_root };
        let interrupts = keeper.interrupts(reply.as_ref().map_or(-1, Fd::raw));
        launch(&order, &interrupts).map_err(|refused| Reply::Failed(refused.failure))
    } else {
        Err(refusal(detail::MISSING_DESCRIPTOR, Errno::EBADF))
    };
    match launched {
        Ok(launched) => keeper.adopt(
            place,
            Process {
                pid: launched.pid,
                pidfd: Some(launched.pidfd),
                gate: Some(launched.gate),
                answer: reply,
                plan: Some(plan),
                agent: launched.agent,
            },
        ),
        Err(failure) => {
            send(reply.as_ref(), &failure, None);
            // SAFETY: the plan was only used by the launch that failed.
            unsafe { system::unmap(plan.bytes) };
        }
    }
}

fn watch(keeper: &mut Keeper, flags: u32, reply: Option<Fd>) {
    let Some(reply) = reply else { return };
    let phase = keeper.phase().unwrap_or(Phase::Stopped);
    let stays = phase != Phase::Stopped && flags & watch_flag::STATE_ONLY == 0;
    // Before the state: a watch that begins well must not end like a process does.
    if stays && !keeper.has_room_for_watcher() {
        socket::reply(Some(reply.raw()), &refusal(detail::TOO_MANY, Errno::EAGAIN), None);
        return;
    }
    let process = &keeper.processes[0];
    let state = Reply::State { pid: process.pid, phase };
    let pidfd = process.pidfd.as_ref().map(Fd::raw).filter(|_| phase != Phase::Stopped);
    // Who cannot be told the state will not be told the end either.
    let told = socket::try_reply(reply.raw(), &state, pidfd).is_ok();
    if phase == Phase::Stopped {
        socket::reply(Some(reply.raw()), &Reply::Exited(keeper.last_exit()), None);
    } else if stays && told {
        keeper.add_watcher(reply);
    }
}

//! Creating a process for the container: into its namespaces and cgroup, with its parent's
//! part of the work done before it goes on.

use locule_plan::protocol::{Failure, Gate, detail};
use locule_plan::{Document, Operation, Step, Stream};

use crate::abi::*;
use crate::agent::{self, Line};
use crate::child;
use crate::descriptors;
use crate::failure::{During, Error, Result};
use crate::hook::{self, Place};
use crate::idmap::IdMap;
use crate::procfs;
use crate::socket::{self, Descriptors};
use crate::system::{self, Errno, Fd, Raw, Sys};

/// Who is the parent of the container's first process in the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Keeper,
    Orphan,
    Child,
}

/// Whose end makes waiting pointless: the host's, and that of the answer's receiver.
pub struct Interrupts {
    pub host: Raw,
    pub host_is_pidfd: bool,
    pub reply: Raw,
}

impl Interrupts {
    /// Nobody's.
    pub const NONE: Interrupts = Interrupts { host: -1, host_is_pidfd: true, reply: -1 };

    /// As entries for poll, which ignores negative descriptors.
    pub fn entries(&self) -> [PollFd; 2] {
        let host = if self.host_is_pidfd {
            PollFd::readable(self.host)
        } else {
            PollFd::hangup(self.host)
        };
        [host, PollFd::hangup(self.reply)]
    }
}

/// What is to be created.
pub struct Order<'a> {
    pub plan: Document<'static>,
    pub slots: &'a [Raw],
    pub mode: Mode,
    /// Where the process waits at the gate when there is no keeper to tell it.
    pub listener: Option<Raw>,
    /// Whether the keeper is root, whose processes no other may look into.
    pub by_root: bool,
}

impl Order<'_> {
    pub fn slot(&self, slot: u32) -> Result<Raw> {
        let found = self.slots.get(slot as usize).copied();
        found.ok_or(Error::new(detail::MISSING_DESCRIPTOR, Errno::EBADF))
    }
}

/// A process on its way through its plan.
pub struct Launched {
    pub pid: i32,
    pub pidfd: Fd,
    pub gate: Fd,
    /// A pidfd of the agent that hands the listener of its filter over, to be reaped.
    pub agent: Option<Fd>,
}

/// Why there is none. A process that came to be is dead; its pidfd is for a parent other
/// than the keeper, who has to reap it.
pub struct Refused {
    pub failure: Failure,
    pub pidfd: Option<Fd>,
}

/// What the Launch stream asks for.
struct Recipe<'a> {
    flags: u64,
    cgroup: Option<Raw>,
    through: Option<(Raw, u64)>,
    has_agent: bool,
    /// Namespaces to join before a new user namespace takes the power to.
    before: [Option<(Raw, u64)>; 8],
    /// The operation a failed clone is blamed on, and the one that it is if the cgroup did
    /// not take the process.
    step: Option<Step<'a>>,
    cgroup_step: Option<Step<'a>>,
    joins: [Option<(Raw, u64)>; 2],
    /// The keeper's own namespaces of the kinds it has joined for the child.
    own: [Option<(Fd, u64)>; 2],
}

/// Creates the process and does the parent's part.
pub fn launch(
    order: &Order<'_>,
    interrupts: &Interrupts,
) -> core::result::Result<Launched, Refused> {
    let refuse = |failure| Refused { failure, pidfd: None };
    let mut recipe = Recipe {
        flags: 0,
        cgroup: None,
        through: None,
        has_agent: agent::step_of(order).is_some(),
        before: [None; 8],
        step: None,
        cgroup_step: None,
        joins: [None, None],
        own: [None, None],
    };
    let mut prepared = Ok(());
    for step in order.plan.stream(Stream::Launch).flatten() {
        if let Err(error) = prepare(order, &step, &mut recipe) {
            prepared = Err(error.frame(Stream::Launch, &step));
            break;
        }
    }
    let launched = prepared.and_then(|()| {
        create(order, &recipe).map_err(|error| {
            let of_cgroup = error.detail == detail::CLONE
                && matches!(Errno(error.errno), Errno::EACCES | Errno::EBUSY | Errno::EOPNOTSUPP);
            let blamed = if of_cgroup { &recipe.cgroup_step } else { &recipe.step };
            match blamed {
                Some(step) => error.frame(Stream::Launch, step),
                None => error.bare_frame(Stream::Launch),
            }
        })
    });
    for (namespace, kind) in recipe.own.into_iter().flatten() {
        if system::setns(namespace.raw(), kind).is_err() {
            // Every later process would land in the wrong place.
            system::exit(1);
        }
    }
    let launched = launched.map_err(refuse)?;
    match attend(order, &launched, interrupts) {
        Ok(()) => Ok(launched),
        Err(failure) => Err(Refused { failure, pidfd: abandon(launched, order.mode) }),
    }
}

/// Kills a process that is not wanted any more, and reaps it if it is ours.
pub fn abandon(launched: Launched, mode: Mode) -> Option<Fd> {
    let _ = system::pidfd_send_signal(launched.pidfd.raw(), SIGKILL);
    dismiss(launched.agent);
    if mode == Mode::Child {
        return Some(launched.pidfd);
    }
    let _ = system::waitid(launched.pidfd.raw(), WEXITED);
    None
}

/// Sees the agent of a process off that has ended, or is at its program. It may be at its work
/// still, but not for long.
pub fn dismiss(agent: Option<Fd>) {
    if let Some(agent) = agent {
        let mut left = [PollFd::readable(agent.raw())];
        let _ = system::poll(&mut left, Some(TimeSpec::from_milliseconds(1000)));
        let _ = system::pidfd_send_signal(agent.raw(), SIGKILL);
        let _ = system::waitid(agent.raw(), WEXITED);
    }
}

fn prepare<'a>(order: &Order<'_>, step: &Step<'a>, recipe: &mut Recipe<'a>) -> Result {
    match step.operation {
        Operation::NewNamespaces { flags } => {
            recipe.flags |= flags;
            recipe.step = Some(*step);
        }
        Operation::JoinForChild { kind, slot } => {
            let join = (order.slot(slot)?, kind);
            let free = recipe.joins.iter().position(Option::is_none).ok_or(Errno::E2BIG)?;
            recipe.joins[free] = Some(join);
            if recipe.through.is_none() && !recipe.has_agent {
                let own = own_namespace(kind)?;
                system::setns(join.0, kind)?;
                // To return to, now that this one has been left.
                recipe.own[free] = Some((own, kind));
            }
        }
        Operation::IntoCgroup { slot } => {
            recipe.cgroup = Some(order.slot(slot)?);
            recipe.cgroup_step = Some(*step);
        }
        Operation::JoinNamespace { kind, slot } => {
            let free = recipe.before.iter().position(Option::is_none).ok_or(Errno::E2BIG)?;
            recipe.before[free] = Some((order.slot(slot)?, kind));
            recipe.step = Some(*step);
        }
        Operation::ThroughUserNamespace { slot, kinds } => {
            recipe.through = Some((order.slot(slot)?, kinds));
            recipe.step = Some(*step);
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(())
}

/// The keeper's own pid or time namespace, to return to.
fn own_namespace(kind: u64) -> Result<Fd> {
    if kind == CLONE_NEWTIME {
        return Ok(system::openat(AT_FDCWD, c"/proc/self/ns/time", O_RDONLY, 0)?);
    }
    // A pidfd stands for all namespaces of a process, and needs no /proc.
    Ok(system::pidfd_open(system::getpid())?)
}

fn create(order: &Order<'_>, recipe: &Recipe<'_>) -> Result<Launched> {
    let (ours, theirs) = system::socketpair()?;
    if recipe.through.is_some() || recipe.before[0].is_some() || recipe.has_agent {
        if order.mode == Mode::Child {
            // The intermediate process would be the host's child as well.
            return Err(Errno::EOPNOTSUPP.into());
        }
        let (pid, pidfd, agent) = by_way_of_another(order, recipe, &ours, theirs)?;
        if recipe.has_agent {
            // The agent has done what it needed the descriptors for that the process closes.
            let _ = socket::say(ours.raw(), Gate::Proceed, None);
        }
        return Ok(Launched { pid, pidfd, gate: ours, agent });
    }
    let extra = if order.mode == Mode::Child { CLONE_PARENT } else { 0 };
    let (pid, pidfd, by_hand) = spawn(recipe.flags | extra, recipe.cgroup).during(detail::CLONE)?;
    match pidfd {
        None => {
            drop(ours);
            child::run(order, theirs, recipe.cgroup.filter(|_| by_hand), None)
        }
        Some(pidfd) => Ok(Launched { pid, pidfd, gate: ours, agent: None }),
    }
}

/// Clones. Without a pidfd in the result this is the new process; the flag tells it to
/// enter the cgroup itself.
fn spawn(flags: u64, cgroup: Option<Raw>) -> Sys<(i32, Option<Fd>, bool)> {
    let mut pidfd: Raw = -1;
    // A sibling inherits the signal of the process it is made a sibling of.
    let signal = if flags & CLONE_PARENT != 0 { 0 } else { SIGCHLD as u64 };
    let mut arguments = CloneArgs {
        flags: flags | CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: signal,
        ..CloneArgs::default()
    };
    let mut by_hand = false;
    let mut result = match cgroup {
        Some(cgroup) => {
            arguments.flags |= CLONE_INTO_CGROUP;
            arguments.cgroup = cgroup as u64;
            system::clone3(&arguments)
        }
        None => system::clone3(&arguments),
    };
    if cgroup.is_some() && matches!(result, Err(Errno::E2BIG | Errno::EINVAL)) {
        arguments.flags &= !CLONE_INTO_CGROUP;
        arguments.cgroup = 0;
        by_hand = true;
        result = system::clone3(&arguments);
    }
    // Outer sandboxes answer so, because they cannot look into the structure; EPERM may be
    // the kernel's own answer, and then clone gives it again.
    if matches!(result, Err(Errno::ENOSYS | Errno::EPERM)) {
        by_hand = true;
        result = system::clone(flags | CLONE_PIDFD | signal, &mut pidfd);
    }
    let pid = result?;
    Ok((pid, if pid == 0 { None } else { Fd::new(pidfd) }, by_hand))
}

/// Clones by way of a process that joins namespaces first, and is the new one's agent then if
/// it is to have one. `keepers` is the keeper's end of the gate.
fn by_way_of_another(
    order: &Order<'_>,
    recipe: &Recipe<'_>,
    keepers: &Fd,
    gate: Fd,
) -> Result<(i32, Fd, Option<Fd>)> {
    let (ours, theirs) = system::socketpair()?;
    let mut pidfd = -1;
    let pid = system::clone(CLONE_PIDFD | SIGCHLD as u64, &mut pidfd).during(detail::CLONE)?;
    if pid == 0 {
        drop(ours);
        // Or the new process would not notice that its keeper is gone.
        system::close(keepers.raw());
        let stepped = (|| -> core::result::Result<(), (u16, Errno)> {
            let plain = |errno| (detail::PLAIN, errno);
            let mut cgroup = recipe.cgroup;
            let joined = recipe.before.iter().flatten().fold(0, |kinds, (_, kind)| kinds | kind);
            if joined & CLONE_NEWCGROUP != 0 {
                // With `nsdelegate`, as systemd mounts it, nobody can enter a cgroup that is not
                // below the root of the own cgroup namespace.
                if let Some(directory) = cgroup.take() {
                    child::enter_cgroup(directory).map_err(|errno| (detail::CLONE, errno))?;
                }
            }
            for (namespace, kind) in recipe.before.iter().flatten() {
                system::setns(*namespace, *kind).map_err(plain)?;
            }
            if let Some((user, kinds)) = recipe.through {
                system::setns(user, CLONE_NEWUSER | kinds).map_err(plain)?;
            }
            for (join, own) in recipe.joins.iter().zip(&recipe.own) {
                // Unless the keeper has joined it already.
                if let (Some((namespace, kind)), None) = (join, own) {
                    system::setns(*namespace, *kind).map_err(plain)?;
                }
            }
            let line = match recipe.has_agent {
                true => Some(Line::new(child::highest_of(&order.plan) + 2).map_err(plain)?),
                false => None,
            };
            let shared = if recipe.has_agent { CLONE_FILES } else { 0 };
            let flags = recipe.flags | CLONE_PARENT | shared;
            let (pid, pidfd, by_hand) =
                spawn(flags, cgroup).map_err(|errno| (detail::CLONE, errno))?;
            let Some(pidfd) = pidfd else {
                let cgroup = cgroup.filter(|_| by_hand);
                child::run(order, gate_of(&gate, line), cgroup, line);
            };
            let Some(line) = line else {
                return system_send(&theirs, 0, pid, Some(pidfd.raw())).map_err(plain);
            };
            let sent = system::duplicate_to(pidfd.raw(), line.pidfd, O_CLOEXEC)
                .and_then(|()| system_send(&theirs, 0, pid, Some(pidfd.raw())));
            if sent.is_err() {
                let _ = system::pidfd_send_signal(pidfd.raw(), SIGKILL);
                system::exit(1);
            }
            // From here on the process closes what is not needed, in the table of both.
            pidfd.into_raw();
            line.serve(order, pid)
        })();
        if let Err((what, errno)) = stepped {
            let _ = system_send(&theirs, what.into(), errno.0, None);
        }
        system::exit(0);
    }
    let pidfd = Fd::new(pidfd).ok_or(Errno::EBADF)?;
    drop(theirs);
    drop(gate);
    let mut descriptors = Descriptors::none();
    let mut words = [0; 8];
    let received = socket::receive(ours.raw(), &mut words, &mut descriptors, 0);
    let agent = if recipe.has_agent && descriptors.len() == 1 {
        Some(pidfd)
    } else {
        let _ = system::waitid(pidfd.raw(), WEXITED);
        None
    };
    let word =
        |at: usize| i32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
    match (received, descriptors.take(0)) {
        (Ok(8), Some(pidfd)) => Ok((word(4), pidfd, agent)),
        (Ok(8), None) => Err(Error::new(word(0) as u16, Errno(word(4)))),
        _ => Err(Error::new(detail::DIED, Errno::ECANCELED)),
    }
}

/// The closure above only borrows the gate; the new process owns its copy of it. What it shares
/// with an agent it leaves alone until the keeper tells it to go on.
fn gate_of(gate: &Fd, line: Option<Line>) -> Fd {
    if line.is_some() {
        let mut word = [0];
        let received = socket::receive(gate.raw(), &mut word, &mut Descriptors::none(), 0);
        if received != Ok(1) || Gate::decode(&word) != Some(Gate::Proceed) {
            system::exit(1);
        }
    }
    match system::duplicate(gate.raw(), 3) {
        Ok(gate) => gate,
        Err(_) => system::exit(1),
    }
}

fn system_send(socket: &Fd, first: i32, second: i32, descriptor: Option<Raw>) -> Sys {
    let mut words = [0; 8];
    words[..4].copy_from_slice(&first.to_le_bytes());
    words[4..].copy_from_slice(&second.to_le_bytes());
    socket::send(socket.raw(), &words, descriptor)
}

/// Carries out the Parent stream and lets the process go on. It waits for that only if
/// there is anything to wait for.
fn attend(
    order: &Order<'_>,
    launched: &Launched,
    interrupts: &Interrupts,
) -> core::result::Result<(), Failure> {
    let mut parent = Parent { launched, interrupts, proc: None, map: None };
    let mut any = false;
    for step in order.plan.stream(Stream::Parent).flatten() {
        any = true;
        parent
            .carry_out(&step.operation)
            .map_err(|error| error.frame(Stream::Parent, &step))?;
    }
    if any {
        // If the process is dead, its pidfd and the closed gate will say so.
        let _ = socket::say(launched.gate.raw(), Gate::Proceed, None);
    }
    Ok(())
}

/// The keeper at work on a process that waits.
struct Parent<'a> {
    launched: &'a Launched,
    interrupts: &'a Interrupts,
    proc: Option<Fd>,
    map: Option<IdMap>,
}

impl Parent<'_> {
    fn proc(&mut self) -> Result<Raw> {
        match &self.proc {
            Some(proc) => Ok(proc.raw()),
            None => Ok(self.proc.insert(procfs::existing()?).raw()),
        }
    }

    fn write(&mut self, name: &[u8], value: &[u8]) -> Result {
        Ok(procfs::write_of(self.proc()?, self.launched.pid, name, value)?)
    }

    fn carry_out(&mut self, operation: &Operation<'_>) -> Result {
        let pid = self.launched.pid;
        match *operation {
            Operation::DenySetgroups {} => self.write(b"setgroups", b"deny"),
            Operation::UidMap { map } => self.write(b"uid_map", map.to_bytes()),
            Operation::GidMap { map } => self.write(b"gid_map", map.to_bytes()),
            Operation::RunIdMapper { program, args } => {
                hook::map_ids(program, pid, args, self.interrupts)
            }
            Operation::ResourceLimit { resource, soft, hard } => {
                Ok(descriptors::limit(pid, resource, soft, hard)?)
            }
            Operation::OomScoreAdj { value } => {
                let mut text = crate::text::PathBuffer::<16>::new();
                text.push_signed(value)?;
                self.write(b"oom_score_adj", text.as_bytes())
            }
            Operation::IdMap { uid, gid, propagation } => {
                self.map = Some(IdMap::new(self.proc()?, pid, uid, gid, propagation)?);
                Ok(())
            }
            Operation::Mount { .. } | Operation::Bind { .. } => {
                let map = self.map.as_ref().ok_or(Errno::EINVAL)?;
                let mount = map.make(operation)?;
                Ok(socket::say(self.launched.gate.raw(), Gate::Mount, Some(mount.raw()))?)
            }
            Operation::Hook { .. } => hook::run(operation, pid, &Place::HOST, self.interrupts),
            _ => Err(Errno::EINVAL.into()),
        }
    }
}

/// An exit as `wait(2)` encodes it.
pub fn wait_status(info: &SigInfo) -> i32 {
    match info.code {
        CLD_EXITED => (info.status & 0xff) << 8,
        CLD_DUMPED => info.status & 0x7f | 0x80,
        _ => info.status & 0x7f,
    }
}

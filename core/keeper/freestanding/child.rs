//! The new process: from its first instruction to the program it becomes.
//!
//! It carries out the Child stream, waits at the gate, carries out the Start stream. What
//! goes wrong is told over the gate, and ends it. Everything it holds is closed on exec.

use locule_plan::protocol::{Gate, MAX_DESCRIPTORS, MAX_PREPARED_MOUNTS, Reply, detail};
use locule_plan::{Document, Operation, Operations, Step, Stream};

use crate::abi::*;
use crate::agent::Line;
use crate::failure::{Error, Result};
use crate::path::Parent;
use crate::process::{Interrupts, Mode, Order};
use crate::program::{self, Found};
use crate::socket::{self, Descriptors};
use crate::system::{self, Errno, Fd, Raw, Sys};
use crate::hook::Place;
use crate::{descriptors, device, hook, identity, mount, procfs, root, settings, terminal};

/// Where what is mounted must not get out of sight: there are things below that hurt the host.
const GUARDED: [&[u8]; 2] = [b"proc", b"sys"];

pub struct Child {
    plan: Document<'static>,
    mode: Mode,
    by_root: bool,
    /// Whether the working directory may not be entered until the process is its user.
    cwd_refused: bool,
    gate: Option<Fd>,
    listener: Option<Fd>,
    /// The line to the agent that hands the listener of the filter over.
    line: Option<Line>,
    /// The number that is kept free for that.
    reserved: Option<Fd>,
    slots: [Raw; MAX_DESCRIPTORS],
    slot_count: usize,
    /// Mounts that the keeper made, to be attached in this order.
    prepared: [Option<Fd>; MAX_PREPARED_MOUNTS],
    prepared_count: usize,
    attached_count: usize,
    /// How many sources the operations before this one have.
    sources: u32,
    /// The highest descriptor of the program; those up to it are not used for anything else.
    highest: Raw,
    root: Option<Fd>,
    proc: Option<Fd>,
    /// A null device for hooks, once 0 to 2 are the program's.
    hook_null: Option<Fd>,
    /// Whether procfs is needed at a time when it can no longer be mounted.
    label_follows: bool,
    /// Whether the limit on descriptors is the program's.
    limit_settled: bool,
    /// The null device that masked files show.
    pub null: Option<Fd>,
    /// The empty directory that masked directories show.
    pub empty: Option<Fd>,
    /// What is mounted at `/proc` and at `/sys`.
    mounted: [Option<Fd>; 2],
    /// The tmpfs with the layers of an overlaid root.
    pub scratch: Option<Fd>,
    /// Where the last device or link was made.
    pub parent: Option<Parent>,
    /// Whether no mount here is shared with the host.
    pub isolated: bool,
    /// Whether the root is moved instead of pivoted.
    pub move_root: bool,
    pub program: Found,
}

/// The highest descriptor that the program of a plan gets.
pub fn highest_of(plan: &Document<'_>) -> Raw {
    let steps = plan.stream(Stream::Child).chain(plan.stream(Stream::Start)).flatten();
    steps.fold(2, |highest, step| match step.operation {
        Operation::Descriptor { target, .. } => highest.max(target.min(1 << 20) as Raw),
        _ => highest,
    })
}

/// Moves the calling process into a cgroup of version 2.
pub fn enter_cgroup(directory: Raw) -> Sys {
    let file = system::openat(directory, c"cgroup.procs", O_WRONLY, 0)?;
    system::write(file.raw(), b"0").map(drop)
}

/// Goes through the plan; `cgroup` is a cgroup to enter first.
pub fn run(order: &Order<'_>, gate: Fd, cgroup: Option<Raw>, line: Option<Line>) -> ! {
    let mut child = Child {
        plan: order.plan,
        mode: order.mode,
        by_root: order.by_root,
        cwd_refused: false,
        gate: Some(gate),
        listener: order.listener.and_then(Fd::new),
        line,
        reserved: None,
        slots: [-1; MAX_DESCRIPTORS],
        slot_count: order.slots.len().min(MAX_DESCRIPTORS),
        prepared: [const { None }; MAX_PREPARED_MOUNTS],
        prepared_count: 0,
        attached_count: 0,
        sources: 0,
        highest: highest_of(&order.plan),
        root: None,
        proc: None,
        hook_null: None,
        label_follows: false,
        limit_settled: false,
        null: None,
        empty: None,
        mounted: [None, None],
        scratch: None,
        parent: None,
        isolated: false,
        move_root: false,
        program: Found::new(),
    };
    let count = child.slot_count;
    child.slots[..count].copy_from_slice(&order.slots[..count]);
    system::set_name(c"locule-init");
    child.tie_to_keeper();
    if let Some(cgroup) = cgroup {
        if let Err(errno) = enter_cgroup(cgroup) {
            child.fail(&Error::from(errno).bare_frame(Stream::Launch));
        }
    }
    if let Err(error) = child.settle() {
        child.fail(&error.bare_frame(Stream::Child));
    }
    if order.plan.stream(Stream::Parent).next().is_some() {
        child.expect(Gate::Proceed);
    }
    // The id maps are written, so nobody needs to open our files in /proc any more.
    let _ = system::prctl(PR_SET_DUMPABLE, 0, 0);
    for stream in [Stream::Child, Stream::Start] {
        let mut operations = order.plan.stream(stream);
        while let Some(Ok(step)) = operations.next() {
            if let Err(error) = child.carry_out(&step, stream, operations) {
                child.fail(&error.frame(stream, &step));
            }
            child.sources += step.operation.sources().count() as u32;
        }
    }
    // A plan without a program has nothing to run.
    child.fail(&Error::from(Errno::EINVAL).bare_frame(Stream::Start))
}

/// The slot that an operation of the process names.
fn slot_of(operation: &Operation<'_>) -> Option<u32> {
    match *operation {
        Operation::Descriptor { slot, .. }
        | Operation::EnterCgroup { slot }
        | Operation::EnterResctrlGroup { slot }
        | Operation::JoinNamespace { slot, .. }
        | Operation::Listener { slot, .. }
        | Operation::JoinProcess { slot, .. } => Some(slot),
        _ => None,
    }
}

/// The filter that is still to be installed; one with a listener is for the program alone.
fn filter_in(rest: Operations<'static>) -> Option<(u64, &'static [u8])> {
    let mut listens = false;
    rest.flatten().find_map(|step| match step.operation {
        Operation::Listener { .. } => {
            listens = true;
            None
        }
        Operation::Seccomp { flags, program } if !listens => Some((flags, program)),
        _ => None,
    })
}

impl Child {
    /// The root the operations work in: the container's, or that of the namespace joined.
    pub fn root(&mut self) -> Result<Raw> {
        match &self.root {
            Some(root) => Ok(root.raw()),
            None => {
                let root = system::openat(AT_FDCWD, c"/", O_PATH | O_DIRECTORY, 0)?;
                Ok(self.root.insert(root).raw())
            }
        }
    }

    pub fn set_root(&mut self, root: Fd) {
        self.root = Some(root);
    }

    pub fn forget_root(&mut self) {
        self.root = None;
        self.mounted = [None, None];
    }

    /// The mount at `/proc` or `/sys`, whatever its directory in the root is called by now.
    pub fn mounted_at(&self, name: &[u8]) -> Option<Raw> {
        let index = GUARDED.iter().position(|&known| known == name)?;
        self.mounted[index].as_ref().map(Fd::raw)
    }

    /// Remembers a mount if it is one of those.
    pub fn remember(&mut self, name: &[u8], mount: Fd) {
        if let Some(index) = GUARDED.iter().position(|&known| known == name) {
            self.mounted[index] = Some(mount);
        }
    }

    /// Closes what leads out of the container.
    pub fn forget_host(&mut self) {
        self.null = None;
        self.empty = None;
        self.mounted = [None, None];
        self.scratch = None;
        self.root = None;
    }

    /// Lets hooks that are still to come have this null device.
    pub fn replace_hook_null(&mut self, null: &Fd) -> Result {
        if self.hook_null.is_some() {
            self.hook_null = Some(system::duplicate(null.raw(), self.highest + 1)?);
        }
        Ok(())
    }

    /// The next of the mounts that the keeper made.
    pub fn next_prepared(&mut self) -> Result<Fd> {
        let next = self.prepared.get_mut(self.attached_count).and_then(Option::take);
        self.attached_count += 1;
        next.ok_or(Error::new(detail::MISSING_DESCRIPTOR, Errno::EBADF))
    }

    /// Has the keeper open a source of the operation at hand.
    pub fn ask_for_source(&self, index: u32) -> Option<Fd> {
        socket::send(self.gate(), &Gate::ask_for_source(self.sources + index), None).ok()?;
        let mut byte = [0];
        let mut descriptors = Descriptors::none();
        match socket::receive(self.gate(), &mut byte, &mut descriptors, 0) {
            Ok(1) if Gate::decode(&byte) == Some(Gate::Source) => descriptors.take(0),
            _ => system::exit(1),
        }
    }

    pub fn gate(&self) -> Raw {
        self.gate.as_ref().map_or(-1, Fd::raw)
    }

    /// A procfs nobody else can reach.
    pub fn proc(&mut self) -> Result<Raw> {
        match &self.proc {
            Some(proc) => Ok(proc.raw()),
            None => Ok(self.proc.insert(procfs::private()?).raw()),
        }
    }

    fn slot(&self, slot: u32) -> Result<Raw> {
        match self.slots[..self.slot_count].get(slot as usize) {
            Some(&raw) if raw >= 0 => Ok(raw),
            _ => Err(Error::new(detail::MISSING_DESCRIPTOR, Errno::EBADF)),
        }
    }

    /// Dies with the keeper. Changes of credentials undo it, so it is said again after them.
    fn tie_to_keeper(&self) {
        match self.mode {
            // The parent is the host, and the signal is about the thread that was it.
            Mode::Child => {}
            Mode::Orphan if self.listener.is_none() => {}
            _ => {
                let _ = system::prctl(PR_SET_PDEATHSIG, SIGKILL as usize, 0);
                self.check_keeper();
            }
        }
    }

    /// Ends if the keeper is gone: getppid could not tell from inside a pid namespace.
    fn check_keeper(&self) {
        let mut gate = [PollFd::hangup(self.gate())];
        if system::poll(&mut gate, Some(TimeSpec::ZERO)) != Ok(0) && gate[0].revents & POLLHUP != 0
        {
            system::exit(1);
        }
    }

    /// Brings the descriptors in order: those the program gets are put where it will find
    /// them, the plan's others above, and everything else is closed.
    fn settle(&mut self) -> Result {
        let plan = self.plan;
        let operations = || plan.stream(Stream::Child).chain(plan.stream(Stream::Start)).flatten();
        let mut hooks = false;
        let mut needed = [false; MAX_DESCRIPTORS];
        let mut need = |slot: u32| {
            if let Some(needed) = needed.get_mut(slot as usize) {
                *needed = true;
            }
        };
        for step in operations() {
            if let Some(slot) = slot_of(&step.operation) {
                need(slot);
            }
            match step.operation {
                Operation::Hook { .. } => hooks = true,
                Operation::SecurityLabel { .. } => self.label_follows = true,
                _ => {}
            }
        }
        // A filter's listener gets the lowest number, however few the program may have.
        let least = self.highest + 1 + Raw::from(self.line.is_some());
        for held in [&mut self.gate, &mut self.listener] {
            if let Some(low) = held.as_ref().map(Fd::raw).filter(|&raw| raw < least) {
                *held = Some(system::duplicate(low, least)?);
            }
        }
        for (slot, needed) in self.slots[..self.slot_count].iter_mut().zip(needed) {
            if !needed {
                // What only the keeper needed, such as a directory of the host's, is not to be
                // found in a process that the container may see (CVE-2016-9962).
                *slot = -1;
            } else if *slot < least {
                *slot = system::duplicate(*slot, least)?.into_raw();
            }
        }
        self.close_others();
        for step in operations() {
            if let Operation::Descriptor { target, slot } = step.operation
                && target > 2
            {
                system::duplicate_to(self.slot(slot)?, target as Raw, O_CLOEXEC)?;
            }
        }
        if self.line.is_some() {
            self.reserved = Some(system::duplicate(self.gate(), 3)?);
        }
        if hooks {
            self.hook_null = Some(system::duplicate(1, least)?);
        }
        Ok(())
    }

    /// Closes what the keeper has open for itself and for other processes.
    fn close_others(&self) {
        let kept = |least: Raw| {
            let own = [self.gate(), self.listener.as_ref().map_or(-1, Fd::raw)];
            let slots = self.slots[..self.slot_count].iter().copied();
            let line = self.line.iter().flat_map(Line::numbers);
            own.into_iter().chain(slots).chain(line).filter(|&raw| raw >= least).min()
        };
        let mut first = 3;
        while let Some(next) = kept(first) {
            if next > first && system::close_range(first as u32, next as u32 - 1, 0).is_err() {
                for raw in first..next {
                    system::close(raw);
                }
            }
            first = next + 1;
        }
        crate::reset::close_from(first as u32);
    }

    /// Closes slots that no later operation names, before anything of the image is looked
    /// up that could lead to them (CVE-2024-21626).
    fn close_slots(&mut self, stream: Stream, rest: Operations<'static>) {
        let start =
            if stream == Stream::Child { Some(self.plan.stream(Stream::Start)) } else { None };
        for slot in 0..self.slot_count {
            let mut rest = rest.chain(start.into_iter().flatten()).flatten();
            let needed = rest.any(|step| slot_of(&step.operation) == Some(slot as u32));
            if !needed {
                drop(Fd::new(core::mem::replace(&mut self.slots[slot], -1)));
            }
        }
    }

    /// Waits for a word of the keeper; ends if it does not come.
    fn expect(&mut self, word: Gate) {
        loop {
            let mut byte = [0];
            let mut descriptors = Descriptors::none();
            match socket::receive(self.gate(), &mut byte, &mut descriptors, 0) {
                Ok(1) if Gate::decode(&byte) == Some(word) => return,
                Ok(1) if Gate::decode(&byte) == Some(Gate::Mount) => {
                    if let Some(place) = self.prepared.get_mut(self.prepared_count) {
                        *place = descriptors.take(0);
                        self.prepared_count += 1;
                    }
                }
                _ => system::exit(1),
            }
        }
    }

    /// Says that the container is created, and waits until it is started.
    fn wait_at_gate(&mut self) -> Result {
        if !self.by_root {
            // Or the user could not join the namespaces of what is the user's own.
            let _ = system::prctl(PR_SET_DUMPABLE, 1, 0);
        }
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            system::end_by(signal);
        }
        let Some(listener) = self.listener.take() else {
            socket::say(self.gate(), Gate::Ready, None)?;
            self.expect(Gate::Open);
            return Ok(());
        };
        // Ids as this process sees them: the user namespace may not know the keeper's, but
        // then it sees the same stand-in for both.
        let keeper = system::peer_credentials(self.gate())?.uid;
        let _ = system::prctl(PR_SET_PDEATHSIG, 0, 0);
        socket::say(self.gate(), Gate::Ready, None)?;
        self.gate = None;
        loop {
            let connection = match system::accept(listener.raw()) {
                Ok(connection) => connection,
                Err(Errno::EINVAL | Errno::EBADF) => system::exit(1),
                Err(_) => continue,
            };
            let known = system::peer_credentials(connection.raw())
                .is_ok_and(|peer| peer.uid == keeper || peer.uid == 0);
            let mut byte = [0];
            let mut none = Descriptors::none();
            if known
                && socket::receive(connection.raw(), &mut byte, &mut none, 0) == Ok(1)
                && Gate::decode(&byte) == Some(Gate::Open)
            {
                self.gate = Some(connection);
                return Ok(());
            }
        }
    }

    fn settle_limit(&mut self) -> Result {
        if !self.limit_settled {
            descriptors::settle(&self.plan)?;
            self.limit_settled = true;
        }
        Ok(())
    }

    /// The last thing before exec: nothing but the program's descriptors survives it.
    pub fn seal(&mut self) -> Result {
        self.settle_limit()?;
        for fd in 3..=self.highest {
            let is_target =
                self.plan.stream(Stream::Child).chain(self.plan.stream(Stream::Start)).flatten().any(
                    |step| matches!(step.operation, Operation::Descriptor { target, .. } if target == fd as u32),
                );
            if !is_target {
                let _ = system::fcntl(fd, F_SETFD, 1);
            }
        }
        // Before Linux 5.11 there is no such flag; our own all have been opened so.
        if system::close_range(self.highest as u32 + 1, u32::MAX, CLOSE_RANGE_CLOEXEC).is_err() {
            for fd in self.highest + 1..1024 {
                let _ = system::fcntl(fd, F_SETFD, 1);
            }
        }
        if self.mode == Mode::Keeper {
            self.tie_to_keeper();
        } else {
            let _ = system::prctl(PR_SET_PDEATHSIG, 0, 0);
        }
        Ok(())
    }

    /// Tells why, and ends.
    fn fail(&self, failure: &locule_plan::protocol::Failure) -> ! {
        socket::reply(Some(self.gate()), &Reply::Failed(*failure), None);
        system::exit(127)
    }

    fn carry_out(
        &mut self,
        step: &Step<'static>,
        stream: Stream,
        rest: Operations<'static>,
    ) -> Result {
        if !matches!(step.operation, Operation::MakeDevice { .. } | Operation::Symlink { .. }) {
            self.parent = None;
        }
        match step.operation {
            Operation::EnterCgroup { slot } | Operation::EnterResctrlGroup { slot } => {
                system::write(self.slot(slot)?, b"0")?;
                drop(Fd::new(core::mem::replace(&mut self.slots[slot as usize], -1)));
            }
            Operation::JoinNamespace { kind, slot } => self.join(slot, kind)?,
            Operation::JoinProcess { slot, kinds } => self.join(slot, kinds)?,
            Operation::Unshare { flags } => system::unshare(flags)?,
            Operation::NewTimeNamespace { offsets } => settings::time_namespace(self, offsets)?,
            Operation::BecomeRoot {} => {
                identity::become_root()?;
                self.tie_to_keeper();
            }
            Operation::NewSession {} => system::setsid()?,
            Operation::NewKeyring {} => settings::keyring()?,
            Operation::LoopbackUp {} => settings::loopback_up()?,
            Operation::Propagation { flags } => root::propagation(self, flags)?,
            Operation::Root { path, kind } => root::directory(self, path, kind)?,
            Operation::OverlayRoot { .. } => root::overlay(self, &step.operation)?,
            Operation::OverlayRootByEntry { scratch } => root::overlay_by_entry(self, scratch)?,
            Operation::OverlayEntry { name } => root::overlay_entry(self, name)?,
            Operation::Directory { path, mode } => settings::directory(self, path, mode)?,
            Operation::Symlink { path, target } => settings::symlink(self, path, target)?,
            Operation::Mount { .. } => mount::mount(self, &step.operation)?,
            Operation::Bind { .. } => mount::bind(self, &step.operation)?,
            Operation::Attach { target, propagation, flags } => {
                mount::attach_prepared(self, target, propagation, flags)?;
            }
            Operation::MakeDevice { .. } => device::make(self, &step.operation)?,
            Operation::ReadonlyPath { path } => device::write_protect(self, path)?,
            Operation::MaskPath { path } => device::mask(self, path)?,
            Operation::Remount { .. } => mount::change(self, &step.operation)?,
            Operation::ReadonlyRoot {} => {
                mount::change_attributes(self.root()?, MOUNT_ATTR_RDONLY, 0)?;
            }
            Operation::Pivot {} => root::pivot(self)?,
            Operation::DropRoot {} => root::drop_root(self)?,
            Operation::RootPropagation { flags } => mount::propagate(self.root()?, flags)?,
            Operation::Terminal { .. } => terminal::open(self, &step.operation)?,
            Operation::Descriptor { target, slot } => {
                if target > 2 {
                    system::fcntl(target as Raw, F_SETFD, 0)?;
                } else {
                    system::duplicate_to(self.slot(slot)?, target as Raw, 0)?;
                }
            }
            Operation::Hostname { name } => system::sethostname(name)?,
            Operation::Domainname { name } => system::setdomainname(name)?,
            Operation::Sysctl { name, value } => settings::sysctl(self, name, value)?,
            Operation::Umask { mask } => {
                system::umask(mask);
            }
            Operation::NoNewPrivileges {} => {
                system::prctl(PR_SET_NO_NEW_PRIVS, 1, 0)?;
            }
            Operation::Listener { slot, path, .. } => {
                let line = self.line.ok_or(Errno::EINVAL)?;
                let mut socket = -1;
                if path.is_empty() {
                    // The agent's from here on.
                    socket = self.slot(slot)?;
                    self.slots[slot as usize] = -1;
                }
                self.reserved = None;
                line.announce(self.gate(), socket)?;
            }
            Operation::Seccomp { flags, program } => {
                // The filter may forbid it later.
                self.settle_limit()?;
                settings::seccomp(flags, program)?;
            }
            Operation::BoundingCapabilities { mask } => identity::bounding(mask)?,
            Operation::User { uid, gid, groups, keep_groups } => {
                self.prepare_label()?;
                identity::user(uid, gid, groups, keep_groups == 1)?;
                self.tie_to_keeper();
            }
            Operation::Capabilities { effective, permitted, inheritable, ambient } => {
                self.prepare_label()?;
                identity::capabilities(effective, permitted, inheritable, ambient)?;
            }
            Operation::WorkingDirectory { attempt: 2, .. } if !self.cwd_refused => {}
            Operation::WorkingDirectory { path, attempt } => {
                self.close_slots(stream, rest);
                settings::own_null(self)?;
                match settings::working_directory(path) {
                    Err(error) if attempt == 1 && error.errno == Errno::EACCES.0 => {
                        self.cwd_refused = true;
                    }
                    result => result?,
                }
            }
            Operation::Program { name, path } => {
                self.close_slots(stream, rest);
                program::find(name, path, &mut self.program)?;
            }
            Operation::Checkpoint { network } => {
                let network = match network {
                    0 => None,
                    _ => Some(system::socket(AF_UNIX, SOCK_DGRAM)?),
                };
                socket::say(self.gate(), Gate::Checkpoint, network.as_ref().map(Fd::raw))?;
                self.expect(Gate::Proceed);
            }
            Operation::Gate {} => self.wait_at_gate()?,
            Operation::Personality { persona } => settings::personality(persona)?,
            Operation::SecurityLabel { kind, label } => settings::label(self, kind, label)?,
            Operation::Scheduler { .. } => settings::scheduler(&step.operation)?,
            Operation::IoPriority { value } => system::ioprio_set(value)?,
            Operation::MemoryPolicy { policy, nodes } => settings::memory_policy(policy, nodes)?,
            Operation::Affinity { mask } => settings::affinity(mask)?,
            Operation::ResourceLimit { resource, soft, hard } => {
                descriptors::limit(0, resource, soft, hard)?;
            }
            Operation::OomScoreAdj { value } => settings::oom_score(self, value)?,
            Operation::Hook { .. } => {
                let null = self.hook_null.as_ref().map_or(1, Fd::raw);
                let place = match stream {
                    Stream::Start => Place { null, directory: None, filter: filter_in(rest) },
                    _ => Place { null, directory: Some(self.root()?), filter: None },
                };
                let interrupts = Interrupts { reply: self.gate(), ..Interrupts::NONE };
                hook::run(&step.operation, system::getpid(), &place, &interrupts)?;
            }
            Operation::Exec { args, env } => program::execute(self, args, env)?,
            _ => return Err(Errno::EINVAL.into()),
        }
        Ok(())
    }

    /// Mounts procfs while there still is the privilege to.
    fn prepare_label(&mut self) -> Result {
        if self.label_follows {
            self.proc()?;
        }
        Ok(())
    }

    fn join(&mut self, slot: u32, kinds: u64) -> Result {
        system::setns(self.slot(slot)?, kinds)?;
        if kinds & CLONE_NEWNS != 0 {
            self.root = None;
            self.proc = None;
        }
        if kinds & CLONE_NEWUSER != 0 {
            self.tie_to_keeper();
        }
        Ok(())
    }
}

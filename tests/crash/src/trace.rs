//! Follows a host and everybody it brings to life with ptrace, tells who is who, and stops one
//! of them at a chosen system call.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::host::MARK;
use crate::machine::kill;

/// Who somebody is, told by who created it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Host,
    /// The host's child, which creates the keeper and exits.
    Intermediate,
    /// From its birth, before it has executed the keeper's image.
    Keeper,
    Init,
    /// A process executed in the container.
    Executed,
    /// What the container's own programs create.
    Other,
}

/// After how long everybody is killed, because somebody hangs.
const PATIENCE: Duration = Duration::from_secs(60);

struct Tracee {
    role: Role,
    children: u32,
}

/// Kills the tracees when their time is up, for the tracer may be waiting for them for ever.
struct Watchdog(Arc<Mutex<Option<Vec<i32>>>>);

impl Watchdog {
    fn new() -> Watchdog {
        let list = Arc::new(Mutex::new(Some(Vec::new())));
        let shared = Arc::downgrade(&list);
        let until = Instant::now() + PATIENCE;
        std::thread::spawn(move || {
            while Instant::now() < until {
                std::thread::sleep(Duration::from_millis(250));
                if shared.strong_count() == 0 {
                    return;
                }
            }
            if let Some(list) = shared.upgrade() {
                let pids = list.lock().unwrap_or_else(PoisonError::into_inner).take();
                pids.into_iter().flatten().for_each(kill);
            }
        });
        Watchdog(list)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<i32>)) {
        if let Some(pids) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            change(pids);
        }
    }

    fn has_fired(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// What is done to the victim at its system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Kill,
    /// It is left where it is until [`Tracer::go_on`].
    Pause,
}

pub struct Tracer {
    host: i32,
    tracees: HashMap<i32, Tracee>,
    /// New tracees that have stopped before we know whose they are.
    early: Vec<i32>,
    keepers: u32,
    victim: Option<(Role, u64, Deed)>,
    /// System calls so far, by role.
    pub counts: HashMap<Role, u64>,
    /// Whether the host has come to its first step.
    begun: bool,
    /// The victim and the number of the system call that it did not come to do.
    pub hit: Option<(i32, u64)>,
    /// Exit statuses of our children that are not traced, and of the host.
    exits: HashMap<i32, i32>,
    watchdog: Watchdog,
}

fn request(request: libc::c_uint, pid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: `address` and `data` are what the request takes: numbers, or places that live
    // through the call.
    match unsafe { libc::ptrace(request, pid, address, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

impl Tracer {
    /// Starts the host. Without a victim it only counts.
    pub fn spawn(mut command: Command, victim: Option<(Role, u64, Deed)>) -> Tracer {
        // SAFETY: a single system call.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                -1 => Err(io::Error::last_os_error()),
                _ => Ok(()),
            })
        };
        let host = command.spawn().expect("this program can be executed").id() as i32;
        let mut tracer = Tracer {
            host,
            tracees: HashMap::new(),
            early: Vec::new(),
            keepers: 0,
            victim,
            counts: HashMap::new(),
            begun: false,
            hit: None,
            exits: HashMap::new(),
            watchdog: Watchdog::new(),
        };
        let mut status = 0;
        // SAFETY: `status` lives through the call.
        unsafe { libc::waitpid(host, &raw mut status, libc::__WALL) };
        assert!(libc::WIFSTOPPED(status), "the host has not come to its first instruction");
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        request(libc::PTRACE_SETOPTIONS, host, 0, options as usize).expect("it is our tracee");
        tracer.add(host, Role::Host);
        tracer.resume(host, 0);
        tracer
    }

    fn add(&mut self, pid: i32, role: Role) {
        self.tracees.insert(pid, Tracee { role, children: 0 });
        self.watchdog.change(|pids| pids.push(pid));
    }

    pub fn everybody_is_gone(&self) -> bool {
        self.tracees.is_empty()
    }

    pub fn host_is_gone(&self) -> bool {
        !self.tracees.values().any(|tracee| tracee.role == Role::Host)
    }

    /// Whether the host has ended well.
    pub fn host_succeeded(&self) -> bool {
        self.exits.get(&self.host) == Some(&0)
    }

    /// Who is left, for a message.
    pub fn present(&self) -> Vec<String> {
        self.tracees.iter().map(|(pid, tracee)| format!("{:?} {pid}", tracee.role)).collect()
    }

    pub fn somebody_hung(&self) -> bool {
        self.watchdog.has_fired()
    }

    fn resume(&self, pid: i32, signal: i32) {
        let role = self.tracees.get(&pid).map_or(Role::Other, |tracee| tracee.role);
        let watched = match self.victim {
            None => true,
            Some((victim, ..)) => self.hit.is_none() && victim == role,
        };
        let how = if watched { libc::PTRACE_SYSCALL } else { libc::PTRACE_CONT };
        // It may have been killed meanwhile; then a wait will tell.
        let _ = request(how, pid, 0, signal as usize);
    }

    /// From now on nobody is harmed.
    pub fn disarm(&mut self) {
        if let Some((_, at, _)) = &mut self.victim {
            *at = 0;
        }
    }

    /// Lets a paused victim go on.
    pub fn go_on(&mut self) {
        if let Some((pid, _)) = self.hit {
            self.resume(pid, 0);
        }
    }

    /// Handles what there is to handle, until `enough`, or until nobody is left.
    pub fn until(&mut self, mut enough: impl FnMut(&Tracer) -> bool) {
        while !enough(self) && self.step(true) {}
    }

    /// As `until`, but not longer than this.
    pub fn within(&mut self, time: Duration, mut enough: impl FnMut(&Tracer) -> bool) -> bool {
        let begun = Instant::now();
        while !enough(self) {
            if !self.step(false) {
                if begun.elapsed() > time {
                    return false;
                }
                std::thread::sleep(Duration::from_micros(300));
            }
        }
        true
    }

    /// Handles what there is to handle now.
    pub fn pump(&mut self) {
        while self.step(false) {}
    }

    /// Runs a program that is not traced. Whether it succeeded.
    pub fn run(&mut self, mut command: Command) -> bool {
        self.code_of(command.spawn().expect("this program can be executed").id() as i32) == Some(0)
    }

    /// Waits for a child that is not traced: its exit code.
    fn code_of(&mut self, pid: i32) -> Option<i32> {
        self.until(|tracer| tracer.exits.contains_key(&pid));
        let status = self.exits.get(&pid)?;
        libc::WIFEXITED(*status).then(|| libc::WEXITSTATUS(*status))
    }

    /// Waits for one stop or end and handles it. False if there was none.
    fn step(&mut self, block: bool) -> bool {
        let mut status = 0;
        let flags = libc::__WALL | libc::__WNOTHREAD | if block { 0 } else { libc::WNOHANG };
        // SAFETY: `status` lives through the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
        if pid <= 0 {
            return false;
        }
        if !libc::WIFSTOPPED(status) {
            self.tracees.remove(&pid);
            self.early.retain(|&early| early != pid);
            self.watchdog.change(|pids| pids.retain(|&listed| listed != pid));
            self.exits.insert(pid, status);
            return true;
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.born_to(pid);
                self.resume(pid, 0);
            }
            0 if signal == libc::SIGTRAP | 0x80 => {
                if !self.at_system_call(pid) {
                    self.resume(pid, 0);
                }
            }
            // The first stop of a new tracee, which may come before its parent's.
            0 if signal == libc::SIGSTOP => match self.tracees.contains_key(&pid) {
                true => self.resume(pid, 0),
                false => self.early.push(pid),
            },
            0 => self.resume(pid, if signal == libc::SIGTRAP { 0 } else { signal }),
            _ => self.resume(pid, 0),
        }
        true
    }

    fn born_to(&mut self, parent: i32) {
        let mut message: libc::c_ulong = 0;
        if request(libc::PTRACE_GETEVENTMSG, parent, 0, &raw mut message as usize).is_err() {
            return;
        }
        let child = message as i32;
        let Some(tracee) = self.tracees.get_mut(&parent) else { return };
        tracee.children += 1;
        let role = match (tracee.role, tracee.children) {
            (Role::Host, _) => Role::Intermediate,
            (Role::Intermediate, _) => Role::Keeper,
            (Role::Keeper, 1) if self.keepers == 1 => Role::Init,
            (Role::Keeper, _) => Role::Executed,
            _ => Role::Other,
        };
        if role == Role::Keeper {
            self.keepers += 1;
        }
        self.add(child, role);
        if let Some(at) = self.early.iter().position(|&early| early == child) {
            self.early.swap_remove(at);
            self.resume(child, 0);
        }
    }

    /// Counts, and does the deed when it is time. Whether the tracee is not to be resumed.
    fn at_system_call(&mut self, pid: i32) -> bool {
        // SAFETY: all zeroes is a valid value.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: `info` has the size given and lives through the call.
        let got = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, &raw mut info) };
        if got < 0 || info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return false;
        }
        // SAFETY: at an entry this is the member that is filled.
        let entry = unsafe { info.u.entry };
        let role = self.tracees[&pid].role;
        if role == Role::Host {
            if entry.nr == libc::SYS_prctl as u64 && entry.args[0] == MARK {
                self.begun = entry.args[1] != u64::from_le_bytes(*b"end\0\0\0\0\0");
            }
            if !self.begun {
                return false;
            }
        }
        let count = self.counts.entry(role).or_default();
        *count += 1;
        let Some((victim, at, deed)) = self.victim else { return false };
        if self.hit.is_some() || victim != role || *count != at {
            return false;
        }
        self.hit = Some((pid, entry.nr));
        if deed == Deed::Kill {
            kill(pid);
        }
        true
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.tracees.keys().copied().for_each(kill);
        self.early.iter().copied().for_each(kill);
        self.within(Duration::from_secs(5), Tracer::everybody_is_gone);
    }
}

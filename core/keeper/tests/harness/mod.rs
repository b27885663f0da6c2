//! Drives a keeper as a host does: executes the image, sends requests, reads replies.
#![allow(dead_code)] // Each test program uses a part of it.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use locule_plan::protocol::{Exit, Failure, Reply, Request, RequestKind};
use locule_plan::{Builder, Operation, OwnedList, Stream, join, mount};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// `MOUNT_ATTR_*`, as far as the tests use them.
pub const NOSUID: u64 = 2;
pub const NODEV: u64 = 4;
pub const NOEXEC: u64 = 8;
pub const READ_ONLY: u64 = 1;

pub fn pair() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    (ours, theirs)
}

pub fn send(socket: &OwnedFd, bytes: &[u8], fds: &[RawFd]) {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None).unwrap();
}

/// A datagram with its descriptor, or `None` at the end.
pub fn receive(socket: &OwnedFd) -> Option<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = [0; 1024];
    let mut space = nix::cmsg_space!([RawFd; 4]);
    let (len, fd) = {
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message =
            recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags).ok()?;
        let mut fd = None;
        for control in message.cmsgs().unwrap() {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just given us this descriptor.
                fd = fds.first().map(|&raw| unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
        (message.bytes, fd)
    };
    (len > 0).then(|| (bytes[..len].to_vec(), fd))
}

/// The answers to one request.
pub struct Answer(pub OwnedFd);

impl Answer {
    pub fn next(&self) -> Option<(Reply, Option<OwnedFd>)> {
        let (bytes, fd) = receive(&self.0)?;
        Some((Reply::decode(&bytes).expect("a reply"), fd))
    }

    pub fn reply(&self) -> Reply {
        self.next().expect("a reply before the end").0
    }

    pub fn failure(&self) -> Failure {
        match self.reply() {
            Reply::Failed(failure) => failure,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    pub fn created(&self) -> (i32, OwnedFd) {
        match self.next().expect("a reply before the end") {
            (Reply::Created { pid }, Some(pidfd)) => (pid, pidfd),
            (other, _) => panic!("expected Created, got {other:?}"),
        }
    }

    pub fn started(&self) -> (i32, OwnedFd) {
        match self.next().expect("a reply before the end") {
            (Reply::Started { pid }, Some(pidfd)) => (pid, pidfd),
            (other, _) => panic!("expected Started, got {other:?}"),
        }
    }

    pub fn exited(&self) -> Exit {
        match self.reply() {
            Reply::Exited(exit) => exit,
            other => panic!("expected Exited, got {other:?}"),
        }
    }
}

/// Who executes the keeper.
#[derive(Clone, Copy, PartialEq)]
pub enum As {
    Root,
    User(u32),
    /// Root in a sandbox that hides newer system calls, as a container engine's may.
    Sandboxed,
    /// Root of a kernel before 6.5, as far as overlays of many layers go.
    OnOlderOverlays,
}

pub struct Keeper {
    pub process: Child,
    pub socket: OwnedFd,
}

/// A memory file that can still be changed.
pub fn unsealed(bytes: &[u8]) -> fs::File {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a plain system call; the result is checked.
    let raw = unsafe { libc::memfd_create(c"test".as_ptr(), flags) };
    assert!(raw >= 0);
    // SAFETY: a fresh descriptor.
    let mut file = unsafe { fs::File::from_raw_fd(raw) };
    file.write_all(bytes).unwrap();
    file
}

/// A memory file as the host makes them.
pub fn memfd(bytes: &[u8]) -> OwnedFd {
    let file = unsealed(bytes);
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: plain integers.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) }, 0);
    file.into()
}

impl Keeper {
    pub fn new(who: As) -> Keeper {
        // Out of the way of descriptor 3, which the socket becomes before the execution.
        let image = memfd(locule_keeper::IMAGE);
        // SAFETY: a plain system call on our own descriptor; the result is checked below.
        let high = unsafe { libc::fcntl(image.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 200) };
        assert!(high >= 200);
        // SAFETY: a fresh descriptor.
        let image = unsafe { OwnedFd::from_raw_fd(high) };
        let (ours, theirs) = pair();
        let path = format!("/proc/self/fd/{}", image.as_raw_fd());
        let mut command = Command::new(path);
        command.arg0("locule: keeper").env_clear().stdin(Stdio::null());
        let socket = theirs.as_raw_fd();
        // SAFETY: only async-signal-safe calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                if let As::User(id) = who {
                    libc::setgroups(0, std::ptr::null());
                    libc::setgid(id);
                    libc::setuid(id);
                }
                if who == As::Sandboxed {
                    hide_newer_calls()?;
                }
                if who == As::OnOlderOverlays {
                    accept_any_flag()?;
                }
                // A strange host: everything blocked, SIGPIPE ignored.
                let mut all = std::mem::zeroed();
                libc::sigfillset(&mut all);
                libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
                libc::signal(libc::SIGPIPE, libc::SIG_IGN);
                let high = libc::fcntl(socket, libc::F_DUPFD_CLOEXEC, 100);
                if libc::dup2(high, 3) != 3 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let process = command.spawn().expect("the keeper is executed");
        Keeper { process, socket: ours }
    }

    pub fn request(&self, kind: RequestKind, flags: u32, fds: &[RawFd]) -> Answer {
        request(&self.socket, kind, flags, fds)
    }

    pub fn create(&self, bundle: &Bundle, plan: &[u8], flags: u32, slots: &[RawFd]) -> Answer {
        let host = pidfd(std::process::id() as i32);
        self.create_for(bundle, plan, flags, slots, &host)
    }

    pub fn create_for(
        &self,
        bundle: &Bundle,
        plan: &[u8],
        flags: u32,
        slots: &[RawFd],
        host: &OwnedFd,
    ) -> Answer {
        let plan = memfd(plan);
        let state = fs::File::open(bundle.state()).unwrap();
        let mut fds = vec![plan.as_raw_fd(), host.as_raw_fd(), state.as_raw_fd()];
        fds.extend_from_slice(slots);
        self.request(RequestKind::Create, flags, &fds)
    }

    pub fn exec(&self, plan: &[u8], slots: &[RawFd]) -> Answer {
        let plan = memfd(plan);
        let mut fds = vec![plan.as_raw_fd()];
        fds.extend_from_slice(slots);
        self.request(RequestKind::Exec, 0, &fds)
    }

    pub fn start(&self) -> Answer {
        self.request(RequestKind::Start, 0, &[])
    }

    /// Asks it to leave and waits until it has.
    pub fn shut_down(mut self) {
        let answer = self.request(RequestKind::Shutdown, 0, &[]);
        while let Some((reply, _)) = answer.next() {
            if reply == Reply::Done {
                break;
            }
        }
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn request(socket: &OwnedFd, kind: RequestKind, flags: u32, fds: &[RawFd]) -> Answer {
    let (ours, theirs) = pair();
    let mut all = vec![theirs.as_raw_fd()];
    all.extend_from_slice(fds);
    send(socket, &Request { kind, flags }.encode(), &all);
    Answer(ours)
}

/// Makes clone3, close_range and mount_setattr answer ENOSYS from now on.
fn hide_newer_calls() -> std::io::Result<()> {
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    install([
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(equal, 3, 0, libc::SYS_clone3 as u32),
        op(equal, 2, 0, libc::SYS_close_range as u32),
        op(equal, 1, 0, libc::SYS_mount_setattr as u32),
        op(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
        op(answer, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ])
}

/// Makes `fsconfig` do nothing and answer 0 for every flag, as a filesystem that has not been ported
/// to it takes any.
fn accept_any_flag() -> std::io::Result<()> {
    const FSCONFIG_SET_FLAG: u32 = 0;
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    install([
        op(load, 0, 0, 0),
        op(equal, 0, 3, libc::SYS_fsconfig as u32),
        op(load, 0, 0, 24), // The low half of the second argument.
        op(equal, 0, 1, FSCONFIG_SET_FLAG),
        op(answer, 0, 0, libc::SECCOMP_RET_ERRNO),
        op(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ])
}

fn op(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn install<const N: usize>(mut filter: [libc::sock_filter; N]) -> std::io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program lives as long as the call.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

pub fn pidfd(pid: i32) -> OwnedFd {
    // SAFETY: a plain system call; the result is checked.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    assert!(raw >= 0);
    // SAFETY: a fresh descriptor.
    unsafe { OwnedFd::from_raw_fd(raw as RawFd) }
}

pub fn pipe() -> (fs::File, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    // SAFETY: fresh descriptors.
    unsafe { (fs::File::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) }
}

pub fn read_all(mut file: fs::File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

/// A root filesystem with busybox in it, and a state directory.
pub struct Bundle(PathBuf);

impl Bundle {
    pub fn new() -> Option<Bundle> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
        let Some(busybox) = busybox else {
            println!("skipped: busybox-static");
            return None;
        };
        if !nix::unistd::geteuid().is_root() {
            println!("skipped: root");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base =
            std::env::temp_dir().join(format!("locule-keeper-{}-{number}", std::process::id()));
        let bundle = Bundle(base);
        let root = bundle.root();
        for folder in ["bin", "etc", "proc", "sys", "dev", "tmp", "home"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::create_dir(bundle.state()).unwrap();
        fs::copy(busybox, root.join("bin/busybox")).unwrap();
        let tools = "sh cat echo ls id mount stat sleep kill hostname pwd readlink test mkdir \
                     touch tty grep env true false ip chmod dd wc";
        for name in tools.split_whitespace() {
            symlink("busybox", root.join("bin").join(name)).unwrap();
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nana:x:7:7::/home/ana:/bin/sh\n",
        )
        .unwrap();
        fs::write(root.join("bin/data"), "not a program").unwrap();
        Some(bundle)
    }

    pub fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Gives everything to a user.
    pub fn give_to(&self, id: u32) {
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o755)).unwrap();
        let mut pending = vec![self.0.clone()];
        while let Some(path) = pending.pop() {
            std::os::unix::fs::lchown(&path, Some(id), Some(id)).unwrap();
            if path.is_dir() && !path.is_symlink() {
                pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).unwrap()
}

pub fn list(entries: &[&str]) -> OwnedList {
    entries.iter().map(|entry| CString::new(*entry).unwrap()).collect()
}

/// A plan in the making. Steps are appended by the kind of thing they are.
#[derive(Default)]
pub struct Plan {
    builder: Builder,
    slots: u32,
}

impl Plan {
    pub fn push(&mut self, stream: Stream, operation: &Operation<'_>) -> &mut Self {
        self.builder.push(stream, "", operation);
        self
    }

    pub fn push_at(
        &mut self,
        stream: Stream,
        pointer: &str,
        operation: &Operation<'_>,
    ) -> &mut Self {
        self.builder.push(stream, pointer, operation);
        self
    }

    pub fn child(&mut self, operation: &Operation<'_>) -> &mut Self {
        self.push(Stream::Child, operation)
    }

    pub fn slot(&mut self) -> u32 {
        self.slots += 1;
        self.slots - 1
    }

    /// Standard output goes to a new slot.
    pub fn output(&mut self) -> &mut Self {
        let slot = self.slot();
        self.child(&Operation::Descriptor { target: 1, slot });
        self.child(&Operation::Descriptor { target: 2, slot })
    }

    pub fn namespaces(&mut self, more: u64) -> &mut Self {
        let flags = join::MOUNT | join::PID | join::UTS | join::IPC | join::NETWORK | more;
        self.push(Stream::Launch, &Operation::NewNamespaces { flags })
    }

    pub fn mount(
        &mut self,
        fstype: &CStr,
        target: &CStr,
        options: &[&str],
        set: u64,
        flags: u32,
    ) -> &mut Self {
        let options = list(options);
        self.child(&Operation::Mount {
            fstype,
            source: fstype,
            target,
            options: options.as_list(),
            set,
            clear: 0,
            recursive_set: 0,
            recursive_clear: 0,
            propagation: 0,
            flags,
        })
    }

    pub fn bind(&mut self, source: &CStr, target: &CStr, set: u64, flags: u32) -> &mut Self {
        self.child(&Operation::Bind {
            source,
            target,
            set,
            clear: 0,
            recursive_set: 0,
            recursive_clear: 0,
            propagation: 0,
            flags,
        })
    }

    /// The usual filesystems, before the pivot.
    pub fn filesystems(&mut self, bundle: &Bundle) -> &mut Self {
        let root = c(bundle.root());
        self.child(&Operation::Propagation { flags: libc::MS_REC | libc::MS_SLAVE });
        self.child(&Operation::Root { path: &root, kind: locule_plan::root::PIVOT });
        self.usual()
    }

    pub fn usual(&mut self) -> &mut Self {
        self.mount(c"proc", c"/proc", &[], NOSUID | NODEV | NOEXEC, mount::STRICT_TARGET);
        self.mount(c"tmpfs", c"/dev", &["mode=755", "size=65536k"], NOSUID, 0);
        self.mount(
            c"devpts",
            c"/dev/pts",
            &["newinstance", "ptmxmode=0666", "mode=0620"],
            NOSUID | NOEXEC,
            0,
        );
        for (path, minor) in [(c"/dev/null", 3), (c"/dev/zero", 5), (c"/dev/tty", 0)] {
            let major = if minor == 0 { 5 } else { 1 };
            self.child(&Operation::MakeDevice {
                path,
                mode: libc::S_IFCHR | 0o666,
                major,
                minor,
                uid: 0,
                gid: 0,
            });
        }
        self.child(&Operation::Symlink { path: c"/dev/fd", target: c"/proc/self/fd" });
        self.child(&Operation::Symlink { path: c"/dev/ptmx", target: c"pts/ptmx" })
    }

    /// Gate and program.
    pub fn program(&mut self, args: &[&str], gate: bool) -> &mut Self {
        let name = CString::new(args[0]).unwrap();
        self.push_at(
            Stream::Child,
            "/process/args/0",
            &Operation::Program { name: &name, path: c"/sbin:/bin" },
        );
        if gate {
            self.child(&Operation::Gate {});
        }
        let (args, env) = (list(args), list(&["PATH=/bin", "TERM=dumb"]));
        self.push_at(
            Stream::Start,
            "/process/args",
            &Operation::Exec { args: args.as_list(), env: env.as_list() },
        )
    }

    pub fn finish(self) -> Vec<u8> {
        self.builder.finish(self.slots)
    }
}

/// A container that runs a shell script with its output in slot 0.
pub fn script(bundle: &Bundle, text: &str) -> Vec<u8> {
    let mut plan = Plan::default();
    plan.namespaces(0).filesystems(bundle);
    plan.child(&Operation::Pivot {}).output().program(&["sh", "-c", text], true);
    plan.finish()
}

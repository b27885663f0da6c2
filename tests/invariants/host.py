"""A busy Python program with many threads that runs containers through Locule, and checks that
it is left as it was: the first promise of the design, item by item. See host.c.

    host.py VARIANT DIRECTORY [--break WHAT]

DIRECTORY is empty, absolute and the host's own to fill. LOCULE_TEST_PLUGIN is a folder with the
component stamp.wasm, for the variant plugins. With --break the host itself does what the library
must not do, to show that the checks see it. LOCULE_CYCLES is how many containers are run.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import resource
import signal
import socket
import struct
import sys
import termios
import threading
import time
from typing import Callable, Dict, List, Optional, Tuple

import locule
import looks
from looks import libc

WORKERS, ALLOCATORS, WARM_UP = 4, 2, 8
REPORT_FD = 40
CYCLES = int(os.environ.get("LOCULE_CYCLES", "30"))

variant, directory = sys.argv[1:3]
components = os.environ.get("LOCULE_TEST_PLUGIN", "")  # in an environment that goes away
breaking = sys.argv[4] if sys.argv[3:4] == ["--break"] else None
ids = f"invariants-{os.getpid()}-"

stopping = threading.Event()
sampling = threading.Lock()
odd_is_ready = threading.Event()
# The workers and the main thread wait for each other between the parts of the test.
phase = threading.Barrier(WORKERS + 1)
before: Dict[str, str] = {}
failures = samples = 0


class Complaint:
    """What went wrong, told by any thread; the first is reported at the end."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""

    def __call__(self, text: str) -> None:
        if self.count == 0:
            self.first = text
        self.count += 1

    def report(self, item: str, fine: str = "") -> None:
        wrong = f"{self.count} times, first: {self.first}"
        report(self.count == 0, item, wrong if self.count else fine)


works, passing, attributes, children = Complaint(), Complaint(), Complaint(), Complaint()


def report(fine: bool, item: str, detail: str = "") -> None:
    global failures
    failures += not fine
    line = f"{'ok    ' if fine else 'FAILED'}   python {variant}: {item}"
    os.write(REPORT_FD, (f"{line}: {detail}" if detail else line).encode() + b"\n")


def nap() -> None:
    time.sleep(0.001)


# --- The threads of the host -----------------------------------------------------------------


def allocate() -> None:
    """Keeps the allocator busy."""
    blocks: List[Optional[bytearray]] = [None] * 64
    number = 1
    while not stopping.is_set():
        for _ in range(200):
            number = number * 1103515245 + 12345 & 0x7FFFFFFF
            blocks[number % 64] = bytearray(number % 8192 + 1)
        nap()


def odd() -> None:
    """Has an odd signal mask and a low priority."""
    signal.pthread_sigmask(signal.SIG_SETMASK, set(signal.valid_signals()) - {signal.SIGUSR1})
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 7)
    odd_is_ready.set()
    stopping.wait()


def reap() -> None:
    """Waits for whatever child there is, as init systems and test runners do."""
    while not stopping.is_set():
        for _ in range(50):
            try:
                children(f"waitpid(-1) gave {os.waitpid(-1, 0)}")
            except ChildProcessError:
                pass
        nap()


class Signals:
    """Counts what arrives. The handlers of Python write each number to a socket at once."""

    def __init__(self) -> None:
        self.received = [0] * 65
        self._here, self._there = socket.socketpair()
        self._there.setblocking(False)
        signal.set_wakeup_fd(self._there.fileno(), warn_on_full_buffer=False)
        for number in ("ALRM", "CHLD", "PIPE", "HUP", "USR1", "URG", "IO", "WINCH", "CONT", "TERM"):
            signal.signal(getattr(signal, f"SIG{number}"), lambda *_: None)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        if variant == "sigchld-ignored":
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    def count(self) -> None:
        while numbers := self._here.recv(4096):
            for number in numbers:
                self.received[number] += 1

    def end(self) -> None:
        signal.set_wakeup_fd(-1)
        self._there.close()


def look_at_descriptors(known: str) -> None:
    """A new descriptor is to be close-on-exec: a host that executes something else at this
    moment must not hand it on."""
    for fd, target, close_on_exec in looks.open_descriptors():
        if not close_on_exec and f"\n{fd}: " not in "\n" + known:
            passing(f"not close-on-exec: {target}")


def no_child() -> Optional[str]:
    try:
        return f"waitpid(-1) gave {os.waitpid(-1, os.WNOHANG)}"
    except ChildProcessError:
        return None


def lasting(look: Callable[[], str], expected: str) -> str:
    """Looks until it finds what is expected, for a while: a thread that is just in a handler,
    for one, has another signal mask."""
    for _ in range(50):
        if (now := look()) == expected:
            break
        nap()
    return now


def watch() -> None:
    """Looks again and again while containers run: what is changed for a moment only is a
    change, too."""
    global samples
    while not stopping.is_set():
        with sampling:
            for item in looks.ITEMS if before else ():
                if item.sampled and (now := item.look()) != before[item.name]:
                    passing(f"{item.name}: {looks.difference(before[item.name], now)}")
            if before:
                look_at_descriptors(before["descriptors"])
                if (child := no_child()) is not None:
                    children(child)
                samples += 1
        nap()


# --- Plugins ---------------------------------------------------------------------------------


class Greet(locule.Plugin):
    """One of the host's own: a variable for every process."""

    calls = strange_calls = 0

    def create(self, call: locule.Call) -> None:
        self.calls += 1
        self.strange_calls += threading.current_thread() not in workers
        call.set_env("GREETING", " greeted")

    exec = create


greet = Greet()
greeting = b" greeted" if variant == "plugins" else b""
workers: List[threading.Thread] = []


def plugins() -> List[object]:
    """That one, and one that is a Wasm component."""
    if variant != "plugins":
        return []
    stamp = locule.WasmPlugin(
        f"{components}/stamp.wasm", powers=["adjust-annotations", "adjust-rlimits"], config="a host",
        cache=f"{directory}/cache",
    )
    return [greet, stamp]


# --- Containers ------------------------------------------------------------------------------


def expect(what: str, got: object, expected: object) -> None:
    if got != expected:
        works(f"{what}: {got!r}")


def run_container(runtime: locule.Runtime, number: int) -> None:
    """It ends by itself, with what it is told; or is killed; or is never started."""
    fate = "never started" if number % 5 == 4 else ("told", "killed")[number % 2]
    command = "exec sleep 600" if fate == "killed" else "read code; exit $code"
    with runtime.create(
        ["/bin/sh", "-c", f"echo ready$GREETING; {command}"], id=f"{ids}{number}",
        stdin=locule.PIPE, stdout=locule.PIPE, stderr=locule.DEVNULL,
    ) as container:
        if variant == "plugins":
            expect("stamp", container.state().annotations.get("org.locule.stamp"), "a host")
        if fate == "never started":
            try:
                runtime.create(["true"], rootfs="/no/such/root", stdin=locule.DEVNULL)
                works("a container without a root was created")
            except locule.LoculeError:
                pass
            return
        container.start()
        exec_in(container, number)
        stdin, stdout = container.init.stdin, container.init.stdout
        assert stdin is not None and stdout is not None
        if fate == "killed":
            container.kill(all=True)
            expect("killed container", container.wait(30), -signal.SIGKILL)
        else:
            stdin.write(b"%d\n" % (number % 200))
            stdin.close()
            expect("container", container.wait(30), number % 200)
            expect("its output", stdout.read(), b"ready%b\n" % greeting)
        container.delete()


def exec_in(container: locule.Container, number: int) -> None:
    """Now and then with a terminal, which a host without one must not get."""
    script = ["/bin/sh", "-c", f"echo exec {number}$GREETING; exit {number % 200}"]
    if number % 3:
        done = container.run(
            script, stdin=locule.DEVNULL, stdout=locule.PIPE, stderr=locule.DEVNULL
        )
        expected = b"exec %d%b\n" % (number, greeting)
        expect("exec", (done.returncode, done.stdout), (number % 200, expected))
        return
    with container.exec(script, tty=True) as process:
        assert process.terminal is not None
        expect("terminal", process.terminal.read(), b"exec %d%b\r\n" % (number, greeting))
        expect("exec with a terminal", process.wait(30), number % 200)


# --- What --break does -----------------------------------------------------------------------


def umask_for_a_moment() -> None:
    old, seen = os.umask(0), samples
    while samples < seen + 2:
        nap()
    os.umask(old)


spent: List[bytearray] = []
reserved: List[mmap.mmap] = []


BREAKS: Dict[str, Callable[[], object]] = {
    "umask": lambda: os.umask(0),
    "umask-for-a-moment": umask_for_a_moment,
    "child": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "fd": lambda: os.open("/dev/null", os.O_RDONLY),
    "thread": lambda: threading.Thread(target=stopping.wait).start(),
    "directory": lambda: os.chdir("/"),
    "environment": lambda: libc.setenv(b"LOCULE_WAS_HERE", b"1", 1),
    "mask": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}),
    "handler": lambda: libc.signal(signal.SIGPIPE, ctypes.c_void_p(1)),
    "output": lambda: os.write(1, b"hello\n"),
    "subreaper": lambda: libc.prctl(36, 1, 0, 0, 0),
    "namespace": lambda: libc.unshare(0x04000000),  # CLONE_NEWUTS
    "keyring": lambda: libc.syscall(looks.KEYCTL, 1, None),  # KEYCTL_JOIN_SESSION_KEYRING
    "oom": lambda: open("/proc/self/oom_score_adj", "w").write("5"),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "memory": lambda: spent.append(bytearray(b"x") * (64 << 20)),
    "address-space": lambda: reserved.append(mmap.mmap(-1, 1 << 30, prot=0)),
}


# --- The workers -----------------------------------------------------------------------------


class Cycles:
    """Numbers for the containers, each given once."""

    def __init__(self) -> None:
        self._next = 0
        self._lock = threading.Lock()

    def take(self, last: int) -> Optional[int]:
        with self._lock:
            if self._next >= last:
                return None
            self._next += 1
            return self._next - 1


def work(number: int, cycles: Cycles, runtimes: List[locule.Runtime]) -> None:
    def until(last: int) -> None:
        while (cycle := cycles.take(last)) is not None:
            try:
                run_container(runtimes[0], cycle)
            except Exception as error:
                works(repr(error))

    if number == 1:
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGINT, signal.SIGCHLD, 39})
        libc.prctl(29, 77777, 0, 0, 0)  # PR_SET_TIMERSLACK
    own = looks.own()
    phase.wait()  # everything is as it shall stay
    phase.wait()  # the first look is done, the runtime open
    until(WARM_UP)
    phase.wait()  # whatever is made once is made
    phase.wait()  # the look at the memory is done
    if number == 0 and breaking is not None:
        BREAKS[breaking]()
    until(WARM_UP + CYCLES)
    if (now := looks.own()) != own:
        attributes(looks.difference(own, now))
    phase.wait()  # all containers are gone
    phase.wait()  # the last look is done


# --- The variants ----------------------------------------------------------------------------


def be_resident() -> mmap.mmap:
    """2 GiB in small pages, whose tables a fork would have to copy."""
    memory = mmap.mmap(-1, 2 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    try:
        memory.madvise(23)  # MADV_POPULATE_WRITE, since Linux 5.14
    except OSError:
        for at in range(0, len(memory), 4096):
            memory[at] = 1
    return memory


def refuse_clone3() -> None:
    """As sandboxes do that cannot look into its arguments. The number is that of every machine."""
    clone3, errno_enosys = 435, 38
    program = struct.pack(
        "=" + "HBBI" * 4,
        0x20, 0, 0, 0,  # load the number of the system call
        0x15, 0, 1, clone3,
        0x06, 0, 0, 0x00050000 | errno_enosys,  # SECCOMP_RET_ERRNO
        0x06, 0, 0, 0x7FFF0000,  # SECCOMP_RET_ALLOW
    )
    instructions = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxP", 4, ctypes.addressof(instructions))
    if libc.prctl(22, 2, header, 0, 0) != 0:  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "seccomp")
    if libc.syscall(clone3, None, 0) != -1 or ctypes.get_errno() != errno_enosys:
        raise RuntimeError("the seccomp filter has no effect")


def set_up_streams() -> List[socket.socket]:
    """Gives the host streams of which the other ends can be looked at."""
    ends = []
    for number in range(3):
        ours, theirs = socket.socketpair()
        os.dup2(theirs.fileno(), number)
        theirs.close()
        ends.append(ours)
    ends[0].send(b"input")
    return ends


def check_streams(ends: List[socket.socket]) -> None:
    def waiting(fd: int) -> int:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))[0])

    written, unread = [waiting(end.fileno()) for end in ends], waiting(0)
    report(
        written == [0, 0, 0] and unread == 5,
        "nothing written to descriptors 0 to 2, nothing read",
        "" if written == [0, 0, 0] and unread == 5 else f"{written}, {unread} of 5 to read",
    )


def be_odd() -> None:
    os.setsid()
    path = os.fsencode(directory) + b'/a "directory"\n with an \xff odd name'
    os.mkdir(path, 0o755)
    os.chdir(path)
    os.environ.clear()
    os.environ.update({"TMPDIR": "/no/such/directory", "LC_ALL": "xx_YY.nonsense", "HOME": ""})
    os.umask(0o137)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (777, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )


# --- The whole -------------------------------------------------------------------------------


def check_left(runtime: locule.Runtime) -> None:
    states = runtime.list()
    report(states == [], "no container is left", repr(states) if states else "")
    left = [entry.name for entry in os.scandir(f"{directory}/state") if entry.is_dir()]
    report(left == [], "no directory of a container is left", " ".join(left))
    left = [
        os.path.join(parent, name)
        for parent, names, _ in os.walk("/sys/fs/cgroup") for name in names if name.startswith(ids)
    ]
    report(left == [], "no cgroup is left", " ".join(left))


def main() -> int:
    os.dup2(1, REPORT_FD, inheritable=False)
    if variant == "no-clone3":
        refuse_clone3()
    memory = be_resident() if variant == "resident-2g" else None
    ends = set_up_streams()
    be_odd()
    signals = Signals()

    cycles = Cycles()
    runtimes: List[locule.Runtime] = []
    targets: List[Tuple[Callable[..., None], Tuple[object, ...]]] = [
        *((work, (number, cycles, runtimes)) for number in range(WORKERS)),
        *((allocate, ()) for _ in range(ALLOCATORS)),
        (odd, ()), (watch, ()), (signals.count, ()),
    ]
    if variant == "foreign-reaper":
        targets.append((reap, ()))
    threads = [threading.Thread(target=target, args=args) for target, args in targets]
    workers.extend(threads[:WORKERS])
    for thread in threads:
        thread.start()
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)

    phase.wait()
    odd_is_ready.wait()
    with sampling:
        before.update({item.name: lasting(item.look, item.look()) for item in looks.ITEMS})
    size = looks.size()
    runtimes.append(locule.Runtime(f"{directory}/state", plugins=plugins()))
    phase.wait()
    phase.wait()
    resident = looks.resident()
    phase.wait()
    phase.wait()
    grown = looks.resident()

    with sampling:  # what the host itself does from here on is not watched
        check_left(runtimes[0])
        runtimes[0].close()
        for item in looks.ITEMS:
            now = lasting(item.look, before[item.name])
            same = now == before[item.name]
            report(same, item.name, "" if same else looks.difference(before[item.name], now))
        attributes.report("keyrings, timer slack, signal stack, memory policy of every worker")
        passing.report(
            "nor for a moment; descriptors are close-on-exec", f"looked {samples} times"
        )
        if (child := no_child()) is not None:
            children(child)
        children.report("no child, at no time")
        strange = [n for n, times in enumerate(signals.received) if times and n != signal.SIGALRM]
        report(
            strange == [], "no SIGCHLD, no other signal from a container",
            f"signals {strange}" if strange else f"{signals.received[signal.SIGALRM]} of the host's own",
        )
        check_streams(ends)
        report(
            grown - resident <= 8 * 1024, "resident memory does not grow",
            f"{resident} kB, then {grown} kB",
        )
        most = looks.largest_size()
        report(
            most - size < 256 * 1024, "address space stays bounded, at every moment",
            f"{size} kB, at most {most} kB",
        )
        if variant == "plugins":
            report(
                greet.calls > CYCLES and greet.strange_calls == 0,
                "plugins are called on threads of the host",
                f"{greet.calls} calls, {greet.strange_calls} elsewhere",
            )
        works.report(
            "containers work, outputs and exit statuses are right",
            f"{WARM_UP + CYCLES} containers",
        )

    stopping.set()
    phase.wait()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signals.end()
    for thread in threads:
        thread.join()
    if memory is not None:
        memory.close()
    return failures != 0


sys.exit(main())

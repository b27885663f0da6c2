"""What a process looks like: each function returns a text that must stay the same.

The items are those of host.c, with the same names. Nothing here changes anything.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
from typing import Callable, Iterator, List, NamedTuple, Tuple

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.prctl.argtypes = [ctypes.c_int, *(4 * [ctypes.c_void_p])]

# The raw system calls that Python and libc do not offer.
KEYCTL, RT_SIGACTION, IOPRIO_GET, GET_MEMPOLICY, PERSONALITY = {
    "x86_64": (250, 13, 252, 239, 135),
    "aarch64": (219, 134, 31, 236, 92),
}[platform.machine()]

PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_GET_KEEPCAPS, PR_GET_SECUREBITS = 2, 3, 7, 27
PR_GET_TIMERSLACK, PR_GET_CHILD_SUBREAPER, PR_GET_THP_DISABLE = 30, 37, 42


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        return f"{path}: {error.strerror}\n"


def link(path: str) -> str:
    try:
        return f"{path}: {os.readlink(path)}\n"
    except OSError as error:
        return f"{path}: {error.strerror}\n"


def threads() -> List[str]:
    return sorted(os.listdir("/proc/self/task"), key=int)


def status(thread: str, *names: str) -> str:
    """Those lines of a thread's status that start with one of the names."""
    lines = read(f"/proc/self/task/{thread}/status").splitlines()
    return "".join(f"{thread} {line}\n" for line in lines if line.startswith(names))


def of_threads(look: Callable[[str], str]) -> str:
    return "".join(look(thread) for thread in threads())


def umask() -> str:
    return status(str(os.getpid()), "Umask")


def directory() -> str:
    return of_threads(
        lambda t: link(f"/proc/self/task/{t}/cwd") + link(f"/proc/self/task/{t}/root")
    )


def environment() -> str:
    """That of C and that of Python, which are not the same thing."""
    of_c = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
    lines: List[bytes] = []
    while of_c[len(lines)] is not None:
        lines.append(of_c[len(lines)])
    return "\n".join([*map(repr, lines), repr(sorted(os.environb.items()))])


def masks() -> str:
    return of_threads(lambda t: status(t, "SigBlk"))


def dispositions() -> str:
    # The kernel's own structure: handler, flags, restorer, mask. libc hides two signals.
    action = (ctypes.c_ulong * 4)()
    lines = []
    for number in range(1, 65):
        libc.syscall(RT_SIGACTION, number, None, action, 8)
        lines.append(f"{number}: {action[0]:x} {action[1]:x} {action[3]:x}")
    return "\n".join(lines)


def credentials() -> str:
    return of_threads(lambda t: status(
        t, "Uid:", "Gid:", "Groups:", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb",
        "NoNewPrivs:", "Seccomp",
    ))


def namespaces() -> str:
    names = ("cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "user", "uts")
    return of_threads(
        lambda t: "".join(link(f"/proc/self/task/{t}/ns/{name}") for name in names)
    )


def cgroups() -> str:
    return of_threads(lambda t: f"{t}\n" + read(f"/proc/self/task/{t}/cgroup"))


def oom() -> str:
    return read("/proc/self/oom_score_adj")


def flags() -> str:
    subreaper = ctypes.c_int(-1)
    libc.prctl(PR_GET_CHILD_SUBREAPER, ctypes.byref(subreaper), 0, 0, 0)
    return (
        f"dumpable {libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)}, subreaper {subreaper.value}, "
        f"huge pages off {libc.prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)}\n"
        + read("/proc/self/coredump_filter")
    )


def session() -> str:
    fields = read("/proc/self/stat").rpartition(") ")[2].split()
    return "group {}, session {}, terminal {}, its foreground group {}".format(*fields[2:6])


def limits() -> str:
    return read("/proc/self/limits")


def schedule() -> str:
    def one(thread: str) -> str:
        number = int(thread)
        return (
            f"{thread}: policy {os.sched_getscheduler(number)}, "
            f"priority {os.sched_getparam(number).sched_priority}, "
            f"nice {os.getpriority(os.PRIO_PROCESS, number)}, "
            f"io {libc.syscall(IOPRIO_GET, 1, number)}\n"
            + status(thread, "Cpus_allowed:", "Mems_allowed:")
        )

    return of_threads(one)


def thread_names() -> str:
    return of_threads(lambda t: f"{t} " + read(f"/proc/self/task/{t}/comm"))


def timers() -> str:
    which = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    return "".join(f"{timer}: every {signal.getitimer(timer)[1]}\n" for timer in which)


def open_descriptors() -> Iterator[Tuple[int, str, bool]]:
    """Number, target and whether it is close-on-exec."""
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            yield int(name), os.readlink(f"/proc/self/fd/{name}"), not os.get_inheritable(int(name))
        except OSError:
            pass  # that of the listing itself, above all


def descriptors() -> str:
    lines = (f"{fd}: {target}, close-on-exec {flag}\n" for fd, target, flag in open_descriptors())
    return "".join(lines)


def mounts() -> str:
    return read("/proc/self/mountinfo")


class _Stack(ctypes.Structure):
    _fields_ = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def own() -> str:
    """What only the calling thread can see of itself."""
    keyrings = [libc.syscall(KEYCTL, 0, key, 0) for key in (-3, -2, -1)]
    stack, death_signal, policy = _Stack(), ctypes.c_int(-1), ctypes.c_int(-1)
    libc.sigaltstack(None, ctypes.byref(stack))
    libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(death_signal), 0, 0, 0)
    libc.syscall(GET_MEMPOLICY, ctypes.byref(policy), None, 0, None, 0)
    return (
        "keyrings: session {}, process {}, thread {}\n".format(*keyrings)
        + f"signal stack: {stack.sp} {stack.size} {stack.flags}\n"
        f"death signal {death_signal.value}, "
        f"timer slack {libc.prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0)}, "
        f"securebits {libc.prctl(PR_GET_SECUREBITS, 0, 0, 0, 0)}, "
        f"keepcaps {libc.prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0)}, "
        f"personality {libc.syscall(PERSONALITY, 0xFFFFFFFF):x}\n"
        f"memory policy {policy.value}\n"
    )


def resident() -> int:
    """Resident memory in kB."""
    pages = int(read("/proc/self/statm").split()[1])
    return pages * resource.getpagesize() // 1024


def size() -> int:
    """The size of the address space in kB."""
    return _from_status("VmSize:")


def largest_size() -> int:
    """What it was at most, in kB."""
    return _from_status("VmPeak:")


def _from_status(name: str) -> int:
    lines = (line.split() for line in read("/proc/self/status").splitlines())
    return next(int(words[1]) for words in lines if words[0] == name)


class Item(NamedTuple):
    name: str
    look: Callable[[], str]
    #: Is to be so at every moment, not only in the end.
    sampled: bool = True


ITEMS = (
    Item("umask", umask),
    Item("working directory and root of every thread", directory),
    Item("environment", environment),
    Item("signal mask of every thread", masks, sampled=False),
    Item("signal dispositions, all 64", dispositions),
    Item("credentials and capabilities of every thread", credentials),
    Item("namespaces of every thread", namespaces),
    Item("cgroup of every thread", cgroups),
    Item("keyrings", own, sampled=False),
    Item("oom_score_adj", oom),
    Item("dumpable and subreaper flags", flags),
    Item("session, process group and terminal", session),
    Item("resource limits", limits),
    Item("nice, scheduler, affinity of every thread", schedule),
    Item("threads: none added, none renamed", thread_names),
    Item("interval timers", timers),
    Item("descriptors", descriptors, sampled=False),
    Item("mounts", mounts, sampled=False),
)


def difference(before: str, after: str) -> str:
    """The first line in which two texts differ."""
    old, new = before.splitlines(), after.splitlines()
    for index in range(max(len(old), len(new))):
        pair = [lines[index] if index < len(lines) else "" for lines in (old, new)]
        if pair[0] != pair[1]:
            return 'was "{}", is "{}"'.format(*pair)
    return "they differ in their ends"

"""The programs that call the library, one for each language, and what is said to them.

A request is a line: steps with tabs between them, the first of which opens the runtime; a step
is a verb and words `key=value` with spaces between them, values percent-encoded. The driver
makes the calls until one is refused, tells what its language knows of the error, removes what
it has made, and answers with a line: `fine`, or `refused` and words.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import resource
import select
import socket
import subprocess
from pathlib import Path
from typing import Callable, Dict, List, Optional
from urllib.parse import quote_from_bytes, unquote_to_bytes

from scene import ORDINARY
from table import Host, Step

RUNNER = 3  # the descriptor on which a driver is spoken to
PATIENCE = 20  # seconds; a call that takes longer hangs


def encode(step: Step) -> str:
    verb, words = step
    texts = (f"{key}={quote_from_bytes(os.fsencode(text))}" for key, text in words.items())
    return " ".join([verb, *texts])


def decode(line: bytes) -> Dict[str, str]:
    kind, *words = line.decode().split(" ")
    pairs = (word.split("=", 1) for word in words)
    answer = {key: os.fsdecode(unquote_to_bytes(text)) for key, text in pairs}
    return {**answer, "kind": kind}


class Driver:
    """A running driver. It serves cases one after the other, as a host that goes on does."""

    def __init__(self, command: List[str], env: Dict[str, str], host: Host, log: Path) -> None:
        ours, theirs = socket.socketpair()
        self.log = log
        self._talk = ours
        self._buffer = b""
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd="/", pass_fds=[RUNNER], preexec_fn=self._preparation(theirs, host),
            )
        theirs.close()
        self.pid = self._process.pid

    @staticmethod
    def _preparation(theirs: socket.socket, host: Host) -> Callable[[], None]:
        install = filter_of(host)

        def prepare() -> None:
            # Our end has this number or one above it, and is not the driver's.
            os.dup2(theirs.fileno(), RUNNER)
            if host.descriptors is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (host.descriptors, host.descriptors))
            if install is not None:
                install()
            if host.user:
                become_ordinary()
            for fd in host.closed:
                os.close(fd)

        return prepare

    def ask(self, steps: List[Step]) -> Dict[str, str]:
        """Has the steps done. An answer of the kind "dead" or "hangs" is the runner's."""
        try:
            self._talk.sendall("\t".join(map(encode, steps)).encode() + b"\n")
        except BrokenPipeError:
            pass  # it is dead, as will be seen
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._talk], [], [], PATIENCE)
            if not ready:
                self._process.kill()
                self._process.wait()
                return {"kind": "hangs"}
            try:
                part = self._talk.recv(65536)
            except ConnectionResetError:
                part = b""
            if not part:
                return {"kind": "dead", "message": f"status {self._process.wait()}"}
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return decode(line)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def descriptors(self) -> Dict[str, str]:
        """What the driver has open."""
        directory = f"/proc/{self.pid}/fd"
        found = {}
        for fd in os.listdir(directory):
            try:
                found[fd] = os.readlink(f"{directory}/{fd}")
            except OSError:
                pass
        return found

    def close(self) -> Optional[str]:
        """Ends it; what it wrote to its standard streams, which is nothing if all is well."""
        self._talk.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return self.log.read_text(errors="replace").strip() or None


def become_ordinary() -> None:
    os.setgroups([])
    os.setgid(ORDINARY)
    os.setuid(ORDINARY)


def works_for_ordinary(command: List[str]) -> bool:
    """Whether the ordinary user can run a command."""
    try:
        done = subprocess.run(command, capture_output=True, preexec_fn=become_ordinary, cwd="/")
    except OSError:
        return False
    return done.returncode == 0


def seccomp() -> Optional[ctypes.CDLL]:
    """libseccomp, which the library needs as well."""
    for name in ("libseccomp.so.2", ctypes.util.find_library("seccomp")):
        try:
            return ctypes.CDLL(name) if name else None
        except OSError:
            pass
    return None


SCMP_ACT_ALLOW, SCMP_ACT_ERRNO = 0x7FFF0000, 0x00050000
SCMP_CMP_MASKED_EQ = 7
CLONE_NEW = [1 << bit for bit in (17, 25, 26, 27, 28, 29, 30)]


class Compare(ctypes.Structure):
    """struct scmp_arg_cmp"""

    _fields_ = [
        ("arg", ctypes.c_uint), ("op", ctypes.c_int),
        ("mask", ctypes.c_uint64), ("value", ctypes.c_uint64),
    ]


def filter_of(host: Host) -> Optional[Callable[[], None]]:
    """Installs the host's filter in the process that calls it."""
    lib = seccomp() if host.denied else None
    if lib is None:
        return None
    lib.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.seccomp_init(SCMP_ACT_ALLOW))
    # Root has the right to a filter, and no_new_privs would be one thing more that differs.
    lib.seccomp_attr_set(context, 3, 0)  # SCMP_FLTATR_CTL_NNP
    for name, error in host.denied:
        name, _, namespaces = name.partition(" with ")
        number = lib.seccomp_syscall_resolve_name(name.encode())
        action = SCMP_ACT_ERRNO | getattr(errno, error)
        # "clone with namespaces": by the flags, which are the first argument.
        rules = [Compare(0, SCMP_CMP_MASKED_EQ, kind, kind) for kind in CLONE_NEW]
        for compare in rules if namespaces else [None]:
            array = ctypes.byref(compare) if compare is not None else None
            count = 0 if compare is None else 1
            if lib.seccomp_rule_add_array(context, action, number, count, array) != 0:
                raise OSError(f"a filter for {name}")

    def install() -> None:
        if lib.seccomp_load(context) != 0:
            raise OSError("seccomp_load")

    return install

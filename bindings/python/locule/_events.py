"""What happened, as an iterator. Several may run at once, each sees every event.

The library gives an event once, to whoever dispatches. Here whoever finds the runtime's
descriptor readable dispatches for all and wakes the others through a pipe of each.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Deque, List, Optional

from . import _abi
from ._errors import call
from ._process import deadline_of, left_until

if TYPE_CHECKING:
    from ._container import Container
    from ._runtime import Runtime


@dataclass(frozen=True)
class Event:
    """Something that happened."""

    #: "exited": a process has ended. "oom" and "pressure": what `Container.watch_oom` and
    #: `Container.watch_pressure` ask for. Later versions may add kinds: ignore what you do not
    #: know.
    kind: str
    container_id: str
    #: The process that has ended; else 0.
    pid: int = 0
    #: As subprocess has it; None if nobody could collect the status, and if no process ended.
    returncode: Optional[int] = None
    #: With "oom": how many processes the kernel has killed by now. With cgroup v1 it reports
    #: that memory ran out before it kills.
    kills: Optional[int] = None
    #: With "pressure": what the processes had to wait for: "cpu", "memory" or "io".
    resource: Optional[str] = None


def _returncode(exit: _abi.Exit) -> Optional[int]:
    if exit.kind == _abi.EXIT_CODE:
        return int(exit.code)
    return -int(exit.signal) if exit.kind == _abi.EXIT_SIGNAL else None


#: What processes can have to wait for.
RESOURCES = {
    "cpu": _abi.RESOURCE_CPU,
    "memory": _abi.RESOURCE_MEMORY,
    "io": _abi.RESOURCE_IO,
}


def _read(event: int) -> Optional[Event]:
    lib = _abi.library()
    kind = lib.locule_event_kind(event)
    container_id = lib.locule_event_container_id(event).decode()
    if kind == _abi.EVENT_EXITED:
        exit = _abi.Exit()
        call("locule_event_exit", event, ctypes.byref(exit))
        pid = lib.locule_process_pid(lib.locule_event_process(event))
        return Event("exited", container_id, pid, _returncode(exit))
    if kind == _abi.EVENT_OOM:
        return Event("oom", container_id, kills=lib.locule_event_oom_kills(event))
    if kind == _abi.EVENT_PRESSURE:
        opts = _abi.WatchOpts()
        call("locule_event_pressure", event, ctypes.byref(opts))
        names = {number: name for name, number in RESOURCES.items()}
        return Event("pressure", container_id, resource=names.get(opts.resource))
    return None


class Hub:
    """The iterators over one runtime's events."""

    def __init__(self) -> None:
        # Plugins are called in here, and they may use the runtime.
        self._lock = threading.RLock()
        self._listeners: "weakref.WeakSet[Events]" = weakref.WeakSet()

    def __bool__(self) -> bool:
        return len(self._listeners) > 0

    def add(self, listener: "Events") -> None:
        with self._lock:
            self._listeners.add(listener)

    def remove(self, listener: "Events") -> None:
        with self._lock:
            self._listeners.discard(listener)

    def dispatch(self, runtime: int) -> None:
        """Takes what is there, without waiting, and gives it to every iterator."""
        with self._lock:
            for event in _collect(runtime):
                for listener in self._listeners:
                    listener._give(event)


def _collect(runtime: int) -> List[Event]:
    events: List[Event] = []
    failures: List[Exception] = []

    def collect(event: int, _user: object) -> int:
        # ctypes would print an exception that leaves here, and go on.
        try:
            happened = _read(event)
            if happened is not None:
                events.append(happened)
        except Exception as failure:
            failures.append(failure)
        return 0

    call("locule_runtime_dispatch", runtime, 0, _abi.EventFn(collect), None)
    if failures:
        raise failures[0]
    return events


class Events:
    """An iterator over events, from `Runtime.events` or `Container.events`.

    It sees what happens from when it is made. It ends after `timeout` seconds without an
    event; that of a container also with the container's first process. `fileno` may be
    polled: readable when there is, most likely, an event.
    """

    def __init__(
        self, runtime: "Runtime", timeout: Optional[float], container: Optional["Container"]
    ) -> None:
        self._runtime = runtime
        self._timeout = timeout
        self._container = container
        self._over = False
        self._events: Deque[Event] = deque()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._epoll = select.epoll()
        self._close = weakref.finalize(
            self, _close_all, self._epoll, [self._wake_read, self._wake_write]
        )
        self._close.atexit = False
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._epoll.register(runtime.fileno(), select.EPOLLIN)
        if container is not None:
            self._epoll.register(container.init.fileno(), select.EPOLLIN)
        runtime._hub.add(self)

    def _give(self, event: Event) -> None:
        # Called with the hub's lock held.
        container = self._container
        if container is not None:
            # The end of the first process comes from itself: it may lie before this iterator.
            if event.container_id != container.id or event.pid == container.pid:
                return
        self._events.append(event)
        try:
            os.write(self._wake_write, b"!")
        except (BlockingIOError, OSError):
            pass  # full, so it is awake; or just being closed

    def fileno(self) -> int:
        if not self._close.alive:
            raise ValueError("the events are closed")
        return self._epoll.fileno()

    def _next_now(self) -> Optional[Event]:
        """The next event if there is one."""
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
        with self._runtime._handle as runtime:
            self._runtime._hub.dispatch(runtime)
        try:
            return self._events.popleft()
        except IndexError:
            pass
        if self._container is not None and self._container.init.has_ended():
            self._over = True
            init = self._container.init
            return Event("exited", self._container.id, init.pid, init.returncode)
        return None

    def __iter__(self) -> "Events":
        return self

    def __next__(self) -> Event:
        deadline = deadline_of(self._timeout)
        while not self._over and self._close.alive:
            event = self._next_now()
            if event is not None:
                return event
            left = left_until(deadline)
            if left == 0:
                break
            # Rounded up, as the kernel counts milliseconds here.
            self._epoll.poll(None if left is None else math.ceil(left * 1000) / 1000)
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Ends the iteration. Any thread, but not while another one is in `next`."""
        self._runtime._hub.remove(self)
        self._close()

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _close_all(epoll: select.epoll, fds: List[int]) -> None:
    epoll.close()
    for fd in fds:
        os.close(fd)

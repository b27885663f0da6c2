"""Counted references to objects of the library, safe to use and to close from any thread.

A handle that is closed while another thread is in a call with it goes when that call returns.
No lock is held during a call. After a fork the child refuses every handle it inherited, and
gives none back: the objects behind them are the parent's.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
import weakref
from typing import Any, Callable, Optional

from . import _abi
from ._errors import StateError

# Counts the forks between this process and the one that imported the package.
_generation = 0


def _forked() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_forked)


def generation() -> int:
    """A number that changes in a forked child."""
    return _generation


class Handle:
    """A reference to a runtime, container, process, image and so on.

    ``handle.out`` is where a function of the library stores it; the handle is there before, so
    that a KeyboardInterrupt on the way back from that function loses nothing.
    ``with handle as pointer:`` is how it is used for one call.
    """

    __slots__ = ("_kind", "out", "_lock", "_users", "_closed", "_generation")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.out = ctypes.c_void_p()
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False
        self._generation = _generation

    @property
    def _name(self) -> str:
        return self._kind.replace("_", " ")

    @property
    def _from(self) -> str:
        return "an image store" if self._kind.startswith("image") else "a runtime"

    @property
    def made(self) -> bool:
        """Whether the library has stored something in `out`."""
        return self.out.value is not None

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def inherited(self) -> bool:
        """Whether it came into this process by fork."""
        return self._generation != _generation

    def __enter__(self) -> int:
        if self.inherited:  # before the lock: another thread may have held it at the fork
            raise StateError(
                f"this {self._name} belongs to the process that forked this one",
                hint=f"open {self._from} after the fork, in the process that uses it",
            )
        with self._lock:
            if self._closed:
                raise ValueError(f"the {self._name} is closed")
            assert self.out.value is not None, "used before it was made"
            self._users += 1
            return self.out.value

    def __exit__(self, *_exception: object) -> None:
        with self._lock:
            self._users -= 1
            last = self._closed and self._users == 0
        if last:
            self._unref()

    def close(self) -> None:
        if self.inherited:
            self._closed = True
            return
        with self._lock:
            last = not self._closed and self._users == 0
            self._closed = True
        if last:
            self._unref()

    def _unref(self) -> None:
        getattr(_abi.library(), f"locule_{self._kind}_unref")(self.out)


def close_with(
    owner: Any, handle: Handle, unclosed: Optional[Callable[[], Optional[str]]] = None
) -> None:
    """Closes the handle when its owner is collected; warns if ``unclosed`` returns a text."""
    finalizer = weakref.finalize(owner, _abandon, handle, unclosed)
    # At the exit of the interpreter the system closes everything, and modules may be gone.
    finalizer.atexit = False


def _abandon(handle: Handle, unclosed: Optional[Callable[[], Optional[str]]]) -> None:
    if handle.closed or handle.inherited:
        return
    text = unclosed() if unclosed is not None else None
    handle.close()
    if text is not None:
        warnings.warn(text, ResourceWarning, stacklevel=2)

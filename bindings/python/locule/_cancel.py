"""Tokens that stop calls which wait."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from typing import Optional

from . import _abi
from ._errors import call
from ._handle import Handle, close_with


class Cancel:
    """Given to any number of calls, `trigger` makes them raise Cancelled, now or later."""

    def __init__(self) -> None:
        self._handle = Handle("cancel")
        close_with(self, self._handle)
        call("locule_cancel_new", ctypes.byref(self._handle.out))

    def trigger(self) -> None:
        """Stops the calls. It cannot be undone. Any thread."""
        with self._handle as cancel:
            _abi.library().locule_cancel_trigger(cancel)

    def fileno(self) -> int:
        """A descriptor that is readable once it has been triggered. Only to be polled."""
        with self._handle as cancel:
            fd: int = _abi.library().locule_cancel_fd(cancel)
            return fd

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> "Cancel":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def use(cancel: Optional[Cancel], stack: ExitStack) -> Optional[int]:
    """The pointer for a call, valid as long as the stack is open."""
    return None if cancel is None else stack.enter_context(cancel._handle)

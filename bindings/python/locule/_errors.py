"""Exceptions: one for each category of the library, each also the built-in one that fits."""

from __future__ import annotations

import ctypes
import subprocess
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple, Type

from . import _abi


class LoculeError(Exception):
    """Anything that goes wrong in Locule.

    Decide by the class; the rest is for people and logs. ``str()`` gives the whole message.
    """

    #: The category, such as "not-found". It does not change between versions.
    code: str
    #: What was attempted and what happened, on one line.
    message: str
    #: The errno of the system call that failed, or None.
    errno: Optional[int]
    #: Where in a container's life it happened, such as "mounts".
    stage: Optional[str]
    #: The JSON pointer of the field to blame in config.json, such as "/mounts/3".
    pointer: Optional[str]
    #: What can be done about it.
    hint: Optional[str]
    #: The id of the container.
    container_id: Optional[str]
    #: The step of the plan that failed, as `explain` prints it.
    step: Optional[str]

    _code = "unknown"
    _stage: Optional[str] = None

    def __init__(
        self,
        message: str = "",
        *,
        code: Optional[str] = None,
        errno: Optional[int] = None,
        stage: Optional[str] = None,
        pointer: Optional[str] = None,
        hint: Optional[str] = None,
        container_id: Optional[str] = None,
        step: Optional[str] = None,
    ) -> None:
        # Not super().__init__(): in the classes that are also OSErrors that would look for an
        # errno and a path among the arguments.
        self.args = (message,)
        self.message = message
        self.code = code if code is not None else self._code
        self.errno = errno
        self.stage = stage if stage is not None else self._stage
        self.pointer = pointer
        self.hint = hint
        self.container_id = container_id
        self.step = step

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r})"

    def __reduce__(self) -> Tuple[Any, ...]:
        # OSError's own way would lose the fields that are not in args.
        details = {
            name: getattr(self, name)
            for name in (
                "code", "errno", "stage", "pointer", "hint", "container_id", "step", "message",
            )
        }
        return _rebuild, (type(self), self.args, {**self.__dict__, **details})


def _rebuild(kind: Type[LoculeError], args: Tuple[Any, ...], details: Dict[str, Any]) -> Any:
    error = kind.__new__(kind)
    error.args = args
    for name, value in details.items():
        setattr(error, name, value)
    return error


class Invalid(LoculeError, ValueError):
    """An argument of the call is wrong."""

    _code = "invalid"
    _stage = "arguments"


class SpecError(LoculeError, ValueError):
    """config.json is wrong; ``pointer`` says where."""

    _code = "spec"


class NotFound(LoculeError, LookupError):
    """No such container, process, image or file."""

    _code = "not-found"


class Exists(LoculeError):
    """The id is in use, or the directory for an image that is unpacked is not empty."""

    _code = "exists"


class StateError(LoculeError):
    """The container is in a state that does not allow the call."""

    _code = "state"


class PermissionDenied(LoculeError, PermissionError):
    """The system refused for lack of privilege."""

    _code = "permission"


class Unsupported(LoculeError):
    """The kernel, this machine or this version of Locule cannot do it."""

    _code = "unsupported"


class Busy(LoculeError):
    """Something is in use that must not be."""

    _code = "busy"


class Timeout(LoculeError, TimeoutError):
    """The deadline passed."""

    _code = "timeout"


class Cancelled(LoculeError):
    """The call was cancelled."""

    _code = "cancelled"


class ResourceError(LoculeError, OSError):
    """A resource ran out: memory, disk, descriptors, processes."""

    _code = "resource"


class SystemCallError(LoculeError, OSError):
    """A system call failed for another reason."""

    _code = "system"


class ProgramError(LoculeError, OSError):
    """The program could not be executed."""

    _code = "program"


class HookError(LoculeError):
    """A hook failed."""

    _code = "hook"


class KeeperError(LoculeError):
    """The container's keeper is gone or does not answer, and with it an exit status."""

    _code = "keeper"


class PluginError(LoculeError):
    """A plugin refused or failed."""

    _code = "plugin"


class InternalError(LoculeError):
    """A defect in Locule. Please report it with the whole message."""

    _code = "bug"


class TimeoutExpired(Timeout, subprocess.TimeoutExpired):
    """A program took longer than its ``timeout``. Also a subprocess.TimeoutExpired.

    `cmd`, `timeout`, `stdout` and `stderr` are as there: the output is what came until then.
    """

    def __init__(
        self,
        cmd: Any,
        timeout: float,
        output: Optional[bytes] = None,
        stderr: Optional[bytes] = None,
        *,
        container_id: Optional[str] = None,
    ) -> None:
        message = f"{cmd!r} has not ended within {timeout:g} seconds"
        super().__init__(message, container_id=container_id)
        self.cmd = cmd
        self.timeout = timeout
        self.output = output
        self.stderr = stderr


class CalledProcessError(subprocess.CalledProcessError):
    """With ``check``: the program ended with another status than 0."""


_KINDS: Dict[int, Type[LoculeError]] = {
    _abi.E_INVALID: Invalid,
    _abi.E_SPEC: SpecError,
    _abi.E_NOT_FOUND: NotFound,
    _abi.E_EXISTS: Exists,
    _abi.E_STATE: StateError,
    _abi.E_PERMISSION: PermissionDenied,
    _abi.E_UNSUPPORTED: Unsupported,
    _abi.E_BUSY: Busy,
    _abi.E_TIMEOUT: Timeout,
    _abi.E_CANCELLED: Cancelled,
    _abi.E_RESOURCE: ResourceError,
    _abi.E_SYSTEM: SystemCallError,
    _abi.E_PROGRAM: ProgramError,
    _abi.E_HOOK: HookError,
    _abi.E_KEEPER: KeeperError,
    _abi.E_PLUGIN: PluginError,
    _abi.E_BUG: InternalError,
}


def kind_of(number: int) -> Type[LoculeError]:
    """The class for a category. A later library may have some that are not known here."""
    return _KINDS.get(number, SystemCallError)


def _text(value: Optional[bytes]) -> Optional[str]:
    return value.decode("utf-8", "replace") if value else None


def take(lib: ctypes.CDLL, number: int, error: ctypes.c_void_p) -> LoculeError:
    """Makes an exception of a failed call's error, and gives the error back."""
    if not error.value:
        return kind_of(number)("the call failed", code=_text(lib.locule_category_name(number)))
    try:
        return kind_of(number)(
            _text(lib.locule_error_message(error)) or "",
            code=_text(lib.locule_category_name(number)),
            errno=lib.locule_error_errno(error) or None,
            stage=_text(lib.locule_error_stage_name(error)),
            pointer=_text(lib.locule_error_pointer(error)),
            hint=_text(lib.locule_error_hint(error)),
            container_id=_text(lib.locule_error_container_id(error)),
            step=_text(lib.locule_error_step(error)),
        )
    finally:
        lib.locule_error_unref(error)


class _Raised(threading.local):
    """What a plugin of this thread has raised, for the call of the library that it ends."""

    exception: Optional[BaseException] = None
    #: How an error that comes of it begins to tell of it.
    told: str = ""


raised = _Raised()


def call(function: str, *arguments: Any) -> int:
    """Calls a fallible function: its result, or its error as an exception."""
    lib = _abi.library()
    error = ctypes.c_void_p()
    raised.exception = None
    result: int = getattr(lib, function)(*arguments, ctypes.byref(error))
    cause, raised.exception = raised.exception, None
    if cause is not None and not isinstance(cause, Exception):
        # KeyboardInterrupt, above all: not what the library makes of it.
        lib.locule_error_unref(error)
        raise cause
    if result < 0:
        failure = take(lib, result, error)
        if cause is not None and raised.told in failure.message:
            failure.__cause__ = cause
        raise failure
    return result


def call_for_bytes(function: str, *arguments: Any) -> bytes:
    """Calls a function whose last argument but the error is a buffer that it fills."""
    return bytes_of(lambda buf: call(function, *arguments, buf))


def bytes_of(fill: Callable[[Any], object]) -> bytes:
    """What a call of the library stores in a buffer."""
    lib = _abi.library()
    buf = _abi.Buf()
    try:
        fill(ctypes.byref(buf))
        return ctypes.string_at(buf.data, buf.len) if buf.data else b""
    finally:
        lib.locule_buf_free(ctypes.byref(buf))


__all__: List[str] = [
    "LoculeError", "Invalid", "SpecError", "NotFound", "Exists", "StateError",
    "PermissionDenied", "Unsupported", "Busy", "Timeout", "Cancelled", "ResourceError",
    "SystemCallError", "ProgramError", "HookError", "KeeperError", "PluginError",
    "InternalError", "TimeoutExpired", "CalledProcessError",
]

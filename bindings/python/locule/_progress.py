"""How far a call for an image is, told to a callable of the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Generator, Optional

from . import _abi

_STEPS = {
    _abi.IMAGE_STEP_FETCH: "fetch",
    _abi.IMAGE_STEP_UNPACK: "unpack",
    _abi.IMAGE_STEP_SAVE: "save",
    _abi.IMAGE_STEP_PUSH: "push",
    _abi.IMAGE_STEP_PACK: "pack",
}


@dataclass(frozen=True)
class Progress:
    """How far a call is with one blob of an image. What is there already is told once, as
    finished."""

    #: "fetch" (into the store), "unpack", "save", "push", or "pack": a layer is made. Later
    #: versions may add steps: ignore what you do not know.
    step: str
    #: The blob's digest; None while a layer is being made.
    digest: Optional[str]
    #: Bytes done.
    done: int
    #: Bytes in all; None where that is not known.
    total: Optional[int]
    #: Whether this blob is finished.
    finished: bool


#: What is told how far a call is: of each blob the beginning and the end, and between them at most
#: ten times a second, on the thread that made the call. An exception stops the call and goes on to
#: its caller.
Tell = Callable[[Progress], object]


class Listener:
    """Is called by the library during one call of it, and keeps what was raised there.

    A call without a `progress` has one, too: Python runs signal handlers between its own
    instructions only, so this is where Ctrl-C stops a call that goes on for minutes.
    """

    raised: Optional[BaseException] = None

    def __init__(self, progress: Optional[Tell]) -> None:
        # What a signal handler raises when a generator is resumed comes out of its `yield`, inside
        # the `try`, as does what it raises in the inner loop. In a function it comes before the
        # first line: ctypes would print it, and the call go on.
        self._generator = self._listen(progress)
        next(self._generator)
        self.function = _abi.ImageProgressFn(self._generator.send)

    def _listen(self, progress: Optional[Tell]) -> Generator[int, Any, None]:
        answer = 0
        while True:
            try:
                while True:
                    told = (yield answer).contents
                    if progress is not None:
                        progress(_read(told))
            except GeneratorExit:
                return
            except BaseException as exception:
                self.raised, answer = exception, 1

    def __enter__(self) -> "Listener":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._generator.close()


def _read(told: _abi.ImageProgress) -> Progress:
    return Progress(
        step=_STEPS.get(told.step, f"step {told.step}"),
        digest=told.digest.decode("utf-8", "replace") or None,
        done=told.done,
        total=told.total or None,
        finished=bool(told.finished),
    )

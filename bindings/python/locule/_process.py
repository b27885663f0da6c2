"""A process in a container, in the shape of subprocess.Popen.

Whatever waits here polls descriptors in Python, in no lock and in no call into the library: a
signal handler, and with it KeyboardInterrupt, runs at once.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import selectors
import signal as signals
import time
from typing import IO, Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

from . import _abi
from ._errors import KeeperError, NotFound, StateError, TimeoutExpired, call
from ._handle import Handle, close_with
from ._stdio import Streams, Terminal

Deadline = Optional[float]  # of time.monotonic()
_CHUNK = 32768


def deadline_of(timeout: Optional[float]) -> Deadline:
    return None if timeout is None else time.monotonic() + timeout


def left_until(deadline: Deadline) -> Optional[float]:
    """Seconds; not more than poll(2) can count, so who waits has to look again."""
    return None if deadline is None else min(max(0.0, deadline - time.monotonic()), 1e6)


class _Ended:
    """How a process ended; shared with the finalizer of its Process."""

    returncode: Optional[int] = None
    unknown = False


class Process:
    """A process in a container: the first one (`Container.init`) or one from `exec`.

    Attributes and methods are those of subprocess.Popen. `returncode` is negative for a
    signal. As a context manager it closes its streams and waits. Dropping it ends nothing.
    """

    #: The program and its arguments; None for a container that was opened by its id.
    args: Optional[Sequence[str]]
    #: The process id, as this process sees it.
    pid: int
    container_id: str
    #: With PIPE: our ends of the standard streams.
    stdin: Optional[IO[Any]]
    stdout: Optional[IO[Any]]
    stderr: Optional[IO[Any]]
    #: With a tty: its master, for reading and writing.
    terminal: Optional[Terminal]

    def __init__(
        self,
        handle: Handle,
        container_id: str,
        args: Optional[Sequence[str]] = None,
        streams: Optional[Streams] = None,
    ) -> None:
        # Made by Container only.
        self._handle = handle
        self._ended = ended = _Ended()
        self.container_id = container_id
        self.args = args
        self.stdin = self.stdout = self.stderr = self.terminal = None
        self._text = streams is not None and streams.text
        self._output: Dict[IO[Any], List[bytes]] = {}
        self._input: Optional[memoryview] = None
        self._communicating = False
        # The library reports the end of a process only while somebody holds a handle to it:
        # called before this one is given back.
        self._before_close: Callable[[], None] = lambda: None
        with self._handle as process:
            self.pid = _abi.library().locule_process_pid(process)
            self._fd: int = _abi.library().locule_process_fd(process)
        description = f"process {self.pid} of container {container_id} is still running"
        close_with(
            self,
            self._handle,
            lambda: description if ended.returncode is None and not ended.unknown else None,
        )
        if streams is not None:
            try:
                self.stdin = self._take_pipe(streams, 0)
                self.stdout = self._take_pipe(streams, 1)
                self.stderr = self._take_pipe(streams, 2)
                self.terminal = self._take_terminal()
            except BaseException:
                self._close_files()
                raise

    def _take_pipe(self, streams: Streams, number: int) -> Optional[IO[Any]]:
        fd = streams.take_shared() if number == 1 else None
        if fd is None:
            if not streams.piped[number]:
                return None
            try:
                with self._handle as process:
                    fd = call("locule_process_take_pipe", process, number)
            except NotFound:  # a process with a terminal has no pipes
                return None
        return streams.open(fd, number)

    def _take_terminal(self) -> Optional[Terminal]:
        try:
            with self._handle as process:
                return Terminal(call("locule_process_take_terminal", process))
        except NotFound:
            return None

    def __repr__(self) -> str:
        return f"<locule.Process {self.pid} of {self.container_id}: returncode {self.returncode}>"

    @property
    def returncode(self) -> Optional[int]:
        """As subprocess has it: None until `poll` or `wait` saw the end."""
        return self._ended.returncode

    def fileno(self) -> int:
        """A descriptor that is readable once the process has ended. Only to be polled."""
        with self._handle:
            return self._fd

    def poll(self) -> Optional[int]:
        """The return code if the process has ended, else None.

        Raises KeeperError if nobody could collect the status.
        """
        if self._ended.returncode is not None or self._ended.unknown:
            return self._look(None)
        with self._handle as process:
            return self._look(process)

    def _look(self, process: Optional[int]) -> Optional[int]:
        ended = self._ended
        if ended.returncode is None:
            exit = _abi.Exit()
            if not ended.unknown:
                if not call("locule_process_wait", process, 0, None, ctypes.byref(exit)):
                    return None
            if exit.kind == _abi.EXIT_CODE:
                ended.returncode = exit.code
            elif exit.kind == _abi.EXIT_SIGNAL:
                ended.returncode = -exit.signal
            else:
                ended.unknown = True
                raise KeeperError(
                    f"process {self.pid} is gone and nobody collected its exit status",
                    container_id=self.container_id,
                )
        return ended.returncode

    def has_ended(self) -> bool:
        """Whether the process has ended, also if its status was lost."""
        try:
            return self.poll() is not None
        except KeeperError:
            if self._ended.unknown:
                return True
            raise

    def wait(self, timeout: Optional[float] = None) -> int:
        """Waits for the end and returns the return code, or raises TimeoutExpired."""
        if self.returncode is not None:
            return self.returncode
        deadline = deadline_of(timeout)
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        with self._handle as process:  # keeps the descriptor open, whoever closes the handle
            while True:
                returncode = self._look(process)
                if returncode is not None:
                    return returncode
                left = left_until(deadline)
                if left == 0:
                    assert timeout is not None
                    raise TimeoutExpired(self._name, timeout, container_id=self.container_id)
                # Rounded up: rounded down, the last millisecond would be spent spinning.
                poll.poll(None if left is None else math.ceil(left * 1000))

    @property
    def _name(self) -> Any:
        return self.args if self.args is not None else f"process {self.pid}"

    def send_signal(self, sig: int) -> None:
        """Sends a signal; does nothing if the process has ended."""
        if self.returncode is not None or self._ended.unknown:
            return
        try:
            with self._handle as process:
                call("locule_process_signal", process, int(sig))
        except StateError:
            if self._handle.inherited:
                raise

    def terminate(self) -> None:
        """Sends SIGTERM. The first process of a container gets it only if it handles it."""
        self.send_signal(signals.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signals.SIGKILL)

    def resize(self, rows: int, columns: int) -> None:
        """Tells the terminal its size in characters."""
        with self._handle as process:
            call("locule_process_resize", process, rows, columns)

    # --- input and output ------------------------------------------------------------------

    def communicate(
        self, input: Union[bytes, str, None] = None, timeout: Optional[float] = None
    ) -> Tuple[Any, Any]:
        """Sends input, reads stdout and stderr to their ends, waits: (stdout, stderr).

        After TimeoutExpired it may be called again, without input, and nothing is lost.
        """
        if self._communicating and input is not None:
            raise ValueError("cannot send input after communication has begun")
        if not self._communicating:
            self._begin(input)
        deadline = deadline_of(timeout)
        try:
            self._transfer(deadline)
            self.wait(left_until(deadline))
        except TimeoutExpired as error:
            assert timeout is not None
            raise TimeoutExpired(
                self._name, timeout, self._collected(self.stdout), self._collected(self.stderr),
                container_id=self.container_id,
            ) from error.__cause__
        return self._finished(self.stdout), self._finished(self.stderr)

    def _begin(self, input: Union[bytes, str, None]) -> None:
        self._communicating = True
        if self.stdin is not None and not self.stdin.closed:
            try:
                self.stdin.flush()
            except BrokenPipeError:
                pass
            if isinstance(input, str):
                encoding = getattr(self.stdin, "encoding", None) or "utf-8"
                input = input.encode(encoding, getattr(self.stdin, "errors", None) or "strict")
            if input:
                self._input = memoryview(input).cast("B")
            else:
                _close_quietly(self.stdin)
        self._output = {file: [] for file in (self.stdout, self.stderr) if file is not None}

    def _transfer(self, deadline: Deadline) -> None:
        with selectors.PollSelector() as selector:
            if self.stdin is not None and not self.stdin.closed:
                selector.register(self.stdin, selectors.EVENT_WRITE)
            for file in self._output:
                if not file.closed:
                    selector.register(file, selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(left_until(deadline))
                if not ready and deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutExpired(self._name, 0)
                for key, _ in ready:
                    end: Any = key.fileobj
                    going_on = self._drain(end) if end in self._output else self._feed(end)
                    if not going_on:
                        selector.unregister(end)
                        _close_quietly(end)

    def _feed(self, file: IO[Any]) -> bool:
        assert self._input is not None
        try:
            # No more than fits for sure: the pipe is one that blocks.
            sent = os.write(file.fileno(), self._input[: select.PIPE_BUF])
        except BrokenPipeError:
            return False
        self._input = self._input[sent:]
        return len(self._input) > 0

    def _drain(self, file: IO[Any]) -> bool:
        data = os.read(file.fileno(), _CHUNK)
        self._output[file].append(data)
        return bool(data)

    def _collected(self, file: Optional[IO[Any]]) -> Optional[bytes]:
        """What came so far: bytes, as with subprocess, for it may end within a character."""
        return b"".join(self._output[file]) if file in self._output and file else None

    def _finished(self, file: Optional[IO[Any]]) -> Union[bytes, str, None]:
        data = self._collected(file)
        if data is None or not self._text:
            return data
        text = data.decode(getattr(file, "encoding", "utf-8"), getattr(file, "errors", "strict"))
        return text.replace("\r\n", "\n").replace("\r", "\n")

    # --- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """Closes the streams and gives the handle back. The process goes on."""
        self._close_files()
        self._close_handle()

    def _close_files(self) -> None:
        for file in (self.stdin, self.stdout, self.stderr, self.terminal):
            if file is not None:
                _close_quietly(file)

    def _close_handle(self) -> None:
        if not self._handle.closed:
            self._before_close()
        self._handle.close()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_exception: object) -> None:
        try:
            self._close_files()
            if not self._handle.closed:
                self.wait()
        finally:
            self.close()


def _close_quietly(file: IO[Any]) -> None:
    try:
        file.close()
    except BrokenPipeError:
        pass  # what was not yet written can no longer be read by anybody

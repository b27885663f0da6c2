"""Standard streams, in the vocabulary of subprocess."""

from __future__ import annotations

import codecs
import errno
import io
import os
import subprocess
from typing import IO, Any, List, Optional, Union

from . import _abi

PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT
DEVNULL = subprocess.DEVNULL

#: None: the stream of this process. Or PIPE, DEVNULL, a descriptor or an open file; for
#: stderr also STDOUT.
Stdio = Union[None, int, IO[Any]]


class Streams:
    """The three choices for a process that is about to be made, and how to open our ends."""

    def __init__(
        self,
        stdin: Stdio,
        stdout: Stdio,
        stderr: Stdio,
        text: bool = False,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
    ) -> None:
        # What is wrong has to come out before there is a process.
        if encoding is not None:
            codecs.lookup(encoding)
        if errors is not None:
            codecs.lookup_error(errors)
        self.text = text or encoding is not None or errors is not None
        self._encoding = encoding
        self._errors = errors
        self.piped = [stream == PIPE for stream in (stdin, stdout, stderr)]
        self._close_after: List[int] = []
        self._shared: Optional[int] = None  # our end of a pipe that is both stdout and stderr
        self._choices = [_choice(stdin), _choice(stdout), _choice(stderr, last=True)]
        if stderr == STDOUT and not isinstance(stderr, io.IOBase):
            self.piped[2] = False
            if stdout == PIPE:
                self._shared, theirs = os.pipe()  # both close-on-exec
                self._close_after.append(theirs)
                self._choices[1] = _abi.Stdio(_abi.STDIO_FD, theirs)
            elif stdout is None:
                self._choices[1] = _abi.Stdio(_abi.STDIO_FD, 1)
            self._choices[2] = self._choices[1]

    def fill(self, opts: Any) -> None:
        for number, choice in enumerate(self._choices):
            opts.stdio[number] = choice

    def take_shared(self) -> Optional[int]:
        """Our end of the pipe that is stdout and stderr, if it is one; the caller owns it."""
        shared, self._shared = self._shared, None
        return shared

    def open(self, fd: int, number: int) -> IO[Any]:
        """Our end of a pipe as a file, as Popen would open it."""
        binary = io.open(fd, "wb" if number == 0 else "rb")
        if not self.text:
            return binary
        return io.TextIOWrapper(
            binary, encoding=self._encoding, errors=self._errors, write_through=number == 0,
        )

    def close(self) -> None:
        """Closes what was only for the container, and what nobody took."""
        for fd in self._close_after:
            os.close(fd)
        self._close_after.clear()
        shared = self.take_shared()
        if shared is not None:
            os.close(shared)


def _choice(stream: Stdio, last: bool = False) -> _abi.Stdio:
    if stream is None:
        return _abi.Stdio(_abi.STDIO_INHERIT, 0)
    if isinstance(stream, bool):
        raise TypeError("a standard stream cannot be a bool")
    if isinstance(stream, int):
        if stream == PIPE:
            return _abi.Stdio(_abi.STDIO_PIPE, 0)
        if stream == DEVNULL:
            return _abi.Stdio(_abi.STDIO_NULL, 0)
        if stream == STDOUT and last:
            return _abi.Stdio(_abi.STDIO_NULL, 0)  # replaced by stdout's
        if stream == STDOUT:
            raise ValueError("STDOUT can only be used for stderr")
        if stream < 0:
            raise ValueError(f"{stream} is no descriptor")
        return _abi.Stdio(_abi.STDIO_FD, stream)
    return _abi.Stdio(_abi.STDIO_FD, stream.fileno())


class Terminal(io.FileIO):
    """The master of a process's terminal: raw, for reading and writing.

    When the last process has closed the terminal, a read returns b"" as at the end of a file.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "r+")

    def read(self, size: Optional[int] = -1) -> Any:
        if size is None or size < 0:
            return self.readall()
        return self._end_is_empty(super().read, size)

    def readinto(self, buffer: Any) -> Any:
        return self._end_is_empty(super().readinto, buffer) or 0

    def readall(self) -> bytes:
        parts: List[bytes] = []
        while True:
            part = self.read(65536)
            if not part:
                return b"".join(parts)
            parts.append(part)

    @staticmethod
    def _end_is_empty(read: Any, argument: Any) -> Any:
        try:
            return read(argument)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return b""

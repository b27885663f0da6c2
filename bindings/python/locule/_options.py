"""The keyword arguments of `run` and `create`, for type checkers only."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, TypedDict, Union

from ._choices import Mount, StrPath, Tty, User
from ._stdio import Stdio


class SpecOptions(TypedDict, total=False):
    """What the container is. See `locule.run`."""

    rootfs: Optional[StrPath]
    bundle: Optional[StrPath]
    spec: Union[Mapping[str, Any], str, bytes, None]
    overlay: Optional[bool]
    env: Optional[Mapping[str, str]]
    cwd: Optional[StrPath]
    user: Optional[User]
    hostname: Optional[str]
    mounts: Sequence[Union[Mount, str]]
    network: Optional[str]
    readonly: Optional[bool]
    memory: Union[int, str, None]
    cpus: Optional[float]
    pids: Optional[int]


class CreateOptions(SpecOptions, total=False):
    """What a container that is not yet started has besides."""

    tty: Optional[Tty]


class RunOptions(SpecOptions, total=False):
    """How it is run. See `locule.run`."""

    input: Union[bytes, str, None]
    capture_output: bool
    text: bool
    encoding: Optional[str]
    errors: Optional[str]
    timeout: Optional[float]
    check: bool
    stdin: Stdio
    stdout: Stdio
    stderr: Stdio
    pass_fds: Sequence[int]

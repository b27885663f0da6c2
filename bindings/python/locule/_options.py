"""The keyword arguments of `run`, `create` and what images have, for type checkers only."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence, TypedDict, Union

from ._choices import Env, ImageLike, Mount, StrPath, Tty, User
from ._progress import Tell
from ._stdio import Stdio


class OverrideOptions(TypedDict, total=False):
    """What changes it, in an image too. See `locule.run`."""

    env: Optional[Env]
    cwd: Optional[StrPath]
    user: Optional[User]
    hostname: Optional[str]
    mounts: Sequence[Union[Mount, str]]
    network: Optional[str]
    readonly: Optional[bool]
    memory: Union[int, str, None]
    cpus: Optional[float]
    pids: Optional[int]
    entrypoint: Optional[Sequence[str]]
    stop_signal: Union[int, str, None]
    annotations: Optional[Mapping[str, str]]
    overrides: Optional[Mapping[str, Any]]


class PrepareOptions(OverrideOptions, total=False):
    """See `locule.Image.prepare`."""

    overlay: Optional[bool]
    tty: Optional[Tty]


class SpecOptions(OverrideOptions, total=False):
    """What the container is. See `locule.run`."""

    rootfs: Optional[StrPath]
    bundle: Optional[StrPath]
    spec: Union[Mapping[str, Any], str, bytes, None]
    overlay: Optional[bool]
    image: Optional[ImageLike]
    lower: Sequence[StrPath]
    changes: Optional[StrPath]


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
    progress: Optional[Tell]
    check: bool
    stdin: Stdio
    stdout: Stdio
    stderr: Stdio
    pass_fds: Sequence[int]


class TransferOptions(TypedDict, total=False):
    """What all long calls for images have. See `locule.Image`."""

    progress: Optional[Tell]
    timeout: Optional[float]


class RegistryOptions(TransferOptions, total=False):
    """See `locule.Image.pull`."""

    username: Optional[str]
    password: Optional[str]
    auth_file: Optional[StrPath]
    ca_file: Optional[StrPath]
    registries_file: Optional[StrPath]


class LoadOptions(TransferOptions, total=False):
    """See `locule.Image.load`."""

    name: Optional[str]
    from_: Optional[str]
    platform: Optional[str]


class PullOptions(RegistryOptions, total=False):
    """See `locule.Image.pull`."""

    name: Optional[str]
    platform: Optional[str]


class NewImageOptions(TransferOptions, total=False):
    """See `locule.Image.import_` and `locule.Container.commit`."""

    name: Optional[str]
    compression: str
    config: Optional[Mapping[str, Any]]
    author: Optional[str]
    comment: Optional[str]
    created: Optional[str]


class SaveOptions(TransferOptions, total=False):
    """See `locule.Image.save`."""

    name: Optional[str]


class UnpackOptions(TransferOptions, total=False):
    """See `locule.Image.unpack`."""

    owner: str
    max_bytes: Optional[int]
    max_entries: Optional[int]
    max_ratio: Optional[int]

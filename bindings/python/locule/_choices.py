"""What a container shall be: keyword arguments turned into a config.json for the library.

Without a bundle or a spec of the caller's the library's own template is filled in. Otherwise
the arguments given change the caller's document, and nothing else in it. A document that is
not even well-formed goes to the library as it is, which says what is wrong with it and where.
With an image the library makes the document: the arguments become its overrides.
"""

from __future__ import annotations

import ctypes
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from . import _abi
from ._errors import Invalid, NotFound, call_for_bytes

if TYPE_CHECKING:
    from . import _image, aio

StrPath = Union[str, "os.PathLike[str]"]
Args = Union[str, "os.PathLike[str]", Sequence[Union[str, "os.PathLike[str]"]]]
#: The environment. With an image None takes a variable of its away.
Env = Mapping[str, Optional[str]]
#: A user id, with the group of the same number, or "uid:gid", or (uid, gid). With an image names of
#: its own, too, and the group of a user alone is what the image says.
User = Union[int, str, Tuple[int, int]]
#: True, or the size as (rows, columns).
Tty = Union[bool, Tuple[int, int]]
#: An image, or the name of one.
ImageLike = Union[str, "_image.Image", "aio.Image"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CPU_PERIOD = 100_000  # microseconds, the kernel's default

# Members of the overrides of an image, and the keyword argument that decides each.
_DECIDED_BY = {
    "args": "args", "entrypoint": "entrypoint", "env": "env", "cwd": "cwd", "user": "user",
    "hostname": "hostname", "readonly": "readonly", "overlay": "overlay", "hostNetwork": "network",
    "memory": "memory", "cpus": "cpus", "pids": "pids", "mounts": "mounts", "terminal": "tty",
    "terminalSize": "tty", "annotations": "annotations", "stopSignal": "stop_signal",
}


@dataclass(frozen=True)
class Mount:
    """A file or directory of the host, visible in the container at `target`; nobody writes to it
    there unless `readonly` is False."""

    source: StrPath
    target: StrPath
    readonly: bool = True

    @classmethod
    def parse(cls, text: str) -> "Mount":
        """Reads "source:target:ro" or "source:target:rw"; "source:target" is the former."""
        parts = text.split(":")
        if len(parts) == 2:
            parts.append("ro")
        if len(parts) != 3 or parts[2] not in ("ro", "rw") or not parts[0] or not parts[1]:
            raise Invalid(f"mount {text!r}: not of the form source:target[:ro|rw]")
        return cls(parts[0], parts[1], parts[2] == "ro")

    def to_spec(self) -> Dict[str, Any]:
        """As config.json has it."""
        target = os.fspath(self.target)
        if not target.startswith("/"):
            raise Invalid(f"mount target {target!r}: not an absolute path")
        # rro: "ro" would leave what is mounted below the source writable.
        access = ["rro"] if self.readonly else ["rw"]
        return {
            "destination": target,
            "type": "bind",
            "source": os.path.abspath(os.fspath(self.source)),
            "options": ["rbind", "rprivate", "nosuid", "nodev", *access],
        }


def parse_args(args: Optional[Args]) -> Optional[List[str]]:
    """The program and its arguments as text; a single string is a program without arguments."""
    if args is None:
        return None
    given: Sequence[Any] = [args] if isinstance(args, (str, bytes, os.PathLike)) else list(args)
    if not given:
        raise Invalid("args: there has to be at least the program")
    return [text_of(arg, "args") for arg in given]


def text_of(value: Any, what: str) -> str:
    try:
        text = os.fsdecode(value)
        text.encode()
    except TypeError:
        raise TypeError(f"{what}: expected text or a path, not {type(value).__name__}") from None
    except UnicodeEncodeError:
        raise Invalid(f"{what}: {value!r} is not UTF-8") from None
    if "\0" in text:
        raise Invalid(f"{what}: {text!r} contains a NUL character")
    return text


def path_bytes(path: StrPath) -> bytes:
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise Invalid(f"{path!r} contains a NUL character")
    return encoded


def parse_env(env: Optional[Env]) -> Optional[List[str]]:
    """The whole environment as "NAME=value". A PATH is added if there is none."""
    if env is None:
        return None
    lines = [_variable(name, text_of(value, "env")) for name, value in env.items()]
    return lines if "PATH" in env else [f"PATH={DEFAULT_PATH}", *lines]


def _variable(name: str, value: Optional[str]) -> str:
    """ "NAME=value", or for None "NAME"."""
    if not name or "=" in name:
        raise Invalid(f"env: {name!r} cannot be the name of a variable")
    name = text_of(name, "env")
    return name if value is None else f"{name}={text_of(value, 'env')}"


def parse_user(user: Optional[User]) -> Optional[Tuple[int, int]]:
    if user is None:
        return None
    wrong = Invalid(f"user {user!r}: expected a user id, 'uid:gid' or (uid, gid)")
    pair: Sequence[Any]
    if isinstance(user, str):
        pair = user.split(":")
        # Ten digits are enough for every id.
        if not all(part.isascii() and part.isdigit() and len(part) <= 10 for part in pair):
            raise wrong
        pair = [int(part) for part in pair]
    else:
        pair = user if isinstance(user, (tuple, list)) else [user]
    # Whole or not at all (CVE-2016-3697, CVE-2026-30892): int(1.9) and int(True) are 1.
    numbers = all(isinstance(part, int) and not isinstance(part, bool) for part in pair)
    if not numbers or len(pair) not in (1, 2) or not all(0 <= part < 2**32 - 1 for part in pair):
        raise wrong
    return pair[0], pair[-1]


def _user_of_image(user: Optional[User]) -> Optional[str]:
    """As an image has it: "USER" or "USER:GROUP", names or numbers."""
    if isinstance(user, str):
        return text_of(user, "user")
    pair = parse_user(user)
    if pair is None:
        return None
    return f"{pair[0]}:{pair[1]}" if isinstance(user, (tuple, list)) else str(pair[0])


def parse_memory(memory: Union[int, str, None]) -> Optional[int]:
    """Bytes, or a number with the unit K, M, G or T: powers of 1,024."""
    if memory is None:
        return None
    wrong = Invalid(f"memory {memory!r}: expected bytes, or a number with K, M, G or T")
    if isinstance(memory, str):
        text = memory.strip().upper()
        unit = 1
        for power, letter in enumerate("KMGT", 1):
            for suffix in (f"{letter}IB", f"{letter}B", letter):
                if text.endswith(suffix):
                    text, unit = text[: -len(suffix)], 1024**power
                    break
            if unit > 1:
                break
        try:
            memory = int(float(text) * unit)
        except (ValueError, OverflowError):
            raise wrong from None
    if isinstance(memory, bool) or memory <= 0:
        raise wrong
    return memory


def parse_cpus(cpus: Optional[float]) -> Optional[int]:
    """Thousandths of a processor."""
    if cpus is None:
        return None
    milli = round(cpus * 1000) if 0 < cpus < 1e6 else 0
    if milli < 10:  # the kernel's least quota is a millisecond in a tenth of a second
        raise Invalid(f"cpus {cpus!r}: expected a number of processors, such as 0.5")
    return milli


def parse_tty(tty: Optional[Tty]) -> Tuple[bool, Optional[Tuple[int, int]]]:
    """Whether there is a terminal, and its size if one is wished."""
    if tty is None or isinstance(tty, bool):
        return bool(tty), None
    rows, columns = tty
    if not (0 < rows < 65536 and 0 < columns < 65536):
        raise Invalid(f"tty {tty!r}: expected (rows, columns)")
    return True, (rows, columns)


def process_document(
    args: Args,
    env: Optional[Mapping[str, str]],
    cwd: Optional[StrPath],
    user: Optional[User],
    tty: Optional[Tty],
) -> bytes:
    """The `process` object for an exec: what is absent is as for the first process.

    But for the terminal: a second process has one only if it is asked for.
    """
    process: Dict[str, Any] = {"args": parse_args(args)}
    _change_process(process, parse_env(env), cwd, parse_user(user), tty or False)
    return json.dumps(process).encode()


def _change_process(
    process: Dict[str, Any],
    env: Optional[List[str]],
    cwd: Optional[StrPath],
    user: Optional[Tuple[int, int]],
    tty: Optional[Tty],
) -> None:
    if env is not None:
        process["env"] = env
    if cwd is not None:
        process["cwd"] = text_of(cwd, "cwd")
    if user is not None:
        process["user"] = {"uid": user[0], "gid": user[1]}
    if tty is not None:
        terminal, size = parse_tty(tty)
        process["terminal"] = terminal
        if size is not None:
            process["consoleSize"] = {"height": size[0], "width": size[1]}


@dataclass
class Choices:
    """The keyword arguments that describe a container."""

    args: Optional[Args] = None
    rootfs: Optional[StrPath] = None
    bundle: Optional[StrPath] = None
    spec: Union[Mapping[str, Any], str, bytes, None] = None
    overlay: Optional[bool] = None
    env: Optional[Env] = None
    cwd: Optional[StrPath] = None
    user: Optional[User] = None
    hostname: Optional[str] = None
    mounts: Sequence[Union[Mount, str]] = ()
    network: Optional[str] = None
    readonly: Optional[bool] = None
    memory: Union[int, str, None] = None
    cpus: Optional[float] = None
    pids: Optional[int] = None
    tty: Optional[Tty] = None
    image: Optional[ImageLike] = None
    entrypoint: Optional[Sequence[str]] = None
    stop_signal: Union[int, str, None] = None
    annotations: Optional[Mapping[str, str]] = None
    overrides: Optional[Mapping[str, Any]] = None
    lower: Sequence[StrPath] = ()
    changes: Optional[StrPath] = None

    def __post_init__(self) -> None:
        if self.network not in (None, "none", "host"):
            raise Invalid(f"network {self.network!r}: expected 'none' or 'host'")
        if self.rootfs is not None and (self.bundle is not None or self.spec is not None):
            raise Invalid("rootfs: a bundle or a spec has its own, in root.path")
        if isinstance(self.mounts, (str, Mount)):
            raise TypeError("mounts: expected a sequence of mounts")
        if isinstance(self.lower, (str, bytes, os.PathLike)):
            raise TypeError("lower: expected a sequence of directories")
        if self.pids is not None and not 0 < self.pids < 2**32:
            raise Invalid(f"pids {self.pids!r}: expected a number above 0")
        self._args = parse_args(self.args)
        self._memory = parse_memory(self.memory)
        self._cpus = parse_cpus(self.cpus)
        parse_tty(self.tty)
        self._binds = [
            Mount.parse(mount) if isinstance(mount, str) else mount for mount in self.mounts
        ]
        self._mounts = [mount.to_spec() for mount in self._binds]
        self._annotations = {
            text_of(key, "annotations"): text_of(value, "annotations")
            for key, value in (self.annotations or {}).items()
        }
        if self.image is None:
            for name in ("entrypoint", "stop_signal", "overrides"):
                if getattr(self, name) is not None:
                    raise Invalid(f"{name}: there is no image for which to override something")
            self._env = parse_env(self.env)
            self._user = parse_user(self.user)
        else:
            self._check_image()

    def _check_image(self) -> None:
        for name in ("rootfs", "bundle", "spec"):
            if getattr(self, name) is not None:
                raise Invalid(f"{name}: an image takes its place")
        if self.lower:
            raise Invalid("lower: an image has its own layers")
        handle = getattr(self.image, "_handle", None)
        if not isinstance(self.image, str) and getattr(handle, "_kind", None) != "image":
            kind = type(self.image).__name__
            raise TypeError(f"image: expected an Image or the name of one, not {kind}")
        if self.overrides is not None and not isinstance(self.overrides, Mapping):
            raise TypeError(
                f"overrides: expected a mapping, not {type(self.overrides).__name__}"
            )

    def _further(self) -> Dict[str, Any]:
        """The members of `overrides`, none of which another argument decides."""
        further = {
            name: value for name, value in (self.overrides or {}).items() if value is not None
        }
        for name in further:
            argument = _DECIDED_BY.get(name)
            if argument is not None and self._decides(argument):
                raise Invalid(f"overrides: the argument {argument!r} decides {name!r} already")
        return further

    def _decides(self, argument: str) -> bool:
        value = getattr(self, argument)
        # These only add something, so that an empty one says nothing.
        return bool(value) if argument in ("env", "mounts", "annotations") else value is not None

    def overrides_json(self) -> Optional[bytes]:
        """What is to be other than the image has it; None for nothing."""
        terminal, size = parse_tty(self.tty)
        entrypoint = self.entrypoint
        if isinstance(entrypoint, (str, bytes, os.PathLike)):
            raise TypeError("entrypoint: expected a sequence, the program and its arguments")
        given: Dict[str, Any] = {
            "args": self._args,
            "entrypoint": None if entrypoint is None else [
                text_of(arg, "entrypoint") for arg in entrypoint
            ],
            "env": [_variable(name, value) for name, value in (self.env or {}).items()] or None,
            "cwd": None if self.cwd is None else text_of(self.cwd, "cwd"),
            "user": _user_of_image(self.user),
            "hostname": None if self.hostname is None else text_of(self.hostname, "hostname"),
            "readonly": self.readonly or None,
            "overlay": self.overlay,
            "hostNetwork": self.network == "host" or None,
            "memory": self._memory,
            "cpus": None if self._cpus is None else self._cpus / 1000,
            "pids": self.pids,
            "mounts": [
                {
                    "source": spec["source"], "target": spec["destination"],
                    "readonly": mount.readonly,
                }
                for mount, spec in zip(self._binds, self._mounts)
            ] or None,
            "terminal": terminal or None,
            "terminalSize": size,
            "annotations": self._annotations or None,
            "stopSignal": _signal_of(self.stop_signal),
        }
        given = {name: value for name, value in given.items() if value is not None}
        given.update(self._further())
        return json.dumps(given).encode() if given else None

    @property
    def flags(self) -> int:
        """LOCULE_CREATE_*"""
        if self.image is not None:
            return 0
        host_root = self.rootfs is None and self.bundle is None and self.spec is None
        overlay = host_root if self.overlay is None else self.overlay
        if host_root and not overlay:
            raise Invalid("overlay: the host's own root is used below an overlay only")
        return _abi.CREATE_ROOTFS_OVERLAY if overlay else 0

    def document(self) -> Optional[bytes]:
        """The text of config.json; None to have the library read the bundle's."""
        if self.image is not None:
            raise Invalid("image: its config.json is made at the creation of a container")
        if self.spec is None and self.bundle is None:
            return self._template()
        if self.spec is None:
            assert self.bundle is not None
            if not self._changes():
                return None
            text = _read_config(self.bundle)
            if text is None:
                return None
        elif isinstance(self.spec, (str, bytes)):
            text = self.spec.encode() if isinstance(self.spec, str) else self.spec
            if not self._changes():
                return text
        else:
            text = json.dumps(self.spec).encode()
        try:
            document = json.loads(text, object_pairs_hook=_without_duplicates)
        except ValueError:
            return text
        before = json.dumps(document)
        if not self._change(document):
            return text
        after = json.dumps(document)
        return text if after == before else after.encode()

    def _changes(self) -> bool:
        given = (
            self._args, self._env, self.cwd, self._user, self.hostname, self.network,
            self.readonly, self._memory, self._cpus, self.pids, self.tty,
        )
        return bool(self._mounts or self._annotations) or any(value is not None for value in given)

    def _template(self) -> bytes:
        """The library's own config.json with these choices."""
        flags = _abi.SPEC_ROOTLESS_AUTO
        if self.readonly:
            flags |= _abi.SPEC_READONLY
        if self.network == "host":
            flags |= _abi.SPEC_NETWORK_HOST
        terminal, size = parse_tty(self.tty)
        if terminal:
            flags |= _abi.SPEC_TERMINAL
        uid, gid = self._user or (0, 0)
        rootfs = "/" if self.rootfs is None else os.path.abspath(os.fspath(self.rootfs))
        opts = _abi.SpecOpts(
            flags=flags,
            args=_strings(self._args),
            env=_strings(self._env),
            cwd=None if self.cwd is None else text_of(self.cwd, "cwd").encode(),
            hostname=None if self.hostname is None else text_of(self.hostname, "hostname").encode(),
            rootfs=text_of(rootfs, "rootfs").encode(),
            uid=uid,
            gid=gid,
            memory_bytes=self._memory or 0,
            cpu_milli=self._cpus or 0,
            pids=self.pids or 0,
        )
        text = call_for_bytes("locule_spec_generate", ctypes.byref(opts))
        if not self._mounts and not self._annotations and size is None:
            return text
        document = json.loads(text)
        document.setdefault("mounts", []).extend(self._mounts)
        if self._annotations:
            document.setdefault("annotations", {}).update(self._annotations)
        _change_process(document["process"], None, None, None, self.tty)
        return json.dumps(document).encode()

    def _change(self, document: Any) -> bool:
        """Makes the changes in a document; False if it is not of the shape for that."""
        try:
            if self._args is not None:
                # What the specification requires and a bundle without a process lacks.
                process = document.setdefault("process", {"cwd": "/"})
                process["args"] = self._args
            if any(value is not None for value in (self._env, self.cwd, self._user)) or self.tty:
                process = document["process"]
                _change_process(process, self._env, self.cwd, self._user, self.tty)
            elif self.tty is not None and document.get("process", {}).get("terminal"):
                document["process"]["terminal"] = False
            if self.hostname is not None:
                document["hostname"] = self.hostname
            if self.readonly is not None:
                document["root"]["readonly"] = self.readonly
            if self._mounts:
                document.setdefault("mounts", []).extend(self._mounts)
            if self._annotations:
                document.setdefault("annotations", {}).update(self._annotations)
            if self.network is not None:
                namespaces = document.setdefault("linux", {}).setdefault("namespaces", [])
                namespaces[:] = [other for other in namespaces if other["type"] != "network"]
                if self.network == "none":
                    namespaces.append({"type": "network"})
            for path, value in self.limits():
                part = document.setdefault("linux", {}).setdefault("resources", {})
                part.setdefault(path, {}).update(value)
        except (AttributeError, KeyError, TypeError):
            return False
        return True

    def limits(self) -> List[Tuple[str, Dict[str, int]]]:
        limits: List[Tuple[str, Dict[str, int]]] = []
        if self._memory is not None:
            limits.append(("memory", {"limit": self._memory}))
        if self._cpus is not None:
            quota = self._cpus * CPU_PERIOD // 1000
            limits.append(("cpu", {"quota": quota, "period": CPU_PERIOD}))
        if self.pids is not None:
            limits.append(("pids", {"limit": self.pids}))
        return limits


def _signal_of(signal: Union[int, str, None]) -> Optional[str]:
    if signal is None or isinstance(signal, str):
        return None if signal is None else text_of(signal, "stop_signal")
    return str(int(signal))


def _read_config(bundle: StrPath) -> Optional[bytes]:
    """A bundle's config.json, or None: what is wrong with it the library says.

    No more is read than the library reads: a FIFO or a device could go on for ever.
    """
    path = Path(bundle, "config.json")
    try:
        if not path.is_file() or path.stat().st_size > 16 << 20:
            return None
        return path.read_bytes()
    except OSError:
        return None


def _without_duplicates(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key appears twice")
    return document


def _strings(values: Optional[List[str]]) -> Any:
    """A NULL-terminated array; NULL for None."""
    if values is None:
        return None
    return (ctypes.c_char_p * (len(values) + 1))(*[value.encode() for value in values], None)


def default_spec(args: Optional[Args] = None, **choices: Any) -> Dict[str, Any]:
    """The config.json of a container that `run` with the same arguments would start.

    It may be changed and given back as ``spec=``. Its root is the host's own unless `rootfs`
    is given: then ``overlay=True`` has to go with it.
    """
    document = Choices(args, **choices).document()
    if document is None:
        document = _read_config(choices["bundle"])
        if document is None:
            raise NotFound(f"bundle {choices['bundle']!r}: no config.json that can be read")
    result: Dict[str, Any] = json.loads(document)
    return result

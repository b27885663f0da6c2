"""Plugins: what sees, changes or refuses a container at stages of its life.

One callback of the library serves all plugins that are Python: it gets a number, by which the
plugin is found. So no callback can be collected while the library still knows it.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import logging
import os
from typing import (
    TYPE_CHECKING, Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union,
)

from . import _abi
from ._choices import StrPath
from ._errors import Invalid, call, call_for_bytes, raised
from ._handle import Handle, close_with
from ._plugin_call import Call

#: The stages of a container's life, in their order.
STAGES = (
    "create", "created", "start", "started", "exec", "update", "pause", "resume", "kill",
    "stopped", "delete",
)

_ON_FAILURE = {
    "fail": _abi.ON_FAILURE_FAIL,
    "skip": _abi.ON_FAILURE_SKIP,
    "disable": _abi.ON_FAILURE_DISABLE,
}

_log = logging.getLogger("locule.plugin")
# What is not asked for goes nowhere, as is usual for a library.
_log.addHandler(logging.NullHandler())

Handler = Callable[[Call], object]


class Refused(Exception):
    """Raised by a plugin: what it was called for must not happen."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.message = message
        #: A number of the plugin's own.
        self.code = code


class Plugin:
    """A plugin in Python, for `Runtime(plugins=[...])`: a class with a method for each stage of
    a container's life that it wants to see.

        class Policy(locule.Plugin):
            def create(self, call: locule.Call) -> None:
                if call.get("/process/user/uid") == 0:
                    raise locule.Refused("nobody runs as root here")
                call.set_env("CHECKED", "yes")

    The methods, each with a `Call`: `create`, `created`, `start`, `started`, `exec`, `update`,
    `pause`, `resume`, `kill`, `stopped`, `delete`; and `judge`, which sees what all plugins
    together have made of a container that is about to be created, and may change nothing. Any
    object that has some of them is a plugin; this class only gives the attributes their defaults.

    By `Refused` it refuses "create", "start", "exec", "update", "pause" and "resume". Any other
    exception is a failure of the plugin, which is logged, with its traceback, to the logger
    "locule.plugin". The caller gets a `PluginError` whose ``__cause__`` is the exception.

    Methods are called on the thread that made the call which led to the stage, for several
    containers at once if several threads do that. They may use Locule for other containers, and
    should return soon.
    """

    #: What errors call it: letters, digits and any of _.- ; the name of the class if it is empty.
    name: str = ""
    #: Plugins with lower ones are called first; of equal ones the names decide. After something
    #: has happened the order is the other way round.
    priority: int = 0
    #: What an exception means: "fail" (what it was called for fails, where it can), "skip" (as if
    #: it had not been called) or "disable" (as "skip", and it is not called again).
    on_failure: str = "fail"
    #: It may change what plugins before it have changed.
    override: bool = False
    #: No container is created while it is disabled, and none for which it fails.
    required: bool = False

    if TYPE_CHECKING:
        # Not there unless a subclass has them: what is there is called.
        def create(self, call: Call) -> None: ...
        def created(self, call: Call) -> None: ...
        def start(self, call: Call) -> None: ...
        def started(self, call: Call) -> None: ...
        def exec(self, call: Call) -> None: ...
        def update(self, call: Call) -> None: ...
        def pause(self, call: Call) -> None: ...
        def resume(self, call: Call) -> None: ...
        def kill(self, call: Call) -> None: ...
        def stopped(self, call: Call) -> None: ...
        def delete(self, call: Call) -> None: ...
        def judge(self, call: Call) -> None: ...


class WasmPlugin:
    """A plugin that is a Wasm component, for `Runtime(plugins=[...])`.

    path        the component's file, or "oci:" and the path of an OCI image layout
    name        what errors call it; the file's name without its ending
    digest      its SHA-256, "sha256:...": another file is refused
    powers      what it may do: the interfaces of `locule:plugin` that it may import
    config      what it is told: anything that is JSON
    priority, on_failure, override, required
                as those of `Plugin`
    on_failure_at
                the same as on_failure for single stages: {"exec": "skip"}
    limits      how much it may use in a call, by the names of a configuration file:
                {"fuel": 10**9, "memoryBytes": 2**27}
    keep_alive  keep its memory between calls
    engine      how it is run, as in a configuration file
    cache       where compiled components are kept

    `WasmPlugin.load` takes all that from a file, `WasmPlugin.inspect` tells what a component is.
    """

    def __init__(
        self,
        path: StrPath,
        *,
        name: Optional[str] = None,
        digest: Optional[str] = None,
        powers: Optional[Sequence[str]] = None,
        config: Any = None,
        priority: Optional[int] = None,
        on_failure: Optional[str] = None,
        on_failure_at: Optional[Mapping[str, str]] = None,
        override: Optional[bool] = None,
        required: Optional[bool] = None,
        limits: Optional[Mapping[str, Any]] = None,
        keep_alive: Optional[bool] = None,
        engine: Optional[str] = None,
        cache: Optional[StrPath] = None,
    ) -> None:
        text = os.fspath(path)
        if name is None:
            name = os.path.splitext(os.path.basename(text))[0]
        members = {
            "name": name, "path": text, "digest": digest,
            "powers": None if powers is None else list(powers), "config": config,
            "priority": priority, "onFailure": on_failure,
            "onFailureAt": None if on_failure_at is None else dict(on_failure_at),
            "override": override, "required": required,
            "limits": None if limits is None else dict(limits), "keepAlive": keep_alive,
            "engine": engine, "cache": None if cache is None else os.fspath(cache),
        }
        given = {key: value for key, value in members.items() if value is not None}
        self._open(json.dumps(given).encode(), None)

    @classmethod
    def load(cls, path: StrPath) -> "WasmPlugin":
        """Loads a plugin by its configuration file, JSON; paths in it are taken from its folder.
        Without a `name` in it, the plugin has the file's."""
        with open(path, "rb") as file:
            document = json.load(file)
        if not isinstance(document, dict):
            raise Invalid(f"{os.fspath(path)!r} is not a JSON object")
        document.setdefault("name", os.path.splitext(os.path.basename(path))[0])
        base = os.path.dirname(os.path.abspath(path))
        plugin = cls.__new__(cls)
        plugin._open(json.dumps(document).encode(), os.fsencode(base))
        return plugin

    @staticmethod
    def inspect(path: StrPath) -> Dict[str, Any]:
        """What the component in a file is, without running it: its digest, its size, the powers
        it asks for, what it offers."""
        described: Dict[str, Any] = json.loads(
            call_for_bytes("locule_plugin_inspect_json", os.fsencode(path))
        )
        return described

    def _open(self, document: bytes, base: Optional[bytes]) -> None:
        self._handle = Handle("plugin")
        out = ctypes.byref(self._handle.out)
        call("locule_plugin_load", document, len(document), base, out)
        close_with(self, self._handle)

    def describe(self) -> Dict[str, Any]:
        """Its name, stages, priority and so on."""
        with self._handle as pointer:
            described: Dict[str, Any] = json.loads(
                call_for_bytes("locule_plugin_describe_json", pointer)
            )
        return described

    @property
    def name(self) -> str:
        return str(self.describe()["name"])

    def __repr__(self) -> str:
        return f"<locule.WasmPlugin {self.name}>"


class _Known(NamedTuple):
    """A plugin as the callbacks find it."""

    name: str
    handlers: Dict[str, Handler]
    judge: Optional[Handler]


_known: Dict[int, _Known] = {}
_numbers = itertools.count(1)


def handle_of(plugin: object) -> Handle:
    """A handle of a plugin, which the caller closes."""
    if isinstance(plugin, type):
        raise Invalid(f"{plugin.__name__} is a class: give an instance of it")
    methods = {name: getattr(plugin, name, None) for name in (*STAGES, "judge")}
    found: Dict[str, Handler] = {name: it for name, it in methods.items() if callable(it)}
    judge = found.pop("judge", None)
    name = getattr(plugin, "name", None) or type(plugin).__name__
    if not found and judge is None:
        raise Invalid(f"plugin {name!r} has a method of no stage: {', '.join(STAGES)}, judge")
    on_failure = getattr(plugin, "on_failure", "fail")
    if on_failure not in _ON_FAILURE:
        raise Invalid(f"on_failure {on_failure!r}: expected one of {[*_ON_FAILURE]}")
    opts = _abi.PluginOpts(
        name=str(name).encode(),
        priority=getattr(plugin, "priority", 0),
        on_failure=_ON_FAILURE[on_failure],
        release=_RELEASE,
    )
    opts.flags |= _abi.PLUGIN_OVERRIDE if getattr(plugin, "override", False) else 0
    opts.flags |= _abi.PLUGIN_REQUIRED if getattr(plugin, "required", False) else 0
    if found:
        opts.stages = (ctypes.c_char_p * (len(found) + 1))(*(stage.encode() for stage in found))
        opts.handle = _HANDLE
    if judge is not None:
        opts.judge = _JUDGE
    opts.user = next(_numbers)
    # Forgotten again by _release, also if there is no plugin in the end.
    _known[opts.user] = _Known(str(name), found, judge)
    handle = Handle("plugin")
    call("locule_plugin_new", ctypes.byref(opts), ctypes.byref(handle.out))
    return handle


def rules(required: Sequence[str], forbid: Sequence[str]) -> Optional[bytes]:
    """What holds for all plugins, as the library wants it."""
    if isinstance(required, str) or isinstance(forbid, str):
        raise Invalid("required_plugins and forbid are lists of names")
    if not required and not forbid:
        return None
    return json.dumps({"required": list(required), "forbid": list(forbid)}).encode()


def _call(pointer: int, user: int, judging: bool) -> int:
    lib = _abi.library()
    # ctypes would print an exception that leaves here, and the container would be agreed to.
    try:
        known = _known[user]
        made = Call(pointer)
        try:
            handler = known.judge if judging else known.handlers[made.stage]
            assert handler is not None
            handler(made)
            return 0
        except Refused as refused:
            told = "refused"
            lib.locule_plugin_call_refuse(pointer, refused.code & 0xFFFFFFFF, _text(refused))
            exception: BaseException = refused
        except Exception as failure:
            told = "failed"
            _log.error(
                "plugin %s failed at %s of %s", known.name, made.stage, made.id, exc_info=True
            )
            lib.locule_plugin_call_fail(pointer, _text(failure))
            exception = failure
        except BaseException as interrupt:  # KeyboardInterrupt, SystemExit: the caller's
            told = "refused"
            lib.locule_plugin_call_refuse(pointer, 0, _text(interrupt))
            exception = interrupt
        finally:
            made._end()
        raised.exception, raised.told = exception, f'plugin "{known.name}" {told}'
        return 1
    except BaseException:
        return 1


def _text(exception: BaseException) -> bytes:
    text = str(exception)
    if not isinstance(exception, Refused):
        name = type(exception).__name__
        text = f"{name}: {text}" if text else name
    return text.replace("\0", "\\0").encode("utf-8", "replace")


def _release(user: int) -> None:
    _known.pop(user, None)


_LEVELS = {
    _abi.LOG_DEBUG: logging.DEBUG,
    _abi.LOG_INFO: logging.INFO,
    _abi.LOG_WARN: logging.WARNING,
    _abi.LOG_ERROR: logging.ERROR,
}


def _said(level: int, plugin: bytes, container_id: bytes, message: bytes, _user: int) -> None:
    # ctypes would print an exception that leaves here.
    try:
        texts = [text.decode("utf-8", "replace") for text in (plugin, container_id, message)]
        _log.log(_LEVELS.get(level, logging.ERROR), "plugin %s, container %s: %s", *texts)
    except BaseException:
        pass


# For ever: the library may call them as long as it is loaded.
_HANDLE = _abi.PluginFn(lambda pointer, user: _call(pointer, user, False))
_JUDGE = _abi.PluginFn(lambda pointer, user: _call(pointer, user, True))
_RELEASE = _abi.ReleaseFn(_release)
LOG = _abi.PluginLogFn(_said)

__all__: List[str] = ["Plugin", "Refused", "STAGES", "WasmPlugin"]
PluginLike = Union[Plugin, WasmPlugin, Any]

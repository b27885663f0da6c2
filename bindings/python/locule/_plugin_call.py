"""What a plugin can learn about a container, and what it can change."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from . import _abi
from ._choices import Mount, StrPath
from ._documents import Change
from ._errors import NotFound, call, call_for_bytes

#: A limit: a number, or "unlimited".
Limit = Union[int, str]


class Call:
    """One call of a plugin, which is over when the plugin's method returns.

    The methods that change something are for the stages "create", "exec" (below `process` of the
    configuration) and "update" (below `linux.resources`). What they change takes effect if every
    plugin and the configuration as a whole agree. They raise `Busy` where another plugin has
    changed the same place, unless this one may override that, `StateError` where this stage or a
    judge may not change it, and `Invalid` for what makes no sense.
    """

    def __init__(self, pointer: int) -> None:
        # Made by the library's callbacks only.
        self._pointer: Optional[int] = pointer
        lib = _abi.library()
        #: "create", "exec" and so on; for a plugin's `judge` "create".
        self.stage: str = lib.locule_plugin_call_stage(pointer).decode()
        #: The container's id.
        self.id: str = lib.locule_plugin_call_container_id(pointer).decode()
        #: The directory of its bundle.
        self.bundle: str = os.fsdecode(lib.locule_plugin_call_bundle(pointer))
        #: Its first process as this process sees it; None while there is none.
        self.pid: Optional[int] = lib.locule_plugin_call_pid(pointer) or None

    def __repr__(self) -> str:
        return f"<locule.Call {self.stage} of {self.id}>"

    def _end(self) -> None:
        self._pointer = None

    def _use(self) -> int:
        if self._pointer is None:
            raise ValueError("the call is over: a plugin may not keep it")
        return self._pointer

    def detail(self, name: str) -> Optional[str]:
        """What is special about the stage: at "kill" "signal" and "all" ("true" or "false"), at
        "stopped" "exit-code" or "signal", at "exec" "container-pid"."""
        value = _abi.library().locule_plugin_call_detail(self._use(), name.encode())
        return None if value is None else str(value.decode())

    def get(self, pointer: str = "", default: Any = None) -> Any:
        """A part of the configuration, as the plugins so far have made it, by JSON pointer.

        At "exec" "/process" is the process to run, at "update" "/linux/resources" are the new
        limits.
        """
        try:
            text = call_for_bytes("locule_plugin_call_get_json", self._use(), pointer.encode())
        except NotFound:
            return default
        return json.loads(text)

    @property
    def annotations(self) -> Dict[str, str]:
        """The annotations of the configuration."""
        annotations: Dict[str, str] = self.get("/annotations") or {}
        return annotations

    @property
    def changes(self) -> List[Change]:
        """What plugins have changed so far in this stage."""
        text = call_for_bytes("locule_plugin_call_changes_json", self._use())
        return [Change.of(change) for change in json.loads(text)]

    def adjust(self, adjustment: str, /, **members: Any) -> None:
        """Changes the configuration by the name of an adjustment, such as "set-env". A member such
        as `additional-gids` is given as `additional_gids`. The other methods are this one, with
        types."""
        named = {name.replace("_", "-"): value for name, value in members.items()}
        document = json.dumps({"adjust": adjustment, **named}).encode()
        call("locule_plugin_call_adjust_json", self._use(), document, len(document))

    def set_annotation(self, key: str, value: str) -> None:
        self.adjust("set-annotation", key=key, value=value)

    def remove_annotation(self, key: str) -> None:
        self.adjust("remove-annotation", key=key)

    def set_env(self, name: str, value: str) -> None:
        self.adjust("set-env", name=name, value=value)

    def remove_env(self, name: str) -> None:
        self.adjust("remove-env", name=name)

    def add_mount(self, mount: Union[Mount, str]) -> None:
        """Shows a file or directory of this machine: Mount(source, target, readonly=True) or
        "source:target[:ro|rw]"."""
        spec = (Mount.parse(mount) if isinstance(mount, str) else mount).to_spec()
        self.set_mount(
            spec["destination"], kind=spec["type"], source=spec["source"], options=spec["options"]
        )

    def set_mount(
        self,
        destination: StrPath,
        *,
        kind: str = "",
        source: StrPath = "",
        options: Sequence[str] = (),
    ) -> None:
        """Adds a mount as in config.json, whose `type` is `kind`, or replaces that at this
        destination."""
        self.adjust(
            "set-mount", destination=os.fspath(destination), kind=kind, source=os.fspath(source),
            options=list(options),
        )

    def remove_mount(self, destination: StrPath) -> None:
        self.adjust("remove-mount", destination=os.fspath(destination))

    def set_device(
        self,
        path: StrPath,
        *,
        kind: str,
        major: int = 0,
        minor: int = 0,
        access: str = "rwm",
        mode: Optional[int] = None,
        uid: int = 0,
        gid: int = 0,
    ) -> None:
        """Adds a device node, or replaces that at this path, and allows `access` to it. `kind` is
        "c", "b" or "p"."""
        self.adjust(
            "set-device", path=os.fspath(path), kind=kind, major=major, minor=minor,
            access=access, mode=mode, uid=uid, gid=gid,
        )

    def remove_device(self, path: StrPath) -> None:
        self.adjust("remove-device", path=os.fspath(path))

    def set_resource(self, name: str, value: Union[int, str, bool]) -> None:
        """Sets a limit by its place in `linux.resources`, such as "memory/limit"."""
        text = str(value).lower() if isinstance(value, bool) else str(value)
        self.adjust("set-resource", name=name, value=text)

    def set_unified(self, file: str, value: Union[int, str]) -> None:
        """Sets a file of the container's cgroup of version 2, such as "memory.high"."""
        self.adjust("set-unified", file=file, value=str(value))

    def set_rlimit(self, kind: str, soft: Limit, hard: Optional[Limit] = None) -> None:
        """Sets a resource limit such as "RLIMIT_NOFILE"; `hard` is `soft` if it is not given."""
        hard = soft if hard is None else hard
        self.adjust("set-rlimit", kind=kind, soft=str(soft), hard=str(hard))

    def remove_rlimit(self, kind: str) -> None:
        self.adjust("remove-rlimit", kind=kind)

    def set_args(self, args: Sequence[str]) -> None:
        """Sets what is run."""
        self.adjust("set-args", args=list(args))

    def set_cwd(self, path: StrPath) -> None:
        self.adjust("set-cwd", path=os.fspath(path))

    def set_user(self, uid: int, gid: int, additional_gids: Sequence[int] = ()) -> None:
        self.adjust("set-user", uid=uid, gid=gid, additional_gids=list(additional_gids))

    def set_oom_score_adj(self, value: int) -> None:
        self.adjust("set-oom-score-adj", value=value)

    def set_namespace(self, kind: str, path: Optional[StrPath] = None) -> None:
        """Gives the container the namespace at this path, or else a new one. `kind` is "network",
        "pid" and so on."""
        self.adjust("set-namespace", kind=kind, path=None if path is None else os.fspath(path))

    def remove_namespace(self, kind: str) -> None:
        """Leaves the container in this process's namespace of a kind."""
        self.adjust("remove-namespace", kind=kind)

    def add_capability(self, name: str) -> None:
        self.adjust("add-capability", name=name)

    def drop_capability(self, name: str) -> None:
        self.adjust("drop-capability", name=name)

    def set_no_new_privileges(self, value: bool = True) -> None:
        self.adjust("set-no-new-privileges", value=value)

    def set_seccomp(self, profile: Mapping[str, Any]) -> None:
        """Sets the profile, as in `linux.seccomp`."""
        self.adjust("set-seccomp", profile=json.dumps(profile))

    def set_apparmor_profile(self, name: str) -> None:
        self.adjust("set-apparmor-profile", name=name)

    def set_selinux_label(self, label: str) -> None:
        self.adjust("set-selinux-label", label=label)

    def mask_path(self, path: StrPath) -> None:
        """Hides a path."""
        self.adjust("mask-path", path=os.fspath(path))

    def write_protect_path(self, path: StrPath) -> None:
        self.adjust("write-protect-path", path=os.fspath(path))

    def set_root_read_only(self, value: bool = True) -> None:
        self.adjust("set-root-read-only", value=value)

    def add_hook(
        self,
        kind: str,
        path: StrPath,
        args: Sequence[str] = (),
        env: Optional[Mapping[str, str]] = None,
        timeout: Optional[int] = None,
    ) -> None:
        """Adds a program that is run on this machine, at "createRuntime" and so on; `timeout` in
        seconds."""
        hook = {
            "path": os.fspath(path),
            "args": list(args),
            "env": [f"{name}={value}" for name, value in (env or {}).items()],
            "timeout": timeout,
        }
        self.adjust("add-hook", kind=kind, hook=hook)

    def merge(self, patch: Mapping[str, Any]) -> None:
        """Merges a JSON merge patch (RFC 7396) into the configuration."""
        self.adjust("merge", patch=json.dumps(patch))

"""What the library reports as JSON, with the fields that matter as attributes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Sequence


@dataclass(frozen=True)
class Change:
    """What a plugin has changed of a container's configuration."""

    #: The plugin's name.
    plugin: str
    #: At which stage: "create", "exec" or "update".
    stage: str
    #: How, such as "set-env".
    adjustment: str
    #: Where: a JSON pointer, in which an element of a list is named by what it is known by, such
    #: as "/process/env/PATH".
    pointer: str
    #: What was there; None if nothing was.
    before: Any
    #: What is there now; None if it has been removed.
    after: Any

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Change":
        return cls(
            plugin=document["plugin"],
            stage=document["stage"],
            adjustment=document["adjustment"],
            pointer=document["pointer"],
            before=document.get("before"),
            after=document.get("after"),
        )


@dataclass(frozen=True)
class State:
    """The state of a container, as the OCI runtime specification has it."""

    id: str
    #: "creating", "created", "running", "paused" or "stopped".
    status: str
    #: The first process as this process sees it; 0 if the container is stopped.
    pid: int
    bundle: str
    rootfs: Optional[str]
    #: When it was created: RFC 3339.
    created: Optional[str]
    annotations: Mapping[str, str]
    #: What plugins have changed, in the order in which they did.
    changes: Sequence[Change]
    #: The whole document.
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "State":
        return cls(
            id=document["id"],
            status=document["status"],
            pid=document.get("pid", 0),
            bundle=document.get("bundle", ""),
            rootfs=document.get("rootfs"),
            created=document.get("created"),
            annotations=document.get("annotations") or {},
            changes=[Change.of(change) for change in document.get("changes") or ()],
            raw=document,
        )


@dataclass(frozen=True)
class Stats:
    """What a container uses. What this machine does not count is 0."""

    #: Processor time, in seconds.
    cpu_seconds: float
    #: Memory in use now, in bytes.
    memory: int
    #: The most memory it may use; None for no limit.
    memory_limit: Optional[int]
    #: The most memory ever in use.
    memory_peak: int
    #: Processes killed for want of memory.
    oom_kills: int
    #: Processes and threads now.
    pids: int
    #: The most it may have; None for no limit.
    pids_limit: Optional[int]
    #: The whole document: the data of `runc events --stats`.
    raw: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Stats":
        cpu = document.get("cpu", {}).get("usage", {})
        memory = document.get("memory", {})
        usage = memory.get("usage", {})
        pids = document.get("pids", {})
        limit = usage.get("limit", 0)
        return cls(
            cpu_seconds=cpu.get("total", 0) / 1e9,
            memory=usage.get("usage", 0),
            # Version 1 says "none" as the greatest multiple of the page size, version 2 as
            # the greatest number.
            memory_limit=limit if 0 < limit < 2**62 else None,
            memory_peak=usage.get("max", 0),
            oom_kills=memory.get("oomKills", 0),
            pids=pids.get("current", 0),
            pids_limit=pids.get("limit") or None,
            raw=document,
        )


def decode(text: bytes) -> Dict[str, Any]:
    document: Dict[str, Any] = json.loads(text)
    return document

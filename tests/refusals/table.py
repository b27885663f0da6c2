"""The words of the table: what a case says about its scene, its steps and what it expects."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

LANGUAGES = ("c", "go", "python")

#: A call and its arguments, as the drivers take them.
Step = Tuple[str, Dict[str, str]]


#: Of an error's stage or errno: what it is depends on the machine.
ANY = "any"


@dataclass(frozen=True)
class Refused:
    """The error that the last step must give; everything about it that a program can see.

    errno       by its name, or None if no system call failed
    pointer     the JSON pointer, or None if no field is to blame
    says        part of the message; advises: part of the hint
    id          whether the error names the container
    """

    category: str
    stage: str
    errno: Optional[str] = None
    pointer: Optional[str] = None
    says: str = ""
    advises: str = ""
    id: bool = True


@dataclass(frozen=True)
class Works:
    """No step is refused: there is another way, and the library takes it."""


def spec_error(pointer: Optional[str], says: str = "", **more: Any) -> Refused:
    """What a wrong document gives."""
    return Refused("spec", "validate", None, pointer, says, **more)


# --- Steps -------------------------------------------------------------------------------------


def create(**words: Any) -> Step:
    """A container of the case's bundle. Words: id, timeout (ms), parentage (0 keeper, 1 orphan,
    2 child), overlay, cancel (before it begins), stdin, stdout, stderr ("inherit" or a
    descriptor), pass (a descriptor)."""
    return "create", _texts(words)


def exec_(process: Union[Dict[str, Any], str], **words: Any) -> Step:
    """Another process in the container: a process object, or text that may be none."""
    text = process if isinstance(process, str) else json.dumps(process)
    return "exec", _texts({"json": text, **words})


def update(resources: Union[Dict[str, Any], str]) -> Step:
    text = resources if isinstance(resources, str) else json.dumps(resources)
    return "update", _texts({"json": text})


def signal(number: int, **words: Any) -> Step:
    return "signal", _texts({"number": number, **words})


def load(id: str) -> Step:
    return "load", _texts({"id": id})


def delete(**words: Any) -> Step:
    return "delete", _texts(words)


def store(path: str = "$DIR/images", **words: Any) -> Step:
    """A store of images, for the steps that follow. Words: read_only."""
    return "store", _texts({"path": path, **words})


def image(call: str, **words: Any) -> Step:
    """A call for images: load, import, pull, commit, get, tag, remove, prune, save, push or unpack,
    with `path`, `name` or both, and fields of the options; cancel: before it begins. What it gives
    is the image of the steps that follow; with the word `image` a container is created from that."""
    return "image", _texts({"call": call, **words})


START: Step = ("start", {})
WAIT: Step = ("wait", {})  # for an exit with 0
PAUSE: Step = ("pause", {})
RESUME: Step = ("resume", {})
STATE: Step = ("state", {})
STATS: Step = ("stats", {})
PIDS: Step = ("pids", {})


def _texts(words: Dict[str, Any]) -> Dict[str, str]:
    return {key: str(value) for key, value in words.items()}


# --- Cases -------------------------------------------------------------------------------------

#: What the process that uses the library is like, beside being root.
@dataclass(frozen=True)
class Host:
    """user: an ordinary one; denied: system calls that a filter refuses, with the errno's name;
    descriptors: as many as it may have open; closed: of 0 to 2."""

    user: bool = False
    denied: Tuple[Tuple[str, str], ...] = ()
    descriptors: Optional[int] = None
    closed: Tuple[int, ...] = ()


ROOT = Host()
USER = Host(user=True)


def without(errno: str, *calls: str, user: bool = False) -> Host:
    """A host below a seccomp filter, as a container or a sandbox is."""
    return Host(user=user, denied=tuple((call, errno) for call in calls))


@dataclass
class Case:
    """A sentence of behaviour.

    put         changes of config.json: pointer to value; REMOVED takes a member away, and "-"
                at the end of a pointer appends
    config      the text of config.json instead, in Latin-1, so that any byte can be written; or
                a function of the text that would be
    prepare     changes the scene before the first step
    state       makes the state directory (scene.py); None: an empty one
    open        words for opening the runtime
    do          the steps; the last one is refused, or none is. Empty: opening the runtime is
    still       the status that the container has after the refusal
    only        languages whose API can say it
    differs     what is expected in a language instead, and why it has to differ
    needs       what the machine must have: a function that says what is missing
    """

    name: str
    expect: Union[Refused, Works]
    put: Dict[str, Any] = field(default_factory=dict)
    config: Union[str, Callable[[str], str], None] = None
    prepare: Optional[Callable[[Any], None]] = None
    state: Optional[Callable[[Any], str]] = None
    open: Dict[str, str] = field(default_factory=dict)
    do: Sequence[Step] = (("create", {}),)
    still: Optional[str] = None
    host: Host = ROOT
    only: Sequence[str] = LANGUAGES
    differs: Dict[str, Refused] = field(default_factory=dict)
    needs: Sequence[Callable[[], Optional[str]]] = ()


class _Removed:
    def __repr__(self) -> str:
        return "REMOVED"


REMOVED = _Removed()


def change(document: Any, changes: Dict[str, Any]) -> None:
    """Makes the changes of `put`."""
    for pointer, value in changes.items():
        *path, last = [
            step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]
        ]
        place = document
        for step in path:
            if isinstance(place, list):
                place = place[int(step)]
            else:
                place = place.setdefault(step, {})
        if last == "-":
            place.append(value)
            continue
        key: Any = int(last) if isinstance(place, list) else last
        if value is REMOVED:
            place.pop(key)
        else:
            place[key] = value


def is_root() -> bool:
    return os.geteuid() == 0


def all_cases() -> List[Case]:
    """The whole table, and that no name is in it twice."""
    from cases import TABLE

    names = [case.name for case in TABLE]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, twice
    return TABLE

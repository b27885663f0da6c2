"""What a refused call could leave behind: processes, cgroups, mounts, files, descriptors."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Dict, List, Set

from drivers import Driver
from scene import Scene

PR_SET_CHILD_SUBREAPER = 36


def become_reaper() -> None:
    """Everything that loses its parent below this process falls to it, so nothing hides."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def mounts() -> Set[str]:
    with open("/proc/self/mountinfo") as table:
        return set(table)


def children(pid: int) -> List[int]:
    found: List[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/children") as text:
                found += map(int, text.read().split())
        except OSError:
            pass
    return found


def reap(drivers: List[int]) -> None:
    """Collects what has ended and is not a driver, whose status is for who started it."""
    for pid in children(os.getpid()):
        if pid not in drivers:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def describe(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as text:
            command = text.read().replace(b"\0", b" ").decode(errors="replace")
        return f"process {pid} {command}"
    except OSError:
        return ""


def cgroups(id: str) -> List[str]:
    found = []
    for directory, names, _ in os.walk("/sys/fs/cgroup"):
        found += [f"cgroup {directory}/{name}" for name in names if id in name]
    return found


class Before:
    """How things were before a case."""

    def __init__(self, scene: Scene, driver: Driver, drivers: List[int]) -> None:
        self._scene = scene
        self._driver = driver
        self._drivers = drivers
        self._mounts = mounts()
        self._descriptors = driver.descriptors()

    def left(self, patience: float = 3) -> List[str]:
        """What is there now and was not then; what is on its way out gets time to go."""
        until = time.monotonic() + patience
        while True:
            found = self._find()
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.005)

    def _find(self) -> List[str]:
        scene, driver = self._scene, self._driver
        found = cgroups(scene.id)
        found += [f"mount {line.strip()}" for line in mounts() - self._mounts]
        if os.path.isdir(scene.state):
            names = set(os.listdir(scene.state)) - set(scene.before)
            found += [f"state directory {name}" for name in sorted(names)]
        # What is half made in a store of images, and what keeps layers for a container. Locks stay.
        for name in ("drafts", "uses"):
            kept = scene.directory / "images" / name
            found += [
                f"image store {name}/{path.name}" for path in kept.glob("*")
                if path.suffix != ".lock"
            ]
        reap(self._drivers)
        pids = set(children(os.getpid())) - set(self._drivers)
        if driver.is_alive():
            pids |= set(children(driver.pid))
            new: Dict[str, str] = {
                fd: target for fd, target in driver.descriptors().items()
                if self._descriptors.get(fd) != target
            }
            found += [f"descriptor {fd} of the driver: {target}" for fd, target in new.items()]
        return found + [text for text in map(describe, sorted(pids)) if text]

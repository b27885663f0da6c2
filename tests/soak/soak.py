"""Thousands of containers from eight threads of one Python program: none fails, and nothing of
them stays, here or on the machine.

    soak.py COUNT

COUNT containers are created from a bundle, started, waited for and deleted, and a tenth of that
on the host's own root, as `locule.run` makes them by default. The program ends with 1 if
anything is wrong.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List

import locule

THREADS, WARM_UP = 8, 500
MOST_GROWTH = 8 * 1024  # kB of resident memory

ids = f"soak-{os.getpid()}-"
numbers = itertools.count()
wrong = 0


def report(fine: bool, text: str) -> None:
    global wrong
    wrong += not fine
    print(f"{'ok    ' if fine else 'FAILED'}   python {text}", flush=True)


# --- What is looked at -----------------------------------------------------------------------


def descriptors() -> List[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            pass  # that of the listing itself
    return sorted(found)


def children() -> List[str]:
    try:
        return [str(os.waitpid(-1, os.WNOHANG))]
    except ChildProcessError:
        return []


def of_the_machine(scratch: Path) -> List[str]:
    """Mounts that everybody sees. There may be others' meanwhile: those that name us count."""
    lines = Path("/proc/1/mountinfo").read_text().splitlines()
    return [line for line in lines if str(scratch) in line or ids in line]


def cgroups() -> List[str]:
    return [
        os.path.join(parent, name)
        for parent, names, _ in os.walk("/sys/fs/cgroup") for name in names if name.startswith(ids)
    ]


def keepers() -> List[str]:
    """Keepers that look after this process: they have a pidfd of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(b"locule"):
                infos = [info.read_text() for info in (process / "fdinfo").iterdir()]
                if any(f"\nPid:\t{os.getpid()}\n" in info for info in infos):
                    found.append(process.name)
        except OSError:
            pass  # it has just ended
    return found


def looks(scratch: Path) -> Dict[str, Callable[[], List[str]]]:
    return {
        "descriptors": descriptors,
        "threads": lambda: sorted(os.listdir("/proc/self/task")),
        "children": children,
        "mounts": lambda: Path("/proc/self/mountinfo").read_text().splitlines(),
        "mounts of the machine": lambda: of_the_machine(scratch),
        "cgroups": cgroups,
        "state directories": lambda: [e.name for e in os.scandir(scratch / "state") if e.is_dir()],
        "keepers": keepers,
    }


def lasting(look: Callable[[], List[str]], expected: List[str]) -> List[str]:
    """Looks until it finds what is expected, for a while: a keeper that has been told to leave
    is gone a moment later."""
    for _ in range(100):
        if (now := look()) == expected:
            break
        time.sleep(0.01)
    return now


def resident() -> int:
    """In kB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


# --- What is run -----------------------------------------------------------------------------


def in_threads(count: int, once: Callable[[int], None]) -> List[str]:
    """Calls `once` so often, from all threads; what went wrong comes back."""
    left, failures = iter(range(count)), []
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            try:
                once(number)
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
        while os.path.exists(f"/proc/self/task/{thread.native_id}"):
            time.sleep(0.001)  # Python is done with it, the system not yet
    return failures


def from_bundle(runtime: locule.Runtime, bundle: Path, number: int) -> None:
    code = number % 200
    container = runtime.create(
        ["/bin/sh", "-c", f"exit {code}"], bundle=bundle, id=f"{ids}{next(numbers)}",
        stdin=locule.DEVNULL, stdout=locule.DEVNULL, stderr=locule.DEVNULL,
    )
    try:
        container.start()
        if (ended := container.wait(60)) != code:
            raise AssertionError(f"{ended} for {code}")
        container.delete()
    finally:
        container.close()


def by_default(runtime: locule.Runtime, number: int) -> None:
    """As `locule.run` does, with an id by which to find what is left."""
    with runtime.create(
        ["/bin/sh", "-c", f"echo {number}; exit 7"], id=f"{ids}{next(numbers)}",
        stdin=locule.DEVNULL, stdout=locule.PIPE, stderr=locule.DEVNULL,
    ) as container:
        container.start()
        output, _ = container.init.communicate(timeout=60)
        ended = container.wait(60)
        if (ended, output) != (7, b"%d\n" % number):
            raise AssertionError(f"{ended}, {output!r}")


def make_bundle(path: Path, busybox: str) -> None:
    (path / "rootfs" / "bin").mkdir(parents=True)
    for name in ("proc", "dev", "sys"):
        (path / "rootfs" / name).mkdir()
    shutil.copy(busybox, path / "rootfs" / "bin" / "sh")
    spec = locule.default_spec(["/bin/sh"], rootfs="rootfs", env={"PATH": "/bin"})
    spec["root"]["path"] = "rootfs"
    (path / "config.json").write_text(json.dumps(spec))


def soak(kind: str, count: int, once: Callable[[int], None], scratch: Path) -> None:
    failures = in_threads(min(WARM_UP, count), once)
    before = {name: look() for name, look in looks(scratch).items()}
    before["keepers"] = []  # those of the warm-up may be on their way
    memory, start = resident(), time.monotonic()
    failures += in_threads(count, once)
    elapsed, grown = time.monotonic() - start, resident()
    text = f"{kind}: {count} containers in {elapsed:.1f} s, {len(failures)} failures"
    report(not failures, ", first: ".join([text, *failures[:1]]))
    for name, look in looks(scratch).items():
        now = lasting(look, before[name])
        text = f"{kind}: {name}: {len(before[name])} before, {len(now)} after"
        changes = sorted(set(now) ^ set(before[name]))
        report(now == before[name], ": ".join([text, *changes[:1]]))
    report(grown - memory <= MOST_GROWTH, f"{kind}: resident memory: {memory} kB, then {grown} kB")


def main() -> int:
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="locule-soak-") as name:
        scratch = Path(name)
        with locule.Runtime(scratch / "state") as runtime:
            busybox = shutil.which("busybox")
            if busybox is None or "=>" in subprocess.run(
                ["ldd", busybox], capture_output=True, text=True
            ).stdout:
                print("skipped: python bundle: a static busybox (busybox-static)")
            else:
                make_bundle(scratch / "bundle", busybox)
                soak("bundle", count, lambda n: from_bundle(runtime, scratch / "bundle", n), scratch)
            soak("default", max(count // 10, 1), lambda n: by_default(runtime, n), scratch)
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())

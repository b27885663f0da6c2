"""What is on the machine, as far as a container might leave it there."""

import time
from pathlib import Path

import box


def processes():
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            name = (path / "comm").read_text().strip()
        except OSError:
            continue
        found[path.name] = f"process {path.name}: {command or name}"
    return found


def mounts():
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {f"mount {line.split()[4]}": f"mount {line.split()[4]}" for line in lines}


def cgroups():
    return {str(path): f"cgroup {path}" for path in box.CGROUPS.glob("**/") if path.is_dir()}


def states(directories):
    found = {}
    for directory in directories:
        if directory.is_dir():
            found.update({str(path): f"state {path}" for path in directory.iterdir()})
    return found


class Look:
    """All that a container might leave, before and after."""

    def __init__(self, engine):
        self.engine = engine
        self.before = self.now()

    def now(self):
        return {**processes(), **mounts(), **cgroups(), **states(self.engine.states())}

    def left(self):
        """What is there that was not, once everything had time to go."""
        end = time.monotonic() + 5
        while True:
            now = self.now()
            more = [
                words
                for key, words in now.items()
                if key not in self.before and not self.engine.owns(words)
            ]
            if not more or time.monotonic() > end:
                return more
            time.sleep(0.05)

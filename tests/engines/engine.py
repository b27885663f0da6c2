"""What all engines have in common: a runtime that is watched, logs, and containers to remove."""

import os
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import image
from box import WORK
from expect import expect

# Called in the runtime's place. Notes the call, and has the log outlive the bundle it is kept in.
WATCH = """#!/bin/sh
log={logs}/$$
echo "$*" >$log.call
previous=
for word; do
    [ "$previous" != --log ] || ln -s $log "$word" 2>/dev/null
    previous=$word
done
exec {program} "$@"
"""


@dataclass
class Options:
    """What a container may be given. No engine has all of it: see their abilities."""

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    cpuset: str | None = None
    # Of the host, in the container, and "ro" or "rw".
    mounts: list[tuple[Path, str, str]] = field(default_factory=list)
    # The same with the accesses that are allowed, such as "r".
    devices: list[tuple[str, str, str]] = field(default_factory=list)
    user: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    tty: bool = False
    readonly: bool = False
    # Whether it is to be reached from the host.
    network: bool = False
    # A user namespace: container id, host id, length.
    mapping: str | None = None
    # The engine's own seccomp filter, where that is not what it takes by itself.
    filter: bool = False


class Engine:
    """An engine that cases are run with. Its methods are the abilities that cases ask for."""

    name = ""
    # What it takes: a program and the Debian package that has it.
    programs = {}
    # What it leaves on purpose, once for all.
    keeps = ()
    # The limits it knows, or may set.
    limits = ("memory", "cpus", "pids", "cpuset")
    # The version of cgroups that it is shown; the machine's own mixture if it is empty.
    cgroups = ""
    # Whether its status says why a program could not be run.
    has_statuses = True
    # Its status for a missing program that was to be executed, if that is another one.
    missing_executed = None
    # What its commands have options for: that a container reads input, runs as a user, on a
    # terminal, uses devices, and the first three for programs that are executed in it.
    input = user = terminal = devices = execute_options = True

    @classmethod
    def missing(cls):
        found = {
            program: package
            for program, package in cls.programs.items()
            if not shutil.which(program)
        }
        return ", ".join(f"{program} (package {package})" for program, package in found.items())

    def __init__(self, runtime, target):
        self.logs = WORK / "logs"
        self.logs.mkdir(mode=0o1777)
        self.logs.chmod(0o1777)
        # Engines know what a runtime can do by its name.
        self.runtime = WORK / "bin" / runtime.name
        self.runtime.parent.mkdir()
        program = WORK / "program" / runtime.name
        program.parent.mkdir()
        shutil.copy(runtime, program)
        self.runtime.write_text(WATCH.format(logs=self.logs, program=program))
        self.runtime.chmod(0o755)
        # The build's directory.
        self.target = target
        self.image = WORK / "image.tar"
        image.write(self.image, image.REFERENCE)
        self.made = []
        self.daemons = []
        # How much of each daemon's log is about earlier cases.
        self.read = {}

    # --- Daemons -----------------------------------------------------------------------------

    def daemon(self, name, argv, socket):
        """Starts a daemon and waits for its socket."""
        process, log = self.background(name, argv)
        end = time.monotonic() + 30
        while not Path(socket).exists():
            expect(process.poll() is None, f"{name} has ended: {log.read_text()[-2000:]}")
            expect(time.monotonic() < end, f"{name} does not listen: {log.read_text()[-2000:]}")
            time.sleep(0.02)

    def background(self, name, argv):
        """Starts a program that runs as long as the suite does; what it writes is its log."""
        log = WORK / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        self.daemons.append((process, log))
        return process, log

    def end(self):
        for process, _ in reversed(self.daemons):
            process.terminate()
            process.wait(30)

    # --- Logs --------------------------------------------------------------------------------

    def mark(self):
        """A case begins: what was logged before is not about it."""
        self.read = {log: log.stat().st_size for _, log in self.daemons}
        for file in self.logs.iterdir():
            file.unlink()

    def log(self):
        """What the engine and the runtime have logged since the mark."""
        lines = []
        for _, log in self.daemons:
            lines.append(f"{log.name}:")
            text = log.read_bytes()[self.read.get(log, 0) :]
            lines += [f"  {line}" for line in text.decode(errors="replace").splitlines()]
        lines.append("the runtime:")
        for file in sorted(self.logs.glob("*.call"), key=os.path.getmtime):
            lines.append(f"  {file.read_text().strip()}")
            said = file.with_suffix("")
            if said.exists():
                lines += [f"    {line}" for line in said.read_text().splitlines()]
        return lines

    # --- Containers --------------------------------------------------------------------------

    def keep(self, name):
        """Notes a container that has to be removed in the end."""
        if name not in self.made:
            self.made.append(name)
        return name

    def remove_all(self):
        while self.made:
            self.remove(self.made.pop())

    def states(self):
        """The directories where the runtime keeps its containers' states."""
        raise NotImplementedError

    def owns(self, words):
        return words in self.keeps

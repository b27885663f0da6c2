"""What runs cases, judges them, and says what was going on when one fails."""

import os
import pty
import re
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import box

CASES = []


class Failed(Exception):
    """A case has found something that is not as it should be."""


class Skipped(Exception):
    """A case cannot be tried here, for want of what this says."""


def case(*needs):
    """Makes a function a case, for engines that have all of these abilities."""

    def register(function):
        CASES.append((function, needs))
        return function

    return register


# --- What cases say --------------------------------------------------------------------------


def expect(fine, words):
    if not fine:
        raise Failed(words)


def equal(what, got, wanted):
    expect(got == wanted, f"{what}: {got!r} and not {wanted!r}")


def has(what, text, words):
    expect(words in text, f"{what} has no {words!r}: {text!r}")


def eventually(what, fine, seconds=10):
    """Waits until something is true, and returns it."""
    end = time.monotonic() + seconds
    while True:
        if found := fine():
            return found
        expect(time.monotonic() < end, f"not within {seconds} seconds: {what}")
        time.sleep(0.05)


# --- Calling programs ------------------------------------------------------------------------


@dataclass
class Done:
    """What a program has said."""

    code: int
    out: str
    err: str

    def fine(self):
        """The output of a call that must not fail."""
        expect(self.code == 0, f"status {self.code}: {(self.err or self.out).strip()}")
        return self.out


class Journal:
    """What has been called since the last case began."""

    def __init__(self):
        self.lines = []

    def note(self, argv, done):
        lines = ["$ " + " ".join(argv)]
        lines += [f"  {line}" for line in (done.out + done.err).splitlines()]
        lines.append(f"  = {done.code}")
        # Who waits for something asks again and again.
        if self.lines[-len(lines):] != lines:
            self.lines += lines


JOURNAL = Journal()


def call(*argv, stdin="", terminal=False, seconds=60, **options):
    """Runs a program to its end, on a terminal of its own if it is to have one."""
    argv = [str(word) for word in argv]
    if terminal:
        done = on_terminal(argv, seconds, options)
    else:
        try:
            ended = subprocess.run(
                argv, input=stdin, capture_output=True, text=True, timeout=seconds, **options
            )
            done = Done(ended.returncode, ended.stdout, ended.stderr)
        except subprocess.TimeoutExpired as late:
            parts = [(part or b"").decode(errors="replace") for part in (late.stdout, late.stderr)]
            JOURNAL.note(argv, Done(-1, *parts))
            raise Failed(f"{argv[0]} has not ended after {seconds} seconds") from None
    JOURNAL.note(argv, done)
    return done


def on_terminal(argv, seconds, options):
    master, slave = pty.openpty()
    program = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, **options)
    os.close(slave)
    late = threading.Timer(seconds, program.kill)
    late.start()
    said = b""
    try:
        while part := os.read(master, 4096):
            said += part
    except OSError:
        # The last one has closed the slave.
        pass
    finally:
        os.close(master)
    code = program.wait()
    late.cancel()
    return Done(code, said.decode(errors="replace"), "")


def at_once(count, act):
    """Does something in as many threads, and hands on what went wrong in the first of them."""
    wrong = []

    def one(number):
        try:
            act(number)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=one, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


# --- What is left ----------------------------------------------------------------------------


def processes():
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        found[path.name] = f"process {path.name} ({state}) {command or (path / 'comm').name}"
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
            more = [words for key, words in now.items()
                    if key not in self.before and not self.engine.owns(words)]
            if not more or time.monotonic() > end:
                return more
            time.sleep(0.05)


# --- Limits ----------------------------------------------------------------------------------


def limit(pid, controller, old, new):
    """A limit of a process: its file in version 1 or in version 2."""
    unified = None
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return (mounted(controllers) / path[1:] / old).read_text().strip()
        if not controllers:
            unified = path
    file = mounted("") / unified[1:] / new
    if not file.exists():
        raise Skipped(f"the cgroup controller {controller}")
    return file.read_text().strip()


def mounted(controllers):
    for path, _, options in box.hierarchies():
        if set(options.split(",")) == set(controllers.split(",")):
            return path
    raise Failed(f"no cgroups with {controllers!r}")


# --- A suite ---------------------------------------------------------------------------------


@dataclass
class Tally:
    """Counts lines that are verdicts."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def take(self, line):
        self.passed += line.startswith("ok ")
        self.failed += line.startswith("FAILED")
        self.skipped += line.startswith("skipped:")
        print(line, flush=True)

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def indented(lines):
    return "".join(f"         | {line}\n" for line in lines)


def suite(engine):
    """Runs all cases that the engine has abilities for, and prints a line for each."""
    words = os.environ.get("ONLY", "").split()
    try:
        engine.begin()
        expect(any(engine.logs.glob("*.call")), "it does not call the runtime")
        look = Look(engine)
    except Exception as error:
        print(f"FAILED   {engine.name}: does not start: {error}")
        print(indented([*JOURNAL.lines, *engine.log()]), end="", flush=True)
        return
    for function, needs in CASES:
        name = function.__name__.replace("_", " ")
        if all(getattr(engine, need, None) for need in needs) and (
            not words or any(word in name for word in words)
        ):
            verdict(engine, look, name, function)
    engine.end()


def verdict(engine, look, name, function):
    JOURNAL.lines.clear()
    engine.mark()
    begun = time.monotonic()
    problem = None
    try:
        function(engine)
    except Skipped as skipped:
        problem = skipped
    except Exception as failed:
        problem = failed if isinstance(failed, Failed) else Failed(f"{type(failed).__name__}: {failed}")
    try:
        engine.remove_all()
        left = look.left()
    except Failed as failed:
        left = [str(failed)]
    if left and not isinstance(problem, Failed):
        problem = Failed("left: " + "; ".join(left))
    took = f"{time.monotonic() - begun:.1f} s"
    if isinstance(problem, Failed):
        print(f"FAILED   {engine.name}: {name}: {problem}")
        print(indented([*JOURNAL.lines, *engine.log()]), end="")
        # So that it is told once.
        look.before = look.now()
    elif problem:
        print(f"skipped: {engine.name}: {name}: {problem}")
    else:
        print(f"ok       {engine.name}: {name} ({took})")
    if os.environ.get("SHOW") and not isinstance(problem, Failed):
        print(indented(JOURNAL.lines), end="")
    import sys
    sys.stdout.flush()

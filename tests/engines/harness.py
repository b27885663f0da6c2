"""Runs cases, and says what was going on when one fails."""

import os
import time
import traceback
from dataclasses import dataclass

from call import JOURNAL
from expect import Failed, Skipped, expect
from leftovers import Look

CASES = []


def case(*needs):
    """Makes a function a case, for engines that have all of these abilities."""

    def register(function):
        CASES.append((function, needs))
        return function

    return register


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
    """Runs a case and tells what came of it."""
    JOURNAL.lines.clear()
    engine.mark()
    begun = time.monotonic()
    problem = attempt(function, engine)
    left = clean(engine, look)
    if left and not isinstance(problem, Failed):
        problem = Failed(f"left: {left}")
    took = f"{time.monotonic() - begun:.1f} s"
    details = JOURNAL.lines if os.environ.get("SHOW") else []
    if isinstance(problem, Failed):
        print(f"FAILED   {engine.name}: {name}: {problem}")
        details = [*JOURNAL.lines, *engine.log()]
        # So that it is told once.
        look.before = look.now()
    elif problem:
        print(f"skipped: {engine.name}: {name}: {problem}")
    else:
        print(f"ok       {engine.name}: {name} ({took})")
    print(indented(details), end="", flush=True)


def attempt(function, engine):
    """What is wrong or missing, if anything."""
    try:
        function(engine)
    except (Failed, Skipped) as said:
        return said
    except Exception as error:
        JOURNAL.lines += traceback.format_exc().splitlines()
        return Failed(f"{type(error).__name__}: {error}")
    return None


def clean(engine, look):
    """Removes the containers of a case; what stays all the same."""
    try:
        engine.remove_all()
        return "; ".join(look.left())
    except Failed as failed:
        return str(failed)

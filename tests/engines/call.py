"""Calls programs, and remembers what they said for the case that fails."""

import os
import pty
import subprocess
import threading
from dataclasses import dataclass

from expect import Failed, expect


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
        if self.lines[-len(lines) :] != lines:
            self.lines += lines


JOURNAL = Journal()


def call(*argv, stdin="", terminal=False, seconds=120, **options):
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

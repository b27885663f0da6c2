#!/usr/bin/env python3
"""Runs real engines with the command `locule` as their runtime. See tests/README.md.

    run.py [SUITE...]       by default all of them: ctr, cri, docker, podman, podman-rootless and
                            podman-rootless-v2

RUNTIME=runc takes another runtime, ONLY="WORD..." chooses cases, SHOW=1 prints every call, and
CGROUPS=v1 or v2 shows no other version of cgroups than that.
"""

import os
import shutil
import sys
from pathlib import Path

import box
import cases  # noqa: F401 - fills the table of cases
import harness
from cri import Cri
from ctr import Ctr
from docker import Docker
from podman import Podman, RootlessPodman, RootlessPodmanV2

ENGINES = (Ctr, Cri, Docker, Podman, RootlessPodman, RootlessPodmanV2)
SUITES = {engine.name: engine for engine in ENGINES}
TARGET = Path(__file__).resolve().parents[2] / "target"


def runtime():
    """The program that the engines are to call."""
    wanted = os.environ.get("RUNTIME") or str(TARGET / "locule" / "bin" / "locule")
    found = shutil.which(wanted)
    if not found:
        sys.exit(f"no runtime {wanted}")
    return Path(found).resolve()


def main(names):
    if unknown := set(names) - set(SUITES):
        sys.exit(f"no suite {' '.join(unknown)}; there are {' '.join(SUITES)}")
    program = runtime()
    total = harness.Tally()
    for name in names or SUITES:
        missing = SUITES[name].missing()
        if os.geteuid() != 0:
            missing = "root"
        if missing:
            total.take(f"skipped: {name}: {missing}")
            continue
        command = [sys.executable, __file__, "--inside", name, str(program)]
        for problem in box.run(command, total.take):
            total.take(f"FAILED   {name}: {problem}")
    print(total)
    return 1 if total.failed else 0


def inside(name, program):
    box.furnish(os.environ.get("CGROUPS") or SUITES[name].cgroups)
    os.chdir(box.WORK)
    harness.suite(SUITES[name](Path(program), TARGET))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        inside(*sys.argv[2:])
    else:
        sys.exit(main(sys.argv[1:]))

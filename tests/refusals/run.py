#!/usr/bin/env python3
"""Goes through the table of refusals in C, Go and Python.

    run.py BUILD [--show] [FILTER...]

BUILD is the folder with the libraries and the drivers (see the Makefile). A case is refused as
the table says, by the error that is natural in the language, and leaves nothing behind. With
--show the messages are printed too, to be read as a user would read them.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import leftovers
import scene as scenes
from drivers import Driver, seccomp, works_for_ordinary
from scene import Scene
from table import ANY, LANGUAGES, Case, Host, Refused, Works, all_cases, is_root

REPOSITORY = Path(__file__).resolve().parents[2]

# What a program in each language catches or compares with, by category.
NATURAL: Dict[str, Tuple[List[str], List[str]]] = {
    "invalid": (["ErrInvalid", "fs.ErrInvalid"], ["Invalid", "ValueError"]),
    "spec": (["ErrSpec"], ["SpecError", "ValueError"]),
    "not-found": (["ErrNotFound", "fs.ErrNotExist"], ["NotFound", "LookupError"]),
    "exists": (["ErrExists", "fs.ErrExist"], ["Exists"]),
    "state": (["ErrState"], ["StateError"]),
    "permission": (["ErrPermission", "fs.ErrPermission"], ["PermissionDenied", "PermissionError"]),
    "unsupported": (["ErrUnsupported", "errors.ErrUnsupported"], ["Unsupported"]),
    "busy": (["ErrBusy"], ["Busy"]),
    "timeout": (["ErrTimeout", "os.ErrDeadlineExceeded"], ["Timeout", "TimeoutError"]),
    "cancelled": (["context.Canceled"], ["Cancelled"]),
    "resource": (["ErrResource"], ["ResourceError", "OSError"]),
    "system": ([], ["SystemCallError", "OSError"]),
    "program": (["ErrProgram"], ["ProgramError", "OSError"]),
    "hook": (["ErrHook"], ["HookError"]),
    "keeper": (["ErrKeeper"], ["KeeperError"]),
}

# What Rust, ctypes or a debugger would say, and a user should not have to read.
JARGON = re.compile(r"os error|Some\(|None\b|Err\(|Ok\(|::|\bu(8|16|32|64)\b|\bi(32|64)\b|\n|variant")


def natural(language: str, category: str) -> List[str]:
    go, python = NATURAL[category]
    if language == "go":
        return [*go, "*Error"]
    if language == "python":
        return [*python, "LoculeError"]
    return ["LOCULE_E_" + category.upper().replace("-", "_")]


def judge(
    case: Case, language: str, answer: Dict[str, str], id: str, fill: Callable[[str], str],
) -> List[str]:
    """What is wrong with an answer about the container `id`."""
    kind = answer["kind"]
    if kind in ("dead", "hangs"):
        return [f"the driver is {kind}: {answer.get('message', '')}"]
    expect = case.differs.get(language, case.expect)
    if isinstance(expect, Works):
        return [] if kind == "fine" else [f"refused: {answer['message']}", str(answer)]
    if kind == "fine":
        return ["not refused"]
    wrong = []

    def compare(what: str, found: Optional[str], expected: Optional[str]) -> None:
        if expected != ANY and (found or "") != (expected or ""):
            wrong.append(f"{what} is {found!r}, not {expected!r}")

    number = int(answer.get("errno", "0"))
    compare("step", answer["at"], str(len(case.do)))
    compare("category", answer.get("category"), expect.category)
    compare("stage", answer.get("stage"), expect.stage)
    compare("errno", errno.errorcode.get(number, str(number)) if number else "", expect.errno)
    compare("pointer", answer.get("pointer"), expect.pointer)
    compare("id", answer.get("id"), id if expect.id else "")
    compare("status", answer.get("status"), case.still)
    lacking = set(natural(language, expect.category)) - set(answer.get("natural", "").split(","))
    if lacking:
        wrong.append(f"it is no {', '.join(sorted(lacking))}, but {answer.get('natural')}")
    message, hint = answer["message"], answer.get("hint", "")
    if fill(expect.says) not in message:
        wrong.append(f"the message does not say {fill(expect.says)!r}")
    if expect.advises not in hint:
        wrong.append(f"the hint does not say {expect.advises!r}")
    if JARGON.search(message) or not message:
        wrong.append("the message is not for users")
    if wrong:
        wrong += [f"message: {message}", f"hint: {hint}"]
    return wrong


class Machine:
    """The drivers of every host that the table asks for, started when they are first needed."""

    def __init__(self, build: Path, base: Path) -> None:
        self.build = build
        self.base = base
        self.rootfs = base / "rootfs"
        scenes.make_rootfs(self.rootfs)
        self._files = self._all_files()
        # Where ordinary users can read them.
        self.home = base / "home"
        self.home.mkdir(mode=0o755)
        self.library = shutil.copy(build / "lib/liblocule.so.0", self.home)
        shutil.copytree(REPOSITORY / "bindings/python/locule", self.home / "locule")
        shutil.copy(REPOSITORY / "tests/refusals/drive.py", self.home)
        for name in ("refusals-c", "refusals-go"):
            if (build / name).exists():
                shutil.copy(build / name, self.home)
        self.python = self._python()
        self._drivers: Dict[Tuple[str, Host], Driver] = {}

    def _python(self) -> Optional[str]:
        """One that other users can run: root's may lie in root's home."""
        for python in (sys.executable, "/usr/bin/python3"):
            if works_for_ordinary([python, "-c", "import ctypes"]):
                return python
        return None

    def command(self, language: str) -> Optional[List[str]]:
        if language == "python":
            return [self.python, str(self.home / "drive.py")] if self.python else None
        program = self.home / f"refusals-{language}"
        return [str(program)] if program.exists() else None

    def driver(self, language: str, host: Host) -> Driver:
        key = (language, host)
        if key in self._drivers and not self._drivers[key].is_alive():
            self._drivers.pop(key).close()
        if key not in self._drivers:
            command = self.command(language)
            assert command is not None
            env = {
                "PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(self.home),
                "LOCULE_LIBRARY": self.library, "PYTHONDONTWRITEBYTECODE": "1",
            }
            log = self.base / f"log-{language}-{len(self._drivers)}"
            driver = Driver(command, env, host, log)
            # What a language opens once and keeps is open before it is looked at.
            if driver.ask([("open", {"state": "/dev/null/x"})])["kind"] == "dead":
                raise RuntimeError(f"the {language} driver does not run: {driver.close()}")
            self._drivers[key] = driver
        return self._drivers[key]

    def pids(self) -> List[int]:
        return [driver.pid for driver in self._drivers.values()]

    def _all_files(self) -> List[str]:
        return sorted(str(path) for path in self.rootfs.rglob("*"))

    def close(self) -> List[str]:
        """What is wrong in the end: the library never writes to standard streams, and what the
        containers have in common is as it was."""
        written = [driver.close() for driver in self._drivers.values()]
        changed = set(self._all_files()) ^ set(self._files)
        return [f"written: {text}" for text in written if text] + [
            f"the root filesystem has changed: {path}" for path in sorted(changed)
        ]


def missing(case: Case, language: str, machine: Machine) -> Optional[str]:
    """What this machine lacks for the case."""
    if machine.command(language) is None:
        return f"the {language} driver"
    if case.host.denied and seccomp() is None:
        return "libseccomp.so.2"
    return next((what for need in case.needs if (what := need())), None)


def run_one(case: Case, language: str, number: int, machine: Machine, show: bool) -> List[str]:
    id = f"rf{os.getpid()}-{number}-{language}"
    try:
        driver = machine.driver(language, case.host)
    except RuntimeError as error:
        return [str(error)]
    scene = Scene(machine.base / id, machine.rootfs, case, id)
    try:
        before = leftovers.Before(scene, driver, machine.pids())
        asked = id
        opening = {key: scene.fill(text) for key, text in case.open.items()}
        steps = [("open", {"state": scene.state, **opening})]
        for verb, words in case.do:
            if verb in ("create", "load"):
                words = {"id": id, **words}
                asked = words["id"]
            if verb == "create" and "image" not in words:
                words = {"bundle": str(scene.bundle), **words}
            steps.append((verb, {key: scene.fill(text) for key, text in words.items()}))
        answer = driver.ask(steps)
        if show and language == "c" and answer["kind"] != "fine":
            print(f"         {answer.get('message')}\n         ({answer.get('hint')})")
        wrong = judge(case, language, answer, scene.fill(asked), scene.fill)
        return wrong + [f"left behind: {line}" for line in before.left()]
    finally:
        scene.close()


def main() -> int:
    arguments = [word for word in sys.argv[1:] if not word.startswith("--")]
    show = "--show" in sys.argv
    build, filters = Path(arguments[0]).resolve(), arguments[1:]
    cases = all_cases()
    if not is_root() or scenes.busybox() is None:
        print("skipped: " + ("a static busybox (busybox-static)" if is_root() else "root"))
        print(f"0 passed, 0 failed, {sum(len(case.only) for case in cases)} skipped")
        return 0
    scenes.private_mounts()
    leftovers.become_reaper()
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory(prefix="locule-refusals-") as temporary:
        base = Path(temporary)
        base.chmod(0o755)
        machine = Machine(build, base)
        jobs = [
            (number, case, language)
            for number, case in enumerate(cases) for language in LANGUAGES
            if language in case.only
            and (not filters or any(word in f"{case.name} ({language})" for word in filters))
        ]
        for number, case, language in jobs:
            name = f"{case.name} ({language})"
            lack = missing(case, language, machine)
            if lack is not None:
                counts["skipped"] += 1
                print(f"skipped: {lack}: {name}")
                continue
            wrong = run_one(case, language, number, machine, show)
            counts["failed" if wrong else "passed"] += 1
            print(f"FAILED   {name}" if wrong else f"ok       {name}")
            for line in wrong:
                print(f"         | {line}")
        for text in machine.close():
            counts["failed"] += 1
            print(f"FAILED   all is as it was\n         | {text}")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())

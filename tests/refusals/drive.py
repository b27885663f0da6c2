"""Drives the Python API for the table of refusals: see drivers.py for the words it is given and
the answer it gives. It judges nothing."""

import json
import os
import sys
from contextlib import ExitStack
from urllib.parse import quote_from_bytes, unquote_to_bytes

import locule

RUNNER = 3
PARENTAGE = ["keeper", "orphan", "child"]


class Scene:
    """One case: its runtime and containers."""

    def __init__(self):
        self.runtime = None
        self.containers = []

    def perform(self, verb, words):
        if verb == "open":
            self.runtime = locule.Runtime(
                words["state"], keeper=words.get("keeper"), cgroups="no_cgroups" not in words,
            )
        elif verb == "create":
            self.containers.append(self.create(words))
        elif verb == "load":
            self.containers.append(self.runtime.get(words["id"]))
        else:
            getattr(self, verb)(self.containers[-1], words)

    def create(self, words):
        with ExitStack() as stack:
            choices = streams(words)
            if "cancel" in words:
                choices["cancel"] = stack.enter_context(locule.Cancel())
                choices["cancel"].trigger()
            if "timeout" in words:
                choices["timeout"] = int(words["timeout"]) / 1000
            if "pass" in words:
                choices["pass_fds"] = [int(words["pass"])]
            if "overlay" in words:
                choices["overlay"] = True
            return self.runtime.create(
                bundle=words.get("bundle"), id=words["id"],
                parentage=PARENTAGE[int(words.get("parentage", 0))], **choices,
            )

    def start(self, container, words):
        container.start()

    def exec(self, container, words):
        process = json.loads(words["json"])
        if "user" in process:
            process["user"] = (process["user"]["uid"], process["user"]["gid"])
        timeout = int(words["timeout"]) / 1000 if "timeout" in words else None
        container.exec(**process, **streams(words), start_timeout=timeout).close()

    def wait(self, container, words):
        if container.wait(10) != 0:
            raise RuntimeError(f"the program ended with {container.init.returncode}")

    def signal(self, container, words):
        container.kill(int(words["number"]), all="all" in words)

    def pause(self, container, words):
        container.pause()

    def resume(self, container, words):
        container.resume()

    def update(self, container, words):
        container.update(json.loads(words["json"]))

    def delete(self, container, words):
        container.delete(force="force" in words)

    def state(self, container, words):
        container.state()

    def stats(self, container, words):
        container.stats()

    def pids(self, container, words):
        container.pids()

    def status(self):
        try:
            return self.containers[-1].state().status if self.containers else ""
        except locule.LoculeError:
            return ""

    def close(self):
        for container in self.containers:
            try:
                container.delete(force=True)
            except locule.LoculeError:
                pass
            container.close()
        if self.runtime is not None:
            self.runtime.close()


def streams(words):
    """The streams: none, unless a word says otherwise."""
    chosen = {}
    for name in ("stdin", "stdout", "stderr"):
        value = words.get(name)
        inherit = None if value == "inherit" else int(value or locule.DEVNULL)
        chosen[name] = inherit
    return chosen


def report(at, error):
    """What the exception says. Its classes are what a program catches."""
    fields = {
        "at": at, "errno": getattr(error, "errno", None) or 0,
        "natural": ",".join(kind.__name__ for kind in type(error).__mro__),
        "message": getattr(error, "message", str(error)),
    }
    for field, name in [
        ("category", "code"), ("stage", "stage"), ("pointer", "pointer"),
        ("id", "container_id"), ("hint", "hint"),
    ]:
        fields[field] = getattr(error, name, None) or ""
    return "refused", fields


def run(line):
    scene = Scene()
    answer = "fine", {}
    for at, step in enumerate(line.split("\t")):
        verb, *rest = step.split(" ")
        pairs = (word.split("=", 1) for word in rest)
        words = {key: os.fsdecode(unquote_to_bytes(value)) for key, value in pairs}
        try:
            scene.perform(verb, words)
        except Exception as error:
            answer = report(at, error)
            break
    kind, fields = answer
    fields["status"] = scene.status()
    scene.close()
    return " ".join([kind] + [
        f"{key}={quote_from_bytes(os.fsencode(str(value)), safe='')}"
        for key, value in fields.items()
    ])


def main():
    with open(RUNNER, "r+b", buffering=0) as runner, open(RUNNER, closefd=False) as requests:
        for line in requests:
            runner.write(run(line.rstrip("\n")).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())

"""Engines that are driven by a command like `docker`."""

import json
import os
import subprocess

import image
from call import call
from engine import Engine, Options
from expect import eventually


class Commands(Engine):
    # The command with the options that come before its verb.
    command = ()
    # The network of a container that wants one.
    network = "bridge"
    # What has `rm --force` kill and not ask.
    at_once = ()

    def environment(self):
        return {"PATH": os.environ["PATH"], "HOME": "/root"}

    def verb(self, *words, **options):
        return call(*self.command, *words, env=self.environment(), **options)

    def words(self, wanted):
        words = ["--network", self.network if wanted.network else "none"]
        for flag, value in (
            ("--memory", wanted.memory),
            ("--cpus", wanted.cpus),
            ("--pids-limit", wanted.pids),
            ("--cpuset-cpus", wanted.cpuset),
            ("--user", wanted.user),
            ("--workdir", wanted.cwd),
            ("--uidmap", wanted.mapping),
            ("--gidmap", wanted.mapping),
        ):
            if value is not None:
                words += [flag, str(value)]
        for name, value in wanted.env.items():
            words += ["--env", f"{name}={value}"]
        for source, target, mode in wanted.mounts:
            words += ["--volume", f"{source}:{target}:{mode}"]
        for source, target, access in wanted.devices:
            words += ["--device", f"{source}:{target}:{access}"]
        return words + ["--tty"] * wanted.tty + ["--read-only"] * wanted.readonly

    def run(self, name, *program, stdin=None, **options):
        words = self.words(Options(**options))
        if stdin is not None:
            words.append("--interactive")
        return self.verb(
            "run",
            "--name",
            self.keep(name),
            *words,
            image.REFERENCE,
            *program,
            stdin=stdin or "",
            terminal=options.get("tty", False),
        )

    def launch(self, name, *program, **options):
        words = ["--detach", "--name", self.keep(name), *self.words(Options(**options))]
        self.verb("run", *words, image.REFERENCE, *program).fine()

    def restart(self, name):
        self.verb("start", name).fine()

    def execute(self, name, *program, stdin=None, tty=False, user=None, cwd=None):
        words = ["--interactive"] * (stdin is not None) + ["--tty"] * tty
        words += ["--user", user] if user else []
        words += ["--workdir", cwd] if cwd else []
        return self.verb("exec", *words, name, *program, stdin=stdin or "", terminal=tty)

    def follow(self, name):
        return subprocess.Popen(
            [*self.command, "logs", "--follow", name],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def output(self, name):
        return self.verb("logs", name).fine()

    def pause(self, name):
        self.verb("pause", name).fine()

    def resume(self, name):
        self.verb("unpause", name).fine()

    def stop(self, name, seconds):
        self.verb("stop", "--time", str(seconds), name).fine()

    def kill(self, name, signal):
        self.verb("kill", "--signal", signal, name).fine()

    def update(self, name, memory):
        self.verb("update", "--memory", str(memory), "--memory-swap", str(2 * memory), name).fine()

    def remove(self, name):
        self.verb("rm", "--force", *self.at_once, name)

    def state(self, name):
        return self.inspect(name)["Status"]

    def pid(self, name):
        return self.inspect(name)["Pid"]

    def ended(self, name):
        """The status, and whether the kernel killed it for want of memory."""
        eventually("the container ends", lambda: self.has_ended(name))
        state = self.inspect(name)
        return state["ExitCode"], state["OOMKilled"]

    def has_ended(self, name):
        seen = self.verb("inspect", "--format", "{{.State.Status}}", name)
        # Podman reads about a process that may end at this moment.
        if seen.code != 0 and "no such process" in seen.err:
            return False
        return seen.fine().strip() in ("exited", "stopped")

    def inspect(self, name, what="State"):
        return json.loads(self.verb("inspect", "--format", f"{{{{json .{what}}}}}", name).fine())

    def address(self, name):
        return self.inspect(name, "NetworkSettings.Networks")[self.network]["IPAddress"]

    def processes(self, name):
        """The programs that the engine sees in it."""
        lines = self.verb("top", name).fine().splitlines()[1:]
        return [line.split()[-2:] for line in lines]

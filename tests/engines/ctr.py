"""containerd, driven by ctr, with the runtime as --runc-binary of its shim."""

import json
import subprocess
import time
from pathlib import Path

import image
from box import WORK
from call import call
from engine import Engine, Options
from expect import Failed, eventually

CONFIGURATION = """
version = 2
root = "{work}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{socket}"
"""


class Containerd(Engine):
    """What both of its faces have in common."""

    programs = {"containerd": "containerd", "ctr": "containerd", "busybox": "busybox-static"}
    socket = "/run/containerd/containerd.sock"
    namespace = ""

    def containerd(self, configuration):
        config = WORK / "containerd.toml"
        config.write_text(configuration)
        self.daemon(
            "containerd", ["containerd", "--config", config, "--log-level", "warn"], self.socket
        )

    def load(self, *images):
        for file in images:
            call("ctr", "--namespace", self.namespace, "image", "import", file).fine()

    def states(self):
        return [Path("/run/containerd/runc") / self.namespace]

    def follow(self, name):
        return subprocess.Popen(
            ["tail", "-n", "+1", "-f", self.log_file(name)], stdout=subprocess.PIPE, text=True
        )


class Ctr(Containerd):
    name = "ctr"
    namespace = "default"
    limits = ("memory", "cpus")
    # There is no option for a user or for what a device is used for, and `run` does not pass on
    # the end of its input.
    user = input = devices = False
    has_statuses = False

    def begin(self):
        self.containerd(CONFIGURATION.format(work=WORK, socket=self.socket))
        _, self.events = self.background("events", ["ctr", "events"])
        self.load(self.image)
        self.run("first", "true").fine()
        self.remove_all()

    def ctr(self, *words, **options):
        return call("ctr", *words, **options)

    def words(self, wanted):
        words = ["--runc-binary", str(self.runtime)]
        for flag, value in (
            ("--memory-limit", wanted.memory),
            ("--cpus", wanted.cpus),
            ("--cwd", wanted.cwd),
        ):
            if value is not None:
                words += [flag, str(value)]
        for name, value in wanted.env.items():
            words += ["--env", f"{name}={value}"]
        for source, target, mode in wanted.mounts:
            words += ["--mount", f"type=bind,src={source},dst={target},options=rbind:{mode}"]
        for flag, asked in (
            ("--tty", wanted.tty),
            ("--read-only", wanted.readonly),
            ("--seccomp", wanted.filter),
        ):
            words += [flag] * asked
        return words

    def run(self, name, *program, stdin=None, **options):
        return self.ctr(
            "run",
            *self.words(Options(**options)),
            image.REFERENCE,
            self.keep(name),
            *program,
            stdin=stdin or "",
            terminal=options.get("tty", False),
        )

    def launch(self, name, *program, **options):
        log = self.log_file(name)
        log.unlink(missing_ok=True)
        self.ctr(
            "run",
            "--detach",
            "--log-uri",
            f"file://{log}",
            *self.words(Options(**options)),
            image.REFERENCE,
            self.keep(name),
            *program,
        ).fine()

    def execute(self, name, *program, stdin=None, tty=False, user=None, cwd=None):
        words = ["--exec-id", f"{name}-{time.monotonic_ns()}"] + ["--tty"] * tty
        words += ["--user", user] if user else []
        words += ["--cwd", cwd] if cwd else []
        return self.ctr("task", "exec", *words, name, *program, stdin=stdin or "", terminal=tty)

    def log_file(self, name):
        return WORK / f"{name}.output"

    def output(self, name):
        return self.log_file(name).read_text()

    def pause(self, name):
        self.ctr("task", "pause", name).fine()

    def resume(self, name):
        self.ctr("task", "resume", name).fine()

    def stop(self, name, seconds):
        self.kill(name, "SIGTERM")
        try:
            eventually("it ends", lambda: self.state(name) == "exited", seconds)
        except Failed:
            self.kill(name, "SIGKILL")

    def kill(self, name, signal):
        self.ctr("task", "kill", "--signal", signal, name).fine()

    def remove(self, name):
        self.ctr("task", "rm", "--force", name)
        self.ctr("container", "rm", name)

    def shim(self, name):
        """The pid of the process that containerd has for it."""
        stat = Path(f"/proc/{self.pid(name)}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])

    def task(self, name):
        """Pid and status."""
        for line in self.ctr("task", "ls").fine().splitlines()[1:]:
            found, pid, status = line.split()
            if found == name:
                return int(pid), status
        return 0, "NONE"

    def state(self, name):
        _, status = self.task(name)
        return {"STOPPED": "exited"}.get(status, status.lower())

    def pid(self, name):
        return self.task(name)[0]

    def ended(self, name):
        """The status, and whether the kernel killed it for want of memory."""
        exits = eventually("the container ends", lambda: self.told("exit", name))
        return exits[-1].get("exit_status", 0), bool(self.told("oom", name))

    def told(self, topic, name):
        """The events of a kind about a container that have been published since the mark."""
        with self.events.open() as file:
            file.seek(self.first)
            lines = [line.split(" ", 6) for line in file if f" /tasks/{topic} " in line]
        found = [json.loads(line[-1]) for line in lines]
        return [
            event
            for event in found
            if event["container_id"] == name and event.get("id", name) == name
        ]

    def mark(self):
        super().mark()
        self.first = self.events.stat().st_size

    def processes(self, name):
        lines = self.ctr("task", "ps", name).fine().splitlines()[1:]
        pids = [line.split()[0] for line in lines]
        return [Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1] for pid in pids]

"""Podman with conmon, as root and as an ordinary user."""

import os
from pathlib import Path

from box import WORK, hierarchies
from commands import Commands
from harness import Skipped

USER = 64200

CONFIGURATION = """
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
# Podman knows by the runtime's name what it can do.
runtime_supports_json = ["{name}"]
runtime = "{name}"
[engine.runtimes]
{name} = ["{path}"]
[network]
network_config_dir = "{home}/networks"
"""


class Podman(Commands):
    name = "podman"
    programs = {"podman": "podman", "conmon": "conmon", "busybox": "busybox-static"}
    command = ("podman",)
    at_once = ("--time", "0")
    # Where it keeps its layers is a mount that comes and goes.
    keeps = (f"mount {WORK}/podman/storage/overlay",)

    def begin(self):
        config = WORK / "containers.conf"
        self.environment = {
            "PATH": os.environ["PATH"],
            "CONTAINERS_CONF": str(config),
            **self.place(),
        }
        config.write_text(CONFIGURATION.format(
            name=self.runtime.name, path=self.runtime, home=self.home))
        self.command = (*self.command, "--root", f"{self.home}/storage", "--runroot", f"{self.home}/run")
        self.verb("load", "--quiet", "--input", self.image).fine()
        self.run("first", "true").fine()
        self.remove_all()

    def verb(self, *words, **options):
        return super().verb(*words, cwd=self.home, **options)

    def ended(self, name):
        # Podman 4.3 has conmon write this file where Podman was called, and looks for it elsewhere.
        status, killed = super().ended(name)
        said = self.home / "oom"
        killed = killed or said.exists()
        said.unlink(missing_ok=True)
        return status, killed

    def place(self):
        self.home = WORK / "podman"
        self.home.mkdir()
        return {"HOME": "/root"}

    def states(self):
        return [Path("/run") / self.runtime.name]


class RootlessPodman(Podman):
    name = "podman-rootless"
    programs = {**Podman.programs, "newuidmap": "uidmap"}
    limits = ()
    without_limits = "cgroup controllers that are delegated to an ordinary user"

    def place(self):
        for file, line in (
            ("passwd", f"engines:x:{USER}:{USER}::{WORK}/home:/bin/sh"),
            ("group", f"engines:x:{USER}:"),
            ("subuid", "engines:3000000:65536"),
            ("subgid", "engines:3000000:65536"),
        ):
            with open(f"/etc/{file}", "a") as known:
                known.write(f"{line}\n")
        self.home = WORK / "home"
        self.session = WORK / "session"
        for directory in (self.home, self.session):
            directory.mkdir(mode=0o700)
            os.chown(directory, USER, USER)
        self.command = ("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "podman")
        return {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.session)}

    def states(self):
        return [self.session / self.runtime.name]

    def pause(self, name):
        if any(kind == "cgroup" for _, kind, _ in hierarchies()):
            raise Skipped("cgroups of version 2: Podman pauses no other rootless containers")
        super().pause(name)

"""Podman with conmon, as root and as an ordinary user."""

import os
from pathlib import Path

from box import CGROUPS, WORK
from commands import Commands
from expect import Skipped

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
    programs = {
        "podman": "podman",
        "conmon": "conmon",
        "iptables": "iptables",
        "/usr/lib/cni/bridge": "containernetworking-plugins",
        "busybox": "busybox-static",
    }
    command = ("podman",)
    network = "podman"
    at_once = ("--time", "0")
    # The place of its layers comes and goes as a mount, that of its networks stays as one.
    keeps = (f"mount {WORK}/podman/storage/overlay", "mount /run/netns")
    mapping = True

    def begin(self):
        self.place()
        self.config = WORK / "containers.conf"
        self.config.write_text(
            CONFIGURATION.format(name=self.runtime.name, path=self.runtime, home=self.home)
        )
        places = (f"--root={self.home}/storage", f"--runroot={self.home}/run")
        self.command = (*self.command, *places)
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

    def environment(self):
        return super().environment() | {"CONTAINERS_CONF": str(self.config)}

    def states(self):
        return [Path("/run") / self.runtime.name]


class RootlessPodman(Podman):
    name = "podman-rootless"
    programs = {**Podman.programs, "newuidmap": "uidmap"}
    # An address would need a program that carries packets out of the user's own network.
    address = None
    # All of its containers have such a namespace, and none has rules for devices.
    mapping = devices = False

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
        self.delegated = delegate() if (CGROUPS / "cgroup.controllers").exists() else None
        self.limits = [
            name for name, controller in CONTROLLERS.items() if controller in (self.delegated or ())
        ]
        as_user = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        self.command = (*self.enter(), *as_user, "podman")

    def environment(self):
        own = {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.session)}
        return super().environment() | own

    def enter(self):
        """What puts a command into the user's own cgroup."""
        if self.delegated is None:
            return ()
        return "sh", "-c", f'echo 0 >{DELEGATED}/session/cgroup.procs; exec "$@"', "sh"

    def states(self):
        return [self.session / self.runtime.name]

    def pause(self, name):
        if self.delegated is None:
            raise Skipped("cgroups of version 2: Podman pauses no other rootless containers")
        super().pause(name)


class RootlessPodmanV2(RootlessPodman):
    """The same with nothing but version 2, of which a part is the user's."""

    name = "podman-rootless-v2"
    cgroups = "v2"


DELEGATED = CGROUPS / "user"
CONTROLLERS = {"memory": "memory", "cpus": "cpu", "pids": "pids", "cpuset": "cpuset"}


def delegate():
    """Gives the user a cgroup, as systemd would, and says with which controllers."""
    (DELEGATED / "session").mkdir(parents=True)
    controllers = (DELEGATED / "cgroup.controllers").read_text().split()
    wanted = " ".join(f"+{controller}" for controller in controllers)
    (DELEGATED / "cgroup.subtree_control").write_text(wanted)
    for group in (DELEGATED, DELEGATED / "session"):
        for file in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(group / file, USER, USER)
    return controllers

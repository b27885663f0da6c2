"""Docker Engine with its own containerd."""

from pathlib import Path

from box import WORK
from commands import Commands
from expect import eventually

SOCKET = "/run/docker.sock"


class Docker(Commands):
    name = "docker"
    programs = {
        "dockerd": "docker.io",
        "docker": "docker.io",
        "containerd": "containerd",
        "iptables": "iptables",
        "busybox": "busybox-static",
    }
    missing_executed = 126
    command = ("docker", "--host", f"unix://{SOCKET}")

    def begin(self):
        name = self.runtime.name
        # The name runc is taken.
        arguments = [
            f"--host=unix://{SOCKET}",
            f"--data-root={WORK}/docker",
            "--storage-driver=overlay2",
            f"--add-runtime=the-{name}={self.runtime}",
            f"--default-runtime=the-{name}",
        ]
        self.daemon("dockerd", ["dockerd", *arguments], SOCKET)
        eventually("it answers", lambda: self.verb("version").code == 0)
        self.verb("load", "--quiet", "--input", self.image).fine()
        self.run("first", "true").fine()
        self.remove_all()

    def states(self):
        return list(Path("/run/docker").glob("runtime-*/moby"))

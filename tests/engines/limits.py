"""The limits of a process, as its cgroups have them."""

from pathlib import Path

import box
from expect import Failed, Skipped


def limit(pid, controller, old, new):
    """A limit of a process: its file in version 1 or in version 2."""
    unified = None
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return (mounted(controllers) / path[1:] / old).read_text().strip()
        if not controllers:
            unified = path
    file = mounted("") / unified[1:] / new
    if not file.exists():
        raise Skipped(f"the cgroup controller {controller}")
    return file.read_text().strip()


def mounted(controllers):
    for path, _, options in box.hierarchies():
        if set(options.split(",")) == set(controllers.split(",")):
            return path
    raise Failed(f"no cgroups with {controllers!r}")

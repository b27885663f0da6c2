"""A place of its own for an engine: namespaces, cgroups, and directories that are thrown away.

An engine finds its default paths free, and nothing that it does reaches the machine. Whatever it
starts dies with the box.
"""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

# A tmpfs: overlayfs takes no directory of an overlay as its upper one, and engines use overlayfs.
WORK = Path("/run/engines")

# What an engine may write, for as long as the box stands.
COVERED = ("/etc", "/tmp", "/var")

SECONDS = 300
SECURITY = Path("/sys/kernel/security")
CGROUPS = Path("/sys/fs/cgroup")


def hierarchies():
    """The cgroup mounts of this machine: path, type, options that say which one it is."""
    general = {"rw", "ro", "nosuid", "nodev", "noexec", "relatime", "noatime"}
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, options = line.split()[:4]
        if kind == "cgroup":
            chosen = [option for option in options.split(",") if option not in general]
            found.append((Path(path), kind, ",".join(chosen)))
        elif kind == "cgroup2":
            found.append((Path(path), kind, ""))
    return found


# --- From outside ----------------------------------------------------------------------------


def run(command, tell):
    """Runs a command in a new box and tells its lines; what is wrong with the box, if anything."""
    name = f"locule-engines-{os.getpid()}"
    groups = [path / name for path, _, _ in hierarchies()]

    def join():
        for group in groups:
            (group / "cgroup.procs").write_text("0")

    try:
        for group in groups:
            make(group)
        box = subprocess.Popen(
            ["unshare", "--cgroup", "--mount", sys.executable, __file__, name, *command],
            preexec_fn=join,
            stdout=subprocess.PIPE,
            text=True,
        )
        problems = attend(box, tell)
    finally:
        left = [group for group in groups if not removed(group)]
    return problems + [f"the cgroup {group} has processes" for group in left]


def make(group):
    group.mkdir()
    if (group / "cgroup.clone_children").exists() and (group / "cpuset.cpus").exists():
        # A set of version 1 begins empty, and nobody can join it.
        for file in ("cpuset.cpus", "cpuset.mems"):
            (group / file).write_text((group.parent / file).read_text())


def attend(box, tell):
    late = threading.Timer(SECONDS, box.kill)
    late.start()
    try:
        for line in box.stdout:
            tell(line.rstrip("\n"))
        status = box.wait()
        if not late.is_alive():
            return [f"not finished after {SECONDS} seconds"]
        return [f"ended with status {status}"] if status else []
    finally:
        late.cancel()
        # unshare waits with SIGTERM ignored, and takes the whole box along when it is killed.
        box.kill()
        box.wait()


def removed(group):
    """Whether a cgroup could be removed with all below it: what is killed takes a moment to go."""
    for _ in range(50):
        for path, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(path)
            except OSError:
                pass
        if not group.exists():
            return True
        time.sleep(0.1)
    return False


# --- From inside -----------------------------------------------------------------------------


def enter(name, command):
    """Goes from the box's cgroups into its other namespaces.

    The processes have to leave the cgroup that is the root of the box in version 2: only then
    can it hand its controllers on.
    """
    for path, kind, _ in hierarchies():
        if kind == "cgroup2":
            (path / name / "init").mkdir()
            (path / name / "init" / "cgroup.procs").write_text("0")
    kinds = ["--mount", "--net", "--pid", "--uts", "--ipc"]
    options = ["--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    os.execvp("unshare", ["unshare", *kinds, *options, *command])


def furnish(cgroups):
    """Makes a new pid namespace a place where an engine can live, with this version of cgroups."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    mount("tmpfs", "/run", "mode=755")
    WORK.mkdir()
    for place in COVERED:
        upper, work = WORK / f"upper{place}", WORK / f"work{place}"
        upper.mkdir(parents=True)
        work.mkdir(parents=True)
        upper.chmod(os.stat(place).st_mode & 0o7777)
        mount("overlay", place, f"lowerdir={place},upperdir={upper},workdir={work}")
    show_cgroups(cgroups)
    if SECURITY.is_dir():
        # Engines that find AppArmor load profiles, which would be the machine's.
        mount("tmpfs", SECURITY)
    # As systemd has it: what an engine mounts is seen in its containers' volumes.
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    be_init()


def show_cgroups(version):
    """Mounts the box's own cgroups where the machine's are: all of them, or v1 or v2 alone."""
    found = hierarchies()
    subprocess.run(["umount", "--recursive", CGROUPS], check=True)
    if version == "v2" or all(kind == "cgroup2" for _, kind, _ in found):
        found = [(CGROUPS, "cgroup2", "")]
    else:
        mount("tmpfs", CGROUPS, "mode=755")
    for path, kind, options in found:
        if version == "v1" and kind == "cgroup2":
            continue
        path.mkdir(exist_ok=True)
        mount(kind, path, options)
        if kind == "cgroup2":
            controllers = (path / "cgroup.controllers").read_text().split()
            wanted = " ".join(f"+{controller}" for controller in controllers)
            (path / "cgroup.subtree_control").write_text(wanted)


def mount(kind, path, options=""):
    subprocess.run(["mount", "-t", kind, "-o", options or "rw", kind, path], check=True)


def be_init():
    """Returns in a child; this process stays, and collects whoever has lost its parent."""
    child = os.fork()
    if child == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    enter(sys.argv[1], sys.argv[2:])

#!/usr/bin/env python3
"""Images: unpacking, taking in, starting and memory, beside umoci, skopeo and podman.

usage: images.py COMMAND OUTPUT [ROUNDS]     COMMAND is the `locule` to measure

Runs as root, in a mount namespace of its own. Rounds are paired: each does every contender once, and a ratio is the median of the rounds'
ratios. Each round has a filesystem of its own, since ext4 makes files slower where many were removed.
"""

import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
WORK = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "bench" / "images"
TOOLS = ["umoci", "skopeo", "podman", "debootstrap", "mkfs.ext4", "mount"]


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def timed(*commands):
    """Milliseconds that the commands take, one after the other."""
    begun = time.monotonic()
    for command in commands:
        run(*command)
    return (time.monotonic() - begun) * 1000


def peak(*command):
    """The most memory that the command has resident, in bytes."""
    pid = os.posix_spawnp(command[0], [str(word) for word in command], os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{command}: status {status}")
    return usage.ru_maxrss * 1024


@contextlib.contextmanager
def filesystem():
    """A new ext4 filesystem, or memory where none can be mounted."""
    with tempfile.TemporaryDirectory(dir=WORK) as parent:
        place = pathlib.Path(parent, "mounted")
        place.mkdir()
        disk = pathlib.Path(parent, "disk")
        with open(disk, "wb") as file:
            file.truncate(16 << 30)
        run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", disk)
        looped = subprocess.run(["mount", "-o", "loop", disk, place], capture_output=True)
        if looped.returncode:
            run("mount", "-t", "tmpfs", "-o", "size=16g", "images", place)
        try:
            yield place, "ext4" if not looped.returncode else "tmpfs"
        finally:
            run("umount", "-l", "-R", place)


def tree_size(path):
    return int(run("du", "-sb", path).split()[0])


def prepare(locule):
    """A Debian root filesystem and a larger one, as layouts with a gzip layer each."""
    debian = WORK / "debian"
    if not (debian / "etc" / "os-release").exists():
        shutil.rmtree(debian, ignore_errors=True)
        run("debootstrap", "--include=python3,perl,git", "bookworm", debian)
    large = WORK / "large"
    if not large.exists():
        large.mkdir()
        for number in range(6):
            run("cp", "-a", "--reflink=auto", debian, large / str(number))
    layouts = []
    for tree in (debian, large):
        layout = WORK / f"{tree.name}-layout"
        if not layout.exists():
            with tempfile.TemporaryDirectory(dir=WORK) as store:
                run(locule, "image", "import", "--store", store, tree, f"{tree.name}:1")
                run(locule, "image", "save", "--store", store, f"{tree.name}:1", layout)
        layouts.append(layout)
    return debian, large, *layouts


def unpacking(locule, layout, rounds):
    """Rows: unpacking alone, and taking in and unpacking."""
    ours, theirs, ours_in, theirs_in = [], [], [], []
    name = json.loads((layout / "index.json").read_text())["manifests"][0]["annotations"][
        "org.opencontainers.image.ref.name"
    ]
    for _ in range(rounds):
        with filesystem() as (place, kind):
            own = (locule, "image", "load", "--quiet", "--store", place / "store", layout)
            ours_in.append(timed(own, (locule, "image", "unpack", "--quiet", "--store",
                                       place / "store", "debian:1", place / "ours")))
            ours.append(timed((locule, "image", "unpack", "--quiet", "--store", place / "store",
                               "debian:1", place / "again")))
        with filesystem() as (place, kind):
            copy = ("skopeo", "copy", "-q", f"oci:{layout}:{name}", f"oci:{place}/layout:1")
            unpack = ("umoci", "unpack", "--image", f"{place}/layout:1")
            theirs_in.append(timed(copy, (*unpack, place / "bundle")))
            theirs.append(timed((*unpack, place / "again")))
    return kind, (ours, theirs), (ours_in, theirs_in)


def starting(locule, layout, rounds):
    """A start of a program from an unpacked image, as a command."""
    # Podman wants no more than fifty characters for its runroot.
    with filesystem() as (place, _), tempfile.TemporaryDirectory(dir="/tmp") as runroot:
        store = place / "store"
        run(locule, "image", "load", "--store", store, layout)
        podman = ("podman", "--root", place / "podman", "--runroot", runroot, "--cgroup-manager",
                  "cgroupfs", "--storage-driver", "overlay")
        archive = place / "debian.tar"
        run(locule, "image", "save", "--store", store, "debian:1", archive)
        run(*podman, "load", "-q", "-i", archive)
        own = (locule, "--root", place / "state", "run", "--image", "debian:1", "--store", store,
               "--", "/bin/true")
        other = (*podman, "run", "--rm", "--network", "none", "--cgroups", "disabled",
                 "--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000",
                 "docker.io/library/debian:1", "/bin/true")
        run(*own), run(*other)
        ours = [timed(own) for _ in range(rounds)]
        theirs = [timed(other) for _ in range(rounds)]
    return ours, theirs


def memory(locule, layout, name):
    with filesystem() as (place, _):
        run(locule, "image", "load", "--store", place / "store", layout)
        return peak(locule, "image", "unpack", "--quiet", "--store", place / "store", name,
                    place / "tree")


def row(what, bar, pair):
    ours, theirs = pair
    ratio = statistics.median(a / b for a, b in zip(ours, theirs))
    return (f"| {what} | {statistics.median(ours):.0f} | {statistics.median(theirs):.0f} | "
            f"{ratio:.2f} | {bar} |")


def main():
    locule, output = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing or os.geteuid():
        sys.exit(f"skipped: {', '.join(missing) or 'root'}")
    WORK.mkdir(parents=True, exist_ok=True)
    # crun wants cgroup v2 alone; the mount namespace is this program's own.
    run("umount", "-l", "/sys/fs/cgroup")
    run("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    debian, large, debian_layout, large_layout = prepare(locule)
    kind, alone, taken = unpacking(locule, debian_layout, rounds)
    started = starting(locule, debian_layout, max(rounds * 4, 10))
    sizes = [tree_size(tree) for tree in (debian, large)]
    peaks = [memory(locule, debian_layout, "debian:1"), memory(locule, large_layout, "large:1")]
    output.write_text(f"""# Images, measured

By `make bench-images`, {rounds} rounds, on {kind}, {os.cpu_count()} processors, Linux {os.uname().release}; medians in
milliseconds, and the median of the rounds' ratios. The image is a Debian root filesystem of {sizes[0] >> 20} MiB in one
gzip layer.

| | Locule | others | ratio | bar |
|---|---|---|---|---|
{row("unpack, beside `umoci unpack`", "0.5", alone)}
{row("take in and unpack, beside `skopeo copy` and `umoci unpack`", "0.5", taken)}
{row("start `/bin/true` from an unpacked image, beside `podman run`", "0.1", started)}

Memory of an unpack, at most: {peaks[0] / 1e6:.1f} MB for {sizes[0] >> 20} MiB, {peaks[1] / 1e6:.1f} MB for
{sizes[1] >> 20} MiB (bar: 64 MB).
""")
    print(output.read_text())


main()

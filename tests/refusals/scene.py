"""Where a case plays: a bundle, a state directory, and what they stand on."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from table import Case, change

ORDINARY = 54321  # a user who is nobody in particular
PAGE = os.sysconf("SC_PAGE_SIZE")

_libc = ctypes.CDLL(None, use_errno=True)
MS_RDONLY, MS_REMOUNT, MS_PRIVATE, MS_REC, MNT_DETACH = 1, 32, 1 << 18, 1 << 14, 2
CLONE_NEWNS = 0x20000


def mount(kind: str, target: str, flags: int = 0, data: str = "") -> None:
    words = [kind.encode(), target.encode(), kind.encode(), flags, data.encode()]
    if _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[4]) != 0:
        raise OSError(ctypes.get_errno(), f"mount {kind} at {target}")


def unmount(target: str) -> None:
    _libc.umount2(target.encode(), MNT_DETACH)


def private_mounts() -> None:
    """Whatever is mounted for a case stays in a namespace of this program's own."""
    if _libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    mount("none", "/", MS_REC | MS_PRIVATE)


APPLETS = ["sh", "true", "false", "sleep", "readlink"]


def busybox() -> Optional[str]:
    """A busybox that needs no libraries."""
    path = shutil.which("busybox")
    # The name of the dynamic linker is among the first things in a file that needs it.
    if path is None or b"/ld-" in Path(path).read_bytes()[:4096]:
        return None
    return path


def make_rootfs(root: Path) -> None:
    """A root filesystem that all cases share, with a few programs that are none."""
    for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "mnt"]:
        (root / name).mkdir(parents=True)
    shutil.copy(str(busybox()), root / "bin/busybox")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    programs = {
        "not-executable": ("#!/bin/sh\n", 0o644),
        "no-program": ("\1\2\3", 0o755),
        "no-interpreter": ("#!/bin/nowhere\n", 0o755),
        "bad-interpreter": ("#!/etc/passwd\n", 0o755),
        "of-root": ("#!/bin/sh\n", 0o700),
    }
    for name, (text, mode) in programs.items():
        (root / "bin" / name).write_text(text)
        (root / "bin" / name).chmod(mode)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (root / "loop").symlink_to("loop")


CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_MKNOD", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP"]


def config(root: Path, user: bool) -> Dict[str, Any]:
    """A configuration of the usual kind, which works."""
    sets = {name: list(CAPABILITIES) for name in ("bounding", "effective", "permitted")}
    kinds = ["pid", "network", "ipc", "uts", "mount"]
    document: Dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sleep", "1000"],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": sets,
            "rlimits": [],
        },
        "root": {"path": str(root), "readonly": True},
        "hostname": "inside",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nodev"]},
        ],
        "hooks": {},
        "annotations": {},
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "resources": {},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "sysctl": {},
            "devices": [],
        },
    }
    if user:
        linux = document["linux"]
        linux["namespaces"].append({"type": "user"})
        single = [{"containerID": 0, "hostID": ORDINARY, "size": 1}]
        linux["uidMappings"] = linux["gidMappings"] = single
    return document


class Scene:
    """The directory of one case, with its bundle and state directory."""

    def __init__(self, directory: Path, rootfs: Path, case: Case, id: str) -> None:
        self.directory = directory
        self.bundle = directory / "bundle"
        self.rootfs = rootfs
        self.id = id
        self.case = case
        self.state = ""
        self.mounted: List[str] = []
        #: What was in the state directory before, and has to be there alone afterwards.
        self.before: List[str] = []
        self.bundle.mkdir(parents=True)
        document = config(rootfs, case.host.user)
        change(document, self._filled(case.put))
        text = json.dumps(document, indent=1).encode()
        if callable(case.config):
            text = case.config(text.decode("latin-1")).encode("latin-1")
        elif case.config is not None:
            text = case.config.encode("latin-1")
        self.config = self.bundle / "config.json"
        self.config.write_bytes(text)
        self.state = case.state(self) if case.state is not None else self.make_state()
        if case.prepare is not None:
            case.prepare(self)
        if os.path.isdir(self.state):
            self.before = sorted(os.listdir(self.state))

    def fill(self, text: str) -> str:
        """Puts this case's own names into a text of the table."""
        names = [
            ("$DIR", self.directory), ("$BUNDLE", self.bundle), ("$ROOT", self.rootfs),
            ("$ID", self.id), ("$STATE", self.state),
        ]
        for name, value in names:
            text = text.replace(name, str(value))
        return text

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.fill(value)
        if isinstance(value, dict):
            return {key: self._filled(member) for key, member in value.items()}
        return [self._filled(item) for item in value] if isinstance(value, list) else value

    # --- What cases make of it ---------------------------------------------------------------

    def make_state(self) -> str:
        """An ordinary state directory."""
        path = self.directory / "state"
        path.mkdir(mode=0o700)
        if self.case.host.user:
            os.chown(path, ORDINARY, ORDINARY)
        return str(path)

    def tmpfs(self, path: str, data: str) -> None:
        os.makedirs(path, exist_ok=True)
        mount("tmpfs", path, 0, data)
        self.mounted.append(path)

    def close(self) -> None:
        for path in reversed(self.mounted):
            unmount(path)
        shutil.rmtree(self.directory, ignore_errors=True)


def with_room(pages: int, of: int = 32) -> Callable[[Scene], str]:
    """A state directory on a disk that is full but for some pages."""

    def make(scene: Scene) -> str:
        path = scene.make_state()
        scene.tmpfs(path, f"size={of * PAGE},mode=700")
        with open(f"{path}/filler", "wb") as filler:
            filler.write(b"x" * (of - pages) * PAGE)
        return path

    return make


def with_files(files: int) -> Callable[[Scene], str]:
    """A state directory on a disk that takes so many more files."""

    def make(scene: Scene) -> str:
        path = scene.make_state()
        # One is the directory itself.
        scene.tmpfs(path, f"nr_inodes={files + 1},mode=700")
        return path

    return make


def read_only(scene: Scene) -> str:
    """A state directory that nobody can write to."""
    path = scene.make_state()
    scene.tmpfs(path, "mode=700")
    mount("tmpfs", path, MS_REMOUNT | MS_RDONLY)
    return path

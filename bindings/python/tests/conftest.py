"""What the tests need from this machine. Whoever lacks something is skipped, and says so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parents[1]
HEADER = REPOSITORY / "include" / "locule.h"
BUILT = REPOSITORY / "target" / "locule" / "lib" / "liblocule.so.0"

sys.path.insert(0, str(PACKAGE))
if "LOCULE_LIBRARY" not in os.environ and BUILT.exists():
    os.environ["LOCULE_LIBRARY"] = str(BUILT)

import locule  # noqa: E402


USER = "54321"


def need(condition: object, what: str) -> None:
    if not condition:
        pytest.skip(f"skipped: {what}")


@pytest.fixture(scope="session")
def library() -> None:
    try:
        locule.library_version()
    except ImportError as error:
        pytest.skip(f"skipped: no liblocule ({error})")


@pytest.fixture(scope="session")
def root(library: None) -> None:
    need(os.geteuid() == 0, "root")


@pytest.fixture
def runtime(root: None, tmp_path: Path):
    """A runtime of its own, which has to be empty in the end."""
    with locule.Runtime(tmp_path / "state") as runtime:
        yield runtime
        left = runtime.list()
        for state in left:
            with runtime.get(state.id):
                pass
        assert left == []


@pytest.fixture
def running(runtime: locule.Runtime):
    """A container that does nothing for a while."""
    with runtime.create(["sleep", "300"], stdin=locule.DEVNULL) as container:
        container.start()
        yield container


@pytest.fixture
def bundle(library: None, tmp_path: Path) -> Path:
    """A bundle with the host's files; its program prints a line."""
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "rootfs").mkdir()
    spec = locule.default_spec(["sh", "-c", "echo from the bundle"], rootfs=path / "rootfs")
    # Everything that a shell needs, without a copy of it.
    for name in ("bin", "lib", "lib64", "usr", "etc"):
        source = Path("/", name)
        if source.is_dir():
            spec["mounts"].append({
                "destination": f"/{name}", "type": "bind", "source": os.path.realpath(source),
                "options": ["rbind", "ro"],
            })
    spec["root"]["path"] = "rootfs"
    (path / "config.json").write_text(json.dumps(spec))
    return path


@pytest.fixture
def as_user(root: None):
    """Runs Python code as a user who is nobody in particular, with its own copy of it all."""
    home = Path("/tmp") / f"locule-test-{os.getpid()}"
    home.mkdir(mode=0o755)
    shutil.copytree(PACKAGE / "locule", home / "locule")
    library = home / "liblocule.so.0"
    shutil.copy(os.environ.get("LOCULE_LIBRARY") or "liblocule.so.0", library)
    (home / "run").mkdir()
    os.chown(home / "run", int(USER), int(USER))
    prefix = [
        tool("setpriv"), "--reuid", USER, "--regid", USER, "--clear-groups",
        "--bounding-set=-all",
    ]
    allowed = subprocess.run([*prefix, tool("unshare"), "-Ur", "true"], capture_output=True)
    env = {
        "PYTHONPATH": str(home), "LOCULE_LIBRARY": str(library), "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"), "XDG_DATA_HOME": str(home / "run"),
    }
    try:
        if allowed.returncode != 0:
            pytest.skip("skipped: user namespaces for ordinary users")
        python = python_of_others(prefix)
        yield lambda text, *arguments: script(
            text, *arguments, prefix=prefix, env=env, python=python
        )
    finally:
        shutil.rmtree(home)


def script(text: str, *arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """Runs Python code in another process that has the package."""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE), **options.pop("env", {})}  # type: ignore
    python = options.pop("python", sys.executable)
    return subprocess.run(
        [*options.pop("prefix", []), python, "-W", "error", "-c", text, *arguments],
        env=env, capture_output=True, text=True, timeout=120, **options,  # type: ignore
    )


def python_of_others(prefix: "list[str]") -> str:
    """A Python that works behind `prefix`, for another user: root's may lie in root's home."""
    for python in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(python):
            works = subprocess.run([*prefix, python, "-c", "import ctypes"], capture_output=True)
            if works.returncode == 0:
                return python
    pytest.skip("skipped: a Python that other users can run")


def tool(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"skipped: no {name}")
    return path

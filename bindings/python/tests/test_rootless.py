"""An ordinary user runs containers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import PACKAGE, python_of_others, script, tool

USER = "54321"


@pytest.fixture
def as_user(root: None, tmp_path: Path):
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
        "PYTHONPATH": str(home), "LOCULE_LIBRARY": str(library),
        "XDG_RUNTIME_DIR": str(home / "run"), "HOME": str(home),
    }
    try:
        if allowed.returncode != 0:
            pytest.skip("skipped: user namespaces for ordinary users")
        python = python_of_others(prefix)
        yield lambda text: script(text, prefix=prefix, env=env, python=python)
    finally:
        shutil.rmtree(home)


def test_an_ordinary_user_runs_a_container(as_user) -> None:
    done = as_user(
        "import locule, os\n"
        "done = locule.run(['sh', '-c', 'id -u; echo $$; cat'], input='in', capture_output=True,\n"
        "                  text=True, timeout=30)\n"
        "print(os.getuid(), done.returncode, done.stdout.split(), done.stderr)\n"
        "print(locule.default_runtime().state_dir.startswith(os.environ['XDG_RUNTIME_DIR']))\n"
        "print(locule.default_runtime().list())\n"
    )
    assert done.stdout.splitlines() == [
        f"{USER} 0 ['0', '1', 'in'] ", "True", "[]",
    ], done.stderr


def test_an_ordinary_user_execs_and_mounts(as_user) -> None:
    done = as_user(
        "import locule, os\n"
        "home = os.environ['XDG_RUNTIME_DIR']\n"
        "with locule.default_runtime().create(['sleep', '60'], mounts=[home + ':/mnt:rw'],\n"
        "                                     stdin=locule.DEVNULL) as c:\n"
        "    c.start()\n"
        "    print(c.run(['sh', '-c', 'echo x > /mnt/made; id -u'], capture_output=True,\n"
        "          text=True).stdout.strip())\n"
        "print(os.stat(home + '/made').st_uid)\n"
    )
    assert done.stdout.split() == ["0", USER], done.stderr

"""The package as others get it: typed, installable, with examples that run."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import BUILT, PACKAGE, need


def python(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=env,
        cwd=str(PACKAGE), **options,  # type: ignore[call-overload]
    )


def test_mypy_finds_nothing_in_the_package_and_the_examples() -> None:
    pytest.importorskip("mypy", reason="skipped: mypy")
    examples = ["examples/run.py", "examples/image.py"]
    done = python("-m", "mypy", "--strict", "--scripts-are-modules", "locule", *examples)
    assert done.returncode == 0, done.stdout


def test_a_wheel_carries_the_library_and_is_for_this_machine(tmp_path: Path) -> None:
    need(os.environ.get("LOCULE_LIBRARY") or BUILT.exists(), "a liblocule.so.0 that is built")
    # Away from the checkout, so that nothing is left there.
    source = tmp_path / "python"
    subprocess.run(
        ["cp", "-r", f"{PACKAGE}/locule", f"{PACKAGE}/pyproject.toml", f"{PACKAGE}/setup.py",
         f"{PACKAGE}/README.md", "-t", str(_made(source))], check=True,
    )
    env = {**os.environ, "LOCULE_LIBRARY_PATH": os.environ.get("LOCULE_LIBRARY") or str(BUILT)}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), str(source)],
        env=env, capture_output=True, text=True,
    )
    output = done.stdout + done.stderr
    if "No matching distribution" in output or "No module named pip" in output:
        pytest.skip("skipped: pip with access to setuptools")
    assert done.returncode == 0, output
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"locule-0.1.0-py3-none-linux_{os.uname().machine}.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {"locule/_lib/liblocule.so.0", "locule/py.typed", "locule/aio.py"} <= set(names)

    target = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(target)
    clean = {key: value for key, value in os.environ.items() if key != "LOCULE_LIBRARY"}
    version = subprocess.run(
        [sys.executable, "-c", "import locule; print(locule.library_version())"],
        env={**clean, "PYTHONPATH": str(target)}, cwd="/", capture_output=True, text=True,
    )
    assert version.stdout.startswith("0.1."), version.stderr


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_a_wheel_without_a_library_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", reason="skipped: setuptools")
    source = _made(tmp_path / "a") / "setup.py"
    source.write_text((PACKAGE / "setup.py").read_text())
    env = {key: value for key, value in os.environ.items() if key != "LOCULE_LIBRARY_PATH"}
    done = subprocess.run(
        [sys.executable, str(source), "build_py"], cwd=str(source.parent), env=env,
        capture_output=True, text=True,
    )
    if "No module named" in done.stderr:
        pytest.skip("skipped: wheel")
    assert done.returncode != 0 and "LOCULE_LIBRARY_PATH" in done.stderr


def test_the_example_runs_with_a_bundle_and_without(root: None, bundle: Path) -> None:
    for arguments in ([], [str(bundle)]):
        done = python("examples/run.py", *arguments)
        assert done.returncode == 0, done.stderr
        assert "I am process 1 on locule" in done.stdout
        assert "WRITTEN OUTSIDE" in done.stdout
        assert "it ended   with 0" in done.stdout


def test_the_example_names_what_is_wrong_with_a_bundle(root: None, tmp_path: Path) -> None:
    done = python("examples/run.py", str(tmp_path))
    assert done.returncode == 1 and "config.json" in done.stderr

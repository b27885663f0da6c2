"""Puts liblocule.so.0 into the wheel. Everything else is in pyproject.toml.

The library is taken from $LOCULE_LIBRARY_PATH, else from target/locule/lib of the repository,
where `make lib` leaves it; if it is not there, `make lib` is run.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

SONAME = "liblocule.so.0"
REPOSITORY = Path(__file__).resolve().parents[2]


def library() -> Path:
    given = os.environ.get("LOCULE_LIBRARY_PATH")
    if given:
        path = Path(given)
        path = path / SONAME if path.is_dir() else path
        if not path.is_file():
            sys.exit(f"LOCULE_LIBRARY_PATH is {given}, but there is no {SONAME}")
        return path
    if not (REPOSITORY / "ffi").is_dir():
        sys.exit(
            f"{SONAME} is not here and this is no checkout of Locule to build it from: "
            "set LOCULE_LIBRARY_PATH to the library"
        )
    path = REPOSITORY / "target" / "locule" / "lib" / SONAME
    if not path.is_file():
        try:
            subprocess.run(["make", "-C", str(REPOSITORY), "lib"], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            sys.exit(
                f"cannot build {SONAME}: {error}. Run `make deps lib` in {REPOSITORY}, or set "
                "LOCULE_LIBRARY_PATH to a library that is already built"
            )
    return path


class BuildWithLibrary(build_py):
    """Copies the package, and the library into it."""

    def run(self) -> None:
        super().run()
        if getattr(self, "editable_mode", False):
            return  # LOCULE_LIBRARY says where the library is
        target = Path(self.build_lib, "locule", "_lib", SONAME)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(library(), target)


class WithLibrary(Distribution):
    """A package for one machine, as one with extension modules would be."""

    def has_ext_modules(self) -> bool:
        return True


class WheelForAnyPython(bdist_wheel):
    """The library does not know of Python, so one wheel serves every version."""

    def get_tag(self) -> "tuple[str, str, str]":
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        return "py3", "none", platform


setup(
    distclass=WithLibrary,
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": WheelForAnyPython},
)

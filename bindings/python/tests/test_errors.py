"""The family of exceptions. No library is needed for this."""

from __future__ import annotations

import pickle
import subprocess

import pytest

import locule
from locule import _abi, _errors

FAMILY = {
    "E_INVALID": (locule.Invalid, ValueError),
    "E_SPEC": (locule.SpecError, ValueError),
    "E_NOT_FOUND": (locule.NotFound, LookupError),
    "E_EXISTS": (locule.Exists, Exception),
    "E_STATE": (locule.StateError, Exception),
    "E_PERMISSION": (locule.PermissionDenied, PermissionError),
    "E_UNSUPPORTED": (locule.Unsupported, Exception),
    "E_BUSY": (locule.Busy, Exception),
    "E_TIMEOUT": (locule.Timeout, TimeoutError),
    "E_CANCELLED": (locule.Cancelled, Exception),
    "E_RESOURCE": (locule.ResourceError, OSError),
    "E_SYSTEM": (locule.SystemCallError, OSError),
    "E_PROGRAM": (locule.ProgramError, OSError),
    "E_HOOK": (locule.HookError, Exception),
    "E_KEEPER": (locule.KeeperError, Exception),
    "E_PLUGIN": (locule.PluginError, Exception),
    "E_BUG": (locule.InternalError, Exception),
}


@pytest.mark.parametrize("name", FAMILY)
def test_each_category_has_a_class_that_is_also_a_builtin_one(name: str) -> None:
    kind, builtin = FAMILY[name]
    assert _errors.kind_of(getattr(_abi, name)) is kind
    assert issubclass(kind, locule.LoculeError) and issubclass(kind, builtin)


def test_no_category_is_forgotten() -> None:
    categories = {name for name in vars(_abi) if name.startswith("E_")}
    assert categories - {"E_CALLBACK"} == set(FAMILY)


def test_a_category_of_a_later_library_is_a_failed_system_call() -> None:
    assert _errors.kind_of(-4999) is locule.SystemCallError


@pytest.mark.parametrize("kind", [kind for kind, _ in FAMILY.values()])
def test_fields_survive_in_every_class_and_in_a_pickle(kind) -> None:
    error = kind(
        "it failed", errno=13, stage="mounts", pointer="/mounts/3", hint="try again",
        container_id="c", step="mount",
    )
    for copy in (error, pickle.loads(pickle.dumps(error))):
        assert type(copy) is kind
        assert (copy.errno, copy.stage, copy.pointer) == (13, "mounts", "/mounts/3")
        assert (copy.hint, copy.container_id, copy.step) == ("try again", "c", "mount")
        assert copy.args == ("it failed",)
        assert str(copy) == "it failed (try again)"
        assert copy.code == kind._code


def test_an_error_without_details_has_them_all_as_none() -> None:
    error = locule.PermissionDenied("no")
    assert (error.errno, error.stage, error.pointer, error.hint) == (None,) * 4


def test_a_timeout_is_that_of_subprocess_and_the_builtin_one() -> None:
    error = locule.TimeoutExpired(["sleep"], 1.5, b"out", b"err", container_id="c")
    assert isinstance(error, subprocess.TimeoutExpired)
    assert isinstance(error, TimeoutError) and isinstance(error, locule.Timeout)
    assert (error.cmd, error.timeout, error.stdout, error.stderr) == (
        ["sleep"], 1.5, b"out", b"err",
    )
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.timeout, copy.stdout, copy.container_id) == (1.5, b"out", "c")


def test_check_raises_the_error_of_subprocess() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        locule.Completed(["false"], 1, b"out", b"err").check_returncode()
    assert isinstance(caught.value, locule.CalledProcessError)
    assert (caught.value.returncode, caught.value.stdout) == (1, b"out")
    locule.Completed(["true"], 0).check_returncode()

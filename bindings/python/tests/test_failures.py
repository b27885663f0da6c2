"""What goes wrong says so by its class, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from conftest import PACKAGE, python_of_others, script, tool

import locule


def unreadable(path: Path, spec: dict) -> None:
    (path / "config.json").unlink()


def broken(path: Path, spec: dict) -> None:
    (path / "config.json").write_text('{"ociVersion": "1.2.0", "process": {')


def put(*keys, value):
    def change(path: Path, spec: dict) -> None:
        part = spec
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        (path / "config.json").write_text(json.dumps(spec))

    return change


TABLE = [
    ("no config.json", unreadable, locule.NotFound, None),
    ("broken JSON", broken, locule.SpecError, None),
    ("args are a string", put("process", "args", value="sh"), locule.SpecError, "/process/args"),
    ("a number for text", put("hostname", value=5), locule.SpecError, "/hostname"),
    ("an object for a list", put("mounts", value={}), locule.SpecError, "/mounts"),
    ("a mount without a target", put("mounts", 0, value={"source": "/"}), locule.SpecError,
     "/mounts/0/destination"),
    ("a version of the future", put("ociVersion", value="9.0.0"), locule.LoculeError,
     "/ociVersion"),
    ("no root filesystem", put("root", "path", value="nowhere"), locule.LoculeError, "/root/path"),
    ("no such program", put("process", "args", value=["/no/such"]), locule.ProgramError,
     "/process/args"),
    ("no such directory for a mount", put("mounts", 0, value={
        "destination": "/x", "type": "bind", "source": "/no/such/source", "options": ["bind"],
    }), locule.LoculeError, "/mounts/0"),
]


@pytest.mark.parametrize("what, change, kind, pointer", TABLE, ids=[row[0] for row in TABLE])
def test_a_wrong_bundle(
    what: str, change, kind, pointer, runtime: locule.Runtime, bundle: Path,
) -> None:
    change(bundle, json.loads((bundle / "config.json").read_text()))
    with pytest.raises(kind) as caught:
        runtime.run(bundle=bundle, stdin=locule.DEVNULL)
    error = caught.value
    assert isinstance(error, locule.LoculeError)
    assert str(error) and error.stage and error.code
    if pointer is not None:
        assert error.pointer is not None and error.pointer.startswith(pointer), error.pointer
    assert os.listdir(runtime.state_dir) == []


def test_a_bundle_that_is_not_there(runtime: locule.Runtime) -> None:
    with pytest.raises(locule.NotFound) as caught:
        runtime.run(bundle="/no/such/bundle")
    assert caught.value.errno == 2


@pytest.mark.parametrize("id", ["a/b", "../x", "", ".", "a b", "x" * 1025])
def test_ids_that_cannot_be(id: str, runtime: locule.Runtime) -> None:
    with pytest.raises(locule.Invalid):
        runtime.create(["true"], id=id, stdin=locule.DEVNULL)
    assert not os.path.exists(os.path.join(runtime.state_dir, "a"))


def test_an_id_in_use_is_refused_and_its_container_untouched(runtime: locule.Runtime) -> None:
    with runtime.create(["sleep", "60"], id="one", stdin=locule.DEVNULL) as container:
        container.start()
        with pytest.raises(locule.Exists) as caught:
            runtime.create(["true"], id="one", stdin=locule.DEVNULL)
        assert caught.value.container_id == "one"
        assert container.state().status == "running"


def test_a_container_that_is_not_there(runtime: locule.Runtime) -> None:
    with pytest.raises(locule.NotFound) as caught:
        runtime.get("nobody")
    assert isinstance(caught.value, LookupError)


def test_calls_in_the_wrong_state(runtime: locule.Runtime) -> None:
    with runtime.create(["true"], stdin=locule.DEVNULL) as container:
        with pytest.raises(locule.StateError):
            container.resume()
        container.start()
        with pytest.raises(locule.StateError):
            container.start()
        container.wait(10)
        with pytest.raises(locule.StateError):
            container.kill()
        with pytest.raises(locule.StateError):
            container.exec(["true"])


def test_deleting_a_running_container_needs_force(running: locule.Container) -> None:
    with pytest.raises(locule.StateError):
        running.delete()
    assert running.state().status == "running"
    running.delete(force=True)


def test_a_program_that_is_missing_in_exec(running: locule.Container) -> None:
    with pytest.raises(locule.ProgramError) as caught:
        running.exec(["no-such-program"])
    assert isinstance(caught.value, OSError)
    assert running.run(["true"]).returncode == 0


def test_an_update_that_is_no_limit(running: locule.Container) -> None:
    with pytest.raises(locule.SpecError) as caught:
        running.update({"pids": {"limit": "many"}})
    assert caught.value.pointer


def test_a_cancelled_creation_leaves_nothing(runtime: locule.Runtime) -> None:
    with locule.Cancel() as cancel:
        cancel.trigger()
        with pytest.raises(locule.Cancelled):
            runtime.create(["true"], cancel=cancel, stdin=locule.DEVNULL)
    assert os.listdir(runtime.state_dir) == []


def test_streams_that_are_none() -> None:
    with pytest.raises(ValueError):
        locule.run(["true"], stdout=locule.STDOUT)
    with pytest.raises(ValueError):
        locule.run(["true"], capture_output=True, stdout=locule.PIPE)
    with pytest.raises(ValueError):
        locule.run(["true"], input=b"", stdin=locule.PIPE)


def test_a_descriptor_that_is_closed(runtime: locule.Runtime) -> None:
    with pytest.raises(locule.LoculeError):
        runtime.run(["true"], stdout=987654)


def test_a_state_directory_without_room(root: None, tmp_path: Path) -> None:
    # Filled to the last page, in a mount namespace of its own.
    done = script(
        "import locule, os, sys\n"
        "state = sys.argv[1]\n"
        "runtime = locule.Runtime(state)\n"
        "filler = os.open(state + '/filler', os.O_WRONLY | os.O_CREAT)\n"
        "try:\n"
        "    while True: os.write(filler, b'x' * 4096)\n"
        "except OSError: pass\n"
        "try:\n"
        "    runtime.run(['true'])\n"
        "except locule.LoculeError as error:\n"
        "    print(type(error).__name__, error.errno, error.stage)\n"
        "os.close(filler); os.unlink(state + '/filler')\n"
        "print(os.listdir(state), runtime.run(['true']).returncode)\n"
        "runtime.close()\n",
        str(tmp_path),
        prefix=[
            tool("unshare"), "-m", "--propagation", "private", "sh", "-c",
            'mount -t tmpfs -o size=1m none "$0" && exec "$@"', str(tmp_path),
        ],
    )
    if "mount" in done.stderr and "denied" in done.stderr:
        pytest.skip("skipped: permission to mount a tmpfs")
    assert done.stdout.splitlines() == ["ResourceError 28 state", "[] 0"], done.stderr


def test_a_state_directory_that_one_may_not_write(root: None) -> None:
    prefix = [tool("setpriv"), "--reuid", "12345", "--regid", "12345", "--clear-groups"]
    python = python_of_others(prefix)
    # Where the other user can read the package and the library, but write nothing.
    home = Path(tempfile.mkdtemp(prefix="locule-test-", dir="/tmp"))
    home.chmod(0o755)
    try:
        shutil.copytree(PACKAGE / "locule", home / "locule")
        library = shutil.copy(os.environ["LOCULE_LIBRARY"], home / "liblocule.so.0")
        done = script(
            "import locule, sys\n"
            "try:\n"
            "    locule.Runtime(sys.argv[1]).create(['true'])\n"
            "except locule.PermissionDenied as error:\n"
            "    print(error.errno, isinstance(error, PermissionError))\n",
            str(home / "state"), prefix=prefix, python=python,
            env={"PYTHONPATH": str(home), "LOCULE_LIBRARY": str(library)},
        )
    finally:
        shutil.rmtree(home)
    assert done.stdout == "13 True\n", done.stderr

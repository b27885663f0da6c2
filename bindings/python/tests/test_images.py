"""Images: made of a tree, saved, loaded, moved, run, changed, committed, pruned."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import List

import pytest
from conftest import PACKAGE, need, script

import locule
from locule import _handle, _image, _runtime, aio
from locule._progress import Listener

BUSYBOX = Path("/bin/busybox")
NAME = "docker.io/library/box:latest"
CONFIG = {
    "Cmd": ["sh", "-c", "echo $FROM"], "Env": ["PATH=/bin", "FROM=image"], "WorkingDir": "/home",
    "Labels": {"org.example.label": "stuck"},
}
# What the shell says of itself: everything that an image or the caller can choose.
LOOK = ["sh", "-c", "id -u; id -g; id -G; pwd; echo $FROM $WORD; echo $HOME"]


def make_tree(path: Path) -> None:
    """A root filesystem of a busybox and two users."""
    for name in ("bin", "etc", "home/dev", "tmp"):
        (path / name).mkdir(parents=True)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    for name in ("sh", "cat", "id", "ls", "rm", "sleep", "touch", "true", "uname"):
        (path / "bin" / name).symlink_to("busybox")
    (path / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\ndev:x:1000:100::/home/dev:/bin/sh\n"
    )
    (path / "etc/group").write_text("root:x:0:\nusers:x:100:\nextra:x:77:dev\n")
    (path / "etc/motd").write_text("good day\n")


@pytest.fixture(scope="session")
def busybox(library: None) -> None:
    need(locule.has("images"), "a library with images")
    need(BUSYBOX.exists() and b"ld-linux" not in BUSYBOX.read_bytes()[:4096], "busybox-static")


@pytest.fixture
def tree(busybox: None, tmp_path: Path) -> Path:
    path = tmp_path / "tree"
    make_tree(path)
    return path


@pytest.fixture
def store(root: None, busybox: None, tmp_path: Path, monkeypatch):
    """A store of its own, which is also the default one."""
    with locule.ImageStore(tmp_path / "images") as store:
        monkeypatch.setattr(_image, "_default", store)
        monkeypatch.setattr(_image, "_default_generation", _handle.generation())
        yield store


@pytest.fixture
def image(store: locule.ImageStore, tree: Path):
    with store.import_(tree, name="box", config=CONFIG) as image:
        yield image


def output(*arguments: object, **options: object) -> str:
    done = locule.run(*arguments, capture_output=True, text=True, **options)  # type: ignore
    assert done.returncode == 0, done.stderr
    return done.stdout


class Told(List[locule.Progress]):
    """A `progress` that remembers."""

    def __call__(self, progress: locule.Progress) -> None:
        self.append(progress)

    @property
    def steps(self) -> "set[str]":
        return {one.step for one in self}

    @property
    def finished(self) -> "set[str | None]":
        return {one.digest for one in self if one.finished}


# --- Making and looking ---------------------------------------------------------------------------

def test_a_tree_becomes_an_image(store: locule.ImageStore, tree: Path) -> None:
    assert store.list() == []
    image = locule.Image.import_(
        tree, name="box", config=CONFIG, author="a test", comment="from a tree",
        created="2001-02-03T04:05:06Z", compression="zstd",
    )
    with image:
        assert image.digest.startswith("sha256:") and len(image.digest) == 71
        assert (image.names, repr(image)) == ([NAME], f"<locule.Image {image.digest}>")
        seen = image.inspect()
        assert seen["digest"] == image.digest and seen["names"] == image.names
        assert seen["config"]["config"]["Cmd"] == CONFIG["Cmd"]
        assert seen["config"]["author"] == "a test"
        assert seen["created"] == "2001-02-03T04:05:06Z"
        (layer,) = seen["layers"]
        assert layer["mediaType"].endswith("+zstd") and layer["size"] < image.size
        (listed,) = store.list()
        assert (listed.digest, listed.names, listed.size) == (image.digest, [NAME], image.size)
        assert listed.platform == seen["platform"] and listed.created == seen["created"]
        assert listed.media_type == seen["mediaType"] == seen["manifest"]["mediaType"]
    with pytest.raises(ValueError, match="the image is closed"):
        image.inspect()


def test_the_same_tree_gives_the_same_image(store: locule.ImageStore, tree: Path) -> None:
    first, second = store.import_(tree), store.import_(tree, name="again")
    assert first.digest == second.digest
    assert first.names == [] and second.names == ["docker.io/library/again:latest"]
    assert store.import_(tree, compression="none").digest != first.digest


def test_an_image_is_found_by_name_and_digest(store: locule.ImageStore, image) -> None:
    digest = image.digest
    for name in ("box", "box:latest", NAME, digest, digest[7:], digest[7:19]):
        assert store.get(name).digest == digest == locule.Image.get(name).digest
    for name in ("nobody", "sha256:" + "0" * 64):
        with pytest.raises(locule.NotFound, match=name):
            store.get(name)
    with pytest.raises(locule.Invalid, match="No Name"):
        store.get("No Name")
    with pytest.raises(LookupError):
        locule.Image.get("nobody", store)


def test_an_interrupt_on_the_way_back_loses_no_handle(
    store: locule.ImageStore, image, monkeypatch
) -> None:
    handles = []

    class Remembered(_handle.Handle):
        def __init__(self, kind: str) -> None:
            super().__init__(kind)
            handles.append(self)

    def interrupted(*arguments: object) -> int:
        call(*arguments)
        raise KeyboardInterrupt

    call = _image.call
    monkeypatch.setattr(_image, "Handle", Remembered)
    monkeypatch.setattr(_image, "call", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.get("box")
    (handle,) = handles
    assert handle.made and handle.closed


def test_names_come_and_go(store: locule.ImageStore, image) -> None:
    image.tag("localhost/other:1")
    assert store.get("box").names == [NAME, "localhost/other:1"]
    store.remove("box")
    assert store.list()[0].names == ["localhost/other:1"]
    assert image.inspect()["digest"] == image.digest, "it means what it meant"
    with pytest.raises(locule.NotFound, match="box"):
        store.remove("box")
    with pytest.raises(locule.Invalid, match="No Name"):
        image.tag("No Name")
    store.remove(image.digest)
    assert store.list() == []


def test_a_store_says_where_it_is_and_can_be_read_only(
    store: locule.ImageStore, image, tree: Path, tmp_path: Path
) -> None:
    assert store.path == str(tmp_path / "images")
    with locule.ImageStore(store.path, read_only=True) as other:
        assert other.get("box").digest == image.digest
        for change in (lambda: other.import_(tree), lambda: other.remove("box"), other.prune):
            with pytest.raises(locule.LoculeError, match="read-only"):
                change()
    with pytest.raises(locule.NotFound):
        locule.ImageStore(tmp_path / "nothing", read_only=True)
    with pytest.raises(ValueError, match="the image store is closed"):
        other.list()


def test_a_wrong_argument_is_named(store: locule.ImageStore, image, tree: Path, tmp_path) -> None:
    with pytest.raises(locule.Invalid, match="compression 'lz4'"):
        store.import_(tree, compression="lz4")
    with pytest.raises(locule.Invalid, match="owner 'nobody'"):
        image.unpack(tmp_path / "x", owner="nobody")
    for wrong in (0, -1, 2**64):
        with pytest.raises(locule.Invalid, match="max_bytes"):
            image.unpack(tmp_path / "x", max_bytes=wrong)
    with pytest.raises(locule.Invalid, match="username"):
        store.load(tree, username="me")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="usernam"):
        store.load(tree, usernam="me")  # type: ignore[call-arg]
    with pytest.raises(locule.Invalid, match="created"):
        store.import_(tree, created="yesterday")
    with pytest.raises(locule.Invalid, match="No Name"):
        store.import_(tree, name="No Name")
    with pytest.raises(locule.NotFound, match="no-such-tree"):
        store.import_(tmp_path / "no-such-tree")
    assert [one.digest for one in store.list()] == [image.digest]


# --- Going out and coming in ----------------------------------------------------------------------

@pytest.mark.parametrize("place", ["layout", "saved.tar"])
def test_what_is_saved_can_be_loaded(image, tmp_path: Path, place: str) -> None:
    path, out, into = tmp_path / place, Told(), Told()
    image.save(path, progress=out)
    if place.endswith(".tar"):
        with tarfile.open(path) as archive:
            names = {os.path.normpath(name) for name in archive.getnames()}
    else:
        names = {one.name for one in path.iterdir()}
    assert {"oci-layout", "index.json"} <= names
    with locule.ImageStore(tmp_path / "other") as store:
        loaded = locule.Image.load(path, store=store, progress=into)
        assert (loaded.digest, loaded.names) == (image.digest, [NAME])
    layers = {layer["digest"] for layer in image.inspect()["layers"]}
    assert out.steps == {"save"} and layers <= out.finished
    assert into.steps == {"fetch"} and layers <= into.finished


def test_one_of_several_is_chosen_by_its_name(
    store: locule.ImageStore, image, tree: Path, tmp_path: Path
) -> None:
    path = tmp_path / "layout"
    image.save(path, name="localhost/first:1")
    second = store.import_(tree, comment="another")
    second.save(path, name="localhost/second:1")
    with locule.ImageStore(tmp_path / "other") as other:
        loaded = other.load(path, from_="localhost/second:1", name="chosen")
        assert loaded.digest == second.digest
        assert loaded.names == ["docker.io/library/chosen:latest"]
        with pytest.raises(locule.NotFound, match="localhost/third:1"):
            other.load(path, from_="localhost/third:1")
        with pytest.raises(locule.Invalid, match="localhost/first:1"):
            other.load(path)
        with pytest.raises(locule.NotFound, match="nothing"):
            other.load(tmp_path / "nothing")


def test_a_blob_that_is_wrong_is_named(image, tmp_path: Path) -> None:
    path = tmp_path / "layout"
    image.save(path)
    hex = image.inspect()["layers"][0]["digest"][7:]
    blob = path / "blobs/sha256" / hex
    content = bytearray(blob.read_bytes())
    content[40] ^= 1
    blob.write_bytes(content)
    with locule.ImageStore(tmp_path / "other") as store:
        with pytest.raises(locule.SpecError, match=hex) as caught:
            store.load(path)
        assert isinstance(caught.value, ValueError) and caught.value.stage == "image"
        assert store.list() == []


def test_an_image_is_unpacked(image, tmp_path: Path) -> None:
    told = Told()
    image.unpack(tmp_path / "unpacked", progress=told)
    assert told.steps == {"unpack"}
    assert (tmp_path / "unpacked/etc/motd").read_text() == "good day\n"
    assert os.readlink(tmp_path / "unpacked/bin/sh") == "busybox"
    assert stat.S_IMODE((tmp_path / "unpacked/bin/busybox").stat().st_mode) == 0o755
    with pytest.raises(locule.Exists, match="unpacked"):
        image.unpack(tmp_path / "unpacked")
    with pytest.raises(locule.ResourceError):
        image.unpack(tmp_path / "few", max_entries=2, owner="caller")
    with pytest.raises(locule.ResourceError):
        image.unpack(tmp_path / "small", max_bytes=2000)


def test_a_layer_is_not_much_larger_than_compressed(
    store: locule.ImageStore, tree: Path, tmp_path: Path
) -> None:
    with open(tree / "zeros", "wb") as file:
        file.truncate(72 << 20)
    with store.import_(tree, name="box") as image:
        with pytest.raises(locule.ResourceError):
            image.unpack(tmp_path / "few", max_ratio=2)
        image.unpack(tmp_path / "unpacked")
        for wrong in (0, -1, 2**64):
            with pytest.raises(locule.Invalid, match="max_ratio"):
                image.unpack(tmp_path / "x", max_ratio=wrong)


# --- Preparing ------------------------------------------------------------------------------------

def layers_of(store: locule.ImageStore) -> "set[str]":
    """The unpacked layers of a store."""
    path = Path(store.path, "layers")
    return {one.name for one in path.iterdir()} if path.exists() else set()


def test_an_image_is_prepared_for_its_containers(store: locule.ImageStore, image) -> None:
    told, later = Told(), Told()
    assert layers_of(store) == set()
    image.prepare(["true"], env={"A": "b"}, user="dev", tty=True, progress=told)
    layers = {layer["digest"] for layer in image.inspect()["layers"]}
    assert told.steps == {"unpack"} and layers <= told.finished
    plain = layers_of(store)
    assert len(plain) == 1
    image.prepare(progress=later)
    assert all(one.finished for one in later) and layers_of(store) == plain
    assert output(image=image) == "image\n" and layers_of(store) == plain
    # For a user namespace the owners of the files are others.
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    mapped = {"uidMappings": ids, "gidMappings": ids}
    image.prepare(overrides=mapped)
    assert len(layers_of(store)) == 2
    seen = output(["sh", "-c", "id -u; cat /proc/self/uid_map"], image=image, overrides=mapped)
    assert seen.split() == ["0", "0", "100000", "65536"]
    assert len(layers_of(store)) == 2
    with pytest.raises(locule.Invalid, match="rootfs"):
        image.prepare(rootfs="/")  # type: ignore[call-arg]
    with pytest.raises(locule.Invalid, match="noSuch"):
        image.prepare(overrides={"noSuch": 1})


def test_a_store_that_is_read_only_prepares_nothing(store: locule.ImageStore, image) -> None:
    with locule.ImageStore(store.path, read_only=True) as other, other.get("box") as found:
        found.prepare()
        for call in (locule.run, locule.default_runtime().explain):
            with pytest.raises(locule.NotFound, match="read-only"):
                call(["true"], image=found)
        assert layers_of(store) == set()
        image.prepare()
        found.prepare()
        assert output(image=found) == "image\n"


def test_preparing_is_stopped(store: locule.ImageStore, image) -> None:
    with locule.Cancel() as cancel:
        with pytest.raises(locule.Cancelled):
            image.prepare(cancel=cancel, progress=lambda _: cancel.trigger())
    with pytest.raises(locule.Timeout):
        image.prepare(timeout=0.001, progress=lambda _: time.sleep(0.01))
    with pytest.raises(ZeroDivisionError):
        image.prepare(progress=lambda _: 1 / 0)
    assert layers_of(store) == set()


def test_a_creation_tells_how_far_the_image_is(runtime: locule.Runtime, image) -> None:
    told = Told()
    with runtime.create(["true"], image="box", progress=told):
        assert told.steps == {"unpack"}
    locule.default_image_store().prune(all=True)
    with pytest.raises(locule.NotFound):
        runtime.run(["true"], image=image, progress=told)
    for options in ({}, {"rootfs": "/"}):
        with pytest.raises(locule.Invalid, match="progress"):
            runtime.run(["true"], progress=told, **options)


def test_what_progress_raises_stops_a_creation(
    runtime: locule.Runtime, store: locule.ImageStore, image
) -> None:
    for create in (runtime.create, runtime.run, locule.run):
        with pytest.raises(ZeroDivisionError):
            create(["true"], image=image, progress=lambda _: 1 / 0)
        assert runtime.list() == [] and layers_of(store) == set()


def test_a_timeout_is_for_the_image_and_the_creation_together(
    runtime: locule.Runtime, store: locule.ImageStore, image, monkeypatch
) -> None:
    def slow(_one: locule.Progress) -> None:
        time.sleep(0.3)

    with pytest.raises(locule.Timeout):
        runtime.create(["true"], image=image, timeout=0.2, progress=slow)
    with pytest.raises(locule.TimeoutExpired) as caught:
        runtime.run(["true"], image=image, timeout=0.2, progress=slow)
    assert caught.value.timeout == 0.2
    assert runtime.list() == [] and layers_of(store) == set()
    # What the image has taken is gone for the creation.
    left = []

    def call(function: str, *arguments: object) -> int:
        if function == "locule_container_create":
            left.append(arguments[1]._obj.timeout_ms)  # type: ignore[attr-defined]
        return real(function, *arguments)

    real = _runtime.call
    monkeypatch.setattr(_runtime, "call", call)
    for timeout in (60, None):
        with runtime.create(["true"], image=image, timeout=timeout, progress=slow):
            pass
    assert 0 < left[0] <= 59_700 and left[1] == 0


# --- Telling and stopping -------------------------------------------------------------------------

def test_progress_is_told_on_the_thread_of_the_call(store: locule.ImageStore, tree: Path) -> None:
    told, threads = Told(), set()

    def progress(one: locule.Progress) -> None:
        told(one)
        threads.add(threading.get_ident())

    store.import_(tree, progress=progress)
    assert told.steps == {"pack"} and threads == {threading.get_ident()}
    assert told[-1].finished and not told[0].finished
    assert [one.done for one in told] == sorted(one.done for one in told)
    for one in told:
        assert one.total is None or one.done <= one.total


def test_what_progress_raises_stops_the_call_and_comes_out_of_it(
    store: locule.ImageStore, tree: Path
) -> None:
    class Enough(Exception):
        pass

    calls = 0

    def progress(_one: locule.Progress) -> None:
        nonlocal calls
        calls += 1
        raise Enough("of this")

    for call in (store.import_, locule.Image.import_):
        calls = 0
        with pytest.raises(Enough, match="of this") as caught:
            call(tree, progress=progress)
        assert calls == 1 and caught.value.__context__ is None
    assert store.list() == []
    store.import_(tree).close()


def test_what_is_raised_while_the_library_is_at_work_stops_it() -> None:
    # In a plain function as callback this fails: what a signal handler raises comes before its
    # first line, where nothing can catch it.
    def handler(*_arguments: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    count = 100_000  # takes far longer than the timer
    numbers = (ctypes.c_uint64 * count)(*range(count))
    libc = ctypes.CDLL(None)
    try:
        with Listener(None) as listener:
            callback = ctypes.cast(listener.function, ctypes.c_void_p)
            for _ in range(1000):
                # Between two calls it comes here.
                with contextlib.suppress(KeyboardInterrupt):
                    signal.setitimer(signal.ITIMER_REAL, 0.005)
                    libc.qsort(numbers, ctypes.c_size_t(count), ctypes.c_size_t(8), callback)
                    if listener.raised is None:
                        time.sleep(60)  # it is still to come
                if listener.raised is not None:
                    break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert isinstance(listener.raised, KeyboardInterrupt)


def test_ctrl_c_stops_a_call_that_nobody_listens_to(root: None, tree: Path, tmp_path: Path) -> None:
    (tree / "noise").write_bytes(os.urandom(64 << 20))
    done = script(
        "import locule, os, signal, sys, threading, time\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "store = locule.ImageStore(sys.argv[2])\n"
        # Some way into the call, but not by the clock: a part of the layer is there.
        "def big():\n"
        "    try:\n"
        "        return any(p.lstat().st_size > 1 << 20 for p in Path(store.path).rglob('*'))\n"
        "    except OSError:\n"
        "        return False\n"
        "def interrupt():\n"
        "    while not big(): time.sleep(0.01)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "try:\n"
        "    store.import_(sys.argv[1])\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', store.list())\n",
        str(tree), str(tmp_path / "images"),
    )
    assert (done.stdout, done.stderr) == ("stopped []\n", "")


def test_ctrl_c_stops_the_unpacking_for_a_container(
    store: locule.ImageStore, tree: Path, tmp_path: Path
) -> None:
    (tree / "noise").write_bytes(os.urandom(128 << 20))
    store.import_(tree, name="box", compression="zstd").close()
    done = script(
        "import locule, os, signal, sys, threading, time\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "drafts = Path(sys.argv[1], 'drafts')\n"
        "def big():\n"
        "    try:\n"
        "        return any(p.lstat().st_size > 1 << 20 for p in drafts.rglob('*'))\n"
        "    except OSError:\n"
        "        return False\n"
        "def interrupt():\n"
        "    while not big(): time.sleep(0.001)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=interrupt, daemon=True).start()\n"
        "store = locule.ImageStore(sys.argv[1])\n"
        "with store, locule.Runtime(sys.argv[2]) as runtime, store.get('box') as image:\n"
        "    try:\n"
        "        runtime.run(['true'], image=image)\n"
        "    except KeyboardInterrupt:\n"
        "        print('stopped', runtime.list())\n",
        store.path, str(tmp_path / "state"),
    )
    assert (done.stdout, done.stderr) == ("stopped []\n", "")
    assert layers_of(store) == set()


def test_a_call_is_cancelled(store: locule.ImageStore, image, tree: Path, tmp_path: Path) -> None:
    with locule.Cancel() as cancel:
        with pytest.raises(locule.Cancelled):
            store.import_(tree, name="other", cancel=cancel, progress=lambda _: cancel.trigger())
        for call in (
            lambda: image.save(tmp_path / "layout", cancel=cancel),
            lambda: image.unpack(tmp_path / "dir", cancel=cancel),
        ):
            with pytest.raises(locule.Cancelled):
                call()
    with pytest.raises(locule.NotFound):
        store.get("other")


def test_a_call_takes_no_longer_than_its_timeout(store: locule.ImageStore, tree: Path) -> None:
    with pytest.raises(locule.Timeout) as caught:
        store.import_(tree, timeout=0.001, progress=lambda _: time.sleep(0.01))
    assert isinstance(caught.value, TimeoutError)
    assert store.list() == []


# --- Running --------------------------------------------------------------------------------------

def test_a_program_is_run_in_an_image(image) -> None:
    assert output(image=image) == "image\n"
    assert output(image="box") == "image\n"
    assert output(["cat", "/etc/motd"], image="box:latest") == "good day\n"
    assert output(LOOK, image=image).splitlines() == ["0", "0", "0", "/home", "image", "/root"]


def test_without_an_overlay_there_is_a_copy(store: locule.ImageStore, image) -> None:
    for overlay, kinds in ((True, {"overlay"}), (False, set())):
        mounts = output(["cat", "/proc/mounts"], image=image, overlay=overlay).splitlines()
        roots = {line.split()[2] for line in mounts if line.split()[1] == "/"}
        assert roots & {"overlay"} == kinds
    assert len(layers_of(store)) == 1


def test_what_the_caller_gives_is_other_than_the_image_has_it(image, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/file").write_text("from outside\n")
    assert output(
        LOOK, image=image, env={"WORD": "too", "FROM": "caller"}, cwd="/tmp", user="dev",
    ).splitlines() == ["1000", "100", "100 77", "/tmp", "caller too", "/home/dev"]
    assert output(LOOK, image=image, user="dev:root").splitlines()[:2] == ["1000", "0"]
    assert output(LOOK, image=image, user=(5, 6)).splitlines()[:2] == ["5", "6"]
    assert output(LOOK, image=image, env={"FROM": None}).splitlines()[4] == ""
    assert output(["$FROM"], image=image, entrypoint=["sh", "-c", "echo $0 $FROM"]) == (
        "$FROM image\n"
    )
    assert output(image=image, entrypoint=["cat", "/etc/motd"]) == "good day\n"
    seen = output(
        ["sh", "-c", "cat /mnt/file; uname -n; touch /x || echo full"], image=image,
        hostname="inside", readonly=True, mounts=[f"{tmp_path}/shared:/mnt"], memory="64M",
        cpus=0.5, pids=16,
    )
    assert seen.splitlines() == ["from outside", "inside", "full"]
    own = output(["ls", "-l", "/proc/self/ns/net"], image=image).split()[-1]
    assert own != os.readlink("/proc/self/ns/net")
    seen = output(
        ["sh", "-c", "echo $FROM $WORD; uname -n"], image=image, env={"WORD": "alone"},
        overrides={"clearEnv": True, "patch": {"hostname": "patched"}},
    )
    assert seen.splitlines() == ["alone", "patched"]
    shared = output(["ls", "-l", "/proc/self/ns/net"], image=image, network="host").split()[-1]
    assert shared == os.readlink("/proc/self/ns/net")


def test_labels_and_a_stop_signal_become_annotations(runtime: locule.Runtime, image) -> None:
    options = {"image": image, "stop_signal": "SIGINT", "annotations": {"org.example.own": "1"}}
    with runtime.create(["true"], **options) as container:
        annotations = container.state().annotations
        assert annotations["org.example.label"] == "stuck"
        assert annotations["org.example.own"] == "1"
        assert annotations["org.opencontainers.image.stopSignal"] == "SIGINT"
        assert image.digest in annotations.values()


def test_a_terminal_has_the_size_that_is_asked_for(runtime: locule.Runtime, image) -> None:
    with runtime.create(["busybox", "stty", "size"], image=image, tty=(24, 80)) as container:
        container.start()
        assert container.init.terminal.read().split() == [b"24", b"80"]
        assert container.wait() == 0


def test_what_a_container_changes_of_an_image_vanishes(image) -> None:
    assert output(["sh", "-c", "echo x >/new; rm /etc/motd; ls /"], image=image).count("new") == 1
    assert output(["sh", "-c", "cat /etc/motd; ls /"], image=image).count("new") == 0


def test_two_containers_of_one_image_run_at_once(runtime: locule.Runtime, image) -> None:
    with runtime.create(["sleep", "60"], image=image, stdin=locule.DEVNULL) as first:
        first.start()
        with runtime.create(["sleep", "60"], image="box", stdin=locule.DEVNULL) as second:
            second.start()
            first.run(["touch", "/of-the-first"], check=True)
            assert second.run(["ls", "/of-the-first"], capture_output=True).returncode == 1
        # Another process's library would see the image in use, as this one does.
        assert locule.default_image_store().prune(all=True).images == []
        assert first.run(["cat", "/etc/motd"], capture_output=True).stdout == b"good day\n"


def test_a_plan_can_be_read(runtime: locule.Runtime, image) -> None:
    store = locule.default_image_store()
    with locule.Cancel() as cancel:
        cancel.trigger()
        with pytest.raises(locule.Cancelled):
            runtime.explain(image="box", cancel=cancel)
    assert layers_of(store) == set()
    assert "Overlay" in runtime.explain(image="box", json=True, timeout=60)
    assert runtime.list() == [] and len(layers_of(store)) == 1


def test_what_is_wrong_with_a_container_of_an_image_is_named(
    runtime: locule.Runtime, image, tmp_path: Path
) -> None:
    with pytest.raises(locule.LoculeError, match="nobody"):
        runtime.run(["true"], image=image, user="nobody")
    with pytest.raises(locule.ProgramError, match="/no/such"):
        runtime.run(["/no/such"], image=image)
    with pytest.raises(locule.Invalid, match="cwd"):
        runtime.run(["true"], image=image, cwd="relative")
    with pytest.raises(locule.Invalid, match="noSuch"):
        runtime.run(["true"], image=image, overrides={"noSuch": 1})
    with pytest.raises(locule.LoculeError, match="stopSignal|SIGNONE"):
        runtime.run(["true"], image=image, stop_signal="SIGNONE")
    image.close()
    with pytest.raises(ValueError, match="the image is closed"):
        runtime.run(["true"], image=image)


def test_an_image_that_is_not_there_is_named(store: locule.ImageStore) -> None:
    with pytest.raises(locule.NotFound, match="nobody"):
        locule.default_runtime().explain(image="nobody")
    # Not fetched: this is a digest, and not the name of a repository.
    with pytest.raises(locule.NotFound, match="0123456789ab"):
        locule.run(image="0123456789ab")
    with pytest.raises(locule.LoculeError, match="127.0.0.1:1"):
        locule.run(image="127.0.0.1:1/nobody:1")


# --- Changing -------------------------------------------------------------------------------------

def test_what_a_container_changes_becomes_an_image(
    runtime: locule.Runtime, store: locule.ImageStore, image, tmp_path: Path
) -> None:
    told, change = Told(), ["sh", "-c", "echo new >/new; rm /etc/motd; echo more >>/etc/group"]
    with runtime.create(change, image=image, changes=tmp_path / "changes") as container:
        container.start()
        assert container.wait() == 0
        committed = container.commit(
            name="changed", config={"Cmd": ["cat", "/new"]}, comment="a change", progress=told,
        )
        same = store.commit(container, config={"Cmd": ["cat", "/new"]}, comment="a change")
        assert same.digest == committed.digest
    assert told.steps == {"pack"} and len(committed.inspect()["layers"]) == 2
    assert committed.inspect()["config"]["history"][-1]["comment"] == "a change"
    assert output(image="changed") == "new\n"
    seen = output(["sh", "-c", "ls /etc; cat /etc/group"], image=committed)
    assert "motd" not in seen and seen.endswith("more\n")
    assert output(["cat", "/etc/motd"], image="box") == "good day\n"
    # The directory outlives the container, for the next one.
    assert (tmp_path / "changes/upper/new").read_text() == "new\n"
    assert output(["cat", "/new"], image=image, changes=tmp_path / "changes") == "new\n"


def test_only_a_stopped_container_with_changes_is_committed(
    runtime: locule.Runtime, store: locule.ImageStore, image, tmp_path: Path
) -> None:
    with runtime.create(["true"], image=image) as container:
        container.start()
        container.wait()
        with pytest.raises(locule.StateError, match="changes"):
            container.commit(name="changed")
    options = {"image": image, "changes": tmp_path / "changes", "stdin": locule.DEVNULL}
    with runtime.create(["sleep", "60"], **options) as container:
        container.start()
        with pytest.raises(locule.StateError, match="running") as caught:
            container.commit(name="changed")
        assert caught.value.container_id == container.id
    assert [one.names for one in store.list()] == [[NAME]]


def test_layers_of_one_s_own_lie_beneath_a_root(
    runtime: locule.Runtime, tree: Path, tmp_path: Path
) -> None:
    for name in ("top", "middle"):
        (tmp_path / name / "etc").mkdir(parents=True)
        (tmp_path / name / "etc" / name).write_text(f"{name}\n")
    (tmp_path / "top/etc/motd").write_text("good night\n")
    done = runtime.run(
        ["cat", "/etc/motd", "/etc/top", "/etc/middle"], rootfs=tmp_path / "top", overlay=True,
        lower=[tmp_path / "middle", tree], env={"PATH": "/bin"}, capture_output=True, text=True,
    )
    assert done.stdout == "good night\ntop\nmiddle\n", done.stderr
    for option in ({"lower": [tree]}, {"changes": tmp_path / "changes"}):
        with pytest.raises(locule.Invalid, match=next(iter(option))):
            runtime.run(["true"], rootfs=tree, **option)


# --- Keeping --------------------------------------------------------------------------------------

def test_what_nobody_needs_is_pruned(store: locule.ImageStore, image, tree: Path) -> None:
    (tree / "etc/motd").write_text("another day\n")
    nameless = store.import_(tree)
    done = store.prune()
    assert done.images == [nameless.digest] and done.blobs > 0 and done.bytes > 0
    with pytest.raises(locule.NotFound):
        nameless.inspect()
    assert output(image=image) == "image\n"
    done = store.prune(all=True)
    assert done.images == [image.digest] and done.layers == 1
    assert store.list() == []


def test_pruning_is_stopped(store: locule.ImageStore, tree: Path) -> None:
    store.import_(tree).close()
    with locule.Cancel() as cancel:
        cancel.trigger()
        with pytest.raises(locule.Cancelled):
            store.prune(cancel=cancel)
    begun, go_on = threading.Event(), threading.Event()

    def progress(_one: locule.Progress) -> None:
        begun.set()
        go_on.wait(60)

    making = threading.Thread(target=store.import_, args=(tree,), kwargs={"progress": progress})
    making.start()
    try:
        begun.wait(60)
        before = time.monotonic()
        with pytest.raises(locule.Timeout):
            store.prune(timeout=0.2)
        assert time.monotonic() - before < 10
    finally:
        go_on.set()
        making.join()
    assert len(store.prune(timeout=60).images) == 1


def test_a_handle_is_given_back_without_a_word(store: locule.ImageStore, tree: Path) -> None:
    # pytest.ini makes an error of a ResourceWarning.
    store.import_(tree)
    locule.ImageStore(store.path)
    image = store.import_(tree)
    store.close()
    assert image.inspect()["digest"] == image.digest, "an image needs no handle of its store"


def test_an_inherited_store_is_refused_and_the_default_one_opened_anew(as_user) -> None:
    done = as_user(
        "import locule, os\n"
        "store = locule.default_image_store()\n"
        "assert store is locule.default_image_store()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        store.list()\n"
        "    except locule.StateError as error:\n"
        "        print(error.hint)\n"
        "    print(locule.default_image_store().list(), flush=True)\n"
        "    os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0 and store.list() == []\n"
    )
    assert done.stdout.splitlines() == [
        "open an image store after the fork, in the process that uses it", "[]",
    ], done.stderr


# --- An ordinary user -----------------------------------------------------------------------------

ROOTLESS = """
import json, locule, os, sys
from pathlib import Path

home = Path(os.environ["XDG_DATA_HOME"])
with locule.Image.import_(sys.argv[1], name="box", config=json.loads(sys.argv[2])) as image:
    image.save(home / "layout")
    assert locule.default_image_store().path.startswith(str(home))
    image.unpack(home / "unpacked")
    assert os.stat(home / "unpacked/etc/motd").st_uid == os.getuid()
with locule.Image.load(home / "layout", name="loaded") as image:
    done = locule.run(["sh", "-c", "id -u; cat /etc/motd; echo x >/new; ls /"], image="loaded",
                      capture_output=True, text=True)
    print(done.returncode, done.stdout.split(), done.stderr)
with locule.default_runtime().create(["sh", "-c", "echo y >/new; rm /etc/motd"], image="box",
                                     changes=home / "changes") as container:
    container.start()
    container.wait()
    container.commit(name="changed").close()
done = locule.run(["sh", "-c", "cat /new; ls /etc"], image="changed", capture_output=True,
                  text=True)
print(done.returncode, done.stdout.split(), done.stderr)
"""


def test_an_ordinary_user_makes_and_runs_images(as_user, tree: Path, tmp_path_factory) -> None:
    for path in tree.parents:
        if path.is_relative_to(tmp_path_factory.getbasetemp().parent):
            path.chmod(0o755)
    done = as_user(ROOTLESS, str(tree), json.dumps(CONFIG))
    first, second = done.stdout.splitlines() or ["", done.stderr]
    assert first.startswith("0 ['0', 'good', 'day', ") and "'new'" in first, done.stderr
    assert second == "0 ['y', 'group', 'passwd'] ", done.stderr


def test_the_example_runs_an_image(as_user, image) -> None:
    example = (PACKAGE / "examples" / "image.py").read_text()
    # Where that user can read it.
    place = Path("/tmp") / f"locule-test-{os.getpid()}" / "layout"
    image.save(place)
    for path in (place, *place.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    done = as_user(example, str(place), "sh", "-c", "echo $FROM; echo $$")
    assert done.returncode == 0, done.stderr
    assert f"image      {image.digest} with 1 layers" in done.stdout
    assert "it said    image / 1" in done.stdout and "it ended   with 0" in done.stdout
    assert "fetch sha256:" in done.stderr
    done = as_user(example, "/no/such/layout")
    assert done.returncode == 1 and "/no/such/layout" in done.stderr


# --- Registries -----------------------------------------------------------------------------------

@pytest.fixture
def registry(store: locule.ImageStore, tmp_path: Path):
    """The address of a registry on loopback."""
    need(locule.has("registry"), "a library with registries")
    program = shutil.which("docker-registry")
    need(program, "docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(json.dumps({
        "version": 0.1, "http": {"addr": address},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
    }))
    with open(tmp_path / "registry.log", "wb") as log:
        server = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        for _ in range(300):
            host, port = address.split(":")
            with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
                break
            assert server.poll() is None, (tmp_path / "registry.log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def test_an_image_goes_to_a_registry_and_comes_back(
    store: locule.ImageStore, image, registry: str, tmp_path: Path
) -> None:
    reference, out, into, again = f"{registry}/some/box:1", Told(), Told(), Told()
    image.push(reference, progress=out)
    layers = {layer["digest"] for layer in image.inspect()["layers"]}
    assert out.steps == {"push"} and layers <= out.finished
    with locule.ImageStore(tmp_path / "other") as other:
        pulled = other.pull(reference, progress=into)
        assert (pulled.digest, pulled.names) == (image.digest, [reference])
        assert into.steps == {"fetch"} and layers <= into.finished
        named = locule.Image.pull(reference, name="mine", store=other, progress=again)
        assert "docker.io/library/mine:latest" in named.names
        with pytest.raises(locule.NotFound, match="some/none"):
            other.pull(f"{registry}/some/none:1")
        with pytest.raises(locule.Invalid, match="password"):
            other.pull(reference, username="me")
    # `run` fetches what the default store has not.
    store.remove("box")
    store.prune(all=True)
    told = Told()
    assert output(image=reference, progress=told) == "image\n"
    assert told.steps == {"fetch", "unpack"}
    assert [one.names for one in store.list()] == [[reference]]
    assert output(image=reference) == "image\n"


# --- asyncio --------------------------------------------------------------------------------------

def test_images_are_awaited(store: locule.ImageStore, tree: Path, tmp_path: Path) -> None:
    async def main() -> None:
        told = Told()
        async with await aio.Image.import_(tree, name="box", config=CONFIG, progress=told) as image:
            assert told.steps == {"pack"} and image.names == [NAME] and image.size > 0
            await image.save(tmp_path / "layout")
            await image.unpack(tmp_path / "unpacked")
            await image.tag("other")
            prepared = Told()
            await image.prepare(env={"A": "b"}, progress=prepared, timeout=60)
            assert prepared.steps == {"unpack"}
            assert (await image.inspect())["digest"] == image.digest
            for given in (image, "other"):
                done = await aio.run(image=given, capture_output=True, text=True)
                assert done.stdout == "image\n", done.stderr
        async with aio.ImageStore(tmp_path / "second") as second:
            loaded = await second.load(tmp_path / "layout", name="loaded")
            assert loaded.digest == (await second.get("loaded")).digest
            assert len(await second.list()) == 1
            await second.remove("loaded")
            assert (await second.prune(timeout=60)).blobs >= 3
            # Nothing is read any more.
            assert loaded.names == ["docker.io/library/loaded:latest"] and loaded.size > 0
            with pytest.raises(aio.NotFound):
                await loaded.inspect()
            assert second.path == str(tmp_path / "second")
        async with aio.Runtime(tmp_path / "state") as runtime:
            assert "Overlay" in await runtime.explain(image="box", timeout=60)
            options = {"image": "box", "changes": tmp_path / "changes"}
            async with await runtime.create(["touch", "/new"], **options) as container:
                await container.start()
                await container.wait()
                committed = await container.commit(name="changed")
            done = await runtime.run(["ls", "/"], image=committed, capture_output=True, text=True)
            assert "new" in done.stdout.split()
        with pytest.raises(aio.NotFound):
            await aio.Image.get("nobody")

    asyncio.run(main())


def test_a_cancelled_task_stops_its_call(store: locule.ImageStore, tree: Path) -> None:
    async def main() -> None:
        loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def progress(_one: locule.Progress) -> None:
            loop.call_soon_threadsafe(begun.set)
            go_on.wait()

        task = asyncio.ensure_future(aio.Image.import_(tree, name="box", progress=progress))
        await begun.wait()
        task.cancel()
        loop.call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await aio.default_image_store().list() == []

    asyncio.run(main())


def test_a_cancelled_task_stops_the_unpacking_for_its_container(
    store: locule.ImageStore, image
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        for call in (aio.run, (await aio.Image.get("box")).prepare):
            begun, go_on = asyncio.Event(), threading.Event()

            def progress(_one: locule.Progress) -> None:
                loop.call_soon_threadsafe(begun.set)
                go_on.wait()

            options = {"image": "box"} if call is aio.run else {}
            task = asyncio.ensure_future(call(["true"], progress=progress, **options))
            await asyncio.wait_for(begun.wait(), 60)
            task.cancel()
            loop.call_later(0.05, go_on.set)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert layers_of(store) == set()

    asyncio.run(main())

"""locule.run, beside what subprocess.run does."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import script

import locule


@pytest.fixture(autouse=True)
def _root(root: None) -> None:
    pass


CASES = [
    (["sh", "-c", "echo out; echo err >&2; exit 3"], {"capture_output": True}),
    (["sh", "-c", "echo out; echo err >&2"], {"stdout": locule.PIPE, "stderr": locule.STDOUT}),
    (["sh", "-c", "echo out; echo err >&2"], {"stdout": locule.DEVNULL, "stderr": locule.PIPE}),
    (["cat"], {"input": b"bytes \xff", "capture_output": True}),
    (["cat"], {"input": "text \u00e4\r\n", "capture_output": True, "encoding": "utf-8"}),
    (["cat"], {"input": "\u00e4", "stdout": locule.PIPE, "encoding": "latin-1"}),
    (["cat"], {"input": b"", "stdout": locule.PIPE}),
    (["cat"], {"stdin": locule.DEVNULL, "stdout": locule.PIPE, "text": True}),
    (["sh", "-c", "kill -9 $$"], {}),
    (["true"], {"input": b"x" * 300_000}),
    ("true", {}),
]


@pytest.mark.parametrize("args, options", CASES)
def test_run_gives_what_subprocess_gives(args, options) -> None:
    if args == ["sh", "-c", "kill -9 $$"]:
        # Pid 1 of a pid namespace cannot kill itself, so let a child be killed.
        args = ["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]
    ours = locule.run(args, **options)
    theirs = subprocess.run(args, **options)
    assert (ours.returncode, ours.stdout, ours.stderr) == (
        theirs.returncode, theirs.stdout, theirs.stderr,
    )
    assert isinstance(ours, subprocess.CompletedProcess)


def test_streams_are_inherited_by_default() -> None:
    done = script(
        "import locule; locule.run(['sh', '-c', 'cat; echo err >&2'])",
        input="from outside\n",
    )
    assert (done.stdout, done.stderr) == ("from outside\n", "err\n")


def test_stderr_joins_an_inherited_stdout() -> None:
    done = script("import locule; locule.run(['sh', '-c', 'echo err >&2'], stderr=locule.STDOUT)")
    assert (done.stdout, done.stderr) == ("err\n", "")


def test_streams_may_be_files_and_descriptors(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from a file")
    with open(tmp_path / "in") as source, open(tmp_path / "out", "wb") as target:
        locule.run(["cat"], stdin=source, stdout=target.fileno())
    assert (tmp_path / "out").read_text() == "from a file"


def test_pass_fds_become_3_and_on() -> None:
    read, write = os.pipe()
    try:
        locule.run(["sh", "-c", "echo through 3 >&3"], pass_fds=[write])
        assert os.read(read, 100) == b"through 3\n"
    finally:
        os.close(read)
        os.close(write)


def test_check_raises_what_subprocess_raises() -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        locule.run(["sh", "-c", "echo out; exit 7"], check=True, capture_output=True)
    assert (caught.value.returncode, caught.value.stdout) == (7, b"out\n")


def test_a_timeout_kills_and_brings_the_output_so_far() -> None:
    begun = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        locule.run(["sh", "-c", "echo early; sleep 60"], stdout=locule.PIPE, timeout=0.5)
    assert time.monotonic() - begun < 5
    assert isinstance(caught.value, locule.Timeout)
    assert (caught.value.timeout, caught.value.output) == (0.5, b"early\n")


def test_what_a_container_changes_vanishes(tmp_path: Path) -> None:
    name = "/locule-test-" + str(os.getpid())
    locule.run(["sh", "-c", f"echo x > {name} && test -e {name}"], check=True)
    assert not os.path.exists(name)
    assert locule.run(["test", "-e", name]).returncode == 1


def test_the_container_has_its_own_name_processes_and_network() -> None:
    done = locule.run(
        ["sh", "-c", "echo $$; uname -n; cat /proc/net/dev | tail -n +3 | cut -d: -f1"],
        hostname="inside", capture_output=True, text=True, check=True,
    )
    assert done.stdout.split() == ["1", "inside", "lo"]


def test_network_host_shares_the_network() -> None:
    namespace = ["readlink", "/proc/self/ns/net"]
    shared = locule.run(namespace, network="host", capture_output=True, text=True)
    assert shared.stdout.strip() == os.readlink("/proc/self/ns/net")
    own = locule.run(namespace, capture_output=True, text=True)
    assert own.stdout.strip() != os.readlink("/proc/self/ns/net")


def test_nothing_of_the_environment_gets_in(monkeypatch) -> None:
    monkeypatch.setenv("LOCULE_TEST_SECRET", "x")
    done = locule.run(["env"], env={"A": "b"}, capture_output=True, text=True)
    names = {line.split("=")[0] for line in done.stdout.splitlines()}
    assert {"A", "PATH"} <= names and "LOCULE_TEST_SECRET" not in names
    assert "LOCULE_TEST_SECRET" not in locule.run(["env"], capture_output=True, text=True).stdout


@pytest.mark.parametrize("user", [1234, "1234", "1234:1234", (1234, 1234)])
def test_user_and_directory_are_those_asked_for(user) -> None:
    done = locule.run(
        ["sh", "-c", "id -u; id -g; pwd"], user=user, cwd="/usr", capture_output=True, text=True,
    )
    assert done.stdout.split() == ["1234", "1234", "/usr"]


def test_mounts_are_read_only_unless_said_otherwise(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("shared")
    done = locule.run(
        ["sh", "-c", "cat /mnt/ro/file; echo a > /mnt/rw/new; echo b > /mnt/ro/new"],
        mounts=[locule.Mount(tmp_path, "/mnt/ro"), f"{tmp_path}:/mnt/rw:rw"],
        capture_output=True, text=True,
    )
    assert done.stdout == "shared"
    assert done.returncode != 0 and "Read-only" in done.stderr
    assert (tmp_path / "new").read_text() == "a\n"


def test_a_read_only_root_cannot_be_written() -> None:
    assert locule.run(["touch", "/x"], readonly=True, stderr=locule.DEVNULL).returncode != 0


def test_limits_hold() -> None:
    with locule.default_runtime().create(
        ["sleep", "60"], memory="64M", cpus=0.5, pids=20, stdin=locule.DEVNULL,
    ) as container:
        container.start()
        stats = container.stats()
    if stats.memory_limit is None and stats.pids_limit is None:
        pytest.skip("skipped: cgroup controllers for memory and pids")
    assert (stats.memory_limit, stats.pids_limit) == (64 << 20, 20)


def test_a_bundle_runs_its_own_program_or_another(bundle: Path) -> None:
    own = locule.run(bundle=bundle, capture_output=True, text=True)
    assert own.stdout == "from the bundle\n"
    other = locule.run(["echo", "another"], bundle=bundle, capture_output=True, text=True)
    assert other.stdout == "another\n"


def test_a_spec_is_taken_as_a_mapping_or_text(bundle: Path) -> None:
    text = (bundle / "config.json").read_text()
    done = locule.run(spec=text, bundle=bundle, capture_output=True, text=True)
    assert done.stdout == "from the bundle\n"


def test_a_root_directory_of_ones_own_is_written_in_place_or_below_an_overlay(
    bundle: Path,
) -> None:
    rootfs = bundle / "rootfs"
    mounts = [
        f"{os.path.realpath('/' + name)}:/{name}"
        for name in ("bin", "lib", "lib64", "usr") if os.path.isdir("/" + name)
    ]
    touch = ["sh", "-c", "echo x > /made"]
    locule.run(touch, rootfs=rootfs, mounts=mounts, overlay=True, check=True)
    assert not (rootfs / "made").exists()
    locule.run(touch, rootfs=rootfs, mounts=mounts, check=True)
    assert (rootfs / "made").read_text() == "x\n"


def test_the_default_spec_can_be_changed_and_run() -> None:
    spec = locule.default_spec(["sh", "-c", "echo $GREETING"])
    spec["process"]["env"].append("GREETING=hello")
    done = locule.run(spec=spec, overlay=True, capture_output=True, text=True)
    assert done.stdout == "hello\n"


def test_eight_threads_run_fifty_containers_each() -> None:
    wrong = []

    def work(worker: int) -> None:
        for number in range(50):
            word = f"{worker}-{number}"
            try:
                done = locule.run(["cat"], input=word, capture_output=True, text=True)
            except BaseException as error:
                wrong.append(error)
                return
            if (done.returncode, done.stdout) != (0, word):
                wrong.append(done)

    before = len(os.listdir("/proc/self/fd"))
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_no_child_and_no_sigchld_appear() -> None:
    caught = []
    before = signal.signal(signal.SIGCHLD, lambda *_: caught.append(1))
    try:
        locule.run(["true"])
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert caught == []


def test_keyboard_interrupt_ends_the_wait_and_the_container() -> None:
    done = script(
        "import locule, os, signal, threading, time\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "begun = time.monotonic()\n"
        "try:\n"
        "    locule.run(['sleep', '60'])\n"
        "except KeyboardInterrupt:\n"
        "    print(time.monotonic() - begun < 5, locule.default_runtime().list())\n"
    )
    assert (done.stdout, done.stderr) == ("True []\n", "")


def test_subprocess_still_works_between_containers() -> None:
    for _ in range(3):
        locule.run(["true"], check=True)
        assert subprocess.run(["true"]).returncode == 0

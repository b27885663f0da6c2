"""Handles: closing, forgetting, forking, sharing between threads."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
import time
import warnings

import pytest
from conftest import script

import locule
from locule import _abi


def forgotten(make) -> "list[str]":
    """The warnings that come when what `make` returns is dropped."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thing = make()
        del thing
        gc.collect()
    return [str(one.message) for one in caught if one.category is ResourceWarning]


def test_a_closed_handle_refuses_to_be_used(running: locule.Container) -> None:
    runtime = locule.Runtime(running._runtime.state_dir)
    other = runtime.get(running.id)
    other.close()
    for call in (other.state, other.pause, other.init.fileno, other.init.poll):
        with pytest.raises(ValueError, match="closed"):
            call()
    runtime.close()
    with pytest.raises(ValueError, match="closed"):
        runtime.list()
    runtime.close()
    other.close()


def test_what_is_forgotten_is_closed_with_a_warning(runtime: locule.Runtime) -> None:
    state_dir = runtime.state_dir
    assert forgotten(lambda: locule.Runtime(state_dir)) == ["a locule.Runtime was not closed"]

    def unclosed() -> locule.Container:
        container = runtime.create(["true"], id="forgotten", stdin=locule.DEVNULL)
        container.init.close()
        return container

    assert forgotten(unclosed) == ["container forgotten was neither deleted nor closed"]
    with runtime.get("forgotten") as container:
        assert container.state().status == "created", "forgetting ends nothing"


def test_a_process_that_still_runs_is_forgotten_with_a_warning(
    running: locule.Container,
) -> None:
    assert "still running" in forgotten(lambda: running.exec(["sleep", "1"]))[0]

    def ended() -> locule.Process:
        process = running.exec(["true"])
        process.wait()
        return process

    assert forgotten(ended) == []


def test_descriptors_do_not_pile_up(runtime: locule.Runtime) -> None:
    def once() -> None:
        with runtime.create(["sleep", "9"], stdin=locule.PIPE, stdout=locule.PIPE) as container:
            container.start()
            container.run(["cat"], input=b"x", capture_output=True)
            with container.exec(["true"], stdout=locule.PIPE, stderr=locule.STDOUT):
                pass

    once()
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        once()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_descriptors_do_not_pile_up_in_failures(runtime: locule.Runtime) -> None:
    def once() -> None:
        with pytest.raises(locule.ProgramError):
            runtime.run(["/no/such"], input=b"", stdout=locule.PIPE, stderr=locule.STDOUT)
        gc.collect()

    once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        once()
    assert len(os.listdir("/proc/self/fd")) == before


def test_closing_waits_for_calls_of_other_threads(running: locule.Container) -> None:
    process = running.exec(["sleep", "1"])
    results = []
    waiting = [
        threading.Thread(target=lambda: results.append(process.wait())) for _ in range(4)
    ]
    for thread in waiting:
        thread.start()
    time.sleep(0.2)
    process.close()
    for thread in waiting:
        thread.join(10)
    assert results == [0] * 4
    with pytest.raises(ValueError):
        process.fileno()


def test_many_threads_share_one_container(running: locule.Container) -> None:
    wrong = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                done = running.run(["echo", str(number)], capture_output=True, text=True)
                assert done.stdout == f"{number}\n"
                assert running.state().status == "running"
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_waiting_blocks_nobody_else(running: locule.Container) -> None:
    thread = threading.Thread(target=running.wait)
    thread.start()
    time.sleep(0.1)
    begun = time.monotonic()
    assert running.run(["true"]).returncode == 0
    running.kill()
    thread.join(10)
    assert not thread.is_alive() and time.monotonic() - begun < 5


def test_a_forked_child_refuses_what_it_inherited_and_opens_its_own(root: None) -> None:
    done = script(
        "import locule, os, sys, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "runtime = locule.default_runtime()\n"
        "container = runtime.create(['sleep', '60'], stdin=locule.DEVNULL)\n"
        "container.start()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    for call in (runtime.list, container.state, container.init.poll,\n"
        "                 lambda: runtime.create(['true']), container.kill):\n"
        "        try: call(); print('allowed')\n"
        "        except locule.StateError as error: assert 'fork' in str(error)\n"
        "    assert locule.default_runtime() is not runtime\n"
        "    print(locule.run(['echo', 'own'], capture_output=True, text=True).stdout, end='')\n"
        "    del container, runtime\n"
        "    sys.stdout.flush(); os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "print(container.state().status)\n"
        "container.__exit__()\n"
    )
    assert (done.stdout, done.stderr) == ("own\nrunning\n", "")


def test_a_fork_server_of_multiprocessing_is_no_trouble(root: None) -> None:
    assert locule.run(["true"]).returncode == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(_word, ["a", "b"]) == ["a\n", "b\n"]


def _word(word: str) -> str:
    return str(locule.run(["echo", word], capture_output=True, text=True).stdout)


def test_the_interpreter_ends_quietly_with_everything_open(root: None) -> None:
    done = script(
        "import locule\n"
        "runtime = locule.Runtime()\n"
        "container = runtime.create(['sleep', '60'], stdin=locule.DEVNULL)\n"
        "container.start()\n"
        "events = runtime.events()\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_exception_in_a_run_gives_the_references_back(runtime: locule.Runtime) -> None:
    with pytest.raises(TypeError):
        runtime.create(["true"], mounts=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        runtime.run(["cat"], input="text", stdout=locule.PIPE, timeout="soon")  # type: ignore
    assert runtime._handle._users == 0
    assert runtime.list() == []
    assert _abi.library() is _abi.library()


def test_an_error_after_the_creation_takes_it_back(
    runtime: locule.Runtime, running: locule.Container,
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(LookupError):
            runtime.create(["true"], stdin=locule.PIPE, encoding="no-such-encoding")
        assert [state.id for state in runtime.list()] == [running.id]
        with pytest.raises(LookupError):
            running.exec(["sleep", "60"], stdin=locule.PIPE, encoding="no-such-encoding")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before
    deadline = time.monotonic() + 5
    while len(running.pids()) > 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running.pids() == [running.pid]


def test_keyboard_interrupt_at_any_moment_leaves_nothing(root: None) -> None:
    done = script(
        "import locule, os, signal, threading, time\n"
        "runtime = locule.default_runtime()\n"
        "for step in range(40):\n"
        "    timer = threading.Timer(step * 0.001, os.kill, (os.getpid(), signal.SIGINT))\n"
        "    try:\n"
        "        timer.start()\n"
        "        with runtime.create(['sleep', '60'], stdin=locule.DEVNULL) as container:\n"
        "            container.start(); container.wait()\n"
        "    except KeyboardInterrupt:\n"
        "        pass\n"
        "    timer.join()\n"
        "print(runtime.list())\n"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_timeout_may_be_as_long_as_one_likes(runtime: locule.Runtime) -> None:
    assert runtime.run(["true"], timeout=1e12).returncode == 0
    assert runtime.run(["true"], timeout=float("inf")).returncode == 0

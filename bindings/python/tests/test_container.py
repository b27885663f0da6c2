"""Containers that live longer than one call."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest
from conftest import script

import locule


def test_a_container_goes_from_created_to_running_to_stopped(runtime: locule.Runtime) -> None:
    with runtime.create(["sleep", "60"], stdin=locule.DEVNULL) as container:
        assert container.state().status == "created"
        container.start()
        state = container.state()
        assert (state.status, state.id, state.pid) == ("running", container.id, container.pid)
        assert [one.id for one in runtime.list()] == [container.id]
        container.kill()
        assert container.wait(10) == -signal.SIGKILL
        assert container.state().status == "stopped"
        container.delete()
        with pytest.raises(locule.NotFound):
            container.state()
    assert runtime.list() == []


def test_exec_has_the_shape_of_popen(running: locule.Container) -> None:
    with running.exec(
        ["sh", "-c", "read line; echo got $line; echo err >&2; exit 4"],
        stdin=locule.PIPE, stdout=locule.PIPE, stderr=locule.PIPE, text=True,
    ) as process:
        assert process.poll() is None and process.returncode is None
        assert process.pid > 0 and process.args[0] == "sh"
        assert process.communicate("a line\n", timeout=10) == ("got a line\n", "err\n")
        assert process.returncode == process.wait() == process.poll() == 4


def test_streams_of_a_process_can_be_read_by_line(running: locule.Container) -> None:
    with running.exec(
        ["sh", "-c", "while read line; do echo $line $line; done"],
        stdin=locule.PIPE, stdout=locule.PIPE, text=True,
    ) as process:
        for word in ("one", "two"):
            process.stdin.write(word + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"{word} {word}\n"
        process.stdin.close()
        assert process.wait(10) == 0


def test_run_in_a_container_is_subprocess_run(running: locule.Container) -> None:
    done = running.run(
        ["sh", "-c", "id -u; pwd; echo $X; cat"], input="in", capture_output=True, text=True,
        user=55, cwd="/usr", env={"X": "y"},
    )
    assert (done.returncode, done.stdout) == (0, "55\n/usr\ny\nin")
    with pytest.raises(locule.CalledProcessError):
        running.run(["false"], check=True)
    with pytest.raises(locule.TimeoutExpired) as caught:
        running.run(["sh", "-c", "echo early; sleep 60"], stdout=locule.PIPE, timeout=0.5)
    assert caught.value.output == b"early\n"


def test_a_second_process_is_in_the_same_container(running: locule.Container) -> None:
    done = running.run(
        ["sh", "-c", "cat /proc/1/comm; uname -n"], capture_output=True, text=True,
    )
    assert done.stdout.split() == ["sleep", "locule"]


def test_much_data_goes_both_ways(running: locule.Container) -> None:
    data = os.urandom(4 << 20)
    assert running.run(["cat"], input=data, capture_output=True).stdout == data


def test_communicate_goes_on_after_a_timeout(running: locule.Container) -> None:
    data = b"x" * 1_000_000
    with running.exec(
        ["sh", "-c", "sleep 1; cat"], stdin=locule.PIPE, stdout=locule.PIPE,
    ) as process:
        with pytest.raises(locule.TimeoutExpired):
            process.communicate(data, timeout=0.2)
        with pytest.raises(ValueError):
            process.communicate(b"more")
        assert process.communicate(timeout=10) == (data, None)


def test_the_descriptor_of_a_process_is_readable_at_its_end(running: locule.Container) -> None:
    with running.exec(["sh", "-c", "read x"], stdin=locule.PIPE) as process:
        assert select.select([process], [], [], 0)[0] == []
        process.stdin.close()
        assert select.select([process], [], [], 10)[0] == [process]
        assert process.poll() == 1


def test_signals_reach_a_process_and_are_no_error_after_its_end(
    running: locule.Container,
) -> None:
    with running.exec(["sleep", "60"]) as process:
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM
        process.kill()
        process.send_signal(signal.SIGHUP)


def test_wait_times_out(running: locule.Container) -> None:
    begun = time.monotonic()
    with pytest.raises(locule.TimeoutExpired):
        running.wait(timeout=0.3)
    assert 0.25 < time.monotonic() - begun < 3


def test_a_terminal_is_one_and_has_a_size(running: locule.Container) -> None:
    with running.exec(["sh", "-c", "tty; stty size; read x; stty size"], tty=(30, 100)) as process:
        process_output = b""
        while process_output.count(b"\n") < 2:
            process_output += process.terminal.read(1000)
        assert process_output.split()[:3] == [process_output.split()[0], b"30", b"100"]
        assert process_output.startswith(b"/dev/")
        process.resize(40, 120)
        process.terminal.write(b"\n")
        rest = process.terminal.read()
        assert rest.split() == [b"40", b"120"]
        assert process.wait(10) == 0


def test_the_first_process_may_have_a_terminal(runtime: locule.Runtime) -> None:
    with runtime.create(["sh", "-c", "stty size"], tty=(11, 22)) as container:
        container.start()
        assert container.init.stdout is None
        assert container.init.terminal.read().split() == [b"11", b"22"]
        assert container.wait(10) == 0


def test_pause_stops_and_resume_goes_on(running: locule.Container) -> None:
    try:
        running.pause()
    except locule.Unsupported as error:
        pytest.skip(f"skipped: a cgroup freezer ({error})")
    assert running.state().status == "paused"
    with pytest.raises(locule.StateError):
        running.exec(["true"])
    running.resume()
    assert running.state().status == "running"
    assert running.run(["true"]).returncode == 0


def test_limits_can_be_changed(running: locule.Container) -> None:
    if running.stats().pids == 0:
        pytest.skip("skipped: the pids cgroup controller")
    running.update(pids=33)
    assert running.stats().pids_limit == 33
    running.update({"pids": {"limit": 44}})
    assert running.stats().pids_limit == 44
    running.update(memory="128M", cpus=0.25)
    assert running.stats().memory_limit in (128 << 20, None)


def test_stats_count(running: locule.Container) -> None:
    running.run(["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"])
    stats = running.stats()
    if not stats.cpu_seconds:
        pytest.skip("skipped: the cpuacct cgroup controller")
    assert 0 < stats.cpu_seconds < 60
    assert stats.pids >= 1
    assert stats.raw["cpu"]["usage"]["total"] > 0
    assert running.pid in running.pids()


def test_a_signal_may_go_to_everybody(runtime: locule.Runtime) -> None:
    with runtime.create(
        ["sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done"], stdin=locule.DEVNULL,
    ) as container:
        container.start()
        with container.exec(["sleep", "60"]) as process:
            time.sleep(0.2)
            container.kill(signal.SIGTERM, all=True)
            assert process.wait(10) == -signal.SIGTERM
        assert container.wait(10) == 9


def test_events_tell_how_processes_end(runtime: locule.Runtime) -> None:
    with runtime.events(timeout=10) as everything:
        with runtime.create(["sleep", "60"], stdin=locule.DEVNULL) as container:
            own = container.events(timeout=10)
            container.start()
            with container.exec(["sh", "-c", "exit 6"]) as process:
                process.wait()
                first = next(own)
                assert (first.kind, first.pid, first.returncode) == ("exited", process.pid, 6)
                assert next(everything) == first
            container.kill()
            assert [event.returncode for event in own] == [-9]
            assert next(everything).pid == container.pid


def test_events_of_a_container_that_has_ended_are_its_end(runtime: locule.Runtime) -> None:
    with runtime.create(["true"], stdin=locule.DEVNULL) as container:
        container.start()
        container.wait()
        assert [event.returncode for event in container.events()] == [0]


def test_events_tell_that_memory_ran_out(runtime: locule.Runtime) -> None:
    hungry = "tail -c 100000000 /dev/zero >/dev/null; sleep 60"
    with runtime.create(["sh", "-c", hungry], memory="8M", stdin=locule.DEVNULL) as container:
        container.watch_oom()
        with container.events(timeout=10) as events:
            container.start()
            event = next(events)
            assert (event.kind, event.container_id) == ("oom", container.id)
            assert event.kills is not None


def test_a_watch_that_makes_no_sense_is_refused(running: locule.Container) -> None:
    with pytest.raises(locule.Invalid, match="resource 'disk'"):
        running.watch_pressure("disk")
    # Invalid, or beyond what cgroup v1 can do at all.
    with pytest.raises((locule.Invalid, locule.Unsupported)):
        running.watch_pressure("cpu", stall=3, window=2)


def test_events_end_after_the_timeout(runtime: locule.Runtime) -> None:
    begun = time.monotonic()
    assert list(runtime.events(timeout=0.2)) == []
    assert time.monotonic() - begun < 3


def test_another_process_finds_a_detached_container(
    runtime: locule.Runtime, tmp_path: Path,
) -> None:
    done = script(
        "import locule, sys\n"
        "runtime = locule.Runtime(sys.argv[1])\n"
        "c = runtime.create(['sh', '-c', 'read x < /fifo; exit 5'], id='lasting', detach=True,\n"
        "    stdin=locule.DEVNULL, stdout=locule.DEVNULL, stderr=locule.DEVNULL,\n"
        "    mounts=[sys.argv[2] + ':/fifo:rw'])\n"
        "c.start(); c.close(); runtime.close()\n",
        runtime.state_dir, _fifo(tmp_path),
    )
    assert done.stderr == ""
    with runtime.get("lasting") as container:
        assert container.state().status == "running"
        assert container.init.poll() is None
        assert container.run(["echo", "in"], capture_output=True).stdout == b"in\n"
        (tmp_path / "fifo").write_text("go\n")
        assert container.wait(10) == 5
    with pytest.raises(locule.NotFound):
        runtime.get("lasting")


def _fifo(directory: Path) -> str:
    os.mkfifo(directory / "fifo")
    return str(directory / "fifo")


def test_a_container_dies_with_the_process_that_created_it(
    runtime: locule.Runtime,
) -> None:
    done = script(
        "import locule, os, sys, signal\n"
        "runtime = locule.Runtime(sys.argv[1])\n"
        "c = runtime.create(['sleep', '300'], stdin=locule.DEVNULL, stdout=locule.DEVNULL,\n"
        "                   stderr=locule.DEVNULL)\n"
        "c.start(); print(c.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n",
        runtime.state_dir,
    )
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not os.path.exists(f"/proc/{pid}") and runtime.list() == []:
            return
        time.sleep(0.05)
    pytest.fail(f"pid {pid} is there: {os.path.exists(f'/proc/{pid}')}; {runtime.list()}")


def test_a_child_of_this_process_sends_sigchld(runtime: locule.Runtime) -> None:
    with runtime.create(["sh", "-c", "exit 8"], parentage="child", stdin=locule.DEVNULL) as c:
        c.start()
        assert c.wait(10) == 8


def test_an_orphan_has_the_right_status_or_one_that_nobody_knows(runtime: locule.Runtime) -> None:
    with runtime.create(["sleep", "60"], parentage="orphan", stdin=locule.DEVNULL) as container:
        container.start()
        assert container.run(["echo", "x"], capture_output=True).stdout == b"x\n"
        container.kill()
        # Before Linux 6.15 only the parent can know it; the library never guesses.
        try:
            assert container.wait(10) == -signal.SIGKILL
        except locule.KeeperError as error:
            assert "status" in str(error)


def test_explain_says_what_would_be_done(runtime: locule.Runtime) -> None:
    text = runtime.explain(["true"], hostname="planned")
    assert "planned" in text
    assert runtime.explain(["true"], json=True).lstrip()[0] in "[{"
    assert runtime.list() == []


def test_features_are_those_of_the_specification(runtime: locule.Runtime) -> None:
    assert "ociVersionMin" in runtime.features()
    assert locule.has("exec") and not locule.has("nonsense")

"""locule.aio: the event loop waits, and cancelling undoes."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from locule import aio


@pytest.fixture
def loop_run(root: None, tmp_path):
    """Runs a coroutine function with a runtime of its own, which has to be empty in the end."""

    def call(function):
        async def main():
            async with aio.Runtime(tmp_path / "state") as runtime:
                try:
                    return await asyncio.wait_for(function(runtime), 60)
                finally:
                    left = await runtime.list()
                    for state in left:
                        async with await runtime.get(state.id):
                            pass
                    assert left == []

        return asyncio.run(main())

    return call


def test_run_is_that_of_locule(loop_run) -> None:
    async def body(runtime: aio.Runtime) -> None:
        done = await runtime.run(
            ["sh", "-c", "cat; echo err >&2; exit 3"], input="in\n", capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, "in\n", "err\n")
        with pytest.raises(aio.CalledProcessError):
            await runtime.run(["false"], check=True)
        with pytest.raises(aio.ProgramError):
            await runtime.run(["/no/such"])

    loop_run(body)


def test_the_function_of_the_module_uses_the_default_runtime(root: None) -> None:
    done = asyncio.run(aio.run(["echo", "x"], capture_output=True))
    assert done.stdout == b"x\n"


def test_thirty_containers_run_at_once(loop_run) -> None:
    async def body(runtime: aio.Runtime) -> None:
        begun = time.monotonic()
        results = await asyncio.gather(*[
            runtime.run(["sh", "-c", f"sleep 0.5; echo {n}"], stdout=aio.PIPE, text=True)
            for n in range(30)
        ])
        assert [done.stdout for done in results] == [f"{n}\n" for n in range(30)]
        assert time.monotonic() - begun < 8, "15 seconds of sleep, one after the other"

    loop_run(body)


def test_the_loop_goes_on_while_containers_are_made(loop_run) -> None:
    async def body(runtime: aio.Runtime) -> None:
        longest, stop = 0.0, False

        async def tick() -> None:
            nonlocal longest
            while not stop:
                begun = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - begun)

        ticking = asyncio.ensure_future(tick())
        await asyncio.gather(*[runtime.run(["true"]) for _ in range(20)])
        stop = True
        await ticking
        assert longest < 0.5

    loop_run(body)


def test_a_timeout_kills_and_brings_the_output(loop_run) -> None:
    async def body(runtime: aio.Runtime) -> None:
        with pytest.raises(aio.TimeoutExpired) as caught:
            await runtime.run(
                ["sh", "-c", "echo early; sleep 60"], stdout=aio.PIPE, timeout=0.5
            )
        assert (caught.value.output, caught.value.timeout) == (b"early\n", 0.5)

    loop_run(body)


def test_a_cancelled_run_leaves_nothing(loop_run) -> None:
    async def body(runtime: aio.Runtime) -> None:
        # At whichever moment: before, during and after the creation.
        for delay in (0, 0.001, 0.003, 0.005, 0.01, 0.02, 0.2):
            task = asyncio.ensure_future(runtime.run(["sleep", "60"]))
            await asyncio.sleep(delay)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await runtime.list() == []

    loop_run(body)


def test_exec_talks_through_streams(loop_run) -> None:
    async def body(runtime: aio.Runtime) -> None:
        async with await runtime.create(["sleep", "60"], stdin=aio.DEVNULL) as container:
            await container.start()
            async with await container.exec(
                ["sh", "-c", "while read x; do echo $x $x; done"],
                stdin=aio.PIPE, stdout=aio.PIPE,
            ) as process:
                process.stdin.write(b"one\n")
                await process.stdin.drain()
                assert await process.stdout.readline() == b"one one\n"
                process.stdin.close()
                assert await process.wait() == 0
            data = os.urandom(1 << 20)
            done = await container.run(["cat"], input=data, capture_output=True)
            assert done.stdout == data
            with pytest.raises(aio.TimeoutExpired):
                await container.wait(timeout=0.1)
            assert (await container.state()).status == "running"

    loop_run(body)


def test_several_tasks_wait_for_one_process(loop_run) -> None:
    async def body(runtime: aio.Runtime) -> None:
        async with await runtime.create(["sleep", "0.3"], stdin=aio.DEVNULL) as container:
            await container.start()
            assert await asyncio.gather(*[container.wait() for _ in range(5)]) == [0] * 5

    loop_run(body)


def test_events_are_iterated_over(loop_run) -> None:
    async def body(runtime: aio.Runtime) -> None:
        async with await runtime.create(["sleep", "60"], stdin=aio.DEVNULL) as container:
            events = container.events(timeout=10)
            await container.start()
            await container.run(["sh", "-c", "exit 5"])
            asyncio.get_running_loop().call_later(0.2, container.init.kill)
            assert [event.returncode async for event in events] == [5, -9]

    loop_run(body)

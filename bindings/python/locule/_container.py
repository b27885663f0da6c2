"""A container: its first process, other processes in it, its state and limits."""

from __future__ import annotations

import ctypes
import json
import signal as signals
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, List, Mapping, Optional, Sequence, Union

from . import _abi, _choices
from ._cancel import Cancel, use
from ._choices import Args, StrPath, Tty, User
from ._documents import State, Stats, decode
from ._errors import (
    CalledProcessError, Invalid, NotFound, TimeoutExpired, call, call_for_bytes,
)
from ._handle import Handle, close_with
from ._process import Process
from ._stdio import PIPE, Stdio, Streams

if TYPE_CHECKING:
    from ._events import Events
    from ._image import Image, ImageStore
    from ._progress import Tell
    from ._runtime import Runtime


class Completed(subprocess.CompletedProcess):  # type: ignore[type-arg]
    """What `run` returns: args, returncode, stdout and stderr, as subprocess has them."""

    def check_returncode(self) -> None:
        """Raises CalledProcessError if the return code is not 0."""
        if self.returncode:
            raise CalledProcessError(self.returncode, self.args, self.stdout, self.stderr)


class _Fate:
    deleted = False


class Container:
    """A container, from `Runtime.create` or `Runtime.get`. Safe to use from any thread.

    As a context manager it is killed and deleted at the end. `close` gives only the handle
    back; the container goes on.
    """

    id: str
    #: The first process. Its streams are what `create` was given.
    init: Process

    def __init__(
        self,
        runtime: "Runtime",
        handle: Handle,
        args: Optional[Sequence[str]] = None,
        streams: Optional[Streams] = None,
    ) -> None:
        # Made by Runtime only.
        self._runtime = runtime
        self._handle = handle
        self._fate = fate = _Fate()
        with self._handle as container:
            self.id = _abi.library().locule_container_id(container).decode()
            created = streams is not None
            description = f"container {self.id} was neither deleted nor closed"
            close_with(
                self,
                self._handle,
                lambda: description if created and not fate.deleted else None,
            )
            init = Handle("process")
            call("locule_container_init", container, ctypes.byref(init.out))
        try:
            self.init = Process(init, self.id, args, streams)
        except BaseException:
            init.close()
            raise
        self.init._before_close = runtime._tell_listeners

    def __repr__(self) -> str:
        return f"<locule.Container {self.id}>"

    @property
    def pid(self) -> int:
        """The pid of the first process, as this process sees it."""
        return self.init.pid

    def start(self, *, cancel: Optional[Cancel] = None) -> None:
        """Lets the program run; returns once it has been executed."""
        with ExitStack() as stack:
            container = stack.enter_context(self._handle)
            call("locule_container_start", container, use(cancel, stack))

    def exec(
        self,
        args: Args,
        *,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[StrPath] = None,
        user: Optional[User] = None,
        stdin: Stdio = None,
        stdout: Stdio = None,
        stderr: Stdio = None,
        tty: Optional[Tty] = None,
        text: bool = False,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        pass_fds: Sequence[int] = (),
        seccomp_listener: Optional[int] = None,
        start_timeout: Optional[float] = None,
        cancel: Optional[Cancel] = None,
    ) -> Process:
        """Runs another program in the container, as Popen would.

        `env`, `cwd` and `user` are those of the first process unless given; `env` is the whole
        environment, but for a PATH. With ``tty`` the streams are ``process.terminal``.
        `pass_fds` become 3, 4, ... in the program; for `seccomp_listener` see `Runtime.create`.
        `start_timeout` (60 seconds) is for the start alone.
        """
        document = _choices.process_document(args, env, cwd, user, tty)
        names = _choices.parse_args(args)
        streams = Streams(stdin, stdout, stderr, text, encoding, errors)
        handle = Handle("process")
        try:
            with ExitStack() as stack:
                container = stack.enter_context(self._handle)
                opts = _abi.ExecOpts(
                    process_json=document,
                    process_json_len=len(document),
                    timeout_ms=milliseconds(start_timeout),
                    pass_fds=descriptors(pass_fds),
                    pass_fd_count=len(pass_fds),
                    cancel=use(cancel, stack),
                    seccomp_listener=one_descriptor(seccomp_listener),
                )
                streams.fill(opts)
                out = ctypes.byref(handle.out)
                call("locule_container_exec", container, ctypes.byref(opts), out)
            process = Process(handle, self.id, names, streams)
            process._before_close = self._runtime._tell_listeners
            return process
        except BaseException:
            # KeyboardInterrupt, above all: a process that nobody has must not run on.
            if handle.made and not handle.closed:
                with handle as pointer:
                    _abi.library().locule_process_signal(pointer, signals.SIGKILL, None)
                handle.close()
            raise
        finally:
            streams.close()

    def run(
        self,
        args: Args,
        *,
        input: Union[bytes, str, None] = None,
        capture_output: bool = False,
        timeout: Optional[float] = None,
        check: bool = False,
        env: Optional[Mapping[str, str]] = None,
        cwd: Optional[StrPath] = None,
        user: Optional[User] = None,
        stdin: Stdio = None,
        stdout: Stdio = None,
        stderr: Stdio = None,
        text: bool = False,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        pass_fds: Sequence[int] = (),
    ) -> Completed:
        """Runs another program in the container to its end, as subprocess.run would."""
        stdin, stdout, stderr = run_streams(input, capture_output, stdin, stdout, stderr)
        process = self.exec(
            args, env=env, cwd=cwd, user=user, stdin=stdin, stdout=stdout, stderr=stderr,
            text=text, encoding=encoding, errors=errors, pass_fds=pass_fds,
        )
        return finish(process, input, timeout, check)

    def kill(self, sig: int = signals.SIGKILL, *, all: bool = False) -> None:
        """Sends a signal to the first process, or with `all` to every one.

        The first process gets signals other than SIGKILL and SIGSTOP only if it handles them:
        so the kernel has it for the pid 1 of a pid namespace.
        """
        with self._handle as container:
            flags = _abi.SIGNAL_ALL if all else 0
            call("locule_container_signal", container, int(sig), flags)

    def wait(self, timeout: Optional[float] = None) -> int:
        """Waits for the end of the first process: its return code, or TimeoutExpired."""
        return self.init.wait(timeout)

    def pause(self) -> None:
        """Freezes every process of the container."""
        with self._handle as container:
            call("locule_container_pause", container)

    def resume(self) -> None:
        """Thaws what `pause` froze."""
        with self._handle as container:
            call("locule_container_resume", container)

    def update(
        self,
        resources: Optional[Mapping[str, Any]] = None,
        *,
        memory: Union[int, str, None] = None,
        cpus: Optional[float] = None,
        pids: Optional[int] = None,
    ) -> None:
        """Changes limits: `resources` as linux.resources in config.json, or by keyword."""
        document = {key: value for key, value in (resources or {}).items()}
        for name, limit in _choices.Choices(memory=memory, cpus=cpus, pids=pids).limits():
            document[name] = {**(document.get(name) or {}), **limit}
        text = json.dumps(document).encode()
        with self._handle as container:
            call("locule_container_update_json", container, text, len(text))

    def stats(self) -> Stats:
        """What the container uses."""
        with self._handle as container:
            return Stats.of(decode(call_for_bytes("locule_container_stats_json", container)))

    def state(self) -> State:
        """Its state now. NotFound if it has been deleted."""
        with self._handle as container:
            return State.of(decode(call_for_bytes("locule_container_state_json", container)))

    def pids(self) -> List[int]:
        """The pids of every process in the container, as this process sees them."""
        with self._handle as container:
            pids: List[int] = json.loads(call_for_bytes("locule_container_pids_json", container))
            return pids

    def watch_oom(self) -> None:
        """From now on `events` also tell when the container runs out of memory."""
        self._watch(_abi.WatchOpts(kind=_abi.WATCH_OOM))

    def watch_pressure(
        self, resource: str, *, stall: float = 0.15, window: float = 2.0, full: bool = False
    ) -> None:
        """From now on `events` also tell when processes have to wait too long.

        resource    what for: "cpu", "memory" or "io"
        stall       how long is too long: seconds of waiting within a window, added up
        window      0.5 to 10 seconds; for an ordinary user a multiple of two. There is one event
                    in a window at most
        full        count the time in which all processes that could run had to wait at once,
                    instead of that in which at least one had to

        Needs cgroup v2 alone.
        """
        from ._events import RESOURCES

        if resource not in RESOURCES:
            raise Invalid(f"resource {resource!r}: expected one of {[*RESOURCES]}")
        self._watch(_abi.WatchOpts(
            flags=_abi.WATCH_FULL if full else 0,
            kind=_abi.WATCH_PRESSURE,
            resource=RESOURCES[resource],
            stall_us=round(stall * 1_000_000),
            window_us=round(window * 1_000_000),
        ))

    def _watch(self, opts: _abi.WatchOpts) -> None:
        with self._handle as container:
            call("locule_container_watch", container, ctypes.byref(opts))

    def events(self, timeout: Optional[float] = None) -> "Events":
        """Iterates over what happens to the container, to the end of its first process.

        With a timeout, in seconds, at most that long for each event.
        """
        from ._events import Events

        return Events(self._runtime, timeout, self)

    def commit(
        self,
        *,
        name: Optional[str] = None,
        compression: str = "gzip",
        config: Optional[Mapping[str, Any]] = None,
        author: Optional[str] = None,
        comment: Optional[str] = None,
        created: Optional[str] = None,
        store: Optional["ImageStore"] = None,
        progress: Optional["Tell"] = None,
        cancel: Optional[Cancel] = None,
        timeout: Optional[float] = None,
    ) -> "Image":
        """Makes an image of the one that the container was made from and what it has changed.

        It has to be stopped, and to have been created with `changes`. The arguments are as for
        `Image.import_`; `store` is where the container's image is.
        """
        from ._image import default_image_store

        return (store or default_image_store()).commit(
            self, name=name, compression=compression, config=config, author=author,
            comment=comment, created=created, progress=progress, cancel=cancel, timeout=timeout,
        )

    def delete(self, *, force: bool = False) -> None:
        """Deletes the container if it is stopped or was never started; with `force` always."""
        with self._handle as container:
            call("locule_container_delete", container, _abi.DELETE_FORCE if force else 0)
        self._fate.deleted = True

    def close(self) -> None:
        """Gives the handle back, and that of `init`. The container goes on."""
        self.init.close()
        self._handle.close()

    def __enter__(self) -> "Container":
        return self

    def __exit__(self, *_exception: object) -> None:
        try:
            if not self._handle.closed and not self._fate.deleted:
                self.delete(force=True)
        except NotFound:
            pass  # somebody was faster
        finally:
            self._settle()
            self.close()

    def _settle(self) -> None:
        """Lets `init.returncode` be what it is after the container is gone."""
        try:
            if not self.init._handle.closed:
                self.init.poll()
        except Exception:  # the status is lost, which is no concern of who ends a container
            pass


def milliseconds(timeout: Optional[float]) -> int:
    """A timeout for the library, where 0 is the default."""
    return 0 if timeout is None else max(1, round(min(timeout, 1e6) * 1000))


def descriptors(fds: Sequence[int]) -> Any:
    return (ctypes.c_int * len(fds))(*fds) if fds else None


def one_descriptor(fd: Optional[int]) -> Any:
    return None if fd is None else ctypes.pointer(ctypes.c_int(fd))


def run_streams(
    input: Union[bytes, str, None],
    capture_output: bool,
    stdin: Stdio,
    stdout: Stdio,
    stderr: Stdio,
) -> List[Stdio]:
    """The streams of a `run`, with the rules of subprocess.run."""
    if input is not None:
        if stdin is not None:
            raise ValueError("stdin and input exclude each other")
        stdin = PIPE
    if capture_output:
        if stdout is not None or stderr is not None:
            raise ValueError("stdout and stderr exclude capture_output")
        stdout = stderr = PIPE
    return [stdin, stdout, stderr]


def finish(
    process: Process, input: Union[bytes, str, None], timeout: Optional[float], check: bool
) -> Completed:
    """The second half of a `run`: whatever happens, the process has ended afterwards."""
    with process:
        try:
            stdout, stderr = process.communicate(input, timeout)
        except TimeoutExpired as expired:
            process.kill()
            # What it wrote before it was killed. A process of the container that is not a
            # child of this one may hold the pipes open for long: do not wait for that.
            try:
                process.communicate(timeout=1)
            except TimeoutExpired:
                pass
            expired.output = process._collected(process.stdout)
            expired.stderr = process._collected(process.stderr)
            raise
        except BaseException:
            process.kill()
            raise
        completed = Completed(process.args or (), process.wait(), stdout, stderr)
    if check:
        completed.check_returncode()
    return completed

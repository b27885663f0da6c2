"""Locule for asyncio: the same names, the same arguments, awaited.

    import locule.aio

    done = await locule.aio.run(["uname", "-a"], capture_output=True, text=True)

Waiting is the event loop's: a process has a descriptor that becomes readable at its end. What
takes the library some milliseconds, such as creating a container, runs in a thread of the
loop's executor. Cancelling a task cancels that call, undoes what came of it, and only then
lets the CancelledError go on.
"""

from __future__ import annotations

import asyncio
import io
import locale
import signal
from typing import (
    TYPE_CHECKING, Any, AsyncIterator, Awaitable, Callable, Dict, List, Mapping, Optional,
    Sequence, Tuple, TypeVar, Union,
)

from . import _container, _events, _image, _process, _runtime
from ._cancel import Cancel
from ._choices import Args, Mount, StrPath, Tty, User, default_spec
from ._container import Completed, run_streams
from ._documents import Change, State, Stats
from ._errors import (
    Busy, CalledProcessError, Cancelled, Exists, HookError, InternalError, Invalid, KeeperError,
    LoculeError, NotFound, PermissionDenied, PluginError, ProgramError, ResourceError, SpecError,
    StateError, SystemCallError, Timeout, TimeoutExpired, Unsupported,
)
from ._events import Event
from ._image import ImageSummary, Pruned
from ._plugin import Plugin, PluginLike, Refused, WasmPlugin
from ._plugin_call import Call
from ._process import deadline_of, left_until
from ._progress import Progress, Tell
from ._stdio import DEVNULL, PIPE, STDOUT, Stdio, Terminal
from ._version import has, library_version

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import (
        CreateOptions, LoadOptions, NewImageOptions, PrepareOptions, PullOptions, RegistryOptions,
        SaveOptions, SpecOptions, UnpackOptions,
    )

T = TypeVar("T")

__all__ = [
    "Busy", "Call", "CalledProcessError", "Cancel", "Cancelled", "Change", "Completed",
    "Container", "DEVNULL", "Event", "Exists", "HookError", "Image", "ImageStore",
    "ImageSummary", "InternalError", "Invalid", "KeeperError", "LoculeError", "Mount",
    "NotFound", "PIPE", "PermissionDenied", "Plugin", "PluginError", "Process", "ProgramError",
    "Progress", "Pruned", "Refused", "ResourceError", "Runtime", "STDOUT", "SpecError",
    "State", "StateError", "Stats", "SystemCallError", "Terminal", "Timeout", "TimeoutExpired",
    "Unsupported", "WasmPlugin", "default_image_store", "default_runtime", "default_spec",
    "has", "library_version", "run",
]


async def _finish(task: "asyncio.Future[T]") -> bool:
    """Waits for a task whatever happens to this one; whether this one was cancelled."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            cancelled = True
    return cancelled


async def _in_thread(
    call: Callable[[Cancel], T], undo: Optional[Callable[[T], object]] = None
) -> T:
    """Runs a call in a thread. If this task is cancelled, so is the call; what it made in
    spite of that is undone."""
    with Cancel() as cancel:
        task = asyncio.ensure_future(asyncio.to_thread(call, cancel))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            cancel.trigger()
            await _finish(task)
            if undo is not None and not task.cancelled() and task.exception() is None:
                undoing = asyncio.ensure_future(asyncio.to_thread(undo, task.result()))
                await _finish(undoing)
            elif not task.cancelled():
                task.exception()  # it has been looked at
            raise


async def _readable(fd: int, timeout: Optional[float] = None) -> bool:
    """Waits until a descriptor is readable; False after the timeout.

    One descriptor has one reader in a loop, so several tasks that wait share it.
    """
    loop = asyncio.get_running_loop()
    future: "asyncio.Future[None]" = loop.create_future()
    readers: Dict[int, List["asyncio.Future[None]"]] = _readers.setdefault(id(loop), {})
    waiting = readers.setdefault(fd, [])
    waiting.append(future)

    def ready() -> None:
        for other in waiting:
            if not other.done():
                other.set_result(None)

    if len(waiting) == 1:
        loop.add_reader(fd, ready)
    try:
        await asyncio.wait_for(future, timeout)
        return True
    except asyncio.TimeoutError:
        return False
    finally:
        waiting.remove(future)
        if not waiting:
            loop.remove_reader(fd)
            del readers[fd]
            if not readers:
                del _readers[id(loop)]


# By loop and descriptor; touched by each loop's own thread only.
_readers: Dict[int, Dict[int, List["asyncio.Future[None]"]]] = {}


class Process:
    """A process in a container, in the shape of asyncio.subprocess.Process.

    `stdin` is a StreamWriter, `stdout` and `stderr` are StreamReaders: bytes.
    """

    stdin: Optional[asyncio.StreamWriter]
    stdout: Optional[asyncio.StreamReader]
    stderr: Optional[asyncio.StreamReader]

    def __init__(self, process: _process.Process) -> None:
        # Made by Container only; `_connect` has to follow.
        self._process = process
        self._transports: List[asyncio.BaseTransport] = []
        self._output = [bytearray(), bytearray()]
        self.stdin = self.stdout = self.stderr = None

    async def _connect(self) -> "Process":
        loop = asyncio.get_running_loop()
        process = self._process
        if process.stdin is not None:
            transport, protocol = await loop.connect_write_pipe(
                lambda: asyncio.streams.FlowControlMixin(loop=loop), process.stdin
            )
            self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)
            self._transports.append(transport)
        self.stdout = await self._reader(process.stdout)
        self.stderr = await self._reader(process.stderr)
        return self

    async def _reader(self, pipe: Any) -> Optional[asyncio.StreamReader]:
        if pipe is None:
            return None
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        self._transports.append(transport)
        return reader

    def __repr__(self) -> str:
        return repr(self._process).replace("locule.", "locule.aio.", 1)

    @property
    def args(self) -> Optional[Sequence[str]]:
        return self._process.args

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def container_id(self) -> str:
        return self._process.container_id

    @property
    def terminal(self) -> Optional[Terminal]:
        """With a tty: its master. A raw file, to be given to the loop or to a thread."""
        return self._process.terminal

    @property
    def returncode(self) -> Optional[int]:
        return self._process.returncode

    def fileno(self) -> int:
        return self._process.fileno()

    def poll(self) -> Optional[int]:
        return self._process.poll()

    async def wait(self, timeout: Optional[float] = None) -> int:
        """Waits for the end and returns the return code, or raises TimeoutExpired."""
        deadline = deadline_of(timeout)
        while True:
            returncode = self._process.poll()
            if returncode is not None:
                return returncode
            left = left_until(deadline)
            if left == 0:
                assert timeout is not None
                raise TimeoutExpired(
                    self._process._name, timeout, container_id=self.container_id
                )
            with self._process._handle:  # keeps the descriptor open
                await _readable(self._process._fd, left)

    async def communicate(
        self, input: Optional[bytes] = None, timeout: Optional[float] = None
    ) -> Tuple[Optional[bytes], Optional[bytes]]:
        """Sends input, reads stdout and stderr to their ends, waits: (stdout, stderr).

        After TimeoutExpired it may be called again, and nothing is lost.
        """
        output = self._output
        try:
            await asyncio.wait_for(self._communicate(input, output), timeout)
        except asyncio.TimeoutError:
            if timeout is None:
                raise
            raise TimeoutExpired(
                self._process._name, timeout,
                bytes(output[0]) if self.stdout is not None else None,
                bytes(output[1]) if self.stderr is not None else None,
                container_id=self.container_id,
            ) from None
        return (
            bytes(output[0]) if self.stdout is not None else None,
            bytes(output[1]) if self.stderr is not None else None,
        )

    async def _communicate(self, input: Optional[bytes], output: List[bytearray]) -> None:
        async def drain(reader: Optional[asyncio.StreamReader], into: bytearray) -> None:
            while reader is not None:
                data = await reader.read(65536)
                if not data:
                    return
                into += data

        await asyncio.gather(
            self._feed(input), drain(self.stdout, output[0]), drain(self.stderr, output[1])
        )
        await self.wait()

    async def _feed(self, input: Optional[bytes]) -> None:
        if self.stdin is None:
            return
        try:
            if input:
                self.stdin.write(input)
                await self.stdin.drain()
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            self.stdin.close()

    def send_signal(self, sig: int) -> None:
        self._process.send_signal(sig)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def resize(self, rows: int, columns: int) -> None:
        self._process.resize(rows, columns)

    def close(self) -> None:
        """Closes the streams and gives the handle back. The process goes on."""
        for transport in self._transports:
            transport.close()
        for file in (self._process.stdin, self._process.stdout, self._process.stderr):
            if file is not None and not self._transports:
                file.close()
        if self._process.terminal is not None:
            self._process.terminal.close()
        self._process._close_handle()

    async def __aenter__(self) -> "Process":
        return self

    async def __aexit__(self, *_exception: object) -> None:
        try:
            if self.stdin is not None:
                self.stdin.close()
            if not self._process._handle.closed:
                await self.wait()
        finally:
            self.close()


class Container:
    """A container: see locule.Container. With `async with` it is killed and deleted."""

    init: Process

    def __init__(self, container: _container.Container, init: Process) -> None:
        # Made by Runtime only.
        self._container = container
        self.init = init

    def __repr__(self) -> str:
        return f"<locule.aio.Container {self.id}>"

    @property
    def id(self) -> str:
        return self._container.id

    @property
    def pid(self) -> int:
        return self._container.pid

    async def start(self) -> None:
        """Lets the program run; returns once it has been executed."""
        await _in_thread(lambda cancel: self._container.start(cancel=cancel))

    async def exec(
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
        pass_fds: Sequence[int] = (),
        seccomp_listener: Optional[int] = None,
        start_timeout: Optional[float] = None,
    ) -> Process:
        """Runs another program in the container."""

        def undo(process: _process.Process) -> None:
            process.kill()
            process.close()

        process = await _in_thread(
            lambda cancel: self._container.exec(
                args, env=env, cwd=cwd, user=user, stdin=stdin, stdout=stdout, stderr=stderr,
                tty=tty, pass_fds=pass_fds, seccomp_listener=seccomp_listener,
                start_timeout=start_timeout, cancel=cancel,
            ),
            undo,
        )
        return await Process(process)._connect()

    async def run(
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
        """Runs another program in the container to its end."""
        stdin, stdout, stderr = run_streams(input, capture_output, stdin, stdout, stderr)
        process = await self.exec(
            args, env=env, cwd=cwd, user=user, stdin=stdin, stdout=stdout, stderr=stderr,
            pass_fds=pass_fds,
        )
        return await _run_to_end(process, input, timeout, check, text, encoding, errors)

    async def kill(self, sig: int = signal.SIGKILL, *, all: bool = False) -> None:
        self._container.kill(sig, all=all)

    async def wait(self, timeout: Optional[float] = None) -> int:
        return await self.init.wait(timeout)

    async def pause(self) -> None:
        await asyncio.to_thread(self._container.pause)

    async def resume(self) -> None:
        await asyncio.to_thread(self._container.resume)

    async def update(
        self,
        resources: Optional[Mapping[str, Any]] = None,
        *,
        memory: Union[int, str, None] = None,
        cpus: Optional[float] = None,
        pids: Optional[int] = None,
    ) -> None:
        await asyncio.to_thread(
            self._container.update, resources, memory=memory, cpus=cpus, pids=pids
        )

    async def stats(self) -> Stats:
        return await asyncio.to_thread(self._container.stats)

    async def state(self) -> State:
        return await asyncio.to_thread(self._container.state)

    async def pids(self) -> List[int]:
        return await asyncio.to_thread(self._container.pids)

    def watch_oom(self) -> None:
        """From now on `events` also tell when the container runs out of memory."""
        self._container.watch_oom()

    def watch_pressure(
        self, resource: str, *, stall: float = 0.15, window: float = 2.0, full: bool = False
    ) -> None:
        """From now on `events` also tell when processes have to wait too long: see
        locule.Container."""
        self._container.watch_pressure(resource, stall=stall, window=window, full=full)

    def events(self, timeout: Optional[float] = None) -> AsyncIterator[Event]:
        """Iterates over what happens to the container, to the end of its first process."""
        return _events_of(self._container.events(), timeout)

    async def commit(
        self, *, store: Optional["ImageStore"] = None, **options: Unpack[NewImageOptions]
    ) -> "Image":
        """Makes an image of what the stopped container has changed: see locule.Container."""
        return await (store or default_image_store()).commit(self, **options)

    async def delete(self, *, force: bool = False) -> None:
        # Not to be left half done: a cancelled task goes on when it is.
        task = asyncio.ensure_future(asyncio.to_thread(self._container.delete, force=force))
        if await _finish(task):
            if not task.cancelled():
                task.exception()
            raise asyncio.CancelledError
        task.result()

    def close(self) -> None:
        """Gives the handle back, and that of `init`. The container goes on."""
        self.init.close()
        self._container.close()

    async def __aenter__(self) -> "Container":
        return self

    async def __aexit__(self, *_exception: object) -> None:
        try:
            if not self._container._handle.closed and not self._container._fate.deleted:
                await self.delete(force=True)
        except NotFound:
            pass
        finally:
            self._container._settle()
            self.close()


class Runtime:
    """Containers in one state directory: see locule.Runtime.

    Methods of a `Plugin` are no coroutines. They are called in the executor's threads, where the
    library is at work; `stopped` is called in the thread of the loop that sees the end.
    """

    def __init__(
        self,
        state_dir: Optional[StrPath] = None,
        *,
        keeper: Optional[StrPath] = None,
        cgroups: bool = True,
        cgroup_manager: str = "cgroupfs",
        annotations: bool = True,
        plugins: Sequence[PluginLike] = (),
        plugin_dir: Optional[StrPath] = None,
        required_plugins: Sequence[str] = (),
        forbid: Sequence[str] = (),
    ) -> None:
        self._runtime = _runtime.Runtime(
            state_dir, keeper=keeper, cgroups=cgroups, cgroup_manager=cgroup_manager,
            annotations=annotations, plugins=plugins, plugin_dir=plugin_dir,
            required_plugins=required_plugins, forbid=forbid,
        )

    @classmethod
    def _of(cls, runtime: _runtime.Runtime) -> "Runtime":
        made = cls.__new__(cls)
        made._runtime = runtime
        return made

    @property
    def state_dir(self) -> str:
        return self._runtime.state_dir

    def fileno(self) -> int:
        return self._runtime.fileno()

    async def create(
        self,
        args: Optional[Args] = None,
        *,
        id: Optional[str] = None,
        detach: bool = False,
        parentage: str = "keeper",
        stdin: Stdio = None,
        stdout: Stdio = None,
        stderr: Stdio = None,
        pass_fds: Sequence[int] = (),
        progress: Optional[Tell] = None,
        timeout: Optional[float] = None,
        **spec: Unpack[CreateOptions],
    ) -> Container:
        """Creates a container; its program waits for `Container.start`."""
        container = await _in_thread(
            lambda cancel: self._runtime.create(
                args, id=id, detach=detach, parentage=parentage, stdin=stdin, stdout=stdout,
                stderr=stderr, pass_fds=pass_fds, progress=progress, timeout=timeout,
                cancel=cancel, **spec,
            ),
            lambda container: container.__exit__(),
        )
        return Container(container, await Process(container.init)._connect())

    async def run(
        self,
        args: Optional[Args] = None,
        *,
        input: Union[bytes, str, None] = None,
        capture_output: bool = False,
        text: bool = False,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        timeout: Optional[float] = None,
        progress: Optional[Tell] = None,
        check: bool = False,
        stdin: Stdio = None,
        stdout: Stdio = None,
        stderr: Stdio = None,
        pass_fds: Sequence[int] = (),
        **spec: Unpack[SpecOptions],
    ) -> Completed:
        """Runs a program in a new container to its end: see `locule.run`."""
        stdin, stdout, stderr = run_streams(input, capture_output, stdin, stdout, stderr)
        deadline = deadline_of(timeout)
        try:
            container = await self.create(
                args, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds,
                progress=progress, timeout=timeout, tty=False, **spec,
            )
        except Timeout as error:
            if timeout is None:
                raise
            raise TimeoutExpired(args, timeout, container_id=error.container_id) from error
        async with container:
            await container.start()
            try:
                return await _run_to_end(
                    container.init, input, left_until(deadline), check, text, encoding, errors
                )
            except TimeoutExpired as expired:
                assert timeout is not None
                raise TimeoutExpired(
                    expired.cmd, timeout, expired.output, expired.stderr,
                    container_id=container.id,
                ) from None

    async def get(self, id: str) -> Container:
        """Opens the container with this id. NotFound if there is none."""
        container = await asyncio.to_thread(self._runtime.get, id)
        return Container(container, Process(container.init))

    async def list(self) -> List[State]:
        return await asyncio.to_thread(self._runtime.list)

    def events(self, timeout: Optional[float] = None) -> AsyncIterator[Event]:
        """Iterates over what happens to the containers of this runtime."""
        return _events_of(self._runtime.events(), timeout)

    async def features(self) -> Dict[str, Any]:
        return self._runtime.features()

    def plugins(self) -> List[Dict[str, Any]]:
        return self._runtime.plugins()

    async def explain(
        self,
        args: Optional[Args] = None,
        *,
        json: bool = False,
        timeout: Optional[float] = None,
        **spec: Unpack[CreateOptions],
    ) -> str:
        """What `create` would do with the same arguments: see locule.Runtime."""
        return await _in_thread(
            lambda cancel: self._runtime.explain(
                args, json=json, timeout=timeout, cancel=cancel, **spec
            )
        )

    def close(self) -> None:
        """Gives the runtime back. Containers go on."""
        self._runtime.close()

    async def __aenter__(self) -> "Runtime":
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.close()


class Image:
    """An image in a store: see locule.Image. `progress` is called in a thread of the executor."""

    def __init__(self, image: _image.Image) -> None:
        # Made by ImageStore only, in a thread: this reads the disk.
        self._image = image
        self._handle = image._handle
        self.digest = image.digest
        seen = image.inspect()
        self._names: List[str] = seen["names"]
        self._size: int = seen["size"]

    @staticmethod
    async def load(
        path: StrPath, *, store: Optional["ImageStore"] = None, **options: Unpack[LoadOptions]
    ) -> "Image":
        """Takes an image from an OCI layout or a docker-archive."""
        return await (store or default_image_store()).load(path, **options)

    @staticmethod
    async def pull(
        reference: str, *, store: Optional["ImageStore"] = None, **options: Unpack[PullOptions]
    ) -> "Image":
        """Fetches an image from a registry."""
        return await (store or default_image_store()).pull(reference, **options)

    @staticmethod
    async def import_(
        path: StrPath, *, store: Optional["ImageStore"] = None, **options: Unpack[NewImageOptions]
    ) -> "Image":
        """Makes an image of one layer of a root filesystem."""
        return await (store or default_image_store()).import_(path, **options)

    @staticmethod
    async def get(name: str, store: Optional["ImageStore"] = None) -> "Image":
        """The image of this name, or with this digest. NotFound if there is none."""
        return await (store or default_image_store()).get(name)

    def __repr__(self) -> str:
        return f"<locule.aio.Image {self.digest}>"

    @property
    def names(self) -> List[str]:
        return list(self._names)

    @property
    def size(self) -> int:
        return self._size

    async def inspect(self) -> Dict[str, Any]:
        return await asyncio.to_thread(self._image.inspect)

    async def tag(self, name: str) -> None:
        """Gives it a further name."""
        await asyncio.to_thread(self._image.tag, name)

    async def save(self, path: StrPath, **options: Unpack[SaveOptions]) -> None:
        """Writes it to an OCI layout, a directory or a tar file."""
        await _in_thread(lambda cancel: self._image.save(path, cancel=cancel, **options))

    async def push(self, reference: str, **options: Unpack[RegistryOptions]) -> None:
        """Sends it to a registry."""
        await _in_thread(lambda cancel: self._image.push(reference, cancel=cancel, **options))

    async def unpack(self, dir: StrPath, **options: Unpack[UnpackOptions]) -> None:
        """Unpacks it to a new or empty directory, as a plain tree."""
        await _in_thread(lambda cancel: self._image.unpack(dir, cancel=cancel, **options))

    async def prepare(
        self,
        args: Optional[Args] = None,
        *,
        progress: Optional[Tell] = None,
        timeout: Optional[float] = None,
        **options: Unpack[PrepareOptions],
    ) -> None:
        """Unpacks into its store what a container with these arguments needs."""
        await _in_thread(
            lambda cancel: self._image.prepare(
                args, progress=progress, cancel=cancel, timeout=timeout, **options
            )
        )

    def close(self) -> None:
        """Gives the handle back. The image stays in its store."""
        self._image.close()

    async def __aenter__(self) -> "Image":
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.close()


class ImageStore:
    """Images and their unpacked layers, in one directory: see locule.ImageStore."""

    def __init__(self, path: Optional[StrPath] = None, *, read_only: bool = False) -> None:
        self._store = _image.ImageStore(path, read_only=read_only)

    @classmethod
    def _of(cls, store: _image.ImageStore) -> "ImageStore":
        made = cls.__new__(cls)
        made._store = store
        return made

    def __repr__(self) -> str:
        return repr(self._store).replace("locule.", "locule.aio.", 1)

    @property
    def path(self) -> str:
        return self._store.path

    async def load(self, path: StrPath, **options: Unpack[LoadOptions]) -> Image:
        """Takes an image from an OCI layout or a docker-archive."""
        return await self._make(
            lambda cancel: self._store.load(path, cancel=cancel, **options)
        )

    async def pull(self, reference: str, **options: Unpack[PullOptions]) -> Image:
        """Fetches an image from a registry."""
        return await self._make(
            lambda cancel: self._store.pull(reference, cancel=cancel, **options)
        )

    async def import_(self, path: StrPath, **options: Unpack[NewImageOptions]) -> Image:
        """Makes an image of one layer of a root filesystem."""
        return await self._make(
            lambda cancel: self._store.import_(path, cancel=cancel, **options)
        )

    async def commit(self, container: Container, **options: Unpack[NewImageOptions]) -> Image:
        """Makes an image of what a stopped container has changed."""
        return await self._make(
            lambda cancel: self._store.commit(container._container, cancel=cancel, **options)
        )

    async def _make(self, call: Callable[[Cancel], _image.Image]) -> Image:
        return await _in_thread(lambda cancel: Image(call(cancel)), lambda image: image.close())

    async def get(self, name: str) -> Image:
        """The image of this name, or with this digest. NotFound if there is none."""
        return await self._make(lambda _cancel: self._store.get(name))

    async def list(self) -> List[ImageSummary]:
        return await asyncio.to_thread(self._store.list)

    async def remove(self, name: str) -> None:
        """Takes a name away, or with a digest an image with all its names."""
        await asyncio.to_thread(self._store.remove, name)

    async def prune(self, *, all: bool = False, timeout: Optional[float] = None) -> Pruned:
        """Removes what no image and no container needs."""
        return await _in_thread(
            lambda cancel: self._store.prune(all=all, cancel=cancel, timeout=timeout)
        )

    def close(self) -> None:
        """Gives the handle back. What is in the store stays."""
        self._store.close()

    async def __aenter__(self) -> "ImageStore":
        return self

    async def __aexit__(self, *_exception: object) -> None:
        self.close()


async def _events_of(
    events: _events.Events, timeout: Optional[float]
) -> AsyncIterator[Event]:
    with events:
        while not events._over:
            event = events._next_now()
            if event is not None:
                yield event
            elif not await _readable(events.fileno(), timeout):
                return


async def _run_to_end(
    process: Process,
    input: Union[bytes, str, None],
    timeout: Optional[float],
    check: bool,
    text: bool,
    encoding: Optional[str],
    errors: Optional[str],
) -> Completed:
    try:
        if isinstance(input, str):
            input = input.encode(
                encoding or locale.getpreferredencoding(False), errors or "strict"
            )
        outputs: Sequence[Optional[bytes]] = await process.communicate(input, timeout)
        returncode = await process.wait()
    except BaseException:
        process.kill()
        raise
    finally:
        process.close()
    decoded: List[Union[str, bytes, None]] = list(outputs)
    if text or encoding is not None or errors is not None:
        for number, output in enumerate(outputs):
            if output is not None:
                # As text files do: universal newlines, the encoding of the locale.
                decoded[number] = io.TextIOWrapper(
                    io.BytesIO(output), encoding=encoding, errors=errors
                ).read()
    completed = Completed(process.args or (), returncode, *decoded)
    if check:
        completed.check_returncode()
    return completed


def default_runtime() -> Runtime:
    """The runtime that `run` uses: that of `locule.run`."""
    return Runtime._of(_runtime.default_runtime())


def default_image_store() -> ImageStore:
    """The store that is used where none is given: that of locule."""
    return ImageStore._of(_image.default_image_store())


async def run(
    args: Optional[Args] = None,
    *,
    input: Union[bytes, str, None] = None,
    capture_output: bool = False,
    text: bool = False,
    encoding: Optional[str] = None,
    errors: Optional[str] = None,
    timeout: Optional[float] = None,
    progress: Optional[Tell] = None,
    check: bool = False,
    stdin: Stdio = None,
    stdout: Stdio = None,
    stderr: Stdio = None,
    pass_fds: Sequence[int] = (),
    **spec: Unpack[SpecOptions],
) -> Completed:
    """Runs a program in a new container to its end: see `locule.run`."""
    return await default_runtime().run(
        args, input=input, capture_output=capture_output, text=text, encoding=encoding,
        errors=errors, timeout=timeout, progress=progress, check=check, stdin=stdin, stdout=stdout,
        stderr=stderr, pass_fds=pass_fds, **spec,
    )

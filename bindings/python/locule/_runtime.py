"""The runtime: a place where containers are kept, and what is done there."""

from __future__ import annotations

import ctypes
import json
import os
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Union

from . import _abi, _choices, _image
from ._cancel import Cancel, use
from ._choices import Args, Choices, Env, ImageLike, Mount, StrPath, Tty, User, path_bytes
from ._container import (
    Completed, Container, descriptors, finish, milliseconds, one_descriptor, run_streams,
)
from ._documents import State, decode
from ._errors import Invalid, Timeout, TimeoutExpired, call, call_for_bytes
from ._events import Events, Hub
from ._handle import Handle, close_with, generation
from ._plugin import LOG, PluginLike, WasmPlugin, handle_of, rules
from ._process import deadline_of, left_until
from ._progress import Tell
from ._stdio import Stdio, Streams

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import CreateOptions, SpecOptions

_PARENTAGE = {
    "keeper": _abi.PARENTAGE_KEEPER,
    "orphan": _abi.PARENTAGE_ORPHAN,
    "child": _abi.PARENTAGE_CHILD,
}

_CGROUP_MANAGERS = {
    "cgroupfs": _abi.CGROUPS_CGROUPFS,
    "systemd": _abi.CGROUPS_SYSTEMD,
}


class Runtime:
    """Containers in one state directory. Safe to use from any thread.

    state_dir   where they are kept; /run/locule for root, else $XDG_RUNTIME_DIR/locule, else
                /tmp/locule-UID
    keeper      the keeper executable; the one that comes with the library
    cgroups     False: do not touch cgroups at all
    cgroup_manager
                who makes the containers' cgroups: the library itself ("cgroupfs"), or "systemd",
                with a scope for each
    annotations False: leave annotations alone that change what is done; with systemd,
                `org.systemd.property.NAME` sets any property of a container's scope
    plugins     what is called at stages of the containers' lives: instances of `Plugin`,
                `WasmPlugin`, or anything that has the methods of a `Plugin`
    plugin_dir  a folder with a configuration file NAME.json for each of further Wasm plugins
    required_plugins
                names of plugins without which no container is created
    forbid      what no plugin may do: change "hooks", "namespaces", "seccomp", "capabilities",
                "confinement", "sysctl" or "devices", or in the case of walls take them away

    What Wasm plugins say, and warnings about plugins, go to the logger "locule.plugin".

    Closing it, or leaving it as a context manager, ends no container. A process forked from
    this one has to open its own.
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
        if cgroup_manager not in _CGROUP_MANAGERS:
            raise Invalid(
                f"cgroup_manager {cgroup_manager!r}: expected one of {[*_CGROUP_MANAGERS]}"
            )
        flags = 0 if cgroups else _abi.RUNTIME_NO_CGROUPS
        flags |= 0 if annotations else _abi.RUNTIME_IGNORE_ANNOTATIONS
        opts = _abi.RuntimeOpts(
            flags=flags,
            cgroup_manager=_CGROUP_MANAGERS[cgroup_manager],
            state_dir=None if state_dir is None else path_bytes(state_dir),
            keeper_path=None if keeper is None else path_bytes(keeper),
            plugin_dir=None if plugin_dir is None else path_bytes(plugin_dir),
            plugin_log=LOG,
        )
        together = rules(required_plugins, forbid)
        if together is not None:
            opts.plugin_rules_json = together
            opts.plugin_rules_json_len = len(together)
        self._handle = Handle("runtime")
        self._hub = Hub()
        with ExitStack() as stack:
            pointers = [_lend(plugin, stack) for plugin in plugins]
            opts.plugins = (ctypes.c_void_p * len(pointers))(*pointers)
            opts.plugin_count = len(pointers)
            call("locule_runtime_new", ctypes.byref(opts), ctypes.byref(self._handle.out))
        close_with(self, self._handle, lambda: "a locule.Runtime was not closed")

    @property
    def state_dir(self) -> str:
        """Where the containers are kept."""
        with self._handle as runtime:
            return os.fsdecode(_abi.library().locule_runtime_state_dir(runtime))

    def fileno(self) -> int:
        """A descriptor that is readable while there are events. Only to be polled."""
        with self._handle as runtime:
            fd: int = _abi.library().locule_runtime_fd(runtime)
            return fd

    def plugins(self) -> List[Dict[str, Any]]:
        """The plugins in the order in which they are called: name, stages, whether each is
        disabled, and so on."""
        with self._handle as runtime:
            plugins: List[Dict[str, Any]] = json.loads(
                call_for_bytes("locule_runtime_plugins_json", runtime)
            )
            return plugins

    def create(
        self,
        args: Optional[Args] = None,
        *,
        rootfs: Optional[StrPath] = None,
        bundle: Optional[StrPath] = None,
        spec: Union[Mapping[str, Any], str, bytes, None] = None,
        overlay: Optional[bool] = None,
        env: Optional[Env] = None,
        cwd: Optional[StrPath] = None,
        user: Optional[User] = None,
        hostname: Optional[str] = None,
        mounts: Sequence[Union[Mount, str]] = (),
        network: Optional[str] = None,
        readonly: Optional[bool] = None,
        memory: Union[int, str, None] = None,
        cpus: Optional[float] = None,
        pids: Optional[int] = None,
        image: Optional[ImageLike] = None,
        entrypoint: Optional[Sequence[str]] = None,
        stop_signal: Union[int, str, None] = None,
        annotations: Optional[Mapping[str, str]] = None,
        overrides: Optional[Mapping[str, Any]] = None,
        lower: Sequence[StrPath] = (),
        changes: Optional[StrPath] = None,
        tty: Optional[Tty] = None,
        id: Optional[str] = None,
        detach: bool = False,
        parentage: str = "keeper",
        stdin: Stdio = None,
        stdout: Stdio = None,
        stderr: Stdio = None,
        text: bool = False,
        encoding: Optional[str] = None,
        errors: Optional[str] = None,
        pass_fds: Sequence[int] = (),
        seccomp_listener: Optional[int] = None,
        progress: Optional[Tell] = None,
        timeout: Optional[float] = None,
        cancel: Optional[Cancel] = None,
    ) -> Container:
        """Creates a container; its program waits for `Container.start`.

        Everything up to `changes` is as for `locule.run`, the streams are those of the first
        process, `Container.init`. Besides:

        tty         a terminal for the program, ``container.init.terminal``, in place of the
                    streams: True, or (rows, columns)
        id          letters, digits and any of _+-. ; one is invented
        detach      let the container live on when this process ends; else it is killed then,
                    and everything of it removed
        parentage   whose child the first process is: that of its "keeper", of this process
                    ("child"), or of the nearest subreaper ("orphan")
        seccomp_listener
                    a connected AF_UNIX socket over which the listener of the seccomp filter
                    comes, in place of `listenerPath`: for `socket.recv_fds` at its other end, in
                    a thread, because creation and start may wait for answers to notifications
        progress    with an image: is told how far fetching and unpacking it are: see `Image`
        timeout     how many seconds it may take, in which fetching and unpacking an image count.
                    Without it an image takes as long as it takes, and the rest 60 seconds
        cancel      a token that stops it
        """
        if progress is not None and image is None:
            raise Invalid("progress: there is no image of which to tell something")
        if parentage not in _PARENTAGE:
            raise Invalid(f"parentage {parentage!r}: expected one of {[*_PARENTAGE]}")
        choices = Choices(
            args, rootfs=rootfs, bundle=bundle, spec=spec, overlay=overlay, env=env, cwd=cwd,
            user=user, hostname=hostname, mounts=mounts, network=network, readonly=readonly,
            memory=memory, cpus=cpus, pids=pids, tty=tty, image=image, entrypoint=entrypoint,
            stop_signal=stop_signal, annotations=annotations, overrides=overrides, lower=lower,
            changes=changes,
        )
        names = _choices.parse_args(args)
        with ExitStack() as stack:
            runtime = stack.enter_context(self._handle)
            opts = _create_opts(choices)
            if image is not None:
                deadline = deadline_of(timeout)
                opts.image = _image.lend(
                    image, stack, opts.image_overrides_json, pull=True, deadline=deadline,
                    progress=progress, cancel=cancel,
                )
                timeout = left_until(deadline)
            opts.flags |= _abi.CREATE_DETACH if detach else 0
            opts.id = None if id is None else _choices.text_of(id, "id").encode()
            opts.parentage = _PARENTAGE[parentage]
            opts.timeout_ms = milliseconds(timeout)
            opts.pass_fds = descriptors(pass_fds)
            opts.pass_fd_count = len(pass_fds)
            opts.seccomp_listener = one_descriptor(seccomp_listener)
            opts.cancel = use(cancel, stack)
            streams = Streams(stdin, stdout, stderr, text, encoding, errors)
            stack.callback(streams.close)
            streams.fill(opts)
            handle = Handle("container")
            out = ctypes.byref(handle.out)
            try:
                call("locule_container_create", runtime, ctypes.byref(opts), out)
                return Container(self, handle, names, streams)
            except BaseException:
                # KeyboardInterrupt, above all: what nobody has must not stay.
                if handle.made:
                    with handle as pointer:
                        _abi.library().locule_container_delete(pointer, _abi.DELETE_FORCE, None)
                    handle.close()
                raise

    def run(
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
            container = self.create(
                args, stdin=stdin, stdout=stdout, stderr=stderr, text=text, encoding=encoding,
                errors=errors, pass_fds=pass_fds, progress=progress, timeout=timeout, tty=False,
                **spec,
            )
        except Timeout as error:
            if timeout is None:
                raise
            raise TimeoutExpired(args, timeout, container_id=error.container_id) from error
        with container:
            container.start()
            try:
                return finish(container.init, input, left_until(deadline), check)
            except TimeoutExpired as expired:
                assert timeout is not None
                raise TimeoutExpired(
                    expired.cmd, timeout, expired.output, expired.stderr,
                    container_id=container.id,
                ) from None

    def get(self, id: str) -> Container:
        """Opens the container with this id, whoever created it. NotFound if there is none."""
        with self._handle as runtime:
            handle = Handle("container")
            name = _choices.text_of(id, "id").encode()
            call("locule_container_open", runtime, name, ctypes.byref(handle.out))
        return Container(self, handle)

    def list(self) -> List[State]:
        """The state of every container in the state directory, whoever created it."""
        with self._handle as runtime:
            documents = json.loads(call_for_bytes("locule_runtime_list_json", runtime))
        return [State.of(document) for document in documents]

    def events(self, timeout: Optional[float] = None) -> Events:
        """Iterates over what happens to the containers created or opened by this object.

        With a timeout, in seconds, at most that long for each event.
        """
        return Events(self, timeout, None)

    def _tell_listeners(self) -> None:
        """Gives the iterators what has happened, before a handle goes that it hangs on."""
        if self._hub and not self._handle.inherited:
            try:
                with self._handle as runtime:
                    self._hub.dispatch(runtime)
            except ValueError:
                pass  # closed, and so are the iterators

    def features(self) -> Dict[str, Any]:
        """The features document of the OCI runtime specification: what can be done here."""
        with self._handle as runtime:
            return decode(call_for_bytes("locule_runtime_features_json", runtime))

    def explain(
        self,
        args: Optional[Args] = None,
        *,
        json: bool = False,
        timeout: Optional[float] = None,
        cancel: Optional[Cancel] = None,
        **spec: Unpack[CreateOptions],
    ) -> str:
        """What `create` would do with the same arguments, step by step, without doing it.

        But an image, which has to be in its store, is unpacked there if it is not yet, because
        some of it is needed for this. `timeout` says how many seconds that may take, `cancel`
        stops it.
        """
        format = _abi.EXPLAIN_JSON if json else _abi.EXPLAIN_TEXT
        choices = Choices(args, **spec)
        with ExitStack() as stack:
            runtime = stack.enter_context(self._handle)
            opts = _create_opts(choices)
            if choices.image is not None:
                deadline = deadline_of(timeout)
                opts.image = _image.lend(
                    choices.image, stack, opts.image_overrides_json, pull=False,
                    deadline=deadline, cancel=cancel,
                )
                timeout = left_until(deadline)
            opts.timeout_ms = milliseconds(timeout)
            opts.cancel = use(cancel, stack)
            text = call_for_bytes("locule_runtime_explain", runtime, ctypes.byref(opts), format)
            return text.decode()

    def close(self) -> None:
        """Gives the runtime back. Containers go on, and so do their objects."""
        self._handle.close()

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _lend(plugin: PluginLike, stack: ExitStack) -> int:
    """A plugin's handle for one call."""
    if isinstance(plugin, WasmPlugin):
        return stack.enter_context(plugin._handle)
    handle = handle_of(plugin)
    stack.callback(handle.close)
    return stack.enter_context(handle)


def _create_opts(choices: Choices) -> _abi.CreateOpts:
    """All but the image, which may have to be fetched for it."""
    opts = _abi.CreateOpts(flags=choices.flags)
    opts.bundle = None if choices.bundle is None else path_bytes(choices.bundle)
    opts.changes = None if choices.changes is None else path_bytes(choices.changes)
    if choices.lower:
        layers = [path_bytes(layer) for layer in choices.lower]
        opts.lower = (ctypes.c_char_p * len(layers))(*layers)
        opts.lower_count = len(layers)
    if choices.image is not None:
        overrides = choices.overrides_json()
        if overrides is not None:
            opts.image_overrides_json = overrides
            opts.image_overrides_json_len = len(overrides)
        return opts
    document = choices.document()
    if document is not None:
        opts.spec_json = document
        opts.spec_json_len = len(document)
    return opts


_default: Optional[Runtime] = None
_default_generation = 0
_opening = threading.Lock()


def default_runtime() -> Runtime:
    """The runtime that `locule.run` uses, opened at the first call; one for each process."""
    global _default, _default_generation
    runtime = _default
    if runtime is None or _default_generation != generation():
        with _opening:
            if _default is None or _default_generation != generation():
                _default, _default_generation = Runtime(), generation()
            runtime = _default
    return runtime


def _unlock_in_child() -> None:
    global _opening
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_unlock_in_child)


def run(
    args: Optional[Args] = None,
    *,
    rootfs: Optional[StrPath] = None,
    bundle: Optional[StrPath] = None,
    spec: Union[Mapping[str, Any], str, bytes, None] = None,
    overlay: Optional[bool] = None,
    input: Union[bytes, str, None] = None,
    capture_output: bool = False,
    text: bool = False,
    encoding: Optional[str] = None,
    errors: Optional[str] = None,
    timeout: Optional[float] = None,
    progress: Optional[Tell] = None,
    check: bool = False,
    env: Optional[Env] = None,
    cwd: Optional[StrPath] = None,
    user: Optional[User] = None,
    hostname: Optional[str] = None,
    mounts: Sequence[Union[Mount, str]] = (),
    network: Optional[str] = None,
    readonly: Optional[bool] = None,
    memory: Union[int, str, None] = None,
    cpus: Optional[float] = None,
    pids: Optional[int] = None,
    image: Optional[ImageLike] = None,
    entrypoint: Optional[Sequence[str]] = None,
    stop_signal: Union[int, str, None] = None,
    annotations: Optional[Mapping[str, str]] = None,
    overrides: Optional[Mapping[str, Any]] = None,
    lower: Sequence[StrPath] = (),
    changes: Optional[StrPath] = None,
    stdin: Stdio = None,
    stdout: Stdio = None,
    stderr: Stdio = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Runs a program in a new container to its end; like subprocess.run.

    Without `image`, `rootfs`, `bundle` and `spec` the container sees this machine's files below a
    private overlay: what it changes vanishes with it. It has no network, and nothing of this
    process's environment.

    image       an Image, or the name of one in `default_image_store`, which fetches it from its
                registry if it is not there
    rootfs      a directory with the files of the container
    bundle      an OCI bundle: a directory with config.json
    spec        the config.json itself; relative paths in it are taken from `bundle`, else
                from the current directory
    overlay     True: write to a private overlay, not to the root's own directory; with an image
                False: to a copy of its files, as it is where the kernel has no overlay
    lower       with an overlay: further layers beneath the root, the topmost first
    changes     with an overlay or an image: a directory that takes what the container changes, in
                its `upper`, and keeps it

    The arguments above choose what the container is; those below change it, in an image, bundle
    or spec too, where they leave alone what is not given:

    args        the program and its arguments; with an image what its Cmd is
    entrypoint  with an image: in place of its Entrypoint; its Cmd does not count then, either
    env         the environment, all of it; a PATH is added if there is none. With an image what
                is added to its own, and for None taken away
    cwd         the working directory in the container
    user        a user id, "uid:gid" or (uid, gid), as in the container; with an image also names
                that it has, "user" or "user:group"
    hostname    the host name
    mounts      Mount(source, target, readonly=True) or "source:target[:ro|rw]", which is
                read-only, too, unless it says rw
    network     "none" (the default without a bundle or spec) or "host"
    readonly    True: the root filesystem is read-only
    memory      the most memory, in bytes or as in "256M"
    cpus        the most processors' worth of time, as in 0.5
    pids        the most processes
    annotations of the configuration, beside what it has
    stop_signal with an image: name or number of the signal that ends it, for an annotation
    overrides   with an image: what there is no argument for, by the names of docs/images.md, such
                as {"clearEnv": True, "patch": {"domainname": "example"}}. Invalid if one of the
                arguments above decides it, too; a bind among its "mounts" is writable unless it
                says "readonly"

    A bundle's or spec's own terminal is left out: `run` is about streams. The rest is as in
    subprocess.run: input, capture_output, text, encoding, errors, check,
    stdin, stdout, stderr. After `timeout` seconds, in which fetching and unpacking an image and
    the creation of the container count, everything in it is killed and TimeoutExpired raised.
    `progress` is told how far fetching and unpacking an image are: see `Image`. `pass_fds` become
    3, 4, ... in the program.

    Returns a Completed: args, returncode (negative for a signal), stdout, stderr. Raises
    LoculeError and its family if there is no container or program to run. Whatever happens,
    the container is gone when it returns. Any thread.
    """
    return default_runtime().run(
        args, rootfs=rootfs, bundle=bundle, spec=spec, overlay=overlay, input=input,
        capture_output=capture_output, text=text, encoding=encoding, errors=errors,
        timeout=timeout, progress=progress, check=check, env=env, cwd=cwd, user=user,
        hostname=hostname, mounts=mounts, network=network, readonly=readonly, memory=memory,
        cpus=cpus, pids=pids, image=image, entrypoint=entrypoint, stop_signal=stop_signal,
        annotations=annotations, overrides=overrides, lower=lower, changes=changes, stdin=stdin,
        stdout=stdout, stderr=stderr, pass_fds=pass_fds,
    )

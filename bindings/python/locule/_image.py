"""Images: a store of them, what comes into it and what goes out."""

from __future__ import annotations

import ctypes
import json
import os
import re
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, Union

from . import _abi
from ._cancel import Cancel, use
from ._choices import Args, Choices, ImageLike, StrPath, path_bytes, text_of
from ._container import Container, milliseconds
from ._documents import decode
from ._errors import Invalid, LoculeError, NotFound, bytes_of, call, call_for_bytes
from ._handle import Handle, close_with, generation
from ._process import Deadline, left_until
from ._progress import Listener, Tell
from ._version import has

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import LoadOptions, NewImageOptions, PrepareOptions, PullOptions

_COMPRESSIONS = {
    "gzip": _abi.COMPRESSION_GZIP,
    "zstd": _abi.COMPRESSION_ZSTD,
    "none": _abi.COMPRESSION_NONE,
}

_OWNERS = {
    "auto": _abi.OWNER_AUTO,
    "image": _abi.OWNER_IMAGE,
    "caller": _abi.OWNER_CALLER,
}

# What `ImageStore.get` takes for a digest. Nobody means a repository of that name.
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{12,}")


@dataclass(frozen=True)
class ImageSummary:
    """An image in the list of a store."""

    #: The digest of its manifest.
    digest: str
    #: Its names, whole: "docker.io/library/alpine:latest".
    names: Sequence[str]
    #: Bytes of its manifest, configuration and layers, compressed as they are.
    size: int
    #: When it was made, as it says itself: RFC 3339. None if it does not say.
    created: Optional[str]
    #: os/architecture[/variant].
    platform: str
    #: The media type of its manifest.
    media_type: str


@dataclass(frozen=True)
class Pruned:
    """What `ImageStore.prune` has removed."""

    #: Digests of images.
    images: Sequence[str]
    #: Number of blobs.
    blobs: int
    #: Number of unpacked layers.
    layers: int
    #: Bytes that the blobs had.
    bytes: int


class Image:
    """An image in a store, for `locule.run(image=...)`. Safe to use from any thread.

    It goes on meaning the same image when its names are given to another one. `close` gives the
    handle back, as does dropping it; the image stays in its store.

    Where a call takes `progress`, that is called with a `Progress`, on this thread: for each blob
    at its beginning and end, and between them at most ten times a second. What it raises stops
    the call and comes out of it. It must not use the same store. `cancel` is a token that stops
    the call, `timeout` says how many seconds it may take: None for as long as it takes.
    """

    #: The digest of the manifest, "sha256:...".
    digest: str

    def __init__(self, handle: Handle) -> None:
        # Made by ImageStore only.
        self._handle = handle
        close_with(self, handle)
        with handle as image:
            self.digest = _abi.library().locule_image_digest(image).decode()

    @staticmethod
    def load(
        path: StrPath,
        *,
        name: Optional[str] = None,
        from_: Optional[str] = None,
        platform: Optional[str] = None,
        store: Optional["ImageStore"] = None,
        progress: Optional[Tell] = None,
        cancel: Optional[Cancel] = None,
        timeout: Optional[float] = None,
    ) -> "Image":
        """Takes an image from an OCI layout, a directory or a tar file, or from a docker-archive.

        name        its name in the store; the one that it has there
        from_       which image of several, by the name that it has there
        platform    which of an index, as os/architecture[/variant]; this machine's
        store       where it is kept; `default_image_store`

        Nothing of it is used before its digest and size were found right: else SpecError, which
        names the blob.
        """
        return (store or default_image_store()).load(
            path, name=name, from_=from_, platform=platform, progress=progress, cancel=cancel,
            timeout=timeout,
        )

    @staticmethod
    def pull(
        reference: str,
        *,
        name: Optional[str] = None,
        platform: Optional[str] = None,
        store: Optional["ImageStore"] = None,
        username: Optional[str] = None,
        password: Optional[str] = None,
        auth_file: Optional[StrPath] = None,
        ca_file: Optional[StrPath] = None,
        registries_file: Optional[StrPath] = None,
        progress: Optional[Tell] = None,
        cancel: Optional[Cancel] = None,
        timeout: Optional[float] = None,
    ) -> "Image":
        """Fetches an image from a registry. "alpine" is "docker.io/library/alpine:latest".

        name        its name in the store; the reference
        platform, store
                    as for `load`
        username, password
                    credentials; a password alone is a token
        auth_file   where they are otherwise; $REGISTRY_AUTH_FILE, then the usual places of podman
                    and Docker
        ca_file     certificates to trust beside the system's, in PEM
        registries_file
                    mirrors and policy; /etc/locule/registries.json, if it is there

        What the store has of it already is not fetched again.
        """
        return (store or default_image_store()).pull(
            reference, name=name, platform=platform, username=username, password=password,
            auth_file=auth_file, ca_file=ca_file, registries_file=registries_file,
            progress=progress, cancel=cancel, timeout=timeout,
        )

    @staticmethod
    def import_(
        path: StrPath,
        *,
        name: Optional[str] = None,
        compression: str = "gzip",
        config: Optional[Mapping[str, Any]] = None,
        author: Optional[str] = None,
        comment: Optional[str] = None,
        created: Optional[str] = None,
        store: Optional["ImageStore"] = None,
        progress: Optional[Tell] = None,
        cancel: Optional[Cancel] = None,
        timeout: Optional[float] = None,
    ) -> "Image":
        """Makes an image of one layer of a root filesystem, a directory or a tar file.

        name        its name in the store; it may have none
        compression of the layer: "gzip", "zstd" or "none"
        config      `config` of the image configuration: {"Cmd": ["sh"], "Env": ["A=b"]}
        author, comment
                    who made it, and a remark for its history
        created     when, in RFC 3339 and UTC: "2026-02-03T04:05:06Z"; the latest modification time
                    in the layer, so that the same input gives the same image
        store       where it is kept; `default_image_store`
        """
        return (store or default_image_store()).import_(
            path, name=name, compression=compression, config=config, author=author,
            comment=comment, created=created, progress=progress, cancel=cancel, timeout=timeout,
        )

    @staticmethod
    def get(name: str, store: Optional["ImageStore"] = None) -> "Image":
        """The image of this name, or with this digest, of which the first twelve hexadecimal
        digits do. NotFound if there is none."""
        return (store or default_image_store()).get(name)

    def __repr__(self) -> str:
        return f"<locule.Image {self.digest}>"

    @property
    def names(self) -> List[str]:
        """The names that it had when it was looked up, whole: "docker.io/library/alpine:latest"."""
        return list(self.inspect()["names"])

    @property
    def size(self) -> int:
        """Bytes of its manifest, configuration and layers, compressed as they are."""
        return int(self.inspect()["size"])

    def inspect(self) -> Dict[str, Any]:
        """What it is: `digest`, `names`, `size`, `mediaType`, `platform`, `created`, `layers` (each
        with `digest`, `size`, `mediaType` and `diffId`), `config`, which is the image
        configuration, and `manifest`."""
        with self._handle as image:
            return decode(call_for_bytes("locule_image_inspect_json", image))

    def tag(self, name: str) -> None:
        """Gives it a further name, taking that from the image that has it. While somebody prunes
        the store it waits, half a minute at most: then Busy."""
        with self._handle as image:
            call("locule_image_tag", image, text_of(name, "name").encode())

    def save(
        self,
        path: StrPath,
        *,
        name: Optional[str] = None,
        progress: Optional[Tell] = None,
        cancel: Optional[Cancel] = None,
        timeout: Optional[float] = None,
    ) -> None:
        """Writes it to an OCI layout: a tar file if `path` ends with ".tar", else a directory, to
        whose images it is added. `name` is its name there; the first one it has here."""
        _transfer(
            "locule_image_save", self._handle, path_bytes(path), name=name, progress=progress,
            cancel=cancel, timeout=timeout,
        )

    def push(
        self,
        reference: str,
        *,
        username: Optional[str] = None,
        password: Optional[str] = None,
        auth_file: Optional[StrPath] = None,
        ca_file: Optional[StrPath] = None,
        registries_file: Optional[StrPath] = None,
        progress: Optional[Tell] = None,
        cancel: Optional[Cancel] = None,
        timeout: Optional[float] = None,
    ) -> None:
        """Sends it to a registry, under this name there. The rest is as for `pull`. What the
        registry has of it already is not sent again."""
        _transfer(
            "locule_image_push", self._handle, text_of(reference, "reference").encode(),
            username=username, password=password, auth_file=auth_file, ca_file=ca_file,
            registries_file=registries_file, progress=progress, cancel=cancel, timeout=timeout,
        )

    def unpack(
        self,
        dir: StrPath,
        *,
        owner: str = "auto",
        max_bytes: Optional[int] = None,
        max_entries: Optional[int] = None,
        max_ratio: Optional[int] = None,
        progress: Optional[Tell] = None,
        cancel: Optional[Cancel] = None,
        timeout: Optional[float] = None,
    ) -> None:
        """Unpacks it to a new or empty directory, as a plain tree. A container needs no such tree.
        Exists if the directory is not empty.

        owner       whom the files belong to: "image" (whom it says), "caller", or "auto", which is
                    the former for root and the latter for others
        max_bytes, max_entries
                    the most that a layer may have, uncompressed; 128 GiB and 4,000,000
        max_ratio   how many times larger than compressed a layer may be, beyond its first 64 MiB;
                    1,024
        """
        _transfer(
            "locule_image_unpack", self._handle, path_bytes(dir), owner=owner,
            max_bytes=max_bytes, max_entries=max_entries, max_ratio=max_ratio, progress=progress,
            cancel=cancel, timeout=timeout,
        )

    def prepare(
        self,
        args: Optional[Args] = None,
        *,
        progress: Optional[Tell] = None,
        cancel: Optional[Cancel] = None,
        timeout: Optional[float] = None,
        **options: Unpack[PrepareOptions],
    ) -> None:
        """Unpacks into its store what a container needs that is created of it with the same
        arguments, so that its creation need not. Nothing happens if that is there.

        It has those arguments of `Runtime.create` that change what is in an image; of them only
        `uidMappings` and `gidMappings` in `overrides` make a difference, and `overlay`, without
        which there is nothing to do ahead. `run` and `create` do the same at their beginning. In a
        store that is opened read-only nothing is unpacked.
        """
        overrides = Choices(args, image=self, **options).overrides_json()
        _prepare(self._handle, overrides, progress=progress, cancel=cancel, timeout=timeout)

    def close(self) -> None:
        """Gives the handle back. The image stays in its store."""
        self._handle.close()

    def __enter__(self) -> "Image":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class ImageStore:
    """Images and their unpacked layers, in one directory. Safe to use from any thread, and by any
    number of processes at once.

    path        the directory, made if missing; /var/lib/locule/images for root, else
                $XDG_DATA_HOME/locule/images, else ~/.local/share/locule/images
    read_only   change nothing: use what is there. Root may open another user's store so

    `load`, `pull` and `import_` are those of `Image`. Closing it closes no image.
    """

    def __init__(self, path: Optional[StrPath] = None, *, read_only: bool = False) -> None:
        opts = _abi.ImageStoreOpts(
            flags=_abi.IMAGE_STORE_READ_ONLY if read_only else 0,
            path=None if path is None else path_bytes(path),
        )
        self._handle = Handle("image_store")
        close_with(self, self._handle)
        call("locule_image_store_open", ctypes.byref(opts), ctypes.byref(self._handle.out))

    def __repr__(self) -> str:
        return f"<locule.ImageStore {self.path}>"

    @property
    def path(self) -> str:
        """Its directory."""
        with self._handle as store:
            return os.fsdecode(_abi.library().locule_image_store_path(store))

    def load(
        self, path: StrPath, *, cancel: Optional[Cancel] = None, **options: Unpack[LoadOptions]
    ) -> Image:
        """Takes an image from an OCI layout or a docker-archive: see `Image.load`."""
        return self._make("load", path_bytes(path), cancel=cancel, **options)

    def pull(
        self, reference: str, *, cancel: Optional[Cancel] = None, **options: Unpack[PullOptions]
    ) -> Image:
        """Fetches an image from a registry: see `Image.pull`."""
        name = text_of(reference, "reference").encode()
        return self._make("pull", name, cancel=cancel, **options)

    def import_(
        self, path: StrPath, *, cancel: Optional[Cancel] = None, **options: Unpack[NewImageOptions]
    ) -> Image:
        """Makes an image of a root filesystem: see `Image.import_`."""
        return self._make("import", path_bytes(path), cancel=cancel, **options)

    def commit(
        self,
        container: Container,
        *,
        cancel: Optional[Cancel] = None,
        **options: Unpack[NewImageOptions],
    ) -> Image:
        """Makes an image of what a container has changed: see `Container.commit`."""
        return self._make("commit", container._handle, cancel=cancel, **options)

    def _make(self, verb: str, what: Union[bytes, Handle], **options: Any) -> Image:
        function = f"locule_image_store_{verb}"
        return _made(lambda out: _transfer(function, self._handle, what, out=out, **options))

    def get(self, name: str) -> Image:
        """The image of this name, or with this digest, of which the first twelve hexadecimal
        digits do. NotFound if there is none."""
        key = text_of(name, "name").encode()
        with self._handle as store:
            return _made(lambda out: call("locule_image_store_get", store, key, out))

    def list(self) -> List[ImageSummary]:
        """All images, in the order of their names, those without one last. One that is damaged is
        left out."""
        with self._handle as store:
            documents = json.loads(call_for_bytes("locule_image_store_list_json", store))
        return [
            ImageSummary(
                digest=one["digest"], names=one["names"], size=one["size"],
                created=one.get("created"), platform=one["platform"],
                media_type=one["mediaType"],
            )
            for one in documents
        ]

    def remove(self, name: str) -> None:
        """Takes a name away, or with a digest an image with all its names. What nothing else needs
        any more goes with `prune`. It waits as `Image.tag` does."""
        with self._handle as store:
            call("locule_image_store_remove", store, text_of(name, "name").encode())

    def prune(
        self,
        *,
        all: bool = False,
        cancel: Optional[Cancel] = None,
        timeout: Optional[float] = None,
    ) -> Pruned:
        """Removes images without a name, and what no image and no container needs; with `all` also
        the images that no container uses, named or not.

        It waits for those who are making something, up to half a minute: then Busy. `cancel` and
        `timeout` stop it, Ctrl-C does not; what it has left the next one removes.
        """
        done = decode(bytes_of(lambda out: _transfer(
            "locule_image_store_prune_json", self._handle, out=out,
            flags=_abi.PRUNE_ALL if all else 0, cancel=cancel, timeout=timeout,
        )))
        return Pruned(
            images=done["images"], blobs=done["blobs"], layers=done["layers"], bytes=done["bytes"]
        )

    def close(self) -> None:
        """Gives the handle back. What is in the store stays, and images go on."""
        self._handle.close()

    def __enter__(self) -> "ImageStore":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def _made(fill: Callable[[Any], object]) -> Image:
    """The image whose handle a call stores in what it is given."""
    handle = Handle("image")
    try:
        fill(ctypes.byref(handle.out))
        return Image(handle)
    except BaseException:  # KeyboardInterrupt, above all
        if handle.made:
            handle.close()
        raise


def _prepare(handle: Handle, overrides: Optional[bytes], **options: Any) -> None:
    length = 0 if overrides is None else len(overrides)
    _transfer("locule_image_prepare", handle, overrides, length, **options)


def _transfer(
    function: str,
    handle: Handle,
    *what: Union[bytes, int, None, Handle],
    out: Any = None,
    flags: int = 0,
    name: Optional[str] = None,
    from_: Optional[str] = None,
    platform: Optional[str] = None,
    username: Optional[str] = None,
    password: Optional[str] = None,
    auth_file: Optional[StrPath] = None,
    ca_file: Optional[StrPath] = None,
    registries_file: Optional[StrPath] = None,
    compression: str = "gzip",
    config: Optional[Mapping[str, Any]] = None,
    author: Optional[str] = None,
    comment: Optional[str] = None,
    created: Optional[str] = None,
    owner: str = "auto",
    max_bytes: Optional[int] = None,
    max_entries: Optional[int] = None,
    max_ratio: Optional[int] = None,
    progress: Optional[Tell] = None,
    cancel: Optional[Cancel] = None,
    timeout: Optional[float] = None,
) -> None:
    """Calls a function that takes locule_image_opts: after `what`, and before `out`, if there is
    any. The library says what is not for it."""
    document = None if config is None else json.dumps(config).encode()
    opts = _abi.ImageOpts(
        flags=flags,
        name=_text(name, "name"),
        platform=_text(platform, "platform"),
        timeout_ms=milliseconds(timeout),
        compression=_one_of(_COMPRESSIONS, compression, "compression"),
        username=_text(username, "username"),
        password=_text(password, "password"),
        auth_file=None if auth_file is None else path_bytes(auth_file),
        ca_file=None if ca_file is None else path_bytes(ca_file),
        registries_file=None if registries_file is None else path_bytes(registries_file),
        config_json=document,
        config_json_len=0 if document is None else len(document),
        author=_text(author, "author"),
        comment=_text(comment, "comment"),
        created=_text(created, "created"),
        max_bytes=_limit(max_bytes, "max_bytes"),
        max_entries=_limit(max_entries, "max_entries"),
        max_ratio=_limit(max_ratio, "max_ratio"),
        owner=_one_of(_OWNERS, owner, "owner"),
        **{"from": _text(from_, "from_")},
    )
    failure: Optional[LoculeError] = None
    with ExitStack() as stack:
        arguments: List[Any] = [
            stack.enter_context(one) if isinstance(one, Handle) else one for one in (handle, *what)
        ]
        opts.cancel = use(cancel, stack)
        listener = stack.enter_context(Listener(progress))
        opts.progress = listener.function
        arguments.append(ctypes.byref(opts))
        if out is not None:
            arguments.append(out)
        try:
            call(function, *arguments)
        except LoculeError as error:
            failure = error
    # Out here, so that neither becomes the other's context.
    if listener.raised is not None:
        raise listener.raised
    if failure is not None:
        raise failure


def _text(value: Optional[str], what: str) -> Optional[bytes]:
    return None if value is None else text_of(value, what).encode()


def _one_of(numbers: Mapping[str, int], name: str, what: str) -> int:
    if name not in numbers:
        raise Invalid(f"{what} {name!r}: expected one of {[*numbers]}")
    return numbers[name]


def _limit(number: Optional[int], what: str) -> int:
    """For the library, where 0 is the default."""
    if number is not None and not 0 < number < 2**64:
        raise Invalid(f"{what} {number!r}: expected a number above 0")
    return number or 0


def lend(
    image: ImageLike,
    stack: ExitStack,
    overrides: Optional[bytes],
    *,
    pull: bool,
    deadline: Deadline,
    progress: Optional[Tell] = None,
    cancel: Optional[Cancel] = None,
) -> int:
    """The pointer of an image for a call, valid as long as the stack is open: of the image itself,
    or of that which has this name in the default store, which may fetch what it has not.

    What a container needs of it is unpacked. The call would do that, too, but tells nobody how far
    it is, so that Ctrl-C would not stop it.
    """
    if isinstance(image, str):
        image = _find(image, pull=pull, deadline=deadline, progress=progress, cancel=cancel)
        stack.callback(image.close)
    pointer = stack.enter_context(image._handle)
    _prepare(
        image._handle, overrides, progress=progress, cancel=cancel, timeout=left_until(deadline)
    )
    return pointer


def _find(
    name: str,
    *,
    pull: bool,
    deadline: Deadline,
    progress: Optional[Tell],
    cancel: Optional[Cancel],
) -> Image:
    store = default_image_store()
    try:
        return store.get(name)
    except NotFound:
        if not pull or _DIGEST.fullmatch(name) or not has("registry"):
            raise
    return store.pull(name, progress=progress, cancel=cancel, timeout=left_until(deadline))


_default: Optional[ImageStore] = None
_default_generation = 0
_opening = threading.Lock()


def default_image_store() -> ImageStore:
    """The store that is used where none is given, opened at the first call; one for each
    process."""
    global _default, _default_generation
    store = _default
    if store is None or _default_generation != generation():
        with _opening:
            if _default is None or _default_generation != generation():
                _default, _default_generation = ImageStore(), generation()
            store = _default
    return store


def _unlock_in_child() -> None:
    global _opening
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_unlock_in_child)

"""Which library runs, and what it can do."""

from __future__ import annotations

from . import _abi


def library_version() -> str:
    """The version of liblocule, such as "0.1.0"."""
    version: bytes = _abi.library().locule_version()
    return version.decode()


def has(feature: str) -> bool:
    """Whether liblocule has a feature, such as "exec". `Runtime.features` is about the machine."""
    return bool(_abi.library().locule_has(feature.encode()))

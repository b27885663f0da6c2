"""Locule: OCI containers from Python, without a daemon, a runtime command or a fork.

    import locule

    done = locule.run(["uname", "-a"], capture_output=True, text=True)

`run` is subprocess.run in a container. `Runtime`, `Container` and `Process` are there for
containers that live longer, `Image` for what they are made from, `locule.aio` for asyncio. Every
error is a `LoculeError`. A `Plugin` sees, changes or refuses containers.
"""

from ._cancel import Cancel
from ._choices import Mount, default_spec
from ._container import Completed, Container
from ._documents import Change, State, Stats
from ._errors import (
    Busy, CalledProcessError, Cancelled, Exists, HookError, InternalError, Invalid, KeeperError,
    LoculeError, NotFound, PermissionDenied, PluginError, ProgramError, ResourceError, SpecError,
    StateError, SystemCallError, Timeout, TimeoutExpired, Unsupported,
)
from ._events import Event, Events
from ._image import Image, ImageStore, ImageSummary, Pruned, default_image_store
from ._plugin import Plugin, Refused, WasmPlugin
from ._plugin_call import Call
from ._process import Process
from ._progress import Progress
from ._runtime import Runtime, default_runtime, run
from ._stdio import DEVNULL, PIPE, STDOUT, Terminal
from ._version import has, library_version

__version__ = "0.1.0"

__all__ = [
    "Busy", "Call", "CalledProcessError", "Cancel", "Cancelled", "Change", "Completed",
    "Container", "DEVNULL", "Event", "Events", "Exists", "HookError", "Image", "ImageStore",
    "ImageSummary", "InternalError", "Invalid", "KeeperError", "LoculeError", "Mount",
    "NotFound", "PIPE", "PermissionDenied", "Plugin", "PluginError", "Process", "ProgramError",
    "Progress", "Pruned", "Refused", "ResourceError", "Runtime", "STDOUT", "SpecError",
    "State", "StateError", "Stats", "SystemCallError", "Terminal", "Timeout", "TimeoutExpired",
    "Unsupported", "WasmPlugin", "default_image_store", "default_runtime", "default_spec",
    "has", "library_version", "run",
]

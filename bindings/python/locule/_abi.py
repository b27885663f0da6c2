"""The C ABI of liblocule, as include/locule.h has it: numbers, structs, functions, the loading.

Written by hand and compared with the header by tests/test_abi.py. Nothing here knows what the
functions are for.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from ctypes import (
    CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int32, c_size_t, c_uint16, c_uint32,
    c_uint64, c_void_p,
)
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

# The version of the header that this file follows. The library has to be of the same
# VERSION_MAJOR.VERSION_MINOR.
VERSION_MAJOR = 0
VERSION_MINOR = 1

SONAME = "liblocule.so.0"

E_INVALID = -4097
E_SPEC = -4098
E_NOT_FOUND = -4099
E_EXISTS = -4100
E_STATE = -4101
E_PERMISSION = -4102
E_UNSUPPORTED = -4103
E_BUSY = -4104
E_TIMEOUT = -4105
E_CANCELLED = -4106
E_RESOURCE = -4107
E_SYSTEM = -4108
E_PROGRAM = -4109
E_HOOK = -4110
E_KEEPER = -4111
E_PLUGIN = -4112
E_CALLBACK = -4113
E_BUG = -4114

RUNTIME_NO_CGROUPS = 1
RUNTIME_IGNORE_ANNOTATIONS = 2

CGROUPS_CGROUPFS = 0
CGROUPS_SYSTEMD = 1
EXPLAIN_TEXT = 0
EXPLAIN_JSON = 1

SPEC_READONLY = 1
SPEC_ROOTLESS_AUTO = 2
SPEC_NETWORK_HOST = 4
SPEC_TERMINAL = 8

STDIO_NULL = 0
STDIO_INHERIT = 1
STDIO_FD = 2
STDIO_PIPE = 3

CREATE_ROOTFS_OVERLAY = 1
CREATE_DETACH = 2
PARENTAGE_KEEPER = 0
PARENTAGE_ORPHAN = 1
PARENTAGE_CHILD = 2
SIGNAL_ALL = 1
DELETE_FORCE = 1

EXIT_NONE = 0
EXIT_CODE = 1
EXIT_SIGNAL = 2
EXIT_UNKNOWN = 3

EVENT_EXITED = 1
EVENT_OOM = 2
EVENT_PRESSURE = 3

WATCH_OOM = 1
WATCH_PRESSURE = 2

RESOURCE_CPU = 1
RESOURCE_MEMORY = 2
RESOURCE_IO = 3

WATCH_FULL = 1

COMPRESSION_GZIP = 0
COMPRESSION_ZSTD = 1
COMPRESSION_NONE = 2

OWNER_AUTO = 0
OWNER_IMAGE = 1
OWNER_CALLER = 2

IMAGE_STEP_FETCH = 1
IMAGE_STEP_UNPACK = 2
IMAGE_STEP_SAVE = 3
IMAGE_STEP_PUSH = 4
IMAGE_STEP_PACK = 5

IMAGE_STORE_READ_ONLY = 1
PRUNE_ALL = 1

PLUGIN_OVERRIDE = 1
PLUGIN_REQUIRED = 2

ON_FAILURE_FAIL = 0
ON_FAILURE_SKIP = 1
ON_FAILURE_DISABLE = 2

LOG_DEBUG = 0
LOG_INFO = 1
LOG_WARN = 2
LOG_ERROR = 3


class Buf(Structure):
    """struct locule_buf"""

    _fields_ = [("data", c_void_p), ("len", c_size_t)]


class Sized(Structure):
    """A struct that starts with its size, which is filled in."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.size = ctypes.sizeof(self)


ReleaseFn = CFUNCTYPE(None, c_void_p)
PluginLogFn = CFUNCTYPE(None, c_uint32, c_char_p, c_char_p, c_char_p, c_void_p)


class RuntimeOpts(Sized):
    """struct locule_runtime_opts"""

    _fields_ = [
        ("size", c_size_t),
        ("flags", c_uint64),
        ("state_dir", c_char_p),
        ("keeper_path", c_char_p),
        ("cgroup_manager", c_uint32),
        ("reserved", c_uint32),
        ("plugins", POINTER(c_void_p)),
        ("plugin_count", c_size_t),
        ("plugin_dir", c_char_p),
        ("plugin_rules_json", c_char_p),
        ("plugin_rules_json_len", c_size_t),
        ("plugin_log", PluginLogFn),
        ("plugin_log_user", c_void_p),
        ("plugin_log_release", ReleaseFn),
    ]


class WatchOpts(Sized):
    """struct locule_watch_opts"""

    _fields_ = [
        ("size", c_size_t),
        ("flags", c_uint64),
        ("kind", c_uint32),
        ("resource", c_uint32),
        ("stall_us", c_uint64),
        ("window_us", c_uint64),
    ]


class SpecOpts(Sized):
    """struct locule_spec_opts"""

    _fields_ = [
        ("size", c_size_t),
        ("flags", c_uint64),
        ("args", POINTER(c_char_p)),
        ("env", POINTER(c_char_p)),
        ("cwd", c_char_p),
        ("hostname", c_char_p),
        ("rootfs", c_char_p),
        ("uid", c_uint32),
        ("gid", c_uint32),
        ("memory_bytes", c_uint64),
        ("cpu_milli", c_uint32),
        ("pids", c_uint32),
    ]


class Stdio(Structure):
    """struct locule_stdio"""

    _fields_ = [("kind", c_uint32), ("fd", c_int)]


class CreateOpts(Sized):
    """struct locule_create_opts"""

    _fields_ = [
        ("size", c_size_t),
        ("flags", c_uint64),
        ("id", c_char_p),
        ("bundle", c_char_p),
        ("spec_json", c_char_p),
        ("spec_json_len", c_size_t),
        ("stdio", Stdio * 3),
        ("parentage", c_uint32),
        ("timeout_ms", c_uint32),
        ("pass_fds", POINTER(c_int)),
        ("pass_fd_count", c_size_t),
        ("cancel", c_void_p),
        ("seccomp_listener", POINTER(c_int)),
        ("lower", POINTER(c_char_p)),
        ("lower_count", c_size_t),
        ("changes", c_char_p),
        ("image", c_void_p),
        ("image_overrides_json", c_char_p),
        ("image_overrides_json_len", c_size_t),
    ]


class ExecOpts(Sized):
    """struct locule_exec_opts"""

    _fields_ = [
        ("size", c_size_t),
        ("flags", c_uint64),
        ("process_json", c_char_p),
        ("process_json_len", c_size_t),
        ("stdio", Stdio * 3),
        ("timeout_ms", c_uint32),
        ("reserved", c_uint32),
        ("pass_fds", POINTER(c_int)),
        ("pass_fd_count", c_size_t),
        ("cancel", c_void_p),
        ("seccomp_listener", POINTER(c_int)),
    ]


class Exit(Sized):
    """struct locule_exit"""

    _fields_ = [
        ("size", c_size_t),
        ("kind", c_uint32),
        ("code", c_int32),
        ("signal", c_int32),
        ("core_dumped", c_uint32),
    ]


# locule_event_fn
EventFn = CFUNCTYPE(c_int, c_void_p, c_void_p)
# locule_plugin_fn
PluginFn = CFUNCTYPE(c_int, c_void_p, c_void_p)


class PluginOpts(Sized):
    """struct locule_plugin_opts"""

    _fields_ = [
        ("size", c_size_t),
        ("flags", c_uint64),
        ("name", c_char_p),
        ("stages", POINTER(c_char_p)),
        ("priority", c_int32),
        ("on_failure", c_uint32),
        ("handle", PluginFn),
        ("judge", PluginFn),
        ("user", c_void_p),
        ("release", ReleaseFn),
    ]


class ImageProgress(Structure):
    """struct locule_image_progress"""

    _fields_ = [
        ("size", c_size_t),
        ("step", c_uint32),
        ("finished", c_uint32),
        ("digest", c_char_p),
        ("done", c_uint64),
        ("total", c_uint64),
    ]


# locule_image_progress_fn but for `user`, which no C calling convention of Linux misses: what is
# called has one parameter (_progress.py).
ImageProgressFn = CFUNCTYPE(c_int, POINTER(ImageProgress))


class ImageOpts(Sized):
    """struct locule_image_opts"""

    _fields_ = [
        ("size", c_size_t),
        ("flags", c_uint64),
        ("name", c_char_p),
        ("from", c_char_p),
        ("platform", c_char_p),
        ("progress", ImageProgressFn),
        ("progress_user", c_void_p),
        ("cancel", c_void_p),
        ("timeout_ms", c_uint32),
        ("compression", c_uint32),
        ("username", c_char_p),
        ("password", c_char_p),
        ("auth_file", c_char_p),
        ("ca_file", c_char_p),
        ("registries_file", c_char_p),
        ("config_json", c_char_p),
        ("config_json_len", c_size_t),
        ("author", c_char_p),
        ("comment", c_char_p),
        ("created", c_char_p),
        ("max_bytes", c_uint64),
        ("max_entries", c_uint64),
        ("max_ratio", c_uint64),
        ("owner", c_uint32),
        ("reserved", c_uint32),
    ]


class ImageStoreOpts(Sized):
    """struct locule_image_store_opts"""

    _fields_ = [("size", c_size_t), ("flags", c_uint64), ("path", c_char_p)]


_out = POINTER(c_void_p)  # a handle that the function stores
_err = POINTER(c_void_p)  # the error that it stores
_buf = POINTER(Buf)
_handle = c_void_p

# What each function returns and takes. A borrowed string comes back as bytes: a copy.
FUNCTIONS: Dict[str, Tuple[Any, Tuple[Any, ...]]] = {
    "locule_version": (c_char_p, ()),
    "locule_has": (c_int, (c_char_p,)),
    # errors
    "locule_error_ref": (_handle, (_handle,)),
    "locule_error_unref": (None, (_handle,)),
    "locule_error_code": (c_int, (_handle,)),
    "locule_error_errno": (c_int, (_handle,)),
    "locule_error_stage": (c_uint32, (_handle,)),
    "locule_error_stage_name": (c_char_p, (_handle,)),
    "locule_error_message": (c_char_p, (_handle,)),
    "locule_error_pointer": (c_char_p, (_handle,)),
    "locule_error_container_id": (c_char_p, (_handle,)),
    "locule_error_step": (c_char_p, (_handle,)),
    "locule_error_hint": (c_char_p, (_handle,)),
    "locule_category_name": (c_char_p, (c_int,)),
    # buffers
    "locule_buf_free": (None, (_buf,)),
    # cancelling
    "locule_cancel_new": (c_int, (_out, _err)),
    "locule_cancel_trigger": (None, (_handle,)),
    "locule_cancel_fd": (c_int, (_handle,)),
    "locule_cancel_ref": (_handle, (_handle,)),
    "locule_cancel_unref": (None, (_handle,)),
    # runtime
    "locule_runtime_new": (c_int, (POINTER(RuntimeOpts), _out, _err)),
    "locule_runtime_state_dir": (c_char_p, (_handle,)),
    "locule_runtime_fd": (c_int, (_handle,)),
    "locule_runtime_dispatch": (c_int, (_handle, c_int, EventFn, c_void_p, _err)),
    "locule_runtime_list_json": (c_int, (_handle, _buf, _err)),
    "locule_runtime_features_json": (c_int, (_handle, _buf, _err)),
    "locule_runtime_plugins_json": (c_int, (_handle, _buf, _err)),
    "locule_runtime_explain": (c_int, (_handle, POINTER(CreateOpts), c_uint32, _buf, _err)),
    "locule_runtime_ref": (_handle, (_handle,)),
    "locule_runtime_unref": (None, (_handle,)),
    # spec
    "locule_spec_generate": (c_int, (POINTER(SpecOpts), _buf, _err)),
    # containers
    "locule_container_create": (c_int, (_handle, POINTER(CreateOpts), _out, _err)),
    "locule_container_open": (c_int, (_handle, c_char_p, _out, _err)),
    "locule_container_id": (c_char_p, (_handle,)),
    "locule_container_init": (c_int, (_handle, _out, _err)),
    "locule_container_start": (c_int, (_handle, _handle, _err)),
    "locule_container_exec": (c_int, (_handle, POINTER(ExecOpts), _out, _err)),
    "locule_container_signal": (c_int, (_handle, c_int, c_uint64, _err)),
    "locule_container_pause": (c_int, (_handle, _err)),
    "locule_container_resume": (c_int, (_handle, _err)),
    "locule_container_update_json": (c_int, (_handle, c_char_p, c_size_t, _err)),
    "locule_container_watch": (c_int, (_handle, POINTER(WatchOpts), _err)),
    "locule_container_stats_json": (c_int, (_handle, _buf, _err)),
    "locule_container_pids_json": (c_int, (_handle, _buf, _err)),
    "locule_container_state_json": (c_int, (_handle, _buf, _err)),
    "locule_container_delete": (c_int, (_handle, c_uint64, _err)),
    "locule_container_ref": (_handle, (_handle,)),
    "locule_container_unref": (None, (_handle,)),
    # processes
    "locule_process_pid": (c_int, (_handle,)),
    "locule_process_fd": (c_int, (_handle,)),
    "locule_process_wait": (c_int, (_handle, c_int, _handle, POINTER(Exit), _err)),
    "locule_process_signal": (c_int, (_handle, c_int, _err)),
    "locule_process_take_pipe": (c_int, (_handle, c_uint32, _err)),
    "locule_process_take_terminal": (c_int, (_handle, _err)),
    "locule_process_resize": (c_int, (_handle, c_uint16, c_uint16, _err)),
    "locule_process_ref": (_handle, (_handle,)),
    "locule_process_unref": (None, (_handle,)),
    # events
    "locule_event_kind": (c_uint32, (_handle,)),
    "locule_event_container_id": (c_char_p, (_handle,)),
    "locule_event_process": (_handle, (_handle,)),
    "locule_event_exit": (c_int, (_handle, POINTER(Exit), _err)),
    "locule_event_oom_kills": (c_uint64, (_handle,)),
    "locule_event_pressure": (c_int, (_handle, POINTER(WatchOpts), _err)),
    # images
    "locule_image_store_open": (c_int, (POINTER(ImageStoreOpts), _out, _err)),
    "locule_image_store_path": (c_char_p, (_handle,)),
    "locule_image_store_load": (c_int, (_handle, c_char_p, POINTER(ImageOpts), _out, _err)),
    "locule_image_store_pull": (c_int, (_handle, c_char_p, POINTER(ImageOpts), _out, _err)),
    "locule_image_store_import": (c_int, (_handle, c_char_p, POINTER(ImageOpts), _out, _err)),
    "locule_image_store_commit": (c_int, (_handle, _handle, POINTER(ImageOpts), _out, _err)),
    "locule_image_store_get": (c_int, (_handle, c_char_p, _out, _err)),
    "locule_image_store_list_json": (c_int, (_handle, _buf, _err)),
    "locule_image_store_remove": (c_int, (_handle, c_char_p, _err)),
    "locule_image_store_prune_json": (c_int, (_handle, POINTER(ImageOpts), _buf, _err)),
    "locule_image_store_ref": (_handle, (_handle,)),
    "locule_image_store_unref": (None, (_handle,)),
    "locule_image_digest": (c_char_p, (_handle,)),
    "locule_image_inspect_json": (c_int, (_handle, _buf, _err)),
    "locule_image_tag": (c_int, (_handle, c_char_p, _err)),
    "locule_image_save": (c_int, (_handle, c_char_p, POINTER(ImageOpts), _err)),
    "locule_image_push": (c_int, (_handle, c_char_p, POINTER(ImageOpts), _err)),
    "locule_image_prepare": (
        c_int, (_handle, c_char_p, c_size_t, POINTER(ImageOpts), _err),
    ),
    "locule_image_unpack": (c_int, (_handle, c_char_p, POINTER(ImageOpts), _err)),
    "locule_image_ref": (_handle, (_handle,)),
    "locule_image_unref": (None, (_handle,)),
    # plugins
    "locule_plugin_new": (c_int, (POINTER(PluginOpts), _out, _err)),
    "locule_plugin_load": (c_int, (c_char_p, c_size_t, c_char_p, _out, _err)),
    "locule_plugin_inspect_json": (c_int, (c_char_p, _buf, _err)),
    "locule_plugin_describe_json": (c_int, (_handle, _buf, _err)),
    "locule_plugin_ref": (_handle, (_handle,)),
    "locule_plugin_unref": (None, (_handle,)),
    "locule_plugin_call_stage": (c_char_p, (_handle,)),
    "locule_plugin_call_container_id": (c_char_p, (_handle,)),
    "locule_plugin_call_bundle": (c_char_p, (_handle,)),
    "locule_plugin_call_pid": (c_int, (_handle,)),
    "locule_plugin_call_detail": (c_char_p, (_handle, c_char_p)),
    "locule_plugin_call_get_json": (c_int, (_handle, c_char_p, _buf, _err)),
    "locule_plugin_call_changes_json": (c_int, (_handle, _buf, _err)),
    "locule_plugin_call_adjust_json": (c_int, (_handle, c_char_p, c_size_t, _err)),
    "locule_plugin_call_refuse": (c_int, (_handle, c_uint32, c_char_p)),
    "locule_plugin_call_fail": (c_int, (_handle, c_char_p)),
}

_library: Optional[ctypes.CDLL] = None
_loading = threading.Lock()


def library() -> ctypes.CDLL:
    """The library, loaded at the first call."""
    global _library
    if _library is None:
        with _loading:
            if _library is None:
                _library = _load()
    return _library


def _load() -> ctypes.CDLL:
    if not sys.platform.startswith("linux"):
        raise ImportError("Locule runs containers with the Linux kernel; this is no Linux")
    path = os.environ.get("LOCULE_LIBRARY")
    if not path:
        inside = Path(__file__).with_name("_lib") / SONAME
        path = str(inside) if inside.exists() else SONAME
    try:
        lib = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(
            f"cannot load liblocule: {error}. Set LOCULE_LIBRARY to its path, or install the "
            f"package with the library inside, or put {SONAME} where the linker finds it"
        ) from error
    try:
        for name, (result, arguments) in FUNCTIONS.items():
            function = getattr(lib, name)
            function.restype = result
            function.argtypes = arguments
    except AttributeError as error:
        raise ImportError(f"{path} does not fit this package: {error}") from error
    version = lib.locule_version().decode()
    if not version.startswith(f"{VERSION_MAJOR}.{VERSION_MINOR}."):
        raise ImportError(
            f"{path} is Locule {version}; this package needs {VERSION_MAJOR}.{VERSION_MINOR}"
        )
    return lib


# The module is imported before anything can fork, and a fork in the middle of loading would
# leave the lock held for ever.
def _unlock_in_child() -> None:
    global _loading
    _loading = threading.Lock()


os.register_at_fork(after_in_child=_unlock_in_child)

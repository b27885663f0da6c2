"""Calls: ids, states, descriptors, resources, time."""

import os

from table import (ANY, PAUSE, PIDS, RESUME, START, STATE, STATS, WAIT, Case, Host, Refused, Works,
                   create, delete, exec_, load, signal, spec_error, update)

TRUE = {"/process/args": ["/bin/true"]}
STOPPED = [create(), START, WAIT]


def no_rdma():
    with open("/proc/cgroups") as table:
        return "a machine without the rdma controller" if "rdma" in table.read() else None


def wrong_id(name, id, says="container ID", **more):
    return Case(f"an id {name} is refused",
                Refused("invalid", "arguments", None, None, says),
                do=[create(id=id)], **more)


def in_state(name, do, says, stage, still, **more):
    errno = more.pop("errno", None)
    return Case(name, Refused("state", stage, errno, None, says), do=do, still=still, **more)


CASES = [
    # --- Ids ------------------------------------------------------------------------------------
    wrong_id("with a slash", "a/b"),
    wrong_id("that leaves the directory", "../x"),
    wrong_id("that is a dot", "."),
    wrong_id("that is two dots", ".."),
    wrong_id("with a blank", "a b"),
    wrong_id("with a line break", "a\nb"),
    wrong_id("that is not ASCII", "ä"),
    Case("an id that is not UTF-8 is refused",
         Refused("invalid", "arguments", None, None, "not UTF-8", id=False),
         do=[create(id="a\udcff")],
         # Text in Go may be anything, and so may the id in its errors.
         differs={"go": Refused("invalid", "arguments", None, None, "not UTF-8")}),
    # C has no such text. What a binding finds out alone has no id in Python.
    *(Case(f"{name} with a NUL is refused in {language}",
           Refused("invalid", "arguments", None, None, r"a\x00b", id=language == "go"),
           do=[create(**words)], only=[language])
      for language in ("go", "python")
      for name, words in [("an id", {"id": "a\0b"}), ("a bundle", {"bundle": "/a\0b"})]),
    wrong_id("longer than 1024", "x" * 1025),
    wrong_id("that is empty", "", only=["c", "python"]),  # in Go it stands for one to invent
    Case("an id longer than a file name is refused",
         Refused("invalid", "arguments", "ENAMETOOLONG", None, "ID of 256 bytes"),
         do=[create(id="x" * 256)]),
    Case("an id in use is refused, and its container untouched",
         Refused("exists", "state", "EEXIST", None, "exists already"),
         do=[create(), START, create()], still="running"),
    Case("an id that nobody has is not found",
         Refused("not-found", "state", "ENOENT", None, "does not exist"), do=[load("$ID")]),
    Case("an id that cannot be is refused when it is opened, too",
         Refused("invalid", "arguments", None, None, "container ID"), do=[load("../x")]),

    # --- States ---------------------------------------------------------------------------------
    in_state("start of a running container is refused", [create(), START, START],
             "already running", "start", "running"),
    in_state("start of a stopped container is refused", [*STOPPED, START],
             "has stopped", "start", "stopped", put=TRUE),
    in_state("start of a paused container is refused", [create(), PAUSE, START],
             "paused", "start", "paused"),
    in_state("exec in a stopped container is refused", [*STOPPED, exec_({"args": ["/bin/true"]})],
             "stopped", "exec", "stopped", put=TRUE),
    in_state("exec in a paused container is refused",
             [create(), START, PAUSE, exec_({"args": ["/bin/true"]})], "paused", "exec", "paused"),
    in_state("delete of a running container is refused", [create(), START, delete()],
             "not stopped: running", "delete", "running"),
    in_state("delete of a paused container is refused", [create(), START, PAUSE, delete()],
             "not stopped: paused", "delete", "paused"),
    in_state("a signal to a stopped container is refused", [*STOPPED, signal(15)],
             "not running", "control", "stopped", put=TRUE, errno="ESRCH"),
    in_state("a signal to all of a stopped container is refused", [*STOPPED, signal(15, all=1)],
             "not running", "control", "stopped", put=TRUE, errno="ESRCH"),
    in_state("pause of a stopped container is refused", [*STOPPED, PAUSE],
             "stopped", "control", "stopped", put=TRUE),
    in_state("pause of a paused container is refused", [create(), START, PAUSE, PAUSE],
             "paused", "control", "paused"),
    in_state("resume of a running container is refused", [create(), START, RESUME],
             "not paused", "control", "running"),
    in_state("resume of a stopped container is refused", [*STOPPED, RESUME],
             "not paused", "control", "stopped", put=TRUE),
    in_state("update of a stopped container is refused",
             [*STOPPED, update({"pids": {"limit": 5}})], "stopped", "control", "stopped",
             put=TRUE),
    Case("start of a deleted container finds nothing",
         Refused("not-found", "state", "ENOENT", None, "does not exist"),
         do=[create(), delete(), START]),
    Case("delete of a deleted container finds nothing",
         Refused("not-found", "state", "ENOENT", None, "does not exist"),
         do=[create(), delete(), delete()]),
    Case("the state of a deleted container is not found",
         Refused("not-found", "state", "ENOENT", None, "does not exist"),
         do=[create(), delete(), STATE]),
    Case("resume of a deleted container finds nothing",
         Refused("not-found", "state", "ENOENT", None, "does not exist"),
         do=[create(), delete(), RESUME]),
    Case("update of a deleted container finds nothing",
         Refused("not-found", "state", "ENOENT", None, "does not exist"),
         do=[create(), delete(), update({"pids": {"limit": 5}})]),
    Case("a signal to a deleted container is refused",
         Refused("state", "control", "ESRCH", None, "not running"),
         do=[create(), delete(), signal(15)]),

    # --- Signals --------------------------------------------------------------------------------
    Case("a signal that is none is refused",
         Refused("invalid", "arguments", "EINVAL", None, "no signal 99"),
         do=[create(), START, signal(99)], still="running"),
    Case("a negative signal is refused",
         Refused("invalid", "arguments", "EINVAL", None, "no signal -1"),
         do=[create(), START, signal(-1)], still="running"),
    Case("a signal that is none is refused for all processes, too",
         Refused("invalid", "arguments", "EINVAL", None, "no signal 99"),
         do=[create(), START, signal(99, all=1)], still="running"),

    # --- Descriptors ----------------------------------------------------------------------------
    Case("a stream that is not open is refused",
         Refused("invalid", "arguments", "EBADF", None, "900000"),
         do=[create(stdout=900000)]),
    Case("a descriptor to pass on that is not open is refused",
         Refused("invalid", "arguments", "EBADF", None, "900000"),
         do=[create(**{"pass": 900000})]),
    Case("a stream of an exec that is not open is refused",
         Refused("invalid", "arguments", "EBADF", None, "900000"),
         do=[create(), START, exec_({"args": ["/bin/true"]}, stdout=900000)], still="running"),
    Case("a host without standard input can run containers", Works(), put=TRUE,
         host=Host(closed=(0,)), do=[*STOPPED]),
    Case("a host without any standard stream can run containers", Works(), put=TRUE,
         host=Host(closed=(0, 1, 2)), do=[*STOPPED]),
    Case("a stream that the host has not is inherited as the null device", Works(),
         put={"/process/args": ["/bin/sh", "-c", '[ "$(readlink /proc/self/fd/0)" = /dev/null ]']},
         host=Host(closed=(0,)), do=[create(stdin="inherit"), START, WAIT]),
    *(Case(f"a host that may have {count} descriptors is told that they are too few",
           Refused("resource", ANY, "EMFILE", None, "open files", "RLIMIT_NOFILE"),
           host=Host(descriptors=count))
      for count in (12, 15, 18, 21)),
    Case("a host that may have no descriptor is told when it opens the library",
         Refused("resource", ANY, "EMFILE", None, "open files", "RLIMIT_NOFILE", id=False),
         host=Host(descriptors=6), do=[], only=["c"]),  # the others need some for themselves

    # --- The keeper -----------------------------------------------------------------------------
    Case("a keeper that is not there is not found",
         Refused("not-found", "spawn", "ENOENT", None, '"/no/such"', "installed keeper"),
         open={"keeper": "/no/such"}),
    Case("a keeper that cannot be executed is refused",
         Refused("permission", "spawn", "EACCES", None, '"/etc/passwd"', "installed keeper"),
         open={"keeper": "/etc/passwd"}),
    Case("a keeper that is a FIFO does not hang the host",
         Refused("permission", "spawn", "EACCES", None, '"$DIR/keeper"', "installed keeper"),
         open={"keeper": "$DIR/keeper"},
         prepare=lambda scene: os.mkfifo(scene.directory / "keeper")),
    Case("a keeper that is another program is refused",
         Refused("keeper", "spawn", ANY, None, "the keeper is gone"), open={"keeper": "/bin/true"}),

    # --- Resources ------------------------------------------------------------------------------
    Case("an update of broken JSON is refused", spec_error(None, "line 1"),
         do=[create(), update("{")], still="created", only=["c"]),
    Case("an update that is no object is refused", spec_error(None, "object"),
         do=[create(), update("[]")], still="created", only=["c"]),
    Case("an update of a wrong type is refused", spec_error("/pids/limit", "a whole number"),
         do=[create(), update({"pids": {"limit": "many"}})], still="created",
         only=["c", "python"]),  # no type of Go's says it
    Case("an update below what there is is refused", spec_error("/memory/limit", "-5"),
         do=[create(), update({"memory": {"limit": -5}})], still="created"),
    Case("an update of a limit that this machine lacks is refused",
         Refused("unsupported", "cgroup", None, "/rdma/mlx5_1", "rdma"),
         do=[create(), update({"rdma": {"mlx5_1": {"hcaHandles": 3}}})], still="created",
         needs=[no_rdma]),
    Case("an update with a value that the kernel does not take is refused",
         Refused("spec", "cgroup", "EINVAL", "/cpu/quota", "quota"),
         do=[create(), update({"cpu": {"quota": 1, "period": 100000}})], still="created"),
    Case("an update of a container without cgroups is refused",
         Refused("unsupported", "cgroup", None, "/pids/limit", "no cgroup", "without cgroups"),
         open={"no_cgroups": "1"}, do=[create(), update({"pids": {"limit": 5}})],
         still="created"),
    Case("limits without cgroups are refused",
         Refused("unsupported", "cgroup", None, "/linux/resources/pids/limit", "no cgroup",
                 "without cgroups"),
         put={"/linux/resources/pids": {"limit": 5}}, open={"no_cgroups": "1"}),
    Case("statistics without cgroups are refused",
         Refused("unsupported", "cgroup", None, None, "no cgroup", "without cgroups"),
         open={"no_cgroups": "1"}, do=[create(), STATS], still="created"),
    Case("pids without cgroups are refused",
         Refused("unsupported", "cgroup", None, None, "no cgroup", "without cgroups"),
         open={"no_cgroups": "1"}, do=[create(), PIDS], still="created"),
    Case("pause without cgroups is refused",
         Refused("unsupported", "cgroup", None, None, "no cgroup", "without cgroups"),
         open={"no_cgroups": "1"}, do=[create(), START, PAUSE], still="running"),

    # --- Time -----------------------------------------------------------------------------------
    Case("a creation that takes too long is undone",
         Refused("timeout", "spawn", "ETIMEDOUT", None, "deadline"),
         put={"/hooks/createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"]}]},
         do=[create(timeout=200)]),
    Case("a creation that is cancelled is not begun",
         Refused("cancelled", "arguments", "ECANCELED", None, "cancelled"),
         do=[create(cancel=1)],
         differs={"go": Refused("cancelled", "arguments", "ECANCELED", None, "not begun")}),
]

"""What an ordinary user may not do."""

import functools
import shutil

from drivers import works_for_ordinary
from table import (PAUSE, REMOVED, START, STATS, USER, WAIT, Case, Refused, Works, create, exec_,
                   update)

TRUE = {"/process/args": ["/bin/true"]}


@functools.lru_cache()
def user_namespaces():
    """Whether this machine lets ordinary users have them."""
    allowed = works_for_ordinary(["unshare", "-U", "true"])
    return None if allowed else "user namespaces for ordinary users"


def mapper():
    return None if shutil.which("newuidmap") else "newuidmap (uidmap)"


def user(name, expect, **more):
    return Case(name, expect, host=USER, needs=[user_namespaces, *more.pop("needs", ())], **more)


CASES = [
    user("an ordinary user can have a container", Works(), put=TRUE, do=[create(), START, WAIT]),
    user("an ordinary user cannot have namespaces without a user namespace",
         Refused("permission", "namespaces", "EPERM", "/linux/namespaces",
                 "create the process and its namespaces", "user namespace"),
         put={"/linux/namespaces/5": REMOVED, "/linux/uidMappings": REMOVED,
              "/linux/gidMappings": REMOVED}),
    user("an ordinary user cannot have a memory limit without a cgroup",
         Refused("permission", "cgroup", None, "/linux/resources/memory/limit",
                 "may not make the cgroup", "delegated"),
         put={"/linux/resources/memory": {"limit": 1 << 26}}),
    user("an ordinary user cannot map the ids of a mount",
         Refused("unsupported", "compile", None, "/mounts/3", "mapped ids", "CAP_SYS_ADMIN"),
         put={"/mounts/-": {"destination": "/mnt", "source": "/tmp",
                            "options": ["bind", "idmap"]}}),
    user("a cgroup that an ordinary user may not have, and no limit needs, is left out", Works(),
         put={**TRUE, "/linux/cgroupsPath": "/$ID"}, do=[create(), START, WAIT]),
    user("an ordinary user cannot update what has no cgroup",
         Refused("permission", "cgroup", None, "/pids/limit", "no cgroup", "delegated"),
         do=[create(), update({"pids": {"limit": 5}})], still="created"),
    user("an ordinary user has no statistics without a cgroup",
         Refused("unsupported", "cgroup", None, None, "no cgroup", "privilege"),
         do=[create(), STATS], still="created"),
    user("an ordinary user cannot pause without a cgroup",
         Refused("unsupported", "cgroup", None, None, "no cgroup", "privilege"),
         do=[create(), START, PAUSE], still="running"),
    user("an ordinary user may map no other id than its own",
         Refused("permission", "namespaces", None, "/linux/gidMappings", "newgidmap", "subgid"),
         put={"/linux/uidMappings": [{"containerID": 0, "hostID": 0, "size": 2}],
              "/linux/gidMappings": [{"containerID": 0, "hostID": 0, "size": 2}]},
         needs=[mapper]),
    user("an ordinary user cannot make a device",
         Refused("permission", "devices", "EPERM", "/linux/devices/0",
                 'create the device "/dev/mem2"', "user namespace"),
         put={"/linux/devices": [{"type": "c", "path": "/dev/mem2", "major": 1, "minor": 1}]}),
    user("an ordinary user cannot mount a disk",
         Refused("permission", "mounts", "EPERM", "/mounts/3", '"/mnt"'),
         put={"/mounts/-": {"destination": "/mnt", "type": "ext4", "source": "/dev/null"}}),
    user("an ordinary user cannot mount sysfs of a network that is the host's",
         Works(),  # it is bound instead
         put={**TRUE, "/linux/namespaces/1": {"type": "cgroup"},
              "/mounts/-": {"destination": "/sys", "type": "sysfs", "source": "sysfs"}},
         do=[create(), START, WAIT]),
    user("an ordinary user cannot lower the out-of-memory score",
         Refused("permission", "process", "EACCES", "/process/oomScoreAdj", "oom_score_adj"),
         put={"/process/oomScoreAdj": -500}),
    user("an ordinary user cannot have a real-time scheduler",
         Refused("permission", "process", "EPERM", "/process/scheduler", "scheduler"),
         put={"/process/scheduler": {"policy": "SCHED_FIFO", "priority": 5}}),
    user("an ordinary user cannot join a namespace of root's",
         Refused("permission", "namespaces", "EACCES", "/linux/namespaces/1/path", "/proc/1/ns/net"),
         put={"/linux/namespaces/1/path": "/proc/1/ns/net"}),
    user("an ordinary user cannot exec as another user that is not mapped",
         Refused("spec", "validate", None, "/user/gid", "linux.gidMappings"),
         do=[create(), START, exec_({"args": ["/bin/true"], "user": {"uid": 0, "gid": 7}})],
         still="running"),
]

"""System calls that the kernel lacks, or that a filter around the host refuses: either there is
another way, or the error names what is missing."""

from table import (START, WAIT, Case, Host, Refused, Works, create, exec_, signal, without)

TRUE = {"/process/args": ["/bin/true"]}
RUN = [create(), START, WAIT]

MOUNTS = ["fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "mount_setattr"]


def works(name, *calls, errno="ENOSYS", **more):
    return Case(f"without {name} ({errno}) there is another way", Works(),
                put={**TRUE, **more.pop("put", {})}, do=more.pop("do", RUN),
                host=without(errno, *calls), **more)


def named(name, expect, *calls, errno="ENOSYS", **more):
    return Case(f"that {name} is missing ({errno}) is said", expect,
                host=without(errno, *calls), **more)


CASES = [
    works("clone3", "clone3"),
    # With that glibc makes no threads, so Go does not even begin.
    works("clone3", "clone3", errno="EPERM", only=["c", "python"]),
    works("close_range", "close_range"),
    works("close_range", "close_range", errno="EPERM"),
    works("execveat", "execveat"),
    works("execveat", "execveat", errno="EPERM"),
    works("mount_setattr", "mount_setattr"),
    works("openat2", "openat2"),
    works("openat2", "openat2", errno="EPERM"),
    works("faccessat2", "faccessat2"),
    works("keyctl", "keyctl", "add_key"),
    works("keyctl", "keyctl", "add_key", errno="EPERM"),
    works("bpf", "bpf"),
    # As Docker's profile has it, for a container without CAP_SYS_ADMIN.
    Case("that namespaces are forbidden is said",
         Refused("permission", "namespaces", "EPERM", "/linux/namespaces", "its namespaces",
                 "seccomp filter"),
         host=Host(denied=(("clone3", "ENOSYS"), ("clone with namespaces", "EPERM")))),
    named("memfd_create", Refused("unsupported", "spawn", "ENOSYS", None, "memfd_create",
          "seccomp filter"), "memfd_create"),
    named("memfd_create", Refused("permission", "spawn", "EPERM", None, "memfd_create"),
          "memfd_create", errno="EPERM"),
    named("statx", Refused("unsupported", "spawn", "ENOSYS", None, "statx", "seccomp filter"),
          "statx"),
    named("pidfd_open", Refused("unsupported", "spawn", "ENOSYS", None, "pidfd_open",
          "seccomp filter", id=False), "pidfd_open", do=[]),
    named("seccomp", Refused("unsupported", "seccomp", "ENOSYS", "/linux/seccomp", "seccomp: ",
          "seccomp filter"), "seccomp", do=[create(), START], still="stopped",
          put={"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
              {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]}}),
    named("pivot_root", Refused("unsupported", "rootfs", "ENOSYS", "/root", "pivot_root"),
          "pivot_root"),
    named("the new mount API", Refused("unsupported", "rootfs", "ENOSYS", "/root/path",
          "open_tree"), *MOUNTS),
    named("mounting", Refused("permission", "rootfs", "EPERM", "/linux/rootfsPropagation",
          "propagation", "seccomp filter"), *MOUNTS, "mount", errno="EPERM"),
    named("sethostname", Refused("permission", "settings", "EPERM", "/hostname", "hostname"),
          "sethostname", errno="EPERM"),
    Case("an exec that cannot join the container leaves it running",
         Refused("permission", "namespaces", "EPERM", None, "join", "seccomp filter"),
         host=without("EPERM", "setns"),
         do=[create(), START, exec_({"args": ["/bin/true"]})], still="running"),
    named("capset", Refused("permission", "process", "EPERM", "/process/capabilities",
          "capabilities"), "capset", errno="EPERM"),
    named("setresuid", Refused("permission", "process", "EPERM", "/process/user", "user"),
          "setresuid", "setuid", errno="EPERM", put={"/process/user": {"uid": 5, "gid": 5}}),
    named("pidfd_send_signal", Refused("unsupported", "control", "ENOSYS", None, "signal",
          "seccomp filter"), "pidfd_send_signal", do=[create(), START, signal(15)],
          still="running"),
    named("epoll", Refused("unsupported", "arguments", "ENOSYS", None, "epoll_create1", id=False),
          "epoll_create1", do=[], only=["c", "python"]),  # Go's runtime needs it for itself
]

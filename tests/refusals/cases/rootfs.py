"""The root filesystem, what is mounted there, and the program that is to run in it."""

import os

from table import (START, WAIT, USER, Case, Refused, Works, create, exec_, spec_error)


def program(*args):
    return {"/process/args": list(args)}


def a_file(scene):
    (scene.bundle / "rootfs").write_text("")


def empty_root(scene):
    (scene.bundle / "rootfs").mkdir()


def private_root(scene):
    (scene.bundle / "rootfs").mkdir(mode=0o700)


def with_links(**links):
    """A root with symbolic links where mounts go."""

    def prepare(scene):
        root = scene.bundle / "rootfs"
        for name in ("proc", "dev", "tmp", "etc"):
            (root / name).mkdir(parents=True)
        for name, target in links.items():
            os.rmdir(root / name)
            (root / name).symlink_to(target)

    return prepare


OWN_ROOT = {"/root/path": "rootfs"}

CASES = [
    # --- The root -------------------------------------------------------------------------------
    Case("a root that is not there is not found",
         Refused("not-found", "rootfs", "ENOENT", "/root/path", "nowhere"),
         put={"/root/path": "nowhere"}),
    Case("a root that is a file is refused",
         Refused("spec", "rootfs", "ENOTDIR", "/root/path", "$BUNDLE/rootfs"),
         put=OWN_ROOT, prepare=a_file),
    Case("a root that is a link to nowhere is not found",
         Refused("not-found", "rootfs", "ENOENT", "/root/path", "$BUNDLE/rootfs"),
         put=OWN_ROOT, prepare=lambda scene: os.symlink("nowhere", scene.bundle / "rootfs")),
    Case("a root that this user may not enter is refused",
         Refused("permission", "mounts", "EACCES", "/mounts/0", '"/proc" in the root',
                 "enter every directory"),
         put=OWN_ROOT, prepare=private_root, host=USER),
    Case("a root below which this user may not look is refused",
         Refused("permission", "rootfs", "EACCES", "/root/path", "/root/nowhere"),
         put={"/root/path": "/root/nowhere"}, host=USER),
    Case("an overlay over a root that is not there is not found",
         Refused("not-found", "rootfs", "ENOENT", "/root/path", "nowhere"),
         put={"/root/path": "nowhere"}, do=[create(overlay=1)]),
    Case("an empty root has no program",
         Refused("program", "exec", "ENOENT", "/process/args", "/bin/sleep"),
         put=OWN_ROOT, prepare=empty_root),
    Case("a link in the place of /proc is refused",
         Refused("spec", "mounts", "ENOTDIR", "/mounts/0", '"/proc"'),
         put=OWN_ROOT, prepare=with_links(proc="tmp")),
    Case("a link out of the root stays in it", Refused("program", "exec", "ENOENT",
         "/process/args", "/bin/sleep"),
         put=OWN_ROOT, prepare=with_links(tmp="/../../../../etc")),
    Case("a link to itself in the place of a mount is refused",
         Refused("spec", "mounts", "ELOOP", "/mounts/2", '"/tmp"'),
         put=OWN_ROOT, prepare=with_links(tmp="tmp")),

    # --- The program ----------------------------------------------------------------------------
    Case("a program that is not there is not found",
         Refused("program", "exec", "ENOENT", "/process/args", "/no/such"),
         put=program("/no/such")),
    Case("a program that no directory of PATH has is not found",
         Refused("program", "exec", "ENOENT", "/process/args", "no-such"), put=program("no-such")),
    Case("a program is not found without a PATH",
         Refused("program", "exec", "ENOENT", "/process/args", "sleep"),
         put={**program("sleep", "60"), "/process/env": ["PATH="]}),
    Case("a program at a relative path that leads nowhere is not found",
         Refused("program", "exec", "ENOENT", "/process/args", "./sleep"),
         put=program("./sleep")),
    Case("a program that nobody may execute is refused",
         Refused("program", "exec", "EACCES", "/process/args", "/bin/not-executable"),
         put=program("/bin/not-executable")),
    Case("a program that this user may not execute is refused",
         Refused("program", "exec", "EACCES", "/process/args", "/bin/of-root"),
         put={**program("/bin/of-root"), "/process/user": {"uid": 7, "gid": 7}}),
    Case("a program on a mount that forbids execution is refused",
         Refused("program", "exec", "EACCES", "/process/args", "/mnt/busybox", "noexec"),
         put={**program("/mnt/busybox"), "/mounts/-": {
             "destination": "/mnt", "source": "/bin", "options": ["bind", "noexec"]}}),
    Case("a directory as program is refused",
         Refused("program", "exec", "EISDIR", "/process/args", "/bin"), put=program("/bin")),
    Case("a program below a file is refused",
         Refused("program", "exec", "ENOTDIR", "/process/args", "/bin/sleep/x"),
         put=program("/bin/sleep/x")),
    Case("a program that is a link to itself is refused",
         Refused("program", "exec", "ELOOP", "/process/args", "/loop"), put=program("/loop")),
    Case("a program with a name longer than any is refused",
         Refused("program", "exec", "ENAMETOOLONG", "/process/args", "xxx"),
         put=program("/" + "x" * 300)),
    Case("a file that is no program is refused when it is started",
         Refused("program", "exec", "ENOEXEC", "/process/args", "/bin/no-program", "machine"),
         put=program("/bin/no-program"), do=[create(), START], still="stopped"),
    Case("a script without its interpreter is refused, and says so",
         Refused("program", "exec", "ENOENT", "/process/args", "/bin/no-interpreter",
                 "interpreter"),
         put=program("/bin/no-interpreter"), do=[create(), START], still="stopped"),
    Case("a script whose interpreter is no program is refused, and says so",
         Refused("program", "exec", "EACCES", "/process/args", "/bin/bad-interpreter",
                 "interpreter"),
         put=program("/bin/bad-interpreter"), do=[create(), START], still="stopped"),
    Case("arguments longer than the kernel takes are refused",
         Refused("program", "exec", "E2BIG", "/process/args", "/bin/true", "too long"),
         put=program("/bin/true", "x" * (1 << 18)), do=[create(), START], still="stopped"),

    Case("more arguments than the kernel takes are refused, in an exec too",
         Refused("program", "exec", "E2BIG", "/args", "/bin/true", "too long"),
         do=[create(), START, exec_({"args": ["/bin/true"] + ["x"] * 300000})],
         still="running"),

    # --- Its surroundings -----------------------------------------------------------------------
    Case("a working directory that is not there is made", Works(),
         put={"/process/cwd": "/tmp/a/b", **program("/bin/true")}, do=[create(), START, WAIT]),
    Case("a working directory that cannot be made is refused",
         Refused("not-found", "process", "ENOENT", "/process/cwd",
                 'create the directory "/proc/nowhere"'),
         put={"/process/cwd": "/proc/nowhere"}),
    Case("a working directory that is a file is refused",
         Refused("spec", "process", "ENOTDIR", "/process/cwd", '"/etc/passwd"'),
         put={"/process/cwd": "/etc/passwd"}),
    Case("a user outside of the map is refused",
         spec_error("/process/user/uid", "uidMappings"),
         put={"/process/user": {"uid": 5, "gid": 0}}, host=USER),
    Case("a group outside of the map is refused",
         spec_error("/process/user/gid", "gidMappings"),
         put={"/process/user": {"uid": 0, "gid": 5}}, host=USER),
    Case("a further group outside of the map is refused",
         spec_error("/process/user/additionalGids/1", "gidMappings"),
         put={"/process/user": {"uid": 0, "gid": 0, "additionalGids": [0, 5]}}, host=USER),
    Case("a limit above what this user may have is refused",
         Refused("permission", "process", "EPERM", "/process/rlimits/0", "resource limit",
                 "CAP_SYS_RESOURCE"),
         put={"/process/rlimits": [
             {"type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 30}]}, host=USER),
    Case("more descriptors than the kernel allows are refused",
         Refused("permission", "process", "EPERM", "/process/rlimits/0", "resource limit",
                 "CAP_SYS_RESOURCE"),
         put={"/process/rlimits": [
             {"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]}),
    Case("limits too small for setting the container up are refused, and say so",
         Refused("resource", "process", "ENOMEM", "/process/user", "Out of memory", "rlimits"),
         put={"/process/rlimits": [{"type": "RLIMIT_AS", "soft": 4096, "hard": 4096}]}),
    Case("an AppArmor profile where there is no AppArmor is refused",
         Refused("unsupported", "process", "EINVAL", "/process/apparmorProfile",
                 '"docker-default"', "security module"),
         put={"/process/apparmorProfile": "docker-default"},
         needs=[lambda: "a kernel without AppArmor" if os.path.exists(
             "/sys/module/apparmor/parameters/enabled") else None]),

    # --- Other parents --------------------------------------------------------------------------
    *(Case(f"with the {whose} as parent, {what} is refused as well", expect, put=put,
           do=[create(parentage=number), *more], still="stopped" if more else None)
      for number, whose in [(1, "reaper"), (2, "host")]
      for what, expect, put, more in [
          ("a missing program", Refused("program", "exec", "ENOENT", "/process/args", "/no/such"),
           program("/no/such"), []),
          ("a failing hook", Refused("hook", "hook", None, "/hooks/createRuntime/0", "status 1"),
           {"/hooks/createRuntime": [{"path": "/bin/false"}]}, []),
          ("a file that is no program", Refused("program", "exec", "ENOEXEC", "/process/args",
           "/bin/no-program"), program("/bin/no-program"), [START]),
      ]),
    Case("a start that fails in the program's own hook is refused",
         Refused("hook", "hook", "ENOENT", "/hooks/startContainer/0", "/no/such"),
         put={"/hooks/startContainer": [{"path": "/no/such"}]}, do=[create(), START],
         still="stopped"),

    # --- exec -----------------------------------------------------------------------------------
    Case("exec of a program that is not there is refused, and the container runs on",
         Refused("program", "exec", "ENOENT", "/args", "/no/such"),
         do=[create(), START, exec_({"args": ["/no/such"]})], still="running"),
    Case("exec of a file that is no program is refused",
         Refused("program", "exec", "ENOEXEC", "/args", "/bin/no-program", "machine"),
         do=[create(), START, exec_({"args": ["/bin/no-program"]})], still="running"),
    Case("exec in a working directory that is not there is refused",
         Refused("not-found", "process", "ENOENT", "/cwd", '"/no/such"'),
         do=[create(), START, exec_({"args": ["/bin/true"], "cwd": "/no/such"})],
         still="running"),
    Case("exec in a relative working directory is refused",
         spec_error("/cwd", "not an absolute path"),
         do=[create(), START, exec_({"args": ["/bin/true"], "cwd": "tmp"})], still="running"),
    Case("exec with limits that this user may not have is refused",
         Refused("permission", "process", "EPERM", "/rlimits/0", "resource limit"), host=USER,
         do=[create(), START, exec_({"args": ["/bin/true"], "rlimits": [
             {"type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 30}]})],
         still="running", only=["c"]),  # the others have no word for limits of an exec
    Case("exec as a user outside of the map is refused",
         spec_error("/user/uid", "uidMappings"), host=USER,
         do=[create(), START, exec_({"args": ["/bin/true"], "user": {"uid": 5, "gid": 0}})],
         still="running"),
    Case("exec of broken JSON is refused", spec_error(None, "line 1"),
         do=[create(), START, exec_('{"args": ["/bin/true"]')], still="running", only=["c"]),
    Case("exec of no object is refused", spec_error(None, "object"),
         do=[create(), START, exec_('["/bin/true"]')], still="running", only=["c"]),
    Case("exec of nothing is refused", spec_error("/args", "nothing to run"),
         do=[create(), START, exec_({"args": []})], still="running", only=["c"]),
    Case("exec with a wrong type is refused", spec_error("/args", "an array"),
         do=[create(), START, exec_({"args": "/bin/true"})], still="running", only=["c"]),
    Case("exec with a wrong environment is refused", spec_error("/env/0", "NAME=value"),
         do=[create(), START, exec_({"args": ["/bin/true"], "env": ["A"]})], still="running",
         only=["c"]),
    Case("exec with an argument with a NUL is refused", spec_error("/args/1", "NUL"),
         do=[create(), START, exec_({"args": ["/bin/true", "a\0b"]})], still="running",
         differs={"python": Refused("invalid", "arguments", None, None, "NUL", id=False)}),
]

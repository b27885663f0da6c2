"""Values of the wrong type: each is refused with the place, in the words of JSON."""

from table import Case, REMOVED, spec_error


def wrong(pointer, value, says, at=None):
    """`value` at `pointer`, blamed on `at`."""
    shown = "an object" if value == {} else "an array" if value == [] else repr(value)
    return Case(f"{shown} as {pointer} is refused", spec_error(at or pointer, says),
                put={pointer: value})


def missing(pointer, says="is missing"):
    return Case(f"a configuration without {pointer} is refused", spec_error(pointer, says),
                put={pointer: REMOVED})


CASES = [
    missing("/ociVersion"),
    missing("/root"),
    missing("/root/path"),
    missing("/process/args", "args is empty"),
    missing("/process/cwd"),
    missing("/mounts/0/destination"),
    missing("/linux/namespaces/0/type"),

    wrong("/ociVersion", 1, "string"),
    wrong("/root", "/", "an object"),
    wrong("/root", [], "an object"),
    wrong("/root/path", 5, "a string"),
    wrong("/root/readonly", "yes", "true or false"),
    wrong("/process", [], "an object"),
    wrong("/process/args", "sh", "an array"),
    wrong("/process/args", {}, "an array"),
    wrong("/process/args/0", ["sh"], "a string"),
    wrong("/process/env", {"PATH": "/bin"}, "an array"),
    wrong("/process/env/0", 5, "a string"),
    wrong("/process/cwd", False, "a string"),
    wrong("/process/terminal", "true", "true or false"),
    wrong("/process/user", "root", "an object"),
    wrong("/process/user/uid", "0", "a whole number"),
    wrong("/process/user/uid", -1, "a whole number from 0 to 4294967295"),
    wrong("/process/user/gid", 4294967296, "a whole number from 0 to 4294967295"),
    wrong("/process/user/uid", 1.5, "a whole number"),
    wrong("/process/user/gid", 0.0, "not 0.0"),
    wrong("/process/user/additionalGids", 7, "an array"),
    wrong("/process/capabilities", ["CAP_KILL"], "an object"),
    wrong("/process/capabilities/bounding", "CAP_KILL", "an array"),
    wrong("/process/rlimits", {}, "an array"),
    wrong("/process/rlimits/-", {"type": "RLIMIT_NOFILE", "soft": -1, "hard": 1},
          "a whole number", at="/process/rlimits/0/soft"),
    wrong("/process/noNewPrivileges", 1, "true or false"),
    wrong("/process/oomScoreAdj", "low", "a whole number"),
    wrong("/hostname", 7, "a string"),
    wrong("/mounts", {}, "an array"),
    wrong("/mounts/1", "/dev", "an object"),
    wrong("/mounts/1/destination", [], "a string"),
    wrong("/mounts/1/options", "ro", "an array"),
    wrong("/mounts/1/options/0", True, "a string"),
    wrong("/hooks", [], "an object"),
    wrong("/hooks/poststart", {}, "an array"),
    wrong("/hooks/poststart", ["/bin/true"], "an object", at="/hooks/poststart/0"),
    wrong("/hooks/poststart", [{"path": "/bin/true", "timeout": "5"}], "a whole number",
          at="/hooks/poststart/0/timeout"),
    wrong("/annotations", [], "an object"),
    wrong("/annotations/a~1b", 5, "a string"),
    wrong("/annotations/a~0b", {}, "a string"),
    wrong("/linux", "x", "an object"),
    wrong("/linux/namespaces", {}, "an array"),
    wrong("/linux/namespaces/0", "pid", "an object"),
    wrong("/linux/namespaces/0/type", 1, "a string"),
    wrong("/linux/namespaces/0/path", 1, "a string"),
    wrong("/linux/uidMappings", {}, "an array"),
    wrong("/linux/sysctl", [], "an object"),
    wrong("/linux/sysctl/net.ipv4.ip_forward", 1, "a string"),
    wrong("/linux/maskedPaths", "/proc", "an array"),
    wrong("/linux/cgroupsPath", {}, "a string"),
    wrong("/linux/resources", [], "an object"),
    wrong("/linux/resources/memory/limit", "64M", "a whole number"),
    wrong("/linux/resources/pids/limit", 1.5, "a whole number"),
    wrong("/linux/resources/cpu/shares", -1, "a whole number, 0 or more"),
    wrong("/linux/resources/devices", {}, "an array"),
    wrong("/linux/resources/unified", [], "an object"),
    wrong("/linux/resources/unified/memory.max", 5, "a string"),
    wrong("/linux/devices", [{"type": "c", "path": "/dev/x", "major": "1"}], "a whole number",
          at="/linux/devices/0/major"),
    wrong("/linux/seccomp", "default", "an object"),
    wrong("/linux/seccomp", {"defaultAction": 1}, "a string", at="/linux/seccomp/defaultAction"),
    wrong("/linux/seccomp", {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": "read", "action": "SCMP_ACT_ERRNO"}]}, "an array",
        at="/linux/seccomp/syscalls/0/names"),
    wrong("/linux/rootfsPropagation", True, "a string"),
]

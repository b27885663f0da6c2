"""What every engine is asked to do. A case is run with each engine that has what it needs."""

import os
import signal
import time
from urllib.request import urlopen

from box import WORK
from expect import Skipped, at_once, equal, eventually, expect, has
from harness import case
from limits import limit

MIB = 1 << 20
WITHOUT_LIMITS = "cgroup controllers that this user may use"
IDLE = ("sleep", "1000")

# What is said of a program that cannot be run: status and words.
MISSING = (127, ("executable file not found in $PATH", "no such file or directory"))
FORBIDDEN = (126, ("permission denied",))


def refused(engine, done, wanted):
    status, words = wanted
    said = done.out + done.err
    expect(any(word in said for word in words), f"it says {said!r}")
    if engine.has_statuses:
        equal("status", done.code, status)
    else:
        expect(done.code != 0, "it succeeds")


@case()
def a_container_runs_prints_and_ends_with_its_status(engine):
    done = engine.run("one", "sh", "-c", "echo out; echo err >&2; exit 7")
    equal("status", done.code, 7)
    equal("output", done.out, "out\n")
    equal("errors", done.err, "err\n")


@case("input")
def a_container_reads_its_input(engine):
    equal("output", engine.run("one", "tr", "a-z", "A-Z", stdin="some words\n").out, "SOME WORDS\n")


@case("terminal")
def a_container_has_a_terminal(engine):
    done = engine.run("one", "sh", "-c", "tty; test -t 2 && echo all", tty=True)
    equal("output", done.out.split(), ["/dev/pts/0", "all"])


@case()
def what_the_engine_asks_for_is_what_the_program_sees(engine):
    (WORK / "volume").mkdir(exist_ok=True)
    (WORK / "volume" / "file").write_text("of the host\n")
    script = "pwd; echo $WORD; cat /volume/file; touch /volume/x; touch /x"
    options = {"cwd": "/tmp", "env": {"WORD": "a b"}, "readonly": True}
    volume = (WORK / "volume", "/volume", "ro")
    done = engine.run("one", "sh", "-c", script, mounts=[volume], **options)
    equal("output", done.out.splitlines(), ["/tmp", "a b", "of the host"])
    equal("errors", done.err.count("Read-only file system"), 2)


@case()
def a_container_has_the_capabilities_that_the_engine_gives(engine):
    done = engine.run("one", "grep", "CapEff", "/proc/self/status")
    given = int(done.out.split()[1], 16)
    # Every engine gives that of chown to root, and none that of mount.
    equal("those for chown and mount", (given >> 0 & 1, given >> 21 & 1), (1, 0))


@case()
def the_filter_of_the_engine_is_in_force(engine):
    done = engine.run("one", "grep", "Seccomp:", "/proc/self/status", filter=True)
    equal("mode", done.out.split(), ["Seccomp:", "2"])


@case("devices")
def a_device_may_be_used_as_far_as_the_engine_allows(engine):
    # One that containers may not have by default, and that does nothing when it is opened.
    device = "/dev/fuse"
    if not os.path.exists(device):
        raise Skipped(device)
    script = ": </dev/extra && echo open; : >/dev/extra"
    done = engine.run("one", "sh", "-c", script, devices=[(device, "/dev/extra", "r")])
    equal("output", done.out, "open\n")
    has("errors", done.err, "Operation not permitted")


@case("user")
def a_container_runs_as_another_user(engine):
    done = engine.run("one", "sh", "-c", "id -u; id -g; echo $HOME", user="worker")
    equal("output", done.out.split(), ["1000", "1000", "/tmp"])


@case()
def programs_are_executed_in_a_container(engine):
    engine.launch("one", *IDLE)
    done = engine.execute("one", "sh", "-c", "echo $$; echo err >&2; exit 3")
    equal("status", done.code, 3)
    expect(done.out.strip() != "1", "it is the first process")
    has("errors", done.err, "err")
    controllers = engine.execute("one", "cat", "/proc/self/cgroup").fine()
    equal("cgroups", controllers, engine.execute("one", "cat", "/proc/1/cgroup").fine())


@case("execute_options")
def an_executed_program_has_input_user_and_directory(engine):
    engine.launch("one", *IDLE)
    script = "cat; id -u; pwd"
    done = engine.execute("one", "sh", "-c", script, stdin="words\n", user="1000", cwd="/etc")
    equal("output", done.out.splitlines(), ["words", "1000", "/etc"])


@case("execute_options")
def an_executed_program_has_a_terminal(engine):
    engine.launch("one", *IDLE)
    done = engine.execute("one", "tty", tty=True)
    has("output", done.out, "/dev/pts/")
    equal("status", done.code, 0)


@case()
def an_executed_program_that_is_missing_or_may_not_be_is_said_to_be(engine):
    engine.launch("one", *IDLE)
    status, words = MISSING
    done = engine.execute("one", "no-such-program")
    refused(engine, done, (engine.missing_executed or status, words))
    refused(engine, engine.execute("one", "/bin/not-executable"), FORBIDDEN)


@case()
def logs_are_streamed_while_the_container_runs(engine):
    engine.launch("one", "sh", "-c", "while read x </proc/uptime; do echo $x; sleep 0.1; done")
    reader = engine.follow("one")
    try:
        lines = [reader.stdout.readline() for _ in range(5)]
    finally:
        reader.kill()
        reader.wait()
    expect(all(lines) and len(set(lines)) == 5, f"lines {lines}")
    equal("state", engine.state("one"), "running")


@case()
def limits_are_in_the_cgroup(engine):
    options = {
        name: value
        for name, value in {"memory": 64 * MIB, "cpus": 0.5, "pids": 50, "cpuset": "0"}.items()
        if name in engine.limits
    }
    if not options:
        raise Skipped(WITHOUT_LIMITS)
    engine.launch("one", *IDLE, **options)
    pid = engine.pid("one")
    if "memory" in options:
        equal("memory", limit(pid, "memory", "memory.limit_in_bytes", "memory.max"), str(64 * MIB))
    if "cpus" in options:
        quota = limit(pid, "cpu", "cpu.cfs_quota_us", "cpu.max").split()[0]
        equal("time of a processor", quota, "50000")
    if "pids" in options:
        equal("processes", limit(pid, "pids", "pids.max", "pids.max"), "50")
    if "cpuset" in options:
        equal("processors", limit(pid, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0")


@case("update")
def limits_are_updated(engine):
    if "memory" not in engine.limits:
        raise Skipped(WITHOUT_LIMITS)
    engine.launch("one", *IDLE, memory=64 * MIB)
    engine.update("one", memory=96 * MIB)
    found = limit(engine.pid("one"), "memory", "memory.limit_in_bytes", "memory.max")
    equal("memory", found, str(96 * MIB))


@case()
def what_takes_too_much_memory_is_killed(engine):
    if "memory" not in engine.limits:
        raise Skipped(WITHOUT_LIMITS)
    # A child, so that the end of the container and the news of its end are not the same moment.
    script = "dd if=/dev/zero of=/dev/null bs=256M count=1; code=$?; sleep 0.5; exit $code"
    engine.launch("one", "sh", "-c", script, memory=32 * MIB)
    equal("status, and whether for want of memory", engine.ended("one"), (137, True))


@case("pause")
def a_container_is_paused_and_resumed(engine):
    engine.launch("one", "sh", "-c", "while read x </proc/uptime; do echo $x; sleep 0.05; done")
    eventually("it prints", lambda: engine.output("one"))
    engine.pause("one")
    equal("state", engine.state("one"), "paused")
    before = engine.output("one")
    time.sleep(0.5)
    equal("what it prints while it is paused", engine.output("one").removeprefix(before), "")
    engine.resume("one")
    equal("state", engine.state("one"), "running")
    eventually("it goes on", lambda: len(engine.output("one")) > len(before))


@case()
def a_container_is_asked_to_stop(engine):
    engine.launch("one", "sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done")
    eventually("it is ready", lambda: "ready" in engine.output("one"))
    engine.stop("one", 10)
    equal("status", engine.ended("one")[0], 9)


@case()
def a_container_that_does_not_stop_is_killed(engine):
    engine.launch("one", *IDLE)
    engine.stop("one", 1)
    equal("status", engine.ended("one")[0], 137)


@case("kill")
def a_signal_reaches_the_container(engine):
    engine.launch("one", "sh", "-c", "trap 'exit 5' USR1; echo ready; while :; do sleep 0.1; done")
    eventually("it is ready", lambda: "ready" in engine.output("one"))
    engine.kill("one", "SIGUSR1")
    equal("status", engine.ended("one")[0], 5)


@case("processes")
def the_engine_sees_its_processes(engine):
    engine.launch("one", "sh", "-c", "sleep 1001 & sleep 1002")

    def both():
        seen = [words for words in engine.processes("one") if words[0].endswith("sleep")]
        return len(seen) == 2

    eventually("both programs are seen", both)


@case("address")
def a_container_is_reached_by_its_address(engine):
    engine.launch("one", "httpd", "-f", "-p", "8080", "-h", "/etc", network=True)
    where = f"http://{engine.address('one')}:8080/group"

    def answer():
        try:
            return urlopen(where, timeout=5).read().decode()
        except OSError:
            return None

    has("answer", eventually(f"{where} answers", answer), "worker")


@case("restart")
def a_container_that_has_ended_is_started_again(engine):
    engine.launch("one", "sh", "-c", "echo begun; exit 4")
    equal("status", engine.ended("one")[0], 4)
    engine.restart("one")
    eventually("it has begun twice", lambda: engine.output("one").count("begun") == 2)
    equal("status", engine.ended("one")[0], 4)


@case()
def ten_containers_run_at_once(engine):
    def live(number):
        name = f"ten-{number}"
        engine.launch(
            name,
            "sh",
            "-c",
            f"trap 'exit {number}' TERM; echo {number}; while :; do sleep 0.1; done",
        )
        eventually("it prints", lambda: engine.output(name).split() == [str(number)], 30)
        equal("output", engine.execute(name, "echo", name).out.strip(), name)
        engine.stop(name, 20)
        equal("status", engine.ended(name)[0], number)
        engine.remove(name)

    at_once(10, live)


@case("mapping")
def a_container_is_in_a_user_namespace(engine):
    done = engine.run("one", "sh", "-c", "id -u; cat /proc/self/uid_map", mapping="0:300000:1000")
    equal("output", done.out.split(), ["0", "0", "300000", "1000"])


@case("shim")
def what_a_killed_shim_has_left_is_removed(engine):
    engine.launch("one", "sh", "-c", "sleep 1001 & sleep 1002")
    pid = engine.pid("one")
    os.kill(engine.shim("one"), signal.SIGKILL)
    eventually("its task is gone", lambda: engine.state("one") == "none")
    eventually("its process is gone", lambda: not os.path.exists(f"/proc/{pid}"))


# --- Pods ------------------------------------------------------------------------------------


def namespaces(pid):
    kinds = ("ipc", "mnt", "net", "pid", "uts")
    return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds}


@case("pod")
def containers_of_a_pod_share_its_namespaces(engine):
    engine.pod("shared", pid="POD")
    for name in ("one", "two"):
        engine.add("shared", name, *IDLE)
    one, two = namespaces(engine.pid("one")), namespaces(engine.pid("two"))
    shared = {kind for kind in one if one[kind] == two[kind]}
    equal("shared namespaces", shared, {"ipc", "net", "pid", "uts"})
    expect(one["pid"] != namespaces("self")["pid"], "it is the host's pid namespace")
    equal("name", engine.execute("two", "hostname").out, "pod-shared\n")
    seen = engine.execute("two", "ps", "-o", "args").fine().splitlines()
    equal("programs that are seen", seen.count("sleep 1000"), 2 + 1)


@case("pod")
def a_container_of_a_pod_is_not_killed_with_another(engine):
    engine.pod("shared", pid="POD")
    engine.add("shared", "one", "sh", "-c", "sleep 1001 & sleep 1002")
    engine.add("shared", "two", *IDLE)
    engine.stop("one", 0)
    equal("status", engine.ended("one")[0], 137)
    seen = engine.execute("two", "ps", "-o", "args").fine()
    expect("sleep 1001" not in seen and "sleep 1002" not in seen, f"it goes on: {seen}")


@case("pod")
def a_pod_may_have_the_namespaces_of_the_node(engine):
    engine.pod("ours", pid="NODE", ipc="NODE", network="NODE")
    engine.add("ours", "one", "sh", "-c", "sleep 1001 & sleep 1002")
    one, node = namespaces(engine.pid("one")), namespaces("self")
    equal("namespaces of its own", {kind for kind in one if one[kind] != node[kind]}, {"mnt"})
    engine.stop("one", 0)
    equal("status", engine.ended("one")[0], 137)


# --- What engines say of what cannot be run --------------------------------------------------


@case()
def a_missing_program_is_said_to_be_missing(engine):
    refused(engine, engine.run("one", "no-such-program"), MISSING)
    engine.remove_all()
    refused(engine, engine.run("one", "/no/such/program"), MISSING)


@case()
def a_program_that_may_not_be_executed_is_said_to_be_one(engine):
    refused(engine, engine.run("one", "/bin/not-executable"), FORBIDDEN)


@case()
def a_directory_on_a_file_is_said_not_to_fit(engine):
    (WORK / "volume").mkdir(exist_ok=True)
    done = engine.run("one", "true", mounts=[(WORK / "volume", "/bin/not-executable", "rw")])
    expect(done.code != 0, "it succeeds")
    has("message", (done.out + done.err).lower(), "not a directory")
    has("message", done.out + done.err, "/bin/not-executable")

"""Plugins: what they change is so in the container, what they refuse does not happen."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import threading
from pathlib import Path
from typing import Any, List

import pytest
from conftest import need

import locule
import locule.aio
from locule import _plugin


@pytest.fixture
def opened(root: None, tmp_path: Path):
    """Opens runtimes with plugins, which have to be empty in the end and to let the plugins go."""
    runtimes: List[locule.Runtime] = []

    def open(*plugins: Any, **options: Any) -> locule.Runtime:
        runtimes.append(locule.Runtime(tmp_path / "state", plugins=plugins, **options))
        return runtimes[-1]

    yield open
    for runtime in runtimes:
        assert runtime.list() == []
        runtime.close()
    gc.collect()
    assert _plugin._known == {}


def output(runtime: locule.Runtime, script: str, **options: Any) -> str:
    done = runtime.run(["sh", "-c", script], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Named(locule.Plugin):
    def __init__(self, name: str = "", **attributes: Any) -> None:
        self.name = name
        for attribute, value in attributes.items():
            setattr(self, attribute, value)


def test_what_a_plugin_changes_is_so_in_the_container(opened, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from outside\n")

    class Stamp(locule.Plugin):
        def create(self, call: locule.Call) -> None:
            assert call.stage == "create" and call.pid is None and os.path.isdir(call.bundle)
            call.set_env("STAMP", "it's ü")
            call.add_mount(locule.Mount(tmp_path, "/mnt"))
            call.set_rlimit("RLIMIT_NOFILE", 77, 88)
            call.set_annotation("org.example.stamp", "7")
            assert call.get("/process/rlimits/0/soft") == 77
            assert call.get("/no/such") is None and call.get("/no/such", 3) == 3
            assert call.get()["process"]["cwd"] == "/"
            assert call.annotations == {"org.example.stamp": "7"}

    runtime = opened(Stamp())
    script = "echo $STAMP $(ulimit -Sn) $(ulimit -Hn); cat /mnt/file"
    assert output(runtime, script) == "it's ü 77 88\nfrom outside\n"
    with runtime.create(["true"]) as container:
        changes = container.state().changes
        assert [change.pointer for change in changes] == [
            "/process/env/STAMP", "/mounts/~1mnt", "/process/rlimits/RLIMIT_NOFILE",
            "/annotations/org.example.stamp",
        ]
        first = changes[0]
        assert (first.plugin, first.stage, first.adjustment) == ("Stamp", "create", "set-env")
        assert first.before is None and first.after == "STAMP=it's ü"
        assert container.state().annotations == {"org.example.stamp": "7"}


def test_every_adjustment_is_one_of_the_library(opened) -> None:
    class All(locule.Plugin):
        def create(self, call: locule.Call) -> None:
            call.remove_annotation("none")
            call.remove_env("NONE")
            call.set_mount("/run/x", kind="tmpfs", source="x", options=["nosuid"])
            call.remove_mount("/run/x")
            call.set_device("/dev/other", kind="c", major=1, minor=3, access="rw", mode=0o600)
            call.remove_device("/dev/other")
            call.set_resource("pids/limit", 50)
            call.set_resource("memory/disableOOMKiller", False)
            call.set_unified("pids.max", 50)
            call.set_rlimit("RLIMIT_CORE", "unlimited")
            call.remove_rlimit("RLIMIT_CORE")
            call.set_args(["sh", "-c", "echo $(pwd) $(id -u) $0", "zero"])
            call.set_cwd("/tmp")
            call.set_user(3, 4, [5])
            call.set_oom_score_adj(10)
            call.set_namespace("ipc")
            call.remove_namespace("ipc")
            call.set_namespace("ipc")
            call.add_capability("CAP_CHOWN")
            call.drop_capability("CAP_CHOWN")
            call.set_no_new_privileges()
            call.set_seccomp({"defaultAction": "SCMP_ACT_ALLOW"})
            call.set_apparmor_profile("")
            call.set_selinux_label("")
            call.mask_path("/etc/motd")
            call.write_protect_path("/etc/issue")
            call.set_root_read_only(False)
            call.add_hook("createRuntime", "/bin/true", ["true"], {"A": "b"}, 5)
            call.merge({"annotations": {"merged": "yes"}, "linux": {"resources": {
                "unified": None, "memory": None}}})

    assert output(opened(All()), "exit 9") == "/tmp 3 zero\n"


def test_a_refusal_is_an_error_with_the_plugin_s_reason(opened) -> None:
    class Policy(locule.Plugin):
        name = "policy"

        def create(self, call: locule.Call) -> None:
            raise locule.Refused("not on a Friday", code=13)

    with pytest.raises(locule.PluginError, match="not on a Friday") as refused:
        opened(Policy()).run(["true"])
    assert 'plugin "policy" refused create with code 13' in str(refused.value)
    assert refused.value.stage == "plugin" and refused.value.code == "plugin"
    assert isinstance(refused.value.__cause__, locule.Refused)
    assert refused.value.__cause__.code == 13


def refuse(call: locule.Call) -> None:
    raise locule.Refused("not so")


def test_an_exception_is_a_failure_and_is_logged(opened, caplog) -> None:
    class Weak(locule.Plugin):
        def create(self, call: locule.Call) -> None:
            call.set_env("HALF", "1")
            {}["no such"]  # noqa: B018

    with caplog.at_level(logging.ERROR, "locule"):
        with pytest.raises(locule.PluginError, match="KeyError: 'no such'") as failed:
            opened(Weak()).run(["true"])
    assert 'plugin "Weak" failed at create' in str(failed.value)
    assert isinstance(failed.value.__cause__, KeyError)
    (record,) = caplog.records
    assert record.name == "locule.plugin" and record.exc_info and record.exc_info[0] is KeyError

    caplog.clear()
    with caplog.at_level(logging.WARNING, "locule"):
        assert output(opened(Named("weak", create=Weak().create, on_failure="skip")),
                      "echo ${HALF-none}") == "none\n"
    # Of the exception, and of what the library makes of it.
    warning = caplog.records[-1]
    assert warning.levelno == logging.WARNING and warning.name == "locule.plugin"
    assert "plugin weak, container " in warning.getMessage()
    assert "skipped" in warning.getMessage() and "no such" in warning.getMessage()
    # What another says afterwards does not come of it.
    policy = Named("policy", priority=1, create=refuse)
    with pytest.raises(locule.PluginError, match="not so") as refused:
        opened(Named("weak", create=Weak().create, on_failure="skip"), policy).run(["true"])
    assert isinstance(refused.value.__cause__, locule.Refused)
    weak = Named("weak", create=Weak().create, on_failure="skip")
    with pytest.raises(locule.PluginError, match="is missing") as missing:
        opened(weak, required_plugins=["policy"]).run(["true"])
    assert missing.value.__cause__ is None

    required = opened(
        Named("weak", create=Weak().create, on_failure="disable", required=True)
    )
    with pytest.raises(locule.PluginError, match="KeyError: 'no such'") as failed:
        required.run(["true"])
    assert isinstance(failed.value.__cause__, KeyError)
    assert required.plugins()[0]["disabled"] is True
    with pytest.raises(locule.PluginError, match="required plugin .* has been disabled") as gone:
        required.run(["true"])
    assert gone.value.__cause__ is None


def test_an_interrupt_in_a_plugin_is_the_caller_s(opened) -> None:
    def interrupted(call: locule.Call) -> None:
        raise KeyboardInterrupt

    for policy in ("fail", "skip"):
        with pytest.raises(KeyboardInterrupt):
            opened(Named("slow", create=interrupted, on_failure=policy)).run(["true"])
    with pytest.raises(KeyboardInterrupt):
        opened(Named("slow", created=interrupted)).create(["true"])


def test_the_second_who_changes_something_is_told_who_was_first(opened) -> None:
    seen: List[str] = []

    class Claim(Named):
        def create(self, call: locule.Call) -> None:
            seen.append(self.name)
            try:
                call.set_env("OWNER", self.name)
            except locule.Busy as busy:
                assert busy.pointer == "/process/env/OWNER" and '"b-first"' in str(busy)
                seen.append("busy")

        def created(self, call: locule.Call) -> None:
            seen.append(self.name)
            with pytest.raises(locule.StateError):
                call.set_env("LATE", "1")

    assert output(opened(Claim("a-second"), Claim("b-first", priority=-1)), "echo $OWNER") == (
        "b-first\n"
    )
    assert seen == ["b-first", "a-second", "busy", "a-second", "b-first"]
    override = opened(Claim("a-second", override=True), Claim("b-first", priority=-1))
    assert output(override, "echo $OWNER") == "a-second\n"

    class Careless(Named):
        def create(self, call: locule.Call) -> None:
            call.set_env("OWNER", self.name)

    with pytest.raises(locule.PluginError, match='"b" failed at create: Busy: .*"a" has changed'):
        opened(Careless("a"), Careless("b")).run(["true"])


def test_a_judge_sees_what_all_have_done_and_changes_nothing(opened) -> None:
    class Judge:
        def judge(self, call: locule.Call) -> None:
            assert call.get("/process/cwd") == "/tmp"
            (change,) = call.changes
            with pytest.raises(locule.StateError):
                call.set_cwd("/")
            raise locule.Refused(f"{change.plugin} has moved it")

    class Move(locule.Plugin):
        def create(self, call: locule.Call) -> None:
            call.set_cwd("/tmp")

    with pytest.raises(locule.PluginError, match='"Judge" refused create: Move has moved it'):
        opened(Judge(), Move()).run(["true"])


def test_a_whole_life_is_seen_in_its_order(opened) -> None:
    seen: List[str] = []

    class Witness:
        def __getattr__(self, stage: str) -> Any:
            if stage not in _plugin.STAGES:
                raise AttributeError(stage)

            def see(call: locule.Call) -> None:
                details = {
                    name: value
                    for name in ("signal", "all", "exit-code", "container-pid")
                    if (value := call.detail(name)) is not None
                }
                if details.get("container-pid") == str(call.pid):
                    details = {"container-pid": "its own"}
                assert (call.pid is None) == (stage in ("create", "stopped", "delete"))
                seen.append(stage + "".join(f" {k}={v}" for k, v in details.items()))

            return see

    runtime = opened(Witness())
    with runtime.create(["sleep", "60"]) as container:
        container.start()
        container.run(["true"], check=True)
        container.pause()
        container.resume()
        container.update(pids=50)
        container.kill()
        assert container.wait() == -9
    assert seen == [
        "create", "created", "start", "started", "exec container-pid=its own", "pause", "resume",
        "update", "kill signal=9 all=false", "stopped signal=9", "delete",
    ]
    assert runtime.plugins()[0]["stages"] == list(_plugin.STAGES)


def test_a_process_and_new_limits_can_be_changed_and_refused(opened) -> None:
    class Guard(locule.Plugin):
        def exec(self, call: locule.Call) -> None:
            if call.get("/process/args")[0] == "false":
                raise locule.Refused("not false")
            call.set_env("INSIDE", "yes")
            with pytest.raises(locule.StateError):
                call.mask_path("/etc")

        def update(self, call: locule.Call) -> None:
            if call.get("/linux/resources/pids/limit") > 1000:
                raise locule.Refused("too many")
            call.set_resource("pids/limit", 33)

        def pause(self, call: locule.Call) -> None:
            raise RuntimeError("no pausing")

    runtime = opened(Guard())
    with runtime.create(["sleep", "60"]) as container:
        container.start()
        done = container.run(["sh", "-c", "echo $INSIDE"], capture_output=True, text=True)
        assert done.stdout == "yes\n"
        with pytest.raises(locule.PluginError, match="not false"):
            container.run(["false"])
        container.update(pids=50)
        assert container.stats().pids_limit == 33
        with pytest.raises(locule.PluginError, match="too many"):
            container.update(pids=5000)
        with pytest.raises(locule.PluginError, match="no pausing"):
            container.pause()
        assert container.state().status == "running"
        assert [change.stage for change in container.state().changes] == ["exec", "update"]


def test_a_plugin_is_called_where_its_container_is_made_and_may_make_others(opened) -> None:
    threads: List[int] = []
    inner: List[str] = []

    class Nested(locule.Plugin):
        def create(self, call: locule.Call) -> None:
            threads.append(threading.get_ident())
            if not call.id.startswith("inner"):
                inner.append(self.runtime.run(
                    ["echo", "in"], capture_output=True, text=True).stdout
                    if call.id == "inner" else call.id)

        def stopped(self, call: locule.Call) -> None:
            if call.id == "outer":
                with self.runtime.create(["true"], id="inner-2"):
                    pass
            inner.append(f"stopped {call.id}")

    plugin = Nested()
    plugin.runtime = runtime = opened(plugin)  # type: ignore[attr-defined]

    def make() -> None:
        with runtime.events(timeout=0.2) as events:
            with runtime.create(["true"], id="outer") as container:
                container.start()
                list(events)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert set(threads) == {thread.ident}
    assert "stopped outer" in inner and "stopped inner-2" in inner


def test_with_asyncio_plugins_run_beside_the_loop(root: None, tmp_path: Path) -> None:
    threads: List[int] = []

    class Slow(locule.Plugin):
        def create(self, call: locule.Call) -> None:
            threads.append(threading.get_ident())
            call.set_env("ASYNC", "yes")
            if call.get("/process/args")[-1] == "no":
                raise locule.Refused("no")

    async def main() -> None:
        async with locule.aio.Runtime(tmp_path / "state", plugins=[Slow()]) as runtime:
            done = await runtime.run(["sh", "-c", "echo $ASYNC"], capture_output=True, text=True)
            assert done.stdout == "yes\n"
            with pytest.raises(locule.PluginError) as refused:
                await runtime.run(["echo", "no"])
            assert isinstance(refused.value.__cause__, locule.Refused)

    asyncio.run(main())
    assert threading.get_ident() not in threads and len(threads) == 2


def test_a_call_is_over_when_the_method_returns(opened) -> None:
    kept: List[locule.Call] = []

    class Keeps(locule.Plugin):
        def create(self, call: locule.Call) -> None:
            kept.append(call)

    opened(Keeps()).run(["true"])
    for use in (kept[0].get, lambda: kept[0].set_env("A", "b"), lambda: kept[0].detail("x")):
        with pytest.raises(ValueError, match="over"):
            use()


def test_rules_hold_for_all_plugins(opened) -> None:
    class Hooks(locule.Plugin):
        def create(self, call: locule.Call) -> None:
            call.add_hook("createRuntime", "/bin/true")

    with pytest.raises(locule.PluginError, match="no plugin may change hooks.*Hooks"):
        opened(Hooks(), forbid=["hooks"]).run(["true"])
    with pytest.raises(locule.PluginError, match='required plugin "policy" is missing'):
        opened(required_plugins=["policy"]).run(["true"])


def test_what_is_no_plugin_is_refused_when_the_runtime_is_opened(opened) -> None:
    class Nothing:
        pass

    def handler(call: locule.Call) -> None:
        pass

    for plugins, options, message in [
        ([Nothing()], {}, "method of no stage"),
        ([Nothing], {}, "give an instance"),
        ([Named("a b", create=handler)], {}, "name"),
        ([Named("twin", create=handler), Named("twin", start=handler)], {}, "twin"),
        ([Named("x", create=handler, on_failure="maybe")], {}, "on_failure"),
        ([], {"forbid": ["rain"]}, "rain"),
        ([], {"required_plugins": "policy"}, "lists"),
    ]:
        with pytest.raises(locule.Invalid, match=message):
            opened(*plugins, **options)
    assert _plugin._known == {}


def test_a_plugin_lives_as_long_as_a_runtime_with_it(root: None, tmp_path: Path) -> None:
    class Counts(locule.Plugin):
        calls = 0

        def create(self, call: locule.Call) -> None:
            Counts.calls += 1

    with locule.Runtime(tmp_path / "a", plugins=[Counts()]) as runtime:
        gc.collect()
        runtime.run(["true"])
        assert len(_plugin._known) == 1
    assert Counts.calls == 1
    gc.collect()
    assert _plugin._known == {}


def test_plugins_of_many_threads_do_not_get_in_each_other_s_way(opened) -> None:
    class Echo(locule.Plugin):
        def create(self, call: locule.Call) -> None:
            call.set_env("ID", call.id)
            if call.id.endswith("3"):
                raise locule.Refused(call.id)

    runtime = opened(Echo())
    results: List[str] = []

    def make(number: int) -> None:
        name = f"thread-{number}"
        try:
            with runtime.create(
                ["sh", "-c", "test $ID = $0", name], id=name
            ) as container:
                container.start()
                results.append(f"{number}: {container.wait()}")
        except locule.PluginError as refused:
            results.append(f"{number}: {refused.__cause__}")

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expected = [f"{number}: 0" for number in range(8) if number != 3] + ["3: thread-3"]
    assert sorted(results) == sorted(expected)


# --- Wasm ---------------------------------------------------------------------------------


def test_without_wasm_the_library_says_so(library: None, tmp_path: Path) -> None:
    kind = locule.NotFound if locule.has("wasm-plugins") else locule.Unsupported
    with pytest.raises(locule.LoculeError) as failed:
        locule.WasmPlugin(tmp_path / "no-such.wasm")
    assert locule.has("wasm-plugins") or failed.type is kind
    with pytest.raises(kind):
        locule.WasmPlugin.inspect(tmp_path / "no-such.wasm")


def components() -> Path:
    folder = os.environ.get("LOCULE_TEST_PLUGIN")
    need(folder, "LOCULE_TEST_PLUGIN, a folder with policy.wasm and stamp.wasm")
    need(locule.has("wasm-plugins"), "a library with Wasm plugins")
    return Path(str(folder))


def test_a_component_is_a_plugin(opened, tmp_path: Path) -> None:
    path = components() / "policy.wasm"
    inspected = locule.WasmPlugin.inspect(path)
    assert inspected["digest"].startswith("sha256:") and inspected["bytes"] == path.stat().st_size
    with pytest.raises(locule.PluginError):
        locule.WasmPlugin(path, cache=tmp_path / "cache")  # without its powers
    with pytest.raises(locule.Invalid):
        locule.WasmPlugin(path, powers=["rain"])
    policy = locule.WasmPlugin(
        path, powers=inspected["powers"], digest=inspected["digest"], priority=3,
        cache=tmp_path / "cache", config={"hostPaths": ["/usr"]}, limits={"fuel": 10**9},
    )
    assert policy.name == "policy" and policy.describe()["priority"] == 3
    runtime = opened(policy)
    assert output(runtime, "id -u", user=5) == "5\n"
    with pytest.raises(locule.PluginError, match="policy.*root") as refused:
        runtime.run(["id", "-u"])
    assert refused.value.__cause__ is None

    # The same from files, beside another that is Python.
    folder = tmp_path / "plugins"
    folder.mkdir(mode=0o755)
    (folder / "policy.json").write_text(json.dumps({
        "path": str(path), "powers": inspected["powers"], "cache": str(tmp_path / "cache"),
    }))
    (folder / "rules.json").write_text('{"required": ["policy"], "forbid": ["hooks"]}')
    loaded = locule.WasmPlugin.load(folder / "policy.json")
    assert loaded.name == "policy"

    class Demote(locule.Plugin):
        priority = -1

        def create(self, call: locule.Call) -> None:
            call.set_user(6, 6)

    with_folder = opened(Demote(), plugin_dir=folder)
    assert [plugin["name"] for plugin in with_folder.plugins()] == ["Demote", "policy"]
    assert output(with_folder, "id -u") == "6\n"

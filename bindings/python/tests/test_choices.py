"""Keyword arguments become config.json. No library is needed for this."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

import locule
from locule import aio
from locule._choices import (
    DEFAULT_PATH, Choices, Mount, parse_args, parse_cpus, parse_env, parse_memory, parse_user,
    process_document,
)
from locule import _options
from locule._options import CreateOptions, RunOptions, SpecOptions


@pytest.mark.parametrize("given, expected", [
    (None, None), (1, 1), ("4096", 4096), ("1K", 1024), ("256M", 256 << 20), ("256m", 256 << 20),
    ("1.5G", 3 << 29), ("2GiB", 2 << 30), ("64 MB", 64 << 20), ("1T", 1 << 40),
])
def test_memory_is_bytes_or_a_number_with_a_unit(given, expected) -> None:
    assert parse_memory(given) == expected


@pytest.mark.parametrize("wrong", [0, -1, "", "M", "12X", "-1M", "inf", "nan", True])
def test_memory_of_another_form_is_refused(wrong) -> None:
    with pytest.raises(locule.Invalid, match="memory"):
        parse_memory(wrong)


@pytest.mark.parametrize("given, expected", [
    (None, None), (0, (0, 0)), (1000, (1000, 1000)), ("1000", (1000, 1000)), ("1:2", (1, 2)),
    ((3, 4), (3, 4)),
])
def test_user_is_a_number_a_pair_or_text(given, expected) -> None:
    assert parse_user(given) == expected


@pytest.mark.parametrize("wrong", [
    -1, 1.0, 1.9, True, 2**32 - 1, 2**32, "", "root", "0x10", "-1", "+1", " 1", "1 ", "1_0", "1.0",
    "\u0661", "4294967295", "4294967296", "9" * 5000, "1:", ":1", "1:2:3", "1:root", "1:-1",
    (), (1, 2, 3), (1.9, 2), (True, 2), ("1", "2"), (1, None), (1, 2**32 - 1), {1: 2},
])
def test_a_user_of_another_form_is_refused(wrong) -> None:
    # Without the check of each part in parse_user this fails (CVE-2016-3697, CVE-2026-30892): a
    # number that is cut is another user's.
    with pytest.raises(locule.Invalid, match="user"):
        parse_user(wrong)


def test_cpus_are_a_fraction_of_processors() -> None:
    assert (parse_cpus(None), parse_cpus(0.5), parse_cpus(2)) == (None, 500, 2000)
    for wrong in (0, -1, 0.001, float("nan"), float("inf")):
        with pytest.raises(locule.Invalid, match="cpus"):
            parse_cpus(wrong)


def test_mounts_are_read_only_unless_said_otherwise() -> None:
    assert Mount.parse("/a:/b") == Mount("/a", "/b")
    assert Mount.parse("/a:/b:ro").readonly
    assert not Mount.parse("/a:/b:rw").readonly
    assert "rro" in Mount("/a", "/b").to_spec()["options"]
    assert "rw" in Mount("/a", "/b", readonly=False).to_spec()["options"]


def test_a_mount_source_may_be_relative_and_a_path(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Mount(Path("data"), "/data").to_spec()["source"] == str(tmp_path / "data")


@pytest.mark.parametrize("wrong", ["", "/a", "/a:/b:rx", ":/b", "/a:", "/a:/b:ro:x"])
def test_mounts_of_another_form_are_refused(wrong) -> None:
    with pytest.raises(locule.Invalid, match="mount"):
        Mount.parse(wrong)


def test_a_mount_target_is_absolute() -> None:
    with pytest.raises(locule.Invalid, match="target"):
        Mount("/a", "b").to_spec()


def test_mounts_are_a_sequence_not_one_string() -> None:
    with pytest.raises(TypeError):
        Choices(mounts="/a:/b")  # type: ignore[arg-type]


def test_args_may_be_one_program_and_hold_paths() -> None:
    assert parse_args("true") == ["true"]
    assert parse_args(["cat", Path("/etc/os-release")]) == ["cat", "/etc/os-release"]
    assert parse_args(Path("/bin/true")) == ["/bin/true"]
    for wrong in ([], ["a\0b"], ["\udcff"]):
        with pytest.raises(locule.Invalid):
            parse_args(wrong)
    with pytest.raises(TypeError):
        parse_args(["sleep", 1])  # type: ignore[list-item]


def test_env_is_the_whole_environment_but_for_a_path() -> None:
    assert parse_env(None) is None
    assert parse_env({}) == [f"PATH={DEFAULT_PATH}"]
    assert parse_env({"A": "b", "PATH": "/x"}) == ["A=b", "PATH=/x"]
    for wrong in ({"": "x"}, {"A=B": "x"}, {"A": "x\0"}):
        with pytest.raises(locule.Invalid):
            parse_env(wrong)


def test_network_is_none_or_host() -> None:
    with pytest.raises(locule.Invalid, match="network"):
        Choices(network="bridge")


def test_the_hosts_root_is_only_used_below_an_overlay() -> None:
    assert Choices().flags == 1
    assert Choices(rootfs="/x").flags == 0
    assert Choices(rootfs="/x", overlay=True).flags == 1
    with pytest.raises(locule.Invalid, match="overlay"):
        Choices(overlay=False).flags
    with pytest.raises(locule.Invalid, match="rootfs"):
        Choices(rootfs="/x", bundle="/y")


SPEC = {
    "ociVersion": "1.2.0",
    "process": {"cwd": "/", "args": ["sh"], "env": ["A=b"], "user": {"uid": 0, "gid": 0}},
    "root": {"path": "rootfs"},
    "linux": {"namespaces": [{"type": "pid"}], "resources": {"memory": {"swap": 5}}},
    "x-unknown": [1, 2],
}


def changed(**choices):
    return json.loads(Choices(spec=SPEC, **choices).document())


def test_a_spec_without_changes_goes_as_it_is(tmp_path) -> None:
    assert changed() == SPEC
    text = b'{ "ociVersion" : "1.2.0" }'
    assert Choices(spec=text).document() == text
    assert Choices(spec=text.decode()).document() == text
    assert Choices(bundle=tmp_path).document() is None


def test_arguments_change_a_spec_and_nothing_else_in_it() -> None:
    document = changed(
        args=["true"], env={"X": "y", "PATH": "/"}, cwd="/tmp", user="1:2", hostname="h",
        mounts=["/a:/b"], network="none", memory="1K", cpus=0.5, pids=7, readonly=True,
    )
    assert document["process"] == {
        "cwd": "/tmp", "args": ["true"], "env": ["X=y", "PATH=/"], "user": {"uid": 1, "gid": 2},
    }
    assert document["hostname"] == "h"
    assert document["root"] == {"path": "rootfs", "readonly": True}
    assert [mount["destination"] for mount in document["mounts"]] == ["/b"]
    assert document["linux"]["namespaces"] == [{"type": "pid"}, {"type": "network"}]
    assert document["linux"]["resources"] == {
        "memory": {"swap": 5, "limit": 1024},
        "cpu": {"quota": 50000, "period": 100000},
        "pids": {"limit": 7},
    }
    assert document["x-unknown"] == [1, 2]
    assert "hostname" not in SPEC, "the caller's own document stays as it was"


def test_a_terminal_of_the_spec_is_left_out_for_a_run() -> None:
    terminal = json.dumps({**SPEC, "process": {**SPEC["process"], "terminal": True}})
    assert json.loads(Choices(spec=terminal, tty=False).document())["process"]["terminal"] is False
    text = json.dumps(SPEC).encode()
    assert Choices(spec=text, tty=False).document() == text


def test_a_document_that_cannot_be_changed_goes_to_the_library_as_it_is() -> None:
    for text in (b"{", b"[]", b'{"process": 5}', b'{"process": {}, "process": {}}'):
        assert Choices(["true"], spec=text).document() == text


def test_a_second_process_has_a_terminal_only_if_asked() -> None:
    assert json.loads(process_document("true", None, None, None, None)) == {
        "args": ["true"], "terminal": False,
    }
    assert json.loads(process_document("true", None, None, None, (24, 80)))["consoleSize"] == {
        "height": 24, "width": 80,
    }


def overrides(**choices):
    text = Choices(image="alpine", **choices).overrides_json()
    return None if text is None else json.loads(text)


def test_arguments_become_what_is_other_than_the_image_has_it() -> None:
    assert overrides() is None
    assert overrides(env={}, mounts=(), tty=False, readonly=False, network="none") is None
    assert overrides(
        args=["ls", Path("/etc")], entrypoint=[], env={"A": "b", "C": None}, cwd="/tmp",
        user="dev:users", hostname="h", mounts=["/a:/b", Mount("/c", "/d", readonly=False)],
        network="host", readonly=True, memory="1K", cpus=0.5, pids=7, tty=(24, 80),
        annotations={"x": "y"}, stop_signal="SIGINT", overlay=False,
    ) == {
        "args": ["ls", "/etc"], "entrypoint": [], "env": ["A=b", "C"], "cwd": "/tmp",
        "user": "dev:users", "hostname": "h", "hostNetwork": True, "readonly": True,
        "memory": 1024, "cpus": 0.5, "pids": 7, "terminal": True, "terminalSize": [24, 80],
        "mounts": [
            {"source": "/a", "target": "/b", "readonly": True},
            {"source": "/c", "target": "/d", "readonly": False},
        ],
        "annotations": {"x": "y"}, "stopSignal": "SIGINT", "overlay": False,
    }


def test_what_has_no_argument_is_given_by_its_name() -> None:
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    assert overrides(
        args=["ls"], env={}, mounts=(), annotations={}, overrides={
            "clearEnv": True, "uidMappings": ids, "gidMappings": ids, "patch": {"domainname": "x"},
            "env": ["A=b"], "args": None, "no such": 1,
        },
    ) == {
        "args": ["ls"], "clearEnv": True, "uidMappings": ids, "gidMappings": ids,
        "patch": {"domainname": "x"}, "env": ["A=b"], "no such": 1,
    }
    assert overrides(overrides={}) is None
    with pytest.raises(TypeError, match="overrides"):
        Choices(image="alpine", overrides=[("clearEnv", True)])  # type: ignore[arg-type]


@pytest.mark.parametrize("argument, value, member", [
    ("args", "ls", "args"), ("entrypoint", [], "entrypoint"), ("env", {"A": "b"}, "env"),
    ("cwd", "/", "cwd"), ("user", 0, "user"), ("hostname", "", "hostname"),
    ("readonly", False, "readonly"), ("overlay", True, "overlay"),
    ("network", "none", "hostNetwork"), ("memory", 1, "memory"),
    ("cpus", 1, "cpus"), ("pids", 1, "pids"), ("mounts", ["/a:/b"], "mounts"),
    ("tty", False, "terminal"), ("tty", True, "terminalSize"),
    ("annotations", {"x": "y"}, "annotations"),
    ("stop_signal", 15, "stopSignal"),
])
def test_nothing_is_decided_twice(argument, value, member) -> None:
    with pytest.raises(locule.Invalid, match=f"overrides: .*'{argument}'.*'{member}'"):
        overrides(**{argument: value}, overrides={member: "anything"})
    # What is missing is no decision.
    assert overrides(**{argument: value}) == overrides(
        **{argument: value}, overrides={member: None}
    )


@pytest.mark.parametrize("given, expected", [
    (0, "0"), (1000, "1000"), ("1000", "1000"), ((1, 2), "1:2"), ("dev", "dev"), ("dev:7", "dev:7"),
])
def test_a_user_of_an_image_may_have_a_name(given, expected) -> None:
    assert overrides(user=given) == {"user": expected}


def test_wrong_arguments_are_refused_with_an_image_too() -> None:
    for name, wrong in [
        ("user", -1), ("user", (1, 2, 3)), ("user", "a\0"), ("env", {"A=B": "x"}),
        ("env", {"": None}), ("memory", "M"), ("network", "bridge"), ("entrypoint", ["a\0"]),
        ("annotations", {"x": "\0"}),
    ]:
        with pytest.raises(locule.Invalid, match=name):
            overrides(**{name: wrong})
    with pytest.raises(TypeError, match="entrypoint"):
        overrides(entrypoint="/bin/sh")
    with pytest.raises(TypeError, match="lower"):
        Choices(rootfs="/x", lower="/y")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="image"):
        Choices(image=Path("layout"))  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [
    {"rootfs": "/x"}, {"bundle": "/x"}, {"spec": {}}, {"lower": ["/x"]},
])
def test_an_image_takes_the_place_of_other_roots(other) -> None:
    with pytest.raises(locule.Invalid, match=next(iter(other))):
        Choices(image="alpine", **other)
    with pytest.raises(locule.Invalid, match="image"):
        locule.default_spec(image="alpine")


@pytest.mark.parametrize("only", [
    {"entrypoint": ["sh"]}, {"stop_signal": "TERM"}, {"overrides": {"clearEnv": True}},
])
def test_what_only_an_image_has_needs_one(only) -> None:
    with pytest.raises(locule.Invalid, match=next(iter(only))):
        Choices(rootfs="/x", **only)


def test_annotations_are_added_to_those_of_a_spec() -> None:
    assert changed(annotations={"x": "y"})["annotations"] == {"x": "y"}
    spec = {**SPEC, "annotations": {"a": "b", "x": "z"}}
    document = json.loads(Choices(spec=spec, annotations={"x": "y"}).document())
    assert document["annotations"] == {"a": "b", "x": "y"}


# --- signatures ------------------------------------------------------------------------------

def keywords(function) -> "set[str]":
    parameters = inspect.signature(function).parameters.values()
    return {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}


SPEC_NAMES = set(SpecOptions.__annotations__)


def test_run_takes_what_it_passes_on() -> None:
    assert keywords(locule.run) == set(RunOptions.__annotations__)
    assert keywords(locule.Runtime.run) | SPEC_NAMES == keywords(locule.run)
    assert keywords(aio.run) == keywords(locule.Runtime.run)
    assert keywords(aio.Runtime.run) == keywords(locule.Runtime.run)


def test_create_takes_every_choice() -> None:
    fields = set(Choices.__dataclass_fields__) - {"args"}
    assert set(CreateOptions.__annotations__) == fields
    assert fields <= keywords(locule.Runtime.create)


def test_aio_has_the_same_names() -> None:
    assert set(locule.__all__) - set(aio.__all__) == {"Events"}
    for name in ("Runtime", "Container", "Process", "Image", "ImageStore"):
        public = {one for one in vars(getattr(locule, name)) if not one.startswith("_")}
        asynchronous = {one for one in dir(getattr(aio, name)) if not one.startswith("_")}
        assert public - asynchronous <= {"has_ended"}, name


def test_images_take_what_is_declared_for_checkers() -> None:
    def options(name: str) -> "set[str]":
        return set(getattr(_options, name).__annotations__) | {"cancel"}

    for method, name in [
        ("load", "LoadOptions"), ("pull", "PullOptions"), ("import_", "NewImageOptions"),
    ]:
        assert keywords(getattr(locule.Image, method)) == options(name) | {"store"}
    assert keywords(locule.Container.commit) == options("NewImageOptions") | {"store"}
    for method, name in [
        ("save", "SaveOptions"), ("push", "RegistryOptions"), ("unpack", "UnpackOptions"),
    ]:
        assert keywords(getattr(locule.Image, method)) == options(name)


def test_what_is_prepared_is_what_is_created() -> None:
    of_prepare = set(_options.PrepareOptions.__annotations__)
    others = {"rootfs", "bundle", "spec", "image", "lower", "changes"}
    assert of_prepare == set(CreateOptions.__annotations__) - others

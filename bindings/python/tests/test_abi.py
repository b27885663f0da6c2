"""_abi.py says what include/locule.h says."""

from __future__ import annotations

import ctypes
import re
import subprocess

import pytest
from conftest import HEADER, need, tool

from locule import _abi

STRUCTS = {
    "locule_buf": _abi.Buf,
    "locule_runtime_opts": _abi.RuntimeOpts,
    "locule_spec_opts": _abi.SpecOpts,
    "locule_stdio": _abi.Stdio,
    "locule_create_opts": _abi.CreateOpts,
    "locule_exec_opts": _abi.ExecOpts,
    "locule_exit": _abi.Exit,
    "locule_watch_opts": _abi.WatchOpts,
    "locule_plugin_opts": _abi.PluginOpts,
    "locule_image_store_opts": _abi.ImageStoreOpts,
    "locule_image_opts": _abi.ImageOpts,
    "locule_image_progress": _abi.ImageProgress,
}


@pytest.fixture(scope="module")
def header() -> str:
    need(HEADER.exists(), f"{HEADER}")
    text = HEADER.read_text()
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def functions(header: str) -> "dict[str, tuple[str, list[str]]]":
    """Every prototype: what it returns and what it takes."""
    header = re.sub(r"^#.*?(?<!\\)$", "", header, flags=re.S | re.M)
    found = {}
    for result, name, parameters in re.findall(
        r"([\w\s\*]+?)\b(locule_\w+)\(([^()]*)\);", header
    ):
        if "typedef" in result:
            continue
        listed = [] if parameters.strip() in ("void", "") else parameters.split(",")
        found[name] = (result.strip(), [" ".join(one.split()) for one in listed])
    return found


def test_every_function_of_the_header_is_declared_and_no_other(header: str) -> None:
    declared = functions(header)
    assert len(declared) > 40
    assert set(declared) == set(_abi.FUNCTIONS)


def kind(declaration: str) -> str:
    """A parameter of C, as coarse as ctypes has it."""
    declaration = declaration.replace("const ", "")
    if "*" in declaration:
        return "pointer"
    if "locule_event_fn" in declaration:
        return "pointer"
    base = declaration.split()[0]
    return {
        "int": "int32", "int32_t": "int32", "uint16_t": "uint16", "uint32_t": "uint32",
        "uint64_t": "uint64", "size_t": "uint64",
    }[base]


def ctypes_kind(declared: object) -> str:
    names = {
        ctypes.c_int: "int32", ctypes.c_uint16: "uint16", ctypes.c_uint32: "uint32",
        ctypes.c_uint64: "uint64", ctypes.c_size_t: "uint64",
    }
    return names.get(declared, "pointer")  # type: ignore[call-overload]


def test_parameters_and_results_are_of_the_kinds_in_the_header(header: str) -> None:
    for name, (result, parameters) in functions(header).items():
        declared_result, declared = _abi.FUNCTIONS[name]
        assert [kind(one) for one in parameters] == [ctypes_kind(one) for one in declared], name
        if declared_result is None:
            assert result == "void", name
        else:
            assert kind(result) == ctypes_kind(declared_result), name


def test_numbers_are_those_of_the_header(header: str) -> None:
    defined = re.findall(r"^#define LOCULE_(\w+) \(?(-?\d+)\)?$", header, flags=re.M)
    for name, value in defined:
        if name.startswith("STAGE_") or name == "VERSION_PATCH":
            continue  # the names of stages come from the library
        assert getattr(_abi, name, None) == int(value), f"LOCULE_{name}"


def test_structs_have_the_layout_that_the_compiler_gives_them(tmp_path, header: str) -> None:
    lines, expected = [], []
    for name, struct in STRUCTS.items():
        lines.append(f'printf("%zu\\n", sizeof(struct {name}));')
        expected.append((name, ctypes.sizeof(struct)))
        for field, *_ in struct._fields_:
            lines.append(f'printf("%zu\\n", offsetof(struct {name}, {field}));')
            expected.append((f"{name}.{field}", getattr(struct, field).offset))
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stdio.h>\n#include <locule.h>\n"
        f"int main(void) {{ {' '.join(lines)} return 0; }}\n"
    )
    program = tmp_path / "layout"
    subprocess.run(
        [tool("cc"), f"-I{HEADER.parent}", str(source), "-o", str(program)], check=True
    )
    found = [int(line) for line in subprocess.check_output([str(program)]).split()]
    assert dict(zip((name for name, _ in expected), found)) == dict(expected)


def test_every_struct_of_the_header_is_checked_here(header: str) -> None:
    assert set(re.findall(r"struct (locule_\w+) \{", header)) == set(STRUCTS)


def test_a_library_that_is_missing_is_an_import_error(monkeypatch) -> None:
    monkeypatch.setenv("LOCULE_LIBRARY", "/nowhere/liblocule.so.0")
    with pytest.raises(ImportError, match="LOCULE_LIBRARY"):
        _abi._load()


def test_a_library_of_another_kind_is_an_import_error(monkeypatch) -> None:
    monkeypatch.setenv("LOCULE_LIBRARY", "libc.so.6")
    with pytest.raises(ImportError, match="does not fit"):
        _abi._load()

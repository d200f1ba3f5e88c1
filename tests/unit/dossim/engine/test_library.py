"""Loading the engine, and what is said where that fails."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dossim.engine import library as module
from dossim.engine.library import ABI, ANOTHER, LIBRARY, function, library
from enforcer.model.errors import HostError

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def not_loaded_yet() -> Iterator[None]:
    library.cache_clear()
    yield
    library.cache_clear()


def test_the_library_of_this_tree_is_loaded() -> None:
    assert function("engine_abi", [], ctypes.c_uint32)() == ABI


def test_the_interface_has_one_number() -> None:
    found = re.search(r"^#define ENGINE_ABI (\d+)$", (ROOT / "engine/engine.h").read_text(), re.MULTILINE)
    assert found is not None
    assert int(found[1]) == ABI


def test_where_it_is_missing_the_error_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ANOTHER, raising=False)
    monkeypatch.setattr(module, "LIBRARY", tmp_path / "libengine.so")
    with pytest.raises(
        HostError, match=r"libengine\.so: the engine is not there; build it with 'make -C engine'"
    ) as got:
        library()
    assert got.value.exit_code == 3


def test_what_is_no_library_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libengine.so").write_text("cut short")
    monkeypatch.setenv(ANOTHER, str(tmp_path / "libengine.so"))
    with pytest.raises(HostError, match=r"libengine\.so: the engine cannot be loaded: .*; build it with"):
        library()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param("unsigned engine_abi(void) { return 77; }", "77", id="another number"),
        pytest.param("int other;", "unknown", id="no number at all"),
    ],
)
def test_a_library_of_other_sources_is_not_called(
    source: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "libengine.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-o", str(path), "-"], input=source, text=True, check=True)
    monkeypatch.setenv(ANOTHER, str(path))
    with pytest.raises(HostError, match=f"the engine is of another version: interface {found}, not {ABI}; build it"):
        library()


def test_only_what_is_declared_is_exported() -> None:
    """What is left of a function that is called nowhere would be found here."""
    listed = subprocess.run(["nm", "-D", "--defined-only", str(LIBRARY)], capture_output=True, text=True, check=True)
    exported = {line.split()[2] for line in listed.stdout.splitlines()}
    declared = {
        name
        for header in ROOT.glob("engine/*.h")
        for name in re.findall(r"^ENGINE_API [^;]*?(\w+)\(", header.read_text(), re.MULTILINE)
    }
    assert exported == declared

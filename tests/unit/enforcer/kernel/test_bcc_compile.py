"""bcc as a compiler: the interpreter and headers it gets, its answer, and the errors without them."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.kernel.bpf import bcc_compile
from enforcer.kernel.bpf.bcc_compile import Compiled, require_bcc
from enforcer.model.errors import HostError


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    bcc_compile._interpreter.cache_clear()
    yield
    bcc_compile._interpreter.cache_clear()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without kernel headers; its /usr/src is returned."""
    for name in ("_MODULES", "_HEADERS", "_KHEADERS"):
        monkeypatch.setattr(bcc_compile, name, tmp_path / name)
    (tmp_path / "_HEADERS").mkdir()
    return tmp_path / "_HEADERS"


def file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_maps_are_put_where_the_instructions_load_them() -> None:
    code = bytes(range(40))
    compiled = Compiled(code, (), ((0, "deny4"), (3, "policy")))
    changed = compiled.with_maps({"deny4": 7, "policy": 8})
    assert changed[4:8] == struct.pack("=i", 7)
    assert changed[28:32] == struct.pack("=i", 8)
    assert changed[:4] + changed[8:28] + changed[32:] == code[:4] + code[8:28] + code[32:]


def test_without_bcc_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without = tmp_path / "python3"
    without.write_text("#!/bin/sh\nexit 1\n")
    without.chmod(0o755)
    monkeypatch.setattr(bcc_compile, "INTERPRETERS", (str(without), "/nowhere/python3"))
    with pytest.raises(HostError, match=f"bcc is not installed for {without} or /nowhere/python3; .* python3-bpfcc"):
        require_bcc()


def test_the_first_interpreter_that_has_bcc_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = []
    for name, code in (("without", 1), ("with", 0), ("another", 0)):
        names.append(tmp_path / name)
        names[-1].write_text(f"#!/bin/sh\nexit {code}\n")
        names[-1].chmod(0o755)
    monkeypatch.setattr(bcc_compile, "INTERPRETERS", tuple(str(name) for name in names))
    assert bcc_compile._interpreter() == str(names[1])


def test_without_headers_it_is_said_what_to_install(host: Path) -> None:
    (host / "linux-headers-6.1.0-1-amd64").mkdir()  # what a removed package can leave behind
    with pytest.raises(HostError, match=f"none are installed; install linux-headers-{os.uname().release}"):
        bcc_compile._kernel_headers()


def test_bcc_finds_the_running_kernels_headers_by_itself(host: Path) -> None:
    (host.parent / "_MODULES" / os.uname().release / "build").mkdir(parents=True)
    assert bcc_compile._kernel_headers() == (None, [])


def test_bcc_finds_headers_that_the_kernel_carries_by_itself(host: Path) -> None:
    (host.parent / "_KHEADERS").touch()
    assert bcc_compile._kernel_headers() == (None, [])


def test_headers_in_one_directory_are_named(host: Path) -> None:
    build = host / "linux-headers-5.15.0-1-generic"
    file(build / "include" / "generated" / "autoconf.h")
    file(build / "include" / "linux" / "kconfig.h")
    assert bcc_compile._kernel_headers() == (build, [])


def test_headers_in_two_directories_are_put_together(host: Path) -> None:
    """As in Debian's packages."""
    build, common = host / "linux-headers-6.1.0-56-amd64", host / "linux-headers-6.1.0-56-common"
    file(build / "include" / "generated" / "autoconf.h")
    file(build / "include" / "generated" / "uapi" / "linux" / "version.h")
    file(build / "arch" / "x86" / "include" / "generated" / "asm" / "x.h")
    file(common / "include" / "linux" / "kconfig.h")
    made = ["include", "include/generated/uapi", "arch/x86/include/generated"]
    assert bcc_compile._kernel_headers() == (common, [f"-I{build / name}" for name in made])


@pytest.mark.parametrize(
    ("code", "stderr", "said"),
    [
        (1, "a:1: warning: w\na:2: error: e\n  x\na:3: fatal error: f\n", "a:2: error: e\na:3: fatal error: f"),
        (1, "Traceback\nException: x\n\n", "Exception: x"),
        (1, "", "no reason given"),
        (-11, "error: x", "the compiler died of signal 11"),
    ],
    ids=["its errors", "without any its last line", "nothing", "killed"],
)  # fmt: skip
def test_a_compiler_that_fails_is_quoted(code: int, stderr: str, said: str) -> None:
    assert bcc_compile._complaint(subprocess.CompletedProcess([], code, "", stderr)) == said

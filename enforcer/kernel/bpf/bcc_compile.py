"""bcc as a compiler, on the host: BPF C in, instructions and the maps they use out.

bcc is a package of the distribution for the distribution's interpreter, so it runs in a child process
(:mod:`enforcer.kernel.bpf.bcc_child`), which also keeps its 180 MB to itself. It wants kernel headers; our program
reads no structure of the kernel's own, so those of another kernel do where those of the running one are missing.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from enforcer.model.errors import HostError

CHILD = Path(__file__).with_name("bcc_child.py")
INTERPRETERS = (sys.executable, "/usr/bin/python3")

_IMMEDIATE = struct.Struct("=i")
_MODULES = Path("/lib/modules")
_HEADERS = Path("/usr/src")
_MADE = ("include", "include/generated/uapi", "arch/*/include/generated", "arch/*/include/generated/uapi")
_KHEADERS = Path("/sys/kernel/kheaders.tar.xz")  # CONFIG_IKHEADERS, which bcc unpacks by itself


@dataclass(frozen=True)
class MapSpec:
    """A map as the source declares it."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True)
class Compiled:
    """``relocations``: numbers of instructions that load a map, and which."""

    code: bytes
    maps: tuple[MapSpec, ...]
    relocations: tuple[tuple[int, str], ...]

    def with_maps(self, fds: Mapping[str, int]) -> bytes:
        """The instructions for maps of these descriptors."""
        code = bytearray(self.code)
        for number, name in self.relocations:
            _IMMEDIATE.pack_into(code, 8 * number + 4, fds[name])
        return bytes(code)


def require_bcc() -> None:
    """Raises HostError with what to install when this host has no bcc, or no kernel headers for it."""
    _interpreter()
    _kernel_headers()


@cache
def compile_source(source: Path, program: str, settings: tuple[tuple[str, int], ...]) -> Compiled:
    """Compile a program with these settings as macros; its headers are in ``include`` beside it. Takes some seconds.

    HostError says what to install, or what the compiler said.
    """
    kernel_source, includes = _kernel_headers()
    flags = [f"-I{source.parent / 'include'}", *(f"-D{name}={value}" for name, value in settings), *includes]
    job = json.dumps({"source": str(source), "program": program, "flags": flags})
    environment = {**os.environ, **({"BCC_KERNEL_SOURCE": str(kernel_source)} if kernel_source else {})}
    # -I: the child's directory has modules of our own, whose names must not hide others'.
    command = [_interpreter(), "-I", str(CHILD)]
    child = subprocess.run(command, input=job, capture_output=True, text=True, check=False, env=environment)
    if child.returncode:
        raise HostError(f"bcc does not compile {source.name}: {_complaint(child)}")
    fields = json.loads(child.stdout)
    return Compiled(
        bytes.fromhex(fields["code"]),
        tuple(MapSpec(**item) for item in fields["maps"]),
        tuple((number, name) for number, name in fields["relocations"]),
    )


@cache
def _interpreter() -> str:
    """The first one that has bcc."""
    asked = dict.fromkeys(INTERPRETERS)
    script = "import importlib.util, sys; sys.exit(importlib.util.find_spec('bcc') is None)"
    for interpreter in asked:
        if Path(interpreter).exists() and not subprocess.run([interpreter, "-I", "-c", script], check=False).returncode:
            return interpreter
    raise HostError(
        f"bcc is not installed for {' or '.join(asked)}; install it (Debian, Ubuntu: apt-get install python3-bpfcc), "
        "or use the toolchain libbpf, which needs none"
    )


def _complaint(child: subprocess.CompletedProcess[str]) -> str:
    """The compiler's errors, or the last words of a child that made none."""
    if child.returncode < 0:
        return f"the compiler died of signal {-child.returncode}"
    lines = [line for line in child.stderr.splitlines() if line.strip()]
    return "\n".join([line for line in lines if "error:" in line] or lines[-1:] or ["no reason given"])


def _kernel_headers() -> tuple[Path | None, list[str]]:
    """Where bcc shall look for headers, None for where it does by itself, and flags that complete them.

    Debian keeps what a build made apart from what all builds share (``-common``).
    """
    if (_MODULES / os.uname().release / "build").exists() or _KHEADERS.exists():
        return None, []
    for build in sorted(_HEADERS.glob("linux-headers-*"), reverse=True):
        if not (build / "include" / "generated" / "autoconf.h").exists():
            continue
        if (build / "include" / "linux" / "kconfig.h").exists():
            return build, []
        for common in _HEADERS.glob(f"{build.name.rpartition('-')[0]}-common"):
            made = [path for name in _MADE for path in build.glob(name)]
            return common, [f"-I{path}" for path in made]
    raise HostError(
        f"bcc needs kernel headers, and none are installed; install linux-headers-{os.uname().release} "
        "(those of another kernel will do: apt-get install linux-headers-amd64), or use the toolchain libbpf"
    )

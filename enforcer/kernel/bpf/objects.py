"""Compiled BPF objects, opened and loaded through libbpf.

Every object owns its file descriptors; a pin or an attached link outlives the process. Failures are KernelError. If the
verifier rejects a program, the message has its reason and ``.log`` the whole log.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from enforcer.kernel.bpf.btf import variable
from enforcer.kernel.bpf.libbpf import OpenOptions, check, libbpf, log_lines
from enforcer.kernel.bpf.links import Link
from enforcer.kernel.bpf.maps import Map
from enforcer.model.errors import KernelError

_CONSTANTS = ".rodata"


class BpfObject:
    """A compiled object. Set constants and maps, ``load``, then use its programs and maps. A context manager."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise KernelError(f"{path}: no such BPF object; build it with 'make -C bpf' (needs clang)")
        self._path = path
        self._lib = libbpf()
        log_lines.clear()
        self._object: int | None = self._lib.bpf_object__open_file(
            os.fsencode(path), ctypes.byref(OpenOptions.of_this_kernel())
        )
        if not self._object:
            raise KernelError(f"open {path.name}", number=ctypes.get_errno(), log="\n".join(log_lines))

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all descriptors. What is pinned or attached by a link stays."""
        if self._object:
            self._lib.bpf_object__close(self._object)
            self._object = None

    def set_const(self, name: str, value: int) -> None:
        """Set a ``const volatile`` variable before loading. Its offset and size are taken from the object's BTF."""
        offset, size = variable(self._lib.bpf_object__btf(self._object), _CONSTANTS, name)
        length = ctypes.c_size_t()
        data = self._lib.bpf_map__initial_value(self._find_map(_CONSTANTS), ctypes.byref(length))
        assert data
        assert offset + size <= length.value
        ctypes.memmove(data + offset, value.to_bytes(size, sys.byteorder), size)

    def resize_map(self, name: str, max_entries: int) -> None:
        """Set the size of a map before loading."""
        check(self._lib.bpf_map__set_max_entries(self._find_map(name), max_entries), f"resize map {name}")

    def reuse_map(self, name: str, fd: int) -> None:
        """Use an existing map, for example a pinned one, instead of creating it."""
        check(self._lib.bpf_map__reuse_fd(self._find_map(name), fd), f"reuse map {name}")

    def set_program_type(self, name: str, program_type: int, attach_type: int) -> None:
        """Set the types of a program whose section this libbpf does not know (netfilter before 1.3)."""
        program = self._find_program(name)
        check(self._lib.bpf_program__set_type(program, program_type), f"set type of {name}")
        check(self._lib.bpf_program__set_expected_attach_type(program, attach_type), f"set attach type of {name}")

    def set_program_flags(self, name: str, flags: int) -> None:
        """Load with these flags. (Flags from the section's name cannot be removed.)"""
        check(self._lib.bpf_program__set_flags(self._find_program(name), flags), f"set flags of {name}")

    def bind_to_device(self, name: str, ifindex: int) -> None:
        """Load a program, and all maps of the object, for the hardware of one interface."""
        self._lib.bpf_program__set_ifindex(self._find_program(name), ifindex)
        at = self._lib.bpf_object__next_map(self._object, None)
        while at:
            check(self._lib.bpf_map__set_ifindex(at, ifindex), "bind a map to the device")
            at = self._lib.bpf_object__next_map(self._object, at)

    def load(self) -> None:
        """Create the maps and load the programs. Raises KernelError with the verifier's reason."""
        log_lines.clear()
        result = self._lib.bpf_object__load(self._object)
        if result:
            log = "\n".join(log_lines)
            raise KernelError(f"load {self._path.name}: {_what_matters(log)}", number=-result, log=log)

    def program(self, name: str) -> Program:
        pointer = self._find_program(name)
        return Program(name, pointer, int(self._lib.bpf_program__fd(pointer)))

    def map(self, name: str) -> Map:
        """A map of the loaded object, with its own descriptor."""
        return Map(os.dup(self._lib.bpf_map__fd(self._find_map(name))))

    def _find_program(self, name: str) -> int:
        found = self._lib.bpf_object__find_program_by_name(self._object, name.encode())
        assert found, f"{self._path.name} has no program {name}"
        return int(found)

    def _find_map(self, name: str) -> int:
        """The map of that name, or of the variable of that name (bpf/include/toolchain.h: VARIABLE_MAP)."""
        names = (name.encode(), f".bss.{name}".encode())
        found = next(filter(None, (self._lib.bpf_object__find_map_by_name(self._object, item) for item in names)), 0)
        assert found, f"{self._path.name} has no map {name}"
        return int(found)


@dataclass(frozen=True)
class Program:
    """A loaded program; its descriptor belongs to the object it came from."""

    name: str
    _pointer: int
    fd: int

    def attach_trace(self) -> Link:
        """Attach a tracing program as its section's name says."""
        lib = libbpf()
        pointer = lib.bpf_program__attach(self._pointer)
        if not pointer:
            raise KernelError(f"attach {self.name}", number=ctypes.get_errno(), log="\n".join(log_lines))
        fd = os.dup(lib.bpf_link__fd(pointer))
        lib.bpf_link__destroy(pointer)
        return Link(fd)


def _what_matters(log: str) -> str:
    """The verifier's reason, which is the last line of its log; without such a log, libbpf's first message."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    said = _verifier_lines(lines) or [lines[0].removeprefix("libbpf: ")]
    more = f" ({len(lines) - 1} lines omitted; .log has all)" if len(lines) > 1 else ""
    return f"{said[-1]}{more}"


def _verifier_lines(lines: list[str]) -> list[str]:
    """The lines between libbpf's two markers, without the statistics."""
    begin = next((at for at, line in enumerate(lines) if line.endswith("BEGIN PROG LOAD LOG --")), len(lines))
    end = next((at for at, line in enumerate(lines) if line.startswith("-- END PROG LOAD LOG")), len(lines))
    return [line for line in lines[begin + 1 : end] if not line.startswith("processed ")]

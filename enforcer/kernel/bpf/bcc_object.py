"""A BPF program that bcc compiles on this host, with the interface of :class:`~enforcer.kernel.bpf.BpfObject`.

bcc creates its own maps while it compiles; it cannot use existing ones, nor set their size. So it only compiles. The
maps are created here or given by the caller, and the instructions are loaded with their descriptors.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from enforcer.kernel.bpf.bcc_compile import compile_source
from enforcer.kernel.bpf.maps import Map
from enforcer.kernel.bpf.objects import Program
from enforcer.kernel.bpf.programs import load_xdp
from enforcer.model.errors import KernelError


class BccObject:
    """One XDP program of a source file. Set constants and maps, ``load``, then use it. A context manager."""

    def __init__(self, source: Path, program: str) -> None:
        if not source.exists():
            raise KernelError(f"{source}: no such BPF source; it is part of the package")
        self._source = source
        self._name = program
        self._settings: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._maps: dict[str, Map] = {}
        self._flags = 0
        self._fd = -1

    def __enter__(self) -> BccObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all descriptors. What is pinned or attached by a link stays."""
        for item in self._maps.values():
            item.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def set_const(self, name: str, value: int) -> None:
        """Set a constant, which is compiled in. Every setting of the source must be set."""
        self._settings[name] = value

    def resize_map(self, name: str, max_entries: int) -> None:
        """Set the size of a map before loading."""
        self._sizes[name] = max_entries

    def reuse_map(self, name: str, fd: int) -> None:
        """Use an existing map, for example a pinned one, instead of creating it."""
        self._maps[name] = Map(os.dup(fd))

    def set_program_flags(self, name: str, flags: int) -> None:
        """Load with these flags."""
        assert name == self._name
        self._flags = flags

    def load(self) -> None:
        """Compile, create the maps that are not given, and load. Raises HostError if this host has no bcc or the
        compiler fails, KernelError with the verifier's reason.
        """
        compiled = compile_source(self._source, self._name, tuple(sorted(self._settings.items())))
        for spec in compiled.maps:
            if spec.name not in self._maps:
                self._maps[spec.name] = Map.create(
                    spec.kind,
                    spec.name,
                    key_size=spec.key_size,
                    value_size=spec.value_size,
                    max_entries=self._sizes.get(spec.name, spec.max_entries),
                    flags=spec.flags,
                )
        code = compiled.with_maps({name: item.fd for name, item in self._maps.items()})
        self._fd = load_xdp(self._name, code, flags=self._flags)

    def program(self, name: str) -> Program:
        assert name == self._name
        return Program(name, 0, self._fd)

    def map(self, name: str) -> Map:
        """A map of the loaded program, with its own descriptor."""
        return Map(os.dup(self._maps[name].fd))

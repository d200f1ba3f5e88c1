"""Compiled programs of the fake: their maps as in the sources, adjusted and loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from enforcer.kernel.bpf.maps import BPF_F_MMAPABLE
from enforcer.kernel.bpf.objects import Program
from enforcer.kernel.bpf.programs import BPF_F_XDP_HAS_FRAGS
from enforcer.model import abi
from tests.support.fakes.bpf_handles import OpenMap
from tests.support.fakes.bpf_kernel import FakeProgram
from tests.support.fakes.bpf_maps import ARRAY, HASH, PERCPU_ARRAY

if TYPE_CHECKING:
    from tests.support.fakes.bpf import FakeBpf

Declared = Mapping[str, tuple[int, int, int, int, int]]

# The maps that bpf/xdp_untracked.bpf.c declares: type, bytes of a key and a value, elements, flags.
XDP_DECLARED: Declared = {
    "sieve4": (ARRAY, 4, abi.SIEVE_BYTES, 1, BPF_F_MMAPABLE),
    "root4": (ARRAY, 4, abi.ROOT_BYTES, 1, BPF_F_MMAPABLE),
    "lists4": (ARRAY, 4, abi.TABLE_PAGE_BYTES, 1, BPF_F_MMAPABLE),
    "root6": (ARRAY, 4, abi.ROOT_BYTES, 1, BPF_F_MMAPABLE),
    "nodes6": (ARRAY, 4, abi.NODE6_BYTES, 1, BPF_F_MMAPABLE),
    "buckets6": (ARRAY, 4, abi.TABLE_PAGE_BYTES, 1, BPF_F_MMAPABLE),
    "lists6": (ARRAY, 4, abi.TABLE_PAGE_BYTES, 1, BPF_F_MMAPABLE),
    "policy": (ARRAY, 4, abi.POLICY_BYTES, 1, BPF_F_MMAPABLE),
    "address_rows": (ARRAY, 4, abi.ADDRESS_ROWS_BYTES, 1, 0),
    "protocols": (ARRAY, 4, abi.ROW_BYTES, abi.PROTOCOLS, 0),
    "port_pages": (ARRAY, 4, abi.PORT_PAGE_BYTES, 1, 0),
    "port_rows": (ARRAY, 4, abi.PORT_ROWS_BYTES, 1, 0),
    "named": (HASH, abi.NAMED_KEY_BYTES, abi.PORT_ROWS_BYTES, 1, 0),
    "tiers": (ARRAY, 4, abi.ROW_BYTES, 1, 0),
    "entry_counters": (PERCPU_ARRAY, 4, abi.ENTRY_COUNT_BYTES, 64, 0),
}
# The same for bpf/xdp_offload.bpf.c.
OFFLOAD_DECLARED: Declared = {
    "settings": (ARRAY, 4, abi.OFFLOAD_SETTINGS_BYTES, 1, 0),
    "lengths4": (ARRAY, 4, abi.LENGTH4_BYTES, 1, 0),
    "lengths6": (ARRAY, 4, abi.LENGTH6_BYTES, 1, 0),
    "deny4": (HASH, abi.NET4_BYTES, 4, 1, 0),
    "deny6": (HASH, abi.NET6_BYTES, 4, 1, 0),
    "failsafe": (HASH, abi.FAILSAFE_PORT_BYTES, 1, 1, 0),
    "entry_counters": (ARRAY, 4, abi.ENTRY_COUNT_BYTES, 1, 0),
}


class FakeObject:
    """A compiled program, an :class:`enforcer.kernel.bpf.conn.OffloadObject`."""

    def __init__(self, bpf: FakeBpf, program: str, declared: Declared) -> None:
        self._bpf, self._program, self._declared = bpf, program, declared
        self._device = 0
        self._constants: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self._fds: dict[str, int] = {}

    def __enter__(self) -> FakeObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds = {}

    def set_const(self, name: str, value: int) -> None:
        self._constants[name] = value

    def resize_map(self, name: str, max_entries: int) -> None:
        assert name in self._declared
        self._sizes[name] = max_entries

    def reuse_map(self, name: str, fd: int) -> None:
        assert name in self._declared
        self._fds[name] = os.dup(fd)

    def set_program_flags(self, name: str, flags: int) -> None:
        assert (name, flags) == (self._program, BPF_F_XDP_HAS_FRAGS)

    def bind_to_device(self, name: str, ifindex: int) -> None:
        assert name == self._program
        self._device = ifindex

    def load(self) -> None:
        with self._bpf.noted("load the program"):
            if self._device:
                self._bpf.check_device(self._device, self._program, next(iter(self._declared)))
            for name, (kind, key, value, entries, flags) in self._declared.items():
                if name not in self._fds:
                    self._fds[name] = self._bpf.add_map(kind, key, value, self._sizes.get(name, entries), flags)
            maps = {name: self._bpf.map(fd) for name, fd in self._fds.items()}
            number = self._bpf.new_id()
            program = FakeProgram(number, self._program, self._device, dict(self._constants), maps)
            self._fds[self._program] = self._bpf.add(program)

    def program(self, name: str) -> Program:
        return Program(name, 0, self._fds[name])

    def map(self, name: str) -> OpenMap:
        return OpenMap(self._bpf, os.dup(self._fds[name]))

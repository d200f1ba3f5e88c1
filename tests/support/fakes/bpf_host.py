"""The XDP backend on a fake of the kernel: the program's object, and the other calls it makes to a host."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest.mock import patch

from enforcer.backends.xdp import backend, converge
from enforcer.backends.xdp.state import generation
from enforcer.kernel.bpf.libbpf import libbpf
from enforcer.kernel.bpf.maps import BPF_F_MMAPABLE, Map
from enforcer.kernel.bpf.objects import Program
from enforcer.kernel.bpf.programs import BPF_F_XDP_HAS_FRAGS
from enforcer.kernel.bpf.toolchain import PROGRAM
from enforcer.model import abi
from enforcer.model.errors import KernelError
from enforcer.model.vocabulary import Toolchain
from tests.support.fakes.bpf import FakeBpf, FakeProgram
from tests.support.fakes.bpf_maps import ARRAY, HASH, PERCPU_ARRAY, Refused

# The maps of bpf/xdp_untracked.bpf.c as it declares them: type, bytes of a key and a value, elements, flags.
DECLARED = {
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


class FakeObject:
    """The object of the program, an :class:`enforcer.kernel.bpf.toolchain.XdpObject`."""

    def __init__(self, bpf: FakeBpf) -> None:
        self._bpf = bpf
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
        assert name in DECLARED
        self._sizes[name] = max_entries

    def reuse_map(self, name: str, fd: int) -> None:
        assert name in DECLARED
        self._fds[name] = os.dup(fd)

    def set_program_flags(self, name: str, flags: int) -> None:
        assert (name, flags) == (PROGRAM, BPF_F_XDP_HAS_FRAGS)

    def load(self) -> None:
        try:
            with self._bpf.noted("load the program"):
                for name, (kind, key, value, entries, flags) in DECLARED.items():
                    if name not in self._fds:
                        self._fds[name] = self._bpf.add_map(kind, key, value, self._sizes.get(name, entries), flags)
                maps = {name: self._bpf.map(fd) for name, fd in self._fds.items()}
                program = FakeProgram(self._bpf.new_id(), PROGRAM, dict(self._constants), maps)
                self._fds[PROGRAM] = self._bpf.add(program)
        except Refused as refused:
            raise KernelError("load the program", number=refused.number) from refused

    def program(self, name: str) -> Program:
        return Program(name, 0, self._fds[name])

    def map(self, name: str) -> Map:
        return Map(os.dup(self._fds[name]))


@contextmanager
def on(bpf: FakeBpf) -> Iterator[None]:
    """Whatever calls libbpf inside the block calls the fake: maps, programs, links and pins of the project."""
    with ExitStack() as stack:
        for name, module in list(sys.modules.items()):
            if name.startswith("enforcer.kernel.bpf.") and getattr(module, "libbpf", None) is libbpf:
                stack.enter_context(patch.object(module, "libbpf", lambda: bpf))
        yield


@contextmanager
def host(bpf: FakeBpf, *, digest: str = "one") -> Iterator[None]:
    """The same for all calls of the XDP backend to a host. ``digest``: of the program that it loads.

    Changes of the file system below the fake's directory are calls of the fake, which can fail like others.
    """

    def open_xdp(_: Toolchain) -> FakeObject:
        return FakeObject(bpf)

    def wait() -> None:
        with bpf.noted("wait for readers"):
            pass

    with on(bpf), ExitStack() as stack:
        for where, name, fake in (
            (generation, "open_xdp", open_xdp),
            (generation, "wait_for_readers", wait),
            (converge, "netlink_interfaces", bpf.interfaces),
            (converge, "program_digest", lambda _: digest),
            (backend, "interfaces", bpf.interfaces),
            (backend, "is_bpffs", lambda _: True),
        ):
            stack.enter_context(patch.object(where, name, fake))
        for name in ("replace", "rename", "unlink", "rmdir", "mkdir"):
            stack.enter_context(patch.object(os, name, _noted(bpf, name, getattr(os, name))))
        yield


def _noted(bpf: FakeBpf, name: str, original: Callable[..., None]) -> Callable[..., None]:
    def call(path: Any, *others: Any, dir_fd: int | None = None, **more: Any) -> None:
        folder = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) if dir_fd is not None else Path()
        place = folder / os.fsdecode(path)
        if dir_fd is not None:
            more["dir_fd"] = dir_fd
        if bpf.pins not in (place, *place.parents):
            original(path, *others, **more)
            return
        with bpf.noted(f"{name} {place.relative_to(bpf.pins)}", changes=True):
            original(path, *others, **more)

    return call

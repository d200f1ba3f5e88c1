"""Open maps and links of the fake, with the interface of :mod:`enforcer.kernel.bpf.conn`."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from enforcer.kernel.bpf.links import LinkInfo
from tests.support.fakes.bpf_kernel import BpfKernel
from tests.support.fakes.bpf_maps import FakeMap, rounded

XDP_LINK = 6  # enum bpf_link_type


class OpenFile:
    """Owns a descriptor."""

    def __init__(self, kernel: BpfKernel, fd: int) -> None:
        self._kernel = kernel
        self.fd = fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def pin(self, path: Path) -> None:
        self._kernel.pin(self.fd, path)


class OpenMap(OpenFile):
    def __init__(self, kernel: BpfKernel, fd: int) -> None:
        super().__init__(kernel, fd)
        with kernel.noted("info"):
            found = kernel.map(fd)
        self.id, self.type, self.max_entries = found.id, found.type, found.max_entries
        self.key_size, self.value_size = found.key_size, found.value_size

    def __enter__(self) -> OpenMap:
        return self

    @property
    def _map(self) -> FakeMap:
        return self._kernel.map(self.fd)

    def lookup(self, key: bytes) -> bytes | None:
        with self._kernel.noted("look up"):
            return self._map.lookup(key)

    def lookup_percpu(self, key: bytes) -> list[bytes]:
        raw, step = self.lookup(key) or b"", rounded(self.value_size)
        return [raw[at : at + self.value_size] for at in range(0, len(raw), step)]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        with self._kernel.noted("update", changes=True):
            self._map.update(key, value, flags)

    def update_batch(self, keys: bytes, values: bytes, count: int) -> None:
        """If an element is refused, those before it stay."""
        if count:
            with self._kernel.noted("update batch", changes=True):
                self._map.update_batch(zip(_cut(keys, self.key_size), _cut(values, self.value_size), strict=True))

    def delete(self, key: bytes) -> bool:
        with self._kernel.noted("delete", changes=True):
            return self._map.delete(key)

    def delete_batch(self, keys: bytes, count: int) -> None:
        if count:
            with self._kernel.noted("delete batch", changes=True):
                for key in _cut(keys, self.key_size):
                    self._map.delete(key)

    def keys(self) -> Iterator[bytes]:
        return iter([key for key, _ in self.items()])

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """For a per-CPU map, the values of all CPUs."""
        with self._kernel.noted("look up batch"):
            return iter(self._map.items())

    def values(self) -> bytes:
        return b"".join(value for _, value in self.items())

    def image(self) -> bytes:
        """In one batch, as for up to 4,096 elements."""
        found = list(self.items())
        return b"".join(key for key, _ in found) + b"".join(value for _, value in found)

    def mmap(self, *, writable: bool = False) -> mmap.mmap:
        return self._map.mmap(self.fd, writable=writable)


class OpenLink(OpenFile):
    def __enter__(self) -> OpenLink:
        return self

    def info(self) -> LinkInfo:
        with self._kernel.noted("info"):
            found = self._kernel.link(self.fd)
            return LinkInfo(found.id, XDP_LINK, found.program.id, found.ifindex)

    def update(self, program_fd: int) -> None:
        with self._kernel.noted("update link", changes=True):
            self._kernel.point(self._kernel.link(self.fd), self._kernel.program(program_fd))

    def detach(self) -> None:
        with self._kernel.noted("detach", changes=True):
            self._kernel.link(self.fd).ifindex = 0


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))

"""BPF maps: single elements, batches, per-CPU values, memory mapping, pins."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from enforcer.kernel.bpf.libbpf import libbpf
from enforcer.kernel.bpf.pins import open_pinned, pin
from enforcer.model.errors import KernelError

BPF_MAP_TYPE_ARRAY = 2
BPF_F_MMAPABLE = 1 << 10

_PERCPU_TYPES = {5, 6, 10, 21}  # PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, PERCPU_CGROUP_STORAGE
_UNSUPPORTED = {
    errno.EINVAL,
    errno.EOPNOTSUPP,
    524,
}  # 524: ENOTSUPP, which the kernel leaks for missing batch operations


class _MapCreateOpts(ctypes.Structure):
    """The beginning of ``struct bpf_map_create_opts`` (libbpf's bpf.h)."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("btf_fd", ctypes.c_uint32),
        ("btf_key_type_id", ctypes.c_uint32),
        ("btf_value_type_id", ctypes.c_uint32),
        ("btf_vmlinux_value_type_id", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
    )


class Map:
    """A map. Keys and values are bytes of length ``key_size`` and ``value_size``. Owns its descriptor."""

    fd = -1

    def __init__(self, fd: int) -> None:
        self.fd = fd
        buffer = ctypes.create_string_buffer(64)
        length = ctypes.c_uint32(len(buffer))
        if libbpf().bpf_obj_get_info_by_fd(fd, buffer, ctypes.byref(length)) < 0:
            raise KernelError("read map info", number=ctypes.get_errno())
        # struct bpf_map_info: type, id, key_size, value_size, max_entries, map_flags
        facts: tuple[int, ...] = struct.unpack_from("=IIIII", buffer)
        self.type, self.id, self.key_size, self.value_size, self.max_entries = facts

    @classmethod
    def create(cls, kind: int, name: str, *, key_size: int, value_size: int, max_entries: int, flags: int = 0) -> Map:
        """Create a map of a type (``enum bpf_map_type``). The kernel keeps the first 15 characters of its name."""
        options = _MapCreateOpts(sz=ctypes.sizeof(_MapCreateOpts), map_flags=flags)
        fd = libbpf().bpf_map_create(
            kind, name.encode(), key_size, value_size, max_entries, ctypes.byref(options) if flags else None
        )
        if fd < 0:
            raise KernelError(f"create map {name}", number=-fd)
        return cls(fd)

    @classmethod
    def open_pinned(cls, path: Path) -> Map:
        """The map pinned there. Raises FileNotFoundError if nothing is."""
        return cls(open_pinned(path))

    def __enter__(self) -> Map:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        self.close()

    def pin(self, path: Path) -> None:
        pin(self.fd, path)

    def lookup(self, key: bytes) -> bytes | None:
        """The value of a key; None if the map does not have the key. For per-CPU maps see :meth:`lookup_percpu`."""
        buffer = ctypes.create_string_buffer(self._value_bytes())
        result = libbpf().bpf_map_lookup_elem(self.fd, key, buffer)
        if result == -errno.ENOENT:
            return None
        self._check(result, "look up an element")
        return buffer.raw

    def lookup_percpu(self, key: bytes) -> list[bytes]:
        """The value of a key on each possible CPU."""
        raw = self.lookup(key) or b""
        step = self._rounded()
        return [raw[at : at + self.value_size] for at in range(0, len(raw), step)]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set one element. Raises KernelError (E2BIG, ENOSPC) if the map is full."""
        self._check(libbpf().bpf_map_update_elem(self.fd, key, value, flags), "update an element")

    def delete(self, key: bytes) -> bool:
        """Delete an element; False if it did not exist."""
        result = libbpf().bpf_map_delete_elem(self.fd, key)
        if result == -errno.ENOENT:
            return False
        self._check(result, "delete an element")
        return True

    def update_batch(self, keys: bytes, values: bytes, count: int) -> None:
        """Set many elements; keys and values are concatenated."""
        if not count:
            return
        done = ctypes.c_uint32(count)
        result = libbpf().bpf_map_update_batch(self.fd, keys, values, ctypes.byref(done), None)
        if -result in _UNSUPPORTED and done.value in (0, count):
            for key, value in zip(_cut(keys, self.key_size), _cut(values, self.value_size), strict=True):
                self.update(key, value)
            return
        self._check(result, f"update {count} elements")

    def delete_batch(self, keys: bytes, count: int) -> None:
        """Delete many elements. Missing elements are not an error."""
        done = ctypes.c_uint32(count)
        result = libbpf().bpf_map_delete_batch(self.fd, keys, ctypes.byref(done), None) if count else 0
        if result < 0:  # not supported, or an element was missing: one by one
            for key in _cut(keys, self.key_size):
                self.delete(key)

    def keys(self) -> Iterator[bytes]:
        """All keys. If an element is deleted meanwhile, the kernel may restart from the first key."""
        previous: bytes | None = None
        while True:
            buffer = ctypes.create_string_buffer(self.key_size)
            result = libbpf().bpf_map_get_next_key(self.fd, previous, buffer)
            if result == -errno.ENOENT:
                return
            self._check(result, "walk the keys")
            previous = buffer.raw
            yield previous

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All elements, without those that are deleted meanwhile."""
        batch = self._lookup_batches()
        if batch is not None:
            yield from batch
            return
        for key in list(self.keys()):
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def values(self) -> bytes:
        """The values of an array, in order."""
        batches = self._batches()
        return b"".join(values for _, values in (self.items() if batches is None else batches))

    def image(self) -> bytes:
        """All keys and values concatenated, in the kernel's order: a cheap way to detect changes."""
        batches = self._batches()
        return b"".join(part for batch in (self.items() if batches is None else batches) for part in batch)

    def mmap(self, *, writable: bool = False) -> mmap.mmap:
        """The values of a BPF_F_MMAPABLE array in memory; each is rounded up to 8 bytes."""
        size = self._rounded() * self.max_entries
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        return mmap.mmap(self.fd, size, mmap.MAP_SHARED, protection)

    def _lookup_batches(self) -> list[tuple[bytes, bytes]] | None:
        """All elements by batch look-up; None if the kernel does not support it for this type of map."""
        batches = self._batches()
        if batches is None:
            return None
        return [
            pair
            for keys, values in batches
            for pair in zip(_cut(keys, self.key_size), _cut(values, self.value_size), strict=True)
        ]

    def _batches(self) -> list[tuple[bytes, bytes]] | None:
        """The same as (keys, values) of each batch, concatenated."""
        if self.type in _PERCPU_TYPES:
            return None
        size = min(4096, self.max_entries)
        keys = ctypes.create_string_buffer(self.key_size * size)
        values = ctypes.create_string_buffer(self.value_size * size)
        cursor = ctypes.create_string_buffer(max(self.key_size, 8))
        found: list[tuple[bytes, bytes]] = []
        start: ctypes.Array[ctypes.c_char] | None = None
        while True:
            count = ctypes.c_uint32(size)
            result = libbpf().bpf_map_lookup_batch(self.fd, start, cursor, keys, values, ctypes.byref(count), None)
            if result < 0 and -result != errno.ENOENT:
                return None
            got = count.value
            found.append((keys.raw[: got * self.key_size], values.raw[: got * self.value_size]))
            if result < 0 or not got:
                return found
            start = cursor

    def _rounded(self) -> int:
        return -(-self.value_size // 8) * 8

    def _value_bytes(self) -> int:
        if self.type in _PERCPU_TYPES:
            return self._rounded() * int(libbpf().libbpf_num_possible_cpus())
        return self.value_size

    def _check(self, result: int, what: str) -> None:
        if result < 0:
            raise KernelError(f"map {self.id}: {what}", number=-result)


def _cut(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))

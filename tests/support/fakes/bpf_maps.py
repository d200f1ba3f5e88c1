"""Maps in memory: array, hash and per-CPU array with the kernel's error numbers (kernel/bpf/arraymap.c, hashtab.c)."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from enforcer.kernel.bpf.maps import BPF_F_MMAPABLE

HASH, ARRAY, PERCPU_ARRAY = 1, 2, 6  # enum bpf_map_type
BPF_NOEXIST, BPF_EXIST = 1, 2
ENOTSUPP = 524  # include/linux/errno.h
_PAGE = os.sysconf("SC_PAGESIZE")
_LIBC = ctypes.CDLL(None)
_LIBC.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]


class Refused(OSError):
    """The error that the kernel returns."""

    def __init__(self, number: int) -> None:
        super().__init__(number, os.strerror(number))
        self.number = number


@dataclass(eq=False)
class FakeMap:
    """``file`` has the elements of an array, each rounded up to 8 bytes, for as many CPUs as there are."""

    id: int
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    cpus: int
    file: str
    _hash: dict[bytes, bytes] = field(default_factory=dict)
    _content: bytes = b""
    _changed: bool = True
    _writable: list[weakref.ref[mmap.mmap]] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The bytes of an element."""
        return rounded(self.value_size) * (self.cpus if self.type == PERCPU_ARRAY else 1)

    @property
    def _value_bytes(self) -> int:
        return self.step if self.type == PERCPU_ARRAY else self.value_size

    def check_mappable(self) -> None:
        """kernel/bpf/syscall.c, bpf_map_mmap; arraymap.c, array_map_mmap."""
        if not self.flags & BPF_F_MMAPABLE:
            raise OSError(errno.EINVAL if self.type == ARRAY else ENOTSUPP, "cannot be mapped")

    def begin(self) -> None:
        """All elements of an array exist, and are 0."""
        if self.type != HASH:
            size = self.step * self.max_entries
            size = -(-size // _PAGE) * _PAGE if self.flags & BPF_F_MMAPABLE else size
            os.truncate(self.file, size)

    def mmap(self, fd: int, *, writable: bool) -> mmap.mmap:
        """The file of a mappable array is a multiple of the page size."""
        self.check_mappable()
        found = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0))
        if writable:
            self._changed = True
            self._writable.append(weakref.ref(found))
        return found

    def content(self) -> bytes | tuple[tuple[bytes, bytes], ...]:
        """The same object as before if nothing has changed, so that keeping it is cheap."""
        if self.type == HASH:
            return tuple(sorted(self._hash.items()))
        if self._changed:
            # Whoever can write to its memory may do so at any time. It is compared in place: tables are megabytes.
            mapped = [found for each in self._writable if (found := each()) is not None and not found.closed]
            if not mapped or not _holds(mapped[0], self._content):
                self._content = _one_of_equal(self._read())
            self._writable, self._changed = [weakref.ref(each) for each in mapped], bool(mapped)
        return self._content

    def copy(self, file: str) -> FakeMap:
        """A map with the same content, and with this file."""
        content = self.content()
        if isinstance(content, bytes):
            with open(file, "wb", buffering=0) as copied:
                copied.write(content)
            return replace(self, file=file, _content=content, _changed=False, _writable=[])
        return replace(self, file=file, _hash=dict(content), _writable=[])

    def lookup(self, key: bytes) -> bytes | None:
        """For a per-CPU map, the values of all CPUs."""
        if self.type == HASH:
            return self._hash.get(key)
        (at,) = struct.unpack("=I", key)
        if at >= self.max_entries:
            return None
        with open(self.file, "rb", buffering=0) as file:
            return os.pread(file.fileno(), self._value_bytes, at * self.step)

    def update(self, key: bytes, value: bytes, flags: int) -> None:
        if flags not in (0, BPF_NOEXIST, BPF_EXIST):
            raise Refused(errno.EINVAL)
        if self.type != HASH:
            self._put([(key, value)], flags)
            return
        if flags == BPF_NOEXIST and key in self._hash:
            raise Refused(errno.EEXIST)
        if key not in self._hash:
            if flags == BPF_EXIST:
                raise Refused(errno.ENOENT)
            if len(self._hash) >= self.max_entries:
                raise Refused(errno.E2BIG)
        self._hash[key] = value

    def update_batch(self, elements: Iterable[tuple[bytes, bytes]]) -> None:
        """If an element is refused, those before it stay."""
        if self.type != HASH:
            self._put(elements, 0)
            return
        for key, value in elements:
            self.update(key, value, 0)

    def _put(self, elements: Iterable[tuple[bytes, bytes]], flags: int) -> None:
        self._changed = True
        with open(self.file, "r+b", buffering=0) as file:
            for key, value in elements:
                (at,) = struct.unpack("=I", key)
                if at >= self.max_entries:
                    raise Refused(errno.E2BIG)
                if flags == BPF_NOEXIST:
                    raise Refused(errno.EEXIST)
                os.pwrite(file.fileno(), value, at * self.step)

    def _read(self) -> bytes:
        with open(self.file, "rb", buffering=0) as file:
            return file.read()

    def delete(self, key: bytes) -> bool:
        """False if there is none."""
        if self.type != HASH:
            raise Refused(errno.EINVAL)
        return self._hash.pop(key, None) is not None

    def items(self) -> list[tuple[bytes, bytes]]:
        if self.type == HASH:
            return list(self._hash.items())
        data = self._read()
        return [
            (struct.pack("=I", at), data[at * self.step : at * self.step + self._value_bytes])
            for at in range(self.max_entries)
        ]


@lru_cache(maxsize=64)
def _one_of_equal(content: bytes) -> bytes:
    """The same object for equal tables of all fakes, so that states are compared by identity."""
    return content


def _holds(memory: mmap.mmap, content: bytes) -> bool:
    if len(memory) != len(content):
        return False
    return not _LIBC.memcmp(np.frombuffer(memory, np.uint8).ctypes.data, content, len(content))


def rounded(size: int) -> int:
    return -(-size // 8) * 8

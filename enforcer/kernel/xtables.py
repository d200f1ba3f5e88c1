"""Reads a legacy table cheaply enough for once a second: two getsockopt(2), no libiptc.

``IPT_SO_GET_ENTRIES`` copies the table byte by byte (net/ipv4/netfilter/ip_tables.c: ``get_entries``). Counters are
cleared here, so two states are equal as long as no program replaced the table.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from enforcer.kernel.libiptc import NEXT_OFFSET
from enforcer.model.errors import KernelError, PrivilegeError

_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_BASE_CTL; IP6T_BASE_CTL is the same
_NAME_BYTES = 32  # XT_TABLE_MAXNAMELEN
_INFO = struct.Struct(
    "=32s13I"
)  # struct ipt_getinfo: name, valid_hooks, hook_entry[5], underflow[5], num_entries, size
_ENTRIES_AT = 40  # offset of entrytable in struct ipt_get_entries, whose entries are aligned to 8 bytes
_LIBC = ctypes.CDLL(None, use_errno=True)

Offsets = npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Family:
    """What differs between struct ipt_entry and struct ip6t_entry: socket options, and offsets in bytes."""

    domain: int
    level: int
    next_offset: int  # __u16
    comefrom: int  # __u32, written by the kernel
    counters: int  # two __u64


_FAMILIES = {
    4: _Family(socket.AF_INET, socket.IPPROTO_IP, NEXT_OFFSET[4], 92, 96),
    6: _Family(socket.AF_INET6, socket.IPPROTO_IPV6, NEXT_OFFSET[6], 144, 152),
}


@dataclass(frozen=True)
class TableState:
    """``shape``: hooks, their offsets, number of entries, size in bytes (struct ipt_getinfo). ``entries``: the bytes of
    all entries without counters; None if only the shape was read.
    """

    shape: tuple[int, ...]
    entries: bytes | None = None


@dataclass
class TableSocket:
    """Reads one table of the network namespace in which it was created. Owns a socket: the caller closes it.

    The table must exist (``/proc/net/ip_tables_names``), because reading a table that does not exist creates it.
    """

    version: int
    name: str
    _shape: TableState | None = None  # as last read
    _entries: npt.NDArray[np.uint8] | None = None  # of a table of that shape, in a kept buffer
    _counting: Offsets | None = None

    def __post_init__(self) -> None:
        self._family = _FAMILIES[self.version]
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(self._family.domain, kind, socket.IPPROTO_RAW)
        except PermissionError as error:
            raise PrivilegeError("looking at iptables needs CAP_NET_RAW; run as root") from error
        # The kernel leaves in a request what it has read there, so that each serves again and again.
        self._info = ctypes.create_string_buffer(_INFO.pack(self.name.encode(), *[0] * 13), _INFO.size)
        self._request = ctypes.create_string_buffer(0)
        self._length = ctypes.c_uint32()

    def close(self) -> None:
        self._socket.close()

    def shape(self) -> TableState:
        """Only the shape, which changes when rules are added or removed. Raises KernelError."""
        before = self._info.raw
        self._get(_GET_INFO, self._info)
        if self._shape is None or self._info.raw != before:
            self._shape, self._entries = TableState(_INFO.unpack(self._info)[1:]), None
        return self._shape

    def read(self) -> TableState:
        """The whole table. Equal to the previous one unless a program replaced the table. Raises KernelError."""
        while True:
            shape = self.shape().shape
            if self._entries is None:
                request = self.name.encode().ljust(_NAME_BYTES, b"\0") + shape[-1].to_bytes(4, sys.byteorder)
                self._request = ctypes.create_string_buffer(request, _ENTRIES_AT + shape[-1])
                self._entries, self._counting = (
                    np.frombuffer(memoryview(self._request), np.uint8, offset=_ENTRIES_AT),
                    None,
                )
            try:
                self._get(_GET_ENTRIES, self._request)
            except KernelError as error:
                if error.errno == errno.EAGAIN:  # just replaced by a table of another size
                    continue
                raise
            if self._counting is None:
                self._counting = self._counting_bytes(self._entries.tobytes())
            self._entries[self._counting] = 0
            return TableState(shape, self._entries.tobytes())

    def _counting_bytes(self, entries: bytes) -> Offsets:
        """The offsets of all bytes that do not affect what the table does: counters and kernel fields."""
        family, starts, at = self._family, [], 0
        while at < len(entries):
            starts.append(at)
            (step,) = struct.unpack_from("=H", entries, at + family.next_offset)
            if not step:
                break
            at += step
        within = [*range(family.comefrom, family.comefrom + 4), *range(family.counters, family.counters + 16)]
        return np.add.outer(np.array(starts, np.intp), np.array(within, np.intp)).ravel()

    def _get(self, option: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
        self._length.value = len(buffer)
        descriptor, level = self._socket.fileno(), self._family.level
        if _LIBC.getsockopt(descriptor, level, option, buffer, ctypes.byref(self._length)) < 0:
            raise KernelError(f"look at the IPv{self.version} table {self.name}", number=ctypes.get_errno())

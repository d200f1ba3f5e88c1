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
from dataclasses import field

import numpy as np
import numpy.typing as npt

from enforcer.kernel.libiptc import NEXT_OFFSET
from enforcer.model.dataclass import dataclass
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
    _shape: tuple[int, ...] = ()
    _counting: Offsets = field(default_factory=lambda: np.empty(0, np.intp))

    def __post_init__(self) -> None:
        self._family = _FAMILIES[self.version]
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        try:
            self._socket = socket.socket(self._family.domain, kind, socket.IPPROTO_RAW)
        except PermissionError as error:
            raise PrivilegeError("looking at iptables needs CAP_NET_RAW; run as root") from error

    def close(self) -> None:
        self._socket.close()

    def shape(self) -> TableState:
        """Only the shape, which changes when rules are added or removed. Raises KernelError."""
        info = self._get(_GET_INFO, _INFO.pack(self.name.encode(), *[0] * 13))
        return TableState(_INFO.unpack(info)[1:])

    def read(self) -> TableState:
        """The whole table. Equal to the previous one unless a program replaced the table. Raises KernelError."""
        while True:
            shape = self.shape().shape
            size = shape[-1]
            request = self.name.encode().ljust(_NAME_BYTES, b"\0") + size.to_bytes(4, sys.byteorder)
            try:
                found = self._get(_GET_ENTRIES, request.ljust(_ENTRIES_AT + size, b"\0"))
            except KernelError as error:
                if error.errno == errno.EAGAIN:  # just replaced by a table of another size
                    continue
                raise
            entries = np.frombuffer(bytearray(found), np.uint8, offset=_ENTRIES_AT)
            if shape != self._shape:
                self._shape, self._counting = shape, self._counting_bytes(found[_ENTRIES_AT:])
            entries[self._counting] = 0
            return TableState(shape, entries.tobytes())

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

    def _get(self, option: int, request: bytes) -> bytes:
        buffer = ctypes.create_string_buffer(request, len(request))
        length = ctypes.c_uint32(len(request))
        if _LIBC.getsockopt(self._socket.fileno(), self._family.level, option, buffer, ctypes.byref(length)) < 0:
            raise KernelError(f"look at the IPv{self.version} table {self.name}", number=ctypes.get_errno())
        return buffer.raw

"""``engine/records.c`` and ``pcapng.c``: where the packets of a capture file are. With a sweep, packets that it counts
are left out (``engine/sweep.c``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from dossim.engine.library import function
from dossim.engine.sweep import Sweep

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

INTERFACE = np.dtype(
    [
        ("offset_s", np.int64),
        ("snaplen", np.uint32),
        ("link", np.uint16),
        ("resolution", np.uint8),
        ("fcs", np.uint8),
    ],
    align=True,
)
_SMALLEST_BLOCK = 16  # of a packet
# The columns of packets: offset, length, length on the wire, time, number; of pcapng link type, check sequence, cause.
_KINDS = (np.int64, np.int32, np.int32, np.int64, np.int64)
_MORE_KINDS = (np.int32, np.uint8, np.uint8)


class Stop(IntEnum):
    """Why a walk stopped; FULL: there are more packets than may be."""

    AT_END = 0
    FULL = 1
    CUT_IN_HEADER = 2
    CUT_IN_RECORD = 3
    TOO_LARGE = 4


class FileStruct(ctypes.Structure):
    _fields_ = (
        *(("data", ctypes.c_void_p), ("size", ctypes.c_int64)),
        *((name, ctypes.c_uint32) for name in ("big_endian", "header", "unit_ns", "largest", "longest")),
        ("largest_block", ctypes.c_uint32),
    )


class WalkStruct(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("offset", "length", "wire_length", "timestamp_ns", "number")),
        *((name, ctypes.c_void_p) for name in ("link", "fcs", "cause")),
        *(("most", ctypes.c_int64), ("sweep", ctypes.c_void_p)),
        *((name, ctypes.c_int64) for name in ("at", "kept", "number_next")),
        *(("passes", ctypes.c_uint32), ("pad", ctypes.c_uint32)),
    )


class BlocksStruct(ctypes.Structure):
    _fields_ = (
        *(("interfaces", ctypes.c_void_p), ("interface_count", ctypes.c_uint32), ("plain", ctypes.c_uint32)),
        ("late", ctypes.c_int64),
    )


@dataclass(frozen=True)
class Limits:
    """``packet``: the most bytes that one can have; ``wire``: the most that is kept of a length on the wire; ``block``:
    the most bytes of a block of pcapng.
    """

    packet: int
    wire: int
    block: int = 0


@dataclass(frozen=True)
class PcapFile:
    """``data`` are ``size`` bytes of a file and some more. ``header`` bytes are before each packet; ``unit_ns``: the
    unit of the fraction of a second.
    """

    data: U8
    size: int
    big_endian: bool
    header: int
    unit_ns: int
    limits: Limits


@dataclass(frozen=True)
class Walked:
    """``count`` records up to byte ``at``, where the walk stopped; of those that are kept, columns of Records."""

    offset: I64
    length: I32
    wire_length: I32
    timestamp_ns: I64
    number: I64
    at: int
    stop: Stop
    count: int


@dataclass(frozen=True)
class PassedOver:
    """``count`` records up to byte ``at``, where the walk stopped."""

    at: int
    stop: Stop
    count: int


class _Rows:
    """Room for packets that are kept, and how far a walk is that fills it. ``first``: number of its first packet.
    ``passes``: so many packets are passed over, and none is kept.
    """

    def __init__(
        self,
        kinds: Sequence[npt.DTypeLike],
        most: int,
        at: int = 0,
        first: int = 0,
        sweep: Sweep | None = None,
        *,
        passes: bool = False,
    ) -> None:
        self._columns = tuple(np.empty(0 if passes else most, kind) for kind in kinds)
        self._first, self._sweep = first, sweep
        self.struct = WalkStruct(
            *(column.__array_interface__["data"][0] for column in self._columns),
            most=most,
            sweep=None if sweep is None else sweep.address,
            at=at,
            number_next=first,
            passes=passes,
        )

    @property
    def count(self) -> int:
        """Packets that were walked over."""
        return int(self.struct.number_next) - self._first

    @property
    def columns(self) -> tuple[Any, ...]:
        """Those that are kept. Raises MemoryError."""
        if self._sweep is not None:
            self._sweep.require()
        return tuple(column[: self.struct.kept] for column in self._columns)


def walk_pcap(file: PcapFile, at: int, most: int, first: int = 0, sweep: Sweep | None = None) -> Walked:
    """The records from byte ``at`` on, of which at most so many are kept; the first has the number ``first``. Raises
    MemoryError.
    """
    room = max(min(most, (file.size - at) // file.header), 0)
    rows = _Rows(_KINDS, room, at, first, sweep)
    stop = _walk_pcap(file, rows)
    if stop is Stop.FULL and room < most:  # less than a header is left
        stop = Stop.CUT_IN_HEADER
    offset, length, wire_length, timestamp_ns, number = rows.columns
    return Walked(offset, length, wire_length, timestamp_ns, number, rows.struct.at, stop, rows.count)


def pass_pcap(file: PcapFile, at: int, most: int) -> PassedOver:
    """At most so many records from byte ``at`` on."""
    rows = _Rows((), most, at, passes=True)
    stop = _walk_pcap(file, rows)
    return PassedOver(rows.struct.at, stop, rows.count)


def _walk_pcap(file: PcapFile, rows: _Rows) -> Stop:
    given = FileStruct(
        data=_address(file.data),
        size=file.size,
        big_endian=file.big_endian,
        header=file.header,
        unit_ns=file.unit_ns,
        largest=file.limits.packet,
        longest=file.limits.wire,
    )
    walk = function("engine_pcap", [ctypes.c_void_p] * 2, ctypes.c_uint32)
    return Stop(walk(ctypes.byref(given), ctypes.byref(rows.struct)))


def _address(data: U8) -> int:
    return int(data.__array_interface__["data"][0])


class BlockWalk:
    """Collects the packets of the blocks of a pcapng file, of which ``data`` are ``size`` bytes and some more; at most
    so many. Or ``passes`` over so many. ``plain``: all are received Ethernet frames without a check sequence; ``late``:
    those with a time that 64 bits do not hold.
    """

    def __init__(
        self,
        data: U8,
        size: int,
        limits: Limits,
        most: int,
        first: int = 0,
        sweep: Sweep | None = None,
        *,
        passes: bool = False,
    ) -> None:
        self._most = most
        self._file = FileStruct(
            data=_address(data),
            size=size,
            largest=limits.packet,
            longest=limits.wire,
            largest_block=limits.block,
        )
        room = most if passes else min(size // _SMALLEST_BLOCK, most)
        self._rows = _Rows((*_KINDS, *_MORE_KINDS), room, 0, first, sweep, passes=passes)
        self._blocks = BlocksStruct(plain=True)
        self._kept: tuple[Any, ...] = (data,)
        self._walk = function("engine_pcapng", [ctypes.c_void_p] * 3, None)

    def describe(self, interfaces: npt.NDArray[np.void]) -> None:
        """From here on these are the interfaces: rows of INTERFACE."""
        self._kept = (self._kept[0], interfaces)
        self._blocks.interfaces = interfaces.ctypes.data
        self._blocks.interface_count = len(interfaces)

    def run(self, at: int, *, big_endian: bool) -> int:
        """Takes packets from byte ``at`` on, to the block that is returned: one of another kind, or the end."""
        self._file.big_endian = big_endian
        self._rows.struct.at = at
        self._walk(ctypes.byref(self._file), ctypes.byref(self._blocks), ctypes.byref(self._rows.struct))
        return int(self._rows.struct.at)

    @property
    def is_full(self) -> bool:
        """Whether there may be more packets, for which there is no room."""
        return self.kept == self._most

    @property
    def kept(self) -> int:
        return int(self._rows.struct.kept)

    @property
    def count(self) -> int:
        """Packets, whether they are kept or not."""
        return self._rows.count

    @property
    def late(self) -> int:
        return int(self._blocks.late)

    @property
    def plain(self) -> bool:
        return bool(self._blocks.plain)

    @property
    def columns(self) -> tuple[I64, I32, I32, I64, I64, I32, U8, U8]:
        """Of those that are kept: offset, length, length on the wire, time in ns, number, link type, length of the
        check sequence, and cause. Raises MemoryError.
        """
        found: Any = self._rows.columns
        return found  # type: ignore[no-any-return]  # as many columns

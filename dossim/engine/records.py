"""``engine/records.c`` and ``pcapng.c``: where the packets of a capture file are."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from dossim.engine.library import function

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


class Stop(IntEnum):
    """Why a walk stopped; FULL: there are more packets than may be."""

    AT_END = 0
    FULL = 1
    HEADER_CUT = 2
    RECORD_CUT = 3
    TOO_LARGE = 4


class FileStruct(ctypes.Structure):
    _fields_ = (
        *(("data", ctypes.c_void_p), ("size", ctypes.c_int64)),
        *((name, ctypes.c_uint32) for name in ("big_endian", "header", "unit_ns", "largest", "longest")),
        ("largest_block", ctypes.c_uint32),
    )


class RowsStruct(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_void_p) for name in ("offset", "length", "wire_length", "timestamp_ns", "link", "fcs", "cause")
    )


class BlocksStruct(ctypes.Structure):
    _fields_ = (
        *(("interfaces", ctypes.c_void_p), ("interface_count", ctypes.c_uint32), ("plain", ctypes.c_uint32)),
        *(("count", ctypes.c_int64), ("late", ctypes.c_int64)),
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
    """The records up to ``at``, where the walk stopped, as columns of Records."""

    offset: I64
    length: I32
    wire_length: I32
    timestamp_ns: I64
    at: int
    stop: Stop


def walk_pcap(file: PcapFile, first: int, most: int) -> Walked:
    """The records from byte ``first`` on, at most so many."""
    room = max(min(most, (file.size - first) // file.header), 0)
    columns = tuple(np.empty(room, kind) for kind in (np.int64, np.int32, np.int32, np.int64))
    given = FileStruct(
        data=file.data.ctypes.data,
        size=file.size,
        big_endian=file.big_endian,
        header=file.header,
        unit_ns=file.unit_ns,
        largest=file.limits.packet,
        longest=file.limits.wire,
    )
    rows = RowsStruct(*(column.ctypes.data for column in columns))
    at, count = ctypes.c_int64(first), ctypes.c_int64()
    arguments = [ctypes.c_void_p, ctypes.c_int64, *[ctypes.c_void_p] * 3]
    walk = function("engine_pcap", arguments, ctypes.c_uint32)
    stop = walk(ctypes.byref(given), room, *(ctypes.byref(item) for item in (rows, at, count)))
    if stop == Stop.FULL and room < most:  # less than a header is left
        stop = Stop.HEADER_CUT
    kept: list[Any] = [column[: count.value] for column in columns]
    return Walked(*kept, at.value, Stop(stop))  # type: ignore[call-arg]  # four columns


class BlockWalk:
    """Collects the packets of the blocks of a pcapng file, of which ``data`` are ``size`` bytes and some more; at most
    so many. ``plain``: all are received Ethernet frames without a check sequence; ``late``: those with a time that 64
    bits do not hold.
    """

    def __init__(self, data: U8, size: int, limits: Limits, most: int) -> None:
        room = min(size // _SMALLEST_BLOCK, most)
        kinds = (np.int64, np.int32, np.int32, np.int64, np.int32, np.uint8, np.uint8)
        self._columns = tuple(np.empty(room, kind) for kind in kinds)
        self._room, self._most = room, most
        self._file = FileStruct(
            data=data.ctypes.data,
            size=size,
            largest=limits.packet,
            longest=limits.wire,
            largest_block=limits.block,
        )
        self._rows = RowsStruct(*(column.ctypes.data for column in self._columns))
        self._blocks = BlocksStruct(plain=True)
        self._kept: tuple[Any, ...] = (data,)
        pointer = ctypes.c_void_p
        arguments = [pointer, ctypes.c_int64, pointer, pointer, pointer]
        self._walk = function("engine_pcapng", arguments, None)

    def describe(self, interfaces: npt.NDArray[np.void]) -> None:
        """From here on these are the interfaces: rows of INTERFACE."""
        self._kept = (self._kept[0], interfaces)
        self._blocks.interfaces = interfaces.ctypes.data
        self._blocks.interface_count = len(interfaces)

    def run(self, at: int, *, big_endian: bool) -> int:
        """Takes packets from byte ``at`` on, to the block that is returned: one of another kind, or the end."""
        self._file.big_endian = big_endian
        here = ctypes.c_int64(at)
        given = (ctypes.byref(item) for item in (self._blocks, self._rows, here))
        self._walk(ctypes.byref(self._file), self._room, *given)
        return here.value

    @property
    def is_full(self) -> bool:
        """Whether there may be more packets, for which there is no room."""
        return self.count == self._most

    @property
    def count(self) -> int:
        return int(self._blocks.count)

    @property
    def late(self) -> int:
        return int(self._blocks.late)

    @property
    def plain(self) -> bool:
        return bool(self._blocks.plain)

    @property
    def columns(self) -> tuple[I64, I32, I32, I64, I32, U8, U8]:
        """Offset, length, length on the wire, time in ns, link type, length of the check sequence, and cause."""
        found: Any = tuple(column[: self.count] for column in self._columns)
        return found  # type: ignore[no-any-return]

"""``engine/records.c`` and ``pcapng.c``: where the packets of a capture file are."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import BlocksStruct, FileStruct, WalkStruct
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
# The columns of packets: offset, length, length on the wire, time, number; of pcapng link type, check sequence, cause.
_KINDS = (np.int64, np.int32, np.int32, np.int64, np.int64, np.int32, np.uint8, np.uint8)
_POINTER = ctypes.c_void_p


class Stop(IntEnum):
    """Why a walk stopped; FULL: there are more packets than may be."""

    AT_END = 0
    FULL = 1
    CUT_IN_HEADER = 2
    CUT_IN_RECORD = 3
    TOO_LARGE = 4


@dataclass(frozen=True)
class Limits:
    """``packet``: the most bytes that one can have; ``wire``: the most that is kept of a length on the wire; ``block``:
    the most bytes of a block of pcapng.
    """

    packet: int
    wire: int
    block: int = 0


class Room:
    """Memory for where so many packets are. Those of a walk are there until the next one has the room."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._columns = tuple(np.empty(most, kind) for kind in _KINDS)  # the system gives what is used of them
        self.struct = WalkStruct(*(column.ctypes.data for column in self._columns), most)
        self.address = ctypes.addressof(self.struct)

    def begin(self, at: int, first: int) -> None:
        """A walk from byte ``at`` on; ``first``: number of its first packet."""
        self.struct.at, self.struct.number_next, self.struct.count = at, first, 0

    @property
    def count(self) -> int:
        """Packets of the walk."""
        return int(self.struct.count)

    def columns(self, count: int) -> Sequence[Any]:
        """The first so many of the walk: offset, length, length on the wire, time in ns and number; of pcapng also link
        type, length of the check sequence, and cause.
        """
        return [column[:count] for column in self._columns]


class PcapWalk:
    """Walks over the records of a pcap file, piece by piece. ``header`` bytes are before each packet; ``unit_ns``: the
    unit of the fraction of a second.
    """

    def __init__(self, limits: Limits, header: int, unit_ns: int, *, big_endian: bool) -> None:
        self.file = FileStruct(
            big_endian=big_endian, header=header, unit_ns=unit_ns, largest=limits.packet, longest=limits.wire
        )
        self._address = ctypes.addressof(self.file)
        self._walk = function("engine_pcap", [_POINTER] * 2, ctypes.c_uint32)

    def run(self, data: U8, size: int, room: Room) -> Stop:
        """Takes the records of ``size`` bytes, and some more behind them, as the room says; why it stopped."""
        self.file.data, self.file.size = address_of(data), size
        return Stop(self._walk(self._address, room.address))


class BlockWalk:
    """Takes the packets of the blocks of a pcapng file, of which ``data`` are ``size`` bytes and some more, as the room
    says. ``plain``: all are received Ethernet frames without a check sequence; ``late``: those with a time that 64 bits
    do not hold.
    """

    def __init__(self, data: U8, size: int, limits: Limits, room: Room) -> None:
        self._file = FileStruct(
            data=address_of(data), size=size, largest=limits.packet, longest=limits.wire, largest_block=limits.block
        )
        self._room, self._data = room, data
        self._interfaces: npt.NDArray[np.void] | None = None
        self._blocks = BlocksStruct(plain=True)
        self._walk = function("engine_pcapng", [_POINTER] * 3, None)

    def describe(self, interfaces: npt.NDArray[np.void]) -> None:
        """From here on these are the interfaces: rows of INTERFACE."""
        self._interfaces = interfaces
        self._blocks.interfaces = interfaces.ctypes.data
        self._blocks.interface_count = len(interfaces)

    def run(self, at: int, *, big_endian: bool) -> int:
        """Takes packets from byte ``at`` on, to the block that is returned: one of another kind, or the end."""
        self._file.big_endian = big_endian
        self._room.struct.at = at
        self._walk(ctypes.byref(self._file), ctypes.byref(self._blocks), self._room.address)
        return int(self._room.struct.at)

    @property
    def late(self) -> int:
        return int(self._blocks.late)

    @property
    def plain(self) -> bool:
        return bool(self._blocks.plain)


def address_of(data: U8) -> int:
    """Where the data are."""
    return int(data.__array_interface__["data"][0])

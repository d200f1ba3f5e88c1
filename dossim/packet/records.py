"""Records: the positions of packets in a capture file, before their link type is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import FileStruct
from dossim.engine.records import Room

# The most that a packet in a capture can have: libpcap's MAXIMUM_SNAPLEN, Wireshark's WTAP_MAX_PACKET_SIZE_STANDARD.
LARGEST_PACKET = 262_144
# A length on the wire can be any 32-bit number. No packet has more than this (GSO_MAX_SIZE of Linux is 8 * 65,535):
# beyond it, only that it exceeds the captured length matters.
LONGEST_ON_THE_WIRE = 1 << 20

U8 = npt.NDArray[np.uint8]

_ETHERNET = 1

RECEIVED, SENT, OTHER_HOST, BROKEN = range(4)
# Why a record is not a received packet, indexed by Records.cause.
CAUSES = {
    SENT: "sent by the host (pcapng direction outbound)",
    OTHER_HOST: "to another host (pcapng reception type promiscuous)",
    BROKEN: "received with a link-layer error (pcapng flags)",
}


@dataclass(frozen=True)
class Kinds:
    """Of records, N in all: ``link`` type (int32); ``fcs`` (uint8), how many of the bytes on the wire are a frame check
    sequence at the end; ``cause`` (uint8), RECEIVED or why this is not a received packet; ``big_endian`` (bool), the
    byte order of the machine that wrote it.
    """

    link: npt.NDArray[np.int32]
    fcs: npt.NDArray[np.uint8]
    cause: npt.NDArray[np.uint8]
    big_endian: npt.NDArray[np.bool_]

    @classmethod
    def alike(cls, count: int, link: int, *, fcs: int = 0, big_endian: bool = False) -> Kinds:
        """Of so many received packets."""
        return cls(
            np.full(count, link, np.int32),
            np.full(count, fcs, np.uint8),
            np.full(count, RECEIVED, np.uint8),
            np.full(count, big_endian, np.bool_),
        )


@dataclass(frozen=True)
class Records:
    """Per packet, N in all, in the order of the file.

    ``offset`` into the file (int64), captured ``length`` and ``wire_length`` (int32), ``timestamp_ns`` and ``number``
    (int64), which packet it is of all that were read. Lengths are in bytes; ``wire_length`` is what the record says the
    packet had on the wire. ``kinds`` None: all are received Ethernet frames without a check sequence.
    """

    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]
    wire_length: npt.NDArray[np.int32]
    timestamp_ns: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    kinds: Kinds | None

    def __len__(self) -> int:
        return len(self.offset)

    @classmethod
    def joined(cls, parts: Sequence[Records]) -> Records:
        """The parts concatenated; at least one."""
        if len(parts) == 1:
            return parts[0]
        kinds = None
        if any(part.kinds is not None for part in parts):
            names = [column.name for column in fields(Kinds)]
            kinds = Kinds(*_columns([part.kinds or Kinds.alike(len(part), _ETHERNET) for part in parts], names))
        names = [column.name for column in fields(Records) if column.name != "kinds"]
        return cls(**dict(zip(names, _columns(parts, names), strict=True)), kinds=kinds)


def _columns(parts: Sequence[object], names: Sequence[str]) -> list[Any]:
    return [np.concatenate([getattr(part, name) for part in parts]) for name in names]


@dataclass(frozen=True)
class Piece:
    """Bytes of a file that are in memory: from ``start`` to ``end`` of ``buf``, which has some more behind them.
    ``base``: the position in the file of the first byte of ``buf``. ``is_last``: the file ends there. ``number``: of
    its first packet.
    """

    buf: memoryview
    start: int
    end: int
    base: int
    is_last: bool
    number: int = 0


@dataclass(frozen=True)
class Taken:
    """What a reader found in a piece. ``offset`` of the records is a position in its ``buf``, and so is ``at``: from
    there on nothing was read. ``is_full``: more can be taken from the same piece. ``warning``: why nothing more is read
    of the file.
    """

    records: Records
    at: int
    is_full: bool = False
    warning: str = ""


class Reader(Protocol):
    """Reads one file, piece by piece."""

    def take(self, piece: Piece, room: Room) -> Taken:
        """The packets of a piece, as many as there is room for; its memory is used. Raises CaptureError, if nothing of
        the file can be read.
        """
        ...

    def tell(self) -> tuple[FileStruct, npt.NDArray[np.void] | None] | None:
        """How the engine reads on, as Course.go_on() has it; None: it cannot."""
        ...

    def finish(self) -> tuple[str, ...]:
        """Sentences about all that was read."""
        ...

    @property
    def late(self) -> int:
        """How many times, of what was read, 64 bits do not hold."""
        ...

    @property
    def state(self) -> bytes:
        """What was read so far that says how the rest is read."""
        ...

    def resume(self, state: bytes, packets: int) -> None:
        """Goes on as a reader in this state does after so many packets: in the middle of the file."""
        ...

    def guess(self, buf: U8, at: int) -> int | None:
        """Where in these bytes, those of the file from any byte ``at`` on, a record may begin; None: nowhere."""
        ...

    def needs(self, beginning: bytes) -> int:
        """How many bytes the record has that begins with these 24 bytes, or fewer at the end of a file."""
        ...


def late_warning(name: str, late: int) -> str:
    return f"{name}: times before 1677 or after 2262, which are not kept: {late:,}"


def before(count: int) -> str:
    """How much was read of a file with a fault at packet ``count``, as a phrase."""
    if not count:
        return "no packet was read"
    return "the packet before it was read" if count == 1 else f"the {count:,} packets before it were read"

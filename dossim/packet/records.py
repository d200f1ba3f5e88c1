"""Records: the positions of packets in a capture file, before their link type is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

# The most that a packet in a capture can have: libpcap's MAXIMUM_SNAPLEN, Wireshark's WTAP_MAX_PACKET_SIZE_STANDARD.
LARGEST_PACKET = 262_144
# A length on the wire can be any 32-bit number. No packet has more than this (GSO_MAX_SIZE of Linux is 8 * 65,535):
# beyond it, only that it exceeds the captured length matters.
LONGEST_ON_THE_WIRE = 1 << 20
LAST_S = 9_223_372_035  # the most that int64 nanoseconds hold: the year 2262

RECEIVED, SENT, OTHER_HOST, BROKEN = range(4)
# Why a record is not a received packet, indexed by Records.cause.
CAUSES = {
    SENT: "sent by the host (pcapng direction outbound)",
    OTHER_HOST: "to another host (pcapng reception type promiscuous)",
    BROKEN: "received with a link-layer error (pcapng flags)",
}


@dataclass(frozen=True)
class Records:
    """Per packet, N in all, in the order of the file.

    ``offset`` into the file (int64), captured ``length``, ``wire_length`` and ``link`` type (int32), ``timestamp_ns``
    (int64). Lengths are in bytes; ``wire_length`` is what the record says the packet had on the wire. ``fcs`` (uint8)
    is how many of the bytes on the wire are a frame check sequence at the end. ``cause`` (uint8) is RECEIVED, or why
    this is not a received packet. ``big_endian`` (bool): the byte order of the machine that wrote it.
    """

    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]
    wire_length: npt.NDArray[np.int32]
    link: npt.NDArray[np.int32]
    timestamp_ns: npt.NDArray[np.int64]
    fcs: npt.NDArray[np.uint8]
    cause: npt.NDArray[np.uint8]
    big_endian: npt.NDArray[np.bool_]
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.offset)

    def first(self, count: int, warning: str) -> Records:
        """The first ``count`` records, and why there are no more."""
        kept = {name: getattr(self, name)[:count] for name in _columns()}
        return replace(self, **kept, warnings=(*self.warnings, warning))

    @classmethod
    def joined(cls, parts: Sequence[Records], warnings: tuple[str, ...]) -> Records:
        """The parts concatenated; at least one."""
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _columns()}
        return cls(**columns, warnings=warnings)


def _columns() -> list[str]:
    return [column.name for column in fields(Records) if column.name != "warnings"]


def nanoseconds(
    seconds: npt.NDArray[np.int64], fraction_ns: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], int]:
    """The times in nanoseconds, clipped to 64 bits (1677 to 2262), and how many were clipped."""
    late = int(np.count_nonzero(np.abs(seconds) > LAST_S))
    return np.clip(seconds, -LAST_S, LAST_S) * 1_000_000_000 + fraction_ns, late


def late_warning(name: str, late: int) -> str:
    return f"{name}: times before 1677 or after 2262, which are not kept: {late:,}"


def before(count: int) -> str:
    """How much was read of a file with a fault at packet ``count``, as a phrase."""
    if not count:
        return "no packet was read"
    return "the packet before it was read" if count == 1 else f"the {count:,} packets before it were read"

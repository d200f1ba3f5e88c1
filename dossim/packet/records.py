"""Records: where the packets of a capture file lie, before their link type is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

# More than any packet in a capture has: libpcap's MAXIMUM_SNAPLEN, Wireshark's WTAP_MAX_PACKET_SIZE_STANDARD.
LARGEST_PACKET = 262_144
# A length on the wire may be anything in 32 bits. No packet has more than this (GSO_MAX_SIZE of Linux is 8 * 65,535):
# then only that it is longer than what was captured matters.
LONGEST_ON_THE_WIRE = 1 << 20
LAST_S = 9_223_372_035  # what fits into int64 nanoseconds: the year 2262

RECEIVED, SENT, OTHER_HOST, BROKEN = range(4)
# Why a record is no received packet, by the number in Records.cause.
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
    this is no received packet. ``big_endian`` (bool): the byte order of the machine that wrote it.
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
        """The records before number ``count``, and why there are no more."""
        kept = {name: getattr(self, name)[:count] for name in _columns()}
        return replace(self, **kept, warnings=(*self.warnings, warning))

    @classmethod
    def joined(cls, parts: Sequence[Records], warnings: tuple[str, ...]) -> Records:
        """One after the other; at least one part."""
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _columns()}
        return cls(**columns, warnings=warnings)


def _columns() -> list[str]:
    return [column.name for column in fields(Records) if column.name != "warnings"]


def nanoseconds(
    seconds: npt.NDArray[np.int64], fraction_ns: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], int]:
    """The time in one number, clipped to what 64 bits hold (1677 to 2262), and how many had to be."""
    late = int(np.count_nonzero(np.abs(seconds) > LAST_S))
    return np.clip(seconds, -LAST_S, LAST_S) * 1_000_000_000 + fraction_ns, late


def late_warning(name: str, late: int) -> str:
    return f"{name}: times before 1677 or after 2262, which are not kept: {late:,}"


def before(count: int) -> str:
    """What was read of a file that goes wrong at packet ``count``."""
    if not count:
        return "no packet was read"
    return "the packet before it was read" if count == 1 else f"the {count:,} packets before it were read"

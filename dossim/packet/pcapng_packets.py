"""Packet blocks of pcapng, decoded all at once."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dossim.packet.pcapng_time import nanoseconds_of
from dossim.packet.records import (
    BROKEN,
    LARGEST_PACKET,
    LONGEST_ON_THE_WIRE,
    OTHER_HOST,
    RECEIVED,
    SENT,
    Records,
    late_warning,
)
from dossim.packet.source import Content

I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
U8 = npt.NDArray[np.uint8]

OBSOLETE, SIMPLE, ENHANCED = 2, 3, 6
SMALLEST_ENHANCED, SMALLEST_SIMPLE = 32, 16
_FLAGS = 2  # option epb_flags, and pack_flags of the obsolete block
_MOST_AT_ONCE = 64
_PART = 1 << 19


@dataclass
class Interfaces:
    """Columns about the interfaces of all sections; ``base`` is the index of the current section's first one."""

    link: array[int] = field(default_factory=lambda: array("q"))
    snaplen: array[int] = field(default_factory=lambda: array("q"))
    resolution: array[int] = field(default_factory=lambda: array("q"))
    offset_s: array[int] = field(default_factory=lambda: array("q"))
    fcs: array[int] = field(default_factory=lambda: array("q"))
    base: int = 0

    def __len__(self) -> int:
        return len(self.link)

    def new_section(self) -> None:
        self.base = len(self)

    def add(self, link: int, snaplen: int, resolution: int, offset_s: int, fcs: int) -> None:
        self.link.append(link)
        self.snaplen.append(snaplen)
        self.resolution.append(resolution)
        self.offset_s.append(offset_s)
        self.fcs.append(fcs)


@dataclass
class Packets:
    """Offsets of packet blocks. From packet ``since[k]`` on, interfaces ``base[k]`` to ``known[k]`` are described."""

    at: array[int] = field(default_factory=lambda: array("q"))
    odd: array[int] = field(default_factory=lambda: array("q"))
    odd_kind: array[int] = field(default_factory=lambda: array("b"))
    since: array[int] = field(default_factory=lambda: array("q"))
    base: array[int] = field(default_factory=lambda: array("q"))
    known: array[int] = field(default_factory=lambda: array("q"))
    big: array[int] = field(default_factory=lambda: array("b"))

    def add_odd(self, at: int, kind: int) -> None:
        """Adds a packet block that is not an enhanced one."""
        self.odd.append(len(self.at))
        self.odd_kind.append(kind)
        self.at.append(at)

    def odd_rows(self, kind: int, first: int, count: int) -> I64:
        """The packets of that kind among ``count`` from ``first`` on, numbered from ``first``."""
        rows = np.frombuffer(self.odd, np.int64)[np.frombuffer(self.odd_kind, np.int8) == kind] - first
        found: I64 = rows[(rows >= 0) & (rows < count)]
        return found

    def mark(self, interfaces: Interfaces, *, big_endian: bool) -> None:
        """Records that from here on these are the interfaces."""
        self.since.append(len(self.at))
        self.base.append(interfaces.base)
        self.known.append(len(interfaces))
        self.big.append(big_endian)


@dataclass(frozen=True)
class Bad:
    """The first invalid packet block."""

    at: int
    what: str


@dataclass(frozen=True)
class _Words:
    """uint32 words at any offset, each in the byte order of its packet."""

    buf: U8
    big: Bool

    def __call__(self, at: I64, count: int) -> I64:
        if not len(at):
            return np.empty((count, 0), np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(self.buf, 4 * count)
        words: I64 = windows[at].view("<u4").T.astype(np.int64)
        if self.big.any():
            words[:, self.big] = windows[at[self.big]].view(">u4").T
        return words

    def only(self, rows: I64) -> _Words:
        return _Words(self.buf, self.big[rows])


def decoded(name: str, content: Content, packets: Packets, interfaces: Interfaces) -> tuple[Records, Bad | None]:
    """All packets up to the first invalid one, and that one. Decoded in parts, because the intermediate arrays take
    several times the memory of the result.
    """
    parts: list[Records] = []
    late, bad = 0, None
    for first in range(0, max(len(packets.at), 1), _PART):
        part, part_late, bad = _decoded_part(content, packets, interfaces, first)
        parts.append(part)
        late += part_late
        if bad is not None:
            break
    return Records.joined(parts, (late_warning(name, late),) if late else ()), bad


def _decoded_part(
    content: Content, packets: Packets, interfaces: Interfaces, first: int
) -> tuple[Records, int, Bad | None]:
    at = np.frombuffer(packets.at, np.int64)[first : first + _PART]
    place = np.searchsorted(np.frombuffer(packets.since, np.int64), np.arange(first, first + len(at)), "right") - 1
    base, known = (np.frombuffer(column, np.int64)[place] for column in (packets.base, packets.known))
    words = _Words(np.frombuffer(content.buf, np.uint8), np.frombuffer(packets.big, np.bool_)[place])
    number, high, low, captured, original = words(at + 8, 5)
    (size,) = words(at + 4, 1)
    start = at + 28
    simple, obsolete = packets.odd_rows(SIMPLE, first, len(at)), packets.odd_rows(OBSOLETE, first, len(at))
    # The obsolete block has a 16-bit interface number and a drop count where the enhanced one has its interface number.
    number[obsolete] = np.where(words.big[obsolete], number[obsolete] >> 16, number[obsolete] & 0xFFFF)
    original[simple], number[simple], high[simple], low[simple] = number[simple], 0, 0, 0
    start[simple] = at[simple] + 12
    unknown = base + number >= known
    column = _Columns.of(interfaces, np.where(unknown, 0, base + number))
    snaplen = np.where(column.snaplen[simple] == 0, original[simple], column.snaplen[simple])
    captured[simple] = np.minimum(np.minimum(original[simple], snaplen), size[simple] - SMALLEST_SIMPLE)
    bad = _first_bad(words, at, size, start, captured, unknown, number, known - base)
    kept = slice(0, len(at) if bad is None else bad[0])
    ticks = high[kept].astype(np.uint64) << np.uint64(32) | low[kept].astype(np.uint64)
    ns, late = nanoseconds_of(ticks, column.resolution[kept], column.offset_s[kept])
    without_options = np.zeros(len(at), np.bool_)
    without_options[simple] = True
    rows = np.flatnonzero(~without_options[kept])
    flags = np.zeros(len(ns), np.int64)
    flags[rows] = _flags(words.only(rows), start[rows] + (captured[rows] + 3) // 4 * 4, at[rows] + size[rows] - 4)
    records = Records(
        offset=start[kept],
        length=captured[kept].astype(np.int32),
        wire_length=np.clip(original, captured, LONGEST_ON_THE_WIRE)[kept].astype(np.int32),
        link=column.link[kept].astype(np.int32),
        timestamp_ns=ns,
        fcs=np.where(flags >> 5 & 15, flags >> 5 & 15, column.fcs[kept]).astype(np.uint8),
        cause=_cause(flags),
        big_endian=words.big[kept],
    )
    return records, late, None if bad is None else Bad(int(at[bad[0]]), bad[1])


@dataclass(frozen=True)
class _Columns:
    """Columns about the interface of each packet."""

    link: I64
    snaplen: I64
    resolution: I64
    offset_s: I64
    fcs: I64

    @classmethod
    def of(cls, interfaces: Interfaces, rows: I64) -> _Columns:
        names = ("link", "snaplen", "resolution", "offset_s", "fcs")
        if not len(interfaces):
            return cls(*(np.zeros(len(rows), np.int64) for _ in names))
        return cls(*(np.frombuffer(getattr(interfaces, name), np.int64)[rows] for name in names))


def _first_bad(
    words: _Words, at: I64, size: I64, start: I64, captured: I64, unknown: Bool, number: I64, described: I64
) -> tuple[int, str] | None:
    """The number of the first invalid packet, and why."""
    (again,) = words(at + size - 4, 1)
    beyond = start + captured > at + size - 4
    wrong = np.flatnonzero(unknown | beyond | (again != size) | (captured > LARGEST_PACKET))
    if not len(wrong):
        return None
    row = int(wrong[0])
    if again[row] != size[row]:
        return row, f"its length is {size[row]} at its begin and {again[row]} at its end"
    if unknown[row]:
        return row, f"it names interface {number[row]}, {described[row]} are described"
    if beyond[row]:
        room = int(at[row] + size[row] - 4 - start[row])
        return row, f"it claims {captured[row]:,} bytes of packet, {room} are in it"
    return row, f"its packet has {captured[row]:,} bytes, no packet has more than {LARGEST_PACKET:,}"


def _flags(words: _Words, option: I64, after: I64) -> I64:
    """The option epb_flags of each block, 0 without; ``option`` is the start of its options, ``after`` their end."""
    flags = np.zeros(len(option), np.int64)
    rows = np.flatnonzero(option + 8 <= after)
    for _ in range(_MOST_AT_ONCE):
        if not len(rows):
            return flags
        here = words.only(rows)
        head, value = here(option[rows], 2)
        code = np.where(here.big, head >> 16, head & 0xFFFF)
        length = np.where(here.big, head & 0xFFFF, head >> 16)
        found = (code == _FLAGS) & (length == 4)
        flags[rows[found]] = value[found]
        option[rows] += 4 + (length + 3) // 4 * 4
        rows = rows[~found & (code != 0) & (option[rows] + 8 <= after[rows])]
    for row in rows.tolist():  # a block with very many options must not cost a pass over all blocks for each
        flags[row] = _flags_of_one(words.buf, bool(words.big[row]), int(option[row]), int(after[row]))
    return flags


def _flags_of_one(buf: U8, big: bool, option: int, after: int) -> int:
    head = struct.Struct(">HHI" if big else "<HHI").unpack_from
    data = buf.data
    while option + 8 <= after:
        code, length, value = head(data, option)
        if code == _FLAGS and length == 4:
            return int(value)
        if code == 0:
            break
        option += 4 + (length + 3) // 4 * 4
    return 0


def _cause(flags: I64) -> U8:
    """Direction, reception type and errors: bits 0-1, 2-4 and 24-31."""
    cause = np.full(len(flags), RECEIVED, np.uint8)
    cause[flags >> 24 != 0] = BROKEN
    cause[flags >> 2 & 7 == 4] = OTHER_HOST
    cause[flags & 3 == 2] = SENT
    return cause

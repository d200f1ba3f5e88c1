"""The pcap file format (draft-ietf-opsawg-pcap): both byte orders, micro- and nanoseconds, and Kuznetzov's variant."""

from __future__ import annotations

import struct

import numpy as np

from dossim.engine.layout import FileStruct
from dossim.engine.records import Limits, PcapWalk, Room, Stop
from dossim.model.errors import CaptureError
from dossim.packet.guess import guess_pcap
from dossim.packet.linkdecoders import ETHERNET
from dossim.packet.records import (
    LARGEST_PACKET,
    LONGEST_ON_THE_WIRE,
    U8,
    Kinds,
    Piece,
    Records,
    Taken,
    before,
)

_HEADER = 24
_VERSION = (2, 4)  # before, lengths or times were otherwise on some systems (libpcap's sf-pcap.c)
_MICROSECONDS, _NANOSECONDS, _MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
_UNIT_NS = {_MICROSECONDS: 1000, _NANOSECONDS: 1, _MODIFIED: 1000}
_RECORD_HEADER = {_MICROSECONDS: 16, _NANOSECONDS: 16, _MODIFIED: 24}
_FCS_PRESENT = 0x0400_0000  # in the link-type word: the upper four bits give its length in 16-bit words
_LIMITS = Limits(LARGEST_PACKET, LONGEST_ON_THE_WIRE)


def is_pcap(first: bytes) -> bool:
    """``first``: at least four bytes of a file."""
    return _magic(first)[0] in _UNIT_NS


def _magic(first: bytes) -> tuple[int, str]:
    """The magic number and the struct byte order that makes it one."""
    for order in "<>":
        (magic,) = struct.unpack_from(f"{order}I", first)
        if magic in _UNIT_NS:
            return int(magic), order
    return 0, "<"


class PcapReader:
    """Reads up to the first record that is cut short or invalid, which adds a warning. ``header``: the file's first
    bytes. Raises CaptureError if that is cut short or of another version, or the first record is invalid.
    """

    def __init__(self, name: str, header: bytes) -> None:
        magic, self._order = _magic(header)
        if len(header) < _HEADER:
            raise CaptureError(
                f"{name}: the file header is cut short: needs {_HEADER} bytes, {len(header)} are there; "
                f"copy the file again"
            )
        version = struct.unpack_from(f"{self._order}HH", header, 4)
        if version != _VERSION:
            raise CaptureError(
                f"{name}: it has version {version[0]}.{version[1]} of the pcap format, expected 2.4; 'tcpdump -r OLD "
                "-w NEW' writes that"
            )
        (link,) = struct.unpack_from(f"{self._order}I", header, 20)
        self._name = name
        self._link = link & 0xFFFF
        self._fcs = (link >> 28) * 2 if link & _FCS_PRESENT else 0
        self._is_other = self._link != ETHERNET or self._fcs > 0
        self._header, self._unit_ns = _RECORD_HEADER[magic], _UNIT_NS[magic]
        self._walk = PcapWalk(_LIMITS, self._header, self._unit_ns, big_endian=self._order == ">")
        self._packets = 0

    def take(self, piece: Piece, room: Room) -> Taken:
        """As Reader has it."""
        room.begin(min(max(piece.start, _HEADER - piece.base), piece.end), piece.number)
        stop = self._walk.run(np.frombuffer(piece.buf, np.uint8), piece.end, room)
        count = room.count
        self._packets += count
        offset, length, wire_length, timestamp_ns, number, *_ = room.columns(count)
        kinds = None
        if self._is_other:
            kinds = Kinds.alike(count, self._link, fcs=self._fcs, big_endian=self._order == ">")
        records = Records(offset, length, wire_length, timestamp_ns, number, kinds)
        at = int(room.struct.at)
        return Taken(records, at, stop is Stop.FULL, self._damage(piece, at, stop))

    def tell(self) -> tuple[FileStruct, None] | None:
        """As Reader has it: it can with Ethernet frames."""
        return None if self._is_other else (self._walk.file, None)

    def finish(self) -> tuple[str, ...]:
        """As Reader has it: there is nothing to say."""
        return ()

    @property
    def late(self) -> int:
        """As Reader has it: 32 bits of seconds are never too many."""
        return 0

    @property
    def state(self) -> bytes:
        """As Reader has it: the file's header says it all."""
        return b""

    def resume(self, state: bytes, packets: int) -> None:
        """As Reader has it."""
        self._packets = packets

    def guess(self, buf: U8, at: int) -> int | None:
        """As Reader has it."""
        return guess_pcap(buf, big_endian=self._order == ">", header=self._header, unit_ns=self._unit_ns)

    def needs(self, beginning: bytes) -> int:
        """As Reader has it."""
        if len(beginning) < 12:
            return self._header
        (captured,) = struct.unpack_from(f"{self._order}I", beginning, 8)
        return self._header + int(captured)

    def _damage(self, piece: Piece, here: int, stop: Stop) -> str:
        """What is wrong with the first record that was not read; "" if nothing is, or the next piece has its end."""
        at, left = here + piece.base, piece.end - here
        if stop in (Stop.AT_END, Stop.FULL):
            return ""
        if stop is Stop.CUT_IN_HEADER:
            return self._cut(at, self._header, left) if piece.is_last else ""
        (captured,) = struct.unpack_from(f"{self._order}I", piece.buf, here + 8)
        if stop is Stop.CUT_IN_RECORD:
            return self._cut(at, self._header + captured, left) if piece.is_last else ""
        what = f"{self._name}: record {self._packets} at byte {at} claims {captured:,} bytes"
        if not self._packets:
            raise CaptureError(f"{what}, no packet has more than {LARGEST_PACKET:,}; the file is damaged")
        return f"{what}: the file is damaged there; {before(self._packets)}"

    def _cut(self, at: int, needs: int, left: int) -> str:
        return (
            f"{self._name}: record {self._packets} at byte {at} is cut short: needs {needs} bytes, {left} are left; "
            f"{before(self._packets)}"
        )

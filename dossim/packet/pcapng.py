"""The pcapng file format (draft-ietf-opsawg-pcapng): sections, interfaces; enhanced, simple and obsolete packets."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from dossim.errors import CaptureError
from dossim.packet.pcap import LARGEST_PACKET
from dossim.packet.records import Records

_SECTION, _INTERFACE, _PACKET, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_OPTION_END, _OPTION_TSRESOL, _OPTION_TSOFFSET = 0, 9, 14
_LAST_NS = (1 << 63) - 1  # in the year 2262


def is_pcapng(octets: bytes) -> bool:
    return octets[:4] == struct.pack("<I", _SECTION)


@dataclass(frozen=True)
class _Interface:
    link: int
    snaplen: int
    ticks_per_s: int = 1_000_000
    offset_s: int = 0


@dataclass
class _Reader:
    name: str
    octets: bytes
    order: str = "<"
    interfaces: list[_Interface] = field(default_factory=list)
    offset: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    wire_length: list[int] = field(default_factory=list)
    link: list[int] = field(default_factory=list)
    timestamp_ns: list[int] = field(default_factory=list)

    def unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, self.octets, at)

    def fail(self, at: int, what: str) -> CaptureError:
        return CaptureError(f"{self.name}: block at byte {at}: {what}; the file is damaged there, copy it again")

    def read(self) -> Records:
        at, end = 0, len(self.octets)
        while at < end:
            at = self._block(at, end)
        return Records(
            np.array(self.offset, np.int64),
            np.array(self.length, np.int32),
            np.array(self.wire_length, np.int64).clip(0, LARGEST_PACKET).astype(np.int32),
            np.array(self.link, np.int32),
            np.array(self.timestamp_ns, np.int64),
        )

    def _block(self, at: int, end: int) -> int:
        """Read one block; the offset of the next."""
        if end - at < 12:
            raise self.fail(at, f"it is cut short: a block needs 12 bytes, {end - at} are left")
        if self.octets[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            self._section(at)
        kind, size = self.unpack("II", at)
        if size < 12 or size % 4:
            raise self.fail(at, f"its length is {size}, a multiple of 4 from 12 up would be right")
        if at + size > end:
            raise self.fail(at, f"it is cut short: needs {size} bytes, {end - at} are left")
        body, behind = at + 8, at + size - 4
        if kind == _ENHANCED:
            self._enhanced(at, body, behind)
        elif kind == _SIMPLE:
            self._simple(at, body, behind)
        elif kind == _PACKET:
            self._obsolete(at, body, behind)
        elif kind == _INTERFACE:
            self._interface(at, body, behind)
        return at + size

    def _section(self, at: int) -> None:
        (little,) = struct.unpack_from("<I", self.octets, at + 8)
        (big,) = struct.unpack_from(">I", self.octets, at + 8)
        if _BYTE_ORDER_MAGIC not in (little, big):
            raise self.fail(at, f"no byte-order magic, found {little:#x}")
        self.order = "<" if little == _BYTE_ORDER_MAGIC else ">"
        self.interfaces = []

    def _interface(self, at: int, body: int, behind: int) -> None:
        if behind - body < 8:
            raise self.fail(at, "an interface description without link type and snapshot length")
        link, _, snaplen = self.unpack("HHI", body)
        ticks, offset_s = 1_000_000, 0
        option = body + 8
        while option + 4 <= behind:
            code, size = self.unpack("HH", option)
            if code == _OPTION_END:
                break
            if option + 4 + size > behind:
                raise self.fail(at, f"its option {code} claims {size} bytes, {behind - option - 4} are left in it")
            if code == _OPTION_TSRESOL and size >= 1:
                value = self.octets[option + 4]
                ticks = 1 << (value & 0x7F) if value & 0x80 else 10**value
            if code == _OPTION_TSOFFSET and size >= 8:
                (offset_s,) = self.unpack("q", option + 4)
            option += 4 + (size + 3) // 4 * 4
        self.interfaces.append(_Interface(link, snaplen, ticks, offset_s))

    def _enhanced(self, at: int, body: int, behind: int) -> None:
        if behind - body < 20:
            raise self.fail(at, "a packet block without its fields")
        number, high, low, captured, original = self.unpack("IIIII", body)
        self._keep(at, number, body + 20, (captured, original), behind, high << 32 | low)

    def _obsolete(self, at: int, body: int, behind: int) -> None:
        if behind - body < 20:
            raise self.fail(at, "a packet block without its fields")
        number, _, high, low, captured, original = self.unpack("HHIIII", body)
        self._keep(at, number, body + 20, (captured, original), behind, high << 32 | low)

    def _simple(self, at: int, body: int, behind: int) -> None:
        if behind - body < 4:
            raise self.fail(at, "a packet block without its fields")
        (original,) = self.unpack("I", body)
        limit = self.interfaces[0].snaplen if self.interfaces else 0
        captured = min(original, limit or original, behind - body - 4)
        self._keep(at, 0, body + 4, (captured, original), behind, 0)

    def _keep(self, at: int, number: int, start: int, lengths: tuple[int, int], behind: int, ticks: int) -> None:
        captured, original = lengths
        if number >= len(self.interfaces):
            raise self.fail(at, f"it names interface {number}, {len(self.interfaces)} are described")
        if start + captured > behind:
            raise self.fail(at, f"it claims {captured} bytes of packet, {behind - start} are in it")
        interface = self.interfaces[number]
        timestamp_ns = interface.offset_s * 10**9 + ticks * 10**9 // interface.ticks_per_s
        if not -_LAST_NS <= timestamp_ns <= _LAST_NS:
            raise self.fail(at, f"its time is {timestamp_ns // 10**9} s after 1970")
        self.offset.append(start)
        self.length.append(captured)
        self.wire_length.append(max(captured, original))
        self.link.append(interface.link)
        self.timestamp_ns.append(timestamp_ns)


def read(name: str, octets: bytes) -> Records:
    """Where the packets are. Raises CaptureError at the first block that is cut short or impossible."""
    return _Reader(name, octets).read()

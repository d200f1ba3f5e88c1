"""The pcapng file format (draft-ietf-opsawg-pcapng): sections, interfaces; enhanced, simple and obsolete packets.

Blocks are walked one by one, because each gives the start of the next; packets are decoded all at once
(:mod:`dossim.packet.pcapng_packets`).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from dossim.model.errors import CaptureError
from dossim.packet.pcapng_packets import (
    ENHANCED,
    OBSOLETE,
    SIMPLE,
    SMALLEST_ENHANCED,
    SMALLEST_SIMPLE,
    Interfaces,
    Packets,
    decoded,
)
from dossim.packet.records import Records, before
from dossim.packet.source import Content

_SECTION, _INTERFACE = 0x0A0D0D0A, 1
_SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_SMALLEST = 12
# libpcap and Wireshark treat larger blocks as damage, so such a block at the end of a file is not one cut short.
_LARGEST_BLOCK = 16 << 20
_OPTION_END, _OPTION_TSRESOL, _OPTION_FCSLEN, _OPTION_TSOFFSET = 0, 9, 13, 14


def is_pcapng(buf: bytes | bytearray) -> bool:
    return buf[:4] == _SECTION_MAGIC


class _Stop(Exception):
    """What is wrong with a block; nothing after it can be read. ``damaged``: not merely cut short."""

    def __init__(self, what: str, *, damaged: bool = True) -> None:
        super().__init__(what)
        self.damaged = damaged


def read(name: str, content: Content) -> Records:
    """The positions of the packets, up to the first block that is cut short or invalid, which adds a warning.

    Raises CaptureError if the section header is missing or cut short, or no packet precedes a damaged block.
    """
    walk = _Walk(content)
    at, stop = walk.run(name)
    records, bad = decoded(name, content, walk.packets, walk.interfaces)
    if bad is not None:
        at, stop = bad.at, _Stop(bad.what)
    if stop is None:
        return records
    if not at:
        raise CaptureError(f"{name}: the file header is no section header of pcapng: {stop}; copy the file again")
    if stop.damaged and not len(records):
        raise CaptureError(f"{name}: block at byte {at}: {stop}; the file is damaged there, copy it again")
    damaged = "the file is damaged there; " if stop.damaged else ""
    return records.first(len(records), f"{name}: block at byte {at}: {stop}; {damaged}{before(len(records))}")


@dataclass
class _Walk:
    content: Content
    order: str = "<"
    packets: Packets = field(default_factory=Packets)
    interfaces: Interfaces = field(default_factory=Interfaces)

    def run(self, name: str) -> tuple[int, _Stop | None]:
        """Collect packets and interfaces; returns where it stopped, and why if that is not the end."""
        buf, end, most = self.content.buf, self.content.size, self.content.limit.packets
        append = self.packets.at.append
        at = blocks = 0
        head = struct.Struct("<II").unpack_from
        try:
            while at + _SMALLEST <= end:
                kind, size = head(buf, at)
                if kind == ENHANCED and size >= SMALLEST_ENHANCED and not size & 3 and at + size <= end:
                    append(at)
                elif kind == _SECTION:
                    self._section(at)
                    head = struct.Struct(f"{self.order}II").unpack_from
                    size = self._checked(at, head(buf, at)[1], 28)
                else:
                    self._other(at, kind, self._checked(at, size, _SMALLEST))
                at += size
                blocks += 1
                if blocks > most:
                    raise self.content.limit.too_many(name)
            if at < end:
                raise _Stop(f"it is cut short: a block needs {_SMALLEST} bytes, {end - at} are left", damaged=False)
        except _Stop as stop:
            return at, stop
        return at, None

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, self.content.buf, at)

    def _checked(self, at: int, size: int, smallest: int) -> int:
        """The size of a complete block."""
        if size < smallest or size % 4:
            raise _Stop(f"its length is {size}; expected a multiple of 4, at least {smallest}")
        if at + size > self.content.size:
            raise _Stop(
                f"it is cut short: needs {size:,} bytes, {self.content.size - at:,} are left",
                damaged=size > _LARGEST_BLOCK,
            )
        (again,) = self._unpack("I", at + size - 4)
        if again != size:
            raise _Stop(f"its length is {size} at its begin and {again} at its end")
        return size

    def _section(self, at: int) -> None:
        for order in "<>":
            (magic,) = struct.unpack_from(f"{order}I", self.content.buf, at + 8)
            if magic == _BYTE_ORDER_MAGIC:
                self.order = order
                self.interfaces.new_section()
                self.packets.mark(self.interfaces, big_endian=order == ">")
                return
        raise _Stop(f"no byte-order magic, found {self.content.buf[at + 8 : at + 12].hex(' ')}")

    def _other(self, at: int, kind: int, size: int) -> None:
        if (kind in (ENHANCED, OBSOLETE) and size < SMALLEST_ENHANCED) or (kind == SIMPLE and size < SMALLEST_SIMPLE):
            raise _Stop("a packet block without its fields")
        if kind in (SIMPLE, OBSOLETE):
            self.packets.add_odd(at, kind)
        elif kind == _INTERFACE:
            self._interface(at + 8, at + size - 4)
            self.packets.mark(self.interfaces, big_endian=self.order == ">")

    def _interface(self, body: int, after: int) -> None:
        if after - body < 8:
            raise _Stop("an interface description without link type and snapshot length")
        link, _, snaplen = self._unpack("HHI", body)
        resolution, offset_s, fcs = 6, 0, 0
        option = body + 8
        while option + 4 <= after:
            code, size = self._unpack("HH", option)
            if code == _OPTION_END:
                break
            if option + 4 + size > after:
                raise _Stop(f"its option {code} claims {size} bytes, {after - option - 4} are left in it")
            if code == _OPTION_TSRESOL and size >= 1:
                resolution = self.content.buf[option + 4]
            if code == _OPTION_FCSLEN and size >= 1:
                fcs = _fcs_bytes(self.content.buf[option + 4])
            if code == _OPTION_TSOFFSET and size >= 8:
                (offset_s,) = self._unpack("q", option + 4)
            option += 4 + (size + 3) // 4 * 4
        self.interfaces.add(link, snaplen, resolution, offset_s, fcs)


def _fcs_bytes(stated: int) -> int:
    """The draft says bits but its example is 4, and writers and Wireshark use bytes: 4 and 32 mean the same."""
    return stated // 8 if stated >= 16 else stated

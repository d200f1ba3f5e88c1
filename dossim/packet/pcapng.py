"""The pcapng file format (draft-ietf-opsawg-pcapng): sections, interfaces; enhanced, simple and obsolete packets.

The engine walks the blocks. It leaves to this module those that describe how others are read, and invalid ones.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from dossim.engine.layout import FileStruct
from dossim.engine.records import INTERFACE, BlockWalk, Limits, Room
from dossim.model.errors import CaptureError
from dossim.packet.guess import guess_pcapng
from dossim.packet.records import (
    LARGEST_PACKET,
    LONGEST_ON_THE_WIRE,
    U8,
    Kinds,
    Piece,
    Records,
    Taken,
    before,
    late_warning,
)

_SECTION, _INTERFACE, _OBSOLETE, _SIMPLE, _ENHANCED = 0x0A0D0D0A, 1, 2, 3, 6
_SECTION_MAGIC = b"\x0a\x0d\x0d\x0a"
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_VERSION = 1
_SMALLEST = 12
_SMALLEST_PACKET = {_ENHANCED: 32, _OBSOLETE: 32, _SIMPLE: 16}
_LARGEST_BLOCK = 16 << 20  # libpcap and Wireshark treat larger ones as damage
_MOST_INTERFACES = 1 << 18  # of a section
_OPTION_END, _OPTION_TSRESOL, _OPTION_FCSLEN, _OPTION_TSOFFSET = 0, 9, 13, 14
_LIMITS = Limits(LARGEST_PACKET, LONGEST_ON_THE_WIRE, _LARGEST_BLOCK)


def is_pcapng(first: bytes) -> bool:
    """``first``: at least four bytes of a file."""
    return first[:4] == _SECTION_MAGIC


class _Stop(Exception):
    """What is wrong with a block; nothing after it can be read. ``damaged``: not merely cut short."""

    def __init__(self, what: str, *, damaged: bool = True) -> None:
        super().__init__(what)
        self.damaged = damaged


class _NextPiece(Exception):
    """The block ends in the next piece of the file."""


class PcapngReader:
    """Reads up to the first block that is cut short or invalid, which adds a warning. Raises CaptureError if the
    section header is missing or cut short, or no packet precedes a damaged block.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._order = "<"
        self._interfaces = np.empty(4, INTERFACE)  # of the section
        self._described = 0
        self._packets = self._late = 0

    def take(self, piece: Piece, room: Room) -> Taken:
        """As Reader has it."""
        room.begin(piece.start, piece.number)
        walk = BlockWalk(np.frombuffer(piece.buf, np.uint8), piece.end, _LIMITS, room)
        orders: list[tuple[int, bool]] = []  # from which packet on the file has which byte order: big-endian or not
        at, stop = piece.start, None
        try:
            while True:
                walk.describe(self._interfaces[: self._described])
                orders.append((room.count, self._order == ">"))
                at = walk.run(at, big_endian=self._order == ">")
                if room.count == room.most or at == piece.end:
                    break
                at += self._other(piece, at)
        except _NextPiece:
            pass
        except _Stop as error:
            stop = error
        self._packets += room.count
        self._late += walk.late
        warning = "" if stop is None else self._damage(at + piece.base, stop)
        return Taken(_records(room, orders, walk.plain), at, room.count == room.most, warning)

    def tell(self) -> tuple[FileStruct, npt.NDArray[np.void]]:
        """As Reader has it."""
        file = FileStruct(
            big_endian=self._order == ">",
            largest=_LIMITS.packet,
            longest=_LIMITS.wire,
            largest_block=_LIMITS.block,
        )
        return file, self._interfaces[: self._described].copy()

    def finish(self) -> tuple[str, ...]:
        """As Reader has it: how many times 64 bits do not hold."""
        return (late_warning(self._name, self._late),) if self._late else ()

    @property
    def late(self) -> int:
        """As Reader has it."""
        return self._late

    @property
    def state(self) -> bytes:
        """As Reader has it: the byte order and the interfaces of the section."""
        return self._order.encode() + self._interfaces[: self._described].tobytes()

    def resume(self, state: bytes, packets: int) -> None:
        """As Reader has it."""
        self._order, self._packets = state[:1].decode(), packets
        known = np.frombuffer(state[1:], INTERFACE)
        self._interfaces = np.concatenate([known, np.empty(4, INTERFACE)])
        self._described = len(known)

    def guess(self, buf: U8, at: int) -> int | None:
        """As Reader has it."""
        return guess_pcapng(buf, at, big_endian=self._order == ">")

    def needs(self, beginning: bytes) -> int:
        """As Reader has it."""
        if len(beginning) < _SMALLEST:
            return _SMALLEST
        order = self._order
        if beginning[:4] == _SECTION_MAGIC:
            order = next((each for each in "<>" if _is_in_order(beginning, each)), order)
        (size,) = struct.unpack_from(f"{order}I", beginning, 4)
        return int(size)

    def _damage(self, at: int, stop: _Stop) -> str:
        name = self._name
        if not at:
            raise CaptureError(f"{name}: the file header is no section header of pcapng: {stop}; copy the file again")
        if stop.damaged and not self._packets:
            raise CaptureError(f"{name}: block at byte {at}: {stop}; the file is damaged there, copy it again")
        damaged = "the file is damaged there; " if stop.damaged else ""
        return f"{name}: block at byte {at}: {stop}; {damaged}{before(self._packets)}"

    # -- blocks that the engine leaves --------------------------------------------------------------------------------

    def _other(self, piece: Piece, at: int) -> int:
        """The size of a block that the engine does not pass over. Raises _Stop, and _NextPiece."""
        if at + _SMALLEST > piece.end:
            if not piece.is_last:
                raise _NextPiece
            raise _Stop(f"it is cut short: a block needs {_SMALLEST} bytes, {piece.end - at} are left", damaged=False)
        kind, size = self._unpack(piece, "II", at)
        if kind == _SECTION:
            self._order = _byte_order(piece, at)
            size = self._checked(piece, at, self._unpack(piece, "I", at + 4)[0], 28)
            major, minor = self._unpack(piece, "HH", at + 12)
            if major != _VERSION:
                raise _Stop(f"the section has version {major}.{minor}; expected {_VERSION}.0")
            self._described = 0
            return size
        size = self._checked(piece, at, size, _SMALLEST)
        if kind == _INTERFACE:
            self._describe(piece, at + 8, at + size - 4)
        elif kind in _SMALLEST_PACKET:
            raise _Stop(self._why_invalid(piece, at, kind, size))
        return size

    def _unpack(self, piece: Piece, form: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(self._order + form, piece.buf, at)

    def _checked(self, piece: Piece, at: int, size: int, smallest: int) -> int:
        """The size of a complete block."""
        if size < smallest or size % 4:
            raise _Stop(f"its length is {size}; expected a multiple of 4, at least {smallest}")
        if size > _LARGEST_BLOCK:
            raise _Stop(f"it needs {size:,} bytes, no block has more than {_LARGEST_BLOCK:,}")
        if at + size > piece.end:
            if not piece.is_last:
                raise _NextPiece
            raise _Stop(f"it is cut short: needs {size:,} bytes, {piece.end - at:,} are left", damaged=False)
        (again,) = self._unpack(piece, "I", at + size - 4)
        if again != size:
            raise _Stop(f"its length is {size} at its begin and {again} at its end")
        return size

    def _why_invalid(self, piece: Piece, at: int, kind: int, size: int) -> str:
        """Why the engine does not take a packet block."""
        if size < _SMALLEST_PACKET[kind]:
            return "a packet block without its fields"
        number, room = 0, size - _SMALLEST_PACKET[kind]
        if kind == _SIMPLE:
            captured = min(self._unpack(piece, "I", at + 8)[0], room)
        else:
            (number,) = self._unpack(piece, "I" if kind == _ENHANCED else "H", at + 8)
            (captured,) = self._unpack(piece, "I", at + 20)
        if number >= self._described:
            return f"it names interface {number}, {self._described} are described"
        if captured > room:
            return f"it claims {captured:,} bytes of packet, {room} are in it"
        return f"its packet has {captured:,} bytes, no packet has more than {LARGEST_PACKET:,}"

    def _describe(self, piece: Piece, body: int, after: int) -> None:
        if after - body < 8:
            raise _Stop("an interface description without link type and snapshot length")
        if self._described == _MOST_INTERFACES:
            raise _Stop(f"more than {_MOST_INTERFACES:,} interfaces in one section")
        link, _, snaplen = self._unpack(piece, "HHI", body)
        resolution, offset_s, fcs = 6, 0, 0
        option = body + 8
        while option + 4 <= after:
            code, size = self._unpack(piece, "HH", option)
            if code == _OPTION_END:
                break
            if option + 4 + size > after:
                raise _Stop(f"its option {code} claims {size} bytes, {after - option - 4} are left in it")
            if code == _OPTION_TSRESOL and size >= 1:
                resolution = piece.buf[option + 4]
            if code == _OPTION_FCSLEN and size >= 1:
                fcs = _fcs_bytes(piece.buf[option + 4])
            if code == _OPTION_TSOFFSET and size >= 8:
                (offset_s,) = self._unpack(piece, "q", option + 4)
            option += 4 + (size + 3) // 4 * 4
        if self._described == len(self._interfaces):
            self._interfaces = np.concatenate([self._interfaces, self._interfaces])
        self._interfaces[self._described] = (offset_s, snaplen, link, resolution, fcs)
        self._described += 1


def _byte_order(piece: Piece, at: int) -> str:
    """That of the section that begins there."""
    for order in "<>":
        if _is_in_order(piece.buf[at : at + _SMALLEST], order):
            return order
    raise _Stop(f"no byte-order magic, found {piece.buf[at + 8 : at + 12].hex(' ')}")


def _is_in_order(section: bytes | memoryview, order: str) -> bool:
    """Whether a section header has this byte order."""
    (magic,) = struct.unpack_from(f"{order}I", section, 8)
    return bool(magic == _BYTE_ORDER_MAGIC)


def _fcs_bytes(stated: int) -> int:
    """The draft says bits but its example is 4, and writers and Wireshark use bytes: 4 and 32 mean the same."""
    return stated // 8 if stated >= 16 else stated


def _records(room: Room, orders: list[tuple[int, bool]], plain: bool) -> Records:
    """``orders``: as PcapngReader.take() finds them."""
    offset, length, wire_length, timestamp_ns, number, link, fcs, cause = room.columns(room.count)
    kinds = None
    if not plain:
        big_endian = np.zeros(room.count, np.bool_)
        for first, is_big in orders:
            big_endian[first:] = is_big
        kinds = Kinds(link, fcs, cause, big_endian)
    return Records(offset, length, wire_length, timestamp_ns, number, kinds)

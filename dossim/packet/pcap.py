"""The pcap file format (draft-ietf-opsawg-pcap): both byte orders, micro- and nanoseconds, and Kuznetzov's variant."""

from __future__ import annotations

import struct
import sys
from array import array

import numpy as np
import numpy.typing as npt

from dossim.model.errors import CaptureError
from dossim.packet.records import LARGEST_PACKET, LONGEST_ON_THE_WIRE, RECEIVED, Records, before, nanoseconds
from dossim.packet.source import Content

I64 = npt.NDArray[np.int64]

_HEADER = 24
_MICROSECONDS, _NANOSECONDS, _MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
_UNIT_NS = {_MICROSECONDS: 1000, _NANOSECONDS: 1, _MODIFIED: 1000}
_RECORD_HEADER = {_MICROSECONDS: 16, _NANOSECONDS: 16, _MODIFIED: 24}
_FCS_PRESENT = 0x0400_0000  # in the link-type word: the upper four bits give its length in 16-bit words
_STEP = 1 << 24


def is_pcap(buf: bytes | bytearray) -> bool:
    return _magic(buf)[0] in _UNIT_NS


def _magic(buf: bytes | bytearray) -> tuple[int, str]:
    """The magic number and the struct byte order that makes it one."""
    for order in "<>":
        (magic,) = struct.unpack_from(f"{order}I", buf)
        if magic in _UNIT_NS:
            return int(magic), order
    return 0, "<"


def read(name: str, content: Content) -> Records:
    """The positions of the packets, up to the first record that is cut short or invalid, which adds a warning.

    Raises CaptureError if the file header is cut short, or the first record is invalid.
    """
    buf = content.buf
    magic, order = _magic(buf)
    if content.size < _HEADER:
        raise CaptureError(
            f"{name}: the file header is cut short: needs {_HEADER} bytes, {content.size} are there; "
            f"copy the file again"
        )
    (link,) = struct.unpack_from(f"{order}I", buf, 20)
    header = _RECORD_HEADER[magic]
    starts, after = _walk(name, content, order, header)
    at = np.frombuffer(starts, np.int64)
    seconds, fraction, captured, original = _header_words(buf, at, order)
    ns, _ = nanoseconds(seconds, fraction * _UNIT_NS[magic])
    count = len(at)
    records = Records(
        offset=at + header,
        length=captured.astype(np.int32),
        wire_length=np.clip(original, captured, LONGEST_ON_THE_WIRE).astype(np.int32),
        link=np.full(count, link & 0xFFFF, np.int32),
        timestamp_ns=ns,
        fcs=np.full(count, (link >> 28) * 2 if link & _FCS_PRESENT else 0, np.uint8),
        cause=np.full(count, RECEIVED, np.uint8),
        big_endian=np.full(count, order == ">", np.bool_),
    )
    return _up_to_damage(name, content, records, captured, after, header)


def _walk(name: str, content: Content, order: str, header: int) -> tuple[array[int], int]:
    """The offset of each record with a complete header, and that of the next.

    A plain loop, because each record gives the start of the next (0.1 µs each).
    """
    captured = struct.Struct(f"{order}I").unpack_from
    buf, most = content.buf, content.limit.packets
    starts = array("q")
    append = starts.append
    at, end = _HEADER, content.size - header
    stop = 0
    while at <= end:
        stop = min(stop + _STEP, end)
        while at <= stop:
            (length,) = captured(buf, at + 8)
            append(at)
            at += header + length
        if len(starts) > most:
            raise content.limit.too_many(name)
    return starts, at


def _up_to_damage(name: str, content: Content, records: Records, captured: I64, after: int, header: int) -> Records:
    """The records before the first that is invalid or cut short."""
    impossible = np.flatnonzero(captured > LARGEST_PACKET)
    if len(impossible):
        number = int(impossible[0])
        at = int(records.offset[number]) - header
        what = f"{name}: record {number} at byte {at} claims {int(captured[number]):,} bytes"
        if not number:
            raise CaptureError(f"{what}, no packet has more than {LARGEST_PACKET:,}; the file is damaged")
        return records.first(number, f"{what}: the file is damaged there; {before(number)}")
    if after > content.size:
        number = len(records) - 1
        at = int(records.offset[number]) - header
        return records.first(number, _cut(name, number, at, header + int(captured[number]), content.size))
    if after < content.size:
        return records.first(len(records), _cut(name, len(records), after, header, content.size))
    return records


def _cut(name: str, record: int, at: int, needs: int, size: int) -> str:
    return (
        f"{name}: record {record} at byte {at} is cut short: needs {needs} bytes, {size - at} are left; "
        f"{before(record)}"
    )


def _header_words(buf: bytearray, at: I64, order: str) -> I64:
    """The first four words of each record header, as int64[4, N]; ``at`` are offsets of complete headers."""
    if not len(at):
        return np.empty((4, 0), np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(buf, np.uint8), 16)
    words: I64 = windows[at].view(f"{order}u4").T.astype(np.int64)
    return words


assert sys.maxsize > 1 << 32, "offsets are 64-bit"

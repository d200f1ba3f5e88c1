"""The pcap file format (draft-ietf-opsawg-pcap): both byte orders, micro- and nanoseconds, and Kuznetzov's variant."""

from __future__ import annotations

import struct
import sys

import numpy as np
import numpy.typing as npt

from dossim.errors import CaptureError
from dossim.packet.records import Records

I64 = npt.NDArray[np.int64]

_HEADER = 24
_MICROSECONDS, _NANOSECONDS, _MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
_UNIT_NS = {_MICROSECONDS: 1000, _NANOSECONDS: 1, _MODIFIED: 1000}
_RECORD_HEADER = {_MICROSECONDS: 16, _NANOSECONDS: 16, _MODIFIED: 24}
LARGEST_PACKET = 1 << 22  # 4 MiB: more than any snapshot length in use; beyond it the file is damaged


def is_pcap(octets: bytes) -> bool:
    return _magic(octets)[0] in _UNIT_NS


def _magic(octets: bytes) -> tuple[int, str]:
    """The magic number and the struct byte order that makes it one."""
    if len(octets) < 4:
        return 0, "<"
    for order in "<>":
        (magic,) = struct.unpack_from(f"{order}I", octets)
        if magic in _UNIT_NS:
            return int(magic), order
    return 0, "<"


def read(name: str, octets: bytes) -> Records:
    """Where the packets are. Raises CaptureError at the first record that is cut short or impossible."""
    magic, order = _magic(octets)
    if len(octets) < _HEADER:
        raise CaptureError(
            f"{name}: the file header is cut short: needs {_HEADER} bytes, {len(octets)} are there; copy the file again"
        )
    (link,) = struct.unpack_from(f"{order}I", octets, 20)
    starts = _walk(name, octets, order, _RECORD_HEADER[magic])
    at = np.array(starts, np.int64)
    seconds, fraction, captured, original = _header_words(octets, at, order)
    return Records(
        offset=at + _RECORD_HEADER[magic],
        length=captured.astype(np.int32),
        wire_length=np.clip(original, captured, LARGEST_PACKET).astype(np.int32),
        link=np.full(len(at), link & 0xFFFF, np.int32),  # the upper bits tell about frame check sequences
        timestamp_ns=seconds * 1_000_000_000 + fraction * _UNIT_NS[magic],
    )


def _walk(name: str, octets: bytes, order: str, header: int) -> list[int]:
    """Offset of each record; a plain loop, because each record says where the next begins (0.1 µs each)."""
    captured = struct.Struct(f"{order}I").unpack_from
    starts: list[int] = []
    append = starts.append
    at, end = _HEADER, len(octets)
    try:
        while at < end:
            (length,) = captured(octets, at + 8)
            append(at)
            at += header + length
    except struct.error:
        raise _cut(name, len(starts), at, header, end - at) from None
    if at > end:
        last = starts[-1]
        (length,) = captured(octets, last + 8)
        if length > LARGEST_PACKET:
            raise CaptureError(
                f"{name}: record {len(starts) - 1} at byte {last} claims {length:,} bytes; the file is damaged there"
            )
        raise _cut(name, len(starts) - 1, last, header + length, end - last)
    return starts


def _cut(name: str, record: int, at: int, needs: int, left: int) -> CaptureError:
    keep = f", or keep what is whole with 'editcap -r IN OUT 1-{record}'" if record else ""
    return CaptureError(
        f"{name}: record {record} at byte {at} is cut short: needs {needs} bytes, {left} are left; "
        f"copy the file again{keep}"
    )


def _header_words(octets: bytes, at: I64, order: str) -> I64:
    """The four words that a record header begins with, as int64[4, N]; ``at`` are offsets of whole headers."""
    if not len(at):
        return np.empty((4, 0), np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(octets, np.uint8), 16)
    words: I64 = windows[at].view(f"{order}u4").T.astype(np.int64)
    return words


assert sys.maxsize > 1 << 32, "offsets are 64-bit"

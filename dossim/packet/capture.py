"""Capture: the frames of a pcap or pcapng file, as one byte array and an offset per frame.

Frames are always Ethernet: other link types get a header on reading (:mod:`dossim.packet.linktype`). Reading keeps the
bytes as they are and checks only the structure of the file.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from dossim.engine.records import Room
from dossim.model.errors import CaptureError
from dossim.packet import linktype, pcap, pcapng
from dossim.packet.linkdecoders import ETHERNET
from dossim.packet.linktype import links_by_count, skipped_by_count
from dossim.packet.records import Piece, Reader, Records
from dossim.packet.source import PADDING, Content, Reading, display_name, read_source
from dossim.packet.unpack import compression_of

# Regular files only, as for files that a scenario names.
FILE = Reading()
_FRAMES_OF_A_LENGTH = 64
_AT_ONCE = 1 << 20  # records, so that what they may need is not asked for by the size of the file
_LEAST_RECORD = 16  # bytes

__all__ = ["PADDING", "Capture", "Reading", "concat", "read_capture"]


@dataclass(frozen=True)
class Capture:
    """``data`` holds all frames; frame i is ``data[offset[i] : offset[i] + length[i]]``.

    ``data`` uint8, with PADDING zero bytes after the last frame; ``offset`` int64[N]; ``length`` int32[N], captured
    bytes; ``wire_length`` int32[N], bytes on the wire, more than ``length`` if the capture was cut (a snapshot length);
    ``record`` int64[N], the packet's number in the file, from 0: others may have been skipped before it;
    ``timestamp_ns`` int64[N] since the epoch. ``sha256`` is of the file as it is on disk. ``skipped`` counts records
    that are not received packets, by kind; ``warnings`` are sentences about the file. ``link_types`` counts its
    packets, those skipped included, by the name of their link type.
    """

    path: str
    sha256: str
    data: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    length: npt.NDArray[np.int32]
    wire_length: npt.NDArray[np.int32]
    record: npt.NDArray[np.int64]
    timestamp_ns: npt.NDArray[np.int64]
    skipped: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    link_types: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.offset)

    def frame(self, number: int) -> bytes:
        """The bytes of one frame; numbers count from 0."""
        start = int(self.offset[number])
        return self.data[start : start + int(self.length[number])].tobytes()

    def part(self, start: int, stop: int) -> Capture:
        """Frames ``start`` to ``stop`` (not included), sharing the data."""
        return replace(self, **self._columns(slice(start, stop)))

    def among(self, rows: npt.NDArray[np.int64]) -> Capture:
        """These frames, sharing the data."""
        return self if len(rows) == len(self) else replace(self, **self._columns(rows))

    def _columns(self, rows: npt.NDArray[np.int64] | slice) -> dict[str, Any]:
        names = ("offset", "length", "wire_length", "record", "timestamp_ns")
        return {name: getattr(self, name)[rows] for name in names}

    def only(self, rows: npt.NDArray[np.int64]) -> Capture:
        """These frames, with a copy of nothing else of the data."""
        length = self.length[rows]
        offset = np.cumsum(length, dtype=np.int64) - length
        return replace(
            self,
            data=_pieces(np.ascontiguousarray(self.data), self.offset[rows], length, offset),
            offset=offset,
            length=length,
            wire_length=self.wire_length[rows],
            record=self.record[rows],
            timestamp_ns=self.timestamp_ns[rows],
        )

    @classmethod
    def from_frames(cls, frames: Iterable[bytes], path: str = "<generated>") -> Capture:
        """A capture of these Ethernet frames, one microsecond apart."""
        kept = list(frames)
        length = np.array([len(frame) for frame in kept], np.int32)
        offset = np.concatenate([[0], np.cumsum(length, dtype=np.int64)])[:-1].astype(np.int64)
        buf = b"".join(kept)
        data = np.frombuffer(buf + bytes(PADDING), np.uint8)
        digest = hashlib.sha256(buf).hexdigest()
        number = np.arange(len(kept), dtype=np.int64)
        return cls(path, digest, data, offset, length, length, number, number * 1000)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a pcap file with nanosecond timestamps."""
        with open(path, "wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, ETHERNET))
            for number in range(len(self)):
                frame = self.frame(number)
                seconds, nanoseconds = divmod(int(self.timestamp_ns[number]), 1_000_000_000)
                seconds = min(max(seconds, 0), 0xFFFF_FFFF)  # the format allows no larger values
                file.write(struct.pack("<IIII", seconds, nanoseconds, len(frame), self.wire_length[number]) + frame)


def _pieces(
    data: npt.NDArray[np.uint8],
    start: npt.NDArray[np.int64],
    length: npt.NDArray[np.int32],
    offset: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint8]:
    """Pieces of the data one after the other, at these offsets, and PADDING."""
    kinds = np.unique(length).tolist()
    if len(kinds) * _FRAMES_OF_A_LENGTH > len(length):
        view = data.data
        pieces = [view[at : at + size] for at, size in zip(start.tolist(), length.tolist(), strict=True)]
        return np.frombuffer(b"".join([*pieces, bytes(PADDING)]), np.uint8)
    found = np.zeros(int(length.sum(dtype=np.int64)) + PADDING, np.uint8)
    for size in filter(None, kinds):  # those of one length at once: a flood has few
        mine = length == size
        source, target = sliding_window_view(data, size), sliding_window_view(found, size, writeable=True)
        target[offset[mine]] = source[start[mine]]
    return found


def joined(parts: Sequence[Capture]) -> Capture:
    """Parts of one capture, one or more, one after the other, with their numbers of packets and times; the rest is of
    the first part.
    """
    starts = np.cumsum([0, *(len(part.data) - PADDING for part in parts[:-1])])
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("length", "wire_length", "record", "timestamp_ns")
    }
    return replace(
        parts[0],
        data=np.concatenate([*(part.data[: len(part.data) - PADDING] for part in parts), np.zeros(PADDING, np.uint8)]),
        offset=np.concatenate([part.offset + start for part, start in zip(parts, starts.tolist(), strict=True)]),
        **columns,
    )


def concat(captures: Iterable[Capture], path: str = "<generated>") -> Capture:
    """All frames of all captures, in order, with their metadata."""
    parts = list(captures)
    joined = Capture.from_frames((part.frame(number) for part in parts for number in range(len(part))), path)
    skipped, link_types = Counter[str](), Counter[str]()
    for part in parts:
        skipped.update(part.skipped)
        link_types.update(part.link_types)
    return replace(
        joined,
        wire_length=np.concatenate([part.wire_length for part in parts] or [joined.wire_length]),
        skipped=dict(skipped),
        warnings=tuple(warning for part in parts for warning in part.warnings),
        link_types=dict(link_types),
    )


def read_capture(path: str | os.PathLike[str], reading: Reading = FILE) -> Capture:
    """Read a pcap or pcapng file, compressed or not. Raises CaptureError with the position of the fault, what was found
    and what is expected.

    A file that is cut short, or damaged after its first packets, is read up to that point, with a warning in
    ``Capture.warnings``.
    """
    name = os.fspath(path)
    shown = display_name(name)
    content = read_source(name, reading)
    try:
        records, warnings = _records(shown, content)
        said = (*content.warnings, *warnings)
        capture = capture_of(shown, memoryview(content.buf), records, said, skip_unknown=reading.skip_unknown)
    except MemoryError as error:
        raise CaptureError(f"{shown}: its packets do not fit into memory; use a part of it") from error
    capture.data.flags.writeable = False
    return replace(
        capture,
        sha256=content.sha256,
        skipped=skipped_by_count(capture.skipped),
        link_types=links_by_count(capture.link_types),
    )


def capture_of(
    name: str, buf: memoryview, records: Records, warnings: tuple[str, ...], *, skip_unknown: bool = False
) -> Capture:
    """Records as a capture. Raises CaptureError for packets of unsupported link types, unless ``skip_unknown`` leaves
    them out.
    """
    frames = linktype.as_ethernet(name, buf, records, skip_unknown=skip_unknown)
    rows, number, timestamp_ns = frames.record, records.number, records.timestamp_ns
    return Capture(
        path=name,
        sha256="",
        data=frames.data,
        offset=frames.offset,
        length=frames.length,
        wire_length=frames.wire_length,
        record=number if rows is None else number[rows],
        timestamp_ns=timestamp_ns if rows is None else timestamp_ns[rows],
        skipped=frames.skipped,
        warnings=warnings,
        link_types=frames.links,
    )


def begins_as_capture(first: bytes) -> bool:
    """Whether these are the first bytes of a pcap or pcapng file, or of compressed data."""
    return bool(compression_of(first)) or pcapng.is_pcapng(first) or (len(first) >= 4 and pcap.is_pcap(first))


def reader_of(name: str, first: bytes) -> Reader:
    """For a file that begins with these bytes, at least 28 if it has as many. Raises CaptureError."""
    if len(first) >= 4 and pcap.is_pcap(first):
        return pcap.PcapReader(name, first[:24])
    if pcapng.is_pcapng(first):
        return pcapng.PcapngReader(name)
    found = f"it begins with {first[:4].hex(' ')}" if first else "it is empty"
    raise CaptureError(
        f"{name}: not a capture, {found}; a pcap or pcapng file (also compressed: gzip, bzip2, xz, zstd, lz4) would be "
        "right"
    )


def _records(name: str, content: Content) -> tuple[Records, tuple[str, ...]]:
    """All records, and sentences about them."""
    reader, limit = reader_of(name, content.first), content.limit
    piece = Piece(memoryview(content.buf), 0, content.size, 0, is_last=True)
    parts: list[Records] = []
    count = 0
    while True:
        taken = reader.take(piece, Room(min(_AT_ONCE, (piece.end - piece.start) // _LEAST_RECORD + 1)))
        parts.append(taken.records)
        count += len(taken.records)
        if limit.packets is not None and count > limit.packets:
            raise limit.too_many(name)
        if not taken.is_full:
            break
        piece = replace(piece, start=taken.at, number=count)
    return Records.joined(parts), (*reader.finish(), *filter(None, [taken.warning]))

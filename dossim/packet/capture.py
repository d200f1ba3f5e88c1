"""Capture: the frames of a pcap or pcapng file, as one byte array and an offset per frame.

Frames are always Ethernet: other link types get a header on reading (:mod:`dossim.packet.linktype`). Reading keeps the
bytes as they are and checks only the structure of the file.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from dossim.model.errors import CaptureError
from dossim.packet import linktype, pcap, pcapng
from dossim.packet.linkdecoders import ETHERNET
from dossim.packet.records import Records
from dossim.packet.source import PADDING, Content, Reading, display_name, read_source

# Regular files only, as for files that a scenario names.
FILE = Reading()

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
        cut = slice(start, stop)
        return replace(
            self,
            offset=self.offset[cut],
            length=self.length[cut],
            wire_length=self.wire_length[cut],
            record=self.record[cut],
            timestamp_ns=self.timestamp_ns[cut],
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
        records = _records(shown, content)
        frames = linktype.as_ethernet(shown, content.buf, records, skip_unknown=reading.skip_unknown)
    except MemoryError as error:
        raise CaptureError(f"{shown}: its packets do not fit into memory; use a part of it") from error
    frames.data.flags.writeable = False
    return Capture(
        path=shown,
        sha256=content.sha256,
        data=frames.data,
        offset=frames.offset,
        length=frames.length,
        wire_length=frames.wire_length,
        record=frames.record,
        timestamp_ns=records.timestamp_ns[frames.record],
        skipped=frames.skipped,
        warnings=(*content.warnings, *records.warnings),
        link_types=frames.link_types,
    )


def _records(name: str, content: Content) -> Records:
    buf = content.buf
    if pcap.is_pcap(buf):
        return pcap.read(name, content)
    if pcapng.is_pcapng(buf):
        return pcapng.read(name, content)
    found = f"it begins with {buf[: min(content.size, 4)].hex(' ')}" if content.size else "it is empty"
    raise CaptureError(
        f"{name}: not a capture, {found}; a pcap or pcapng file (also compressed: gzip, bzip2, xz, zstd, lz4) would be "
        "right"
    )

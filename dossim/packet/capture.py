"""Capture: the frames of a pcap or pcapng file (plain or gzip), as one byte array and an offset per frame.

Frames are always Ethernet: other link types get a header on reading (:mod:`dossim.packet.linktype`). Reading keeps the
octets as they are and judges nothing but the file's own structure.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dossim.errors import CaptureError
from dossim.packet import linktype, pcap, pcapng
from dossim.packet.records import Records

_GZIP = b"\x1f\x8b"
# Columns are gathered without looking whether a frame is that long; this is what they may read past the last one.
PADDING = 256


@dataclass(frozen=True)
class Capture:
    """``data`` holds all frames; frame i is ``data[offset[i] : offset[i] + length[i]]``.

    ``data`` uint8, with PADDING zero bytes behind the last frame; ``offset`` int64[N]; ``length`` int32[N], captured
    bytes; ``wire_length`` int32[N], bytes on the wire, more than ``length`` where the capture was cut (a snapshot
    length); ``record`` int64[N], the packet's number in the file, from 0: others may have been skipped before it;
    ``timestamp_ns`` int64[N] since the epoch. ``sha256`` is of the file as it is on disk. ``skipped`` counts what the
    file holds that is no received packet, by what it is; ``warnings`` are sentences about the file. ``link_types``
    counts its packets, those skipped included, by the name of their link type.
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
        """The octets of one frame; numbers count from 0."""
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
        octets = b"".join(kept)
        data = np.frombuffer(octets + bytes(PADDING), np.uint8)
        digest = hashlib.sha256(octets).hexdigest()
        number = np.arange(len(kept), dtype=np.int64)
        return cls(path, digest, data, offset, length, length, number, number * 1000)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a pcap file with nanosecond timestamps."""
        with open(path, "wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, linktype.ETHERNET))
            for number in range(len(self)):
                frame = self.frame(number)
                seconds, nanoseconds = divmod(int(self.timestamp_ns[number]), 1_000_000_000)
                file.write(struct.pack("<IIII", seconds, nanoseconds, len(frame), self.wire_length[number]) + frame)


def concat(captures: Iterable[Capture], path: str = "<generated>") -> Capture:
    """All frames of all captures, in order."""
    return Capture.from_frames((capture.frame(number) for capture in captures for number in range(len(capture))), path)


def read_capture(path: str | os.PathLike[str]) -> Capture:
    """Read a pcap or pcapng file. Raises CaptureError saying where the file is wrong and what would be right."""
    name = os.fspath(path)
    raw = _read(name)
    octets = _unzip(name, raw) if raw[:2] == _GZIP else raw
    records = _records(name, octets)
    data, offset, length, wire_length = linktype.as_ethernet(name, octets, records)
    padded = np.concatenate([data, np.zeros(PADDING, np.uint8)])
    digest = hashlib.sha256(raw).hexdigest()
    number = np.arange(len(offset), dtype=np.int64)
    return Capture(name, digest, padded, offset, length, wire_length, number, records.timestamp_ns)


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise CaptureError(f"{name}: cannot be read: {error.strerror}") from error


def _unzip(name: str, raw: bytes) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise CaptureError(f"{name}: the gzip data is damaged: {error}; copy the file again") from error


def _records(name: str, octets: bytes) -> Records:
    if pcap.is_pcap(octets):
        return pcap.read(name, octets)
    if pcapng.is_pcapng(octets):
        return pcapng.read(name, octets)
    found = f"it begins with {octets[:4].hex(' ')}" if octets else "it is empty"
    raise CaptureError(f"{name}: not a capture, {found}; a pcap or pcapng file (also gzipped) would be right")

"""The records of one shard, in windows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dossim.cluster.chain import Place, Walked
from dossim.cluster.split import Shard
from dossim.cluster.storage import Opened, bytes_of
from dossim.engine.records import Room
from dossim.model.errors import CaptureError
from dossim.packet.capture import reader_of
from dossim.packet.guess import HEADERS, REACH
from dossim.packet.records import Piece, Reader, Taken
from dossim.packet.source import PADDING
from dossim.packet.unpack import compression_of
from enforcer.model.errors import InternalError

WINDOW = 4 << 20  # bytes: what is done with a window finds it in the cache
_MOST_AT_ONCE = 1 << 17  # packets of a window
_BEGINNING = 28  # bytes that say what kind of file it is, and how many bytes a record has
_LARGEST_RECORD = (16 << 20) + 64
_GUESSED_IN = REACH + HEADERS * (64 << 10)


class Walk:
    """The records of a shard. ``start``: where they begin; None: that is guessed. ``packets``: how many are before them
    in the file; None: it is not known, and what ``warning`` says of it is wrong.

    After the last window ``walked`` is what was found, ``warning`` why nothing more can be read of the file, and
    ``late`` how many times 64 bits do not hold. Raises CaptureError for what is no capture, or is compressed.
    """

    def __init__(self, capture: Opened, name: str, shard: Shard, start: Place | None, packets: int | None) -> None:
        self._capture, self._name, self._shard = capture, name, shard
        self._first = bytes_of(capture, 0, min(capture.size, _BEGINNING))
        if packed := compression_of(self._first):
            raise CaptureError(
                f"{name}: {packed} data cannot be split; unpack the capture first, or predict it without --scheduler"
            )
        self._reader = self._opened()
        self._packets = (1 if shard.first else 0) if packets is None else packets
        self._start = self._where() if start is None else start
        self.walked = Walked(self._start)
        self.warning = ""

    @property
    def late(self) -> int:
        return self._reader.late

    def _opened(self) -> Reader:
        return reader_of(self._name, self._first)

    def windows(self) -> Iterator[tuple[Piece, Taken]]:
        """Bytes, whose memory is used again for the next ones, and what was found in them. Packets are counted from the
        first of the shard.
        """
        if self._start is None:
            return
        reader, at, records = self._reader, self._start.at, 0
        reader.resume(self._start.head, self._packets)
        end = min(at + WINDOW, self._shard.last)
        buf = memoryview(bytearray(max(end - at, 0) + PADDING))
        while at < self._shard.last and not self.warning:
            if end - at + PADDING > len(buf):
                buf = memoryview(bytearray(end - at + PADDING))
            self._capture.fill(buf[: end - at], at)
            piece = Piece(buf, 0, end - at, at, is_last=end == self._capture.size, number=records)
            taken = reader.take(piece, Room(_MOST_AT_ONCE))
            records += len(taken.records)
            self.warning = taken.warning
            yield piece, taken
            is_stuck = not taken.at and not self.warning
            at += taken.at
            end = min(at + WINDOW, self._shard.last) if not is_stuck else self._end_of_record(at, end)
        end_place = Place(at, reader.state)
        self.walked = Walked(self._start, end_place, stopped=bool(self.warning), records=records)

    def _end_of_record(self, at: int, seen: int) -> int:
        """Of the record there, of which not all was seen."""
        beginning = bytes_of(self._capture, at, min(at + _BEGINNING, self._capture.size))
        needs = min(max(self._reader.needs(beginning), _BEGINNING), _LARGEST_RECORD)
        end = min(at + needs, self._capture.size)
        if end <= seen and seen - at >= _BEGINNING:
            raise InternalError(f"{self._name}: the record at byte {at} was not taken")
        return max(end, min(at + _BEGINNING, self._capture.size))

    def _where(self) -> Place | None:
        """The guess."""
        if not self._shard.first:
            return Place(0, self._reader.state)
        head = self._head()
        last = min(self._shard.first + _GUESSED_IN, self._capture.size)
        buf = np.frombuffer(bytes_of(self._capture, self._shard.first, last), np.uint8)
        self._reader.resume(head, 0)
        found = self._reader.guess(buf, self._shard.first)
        return None if found is None else Place(self._shard.first + found, head)

    def _head(self) -> bytes:
        """What the file says before its first packet of how the rest is read."""
        size = 1 << 14
        while True:
            end = min(size, self._capture.size)
            buf = memoryview(bytes_of(self._capture, 0, end) + bytes(PADDING))
            reader = self._opened()
            taken = reader.take(Piece(buf, 0, end, 0, is_last=end == self._capture.size), Room(1))
            if len(taken.records) or taken.warning or end == self._capture.size:
                return reader.state
            size *= 8

"""A capture of any size, read in windows: each a Capture of its own, of which only a few are in memory.

Several files are one capture, in the order in which they are named; each has its own format. Windows end between
packets. The next ones are read in a thread while one is used.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from dossim.packet import linktype
from dossim.packet.ahead import ahead
from dossim.packet.capture import Capture, capture_of, reader_of
from dossim.packet.records import Piece, Reader, Records
from dossim.packet.source import PADDING, STDIN, Reading, Source, display_name, streamed

WINDOW = 4 << 20  # bytes of a file: what is done with a window finds it in the cache
_AHEAD = 2  # windows that are read while one is used
_MOST = 1 << 17  # packets of a window


@dataclass
class Stream:
    """The files of a capture, in windows of so many bytes and at most so many packets.

    ``name`` is what reports call it. After the last window ``sha256`` is that of all bytes of the files, one after the
    other, if it ``is_hashed``; ``taken`` and ``size``: bytes read so far, and of all files; None if one is no regular
    file.
    """

    paths: Sequence[str | os.PathLike[str]]
    reading: Reading
    window: int = WINDOW
    most: int = _MOST
    is_hashed: bool = True

    def __post_init__(self) -> None:
        names = [display_name(os.fspath(path)) for path in self.paths]
        self.name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"
        self.names = tuple(names)
        self.sha256 = ""
        self._begun: Generator[Capture, None, None] | None = None
        self._first: Capture | None = None
        self.taken, self.size = 0, _size(self.paths)

    @property
    def can_be_read_again(self) -> bool:
        return self.size is not None

    def first(self) -> Capture:
        """The first window, which :meth:`windows` will return once more. Raises CaptureError."""
        if self._first is None:
            self._begun = ahead(self._windows(), _AHEAD)
            self._first = next(self._begun)
        return self._first

    def windows(self) -> Iterator[Capture]:
        """The capture from its first packet on. The arrays of a window are used again when the next but one is taken.

        ``skipped`` and ``link_types`` of a window are not ordered, and its warnings are those about its end. Raises
        CaptureError, as read_capture() does.
        """
        begun, first = self._begun, self._first
        self._begun = self._first = None
        with closing(begun or ahead(self._windows(), _AHEAD)) as found:
            if first is not None:
                yield first
            yield from found

    def _windows(self) -> Iterator[Capture]:
        digest = hashlib.sha256()
        self.taken = packets = 0
        buffers = _Buffers(self.window)
        before = 0
        for path in self.paths:
            update = digest.update if self.is_hashed else None
            with Source(os.fspath(path), self.reading, streamed(self.reading), update) as source:
                for window in _File(source, self.reading, buffers, packets).windows(self.most):
                    packets = window.packets
                    self.taken = before + source.taken
                    yield window.capture
                before += source.taken
        self.sha256 = digest.hexdigest() if self.is_hashed else ""


def _size(paths: Sequence[str | os.PathLike[str]]) -> int | None:
    """The bytes of these files; None if they cannot be read twice."""
    total = 0
    for path in paths:
        if os.fspath(path) == STDIN or not os.path.isfile(path):
            return None
        total += os.path.getsize(path)
    return total


class _Buffers:
    """Memory for windows, used in turn: for those that are read ahead, the one that is used, and the next."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._free: deque[memoryview] = deque()

    def take(self, least: int) -> memoryview:
        """A buffer of at least so many bytes, and PADDING."""
        found = memoryview(b"") if len(self._free) < _AHEAD + 3 else self._free.popleft()
        if len(found) < least + PADDING:
            found = np.zeros(max(least, self._window) + PADDING, np.uint8).data
        self._free.append(found)
        return found


@dataclass(frozen=True)
class _Window:
    capture: Capture
    packets: int  # of all files up to there


class _File:
    """One file, in windows; ``packets`` were in those before it."""

    def __init__(self, source: Source, reading: Reading, buffers: _Buffers, packets: int) -> None:
        self._source, self._reading, self._buffers = source, reading, buffers
        self._packets = packets
        self._base = 0  # the position of the buffer's first byte in the file
        self._left = memoryview(b"")  # bytes that no window has yet

    def windows(self, most: int) -> Iterator[_Window]:
        reader = reader_of(self._source.shown, self._source.first)
        least = 0
        while True:
            piece = self._next(least)
            used, warning = piece.start, ""
            while not warning:
                taken = reader.take(replace(piece, start=used), most)
                used, warning = taken.at, taken.warning
                is_end = bool(warning) or (piece.is_last and not taken.is_full)
                yield self._window(piece, taken.records, self._about(reader, warning) if is_end else ())
                if not taken.is_full:
                    break
            if warning or piece.is_last:
                return
            self._left = piece.buf[used : piece.end]
            self._base += used
            least = 2 * len(self._left)  # more than one record did not fit, if nothing was taken

    def _next(self, least: int) -> Piece:
        """What is left, and as many bytes behind it as there is room for."""
        buf = self._buffers.take(least)
        end, room = len(self._left), len(buf) - PADDING
        buf[:end] = self._left
        is_last = False
        while end < room and not is_last:
            count = self._source.fill(buf[end:room])
            is_last = not count
            end += count
        return Piece(buf, 0, end, self._base, is_last)

    def _about(self, reader: Reader, warning: str) -> tuple[str, ...]:
        """Sentences about the file, in the order in which read_capture() has them."""
        return (*self._source.warnings, *reader.finish(), *filter(None, [warning]))

    def _window(self, piece: Piece, records: Records, about: tuple[str, ...]) -> _Window:
        name = self._source.shown
        frames = linktype.as_ethernet(name, piece.buf, records, skip_unknown=self._reading.skip_unknown)
        capture = capture_of(name, records, frames, self._packets, about)
        self._packets += len(records)
        return _Window(capture, self._packets)

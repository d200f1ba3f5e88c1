"""A capture of any size, read in windows: each a Capture of its own, of which only a few are in memory.

Several files are one capture, in the order in which they are named; each has its own format. Windows end between
packets. The next ones are read, and swept (:mod:`dossim.engine.sweep`), in a thread while one is used.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from dossim.engine.sweep import Sweep
from dossim.model.errors import CaptureError
from dossim.packet.ahead import ahead
from dossim.packet.capture import Capture, capture_of, reader_of
from dossim.packet.records import Piece, Reader, Records, Taken
from dossim.packet.source import PADDING, STDIN, Reading, Source, display_name, streamed

WINDOW = 4 << 20  # bytes of a file
_PIECE = 1 << 20  # of a window, so that a sweep finds in the cache what was read
_TOLD_EVERY = 16 << 20  # bytes, if nothing is left of them
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
        self._sweep: Sweep | None = None
        self._begun: Iterator[Capture] | None = None
        self._first: Capture | None = None
        self.taken, self.size = 0, _size(self.paths)
        self._opened: dict[int, tuple[tuple[int, int], int]] = {}  # what each file was the first time, and its size

    @property
    def can_be_read_again(self) -> bool:
        return self.size is not None

    def first(self) -> Capture:
        """The first window, which :meth:`windows` will return once more. Raises CaptureError."""
        if self._first is None:
            self._begun = begun = self._windows()
            self._first = next(begun)
        return self._first

    def windows(self, sweep: Sweep | None = None) -> Iterator[Capture]:
        """The capture from its first packet on. The arrays of a window are used again when the next but one is taken.
        With a sweep they have only the packets that it leaves, and some windows none.

        ``skipped`` and ``link_types`` of a window are not ordered, and its warnings are those about its end. Raises
        CaptureError, as read_capture() does.
        """
        begun, first = self._begun, self._first
        self._begun = self._first = None
        self._sweep = sweep
        if first is not None:
            yield first if sweep is None else first.among(sweep.take(first))
        with closing(ahead(begun or self._windows(), _AHEAD)) as found:
            yield from found

    def _windows(self) -> Iterator[Capture]:
        digest = hashlib.sha256()
        self.taken = packets = 0
        buffers = _Buffers(self.window)
        before = 0
        for number, path in enumerate(self.paths):
            update = digest.update if self.is_hashed else None
            with Source(os.fspath(path), self.reading, streamed(self.reading), update) as source:
                self._require_same(number, source)
                file = _File(source, self.reading, buffers, packets)
                for window in file.windows(self.most, lambda: self._sweep):
                    self.taken = before + source.taken
                    yield window
                before += source.taken
                packets = file.packets
        self.sha256 = digest.hexdigest() if self.is_hashed else ""

    def _require_same(self, number: int, source: Source) -> None:
        """A file may grow until it is read again. Raises CaptureError for another one."""
        size = source.size or 0
        identity, least = self._opened.setdefault(number, (source.identity, size))
        if source.identity != identity or size < least:
            raise CaptureError(
                f"{source.shown}: it was replaced while it was read; it has to stay until the command ends: use a copy"
            )


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


class _Window:
    """A window that is being filled: bytes of the file, from ``start`` to ``end`` those that were not taken yet, and
    the records that are kept of those before. ``base``: the position of the buffer's first byte in the file.
    """

    def __init__(self, buf: memoryview, left: memoryview, base: int) -> None:
        self.buf, self.base = buf, base
        self.start, self.end = 0, len(left)
        self.parts: list[Records] = []
        self.kept = self.swept = 0
        buf[: self.end] = left

    @property
    def room(self) -> int:
        return len(self.buf) - PADDING

    @property
    def left(self) -> memoryview:
        return self.buf[self.start : self.end]

    def add(self, taken: Taken) -> None:
        """What was taken of it. Bytes of which nothing is kept are given up, so that the next ones go where those were:
        into memory that the cache has.
        """
        kept = len(taken.records)
        self.swept += taken.count - kept
        if kept:
            self.parts.append(taken.records)
            self.kept += kept
            self.start = taken.at
        elif gone := taken.at - self.start:
            self.buf[self.start : self.end - gone] = self.buf[taken.at : self.end]
            self.base += gone
            self.end -= gone

    def empty(self) -> None:
        """From here on it is another one."""
        self.parts, self.kept, self.swept = [], 0, 0


class _File:
    """One file, in windows. ``packets``: how many were read, with those of the files before."""

    def __init__(self, source: Source, reading: Reading, buffers: _Buffers, packets: int) -> None:
        self._source, self._reading, self._buffers = source, reading, buffers
        self.packets = packets
        self._is_last = False  # the last byte of the file was read

    def windows(self, most: int, sweep: Callable[[], Sweep | None]) -> Iterator[Capture]:
        """``sweep``: with what to sweep from here on."""
        reader = reader_of(self._source.shown, self._source.first)
        window = _Window(self._buffers.take(0), memoryview(b""), 0)
        piece = min(_PIECE, window.room)
        is_full, told = False, 0
        while True:
            if not is_full:
                self._fill(window, min(window.end + piece, window.room))
            counting = sweep()
            taken = self._take(reader, window, most, counting)
            is_full = taken.is_full
            is_end = bool(taken.warning) or (self._is_last and not is_full)
            is_used = not is_full and (window.end == window.room or window.start > window.room - piece)
            if is_end or is_full or is_used or self._source.taken - told > _TOLD_EVERY:
                about = self._about(reader, taken.warning) if is_end else ()
                yield self._capture(window, window.parts or [taken.records], about, counting)
                window.empty()
                told = self._source.taken
            if is_end:
                return
            if is_used:
                # More than one record did not fit, if nothing was taken.
                buf = self._buffers.take(2 * len(window.left))
                window = _Window(buf, window.left, window.base + window.start)

    def _fill(self, window: _Window, end: int) -> None:
        while window.end < end and not self._is_last:
            count = self._source.fill(window.buf[window.end : end])
            self._is_last = not count
            window.end += count

    def _take(self, reader: Reader, window: _Window, most: int, sweep: Sweep | None) -> Taken:
        piece = Piece(window.buf, window.start, window.end, window.base, self._is_last, self.packets)
        taken = reader.take(piece, most - window.kept, sweep)
        self.packets += taken.count
        window.add(taken)
        return taken

    def _about(self, reader: Reader, warning: str) -> tuple[str, ...]:
        """Sentences about the file, in the order in which read_capture() has them."""
        return (*self._source.warnings, *reader.finish(), *filter(None, [warning]))

    def _capture(
        self, window: _Window, parts: Sequence[Records], about: tuple[str, ...], sweep: Sweep | None
    ) -> Capture:
        return capture_of(
            self._source.shown,
            window.buf,
            Records.joined(parts),
            about,
            skip_unknown=self._reading.skip_unknown,
            sweep=sweep,
            swept=window.swept,
        )

"""A capture of any size, read in windows: each a Capture of its own, of which only a few are in memory.

Several files are one capture, in the order in which they are named; each has its own format. Windows end between
packets. Threads read the next ones, and sweep them (:mod:`dossim.engine.sweep`), while one is used. They take turns
with the file: who has it passes over the packets of its part, to know where the next one begins.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from dossim.engine.sweep import Sweep
from dossim.model.errors import CaptureError
from dossim.packet.ahead import ahead
from dossim.packet.capture import Capture, capture_of, reader_of
from dossim.packet.linkdecoders import ETHERNET
from dossim.packet.linknames import link_name
from dossim.packet.records import Piece, Reader
from dossim.packet.source import PADDING, STDIN, Reading, Source, display_name, streamed

WINDOW = 4 << 20  # bytes of a file
SWEPT = 2 << 20  # the same if it is swept: the cache still has much of what was read
_AHEAD = 2  # windows that are read while one is used
_USED = 2  # windows whose arrays are not used again yet
_MOST = 1 << 17  # packets of a window
_TOLD_EVERY = 16 << 20  # bytes, if nothing is left of them
_MOST_THREADS = 4


def threads() -> int:
    """How many threads can sweep at once."""
    return min(len(os.sched_getaffinity(0)), _MOST_THREADS)


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
        self._buffers = _Buffers()
        self._part = self.window  # bytes of the next part
        self._begun: Generator[_Part, None, None] | None = None
        self._first: _Window | None = None
        self.taken, self.size = 0, _size(self.paths)
        self._opened: dict[int, tuple[tuple[int, int], int]] = {}  # what each file was the first time, and its size

    @property
    def can_be_read_again(self) -> bool:
        return self.size is not None

    def first(self) -> Capture:
        """The first window, which :meth:`windows` will return once more. Raises CaptureError."""
        if self._first is None:
            self._begun = self._parts()
            self._first = self._read(next(self._begun), None)
        assert self._first.capture is not None, "nothing is swept"
        return self._first.capture

    def windows(self, sweeps: Sequence[Sweep] = ()) -> Iterator[Capture]:
        """The capture from its first packet on. The arrays of a window are used again when the next but one is taken.
        With sweeps, one for each thread, windows have the packets that these leave, which may be none.

        ``skipped`` and ``link_types`` of a window are not ordered, and its warnings are those about its end. Raises
        CaptureError, as read_capture() does.
        """
        used: deque[memoryview] = deque()
        swept = told = 0
        with closing(self._windows(sweeps)) as windows:
            for window in windows:
                self.taken = window.taken
                if window.capture is not None:
                    yield window.capture
                    used.append(window.buf)
                    if len(used) > _USED:
                        self._buffers.give(used.popleft())
                    continue
                swept += window.swept
                if self.taken - told > _TOLD_EVERY:
                    yield self._nothing(swept)
                    swept, told = 0, self.taken
        if swept:
            yield self._nothing(swept)

    def _windows(self, sweeps: Sequence[Sweep]) -> Generator[_Window, None, None]:
        begun, first = self._begun, self._first
        self._begun = self._first = None
        if first is not None:
            if sweeps and first.capture is not None:
                first = replace(first, capture=first.capture.among(sweeps[0].take(first.capture)))
            yield first

        def read(part: _Part, thread: int) -> _Window:
            return self._read(part, sweeps[thread] if sweeps else None)

        self._part = min(SWEPT, self.window) if sweeps else self.window
        number = max(len(sweeps), 1)
        with closing(ahead(begun or self._parts(), read, _AHEAD + number, number)) as found:
            yield from found

    def _parts(self) -> Generator[_Part, None, None]:
        digest = hashlib.sha256()
        taken = packets = 0
        update, is_whole = digest.update if self.is_hashed else None, True
        for number, path in enumerate(self.paths):
            with Source(os.fspath(path), self.reading, streamed(self.reading), update) as source:
                self._require_same(number, source)
                file = _File(source, self._buffers, packets)
                for part in file.parts(lambda: self._part, self.most):
                    yield replace(part, taken=taken + source.taken)
                is_whole = is_whole and self.is_hashed and source.read_rest()
                taken += source.taken
                packets = file.packets
        self.sha256 = digest.hexdigest() if is_whole else ""

    def _require_same(self, number: int, source: Source) -> None:
        """A file may grow until it is read again. Raises CaptureError for another one."""
        size = source.size or 0
        identity, least = self._opened.setdefault(number, (source.identity, size))
        if source.identity != identity or size < least:
            raise CaptureError(
                f"{source.shown}: it was replaced while it was read; it has to stay until the command ends: use a copy"
            )

    def _read(self, part: _Part, sweep: Sweep | None) -> _Window:
        """What is left of a part."""
        buf = part.piece.buf
        found = part.reader.take(part.piece, max(part.packets, 1), sweep)
        swept = found.count - len(found.records)
        if swept and swept == found.count and not part.about:
            self._buffers.give(buf)  # now, while the cache has it
            return _Window(None, buf, swept, part.taken)
        capture = capture_of(
            part.name,
            buf,
            found.records,
            part.about,
            skip_unknown=self.reading.skip_unknown,
            sweep=sweep,
            swept=swept,
        )
        return _Window(capture, buf, 0, part.taken)

    def _nothing(self, swept: int) -> Capture:
        return replace(Capture.from_frames([], self.name), link_types={link_name(ETHERNET): swept})


def _size(paths: Sequence[str | os.PathLike[str]]) -> int | None:
    """The bytes of these files; None if they cannot be read twice."""
    total = 0
    for path in paths:
        if os.fspath(path) == STDIN or not os.path.isfile(path):
            return None
        total += os.path.getsize(path)
    return total


@dataclass(frozen=True)
class _Part:
    """So many packets, which are all of a piece, and who reads them. ``about``: sentences about the file, at its end.
    ``taken``: bytes that were read of all files.
    """

    name: str
    piece: Piece
    packets: int
    reader: Reader
    about: tuple[str, ...]
    taken: int = 0


@dataclass(frozen=True)
class _Window:
    """``capture`` None: ``swept`` packets were counted, and there is nothing else. ``taken``: as _Part has it."""

    capture: Capture | None
    buf: memoryview
    swept: int
    taken: int


class _Buffers:
    """Memory for windows. What was given back last is used first: the cache still has it."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []

    def take(self, least: int) -> memoryview:
        """A buffer of at least so many bytes, and PADDING."""
        found = self._free.pop() if self._free else memoryview(b"")
        return found if len(found) >= least + PADDING else np.zeros(least + PADDING, np.uint8).data

    def give(self, buf: memoryview) -> None:
        """Nobody needs what is in it."""
        self._free.append(buf)


class _File:
    """One file, in parts. ``packets``: how many were passed over, with those of the files before."""

    def __init__(self, source: Source, buffers: _Buffers, packets: int) -> None:
        self._source, self._buffers = source, buffers
        self.packets = packets
        self._is_last = False  # the last byte of the file was read

    def parts(self, size: Callable[[], int], most: int) -> Iterator[_Part]:
        """Of so many bytes each, and at most so many packets."""
        reader = reader_of(self._source.shown, self._source.first)
        left, base, least = memoryview(b""), 0, 0
        while True:
            buf = self._buffers.take(max(size(), least, len(left)))
            end = self._fill(buf, left, max(size(), least))
            piece = Piece(buf, 0, end, base, self._is_last, self.packets)
            before = reader.state
            passed = reader.pass_over(piece, most)
            is_end = bool(passed.warning) or (self._is_last and not passed.is_full)
            if passed.count or is_end:
                again = reader_of(self._source.shown, self._source.first)
                again.resume(before, 0)
                about = self._about(reader, passed.warning) if is_end else ()
                whole = replace(piece, end=passed.at, is_last=False)
                yield _Part(self._source.shown, whole, passed.count, again, about)
            self.packets += passed.count
            if is_end:
                return
            left, base = buf[passed.at : end], base + passed.at
            least = 2 * len(left) if not passed.at else 0  # a record did not fit

    def _fill(self, buf: memoryview, left: memoryview, size: int) -> int:
        """What is left, and what follows, up to so many bytes; where that ends."""
        end = len(left)
        buf[:end] = left
        while end < size and not self._is_last:
            count = self._source.fill(buf[end:size])
            self._is_last = not count
            end += count
        return end

    def _about(self, reader: Reader, warning: str) -> tuple[str, ...]:
        """Sentences about the file, in the order in which read_capture() has them."""
        return (*self._source.warnings, *reader.finish(), *filter(None, [warning]))

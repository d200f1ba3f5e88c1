"""A capture of any size, read in windows: each a Capture of its own, of which only a few are in memory.

Several files are one capture, in the order in which they are named; each has its own format. Windows end between
packets. What comes next is read in a thread while a window is used; files that are swept in several
(:mod:`dossim.packet.sweeping`).
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dossim.engine.course import Course, Pieces
from dossim.engine.records import Room
from dossim.engine.sweep import Sweep
from dossim.model.errors import CaptureError
from dossim.packet.ahead import ahead
from dossim.packet.capture import Capture, capture_of, reader_of
from dossim.packet.gather import Gathered, Held
from dossim.packet.records import Piece, Records
from dossim.packet.source import PADDING, STDIN, Reading, Source, display_name, streamed
from dossim.packet.sweeping import Part as SweptPart
from dossim.packet.sweeping import Sweeping

WINDOW = 4 << 20  # bytes of a file
# The same if it is swept. In the engine a piece stays in the cache of a core, beside the classes of addresses; other
# parts are larger, as Python takes some time for each.
PIECE, PART = 1 << 18, 1 << 20
_LEAST_RECORD = 32  # bytes, of which a piece may be full
_AHEAD = 2  # windows that are there while one is used
_USED = 2  # windows whose arrays are not used again yet
_MOST = 1 << 17  # packets of a window
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
        self._memories = _Memories()
        self._part = self.window  # bytes of the next part
        self._begun: Generator[_Part, None, None] | None = None
        self._first: _Part | None = None
        self.taken, self.size = 0, _size(self.paths)
        self._course: Course | None = None  # that reads as well
        self._taken_before = 0  # when the last part was read
        self._opened: dict[int, tuple[tuple[int, int], int]] = {}  # what each file was the first time, and its size

    @property
    def can_be_read_again(self) -> bool:
        return self.size is not None

    def first(self) -> Capture:
        """The first window, which :meth:`windows` will return once more. Raises CaptureError."""
        if self._first is None:
            self._begun = self._parts()
            self._first = next(self._begun)
        return self._capture(self._first)

    def windows(self, sweeps: Sequence[Sweep] = ()) -> Iterator[Capture]:
        """The capture from its first packet on. The arrays of a window are used again when the next but one is taken.
        With sweeps, one for each thread, windows have the packets that these leave and their follower does not take,
        which may be none: it has taken all that come before a window when that is there, and takes those behind it
        once the next one is asked for.

        ``skipped`` and ``link_types`` of a window are not ordered, and its warnings are those about its end. Raises
        CaptureError, as read_capture() does.
        """
        used: deque[Held] = deque()
        self.taken = 0
        with closing(self._swept(sweeps) if sweeps else self._whole()) as windows:
            for window in windows:
                self.taken = max(window.taken, self.taken)
                yield window.capture
                window.followed()
                used.append(window)
                if len(used) > _USED:
                    used.popleft().give_back()

    def _whole(self) -> Generator[Held, None, None]:
        self._part, self._course = self.window, None
        windows = (Held(self._capture(part), part.taken, part.give_back) for part in self._all_parts())
        return ahead(windows, _AHEAD)

    def _swept(self, sweeps: Sequence[Sweep]) -> Generator[Held, None, None]:
        self._part, size = min(PART, self.window), min(PIECE, self.window)
        gathered = Gathered(size)
        self._course = gathered.course
        parts = (
            SweptPart(partial(self._capture, part), part.taken, part.is_last, part.give_back)
            for part in self._all_parts()
        )
        pieces = [Pieces(size, PADDING, min(self.most, _most_in(size)), sweep) for sweep in sweeps]
        return Sweeping(parts, gathered, list(zip(pieces, sweeps, strict=True)), self._taken_now, _AHEAD).windows()

    def _taken_now(self) -> int:
        return self._taken_before + (self._course.taken if self._course else 0)

    def _all_parts(self) -> Generator[_Part, None, None]:
        """With those that have begun."""
        begun, first = self._begun, self._first
        self._begun = self._first = None
        if first is not None:
            yield first
        yield from begun or self._parts()

    def _parts(self) -> Generator[_Part, None, None]:
        digest = hashlib.sha256()
        taken = packets = 0
        update, is_whole = digest.update if self.is_hashed else None, True
        for number, path in enumerate(self.paths):
            with Source(os.fspath(path), self.reading, streamed(self.reading), update) as source:
                self._require_same(number, source)
                file = _File(source, self._memories, packets)
                for part in file.parts(lambda: self._part, self.most, lambda: self._course):
                    self._taken_before = taken + source.taken
                    yield replace(part, taken=self._taken_before)
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

    def _capture(self, part: _Part) -> Capture:
        return capture_of(part.name, part.memory.buf, part.records, part.about, skip_unknown=self.reading.skip_unknown)


def _size(paths: Sequence[str | os.PathLike[str]]) -> int | None:
    """The bytes of these files; None if they cannot be read twice."""
    total = 0
    for path in paths:
        if os.fspath(path) == STDIN or not os.path.isfile(path):
            return None
        total += os.path.getsize(path)
    return total


class _Memory:
    """For a part of at least so many bytes, and so many packets."""

    def __init__(self, size: int, packets: int) -> None:
        self.buf = np.zeros(size + PADDING, np.uint8).data
        self.room = Room(packets)


class _Memories:
    """Memory for parts. What was given back last is used first: the cache still has it."""

    def __init__(self) -> None:
        self._free: list[_Memory] = []

    def take(self, size: int, packets: int) -> _Memory:
        found = self._free.pop() if self._free else None
        is_enough = found is not None and len(found.buf) >= size + PADDING and found.room.most == packets
        return found if found is not None and is_enough else _Memory(size, packets)

    def give(self, memory: _Memory) -> None:
        """Nobody needs what is in it."""
        self._free.append(memory)


@dataclass(frozen=True)
class _Part:
    """Packets that are all of what is read of it. ``about``: sentences about the file, at its end. ``taken``: bytes
    that were read of all files. ``is_last``: of its file.
    """

    name: str
    memory: _Memory
    records: Records
    about: tuple[str, ...]
    taken: int
    is_last: bool
    give_back: Callable[[], None]


class _File:
    """One file, in parts. ``packets``: how many were found, with those of the files before."""

    def __init__(self, source: Source, memories: _Memories, packets: int) -> None:
        self._source, self._memories = source, memories
        self._before = self.packets = packets
        self._reader = reader_of(source.shown, source.first)
        self._is_last = False  # the last byte of the file was read
        self._left, self._base = memoryview(b""), 0  # what was read and not taken

    def parts(self, size: Callable[[], int], most: int, course: Callable[[], Course | None]) -> Iterator[_Part]:
        """Of so many bytes each, and at most so many packets; without those that the course has taken in between."""
        reader, memories, least = self._reader, self._memories, 0
        while True:
            self._go_back(course())
            wanted = max(size(), least)
            memory = memories.take(max(wanted, len(self._left)), min(most, _most_in(wanted)))
            end = self._fill(memory.buf, wanted)
            piece = Piece(memory.buf, 0, end, self._base, self._is_last, self.packets)
            taken = reader.take(piece, memory.room)
            is_end = bool(taken.warning) or (self._is_last and not taken.is_full)
            self.packets += len(taken.records)
            self._left, self._base = memory.buf[taken.at : end], self._base + taken.at
            least = 2 * len(self._left) if not taken.at else 0  # a record did not fit
            if len(taken.records) or is_end:
                about = self._about(taken.warning) if is_end else ()
                if not is_end:
                    self._go_on(course())
                give_back = partial(memories.give, memory)
                yield _Part(self._source.shown, memory, taken.records, about, 0, is_end, give_back)
            if is_end:
                return

    def _go_on(self, course: Course | None) -> None:
        """Lets the course take what follows, if it can."""
        told, descriptor = self._reader.tell(), self._source.descriptor
        if course is not None and told is not None and descriptor is not None:
            course.go_on(descriptor, self._left, self._base, self.packets, *told)

    def _go_back(self, course: Course | None) -> None:
        """After what the course has taken."""
        found = course and course.rest()
        if found:
            self._left, self._base, self.packets, taken = found
            self._source.has_read(taken)
            self._reader.resume(self._reader.state, self.packets - self._before)
        if course is not None:
            course.stop()

    def _fill(self, buf: memoryview, size: int) -> int:
        """What is left, and what follows, up to so many bytes; where that ends."""
        end = len(self._left)
        buf[:end] = self._left
        while end < size and not self._is_last:
            count = self._source.fill(buf[end:size])
            self._is_last = not count
            end += count
        return end

    def _about(self, warning: str) -> tuple[str, ...]:
        """Sentences about the file, in the order in which read_capture() has them."""
        return (*self._source.warnings, *self._reader.finish(), *filter(None, [warning]))


def _most_in(size: int) -> int:
    """How many packets so many bytes may have to be taken at once."""
    return size // _LEAST_RECORD + 1

"""What sweeps leave of the pieces of a capture and no follower takes there, one after the other in windows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dossim.engine.course import Course
from dossim.engine.gather import Window
from dossim.engine.layout import Rows
from dossim.engine.sweep import Sweep
from dossim.packet.capture import Capture
from dossim.packet.linkdecoders import ETHERNET
from dossim.packet.linknames import link_name
from dossim.packet.records import LARGEST_PACKET
from dossim.packet.source import PADDING

_SIZE = 2 << 20  # bytes of a window: any packet fits, also with an Ethernet header that it did not have
_MOST = 1 << 15  # packets of one
assert 2 * LARGEST_PACKET < _SIZE


@dataclass(frozen=True)
class Held:
    """A window, and ``taken``: how many bytes were read of all files when it was complete. ``followed`` is to be called
    when nothing more is done with its packets before others are; its memory is used for another one after
    ``give_back``.
    """

    capture: Capture
    taken: int
    give_back: Callable[[], None] = lambda: None
    followed: Callable[[], None] = lambda: None


class Gathered:
    """Windows of what is left, which are filled up; none has packets of two files. Those that were given back are
    filled again. ``course``: fills them as well.
    """

    def __init__(self, piece: int) -> None:
        """``piece``: bytes of a piece of the course."""
        self._free: list[Window] = []
        self._window = self._empty()
        self.course = Course(piece, self._window)
        self._skipped, self._links = Counter[str](), Counter[str]()
        self._counted = 0  # packets of the course
        self._path = ""

    def add(self, sweep: Sweep, piece: Capture, left: Rows, taken: int, *, is_last: bool) -> Iterator[Held]:
        """What the sweep has left of the next piece. Returns the windows that are complete now: ``taken`` as Held has
        it; ``is_last``: of its file.
        """
        self._path = piece.path
        self._skipped.update(piece.skipped)
        self._links.update(piece.link_types)
        while len(left):
            left = left[self.course.hand_on(sweep, piece, left) :]
            if len(left):
                yield self.complete(taken)
        if is_last:
            yield self.complete(taken, piece.warnings)

    def complete(self, taken: int, warnings: tuple[str, ...] = ()) -> Held:
        """The window as it is, and another one from here on."""
        window, counted = self._window, self.course.packets
        offset, length, wire_length, record, timestamp_ns = window.columns()
        if counted > self._counted:
            self._links[link_name(ETHERNET)] += counted - self._counted
            self._counted = counted
        capture = Capture(
            path=self._path,
            sha256="",
            data=window.data,
            offset=offset,
            length=length,
            wire_length=wire_length,
            record=record,
            timestamp_ns=timestamp_ns,
            skipped=dict(self._skipped),
            warnings=warnings,
            link_types=dict(self._links),
        )

        def give_back() -> None:
            window.clear()
            self._free.append(window)

        self._skipped.clear()
        self._links.clear()
        self._window = self._empty()
        self.course.change(self._window)
        return Held(capture, taken, give_back, self.course.followed if len(offset) else lambda: None)

    def _empty(self) -> Window:
        return self._free.pop() if self._free else Window(_SIZE, PADDING, _MOST)

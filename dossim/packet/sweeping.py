"""A capture that is swept in several threads: its windows have the packets that the sweeps leave, and of which their
follower, if there is one, does not know enough.

The threads are in the engine (``engine/course.c``) for most pieces. They come back for those that it leaves to the
readers: of other link types, compressed, with blocks that describe others, where a file begins and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from dossim.engine.course import Pieces, Step
from dossim.engine.sweep import Sweep
from dossim.packet.ahead import Told, close, started
from dossim.packet.capture import Capture
from dossim.packet.gather import Gathered, Held

_PATIENCE_S = 0.5  # with pieces of which nothing is left, until how much was read is told


@dataclass(frozen=True)
class Part:
    """A piece that was not read by the engine: its packets, and how many bytes were read of all files by then.
    ``is_last``: of its file. After ``give_back`` its memory is used again.
    """

    capture: Callable[[], Capture]
    taken: int
    is_last: bool
    give_back: Callable[[], None]


class Sweeping:
    """``parts``: those that are not read by the engine, which goes on in between, as ``gathered`` has been told.
    ``taken``: how many bytes were read of all files by now.
    """

    def __init__(
        self,
        parts: Generator[Part, None, None],
        gathered: Gathered,
        sweeps: Sequence[tuple[Pieces, Sweep]],
        taken: Callable[[], int],
        most_told: int,
    ) -> None:
        """``sweeps``: one for each thread; ``most_told``: windows that are not taken yet."""
        self._parts, self._gathered, self._sweeps, self._taken = parts, gathered, sweeps, taken
        self._course = gathered.course
        self._told = Told[Held](most_told)

    def windows(self) -> Generator[Held, None, None]:
        """All of them, some of which may be empty. What is raised is raised here, after what came before."""
        threads = started(self._run, len(self._sweeps))
        try:
            for found in self._told.taken(_PATIENCE_S):
                yield found or Held(Capture.from_frames([]), self._taken())
        finally:
            self._course.close()
            self._told.close(threads)
            close(self._parts)

    def _run(self, thread: int) -> None:
        try:
            self._steps(thread)
        except BaseException as error:  # by whom takes
            self._told.end(error)

    def _steps(self, thread: int) -> None:
        course, (pieces, _) = self._course, self._sweeps[thread]
        while (step := course.run(pieces)) is not Step.OVER and not self._told.is_closed:
            match step:
                case Step.WINDOW_FULL:
                    self._told.tell(self._gathered.complete(self._taken()))
                case Step.HAS_TURN:
                    self._work(thread, *self._next())
                case Step.NO_ROOM:
                    self._work(thread, None, MemoryError("the engine has no memory"))
        if step is Step.HAS_TURN:
            course.leave_turn(is_over=True)

    def _next(self) -> tuple[Part | None, BaseException | None]:
        """With the turn, which is left."""
        part, error = None, None
        try:
            part = next(self._parts, None)
        except BaseException as raised:  # by whom takes, after what came before
            error = raised
        self._course.leave_turn(is_over=part is None)
        return part, error

    def _work(self, thread: int, part: Part | None, error: BaseException | None) -> None:
        """Sweeps a part, and hands on what is left of it in its place; without one, all ends there."""
        capture, left, (pieces, sweep) = None, None, self._sweeps[thread]
        try:
            if part is not None:
                capture = part.capture()
                left = sweep.take(capture)
        except BaseException as raised:  # as above
            error = raised
        if not self._course.take_place(pieces):
            return
        try:
            if part is not None and capture is not None and left is not None:
                for window in self._gathered.add(sweep, capture, left, part.taken, is_last=part.is_last):
                    self._told.tell(window)
                part.give_back()
        except BaseException as raised:  # as above
            error = error or raised
        if error is not None:
            self._told.tell(self._gathered.complete(self._taken()))
        if error is not None or part is None:
            self._told.end(error)
        self._course.leave_place(pieces)

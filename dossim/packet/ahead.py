"""Takes what an iterator yields in a thread, while what came before is used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")

_PATIENCE_S = 1  # with a read that has begun: a quiet pipe must not keep the program from ending


class Told(Generic[T]):
    """What threads tell the one that takes it: at most so many that are not taken, then an end."""

    def __init__(self, most: int) -> None:
        self._room: SimpleQueue[None] = SimpleQueue()
        self._told: SimpleQueue[tuple[T | None, BaseException | None]] = SimpleQueue()  # neither: that was all
        self.is_closed = False
        self._leave(most)

    def tell(self, item: T) -> bool:
        """Waits until there is room; False: nobody takes it any more."""
        if not self.is_closed:
            self._room.get()
        if not self.is_closed:
            self._told.put((item, None))
        return not self.is_closed

    def end(self, error: BaseException | None = None) -> None:
        """Nothing follows; the error is raised by who takes."""
        self._told.put((None, error))

    def taken(self, patience_s: float | None = None) -> Iterator[T | None]:
        """All up to the end; None each time that nothing was told for so long."""
        while True:
            try:
                item, error = self._told.get(timeout=patience_s)
            except Empty:
                yield None
                continue
            if error is not None:
                raise error
            if item is None:
                return
            yield item
            self._leave(1)

    def close(self, threads: Sequence[Thread]) -> None:
        """Nothing more is taken. Waits for the threads, which end once they are told so."""
        self.is_closed = True
        self._leave(len(threads))
        for thread in threads:
            thread.join(_PATIENCE_S)

    def _leave(self, count: int) -> None:
        for _ in range(count):
            self._room.put(None)


def started(run: Callable[[int], None], count: int) -> list[Thread]:
    """So many threads, each with its number, which do not keep the program from ending."""
    threads = [Thread(target=run, args=[number], name="ahead", daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def ahead(items: Generator[T, None, None], most: int) -> Generator[T, None, None]:
    """The items, at most so many and one before they are taken. What is raised is raised here, after what came
    before. The generator is closed.
    """
    told = Told[T](most)

    def run(_: int) -> None:
        error = None
        try:
            for item in items:
                if not told.tell(item):
                    break
        except BaseException as raised:  # by whom takes
            error = raised
        told.end(error)

    threads = started(run, 1)
    try:
        for item in told.taken():
            if item is not None:
                yield item
    finally:
        told.close(threads)
        close(items)


def close(items: Generator[T, None, None]) -> None:
    """Closes a generator, if no thread waits in it."""
    with suppress(ValueError):  # it does
        items.close()

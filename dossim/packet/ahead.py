"""Works in threads on what an iterator yields, while what came before is used."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from queue import Queue
from threading import Lock, Semaphore, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE_S = 1  # with a read that has begun: a quiet pipe must not keep the program from ending


def ahead(items: Iterator[T], work: Callable[[T, int], R], most: int, threads: int = 1) -> Generator[R, None, None]:
    """``work(item, thread)`` of each item, in their order; at most so many are not taken yet. Threads have numbers from
    0, and take turns with the iterator, which is closed in one of them. What it or the work raises is raised here,
    after what came before.
    """
    shared = _Shared(items, work, most)
    running = [Thread(target=shared.run, args=[number], name="ahead", daemon=True) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield from shared.results()
    finally:
        shared.close(threads)
        for thread in running:
            thread.join(_PATIENCE_S)


class _Shared(Generic[T, R]):
    """What the threads share."""

    def __init__(self, items: Iterator[T], work: Callable[[T, int], R], most: int) -> None:
        self._items, self._work = items, work
        self._turn, self._room = Lock(), Semaphore(most)
        self._taken = 0
        self._is_closed = False
        # By number: a result, what was raised, or neither at the end.
        self._done: Queue[tuple[int, R | None, BaseException | None]] = Queue()

    def run(self, thread: int) -> None:
        while True:
            self._room.acquire()
            with self._turn:
                if self._is_closed:
                    self._close_items()
                    return
                number = self._taken
                self._taken += 1
                try:
                    item = next(self._items)
                except BaseException as error:  # raised again by whom takes
                    self._is_closed = True
                    self._done.put((number, None, None if isinstance(error, StopIteration) else error))
                    self._room.release()  # for the next thread, that it ends
                    return
            try:
                self._done.put((number, self._work(item, thread), None))
            except BaseException as error:  # as above
                self._done.put((number, None, error))

    def results(self) -> Iterator[R]:
        early: dict[int, tuple[R | None, BaseException | None]] = {}
        number = 0
        while True:
            while number not in early:
                which, result, error = self._done.get()
                early[which] = (result, error)
            result, error = early.pop(number)
            number += 1
            if error is not None:
                raise error
            if result is None:
                return
            self._room.release()
            yield result

    def close(self, threads: int) -> None:
        """Nothing more is taken."""
        self._is_closed = True
        for _ in range(threads):
            self._room.release()

    def _close_items(self) -> None:
        close = getattr(self._items, "close", None)
        if close is not None:
            close()

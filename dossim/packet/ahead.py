"""Takes from an iterator in a thread, while what came before is used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Queue
from threading import Semaphore, Thread
from typing import TypeVar

T = TypeVar("T")

_PATIENCE_S = 1  # with a read that has begun: a quiet pipe must not keep the program from ending


def ahead(items: Iterator[T], most: int) -> Generator[T, None, None]:
    """The same items, of which at most so many wait for being taken. What the iterator raises is raised here. It is
    closed in its thread.
    """
    waiting: Queue[tuple[T | None, BaseException | None]] = Queue()
    room = Semaphore(most)
    closed = False

    def fetch() -> None:
        try:
            for item in items:
                room.acquire()
                if closed:
                    break
                waiting.put((item, None))
            waiting.put((None, None))
        except BaseException as error:  # raised again by whom takes
            waiting.put((None, error))
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    thread = Thread(target=fetch, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = waiting.get()
            if error is not None:
                raise error
            if item is None:
                return
            room.release()
            yield item
    finally:
        closed = True
        room.release()
        thread.join(_PATIENCE_S)

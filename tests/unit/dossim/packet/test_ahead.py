"""What a thread takes while something else is used, and what threads tell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator

import pytest

from dossim.packet.ahead import Told, ahead, started

MANY, MOST = 200, 3


class Items:
    """Numbers, then perhaps an error."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.taken, self.is_closed = 0, False

    def each(self) -> Generator[int, None, None]:
        try:
            while self.taken < self.count:
                self.taken += 1
                yield self.taken - 1
            if self.error is not None:
                raise self.error
        finally:
            self.is_closed = True


def no_thread_is_left() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name == "ahead"]


def test_all_items_come_in_order() -> None:
    items = Items(MANY)
    assert list(ahead(items.each(), MOST)) == list(range(MANY))
    assert items.is_closed
    assert no_thread_is_left()


def test_what_is_raised_comes_after_what_was_before() -> None:
    results = ahead(Items(5, ValueError("five")).each(), MOST)
    assert [next(results) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="five"):
        next(results)


def test_no_more_is_taken_than_wanted_and_the_generator_is_closed() -> None:
    items = Items(MANY)
    results = ahead(items.each(), MOST)
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert items.taken <= 2 + MOST + 1
    assert items.is_closed
    assert no_thread_is_left()


def telling(told: Told[int], numbers: range) -> Callable[[int], None]:
    def run(_: int) -> None:
        if all(told.tell(number) for number in numbers):
            told.end()

    return run


def test_who_tells_waits_until_there_is_room_or_nobody_takes_it() -> None:
    told = Told[int](MOST)
    threads = started(telling(told, range(MANY)), 1)
    taken = told.taken()
    assert [next(taken) for _ in range(10)] == list(range(10))
    told.close(threads)
    assert not threads[0].is_alive()
    assert not told.tell(0)


def test_without_news_nothing_is_taken_again_and_again() -> None:
    told = Told[int](MOST)
    taken = told.taken(patience_s=0.01)
    assert [next(taken), next(taken)] == [None, None]
    told.tell(7)
    assert next(item for item in taken if item is not None) == 7
    told.end(ValueError("seven"))
    with pytest.raises(ValueError, match="seven"):
        list(taken)

"""Work in threads: results in the order of what was taken, whatever the threads do."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from dossim.packet.ahead import ahead

MANY, THREADS = 200, 4


class Items:
    """Numbers, which only one thread may take at a time; then perhaps an error."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error = count, error
        self.taken, self.is_closed = 0, False
        self._taking = threading.Lock()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        assert self._taking.acquire(blocking=False), "two threads at once"
        try:
            if self.taken < self.count:
                self.taken += 1
                return self.taken - 1
            raise self.error or StopIteration
        finally:
            self._taking.release()

    def close(self) -> None:
        assert not self._taking.locked()
        self.is_closed = True


@pytest.mark.parametrize("threads", [1, THREADS])
def test_results_are_in_order_and_each_thread_has_a_number(threads: int) -> None:
    by = set[int]()

    def work(item: int, thread: int) -> int:
        by.add(thread)
        if item % 3 == 0:
            threading.Event().wait(0.001)  # others overtake
        return item * item

    assert list(ahead(Items(MANY), work, 2 + threads, threads)) == [item * item for item in range(MANY)]
    assert by <= set(range(threads))


def test_two_works_are_done_at_once() -> None:
    """Each waits for the other."""
    meeting = threading.Barrier(2)

    def work(item: int, thread: int) -> int:
        meeting.wait(60)
        return item

    assert list(ahead(Items(10), work, 4, 2)) == list(range(10))


@pytest.mark.parametrize("threads", [1, THREADS])
def test_what_is_raised_comes_after_what_was_before(threads: int) -> None:
    def work(item: int, thread: int) -> int:
        if item == 7:
            raise ValueError("seven")
        return item

    for items, count in ((Items(MANY), 7), (Items(5, ValueError("five")), 5)):
        results = ahead(items, work, 2 + threads, threads)
        assert [next(results) for _ in range(count)] == list(range(count))
        with pytest.raises(ValueError, match=r"five|seven"):
            next(results)


@pytest.mark.parametrize("threads", [1, THREADS])
def test_no_more_is_taken_than_wanted_and_the_iterator_is_closed(threads: int) -> None:
    items = Items(MANY)
    results = ahead(items, lambda item, thread: item, 2 + threads, threads)
    assert [next(results), next(results)] == [0, 1]
    results.close()
    assert items.taken <= 2 + 2 + threads
    assert items.is_closed
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]

"""Threads that report whether they run, even if memory is short.

``threading.Thread.start`` blocks forever when the new thread dies before its first line, as it does without memory for
a frame. Here the wait has a limit, and each thread reports its own end.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable

_BEGINS_WITHIN_S = 5.0


class Helper:
    """A daemon thread that runs ``target`` in the network namespace of its creator."""

    def __init__(self, target: Callable[[], None]) -> None:
        """Raises RuntimeError when no thread can be started."""
        self._target = target
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._abandoned = False
        _thread.start_new_thread(self._run, ())
        if not self._begun.wait(_BEGINS_WITHIN_S):
            self._abandoned = True
            raise RuntimeError("a new thread did not start")

    def has_ended(self) -> bool:
        return self._ended.is_set()

    def join(self) -> None:
        self._ended.wait()

    def _run(self) -> None:
        try:
            self._begun.set()
            if not self._abandoned:
                self._target()
        finally:
            self._ended.set()


class Worker:
    """A :class:`Helper` that runs one job after another and calls ``on_end`` after each."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        """Raises RuntimeError when no thread can be started."""
        self._on_end = on_end
        self._job: Callable[[], None] | None = None
        self._todo = threading.Semaphore(0)
        self._done = threading.Event()
        self._raised: BaseException | None = None
        self._helper = Helper(self._loop)

    def begin(self, job: Callable[[], None]) -> None:
        self._job, self._raised = job, None
        self._done.clear()
        self._todo.release()

    def is_busy(self) -> bool:
        return not (self._done.is_set() or self.has_ended())

    def finish(self) -> None:
        """Raises what the job raised."""
        if self._raised is not None:
            raise self._raised
        if not self._done.is_set():
            raise MemoryError("the worker thread ended before its job")

    def has_ended(self) -> bool:
        return self._helper.has_ended()

    def end(self) -> None:
        self._job = None
        self._todo.release()
        self._helper.join()

    def _loop(self) -> None:
        try:
            while self._todo.acquire() and (job := self._job) is not None:
                try:
                    job()
                except BaseException as error:  # raised again by finish()
                    self._raised = error
                del job
                self._done.set()
                self._on_end()
        finally:
            self._on_end()

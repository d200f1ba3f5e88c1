"""Looks that are not free, taken so seldom that together they never cost more than a small share of one CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 1 / 2000
_MOST_S = 0.002  # of CPU time that may be saved up, for many small looks at once


class Pace:
    """CPU time that may be spent: it grows with the time, and a look that costs more than there is leaves a debt."""

    def __init__(self, share: float = SHARE) -> None:
        """``share`` of one CPU."""
        self._share = share
        self._credit_s = _MOST_S
        self._since_s = time.monotonic()

    def is_due(self) -> bool:
        """Whether there is any left."""
        now_s = time.monotonic()
        self._credit_s = min(self._credit_s + self._share * (now_s - self._since_s), _MOST_S)
        self._since_s = now_s
        return self._credit_s > 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around a look."""
        before_s = time.thread_time()
        try:
            yield
        finally:
            self._credit_s -= time.thread_time() - before_s

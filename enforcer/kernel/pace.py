"""Limits polling to a small share of one CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SHARE = 1 / 5000
_MOST_S = 0.002  # maximum saved CPU time, for many cheap polls at once


class Pace:
    """A budget of CPU time. It grows with wall time; a poll that costs more than there is leaves a debt."""

    def __init__(self, share: float = SHARE) -> None:
        """``share`` of one CPU."""
        self._share = share
        self._credit_s = _MOST_S
        self._since_s = time.monotonic()

    def is_due(self) -> bool:
        """Whether any budget is left."""
        now_s = time.monotonic()
        self._credit_s = min(self._credit_s + self._share * (now_s - self._since_s), _MOST_S)
        self._since_s = now_s
        return self._credit_s > 0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Charge the CPU time of the block to the budget."""
        before_s = time.thread_time()
        try:
            yield
        finally:
            self._credit_s -= time.thread_time() - before_s

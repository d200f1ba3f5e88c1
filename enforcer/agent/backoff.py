"""Exponential backoff between attempts."""

from __future__ import annotations


class BackOff:
    """The wait before the next attempt: 0 after a success, doubled by each failure up to a minute."""

    FIRST_S, LAST_S = 1.0, 60.0

    def __init__(self) -> None:
        self.wait_s = 0.0

    def failed(self) -> None:
        self.wait_s = min(max(self.wait_s * 2, self.FIRST_S), self.LAST_S)

    def succeeded(self) -> None:
        self.wait_s = 0.0

"""How long to wait before what failed is tried again."""

from __future__ import annotations


class BackOff:
    """How long to wait before the next attempt; 0 while attempts go well."""

    FIRST_S, LAST_S = 1.0, 60.0

    def __init__(self) -> None:
        self.wait_s = 0.0

    def failed(self) -> None:
        self.wait_s = min(max(self.wait_s * 2, self.FIRST_S), self.LAST_S)

    def went_well(self) -> None:
        self.wait_s = 0.0

"""Label values that cannot grow without limit: the first so many are shown, all others are counted together. Pure."""

from __future__ import annotations

from collections.abc import Collection

OTHER = "other"


class Shown:
    """Which names have a label of their own. A name keeps what it has for as long as it is present, so that no series
    jumps while others come and go.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._shown: set[str] = set()
        self._others: set[str] = set()

    def update(self, present: Collection[str]) -> None:
        """Names that are not present any more give their places up; new ones take free places, in order."""
        self._shown &= set(present)
        self._others &= set(present)
        for name in sorted(set(present) - self._shown - self._others):
            (self._shown if len(self._shown) < self._most else self._others).add(name)

    def label(self, name: str) -> str:
        return name if name in self._shown else OTHER

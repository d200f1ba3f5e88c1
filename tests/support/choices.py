"""What is chosen for something generated, from bytes that Hypothesis draws at once.

To draw choices one by one takes longer than what most tests do with a policy or a packet. Hypothesis still shrinks
them: the byte 0 chooses what is simplest, the first value and the fewest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices:
    """Each choice takes the next byte, or two; 0 when all are taken."""

    def __init__(self, drawn: bytes) -> None:
        self._left = iter(drawn)

    def below(self, limit: int) -> int:
        """A number from 0, of at most 65,536."""
        first = next(self._left, 0)
        return (first if limit <= 256 else first << 8 | next(self._left, 0)) % limit

    def one_in(self, number: int) -> bool:
        """True so often."""
        return self.below(number) == number - 1

    def of(self, values: Sequence[Any]) -> Any:
        """One of the values."""
        return values[self.below(len(values))]

    def mostly(self, usual: Any, odd: Sequence[Any]) -> Any:
        """``usual`` four times out of five, else one of ``odd``."""
        return self.of(odd) if self.one_in(5) else usual

    def some(self, make: Callable[[], T], least: int, most: int) -> list[T]:
        """So many of them."""
        return [make() for _ in range(least + self.below(most - least + 1))]

    def among(self, values: Sequence[T], most: int | None = None) -> list[T]:
        """Some of the values, each once, in any order."""
        left = list(values)
        limit = len(left) if most is None else most
        return [left.pop(self.below(len(left))) for _ in range(self.below(limit + 1))]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        left = list(values)
        return [left.pop(self.below(len(left))) for _ in range(len(left))]

    def octets(self, size: int) -> bytes:
        """Any bytes."""
        return bytes(next(self._left, 0) for _ in range(size))

    def word(self) -> int:
        """Any number of 32 bits."""
        return int.from_bytes(self.octets(4), "big")


def built(make: Callable[[Choices], T], size: int) -> st.SearchStrategy[T]:
    """What is made of choices that take about so many bytes."""
    return st.binary(min_size=size, max_size=size).map(lambda drawn: make(Choices(drawn)))

"""Where the builders of tables get their blocks from (Room), and what they want written (Fill).

The size of a block is a power of two of units, and it is aligned to its size. Units: 16 bytes in lists4, 64 bytes in
lists6, 16 words in buckets6, one node in nodes6.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from enforcer.backends.xdp.tables.keys import U32, Int

BUCKET_UNIT = 16  # words: a cache line
NODE_WORDS = 8


class Full(Exception):
    """There is no room for a change in place, and nothing was written. New tables will have room."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of one array: offset and size of each, in the array's units."""

    offset: Int
    units: Int


class Room(Protocol):
    """Allocates blocks of one array."""

    def take(self, units: Int) -> Int:
        """Allocate blocks of these sizes; returns their offsets. Both in units. Raises Full."""


@dataclass
class Fresh:
    """The room of a new array: blocks are contiguous, largest first. ``used``: units so far."""

    used: int = 0

    def take(self, units: Int) -> Int:
        if not len(units):
            return units
        order = np.argsort(-units, kind="stable")
        largest = int(units[order[0]])
        self.used = -(-self.used // largest) * largest
        offsets = np.empty_like(units)
        ends = self.used + np.cumsum(units[order])
        offsets[order] = ends - units[order]
        self.used = int(ends[-1])
        return offsets


@dataclass(frozen=True)
class Fill:
    """Words to write: row i of ``content`` (uint32[n, m]) goes to words ``[m * row[i], m * (row[i] + 1))``."""

    row: Int
    content: U32

    def write(self, array: U32) -> None:
        width = self.content.shape[1]
        array[: len(array) // width * width].reshape(-1, width)[self.row] = self.content

    def stores(self) -> Iterator[tuple[int, int]]:
        """Each single word: (index, value)."""
        width = self.content.shape[1]
        for row, words in zip(self.row.tolist(), self.content.tolist(), strict=True):
            yield from ((row * width + at, word) for at, word in enumerate(words))


@dataclass(frozen=True)
class Rooms6:
    """The rooms of the three arrays that grow with IPv6 tables, and what is to be written there."""

    nodes: Room
    buckets: Room
    lists: Room
    fills: dict[str, list[Fill]] = field(default_factory=dict)

    def fill(self, name: str, fill: Fill) -> None:
        self.fills.setdefault(name, []).append(fill)


def power_of_two(numbers: Int) -> Int:
    """Each number (>= 1) rounded up to a power of two."""
    # frexp is exact below 2**53: the exponent of n - 1 is its number of bits.
    return np.left_shift(1, np.frexp((numbers - 1).astype(np.float64))[1].astype(np.int64))

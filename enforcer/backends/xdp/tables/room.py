"""What the makers of tables ask of whoever knows where blocks may lie, and what they want written.

Blocks have a power of two of units and are aligned to their size. Units: of lists4 16 bytes, of lists6 64 bytes, of
buckets6 16 words, of nodes6 a node.
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
    """No room for a change in place; nothing was written. Tables built anew will have room."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of one array: offset and size of each, in the array's units."""

    offset: Int
    units: Int


class Room(Protocol):
    """Where blocks of one array may lie."""

    def take(self, units: Int) -> Int:
        """Where blocks of these sizes shall lie, counted in units. Raises Full."""


@dataclass
class Fresh:
    """Room in an array that is being made: block after block, the largest first. ``used``: units so far."""

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
    """The three arrays that grow with IPv6 tables, and what is to be written there."""

    nodes: Room
    buckets: Room
    lists: Room
    fills: dict[str, list[Fill]] = field(default_factory=dict)

    def fill(self, name: str, fill: Fill) -> None:
        self.fills.setdefault(name, []).append(fill)


def power_of_two(numbers: Int) -> Int:
    """The smallest power of two that is not below each number (>= 1)."""
    # frexp is exact below 2**53: the exponent of n - 1 is the number of bits it has.
    return np.left_shift(1, np.frexp((numbers - 1).astype(np.float64))[1].astype(np.int64))

"""A buddy allocator for lists, buckets and nodes in arrays of fixed size that are in use.

Its state is not stored: a new process derives from the words in use which blocks are used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from enforcer.backends.xdp.tables.format import NotOurs
from enforcer.backends.xdp.tables.keys import Int
from enforcer.backends.xdp.tables.room import Blocks, Full


class Allocator:
    """A Room (room.py) of ``capacity`` units, of which ``used`` are allocated. ``name``: for messages.

    Raises NotOurs if used blocks overlap or are outside the capacity.
    """

    def __init__(self, name: str, capacity: int, used: Sequence[Blocks] = ()) -> None:
        self.name = name
        self.capacity = capacity
        self._free: list[set[int]] = [set() for _ in range(capacity.bit_length() + 1)]  # offsets, by log2 of the size
        self._freed: list[Blocks] = []
        for order, offsets in _gaps(name, capacity, used):
            self._free[order].update(offsets.tolist())

    @property
    def free_units(self) -> int:
        """Units that :meth:`take` can still allocate; freed units count only after :meth:`release`."""
        return sum(len(offsets) << order for order, offsets in enumerate(self._free))

    def take(self, units: Int) -> Int:
        """Allocate blocks of these sizes (powers of two, in units); returns their offsets. Raises Full, then allocates
        none.
        """
        offsets = np.zeros(len(units), np.int64)
        for done, at in enumerate(largest_first := np.argsort(-units, kind="stable").tolist()):
            found = self._take(int(units[at]).bit_length() - 1)
            if found is None:
                taken = largest_first[:done]
                self.give_back(Blocks(offsets[taken], units[taken]))
                raise Full(f"{self.name}: no room for {int(units[at])} of its {self.capacity} units in one piece")
            offsets[at] = found
        return offsets

    def give_back(self, blocks: Blocks) -> None:
        """Free blocks that no word has ever led to; they are available at once."""
        for offset, units in zip(blocks.offset.tolist(), blocks.units.tolist(), strict=True):
            self._join(offset, units.bit_length() - 1)

    def free(self, blocks: Blocks) -> None:
        """Free blocks that no word leads to any more. Programs may still read them, so they are available only after
        :meth:`release`.
        """
        self._freed.append(blocks)

    def release(self) -> None:
        """Make freed blocks available. Call it when all program runs that may have read them have ended."""
        for blocks in self._freed:
            self.give_back(blocks)
        self._freed.clear()

    def _take(self, order: int) -> int | None:
        for larger in range(order, len(self._free)):
            if self._free[larger]:
                offset = self._free[larger].pop()
                for half in range(larger - 1, order - 1, -1):
                    self._free[half].add(offset + (1 << half))
                return offset
        return None

    def _join(self, offset: int, order: int) -> None:
        """Add a free block. If its buddy is free, both become one block of twice the size."""
        while (offset ^ 1 << order) in self._free[order]:
            self._free[order].remove(offset ^ 1 << order)
            offset &= ~(1 << order)
            order += 1
        self._free[order].add(offset)


def _gaps(name: str, capacity: int, used: Sequence[Blocks]) -> list[tuple[int, Int]]:
    """The unused space as the largest possible aligned blocks: (log2 of size, offsets)."""
    offset = np.concatenate([np.zeros(0, np.int64), *(blocks.offset for blocks in used)])
    units = np.concatenate([np.zeros(0, np.int64), *(blocks.units for blocks in used)])
    order = np.argsort(offset)
    begin = np.concatenate([[0], offset[order] + units[order]])
    end = np.concatenate([offset[order], [capacity]])
    if (begin > end).any():
        raise NotOurs(f"{name}: blocks overlap or are outside the array")
    begin, end = begin[begin < end], end[begin < end]  # most blocks follow one another
    found: list[tuple[int, Int]] = []
    orders = range(capacity.bit_length())
    for order_ in [*orders, *reversed(orders)]:  # up to the largest aligned size, then down to the rest
        size = 1 << order_
        fits = (begin + size <= end) & ((begin & size != 0) if len(found) < len(orders) else True)
        found.append((order_, begin[fits]))
        begin = np.where(fits, begin + size, begin)
    return found

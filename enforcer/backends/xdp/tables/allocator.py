"""Where lists, buckets and nodes lie in arrays of a fixed size that are in force: a buddy allocator.

Nothing of it is kept anywhere: the words in force say which blocks are used, so a new process starts from them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from enforcer.backends.xdp.tables.format import NotOurs
from enforcer.backends.xdp.tables.keys import Int
from enforcer.backends.xdp.tables.room import Blocks, Full


class Allocator:
    """Room (see room.py) within ``capacity`` units, of which ``used`` are taken; ``name`` is for messages.

    Raises NotOurs when used blocks overlap or lie outside.
    """

    def __init__(self, name: str, capacity: int, used: Sequence[Blocks] = ()) -> None:
        self.name = name
        self.capacity = capacity
        self._free: list[set[int]] = [set() for _ in range(capacity.bit_length() + 1)]  # by log2 of their size
        self._freed: list[Blocks] = []
        for order, offsets in _gaps(name, capacity, used):
            self._free[order].update(offsets.tolist())

    @property
    def free_units(self) -> int:
        """Units that :meth:`take` can still give; freed ones count from their release on."""
        return sum(len(offsets) << order for order, offsets in enumerate(self._free))

    def take(self, units: Int) -> Int:
        """Where blocks of these sizes (powers of two) shall lie. Raises Full, and has then taken none."""
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
        """Blocks that no word has ever led to: free at once."""
        for offset, units in zip(blocks.offset.tolist(), blocks.units.tolist(), strict=True):
            self._join(offset, units.bit_length() - 1)

    def free(self, blocks: Blocks) -> None:
        """Blocks that no word leads to any more; programs may still be reading them, so they wait for release."""
        self._freed.append(blocks)

    def release(self) -> None:
        """What was freed can be taken again. To be called when all programs that may have read it have ended."""
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
        """Add a free block; with its buddy, when that is free, it is one block of twice the size."""
        while (offset ^ 1 << order) in self._free[order]:
            self._free[order].remove(offset ^ 1 << order)
            offset &= ~(1 << order)
            order += 1
        self._free[order].add(offset)


def _gaps(name: str, capacity: int, used: Sequence[Blocks]) -> list[tuple[int, Int]]:
    """What is not used, in the largest aligned blocks: (log2 of size, offsets)."""
    offset = np.concatenate([np.zeros(0, np.int64), *(blocks.offset for blocks in used)])
    units = np.concatenate([np.zeros(0, np.int64), *(blocks.units for blocks in used)])
    order = np.argsort(offset)
    begin = np.concatenate([[0], offset[order] + units[order]])
    end = np.concatenate([offset[order], [capacity]])
    if (begin > end).any():
        raise NotOurs(f"{name}: blocks that overlap or are not there")
    found: list[tuple[int, Int]] = []
    orders = range(capacity.bit_length())
    for order_ in [*orders, *reversed(orders)]:  # up to the largest that is aligned, and down to what is left
        size = 1 << order_
        fits = (begin + size <= end) & ((begin & size != 0) if len(found) < len(orders) else True)
        found.append((order_, begin[fits]))
        begin = np.where(fits, begin + size, begin)
    return found

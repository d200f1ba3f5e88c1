"""A planned change of tables in use: what to write, in which order, and which blocks it frees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from enforcer.backends.xdp.tables.allocator import Allocator
from enforcer.backends.xdp.tables.keys import U16, U32, Int, Keys, counts_of
from enforcer.backends.xdp.tables.room import Blocks, Fill

Values = U16 | U32
Store = tuple[str, int, int]  # array, index of a 32-bit word, value


@dataclass(frozen=True)
class Points:
    """Words in use that get a new value, each by one aligned 32-bit store."""

    index: Int
    value: U32


@dataclass
class Patch:
    """``fills``: blocks that no word leads to yet. ``points``: the words that will lead to them. Both by array, in the
    order in which they are written.
    """

    fills: dict[str, list[Fill]] = field(default_factory=dict)
    points: dict[str, list[Points]] = field(default_factory=dict)
    taken: dict[str, list[Blocks]] = field(default_factory=dict)
    freed: dict[str, list[Blocks]] = field(default_factory=dict)
    classes: set[int] = field(default_factory=set)  # those in what is written

    def __bool__(self) -> bool:
        return bool(self.points)

    def write(self, arrays: Mapping[str, U32], fence: Callable[[], None]) -> None:
        """Make the change. At any moment, a reader finds for each address its old class or its new one."""
        for name, fills in self.fills.items():
            for fill in fills:
                fill.write(arrays[name])
        fence()
        for name, points in self.points.items():
            for item in points:
                # numpy writes a 32-bit element selected by index in one store.
                arrays[name][item.index] = item.value

    def stores(self) -> Iterator[Store]:
        """The stores of :meth:`write`, word by word."""
        for name, fills in self.fills.items():
            yield from ((name, index, value) for fill in fills for index, value in fill.stores())
        for name, points in self.points.items():
            for item in points:
                for index, value in zip(item.index.tolist(), item.value.tolist(), strict=True):
                    yield name, index, value

    def settle(self, allocators: Mapping[str, Allocator]) -> None:
        """Record that the change was made: free what it replaced, until released."""
        for name, items in self.freed.items():
            for blocks in items:
                allocators[name].free(blocks)

    def drop(self, allocators: Mapping[str, Allocator]) -> None:
        """Discard the change: free at once what was allocated for it."""
        for name, items in self.taken.items():
            for blocks in items:
                allocators[name].give_back(blocks)


@dataclass(frozen=True)
class Taking:
    """A Room that records in a patch what was allocated."""

    allocator: Allocator
    patch: Patch

    def take(self, units: Int) -> Int:
        offsets = self.allocator.take(units)
        self.patch.taken.setdefault(self.allocator.name, []).append(Blocks(offsets, units))
        return offsets


def changed_units(unit_first: Keys, old: tuple[Keys, Values], new: tuple[Keys, Values]) -> Int:
    """Which units (address ranges, by their first address) have different segments (start, value) than before."""
    old_at, new_at = (np.searchsorted(start, unit_first) for start, _ in (old, new))
    old_count, new_count = counts_of(old_at, len(old[0])), counts_of(new_at, len(new[0]))
    same = old_count == new_count
    old_rows, new_rows = np.repeat(same, old_count), np.repeat(same, new_count)
    differs = (old[0][old_rows] != new[0][new_rows]) | (old[1][old_rows] != new[1][new_rows])
    unit = np.repeat(np.flatnonzero(same), old_count[same])
    result = ~same
    result[unit[differs]] = True
    return np.flatnonzero(result)

"""Finds the words of IPv6 tables that a change must replace: the deepest ones that cover all of it.

The search goes from the root through nodes to the buckets that the ranges touch. It goes through a list only if the
whole change within that list is in one of its tails. A word found this way is a *slot*.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.tables.forest6 import MOST_NODES
from enforcer.backends.xdp.tables.format import LEAF, NODE, ROOT_SHIFT6, kinds_of, rests_of
from enforcer.backends.xdp.tables.keys import U32, U64, Bool, Int, Keys, first_of_equals, flat_ranges, halves6
from enforcer.backends.xdp.tables.read6 import Items6
from enforcer.backends.xdp.tables.room import NODE_WORDS

ARRAYS = ("root6", "buckets6", "nodes6", "lists6")  # a slot is in one of these, by number
ROOT, BUCKETS, NODES, LISTS = range(4)
_BELOW = 2  # the word of a node for keys below its first bucket
_LAST = np.uint64(0xFFFFFFFFFFFFFFFF)
_ROOT_SPAN = _LAST >> np.uint64(16)


@dataclass(frozen=True)
class Slots6:
    """Words in use: word ``index[i]`` of array ``array[i]``, its keys, and how many nodes may nest below it."""

    array: Int
    index: Int
    items: Items6
    nodes: Int

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, at: npt.NDArray[Any]) -> Slots6:
        return Slots6(self.array[at], self.index[at], self.items[at], self.nodes[at])

    @classmethod
    def of(cls, parts: Sequence[Slots6]) -> Slots6:
        names = [item.name for item in fields(cls) if item.name != "items"]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return cls(items=Items6.of([part.items for part in parts]), **columns)


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a slot and a range ``[first, last]`` of keys (of the slot's half) that overlaps it."""

    slots: Slots6
    owner: Int  # number of the range
    slot: Int  # number of the slot: a slot may have several ranges

    def __getitem__(self, at: npt.NDArray[Any]) -> _Pairs:
        return _Pairs(self.slots[at], self.owner[at], self.slot[at])


@dataclass(frozen=True)
class Ranges6:
    """Disjoint sorted ranges of addresses, by halves."""

    first_high: U64
    first_low: U64
    last_high: U64
    last_low: U64

    @classmethod
    def of(cls, first: Keys, last: Keys) -> Ranges6:
        return cls(*halves6(first), *halves6(last))

    def touch(self, high: U64) -> Bool:
        """Which of these values of the high half occur in the ranges."""
        at = np.searchsorted(self.first_high, high, side="right") - 1
        return np.asarray((at >= 0) & (self.last_high[np.maximum(at, 0)] >= high), np.bool_)

    def keys(self, owner: Int, items: Items6) -> tuple[U64, U64]:
        """The first and last key of ranges, in the half of the items, limited to the keys of the items."""
        first = np.where(items.is_tail, self.first_low[owner], self.first_high[owner])
        last = np.where(items.is_tail, self.last_low[owner], self.last_high[owner])
        # A range that extends beyond a tail's value of the high half covers its low half up to that end.
        first[items.is_tail & (self.first_high[owner] < items.high)] = 0
        last[items.is_tail & (self.last_high[owner] > items.high)] = _LAST
        return np.maximum(first, items.first), np.minimum(last, items.last)


@dataclass(frozen=True)
class Descent6:
    """The descent from the root to the slots of a change."""

    root: U32
    nodes: npt.NDArray[Any]
    buckets: U32
    lists: U32
    ranges: Ranges6
    ceilings: tuple[tuple[int, int], ...] = ()  # slots (array, index) below which not to descend

    def slots(self) -> Slots6:
        """The slots in the order of addresses. No slot is below another."""
        slots = Slots6.of([pairs[stays & first_of_equals(pairs.slot)].slots for pairs, stays in self._levels()])
        high = np.where(slots.items.is_tail, slots.items.high, slots.items.first)
        low = np.where(slots.items.is_tail, slots.items.first, np.uint64(0))
        return slots[np.lexsort((low, high))]

    def path(self) -> list[Slots6]:
        """The slots that lead to a single address, from the root down."""
        return [pairs.slots for pairs, _ in self._levels()]

    def _levels(self) -> Iterator[tuple[_Pairs, Bool]]:
        """Level by level: the words on the path, and which of them are slots of the change."""
        pairs = self._start()
        while len(pairs.owner):
            stays = self._stays(pairs)
            yield pairs, stays
            pairs = pairs[~stays]
            kinds = kinds_of(pairs.slots.items.word)
            pairs = _joined(self._into_nodes(pairs[kinds == NODE]), self._into_tails(pairs[kinds != NODE]))

    def _start(self) -> _Pairs:
        begin = (self.ranges.first_high >> ROOT_SHIFT6).astype(np.int64)
        count = (self.ranges.last_high >> ROOT_SHIFT6).astype(np.int64) - begin + 1
        index = flat_ranges(begin, count)
        first = index.astype(np.uint64) << ROOT_SHIFT6
        slots = Slots6(
            np.full(len(index), ROOT),
            index,
            Items6.top(self.root[index], first, first | _ROOT_SPAN),
            np.full(len(index), MOST_NODES),
        )
        return _numbered(slots, np.repeat(np.arange(len(begin)), count))

    def _stays(self, pairs: _Pairs) -> Bool:
        """Which words are slots, so that the descent ends there: the same for all ranges of a word."""
        items = pairs.slots.items
        kinds = kinds_of(items.word)
        first, last = self.ranges.keys(pairs.owner, items)
        whole = (first == items.first) & (last == items.last)
        ends = np.where(kinds == NODE, whole, True)
        listed = np.flatnonzero((kinds != NODE) & (kinds != LEAF) & ~items.is_tail & (first == last))
        if len(listed):
            _, word = self._entries(items.word[listed], first[listed])
            ends[listed] = kinds_of(word) == LEAF
        for array, index in self.ceilings:
            ends |= (pairs.slots.array == array) & (pairs.slots.index == index)
        blocked = np.zeros(int(pairs.slot[-1]) + 1, np.bool_)
        blocked[pairs.slot[ends]] = True
        return blocked[pairs.slot]

    def _into_nodes(self, pairs: _Pairs) -> _Pairs:
        items = pairs.slots.items
        number = rests_of(items.word)
        node = self.nodes[number]
        low, shift, last = node["low"], node["shift"].astype(np.uint64), node["last"].astype(np.uint64)
        range_first, range_last = self.ranges.keys(pairs.owner, items)
        below = np.flatnonzero(range_first < low)
        reach = range_last >= low
        begin = np.minimum((np.maximum(range_first, low) - low) >> shift, last)
        end = np.where(reach, np.minimum((np.maximum(range_last, low) - low) >> shift, last), begin)
        count = np.where(reach, (end - begin).astype(np.int64) + 1, 0)
        owner = np.repeat(np.arange(len(number)), count)
        at = flat_ranges(begin.astype(np.int64), count).astype(np.uint64)
        index = node["base"].astype(np.int64)[owner] + at.astype(np.int64)
        start = low[owner] + (at << shift[owner])
        stop = items.last[owner]
        inner = at < last[owner]
        stop[inner] = start[inner] + (np.uint64(1) << shift[owner][inner]) - np.uint64(1)
        left = pairs.slots.nodes - 1
        bucket = Slots6(
            np.full(len(index), BUCKETS),
            index,
            Items6(self.buckets[index], start, stop, items.high[owner], items.is_tail[owner]),
            left[owner],
        )
        under = Slots6(
            np.full(len(below), NODES),
            number[below] * NODE_WORDS + _BELOW,
            Items6(
                node["below"][below],
                items.first[below],
                low[below] - np.uint64(1),
                items.high[below],
                items.is_tail[below],
            ),
            left[below],
        )
        return _numbered(Slots6.of([bucket, under]), np.concatenate([pairs.owner[owner], pairs.owner[below]]))

    def _into_tails(self, pairs: _Pairs) -> _Pairs:
        key, _ = self.ranges.keys(pairs.owner, pairs.slots.items)
        index, word = self._entries(pairs.slots.items.word, key)
        count = len(key)
        items = Items6(word, np.zeros(count, np.uint64), np.full(count, _LAST), key, np.ones(count, np.bool_))
        return _numbered(Slots6(np.full(count, LISTS), index, items, np.full(count, MOST_NODES)), pairs.owner)

    def _entries(self, words: U32, key: U64) -> tuple[Int, U32]:
        """What programs find in lists for these keys: the index of the word, and the word.

        Padding repeats the last segment, and programs find the last of equal ones, so only that word must be stored.
        """
        kinds, offset = kinds_of(words), rests_of(words)
        starts = self.lists.view(np.uint64)
        at, step = np.zeros(len(words), np.int64), np.left_shift(1, kinds)
        while step.any():
            at += np.where(starts[offset * 8 + np.minimum(at + step, (2 << kinds) - 1)] <= key, step, 0)
            step >>= 1
        index = offset * 16 + np.left_shift(4, kinds) + at
        return index, self.lists[index]


def _numbered(slots: Slots6, owner: Int) -> _Pairs:
    """The pairs with numbered slots, ordered so that those of a slot are adjacent."""
    order = np.lexsort((slots.index, slots.array))
    slots, owner = slots[order], owner[order]
    new = first_of_equals(slots.index) | first_of_equals(slots.array)
    return _Pairs(slots, owner, np.cumsum(new) - 1)


def _joined(one: _Pairs, two: _Pairs) -> _Pairs:
    if not len(one.owner) or not len(two.owner):
        return one if len(one.owner) else two
    return _numbered(Slots6.of([one.slots, two.slots]), np.concatenate([one.owner, two.owner]))

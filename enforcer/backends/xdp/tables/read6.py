"""Reads IPv6 tables back, level by level: their segments, and the blocks they use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.tables.classes import Segments6
from enforcer.backends.xdp.tables.format import (
    LEAF,
    MOST_CLASS,
    NODE,
    PAGE_WORDS,
    ROOT_SHIFT6,
    NotOurs,
    kinds_of,
    rests_of,
)
from enforcer.backends.xdp.tables.keys import U32, U64, Bool, Int, first_of_equals, flat_ranges
from enforcer.backends.xdp.tables.room import BUCKET_UNIT, Blocks, power_of_two
from enforcer.model.abi import MAX_STEPS6, ROOT_WORDS

_LAST = np.uint64(0xFFFFFFFFFFFFFFFF)
_ZERO = np.uint64(0)


@dataclass(frozen=True)
class Rows6:
    """Segments whose value is a word: a class, or the word of a tail, which is for one value of ``high`` only."""

    high: U64
    low: U64
    value: U32


@dataclass(frozen=True)
class Items6:
    """Words to follow, each for keys ``[first, last]`` of the high half, or of the low half under one ``high``."""

    word: U32
    first: U64
    last: U64
    high: U64
    is_tail: Bool

    @classmethod
    def top(cls, word: U32, first: U64, last: U64) -> Items6:
        return cls(word, first, last, np.zeros_like(first), np.zeros(len(word), np.bool_))

    @classmethod
    def of(cls, parts: Sequence[Items6]) -> Items6:
        return cls(*(np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)))

    def __len__(self) -> int:
        return len(self.word)

    def __getitem__(self, at: npt.NDArray[Any]) -> Items6:
        return Items6(self.word[at], self.first[at], self.last[at], self.high[at], self.is_tail[at])


@dataclass
class Walk6:
    """Follows words through the three arrays, and collects ``rows`` (unsorted) and the used blocks."""

    nodes: npt.NDArray[Any]
    buckets: U32
    lists: U32
    rows: list[Rows6] = field(default_factory=list)
    used: dict[str, list[Blocks]] = field(default_factory=lambda: {"nodes6": [], "buckets6": [], "lists6": []})

    def follow(self, items: Items6, opened: Callable[[U64], Bool] | None = None) -> None:
        """Follow these words. Tails are followed only if their high half is ``opened``; others become rows.

        Raises NotOurs for content that this package never writes.
        """
        for _ in range(MAX_STEPS6):
            kinds = kinds_of(items.word)
            self._leaves(items[kinds == LEAF])
            is_list, is_node = (kinds != LEAF) & (kinds != NODE), kinds == NODE
            parts = [
                *([self._lists(items[is_list], opened)] if is_list.any() else []),
                *([self._nodes(items[is_node])] if is_node.any() else []),
            ]
            if not parts:
                return
            items = Items6.of(parts)
            for name, array in (("nodes6", self.nodes), ("lists6", self.lists), ("buckets6", self.buckets)):
                unit = 1 if name == "nodes6" else 16  # elements
                if sum(int(blocks.units.sum()) for blocks in self.used[name]) * unit > len(array):
                    raise NotOurs(f"{name}: more is used than the array has")
        if len(items):
            raise NotOurs(f"root6: more than {MAX_STEPS6 - 1} steps to a class")

    def _leaves(self, items: Items6) -> None:
        if (items.word > MOST_CLASS).any():
            raise NotOurs("root6: a class beyond 65,535")
        if len(items):
            self.rows.append(
                Rows6(
                    np.where(items.is_tail, items.high, items.first),
                    np.where(items.is_tail, items.first, _ZERO),
                    items.word,
                )
            )

    def _lists(self, items: Items6, opened: Callable[[U64], Bool] | None) -> Items6:
        kinds, offset = kinds_of(items.word), rests_of(items.word)
        units, size = np.left_shift(1, kinds) >> 1, np.left_shift(2, kinds)
        if (offset % units != 0).any() or ((offset + units) * 16 > len(self.lists) // PAGE_WORDS * PAGE_WORDS).any():
            raise NotOurs("lists6: a list that is not within the pages, or not aligned to its size")
        if int(units.sum()) * 16 > len(self.lists):
            raise NotOurs("lists6: more is used than the array has")
        self.used["lists6"].append(Blocks(offset, units))
        start = self.lists.view(np.uint64)[flat_ranges(offset * 8, size)]
        word = self.lists[flat_ranges(offset * 16 + size * 2, size)]
        owner = np.repeat(np.arange(len(items)), size)
        keep = np.ones(len(start), np.bool_)
        keep[:-1] = (start[1:] != start[:-1]) | (owner[1:] != owner[:-1])
        start, word, owner = start[keep], word[keep], owner[keep]
        return self._entries(items, np.maximum(start, items.first[owner]), word, owner, opened)

    def _entries(
        self, items: Items6, start: U64, word: U32, owner: Int, opened: Callable[[U64], Bool] | None
    ) -> Items6:
        begins = first_of_equals(owner)
        last = items.last[owner]
        if (start[begins] != items.first).any() or (start > last).any():
            raise NotOurs("lists6: a list that does not start where it should")
        if (~begins[1:] & (start[1:] <= start[:-1])).any():
            raise NotOurs("lists6: a list that is not sorted")
        last[:-1] = np.where(begins[1:], last[:-1], start[1:] - np.uint64(1))
        is_leaf = kinds_of(word) == LEAF
        in_tail, high = items.is_tail[owner], items.high[owner]
        self._leaves(Items6(word, start, last, high, in_tail)[is_leaf])
        on = ~is_leaf
        if (in_tail[on] | (start[on] != last[on])).any():
            raise NotOurs("lists6: a word that leads on from more than one value")
        if opened is not None:
            closed = on.copy()
            closed[on] = ~opened(start[on])
            if closed.any():
                self.rows.append(Rows6(start[closed], np.zeros_like(start[closed]), word[closed]))
            on &= ~closed
        count = int(on.sum())
        return Items6(word[on], np.zeros(count, np.uint64), np.full(count, _LAST), start[on], np.ones(count, np.bool_))

    def _nodes(self, items: Items6) -> Items6:
        number = rests_of(items.word)
        if (number >= len(self.nodes)).any():
            raise NotOurs("nodes6: a node that is not there")
        node = self.nodes[number]
        low, base, last = node["low"], node["base"].astype(np.int64), node["last"].astype(np.int64)
        shift = node["shift"].astype(np.uint64)
        if (base % BUCKET_UNIT != 0).any() or (base + last >= len(self.buckets)).any() or (shift > 63).any():
            raise NotOurs("nodes6: buckets that are not there")
        count = last + 1
        if int(count.sum()) > len(self.buckets):
            raise NotOurs("buckets6: more is used than the array has")
        room = (items.last - low) >> shift
        if ((low <= items.first) | (low > items.last) | (room < last.astype(np.uint64))).any():
            raise NotOurs("nodes6: a node that spreads keys which do not lead to it")
        self.used["nodes6"].append(Blocks(number, np.ones_like(number)))
        self.used["buckets6"].append(Blocks(base // BUCKET_UNIT, power_of_two(np.maximum(count, 16)) // BUCKET_UNIT))
        owner = np.repeat(np.arange(len(items)), count)
        at = flat_ranges(np.zeros_like(count), count)
        start = low[owner] + (at.astype(np.uint64) << shift[owner])
        end = items.last[owner]
        inner = at < last[owner]
        end[inner] = start[np.flatnonzero(inner) + 1] - np.uint64(1)
        word = self.buckets[flat_ranges(base, count)]
        return Items6.of(
            [
                Items6(word, start, end, items.high[owner], items.is_tail[owner]),
                Items6(node["below"], items.first, low - np.uint64(1), items.high, items.is_tail),
            ]
        )

    def sorted_rows(self) -> Rows6:
        """The rows in the order of addresses."""
        high = np.concatenate([rows.high for rows in self.rows])
        low = np.concatenate([rows.low for rows in self.rows])
        value = np.concatenate([rows.value for rows in self.rows])
        order = np.lexsort((low, high)) if low.any() else np.argsort(high, kind="stable")
        return Rows6(high[order], low[order], value[order])


def whole_walk6(root: U32, nodes: npt.NDArray[Any], buckets: U32, lists: U32) -> Walk6:
    """A walk through everything that the root leads to. Raises NotOurs for content that this package never writes."""
    if len(root) != ROOT_WORDS:
        raise NotOurs(f"root6: expected {ROOT_WORDS} words, found {len(root)}")
    words = np.array(root)  # a copy, which cannot change meanwhile
    slot = np.flatnonzero(first_of_equals(words) | (kinds_of(words) != LEAF))  # of equal classes, the first says it
    first = slot.astype(np.uint64) << ROOT_SHIFT6
    walk = Walk6(nodes, buckets, lists)
    walk.follow(Items6.top(words[slot], first, first | (_LAST >> np.uint64(16))))
    return walk


def read6(root: U32, nodes: npt.NDArray[Any], buckets: U32, lists: U32) -> Segments6:
    """The segments in the tables. Raises NotOurs (a ValueError) for content that this package never writes."""
    rows = whole_walk6(root, nodes, buckets, lists).sorted_rows()
    changes = first_of_equals(rows.value)
    return Segments6(rows.high[changes], rows.low[changes], rows.value[changes].astype(np.uint16))

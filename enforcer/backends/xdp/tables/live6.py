"""Changes the IPv6 tables in use: the slots (slots6.py) that a change touches, each with one store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.tables.allocator import Allocator
from enforcer.backends.xdp.tables.edits import Edit
from enforcer.backends.xdp.tables.forest6 import FEW_SEGMENTS, MANY_SEGMENTS, Forest6
from enforcer.backends.xdp.tables.format import NODE, PAGE_WORDS, kinds_for, kinds_of, rests_of
from enforcer.backends.xdp.tables.image6 import top_rows
from enforcer.backends.xdp.tables.keys import U32, Int, Keys, counts_of, distinct, flat_ranges, halves6, keys6
from enforcer.backends.xdp.tables.patch import Patch, Points, Taking, changed_units
from enforcer.backends.xdp.tables.read6 import Rows6, Walk6, whole_walk6
from enforcer.backends.xdp.tables.room import BUCKET_UNIT, Rooms6
from enforcer.backends.xdp.tables.slots6 import ARRAYS, LISTS, ROOT, Descent6, Ranges6, Slots6

_LAST = np.uint64(0xFFFFFFFFFFFFFFFF)
_LIST_UNIT = 16  # words
_OVERLONG = 64  # segments: six steps to search


def allocators6(root: U32, nodes: npt.NDArray[Any], buckets: U32, lists: U32) -> dict[str, Allocator]:
    """Allocators that know which blocks the root leads to. Raises NotOurs if they overlap or are outside the arrays."""
    used = whole_walk6(root, nodes, buckets, lists).used
    return {
        "nodes6": Allocator("nodes6", len(nodes), used["nodes6"]),
        "buckets6": Allocator("buckets6", len(buckets) // BUCKET_UNIT, used["buckets6"]),
        "lists6": Allocator("lists6", len(lists) // PAGE_WORDS * PAGE_WORDS // _LIST_UNIT, used["lists6"]),
    }


def plan6(
    root: U32,
    nodes: npt.NDArray[Any],
    buckets: U32,
    lists: U32,
    allocators: Mapping[str, Allocator],
    edits: Sequence[Edit],
    first: Keys,
    last: Keys,
    patch: Patch,
) -> None:
    """Add these edits, all within the ranges ``[first, last]``, to the patch. Raises Full."""
    ranges = Ranges6.of(first, last)
    tables = (root, nodes, buckets, lists)
    change = _Change.of(Descent6(*tables, ranges), edits)
    ceilings = [slot for at in change.overlong() if (slot := _ancestor(tables, change, at))]
    if ceilings:
        change = _Change.of(Descent6(*tables, ranges, tuple(ceilings)), edits)
    slots, unit_first, walk = change.slots, change.unit_first, change.walk
    start, value = change.start, change.value
    patch.classes.update(distinct(value).tolist())
    at = changed_units(unit_first, (change.old_start, change.old_value), (start, value))
    if not len(at):
        return
    if len(at) < len(slots):
        walk = Walk6(nodes, buckets, lists)
        walk.follow(slots.items[at], ranges.touch)
    for name, blocks in walk.used.items():
        patch.freed[name] = blocks
    begin = np.searchsorted(start, unit_first)
    _encode(
        slots[at], Rows6(*halves6(start), value), begin[at], np.append(begin[1:], len(start))[at], allocators, patch
    )


@dataclass(frozen=True)
class _Change:
    """The slots of a change, with the segments there before and after it."""

    slots: Slots6
    walk: Walk6
    unit_first: Keys
    old_start: Keys
    old_value: U32
    start: Keys
    value: U32

    @classmethod
    def of(cls, descent: Descent6, edits: Sequence[Edit]) -> _Change:
        slots = descent.slots()
        walk = Walk6(descent.nodes, descent.buckets, descent.lists)
        walk.follow(slots.items, descent.ranges.touch)
        rows = walk.sorted_rows()
        unit_first, unit_last = _ends(slots)
        old_start = start = keys6(rows.high, rows.low)
        value = rows.value
        for edit in edits:
            start, value = edit.applied(start, value, unit_first, unit_last)
        return cls(slots, walk, unit_first, old_start, rows.value, start, value)

    def overlong(self) -> list[int]:
        """Slots that cannot get another node and whose list becomes longer than it should be.

        Reported only if the list gets a larger size, so that this is not examined again for each segment.
        """
        before, after = (
            counts_of(np.searchsorted(start, self.unit_first), len(start)) for start in (self.old_start, self.start)
        )
        over = (self.slots.nodes == 0) & (after > _OVERLONG) & (kinds_for(after) > kinds_for(before))
        return [int(at) for at in np.flatnonzero(over)]


def _ancestor(tables: tuple[U32, npt.NDArray[Any], U32, U32], change: _Change, at: int) -> tuple[int, int] | None:
    """The lowest slot above whose node now has twice the boundaries that it was built for, so it should be rebuilt.

    Without this, segments that are always added at the end (ascending addresses) would all end up in one list.
    """
    first = change.unit_first[at : at + 1]
    _, nodes, buckets, lists = tables
    is_tail = change.slots.items.is_tail[at]
    for slot in reversed(Descent6(*tables, Ranges6.of(first, first)).path()):
        if kinds_of(slot.items.word)[0] != NODE or slot.items.is_tail[0] != is_tail:
            continue
        walk = Walk6(nodes, buckets, lists)
        walk.follow(slot.items, lambda high: np.zeros(len(high), np.bool_))
        made_for = int(nodes["last"][rests_of(slot.items.word)[0]]) + 1
        if sum(len(rows.high) for rows in walk.rows) >= 2 * made_for:
            return int(slot.array[0]), int(slot.index[0])
    return None


def _ends(slots: Slots6) -> tuple[Keys, Keys]:
    """The first and last address of each slot."""
    items = slots.items
    return (
        keys6(np.where(items.is_tail, items.high, items.first), np.where(items.is_tail, items.first, np.uint64(0))),
        keys6(np.where(items.is_tail, items.high, items.last), np.where(items.is_tail, items.last, _LAST)),
    )


def _encode(
    slots: Slots6, rows: Rows6, begin: Int, end: Int, allocators: Mapping[str, Allocator], patch: Patch
) -> None:
    nodes, buckets, lists = (Taking(allocators[name], patch) for name in ("nodes6", "buckets6", "lists6"))
    rooms = Rooms6(nodes, buckets, lists, patch.fills)
    few = np.where((slots.array == ROOT) | (slots.array == LISTS), FEW_SEGMENTS, MANY_SEGMENTS)
    is_tail = slots.items.is_tail
    words = np.zeros(len(slots), np.uint32)
    if is_tail.any():
        words[is_tail] = Forest6(rows.low, rows.value, rooms).words(
            begin[is_tail], end[is_tail], slots.nodes[is_tail], few[is_tail]
        )
    if not is_tail.all():
        words[~is_tail] = _top_words(slots[~is_tail], rows, begin[~is_tail], end[~is_tail], few[~is_tail], rooms)
    for number, name in enumerate(ARRAYS):
        there = slots.array == number
        if there.any():
            patch.points[name] = [Points(slots.index[there], words[there])]


def _top_words(slots: Slots6, rows: Rows6, begin: Int, end: Int, few: Int, rooms: Rooms6) -> U32:
    at = flat_ranges(begin, end - begin)
    first, last = slots.items.first, slots.items.last
    top = top_rows(Rows6(rows.high[at], rows.low[at], rows.value[at]), first, last, rooms)
    begin = np.searchsorted(top.high, first)
    return Forest6(top.high, top.value, rooms).words(begin, np.append(begin[1:], len(top.high)), slots.nodes, few)

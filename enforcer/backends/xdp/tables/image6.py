"""IPv6: segments to the words of root6, nodes6, buckets6 and lists6, and the program's look-up in them.

``root[first 16 bits]`` leads to the segments of that /16, by the first 64 bits of the address (the high half). If
segments begin within one value of the high half, that value leads to a *tail*, the segments by the last 64 bits. A
table of prefixes up to /64 has no tails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from enforcer.backends.xdp.tables.classes import Segments6
from enforcer.backends.xdp.tables.forest6 import MOST_NODES, NODE6, Forest6
from enforcer.backends.xdp.tables.format import (
    LEAF,
    NODE,
    PAGE_WORDS,
    ROOT_SHIFT6,
    UNIT6,
    kinds_of,
    rests_of,
    whole_pages,
)
from enforcer.backends.xdp.tables.keys import U16, U32, U64, Int, counts_of, first_of_equals
from enforcer.backends.xdp.tables.read6 import Rows6, read6
from enforcer.backends.xdp.tables.room import BUCKET_UNIT, Fill, Fresh, Rooms6
from enforcer.model.abi import MAX_STEPS6, ROOT_WORDS

__all__ = ["NODE6", "Image6", "Rows6", "build6", "lookup6", "read6", "top_rows"]

_LAST = np.uint64(0xFFFFFFFFFFFFFFFF)
_IN_SLOT = _LAST >> np.uint64(16)  # what a /16 leaves of the high half
_LEAST_NODES = 8


@dataclass(frozen=True)
class Image6:
    """``root``: uint32[65536]; ``nodes``: NODE6[n]; ``buckets``, ``lists``: uint32, whole pages, at least one."""

    root: U32
    nodes: npt.NDArray[Any]
    buckets: U32
    lists: U32


def build6(segments: Segments6) -> Image6:
    """The tables for these segments."""
    nodes, buckets, lists = Fresh(), Fresh(), Fresh()
    rooms = Rooms6(nodes, buckets, lists)
    slot, root = _split_slots(segments), _at_borders(segments)
    if len(slot):
        first = slot.astype(np.uint64) << ROOT_SHIFT6
        rows = top_rows(_of_slots(segments, first), first, first | _IN_SLOT, rooms)
        begin = np.searchsorted(rows.high, first)
        root[slot] = Forest6(rows.high, rows.value, rooms).words(
            begin, counts_of(begin, len(rows.high)) + begin, np.full(len(slot), MOST_NODES)
        )
    return Image6(
        root,
        _filled(rooms.fills.get("nodes6", []), max(nodes.used, _LEAST_NODES) * NODE6.itemsize // 4).view(NODE6),
        _filled(rooms.fills.get("buckets6", []), whole_pages(buckets.used * BUCKET_UNIT)),
        _filled(rooms.fills.get("lists6", []), whole_pages(lists.used * UNIT6 // 4)),
    )


def _filled(fills: list[Fill], words: int) -> U32:
    array = np.zeros(words, np.uint32)
    for fill in fills:
        fill.write(array)
    return array


def _split_slots(segments: Segments6) -> Int:
    """The /16s within which a segment starts."""
    inside = (segments.high & _IN_SLOT != 0) | (segments.low != 0)
    slots = (segments.high[inside] >> ROOT_SHIFT6).astype(np.int64)
    distinct: Int = slots[first_of_equals(slots)]
    return distinct


def _at_borders(segments: Segments6) -> U32:
    """The class of the first address of each /16."""
    inside = (segments.high & _IN_SLOT != 0) | (segments.low != 0)
    first = (segments.high >> ROOT_SHIFT6).astype(np.int64) + inside  # the first border that a segment has
    return np.repeat(segments.cls.astype(np.uint32), counts_of(first, ROOT_WORDS))


def _of_slots(segments: Segments6, first: U64) -> Rows6:
    """The segments of the /16s that start at these high halves, and a row at the start of each."""
    at = np.searchsorted(segments.high, first, side="left")  # the first segment not below first << 64, ...
    inner = np.minimum(at, len(segments) - 1)
    missing = (at == len(segments)) | (segments.high[inner] != first) | (segments.low[inner] != 0)
    at = at[missing]
    cls = segments.cls.astype(np.uint32)
    high = np.insert(segments.high, at, first[missing])
    is_split = np.zeros(ROOT_WORDS, np.bool_)
    is_split[(first >> ROOT_SHIFT6).astype(np.int64)] = True
    keep = is_split[(high >> ROOT_SHIFT6).astype(np.int64)]
    return Rows6(  # ... so the one before holds there
        high[keep],
        np.insert(segments.low, at, np.uint64(0))[keep],
        np.insert(cls, at, cls[at - 1])[keep],
    )


def top_rows(rows: Rows6, first: U64, last: U64, rooms: Rooms6) -> Rows6:
    """The rows of the high half (each ``low`` 0). The other rows become tails, which are linked by their words.

    ``first`` and ``last``: the ranges of ``high`` that the rows cover; each has a row at its start.
    """
    if not rows.low.any():
        return rows
    rows = _led(rows)
    group = np.flatnonzero(first_of_equals(rows.high))
    end = np.append(group[1:], len(rows.high))
    tail = end - group > 1
    words = Forest6(rows.low, rows.value, rooms).words(group[tail], end[tail], np.full(int(tail.sum()), MOST_NODES))
    high, value = rows.high[group], rows.value[group]
    value[tail] = words
    # The value at the end of a tail's /64 also holds after it, unless a row starts there or the range ends.
    ends = last[np.searchsorted(first, high, side="right") - 1]
    goes_on = tail & (high != ends)
    goes_on[:-1] &= high[1:] != high[:-1] + np.uint64(1)
    at = np.flatnonzero(goes_on)
    return Rows6(
        np.insert(high, at + 1, high[at] + np.uint64(1)),
        np.zeros(len(high) + len(at), np.uint64),
        np.insert(value, at + 1, rows.value[end[at] - 1]),
    )


def _led(rows: Rows6) -> Rows6:
    """The rows, and a row at the start of each /64 within which another row starts."""
    at = np.flatnonzero(first_of_equals(rows.high) & (rows.low != 0))
    return Rows6(
        np.insert(rows.high, at, rows.high[at]),
        np.insert(rows.low, at, np.uint64(0)),
        np.insert(rows.value, at, rows.value[at - 1]),
    )


def lookup6(image: Image6, high: U64, low: U64) -> U16:
    """The classes of addresses (two halves, host order), computed in the same steps as in the program."""
    words, key = image.root[(high >> ROOT_SHIFT6).astype(np.int64)], high.copy()
    found = np.zeros(len(high), np.uint32)
    left = np.arange(len(high))
    for _ in range(MAX_STEPS6):
        leaf = kinds_of(words[left]) == LEAF
        found[left[leaf]] = words[left[leaf]] & np.uint32(0xFFFF)
        left = left[~leaf]
        if not len(left):
            break
        is_node = kinds_of(words[left]) == NODE
        nodes, lists = left[is_node], left[~is_node]
        words[nodes] = _bucket(image, rests_of(words[nodes]), key[nodes])
        words[lists] = _search(image.lists, words[lists], key[lists])
        key[lists] = low[lists]
    return found.astype(np.uint16)


def _bucket(image: Image6, number: Int, key: U64) -> U32:
    there = number < len(image.nodes)
    node = image.nodes[np.where(there, number, 0)]
    at = np.minimum((key - node["low"]) >> (node["shift"].astype(np.uint64) & np.uint64(63)), node["last"])
    at = at.astype(np.int64) + node["base"]
    inside = at < len(image.buckets)
    word = np.where(inside, image.buckets[np.where(inside, at, 0)], np.uint32(0))
    return np.where(there, np.where(key < node["low"], node["below"], word), np.uint32(0))


def _search(lists: U32, words: U32, key: U64) -> U32:
    kinds, rest = kinds_of(words), rests_of(words)
    element, offset = rest // (PAGE_WORDS // 16), rest % (PAGE_WORDS // 16) * 16
    there = element < len(lists) // PAGE_WORDS
    page = np.where(there, element, 0) * PAGE_WORDS
    starts = lists.view(np.uint64)
    at, step = np.zeros(len(words), np.int64), np.left_shift(1, kinds)
    while step.any():
        start = starts[(page + (offset + 2 * (at + step)) % PAGE_WORDS) // 2]
        at += np.where(start <= key, step, 0)
        step >>= 1
    value = lists[page + (offset + np.left_shift(4, kinds) + at) % PAGE_WORDS]
    return np.where(there, value, np.uint32(0))

"""Changes the IPv4 tables in use: whole /16s, each with one store to its word of the root.

Around that store, the sieve has the bits of all addresses that have a class before or after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from enforcer.backends.xdp.tables.allocator import Allocator
from enforcer.backends.xdp.tables.edits import Edit
from enforcer.backends.xdp.tables.format import LEAF, PAGE_WORDS, ROOT_SHIFT4, UNIT4, NotOurs, kinds_of, rests_of
from enforcer.backends.xdp.tables.image4 import Slots4, decode4, encode4, list_kinds4, list_units4, sieve4
from enforcer.backends.xdp.tables.keys import U32, Int, Keys, counts_of, distinct, flat_ranges
from enforcer.backends.xdp.tables.patch import Patch, Points, Taking, changed_units
from enforcer.backends.xdp.tables.room import Blocks, Fill
from enforcer.model.abi import ROOT_WORDS

_UNIT_WORDS = UNIT4 // 4


def allocator4(root: U32, lists: U32) -> Allocator:
    """An allocator that knows the lists the root leads to. Raises NotOurs if they overlap or are outside the array."""
    words = np.array(root)
    if len(words) != ROOT_WORDS:
        raise NotOurs(f"root4: expected {ROOT_WORDS} words, found {len(words)}")
    return Allocator("lists4", len(lists) // PAGE_WORDS * PAGE_WORDS // _UNIT_WORDS, [_blocks(words)])


def _blocks(words: U32) -> Blocks:
    listed = words[kinds_of(words) != LEAF]
    return Blocks(rests_of(listed), list_units4(kinds_of(listed)))


def plan4(
    sieve: U32,
    root: U32,
    lists: U32,
    allocator: Allocator,
    edits: Sequence[Edit],
    first: Keys,
    last: Keys,
    patch: Patch,
) -> None:
    """Add these edits, all within the ranges ``[first, last]``, to the patch. Raises Full."""
    begin = (first >> ROOT_SHIFT4).astype(np.int64)
    slot = distinct(flat_ranges(begin, (last >> ROOT_SHIFT4).astype(np.int64) - begin + 1))
    old = decode4(root, lists, slot)
    unit_first = slot.astype(np.uint32) << ROOT_SHIFT4
    start, value = old.start, old.cls.astype(np.uint32)
    for edit in edits:
        start, value = edit.applied(start, value, unit_first, unit_first | np.uint32(0xFFFF))
    patch.classes.update(distinct(value).tolist())
    at = changed_units(unit_first, (old.start, old.cls), (start, value))
    if len(at):
        new = _slots(slot, at, start, value)
        patch.freed["lists4"] = [_blocks(root[new.slot])]
        _encode(new, allocator, patch)
        _sift(sieve, new, patch)


def _slots(slot: Int, at: Int, start: U32, value: U32) -> Slots4:
    first = np.searchsorted(start, slot.astype(np.uint32) << ROOT_SHIFT4)
    count = counts_of(first, len(start))
    if len(at) < len(slot):
        rows = flat_ranges(first[at], count[at])
        start, value, count, slot = start[rows], value[rows], count[at], slot[at]
    return Slots4(slot, count, start, value.astype(np.uint16))


def _encode(slots: Slots4, allocator: Allocator, patch: Patch) -> None:
    kinds = list_kinds4(slots)
    listed = kinds != LEAF
    offsets = np.zeros_like(kinds)
    offsets[listed] = Taking(allocator, patch).take(list_units4(kinds[listed]))
    words, places, values = encode4(slots, kinds, offsets)
    patch.fills["lists4"] = [Fill(places, values[:, None])]
    patch.points["root4"] = [Points(slots.slot, words)]


def _sift(sieve: U32, slots: Slots4, patch: Patch) -> None:
    """Set bits of the sieve before any word leads to a class, and clear bits only after no word does."""
    at = flat_ranges(2 * slots.slot, np.full(len(slots.slot), 2))
    old, new = sieve[at], sieve4(slots)
    more, fewer = np.flatnonzero(new & ~old), np.flatnonzero(old & ~new)
    if len(more):
        patch.fills["sieve4"] = [Fill(at[more], (old | new)[more][:, None])]
    if len(fewer):
        patch.points["sieve4"] = [Points(at[fewer], new[fewer])]

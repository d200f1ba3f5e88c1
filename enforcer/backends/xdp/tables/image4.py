"""IPv4: segments to the words of sieve4, root4 and lists4, and back.

The sieve has a bit for each /22: whether any of its addresses has another class than 0. ``root[address >> 16]`` is a
class or leads to the list of segments of that /16. Lists are sorted by size, largest first, so each is aligned to its
size: no list crosses a page, and none of up to 16 segments crosses a cache line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enforcer.backends.xdp.tables.classes import Segments4
from enforcer.backends.xdp.tables.format import (
    LEAF,
    MOST_CLASS,
    PAGE_WORDS,
    ROOT_SHIFT4,
    SEGMENT_SHIFT4,
    UNIT4,
    NotOurs,
    kinds_for,
    kinds_of,
    list_words,
    rests_of,
    whole_pages,
)
from enforcer.backends.xdp.tables.keys import (
    U16,
    U32,
    Int,
    counts_of,
    first_of_equals,
    flat_ranges,
    last_of_equals,
)
from enforcer.model.abi import LARGEST_KIND4, ROOT_WORDS

_LOW = np.uint32(0xFFFF)
_BLOCK = np.uint32(10)  # a /22, as a shift
_EVERY = np.uint64(0xFFFFFFFFFFFFFFFF)
_HALF = np.uint64(32)
_UNIT_WORDS = UNIT4 // 4


@dataclass(frozen=True)
class Image4:
    """``sieve``: uint32[131072]; ``root``: uint32[65536]; ``lists``: uint32, whole pages, at least one."""

    sieve: U32
    root: U32
    lists: U32


@dataclass(frozen=True)
class Slots4:
    """The segments of some /16s, concatenated: ``slot[i]`` has ``count[i]``, the first at the start of the /16."""

    slot: Int
    count: Int
    start: U32
    cls: U16


def build4(segments: Segments4) -> Image4:
    """The tables for these segments."""
    slots, leaves = _split(segments), _at_borders(segments)
    kinds = list_kinds4(slots)
    units = list_units4(kinds)
    order = np.argsort(-units, kind="stable")
    offsets = np.empty_like(units)
    offsets[order] = np.cumsum(units[order]) - units[order]
    lists = np.zeros(whole_pages(int(units.sum()) * _UNIT_WORDS), np.uint32)
    words, at, values = encode4(slots, kinds, offsets)
    lists[at] = values
    root = leaves.astype(np.uint32)
    root[slots.slot] = words
    return Image4(_sieve(slots, leaves), root, lists)


def _sieve(slots: Slots4, leaves: U16) -> U32:
    """That of all /16s. ``leaves``: the classes of those that are not among the slots."""
    bits = np.where(leaves != 0, _EVERY, np.uint64(0)).view(np.uint32)
    if len(slots.slot):
        bits.reshape(-1, 2)[slots.slot] = sieve4(slots).reshape(-1, 2)
    return bits


def sieve4(slots: Slots4) -> U32:
    """Two words of the sieve for each slot. Bit b of word w is for the /22 at ``w << 15 | b << 10``."""
    first = np.cumsum(slots.count) - slots.count
    last = np.append(slots.start[1:], np.uint32(0)) - np.uint32(1)  # the last address of each segment
    low, high = ((at & _LOW) >> _BLOCK for at in (slots.start, last))
    blocks = (_EVERY << low.astype(np.uint64)) & (_EVERY >> (np.uint64(63) - high))
    bits = np.bitwise_or.reduceat(np.where(slots.cls != 0, blocks, np.uint64(0)), first)
    return np.column_stack([bits, bits >> _HALF]).astype(np.uint32).reshape(-1)


def holds4(sieve: U32, segments: Segments4) -> bool:
    """Whether a sieve has the bits of all addresses with a class. An interrupted change may leave more bits."""
    wanted = _sieve(_split(segments), _at_borders(segments))
    return len(sieve) == len(wanted) and not (wanted & ~sieve).any()


def list_kinds4(slots: Slots4) -> Int:
    """The kind of word that each slot needs: LEAF, or that of a list."""
    return np.where(slots.count == 1, LEAF, kinds_for(slots.count))


def list_units4(kinds: Int) -> Int:
    """The size of lists of these kinds, in units of 16 bytes."""
    return np.left_shift(1, kinds) >> 1


def encode4(slots: Slots4, kinds: Int, offsets: Int) -> tuple[U32, Int, U32]:
    """Words of the root, and what to write to the lists: ``(words[slots], places, values)``.

    ``offsets[i]``: the offset of slot i's list, in units of 16 bytes; ignored for a leaf.
    """
    first = np.cumsum(slots.count) - slots.count
    words = np.where(kinds == LEAF, slots.cls[first].astype(np.uint32), list_words(kinds, offsets))
    listed = np.flatnonzero(kinds != LEAF)
    size = np.left_shift(2, kinds[listed])
    count = slots.count[listed]
    segments = (slots.start << SEGMENT_SHIFT4) | slots.cls
    if len(listed) < len(kinds):
        segments = segments[flat_ranges(first[listed], count)]
    # Each list is its segments, padded by repeating the last one.
    repeats = np.ones(len(segments), np.int64)
    repeats[np.cumsum(count) - 1] += size - count
    return words, flat_ranges(offsets[listed] * _UNIT_WORDS, size), np.repeat(segments, repeats)


def _split(segments: Segments4) -> Slots4:
    """The /16s within which a segment starts. A segment that extends into one of them is split at its start."""
    is_split = np.zeros(ROOT_WORDS, np.bool_)
    is_split[segments.start[(segments.start & _LOW) != 0] >> ROOT_SHIFT4] = True
    slot = np.flatnonzero(is_split)
    borders = slot.astype(np.uint32) << ROOT_SHIFT4
    at = np.searchsorted(segments.start, borders, side="right") - 1
    missing = segments.start[at] != borders
    start = np.insert(segments.start, at[missing] + 1, borders[missing])
    cls = np.insert(segments.cls, at[missing] + 1, segments.cls[at[missing]])
    if len(slot) < ROOT_WORDS:
        keep = is_split[start >> ROOT_SHIFT4]
        start, cls = start[keep], cls[keep]
    begin = np.searchsorted(start, borders)
    return Slots4(slot, counts_of(begin, len(start)), start, cls)


def _at_borders(segments: Segments4) -> U16:
    """The class of the first address of each /16."""
    first = (segments.start >> ROOT_SHIFT4) + ((segments.start & _LOW) != 0)  # the first border that a segment has
    return np.repeat(segments.cls, counts_of(first, ROOT_WORDS))


def read4(root: U32, lists: U32) -> Segments4:
    """The segments in the tables. Raises NotOurs (a ValueError) for content that this package never writes."""
    if len(root) != ROOT_WORDS:
        raise NotOurs(f"root4: expected {ROOT_WORDS} words, found {len(root)}")
    words = np.array(root)  # a copy, which cannot change meanwhile
    leaf = kinds_of(words) == LEAF
    if (words[leaf] > MOST_CLASS).any():
        raise NotOurs("root4: a class beyond 65,535")
    slots = decode4(words, lists, np.flatnonzero(~leaf))
    at = np.flatnonzero(leaf & first_of_equals(words))
    start = np.concatenate([at.astype(np.uint32) << ROOT_SHIFT4, slots.start])
    cls = np.concatenate([words[at].astype(np.uint16), slots.cls])
    order = np.argsort(start, kind="stable")
    start, cls = start[order], cls[order]
    changes = first_of_equals(cls)
    return Segments4(start[changes], cls[changes])


def decode4(root: U32, lists: U32, slot: Int) -> Slots4:
    """The segments of some /16s (sorted numbers); adjacent ones differ. Raises NotOurs like :func:`read4`."""
    words = np.ascontiguousarray(root[slot])  # a copy, which cannot change meanwhile
    kinds = kinds_of(words)
    leaf = kinds == LEAF
    size = np.where(leaf, 1, np.left_shift(2, kinds))
    begin = np.where(leaf, 0, rests_of(words) * _UNIT_WORDS)
    if (words[leaf] > MOST_CLASS).any():
        raise NotOurs("root4: a class beyond 65,535")
    if (begin % size != 0).any() or (begin[~leaf] + size[~leaf] > len(lists)).any():
        raise NotOurs("root4: a list that is not within the pages, or not aligned to its size")
    if size.sum() > len(lists) + len(words):
        raise NotOurs("root4: lists that overlap")
    first = np.cumsum(size) - size
    entries = lists[flat_ranges(begin, size)] if len(lists) else np.zeros(int(size.sum()), np.uint32)
    entries[first[leaf]] = words[leaf]
    if (entries[first] > MOST_CLASS).any():
        raise NotOurs("lists4: a list that does not start with 0")
    return _decoded(slot, size, entries)


def _decoded(slot: Int, size: Int, entries: U32) -> Slots4:
    base = np.repeat(slot.astype(np.uint32) << ROOT_SHIFT4, size)
    start, cls = base | entries >> SEGMENT_SHIFT4, (entries & _LOW).astype(np.uint16)
    if (start[1:] < start[:-1]).any():
        raise NotOurs("lists4: a list that is not sorted")
    keep = last_of_equals(start)
    start, cls, owner = start[keep], cls[keep], np.repeat(np.arange(len(slot)), size)[keep]
    keep = first_of_equals(owner) | first_of_equals(cls)
    return Slots4(slot, np.bincount(owner[keep], minlength=len(slot)), start[keep], cls[keep])


def lookup4(sieve: U32, root: U32, lists: U32, addresses: U32) -> U16:
    """The classes of addresses (host order), computed in the same steps as in the program."""
    passed = sieve[addresses >> np.uint32(15)] >> (addresses >> _BLOCK & np.uint32(31)) & np.uint32(1)
    return np.where(passed, _lookup(root, lists, addresses), 0).astype(np.uint16)


def _lookup(root: U32, lists: U32, addresses: U32) -> U16:
    words = root[addresses >> ROOT_SHIFT4]
    kinds, low = kinds_of(words), addresses & _LOW
    leaf = kinds == LEAF
    page = rests_of(words) * _UNIT_WORDS // PAGE_WORDS * PAGE_WORDS
    offset = rests_of(words) * _UNIT_WORDS % PAGE_WORDS
    outside = ~leaf & (page >= len(lists))  # the map has no such element
    page[leaf | outside] = 0
    lists = lists if len(lists) else np.zeros(PAGE_WORDS, np.uint32)
    at = np.zeros(len(words), np.int64)
    step = np.left_shift(1, kinds)
    for _ in range(LARGEST_KIND4 + 1):
        there = lists[page + (offset + at + step) % PAGE_WORDS]
        at += np.where(there >> SEGMENT_SHIFT4 <= low, step, 0)
        step >>= 1
    found = lists[page + (offset + at) % PAGE_WORDS] & _LOW
    return np.where(outside, 0, np.where(leaf, words & _LOW, found)).astype(np.uint16)

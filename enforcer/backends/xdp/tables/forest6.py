"""From ranges of 64-bit keys to nodes, buckets and lists: one routine for both halves of IPv6 addresses.

A *tree* is a slice of sorted rows (key, value): the value of the first row holds from the start of the tree; each
further row is a boundary. A value is a word: a class, or a link to the low half of the address. All trees of a level
are built at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enforcer.backends.xdp.tables.format import LEAF, NODE, kinds_for, kinds_of, list_words
from enforcer.backends.xdp.tables.keys import U32, U64, Int, flat_ranges
from enforcer.backends.xdp.tables.room import BUCKET_UNIT, NODE_WORDS, Fill, Full, Rooms6, power_of_two
from enforcer.model import abi
from enforcer.model.abi import LARGEST_KIND6

NODE6 = np.dtype(abi.NODE6)

# A list of 8 segments takes two cache lines, as many as a node and its bucket, so a node saves nothing below that.
FEW_SEGMENTS = 8
MANY_SEGMENTS = 16  # more in one bucket: a node
MOST_NODES = 4  # nested, then a list: 10 steps for both halves; the program can take 11


@dataclass(frozen=True)
class Forest6:
    """Builds the words of trees over the same rows: ``key`` uint64[n], ``value`` uint32[n]."""

    key: U64
    value: U32
    rooms: Rooms6

    def words(self, begin: Int, end: Int, nodes: Int, few: Int | int = FEW_SEGMENTS) -> U32:
        """A word for each tree ``[begin[i], end[i])``, with at most ``nodes[i]`` nested nodes.

        Up to ``few`` segments always become a list. What to write is added to ``rooms.fills``. Raises Full.
        """
        count = end - begin
        # Only a list may link to the other half; the word of a bucket may not.
        leaf = (count == 1) & (kinds_of(self.value[begin]) == LEAF)
        node = (count > few) & (nodes > 0)
        words = self.value[begin]
        for chosen, make in ((~leaf & ~node, self._lists), (node, self._nodes)):
            at = np.flatnonzero(chosen)
            if len(at):
                words[at] = make(begin[at], end[at], nodes[at])
        return words

    def _lists(self, begin: Int, end: Int, _: Int) -> U32:
        kinds = kinds_for(end - begin)
        if int(kinds.max()) > LARGEST_KIND6:  # not when built anew: four nodes leave at most 4,096 keys to a list
            raise Full(f"lists6: {int((end - begin).max())} segments in one list; the limit is 16,384")
        offsets = self.rooms.lists.take(np.left_shift(1, kinds) >> 1)
        for kind in range(int(kinds.min()), int(kinds.max()) + 1):
            at = np.flatnonzero(kinds == kind)
            if len(at):
                rows = np.minimum(begin[at, None] + np.arange(2 << kind), end[at, None] - 1)
                content = np.zeros((len(at), 8 << kind), np.uint32)
                content.view(np.uint64)[:, : 2 << kind] = self.key[rows]
                content[:, 4 << kind : 6 << kind] = self.value[rows]
                self.rooms.fill("lists6", Fill(offsets[at] >> (kind - 1), content))
        return list_words(kinds, offsets)

    def _nodes(self, begin: Int, end: Int, nodes: Int) -> U32:
        boundaries = end - begin - 1
        low = self.key[begin + 1]
        span = self.key[end - 1] - low
        shift = _shifts(span, boundaries)
        last = (span >> shift).astype(np.int64)
        base = self.rooms.buckets.take(np.maximum(power_of_two(last + 1) // BUCKET_UNIT, 1)) * BUCKET_UNIT
        number = self.rooms.nodes.take(np.ones_like(begin))
        child_begin, child_end = self._buckets(begin + 1, boundaries, low, shift, last + 1)
        words = self.words(
            np.concatenate([child_begin, begin]),
            np.concatenate([child_end, begin + 1]),  # below the first boundary
            np.concatenate([np.repeat(nodes, last + 1), nodes]) - 1,
            MANY_SEGMENTS,
        )
        content = np.zeros(len(begin), NODE6)
        content["low"], content["shift"], content["last"], content["base"] = low, shift, last, base
        content["below"] = words[len(child_begin) :]
        self.rooms.fill("nodes6", Fill(number, content.view(np.uint32).reshape(-1, NODE_WORDS)))
        self.rooms.fill("buckets6", Fill(flat_ranges(base, last + 1), words[: len(child_begin), None]))
        return list_words(np.full(len(number), NODE), number)

    def _buckets(self, first: Int, boundaries: Int, low: U64, shift: U64, count: Int) -> tuple[Int, Int]:
        """The rows of each bucket of nodes with these boundaries: slices that begin with the value at its start."""
        ends = np.cumsum(count)
        rows = flat_ranges(first, boundaries)
        node = np.repeat(np.arange(len(first)), boundaries)
        bucket = (ends - count)[node] + ((self.key[rows] - low[node]) >> shift[node]).astype(np.int64)
        filled = np.bincount(bucket, minlength=int(ends[-1]))
        reached = np.cumsum(filled)
        # The first bucket of a node begins with a boundary, so the value at any bucket's start is a row of its node.
        begin = rows[np.maximum(reached - filled, 1) - 1]
        at = np.flatnonzero(filled)
        node = np.repeat(np.arange(len(first)), count)[at]
        start = low[node] + ((at - (ends - count)[node]).astype(np.uint64) << shift[node])
        row = rows[(reached - filled)[at]]
        begin[at] = row - (self.key[row] != start)
        end = begin + 1
        end[at] = row + filled[at]
        return begin, end


def _shifts(span: U64, boundaries: Int) -> U64:
    """The smallest shifts with which there are no more buckets than boundaries."""
    bits = np.frexp(span.astype(np.float64))[1].astype(np.int64) - np.frexp(boundaries.astype(np.float64))[1]
    shift = np.maximum(bits - 1, 0).astype(np.uint64)  # at most one too low
    most = boundaries.astype(np.uint64)
    while (span >> shift >= most).any():
        shift += span >> shift >= most
    return shift

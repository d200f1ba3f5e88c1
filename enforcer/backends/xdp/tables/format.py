"""The format of the address tables (bpf/include/abi.h, "Addresses to classes"), as far as both families share it.

A *slot* contains a word, which is the result or the next step of a look-up for some addresses; the root has one for
each /16. Lists and buckets are in *table pages*, the elements of their maps.
"""

from __future__ import annotations

import numpy as np

from enforcer.backends.xdp.tables.keys import U32, Int
from enforcer.model import abi

KIND_SHIFT = np.uint32(abi.WORD_KIND_SHIFT)
REST = np.uint32((1 << abi.WORD_KIND_SHIFT) - 1)
LEAF, NODE = abi.WORD_LEAF, abi.WORD_NODE  # kinds of a word; any other is a list of 2 << kind segments
MOST_CLASS = 0xFFFF

PAGE_WORDS = abi.TABLE_PAGE_BYTES // 4
UNIT4, UNIT6 = 1 << abi.UNIT_SHIFT4, 1 << abi.UNIT_SHIFT6  # the unit of list offsets, in bytes
ROOT_SHIFT4, ROOT_SHIFT6 = np.uint32(abi.ROOT_SHIFT4), np.uint64(abi.ROOT_SHIFT6)
SEGMENT_SHIFT4 = np.uint32(abi.SEGMENT_SHIFT4)


class NotOurs(ValueError):
    """The tables have content that this package never writes."""


def kinds_of(words: U32) -> Int:
    return (words >> KIND_SHIFT).astype(np.int64)


def rests_of(words: U32) -> Int:
    return (words & REST).astype(np.int64)


def list_words(kinds: Int, offsets: Int) -> U32:
    """Words for lists (or nodes) at these offsets, counted in the units of the family."""
    return (kinds << abi.WORD_KIND_SHIFT | offsets).astype(np.uint32)


def kinds_for(segments: Int) -> Int:
    """The smallest kind of list that has room for these numbers of segments."""
    # frexp is exact: the exponent of n - 1 is the number of bits that n - 1 needs.
    bits = np.frexp(np.maximum(segments - 1, 1).astype(np.float64))[1].astype(np.int64)
    return np.maximum(bits - 1, 1)


def whole_pages(words: int) -> int:
    """A number of words rounded up to whole pages, at least one."""
    return max(1, -(-words // PAGE_WORDS)) * PAGE_WORDS

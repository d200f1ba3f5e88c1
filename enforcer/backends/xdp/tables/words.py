"""The words of bpf/include/abi.h, "Addresses to classes": constants of the ABI, and what both families share."""

from __future__ import annotations

import numpy as np

from enforcer.backends.xdp.tables.keys import U32, Int

KIND_SHIFT = np.uint32(28)
REST = np.uint32(0x0FFFFFFF)
LEAF, NODE = 0, 15  # kinds of a word; any other is a list of 2 << kind segments
MOST_CLASS = 0xFFFF

PAGE_OCTETS = 1 << 18
PAGE_WORDS = PAGE_OCTETS // 4
ROOT_WORDS = 1 << 16
LARGEST_KIND4, LARGEST_KIND6 = 15, 13
MAX_STEPS6 = 12
UNIT4, UNIT6 = 16, 64  # octets: what the offset of a list counts


class NotOurs(ValueError):
    """What is in the tables cannot have been written by this module."""


def kinds_of(words: U32) -> Int:
    return (words >> KIND_SHIFT).astype(np.int64)


def rests_of(words: U32) -> Int:
    return (words & REST).astype(np.int64)


def list_words(kinds: Int, offsets: Int) -> U32:
    """Words for lists (or nodes) at these offsets, counted in the units of the family."""
    return (kinds << 28 | offsets).astype(np.uint32)


def kinds_for(segments: Int) -> Int:
    """The smallest kind of list that holds so many segments."""
    # frexp is exact: the exponent of n - 1 is the number of bits that n - 1 needs.
    bits = np.frexp(np.maximum(segments - 1, 1).astype(np.float64))[1].astype(np.int64)
    return np.maximum(bits - 1, 1)


def whole_pages(words: int) -> int:
    """So many words rounded up to pages; one page at least."""
    return max(1, -(-words // PAGE_WORDS)) * PAGE_WORDS
